"""The fusion module by hand: which maps, brought to one size how, merged how, normalised how."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fssd.errors import ConfigError
from fssd.necks.fusion import Fusion, Source


def conv_relu(fusion: Fusion, name: str, x: Tensor) -> Tensor:
    conv = fusion.transform[name][0]
    return (
        torch.einsum("oi,bihw->bohw", conv.weight[:, :, 0, 0], x).add(conv.bias[:, None, None]).clamp(min=0)
    )


def maps() -> dict[str, Tensor]:
    torch.manual_seed(3)
    return {
        "fine": torch.randn(2, 4, 7, 7),
        "same": torch.randn(2, 6, 4, 4),
        "coarse": torch.randn(2, 4, 2, 2),
    }


def interp(x: Tensor, size: int) -> Tensor:
    place = np.arange(size) * (x.shape[-1] - 1) / (size - 1)
    low = np.minimum(place.astype(int), x.shape[-1] - 2)
    share = torch.from_numpy(place - low).float()
    rows = x[..., low, :] * (1 - share)[:, None] + x[..., low + 1, :] * share[:, None]
    return rows[..., low] * (1 - share) + rows[..., low + 1] * share


def test_concat_in_the_order_of_the_sources() -> None:
    features = maps()
    sources = (Source("fine", 4, False), Source("same", 6, True), Source("coarse", 4, True))
    fusion = Fusion(sources, 5, (4, 4), norm="none")
    assert fusion.channels == 4 + 5 + 5
    with torch.no_grad():
        out = fusion(features)
        assert out.shape == (2, 14, 4, 4)
        torch.testing.assert_close(out[:, 4:9], conv_relu(fusion, "same", features["same"]))
        torch.testing.assert_close(out[:, 9:], interp(conv_relu(fusion, "coarse", features["coarse"]), 4))
        turned = Fusion(sources[::-1], 5, (4, 4), norm="none")
        turned.transform.load_state_dict(fusion.transform.state_dict())
        torch.testing.assert_close(turned(features), torch.cat((out[:, 9:], out[:, 4:9], out[:, :4]), dim=1))


def test_larger_map_is_pooled_with_its_odd_border() -> None:
    # 7 cells become 4: windows of 2 from 0, 2, 4, and the last row and column alone
    x = torch.arange(49.0).reshape(1, 1, 7, 7)
    out = Fusion((Source("fine", 1, False),), 1, (4, 4), norm="none")({"fine": x})
    assert out[0, 0].tolist() == [[8, 10, 12, 13], [22, 24, 26, 27], [36, 38, 40, 41], [43, 45, 47, 48]]


def test_conv3_3_of_the_released_network_is_pooled_from_75_to_38_without_a_convolution() -> None:
    x = torch.randn(1, 256, 75, 75)
    fusion = Fusion((Source("conv3_3", 256, False),), 256, (38, 38), norm="none")
    assert list(fusion.parameters()) == []
    out = fusion({"conv3_3": x})
    assert out.shape == (1, 256, 38, 38)
    assert torch.equal(out[..., 37, 37], x[..., 74, 74])
    assert torch.equal(out[..., 3, 5], x[..., 6:8, 10:12].amax((-1, -2)))


def test_pooled_map_is_convolved_first() -> None:
    features = maps()
    fusion = Fusion((Source("fine", 4, True),), 3, (4, 4), norm="none")
    with torch.no_grad():
        full = F.pad(conv_relu(fusion, "fine", features["fine"]), (0, 1, 0, 1), value=-torch.inf)
        expected = full.reshape(2, 3, 4, 2, 4, 2).amax((3, 5))
        torch.testing.assert_close(fusion(features), expected)


def test_sum_is_elementwise() -> None:
    features = maps()
    sources = (Source("fine", 4, False), Source("same", 6, True), Source("coarse", 4, False))
    fusion = Fusion(sources, 4, (4, 4), merge="sum", norm="none")
    assert fusion.channels == 4
    with torch.no_grad():
        pooled = (
            F.pad(features["fine"], (0, 1, 0, 1), value=-torch.inf).reshape(2, 4, 4, 2, 4, 2).amax((3, 5))
        )
        expected = pooled + conv_relu(fusion, "same", features["same"]) + interp(features["coarse"], 4)
        torch.testing.assert_close(fusion(features), expected)


def test_sum_of_maps_taken_as_they_are_has_their_width() -> None:
    fusion = Fusion((Source("fine", 4, False), Source("coarse", 4, False)), 256, (4, 4), merge="sum")
    assert fusion.channels == 4
    assert fusion(maps()).shape == (2, 4, 4, 4)


def test_sum_of_unequal_widths_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"one width but they have \[4, 8\] channels"):
        Fusion((Source("fine", 4, False), Source("same", 6, True)), 8, (4, 4), merge="sum")


@pytest.mark.parametrize("norm", ["batch", "batch-affine", "none"])
def test_norms(norm: str) -> None:
    features = maps()
    sources = (Source("fine", 4, False), Source("coarse", 4, False))
    plain = Fusion(sources, 4, (4, 4), norm="none")(features)
    fusion = Fusion(sources, 4, (4, 4), norm=norm)
    if norm == "none":
        assert torch.equal(fusion(features), plain)
        return
    mean, var = plain.mean((0, 2, 3), keepdim=True), plain.var((0, 2, 3), unbiased=False, keepdim=True)
    expected = (plain - mean) / (var + 1e-5).sqrt()
    if norm == "batch-affine":
        with torch.no_grad():
            fusion.norm.weight.fill_(3)
            fusion.norm.bias.fill_(-1)
        expected = 3 * expected - 1
    torch.testing.assert_close(fusion(features), expected, rtol=1e-4, atol=1e-5)
    assert len(list(fusion.norm.parameters())) == (2 if norm == "batch-affine" else 0)


def test_there_is_no_relu_after_the_norm() -> None:
    assert Fusion((Source("fine", 4, False),), 4, (4, 4))(maps()).min() < 0


def test_fraction_weighs_the_running_statistics() -> None:
    fusion = Fusion((Source("same", 1, False),), 1, (4, 4), fraction=0.5)
    for value in (1.0, 4.0):
        fusion({"same": torch.full((1, 1, 4, 4), value)})
    # (0.5 * 1 + 4) / (0.5 * 1 + 1)
    assert fusion.norm.running_mean.item() == pytest.approx(3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"merge": "concatenate"}, "did you mean 'concat'"),
        ({"merge": None}, "known: concat, sum"),
        ({"norm": "bach"}, "did you mean 'batch'"),
        ({"norm": None}, "there is no norm None"),
    ],
)
def test_unknown_choice_names_the_nearest(options: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Fusion((Source("fine", 4, False),), 4, (4, 4), **options)
