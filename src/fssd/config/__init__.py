"""Settings of a training: their types and bounds, the files that hold them, and what fits together."""
