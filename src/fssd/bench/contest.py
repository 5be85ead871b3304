"""Several models timed in turns in one run, so that a busy moment of the machine affects all equally."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fssd.bench.machine import describe_machine
from fssd.bench.measure import Setup
from fssd.bench.photographs import Photographs
from fssd.bench.stages import whole_steps
from fssd.bench.subject import Precision, Subject, open_subject
from fssd.bench.timing import Step, take_turns
from fssd.errors import ConfigError
from fssd.model.cost import parameters
from fssd.runtimes.choose import RUNTIMES
from fssd.runtimes.cores import usable_cores
from fssd.runtimes.header import size_value
from fssd.runtimes.runner import NetworkRunner

HELD = 2 << 30  # bytes of weights that may be in memory together
VISIT = 5  # turns of a model each time it is opened, where not all fit into memory
REST = 0.05  # seconds between steps of different libraries, whose threads spin for a while after each call


@dataclass(frozen=True)
class Entrant:
    """A model to be timed. model: what `open_subject` takes. accuracy: mAP in percent, as given."""

    model: str
    accuracy: float | None = None


@dataclass(frozen=True)
class Timing:
    """What was measured of one model.

    facts: name, runtime, precision, weights, image_size. parameters: learnable ones; None for an exported
    file. multiply_adds: for one image; None if unknown. seconds: of each turn, for "network" alone and
    "arrays", decoded images in, detections out.
    """

    facts: dict[str, Any]
    accuracy: float | None
    parameters: int | None
    multiply_adds: int | None
    seconds: dict[str, list[float]]


@dataclass(frozen=True)
class Contest:
    """machine: from `describe_machine`. setup: batch, score, warm_up, images, held."""

    machine: dict[str, Any]
    setup: dict[str, Any]
    timings: tuple[Timing, ...]


@dataclass(frozen=True)
class Choices:
    """How every model is opened, see `open_subject`."""

    runtime: str | None = None
    precision: Precision = "fp32"
    device: str = "auto"
    threads: int | None = None


class _Corner:
    """One model: opened, timed, and dropped again where memory is short.

    Its export, if any, is made once in a folder of its own.
    """

    def __init__(self, entrant: Entrant, folder: Path, choices: Choices) -> None:
        self.entrant, self.folder, self.choices = entrant, folder, choices
        folder.mkdir()
        self.seconds: dict[str, list[float]] = {"network": [], "arrays": []}
        subject = self.open()
        self.bytes = _weights(subject, self.folder)
        runner = subject.detector.runner
        network = runner.network if isinstance(runner, NetworkRunner) else None
        self.parameters = self._counted() if network is None else parameters(network)
        self.multiply_adds = subject.multiply_adds
        self.device = subject.device
        self.facts: dict[str, Any] = {
            "name": subject.name,
            "runtime": subject.runtime,
            "precision": subject.precision,
            "weights": "random" if subject.random else "trained",
            "image_size": size_value(subject.detector.image_size),
        }
        self.subject: Subject | None = subject

    def open(self) -> Subject:
        choices = self.choices
        made = [file for file in sorted(self.folder.iterdir()) if file.suffix in _SUFFIXES]
        if made:
            subject = open_subject(str(made[0]), self.folder, device=choices.device, threads=choices.threads)
            return replace(subject, name=self.entrant.model, random=self.facts["weights"] == "random")
        return open_subject(self.entrant.model, self.folder, **vars(choices))

    def _counted(self) -> int | None:
        """The parameters of a network that was exported for this; None for a file of the user's."""
        if not any(file.suffix in _SUFFIXES for file in self.folder.iterdir()):
            return None
        subject = open_subject(self.entrant.model, self.folder, device="cpu")
        return parameters(subject.detector.network)

    def steps(self, pictures: Photographs, batch: int, score: float) -> dict[tuple[int, str], Step]:
        subject = self.subject or self.open()
        return {(id(self), name): step for name, step in whole_steps(subject, pictures, batch, score).items()}

    def add(self, times: dict[tuple[int, str], list[float]]) -> None:
        for name, seconds in self.seconds.items():
            seconds.extend(times[id(self), name])


_SUFFIXES = {runtime.suffix for runtime in RUNTIMES.values()}


def compete(
    entrants: Sequence[Entrant], folder: Path, pictures: Photographs, setup: Setup, choices: Choices
) -> Contest:
    """Time the models in turns. folder: for temporary exports.

    Where their weights do not fit into `HELD` bytes together, only one is in memory at a time: it is opened,
    warmed up and timed for `VISIT` turns before the next one, round after round.
    Raises ConfigError for fewer than two models, one that is named twice, and what `open_subject` refuses.
    """
    _check(entrants, setup)
    batch, score = setup.batch or 1, setup.score
    corners: list[_Corner] = []
    held = True
    for index, entrant in enumerate(entrants):
        corners.append(_Corner(entrant, folder / f"{index:03}", choices))
        if held and sum(corner.bytes for corner in corners) > HELD:
            held = False
        if not held:
            _drop(corners)
    threads = choices.threads or usable_cores()
    machine = describe_machine(corners[0].device, threads)
    rest = REST if len({corner.facts["runtime"] for corner in corners}) > 1 else 0.0
    if held:
        steps = {key: step for one in corners for key, step in one.steps(pictures, batch, score).items()}
        times = take_turns(steps, setup.repeats, setup.warm_up, rest=rest)
        for corner in corners:
            corner.add(times)
    else:
        for start in range(0, setup.repeats, VISIT):
            turns = min(VISIT, setup.repeats - start)
            for corner in corners:
                steps = corner.steps(pictures, batch, score)
                corner.add(take_turns(steps, turns, max(1, setup.warm_up), rest=rest))
                del steps
                gc.collect()
    facts = {"batch": batch, "score": score, "warm_up": setup.warm_up, "images": pictures.what, "held": held}
    return Contest(machine, facts, tuple(map(_timing, corners)))


def _check(entrants: Sequence[Entrant], setup: Setup) -> None:
    names = [entrant.model for entrant in entrants]
    if len(names) < 2:
        raise ConfigError("a comparison needs two models or more; name them all behind --compare")
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{name} is named twice; name each model once")
    given = [entrant for entrant in entrants if entrant.accuracy is not None]
    if given and len(given) < len(entrants):
        (other, *_) = (entrant.model for entrant in entrants if entrant.accuracy is None)
        raise ConfigError(
            f"{other} has no accuracy, the others have; give it, as {other}=77.2, to all or none"
        )
    for entrant in given:
        if not 0 <= (entrant.accuracy or 0) <= 100:
            raise ConfigError(
                f"{entrant.model}: accuracy is {entrant.accuracy:g}; it is mAP in percent, 0..100"
            )
    if setup.repeats < 1:
        raise ConfigError(f"repeats is {setup.repeats}; it must be 1 or more")


def _drop(corners: Sequence[_Corner]) -> None:
    for corner in corners:
        corner.subject = None
    gc.collect()


def _weights(subject: Subject, folder: Path) -> int:
    """Bytes of the weights: of the network, or of the exported file, whose network is not held."""
    runner = subject.detector.runner
    if isinstance(runner, NetworkRunner):
        return sum(tensor.numel() * tensor.element_size() for tensor in runner.network.state_dict().values())
    files = [*folder.iterdir(), *([Path(subject.name)] if Path(subject.name).is_file() else [])]
    return sum(file.stat().st_size for file in files)


def _timing(corner: _Corner) -> Timing:
    return Timing(
        corner.facts, corner.entrant.accuracy, corner.parameters, corner.multiply_adds, corner.seconds
    )
