"""Backbones: from images to named feature maps. To add one, write its file and a row here."""

BACKBONES = {
    "vgg16": "fssd.backbones.vgg:VGG16Reduced",
    "lite": "fssd.backbones.efficientnet_lite:EfficientNetLite0",
    "ds": "fssd.backbones.ds:DS",
    "ds-small": "fssd.backbones.ds:DSSmall",
    "resnet50": "fssd.backbones.resnet:ResNet50",
    "resnet101": "fssd.backbones.resnet:ResNet101",
    "resnet50-caffe": "fssd.backbones.resnet:ResNet50Caffe",
    "resnet101-caffe": "fssd.backbones.resnet:ResNet101Caffe",
    "resnet101-dilated": "fssd.backbones.resnet:ResNet101Dilated",
    "densenet121": "fssd.backbones.densenet:DenseNet121",
    "densenet169": "fssd.backbones.densenet:DenseNet169",
    "mobilenetv1": "fssd.backbones.mobilenet:MobileNetV1",
    "mobilenetv2": "fssd.backbones.mobilenet:MobileNetV2",
    "darknet19": "fssd.backbones.darknet:Darknet19",
}
"""The class of each name, imported when it is asked for."""
