"""The documentation builds as a site, with nothing missing and no link that leads nowhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mkdocs", reason='needs pip install "fssd[docs]"')

from docs_site import LINK, links_of, place_of, site_path, target

ROOT = Path(__file__).parents[2]


def test_places_and_their_way_back() -> None:
    pairs = {
        "README.md": "index.md",
        "docs/data.md": "data.md",
        "docs/images/house.png": "images/house.png",
        "src/fssd/boxes.py": "source/src/fssd/boxes.py.md",
        "src/fssd/zoo/animals.md": "source/src/fssd/zoo/animals.md",
        "src/fssd/necks": "source/src/fssd/necks.md",
    }
    for place, site in pairs.items():
        assert site_path(place) == site
        assert place_of(site) == place


def test_targets_of_links() -> None:
    assert target("docs/data.md", "../README.md") == "README.md"
    assert target("README.md", "docs/images/house.png") == "docs/images/house.png"
    assert target("README.md", "https://example.org/README.md") is None
    assert target("README.md", "no/such/file.md") is None
    assert target("README.md", "") is None
    assert "docs/data.md" in links_of("README.md")
    assert links_of("src/fssd/boxes.py") == set()
    assert LINK.findall("[![a picture](a.png)](b.md) and [`code`](c.py#L1)")


def test_the_site_builds(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "search" / "search_index.json").is_file()
    for page in tmp_path.rglob("*.html"):
        for link in re.findall(r'(?:href|src)="([^"#?]+)', page.read_text(encoding="utf-8")):
            if not re.match(r"[a-z]+:|//|/", link):
                assert (page.parent / link).exists(), (page.relative_to(tmp_path), link)
