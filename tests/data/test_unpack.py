"""Unpacking: completely or not at all, and nothing outside the folder."""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from collections import namedtuple
from pathlib import Path, PurePosixPath

import pytest

from fssd.data import unpack as module
from fssd.data.unpack import unpack
from fssd.errors import FetchError

GOOD = {"kit/2007/a.txt": b"a", "kit/2007/b.jpg": bytes(1000), "kit/readme": b""}


def make_tar(file: Path, contents: dict[str, bytes], *more: tarfile.TarInfo) -> Path:
    with tarfile.open(file, "w:gz" if file.suffix == ".gz" else "w") as archive:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for member in more:
            archive.addfile(member)
    return file


def make_zip(file: Path, contents: dict[str, bytes], *more: zipfile.ZipInfo) -> Path:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
        for member in more:
            archive.writestr(member, "/etc/passwd")
    return file


def make(file: Path, contents: dict[str, bytes]) -> Path:
    return make_zip(file, contents) if file.suffix == ".zip" else make_tar(file, contents)


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder).as_posix()): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def target(tmp_path: Path) -> Path:
    folder = tmp_path / "inner" / "target"
    folder.mkdir(parents=True)
    return folder


KINDS = ["a.tar", "a.tar.gz", "a.zip"]


@pytest.mark.parametrize("name", KINDS)
def test_unpacks_beside_what_is_there(tmp_path: Path, target: Path, name: str) -> None:
    (target / "kit" / "2012").mkdir(parents=True)
    (target / "kit" / "2012" / "kept").write_bytes(b"k")
    (target / "kit" / "2007").mkdir()
    (target / "kit" / "2007" / "a.txt").write_bytes(b"a")
    done: list[tuple[int, int | None]] = []
    last = unpack(make(tmp_path / name, GOOD), target, lambda *now: done.append(now))
    assert last == PurePosixPath("kit/readme")
    assert files(target) == {**GOOD, "kit/2012/kept": b"k"}
    assert done[-1] == (1001, 1001)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("path", ["../out", "kit/../../out", "/tmp/out", "C:/out", "kit\\..\\out"])
def test_names_that_leave_the_folder(tmp_path: Path, target: Path, name: str, path: str) -> None:
    file = make(tmp_path / name, {**GOOD, path: b"bad"})
    with pytest.raises(FetchError, match=r"leads out of the folder; nothing was unpacked"):
        unpack(file, target)
    assert files(tmp_path) == {name: file.read_bytes()}
    assert not list(target.iterdir())


@pytest.mark.parametrize("name", KINDS)
def test_names_with_backslashes(tmp_path: Path, target: Path, name: str) -> None:
    """As zip files of old .NET have them: nothing leads anywhere, but it is no folder here."""
    file = make(tmp_path / name, {"kit\\images\\a.jpg": b"a"})
    with pytest.raises(
        FetchError, match=r"has \\ between its folders .* nothing was unpacked, pack the archive again"
    ):
        unpack(file, target)
    assert not list(target.iterdir())


def tar_member(kind: bytes) -> tarfile.TarInfo:
    member = tarfile.TarInfo("kit/odd")
    member.type, member.linkname = kind, "../../out"
    return member


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]
)
def test_links_and_devices_in_tar(tmp_path: Path, target: Path, kind: bytes) -> None:
    with pytest.raises(FetchError, match="'kit/odd' is a link or a device"):
        unpack(make_tar(tmp_path / "a.tar", GOOD, tar_member(kind)), target)
    assert not list(target.iterdir())


def test_link_in_zip(tmp_path: Path, target: Path) -> None:
    link = zipfile.ZipInfo("kit/odd")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    with pytest.raises(FetchError, match="'kit/odd' is a link or a device"):
        unpack(make_zip(tmp_path / "a.zip", GOOD, link), target)
    assert not list(target.iterdir())


@pytest.mark.parametrize("name", KINDS)
def test_damage(tmp_path: Path, target: Path, name: str) -> None:
    file = make(tmp_path / name, {"kit/noise": bytes(range(256)) * 400, **GOOD})
    content = file.read_bytes()
    for broken in (content[: len(content) // 2], b"no archive", b""):
        file.write_bytes(broken)
        with pytest.raises(FetchError, match="is damaged or not an archive"):
            unpack(file, target)
        assert not list(target.iterdir())


def five(file: Path) -> bytearray:
    """A tar of five members of 1,000 bytes, each a header and two blocks, then zeros up to 10,240 bytes."""
    make_tar(file, {f"kit/{number}": bytes([number]) * 1000 for number in range(5)})
    return bytearray(file.read_bytes())


MEMBER = 3 * 512


@pytest.mark.parametrize(
    ("begin", "end", "new", "reason"),
    [
        (2 * MEMBER + 5, 2 * MEMBER + 6, b"\xff", "no member and no end of the archive at byte 3072"),
        (2 * MEMBER, 3 * MEMBER, bytes(MEMBER), "it goes on after its end at byte 3072"),
        (3 * MEMBER, None, b"", "no member and no end of the archive at byte 4608"),
        (3 * MEMBER + 100, None, b"", "no member and no end of the archive at byte 4608"),
        (5 * MEMBER + 511, None, b"", "no member and no end of the archive at byte 7680"),
    ],
    ids=["header", "zeros", "cut between members", "cut in a header", "cut at the end"],
)
def test_members_lost_to_damage(
    tmp_path: Path, target: Path, begin: int, end: int | None, new: bytes, reason: str
) -> None:
    content = five(tmp_path / "a.tar")
    content[begin:end] = new
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(FetchError, match=rf"a\.tar: is damaged or not an archive \({reason}\)"):
        unpack(tmp_path / "a.tar", target)
    assert not list(target.iterdir())


@pytest.mark.parametrize("blocks", [1, 2, 20])
def test_one_block_of_zeros_ends_a_tar(tmp_path: Path, target: Path, blocks: int) -> None:
    content = five(tmp_path / "a.tar")[: 5 * MEMBER] + bytes(512 * blocks)
    (tmp_path / "a.tar").write_bytes(content)
    unpack(tmp_path / "a.tar", target)
    assert len(files(target)) == 5


@pytest.mark.parametrize("ending", [b"", bytes(8)], ids=["missing", "wrong"])
def test_checksum_of_a_compressed_tar(tmp_path: Path, target: Path, ending: bytes) -> None:
    file = make_tar(tmp_path / "a.tar.gz", GOOD)
    file.write_bytes(file.read_bytes()[:-8] + ending)  # RFC 1952: CRC32 and ISIZE
    with pytest.raises(FetchError, match="is damaged or not an archive"):
        unpack(file, target)
    assert not list(target.iterdir())


def test_wrong_bytes_in_zip(tmp_path: Path, target: Path) -> None:
    file = tmp_path / "a.zip"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("kit/a", b"some plain content")
    file.write_bytes(file.read_bytes().replace(b"plain", b"plane"))
    with pytest.raises(FetchError, match="CRC"):
        unpack(file, target)
    assert not list(target.iterdir())


def test_zip_that_places_a_member_before_its_beginning(tmp_path: Path, target: Path) -> None:
    file = make_zip(tmp_path / "a.zip", GOOD)
    content = bytearray(file.read_bytes())
    end = content.rindex(b"PK\5\6")
    place = int.from_bytes(content[end + 16 : end + 20], "little")  # of the list of members
    content[end + 16 : end + 20] = (place + 1000).to_bytes(4, "little")
    file.write_bytes(content)
    with pytest.raises(FetchError, match=r"a\.zip: is damaged or not an archive"):
        unpack(file, target)
    assert not list(target.iterdir())


@pytest.mark.parametrize("name", KINDS)
def test_file_and_folder_of_one_name(tmp_path: Path, target: Path, name: str) -> None:
    with pytest.raises(FetchError, match="occurs twice"):
        unpack(make(tmp_path / name, {"kit": b"", "kit/a": b"a"}), target)
    assert not list(target.iterdir())


@pytest.mark.parametrize("name", KINDS)
def test_bomb(tmp_path: Path, target: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = make(tmp_path / name, {"zeros": bytes(1_000_000)})
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: namedtuple("usage", "free")(999_999))
    with pytest.raises(FetchError, match=r"unpacks to 1000000 bytes, .* has 999999 free"):
        unpack(file, target)
    assert not list(target.iterdir())


@pytest.mark.parametrize("name", KINDS)
def test_interrupted(tmp_path: Path, target: Path, name: str) -> None:
    def interrupt(done: int, total: int | None) -> None:
        assert files(target), "in the middle of it"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        unpack(make(tmp_path / name, GOOD), target, interrupt)
    assert not list(target.iterdir())


def test_the_rest_of_a_killed_process_is_removed(tmp_path: Path, target: Path) -> None:
    (target / ".unpacking-a.zip" / "kit").mkdir(parents=True)
    (target / ".unpacking-a.zip" / "kit" / "half").write_bytes(b"h")
    unpack(make_zip(tmp_path / "a.zip", GOOD), target)
    assert files(target) == GOOD


@pytest.mark.parametrize("name", KINDS)
def test_a_file_with_other_content_stays(tmp_path: Path, target: Path, name: str) -> None:
    """Of equal length too; nothing else is unpacked beside it."""
    (target / "kit" / "2007").mkdir(parents=True)
    (target / "kit" / "2007" / "a.txt").write_bytes(b"A")
    with pytest.raises(FetchError, match=r"a\.txt: is there already, and the archive has it with other"):
        unpack(make(tmp_path / name, GOOD), target)
    assert files(target) == {"kit/2007/a.txt": b"A"}


def test_an_archive_that_holds_its_own_name(target: Path) -> None:
    file = make_zip(target / "a.zip", {**GOOD, "a.zip": b"another"})
    content = file.read_bytes()
    with pytest.raises(FetchError, match=r"a\.zip: is there already"):
        unpack(file, target)
    assert files(target) == {"a.zip": content}


@pytest.mark.parametrize("name", [".unpacking-a.zip/kit", ".Notes/b.zip.json"])
def test_names_that_are_kept(tmp_path: Path, target: Path, name: str) -> None:
    file = make_zip(tmp_path / "a.zip", {**GOOD, name: b"{}"})
    with pytest.raises(FetchError, match="has a name that fssd keeps for itself; nothing was unpacked"):
        unpack(file, target, reserved={".notes"})
    assert not list(target.iterdir())


def test_folder_in_the_way(tmp_path: Path, target: Path) -> None:
    (target / "kit" / "readme").mkdir(parents=True)
    with pytest.raises(FetchError, match="in the way"):
        unpack(make_zip(tmp_path / "a.zip", GOOD), target)
    assert not list(target.glob(".unpacking*"))
