"""The answer where no label format is recognised: what was looked for, what is there, and what to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from fssd.data.decode import IMAGE_EXTENSIONS
from fssd.data.formats.lookup import visible_files
from fssd.data.formats.reader import Reader
from fssd.errors import DataError

_MOST_FOLDERS = 30  # that are looked into
_NAMED = 6  # kinds of files in the message
_TABLES = (".csv", ".tsv", ".json", ".xml", ".txt", ".yaml", ".yml")
_OTHER_LABELS = {
    ".tfrecord": "TFRecord files", ".record": "TFRecord files", ".parquet": "Parquet files",
    ".arrow": "Arrow files", ".mat": "Matlab files", ".h5": "HDF5 files", ".hdf5": "HDF5 files",
    ".pkl": "Python pickles", ".lst": "MXNet lists", ".xlsx": "Excel tables",
    ".jsonl": "JSON lines", ".ndjson": "JSON lines",
}  # fmt: skip


def unrecognised(path: Path, readers: Sequence[Reader]) -> DataError:
    """The error for a path that no reader recognises."""
    *most, last = (reader.looked_for for reader in readers)
    known = f"{', '.join(most)} and {last}"
    if not path.is_dir():
        return DataError(f"is no data set; give the folder or file of a known one: {known}", file=path)
    counts = Counter(file.suffix.lower() or "without a suffix" for file in visible_files(path))
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    parts = [f"{number:,} {suffix}" for suffix, number in ordered[:_NAMED]]
    rest = len(counts) - len(parts)
    holds = ", ".join(parts) + (f" and {rest} other kinds of files" if rest else "")
    advice = _below(path, readers) or _advice(counts)
    reason = f"holds no known data set but {holds or 'no file'}; {advice} (looked for {known})"
    return DataError(reason, file=path)


def _below(path: Path, readers: Sequence[Reader]) -> str:
    """The folders inside that are data sets each, if there are any."""
    folders = sorted(path.glob("[!.]*/"))[:_MOST_FOLDERS]
    found = {folder.name: next((r.name for r in readers if r.recognise(folder)), "") for folder in folders}
    names = ", ".join(f"{folder} ({name})" for folder, name in found.items() if name)
    return names and f"folders inside are data sets: {names}; give one, or join them in a YAML with `sources`"


def _advice(counts: Counter[str]) -> str:
    pictures = sum(number for suffix, number in counts.items() if suffix in IMAGE_EXTENSIONS)
    other = next((name for suffix, name in _OTHER_LABELS.items() if counts[suffix]), "")
    if other:
        return f"labels in {other} cannot be read: export them as COCO json or Pascal VOC"
    if counts[".zip"] + counts[".tar"] + counts[".tgz"]:
        return "give the archive itself, or unpack it"
    tables = [suffix for suffix in _TABLES if counts[suffix]]
    if not counts:
        return "check the path"
    if pictures and not tables:
        return "the pictures have no labels: draft them with `fssd label`, or label them in a tool"
    if tables and not pictures:
        return f"no {tables[0]} file there holds labels in a known form, and there are no pictures"
    if tables:
        return f"no {' or '.join(tables)} file there holds labels in a known form: export as COCO or VOC"
    return "give the folder that holds pictures and labels"
