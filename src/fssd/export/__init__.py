"""Trained models as files for other runtimes, checked against PyTorch before they take their name."""
