"""Hooks of mkdocs: the README is the first page, and source files that pages link to become pages as well.

In the repository pages link to each other and to the code by relative paths, which work where the repository
is browsed. A built site has the folder `docs` alone; here the other targets are added below `source`.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
# Pages that lie elsewhere in the repository, by their name in the site.
ELSEWHERE = {
    "index.md": "README.md",
    "contributing.md": "CONTRIBUTING.md",
    "changes.md": "CHANGELOG.md",
    "security.md": "SECURITY.md",
}
LINK = re.compile(r"(!?\[(?:[^\[\]]|\[[^\]]*\])*\]\()([^)\s]+)(\))")
LANGUAGES = {
    ".py": "python",
    ".yaml": "yaml",
    ".yml": "yaml",
    ".toml": "toml",
    ".js": "javascript",
    ".cpp": "cpp",
}


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are not in `docs`, and every file or folder that one of all these links to."""
    for name, place in ELSEWHERE.items():
        files.append(File.generated(config, name, content=(ROOT / place).read_text(encoding="utf-8")))
    waiting = [place_of(file.src_uri) for file in files.documentation_pages()]
    added: set[str] = set()
    while waiting:
        page = waiting.pop()
        for place in links_of(page) - added:
            added.add(place)
            if (site := site_path(place)).startswith("source/"):
                files.append(File.generated(config, site, **content_of(place)))
                waiting += [place] * place.endswith(".md")
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn the repository's links into those of the site."""
    here = place_of(page.file.src_uri)
    start = posixpath.dirname(page.file.src_uri)

    def turned(match: re.Match[str]) -> str:
        path, mark, anchor = match[2].partition("#")
        place = target(here, path)
        if place is None:
            return match[0]
        return f"{match[1]}{posixpath.relpath(site_path(place), start or '.')}{mark}{anchor}{match[3]}"

    return LINK.sub(turned, markdown)


def links_of(place: str) -> set[str]:
    """What a page of the repository links to, as paths from its root."""
    if not place.endswith(".md"):
        return set()
    text = (ROOT / place).read_text(encoding="utf-8")
    found = {target(place, match[2].partition("#")[0]) for match in LINK.finditer(text)}
    return {path for path in found if path is not None}


def target(place: str, link: str) -> str | None:
    """The path from the root that a link in a page leads to; None for another host or a place in the page."""
    if not link or re.match(r"[a-z]+:", link):
        return None
    path = posixpath.normpath(posixpath.join(posixpath.dirname(place), link))
    return path if (ROOT / path).exists() else None


def place_of(site: str) -> str:
    """Where a page of the site lies in the repository."""
    if site in ELSEWHERE:
        return ELSEWHERE[site]
    if site.startswith("source/"):
        path = site.removeprefix("source/")
        return path if (ROOT / path).exists() else path.removesuffix(".md")
    return f"docs/{site}"


def site_path(place: str) -> str:
    """Where a file of the repository lies in the site."""
    for name, elsewhere in ELSEWHERE.items():
        if place == elsewhere:
            return name
    if place.startswith("docs/"):
        return place.removeprefix("docs/")
    return (
        f"source/{place}" if Path(place).suffix in (".md", ".png", ".jpg", ".csv") else f"source/{place}.md"
    )


def content_of(place: str) -> dict[str, Any]:
    """The arguments of `File.generated` for a file or folder of the repository."""
    path = ROOT / place
    if path.is_dir():
        names = sorted(
            f"{child.name}{'/' * child.is_dir()}" for child in path.iterdir() if child.name[0] not in "._"
        )
        return {"content": "\n".join([f"# {place}", "", *(f"- `{name}`" for name in names)])}
    if path.suffix in (".png", ".jpg", ".csv"):
        return {"abs_src_path": str(path)}
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return {"content": text}
    return {"content": f"# {place}\n\n````{LANGUAGES.get(path.suffix, 'text')}\n{text}\n````\n"}
