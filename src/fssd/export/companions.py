"""The files beside an exported one: an export may replace its own, and no others of the same name."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

from fssd.errors import ConfigError
from fssd.runtimes.choose import KNOWN

CFG_SUFFIX = ".cfg"
# How a cfg of `fssd export` begins; one to train with has further settings there.
_OWN_CFG = re.compile(
    r"\[net\]\nbatch=1\nsubdivisions=1\nwidth=\d+\nheight=\d+\nchannels=3\n\n\[convolutional\]\n"
)
_OF_HEADER = {"format", "model", "classes"}  # keys of the json beside a .param


def place_of(out: Path) -> Path:
    """Where an export to `out` is written: there, or at the end of a symbolic link of that name.

    The files beside it go to the same folder under the same stem, so that they fit what they lie beside.
    """
    return Path(os.path.realpath(out))


def require_own_beside(out: Path, beside: Sequence[str]) -> None:
    """Raise ConfigError if a file beside `out` would be replaced that no earlier export of `out` has written.

    So it does if `out` is a link and a file beside it would be read in place of one where the link leads.

    beside: the suffixes of these files.
    """
    place = place_of(out)
    for suffix in beside:
        file, by_link = place.with_suffix(suffix), out.with_suffix(suffix)
        if file.exists() and not (place.exists() and _is_own(file, place)):
            reason = f"is there already, would be replaced, and is not of an earlier {place.name}"
            raise ConfigError(f"{file}: {reason}; choose another name for --out, or move it away")
        if by_link.exists() and not (file.exists() and by_link.samefile(file)):
            reason = f"would be read with {out.name}, a link to {place}, in place of the new {file}"
            raise ConfigError(f"{by_link}: {reason}; move it away, or give --out without the link")


def _is_own(file: Path, out: Path) -> bool:
    """Whether a file of its kind belongs to `out`, as far as can be seen."""
    others = [out.with_suffix(one.suffix) for one in KNOWN if file.suffix in one.beside]
    if any(other.exists() for other in others if other != out):
        return False
    if file.suffix == CFG_SUFFIX:
        return _OWN_CFG.match(file.read_text("utf-8", "replace")) is not None
    return file.suffix != ".json" or _is_header(file)


def _is_header(file: Path) -> bool:
    try:
        document = json.loads(file.read_bytes())
    except ValueError:
        return False
    return isinstance(document, dict) and document.keys() >= _OF_HEADER
