"""The machine's peak: operations by hand, the best way, and which ways take part."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fssd.bench import peak
from fssd.bench.peak import Peak, PeakMeter, Way, cpu_ways, peak_meter
from fssd.bench.timing import Spread

CPU = torch.device("cpu")


def test_the_best_way_is_that_of_the_highest_median() -> None:
    found = Peak("fp32", {"a": Spread(90.0, 10.0, 500.0, 5), "b": Spread(100.0, 95.0, 105.0, 5)})
    assert (found.best, found.gflops) == ("b", 100.0)


def test_gflops_from_seconds() -> None:
    meter = PeakMeter([Way("a", 3e9, lambda: None)], "fp32")
    meter.times["a"] = [1.5, 1.0, 3.0]  # 3 G operations: 2, 3 and 1 GFLOP/s
    assert meter.peak().ways["a"].median == 2.0


def test_parts_are_taken_together() -> None:
    calls = []
    meter = PeakMeter([Way("a", 1.0, lambda: calls.append(1))], "fp32")
    meter.measure(2)
    meter.measure(3)
    assert len(meter.times["a"]) == 5
    assert len(calls) == 7  # one of each part warms up
    assert meter.peak().ways["a"].number == 5
    assert meter.peak().gflops > 0


def test_operations_of_each_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peak, "usable_cores", lambda: 3)
    ways = {way.name: way for way in cpu_ways(3, sides=(8,), cells=(4, 5))}
    assert ways.pop("OpenVINO MatMul 8", None) is None or peak.find_spec("openvino")
    assert {name: way.flop for name, way in ways.items()} == {
        "torch.mm 8": 2 * 8 * 8 * 8,
        "numpy 8": 2 * 8 * 8 * 8,
        "torch 1x1 convolution 4 x 5²": 2 * 4 * 4 * 5 * 5,
    }
    product = ways["torch.mm 8"].step()
    assert isinstance(product, torch.Tensor)
    np.testing.assert_allclose(product.numpy(), ways["numpy 8"].step(), rtol=1e-5)
    maps = ways["torch 1x1 convolution 4 x 5²"].step()
    assert isinstance(maps, torch.Tensor)
    assert maps.shape == (1, 4, 5, 5)


def test_openvino_multiplies_too() -> None:
    pytest.importorskip("openvino", reason='needs openvino: pip install "fssd[openvino]"')
    (way,) = [way for way in cpu_ways(1, sides=(8,), cells=(4, 5)) if way.name.startswith("OpenVINO")]
    assert way.flop == 2 * 8 * 8 * 8
    way.step()


def test_numpy_is_left_out_where_its_threads_would_be_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peak, "usable_cores", lambda: 3)
    assert not any(way.name.startswith("numpy") for way in cpu_ways(1, sides=(8,), cells=(4, 5)))


def test_the_cpu_is_always_measured_in_fp32(small_peak: None) -> None:
    assert peak_meter(CPU, 1, "int8").precision == "fp32"


def test_tf32_is_used_while_it_is_measured_and_not_after() -> None:
    seen = []
    before = torch.get_float32_matmul_precision()
    step = Way("a", 1.0, lambda: seen.append(torch.get_float32_matmul_precision()))
    PeakMeter([step], "tf32").measure(1)
    PeakMeter([step], "fp32").measure(1)
    assert seen == ["high", "high", before, before]
    assert torch.get_float32_matmul_precision() == before
