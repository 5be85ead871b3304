"""Engines that spread work over several machines. Imports no other part of the package than its errors."""

from typing import Literal

Engine = Literal["local", "ray"]  # here, or on a Ray cluster
