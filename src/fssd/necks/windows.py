"""How a pyramid gets from one level to the next, for any size of map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from fssd.necks.neck import Cells, even_steps


class Window(NamedTuple):
    """Of a convolution: kernel, stride and padding, the same in both directions."""

    kernel: int
    stride: int
    padding: int

    def shrink(self, cells: Cells) -> Cells:
        """Rows and columns of the output for those of the input."""
        rows, columns = ((n + 2 * self.padding - self.kernel) // self.stride + 1 for n in cells)
        return rows, columns


SAME = Window(3, 1, 1)
HALVE = Window(3, 2, 1)  # rounds up
VALID = Window(3, 1, 0)
JOIN = Window(4, 1, 1)  # 2 x 2 to 1 x 1

RELEASED_STEPS: dict[tuple[int, int], tuple[float, ...]] = {
    (300, 300): (8, 16, 32, 64, 100, 300),
    (512, 512): (8, 16, 32, 64, 128, 256, 512),
}


def next_window(cells: Cells) -> Window | None:
    """The window that takes a map to the next coarser level; None below a map that is one cell wide or high.

    Gives the released networks at 300 px (38, 19, 10, 5, 3, 1; the paper's text says stride 2 throughout) and
    at 512 px (64, 32, 16, 8, 4, 2, 1), and carries their rule on to other sizes.
    """
    least, most = min(cells), max(cells)
    if least == 1:
        return None
    if most == 2:
        return JOIN
    if most <= 5 and least % 2 == 1:
        return VALID
    return HALVE


def windows_below(cells: Cells) -> list[Window]:
    """The windows from a map down to its coarsest level."""
    found: list[Window] = []
    while (window := next_window(cells)) is not None:
        found.append(window)
        cells = window.shrink(cells)
    return found


def levels_from(cells: Cells) -> list[Cells]:
    """Rows and columns of a map and of every level below it."""
    levels = [cells]
    for window in windows_below(cells):
        levels.append(window.shrink(levels[-1]))
    return levels


def nominal_steps(image_size: tuple[int, int], cells: Sequence[Cells]) -> list[tuple[float, float]]:
    """SSD's steps as released, which put some centres beyond the image; even ones at other sizes."""
    released = RELEASED_STEPS.get(image_size)
    return even_steps(image_size, cells) if released is None else [(step, step) for step in released]
