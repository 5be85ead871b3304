"""Counts and times in the text format of Prometheus, version 0.0.4."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
SIZES = (1, 2, 4, 8, 16, 32, 64)

Labels = tuple[str, ...]


class Counter:
    """Something that only grows. labels: the names of its labels."""

    kind = "counter"

    def __init__(self, name: str, meaning: str, labels: Labels = ()) -> None:
        self.name = name
        self.meaning = meaning
        self.labels = labels
        self.values: dict[Labels, float] = {} if labels else {(): 0.0}

    def add(self, *values: str, amount: float = 1) -> None:
        """Add to the count of these values of the labels."""
        self.values[values] = self.values.get(values, 0.0) + amount

    def lines(self) -> Iterator[str]:
        """What Prometheus reads."""
        for values, count in sorted(self.values.items()):
            yield f"{self.name}{_braces(self.labels, values)} {_number(count)}"


class Gauge:
    """Something that goes up and down, asked when it is read."""

    kind = "gauge"

    def __init__(self, name: str, meaning: str, value: Callable[[], float]) -> None:
        self.name = name
        self.meaning = meaning
        self.value = value

    def lines(self) -> Iterator[str]:
        """What Prometheus reads."""
        yield f"{self.name} {_number(self.value())}"


class Histogram:
    """How often something was at most so large. bounds: ascending; what is above the last counts too."""

    kind = "histogram"

    def __init__(self, name: str, meaning: str, bounds: Sequence[float], labels: Labels = ()) -> None:
        self.name = name
        self.meaning = meaning
        self.bounds = tuple(bounds)
        self.labels = labels
        self.counts: dict[Labels, list[int]] = {}
        self.sums: dict[Labels, float] = {}

    def observe(self, value: float, *values: str) -> None:
        """Take in one value, for these values of the labels."""
        counts = self.counts.setdefault(values, [0] * (len(self.bounds) + 1))
        counts[bisect_left(self.bounds, value)] += 1
        self.sums[values] = self.sums.get(values, 0.0) + value

    def lines(self) -> Iterator[str]:
        """What Prometheus reads: cumulative counts, the sum, the number."""
        names = (*self.labels, "le")
        for values, counts in sorted(self.counts.items()):
            total = 0
            for bound, count in zip((*map(_number, self.bounds), "+Inf"), counts, strict=True):
                total += count
                yield f"{self.name}_bucket{_braces(names, (*values, bound))} {total}"
            yield f"{self.name}_sum{_braces(self.labels, values)} {_number(self.sums[values])}"
            yield f"{self.name}_count{_braces(self.labels, values)} {total}"


class Metrics:
    """All that the server counts. To be used from one thread."""

    def __init__(self) -> None:
        self.requests = Counter("fssd_requests_total", "Requests answered.", ("route", "status"))
        self.errors = Counter("fssd_errors_total", "Refusals, by code; also those within a batch.", ("code",))
        self.images = Counter("fssd_images_total", "Images in which objects were looked for.")
        self.objects = Counter("fssd_objects_total", "Objects found, by class.", ("name",))
        self.request_seconds = Histogram(
            "fssd_request_seconds", "Time from head to answer, in seconds.", SECONDS, ("route",)
        )
        self.stage_seconds = Histogram(
            "fssd_stage_seconds", "Time of each image in each stage, in seconds.", SECONDS, ("stage",)
        )
        self.batch_images = Histogram("fssd_batch_images", "Images in the batch of each image.", SIZES)
        self.gauges: list[Gauge] = []

    def text(self) -> str:
        """The page that Prometheus reads."""
        families: tuple[Counter | Gauge | Histogram, ...] = (
            *(self.requests, self.errors, self.images, self.objects),
            *(self.request_seconds, self.stage_seconds, self.batch_images),
            *self.gauges,
        )
        lines: list[str] = []
        for family in families:
            lines += [f"# HELP {family.name} {family.meaning}", f"# TYPE {family.name} {family.kind}"]
            lines += family.lines()
        return "\n".join(lines) + "\n"


def _braces(names: Labels, values: Labels) -> str:
    if not names:
        return ""
    pairs = zip(names, map(_escaped, values), strict=True)
    return "{" + ",".join(f'{name}="{value}"' for name, value in pairs) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))
