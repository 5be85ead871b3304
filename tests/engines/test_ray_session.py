"""The connection to Ray: which cluster is joined, and what is said where none can be."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
from ray_cluster import RayCluster

from fssd.engines.ray_session import connect
from fssd.errors import ConfigError

JOIN = """
import signal
from fssd.engines.ray_session import connect
before = signal.getsignal(signal.SIGTERM)
with connect() as ray:
    assert ray.cluster_resources()["CPU"] == 2
    with connect() as again:
        assert again.is_initialized()
    assert ray.is_initialized(), "a session that was open stays open"
    assert signal.getsignal(signal.SIGTERM) is before
assert not ray.is_initialized()
"""


def test_the_cluster_of_the_environment_is_joined(ray_cluster: RayCluster) -> None:
    ray_cluster.require(2)
    joined = subprocess.run([sys.executable, "-c", JOIN], capture_output=True, text=True, check=False)
    assert joined.returncode == 0, joined.stderr


@pytest.mark.parametrize("address", ["127.0.0.1:1", "a..b:6379"])
def test_an_address_where_no_cluster_is(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason='needs Ray: pip install "fssd[ray]"')
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(ConfigError, match=f"RAY_ADDRESS is '{address}'") as caught, connect():
        pass
    assert "\n" not in str(caught.value)


def test_a_missing_ray_is_named(refuse: Callable[[str], None]) -> None:
    refuse("ray")
    with pytest.raises(ConfigError, match=r'pip install "fssd\[ray\]"'), connect():
        pass
