"""Everything that is measured on a GPU, for a machine that is lent for minutes and has no network.

    python benchmarks/gpu_pack.py --data animals.yaml --weights vgg16.safetensors --to pack
    # carry pack/ and this checkout over, then there, as often as needed:
    python benchmarks/gpu.py --pack pack --out results --minutes 9

The parts, in order of worth: the tests marked `cuda`, training throughput, SSD300 against FSSD300 on VGG16,
and speed of detection. Each step is a process of its own with a time limit, and its figures are a line of
results.jsonl as soon as it has ended; a step that is there already is not taken again, and the comparison
goes on in --work where it stopped. What has not arrived yet (some of the images, the weights) is done without
and noted. With --tiny everything runs on a CPU in a few minutes, to try the script.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import PIL.Image

ROOT = Path(__file__).parents[1]
RESULTS = "results.jsonl"
TESTS = ("tests/runtimes/test_cuda.py", "tests/training/test_gpu_training.py")
PARTS = ("tests", "throughput", "comparison", "latency")


class Sizes(NamedTuple):
    """What is measured, at full size on a GPU, or tiny on a CPU.

    train, batch, steps, amp: of the throughput. seeds, settings: of the comparison; fixed: its length, None
    for what fits. detect, bench: networks whose speed is measured, and how. patience: times the limits.
    """

    device: str
    train: str
    batch: int
    steps: int
    amp: str
    seeds: int
    fixed: str | None
    settings: tuple[str, ...]
    detect: tuple[str, ...]
    bench: tuple[str, ...]
    patience: float


FULL = Sizes(
    device="cuda",
    train="fssd300-vgg16",
    batch=32,
    steps=200,
    amp="bf16",
    seeds=2,
    fixed=None,
    settings=(),
    detect=("fssd300-vgg16", "ssd300-vgg16", "fssd512-vgg16", "fssd300-lite"),
    bench=("--runtime", "cuda", "--precision", "bf16"),
    patience=1.0,
)
TINY = Sizes(
    device="cpu",
    train="fssd300-lite",
    batch=4,
    steps=8,
    amp="off",
    seeds=1,
    fixed="2it",
    settings=("batch_size=2", "amp=off", "workers=2", "device=cpu", "size=128"),
    detect=("fssd300-lite",),
    bench=("--repeats", "3"),
    patience=5.0,
)


class Session:
    """The time that is left, what has been measured, and where to write more."""

    def __init__(self, out: Path, minutes: float, patience: float) -> None:
        self.patience = patience
        self.end = time.monotonic() + 60 * minutes
        self.file = out / RESULTS
        out.mkdir(parents=True, exist_ok=True)
        lines = self.file.read_text(encoding="utf-8").splitlines() if self.file.exists() else []
        self.done = {row["step"]: row for row in map(json.loads, lines) if row["ok"]}

    @property
    def left(self) -> float:
        """Seconds."""
        return self.end - time.monotonic()

    def write(self, step: str, ok: bool, figures: Mapping[str, Any]) -> None:
        row = {"step": step, "ok": ok, **figures}
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
        if ok:
            self.done[step] = row
        print(json.dumps(row, ensure_ascii=False)[:2000], flush=True)

    def step(
        self,
        name: str,
        seconds: float,
        command: Sequence[str | Path],
        read: Callable[[str], Mapping[str, Any]],
    ) -> None:
        """Run a command for at most so many seconds, and note what `read` makes of its output."""
        limit = min(seconds * self.patience, self.left - 5)
        if name in self.done or limit <= 0:
            print(f"{name}: {'done before' if name in self.done else 'no time is left'}", flush=True)
            return
        start = time.monotonic()
        ok, output, errors = _run(command, limit)
        figures = {"seconds": round(time.monotonic() - start, 1)}
        try:
            figures |= read(output)
        except (OSError, ValueError, KeyError, IndexError) as error:
            ok, figures = False, {**figures, "error": f"{type(error).__name__}: {error}"}
        self.write(name, ok, figures if ok else {**figures, "output": (output + errors)[-20_000:]})


def _run(command: Sequence[str | Path], limit: float) -> tuple[bool, str, str]:
    """Whether it ended well within so many seconds, its output, and what it wrote to stderr."""
    print("$ " + " ".join(map(str, command)), flush=True)
    try:
        done = subprocess.run(
            command, timeout=limit, capture_output=True, text=True, errors="replace", check=False
        )
    except subprocess.TimeoutExpired as error:
        return False, _text(error.stdout), f"{_text(error.stderr)}\nstopped after {limit:.0f} s"
    return done.returncode == 0, done.stdout, done.stderr


def _text(output: str | bytes | None) -> str:
    return output.decode(errors="replace") if isinstance(output, bytes) else output or ""


def main() -> int:
    args = _arguments()
    sizes = TINY if args.tiny else FULL
    session = Session(args.out, args.minutes, sizes.patience)
    _find_packages(args.pack)
    data, missing = unpack(args.pack, args.work / "data")
    weights = next((folder / "weights.safetensors" for folder in args.pack if _weights(folder)), None)
    if weights is not None:
        weights = Path(shutil.copyfile(weights, args.work / "weights.safetensors"))
    elif (args.work / "weights.safetensors").is_file():
        weights = args.work / "weights.safetensors"
    notes = {"images_missing": missing, "weights": weights is not None}
    print(json.dumps(notes), flush=True)
    parts: dict[str, Callable[[], None]] = {
        "tests": lambda: run_tests(session, args.tiny),
        "throughput": lambda: throughput(session, sizes, data, args.work),
        "comparison": lambda: comparison(session, sizes, data, weights, args, notes),
        "latency": lambda: latency(session, sizes, args.out),
    }
    for name in args.parts:
        parts[name]()
    return 0


def _weights(folder: Path) -> bool:
    return (folder / "weights.safetensors").is_file()


# ---- what has arrived


def _find_packages(packs: Sequence[Path]) -> None:
    """Install the wheels of the packs beside the checkout, and let every step find both."""
    site = Path(os.environ.get("TMPDIR", "/tmp")) / "fssd-site"
    wheels = [wheel for folder in packs for wheel in sorted((folder / "wheels").glob("*.whl"))]
    if wheels and not site.is_dir():
        options = ["--no-index", "--no-deps", "--no-compile", "--target", site]
        subprocess.run([sys.executable, "-m", "pip", "install", "-q", *options, *wheels], check=True)
    paths = [str(ROOT / "src"), *([str(site)] if site.is_dir() else []), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))


def unpack(packs: Sequence[Path], to: Path) -> tuple[Path, int]:
    """Lay the packs out as a COCO folder of the images that have arrived, and how many have not."""
    images, annotations = to / "images", to / "annotations"
    packed = to.with_name(f"{to.name}-labels")  # of all images; outside the data set
    for folder in (images, annotations, packed):
        folder.mkdir(parents=True, exist_ok=True)
    for file in (file for folder in packs for file in sorted(folder.glob("images-*.tar"))):
        mark = to / f"{file.name}.done"
        if not mark.exists():
            with tarfile.open(file) as tar:
                tar.extractall(images, filter="data")
                files = [images / name for name in tar.getnames()]
            with ThreadPoolExecutor() as pool:
                list(pool.map(_as_jpeg, files))
            mark.touch()
    missing = 0
    for source in (file for folder in packs for file in sorted(folder.glob("instances_*.json"))):
        shutil.copyfile(source, packed / source.name)
    for file in sorted(packed.glob("instances_*.json")):
        labels = json.loads(file.read_text(encoding="utf-8"))
        for image in labels["images"]:
            image["file_name"] = f"{Path(image['file_name']).stem}.jpg"
        there = [image for image in labels["images"] if (images / image["file_name"]).is_file()]
        missing += len(labels["images"]) - len(there)
        ids = {image["id"] for image in there}
        objects = [one for one in labels["annotations"] if one["image_id"] in ids]
        text = json.dumps({**labels, "images": there, "annotations": objects})
        (annotations / file.name).write_text(text, encoding="utf-8")
    return to, missing


def _as_jpeg(file: Path) -> None:
    """In place of a WebP file, which takes several times as long to decode and is decoded in each epoch."""
    with PIL.Image.open(file) as image:
        image.save(file.with_suffix(".jpg"), "JPEG", quality=92)
    file.unlink()


# ---- the parts


def run_tests(session: Session, tiny: bool) -> None:
    """The tests marked `cuda`. tiny: as far as a CPU can run them."""
    if tiny:
        os.environ["FSSD_TEST_DEVICE"] = "cpu"
    command = [sys.executable, "-m", "pytest", "-m", "cuda", "-p", "no:cacheprovider", "-v"]

    def read(output: str) -> Mapping[str, Any]:
        lines = output.splitlines()
        marks = (" PASSED", " FAILED", " SKIPPED", " ERROR")  # each as it ends, so a stopped run has them too
        return {"summary": lines[-1], "tests": [line for line in lines if any(map(line.__contains__, marks))]}

    session.step("tests", 200, [*command, *(ROOT / test for test in TESTS)], read)


def throughput(session: Session, sizes: Sizes, data: Path, work: Path) -> None:
    """Images a second of training, with loading; how far that is from the chip's peak; waits in a step."""
    out = work / "throughput"
    settings = [f"--batch-size={sizes.batch}", f"--iterations={sizes.steps}", f"--amp={sizes.amp}"]
    settings += [
        "--start=nothing",
        "--val-split=none",
        "--log-every=2" if sizes is TINY else "--log-every=20",
    ]
    settings += [f"--device={sizes.device}", f"--workers={min(14, os.cpu_count() or 1)}"]
    command = [
        sys.executable,
        "-m",
        "fssd",
        "train",
        f"--model={sizes.train}",
        f"--data={data}",
        f"--out={out}",
    ]

    def read(_: str) -> Mapping[str, Any]:
        rows = map(json.loads, (out / "log.jsonl").read_text(encoding="utf-8").splitlines())
        rates = [row["images_per_second"] for row in rows if "images_per_second" in row]
        settled = sorted(rates[len(rates) // 4 :])  # the first updates choose kernels and fill queues
        return {"model": sizes.train, "batch": sizes.batch, "amp": sizes.amp, "images_per_second": settled}

    shutil.rmtree(out, ignore_errors=True)
    session.step("throughput", 120, [*command, *settings], read)
    profile = [sys.executable, ROOT / "benchmarks" / "gpu_step.py", f"--model={sizes.train}"]
    profile += [f"--batch={sizes.batch}", f"--amp={sizes.amp}", f"--device={sizes.device}"]
    session.step("step", 90, profile, lambda output: json.loads(output.splitlines()[-1]))
    for kernels in ("deterministic", "benchmark") if sizes.device == "cuda" else ():
        chosen = [*profile, f"--kernels={kernels}"]
        session.step(f"step, {kernels}", 90, chosen, lambda output: json.loads(output.splitlines()[-1]))


def comparison(
    session: Session,
    sizes: Sizes,
    data: Path,
    weights: Path | None,
    args: argparse.Namespace,
    notes: Mapping[str, Any],
) -> None:
    """SSD300 against FSSD300, as long as the time allows; mAP by size of every finished run."""
    out = args.work / "comparison"
    kept = args.work / "budget"
    seconds = max(0.0, min(session.left - 60 * args.keep, session.left - 5))
    if not kept.exists():
        kept.write_text(sizes.fixed or _budget(session, data, seconds, sizes), encoding="utf-8")
    budget = kept.read_text(encoding="utf-8")
    settings = [*sizes.settings, *(["start=nothing"] if weights is None else [f"weights={weights}"])]
    command = [sys.executable, "-m", "fssd", "ablate", "fusion-vgg", f"--data={data}", f"--out={out}"]
    command += [
        f"--seeds={sizes.seeds}",
        f"--budget={budget}",
        f"--minutes={max(0.1, seconds / 60 - 0.3):.2f}",
    ]

    def read(_: str) -> Mapping[str, Any]:
        (args.out / "comparison.md").write_bytes((out / "table.md").read_bytes())
        (args.out / "comparison.csv").write_bytes((out / "table.csv").read_bytes())
        return {**notes, "budget": budget, "table": (out / "table.csv").read_text(encoding="utf-8")}

    session.step("comparison", seconds, [*command, "--set", *settings], read)


def _budget(session: Session, data: Path, seconds: float, sizes: Sizes) -> str:
    """Epochs of each of the runs that fit, from the measured rate; a quarter of the time is for the rest."""
    measured = session.done.get("throughput", {}).get("images_per_second") or [100.0]
    rate = measured[len(measured) // 2]
    labels = json.loads((data / "annotations" / "instances_train.json").read_text(encoding="utf-8"))
    epochs = 0.75 * seconds * rate / (2 * sizes.seeds * max(1, len(labels["images"])))
    return f"{max(1, round(epochs))}ep"


def latency(session: Session, sizes: Sizes, out: Path) -> None:
    """Milliseconds at batch 1, and images a second at the best batch."""
    for model in sizes.detect:
        for mode in ("latency", "throughput"):
            file = out / f"{model}-{mode}.json"
            command = [sys.executable, "-m", "fssd", "bench", model, f"--mode={mode}", f"--json={file}"]

            def read(_: str, file: Path = file) -> Mapping[str, Any]:
                figures = json.loads(file.read_text(encoding="utf-8"))
                keys = ("model", "setup", "milliseconds", "frames_per_second", "share_of_peak", "batches")
                return {key: figures.get(key) for key in keys}

            session.step(f"{model} {mode}", 60, [*command, *sizes.bench], read)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pack", type=Path, nargs="+", required=True, help="folders of gpu_pack.py's files")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--work", type=Path, default=Path("/tmp/fssd-gpu"), help="folder for data and runs")
    parser.add_argument("--minutes", type=float, default=9.0, help="for everything")
    parser.add_argument("--keep", type=float, default=0.0, help="minutes that the comparison leaves over")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--tiny", action="store_true", help="try the script on a CPU")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    return args


if __name__ == "__main__":
    sys.exit(main())
