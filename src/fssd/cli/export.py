"""fssd export MODEL --to onnx|openvino|ncnn|tensorrt|web|safetensors|darknet [--nms] --out FILE"""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from fssd.cli.options import (
    FLAT,
    BadShare,
    CountFlags,
    Flag,
    Model,
    Score,
    changed,
    note_without_tiles,
    open_usable,
    parse,
    spare_inputs,
)
from fssd.cli.result import add_result
from fssd.config.bounds import Opset, Share
from fssd.errors import ConfigError, nearest

if TYPE_CHECKING:
    from torch import Tensor

    from fssd.data.geometry import Geometry
    from fssd.export.trial import Trial
    from fssd.export.write import Exported
    from fssd.heads.head import Thresholds
    from fssd.inference.detector import Detector

# What is of use only where NMS is inside, and only beside --calibrate.
THRESHOLDS = {"score", "overlap", "limits"}
MEASURING = {"train_split", "val_split", "bad_share", "allow_drop", "allow_few"}
# Files of weights alone: suffix, and those of what is written beside.
WEIGHTS = {"safetensors": (".safetensors",), "darknet": (".weights", ".cfg")}


@dataclass(frozen=True)
class Export:
    """Write a model for another runtime, as a web page, or in half precision for PyTorch, if its results
    agree with the model's own."""

    model: Model
    out: Path
    """File to write: .onnx, .xml for OpenVINO, which gets a .bin beside it, .param for ncnn, which gets a
    .bin and a .json, .engine for TensorRT, .safetensors, or .weights for darknet, which gets a .cfg. For web
    a folder."""
    to: str = "onnx"
    """Runtime of the file: onnx, openvino, ncnn or tensorrt; web for a page that detects in the browser;
    safetensors for PyTorch in half precision; or darknet, for a YOLOv2."""
    raw: Flag = False
    """End in the head's predictions, such as offsets and logits of every prior (the default); thresholds are
    then chosen at run time."""
    nms: Flag = False
    """End in boxes, scores and labels, with the thresholds below built in."""
    score: Score = 0.01
    overlap: Share = 0.45
    """IoU above which the less confident of two detections of one class is dropped."""
    limits: Annotated[CountFlags, FLAT] = CountFlags(top_k=400, keep=200)
    int8: Flag = False
    """Eight-bit integers; needs --calibrate."""
    fp16: Flag = False
    """Half precision, for onnx, tensorrt and web: half the bytes; boxes may move by 0.5 px of the input."""
    calibrate: Path | None = None
    """Data set for --int8: calibration on its training images, mAP on its validation images."""
    train_split: str | None = "auto"
    """Split of --calibrate to calibrate on; "auto" as in `fssd train`, "none" is every image."""
    val_split: str | None = "auto"
    """Split of --calibrate to measure on; "auto" as in `fssd eval`."""
    bad_share: BadShare = 0.02
    allow_drop: Flag = False
    """Write an eight-bit file even if it loses more than 1 point of mAP."""
    allow_few: Flag = False
    """Calibrate and measure eight bits on fewer images than give a good file and a sound verdict."""
    opset: Opset = 18
    """Version of ONNX's operators, 17 to 21, for programs that do not read 18."""
    check: str | None = None
    """"opencv": of onnx, let OpenCV's DNN module read the file and agree as well."""
    ort: Path | None = None
    """Of web: folder of an unpacked onnxruntime-web; without it the package is downloaded from npm once."""
    allow_unchecked: Flag = False
    """Of web: write the page where there is no Chromium to check it in."""
    images: tuple[str, ...] = ()
    """Images or folders to compare the runtimes on, at most 300; below 33, generated ones are added."""


def run(arguments: list[str]) -> int:
    command = parse(Export, arguments)
    _check(command)
    from fssd.atomic import require_writable
    from fssd.export.companions import place_of
    from fssd.export.write import check_suffix, export_model
    from fssd.inference.detector import Detector
    from fssd.runtimes.choose import find_runtime
    from fssd.runtimes.packages import require_all
    from fssd.weights.checkpoint import model_file

    if command.to == "web":
        return _export_page(command)
    runtime = None if command.to in WEIGHTS else find_runtime(command.to)
    suffix, *others = WEIGHTS[command.to] if runtime is None else (runtime.suffix, *runtime.beside)
    check_suffix(command.out, suffix)
    if runtime is not None:
        runtime.refuse(nms=command.nms, eight_bits=command.int8, fp16=command.fp16)
        require_all(runtime.needs(command.int8))
    detector = Detector.load(command.model, device="cpu")
    _ = detector.network  # an exported file cannot be exported again
    files = [command.out, *(place_of(command.out).with_suffix(other) for other in others)]
    spare_inputs([model_file(command.model), *map(Path, command.images)], files)
    require_writable(*files)
    if runtime is None:
        return _export_weights(command, detector)
    trial = _trial(command, detector.geometry, detector.classes)
    if trial is not None:
        print(trial.summary(detector.classes), flush=True)
    done = export_model(
        detector,
        command.out,
        command.to,
        nms=_thresholds(command) if command.nms else None,
        images=_pictures(command, detector.geometry),
        trial=trial,
        allow_drop=command.allow_drop,
        opset=command.opset,
        fp16=command.fp16,
        opencv=command.check == "opencv",
    )
    add_result(out=command.out, to=command.to)
    _say_tests(done)
    print(f"exported: {command.out}")
    return 0


def _say_tests(done: Exported) -> None:
    if done.parity is not None:
        print(done.parity)
        add_result(parity=asdict(done.parity))
    if done.opencv is not None:
        print(f"OpenCV: {done.opencv}")
        add_result(opencv=asdict(done.opencv))
    if done.maps is not None:
        print("mAP (voc12): {:.1f} fp32 in PyTorch, {:.1f} int8".format(*(100 * m for m in done.maps)))
        add_result(map=dict(zip(("fp32", "int8"), done.maps, strict=True)))


def _thresholds(command: Export) -> Thresholds:
    from fssd.heads.head import DEFAULTS, Thresholds

    top_k, keep = command.limits.top_k or DEFAULTS.top_k, command.limits.keep or DEFAULTS.keep
    return Thresholds(command.score, command.overlap, top_k, keep)


def _export_page(command: Export) -> int:
    from fssd.export.site import export_site, require_own_folder
    from fssd.inference.detector import Detector
    from fssd.runtimes.choose import find_runtime
    from fssd.runtimes.packages import require_all

    require_own_folder(command.out)
    needed = find_runtime("onnx").needs(eight_bits=False)
    require_all(needed if command.allow_unchecked else {**needed, "web": ("playwright.sync_api",)})
    detector = Detector.load(command.model, device="cpu")
    _ = detector.network  # an exported file cannot be exported again
    note_without_tiles(detector, "the page")
    done = export_site(
        detector,
        command.out,
        nms=_thresholds(command),
        images=_pictures(command, detector.geometry),
        ort=command.ort,
        fp16=command.fp16,
        unchecked=command.allow_unchecked,
    )
    print(done or "not checked in a browser, as asked")
    add_result(out=command.out, to=command.to, checked=done is not None)
    folder = shlex.quote(str(command.out))
    print(f"exported: {command.out}; to try it: python3 -m http.server --directory {folder}")
    return 0


def _export_weights(command: Export, detector: Detector) -> int:
    from fssd.export.darknet_files import export_darknet
    from fssd.export.half import export_half

    if command.to == "darknet":
        print(f"{export_darknet(detector, command.out):,} numbers read back as they were written")
    else:
        print(export_half(detector, command.out, _pictures(command, detector.geometry)))
    add_result(out=command.out, to=command.to)
    print(f"exported: {command.out}")
    return 0


def _check_to(to: str) -> None:
    from fssd.runtimes.choose import RUNTIMES

    known = (*RUNTIMES, "web", *WEIGHTS)
    if to not in known:
        raise ConfigError(f"there is no --to {to!r}{nearest(to, known)}")


def _check(command: Export) -> None:
    """Raise ConfigError for choices that do not fit together."""
    _check_to(command.to)
    if command.to in WEIGHTS and (command.raw or command.nms or command.int8 or command.fp16):
        flags = "--raw, --nms, --int8 and --fp16"
        raise ConfigError(f"--to {command.to} writes weights only; {flags} are for a runtime")
    if command.to == "web" and (command.raw or command.int8):
        raise ConfigError("--to web has NMS inside and is not quantised; leave out --raw and --int8")
    if command.to != "web" and (command.ort is not None or command.allow_unchecked):
        raise ConfigError("--ort and --allow-unchecked are for --to web; leave them out")
    if command.allow_unchecked and command.images:
        raise ConfigError("--images are for the check that --allow-unchecked leaves out; choose one")
    if command.int8 and command.fp16:
        raise ConfigError("--int8 and --fp16 exclude each other; choose one precision")
    if command.check not in (None, "opencv"):
        raise ConfigError(f"--check {command.check}: there is no such check; write --check opencv")
    if command.check and (command.to != "onnx" or command.int8):
        raise ConfigError("--check opencv is for --to onnx in floating point; leave it out")
    if command.to == "darknet" and command.images:
        raise ConfigError("--to darknet compares numbers, not detections; leave --images out")
    if command.to != "onnx" and command.opset != Export.opset:
        raise ConfigError(f"--opset is for --to onnx, not {command.to}; leave it out")
    if command.raw and command.nms:
        raise ConfigError("--raw and --nms exclude each other; choose one end of the graph")
    if command.int8 and command.calibrate is None:
        raise ConfigError("--int8 needs images to calibrate on; name a data set with --calibrate")
    if command.calibrate is not None and not command.int8:
        raise ConfigError("--calibrate is for --int8; add that, or name images for the check with --images")
    _check_thresholds_and_images(command)


def _check_thresholds_and_images(command: Export) -> None:
    """Raise ConfigError for flags that would do nothing."""
    given = set(changed(command, Export(command.model, command.out)))
    if not command.nms and command.to != "web" and given & THRESHOLDS:
        flags = "--score, --overlap, --top-k and --keep"
        raise ConfigError(f"{flags} are built in with --nms alone; add that, or give them at run time")
    if command.calibrate is None and given & MEASURING:
        flags = "--train-split, --val-split, --bad-share, --allow-drop and --allow-few"
        raise ConfigError(f"{flags} are for --int8 with --calibrate; leave them out")
    if command.int8 and command.images:
        raise ConfigError("--int8 is measured on the images of --calibrate; leave --images out")


def _pictures(command: Export, geometry: Geometry) -> Tensor | None:
    """The user's images for the check, (N, 3, H, W), if any."""
    if not command.images:
        return None
    from fssd.export.images import read_pictures
    from fssd.inference.inputs import find_only_stills

    return read_pictures(find_only_stills(command.images), geometry)


def _trial(command: Export, geometry: Geometry, classes: tuple[str, ...]) -> Trial | None:
    """Calibration images of the training split and the split to measure on, if --calibrate is given."""
    if command.calibrate is None:
        return None
    from fssd.data.source import list_splits
    from fssd.data.split_names import training_split
    from fssd.evaluation.evaluate import check_measurable
    from fssd.evaluation.measured import measured_images
    from fssd.export.images import evenly_spaced, read_pictures
    from fssd.export.trial import Trial
    from fssd.weights.checkpoint import model_file

    train_split, val_split = command.train_split, command.val_split
    if train_split == "auto":
        train_split = training_split(list_splits(command.calibrate))
    shown = open_usable(command.calibrate, None if train_split == "none" else train_split, command.bad_share)
    models = [model_file(command.model)]
    measured = measured_images(
        command.calibrate,
        None if val_split == "none" else val_split,
        models,
        command.bad_share,
        seen_images=True,
    )[0]
    check_measurable(measured, classes, "voc12")
    kept = {record.path for record in measured.records}
    others = [record for record in shown.records if record.path not in kept]
    chosen = evenly_spaced(others or shown.records)
    images = read_pictures([record.picture for record in chosen], geometry)
    return Trial(images, measured, sum(len(record.labels) for record in chosen), command.allow_few)
