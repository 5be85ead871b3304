"""Heads: from pyramid levels to predictions, targets, loss and detections. To add one, write its file and a
row here."""

HEADS = {
    "multibox": "fssd.heads.multibox.multibox_head:MultiboxHead",
    "yolov2": "fssd.heads.yolov2.yolov2_head:YOLOv2Head",
}
"""The class of each name, imported when it is asked for."""
