"""The fastest way to run a network on CUDA: folded, channels last, in bfloat16, as one CUDA graph.

    det = fssd.Detector.load("runs/mine", device="cuda")
    fast = fssd.Detector(CudaRunner(det.network), det.classes)

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


class CudaRunner(NetworkRunner):
    """A network on a CUDA device, with one graph per batch size; the last two graphs are kept.

    dtype: of the convolutions, torch.bfloat16 or torch.float32. Raises ConfigError for a network elsewhere.
    """

    def __init__(self, network: Network, dtype: torch.dtype = torch.bfloat16) -> None:
        device = network.device
        if device.type != "cuda":
            raise ConfigError(f"a CUDA graph cannot run on {device}; load the network with device='cuda'")
        super().__init__(network)
        self.folded = Folded(network, dtype).to(device)
        self.graphs: dict[int, Callable[[Tensor], Raw]] = {}
        self.turn = threading.Lock()  # all calls of a graph use the same memory

    @torch.inference_mode()
    def predict(self, images: Tensor) -> Raw:
        batch = len(images)
        with self.turn:
            if batch not in self.graphs:
                if len(self.graphs) == 2:
                    del self.graphs[next(iter(self.graphs))]
                self.graphs[batch] = capture(self.folded, images.to(self.network.device))
            return self.graphs[batch](images)

    def __reduce__(self) -> tuple[Any, ...]:
        return CudaRunner, (self.network, self.folded.dtype)


def capture(module: Callable[[Tensor], Raw], example: Tensor) -> Callable[[Tensor], Raw]:
    """`module` as a CUDA graph, for inputs of the shape of `example`.

    Results are copies, because the next call overwrites the graph's memory.
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
        with torch.cuda.graph(graph):
            outputs = module(inputs)

    def replay(images: Tensor) -> Raw:
        inputs.copy_(images, non_blocking=True)
        graph.replay()
        return tuple(output.clone() for output in outputs)

    return replay
