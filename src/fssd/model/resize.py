"""The same layers on an input of another size, for an image pyramid (FSSD paper, Fig. 1 a)."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from fssd.data.geometry import make_geometry
from fssd.errors import ConfigError
from fssd.layers.depthwise import DepthwiseConv2d
from fssd.layers.shapes_alone import NEEDS_VALUES, Module, ShapesAlone, without_memory
from fssd.model.designs import LARGEST_SIDE, LEAST_SIDE
from fssd.model.network import Network
from fssd.necks.neck import Cells

PERIOD = 1024  # pixels: a multiple of the stride of any level
STEPS = (1, 2, 4, 8, 16, 32, 64)  # pixels: of sides, where an error says which ones work


def resized(network: Network, size: tuple[int, int]) -> Network:
    """A network with the weights of this one, for images of `size`, (width, height) pixels.

    Kernels, strides and the number of levels stay, so the maps have more cells or fewer. Priors keep their
    sizes in pixels and their places relative to what a cell sees, which is what the layers have learned. So
    it is not the network that `build_model` makes for `size`, whose levels and priors go with the size.
    All weights are shared, except those of convolutions of which a part has not learned, see `_live_taps`.

    Raises ConfigError for a size, or a head, with which the layers do not work.
    """
    own, probe = network.image_size, without_memory(network).eval()
    before = _run(probe, own)
    if before is None:
        probe = _prepared(network, own)  # it has a module of the user's own that looks at values
        before = _run(probe, own)
    cells, far = _run(probe, size), _run(probe, (own[0] + PERIOD, own[1] + PERIOD))
    if before is None or cells is None or far is None:
        raise _refusal(network, probe, size)
    copied = _prepared(network, size)
    copied.neck.cells = cells
    copied.neck.steps = [_strides(*rows, size) for rows in zip(before, far, cells, strict=True)]
    copied.heads.change_size(size, cells, copied.neck.steps)
    modules = dict(copied.named_modules())
    for name, taps in _live_taps(probe).items():
        conv = modules[name]
        assert isinstance(conv, nn.Conv2d)
        conv.weight = nn.Parameter(conv.weight.detach() * taps.to(conv.weight), requires_grad=False)
    return copied


def scaled_size(size: tuple[int, int], side: int) -> tuple[int, int]:
    """(width, height) of the same shape whose longer side is `side` pixels."""
    width, height = (max(1, round(side * one / max(size))) for one in size)
    return width, height


def _prepared(network: Network, size: tuple[int, int]) -> Network:
    """A copy that shares all tensors, in evaluation mode; its cells and priors are still those of before."""
    copied = _sharing(network).eval()
    copied.geometry = make_geometry(network.geometry.name, size)
    copied.neck.change_size(size)
    return copied


def _sharing(module: Module) -> Module:
    """A copy that shares all tensors."""
    shared: dict[int, Any] = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    return deepcopy(module, shared)


@torch.no_grad()
def _run(probe: Network, size: tuple[int, int]) -> list[Cells] | None:
    """Rows and columns of each level; None if the layers do not work at this size.

    probe: in evaluation mode.
    """
    width, height = size
    if any(side % int(getattr(probe.backbone, "multiple", 1)) for side in size):
        return None
    images = torch.zeros(1, 3, height, width, device=probe.device)
    neck = _sharing(probe.neck)
    neck.change_size(size)
    try:
        with ShapesAlone():
            levels = neck(probe.backbone(images))
    except NEEDS_VALUES:  # or a map is smaller than a kernel, or than its partner
        return None
    return [(x.shape[-2], x.shape[-1]) for x in levels]


def _strides(before: Cells, far: Cells, cells: Cells, size: tuple[int, int]) -> tuple[float, float]:
    """(x, y) pixels between the centres of what neighbouring cells of a level see.

    before, far: its cells at the trained size, and with PERIOD more pixels. Where these are equal the neck
    makes maps of a fixed size, whose cells share the image.
    """
    x, y = (
        PERIOD / (more - some) if more > some else side / now
        for some, more, now, side in zip(before[::-1], far[::-1], cells[::-1], size, strict=True)
    )
    return x, y


def _refusal(network: Network, probe: Network, size: tuple[int, int]) -> ConfigError:
    own = network.image_size
    step = next((s for s in STEPS if _run(probe, scaled_size(own, max(own) + s)) is not None), None)
    if step is None:
        works = "it works at its own size alone"
    else:
        least, most = _last(probe, own, -step), _last(probe, own, step)
        works = f"it works with sides of {least} to {most} px" + f", in steps of {step}" * (step > 1)
    return ConfigError(
        f"{network.spec.name} of {own[0]} x {own[1]} px cannot run on {size[0]} x {size[1]} px, where its"
        f" maps vanish or do not fit each other; {works}"
    )


def _last(probe: Network, own: tuple[int, int], step: int) -> int:
    """The last side that works on the way from a network's own to the least or largest that there is."""
    side = max(own)
    count = ((LARGEST_SIDE if step > 0 else LEAST_SIDE) - side) // step
    if _run(probe, scaled_size(own, side + count * step)) is not None:
        return side + count * step
    works, refused = 0, count
    while refused - works > 1:
        middle = (works + refused) // 2
        if _run(probe, scaled_size(own, side + middle * step)) is None:
            refused = middle
        else:
            works = middle
    return side + works * step


@torch.no_grad()
def _live_taps(probe: Network) -> dict[str, Tensor]:
    """The convolutions with taps that lie in the padding at every position of the trained size, by name.

    Such taps have learned nothing, and would add noise to a larger map: the outer ones of a 3x3 on a single
    cell, for example. Given are (rows, columns) of 1 for a tap that has met values, else 0.
    probe: in evaluation mode, and of no other use afterwards.
    """
    met: dict[str, Tensor] = {}  # a layer that several levels share meets values on any of them

    def watch(name: str) -> Any:
        def note(conv: nn.Conv2d, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            axes = [_live(conv, axis, inputs[0].shape[axis], output.shape[axis]) for axis in (-2, -1)]
            taps = axes[0][:, None] * axes[1]
            met[name] = torch.maximum(met.get(name, taps), taps)

        return note

    for name, module in probe.named_modules():
        if not isinstance(module, nn.Conv2d):
            continue
        plain = type(module).forward in (nn.Conv2d.forward, DepthwiseConv2d.forward)
        if plain and not isinstance(module.padding, str):
            module.register_forward_hook(watch(name))
    width, height = probe.image_size
    with ShapesAlone():
        probe(torch.zeros(1, 3, height, width, device=probe.device))
    return {name: taps for name, taps in met.items() if not bool(taps.all())}


def _live(conv: nn.Conv2d, axis: int, cells: int, outputs: int) -> Tensor:
    """(taps,) 1 for those of one axis that meet values of a map of so many cells, else 0."""
    starts = torch.arange(outputs, device="cpu") * conv.stride[axis] - int(conv.padding[axis])
    taps = torch.arange(conv.kernel_size[axis], device="cpu") * conv.dilation[axis]
    places = starts[:, None] + taps
    return ((places >= 0) & (places < cells)).any(dim=0).float()
