"""FSSD of the authors' PyTorch port, lzx1413/PytorchSSD, and of dlyldxwl/fssd.pytorch, which follows it.

Both are other networks than the Caffe one: the variant "pytorchssd" of `build_model`.
"""

from __future__ import annotations

from typing import Any

import torch

from fssd.backbones.vgg_weights import VGG_PLACES
from fssd.importers.foreign import Foreign, Wanted, check_name, convolutions, read_rgb
from fssd.importers.imported import Imported, prior_table
from fssd.necks.extras import fssd_extras
from fssd.necks.fssd import PORT_RATIOS, VGG_SOURCES
from fssd.necks.pyramid import pyramid_rows

ORIGIN = "the FSSD of lzx1413/PytorchSSD or dlyldxwl/fssd.pytorch"

# Files from before PyTorch 0.4.1 do not count batches. So many make the running statistics count as settled.
SETTLED = 100_000


def import_pytorchssd(foreign: Foreign, wanted: Wanted) -> Imported:
    """Its weights read BGR unless `wanted` says otherwise.

    How it resized is not in the file. PytorchSSD's own were trained with corners aligned, be it by the
    default of PyTorch 0.3 or by name; fssd.pytorch, told by its extras.N.conv, runs without.

    Raises CheckpointError for missing tensors, odd heads, or another model than the one asked for.
    """
    size, ratios, outputs = foreign.predicted("loc", "conf")
    check_name(foreign, wanted, f"fssd{size}-vgg16")
    follower = foreign.has("extras.0.conv.")
    has_norm = foreign.has("fea_bn.")
    names = convolutions(_places(foreign, size, follower))
    if has_norm:
        kinds = ("weight", "bias", "running_mean", "running_var")
        names |= {f"neck.fusion.norm.{kind}": f"fea_bn.{kind}" for kind in kinds}
    tensors = foreign.take(names)
    read_rgb(tensors, wanted.colours or "bgr")
    taken = list(names.values())
    if has_norm:
        counter = "fea_bn.num_batches_tracked"
        batches = foreign.tensors.get(counter, torch.tensor(SETTLED))
        tensors["neck.fusion.norm.num_batches_tracked"] = batches
        taken.append(counter)
    classes = outputs - 1
    aligned = not follower if wanted.align_corners is None else wanted.align_corners
    options: dict[str, Any] = {"variant": "pytorchssd", "priors": prior_table(classes, wanted.priors)}
    if not aligned:
        options["align_corners"] = False
    if not has_norm:
        options["norm"] = "none"
    if ratios != PORT_RATIOS[size, size]:
        options["ratios"] = [list(row) for row in ratios]
    return foreign.imported(options, classes, tensors, taken)


def _places(foreign: Foreign, size: int, follower: bool) -> dict[str, str]:
    """Their name of each convolution, by ours."""
    base = "base.layers" if foreign.has("base.layers.") else "base"
    conv = ".conv" if follower else ""
    places = {f"backbone.{layer}": f"{base}.{place}" for place, layer in VGG_PLACES.items()}
    places |= {f"neck.extras.{row.name}.0": f"extras.{i}{conv}" for i, row in enumerate(fssd_extras())}
    places |= {f"neck.fusion.transform.{name}.0": f"ft_module.{i}.conv" for i, name in enumerate(VGG_SOURCES)}
    fused = -(-size // 8)  # cells a side
    for level, row in enumerate(pyramid_rows((fused, fused))):
        places[f"neck.pyramid.blocks.{row.name}.0"] = f"pyramid_ext.{level}.conv"
        places |= {f"heads.{kind}.{level}": f"{kind}.{level}" for kind in ("loc", "conf")}
    return places
