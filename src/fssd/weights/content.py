"""The bytes of model files: what is plainly no model, and the digest by which damage is found.

A valid file can hold damaged numbers. So every file carries the SHA-256 of its own bytes in its metadata,
computed while 64 zeros stand in its place. It covers the weights, the graph and the metadata alike.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from fssd.errors import CheckpointError

KEY = "content_sha256"
BLANK = "0" * 64
# The digest stands in JSON, whose quotes safetensors and XML escape in their own ways.
_STORED = re.compile(KEY.encode() + rb"[^0-9a-f]{1,16}([0-9a-f]{64})")

EXPORTED = (".onnx", ".xml", ".param", ".engine")  # `Runtime.suffix` of each
COMPANIONS = {".bin": (".xml", ".param"), ".json": (".param",)}  # whose file belongs to it
# Other files begin like ONNX's, with a small number in field 1; only those with a digest are fssd's.
_STARTS = {
    ".xml": re.compile(rb"<\?xml[^>]*>\s*<net\b"),
    ".param": re.compile(rb"7767517\s"),
    ".onnx": re.compile(rb"\x08[\x01-\x1f][^\x00]"),
}


def seal(content: bytes, beside: bytes = b"") -> bytes:
    """The content of a file with `KEY: BLANK` in its metadata, the blank replaced by the digest.

    beside: the content of a second file that belongs to it.
    """
    found = _STORED.search(content)
    assert found is not None and found[1] == BLANK.encode()  # whoever writes the metadata puts it there
    digest = _digest(content, found.start(1), beside)
    return b"".join((content[: found.start(1)], digest, memoryview(content)[found.end(1) :]))


def is_intact(content: bytes, beside: bytes = b"") -> bool:
    """Whether a file has the content that it was written with; True if it carries no digest (version 0.1)."""
    found = _STORED.search(content)
    return found is None or found[1] == _digest(content, found.start(1), beside)


def _digest(content: bytes, start: int, beside: bytes) -> bytes:
    """The digest, in hexadecimal, of a file whose own digest stands at `start`."""
    digest = hashlib.sha256(memoryview(content)[:start])
    for part in (BLANK.encode(), memoryview(content)[start + len(BLANK) :], beside):
        digest.update(part)
    return digest.hexdigest().encode()


def read_content(file: Path) -> bytes:
    """The bytes of a model file. Raises CheckpointError if it cannot be read or its download failed."""
    try:
        content = file.read_bytes()
    except FileNotFoundError as error:
        raise CheckpointError(f"{file}: there is no such model file; check the path") from error
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read ({error.strerror or error})") from error
    refuse_failed_download(file, content[:64])
    return content


def beside(file: Path, suffix: str) -> Path:
    """The file of this suffix, also in capitals, that belongs to a model's file.

    It lies beside `file`, or else beside the file that a symbolic link of that name points to. Where there is
    none, the first of these places.
    """
    ends = (file, Path(os.path.realpath(file)))
    places = [end.with_suffix(case) for end in ends for case in (suffix, suffix.upper())]
    return next((place for place in places if place.is_file()), places[0])


def refuse_failed_download(file: Path, head: bytes) -> None:
    """Raise CheckpointError for what a failed download leaves. head: the first bytes of the file."""
    if not head:
        raise CheckpointError(f"{file}: is empty (0 bytes): its download or copy failed; fetch it again")
    if head.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        raise CheckpointError(f"{file}: is a web page: its download failed; open its address in a browser")
    if head.startswith(b"version https://git-lfs"):
        raise CheckpointError(f"{file}: is a pointer of Git LFS, not the file itself; run `git lfs pull`")


def damaged(file: Path, kind: str, reason: str) -> CheckpointError:
    """The error about a file that should be a model and cannot be read as one; names what it is, if known.

    kind: of file, for messages, such as "an ONNX file". reason: what the reader of that kind said.
    """
    suffix = file.suffix.lower()
    if suffix in (".pth", ".pt", ".caffemodel"):
        advice = f"fssd import {file} --model NAME --out FOLDER"
        return CheckpointError(f"{file}: holds weights of another project; turn them into a model: {advice}")
    for main in COMPANIONS.get(suffix, ()):
        model = beside(file, main)
        if model.is_file():
            return CheckpointError(f"{file}: is a part of the model {model.name} beside it; name that one")
    if suffix == ".bin":
        needed = "the .xml (OpenVINO) or .param (ncnn) of the same name"
        return CheckpointError(f"{file}: holds weights of an exported file; name {needed}")
    return CheckpointError(f"{file}: is damaged or not {kind} ({reason})")


def exported(file: Path, content: bytes) -> CheckpointError | None:
    """The error about a file that is needed as a model of PyTorch and is an exported one; None for others.

    It is known by its suffix, or else by how it begins.
    """
    if file.suffix.lower() in EXPORTED:
        advice = "name the model that it was made from"
        return CheckpointError(f"{file}: is an exported file, which has no PyTorch network; {advice}")
    start = content[:1000].lstrip()
    suffix = next((end for end, pattern in _STARTS.items() if pattern.match(start)), None)
    if suffix is None or (suffix == ".onnx" and _STORED.search(content) is None):
        return None
    return CheckpointError(f"{file}: is an exported file without its suffix; let its name end in {suffix}")
