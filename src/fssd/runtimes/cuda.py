"""The fastest way to run a network on CUDA: folded, channels last, in bfloat16, as one CUDA graph.

    det = fssd.Detector.load("runs/mine", device="cuda")
    fast = fssd.Detector(CudaRunner(det.network), det.classes, det.facts)

A graph launches all kernels at once; launching them one by one takes longer than a small batch computes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fssd.errors import ConfigError
from fssd.heads.head import Raw
from fssd.model.fold import fold
from fssd.model.network import Network, channels_last
from fssd.runtimes.runner import NetworkRunner

WARM_UP = 3  # passes before a graph is captured: during capture no kernel may be chosen or library loaded


class Folded(nn.Module):
    """A folded network that computes in `dtype`.

    Input: (B, 3, H, W) uint8 RGB. Output: the head's predictions in float32. The mean is subtracted in
    float32, because bfloat16 would round it by up to half a grey level.
    """

    def __init__(self, network: Network, dtype: torch.dtype) -> None:
        super().__init__()
        self.network = channels_last(fold(network))
        self.body = nn.Sequential(self.network.backbone, self.network.neck, self.network.heads).to(dtype)
        self.dtype = dtype

    def forward(self, images: Tensor) -> Raw:
        x = (images.float() - self.network.mean) / self.network.std
        predicted = self.body(x.to(self.dtype).contiguous(memory_format=torch.channels_last))
        return tuple(part.float() for part in predicted)


class Graphs:
    """Graphs of one module by batch size; the last two are kept.

    A batch that is smaller than a graph's is filled up to it the first time that its size is seen: the last
    batch of a data set is short once, and capturing a graph for it would take longer than it saves. A size
    that comes again gets a graph of its own. capture: makes the graph for inputs like an example.
    """

    def __init__(self, capture: Callable[[Tensor], Callable[[Tensor], Raw]]) -> None:
        self.capture = capture
        self.by_size: dict[int, Callable[[Tensor], Raw]] = {}
        self._filled: set[int] = set()

    def __call__(self, images: Tensor) -> Raw:
        """Images (B, 3, H, W) to the predictions of each."""
        batch = len(images)
        larger = [size for size in self.by_size if size > batch]
        if batch not in self.by_size and larger and batch not in self._filled:
            self._filled.add(batch)
            missing = images.new_zeros(min(larger) - batch, *images.shape[1:])
            return tuple(part[:batch] for part in self.by_size[min(larger)](torch.cat((images, missing))))
        if batch not in self.by_size:
            if len(self.by_size) == 2:
                del self.by_size[next(iter(self.by_size))]
            self.by_size[batch] = self.capture(images)
        return self.by_size[batch](images)


class CudaRunner(NetworkRunner):
    """A network on a CUDA device, with one graph per batch size, see `Graphs`.

    dtype: of the convolutions, torch.bfloat16 or torch.float32. Raises ConfigError for a network elsewhere.
    """

    def __init__(self, network: Network, dtype: torch.dtype = torch.bfloat16) -> None:
        device = network.device
        if device.type != "cuda":
            raise ConfigError(f"a CUDA graph cannot run on {device}; load the network with device='cuda'")
        super().__init__(network)
        self.folded = Folded(network, dtype).to(device)
        self.graphs = Graphs(lambda images: capture(self.folded, images.to(network.device)))
        self.turn = threading.Lock()  # all calls of a graph use the same memory

    @torch.inference_mode()
    def predict(self, images: Tensor) -> Raw:
        with self.turn:
            return self.graphs(images)

    def __reduce__(self) -> tuple[Any, ...]:
        return CudaRunner, (self.network, self.folded.dtype)


def capture(module: Callable[[Tensor], Raw], example: Tensor) -> Callable[[Tensor], Raw]:
    """`module` as a CUDA graph, for inputs of the shape of `example`.

    Results are copies, because the next call overwrites the graph's memory. Other threads may use the GPU
    meanwhile: those that pin memory, or serve another model.
    """
    inputs = example.clone()
    stream = torch.cuda.Stream(inputs.device)  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream(inputs.device))
    # With benchmark, cuDNN times its kernels and takes the fastest.
    with torch.backends.cudnn.flags(enabled=True, benchmark=True):
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                module(inputs)
        torch.cuda.current_stream(inputs.device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            outputs = module(inputs)

    def replay(images: Tensor) -> Raw:
        inputs.copy_(images, non_blocking=True)
        graph.replay()
        return tuple(output.clone() for output in outputs)

    return replay
