"""The wheel holds what the documents name: it is built, unpacked, and used from another directory."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to import from that holds the content of the wheel and nothing else."""
    pytest.importorskip("hatchling", reason="needs the build backend: pip install hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=120)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def run(site: Path, folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """`python ...` in `folder`, where fssd is that of the wheel."""
    environment = {**os.environ, "PYTHONPATH": str(site)}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def test_every_configuration_is_in_the_wheel(site: Path) -> None:
    inside = site / "fssd" / "configs"
    here = ROOT / "configs"
    assert {file.relative_to(inside) for file in inside.rglob("*.yaml")} == {
        file.relative_to(here) for file in here.rglob("*.yaml")
    }


def test_a_recipe_trains_by_name(site: Path, scenes: Path, tmp_path: Path) -> None:
    done = run(site, tmp_path, "-c", "import fssd; print(fssd.__file__)")
    assert Path(done.stdout.strip()) == site / "fssd" / "__init__.py", done.stderr
    settings = ["--start", "nothing", "--iterations", "1", "--batch-size", "2", "--workers", "0"]
    settings += ["--val-split", "none", "--amp", "off"]
    done = run(
        site,
        tmp_path,
        *("-m", "fssd", "train", "--config", "photographs"),
        "--data",
        scenes,
        "--out",
        "run",
        *settings,
    )
    assert done.returncode == 0, done.stderr
    saved = (tmp_path / "run" / "config.yaml").read_text()
    assert "lr: 0.08\n" in saved and "epochs: null\n" in saved  # the recipe's rate; its epochs are replaced


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        # Each gets as far as what is not in the package: data sets and weights.
        (
            ["train", "--config", "fssd300-voc0712", "--out", "run"],
            "there is no such weights file",
        ),
        (["ablate", "table2", "--out", "runs"], "there is no data/VOCdevkit"),
        (["train", "--config", "photgraphs", "--out", "run"], "did you mean 'photographs'"),
        (["ablate", "tabel2"], "did you mean 'table2'"),
    ],
)
def test_configurations_are_found_by_name(
    site: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    done = run(site, tmp_path, "-m", "fssd", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
