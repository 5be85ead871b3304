"""Scenes of real handwritten digits on real photographs: a detection data set that needs no download.

The objects are the 1797 scanned digits of scikit-learn's `load_digits` (UCI Optical Recognition of
Handwritten Digits, CC BY 4.0), scaled to heights of 12 to 160 pixels in an image of 300. The backgrounds are
photographs from the scikit-image wheel, which documents them as public domain or CC0:

    train  astronaut          public domain (NASA)          brick   CC0 (CC0Textures, Bricks25)
           hubble_deep_field  public domain (NASA)          grass   CC0 (Linolafett, DeviantArt)
           coffee             CC0 (Rachel Michetti)         retina  CC0 (Mikael Häggström)
    val    rocket             public domain (SpaceX)        gravel  CC0 (CC0Textures, Gravel04)
           camera             CC0 (Lav Varshney)            chelsea CC0 (Stefan van der Walt)

No digit and no photograph is in both splits, so `val` measures generalisation.

    folder = make_scenes("scenes")          # 600 train + 150 val scenes, Pascal VOC layout
    scene = make_scene("train", 3)          # one scene in memory, with its clean background
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

import cv2
import numpy as np
import numpy.typing as npt

from fssd.data.sample import Boxes, Image, Labels
from fssd.errors import ConfigError

Split = Literal["train", "val"]
Plane = npt.NDArray[np.float32]  # (H, W), 0..1
Box = tuple[int, int, int, int]  # xyxy pixels

CLASSES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
PHOTOGRAPHS: dict[Split, tuple[str, ...]] = {
    "train": ("astronaut.png", "hubble_deep_field.jpg", "coffee.png", "brick.png", "grass.png", "retina.jpg"),
    "val": ("rocket.jpg", "gravel.png", "camera.png", "chelsea.png"),
}
# The digits are sorted by writer, so splitting them in order also gives the two splits mostly other writers.
FIRST_VAL_DIGIT = 1400

HEIGHTS = ((12, 32), (32, 96), (96, 160))  # pixels at REFERENCE_SIZE; small, medium, large: a third each
REFERENCE_SIZE = 300  # pixels; the image size that HEIGHTS refers to
MAX_OBJECTS = 12  # in one scene
EMPTY_EVERY = 20  # scene 10 of every 20 has no object: fixed, not random, so that small sets have some too
MAX_COVER = 0.1  # of the smaller of two boxes, largest share that the other covers; bounds their IoU as well
MIN_ALPHA = 0.1  # weaker ink is dropped, so that a box holds every pixel that was changed
MIN_CONTRAST = 70.0  # grey levels between ink and the mean behind it, before the texture's spread is added
JPEG_QUALITY = 92
MANIFEST = "scenes.json"
VERSION = 1  # raise it when the same settings give other scenes


@dataclass(frozen=True)
class Scene:
    """One image and what is in it.

    image, background: (S, S, 3) uint8 RGB, with and without the digits.
    boxes: (N, 4) float32 xyxy pixels, tight around the ink. labels: (N,) int64 into CLASSES.
    digits: (N,) int64, which of the 1797 digits. photograph: file name of the background.
    """

    image: Image
    background: Image
    boxes: Boxes
    labels: Labels
    digits: Labels
    photograph: str


def make_scenes(
    folder: Path | str, *, train: int = 600, val: int = 150, seed: int = 0, size: int = 300
) -> Path:
    """Write `train` + `val` scenes of `size` x `size` pixels to `folder` in Pascal VOC layout.

    The same settings give the same files. A folder that already holds them is returned unchanged; one that
    holds anything else is an error. An interrupted run leaves no folder that looks finished.
    """
    folder = Path(folder)
    settings = {"version": VERSION, "train": train, "val": val, "seed": seed, "size": size}
    _check(settings)
    if _holds(folder, settings):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as work:
        draft = Path(work) / folder.name
        counts: dict[Split, int] = {"train": train, "val": val}
        objects = {split: _write_split(draft, split, count, seed, size) for split, count in counts.items()}
        manifest = {"settings": settings, "classes": CLASSES, "objects": objects, "photographs": PHOTOGRAPHS}
        (draft / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        if folder.is_dir():
            folder.rmdir()  # empty, as _holds found; Windows renames onto no folder at all
        draft.rename(folder)
    return folder


def make_scene(split: Split, index: int, *, seed: int = 0, size: int = 300) -> Scene:
    """Scene number `index` of a split; it depends on the arguments alone."""
    if split not in PHOTOGRAPHS:
        raise ConfigError(f"there is no split {split!r}; known: {', '.join(PHOTOGRAPHS)}.")
    rng = np.random.default_rng([seed, get_args(Split).index(split), index])
    photograph = str(rng.choice(PHOTOGRAPHS[split]))
    image = background = _background(_photograph(photograph), size, rng)
    pixels, all_labels = _digits()
    first, last = (0, FIRST_VAL_DIGIT) if split == "train" else (FIRST_VAL_DIGIT, len(pixels))
    boxes: list[Box] = []
    digits: list[int] = []
    for height in _heights(size, rng) if index % EMPTY_EVERY != EMPTY_EVERY // 2 else []:
        digit = int(rng.integers(first, last))
        alpha = draw_digit(pixels[digit], height, rng.uniform(-12, 12), rng.uniform(-0.2, 0.2))
        box = _free_box(alpha.shape, boxes, size, rng)
        if box is None:
            continue  # no room: the scene has one object less
        image = _blend(image, alpha * np.float32(rng.uniform(0.85, 1.0)), box, rng)
        boxes.append(box)
        digits.append(digit)
    which = np.array(digits, np.int64)
    corners = np.array(boxes, np.float32).reshape(-1, 4)  # (0, 4) when there is nothing
    return Scene(image, background, corners, all_labels[which], which, photograph)


def draw_digit(pixels: Plane, height: int, degrees: float, shear: float) -> Plane:
    """Ink coverage of a digit, (h, w) in 0..1, h about `height` pixels and cropped to the visible ink.

    pixels: (8, 8) in 0..1. degrees: turn, anticlockwise. shear: pixels to the side per pixel of height.
    """
    side = 2 * (height + 32)  # the digit fills half: rendered larger and then shrunk, it is smooth
    canvas = cv2.resize(np.pad(pixels, 4), (side, side), interpolation=cv2.INTER_CUBIC)
    turn = cv2.getRotationMatrix2D((side / 2, side / 2), degrees, 1.0)
    slant = np.array([[1.0, shear, -shear * side / 2], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    canvas = np.asarray(cv2.warpAffine(canvas, turn @ slant, (side, side)), np.float32)
    ink = np.clip((canvas - 0.34) / 0.33, 0, 1)
    ink = _crop(ink * ink * (3 - 2 * ink))  # a soft step turns the blurred scan into a stroke with an edge
    width = max(3, round(ink.shape[1] * height / ink.shape[0]))
    ink = np.asarray(cv2.resize(ink, (width, height), interpolation=cv2.INTER_AREA), np.float32)
    return _crop(np.where(ink < MIN_ALPHA, np.float32(0), np.minimum(ink, 1)))


def _crop(ink: Plane) -> Plane:
    """The smallest window that holds all ink at or above MIN_ALPHA."""
    rows, columns = np.nonzero(ink >= MIN_ALPHA)
    return ink[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]


def _heights(size: int, rng: np.random.Generator) -> list[int]:
    """1 to MAX_OBJECTS heights in pixels, largest first, because large digits are the hardest to fit in."""
    count = int(rng.integers(1, MAX_OBJECTS + 1))
    ranges = np.log([HEIGHTS[i] for i in rng.integers(0, len(HEIGHTS), count)])  # (count, 2)
    heights = np.exp(rng.uniform(ranges[:, 0], ranges[:, 1])) * size / REFERENCE_SIZE
    return sorted((max(8, round(h)) for h in heights), reverse=True)


def _free_box(shape: tuple[int, ...], taken: list[Box], size: int, rng: np.random.Generator) -> Box | None:
    """A random free xyxy box for an (h, w) object, at least 1 pixel from the border; None if none found."""
    height, width = shape
    for _ in range(60):
        x, y = int(rng.integers(1, size - width)), int(rng.integers(1, size - height))
        box = (x, y, x + width, y + height)
        if all(_cover(box, other) <= MAX_COVER for other in taken):
            return box
    return None


def _cover(a: Box, b: Box) -> float:
    """Shared area over the area of the smaller box: unlike IoU it is large for a small box in a large one."""
    wide = min(a[2], b[2]) - max(a[0], b[0])
    high = min(a[3], b[3]) - max(a[1], b[1])
    areas = ((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return max(0, wide) * max(0, high) / min(areas)


def _blend(image: Image, alpha: Plane, box: Box, rng: np.random.Generator) -> Image:
    """A copy of the image with ink of one colour blended over the box with opacity alpha."""
    x0, y0, x1, y1 = box
    patch = image[y0:y1, x0:x1].astype(np.float32)
    mixed = patch + alpha[..., None] * (_ink_colour(patch, rng) - patch)
    result: Image = image.copy()
    result[y0:y1, x0:x1] = np.round(mixed)
    return result


def _ink_colour(patch: npt.NDArray[np.float32], rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """A random RGB colour that contrasts with the patch, the more the patch varies."""
    luma = np.array([0.299, 0.587, 0.114])
    behind = patch @ luma
    colours = np.clip(rng.uniform(0, 255, (32, 1)) + rng.normal(0, 40, (32, 3)), 0, 255)
    contrast = np.abs(colours @ luma - behind.mean())
    enough = np.flatnonzero(contrast >= MIN_CONTRAST + behind.std())
    chosen = enough[0] if len(enough) else contrast.argmax()
    return np.asarray(colours[chosen], np.float32)


def _background(photograph: Image, size: int, rng: np.random.Generator) -> Image:
    """A square crop of random position, scale, flip, brightness and tint, resized to (size, size, 3)."""
    height, width = photograph.shape[:2]
    side = int(min(height, width) * rng.uniform(0.45, 1.0))
    x, y = int(rng.integers(0, width - side + 1)), int(rng.integers(0, height - side + 1))
    crop = photograph[y : y + side, x : x + side]
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    resized = cv2.resize(np.ascontiguousarray(crop), (size, size), interpolation=cv2.INTER_AREA)
    gain = rng.uniform(0.7, 1.2) * rng.uniform(0.9, 1.1, 3)  # per channel
    return np.asarray(np.clip(resized * gain + rng.uniform(-15, 25), 0, 255), np.uint8)


@lru_cache(maxsize=1)
def _digits() -> tuple[Plane, Labels]:
    """The digits (1797, 8, 8) in 0..1 and their labels (1797,)."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise _needs("scikit-learn") from error
    digits = load_digits()
    return (digits.images / 16).astype(np.float32), digits.target.astype(np.int64)


@lru_cache(maxsize=16)
def _photograph(name: str) -> Image:
    """A photograph of the scikit-image wheel, (H, W, 3) RGB; read directly, as its loader may download."""
    try:
        import skimage
    except ImportError as error:
        raise _needs("scikit-image") from error
    file = Path(skimage.__file__).parent / "data" / name
    # Not cv2.imread: on Windows it opens ASCII paths only.
    pixels = cv2.imdecode(np.fromfile(file, np.uint8), cv2.IMREAD_COLOR) if file.is_file() else None
    if pixels is None:
        advice = "install scikit-image 0.25 or 0.26."
        raise ConfigError(f"this scikit-image has no {name} in {file.parent}; {advice}")
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)


def _needs(package: str) -> ConfigError:
    return ConfigError(f'the demo scenes need {package}, which is not installed; pip install "fssd[demo]".')


def _check(settings: dict[str, int]) -> None:
    for name, least in (("train", 1), ("val", 0), ("seed", 0), ("size", 64)):
        if settings[name] < least:
            raise ConfigError(f"{name} is {settings[name]}, but must be at least {least}.")


def _holds(folder: Path, settings: dict[str, int]) -> bool:
    """Whether the folder is complete with these settings; an error if something else is there."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    try:
        found: Any = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None  # not ours: refused below
    total = settings["train"] + settings["val"]
    counts = [sum(1 for _ in folder.glob(p)) for p in ("Annotations/*.xml", "JPEGImages/*.jpg")]
    if isinstance(found, dict) and found.get("settings") == settings and counts == [total, total]:
        return True
    raise ConfigError(f"{folder} holds something else, not these scenes; choose another folder or delete it.")


def _write_split(folder: Path, split: Split, count: int, seed: int, size: int) -> int:
    """Write the images, annotations and list of one split; returns how many objects they hold."""
    for part in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    objects, stems = 0, []
    for index in range(count):
        scene, stem = make_scene(split, index, seed=seed, size=size), f"{split}_{index:05d}"
        bgr = cv2.cvtColor(scene.image, cv2.COLOR_RGB2BGR)
        done, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        assert done  # fails only for a picture that is not uint8 RGB
        (folder / "JPEGImages" / f"{stem}.jpg").write_bytes(data.tobytes())
        (folder / "Annotations" / f"{stem}.xml").write_text(_xml(scene, stem), encoding="utf-8")
        objects += len(scene.boxes)
        stems.append(stem)
    listed = "".join(f"{stem}\n" for stem in stems)
    (folder / "ImageSets/Main" / f"{split}.txt").write_text(listed, encoding="utf-8")
    return objects


def _xml(scene: Scene, stem: str) -> str:
    """The Pascal VOC annotation of a scene."""
    height, width = scene.image.shape[:2]
    objects = (
        f"  <object><name>{CLASSES[label]}</name><difficult>0</difficult><bndbox>"
        + "".join(f"<{k}>{v:g}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
        + "</bndbox></object>"
        for box, label in zip(scene.boxes, scene.labels, strict=True)
    )
    size = f"  <size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    lines = ("<annotation>", f"  <filename>{stem}.jpg</filename>", size, *objects, "</annotation>")
    return "".join(f"{line}\n" for line in lines)
