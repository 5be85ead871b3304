"""DEST/unfinished.json: what plain `fssd detect` leaves while it is not done, so that it can go on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from fssd.atomic import atomic_write
from fssd.errors import ConfigError
from fssd.inference.inputs import output_names
from fssd.parts.fingerprint import Fingerprint, installed_version, model_digest

FILE = "unfinished.json"


Stamps = dict[str, list[int] | None]  # by path, see `_stamp`


class _Earlier(NamedTuple):
    """What an earlier call has left. names: of its results, by path. films: names of those that are done."""

    made: Fingerprint
    names: dict[str, str]
    films: set[str]
    stamps: Stamps


class Unfinished:
    """The state of a detection in a folder.

    goes_on: whether an earlier call of the same command was ended before it was done. others: what differs
    from an earlier call of another command, whose results are written over. films: the names of those that
    are done. changed: how many inputs of the earlier call are not what they were, or not there any more.
    Raises ConfigError where the file is of something else, such as shards that are being written.
    """

    def __init__(
        self, folder: Path, model: Path, sources: Sequence[str], settings: Mapping[str, Any]
    ) -> None:
        self._file = folder / FILE
        spelled = _as_spelled(sources)
        self._made = Fingerprint(model_digest(model), dict(settings), installed_version(), spelled, 0)
        before = _read(self._file)
        self.others = [] if before is None else before.made.differences(self._made)
        self.goes_on = before is not None and not self.others
        if before is None or self.others:
            before = _Earlier(self._made, {}, set(), {})
        self._names, self.films, self._before = before.names, before.films, before.stamps
        self._stamps: Stamps = {}
        self._is_pruned = False
        self.changed = sum(_stamp(Path(name)) != stamp for name, stamp in self._before.items())

    def output_names(self, files: Iterable[Path], suffix: str) -> list[str]:
        """Those of `output_names`; an input of the earlier call keeps its own, whatever was added since."""
        paths = list(files)
        names = output_names(paths, suffix, self._names)
        self._names.update(zip(map(str, paths), names, strict=True))
        self._stamps.update({str(path): _stamp(path) for path in paths})
        self.films -= {name for path, name in zip(paths, names, strict=True) if not self.is_kept(path)}
        return names

    def is_kept(self, file: Path) -> bool:
        """Whether what the earlier call has found in an input is that of the file as it is now."""
        own = self._stamps[str(file)]
        return self._before.get(str(file), own) == own

    def begin(self, is_pruned: bool = False) -> None:
        """Note that the work has begun; its folder exists.

        is_pruned: whether what was found in changed images is taken out of the results. Until then a call
        that goes on must take these images for changed.
        """
        self._is_pruned = is_pruned
        self._note()

    def _note(self) -> None:
        content = {"made with": asdict(self._made), "names": self._names, "films": sorted(self.films)}
        still = {name: stamp for name, stamp in self._before.items() if name in self._stamps}
        stamps = self._stamps if self._is_pruned else self._stamps | still
        atomic_write(self._file, json.dumps({**content, "stamps": stamps}) + "\n")

    def film_is_done(self, name: str) -> None:
        self.films.add(name)
        self._note()

    def end(self) -> None:
        """Note that all is done: the same command starts from the beginning."""
        self._file.unlink(missing_ok=True)


def _as_spelled(sources: Sequence[str]) -> tuple[str, ...]:
    """The sources, and the folder that relative ones begin at.

    Images have the names in the results that their sources give them: under another spelling of the same
    source they would be others, and be there twice.
    """
    paths = [Path(source) for source in sources]
    base = () if all(path.is_absolute() for path in paths) else (f"in {Path.cwd()}",)
    return (*map(str, paths), *base)


def _stamp(file: Path) -> list[int] | None:
    """Its size and when it was written; None where it cannot be looked up."""
    try:
        found = file.stat()
    except (OSError, ValueError):
        return None
    return [found.st_size, found.st_mtime_ns]


def _read(file: Path) -> _Earlier | None:
    """None if there is no file, or one of an earlier version that goes on in another way."""
    if not file.exists():
        return None
    try:
        content = json.loads(file.read_bytes())
        made = Fingerprint.read(content["made with"])
    except (ValueError, KeyError, TypeError) as error:
        reason = "is not of `fssd detect` and would be overwritten; move it or choose another --out"
        raise ConfigError(f"{file}: {reason}") from error
    try:
        return _Earlier(made, dict(content["names"]), set(content["films"]), dict(content["stamps"]))
    except (ValueError, KeyError, TypeError):
        return None
