"""A Ray cluster for the tests: a head and nodes that can be killed, in processes of this machine.

A pytest process has one for all its tests, and one test at a time uses Ray, also with several processes: on
two cores two would only make both slow. A lock is released by the system however its process ends.

What uses Ray should be a process of its own: one that is connected to a node that is killed is aborted.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

OBJECT_STORE = 80_000_000  # bytes, about the least that Ray takes
LOCK = Path(tempfile.gettempdir()) / f"fssd-tests-ray-{os.getuid()}.lock"


class RayCluster:
    """A head without CPUs, so that no work is lost with it, and nodes. address: for RAY_ADDRESS."""

    def __init__(self) -> None:
        from fssd.engines.ray_session import own_signals, require_ray

        # All programs that the tests start inherit the token. Ray reads the mode when it is imported, so it
        # must not be imported earlier.
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        os.environ.setdefault("RAY_health_check_period_ms", "1000")  # five in vain, and a node counts as lost
        require_ray()
        from ray.cluster_utils import Cluster

        options = {"num_cpus": 0, "object_store_memory": OBJECT_STORE, "include_dashboard": False}
        with own_signals():
            self._cluster = Cluster(initialize_head=True, head_node_args=options)
        self.nodes: list[Any] = []
        self.address = str(self._cluster.address)

    def require(self, count: int, cpus: int = 1) -> None:
        """Have that many nodes with `cpus` each, whatever the test before has killed."""
        from fssd.engines.ray_session import own_signals

        self.nodes = [node for node in self.nodes if node.any_processes_alive()]
        while len(self.nodes) > count:
            self._cluster.remove_node(self.nodes.pop())
        while len(self.nodes) < count:
            with own_signals():
                node = self._cluster.add_node(num_cpus=cpus, object_store_memory=OBJECT_STORE)
            self.nodes.append(node)
        self._cluster.wait_for_nodes()

    def kill_node(self, index: int = -1) -> None:
        """Kill a node with its workers, as a power cut would: when this returns, none of them does any more.

        Left alone, the workers of a killed raylet go on until they notice that it is gone.
        """
        import psutil  # Ray brings it along

        node = self.nodes.pop(index)
        raylets = [process.process.pid for process in node.all_processes["raylet"]]
        workers = [child for pid in raylets for child in psutil.Process(pid).children(recursive=True)]
        for worker in workers:
            with suppress(psutil.NoSuchProcess):
                worker.suspend()
        self._cluster.remove_node(node, allow_graceful=False)
        for worker in workers:
            with suppress(psutil.NoSuchProcess):
                worker.kill()
        _, alive = psutil.wait_procs(workers, timeout=60)
        assert not alive, alive

    def close(self) -> None:
        self._cluster.shutdown()


@contextmanager
def undisturbed() -> Iterator[None]:
    """Keep the Ray tests of other pytest processes waiting; their clusters idle in the meantime."""
    with LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
