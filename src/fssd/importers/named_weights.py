"""Fetches published weights by name: download, check of the digest, and for detectors the import."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fssd.atomic import atomic_write, make_folder
from fssd.data.class_names import names_for
from fssd.data.unpack import silent
from fssd.errors import CheckpointError, FetchError
from fssd.fetch.obtain import ObtainedFile, Stages
from fssd.importers.foreign import Imported
from fssd.zoo.published import PUBLISHED, Published, fetched_file, note_file, read_note, weights_folder

PAUSES = (1.0, 2.0)  # seconds before each retry: without a network, what to do should be said soon


def fetch_weights(name: str, *, report: Stages = silent, pauses: Sequence[float] = PAUSES) -> Path:
    """Fetch the weights of a name, one of `PUBLISHED`, unless they are there; returns their file.

    A file of the published name that a user placed in the folder is taken instead of a download, and kept.
    Raises FetchError, which names the file to place where if the server cannot be reached; and if the digest
    is another one, after a downloaded file was deleted.
    """
    if read_note(name) is not None:
        return fetched_file(name)
    published, folder = PUBLISHED[name], weights_folder()
    make_folder(folder)
    file = folder / published.file_name
    try:
        obtained = ObtainedFile(published.url, file, report=report, pauses=pauses)
    except FetchError as error:
        reason = str(error).partition("; ")[0]  # without advice that is for archives of data sets
        by_hand = f"place {published.file_name} into {folder} by hand first"
        raise FetchError(f"{reason}; run the same command again, or {by_hand}") from error
    digest = obtained.check("sha256", published.sha256)
    facts = {"published_as": name, "url": published.url, "sha256": digest, "licence": published.licence}
    if published.detector:
        _import(published, file, fetched_file(name), facts)
    obtained.discard(keep=not published.detector)
    note = {**facts, "size": fetched_file(name).stat().st_size}
    atomic_write(note_file(name), json.dumps(note))
    return fetched_file(name)


def _import(published: Published, file: Path, target: Path, facts: dict[str, Any]) -> None:
    from fssd.importers.imported_model import write_imported

    try:
        found = _read(published, file)
        write_imported(target, published.model, found, names_for(found.num_classes), file, facts)
    except CheckpointError as error:
        raise FetchError(f"{error} (a file with the published digest; please report this)") from error


def _read(published: Published, file: Path) -> Imported:
    if file.suffix == ".weights":
        from fssd.importers.yolov2_weights import import_darknet

        return import_darknet(file, published.model)
    from fssd.importers.pth import import_pth

    return import_pth(file, published.model)
