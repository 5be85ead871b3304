"""Backbones: from images to named feature maps. To add one, write its file and a row here."""

BACKBONES = {
    "vgg16": "fssd.backbones.vgg:VGG16Reduced",
    "lite": "fssd.backbones.efficientnet_lite:EfficientNetLite0",
    "darknet19": "fssd.backbones.darknet:Darknet19",
}
"""The class of each name, imported when it is asked for."""
