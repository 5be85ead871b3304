"""Files in the folder of a run: its complete configuration, what --resume goes on from, and its models."""

CONFIG_FILE, STATE_FILE = "config.yaml", "last.safetensors"
BEST_FILE, FINAL_FILE = "best.safetensors", "final.safetensors"
MODEL_FILES = (BEST_FILE, FINAL_FILE)  # in the order of preference
