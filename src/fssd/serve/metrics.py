"""What the server counts, in the text format of Prometheus, version 0.0.4."""

from collections.abc import Callable
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.exposition import generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
SIZES = (1, 2, 4, 8, 16, 32, 64)

# Otherwise each label would get one more series, with the time at which it was created.
disable_created_metrics()  # type: ignore[no-untyped-call]


class Metrics:
    """The counts of one server, separate from those of any other in the process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        counter = partial(Counter, registry=self.registry)
        histogram = partial(Histogram, registry=self.registry)
        self.requests = counter("fssd_requests", "Requests answered.", ("route", "status"))
        self.errors = counter("fssd_errors", "Refusals, by code; also those within a batch.", ("code",))
        self.images = counter("fssd_images", "Images in which objects were looked for.")
        self.objects = counter("fssd_objects", "Objects found, by class.", ("name",))
        self.request_seconds = histogram(
            "fssd_request_seconds", "Time from head to answer, in seconds.", ("route",), buckets=SECONDS
        )
        self.stage_seconds = histogram(
            "fssd_stage_seconds", "Time of each image in each stage, in seconds.", ("stage",), buckets=SECONDS
        )
        self.batch_images = histogram(
            "fssd_batch_images", "Images in the batch of each image.", buckets=SIZES
        )

    def gauge(self, name: str, meaning: str, value: Callable[[], float]) -> None:
        """Add a number that is computed whenever the page is read."""
        Gauge(name, meaning, registry=self.registry).set_function(value)

    def refuse(self, code: str) -> None:
        self.errors.labels(code).inc()

    def text(self) -> str:
        return generate_latest(self.registry).decode()
