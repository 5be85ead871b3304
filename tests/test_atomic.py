"""Atomic files: the old content or the new one, and no temporary file remains."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fssd.atomic import (
    atomic_path,
    atomic_write,
    remove_leftovers,
    replace_together,
    require_writable,
    require_writable_folder,
    temporary_prefix,
)
from fssd.errors import ConfigError


def test_writes_bytes_and_text(tmp_path: Path) -> None:
    atomic_write(tmp_path / "a", b"\x00\xff")
    atomic_write(str(tmp_path / "b.txt"), "Füße\n")
    assert (tmp_path / "a").read_bytes() == b"\x00\xff"
    assert (tmp_path / "b.txt").read_bytes() == "Füße\n".encode()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b.txt"]


def test_bytes_that_are_no_utf8_become_escapes_of_json(tmp_path: Path) -> None:
    name = os.fsdecode(b"stra\xdfe")
    atomic_write(tmp_path / "a.json", json.dumps([name, "ö"], ensure_ascii=False))
    assert (tmp_path / "a.json").read_bytes() == b'["stra\\udcdfe", "\xc3\xb6"]'
    assert json.loads((tmp_path / "a.json").read_text("utf-8")) == [name, "ö"]


def test_a_folder_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "d.onnx").mkdir()
    with pytest.raises(ConfigError, match=rf"^{tmp_path / 'd.onnx'}: is a folder; give the name of a file"):
        atomic_write(tmp_path / "d.onnx", b"")
    assert [path.name for path in tmp_path.iterdir()] == ["d.onnx"]


def test_failure_in_the_middle_keeps_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "model.bin"
    file.write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_path(file) as temporary:
        temporary.write_text("half of the n")
        raise KeyboardInterrupt
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_failure_of_the_renaming_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "model.bin"
    file.write_text("old")

    def full_disk(_: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="no space"):
        atomic_write(file, "new")
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_full_disk_is_told_with_the_file(tmp_path: Path) -> None:
    file = tmp_path / "model.bin"
    file.write_text("old")
    with pytest.raises(OSError) as caught, atomic_path(file), Path("/dev/full").open("w") as full:
        full.write("new")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(file))
    assert file.read_text() == "old"
    with pytest.raises(FileNotFoundError) as missing, atomic_path(file):
        (tmp_path / "source").read_bytes()
    assert missing.value.filename == str(tmp_path / "source"), "an error of another file stays as it is"


def test_folders_that_cannot_be_written_to(tmp_path: Path) -> None:
    require_writable_folder(tmp_path / "new" / "run")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    for folder in (Path("/proc/run"), tmp_path / "file" / "run"):
        with pytest.raises(ConfigError, match=f"^{folder}: nothing can be written into .*choose another"):
            require_writable_folder(folder)


def test_old_file_is_there_until_the_end(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    file.write_text("old")
    with atomic_path(file) as temporary:
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".json"  # writers such as cv2.imwrite choose the format by it
        temporary.write_text("new")
        assert file.read_text() == "old"
    assert file.read_text() == "new"


def test_file_and_folder_are_synced_before_and_after_the_renaming(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "x"
    steps: list[str] = []
    fsync = os.fsync

    def spy(descriptor: int) -> None:
        kind = "folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
        steps.append(f"{kind}, renamed: {file.exists()}")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", spy)
    atomic_write(file, "new")
    assert steps == ["file, renamed: False", "folder, renamed: True"]


@pytest.mark.skipif(os.name == "nt", reason="permissions and links of POSIX")
def test_permissions_and_links_stay(tmp_path: Path) -> None:
    file = tmp_path / "x"
    plain = tmp_path / "plain"
    plain.write_text("")
    atomic_write(file, "1")
    assert file.stat().st_mode == plain.stat().st_mode  # the umask's, not the 0600 of temporary files
    file.chmod(0o640)
    link = tmp_path / "link"
    link.symlink_to(file)
    atomic_write(link, "2")
    assert link.is_symlink()
    assert file.read_text() == "2"
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


def test_block_that_writes_nothing_fails(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "x"):
        pass
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_written_is_told_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_writable(tmp_path / "new" / "deep" / "x", tmp_path / "y")
    assert (tmp_path / "new" / "deep").is_dir() and not list((tmp_path / "new" / "deep").iterdir())
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigError, match="folder: is a folder; give the name of a file"):
        require_writable(tmp_path / "folder")
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="file: cannot be made a folder"):
        require_writable(tmp_path / "file" / "x")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("fssd.atomic.TemporaryFile", refuse)  # root may write into every folder
    with pytest.raises(ConfigError, match=r"nothing can be written into this folder \(Permission denied\)"):
        require_writable(tmp_path / "y")


# Writes a model that never ends, and tells when it has begun.
ENDLESS = """
import sys
from fssd.atomic import atomic_path
with atomic_path(sys.argv[1]) as temporary:
    temporary.write_bytes(b"half")
    print(temporary.name, flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows cannot ask whether there is a process")
def test_what_a_killed_process_left_is_removed_and_what_a_living_one_writes_stays(tmp_path: Path) -> None:
    command = [sys.executable, "-c", ENDLESS, str(tmp_path / "model.bin")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        name = process.stdout.readline().strip()
        folder = tmp_path / name.replace(".bin", "-folder")
        folder.mkdir()
        (folder / "model.onnx").touch()
        remove_leftovers(tmp_path)
        assert {path.name for path in tmp_path.iterdir()} == {name, folder.name}
        process.kill()
    (tmp_path / f"{temporary_prefix()}0").touch()
    (tmp_path / "model.bin").touch()
    remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["model.bin"]


def test_leftovers_of_others_are_removed_when_nothing_has_changed_for_an_hour(tmp_path: Path) -> None:
    for name, age in (("old", 3700), ("young", 3500)):
        (tmp_path / f".tmp-{name}").mkdir()
        (tmp_path / f".tmp-another_host-1-{name}.safetensors").touch()
        for path in tmp_path.glob(f"*{name}*"):
            os.utime(path, (time.time() - age,) * 2)
    remove_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        ".tmp-young",
        ".tmp-another_host-1-young.safetensors",
    }


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


@pytest.mark.parametrize("links", [True, False])
def test_files_are_replaced_together_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    if not links:  # as on file systems that have no second names

        def refuse(*_: object) -> None:
            raise PermissionError(errno.EPERM, "no links")

        monkeypatch.setattr(os, "link", refuse)
    new, store, elsewhere = (tmp_path / name for name in ("new", "store", "elsewhere"))
    for folder in (new, store, elsewhere):
        folder.mkdir()
    (store / "m.xml").write_text("old graph")
    (elsewhere / "m.bin").write_text("old weights")
    (store / "m.bin").symlink_to(elsewhere / "m.bin")
    names = ("m.bin", "m.json", "m.xml")
    for name in names[:2]:
        (new / name).write_text("new")
    with pytest.raises(FileNotFoundError):  # the third is not there
        replace_together({new / name: store / name for name in names})
    assert contents(store) == {"m.xml": "old graph", "m.bin": "old weights"}
    for name in names:
        (new / name).write_text("new")
    replace_together({new / name: store / name for name in names})
    assert contents(store) == dict.fromkeys(names, "new") and contents(elsewhere) == {"m.bin": "new"}
    assert (store / "m.bin").is_symlink()
