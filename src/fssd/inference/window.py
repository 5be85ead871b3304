"""A window that shows frames as they come, through OpenCV."""

from __future__ import annotations

import os
import re
import sys

import cv2

from fssd.data.sample import Image
from fssd.errors import ConfigError

ENDS = {ord("q"), 27}  # the keys that end it: q and Esc
LONGEST = 1280  # pixels of the window's longer side, at first
DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY")  # where a Linux desktop says that it is


class FrameWindow:
    """A window of this name. Raises ConfigError where none can be opened."""

    def __init__(self, name: str) -> None:
        _require_windows()
        self.name, self._is_sized = name, False
        try:
            cv2.namedWindow(name, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
        except cv2.error as error:
            raise ConfigError(f"no window can be opened ({error.err}); leave out --show") from error

    def show(self, image: Image) -> bool:
        """Show (H, W, 3) uint8 RGB; False if the user has ended or closed the window."""
        if not self._is_sized:
            height, width = image.shape[:2]
            scale = min(1.0, LONGEST / max(width, height))
            cv2.resizeWindow(self.name, round(scale * width), round(scale * height))
            self._is_sized = True
        cv2.imshow(self.name, image[:, :, ::-1])
        if cv2.waitKey(1) & 0xFF in ENDS:
            return False
        return cv2.getWindowProperty(self.name, cv2.WND_PROP_VISIBLE) >= 1

    def close(self) -> None:
        """Take it from the screen."""
        cv2.destroyAllWindows()


def _require_windows() -> None:
    # Qt and GTK abort the process where there is no display, so it is not tried.
    if sys.platform.startswith("linux") and not any(map(os.environ.get, DISPLAYS)):
        raise ConfigError("--show needs a display, and DISPLAY is not set; leave it out")
    if re.search(r"^\s*GUI:\s*NONE", cv2.getBuildInformation(), flags=re.MULTILINE):
        raise ConfigError(
            "--show needs an OpenCV with windows, and the one installed has none: pip uninstall"
            " opencv-python-headless, then pip install opencv-python"
        )
