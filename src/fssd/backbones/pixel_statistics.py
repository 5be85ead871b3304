"""What backbones were pretrained on: mean and standard deviation of their images, RGB, 0..255."""

from __future__ import annotations

CAFFE_MEAN = (123.0, 117.0, 104.0)  # of Caffe's models, which have BGR 104, 117, 123 and no deviation
TORCHVISION_MEAN = (123.675, 116.28, 103.53)  # 255 * (0.485, 0.456, 0.406)
TORCHVISION_STD = (58.395, 57.12, 57.375)  # 255 * (0.229, 0.224, 0.225)
