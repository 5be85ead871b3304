"""Install the wheel into an empty environment and run every verb there, without any extra.

    python tools/try_wheel.py                                # this Python
    python tools/try_wheel.py --python python3.13
    python tools/try_wheel.py --environment made-before      # whose torch and other dependencies are there

Each verb must do its work, or say in one line which extra it needs. The exit code is 1 if one does neither.
torch comes from wherever pip finds it: on Linux that may be a CUDA build of gigabytes.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
SECONDS = 600  # after which a command counts as hanging

PREPARE = """
import shutil
from pathlib import Path
from fssd.zoo.models import MODELS, PHOTOS
for label, (split, photo) in enumerate(zip(("train", "val"), PHOTOS)):
    for kind in ("images", "labels"):
        Path("data", kind, split).mkdir(parents=True)
    shutil.copy(photo, f"data/images/{split}/{photo.name}")
    Path(f"data/labels/{split}/{photo.stem}.txt").write_text(f"{label} .5 .5 .6 .6\\n")
Path("data/data.yaml").write_text("path: .\\ntrain: images/train\\nval: images/val\\nnames: [cat, person]\\n")
shutil.copy(PHOTOS[0], "photo.jpg")
shutil.copy(MODELS["animals"], "other.safetensors")
Path("search.yaml").write_text("base: {}\\nsearch: {lr: [0.001, 0.01]}\\n")
"""
TRAIN = (
    "train --data data --out run --start nothing --iterations 1 --workers 0 --batch-size 2"
    " --train-split none --val-split none"
)
COMMANDS = (  # one or more of each verb, in an order in which each finds what it needs
    "check data",
    "convert data --to coco --out coco",
    "shard data shards",
    "scenes digits --train 2 --val 1",
    TRAIN,
    "eval animals --data data --split val --seen-images --keep-thresholds",
    "eval other.safetensors --data data --split val --seen-images --keep-thresholds",
    "detect animals photo.jpg --out found",
    "detect animals-int8 photo.jpg --out found8",
    "why animals photo.jpg",
    "label animals photo.jpg --to voc --out drafts",
    "pick animals photo.jpg --count 1",
    "compare animals other.safetensors photo.jpg --out compare.jpg",
    "subset animals --classes cat --out subset",
    "curves run --out curves.png",
    "scatter animals --data data",
    "ablate table2 --show",
    "tune search.yaml --data data --out tuned",
    "fetch --list",
    "import run/none.pth --model fssd300-lite --out imported",
    "push other.safetensors hf://user/name",
    "submit animals --data coco --to coco --split val --out results.zip --name fssd",
    "serve animals --port 0",
    "export animals --to safetensors --out half.safetensors",
    "export animals --out model.onnx",
    "export animals --to openvino --out model.xml",
    "export animals --to ncnn --out model.param",
    "export animals --to web --out site",
    "bench animals --repeats 1 --warm-up 0",
    "completion bash",
    "demo --out demo",
)
REFUSED = {"import": "there is no such file", "eval animals": "a model that goes by name is not changed"}
NEEDS = re.compile(r'^error: .*pip install "?fssd\[[\w,]+\]"?')


class Outcome(NamedTuple):
    """What became of a command. fine: whether it did its work, or said what it needs."""

    command: str
    fine: bool
    told: str


def main() -> int:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--python", default=sys.executable, help="the Python that makes the environment")
    flags.add_argument("--environment", type=Path, help="one that is there already, for its dependencies")
    given = flags.parse_args()
    with tempfile.TemporaryDirectory(prefix="fssd-wheel-") as name:
        folder = Path(name)
        wheel = build_wheel(folder)
        python = environment_with(wheel, folder, given.python, given.environment)
        version = said(python, "-c", "import platform; print(platform.python_version())", folder=folder)
        print(f"{wheel.name} on Python {version.stdout.strip()}", flush=True)
        outcomes = try_verbs(python, folder / "work")
    failed = [one for one in outcomes if not one.fine]
    print(f"{len(outcomes) - len(failed)} of {len(outcomes)} commands are fine")
    return 1 if failed else 0


def build_wheel(folder: Path) -> Path:
    """The wheel of this checkout."""
    command = ["pip", "wheel", "-q", "--no-deps", "-w", str(folder), str(ROOT)]
    subprocess.run([sys.executable, "-m", *command], check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def environment_with(wheel: Path, folder: Path, python: str, there: Path | None) -> Path:
    """The Python of an environment that has the wheel: a new, empty one, or `there`."""
    place = folder / "environment" if there is None else there.absolute()
    own = place / "bin" / "python"
    if there is None:
        subprocess.run([python, "-m", "venv", str(place)], check=True)
        constraints = ["-c", str(ROOT / "constraints.txt")]
        subprocess.run([own, "-m", "pip", "install", "-q", *constraints, str(wheel)], check=True)
    else:
        command = [sys.executable, "-m", "pip", "--python", str(own), "install", "-q", "--no-deps"]
        subprocess.run([*command, "--force-reinstall", str(wheel)], check=True)
    return own


def try_verbs(python: Path, folder: Path) -> list[Outcome]:
    """Run every command in a new folder, and print what became of each."""
    folder.mkdir()
    said(python, "-c", PREPARE, folder=folder).check_returncode()
    outcomes = []
    for command in COMMANDS:
        outcome = judge(command, said(python, "-m", "fssd", *command.split(), folder=folder))
        print(f"{'ok ' if outcome.fine else 'BAD'} fssd {command}\n      {outcome.told}", flush=True)
        outcomes.append(outcome)
    return outcomes


def said(python: Path, *words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """What a command prints, run away from the checkout."""
    hidden = {"PYTHONPATH", "VIRTUAL_ENV", "PYTHONHOME"}
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    return subprocess.run(
        [python, *words],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def judge(command: str, done: subprocess.CompletedProcess[str]) -> Outcome:
    """Whether a command did its work or named an extra, and its last line."""
    lines = (done.stderr if done.returncode else done.stdout).strip().splitlines() or [""]
    told = lines[-1].strip()[:200]
    if done.returncode == 0:
        return Outcome(command, True, told)
    known = next((reason for start, reason in REFUSED.items() if command.startswith(start)), None)
    as_expected = bool(NEEDS.match(told)) or (known is not None and known in told)
    return Outcome(command, done.returncode == 2 and as_expected, f"exit {done.returncode}: {told}")


if __name__ == "__main__":
    sys.exit(main())
