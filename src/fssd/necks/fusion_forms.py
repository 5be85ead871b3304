"""The fusion module from options: FSSD's own, or the skip pooling of ParseNet, HyperNet or ION in its place.

ParseNet: Liu et al. 2015, arXiv 1506.04579. HyperNet: Kong et al. 2016, 1604.00600. ION: Bell et al. 2016,
1512.04143. All three feed other kinds of detector; here each feeds FSSD's pyramid and heads.

Options besides those of FSSD's own tables, see `Fusion`: transform ("1x1", "3x3", "5x5" or "none") on each
source, and width, its channels; as_is, names of sources that go in without one; source_norm and source_scale;
project; upsample; fused_stride, 8 or 4 pixels to a cell of the fused map. sources may hold "global", the mean
of the backbone's last map.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from fssd.backbones.backbone import MapShape
from fssd.errors import ConfigError, nearest
from fssd.necks.fusion import SOURCE_SCALE, Fusion, Source
from fssd.necks.neck import FINEST_STRIDE, Blueprint, Cells, cells_at

GLOBAL = "global"  # the source that is the mean over all cells of the backbone's last map
KERNELS = {"none": 0, "1x1": 1, "3x3": 3, "5x5": 5}
STRIDES = (FINEST_STRIDE, FINEST_STRIDE // 2)
WIDTH = 256  # channels of each transformed source
LIGHT_WIDTH = 96  # the same at light width, where FSSD's light form does not set its own

FORMS: dict[str, dict[str, Any]] = {
    "parsenet": {
        "sources": ("conv4_3", "fc7", GLOBAL),
        "transform": "none",
        "source_norm": "l2",
        "source_scale": 10.0,
        "norm": "none",
    },
    "hypernet": {
        "sources": ("conv1_2", "conv3_3", "conv5_3"),
        "transform": "5x5",
        "width": 42,
        "reduce_all": True,
        "source_norm": "lrn",
        "norm": "none",
        "fused_stride": 4,
        "upsample": "deconvolution",
    },
    "ion": {
        "sources": ("conv3_3", "conv4_3", "conv5_3"),
        "transform": "none",
        "source_norm": "l2",
        "source_scale": 1000.0,
        "norm": "none",
        "project": 512,
    },
}
"""What the variants of these names stand for, on VGG16."""

OPTIONS = frozenset(
    {"sources", "merge", "norm", "as_is", "reduce_all", "align_corners", "transform", "width", "source_norm"}
) | {"source_scale", "project", "upsample", "fused_stride"}

# Options that only mean something beside another one: a variant's own go when the user replaces that one.
COMPANIONS = {"transform": ("width", "as_is", "reduce_all"), "source_norm": ("source_scale",)}


def with_form(form: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a variant, overridden by the user's."""
    void = {lost for key in options for lost in COMPANIONS.get(key, ())}
    return {**{key: value for key, value in form.items() if key not in void}, **options}


def fused_cells(blueprint: Blueprint) -> Cells:
    """Rows and columns of the fused map."""
    return cells_at(blueprint.options.get("fused_stride", FINEST_STRIDE), blueprint.image_size)


def make_fusion(
    blueprint: Blueprint,
    names: tuple[str, ...],
    shapes: Mapping[str, MapShape],
    as_is: set[str],
    fraction: float,
) -> Fusion:
    """The module for sources `names` of maps `shapes`. as_is: those without a 1x1 by default.

    fraction: see `Fusion`. Raises ConfigError.
    """
    options = blueprint.options
    kernel = KERNELS[options.get("transform", "1x1")]
    return Fusion(
        _sources(names, shapes, set(names) if not kernel else as_is, blueprint),
        options.get("width", LIGHT_WIDTH if blueprint.light else WIDTH),
        fused_cells(blueprint),
        options.get("merge", "concat"),
        options.get("norm", "batch"),
        fraction,
        options.get("align_corners", True),
        kernel=kernel or 1,
        source_norm=options.get("source_norm", "none"),
        source_scale=float(options.get("source_scale", SOURCE_SCALE)),
        project=options.get("project", 0),
        upsample=options.get("upsample", "bilinear"),
    )


def check_fusion(blueprint: Blueprint) -> None:
    """Raise ConfigError for an option of the fusion that is wrong, or that would have no effect."""
    options = blueprint.options
    for key in ("align_corners", "reduce_all"):
        if not isinstance(options.get(key, True), bool):
            raise ConfigError(f"{key} is {options[key]!r}; it is true or false")
    sources = options.get("sources", ())
    if not isinstance(sources, (list, tuple)) or not all(isinstance(name, str) for name in sources):
        what = "the text " if isinstance(sources, str) else ""
        raise ConfigError(f"sources is {what}{sources!r}; it is a list such as [conv4_3, fc7]")
    if len(set(sources)) < len(sources):
        raise ConfigError(f"sources is {sources!r}; name each map once")
    _check_as_is(options)
    for key in ("width", "project"):
        value = options.get(key, 1)
        if not isinstance(value, int) or isinstance(value, bool) or value < (key == "width"):
            raise ConfigError(f"{key} is {value!r}; it is a number of channels")
    transform, stride = options.get("transform", "1x1"), options.get("fused_stride", FINEST_STRIDE)
    if not isinstance(transform, str) or transform not in KERNELS:
        raise ConfigError(f"there is no transform {transform!r}{nearest(str(transform), KERNELS)}")
    if type(stride) is not int or stride not in STRIDES:
        raise ConfigError(f"fused_stride is {stride!r}; it is {' or '.join(map(str, STRIDES))}")
    scale = options.get("source_scale", SOURCE_SCALE)
    if not isinstance(scale, (int, float)) or isinstance(scale, bool) or not 0 < scale < math.inf:
        raise ConfigError(f"source_scale is {scale!r}; it is a number above 0")
    _check_effects(options)


def _check_as_is(options: Mapping[str, Any]) -> None:
    """Raise ConfigError unless as_is names sources."""
    names = options.get("as_is", ())
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"as_is is {names!r}; it is a list such as [stride8]")
    if len(set(names)) < len(names):
        raise ConfigError(f"as_is is {names!r}; name each source once")
    if names and options.get("reduce_all"):
        raise ConfigError("reduce_all puts a 1x1 on every source; leave out as_is, or reduce_all")


def _check_effects(options: Mapping[str, Any]) -> None:
    """Raise ConfigError for an option that another one makes void."""
    if options.get("transform") == "none":
        for key in ("width", "as_is", "reduce_all"):
            if options.get(key):
                raise ConfigError(f"transform 'none' takes every source as it is; leave out {key}")
    if "source_scale" in options and options.get("source_norm") != "l2":
        raise ConfigError("source_scale is of source_norm 'l2'; choose that, or leave source_scale out")
    if "align_corners" in options and options.get("upsample") == "deconvolution":
        raise ConfigError("upsample 'deconvolution' resizes nothing; leave out align_corners")
    if options.get("pyramid") == "with-fused" and options.get("fused_stride", FINEST_STRIDE) != FINEST_STRIDE:
        raise ConfigError(
            f"the pyramid 'with-fused' predicts from the fused map, which has stride {FINEST_STRIDE};"
            " leave out fused_stride"
        )


def _sources(
    names: tuple[str, ...], shapes: Mapping[str, MapShape], as_is: set[str], blueprint: Blueprint
) -> tuple[Source, ...]:
    known = [*shapes, *(name for name in blueprint.more if name not in shapes), GLOBAL]
    if not names:
        raise ConfigError(f"fusion needs at least one source; known: {', '.join(known)}")
    last = list(blueprint.shapes)[-1]
    sources = []
    for name in names:
        of = last if name == GLOBAL and GLOBAL not in shapes else name
        if of not in shapes:
            raise ConfigError(f"there is no feature map {name!r} to fuse{nearest(name, known)}")
        shape = shapes[of]
        if of == name:
            sources.append(Source(name, shape.channels, name not in as_is, shape.cells))
        else:  # modules cannot be called global: torch's exporter writes Python with their names
            sources.append(Source(f"{of}_mean", shape.channels, name not in as_is, shape.cells, averaged=of))
    _check_enlarged(sources, blueprint)
    return tuple(sources)


def _check_enlarged(sources: list[Source], blueprint: Blueprint) -> None:
    """Raise ConfigError if there is nothing to deconvolve."""
    fused = fused_cells(blueprint)
    smaller = [s for s in sources if s.averaged is None and s.cells < fused]
    if blueprint.options.get("upsample") == "deconvolution" and not smaller:
        raise ConfigError("no source is smaller than the fused map; leave out upsample")
