"""The floors of the package: every room imports from lower ones only, and the picture has them all."""

from __future__ import annotations

from pathlib import Path

from draw_house import COLOURS, FLOORS, PACKAGE, draw, imports, reduced


def test_every_room_has_its_place() -> None:
    rooms = [room for floor in FLOORS for room in floor]
    found = {file.relative_to(PACKAGE).parts[0].removesuffix(".py") for file in PACKAGE.rglob("*.py")}
    assert sorted(rooms) == sorted(found - {"__init__", "__main__"})
    assert sorted(rooms) == sorted(room for group, _ in COLOURS.values() for room in group)


def test_no_room_imports_from_above_or_beside() -> None:
    floor_of = {room: level for level, floor in enumerate(FLOORS) for room in floor}
    ground = FLOORS[0]
    for room, targets in imports().items():
        for target in targets:
            if room in ground:
                assert target in ground[: ground.index(room)], f"{room} imports {target}"
            else:
                assert floor_of[target] < floor_of[room], f"{room} imports {target}"


def test_arrows_that_follow_from_others_are_left_out() -> None:
    graph = {"a": {"b", "c", "d"}, "b": {"c"}, "c": {"d"}, "d": set[str]()}
    assert reduced(graph) == {"a": {"b"}, "b": {"c"}, "c": {"d"}, "d": set()}


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    draw(tmp_path / "house.png")
    assert (tmp_path / "house.png").stat().st_size > 10_000
