"""fssd completion bash|zsh|fish: prints what makes the shell complete verbs, flags and their values."""

from __future__ import annotations

import io
import sys
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from importlib import import_module
from typing import Annotated, Any, Literal, Union

import tyro

from fssd.cli.main import COMMANDS, MODULES
from fssd.cli.options import parse, with_json_flag
from fssd.cli.result import TO_FILE, add_result, wants_json


@dataclass(frozen=True)
class Completion:
    """Print the completion of all verbs for a shell."""

    shell: Annotated[Literal["bash", "zsh", "fish"], tyro.conf.Positional]
    """Which shell."""


def run(arguments: list[str]) -> int:
    command = parse(Completion, arguments)
    text = io.StringIO()
    with redirect_stdout(text), suppress(SystemExit):  # tyro ends the program when it has printed
        tyro.cli(_all_verbs(), prog="fssd", args=["--tyro-print-completion", command.shell])
    if not wants_json():
        print(text.getvalue(), end="")
    add_result(shell=command.shell, script=text.getvalue())
    return 0


def _all_verbs() -> Any:
    verbs = [
        Annotated[_flags(verb), tyro.conf.subcommand(verb, description=meaning)]
        for verb, meaning in COMMANDS.items()
    ]
    return Union[tuple(verbs)]  # noqa: UP007 (of a tuple made here)


def _flags(verb: str) -> Any:
    """The dataclass of a verb's flags."""
    own = verb == "completion"
    module = sys.modules[__name__] if own else import_module(f"fssd.cli.{MODULES.get(verb, verb)}")
    flags = getattr(module, verb.title())
    return flags if verb in TO_FILE else with_json_flag(flags)
