"""xml in the encodings that tools write, whatever expat knows."""

from __future__ import annotations

from pathlib import Path

import pytest

from fssd.data.formats.xml_text import read_xml, xml_elements
from fssd.errors import LabelError

# (declared, written): as Python, Chinese and Japanese tools, Windows and .NET write it
ENCODINGS = [
    ("utf8", "utf-8"), ("UTF-8", "utf-8"), ("UTF-8", "utf-8-sig"), ("utf8", "utf-8-sig"),
    ("gb2312", "gb2312"), ("gb2312", "gb18030"), ("GBK", "gbk"), ("shift_jis", "shift_jis"),
    ("Shift_JIS", "cp932"), ("big5", "big5"), ("euc-kr", "euc-kr"), ("windows-1252", "cp1252"),
    ("ISO-8859-1", "latin-1"), ("utf-16", "utf-8"), ("utf-16", "utf-16"),
]  # fmt: skip
WORDS = {
    "gb2312": "狗",
    "gb18030": "狗",
    "gbk": "狗",
    "big5": "狗",
    "shift_jis": "犬",
    "cp932": "①",
    "euc-kr": "개",
}


@pytest.mark.parametrize(("declared", "written"), ENCODINGS)
def test_encodings(tmp_path: Path, declared: str, written: str) -> None:
    word = WORDS.get(written, "café")
    file = tmp_path / "a.xml"
    file.write_bytes(f'<?xml version="1.0" encoding="{declared}"?>\n<a><b>{word}</b></a>'.encode(written))
    assert read_xml(file).findtext("b") == word
    assert next((element.tag, element.text) for element in xml_elements(file)) == ("b", word)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'<?xml version="1.0" encoding="klingon"?><a/>', "declares an encoding that is not known"),
        (b'<?xml version="1.0" encoding="hex"?><a/>', "declares an encoding that is not known"),
        (
            b'<?xml version="1.0" encoding="gb2312"?><a>\xff\xff</a>',
            "is not in the encoding that it declares",
        ),
        (b"<a>\xff</a>", "is not well-formed XML"),
        (b"<a>", "is not well-formed XML"),
        (b"", "is not well-formed XML"),
    ],
)
def test_faults(tmp_path: Path, content: bytes, reason: str) -> None:
    file = tmp_path / "a.xml"
    file.write_bytes(content)
    for read in (read_xml, lambda file: list(xml_elements(file))):
        with pytest.raises(LabelError, match=reason) as caught:
            read(file)
        assert caught.value.file == file


def test_a_fault_has_the_line_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "a.xml"
    file.write_bytes(b"<?xml version='1.0' encoding='utf8'?>\n<a>\n<b></a>")
    with pytest.raises(LabelError, match="line 3"):
        read_xml(file)
