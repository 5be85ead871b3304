"""The table of archives: the official one, a user's own, and every mistake in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from fssd.errors import ConfigError
from fssd.fetch.archives import OFFICIAL, Archive, choose, read_table


def test_official_parts() -> None:
    assert [a.file_name for a in choose(OFFICIAL, "voc2007")] == [
        "VOCtrainval_06-Nov-2007.tar",
        "VOCtest_06-Nov-2007.tar",
    ]
    assert [a.part for a in choose(OFFICIAL, "coco2017")] == ["annotations", "val", "train"]
    assert [a.part for a in choose(OFFICIAL, "coco2017", ["test", "val"])] == ["val", "test"]
    assert all(a.checksum and len(a.checksum[1]) == 32 for archives in OFFICIAL.values() for a in archives)


def test_unknown_names() -> None:
    with pytest.raises(ConfigError, match="no data set 'voc207' to fetch; did you mean 'voc2007'"):
        choose(OFFICIAL, "voc207")
    with pytest.raises(ConfigError, match="voc2007 has no part 'tets'; did you mean 'test'"):
        choose(OFFICIAL, "voc2007", ["tets"])


def test_own_table(tmp_path: Path) -> None:
    file = tmp_path / "table.yaml"
    digits = "0123456789ABCDEF" * 4
    file.write_text(
        "mine:\n"
        f"  - {{url: 'https://example.org/x/photos%20a.tar.gz?v=1', sha256: '{digits}', size: 12}}\n"
        "  - {url: 'http://example.org/extra.zip', part: more, optional: true}\n"
    )
    assert read_table(file) == {
        "mine": (
            Archive(
                "https://example.org/x/photos%20a.tar.gz?v=1", "photos a", ("sha256", digits.lower()), 12
            ),
            Archive("http://example.org/extra.zip", "more", optional=True),
        )
    }
    assert read_table(file)["mine"][0].file_name == "photos a.tar.gz"


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("[]", "must be a list of archives"),
        ("[{part: a}]", "needs `url:`"),
        ("[{url: 'http://h/a.zip', sise: 3}]", "unknown key 'sise'; did you mean 'size'"),
        ("[{url: 'file:///etc/a.zip'}]", "must begin with http"),
        ("[{url: 'http:///a.zip'}]", "must begin with http"),
        ("[{url: 'http://h/a.rar'}]", "must end in the name of an archive"),
        ("[{url: 'http://h/x%2F..%5Ca.zip'}]", "must end in the name of an archive"),
        ("[{url: 'http://h:80a/a.zip'}]", "is not a URL"),
        ("[{url: 'http://h:99999/a.zip'}]", "is not a URL"),
        ("[{url: 'http://h/a%00b.zip'}]", "must end in the name of an archive"),
        ("[{url: 'http://h/a%0Ab.zip'}]", "must end in the name of an archive"),
        ("[{url: 'http://h/.zip'}]", "must end in the name of an archive"),
        ("[{url: 'http://h/a.zip', size: -1}]", "size is -1"),
        ("[{url: 'http://h/a.zip', part: 7}]", "part is 7"),
        ("[{url: 'http://h/a.zip', optional: 7}]", "optional is 7"),
        ("[{url: 'http://h/a.zip', md5: abc}]", "md5 is 'abc'; it has 32 hex digits"),
        ("[{url: 'http://h/a.zip', md5: a, sha256: b}]", "has md5 and sha256"),
        ("[{url: 'http://h/a.zip'}, {url: 'http://g/a.zip', part: b}]", "two archives are called 'a.zip'"),
        ("[{url: 'http://h/a.zip'}, {url: 'http://g/a.tar'}]", "two archives are called 'a'"),
    ],
)
def test_mistakes(tmp_path: Path, entry: str, message: str) -> None:
    file = tmp_path / "table.yaml"
    file.write_text(f"mine: {entry}\n")
    with pytest.raises(ConfigError, match=message) as error:
        read_table(file)
    assert f"{file} (mine" in str(error.value)
