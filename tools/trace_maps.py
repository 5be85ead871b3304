"""The feature maps of a built network and how they are made of each other, found by running its neck.

The neck runs on the meta device, where tensors have shapes and no values, and every operation on them is
noted. What is left is what a reader wants to see: the maps that are merged, branch, shrink or are predicted
from. All other operations become labels of the arrows between them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fssd.model.network import Network

MERGES = {"cat": "concat", "stack": "concat", "add": "sum", "mul": "product", "sum": "sum"}
NORMS = {
    "native_batch_norm",
    "_native_batch_norm_legit",
    "_native_batch_norm_legit_no_training",
    "cudnn_batch_norm",
}
POOLS = {"max_pool2d_with_indices", "max_pool2d", "avg_pool2d"}
VIEWS = {
    "view",
    "_unsafe_view",
    "permute",
    "clone",
    "reshape",
    "unsqueeze",
    "squeeze",
    "transpose",
    "_reshape_alias",
}
GATHERS = {"index", "index_select", "gather", "slice", "select", "lerp"}  # what a resize by hand is made of
MANY = 3  # convolutions in a row that are still named one by one


@dataclass
class Step:
    """One operation: its name, the steps it reads, the shape of its output, and the module that ran it.

    detail: of a convolution, its kernel and stride.
    """

    op: str
    inputs: tuple[int, ...]
    shape: tuple[int, ...]
    module: str
    detail: str = ""


@dataclass(frozen=True)
class Map:
    """name: of the map. channels, rows, columns. kind: source (of the backbone), merge, map or level."""

    name: str
    channels: int
    rows: int
    columns: int
    kind: str


@dataclass(frozen=True)
class Arrow:
    """start, end: indices of maps. way: how the size changes. label: the other operations."""

    start: int
    end: int
    way: str
    label: str


@dataclass
class Structure:
    """The maps, those of the backbone first and the levels last, and the arrows between them."""

    maps: list[Map] = field(default_factory=list)
    arrows: list[Arrow] = field(default_factory=list)

    def text(self) -> str:
        """One line for each arrow; equal networks have equal texts."""
        names = [f"{m.name} {m.channels}x{m.rows}x{m.columns}" for m in self.maps]
        lines = [
            f"{names[a.start]} -> {names[a.end]}: {', '.join(filter(None, (a.label, a.way)))}"
            for a in self.arrows
        ]
        return "\n".join(lines)


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes every operation on tensors that come from those in `add`."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.steps: list[Step] = []
        self.made: dict[int, int] = {}  # id of a tensor -> its step
        self.kept: list[Tensor] = []  # so that no id is used twice
        self.path: list[str] = []

    def add(self, tensor: Tensor, step: Step) -> int:
        self.steps.append(step)
        self.made[id(tensor)] = len(self.steps) - 1
        self.kept.append(tensor)
        return len(self.steps) - 1

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        inputs = [self.made[id(x)] for x in tree_leaves((args, kwargs)) if id(x) in self.made]
        if inputs:
            name = func.__name__.partition(".")[0].removesuffix("_")
            detail = _convolution(args) if name == "convolution" else ""
            for tensor in (x for x in tree_leaves(out) if isinstance(x, Tensor)):
                step = Step(name, tuple(inputs), tuple(tensor.shape), ".".join(self.path[-1:]), detail)
                self.add(tensor, step)
        return out


def _convolution(args: Sequence[Any]) -> str:
    """`3x3 s2`, `deconv 2x2`, `3x3 depthwise`. args: those of `aten.convolution`."""
    inputs, weight, stride, dilation, transposed, groups = (
        args[0],
        args[1],
        args[3],
        args[5],
        args[6],
        args[8],
    )
    rows, columns = weight.shape[2:]
    words = ["deconv"] if transposed else []
    words.append(f"{rows}x{columns}")
    if not transposed and max(stride) > 1:
        words.append(f"s{max(stride)}")
    if max(dilation) > 1:
        words.append(f"d{max(dilation)}")
    if groups > 1 and groups == inputs.shape[1]:
        words.append("depthwise")
    return " ".join(words)


@contextmanager
def _named(neck: nn.Module, recorder: _Recorder) -> Iterator[None]:
    """While it lasts, the recorder knows which module runs."""
    handles = []
    for name, module in neck.named_modules():

        def enter(_: nn.Module, __: Any, name: str = name) -> None:
            recorder.path.append(name)

        def leave(_: nn.Module, __: Any, ___: Any) -> None:
            recorder.path.pop()

        handles += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def trace(network: Network) -> Structure:
    """The maps of a network on the meta device, from the backbone's to the levels."""
    width, height = network.image_size
    network.eval()
    recorder = _Recorder()
    with torch.no_grad():
        features = network.backbone(torch.zeros(1, 3, height, width, device="meta"))
        for name, x in features.items():
            recorder.add(x, Step("source", (), tuple(x.shape), name))
        with _named(network.neck, recorder), recorder:
            levels = network.neck(dict(features))
    return _Reader(recorder.steps, [recorder.made[id(x)] for x in levels]).structure()


class _Reader:
    """Reduces steps to maps and arrows.

    head: for each step the step whose map it belongs to: activations and norms belong to what they follow.
    before: the step that a step continues; -1 for sources and merges.
    """

    def __init__(self, steps: Sequence[Step], levels: Sequence[int]) -> None:
        self.steps, self.levels = steps, levels
        needed = set(levels)
        for index in range(len(steps) - 1, -1, -1):
            needed |= set(steps[index].inputs) if index in needed else set()
        self.readers = Counter(i for index in needed for i in set(steps[index].inputs))
        self.readers.update(levels)
        self.order = [index for index in range(len(steps)) if index in needed]
        self.head: dict[int, int] = {}
        self.depth: dict[int, int] = {}
        self.before: dict[int, int] = {}
        self.merged: dict[int, tuple[str, tuple[int, ...]]] = {}  # what is merged how
        self.shape: dict[int, tuple[int, ...]] = {}
        self.normed: set[int] = set()
        for index in self.order:
            self._place(index)

    def _place(self, index: int) -> None:
        step = self.steps[index]
        self.shape[index] = step.shape
        inputs = tuple(dict.fromkeys(self.head[i] for i in step.inputs))
        roots = {self._gathered(i) for i in inputs}
        if not inputs:
            self._start(index)
        elif len(inputs) > 1 and len(roots) == 1 and step.op not in ("cat", "stack", "div"):
            step.op = "upsample"
            self._continue(index, tuple(roots))
        elif step.op in ("cat", "stack") or (
            len(inputs) > 1 and step.op in MERGES and len(self._entering(index)) > 1
        ):
            self._start(index)
            self.merged[index] = (MERGES[step.op], tuple(self._taken(step)))
        else:
            self._continue(index, inputs)

    def _taken(self, step: Step) -> Iterator[int]:
        """The maps that a merge takes; of a sum of sums, which are made one by one, all that are summed."""
        for i in step.inputs:
            own = self.steps[i]
            is_part = step.op == own.op == "add" and own.module == step.module and self.readers[i] == 1
            if is_part and i in self.merged:
                yield from self.merged.pop(i)[1]
            else:
                yield self.head[i]

    def _gathered(self, step: int) -> int:
        """The map whose cells a step has picked, or the step itself."""
        while self.before[step] >= 0 and self.steps[step].op in GATHERS | {"upsample"}:
            step = self.before[step]
        return step

    def _entering(self, index: int) -> set[int]:
        """The maps that enter the module of a step and lead to it: one for a residual block."""
        module, found, waiting = self.steps[index].module, set(), [index]
        while waiting:
            step = waiting.pop()
            for before in self.steps[step].inputs:
                own = self.steps[before]
                inside = module and (own.module == module or own.module.startswith(f"{module}."))
                if inside and own.op != "source":
                    waiting.append(before)
                else:
                    found.add(self.head[before])
        return found

    def _start(self, index: int) -> None:
        self.head[index] = index
        self.depth[index], self.before[index] = 0, -1

    def _continue(self, index: int, inputs: tuple[int, ...]) -> None:
        """An operation on one map, a residual sum, or a division by the map's own norm."""
        step = self.steps[index]
        same = [i for i in inputs if self.shape[i] == step.shape] or list(inputs)
        is_norm = len(step.inputs) > 1 and step.op == "div"
        main = same[0] if is_norm else max(same, key=self.depth.__getitem__)
        belongs = not self._is_visible(step, main) and not is_norm and self.before[main] >= 0
        if step.op in NORMS and self.readers[step.inputs[0]] == 1:  # else the map itself is used too
            self.normed.add(main)
        if main in self.merged and not self._is_visible(step, main) and not is_norm:
            belongs = True
            if len(self.shape[main]) != 4:  # the sum of a stack
                self.merged[main] = (MERGES.get(step.op, self.merged[main][0]), self.merged[main][1])
                self.shape[main] = step.shape
        if belongs:
            self.head[index] = main
            return
        self.head[index] = index
        self.depth[index], self.before[index] = self.depth[main] + 1, main
        if is_norm:
            self.steps[index].detail = "L2 norm"

    def _is_visible(self, step: Step, main: int) -> bool:
        """Whether an operation on a map makes another map, rather than an activation of the same one."""
        size_changes = step.shape[-2:] != self.shape[main][-2:] or len(step.shape) != len(self.shape[main])
        is_stacked = main in self.merged and len(self.shape[main]) != 4
        return step.op == "convolution" or (size_changes and not is_stacked)

    def structure(self) -> Structure:
        levels = [self.head[i] for i in self.levels]
        kept = self._kept(levels)
        index = {step: number for number, step in enumerate(kept)}
        found = Structure([self._map(step) for step in kept])
        for step in kept:
            starts = self.merged[step][1] if step in self.merged else (self.before[step],)
            for start in starts if self.steps[step].op != "source" else ():
                found.arrows.append(self._arrow(start, step, index))
        for number, level in enumerate(levels, start=1):
            channels, rows, columns = self.shape[level][-3:]
            found.maps.append(Map(f"level {number}", channels, rows, columns, "level"))
            found.arrows.append(self._arrow(level, None, index, end=len(found.maps) - 1))
        return found

    def _kept(self, levels: Sequence[int]) -> list[int]:
        """Sources, merges, maps that branch, and maps that a convolution made smaller, in order."""
        ends = [(level, -1 - number) for number, level in enumerate(levels)]
        ends += [(i, merge) for merge, (_, inputs) in self.merged.items() for i in inputs]
        kept = {step for step in self.merged if step in self._reached(ends)}
        followers: dict[int, set[int]] = {}
        for start, end in ends:
            if end >= 0 and end not in kept:
                continue
            chain = [end, start]
            while self.before[chain[-1]] >= 0:
                chain.append(self.before[chain[-1]])
            chain.reverse()
            kept.add(chain[0])
            kept |= {
                self._end_of_block(chain[:-1], i) for i in range(1, len(chain) - 1) if self._shrinks(chain[i])
            }
            for step, follower in pairwise(chain):
                followers.setdefault(step, set()).add(follower)
        kept |= {step for step, after in followers.items() if len(after) > 1}
        return sorted(kept, key=lambda step: (self.steps[step].op != "source", step))

    def _end_of_block(self, chain: Sequence[int], index: int) -> int:
        """The last step of the block that a step of a chain belongs to, if the map keeps its size there."""
        name = _short(self.steps[chain[index]].module)
        for step, follower in pairwise(chain[index:]):
            same_size = self.shape[follower][-2:] == self.shape[step][-2:]
            if _short(self.steps[follower].module) != name or not same_size:
                return step
        return chain[-1]

    def _reached(self, ends: Sequence[tuple[int, int]]) -> set[int]:
        reached: set[int] = set()
        waiting = [start for start, end in ends if end < 0]
        while waiting:
            start = waiting.pop()
            while start not in reached:
                reached.add(start)
                if start in self.merged:
                    waiting += self.merged[start][1]
                if self.before[start] < 0:
                    break
                start = self.before[start]
        return reached

    def _shrinks(self, step: int) -> bool:
        before = self.shape[self.before[step]]
        own = self.shape[step]
        return self.steps[step].op == "convolution" and own[-2] * own[-1] < before[-2] * before[-1]

    def _map(self, step: int) -> Map:
        own, shape = self.steps[step], self.shape[step]
        channels, rows, columns = shape[-3:]
        if own.op == "source":
            return Map(own.module, channels, rows, columns, "source")
        if step in self.merged:
            name = self.merged[step][0] + ("" if step not in self.normed else " + BN")
            return Map(name, channels, rows, columns, "merge")
        while not self._is_layer(step) and self.before[step] >= 0:
            step = self.before[step]  # a resized or pooled copy has the name of its original
        own = self.steps[step]
        if step in self.merged:
            return Map(self.merged[step][0], channels, rows, columns, "map")
        return Map(own.module if own.op == "source" else _short(own.module), channels, rows, columns, "map")

    def _is_layer(self, step: int) -> bool:
        own = self.steps[step]
        return own.op == "convolution" and not own.detail.startswith("deconv")

    def _arrow(self, last: int, step: int | None, index: dict[int, int], end: int = -1) -> Arrow:
        """From the kept map that a step comes from. step: None for a level, whose last step is `last`."""
        chain = [] if step is None or step in self.merged else [step]
        while last not in index:
            chain.append(last)
            last = self.before[last]
        chain.reverse()
        target = end if step is None else index[step]
        return Arrow(index[last], target, self._way(chain, last), self._label(chain))

    def _way(self, chain: Sequence[int], start: int) -> str:
        """How the map's size changes on the way, apart from convolutions with stride."""
        ops = [self.steps[step].op for step in chain]
        details = [self.steps[step].detail for step in chain]
        if any(detail.startswith("deconv") for detail in details):
            return "deconvolution"
        if any(op.startswith("upsample") or op in GATHERS for op in ops):
            return "resize"
        if any(op in POOLS for op in ops):
            return "pool"
        if any(op in ("mean", "adaptive_avg_pool2d", "_adaptive_avg_pool2d") for op in ops):
            return "global pool"
        grid = self.shape[chain[-1]][-2:] if chain else self.shape[start][-2:]
        is_moved = any(op in VIEWS for op in ops) and grid != self.shape[start][-2:]
        return "reorg" if is_moved and "convolution" not in ops[-1:] else ""

    def _label(self, chain: Sequence[int]) -> str:
        words = [self.steps[step].detail for step in chain if self.steps[step].detail]
        words = [word for word in words if not word.startswith("deconv")]
        if len(words) > MANY:
            strides = [word for word in words if " s2" in word]
            return f"{len(words)} convolutions" + (f", {strides[0]}" if strides else "")
        return ", ".join(words)


def _short(module: str) -> str:
    """`conv7_2` of `extras.conv7_2.0`, `smooth.3` of `smooth.3.0`: the part of a path that names a map."""
    parts = module.split(".")
    named = [part for part in parts if any(map(str.isalpha, part)) and any(map(str.isdigit, part))]
    if named:
        return named[0]
    numbered = [i for i, part in enumerate(parts) if part.isdigit()]
    return ".".join(parts[: numbered[0] + 1]) if numbered else parts[-1]
