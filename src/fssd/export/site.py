"""A web page that detects in the browser, without a server: the model, ONNX Runtime Web and a few scripts."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from importlib import resources
from pathlib import Path
from typing import Any

from torch import Tensor

from fssd.atomic import make_folder, temporary_prefix
from fssd.data.geometry import MEAN
from fssd.errors import ConfigError
from fssd.export.onnxruntime_web import WASM, runtime_files
from fssd.export.site_check import SiteParity, check_site
from fssd.export.write import write_unchecked
from fssd.heads.head import Thresholds
from fssd.inference.detector import Detector
from fssd.inference.draw import class_colour
from fssd.runtimes.choose import find_runtime

SHARED = ("page.css", "icon.svg", "theme.js", "app.js", "view.js", "save.js")  # with the page of `fssd serve`
AT_THE_TOP = ("index.html", "sw.js")
KIND = "site"
SHOWN = 0.5  # the score from which objects are shown at first


def export_site(
    detector: Detector,
    out: Path,
    *,
    nms: Thresholds,
    images: Tensor | None = None,
    ort: Path | None = None,
    fp16: bool = False,
    unchecked: bool = False,
) -> SiteParity | None:
    """Write the folder `out` if the page finds in Chromium what PyTorch finds. Returns None if unchecked.

    nms: thresholds built into the model. images: (N, 3, H, W) uint8 RGB to compare on; synthetic ones are
    added to a small number. ort: folder of onnxruntime-web; None downloads it. fp16: half precision.
    Of an earlier page in `out` only what is of the page is replaced: its files, `assets` and `ort`.
    Raises ConfigError for a folder with other things in it, a missing package or browser, or a head without
    NMS; FetchError; ExportError if the page fails. `out` is then left as it was.
    """
    require_own_folder(out)
    runtime = runtime_files(ort)
    on_cpu = Detector(deepcopy(detector.network).to("cpu"), detector.classes, detector.facts)
    with _replaced(out) as folder:
        write_unchecked(on_cpu, folder / "model.onnx", find_runtime("onnx"), nms=nms, fp16=fp16)
        document = _document(on_cpu, nms, len(runtime) > len(WASM), "fp16" if fp16 else "fp32")
        (folder / "model.json").write_text(json.dumps(document, indent=1, ensure_ascii=False), "utf-8")
        _write_page(folder, runtime)
        return None if unchecked else check_site(on_cpu, folder, nms, images, fp16)


def require_own_folder(out: Path) -> None:
    """Raise ConfigError unless `out` is free, empty, or a page that was exported before."""
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out}: is a file; --to web writes a folder")
    if out.is_dir() and any(out.iterdir()) and not _is_site(out):
        raise ConfigError(f"{out}: holds other files; name a new folder, or an earlier page to replace")


def _is_site(folder: Path) -> bool:
    try:
        return bool(json.loads((folder / "model.json").read_bytes())["kind"] == KIND)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _document(detector: Detector, nms: Thresholds, webgpu: bool, precision: str) -> dict[str, Any]:
    """What the scripts read about the model."""
    network = detector.network
    return {
        "kind": KIND,
        "model": network.spec.name,
        "classes": [
            {"name": name, "colour": "#{:02x}{:02x}{:02x}".format(*class_colour(index))}
            for index, name in enumerate(detector.classes)
        ],
        "size": list(network.image_size),
        "geometry": network.geometry.name,
        "fill": list(MEAN),
        "class_scores": {name: max(score, nms.score) for name, score in detector.class_scores.items()},
        "least_score": nms.score,
        "score": max(SHOWN, nms.score),
        "webgpu": webgpu,
        "precision": precision,
    }


def _write_page(folder: Path, runtime: Mapping[str, bytes]) -> None:
    """The page, its scripts, and ONNX Runtime. The service worker is named after the content of all files."""
    own = resources.files("fssd.export") / "page"
    shared = resources.files("fssd.serve") / "page"
    for part in ("assets", "ort"):
        (folder / part).mkdir()
    for file in own.iterdir():
        place = folder if file.name in AT_THE_TOP else folder / "assets"
        (place / file.name).write_bytes(file.read_bytes())
    for name in SHARED:
        (folder / "assets" / name).write_bytes((shared / name).read_bytes())
    for name, content in runtime.items():
        (folder / "ort" / name).write_bytes(content)
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        digest.update(path.read_bytes() if path.is_file() else b"")
    worker = folder / "sw.js"
    worker.write_text(worker.read_text("utf-8").replace("VERSION", digest.hexdigest()[:16]), "utf-8")


@contextmanager
def _replaced(out: Path) -> Iterator[Path]:
    """A new folder whose files and folders take the place of those in `out` if the block ends without an
    error. Others stay: a page that is published may lie in a repository, with a CNAME beside it."""
    make_folder(out.resolve().parent)
    with tempfile.TemporaryDirectory(prefix=temporary_prefix(), dir=out.resolve().parent) as temporary:
        new, old = Path(temporary) / "new", Path(temporary) / "old"
        new.mkdir()
        yield new
        if not out.is_dir():
            shutil.move(new, out)
            return
        old.mkdir()
        for item in new.iterdir():
            there = out / item.name
            if there.exists():
                shutil.move(there, old / item.name)
            shutil.move(item, there)
