"""Formats that labels are written in. To add one, write its file and a row here."""

from fssd.data.writers.to_coco import COCO_WRITER
from fssd.data.writers.to_createml import CREATEML_WRITER
from fssd.data.writers.to_cvat import CVAT_WRITER
from fssd.data.writers.to_label_studio import LABEL_STUDIO_WRITER
from fssd.data.writers.to_labelme import LABELME_WRITER
from fssd.data.writers.to_voc import VOC_WRITER
from fssd.data.writers.to_yolo import YOLO_WRITER
from fssd.data.writers.writer import Writer

_ALL = (
    VOC_WRITER,
    YOLO_WRITER,
    COCO_WRITER,
    LABELME_WRITER,
    CVAT_WRITER,
    LABEL_STUDIO_WRITER,
    CREATEML_WRITER,
)
WRITERS: dict[str, Writer] = {writer.name: writer for writer in _ALL}
"""Every format by the name that `--to` has for it."""
