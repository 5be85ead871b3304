import sys

import cv2

net = cv2.dnn.readNetFromONNX(sys.argv[1])
side = int(sys.argv[3])  # of the input, which the model's description names
image = cv2.resize(cv2.imread(sys.argv[2]), (side, side))
net.setInput(cv2.cvtColor(image, cv2.COLOR_BGR2RGB)[None], "images")
boxes, scores, labels, count = net.forward(["boxes", "scores", "labels", "count"])
for box, score, label in zip(boxes[0][: int(count[0])], scores[0], labels[0], strict=False):
    print(label, f"{score:.3f}", *(f"{side:.1f}" for side in box))
