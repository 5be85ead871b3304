"""Necks: from a backbone's maps to pyramid levels. To add one, write its file and a row here."""

NECKS = {
    "ssd": "fssd.necks.ssd:SSD",
    "fssd": "fssd.necks.fssd:FSSD",
    "fpn": "fssd.necks.fpn:FPN",
    "rssd": "fssd.necks.rssd:RSSD",
    "resskip": "fssd.necks.resskip:ResSkip",
    "blitznet": "fssd.necks.resskip:BlitzNet",
    "single": "fssd.necks.single:Single",
    "dsod": "fssd.necks.dsod:DSOD",
    "dssd": "fssd.necks.dssd:DSSD",
    "yolov2": "fssd.necks.yolov2:YOLOv2",
}
"""The class of each name, imported when it is asked for. Model names begin with one: fssd300-lite."""
