"""The table of `docs/performance.md`: everything measured anew, as Markdown and JSON.

    python benchmarks/performance.py --model animals --int8 animals-int8 --page docs/performance.md

Each measurement is a command of its own, whose JSON stays in --out; one that is there already is not taken
again, so that the table can be made in pieces. Take it on a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fssd.atomic import atomic_write, make_folder

FOLDER = Path(__file__).parent
BEGIN, END = "<!-- tables begin -->", "<!-- tables end -->"
PAPER = 85 / 65.8  # SSD300 and FSSD300 on a 1080Ti, images a second, Table 3 of the paper


class Row(NamedTuple):
    """One line of a table. reached: None where it has no target. source: the measurement it is from."""

    what: str
    reach: str
    measured: str
    reached: bool | None
    source: str


def main() -> None:
    args = _arguments()
    make_folder(args.out)
    commands = measurements(args)
    for name, command in commands.items():
        if (args.only is None or name in args.only) and not (args.out / f"{name}.json").is_file():
            measure(command, args.out / f"{name}.json")
    found = {
        name: json.loads(file.read_text(encoding="utf-8"))
        for name in commands
        if (file := args.out / f"{name}.json").is_file()
    }
    rows, comparisons = targets(found), compared(found)
    text = markdown(rows, comparisons, found)
    atomic_write(args.out / "performance.md", text)
    document = {
        "format": 1,
        "targets": [row._asdict() for row in rows],
        "comparisons": [row._asdict() for row in comparisons],
        "measurements": found,
    }
    atomic_write(args.out / "performance.json", json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    print(text)
    if args.page is not None:
        put_into(args.page, text)


# ---- what is run


def measurements(args: argparse.Namespace) -> dict[str, list[str]]:
    """The command of each measurement, as a user would type it, without --json."""
    repeats = ["--repeats", str(args.repeats)]
    images = ["--images", *args.images] if args.images else []
    lite = ["fssd", "bench", args.model, "--runtime", "openvino", *repeats, *images]
    int8 = ["--precision", "int8"]
    vgg = ["fssd", "bench", "fssd300-vgg16", "--score", "0.01", *repeats]
    training = ["python", "benchmarks/training.py", "--rounds", str(args.rounds)]
    if args.training:
        training += ["--set", *args.training]
    start = ["python", "benchmarks/start.py"]
    if args.model != "fssd300-lite":  # a network's name is no model that `fssd detect` knows
        start += ["--model", args.model]
    return {
        "lite-int8": ["fssd", "bench", args.int8, *repeats, *images] if args.int8 else [*lite, *int8],
        "lite-fp32": lite,
        "vgg-openvino": [*vgg, "--runtime", "openvino"],
        "vgg-torch": [*vgg, "--runtime", "torch"],
        "runtimes": ["python", "benchmarks/runtimes.py", *repeats],
        "fusion": ["python", "benchmarks/fusion.py", *repeats],
        "nms": ["python", "benchmarks/nms.py"],
        "evaluation": ["python", "benchmarks/evaluation.py"],
        "augment": ["python", "benchmarks/augment.py"],
        "start": start,
        "training": training,
    }


def measure(command: list[str], file: Path) -> None:
    """Run a command, which writes its figures to `file`, and note there what it was."""
    print(shlex.join(command), flush=True)
    draft = file.with_suffix(".draft")
    subprocess.run([*_program(command), "--json", str(draft)], check=True)
    figures = {"command": shlex.join(command), **json.loads(draft.read_text(encoding="utf-8"))}
    atomic_write(file, json.dumps(figures, indent=2, ensure_ascii=False) + "\n")
    draft.unlink()


def _program(command: list[str]) -> list[str]:
    """The command with this interpreter, from whatever folder."""
    if command[0] == "fssd":
        return [sys.executable, "-m", *command]
    return [sys.executable, str(FOLDER / Path(command[1]).name), *command[2:]]


# ---- what is made of it

Found = Mapping[str, Any]


def targets(found: Found) -> list[Row]:
    """The rows that have something to reach, of the measurements that are there."""
    return _rows(
        found,
        (("lite-int8",), lambda a: _speed("`fssd300-lite`, int8 OpenVINO", a, "lite-int8", 80)),
        (("lite-fp32",), lambda a: _speed("`fssd300-lite`, fp32 OpenVINO", a, "lite-fp32", 45)),
        (("vgg-openvino", "vgg-torch"), _vgg_peak),
        (("runtimes",), _vgg_int8),
        (("nms",), _nms),
        (("vgg-openvino",), _overhead),
        (("evaluation",), lambda a: _evaluation(a, "coco", "COCO", ("AP",))),
        (("evaluation",), lambda a: _evaluation(a, "voc", "VOC", ("AP", "report with sizes"))),
        (("start",), lambda a: _start(a, "fssd --help", "`fssd --help`", 0.5)),
        (("start",), lambda a: _start(a, "fssd detect", "first detection from a cold start", 3)),
        (("training",), _training),
        (("training",), _loading),
    )


def compared(found: Found) -> list[Row]:
    """The rows that only compare."""
    return _rows(
        found,
        (("fusion",), lambda a: _fusion(a, "fssd300-lite")),
        (("fusion",), lambda a: _fusion(a, "fssd300-vgg16")),
        (("runtimes",), lambda a: _runtimes(a, "fssd300-lite")),
        (("runtimes",), lambda a: _runtimes(a, "fssd300-vgg16")),
        (("nms",), lambda a: _rivals(a, "plain", "plain per-class greedy NMS in numpy")),
        (("nms",), lambda a: _rivals(a, "onnxruntime", "ONNX Runtime's NonMaxSuppression")),
        (("augment",), _augment),
        (("evaluation",), lambda a: _slow(a, "coco", "pycocotools")),
        (("evaluation",), lambda a: _slow(a, "voc", "the VOC kit's algorithm")),
    )


def _rows(found: Found, *plans: tuple[tuple[str, ...], Callable[..., Row]]) -> list[Row]:
    return [make(*(found[name] for name in names)) for names, make in plans if set(names) <= set(found)]


def _speed(what: str, bench: Any, source: str, least: float) -> Row:
    rate = bench["frames_per_second"]["arrays"]
    return Row(
        f"{what}, image array in, detections out",
        f"{least} images/s or more",
        f"{_spread(rate, 1)} images/s; network alone {_median(bench['milliseconds']['network'], 1)} ms,"
        f" {bench['detections']['median']:g} detections",
        rate["median"] >= least,
        source,
    )


def _vgg_peak(*benches: Any) -> Row:
    """Time over that at the peak, in the better of two runtimes."""
    best = max(benches, key=lambda bench: bench["share_of_peak"])
    times = 1 / best["share_of_peak"]
    runtime = best["model"]["runtime"]
    return Row(
        "`fssd300-vgg16`, fp32, network alone",
        "within 1.25 of its operations over the machine's measured peak",
        f"{times:.2f} times: {_spread(best['milliseconds']['network'], 0)} ms in {runtime},"
        f" {best['gflops']:.0f} of {best['peak']['gflops']:.0f} GFLOP/s ({best['peak']['way']})",
        times <= 1.25,
        f"vgg-{runtime}",
    )


def _vgg_int8(runtimes: Any) -> Row:
    gain = runtimes["models"]["fssd300-vgg16"]["openvino int8"]["network_over_openvino_fp32"]
    return Row(
        "`fssd300-vgg16`, int8, network alone",
        "3 times its fp32 speed or more",
        f"{_spread(gain, 2)} times, both in OpenVINO",
        gain["median"] >= 3,
        "runtimes",
    )


def _nms(nms: Any) -> Row:
    worst = max(
        (case["milliseconds"]["fssd"] for case in nms["cases"].values()), key=lambda one: one["median"]
    )
    return Row(
        "decode and NMS, 400 candidates in each of 20 classes, one core",
        "8 ms or less, result equal to greedy NMS",
        f"{_spread(worst, 1)} ms; equal",  # the script ends with an error where it is not
        worst["median"] <= 8,
        "nms",
    )


def _overhead(bench: Any) -> Row:
    share = bench["overhead"]
    return Row(
        "preprocessing and post-processing of `fssd300-vgg16` together",
        "under 10 % of its fp32 network time",
        f"{100 * share['median']:.1f} % with 400 candidates in every class",
        share["median"] < 0.1,
        "vgg-openvino",
    )


def _evaluation(evaluation: Any, data: str, title: str, sides: tuple[str, ...]) -> Row:
    images = evaluation["images"] - (48 if data == "voc" else 0)
    seconds = {side: evaluation[data]["seconds"][side] for side in sides}
    detail = "100 detections x 80 classes" if data == "coco" else "200 detections x 20 classes"
    return Row(
        f"{title} evaluation, {images:,} images x {detail}",
        "5 s or less",
        "; ".join(f"{side} {_median(figure, 2)} s" for side, figure in seconds.items()),
        max(figure["median"] for figure in seconds.values()) <= 5,
        "evaluation",
    )


def _start(start: Any, name: str, what: str, most: float) -> Row:
    seconds = start["seconds"][name]
    return Row(what, f"{most} s", f"{_spread(seconds, 2)} s", seconds["median"] <= most, "start")


def _training(training: Any) -> Row:
    gain, rates = training["loaded_over_plain"], training["images_per_second"]
    return Row(
        f"training `{training['model']}` on the CPU, batch {training['batch']}",
        "2 times the images a second of a plain eager step",
        f"{_spread(gain, 2)} times: {_median(rates['loaded'], 1)} images/s"
        f" against {_median(rates['plain'], 1)}",
        gain["median"] >= 2,
        "training",
    )


def _loading(training: Any) -> Row:
    cost = training["loaded_seconds_over_cached"]
    return Row(
        "loading its data",
        "within 5 % of a cached batch",
        f"{100 * (cost['median'] - 1):.1f} % longer",
        cost["median"] <= 1.05,
        "training",
    )


def _fusion(fusion: Any, model: str) -> Row:
    pair = fusion["pairs"][model]
    ssd = model.removeprefix("f")
    return Row(
        f"`{model}` over `{ssd}`, time of the network",
        f"the paper: {PAPER:.2f}, on a GPU",
        f"{_spread(pair['ratio'], 2)} times; multiply-adds {pair['multiply_adds']:.2f} times",
        None,
        "fusion",
    )


def _runtimes(runtimes: Any, model: str) -> Row:
    sides = runtimes["models"][model]
    own = ", ".join(f"{name} {_median(side['network_ms'], 1)}" for name, side in sides.items())
    return Row(f"`{model}`, the network in each runtime", "", f"{own} ms", None, "runtimes")


def _rivals(nms: Any, rival: str, title: str) -> Row:
    gains = ", ".join(
        f"{_median(case[f'{rival}_over_fssd'], 2)} ({name})" for name, case in nms["cases"].items()
    )
    return Row(f"decode and NMS: {title} over ours, time", "", f"{gains} times", None, "nms")


def _augment(augment: Any) -> Row:
    return Row(
        "decoding and augmentation: step by step over ours, time",
        "",
        f"{_spread(augment['gain'], 2)} times",
        None,
        "augment",
    )


def _slow(evaluation: Any, data: str, title: str) -> Row:
    return Row(
        f"{data.upper()} evaluation of {evaluation['part']} images: {title} over ours, time",
        "",
        f"{_spread(evaluation[data]['gain'], 0)} times; the APs differ by"
        f" {evaluation[data]['difference']:.1g}",
        None,
        "evaluation",
    )


def _median(figure: Any, digits: int) -> str:
    return f"{figure['median']:.{digits}f}"


def _spread(figure: Any, digits: int) -> str:
    """Such as `12.3 (11.0 to 14.1)`."""
    return f"{_median(figure, digits)} ({figure['low']:.{digits}f} to {figure['high']:.{digits}f})"


# ---- how it is shown


def markdown(rows: list[Row], comparisons: list[Row], found: Found) -> str:
    """Both tables, the machine and the commands, to be pasted into the page."""
    marks = {True: "yes", False: "**no**", None: ""}
    reached = [f"| {r.what} | {r.reach} | {r.measured} | {marks[r.reached]} | {r.source} |" for r in rows]
    others = [f"| {r.what} | {r.measured} | {r.reach} | {r.source} |" for r in comparisons]
    used = dict.fromkeys(row.source for row in (*rows, *comparisons))
    lines = [
        machine(found),
        "",
        "| what | reach | measured | reached | measurement |",
        "|---|---|---|---|---|",
        *reached,
        "",
        "| compared in one run | measured | note | measurement |",
        "|---|---|---|---|",
        *others,
        "",
        "| measurement | command |",
        "|---|---|",
        *(f"| {name} | `{found[name]['command']}` |" for name in used),
    ]
    return "\n".join(lines) + "\n"


def put_into(page: Path, text: str) -> None:
    """Replace what stands between the marks of a page."""
    before, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise SystemExit(f"{page}: has no lines {BEGIN} and {END}; put them where the tables are to stand")
    atomic_write(page, f"{before}{BEGIN}\n\n{text}\n{END}{after}")


def machine(found: Found) -> str:
    """One paragraph on the machine, or the machines, of the measurements."""
    kinds = dict.fromkeys(_machine(one["machine"]) for one in found.values())
    loads = [one["machine"]["load"] for one in found.values() if one["machine"]["load"] is not None]
    busy = f" Load before a measurement: {min(loads):.1f} to {max(loads):.1f}." if loads else ""
    return f"Measured on {'; and on '.join(kinds)}.{busy}" if kinds else "Nothing was measured."


def _machine(facts: Any) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in facts["packages"].items())
    place = facts["gpu"] or f"{facts['processor']}, {facts['cores']} cores, {facts['instructions']}"
    return f"{place}; {facts['system']}, Python {facts['python']}, {packages}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", default="fssd300-lite", help="fssd300-lite, trained, for PyTorch")
    parser.add_argument("--int8", help="the same in eight bits for OpenVINO; made from --model without it")
    parser.add_argument("--images", nargs="*", default=[], help="to detect in; made ones without it")
    parser.add_argument(
        "--training", nargs="*", default=[], help="settings of the training, such as amp=bf16"
    )
    parser.add_argument("--repeats", type=int, default=30, help="turns of models that count")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of training that count")
    parser.add_argument("--only", nargs="*", help="take these measurements alone, such as nms start")
    parser.add_argument("--out", type=Path, default=Path("runs/performance"))
    parser.add_argument("--page", type=Path, help="put the tables into this page too, between its marks")
    return parser.parse_args()


if __name__ == "__main__":
    main()
