"""The loop: what one update is, what a run leaves behind, and how it ends when it cannot go on."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from torch import Tensor, nn

from fssd.config.config_files import load_config
from fssd.config.train_config import TrainConfig
from fssd.data.geometry import Warp
from fssd.data.loader import BatchPositions, Examples, Views, training_batches
from fssd.data.source import open_data
from fssd.errors import ConfigError, DataError, FssdError, TrainingError
from fssd.evaluation.evaluate import Report
from fssd.heads.multibox.multibox_head import MultiboxHead
from fssd.heads.multibox.targets import MultiboxTargets
from fssd.model.build import build_model
from fssd.training import loop, run_setup
from fssd.training.ema import Average, lent
from fssd.training.loop import Result, train
from fssd.training.start import complete
from fssd.weights.checkpoint import load_model, read_tensors

MakeBackbone = Callable[[], nn.Module]

# No batch norm anywhere: a gradient then is a plain mean over images.
PLAIN = {"model": "fssd300-vgg16", "options": {"norm": "none", "sources": ["fine"]}}


def small(folder: Path, run: Path, **changes: Any) -> TrainConfig:
    """Three quick iterations on the data in `folder`, without evaluation, into `run`."""
    base = TrainConfig(
        data=folder,
        out=run,
        start="nothing",
        val_split=None,
        iterations=3,
        batch_size=2,
        warmup=0,
        schedule="constant",
        log_every=1,
        workers=0,
        amp="off",  # numbers are compared with plain fp32 code
    )
    return replace(base, **changes)


def log_lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text(encoding="utf-8").splitlines()]


def tensors_of(file: Path) -> dict[str, Tensor]:
    return read_tensors(file)[0]


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


# ---- updates


@pytest.mark.parametrize(("accumulate", "clip_norm"), [(1, 1.0), (2, 0.0)])
def test_updates_are_those_of_plain_code(
    scenes: Path, tmp_path: Path, tiny_backbone: MakeBackbone, accumulate: int, clip_norm: float
) -> None:
    batch_size = 2 // accumulate
    config = small(
        scenes,
        tmp_path / "run",
        **PLAIN,
        iterations=2,
        batch_size=batch_size,
        accumulate=accumulate,
        lr=2e-4,
        augment="none",
        clip_norm=clip_norm,
        seed=4,
    )
    result = train(config, backbone=tiny_backbone())
    found = tensors_of(result.model)

    expected = _plain_training(config, tiny_backbone())
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6, msg=name)


def test_the_configuration_chooses_the_objects_to_train_on(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Views] = []

    def batches(examples: Examples, *_: Any, **__: Any) -> None:
        made.append(examples.views)
        raise InterruptedError

    monkeypatch.setattr(run_setup, "training_batches", batches)
    for number, (difficult, crowds) in enumerate([(True, False), (False, True)]):
        with pytest.raises(InterruptedError):
            train(small(scenes, tmp_path / str(number), difficult=difficult, crowds=crowds))
        assert (made[-1].difficult, made[-1].crowds) == (difficult, crowds)


def _plain_training(config: TrainConfig, backbone: nn.Module) -> dict[str, Tensor]:
    """SGD as it stands in Caffe's documentation: v = m v + g + decay w, w = w - rate v."""
    data = open_data(config.data or "", "train")
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        network = build_model(config.model, len(data.classes), backbone=backbone, **config.options)
    views = Views(data, Warp((300, 300)), config.seed, "none", True)
    stop = (config.iterations or 0) * config.accumulate
    examples = Examples(views, network.heads.targets)
    batches = training_batches(examples, BatchPositions(0, stop, config.batch_size), 0)
    speed = {name: torch.zeros_like(p) for name, p in network.named_parameters()}
    for _ in range(config.iterations or 0):
        gradient = {name: torch.zeros_like(p) for name, p in network.named_parameters()}
        for _ in range(config.accumulate):
            batch = next(batches)
            network.zero_grad()
            network.heads.loss(network(batch.images.float()), batch.targets)["loss"].backward()
            for name, p in network.named_parameters():
                if p.grad is not None:
                    gradient[name] += p.grad / config.accumulate
        length = torch.sqrt(sum((g.double().square().sum() for g in gradient.values()), torch.zeros(())))
        assert length > config.clip_norm, "the example is to be clipped where clipping is on"
        shorten = float(config.clip_norm / length) if config.clip_norm else 1.0
        with torch.no_grad():
            for name, p in network.named_parameters():
                if p.grad is None:
                    continue  # a layer behind the one map that is fused
                bias = name.endswith("bias")
                step = gradient[name] * shorten
                step += 0.0 if bias else config.weight_decay * p
                speed[name] = config.momentum * speed[name] + step
                p.sub_((config.lr or 0.0) * (config.bias_lr if bias else 1.0) * speed[name])
    return {name: tensor.detach() for name, tensor in network.state_dict().items()}


def test_half_the_bits_on_a_cpu_move_the_weights_almost_alike(
    scenes: Path, tmp_path: Path, tiny_backbone: MakeBackbone
) -> None:
    settings: dict[str, Any] = {**PLAIN, "iterations": 2, "lr": 1e-3, "augment": "none", "device": "cpu"}
    whole = tensors_of(train(small(scenes, tmp_path / "whole", **settings), backbone=tiny_backbone()).model)
    half = tensors_of(
        train(small(scenes, tmp_path / "half", **settings, amp="bf16"), backbone=tiny_backbone()).model
    )
    assert not equal(whole, half), "bfloat16 rounds"
    for name, value in whole.items():
        assert half[name].dtype == value.dtype == torch.float32
        # Eight bits of mantissa: gradients agree to about a percent, and so do the steps taken.
        torch.testing.assert_close(half[name], value, rtol=0.02, atol=2e-3, msg=name)


def test_seed_decides_everything(scenes: Path, tmp_path: Path, tiny_backbone: MakeBackbone) -> None:
    def run(name: str, seed: int) -> dict[str, Tensor]:
        config = small(scenes, tmp_path / name, iterations=2, seed=seed)
        return tensors_of(train(config, backbone=tiny_backbone()).model)

    before = torch.random.get_rng_state()
    one, same, other = run("one", 1), run("same", 1), run("other", 2)
    assert equal(one, same)
    assert not equal(one, other)
    assert torch.equal(before, torch.random.get_rng_state()), "the caller's random numbers are left alone"


def test_moving_average_is_saved(scenes: Path, tmp_path: Path, tiny_backbone: MakeBackbone) -> None:
    result = train(small(scenes, tmp_path / "run", ema=0.9), backbone=tiny_backbone())
    state = tensors_of(result.out / "last.safetensors")
    average = {key[8:]: value for key, value in state.items() if key.startswith("average/")}
    own = {key[6:]: value for key, value in state.items() if key.startswith("model/")}
    assert equal(tensors_of(result.model), average)
    assert not equal(own, average)


def test_average_follows_its_formula() -> None:
    module = nn.Linear(1, 1, bias=False)
    module.weight.data.fill_(0.0)
    average = Average(module, 0.3)
    expected = 0.0
    for number, value in enumerate((1.0, 3.0, -2.0, 5.0), start=1):
        module.weight.data.fill_(value)
        average.update(module)
        decay = min(0.3, (1 + number) / (10 + number))
        expected = decay * expected + (1 - decay) * value
        assert average.tensors["weight"].item() == pytest.approx(expected, rel=1e-6)
    with lent(module, average.tensors):
        assert module.weight.item() == pytest.approx(expected, rel=1e-6)
    assert module.weight.item() == 5.0


def test_backbone_of_ones_own_keeps_its_weights_at_the_start(
    scenes: Path, tmp_path: Path, tiny_backbone: MakeBackbone
) -> None:
    config = small(scenes, tmp_path / "run", iterations=1, start="backbone", lr=1e-30)
    found = tensors_of(train(config, backbone=tiny_backbone()).model)
    for name, tensor in tiny_backbone().state_dict().items():
        assert torch.equal(found[f"backbone.{name}"], tensor)


# ---- files


def test_what_a_run_leaves(scenes: Path, tmp_path: Path, tiny_backbone: MakeBackbone) -> None:
    config = small(
        scenes, tmp_path / "deep" / "run", val_split="val", iterations=4, eval_every=1 / 3, schedule="cosine"
    )
    result = train(config, backbone=tiny_backbone())  # 6 updates an epoch, so two evaluations
    assert result == Result(config.out, config.out / "best.safetensors", result.best, finished=True)
    assert result.best is not None
    names = {path.name for path in config.out.iterdir()} - {"tensorboard"}
    plots = {"loss.png", "map.png"} if importlib.util.find_spec("matplotlib") else set()
    assert names == plots | {
        "README.md",
        "batches.jpg",
        "config.yaml",
        "log.jsonl",
        "last.safetensors",
        "best.safetensors",
        "final.safetensors",
    }
    assert load_config(config.out / "config.yaml") == replace(complete(config), train_split="train")
    steps = [line for line in log_lines(config.out) if "evaluation" not in line]
    assert [line["iteration"] for line in steps] == [1, 2, 3, 4]
    assert [line["epoch"] for line in steps] == [0.167, 0.333, 0.5, 0.667]
    rates = [1e-2 * 0.5 * (1 + np.cos(np.pi * done / 4)) for done in range(4)]
    assert [line["lr"] for line in steps] == pytest.approx(rates)
    for line in steps:
        assert line["loss"] == pytest.approx(line["loss_loc"] + line["loss_conf"], rel=1e-5)
    evaluated = [line for line in log_lines(config.out) if "evaluation" in line]
    assert [line["iteration"] for line in evaluated] == [2, 4]
    loaded = load_model(config.out, tiny_backbone())
    assert loaded.facts["config"]["seed"] == 0
    assert loaded.facts["metrics"]["map"] == pytest.approx(result.best)
    assert len(loaded.classes) == 10


def test_best_is_the_highest(
    scenes: Path, tmp_path: Path, tiny_backbone: MakeBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = iter([float("nan"), 0.2, 0.5, 0.5, 0.3])

    def judge(*_: Any) -> Report:
        return Report("voc12", next(values), {}, {}, 4, 9, 0.5)

    monkeypatch.setattr(loop, "evaluate_detections", judge)
    config = small(
        scenes, tmp_path / "run", val_split="val", iterations=5, eval_every=1 / 6, save_every=1, ema=0.9
    )
    result = train(config, backbone=tiny_backbone())
    assert result.best == 0.5
    tensors, facts = read_tensors(config.out / "best.safetensors")
    assert facts["iteration"] == 3
    assert facts["metrics"]["map"] == 0.5
    assert read_tensors(config.out / "final.safetensors")[1]["iteration"] == 5
    assert not equal(tensors, tensors_of(config.out / "final.safetensors"))
    assert read_tensors(config.out / "last.safetensors")[1]["best"] == 0.5


def test_a_function_that_raises_ends_the_run_after_it_is_saved(
    scenes: Path, tmp_path: Path, tiny_backbone: MakeBackbone
) -> None:
    def enough(*_: object) -> None:
        raise KeyboardInterrupt

    config = small(scenes, tmp_path / "stopped", val_split="val", iterations=2, eval_every=1 / 6)
    with pytest.raises(KeyboardInterrupt):
        train(config, backbone=tiny_backbone(), report=enough)
    assert train(config, resume=True, backbone=tiny_backbone()).finished
    assert [line["iteration"] for line in log_lines(tmp_path / "stopped") if "evaluation" in line] == [1, 2]


def test_a_frozen_module_is_given_back(scenes: Path, tmp_path: Path, tiny_backbone: MakeBackbone) -> None:
    class Staged(type(tiny_backbone())):  # type: ignore[misc]
        def stages(self) -> list[list[nn.Module]]:
            return [[self.fine], [self.middle]]

    backbone = Staged()
    backbone.coarse.requires_grad_(False)  # as the user wants it
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    train(small(scenes, tmp_path / "run", freeze=1), backbone=backbone)
    after = backbone.state_dict()
    assert [name for name in before if torch.equal(before[name], after[name])] == [
        "fine.weight", "fine.bias", "coarse.weight", "coarse.bias",
    ]  # fmt: skip
    assert [name for name, value in backbone.named_parameters() if not value.requires_grad] == [
        "coarse.weight", "coarse.bias",
    ]  # fmt: skip
    card = (tmp_path / "run/README.md").read_text()
    count = sum(
        value.numel()
        for value in load_model(tmp_path / "run/final.safetensors", backbone=Staged())[0].parameters()
    )
    assert f"{count:,} parameters" in card


def test_epochs_count_passes(scenes: Path, tmp_path: Path, tiny_backbone: MakeBackbone) -> None:
    config = small(scenes, tmp_path / "run", iterations=None, epochs=0.5, batch_size=4, log_every=2)
    train(config, backbone=tiny_backbone())  # half of 12 images, 4 at a time
    (line,) = log_lines(config.out)
    assert (line["iteration"], line["epoch"]) == (2, 0.667)


# ---- images without objects


def write_backgrounds(folder: Path, count: int, **flags: int) -> Path:
    """A COCO file of images that nobody saw anything in; with flags, of one object that has them."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    rows = []
    for number in range(count):
        cv2.imwrite(str(folder / f"{number}.jpg"), rng.integers(0, 255, (60, 80, 3), dtype=np.uint8))
        rows.append({"id": number, "file_name": f"{number}.jpg", "width": 80, "height": 60})
    box = {"id": 1, "image_id": 0, "category_id": 1, "bbox": [5, 5, 40, 30], "area": 1200, **flags}
    content = {
        "images": rows,
        "annotations": [box] if flags else [],
        "categories": [{"id": 1, "name": "dog"}],
    }
    file = folder / "train.json"
    file.write_text(json.dumps(content), encoding="utf-8")
    return file


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({}, "none of the 4 images of split 'train' has an object"),
        ({"iscrowd": 1}, "all 1 objects of split 'train' are crowds or difficult"),
    ],
)
def test_a_split_without_an_object_to_train_on(tmp_path: Path, flags: dict[str, int], message: str) -> None:
    data = write_backgrounds(tmp_path / "data", 4, **flags)
    with pytest.raises(DataError, match=message):
        train(small(data, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_backgrounds_alone_train(
    tmp_path: Path, tiny_backbone: MakeBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "require_objects", lambda *_: None)  # as in batches without an object
    data = write_backgrounds(tmp_path / "data", 3)
    result = train(small(data, tmp_path / "run", iterations=8, lr=2e-3), backbone=tiny_backbone())
    steps = log_lines(result.out)
    assert all(np.isfinite(line["loss"]) and line["loss"] > 0 for line in steps)
    assert all(line["loss_loc"] == 0 and line["positives"] == 0 for line in steps)
    assert steps[-1]["loss"] < steps[0]["loss"], "the network learns that there is nothing"
    assert all(torch.isfinite(tensor).all() for tensor in tensors_of(result.model).values())


def test_empty_image_among_others_is_trained_on(
    scenes: Path, tmp_path: Path, tiny_backbone: MakeBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    real = MultiboxTargets.__call__

    def watch(targets: MultiboxTargets, boxes: Any, labels: Any) -> Any:
        seen.append(len(boxes))
        return real(targets, boxes, labels)

    monkeypatch.setattr(MultiboxTargets, "__call__", watch)
    train(
        small(scenes, tmp_path / "run", iterations=3, batch_size=4, augment="none"), backbone=tiny_backbone()
    )
    counts = sorted(len(record.boxes) for record in open_data(scenes, "train").records)
    assert sorted(seen) == counts
    assert counts[0] == 0


# ---- a loss that is not finite


def test_loss_that_is_not_finite_names_the_culprits(
    scenes: Path, tmp_path: Path, tiny_backbone: MakeBackbone
) -> None:
    config = small(scenes, tmp_path / "run", iterations=20, lr=1e25, clip_norm=0.0, augment="none")
    with pytest.raises(TrainingError) as caught:
        train(config, backbone=tiny_backbone())
    message = str(caught.value)
    found = re.search(
        r"iteration (\d+) \(loss (\S+), loss_loc (\S+), loss_conf (\S+), positives (\d+)\)", message
    )
    assert found is not None
    iteration = int(found[1])
    assert not np.isfinite(float(found[2]))
    tensors, facts = read_tensors(config.out / "nonfinite-0.safetensors")
    assert str(config.out / "nonfinite-0.safetensors") in message

    views = Views(open_data(scenes, "train"), Warp((300, 300)), 0, "none", True)
    with torch.device("meta"):
        targets = build_model("fssd300-lite", 1).heads.targets
    (batch,) = training_batches(Examples(views, targets), BatchPositions(iteration, iteration + 1, 2), 0)
    assert facts["names"] == batch.names
    assert all(name in message for name in batch.names)
    assert torch.equal(tensors["images"], batch.images)
    assert {key for key in tensors if key != "images"} == {f"targets/{key}" for key in batch.targets}
    for key, value in batch.targets.items():
        assert torch.equal(tensors[f"targets/{key}"], value)


def test_weights_from_before_the_bad_loss_stay(
    scenes: Path, tmp_path: Path, tiny_backbone: MakeBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0
    real = MultiboxHead.loss

    def fail(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        terms = real(*arguments)
        return {**terms, "loss": terms["loss"] * float("nan")} if calls == 3 else terms

    monkeypatch.setattr(MultiboxHead, "loss", fail)
    config = small(scenes, tmp_path / "run", iterations=4, save_every=1)
    with pytest.raises(TrainingError, match="iteration 2"):
        train(config, backbone=tiny_backbone())
    tensors, facts = read_tensors(config.out / "last.safetensors")
    assert facts["iteration"] == 2
    assert all(torch.isfinite(tensor).all() for tensor in tensors.values())


# ---- settings that do not fit


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": None}, "--data"),
        ({"out": None}, "--out"),
        ({"epochs": 1.0}, "not both"),
        ({"iterations": 0}, "iterations is 0"),
        ({"iterations": None, "epochs": float("inf")}, "epochs is inf"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": 1}, "batch_size is 1"),
        ({"workers": -1}, "workers is -1"),
        ({"ema": 1.0}, "ema is 1.0"),
        ({"schedule": "cosin"}, "did you mean 'cosine'"),
        ({"augment": "sdd"}, "did you mean 'ssd'"),
        ({"amp": "fp16", "device": "cpu"}, "amp fp16 needs a GPU"),
        ({"start": "ssd"}, "--weights"),
        ({"model": "fssd300-light"}, "did you mean 'fssd300-lite'"),
        ({"device": "gpu"}, "device 'gpu' cannot be used here"),
        ({"options": {"mrege": "sum"}}, "did you mean 'merge'"),
        ({"options": {"ratios": 5}}, "give a list of numbers for each level"),
        ({"options": {"norm": 7}}, "there is no norm 7"),
        ({"options": {"backbone": "resnet"}}, "backbone"),
    ],
)
def test_settings_that_cannot_be(scenes: Path, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        train(small(scenes, tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists(), "nothing is written before the settings are known to be good"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr: fast", "lr cannot be 'fast'"),
        ("batch_size: 2.5", "batch_size cannot be 2.5"),
        ("iterations: .inf", "iterations cannot be inf"),
        ("steps: [.inf]", "steps cannot be"),
        ("batch_sise: 3", "did you mean 'batch_size'"),
        ("difficult: 3", "difficult cannot be 3"),
        ("- lr", "not a list"),
        ("lr: [", "not valid YAML"),
        ("1: 2", "no setting 1"),
    ],
)
def test_configuration_files_that_cannot_be(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "train.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        load_config(file)
    assert str(file) in str(caught.value)


def test_configuration_file_in_another_encoding(tmp_path: Path) -> None:
    file = tmp_path / "train.yaml"
    file.write_bytes("out: Läufe".encode("latin-1"))
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_config(file)
    for path in (tmp_path, tmp_path / "none.yaml"):
        with pytest.raises(ConfigError, match="cannot be read"):
            load_config(path)


def test_configuration_file_round_trip(tmp_path: Path) -> None:
    config = TrainConfig(data=tmp_path, lr=0.5, steps=(3, 4), options={"merge": "sum"}, difficult=False)
    file = tmp_path / "train.yaml"
    file.write_text(
        yaml.safe_dump({"data": str(tmp_path), "lr": 0.5, "steps": [3, 4], "options": {"merge": "sum"}}),
        encoding="utf-8",
    )
    assert load_config(file, TrainConfig(difficult=False)) == config


def test_folder_that_cannot_be_made(scenes: Path, tmp_path: Path, tiny_backbone: MakeBackbone) -> None:
    file = tmp_path / "file"
    file.write_text("not a folder")
    for out in (file, file / "run"):
        with pytest.raises(ConfigError, match="choose another"):
            train(small(scenes, out), backbone=tiny_backbone())


@pytest.mark.parametrize(
    "changes", [{"data": Path("nowhere")}, {"train_split": "trian"}, {"val_split": "test"}]
)
def test_data_that_is_not_there(scenes: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(DataError):
        train(small(scenes, tmp_path / "run", **changes))


@pytest.mark.parametrize("start", ["ssd", "backbone"])
@pytest.mark.parametrize("kind", ["folder", "missing", "damaged", "foreign"])
def test_weights_that_cannot_be_read(
    scenes: Path, tmp_path: Path, model_file: Path, start: Any, kind: str
) -> None:
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"\x00" * 100)
    files = {"folder": tmp_path, "missing": tmp_path / "none", "damaged": damaged, "foreign": model_file}
    with pytest.raises(FssdError) as caught:
        train(small(scenes, tmp_path / "run", model="fssd300-lite", start=start, weights=files[kind]))
    assert str(files[kind]) in str(caught.value)


@pytest.mark.parametrize("minutes", [-5, float("nan"), "5"])
def test_minutes_that_cannot_be(tmp_path: Path, minutes: Any) -> None:
    with pytest.raises(ConfigError, match="minutes is"):
        train(TrainConfig(data=tmp_path, out=tmp_path / "run"), minutes=minutes)


def test_one_number_stands_for_a_list_of_one() -> None:
    config = TrainConfig(size=128, multi_scale=160, steps=3, step_shares=0.5)  # type: ignore[arg-type]
    assert (config.size, config.multi_scale, config.steps, config.step_shares) == (
        (128,),
        (160,),
        (3,),
        (0.5,),
    )
