"""Backbones: from images to named feature maps. To add one, write its file and a row here."""

BACKBONES = {
    "vgg16": "fssd.backbones.vgg:VGG16Reduced",
    "lite": "fssd.backbones.efficientnet_lite:EfficientNetLite0",
    "ds": "fssd.backbones.ds:DS",
    "ds-small": "fssd.backbones.ds:DSSmall",
}
"""The class of each name, imported when it is asked for."""
