"""Heads: from pyramid levels to predictions, targets, loss and detections. To add one, write its file and a
row here."""

HEADS = {"multibox": "fssd.heads.multibox.head:MultiboxHead"}
"""The class of each name, imported when it is asked for."""
