import json
import sys

import numpy as np
import onnxruntime
from PIL import Image

session = onnxruntime.InferenceSession(sys.argv[1])
classes = json.loads(session.get_modelmeta().custom_metadata_map["fssd"])["classes"]
_, height, width, _ = session.get_inputs()[0].shape
image = (
    Image.open(sys.argv[2])
    .convert("RGB")
    .resize((width, height), Image.Resampling.BILINEAR, reducing_gap=None)
)
boxes, scores, labels, count = session.run(None, {"images": np.asarray(image)[None]})
for box, score, label in zip(boxes[0][: count[0]], scores[0], labels[0], strict=False):
    print(classes[label], f"{score:.3f}", *(f"{side:.1f}" for side in box))
