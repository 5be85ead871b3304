"""YOLOv2's head: position, size, objectness and classes for each of five anchors in every cell of a map."""
