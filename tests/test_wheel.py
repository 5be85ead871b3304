"""The wheel holds what the documents name: it is built, unpacked, and used from another directory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Runs command lines in one process; says where its package lies, and how each ended and what it printed.
SCRIPT = """
import contextlib, io, json, sys
import fssd
from fssd.cli.main import main

ended = []
for words in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        code = main(words)
    ended.append([code, out.getvalue(), err.getvalue()])
print(json.dumps([fssd.__file__, ended]))
"""
# Each gets as far as what is not in the package: data sets and weights.
MISTAKES = {
    "train --config fssd300-voc0712 --out a": "there is no such weights file",
    "ablate table2 --out b": "there is no data/VOCdevkit",
    "train --config photgraphs --out c": "did you mean 'photographs'",
    "ablate tabel2": "did you mean 'table2'",
}


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


def run(site: Path, folder: Path, *commands: list[str]) -> list[tuple[int, str, str]]:
    """Run `fssd` in `folder`, where it is that of the wheel: exit code, output and messages of each."""
    environment = {**os.environ, "PYTHONPATH": str(site)}
    script = [sys.executable, "-c", SCRIPT, json.dumps(commands)]
    done = subprocess.run(
        script, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    package, ended = json.loads(done.stdout)
    assert Path(package) == site / "fssd" / "__init__.py"
    return [(code, out, err) for code, out, err in ended]


def test_every_configuration_is_in_the_wheel(site: Path) -> None:
    inside = site / "fssd" / "configs"
    here = ROOT / "configs"
    assert {file.relative_to(inside) for file in inside.rglob("*.yaml")} == {
        file.relative_to(here) for file in here.rglob("*.yaml")
    }


def test_configurations_are_found_by_name(site: Path, scenes: Path, tmp_path: Path) -> None:
    words = "train --config photographs --out run --start nothing --iterations 1 --batch-size 2 --workers 0"
    recipe = [*words.split(), "--val-split", "none", "--amp", "off", "--data", str(scenes)]
    (code, _, told), *mistakes = run(site, tmp_path, recipe, *(words.split() for words in MISTAKES))
    assert code == 0, told
    saved = (tmp_path / "run" / "config.yaml").read_text()
    assert "lr: 0.08\n" in saved and "epochs: null\n" in saved  # the recipe's rate; its epochs are replaced
    for (code, out, told), message in zip(mistakes, MISTAKES.values(), strict=True):
        assert (code, out) == (2, "")
        assert message in told
