"""fssd completion bash|zsh|fish: prints what makes the shell complete verbs, flags and their values."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib import import_module
from typing import Annotated, Any, Literal, Union

import tyro

from fssd.cli.main import COMMANDS, MODULES
from fssd.cli.options import parse


@dataclass(frozen=True)
class Completion:
    """Print the completion of all verbs for a shell."""

    shell: Annotated[Literal["bash", "zsh", "fish"], tyro.conf.Positional]
    """Which shell."""


def run(arguments: list[str]) -> int:
    command = parse(Completion, arguments)
    tyro.cli(_all_verbs(), prog="fssd", args=["--tyro-print-completion", command.shell])
    return 0


def _all_verbs() -> Any:
    verbs = [
        Annotated[_flags(verb), tyro.conf.subcommand(verb, description=meaning)]
        for verb, meaning in COMMANDS.items()
    ]
    return Union[tuple(verbs)]  # noqa: UP007 (of a tuple made here)


def _flags(verb: str) -> Any:
    """The dataclass of a verb's flags."""
    if verb == "completion":
        return sys.modules[__name__].Completion
    return getattr(import_module(f"fssd.cli.{MODULES.get(verb, verb)}"), verb.title())
