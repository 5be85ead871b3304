"""`fssd detect --engine ray`: machines, drivers and workers are killed, and each image has one row.

Each case kills at a place, not after a time: the processes of Ray carry a hook that stops them there.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray_cluster import RayCluster

from fssd.parts.part_rows import FoundRow
from fssd.parts.plan_rows import PlanRow
from fssd.parts.ray_engine import one_by_one

Words = Callable[..., list[str]]
ReadParts = Callable[[Path], list[dict[str, Any]]]
AsJson = Callable[[dict[str, Any]], list[dict[str, Any]]]

# The driver, with a hook in each process that detects. PLACE is a folder for flags, KIND what happens when a
# part that is computed and synced to disk is about to get its name:
#   gate: once three parts are there it waits until PLACE/open exists; die: the first process ends;
#   poison: nothing, but decoding the image 013.png ends the process.
DRIVER = """
import os, sys
from fssd.engines.ray_session import require_ray
ray = require_ray()
place, kind, *words = sys.argv[1:]
def hook():
    import os, pathlib, time
    replace = pathlib.Path.replace
    def named(file, target):
        if file.parent.name == "parts":
            with open(os.path.join(place, "begun"), "a") as begun:
                begun.write(f"{pathlib.Path(target).name}\\n")
            if kind == "gate":
                while len(list(file.parent.glob("part-*"))) >= 3 and not os.path.exists(place + "/open"):
                    time.sleep(0.05)
            if kind == "die":
                try:
                    os.close(os.open(place + "/died", os.O_CREAT | os.O_EXCL))
                except FileExistsError:
                    pass
                else:
                    os._exit(1)
        return replace(file, target)
    pathlib.Path.replace = named
    if kind == "poison":
        import fssd.parts.image_reader as reader
        decode = reader.decode_image
        def decode_or_end(data, name):
            if name.endswith("013.png"):
                with open(os.path.join(place, "eaten"), "a") as eaten:
                    eaten.write("x")
                os._exit(1)
            return decode(data, name)
        reader.decode_image = decode_or_end
environment = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
ray.init(
    address=os.environ["RAY_ADDRESS"],
    log_to_driver=False,
    logging_level="ERROR",
    runtime_env={"worker_process_setup_hook": hook, "env_vars": environment},
)
from fssd.cli.main import main
sys.exit(main(words))
"""
RAY = ("--engine", "ray", "--part", "8", "--actors", "2")


@pytest.fixture
def drive(tmp_path: Path) -> Callable[..., Any]:
    """Starts a driver with a hook: drive(kind, *words); a context manager that gives its process."""

    @contextmanager
    def start(kind: str, *words: str) -> Iterator[subprocess.Popen[str]]:
        command = [sys.executable, "-c", DRIVER, str(tmp_path), kind, *words]
        with (tmp_path / "log").open("a") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, text=True)
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    return start


def wait_for(what: Callable[[], bool], process: subprocess.Popen[str], log: Path) -> None:
    """Until something is so; the limit only ends a hang."""
    for _ in range(3000):
        if what():
            return
        assert process.poll() is None, log.read_text()
        time.sleep(0.1)
    raise AssertionError(log.read_text())


@pytest.fixture
def check(expected: dict[str, Any], read_parts: ReadParts, as_json: AsJson) -> Callable[[Path], None]:
    """96 rows, none twice, none missing, none different from plain detect."""

    def compare(out: Path) -> None:
        rows = read_parts(out)
        assert len(rows) == 96
        assert {Path(row["image"]).name: as_json(row) for row in rows} == expected
        assert json.loads((out / "_SUCCESS").read_text()) == {"rows": 96, "errors": 0, "parts": 12}

    return compare


def parts(out: Path) -> int:
    return len(list(out.glob("parts/part-*")))


def begun(place: Path) -> Counter[str]:
    return Counter((place / "begun").read_text().split())


@pytest.mark.long
def test_a_machine_is_lost(
    ray_cluster: RayCluster, drive: Any, words: Words, shots: Path, check: Any, tmp_path: Path
) -> None:
    """T1: a node with its worker is killed while both stand between data and name; the driver goes on."""
    ray_cluster.require(2)
    out = tmp_path / "out"
    with drive("gate", *words(shots, "--out", out, *RAY)) as driver:
        wait_for(lambda: parts(out) >= 3, driver, tmp_path / "log")
        ray_cluster.kill_node()
        (tmp_path / "open").touch()
        assert driver.wait(300) == 0, (tmp_path / "log").read_text()
    check(out)
    assert max(begun(tmp_path).values()) <= 2


@pytest.mark.long
def test_the_driver_is_killed(
    ray_cluster: RayCluster, drive: Any, words: Words, shots: Path, check: Any, tmp_path: Path
) -> None:
    """T2 and T4: killed while tasks stand between data and name; the same command goes on."""
    ray_cluster.require(2)
    out = tmp_path / "out"
    with drive("gate", *words(shots, "--out", out, *RAY)) as driver:
        wait_for(lambda: parts(out) >= 3, driver, tmp_path / "log")
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
    there = parts(out)
    assert 3 <= there <= 5 and not (out / "_SUCCESS").exists()
    (tmp_path / "open").touch()
    with drive("gate", *words(shots, "--out", out, *RAY)) as driver:
        assert driver.wait(300) == 0, (tmp_path / "log").read_text()
    check(out)
    assert "going on: " in (tmp_path / "log").read_text()
    assert sum(begun(tmp_path).values()) <= 12 + 2 + 2, "at most a part for each process is computed twice"


def test_a_worker_dies_between_data_and_name(
    ray_cluster: RayCluster, drive: Any, words: Words, shots: Path, check: Any, tmp_path: Path
) -> None:
    """T3, and then the finished detection is asked for once more."""
    ray_cluster.require(2)
    out = tmp_path / "out"
    with drive("die", *words(shots, "--out", out, *RAY)) as driver:
        assert driver.wait(300) == 0, (tmp_path / "log").read_text()
    check(out)
    assert (tmp_path / "died").exists()
    assert sorted(begun(tmp_path).values()) == [1] * 11 + [2]
    assert not list((out / "parts").glob(".tmp-*"))


@pytest.mark.long
def test_an_image_that_kills_its_process(
    ray_cluster: RayCluster,
    drive: Any,
    words: Words,
    shots: Path,
    expected: dict[str, Any],
    read_parts: ReadParts,
    as_json: AsJson,
    tmp_path: Path,
) -> None:
    """It is a row with an error; all other images are there, those of its part too."""
    ray_cluster.require(2)
    out, few = tmp_path / "out", tmp_path / "few"
    few.mkdir()
    for number in range(8, 24):
        (few / f"{number:03}.png").symlink_to(shots / f"{number:03}.png")
    with drive("poison", *words(few, "--out", out, *RAY)) as driver:
        assert driver.wait(400) == 1, (tmp_path / "log").read_text()
    rows = {Path(row["image"]).name: row for row in read_parts(out)}
    (bad,) = [name for name, row in rows.items() if row["error"]]
    assert bad == "013.png" and "the process that read it died 3 times" in rows[bad]["error"]
    assert sorted(rows) == [f"{number:03}.png" for number in range(8, 24)]
    assert all(as_json(row) == expected[name] for name, row in rows.items() if name != bad)
    assert (tmp_path / "eaten").read_text() == "x" * 6, "three times with its part, three times alone"


def test_images_and_results_in_a_store(
    ray_cluster: RayCluster,
    drive: Any,
    words: Words,
    shots: Path,
    expected: dict[str, Any],
    as_json: AsJson,
    s3: str,
    tmp_path: Path,
) -> None:
    from pyarrow.parquet import read_table

    from fssd.storage.open_folder import open_folder

    ray_cluster.require(2)
    store = open_folder(s3)
    for number in range(0, 96, 4):
        store.write(f"in/deep/{number:03}.png", (shots / f"{number:03}.png").read_bytes())
    store.write("in/bad.jpg", b"no image")
    for _ in range(2):  # again: nothing is computed or changed
        with drive("-", *words(f"{s3}/in", "--out", f"{s3}/out", *RAY)) as driver:
            assert driver.wait(300) == 1, (tmp_path / "log").read_text()
    names = sorted(entry.name for entry in store.list("out"))
    assert names[:3] == ["out/_SUCCESS", "out/parts/part-000000.parquet", "out/parts/part-000001.parquet"]
    rows = []
    for name in names:
        if "/parts/" in name:
            (tmp_path / "part.parquet").write_bytes(store.read(name))
            rows += read_table(tmp_path / "part.parquet").to_pylist()
    assert [row["image"] for row in rows if row["error"]] == [f"{s3}/in/bad.jpg"]
    good = {Path(row["image"]).name: as_json(row) for row in rows if not row["error"]}
    assert len(rows) == 25
    assert good == {name: row for name, row in expected.items() if name in good}
    assert len(good) == 24
    assert (tmp_path / "log").read_text().count("planned: 25 rows") == 1


def test_a_fault_of_all_images_ends_the_work(
    ray_cluster: RayCluster, drive: Any, words: Words, shots: Path, tmp_path: Path
) -> None:
    """Here a device that the workers do not have: no part is written, and the reason is one sentence."""
    ray_cluster.require(2)
    out = tmp_path / "out"
    with drive("-", *words(shots, "--out", out, *RAY), "--device", "cuda:7") as driver:
        assert driver.wait(300) == 2
    assert "error: device 'cuda:7' cannot be used here; " in (tmp_path / "log").read_text()
    assert not parts(out)


def test_an_image_for_which_ray_lacks_memory_is_a_row_with_an_error() -> None:
    """Ray's own watch over the memory ends the process, with an error that is none of an actor."""
    ray = pytest.importorskip("ray", reason='needs Ray: pip install "fssd[ray]"')
    begun = []

    def begin(*_: object) -> SimpleNamespace:
        begun.append(1)
        return SimpleNamespace(row=SimpleNamespace(remote=lambda row: row))

    def get(row: PlanRow) -> FoundRow:
        if row.image == "large.png":
            raise ray.exceptions.OutOfMemoryError("the node ran low on memory")
        return FoundRow(row.image)

    stub = SimpleNamespace(
        exceptions=ray.exceptions,
        remote=lambda **_: lambda _: SimpleNamespace(remote=begin),
        get=get,
        kill=lambda _: None,
    )
    planned = [PlanRow(name) for name in ("a.png", "large.png", "b.png")]
    rows = one_by_one(stub, None, planned, {})  # type: ignore[arg-type]
    assert [row.image for row in rows] == ["a.png", "large.png", "b.png"]
    assert [row.error is None for row in rows] == [True, False, True]
    assert "died 3 times" in str(rows[1].error) and len(begun) == 4
