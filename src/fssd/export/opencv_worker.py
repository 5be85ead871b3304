"""Run as a program: what OpenCV's DNN module computes with an ONNX file. It imports nothing of fssd.

    python opencv_worker.py MODEL.onnx images.npy outputs.npz NAME...

images: (B, H, W, 3) uint8. NAME: of the outputs, which are stored in this order.
"""

import sys

import cv2
import numpy as np


def main(model: str, images: str, outputs: str, *names: str) -> None:
    """See above."""
    net = cv2.dnn.readNetFromONNX(model)
    net.setInput(np.load(images), "images")
    np.savez(outputs, *net.forward(list(names)))


if __name__ == "__main__":
    main(*sys.argv[1:])
