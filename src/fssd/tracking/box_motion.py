"""A Kalman filter over a box: where it will be in the next frame, if its centre and shape move steadily.

The state is centre x, centre y, aspect ratio (width over height) and height, then the velocity of each, per
frame (SORT and DeepSORT; the noise is DeepSORT's, in proportion to the height).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

POSITION = 1 / 20  # standard deviations, in heights of the box
VELOCITY = 1 / 160
ASPECT, ASPECT_VELOCITY, ASPECT_SEEN = 1e-2, 1e-5, 1e-1  # the ratio's, which has no unit
_STEP = np.eye(8) + np.eye(8, k=4)  # position plus velocity


class BoxMotion:
    """The filter of one object. box: (4,) xyxy, pixels. mean: (8,). covariance: (8, 8)."""

    def __init__(self, box: npt.NDArray[np.floating]) -> None:
        seen = _measured(box)
        self.mean: Array = np.concatenate((seen, np.zeros(4)))
        place, speed = 2 * POSITION * seen[3], 10 * VELOCITY * seen[3]
        deviations = [place, place, ASPECT, place, speed, speed, ASPECT_VELOCITY, speed]
        self.covariance: Array = np.diag(np.square(deviations))

    def predict(self, moving: bool = True) -> None:
        """One frame on. moving: False for an object out of sight, whose height is taken not to change."""
        if not moving:
            self.mean[7] = 0
        place, speed = POSITION * self.mean[3], VELOCITY * self.mean[3]
        deviations = [place, place, ASPECT, place, speed, speed, ASPECT_VELOCITY, speed]
        self.mean = _STEP @ self.mean
        self.covariance = _STEP @ self.covariance @ _STEP.T + np.diag(np.square(deviations))

    def update(self, box: npt.NDArray[np.floating]) -> None:
        """Correct the state by a detection, (4,) xyxy."""
        place = POSITION * self.mean[3]
        noise = np.diag(np.square([place, place, ASPECT_SEEN, place]))
        spread = self.covariance[:4, :4] + noise
        gain = np.linalg.solve(spread, self.covariance[:4]).T  # (8, 4)
        self.mean = self.mean + gain @ (_measured(box) - self.mean[:4])
        self.covariance = self.covariance - gain @ spread @ gain.T

    @property
    def box(self) -> Array:
        """(4,) xyxy, pixels."""
        x, y, aspect, height = self.mean[:4]
        width = aspect * height
        return np.array([x - width / 2, y - height / 2, x + width / 2, y + height / 2])


def _measured(box: npt.NDArray[np.floating]) -> Array:
    x1, y1, x2, y2 = (float(side) for side in box)
    height = max(y2 - y1, 1e-3)
    return np.array([(x1 + x2) / 2, (y1 + y2) / 2, max(x2 - x1, 1e-3) / height, height])
