from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fssd.errors import CheckpointError
from fssd.model.build import build_model
from fssd.model.network import Network
from fssd.weights.checkpoint import save_model
from fssd.weights.transfer import load_detector


def trained(tmp_path: Path, name: str, classes: tuple[str, ...]) -> tuple[Path, Network]:
    torch.manual_seed(1)
    network = build_model(name, len(classes))
    for parameter in network.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.01)
    path = tmp_path / "trained.safetensors"
    save_model(path, network.state_dict(), network, classes, {})
    return path, network.eval()


@pytest.mark.parametrize("name", ["fssd300-lite", "ssd300-vgg16"])
def test_shared_classes_keep_their_scores_and_others_are_fresh(tmp_path: Path, name: str) -> None:
    file, before = trained(tmp_path, name, ("cat", "dog", "cow"))
    torch.manual_seed(2)
    network = build_model(name, 2)
    fresh = {key: value.clone() for key, value in network.state_dict().items()}
    assert load_detector(network, ("horse", "cat"), file) == (("cat",), ())
    image = torch.rand(1, 3, 300, 300) * 255
    with torch.no_grad():
        old, new = before(image), network.eval()(image)
    torch.testing.assert_close(new.offsets, old.offsets)
    torch.testing.assert_close(new.logits[..., 0], old.logits[..., 0])  # background
    torch.testing.assert_close(new.logits[..., 2], old.logits[..., 1])  # cat
    assert not torch.allclose(new.logits[..., 1], old.logits[..., 2])
    last = max(key for key in fresh if key.startswith("heads.conf.5") and key.endswith("weight"))
    horse = network.state_dict()[last][1::3]  # anchors times (background, horse, cat)
    assert torch.equal(horse, fresh[last][1::3])


def test_another_network_is_refused(tmp_path: Path) -> None:
    file, _ = trained(tmp_path, "ssd300-lite", ("cat",))
    with pytest.raises(CheckpointError, match="is a ssd300-lite, not a fssd300-lite"):
        load_detector(build_model("fssd300-lite", 1), ("cat",), file)


@pytest.mark.parametrize("changes", [{}, {"size": 512}])
def test_other_options_are_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    file, _ = trained(tmp_path, "fssd300-lite", ("cat",))
    with pytest.raises(CheckpointError, match="has shape"):
        load_detector(build_model("fssd300-lite", 1, merge="sum", **changes), ("cat",), file)
    with pytest.raises(CheckpointError, match="which the network lacks; give the same options"):
        load_detector(build_model("fssd300-lite", 1, neck="fpn", **changes), ("cat",), file)


# Priors a cell of SSD's table (Liu et al. 2016, 3.1): 4 6 6 6 4 4 at 300 px, 4 6 6 6 6 4 4 at 512 px.
@pytest.mark.parametrize("larger", [("ssd512-vgg16", {}), ("ssd300-vgg16", {"size": 512})])
def test_a_larger_input_adds_a_fresh_level(tmp_path: Path, larger: tuple[str, dict[str, Any]]) -> None:
    file, before = trained(tmp_path, "ssd300-vgg16", ("cat", "dog"))
    network = build_model(larger[0], 2, **larger[1])
    fresh = {key: value.clone() for key, value in network.state_dict().items()}
    taken = load_detector(network, ("cat", "dog"), file)
    assert taken.classes == ("cat", "dog")
    assert taken.notes == (
        f"note: {file}: at 512 x 512 px there are 7 levels instead of 6, 1 of them fresh",
        f"note: {file}: layers that have another shape there are fresh: heads.conf.4, heads.loc.4",
    )
    old, new = before.state_dict(), network.state_dict()
    is_new = {key for key in new if not torch.equal(new[key], old.get(key, torch.empty(0)))}
    assert {key.rpartition(".")[0] for key in is_new} == {
        *(f"heads.{kind}.{level}" for kind in ("loc", "conf") for level in (4, 6)),
        "neck.extras.conv10_1.0",
        "neck.extras.conv10_2.0",
    }
    assert all(torch.equal(new[key], fresh[key]) for key in is_new)


def test_a_smaller_input_leaves_a_level_out(tmp_path: Path) -> None:
    file, before = trained(tmp_path, "fssd512-lite", ("cat",))
    network = build_model("fssd300-lite", 1)
    assert load_detector(network, ("cat",), file).notes[0] == (
        f"note: {file}: at 300 x 300 px there are 6 levels instead of 7, 1 of the model left out"
    )
    own = network.neck.state_dict()
    assert own and all(torch.equal(value, before.neck.state_dict()[key]) for key, value in own.items())


PRIORS = "its boxes are relative to other priors and are learned anew; to keep its own, "


@pytest.mark.parametrize(
    ("before", "now", "note"),
    [
        ({"clip": "all"}, {}, f"{PRIORS}give --set clip=all"),
        ({}, {"clip": "all"}, f"{PRIORS}leave --set clip out"),
        ({"priors": "voc"}, {}, f"{PRIORS}give --priors voc"),
        (
            {"priors": "voc", "truncate": False},
            {},
            f"{PRIORS}give --priors voc and give --set truncate=false",
        ),
        ({}, {"priors": "voc"}, f"{PRIORS}leave --priors out"),
        (
            {"geometry": "letterbox"},
            {},
            "its images had the geometry letterbox, not warp; keep that with --geometry letterbox",
        ),
        (
            {"mean": [1, 2, 3.5]},
            {},
            "its images had another mean of the colours; keep that with --set mean=[1,2,3.5]",
        ),
        (
            {"std": [1, 2, 4]},
            {},
            "its images had another std of the colours; keep that with --set std=[1,2,4]",
        ),
        (
            {"align_corners": False},
            {},
            "its maps are resized in another way; keep that with --set align_corners=false",
        ),
        (
            {"resize": "bilinear", "neck": "fpn"},
            {"neck": "fpn"},
            "its levels are computed in another way; to keep that, give --set resize=bilinear",
        ),
        (
            {"neck": "fpn"},
            {"resize": "bilinear", "neck": "fpn"},
            "its levels are computed in another way; to keep that, leave resize out",
        ),
        ({"neck": "fpn"}, {"resize": "nearest", "neck": "fpn"}, ""),
        ({"priors": "coco", "clip": "none", "align_corners": True, "geometry": "warp"}, {}, ""),
        ({"loc_loss": "giou"}, {}, ""),
    ],
)
def test_what_the_weights_mean_otherwise_is_named(
    tmp_path: Path,
    tiny_backbone: Callable[[], nn.Module],
    before: dict[str, Any],
    now: dict[str, Any],
    note: str,
) -> None:
    old, new = (
        build_model("fssd300-lite", 1, size=128, backbone=tiny_backbone(), **options)
        for options in (before, now)
    )
    file = tmp_path / "trained.safetensors"
    save_model(file, old.state_dict(), old, ("cat",), {})
    expected = (f"note: {file}: {note}",) if note else ()
    assert load_detector(new, ("cat",), file).notes == expected
