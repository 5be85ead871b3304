"""The version, with the metadata of the package and without."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

import fssd

WITHOUT = """
import importlib.metadata

def version(name):
    raise importlib.metadata.PackageNotFoundError(name)

importlib.metadata.version = version
import fssd
from fssd.cli.main import main
main(["--version"])
"""


def test_the_version_is_that_of_the_package() -> None:
    assert fssd.__version__ == version("fssd")


def test_a_copy_without_metadata_works() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "fssd unknown"), done.stderr
