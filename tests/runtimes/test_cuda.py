"""The network as it runs on CUDA: its arithmetic on the CPU, its graphs where there is a GPU."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from fssd.errors import ConfigError
from fssd.export.images import make_pictures
from fssd.model.build import build_model
from fssd.model.network import Network
from fssd.runtimes.cuda import CudaRunner, Folded, Graphs


@pytest.fixture(scope="module")
def network(tiny_backbone: Callable[[], nn.Module]) -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return build_model("fssd300-lite", 3, backbone=tiny_backbone()).eval()


@torch.inference_mode()
def test_folded_in_float32_is_the_network(network: Network) -> None:
    images = make_pictures(2, (300, 300))
    expected = network(images.float())
    offsets, logits = Folded(network, torch.float32)(images)
    torch.testing.assert_close(offsets, expected.offsets, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(logits, expected.logits, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_folded_in_bfloat16_is_near_it(network: Network) -> None:
    images = make_pictures(2, (300, 300))
    expected = network(images.float())
    offsets, logits = Folded(network, torch.bfloat16)(images)
    assert offsets.dtype == logits.dtype == torch.float32
    error = (logits - expected.logits).norm() / expected.logits.norm()
    assert 0 < error < 0.03  # eight bits of fraction are 0.4 %, over a dozen layers


def test_a_network_that_is_not_on_a_gpu(network: Network) -> None:
    with pytest.raises(ConfigError, match="cannot run on cpu; load the network with device='cuda'"):
        CudaRunner(network)


def test_a_short_last_batch_is_filled_up_and_a_size_that_comes_again_gets_a_graph() -> None:
    captured: list[int] = []

    def capture(example: Tensor) -> Callable[[Tensor], tuple[Tensor, ...]]:
        size = len(example)
        captured.append(size)

        def replay(images: Tensor) -> tuple[Tensor, ...]:
            assert len(images) == size, "a graph has one size"
            return images.flatten(1).sum(dim=1), images[:, 0]

        return replay

    graphs = Graphs(capture)
    for batch in (8, 8, 3, 8, 3, 8, 5, 3, 1, 9, 8):
        images = torch.rand(batch, 3, 2, 2)
        total, first = graphs(images)
        assert torch.equal(total, images.flatten(1).sum(dim=1))
        assert torch.equal(first, images[:, 0])
    # 3 is filled up once and captured when it comes again; 9 is larger than all, and 8, which is let go for
    # it, is filled up to it.
    assert captured == [8, 3, 9]


@pytest.mark.cuda
def test_graphs_give_what_the_network_gives(network: Network) -> None:
    if not torch.cuda.is_available():
        pytest.skip("a CUDA graph needs CUDA")
    images = make_pictures(4, (300, 300))
    on_gpu = network.to("cuda")
    runner = CudaRunner(on_gpu, torch.float32)
    with torch.inference_mode():
        expected = on_gpu(images.to("cuda").float())
    (_, first), (_, second) = runner.predict(images[:2]), runner.predict(images[2:])
    torch.testing.assert_close(torch.cat((first, second)), expected.logits, atol=5e-3, rtol=5e-3)
    for batch in (1, 1, 3, 3, 4):  # the graphs of the first two sizes are let go
        offsets, logits = runner.predict(images[:batch])
        assert len(offsets) == len(logits) == batch
    assert list(runner.graphs.by_size) == [3, 4]
