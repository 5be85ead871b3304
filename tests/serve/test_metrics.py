"""The text that Prometheus reads, line by line."""

from __future__ import annotations

from fssd.serve.metrics import Counter, Gauge, Histogram, Metrics


def test_counter() -> None:
    counter = Counter("a_total", "Some.", ("route", "status"))
    assert list(counter.lines()) == []
    counter.add("/b", "200")
    counter.add("/b", "200")
    counter.add('/"\\\n', "404", amount=0.5)
    assert list(counter.lines()) == [
        'a_total{route="/\\"\\\\\\n",status="404"} 0.5',
        'a_total{route="/b",status="200"} 2',
    ]


def test_counter_without_labels_begins_at_nothing() -> None:
    assert list(Counter("a_total", "Some.").lines()) == ["a_total 0"]


def test_gauge_is_asked_each_time() -> None:
    values = iter([3.0, 0.25])
    gauge = Gauge("g", "Some.", lambda: next(values))
    assert [*gauge.lines(), *gauge.lines()] == ["g 3", "g 0.25"]


def test_histogram_is_cumulative_and_bounds_belong_below() -> None:
    histogram = Histogram("h", "Some.", (0.5, 1.0, 10.0), ("stage",))
    for value in (0.5, 0.75, 1.0, 20.0):
        histogram.observe(value, "read")
    assert list(histogram.lines()) == [
        'h_bucket{stage="read",le="0.5"} 1',
        'h_bucket{stage="read",le="1"} 3',
        'h_bucket{stage="read",le="10"} 3',
        'h_bucket{stage="read",le="+Inf"} 4',
        'h_sum{stage="read"} 22.25',
        'h_count{stage="read"} 4',
    ]


def test_page() -> None:
    metrics = Metrics()
    metrics.gauges.append(Gauge("g", "Something.", lambda: 1))
    metrics.images.add()
    lines = metrics.text().splitlines()
    at = lines.index("# HELP fssd_images_total Images in which objects were looked for.")
    assert lines[at + 1 : at + 3] == ["# TYPE fssd_images_total counter", "fssd_images_total 1"]
    assert lines[-3:] == ["# HELP g Something.", "# TYPE g gauge", "g 1"]
    assert metrics.text().endswith("\n")
