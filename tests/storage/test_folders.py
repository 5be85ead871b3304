"""One contract for folders on a disk and in S3."""

from __future__ import annotations

import multiprocessing
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from fssd.errors import ConfigError, DataError, shown
from fssd.storage.folders import Entry, Folder, is_remote, location
from fssd.storage.open_folder import open_folder


@pytest.fixture(params=["disk", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    if request.param == "disk":
        return open_folder(tmp_path / "folder")
    return open_folder(f"{request.getfixturevalue('s3')}/some/folder")


def test_what_is_written_is_read(folder: Folder) -> None:
    assert not folder.exists("a/b.bin")
    folder.write("a/b.bin", b"0123456789")
    assert folder.exists("a/b.bin") and not folder.exists("a") and not folder.exists("a/b")
    assert folder.read("a/b.bin") == b"0123456789"
    assert folder.read_range("a/b.bin", 3, 4) == b"3456"
    folder.write("a/b.bin", b"")
    assert folder.read("a/b.bin") == b""
    folder.remove("a/b.bin")
    folder.remove("a/b.bin")
    assert not folder.exists("a/b.bin")


def test_list_names_all_visible_files(folder: Folder) -> None:
    assert list(folder.list()) == []
    for name in ("z.txt", "a/one.txt", "a/b/two.txt", "ab/three.txt", ".hidden", "a/.tmp-1/four.txt"):
        folder.write(name, name.encode())
    files = {"z.txt": 5, "a/one.txt": 9, "a/b/two.txt": 11, "ab/three.txt": 12}
    assert set(folder.list()) == {Entry(*pair) for pair in files.items()}
    assert set(folder.list("a")) == {Entry("a/one.txt", 9), Entry("a/b/two.txt", 11)}
    assert list(folder.list("missing")) == []


def test_upload_takes_a_local_file(folder: Folder, tmp_path: Path) -> None:
    file = tmp_path / "large.bin"
    content = bytes(range(256)) * (12 << 12)  # 12 MB: more than one part of an upload
    file.write_bytes(content)
    folder.upload(file, "a/large.bin")
    assert not file.exists()
    assert folder.read("a/large.bin") == content
    assert folder.read_range("a/large.bin", len(content) - 2, 2) == b"\xfe\xff"


def test_what_is_missing_or_too_short_is_named(folder: Folder) -> None:
    with pytest.raises(DataError, match=f"{folder.location}/no.bin: there is no such"):
        folder.read("no.bin")
    with pytest.raises(DataError, match=f"{folder.location}/no.bin: there is no such"):
        folder.read_range("no.bin", 0, 1)
    folder.write("a.bin", b"0123")
    with pytest.raises(DataError, match=r"a\.bin: ends before byte 6"):
        folder.read_range("a.bin", 2, 4)


def read_in_child(folder: Folder, answers: multiprocessing.Queue[bytes]) -> None:
    answers.put(folder.read_range("a.bin", 1, 2))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system cannot fork")
def test_a_forked_process_reads_with_a_client_of_its_own(folder: Folder) -> None:
    folder.write("a.bin", b"0123")
    assert folder.read_range("a.bin", 0, 1) == b"0"
    assert pickle.loads(pickle.dumps(folder)) == folder
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    child = context.Process(target=read_in_child, args=(folder, answers))
    child.start()
    assert answers.get(timeout=120) == b"12"
    child.join(240)
    assert child.exitcode == 0
    assert folder.read_range("a.bin", 2, 1) == b"2"


@pytest.mark.parametrize("name", ["../x.tar", "/tmp/x.tar", "a/../../x.tar", ".", ".."])
def test_nothing_is_kept_outside_its_folder(tmp_path: Path, name: str) -> None:
    pytest.importorskip("pyarrow")
    from fssd.storage.s3_folder import S3Folder

    folder = S3Folder("s3://bucket/data", kept=str(tmp_path / "kept"))
    with pytest.raises(DataError, match=r"its name leads out of .*kept"):
        folder.read_range(name, 0, 1)
    assert not list(tmp_path.iterdir())


def test_places() -> None:
    assert location(Path("s3://bucket/a")) == location("s3://bucket/a/") == "s3://bucket/a"
    assert is_remote(Path("s3://bucket/a")) and not is_remote("data/s3")
    assert shown(Path("s3://bucket/a")) == "s3://bucket/a" and shown(Path("a/b")) == str(Path("a/b"))
    assert "s3://bucket/a: broken" in str(DataError("broken", file=Path("s3://bucket/a")))
    with pytest.raises(ConfigError, match=r"gs://bucket: this kind of place is not known"):
        open_folder("gs://bucket")
    with pytest.raises(ConfigError, match=r"gs://?bucket: this kind of place is not known"):
        open_folder(Path("gs://bucket"))
    with pytest.raises(ConfigError, match="names no bucket"):
        open_folder("s3://")


def test_a_missing_bucket_is_named(s3: str) -> None:
    folder = open_folder(f"{s3}-missing/a")
    for use in (lambda: folder.read("b"), lambda: folder.write("b", b"1"), lambda: list(folder.list())):
        with pytest.raises(ConfigError, match=r"s3://.*-missing.*there is no such bucket"):
            use()


def test_a_store_that_is_not_there_is_named(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(ConfigError, match=r"s3://.*/b: the store does not answer.*AWS_ENDPOINT_URL"):
        open_folder(s3).read("b")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "127.0.0.1:9")
    with pytest.raises(ConfigError, match=r"AWS_ENDPOINT_URL is '127.0.0.1:9'; write a URL"):
        open_folder(s3).read("b")


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be made a folder"):
        open_folder(tmp_path / "file" / "below").require_writable()


def test_pyarrow_is_needed_for_s3_alone(tmp_path: Path) -> None:
    code = """
import sys
sys.modules["pyarrow"] = None
from fssd.errors import ConfigError
from fssd.storage.open_folder import open_folder
open_folder(".").write("a.bin", b"1")
try:
    open_folder("s3://bucket/a")
except ConfigError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout == 'this needs the package pyarrow; pip install "fssd[s3]"\n'


KILLED = """
import os, signal, sys, threading
from fssd.storage.open_folder import open_folder
folder = open_folder(sys.argv[1])
folder.read_range("other.bin", 0, 1)
client = folder._client()
stream = client.open_output_stream(folder._key("half.bin"))
for _ in range(4):
    stream.write(bytes(6 << 20))  # parts of the upload are on their way
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_writer_leaves_no_object(s3: str) -> None:
    folder = open_folder(s3)
    folder.write("other.bin", b"1")
    done = subprocess.run([sys.executable, "-c", KILLED, s3], timeout=120, check=False)
    assert done.returncode == -9
    assert list(folder.list()) == [Entry("other.bin", 1)]
