"""What the documents promise: links lead somewhere, commands parse, examples run."""

from __future__ import annotations

import csv
import re
import shlex
import statistics
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
import tyro

import fssd
from fssd.ablation.plan import read_plan
from fssd.cli.main import COMMANDS, MODULES
from fssd.cli.result import take_json
from fssd.cli.train import Train
from fssd.config.config_files import load_config
from fssd.config.train_config import TrainConfig
from fssd.data.scenes import CLASSES
from fssd.model.build import build_model
from fssd.model.cost import multiply_adds, parameters
from fssd.model.designs import DESIGNS

ROOT = Path(__file__).parents[1]
CARDS = sorted((ROOT / "src" / "fssd" / "zoo").rglob("*.md"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *CARDS]
VERBS: dict[str, Any] = {
    verb: getattr(import_module(f"fssd.cli.{MODULES.get(verb, verb)}"), verb.title()) for verb in COMMANDS
}


def links() -> list[tuple[Path, str]]:
    found = []
    for page in PAGES:
        for target in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
            if not target.startswith("http"):
                found.append((page, target))
    return found


def commands() -> list[str]:
    found = []
    for page in PAGES:
        for block in re.findall(r"```bash\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                words = words[: words.index("|")] if "|" in words else words
                if "fssd" in words:
                    found.append(shlex.join(words[words.index("fssd") + 1 :]))
    return found


@pytest.mark.parametrize(("page", "target"), links(), ids=lambda value: getattr(value, "name", value))
def test_links_lead_somewhere(page: Path, target: str) -> None:
    assert (page.parent / target.partition("#")[0]).exists()


def test_names_in_link_texts_are_in_the_linked_files() -> None:
    page = ROOT / "docs" / "paper-to-code.md"
    named = re.findall(r"\[`(\w+)`\]\(([^)]+\.py)\)", page.read_text(encoding="utf-8"))
    assert len(named) > 10
    for name, target in named:
        source = (page.parent / target).read_text(encoding="utf-8")
        assert re.search(rf"^(class|def) {name}\b", source, flags=re.MULTILINE), (name, target)


@pytest.mark.parametrize("line", commands())
def test_commands_parse(line: str) -> None:
    verb, *given = shlex.split(line)
    arguments, _ = take_json(verb, given)
    default = Train(settings=TrainConfig()) if verb == "train" else tyro.MISSING_NONPROP
    tyro.cli(VERBS[verb], args=arguments, default=default)


def test_every_verb_has_a_module_and_every_module_a_verb() -> None:
    modules = {path.stem for path in (ROOT / "src" / "fssd" / "cli").glob("*.py")}
    assert {MODULES.get(verb, verb) for verb in COMMANDS} == modules - {
        "__init__",
        "detect_film",
        "detect_flags",
        "detect_live",
        "detect_work",
        "eval_group",
        "main",
        "result",
        "options",
        "signals",
    }


def test_the_parts_of_backbones_md_work_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "docs" / "backbones.md").read_text(encoding="utf-8")
    parts, use = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    (settings,) = re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)
    (tmp_path / "my_parts.py").write_text(parts, encoding="utf-8")
    (tmp_path / "run.yaml").write_text(settings, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    exec(compile(use, "backbones.md", "exec"), {"__name__": "example"})
    config = load_config(tmp_path / "run.yaml")
    chosen = {"backbone": config.backbone, "neck": config.neck, "size": list(config.size)}
    network = build_model(config.model, 3, **chosen, **config.options)
    assert network.image_size == (320, 320)
    assert type(network.neck).__module__ == type(network.backbone).__module__ == "my_parts"
    assert network.neck.channels[0] == 24


def test_the_readmes_training_from_python_runs(
    scenes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    few_pictures: None,
) -> None:
    pytest.importorskip("onnxruntime", reason='needs pip install "fssd[export]"')
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = (b for b in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL) if "TrainConfig" in b)
    (tmp_path / "DATA").symlink_to(scenes)
    monkeypatch.chdir(tmp_path)
    assert "epochs=60" in block
    quick = block.replace("epochs=60", 'iterations=1, batch_size=2, workers=0, start="nothing"')
    exec(compile(quick, "README.md", "exec"), {"__name__": "example"})
    score, classes = capsys.readouterr().out.splitlines()[-1].split(" ", 1)
    assert 0 <= float(score) <= 1 and "'seven'" in classes
    assert (tmp_path / "runs" / "mine" / "best.safetensors").exists()
    assert set(fssd.Detector.load("model.onnx").classes) == set(CLASSES)


def test_options_in_paper_to_code_build() -> None:
    text = (ROOT / "docs" / "paper-to-code.md").read_text(encoding="utf-8")
    table = text.split("## The rows of Tables 1 and 2")[1].split("##")[0]
    options = [row.split("|")[2] for row in table.splitlines() if row.startswith("| Table")]
    assert len(options) == 10
    for cell in options:
        for code in re.findall(r"`([^`]+)`", cell):
            build_model("fssd300-vgg16", 20, **eval(f"dict({code})"))


@pytest.mark.parametrize("name", [*DESIGNS, "yolov2-416"])
def test_every_model_is_listed_with_its_cost(name: str) -> None:
    (row,) = rows_of_models("docs/systems.md", name)
    with torch.device("meta"):
        network = build_model(name, 20)
    giga = f"{multiply_adds(network) / 1e9:.{2 if 'lite' in name else 1}f} G"
    priors = re.search(r"priors: ([\d,]+\d)", network.heads.summary())
    assert priors is not None
    assert row.endswith(f"| {parameters(network):,} | {giga} | {priors[1]} |")


def rows_of_models(page: str, name: str) -> list[str]:
    """The rows with the cost of a model; other tables name models too."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line.startswith(f"| `{name}` |") and " G | " in line]


def test_readme_has_ssd_and_fssd_as_the_page_of_all_systems_has_them() -> None:
    for side, backbone in ((300, "lite"), (300, "vgg16"), (512, "vgg16")):
        for name in (f"ssd{side}-{backbone}", f"fssd{side}-{backbone}"):
            assert rows_of_models("README.md", name) == rows_of_models("docs/systems.md", name) != []


@pytest.mark.parametrize(("table", "column"), [("necks", 1), ("necks-vgg", 3)])
def test_costs_of_the_necks(table: str, column: int) -> None:
    text = (ROOT / "docs" / "reproducing.md").read_text(encoding="utf-8")
    for row in read_plan(ROOT / "configs" / "ablations" / f"{table}.yaml").rows:
        (line,) = [line for line in text.splitlines() if line.startswith(f"| `{row.name}`")]
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        with torch.device("meta"):
            network = build_model(row.config.model, 20, **row.config.options)
        giga = f"{multiply_adds(network) / 1e9:.2f} G"
        assert cells[column : column + 2] == [f"{parameters(network):,}", giga], row.name


def test_no_placeholder_is_left() -> None:
    for page in PAGES:
        assert not re.search(r"\b(?:RESULTS|DEMO)_[A-Z]+\b", page.read_text(encoding="utf-8")), page


ON_A_GPU = "fusion-light-gpu.csv"  # all data sets in one table
RESULTS = sorted(file for file in (ROOT / "docs" / "results").glob("*.csv") if file.name != ON_A_GPU)


@pytest.mark.parametrize("file", RESULTS, ids=lambda file: file.stem)
def test_tables_of_results_are_those_of_the_runs(file: Path) -> None:
    with file.open(encoding="utf-8") as stream:
        runs = list(csv.DictReader(stream))
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    section = page.split(f"](results/{file.name})")[0].rpartition("## ")[2]
    for name in dict.fromkeys(run["row"] for run in runs):
        own = [run for run in runs if run["row"] == name]
        (line,) = [line for line in section.splitlines() if line.startswith(f"| {name} |")]
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        assert cells[1] == str(len(own))
        for measure, cell in zip(("mAP", "small", "medium", "large"), cells[3:7], strict=True):
            if not own[0][measure]:  # no object of that size
                assert cell == "-"
                continue
            values = [float(run[measure]) for run in own]
            shown = f"{statistics.mean(values):.1f}"
            assert cell == (shown if len(own) == 1 else f"{shown} ± {statistics.stdev(values):.1f}")


def test_the_table_of_the_gpu_is_that_of_its_runs() -> None:
    with (ROOT / "docs" / "results" / ON_A_GPU).open(encoding="utf-8") as stream:
        runs = list(csv.DictReader(stream))
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    section = page.split(f"](results/{ON_A_GPU})")[0].rpartition("## ")[2]
    sets = ("circuit", "deeppcb", "bangkok-bus", "animals")
    of_seed_0 = {(run["data"], run["row"]): float(run["mAP"]) for run in runs if run["seed"] == "0"}
    for name in dict.fromkeys(run["row"] for run in runs):
        (line,) = [line for line in section.splitlines() if line.startswith(f"| {name} |")]
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        for data, cell in zip(sets, cells[1:5], strict=True):
            assert cell == ", ".join(run["mAP"] for run in runs if (run["data"], run["row"]) == (data, name))
        gains = [of_seed_0[data, name] - of_seed_0[data, "ssd"] for data in sets]
        assert name == "ssd" or float(cells[5]) == pytest.approx(statistics.mean(gains), abs=0.051)
