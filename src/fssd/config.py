"""The one configuration of a training run: frozen, every field with its unit and its reason.

`fssd train --config FILE` reads these names from YAML; flags on the command line override the file.
The resolved configuration is stored in every checkpoint. No torch here, so that help stays quick.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import tyro
import yaml

from fssd.errors import ConfigError, nearest

Schedule = Literal["multistep", "cosine", "constant"]
Start = Literal["backbone", "ssd", "model", "nothing"]
Amp = Literal["off", "bf16", "fp16"]
Metric = Literal["voc07", "voc12", "coco"]


@dataclass(frozen=True)
class TrainConfig:
    """Train a detector on your own images.

    Fields that are None take the recipe of the model: VGG16 the paper's, lite ours (see `RECIPES`).
    """

    model: str = "fssd300-lite"
    """Network: ssd300-vgg16, ssd512-vgg16, fssd300-vgg16, fssd512-vgg16, ssd300-lite or fssd300-lite."""
    data: Path | None = None
    """Data set: a VOC folder, COCO folder or json, YOLO data.yaml, or a YAML that joins several."""
    out: Path | None = None
    """Folder for checkpoints, logs and the resolved configuration."""
    options: tyro.conf.Suppress[Mapping[str, Any]] = field(default_factory=dict)
    """Model options, such as merge: sum or priors: voc (see `fssd.build_model`); flag --set."""
    train_split: str = "train"
    """Split to train on."""
    val_split: str | None = "val"
    """Split to evaluate on while training; "none" for no evaluation."""
    bad_share: float = 0.02
    """Share of images with errors (0..1) that may be left out with a warning; above it, nothing runs."""

    start: Start = "backbone"
    """Start from ImageNet "backbone" weights, a trained "ssd" (FSSD+, paper 3.2), a whole trained "model" of
    the same network (classes of the same name keep their weights), or "nothing"."""
    weights: Path | None = None
    """File with the weights to start from; not needed for the lite backbone, whose package holds them."""
    new_layers_lr: float = 1.0
    """Learning rate multiple of the layers that an SSD does not have; the paper's FSSD+ uses 2."""
    backbone_lr: float = 1.0
    """Learning rate multiple of the backbone; below 1 keeps what its pretraining learned on little data."""

    freeze: int = 0
    """Leading stages of the backbone that keep their weights (lite has 7, VGG16 6: conv1 to conv5, fc)."""
    freeze_norm: bool = False
    """Keep the statistics of the backbone's batch norms: a third quicker on a CPU. Needs a low rate: without
    live normalisation a rate of 0.015 made EfficientNet-lite0 collapse."""

    epochs: float | None = None
    """Passes over the training images."""
    iterations: int | None = None
    """Weight updates, instead of epochs."""
    batch_size: int = 32
    """Images per update and process (paper: 32)."""
    accumulate: int = 1
    """Batches whose gradients are averaged into one update (Caffe's iter_size)."""
    lr: float | None = None
    """Base learning rate."""
    momentum: float = 0.9
    """SGD momentum (paper)."""
    weight_decay: float = 5e-4
    """L2 penalty on convolution weights; none on biases and normalisation (paper)."""
    bias_lr: float = 2.0
    """Learning rate multiple of biases (Caffe's param multiplier)."""
    schedule: Schedule | None = None
    """How the learning rate falls."""
    steps: tuple[int, ...] = ()
    """Iterations at which multistep divides the rate by ten; () for 2/3 and 5/6 of the run."""
    warmup: int | None = None
    """Iterations over which the rate rises to its value (paper: none); a fifth of the run at most."""
    ema: float | None = None
    """Decay of the moving average of the weights that is evaluated and saved as best; 0 for none."""
    clip_norm: float | None = None
    """Longest gradient, as a Euclidean norm; one bad batch cannot undo a run. 0 for none."""

    augment: Literal["ssd", "mild", "mirror", "none"] = "ssd"
    """Full SSD augmentation, the same with rarer and smaller zooms out (for runs of tens of epochs),
    mirroring only, or none."""
    jpeg: bool = False
    """Encode and decode the image between the steps of "ssd", as the Caffe data layer does unasked; slow."""
    difficult: bool = True
    """Train on objects marked difficult (Caffe on VOC: yes)."""
    crowds: bool = False
    """Train on crowd regions (COCO iscrowd), one box for many objects; of the released scripts only FSSD512's
    on COCO does."""
    seed: int = 0
    """Seed of the new weights, the order of images and every random choice of the augmentation."""
    workers: int = 1
    """Processes that load images; the result does not depend on how many."""

    eval_every: float = 1.0
    """Epochs between evaluations on the validation split; the last iteration is always evaluated."""
    metric: Metric = "voc12"
    """What decides which checkpoint is best."""
    save_every: int = 200
    """Iterations between checkpoints to resume from; evaluations save too."""
    log_every: int = 10
    """Iterations between log lines."""

    device: str = "auto"
    """"cpu", "cuda", "cuda:1", or "auto" for a GPU where there is one."""
    amp: Amp = "off"
    """Mixed precision. On a CPU bf16 alone, which is quicker where the processor computes in it (AVX-512
    BF16, AMX) and slower elsewhere."""
    threads: int = 0
    """CPU threads for the network; 0 for as many as there are cores. Part of what makes a run repeatable."""


RECIPES: dict[str, dict[str, Any]] = {
    # Paper 4.2 and the SSD solver: 1e-3, divided by ten at 80k and 100k of 120k iterations, no warm-up.
    "vgg16": {
        "epochs": 232.0,
        "lr": 1e-3,
        "schedule": "multistep",
        "warmup": 0,
        "ema": 0.0,
        "clip_norm": 0.0,
    },
    # Batch norm throughout bears a tenfold rate; cosine and averaged weights shorten small runs.
    "lite": {"epochs": 60.0, "lr": 1e-2, "schedule": "cosine", "warmup": 50, "ema": 0.998, "clip_norm": 10.0},
}

RESUME_MAY_CHANGE = {"out", "data", "weights", "workers", "save_every", "log_every", "device"}
"""Settings that a resumed run may change; none but the device touches the weights it ends with."""


def load_config(path: Path, base: TrainConfig | None = None) -> TrainConfig:
    """A configuration from YAML, over `base`.

    A file may itself say `base: FILE` (a path from where it lies), and then holds what differs from it.
    Raises ConfigError for a file that cannot be read, an unknown key (naming the nearest known one),
    a value of the wrong type, or files that are each other's base.
    """
    return _load(path, base or TrainConfig(), ())


def _load(path: Path, base: TrainConfig, above: tuple[Path, ...]) -> TrainConfig:
    """`above`: the files that lead here, each by its `base`."""
    values = read_mapping(path)
    parent = values.pop("base", None)
    if parent is not None:
        file = path.parent / str(parent)
        if file.resolve() in (path.resolve(), *above):
            raise ConfigError(f"{path}: base {parent} leads back to this file; name another")
        base = _load(file, base, (path.resolve(), *above))
    return with_values(base, values, where=f"{path}: ")


def read_mapping(path: Path) -> dict[str, Any]:
    """The YAML mapping in a file. Raises ConfigError if it cannot be read or is something else."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except (yaml.YAMLError, ValueError) as error:  # a date such as 2020-13-45 is no YAMLError
        raise ConfigError(f"{path}: is not valid YAML ({error})".replace("\n", " ")) from error
    if not isinstance(values, Mapping):
        raise ConfigError(
            f"{path}: a configuration is a mapping of names to values, not a {type(values).__name__}"
        )
    return dict(values)


def with_values(config: TrainConfig, values: Mapping[str, Any], where: str = "") -> TrainConfig:
    """`config` with some fields replaced, each converted to its field's type. Raises ConfigError.

    Model options are added to those that `config` has; an option that is null is taken out.
    """
    fields = {f.name: f for f in dataclasses.fields(TrainConfig)}
    changed: dict[str, Any] = {}
    for key, value in values.items():
        if key not in fields:
            raise ConfigError(f"{where}there is no setting {key!r}{nearest(str(key), fields)}")
        changed[key] = _convert(key, str(fields[key].type), value, where)
    if "options" in changed:
        merged = {**config.options, **changed["options"]}
        changed["options"] = {key: value for key, value in merged.items() if value is not None}
    return dataclasses.replace(config, **changed)


def _convert(key: str, kind: str, value: Any, where: str) -> Any:
    """`value` as the type written in the annotation `kind`."""
    if value is None and "None" in kind:
        return None
    if value is False and key in CHOICES and "off" in CHOICES[key]:
        return "off"  # which YAML reads as a boolean
    try:
        if kind.startswith("Path"):
            return Path(value)
        if kind.startswith("float") and not isinstance(value, bool):
            return float(value)
        if kind.startswith("int"):
            return _whole(value)
        if kind.startswith("tuple") and isinstance(value, (list, tuple)):
            return tuple(_whole(v) for v in value)
        if "Mapping" in kind and isinstance(value, Mapping):
            return dict(value)
        if kind == "bool" and isinstance(value, bool):
            return value
        if kind.startswith(("str", "Schedule", "Start", "Amp", "Metric", "Literal")) and isinstance(
            value, str
        ):
            return value
    except (TypeError, ValueError, OverflowError):
        pass
    takes = " or ".join(CHOICES[key]) if key in CHOICES else kind
    raise ConfigError(f"{where}{key} cannot be {value!r}; it takes {takes}")


def _whole(value: Any) -> int:
    """`value` as an int if that loses nothing, else ValueError."""
    if isinstance(value, bool) or int(value) != float(value):
        raise ValueError
    return int(value)


def to_values(config: TrainConfig) -> dict[str, Any]:
    """The configuration as plain JSON values."""
    values = dataclasses.asdict(config)
    return {key: str(value) if isinstance(value, Path) else value for key, value in values.items()}


def resolve(config: TrainConfig) -> TrainConfig:
    """Fill what was left to the model's recipe; check that the settings fit together. Raises ConfigError."""
    backbone = config.model.rsplit("-", 1)[-1]
    recipe = RECIPES.get(backbone, RECIPES["lite"])
    if config.steps and config.schedule is None:
        config = dataclasses.replace(config, schedule="multistep")
    filled = {key: value for key, value in recipe.items() if getattr(config, key) is None}
    if config.iterations is not None:
        filled.pop("epochs", None)
    config = dataclasses.replace(config, **filled)
    if config.val_split == "none":
        config = dataclasses.replace(config, val_split=None)
    _check(config)
    return config


CHOICES: dict[str, tuple[str, ...]] = {
    "schedule": ("multistep", "cosine", "constant"),
    "start": ("backbone", "ssd", "model", "nothing"),
    "amp": ("off", "bf16", "fp16"),
    "metric": ("voc07", "voc12", "coco"),
    "augment": ("ssd", "mild", "mirror", "none"),
}
AT_LEAST_ONE = ("batch_size", "accumulate", "save_every", "log_every")
ABOVE_ZERO = ("lr", "epochs", "iterations", "eval_every")
NOT_BELOW_ZERO = (
    "workers",
    "threads",
    "freeze",
    "weight_decay",
    "clip_norm",
    "warmup",
    "seed",
    "momentum",
    "bias_lr",
    "new_layers_lr",
    "backbone_lr",
)
SHARES = ("ema", "bad_share", "momentum")


def _check(config: TrainConfig) -> None:
    if config.data is None:
        raise ConfigError("training needs a data set; give --data")
    if config.out is None:
        raise ConfigError("training needs a folder for its results; give --out")
    if config.iterations is not None and config.epochs is not None:
        raise ConfigError("give either --epochs or --iterations, not both")
    if config.start == "nothing" and config.weights is not None:
        raise ConfigError("--start nothing takes no --weights; leave one of them out")
    if config.steps and config.schedule != "multistep":
        raise ConfigError(f"steps belong to --schedule multistep, not to {config.schedule}")
    if config.start in ("ssd", "model") and config.weights is None:
        what = "a trained SSD" if config.start == "ssd" else "a trained model"
        raise ConfigError(f"to start from {what}, name its checkpoint with --weights")
    for key, known in CHOICES.items():
        value = getattr(config, key)
        if value not in known:
            raise ConfigError(f"there is no {key} {value!r}{nearest(str(value), known)}")
    for key, good, needs in _bounds(config):
        if not good:
            raise ConfigError(f"{key} is {getattr(config, key)}; it must be {needs}")


def _bounds(config: TrainConfig) -> Iterator[tuple[str, bool, str]]:
    """Each bounded setting, whether its value is good, and what it needs."""
    for key in AT_LEAST_ONE:
        yield key, getattr(config, key) >= 1, "1 or more"
    for key in ABOVE_ZERO:
        value = getattr(config, key)
        yield key, value is None or 0 < value < math.inf, "above 0 and finite"
    for key in NOT_BELOW_ZERO:
        yield key, getattr(config, key) >= 0, "0 or more"
    for key in SHARES:
        yield key, 0 <= getattr(config, key) < 1, "0 or more and below 1"
    yield "seed", config.seed < 2**63, "below 2 to the power of 63"
