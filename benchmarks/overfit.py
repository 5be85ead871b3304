"""Whether a network can learn at all: it is trained on eight images until it knows them by heart.

    python benchmarks/overfit.py fssd300-vgg16 dssd321-resnet101 --size 160
    python benchmarks/overfit.py yolov2-416 --size 160 --data DATA --set lr=1e-4

Each network is trained from random weights (or those that its package brings) without augmentation. The mAP
is that on the same images, the best of several evaluations. The exit code tells whether all reached --enough.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from fssd.atomic import atomic_write
from fssd.cli.train import parse_options
from fssd.config.settings import with_values
from fssd.config.train_config import TrainConfig
from fssd.data.scenes import make_scenes
from fssd.model.cost import parameters
from fssd.training.loop import train
from fssd.weights.checkpoint import load_model

IMAGES = 8


def main() -> int:
    args = _arguments()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        data = args.data or make_scenes(Path(name) / "scenes", train=IMAGES, val=1)
        for model in args.models:
            out = (args.out or Path(name)) / f"{len(rows)}-{model}"
            rows.append(overfit(model, data, out, args))
            print(json.dumps(rows[-1]), flush=True)
            if args.json is not None:
                atomic_write(args.json, json.dumps(rows, indent=2) + "\n")
    return 0 if all(row["mAP"] >= args.enough for row in rows) else 1


def overfit(model: str, data: Path, out: Path, args: argparse.Namespace) -> dict[str, Any]:
    """The mAP on the training images after the updates that it took."""
    config = TrainConfig(
        model=model,
        data=data,
        out=out,
        size=tuple(args.size),
        train_split="train",
        val_split="train",
        seen_images=True,
        start=args.start,
        augment="none",
        batch_size=args.batch,
        lr=1e-3,
        schedule="constant",
        warmup=20,
        ema=0.0,
        clip_norm=10.0,
        workers=0,
        log_every=25,
        eval_every=args.every * args.batch / IMAGES,
        iterations=args.updates,
    )
    config = with_values(config, {**parse_options(args.set), "options": parse_options(args.options)})
    start = time.monotonic()
    result = train(config)
    return {
        "model": model,
        "size": list(args.size),
        "parameters": parameters(load_model(out).network),
        "updates": args.updates,
        "batch": args.batch,
        "mAP": round(result.best or 0.0, 4),
        "seconds": round(time.monotonic() - start),
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("models", nargs="+")
    parser.add_argument("--data", type=Path, help="a data set of few images; made scenes without it")
    parser.add_argument("--size", type=int, nargs="+", default=[160], help="of the input, pixels")
    parser.add_argument("--start", default="nothing", choices=("nothing", "backbone"))
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--updates", type=int, default=400, help="of the weights")
    parser.add_argument("--every", type=int, default=50, help="updates between two evaluations")
    parser.add_argument("--enough", type=float, default=0.99, help="mAP that all have to reach")
    parser.add_argument("--set", nargs="*", default=[], help="settings of the training, KEY=VALUE")
    parser.add_argument("--options", nargs="*", default=[], help="options of the model, KEY=VALUE")
    parser.add_argument("--out", type=Path, help="folder to keep the runs in")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
