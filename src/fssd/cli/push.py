"""fssd push MODEL hf://user/name [--licence apache-2.0] [--private]"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import tyro

from fssd.cli.options import Flag, Model, parse
from fssd.cli.result import add_result
from fssd.errors import ConfigError


@dataclass(frozen=True)
class Push:
    """Write a model, its settings and a card to a Hugging Face hub, from where hf://user/name reads it."""

    model: Model
    to: Annotated[str, tyro.conf.Positional]
    """hf://user/name; the repository is made if need be. HF_TOKEN or `hf auth login` says who writes."""
    licence: str | None = None
    """Licence of the model, as hubs write it: apache-2.0, cc-by-4.0, ...; by default that of the training's
    settings."""
    private: Flag = False
    """Make a new repository private."""


def run(arguments: list[str]) -> int:
    command = parse(Push, arguments)
    from fssd.export.shared_model import write_shared_model
    from fssd.runtimes.choose import runtime_of
    from fssd.weights.checkpoint import model_file
    from fssd.weights.model_card import check_licence
    from fssd.zoo.hub import is_hub_address, read_address, upload_folder

    if not is_hub_address(command.to):
        raise ConfigError(f"{command.to}: is no address on a hub; write hf://user/name")
    if command.model.suffix and runtime_of(command.model) is not None:
        raise ConfigError(f"{command.model}: is an exported file; push the model that it was made from")
    read_address(command.to)
    check_licence(command.licence)
    file = model_file(command.model)
    with TemporaryDirectory(prefix="fssd-push-") as folder:
        written = write_shared_model(file, Path(folder), address=command.to, licence=command.licence)
        url, removed = upload_folder(Path(folder), command.to, private=command.private)
    print(f"{', '.join(written.files)} written to {url}")
    if removed:
        print(f"note: {', '.join(removed)} of an earlier model removed there; its history keeps them")
    add_result(files=written.files, removed=removed, url=url)
    if written.licence is None:
        print("note: the card states no licence, so others may not use the model; say it with --licence")
    print(f"use it with: fssd detect {command.to} photo.jpg")
    return 0
