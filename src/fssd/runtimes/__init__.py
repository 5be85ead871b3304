"""What computes detections: the PyTorch network itself, or an exported file in its runtime."""
