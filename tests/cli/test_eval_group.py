"""`fssd eval` of several processes: report and files are those of one, each image is in one process."""

from __future__ import annotations

import json
import re
import shutil
import socket
from pathlib import Path
from subprocess import CompletedProcess

import forks
import pytest
import torch.distributed as dist

from fssd.training.distributed import Process, own_batches

pytestmark = pytest.mark.skipif(not dist.is_available(), reason="this torch has no torch.distributed")

# Notes which images a process decodes, and runs the verb.
SCRIPT = """
import os, sys
from fssd.cli.main import main
from fssd.inference.detector import Detector

real = Detector.evaluate_on

def noted(self, dataset, **settings):
    rank = os.environ.get("RANK", "0")
    with open(os.path.join(sys.argv[1], "own-" + rank), "w") as file:
        file.write(" ".join(record.image_id for record in dataset.records))
    return real(self, dataset, **settings)

Detector.evaluate_on = noted
rank = os.environ.get("RANK", "0")
more = ["--data", sys.argv[2 + int(rank)]]
sys.exit(main(["eval", *more, *sys.argv[4:]]))
"""


def _group(rank: int, world: int, port: int) -> dict[str, str]:
    group = {"RANK": rank, "WORLD_SIZE": world, "LOCAL_RANK": rank, "MASTER_PORT": port}
    given = {} if world == 1 else {key: str(value) for key, value in group.items()}
    return {"MASTER_ADDR": "127.0.0.1", **given}


def _eval(out: Path, datas: list[Path], model: Path, world: int, *more: str) -> list[CompletedProcess[str]]:
    out.mkdir()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    words = [out, *datas, model, "--batch-size", "1"]
    words += ["--json", out / "report.json", "--coco-results", out / "found.json", *more]
    started = [forks.start(SCRIPT, *words, variables=_group(rank, world, port)) for rank in range(world)]
    return [fork.wait() for fork in started]


def test_two_processes_write_the_report_of_one(scenes: Path, tmp_path: Path, model_file: Path) -> None:
    printed = []
    for world in (1, 2):
        ended = _eval(tmp_path / str(world), [scenes, scenes], model_file, world)
        assert [process.returncode for process in ended] == [0] * world, ended
        printed.append([process.stdout for process in ended])
        assert all(process.stderr == "" for process in ended[1:])
    assert printed[1] == [printed[0][0].replace(f"{tmp_path}/1/", f"{tmp_path}/2/"), ""]
    assert "mean of the classes" in printed[1][0]
    for name in ("report.json", "found.json"):
        one, two = ((tmp_path / str(world) / name).read_bytes() for world in (1, 2))
        assert one == two, name
    assert len(json.loads((tmp_path / "2" / "found.json").read_bytes())) > 20
    images = (scenes / "ImageSets" / "Main" / "val.txt").read_text(encoding="utf-8").split()
    owned = [(tmp_path / "2" / f"own-{rank}").read_text(encoding="utf-8").split() for rank in (0, 1)]
    assert owned == [images[0::2], images[1::2]]


def test_processes_that_see_other_labels_end(scenes: Path, tmp_path: Path, model_file: Path) -> None:
    other = Path(shutil.copytree(scenes, tmp_path / "scenes"))
    name = (scenes / "ImageSets" / "Main" / "val.txt").read_text(encoding="utf-8").split()[0]
    labels = other / "Annotations" / f"{name}.xml"
    text = labels.read_text(encoding="utf-8")
    labels.write_text(re.sub(r"<xmin>[^<]*", "<xmin>1", text, count=1), encoding="utf-8")
    ended = _eval(tmp_path / "out", [scenes, other], model_file, 2, "--json=-")
    assert [process.returncode for process in ended] == [2, 2], ended
    result, nothing = (process.stdout for process in ended)
    assert set(json.loads(result)) == {"error"} and nothing == "", "one line of JSON, not one a process"
    for process in ended:
        told = r"error: process 1 on \S+ has other images or labels than process 0 on \S+; give"
        assert re.search(told, process.stderr)
    assert not (tmp_path / "out" / "report.json").exists()


def test_whole_batches_go_to_the_processes_in_turn() -> None:
    shares = [own_batches(11, 3, Process(rank, 3, rank)) for rank in range(3)]
    assert shares == [[[0, 1, 2], [9, 10]], [[3, 4, 5]], [[6, 7, 8]]]
