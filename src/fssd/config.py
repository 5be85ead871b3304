"""The configuration of a training run: one frozen dataclass; every field states its unit and its reason.

`fssd train --config FILE` reads these names from YAML; flags override the file. The resolved configuration is
stored in every checkpoint. This module does not import torch, so that `fssd --help` is fast.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from numbers import Integral, Real
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

import tyro
import yaml

from fssd.errors import ConfigError, nearest, shown

# Files in the folder of a run: its complete configuration, what --resume goes on from, and its models.
CONFIG_FILE, STATE_FILE = "config.yaml", "last.safetensors"
BEST_FILE, FINAL_FILE = "best.safetensors", "final.safetensors"
MODEL_FILES = (BEST_FILE, FINAL_FILE)  # in the order of preference

Schedule = Literal["multistep", "cosine", "constant"]
Start = Literal["backbone", "ssd", "model", "nothing"]
Optimizer = Literal["sgd", "adam"]
Amp = Literal["auto", "off", "bf16", "fp16"]
Kernels = Literal["default", "deterministic", "benchmark"]
TrainOnly = Literal["all", "new"]
Metric = Literal["voc07", "voc12", "coco"]
Augment = Literal["ssd", "mild", "mirror", "yolo", "none"]
Geometry = Literal["warp", "letterbox"]


class Bound(NamedTuple):
    """The range of a number, as a part of its type: `needs` in words, and `holds` as a test."""

    needs: str
    holds: Callable[[float], bool]


Count = Annotated[int, Bound("1 or more", lambda value: value >= 1)]
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
Natural = Annotated[int, Bound("0 or more", lambda value: value >= 0)]
Folds = Annotated[int, Bound("0, or 2 to 100", lambda value: value == 0 or 2 <= value <= 100)]
NotNegative = Annotated[float, Bound("0 or more", lambda value: value >= 0)]
Positive = Annotated[float, Bound("above 0 and finite", lambda value: 0 < value < math.inf)]
Share = Annotated[float, Bound("between 0 and 1", lambda value: 0 <= value <= 1)]
Portion = Annotated[float, Bound("above 0 and at most 1", lambda value: 0 < value <= 1)]
BelowOne = Annotated[float, Bound("0 or more and below 1", lambda value: 0 <= value < 1)]
Opset = Annotated[int, Bound("17 to 21", lambda value: 17 <= value <= 21)]
Seed = Annotated[int, Bound("0 or more and below 2 to the power of 63", lambda value: 0 <= value < 2**63)]


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
    """Passes over the training images."""
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
    """Base learning rate."""
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
    schedule: Schedule | None = None
    """How the learning rate falls."""
    steps: tuple[int, ...] = ()
    """Iterations at which multistep divides the rate by ten; () for 2/3 and 5/6 of the run."""
    warmup: Natural | None = None
    """Iterations over which the rate rises to its value (paper: none); at most a fifth of the run."""
    warmup_power: Positive | None = None
    """The rate of warm-up iteration i, from 1, is (i / warmup) to this power of its value (YOLOv2: 4); by
    default it rises linearly from a hundredth."""
    ema: BelowOne | None = None
    """Decay of the moving average of the weights that is evaluated and saved as best; 0 for none."""
    clip_norm: NotNegative | None = None
    """Largest Euclidean norm of the gradient, so that one bad batch cannot ruin a run. 0 for no limit."""

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
        for key in ("class_weights", "log_to"):
            object.__setattr__(self, key, _words_of(key, getattr(self, key)))

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


def load_config(path: Path, base: TrainConfig | None = None, above: tuple[Path, ...] = ()) -> TrainConfig:
    """A configuration from YAML, over `base`. `path` may be the name of a packaged one (see `find_config`).

    A file may contain `base: FILE` (relative to the file itself, or a name), and then holds the differences.
    above: the files that have this one as their base. Raises ConfigError for a file that cannot be read, an
    unknown key (with the nearest known one), a value of the wrong type, two settings that exclude each other,
    or files that name each other as base.
    """
    path = find_config(path)
    values = read_mapping(path)
    base = base or TrainConfig()
    if (parent := values.pop("base", None)) is not None:
        above = (*above, path.resolve())
        file = find_config(Path(str(parent)), beside=path.parent)
        if file.resolve() in above:
            raise ConfigError(f"{path}: base {parent} leads back to this file; name another")
        base = load_config(file, base, above)
    return with_values(base, values, where=f"{path}: ")


def packaged(*kinds: str) -> dict[str, Path]:
    """The packaged YAML files by name. kinds: folders of configs/, such as "recipes"; "" for its top."""
    inside = Path(__file__).parent / "configs"
    folder = inside if inside.is_dir() else Path(__file__).parents[2] / "configs"  # a wheel, or a checkout
    return {file.stem: file for kind in kinds for file in sorted((folder / kind).glob("*.yaml"))}


def find_config(
    named: Path, kinds: Collection[str] = ("", "recipes", "ablations"), beside: Path = Path()
) -> Path:
    """The file that `named` means: a path relative to `beside`, or the name of a packaged file.

    Raises ConfigError, with the nearest known name, for a bare name that is neither.
    """
    file = beside / named
    if file.is_file() or named.suffix or len(named.parts) != 1:
        return file
    known = packaged(*kinds)
    if named.name not in known:
        near = nearest(named.name, known)
        raise ConfigError(f"{file}: there is no such file and no configuration of this name{near}")
    return known[named.name]


_SPECIAL = ("tag:yaml.org,2002:merge", "tag:yaml.org,2002:value")  # the keys << and =


class _Loader(yaml.SafeLoader):
    """Refuses a key that a mapping has twice: PyYAML would drop what the first one says, and say nothing."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        # Not when the mapping is constructed: by then a merge (<<) has put overridden keys into it.
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag in _SPECIAL:
                continue
            value = self.construct_object(key)
            if value in seen:
                problem = f"the key {value!r} is there twice; keep one of them"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            seen.add(value)
        return node


def load_yaml(text: str | bytes) -> Any:
    """The value in YAML; it has only plain types. Raises YAMLError, or ValueError for a date that is none."""
    return yaml.load(text, _Loader)


def read_mapping(path: Path) -> dict[str, Any]:
    """The YAML mapping in a file. Raises ConfigError if it cannot be read or is something else."""
    try:
        values = load_yaml(path.read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except yaml.MarkedYAMLError as error:
        place = f" (line {error.problem_mark.line + 1})" if error.problem_mark else ""
        raise ConfigError(f"{path}{place}: is not valid YAML ({error.problem})") from error
    except (yaml.YAMLError, ValueError) as error:  # a date such as 2020-13-45 is no YAMLError
        raise ConfigError(f"{path}: is not valid YAML ({error})".replace("\n", " ")) from error
    if not isinstance(values, Mapping):
        kind = type(values).__name__
        raise ConfigError(f"{path}: a configuration is a mapping of names to values, not a {kind}")
    return dict(values)


def with_values(config: TrainConfig, values: Mapping[str, Any], where: str = "") -> TrainConfig:
    """`config` with some fields replaced, each converted to its field's type. Raises ConfigError.

    Model options are added to those of `config`; an option that is null is removed. A value also removes
    the setting of `config` that it excludes: `iterations` removes `epochs`.
    """
    changed: dict[str, Any] = {}
    for key, value in values.items():
        if key not in KINDS:
            raise ConfigError(f"{where}there is no setting {key!r}{nearest(str(key), KINDS)}")
        changed[key] = _convert(key, value, where)
    if "options" in changed:
        merged = {**config.options, **changed["options"]}
        changed["options"] = {key: value for key, value in merged.items() if value is not None}
    return without_replaced(dataclasses.replace(config, **changed), changed, where)


def _conflicts(config: TrainConfig) -> Iterator[tuple[set[str], str]]:
    """The pairs of settings that exclude each other in `config`, each with what to do about it."""
    if config.epochs is not None and config.iterations is not None:
        yield {"epochs", "iterations"}, "give either --epochs or --iterations, not both"
    if config.steps and config.schedule not in (None, "multistep"):
        yield {"steps", "schedule"}, "steps belong to --schedule multistep; leave --steps or --schedule out"
    if any(step < 1 for step in config.steps):
        yield {"steps"}, "steps are updates after which the rate falls, each 1 or more; correct --steps"
    if config.start == "nothing" and config.weights is not None:
        yield {"start", "weights"}, "--start nothing takes no --weights; leave one of them out"
    if config.warmup_power is not None and config.warmup == 0:
        yield {"warmup_power", "warmup"}, "--warmup-power is of a warm-up; give --warmup too or leave it out"
    if config.global_batch is not None and config.accumulate != 1:
        message = "--global-batch is shared out in as many batches as are needed; leave --accumulate out"
        yield {"global_batch", "accumulate"}, message
    for key in ("val_share", "folds"):
        if config.val_split != "auto" and getattr(config, key):
            yield {"val_split", key}, f"give either --val-split or --{key.replace('_', '-')}, not both"
    if config.batch_size == AUTO and config.folds:
        yield {"batch_size", "folds"}, "folds are compared and need one --batch-size, not auto; give a number"
    if config.val_share is not None and config.folds:
        yield {"val_share", "folds"}, "give either --val-share or --folds, not both"


def without_replaced(config: TrainConfig, given: Collection[str], where: str = "") -> TrainConfig:
    """`config` with every setting reset that excludes one in `given`.

    given: settings of the highest level, such as those on the command line over those in a file; the other
    setting is reset to its default. Raises ConfigError if both are in `given`.
    """
    for names, message in _conflicts(config):
        replaced = names - set(given)
        if not replaced:
            raise ConfigError(f"{where}{message}")
        if replaced != names:
            key = replaced.pop()
            config = dataclasses.replace(config, **{key: getattr(TrainConfig(), key)})
    return config


def _convert(key: str, value: Any, where: str) -> Any:
    """`value` as the type of the setting `key`."""
    kinds = get_args(KINDS[key])
    kind, *optional = kinds if type(None) in kinds else (KINDS[key],)
    if value is None and optional:
        return None
    if key == "tiles" and isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if value is False and "off" in CHOICES.get(key, ()):
        return "off"  # YAML 1.1 reads off as false
    if key == "batch_size" and value == "auto":
        return AUTO
    kind = kind if kind in _READERS else get_origin(kind) or kind
    takes, accepted, read = _READERS[kind]
    try:
        if isinstance(value, accepted) and isinstance(value, bool) == (kind is bool):
            return read(value)
    except (TypeError, ValueError, OverflowError):
        pass
    takes = " or ".join(CHOICES.get(key, [takes, *["null"] * len(optional)]))
    raise ConfigError(f"{where}{key} cannot be {value!r}; it takes {takes}")


def _whole(value: Any) -> int:
    """`value` as an int if that loses nothing, else ValueError or TypeError."""
    if isinstance(value, bool) or int(value) != float(value):
        raise ValueError
    return int(value)


def _whole_ones(values: Any) -> tuple[int, ...]:
    return tuple(map(_whole, [values] if isinstance(values, int) else values))


def _words(values: Any) -> tuple[str, ...]:
    if isinstance(values, Mapping):
        return tuple(f"{key}={value}" for key, value in values.items())
    return (values,) if isinstance(values, str) else tuple(map(_word, values))


def _words_of(key: str, values: Any) -> tuple[str, ...]:
    try:
        return _words(values)
    except TypeError:
        raise ConfigError(f"{key} is {values!r}; it takes words, or a mapping") from None


def _word(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


_READERS: dict[Any, tuple[str, tuple[Any, ...], Callable[[Any], Any]]] = {
    Path: ("a path", (str, Path), Path),
    float: ("a number", (int, float, str), float),
    int: ("a whole number", (int, float, str), _whole),
    tuple: ("whole numbers", (list, tuple, int), _whole_ones),
    tuple[str, ...]: ("words, or a mapping", (list, tuple, str, Mapping), _words),
    Mapping: ("a mapping", (Mapping,), dict),
    bool: ("true or false", (bool,), bool),
    str: ("text", (str,), str),
    Literal: ("text", (str,), str),
}
"""For each type of setting: what it takes in words, the types it is read from, and the function for it."""


def to_values(config: TrainConfig) -> dict[str, Any]:
    """The configuration as plain JSON values."""
    values = dataclasses.asdict(config)
    if config.batch_size == AUTO:
        values["batch_size"] = "auto"
    return {key: shown(value) if isinstance(value, Path) else value for key, value in values.items()}


def resolve(config: TrainConfig, recipe: Mapping[str, Any]) -> TrainConfig:
    """Fill in the backbone's recipe and check that the settings fit together. Raises ConfigError."""
    if config.steps and config.schedule is None:
        config = dataclasses.replace(config, schedule="multistep")
    filled = {key: value for key, value in recipe.items() if getattr(config, key) is None}
    if config.iterations is not None:
        filled.pop("epochs", None)
    config = dataclasses.replace(config, **filled)
    if config.train_split == "none":
        config = dataclasses.replace(config, train_split=None)
    if config.val_split == "none":
        config = dataclasses.replace(config, val_split=None)
    _check(config)
    return config


def _check(config: TrainConfig) -> None:
    if config.data is None:
        raise ConfigError("training needs a data set; give --data")
    if config.out is None:
        raise ConfigError("training needs a folder for its results; give --out")
    for _, message in _conflicts(config):
        raise ConfigError(message)
    if config.start in ("ssd", "model") and config.weights is None:
        what = "a trained SSD" if config.start == "ssd" else "a trained model"
        raise ConfigError(f"to start from {what}, name its checkpoint with --weights")
    _check_frozen(config)
    for key, known in CHOICES.items():
        value = getattr(config, key)
        if value not in known and not (value is None and key == "geometry"):
            raise ConfigError(f"there is no {key} {value!r}{nearest(str(value), known)}")
    check_bounds(config)
    if config.plain_epochs is not None and not config.mosaic and not config.mixup:
        raise ConfigError("--plain-epochs ends mosaic and mixup; give --mosaic or --mixup, or leave it out")
    if config.fold > config.folds:
        raise ConfigError(f"there is no fold {config.fold} of {config.folds}; give --folds and one of them")


def _check_frozen(config: TrainConfig) -> None:
    if config.freeze_all_norms and config.start != "model":
        raise ConfigError("--freeze-all-norms keeps what was trained; name it with --start model --weights")
    if config.freeze_all_norms and config.freeze_norm:
        raise ConfigError("--freeze-all-norms fixes those of the backbone too; leave --freeze-norm out")
    if config.train_only != "new":
        return
    if config.start not in ("ssd", "model"):
        raise ConfigError("--train-only new keeps what an SSD has; name one with --start ssd --weights")
    defaults = TrainConfig()
    for key in ("freeze", "freeze_norm", "freeze_all_norms", "backbone_lr"):
        if getattr(config, key) != getattr(defaults, key):
            flag = key.replace("_", "-")
            raise ConfigError(f"--train-only new keeps the whole backbone as it is; leave --{flag} out")


def check_bounds(settings: Any) -> None:
    """Raise ConfigError for the first number in a dataclass (or a nested one) that is out of its bounds."""
    for key, kind in _kinds(type(settings)).items():  # type: ignore[arg-type]  # mypy: unhashable type
        value = getattr(settings, key)
        if dataclasses.is_dataclass(value):
            check_bounds(value)
        check_number(key, value, kind)


def cache_folder() -> Path:
    """Where files go that can be made again: XDG_CACHE_HOME/fssd, or ~/.cache/fssd."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "fssd"


def check_number(key: str, value: Any, kind: Any) -> None:
    """Raise ConfigError if `value` does not fit a type such as `Annotated[int, Bound(...)] | None`."""
    for number, bound in _bounds(kind):
        is_number = isinstance(value, number) and not isinstance(value, bool)
        if (is_number and bound.holds(value)) or (value is None and type(None) in get_args(kind)):
            continue
        needs = "" if is_number else f"a {'whole ' if number is Integral else ''}number, "
        raise ConfigError(f"{key} is {value!r}; it must be {needs}{bound.needs}")


@cache
def _kinds(settings: Any) -> dict[str, Any]:
    return get_type_hints(settings, include_extras=True)


@cache
def _bounds(kind: Any) -> tuple[tuple[type, Bound], ...]:
    """The bounds in a type, each with the kind of number that it is for."""
    parts = get_args(kind)
    if get_origin(kind) is not Annotated:
        return tuple(bound for part in parts for bound in _bounds(part))
    return tuple((Integral if parts[0] is int else Real, part) for part in parts if isinstance(part, Bound))
