"""What results depend on; two of them are never mixed in one DEST."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from fssd.runtimes.choose import runtime_of
from fssd.storage.folders import is_remote
from fssd.weights.checkpoint import model_file
from fssd.weights.content import beside

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Fingerprint:
    """model: SHA-256 of the model's file. settings: thresholds and scales, by name. version: of fssd.
    source: the sources as given, behind the folder that relative ones begin at. part: images in a part.
    """

    model: str
    settings: Mapping[str, Any]
    version: str
    source: tuple[str, ...]
    part: int

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> Fingerprint:
        """From JSON. Raises KeyError, TypeError."""
        source = tuple(map(str, content["source"]))
        settings = dict(content["settings"])
        return cls(str(content["model"]), settings, str(content["version"]), source, int(content["part"]))

    def differences(self, other: Fingerprint) -> list[str]:
        """What differs, as phrases such as `--score 0.5, not 0.3` or `no --voc`."""
        found = []
        if self.model != other.model:
            found.append(f"the model of SHA-256 {self.model[:12]}..., not {other.model[:12]}...")
        for name in dict.fromkeys((*self.settings, *other.settings)):
            one, two = self.settings.get(name), other.settings.get(name)
            if one != two:
                found.append(_difference(f"--{name.replace('_', '-')}", one, two))
        pairs = (("version", self.version, other.version), ("--part", self.part, other.part))
        found += [f"{name} {one}, not {two}" for name, one, two in pairs if one != two]
        if self.source != other.source:
            found.append(f"the source {' '.join(self.source)}, not {' '.join(other.source)}")
        return found


def _difference(flag: str, one: Any, two: Any) -> str:
    if not _is_given(one):
        return f"no {flag}"
    if one is True or not _is_given(two):
        return flag
    return f"{flag} {_words(one)}, not {_words(two)}"


def _is_given(value: Any) -> bool:
    return not (value is None or value is False or value in ([], {}))


def _words(value: Any) -> str:
    """A setting as it is given to a flag."""
    if isinstance(value, Mapping):
        return " ".join(f"{name}={one}" for name, one in value.items())
    return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def installed_version() -> str:
    """The version of fssd in this process, "unknown" for a checkout that is not installed."""
    try:
        return version("fssd")
    except PackageNotFoundError:
        return "unknown"


def model_digest(model: Path) -> str:
    """SHA-256 of a model's file, and of those that belong to it, such as OpenVINO's .bin. Raises
    CheckpointError if there is no such model.
    """
    file = model_file(model)
    runtime = runtime_of(file)
    digest = hashlib.sha256()
    for part in (file, *(beside(file, suffix) for suffix in (runtime.beside if runtime else ()))):
        if part.is_file():
            with part.open("rb") as stream:
                while chunk := stream.read(_CHUNK):
                    digest.update(chunk)
    return digest.hexdigest()


def absolute_source(source: str) -> str:
    """The source as it is called from any folder."""
    if is_remote(source):
        return source
    mark, name = ("@", source[1:]) if source.startswith("@") else ("", source)
    return f"{mark}{Path(name).absolute()}"
