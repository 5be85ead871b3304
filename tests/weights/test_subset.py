"""Classes taken out of a trained model: the published map from COCO to VOC, rows, logits, bad requests."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fssd.data.class_names import COCO, VOC
from fssd.errors import CheckpointError, ConfigError
from fssd.model.build import build_model
from fssd.model.network import Network
from fssd.weights.checkpoint import load_model, save_model
from fssd.weights.subset import find_classes, take_classes, write_subset

# VOC's outputs 1..20 and COCO's 1..80 they come from, background 0 from 0 (coco_voc_map.txt of CAFFE_SSD).
PUBLISHED = [5, 2, 15, 9, 40, 6, 3, 16, 57, 20, 61, 17, 18, 4, 1, 59, 19, 58, 7, 63]


FACTS = {"iteration": 7, "seed": 1, "metrics": {"map": 0.5}, "class_scores": {"tv": 0.9, "dog": 0.2}}


@pytest.fixture(scope="module")
def lite() -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = build_model("fssd300-lite", len(COCO))
        for name, parameter in network.named_parameters():
            if name.startswith("heads.conf") and name.endswith("bias"):
                nn.init.normal_(parameter)  # fresh biases are 0 and would hide a mistake
    return network.eval()


@pytest.fixture(scope="module")
def lite_file(lite: Network, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("runs") / "coco" / "best.safetensors"
    file.parent.mkdir()
    save_model(file, lite.state_dict(), lite, COCO, FACTS)
    return file


def images() -> Tensor:
    return torch.randint(0, 256, (1, 3, 300, 300), generator=torch.Generator().manual_seed(2)).float()


def test_voc_in_coco_is_the_published_map() -> None:
    assert [1 + place for place in find_classes(COCO, VOC)] == PUBLISHED


def test_names_of_either_data_set_find_the_class() -> None:
    assert find_classes(("dog", "tv"), ["tvmonitor", "dog"]) == [1, 0]
    assert find_classes(("dog", "tvmonitor"), ["tv"]) == [1]
    assert find_classes(("tv", "tvmonitor"), ["tvmonitor"]) == [1]  # its own name goes before the other


def test_rows_of_plain_heads_go_where_the_published_script_puts_them(
    tiny_backbone: Callable[[], nn.Module],
) -> None:
    network = build_model("fssd300-vgg16", len(COCO), backbone=tiny_backbone())
    before = network.state_dict()
    after = take_classes(network, find_classes(COCO, VOC))
    assert list(after) == list(before)
    changed = {f"heads.conf.{level}.{kind}" for level in range(6) for kind in ("weight", "bias")}
    for key, tensor in before.items():
        if key not in changed:
            assert torch.equal(after[key], tensor), key
            continue
        anchors = len(tensor) // 81
        assert len(after[key]) == anchors * 21
        for i in range(anchors):
            for voc, coco in enumerate([0, *PUBLISHED]):
                assert torch.equal(after[key][i * 21 + voc], tensor[i * 81 + coco]), (key, i, voc)


def test_logits_of_the_classes_left_are_equal(lite: Network, lite_file: Path, tmp_path: Path) -> None:
    file, old, _ = write_subset(lite_file.parent, VOC, tmp_path / "voc")
    assert file == tmp_path / "voc" / "final.safetensors"
    assert old == tuple(COCO[number - 1] for number in PUBLISHED)
    network, classes, facts = load_model(tmp_path / "voc")
    assert classes == VOC
    assert network.spec.num_classes == 20
    assert (facts["iteration"], facts["seed"], facts["model"]) == (7, 1, "fssd300-lite")
    assert not {"metrics", "class_scores"} & facts.keys()  # those are of all the classes
    with torch.no_grad():
        whole, part = lite(images()), network(images())
    assert torch.equal(part.offsets, whole.offsets)
    torch.testing.assert_close(part.logits, whole.logits[..., [0, *PUBLISHED]], atol=1e-5, rtol=1e-5)
    last = {f"heads.conf.{level}.3.{kind}" for level in range(6) for kind in ("weight", "bias")}
    for key, tensor in lite.state_dict().items():
        found = network.state_dict()[key]
        if key in last:  # the 1 x 1 that predicts, after the depthwise part
            tensor = tensor.unflatten(0, (-1, 81))[:, [0, *PUBLISHED]].flatten(0, 1)  # noqa: PLW2901
        assert torch.equal(found, tensor), key


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ([], "no classes are named"),
        (["dog", "cat", "dog"], "'dog' is named twice"),
        (["tv", "tvmonitor"], "'tvmonitor' is named twice"),
        (["persn"], "no class 'persn'; did you mean 'person'"),
        (["tie fighter pilot"], "no class 'tie fighter pilot'"),
    ],
)
def test_classes_that_cannot_be_taken(wanted: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        find_classes(COCO, wanted)


def test_a_folder_with_another_model_is_left_alone(lite_file: Path, tmp_path: Path) -> None:
    (tmp_path / "best.safetensors").write_bytes(b"someone's")
    for folder in (lite_file.parent, tmp_path):
        with pytest.raises(ConfigError, match=r"holds (another model|a training)"):
            write_subset(lite_file, ["dog"], folder)
        assert not (folder / "final.safetensors").exists()
    (tmp_path / "mine").mkdir()
    shutil.copyfile(lite_file, tmp_path / "mine" / "final.safetensors")
    with pytest.raises(ConfigError, match="holds another model"):
        write_subset(lite_file, ["dog"], tmp_path / "mine")
    for wanted in ("dog", "cat"):  # the second replaces the first
        write_subset(lite_file, [wanted], tmp_path / "again")
    with pytest.raises(CheckpointError, match="no such model file"):
        write_subset(tmp_path / "absent.safetensors", ["dog"], tmp_path / "out")
    with pytest.raises(ConfigError, match="no class 'dragon'"):
        write_subset(lite_file, ["dragon"], tmp_path / "out")
    assert not (tmp_path / "out").exists()
