"""The table of performance: what is reached and what is missed, from figures given by hand."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

MACHINE = {
    "processor": "P 1",
    "instructions": "AVX512",
    "cores": 2,
    "threads": 2,
    "gpu": None,
    "load": 0.5,
    "system": "Linux x86_64",
    "python": "3.12.1",
    "packages": {"torch": "2.13.0"},
}


def about(median: float) -> dict[str, float]:
    return {"median": median, "low": 0.9 * median, "high": 1.1 * median, "number": 5}


def bench(
    rate: float, share: float = 0.5, overhead: float = 0.05, runtime: str = "openvino"
) -> dict[str, Any]:
    return {
        "machine": MACHINE,
        "model": {"runtime": runtime},
        "milliseconds": {"network": about(12.0)},
        "frames_per_second": {"arrays": about(rate)},
        "overhead": about(overhead),
        "detections": about(2.0),
        "gflops": 100.0,
        "peak": {"gflops": 200.0, "way": "torch.mm 2048"},
        "share_of_peak": share,
    }


def nms(scattered: float, crowded: float) -> dict[str, Any]:
    case = {"plain_over_fssd": about(9.0), "onnxruntime_over_fssd": about(0.8)}
    return {
        "machine": MACHINE,
        "cases": {
            "scattered": {**case, "milliseconds": {"fssd": about(scattered)}},
            "crowded": {**case, "milliseconds": {"fssd": about(crowded)}},
        },
    }


def evaluation(voc: float, report: float, coco: float) -> dict[str, Any]:
    rest = {"gain": about(40.0), "difference": 0.0}
    return {
        "machine": MACHINE,
        "images": 5000,
        "part": 250,
        "voc": {**rest, "seconds": {"AP": about(voc), "report with sizes": about(report)}},
        "coco": {**rest, "seconds": {"AP": about(coco)}},
    }


@pytest.fixture(scope="module")
def performance(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("performance")


def rows(performance: ModuleType, **found: Any) -> list[Any]:
    return performance.targets({name.replace("_", "-"): value for name, value in found.items()})  # type: ignore[no-any-return]


def test_images_a_second(performance: ModuleType) -> None:
    (reached,) = rows(performance, lite_int8=bench(80.0))
    assert reached.reached
    assert "80.0 (72.0 to 88.0) images/s; network alone 12.0 ms, 2 detections" in reached.measured
    (missed,) = rows(performance, lite_fp32=bench(44.9))
    assert missed.reached is False


def test_the_better_runtime_counts_against_the_peak(performance: ModuleType) -> None:
    found = {"vgg_openvino": bench(3.0, share=0.8), "vgg_torch": bench(3.0, share=0.5, runtime="torch")}
    peak, overhead = rows(performance, **found)
    assert peak.reached  # 0.8 of the peak is 1.25 times the time
    assert peak.measured.startswith("1.25 times: 12 (11 to 13) ms in openvino, 100 of 200 GFLOP/s")
    assert peak.source == "vgg-openvino"
    assert overhead.reached
    assert "5.0 %" in overhead.measured
    peak, overhead = rows(performance, vgg_openvino=bench(3.0, 0.79, 0.1), vgg_torch=bench(3.0, 0.3))
    assert peak.reached is False
    assert overhead.reached is False


def test_the_worse_case_counts_for_nms(performance: ModuleType) -> None:
    assert rows(performance, nms=nms(8.0, 5.0))[0].reached
    assert rows(performance, nms=nms(5.0, 8.1))[0].reached is False


def test_every_part_of_an_evaluation_has_to_be_quick(performance: ModuleType) -> None:
    coco, voc = rows(performance, evaluation=evaluation(1.0, 5.0, 5.1))
    assert (coco.reached, voc.reached) == (False, True)
    assert "5,000 images" in coco.what
    assert "4,952 images" in voc.what
    assert rows(performance, evaluation=evaluation(1.0, 5.2, 2.0))[1].reached is False


def test_start(performance: ModuleType) -> None:
    seconds = {"fssd --help": about(0.5), "fssd detect": about(3.1)}
    first, second = rows(performance, start={"machine": MACHINE, "seconds": seconds})
    assert (first.reached, second.reached) == (True, False)


def test_training(performance: ModuleType) -> None:
    measured = {
        "machine": MACHINE,
        "model": "fssd300-lite",
        "batch": 32,
        "images_per_second": {"plain": about(4.4), "cached": about(9.0), "loaded": about(8.8)},
        "loaded_over_plain": about(2.0),
        "loaded_seconds_over_cached": about(1.06),
    }
    gain, loading = rows(performance, training=measured)
    assert (gain.reached, loading.reached) == (True, False)
    assert "8.8 images/s against 4.4" in gain.measured
    assert "6.0 % longer" in loading.measured


def test_int8_and_the_comparisons(performance: ModuleType) -> None:
    side = {"network_ms": about(10.0), "network_over_openvino_fp32": about(3.0)}
    models = {name: {"openvino int8": side} for name in ("fssd300-lite", "fssd300-vgg16")}
    found = {
        "runtimes": {"machine": MACHINE, "models": models},
        "nms": nms(4.0, 5.0),
        "evaluation": evaluation(1.0, 1.0, 1.0),
        "augment": {"machine": MACHINE, "gain": about(1.9)},
        "fusion": {
            "machine": MACHINE,
            "pairs": {
                f"fssd300-{kind}": {"ratio": about(1.2), "multiply_adds": 1.21} for kind in ("lite", "vgg16")
            },
        },
    }
    assert performance.targets(found)[0].reached
    compared = performance.compared(found)
    assert [row.source for row in compared] == [
        *("fusion", "fusion", "runtimes", "runtimes"),
        *("nms", "nms", "augment", "evaluation", "evaluation"),
    ]
    assert all(row.reached is None for row in compared)
    assert "1.29" in compared[0].reach  # 85 / 65.8
    assert "0.80 (scattered), 0.80 (crowded) times" in compared[5].measured


def test_a_table_of_what_is_there(
    performance: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = {"command": "python benchmarks/nms.py --repeats 3", **nms(9.0, 5.0)}
    (tmp_path / "nms.json").write_text(json.dumps(measured), encoding="utf-8")
    page = tmp_path / "page.md"
    page.write_text("Above.\n<!-- tables begin -->\nold\n<!-- tables end -->\nBelow.\n", encoding="utf-8")
    words = ["--out", str(tmp_path), "--page", str(page), "--only"]
    monkeypatch.setattr("sys.argv", ["performance.py", *words])
    performance.main()
    text = (tmp_path / "performance.md").read_text(encoding="utf-8")
    assert "Measured on P 1, 2 cores, AVX512; Linux x86_64, Python 3.12.1, torch 2.13.0." in text
    assert "| 9.0 (8.1 to 9.9) ms; equal | **no** | nms |" in text
    assert "| nms | `python benchmarks/nms.py --repeats 3` |" in text
    document = json.loads((tmp_path / "performance.json").read_text(encoding="utf-8"))
    assert [row["reached"] for row in document["targets"]] == [False]
    assert document["measurements"]["nms"] == measured
    whole = f"Above.\n<!-- tables begin -->\n\n{text}\n<!-- tables end -->\nBelow.\n"
    assert page.read_text(encoding="utf-8") == whole
    performance.main()
    assert page.read_text(encoding="utf-8") == whole


def test_a_measurement_notes_its_command(
    performance: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def run(command: list[str], check: bool) -> None:
        assert check
        seen.append(command)
        Path(command[-1]).write_text(json.dumps(nms(9.0, 5.0)), encoding="utf-8")

    monkeypatch.setattr(performance.subprocess, "run", run)
    performance.measure(["python", "benchmarks/nms.py", "--repeats", "3"], tmp_path / "nms.json")
    performance.measure(["fssd", "bench", "animals"], tmp_path / "lite.json")
    assert Path(seen[0][1]).is_file()
    assert seen[0][2:-1] == ["--repeats", "3", "--json"]
    assert seen[1][1:-1] == ["-m", "fssd", "bench", "animals", "--json"]
    written = json.loads((tmp_path / "nms.json").read_text(encoding="utf-8"))
    assert written == {"command": "python benchmarks/nms.py --repeats 3", **nms(9.0, 5.0)}
    assert sorted(file.name for file in tmp_path.iterdir()) == ["lite.json", "nms.json"]


def test_a_page_without_a_place_for_the_tables_stays_as_it_is(
    performance: ModuleType, tmp_path: Path
) -> None:
    page = tmp_path / "page.md"
    page.write_text("Nothing.\n<!-- tables end -->\n", encoding="utf-8")
    with pytest.raises(SystemExit, match="has no lines"):
        performance.put_into(page, "text")
    assert page.read_text(encoding="utf-8") == "Nothing.\n<!-- tables end -->\n"


def test_commands_use_the_models_that_were_named(performance: ModuleType) -> None:
    args = argparse.Namespace(
        model="animals", int8="animals-int8", images=["a.jpg"], training=["amp=bf16"], repeats=3, rounds=2
    )
    commands = performance.measurements(args)
    assert commands["lite-int8"] == ["fssd", "bench", "animals-int8", "--repeats", "3", "--images", "a.jpg"]
    assert commands["lite-fp32"] == [
        "fssd",
        "bench",
        "animals",
        "--runtime",
        "openvino",
        "--repeats",
        "3",
        "--images",
        "a.jpg",
    ]
    assert commands["training"] == ["python", "benchmarks/training.py", "--rounds", "2", "--set", "amp=bf16"]
    assert commands["start"] == ["python", "benchmarks/start.py", "--model", "animals"]
    args.int8, args.model, args.training = None, "fssd300-lite", []
    commands = performance.measurements(args)
    assert commands["lite-int8"][-2:] == ["--precision", "int8"]
    assert "--model" not in commands["start"]
    assert "--set" not in commands["training"]


def test_every_command_is_one_that_parses(
    performance: ModuleType, script: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    import tyro

    from fssd.cli.bench import Bench

    args = argparse.Namespace(
        model="animals", int8=None, images=["a.jpg"], training=["amp=bf16"], repeats=3, rounds=2
    )
    for name, command in performance.measurements(args).items():
        if command[0] == "fssd":
            tyro.cli(Bench, args=command[2:])
            continue
        module = script(Path(command[1]).stem)
        monkeypatch.setattr("sys.argv", [command[1], *command[2:], "--json", f"{name}.json"])
        parse = getattr(module, "_arguments", None)
        assert parse is not None, command[1]
        assert parse().json == Path(f"{name}.json")
