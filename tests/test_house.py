"""The shape of the package: unique names, imports without circles, short functions, a small top level."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src"
PACKAGE = SOURCE / "fssd"
LONGEST_FUNCTION = 50
MOST_MODULES_AT_THE_TOP = 8

# Stems that two modules may share because both files mean the same thing; each with its reason.
SHARED_STEMS: dict[str, str] = {}

Graph = Mapping[str, Iterable[str]]


@cache
def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    return {_dotted(file): file for file in sorted(PACKAGE.rglob("*.py"))}


def _dotted(file: Path) -> str:
    parts = file.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def parse(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def imports_of(name: str) -> set[str]:
    """The modules of the package that a module imports, also inside functions and for type checkers only."""
    found = set()
    for node in ast.walk(parse(modules()[name])):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name} line {node.lineno}: relative import"
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= inner & modules().keys() or {str(node.module)}
    return {target for target in found if target in modules() and target != name}


def room_of(name: str) -> str:
    """The package below `fssd` that a module lies in; a module at the top is a room by itself."""
    return name.split(".")[1] if "." in name else name


def circles(graph: Graph) -> list[list[str]]:
    """One circle through every node that lies on one, as a path whose first node is repeated at its end."""
    found: list[list[str]] = []
    named: set[str] = set()
    for start in sorted(graph):
        path = [] if start in named else _shortest_way_back(graph, start)
        if path:
            found.append(path)
            named.update(path)
    return found


def _shortest_way_back(graph: Graph, start: str) -> list[str]:
    ways = [[start]]
    seen: set[str] = set()
    for way in ways:
        for target in sorted(graph.get(way[-1], ())):
            if target == start:
                return [*way, start]
            if target not in seen:
                seen.add(target)
                ways.append([*way, target])
    return []


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


def test_circles_are_found_and_named() -> None:
    graph = {"a": ["b"], "b": ["c"], "c": ["a", "d"], "d": [], "e": ["f"], "f": ["e"]}
    assert circles(graph) == [["a", "b", "c", "a"], ["e", "f", "e"]]
    assert circles({"a": ["b", "c"], "b": ["c"], "c": []}) == []


def test_no_circle_of_imports() -> None:
    graph = {name: imports_of(name) for name in modules()}
    rooms: dict[str, set[str]] = defaultdict(set)
    for name, targets in graph.items():
        rooms[room_of(name)] |= {room_of(target) for target in targets} - {room_of(name)}
    found = [" -> ".join(circle) for circle in (*circles(graph), *circles(rooms))]
    assert not found, "circles of imports:\n" + "\n".join(found)


def test_no_two_classes_of_one_name() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for name, file in modules().items():
        for node in ast.walk(parse(file)):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(name)
    twice = {name: where for name, where in places.items() if len(where) > 1}
    assert not twice, f"classes of one name: {twice}"


def test_no_two_modules_of_one_stem() -> None:
    """A verb in cli/ may be called like the module that does its work."""
    stems: dict[str, list[str]] = defaultdict(list)
    for name, file in modules().items():
        if file.stem not in {"__init__", *SHARED_STEMS} and room_of(name) != "cli":
            stems[file.stem].append(name)
    twice = {stem: names for stem, names in stems.items() if len(names) > 1}
    assert not twice, f"modules of one stem: {twice}"


def test_at_most_eight_modules_at_the_top() -> None:
    top = [file.name for file in PACKAGE.glob("*.py")]
    assert len(top) <= MOST_MODULES_AT_THE_TOP, top


def test_no_function_over_50_lines() -> None:
    long = [
        f"{name}.{node.name}, line {node.lineno}: {length} lines"
        for name, file in modules().items()
        for node in functions(parse(file))
        if (length := (node.end_lineno or node.lineno) - node.lineno + 1) > LONGEST_FUNCTION
    ]
    assert not long, long
