"""The text that Prometheus reads, series by series."""

from __future__ import annotations

from fssd.serve.metrics import Metrics


def series(metrics: Metrics, prefix: str) -> dict[str, float]:
    """The samples whose name begins so, by everything before the number."""
    lines = [line for line in metrics.text().splitlines() if line.startswith(prefix)]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def test_counters_have_their_labels() -> None:
    metrics = Metrics()
    assert series(metrics, "fssd_requests") == {}
    metrics.requests.labels("/b", "200").inc()
    metrics.requests.labels("/b", "200").inc()
    metrics.requests.labels('/"\\\n', "404").inc(0.5)
    metrics.refuse("busy")
    assert series(metrics, "fssd_requests") == {
        'fssd_requests_total{route="/\\"\\\\\\n",status="404"}': 0.5,
        'fssd_requests_total{route="/b",status="200"}': 2,
    }
    assert series(metrics, "fssd_errors") == {'fssd_errors_total{code="busy"}': 1}


def test_a_counter_without_labels_begins_at_nothing() -> None:
    assert series(Metrics(), "fssd_images") == {"fssd_images_total": 0}


def test_a_gauge_is_asked_each_time() -> None:
    metrics = Metrics()
    values = iter([3.0, 0.25])
    metrics.gauge("g", "Some.", lambda: next(values))
    assert [series(metrics, "g"), series(metrics, "g")] == [{"g": 3}, {"g": 0.25}]


def test_histograms_are_cumulative_and_bounds_belong_below() -> None:
    metrics = Metrics()
    for value in (0.5, 0.75, 1.0, 20.0, 31.0):
        metrics.stage_seconds.labels("read").observe(value)
    bounds = ["0.001", "0.0025", "0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5"]
    bounds += ["1.0", "2.5", "5.0", "10.0", "30.0", "+Inf"]
    counts = [0, 0, 0, 0, 0, 0, 0, 0, 1, 3, 3, 3, 3, 4, 5]
    assert series(metrics, "fssd_stage_seconds") == {
        'fssd_stage_seconds_count{stage="read"}': 5,
        'fssd_stage_seconds_sum{stage="read"}': 53.25,
        **{
            f'fssd_stage_seconds_bucket{{le="{bound}",stage="read"}}': count
            for bound, count in zip(bounds, counts, strict=True)
        },
    }


def test_page() -> None:
    metrics = Metrics()
    metrics.images.inc()
    lines = metrics.text().splitlines()
    start = lines.index("# HELP fssd_images_total Images in which objects were looked for.")
    assert lines[start + 1 : start + 3] == ["# TYPE fssd_images_total counter", "fssd_images_total 1.0"]
    assert "_created" not in metrics.text()
    assert metrics.text().endswith("\n")


def test_two_servers_of_a_process_count_apart() -> None:
    one, other = Metrics(), Metrics()
    one.images.inc()
    assert series(other, "fssd_images") == {"fssd_images_total": 0}
