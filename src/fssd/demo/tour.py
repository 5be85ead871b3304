"""The demonstration: a packaged model on two photographs, then three minutes of training on digit scenes."""

import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console

from fssd.atomic import make_folder
from fssd.config.config_files import load_config
from fssd.config.run_files import CONFIG_FILE
from fssd.config.train_config import TrainConfig
from fssd.data.decode import read_image
from fssd.data.sample import DataSet, Image
from fssd.data.scenes import make_scenes
from fssd.data.source import open_data
from fssd.evaluation.evaluate import Report, evaluate_detections
from fssd.inference.detections import draw_detections
from fssd.inference.detector import Detector
from fssd.inference.draw import class_colour, draw_boxes, write_jpeg
from fssd.model.build import build_model
from fssd.training.log import LOG_FILE
from fssd.training.loop import train
from fssd.weights.pretrained import load_backbone
from fssd.zoo.models import PHOTOS, packaged_model

SECONDS = 180  # of training
ITERATIONS = (40, 260)  # fewer learn nothing; more are not needed for a demonstration
BATCH_SIZE = 8
RATE = 0.06
SHOWN = 12  # scenes in the picture
COLUMNS = 6


def demo(
    out: Path, *, iterations: int | None = None, scenes: int = 600, console: Console | None = None
) -> None:
    """Detect in two photographs; make `scenes` digit scenes in out/scenes, train fssd300-lite on them, and
    measure it on unseen ones.

    iterations: None for as many as fit into `SECONDS` on this machine. A run that was interrupted is resumed.
    Raises ConfigError if an optional package is missing.
    """
    console = console or Console(highlight=False, soft_wrap=True)
    detect_in_photographs(out / "photos", console)
    folder = make_scenes(out / "scenes", train=scenes, val=max(scenes // 4, 1))
    console.print(f"digit scenes: {folder}")
    val = open_data(folder, "val")
    network = build_model("fssd300-lite", len(val.classes))
    load_backbone(network, None)
    before = _measure(Detector(network, val.classes), val)
    console.print(f"mAP before training (voc12, IoU 0.5): {before.map:.4f}")
    config = _training(folder, out / "run")
    result = train(replace(config, iterations=iterations or length_of(config, console)), resume=True)
    assert result.model is not None  # no time limit was set, so the run went to its end
    detector = Detector.load(result.model)
    after = _measure(detector, val)
    console.print(after.table())
    picture = out / "detections.jpg"
    write_jpeg(picture, picture_of(detector, val))
    console.print(f"mAP before training {before.map:.4f}, after {after.map:.4f} (voc12, IoU 0.5)")
    console.print(f"picture: {picture}  (rows in turn: truth, detections)")
    console.print(f"model:   {result.model}")


def _training(data: Path, out: Path) -> TrainConfig:
    """Many small updates at a high learning rate, which cosine lowers to zero; no augmentation, because it
    helps in long runs only, and a mirrored 2 is no 2.
    """
    return TrainConfig(
        model="fssd300-lite",
        data=data,
        out=out,
        val_split=None,
        batch_size=BATCH_SIZE,
        lr=RATE,
        warmup=30,
        ema=0.98,
        augment="none",
        save_every=60,
    )


def measured_rate(config: TrainConfig) -> float:
    """Images a second of a few updates of the training that `config` describes, in a folder of its own.

    The first updates are left out: they also start the loader and compile the kernels.
    """
    with tempfile.TemporaryDirectory() as folder:
        train(replace(config, out=Path(folder), iterations=12, log_every=6))
        last = (Path(folder) / LOG_FILE).read_text(encoding="utf-8").splitlines()[-1]
    return float(json.loads(last)["images_per_second"])


def length_of(
    config: TrainConfig, console: Console, rate_of: Callable[[TrainConfig], float] = measured_rate
) -> int:
    """Updates of the demonstration: those of the run that is resumed, or as many as fit into `SECONDS`."""
    assert config.out is not None
    started = config.out / CONFIG_FILE
    if started.is_file() and (iterations := load_config(started).iterations):
        return iterations
    console.print("measuring the speed of this machine in 12 updates")
    rate = rate_of(config)
    least, most = ITERATIONS
    updates = min(max(round(SECONDS * rate / config.batch_size), least), most)
    seconds = updates * config.batch_size / rate
    console.print(f"{rate:.1f} images/s: {updates} updates, about {seconds / 60:.1f} minutes of training")
    return updates


def detect_in_photographs(folder: Path, console: Console) -> list[Path]:
    """Draw what the packaged model finds in the photographs beside it into `folder`; return the pictures."""
    make_folder(folder)
    detector = Detector.load(packaged_model("animals"))
    drawn = []
    for file in PHOTOS:
        found = detector(file)
        names = [f"{name} {score:.2f}" for name, score in zip(found.names, found.scores, strict=True)]
        console.print(f"the packaged model finds in {file.name}: {', '.join(names) or 'nothing'}")
        drawn.append(folder / file.name)
        write_jpeg(drawn[-1], found.draw())
    console.print(f"pictures: {folder}")
    return drawn


def picture_of(detector: Detector, dataset: DataSet, score: float = 0.2) -> Image:
    """The first scenes side by side, in rows: their labels drawn, and below them the detections.

    score: low, because after minutes of training the scores of correct detections are still low.
    """
    truths, founds = [], []
    for record in dataset.records[:SHOWN]:
        image = read_image(record.path)
        names = [dataset.classes[label] for label in record.labels]
        colours = [class_colour(int(label)) for label in record.labels]
        truths.append(draw_boxes(image, record.boxes, names, colours))
        founds.append(draw_detections(image, detector(image, score=score)))
    rows = []
    for start in range(0, len(truths), COLUMNS):
        rows += [_row(truths[start : start + COLUMNS]), _row(founds[start : start + COLUMNS])]
    return np.vstack(rows)


def _row(images: list[Image]) -> Image:
    """Images of one size side by side, padded with black ones to `COLUMNS`."""
    return np.hstack([*images, *[np.zeros_like(images[0])] * (COLUMNS - len(images))])


def _measure(detector: Detector, dataset: DataSet) -> Report:
    return evaluate_detections(dataset, list(detector.evaluate_on(dataset, workers=1)), "voc12")
