"""Result archives for the evaluation servers of Pascal VOC and COCO.

Test splits have no labels: a split is read as its list of images only.
Equal detections give equal bytes; an archive holds no time, user or path.
"""

from __future__ import annotations

import gzip
import io
import re
import tarfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from fssd.atomic import atomic_path, atomic_write
from fssd.data.formats.json_values import read_json
from fssd.data.formats.labels import read_lines
from fssd.data.formats.lookup import match_split
from fssd.data.formats.voc import VOC_CLASSES
from fssd.data.formats.voc_folder import YEAR, VocFolder
from fssd.data.sample import DataSet, background_record
from fssd.errors import ConfigError, DataError
from fssd.evaluation.results import write_coco_results, write_voc_results
from fssd.inference.detections import Detections

Server = Literal["voc2007", "voc2012", "coco"]
Competition = Literal["comp3", "comp4"]

USUAL_SPLIT = {"voc2007": "test", "voc2012": "test", "coco": "test-dev2017"}
TAR_GZ = (".tar.gz", ".tgz")
_INSTANCES, _IMAGE_INFO = "instances_", "image_info_"
_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest date that a zip file can state


@dataclass(frozen=True)
class SubmissionSplit:
    """The images to submit detections for.

    dataset: records without labels, with the official classes. server: where results go. name: the full name
    of the split, such as test-dev2017.
    """

    dataset: DataSet
    server: Server
    name: str


def open_split(path: Path, server: Server, split: str | None = None) -> SubmissionSplit:
    """The images of a split. split: None for the one that the server evaluates.

    VOC: path is a VOCdevkit, the folder that holds it, or one VOC folder; ImageSets/Main/SPLIT.txt lists the
    images. COCO: path is a folder with annotations/image_info_SPLIT.json or instances_SPLIT.json, or such a
    file. Raises DataError if one of these or an image is missing.
    """
    split = split or USUAL_SPLIT[server]
    found = _open_coco(path, split) if server == "coco" else _open_voc(path, server, split)
    missing = [record.path for record in found.dataset.records if not record.path.is_file()]
    if missing:
        share = f"{len(missing)} of the {len(found.dataset)} images of {found.name} are"
        raise DataError(f"is missing ({share}); the server wants every image", file=missing[0])
    return found


def require_classes(known: Sequence[str], asked: Sequence[str], server: Server) -> None:
    """Raise ConfigError that names the classes of the server that a model does not know, if there are any."""
    missing = [name for name in asked if name not in known]
    if missing:
        named = ", ".join(missing)
        raise ConfigError(f"the model lacks {len(missing)} of the {len(asked)} classes of {server}: {named}")


def archive_path(out: Path, split: SubmissionSplit, name: str) -> Path:
    """The file to write: `out` itself, or a file of the usual name if `out` is a folder.

    name: of the method; COCO wants it in the file name. Raises ConfigError for a name or suffix that the
    server does not accept.
    """
    if not re.fullmatch(r"[A-Za-z0-9.-]+", name):
        raise ConfigError(f"name {name!r} is part of a file name; use letters, digits, dots and dashes")
    endings = (".zip",) if split.server == "coco" else TAR_GZ
    if out.is_dir() or not out.suffix:
        return out / (f"{_coco_stem(split, name)}.zip" if split.server == "coco" else "results.tar.gz")
    if not out.name.endswith(endings):
        takes = f"{split.server} takes {' or '.join(endings)}"
        raise ConfigError(f"{out}: {takes}; name such a file, or a folder")
    return out


def write_voc_archive(
    file: Path, split: SubmissionSplit, found: Sequence[Detections], competition: Competition = "comp4"
) -> None:
    """Write results/VOC<year>/Main/<competition>_det_<split>_CLASS.txt of all 20 classes as a .tar.gz.

    found: one Detections per record. comp3 is for training on VOC's own images only, comp4 for any data.
    Coordinates are written as the model learned them, 1-based as in VOC's label files: nothing is added.
    """
    ids = [record.image_id for record in split.dataset.records]
    member_folder = f"results/{split.server.upper()}/Main"
    with TemporaryDirectory() as folder:
        files = write_voc_results(
            folder, ids, found, split.dataset.classes, challenge=competition, split=split.name
        )
        contents = {f"{member_folder}/{text.name}": text.read_bytes() for text in files}
    atomic_write(file, _tar_gz(contents))


def write_coco_archive(file: Path, split: SubmissionSplit, found: Sequence[Detections], name: str) -> None:
    """Write detections_<split>_<name>_results.json, as `write_coco_results` does, in a .zip."""
    member = zipfile.ZipInfo(f"{_coco_stem(split, name)}.json", _ZIP_EPOCH)
    member.compress_type = zipfile.ZIP_DEFLATED
    member.create_system, member.external_attr = 3, 0o100644 << 16  # the same on every system
    with TemporaryDirectory() as folder:
        rows = Path(folder) / "results.json"
        write_coco_results(rows, split.dataset, found)
        with atomic_path(file) as temporary, zipfile.ZipFile(temporary, "w") as archive:
            archive.writestr(member, rows.read_bytes())


def _coco_stem(split: SubmissionSplit, name: str) -> str:
    return f"detections_{split.name}_{name}_results"


def _tar_gz(contents: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with (
        gzip.GzipFile(filename="", fileobj=packed, mode="wb", mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for name, content in contents.items():
            member = tarfile.TarInfo(name)  # mode 644, owner 0, time 0
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def _open_voc(path: Path, server: Server, split: str) -> SubmissionSplit:
    folder = VocFolder(_voc_root(path, server.upper()))
    file = folder.set_file(split)
    if not file.is_file():
        raise DataError(f"no such file, so there is no split {split!r}; check --split", file=file)
    ids = list(dict.fromkeys(line.split()[0] for line in read_lines(file) if line.strip()))
    if not ids:
        raise DataError("lists no image", file=file)
    records = tuple(background_record(image_id, folder.picture(image_id)) for image_id in ids)
    return SubmissionSplit(DataSet(VOC_CLASSES, records), server, split)


def _voc_root(path: Path, year: str) -> Path:
    """The folder of a year, such as VOC2012; a folder that is not called VOCdddd is taken as that year."""
    for root in (path / year, path / "VOCdevkit" / year, path):
        if (root / "JPEGImages").is_dir() and (root / "ImageSets" / "Main").is_dir():
            if YEAR.fullmatch(root.resolve().name) and root.resolve().name != year:
                raise DataError(f"is not {year}; give the folder of that year, or another --to", file=path)
            return root
    raise DataError(f"holds no {year} with JPEGImages and ImageSets/Main in it; check --data", file=path)


def _open_coco(path: Path, split: str) -> SubmissionSplit:
    file, name = _coco_file(path, split)
    content = _read_coco(file)
    images = {row["id"]: row["file_name"] for row in content["images"]}
    categories = {row["id"]: row["name"] for row in content["categories"]}
    folder = _images_folder(file, name)
    records = tuple(background_record(str(key), folder / text) for key, text in images.items())
    facts = {"category_ids": tuple(categories)}
    return SubmissionSplit(DataSet(tuple(categories.values()), records, facts=facts), "coco", name)


def _coco_file(path: Path, split: str) -> tuple[Path, str]:
    """The json file of a split and its full name; image_info files belong to the test splits."""
    if path.is_file():
        return path, path.stem.removeprefix(_INSTANCES).removeprefix(_IMAGE_INFO)
    known = {
        file.stem.removeprefix(kind): file
        for kind in (_INSTANCES, _IMAGE_INFO)
        for file in sorted((path / "annotations").glob(f"{kind}*.json"))
    }
    if not known:
        reason = "holds no annotations/image_info_*.json or instances_*.json; check --data"
        raise DataError(reason, file=path)
    name = match_split(split, list(known), path)
    return known[name], name


def _read_coco(file: Path) -> dict[str, list[dict[str, Any]]]:
    content = read_json(file)
    for key, text in (("images", "file_name"), ("categories", "name")):
        rows = content.get(key) if isinstance(content, dict) else None
        if not isinstance(rows, list) or not rows:
            raise DataError(f"has no list {key!r}, or an empty one", file=file, place=key)
        seen: set[int] = set()
        for number, row in enumerate(rows):
            place = f"{key}[{number}]"
            if not (isinstance(row, dict) and type(row.get("id")) is int and isinstance(row.get(text), str)):
                raise DataError(f"needs a number `id` and a `{text}`", file=file, place=place)
            if row["id"] in seen:
                raise DataError(f"repeats the id {row['id']}; give each its own", file=file, place=place)
            seen.add(row["id"])
    found: dict[str, list[dict[str, Any]]] = content
    return found


def _images_folder(file: Path, name: str) -> Path:
    """The image folder of a split, beside or inside annotations; test-dev2017 is part of test2017."""
    names = (name, re.sub(r"-dev|-challenge|-reserve", "", name))
    above = file.parent.parent
    folders = [base / each for each in names for base in (above, above / "images", file.parent)]
    return next((folder for folder in folders if folder.is_dir()), above / names[-1])
