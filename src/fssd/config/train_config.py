"""The configuration of a training run: one frozen dataclass; every field states its unit and its reason.

`fssd train --config FILE` reads these names from YAML; flags override the file. The resolved configuration is
stored in every checkpoint. This module does not import torch, so that `fssd --help` is fast.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import tyro

from fssd.config.bounds import (
    BelowOne,
    Bound,
    Count,
    Folds,
    Natural,
    NotNegative,
    Portion,
    Positive,
    Seed,
    Share,
)
from fssd.config.readers import words_of
from fssd.errors import shown

Schedule = Literal["multistep", "cosine", "constant"]
Start = Literal["backbone", "ssd", "model", "nothing"]
Optimizer = Literal["sgd", "adam"]
Amp = Literal["auto", "off", "bf16", "fp16"]
Kernels = Literal["default", "deterministic", "benchmark"]
TrainOnly = Literal["all", "new"]
Metric = Literal["voc07", "voc12", "coco"]
Augment = Literal["ssd", "mild", "mirror", "yolo", "none"]
Geometry = Literal["warp", "letterbox"]

AUTO = -(2**31)
"""What the batch size "auto" is read as; training puts a number in its place before anything uses it."""
_AUTO_COUNT = tyro.constructors.PrimitiveConstructorSpec(
    nargs=1,
    metavar="INT|auto",
    instance_from_str=lambda given: AUTO if given[0] == "auto" else int(given[0]),
    is_instance=lambda value: isinstance(value, int),
    str_from_instance=lambda value: ["auto" if value == AUTO else str(value)],
)
BatchCount = Annotated[int, Bound("1 or more, or auto", lambda v: v >= 1 or v == AUTO), _AUTO_COUNT]


@dataclass(frozen=True)
class TrainConfig:
    """Train a detector on your own images.

    Fields that are None take the recipe of the backbone (see `Backbone`): VGG16 the paper's, lite ours.
    From Python, paths may be strings.
    """

    model: str = "fssd300-lite"
    """Network: ssd or fssd, a side in pixels, a backbone: fssd300-lite, ssd300-lite, fssd512-vgg16, ..."""
    size: tuple[int, ...] = ()
    """Input in pixels, a side or WIDTH HEIGHT, 128 to 1,024; () for that of the model's name."""
    geometry: Geometry | None = None
    """How images become the input: "warp" stretches them, as SSD does; "letterbox" keeps the aspect ratio."""
    priors: str | None = None
    """Prior boxes: "voc" or "coco" table, or "fit" to choose them from the boxes of the training split."""
    prior_coverage: Share | None = None
    """With priors "fit": share of the training boxes that must have a prior at IoU 0.5; as many are made."""
    backbone: str | None = None
    """Backbone instead of the model's own: a name, or "package.module:Class" (see docs/backbones.md)."""
    neck: str | None = None
    """Neck instead of the model's own, likewise."""
    data: Path | None = None
    """Data set: a VOC folder, COCO folder or json, YOLO data.yaml, or a YAML that joins several."""
    out: Path | None = None
    """Folder for checkpoints, logs and the resolved configuration."""
    options: tyro.conf.Suppress[Mapping[str, Any]] = field(default_factory=dict)
    """Model options, such as merge: sum or loc_loss: giou (see `fssd.build_model`); flag --set."""
    images: Path | None = None
    """Folder of the pictures, where they do not lie beside their labels."""
    train_split: str | None = "auto"
    """Split to train on; "auto" takes train or what is not for validation and test, "none" all images."""
    val_split: str | None = "auto"
    """Split to evaluate on during training; "auto" takes val if the data set has one and else --val-share of
    the training images, "none" is no evaluation."""
    val_share: BelowOne | None = None
    """Share of the training images to evaluate on instead of a split (0.15 where there is none); images that
    belong together stay together, and each class has its share."""
    folds: Folds = 0
    """Parts for cross-validation: each is validated on by a run of its own, which trains on the others."""
    fold: Natural = 0
    """The part that this run validates on, from 1; 0 runs all parts, one after the other."""
    split_seed: Seed = 0
    """Seed of the choice of images for --val-share and --folds."""
    seen_images: bool = False
    """Evaluate also on images that are trained on."""
    bad_share: BelowOne = 0.02
    """Share of images with errors (0..1) that may be left out with a warning, also those that break while it
    runs; above it, training stops."""

    licence: str | None = None
    """Licence of the model, as hubs write it: apache-2.0, cc-by-4.0, ...; for the card in its folder."""

    start: Start = "backbone"
    """Start from ImageNet "backbone" weights, a trained "ssd" (FSSD+, paper 3.2), a whole trained "model" of
    the same network (classes of the same name keep their weights), or "nothing"."""
    weights: Path | None = None
    """File with the weights to start from; not needed for the lite backbone, whose package holds them."""
    new_layers_lr: NotNegative = 1.0
    """Learning rate multiple of the layers that an SSD does not have; the paper's FSSD+ uses 2."""
    backbone_lr: NotNegative = 1.0
    """Learning rate multiple of the backbone; below 1 preserves its pretraining when there is little data."""

    freeze: Natural = 0
    """Leading stages of the backbone that keep their weights (lite has 7, VGG16 6: conv1 to conv5, fc)."""
    freeze_norm: bool = False
    """Keep the statistics of the backbone's batch norms: a third faster on a CPU. Needs a low learning rate:
    with fixed statistics a rate of 0.015 made EfficientNet-lite0 diverge."""
    freeze_all_norms: bool = False
    """Keep statistics, scales and shifts of every batch norm, those of neck and head too, as DSSD's second
    stage does; for --start model."""
    train_only: TrainOnly = "all"
    """"new" trains what an SSD does not have, heads included, and keeps the rest with its statistics: the
    first stage of DSSD. For --start ssd or model."""

    epochs: Positive | None = None
    """Passes over the training images; None for those of the backbone's recipe (lite 60; see docs/recipe.md)
    where there are no --iterations."""
    iterations: Count | None = None
    """Weight updates, instead of epochs."""
    batch_size: BatchCount = 32
    """Images per update and process (paper: 32); "auto" measures how many the GPU's memory holds, or from
    how many on a CPU gains no more, and keeps the number."""
    accumulate: Count = 1
    """Batches whose gradients are averaged into one update (Caffe's iter_size)."""
    global_batch: Count | None = None
    """Images per update of all processes together. Their order and the loss then do not depend on the number
    of processes, and a run may go on with another; each computes at most --batch-size images at once."""
    sync_norm: bool = False
    """Batch norms take their statistics from the batches of all processes together, for small batches."""
    lr: Positive | None = None
    """Base learning rate; None for that of the backbone's recipe (lite 0.01)."""
    optimizer: Optimizer = "sgd"
    """SGD as in the paper, or Adam (BlitzNet), which wants a lower rate: 1e-4."""
    momentum: BelowOne = 0.9
    """SGD momentum (paper); Adam's first beta."""
    weight_decay: NotNegative = 5e-4
    """L2 penalty on convolution weights; none on biases and normalisation (paper)."""
    norm_decay: NotNegative = 0.0
    """Multiple of that penalty for scales and shifts of batch norms outside the heads (DSOD: 1)."""
    bias_lr: NotNegative = 2.0
    """Learning rate multiple of biases (Caffe's param multiplier)."""
    norm_bias_lr: NotNegative | None = None
    """That of the shifts of batch norms (DSSD: 1); by default as of other biases."""
    schedule: Schedule | None = None
    """How the learning rate falls; None for that of the backbone's recipe (lite cosine)."""
    steps: tuple[int, ...] = ()
    """Iterations at which multistep divides the rate by ten; () for the shares below."""
    step_shares: tuple[float, ...] | None = None
    """The same as shares of the run, in place of --steps; by default 2/3 and 5/6, as SSD has it."""
    warmup: Natural | None = None
    """Iterations over which the rate rises to its value (paper: none); at most a fifth of the run. None
    for those of the backbone's recipe (lite 50)."""
    warmup_power: Positive | None = None
    """The rate of warm-up iteration i, from 1, is (i / warmup) to this power of its value (YOLOv2: 4); by
    default it rises linearly from a hundredth."""
    ema: BelowOne | None = None
    """Decay of the moving average of the weights that is evaluated and saved as best; 0 for none. None for
    that of the backbone's recipe (lite 0.998)."""
    clip_norm: NotNegative | None = None
    """Largest Euclidean norm of the gradient, so that one bad batch cannot ruin a run. 0 for no limit, None
    for that of the backbone's recipe (lite 10)."""

    augment: Augment = "ssd"
    """Full SSD augmentation, the same with rarer and smaller zooms out (for runs of tens of epochs),
    mirroring only, YOLOv2's (placement and colours; by letterbox that of 2017, by warp that of 2016), or
    none."""
    augment_with: str | None = None
    """Augmentation of your own before all that, "package.module:name": a function of image, boxes, labels and
    rng, or albumentations' Compose (see docs/recipe.md); with --augment none it is the only one."""
    mosaic: Share = 0.0
    """Share of the training views made of parts of four images around one point (YOLOv4); each costs the
    reading of four images."""
    mixup: Share = 0.0
    """Share of the training views that are the mean of two, with the objects of both (YOLOX); also of
    mosaics."""
    plain_epochs: NotNegative | None = None
    """Last epochs without mosaic and mixup; by default a tenth of the run."""
    tiles: str | None = None
    """Train and evaluate on tiles of so many pixels instead of whole images, for small objects; "auto" is
    such that the median object has 32 px of the input. Each view is a random tile of its image."""
    tile_overlap: BelowOne | None = None
    """Share of a tile that its neighbour repeats in evaluation, and in detection later (0.2)."""
    empty_tiles: Share | None = None
    """Share of the training tiles without an object, where images have room for them (0.1)."""
    oversample: Portion | None = None
    """Show images of rare classes more often: a class in a share f of the images has the factor
    sqrt(T / f) for this threshold T, 0 to 1; an image has the largest of its classes (LVIS: 0.001)."""
    class_weights: tuple[str, ...] = ()
    """Weights of the classes in the loss: "inverse" to their numbers of objects, by the "effective" number
    (Cui et al. 2019), or CLASS=WEIGHT ... with 1 for the others."""
    multi_scale: tuple[int, ...] = ()
    """Smallest and largest side of the input, such as 320 608: every 10 updates have another multiple of 32,
    the last 200 the network's own size; () trains at that alone. For networks that take any size: YOLOv2."""
    jpeg: bool = False
    """Encode and decode the image between the steps of "ssd", as the Caffe data layer always does; slow."""
    difficult: bool = True
    """Train on objects marked difficult (Caffe on VOC: yes)."""
    crowds: bool = False
    """Train on crowd regions (COCO iscrowd), one box for many objects; of the released scripts only FSSD512's
    on COCO does."""
    seed: Seed = 0
    """Seed of the new weights, of the order of images and of all augmentation."""
    workers: Natural = 1
    """Processes that load images; the result does not depend on their number."""

    eval_every: Positive = 1.0
    """Epochs between evaluations on the validation split; the last iteration is always evaluated."""
    metric: Metric = "voc12"
    """Metric that decides which checkpoint is best."""
    patience: Natural = 0
    """Stop after this many evaluations without a better result; 0 never does."""
    save_every: Count = 200
    """Iterations between the checkpoints for --resume; one is also saved after each evaluation."""
    log_every: Count = 10
    """Iterations between log lines."""
    log_to: tuple[str, ...] = ()
    """Trackers that get the numbers too: wandb, mlflow. Their own variables say where they write."""

    device: str = "auto"
    """"cpu", "cuda", "cuda:1", or "auto" for a GPU if there is one."""
    amp: Amp = "auto"
    """Mixed precision. "auto" is bf16 where the GPU or processor has instructions for it (AVX-512 BF16, AMX),
    where it is faster, and "off" elsewhere, where it is much slower. A CPU cannot train in fp16."""
    kernels: Kernels = "default"
    """On a GPU: "deterministic" kernels, with which equal runs have equal bytes, are slower; "benchmark" lets
    cuDNN time its kernels for every input shape, which is faster after the first updates and not repeatable.
    The docs say how to measure both."""
    threads: Natural = 0
    """CPU threads for the network; 0 for one per core. Equal runs need equal threads."""

    def __post_init__(self) -> None:
        for key in ("data", "images", "out", "weights"):
            if isinstance(value := getattr(self, key), str):
                object.__setattr__(self, key, Path(value))
        # From Python, settings may be given as in a file.
        if str(self.batch_size) == "auto":
            object.__setattr__(self, "batch_size", AUTO)
        tiles: Any = self.tiles
        if isinstance(tiles, int) and not isinstance(tiles, bool):
            object.__setattr__(self, "tiles", str(tiles))
        for key in ("size", "multi_scale", "steps", "step_shares"):
            if type(value := getattr(self, key)) in (int, float):
                object.__setattr__(self, key, (value,))
        for key in ("class_weights", "log_to"):
            object.__setattr__(self, key, words_of(key, getattr(self, key)))

    def steps_of(self, total: int) -> tuple[int, ...]:
        """The iterations of a run of `total` at which multistep divides; () for SSD's, 2/3 and 5/6."""
        return self.steps or tuple(round(total * share) for share in self.step_shares or ())

    def images_per_update(self, processes: int) -> int:
        """Images of one update of the weights, in all processes together."""
        return self.global_batch or self.batch_size * self.accumulate * processes


KINDS: dict[str, Any] = get_type_hints(TrainConfig)
"""The type of every setting, without its bounds."""
CHOICES: dict[str, tuple[str, ...]] = {
    key: get_args(part)
    for key, kind in KINDS.items()
    for part in (kind, *get_args(kind))
    if get_origin(part) is Literal
}
"""The values of every setting that is one of a few words."""
LOCAL = frozenset(key for key, kind in KINDS.items() if Path in (kind, *get_args(kind)))
"""The settings that are paths on the machine of the training: data, images, out, weights."""
RESUME_MAY_CHANGE = {"out", "data", "images", "weights", "seen_images", "workers", "device"}
RESUME_MAY_CHANGE |= {"save_every", "log_every", "bad_share", "kernels", "licence", "log_to"}
"""Settings that a resumed run may change. Only the device and its kernels affect the final weights."""
COMPARED = ("data", "images", "val_split", "metric")
"""Settings that runs of one table share, so that all are measured on the same images in the same way."""
DIVIDED = ("train_split", "val_share", "split_seed", "folds", "fold")
"""Those that they share too where the images to measure on are chosen from the training split."""


def to_values(config: TrainConfig) -> dict[str, Any]:
    """The configuration as plain JSON values."""
    values = dataclasses.asdict(config)
    if config.batch_size == AUTO:
        values["batch_size"] = "auto"
    return {key: shown(value) if isinstance(value, Path) else value for key, value in values.items()}
