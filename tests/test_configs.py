"""The files of configs/: each loads, each network can be built, and the numbers are the papers'."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from fssd.ablation.plan import read_plan
from fssd.config.config_files import load_config
from fssd.config.settings import with_values
from fssd.config.train_config import TrainConfig, to_values
from fssd.data.source import list_splits
from fssd.model.build import build_model
from fssd.model.cost import parameters
from fssd.training.start import complete, network_options
from fssd.weights.checkpoint import read_tensors
from fssd.zoo.models import packaged_model

CONFIGS = Path(__file__).parents[1] / "configs"
TABLES = sorted(path for path in (CONFIGS / "ablations").glob("*.yaml") if "title:" in path.read_text())
RECIPE = ("lr", "schedule", "steps", "warmup", "warmup_power", "ema", "clip_norm", "epochs", "iterations")
COMMON = sorted((CONFIGS / "common").glob("*.yaml"))
ROWS = sorted(
    path for path in [*CONFIGS.glob("*.yaml"), *(CONFIGS / "ablations").glob("*.yaml")] if path not in TABLES
)
MODELS = ("ssd300", "ssd512", "fssd300", "fssd512", "fssd300-scratch", "fssd300-plus")
DATA = ("voc0712", "voc07pp12", "voc0712-coco", "coco")


def load(name: str) -> TrainConfig:
    return complete(replace(load_config(CONFIGS / f"{name}.yaml"), out=Path("run")))


@pytest.mark.parametrize("path", ROWS, ids=lambda path: path.stem)
def test_every_file_is_a_training_that_can_be_built(path: Path) -> None:
    config = complete(replace(load_config(path), out=Path("run")))
    assert config.iterations is not None and config.steps and config.schedule == "multistep"
    assert config.steps[-1] <= config.iterations
    from_ssd = 1e-3 if config.train_only == "new" else 5e-4
    usual = {"ssd": from_ssd, "model": 1e-4}.get(config.start, 1e-3 if config.optimizer == "sgd" else 1e-4)
    usual = 0.1 if path.stem.startswith("dsod") else usual
    assert config.lr == usual or "coco" in path.stem
    with torch.device("meta"):
        network = build_model(config.model, 80 if config.metric == "coco" else 20, **network_options(config))
    assert parameters(network) > (5_000_000 if path.stem.startswith("dsod") else 20_000_000)


@pytest.mark.parametrize("path", COMMON, ids=lambda path: path.stem)
def test_common_recipes_replace_the_network_alone(path: Path) -> None:
    """What of the file is not the model is SSD's recipe at 300 or 512 px."""
    config = load_config(path)
    base = load_config(path.parent / yaml.safe_load(path.read_text())["base"])
    with torch.device("meta"):
        network = build_model(config.model, 20, **network_options(config))
    assert base == load_config(CONFIGS / f"ssd{512 if network.image_size[0] > 400 else 300}-voc0712.yaml")
    own = {key: getattr(config, key) for key in ("model", "geometry", "weights", "options")}
    if config.weights is None:  # a backbone without pretrained weights
        own["start"] = "nothing"
    assert config == replace(base, **own) and config.model != base.model
    short = [config.model.removesuffix(backbone) for backbone in ("", "-resnet50", "-resnet101")]
    assert path.stem.removesuffix("-voc0712") in short
    # Whatever recipe the backbone has, nothing of it is left to fill in.
    whole = {key: getattr(complete(replace(base, out=Path("run"))), key) for key in RECIPE}
    assert whole == {key: getattr(complete(replace(config, out=Path("run"))), key) for key in RECIPE}


@pytest.mark.parametrize(
    ("side", "batch", "steps", "length"),
    [(300, 32, (40_000, 50_000), 65_000), (512, 16, (45_000, 60_000), 75_000)],
)
def test_recipe_of_blitznet_is_its_authors(
    side: int, batch: int, steps: tuple[int, ...], length: int
) -> None:
    config = load(f"blitznet{side}-voc0712")
    assert (config.optimizer, config.lr, config.weight_decay, config.bias_lr) == ("adam", 1e-4, 5e-5, 1)
    assert (config.batch_size, config.steps, config.iterations) == (batch, steps, length)
    assert (config.model, config.warmup) == (f"blitznet{side}-resnet50", 0)


@pytest.mark.parametrize(
    ("name", "steps", "length"),
    [
        ("dsod300-voc0712", (20, 40, 60, 80, 100), 100),
        ("dsod300-small-voc0712", (20, 40, 60, 80, 100), 100),
        ("dsod300-voc07pp12", (20, 40, 60, 80, 100, 120), 120),
        ("dsod300-coco", (80, 140, 200, 260, 320), 320),
    ],
)
def test_recipe_of_dsod_is_its_authors(name: str, steps: tuple[int, ...], length: int) -> None:
    config = load(name)
    assert (config.start, config.weights, config.lr, config.warmup) == ("nothing", None, 0.1, 0)
    assert config.steps == tuple(1000 * step for step in steps) and config.iterations == 1000 * length
    assert (config.batch_size, config.accumulate) == (4, 32)
    assert (config.momentum, config.weight_decay, config.norm_decay, config.bias_lr) == (0.9, 5e-4, 1, 1)
    assert config.options.get("priors") == ("coco" if "coco" in name else None)


def test_every_model_has_every_data_set() -> None:
    assert {f"{model}-{data}" for model in MODELS for data in DATA} <= {path.stem for path in ROWS}


# init, base lr, multiple of new layers, steps in thousands, iterations in thousands: the recorded solvers.
@pytest.mark.parametrize(
    ("name", "start", "lr", "multiple", "steps", "length"),
    [
        ("ssd300-voc0712", "backbone", 1e-3, 1, (80, 100, 120), 120),
        ("ssd300-coco", "backbone", 1e-3, 1, (280, 360, 400), 400),
        ("fssd300-voc0712", "backbone", 1e-3, 1, (80, 100, 120), 120),
        ("fssd300-plus-voc0712", "ssd", 5e-4, 2, (20, 40, 60), 60),
        ("fssd512-plus-voc0712", "ssd", 5e-4, 2, (40, 60, 80), 80),
        ("fssd300-coco", "backbone", 1e-3, 1, (280, 360, 400), 400),
        ("fssd300-plus-coco", "ssd", 5e-4, 2, (80, 120, 160), 160),
        ("fssd512-coco", "backbone", 1e-3, 1, (280, 320, 360), 380),
        ("fssd300-plus-voc0712-coco", "ssd", 1e-4, 2, (40, 60, 80), 80),
        ("fssd512-plus-voc07pp12-coco", "ssd", 1e-4, 2, (40, 60, 80), 80),
        ("fssd300-voc0712-coco", "model", 1e-4, 1, (40, 60, 80), 80),
    ],
)
def test_schedules_are_the_recorded_ones(
    name: str, start: str, lr: float, multiple: float, steps: tuple[int, ...], length: int
) -> None:
    config = load(name)
    assert (config.start, config.lr, config.new_layers_lr) == (start, lr, multiple)
    assert config.steps == tuple(1000 * step for step in steps)
    assert config.iterations == 1000 * length
    assert (config.batch_size * config.accumulate, config.momentum, config.weight_decay) == (32, 0.9, 5e-4)
    assert (config.warmup, config.ema, config.clip_norm, config.bias_lr) == (0, 0, 0, 2)


@pytest.mark.parametrize(("name", "batch"), [("rssd300-voc0712", 8), ("rssd512-voc0712", 4)])
def test_schedule_of_r_ssd_is_its_papers(name: str, batch: int) -> None:
    """1e-3, 1e-4, 1e-5 and 1e-6 for 80k, 20k, 20k and 20k updates."""
    config = load(name)
    assert (config.model, config.batch_size, config.accumulate) == (f"{name[:7]}-vgg16", batch, 1)
    assert (config.start, config.lr, config.iterations) == ("backbone", 1e-3, 140_000)
    assert config.steps == (80_000, 100_000, 120_000)
    assert (config.momentum, config.weight_decay) == (0.9, 5e-4)


# start, batch, accumulated batches, rate, steps and length in thousands: the scripts; for 513 px the paper.
@pytest.mark.parametrize(
    ("name", "start", "batch", "lr", "steps", "length"),
    [
        ("ssd321", "backbone", (32, 1), 1e-3, (40, 60), 80),
        ("ssd513", "backbone", (20, 1), 1e-3, (40, 60), 70),
        ("dssd321", "ssd", (16, 2), 1e-3, (20,), 30),
        ("dssd321-stage2", "model", (16, 2), 1e-4, (20,), 40),
        ("dssd513", "ssd", (16, 2), 1e-3, (20,), 30),
        ("dssd513-stage2", "model", (16, 2), 1e-4, (20,), 40),
    ],
)
def test_stages_of_dssd(
    name: str, start: str, batch: tuple[int, int], lr: float, steps: tuple[int, ...], length: int
) -> None:
    config = load(f"{name}-voc0712")
    family, _, second = name.partition("-")
    assert (config.model, config.start, config.lr) == (f"{family}-resnet101", start, lr)
    assert (config.batch_size, config.accumulate) == batch
    assert config.steps == tuple(1000 * step for step in steps)
    assert config.iterations == 1000 * length
    assert config.train_only == ("new" if start == "ssd" else "all")
    assert config.freeze_all_norms == bool(second)
    assert (config.bias_lr, config.norm_bias_lr) == (2, 1)


@pytest.mark.parametrize(
    ("name", "side", "iterations", "steps", "warmup", "power", "geometry"),
    [
        ("yolov2-voc0712", 608, 80_200, (40, 60), 1000, 4, None),
        ("yolov2-2016-voc0712", 544, 45_000, (25, 35), 100, None, "warp"),
        ("yolov2-coco", 608, 500_200, (400, 450), 1000, 4, None),
    ],
)
def test_schedules_of_yolov2_are_darknets(
    name: str,
    side: int,
    iterations: int,
    steps: tuple[int, ...],
    warmup: int,
    power: float | None,
    geometry: str | None,
) -> None:
    config = load(name)
    assert (config.model, config.iterations, config.geometry) == (f"yolov2-{side}", iterations, geometry)
    assert config.steps == tuple(1000 * step for step in steps)
    assert (config.lr, config.warmup, config.warmup_power) == (1e-3, warmup, power)
    assert (config.batch_size * config.accumulate, config.momentum, config.weight_decay) == (64, 0.9, 5e-4)
    assert (config.bias_lr, config.ema, config.clip_norm) == (1, 0, 0)
    assert (config.multi_scale, config.augment, config.difficult) == ((320, 608), "yolo", False)


def test_only_the_script_of_fssd512_on_coco_trains_on_crowds() -> None:
    assert [path.stem for path in ROWS if load_config(path).crowds] == ["fssd512-coco"]


@pytest.mark.parametrize(
    ("name", "learnable"),
    [
        ("table1-b", 33_835_182),
        ("table2-row2", 35_014_830),
        ("table2-row3", 33_835_182),
        ("table2-row4", 30_852_142),
        ("table2-row5", 35_014_830),
        ("table2-row6", 35_014_830),  # the normalisation has nothing to learn
        # Row 7 sums to 256 channels: ds_1 has 9 * 512 * (1024 - 256) weights fewer than row 2's.
        ("table2-row7", 35_014_830 - 9 * 512 * 768),
        ("../fpn300-voc0712", 28_935_598),
        ("../rssd300-voc0712", 54_705_070),
        ("../rssd512-voc0712", 59_444_676),
        ("../ssd321-voc0712", 116_526_320),
        ("../dssd513-stage2-voc0712", 175_286_712),
        ("../fssd512-coco", 41_590_964),
        ("../ssd321-coco", 158_799_920),
        ("../dssd321-coco", 214_654_512),
        ("../ssd513-coco", 173_145_304),  # as its authors' script: 128 and 512 inner channels
        ("../dssd513-coco", 254_983_896),  # with the layer before each predictor
        ("../blitznet512-coco", 79_834_674),
        ("../dsod300-voc0712", 14_715_804),
        ("../dsod300-small-voc0712", 5_833_372),
        ("../dsod300-coco", 21_700_524),
        ("../ssd512-voc0712", 27_188_676),
        ("../fssd300-coco", 39_366_582),
    ],
)
def test_parameters(name: str, learnable: int) -> None:
    config = load_config(CONFIGS / "ablations" / f"{name}.yaml")
    with torch.device("meta"):
        network = build_model(config.model, 80 if config.metric == "coco" else 20, **config.options)
    assert parameters(network) == learnable


# The papers' VOC2007 test mAP of Tables 1, 2 and 3 and test-dev AP of Table 5.
PAPER = {
    "table1": {"ssd300": 77.2, "with-fused": 78.2, "after-fused": 78.8, "bottleneck": 78.4},
    "table2": {
        "ssd300": 77.2,
        "row1-scratch-conv3-conv7": 72.7,
        "row2-conv3-conv7": 78.6,
        "row3-conv4-conv7": 78.8,
        "row4-conv4-fc7": 78.6,
        "row5-vgg-conv3-conv7": 78.8,
        "row6-no-norm": 78.1,
        "row7-sum": 76.3,
    },
    "table3": {
        "faster-rcnn-vgg16": 73.2,
        "faster-rcnn-resnet101": 76.4,
        "rfcn-resnet50": 77.0,
        "rfcn-resnet101": 79.5,
        "yolov2-352": 73.7,
        "ssd300-scratch": 69.6,
        "ssd300-coco": 81.2,
        "ssd300": 77.2,
        "ssd512": 78.5,
        "ssd512-coco": 83.2,
        "dsod300": 77.7,
        "dsod300-coco": 81.7,
        "ssd321": None,
        "dssd321": 78.6,
        "ssd513": None,
        "dssd513-stage1": None,
        "dssd513": 81.5,
        "rssd300": 78.5,
        "rssd512": 80.8,
        "fssd300-scratch": 72.7,
        "fssd300": 78.8,
        "fssd300-coco": 82.7,
        "fssd512": 80.9,
        "fssd512-coco": 84.5,
    },
    "table4": {
        "faster-rcnn-resnet101": 83.8,
        "faster-rcnn-vgg16": 75.9,
        "yolov2": 81.5,
        "blitznet512": 83.8,
        "ssd300": 79.3,
        "ssd512": 82.2,
        "dsod300": 79.3,
        "fssd300": 82.0,
        "fssd512": 84.2,
    },
    "table5": {
        "faster-rcnn-vgg16": 21.9,
        "ion-vgg16": 23.6,
        "rfcn-resnet101": 29.2,
        "rfcn-multi-scale-resnet101": 29.9,
        "yolov2": 21.6,
        "ssd300": 25.1,
        "ssd512": 28.8,
        "dsod300": 29.3,
        "ssd321": None,
        "dssd321": 28.0,
        "ssd513": None,
        "dssd513": 33.2,
        "fssd300": 27.1,
        "fssd512": 31.8,
    },
}


@pytest.mark.parametrize("name", PAPER)
def test_tables_show_the_papers_figures(name: str) -> None:
    plan = read_plan(CONFIGS / "ablations" / f"{name}.yaml")
    printed = {row.name: row.paper for row in plan.rows} | {row.name: row.value for row in plan.published}
    assert printed == PAPER[name]
    assert list(plan.order) and set(plan.order) == set(PAPER[name])


def test_published_rows_say_what_limits_them() -> None:
    """And the first row that is trained is SSD300, over which the table states the gains."""
    plan = read_plan(CONFIGS / "ablations" / "table3.yaml")
    assert plan.rows[0].name == "ssd300"
    assert all("FSSD, Table 3" in row.source for row in plan.published)
    notes = {row.name: row.note for row in (*plan.rows, *plan.published)}
    assert "79.8" in notes["ssd512"] and "513" in notes["dssd513"] and "K40" in notes["rfcn-resnet101"]
    (refined,) = [
        row
        for row in read_plan(CONFIGS / "ablations" / "table4.yaml").published
        if row.name == "faster-rcnn-resnet101"
    ]
    assert "multi-scale testing" in refined.note


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
def test_rows_of_every_table_can_be_built(path: Path) -> None:
    for row in read_plan(path).rows:
        with torch.device("meta"):
            build_model(row.config.model, 3, **row.config.options)
        assert row.after is None or row.config.start in ("ssd", "model")


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
def test_rows_of_a_table_are_measured_on_the_same_images(path: Path) -> None:
    plan = read_plan(path)
    assert len({(row.config.data, row.config.val_split, row.config.metric) for row in plan.rows}) == 1
    assert (plan.server is not None) == (plan.rows[0].config.val_split == "none")


def test_systems_share_their_recipe() -> None:
    rows = read_plan(CONFIGS / "ablations" / "systems.yaml").rows
    names = {row.name.rstrip("0123456789").rstrip("-") for row in rows}
    assert names == {"ssd", "fssd", "rssd", "dsod", "blitznet", "yolov2", "dssd"}
    network = {
        "model": "",
        "geometry": "warp",
        "weights": None,
        "start": "auto",
        "options": {},
        "amp": "auto",
    }
    assert {row.name for row in rows if row.config.amp != "auto"} == {
        "rssd300",
        "rssd512",
    }  # less exact in bf16
    recipes = [replace(row.config, **network) for row in rows]
    assert all(recipe == recipes[0] for recipe in recipes)
    assert [row.name for row in rows if row.config.start == "nothing"] == [
        "dsod300"
    ]  # it has no backbone weights


@pytest.mark.parametrize(
    ("table", "recipe", "backbone"),
    [("necks", "recipes/photographs", "lite"), ("necks-vgg", "ssd300-voc0712", "vgg16")],
)
def test_necks_differ_in_their_network_alone(table: str, recipe: str, backbone: str) -> None:
    rows = read_plan(CONFIGS / "ablations" / f"{table}.yaml").rows
    assert [row.name for row in rows] == ["ssd", "fpn", "rssd", "dssd", "resskip", "fssd-sum", "fssd-concat"]
    assert {row.name: row.config.amp for row in rows if row.config.amp != "auto"} == {"rssd": "off"}
    first, *others = (replace(row.config, model="", options={}, amp="auto") for row in rows)
    assert all(other == first for other in others)
    assert first == replace(load_config(CONFIGS / f"{recipe}.yaml"), model="")
    with torch.device("meta"):
        networks = [build_model(row.config.model, 20, **row.config.options) for row in rows]
    assert {network.spec.name.partition("-")[2] for network in networks} == {backbone}
    assert len({len(network.heads.priors) for network in networks}) == 1  # 8,732: one head
    if backbone == "lite":
        *costs, fssd = [parameters(network) for network in networks]
        assert max(costs) < 1.15 * min(costs)
        assert fssd / costs[0] < 1.5  # 39.4 M over 26.3 M of the paper's networks


@pytest.mark.parametrize(("name", "splits"), [("voc0712", {"train", "val"}), ("voc07pp12", {"train"})])
def test_joined_data_sets(
    name: str, splits: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for year, parts in (("VOC2007", ("trainval", "test")), ("VOC2012", ("trainval",))):
        main = tmp_path / "data" / "VOCdevkit" / year / "ImageSets" / "Main"
        main.mkdir(parents=True)
        for part in parts:
            (main / f"{part}.txt").write_text("")
        for folder in ("Annotations", "JPEGImages"):
            (main.parents[1] / folder).mkdir()
    assert set(list_splits(name)) == splits


def test_recipe_for_photographs_is_that_of_the_packaged_model() -> None:
    file = CONFIGS / "recipes" / "photographs.yaml"
    assert "--priors fit --prior-coverage 0.95 --set matching=atss" in file.read_text(encoding="utf-8")
    card = packaged_model("animals").with_suffix(".md").read_text(encoding="utf-8")
    assert "--size 384 --mosaic 0.5 \\\n    --set matching=atss --freeze 3 --lr 0.04 --out" in card
    flags = {"size": (384,), "mosaic": 0.5, "options": {"matching": "atss"}, "freeze": 3, "lr": 0.04}
    config = replace(load_config(file), data=Path("data"), out=Path("run"), start="model")
    recipe = to_values(complete(with_values(config, {**flags, "weights": "animals"})))
    trained = read_tensors(packaged_model("animals"))[1]["config"]
    assert (recipe["amp"], trained["amp"]) == ("auto", "bf16")  # which is what the author's machine chose
    for key, value in trained.items():
        if key not in ("log_every", "save_every", "amp", "threads", "train_split", "val_split"):
            assert recipe[key] == (tuple(value) if isinstance(value, list) else value), key
