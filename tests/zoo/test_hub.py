"""hf:// addresses and `fssd push`, against a stand-in for the hub that huggingface_hub talks to."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from fssd.cli.main import main
from fssd.data.scenes import CLASSES
from fssd.errors import ConfigError, shown
from fssd.export.shared_model import write_shared_model
from fssd.runtimes.choose import RUNTIMES
from fssd.weights.checkpoint import load_model
from fssd.weights.model_card import model_card
from fssd.zoo.hub import BESIDE, HubAddress, hub_file, read_address
from fssd.zoo.models import PHOTOS

_spec = importlib.util.spec_from_file_location("hub_server", Path(__file__).with_name("hub_server.py"))
assert _spec is not None and _spec.loader is not None
_module = importlib.util.module_from_spec(_spec)
sys.modules["hub_server"] = _module
_spec.loader.exec_module(_module)


@pytest.fixture
def hub() -> Iterator[Any]:
    pytest.importorskip("huggingface_hub", reason='needs huggingface_hub: pip install "fssd[hub]"')
    server = _module.HubServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def fssd(home: Path, url: str, *arguments: object, token: str = "", offline: bool = False) -> Any:
    """A command in a process of its own: huggingface_hub reads its variables when it is imported."""
    variables = {"HF_ENDPOINT": url, "HF_HOME": str(home), "HF_HUB_OFFLINE": str(int(offline))}
    variables |= {"HF_TOKEN": token} if token else {}
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    command = [sys.executable, "-m", "fssd", *map(str, arguments)]
    return subprocess.run(
        command, env=kept | variables, capture_output=True, text=True, timeout=300, check=False, cwd=home
    )


def test_push_and_read_back(hub: Any, model_file: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "best.safetensors").write_bytes(model_file.read_bytes())
    (run / "config.yaml").write_text("data: /home/me/photos\nepochs: 3\n")
    address = "hf://user/digits"
    refused = fssd(tmp_path, hub.url, "push", run, address)
    assert refused.returncode == 2
    assert "error: hf://user/digits: the hub refuses (401); log in with `hf auth login`" in refused.stderr
    arguments = ("push", run, address, "--licence", "mit", "--private")
    pushed = fssd(tmp_path, hub.url, *arguments, token=_module.TOKEN)
    assert pushed.returncode == 0, pushed.stderr
    assert "best.safetensors, README.md, config.yaml written to" in pushed.stdout
    files = hub.repositories["user/digits"]
    assert set(files) == {"best.safetensors", "README.md", "config.yaml"}
    assert hub.private == {"user/digits"}
    assert files["best.safetensors"] == model_file.read_bytes()
    assert yaml.safe_load(files["config.yaml"]) == {"epochs": 3}, "no folders of this machine"
    assert yaml.safe_load(files["README.md"].split(b"---")[1])["license"] == "mit"

    files["last.safetensors"] = b"a training state, which nobody needs"
    found = tmp_path / "found"
    detect = (
        "detect",
        address,
        PHOTOS[0],
        "--out",
        found,
        "--score",
        "0.05",
        "--keep",
        "2",
        "--device",
        "cpu",
    )
    read = fssd(tmp_path, hub.url, *detect)
    assert read.returncode == 0, read.stderr
    assert (found / "detections.json").is_file()
    assert not any("last.safetensors" in line for line in hub.requests)
    gone = fssd(tmp_path, "http://127.0.0.1:9", *detect, offline=True)
    assert gone.returncode == 0, "the cache is read where there is no network" + gone.stderr


def test_the_model_pushed_last_is_the_one_that_is_read(hub: Any, model_file: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "best.safetensors").write_bytes(model_file.read_bytes())
    (run / "config.yaml").write_text("epochs: 3\n")
    pushed = fssd(tmp_path, hub.url, "push", run, "hf://user/digits", token=_module.TOKEN)
    assert pushed.returncode == 0 and "removed" not in pushed.stdout, pushed.stderr
    hub.repositories["user/digits"]["notes.txt"] = b"of the author's own"
    again = fssd(tmp_path, hub.url, "push", model_file, "hf://user/digits", token=_module.TOKEN)
    assert again.returncode == 0, again.stderr
    assert "note: best.safetensors, config.yaml of an earlier model removed there" in again.stdout
    assert set(hub.repositories["user/digits"]) == {"final.safetensors", "README.md", "notes.txt"}
    read = fssd(tmp_path, hub.url, "fetch", "hf://user/digits")
    assert read.returncode == 0 and "final.safetensors" in read.stdout, read.stderr


def test_which_files_belong_together() -> None:
    assert {runtime.suffix: runtime.beside for runtime in RUNTIMES.values() if runtime.beside} == BESIDE


def test_an_exported_file_comes_with_those_beside_it(hub: Any, tmp_path: Path) -> None:
    hub.repositories["user/nets"] = {
        f"small/net.{kind}": kind.encode() for kind in ("param", "bin", "json", "xml", "png")
    }
    hub.repositories["user/nets"]["net.bin"] = b"another"
    for kind, wanted in (("xml", {"xml", "bin"}), ("param", {"xml", "bin", "param", "json"})):
        done = fssd(tmp_path, hub.url, "fetch", f"hf://user/nets/small/net.{kind}")
        assert done.returncode == 0, done.stderr
        (snapshot,) = (tmp_path / "hub").glob("models--user--nets/snapshots/*")
        found = {str(file.relative_to(snapshot)) for file in snapshot.rglob("*") if file.is_file()}
        assert found == {f"small/net.{one}" for one in wanted}


def test_what_cannot_be_had(hub: Any, model_file: Path, tmp_path: Path) -> None:
    hub.repositories["user/empty"] = {"README.md": b"nothing"}
    for address, told in (
        (
            "hf://user/none",
            "hf://user/none: there is no such repository, or it is private; check the address",
        ),
        ("hf://user/empty", "holds no best.safetensors or final.safetensors; name a file that it holds"),
    ):
        done = fssd(tmp_path, hub.url, "fetch", address)
        assert done.returncode == 2 and told in done.stderr, done.stderr
    done = fssd(tmp_path, "http://127.0.0.1:9", "fetch", "hf://user/none", offline=True)
    assert done.returncode == 2
    assert "the hub cannot be reached and the cache does not hold it" in done.stderr, done.stderr
    done = fssd(tmp_path, "http://127.0.0.1:9", "push", model_file, "hf://user/none", token=_module.TOKEN)
    assert done.returncode == 2 and "the hub cannot be reached (" in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("hf://user/name", HubAddress("user/name", None, None)),
        ("hf://user/name@v1.0", HubAddress("user/name", "v1.0", None)),
        ("hf://user/name/sub/model.onnx", HubAddress("user/name", None, "sub/model.onnx")),
        ("hf://user/name@v1/model.xml", HubAddress("user/name", "v1", "model.xml")),
        ("hf://user/name@refs%2Fpr%2F1", HubAddress("user/name", "refs/pr/1", None)),
        ("hf://user/name@refs%2Fpr%2F1/a/b.onnx", HubAddress("user/name", "refs/pr/1", "a/b.onnx")),
    ],
)
def test_addresses(text: str, address: HubAddress) -> None:
    assert read_address(text) == read_address(Path(text)) == address
    assert shown(Path(text)) == text


@pytest.mark.parametrize(
    "text",
    ["hf://name", "hf://", "hf://user/name/../x", "hf://a b/c", "hf://user/name@", "hf://user/name@v1/"],
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ConfigError, match=r"is no address on a hub; write hf://user/name"):
        read_address(text)


def test_without_the_package(refuse: Any, capsys: pytest.CaptureFixture[str]) -> None:
    refuse("huggingface_hub")
    hub_file.cache_clear()
    assert main(["detect", "hf://user/name", str(PHOTOS[0])]) == 2
    told = 'error: hf:// needs the package huggingface_hub; pip install "fssd[hub]"\n'
    assert capsys.readouterr().err == told


def test_where_a_model_cannot_be_pushed(model_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for target, told in (("digits", "is no address on a hub"), ("hf://user/name@v1", "leave the rest out")):
        assert main(["push", str(model_file), target]) == 2
        assert told in capsys.readouterr().err


def test_the_card(model_file: Path, tmp_path: Path) -> None:
    written = write_shared_model(model_file, tmp_path, address="hf://me/digits")
    assert written.files == ["final.safetensors", "README.md"]
    assert load_model(tmp_path / "final.safetensors").classes == CLASSES
    text = (tmp_path / "README.md").read_text()
    header = yaml.safe_load(text.split("---")[1])
    assert header["library_name"] == "fssd" and header["pipeline_tag"] == "object-detection"
    assert "license" not in header and "| licence | not stated |" in text
    assert "# digits\n" in text and "fssd detect hf://me/digits photo.jpg" in text
    assert "| input | 300 x 300 pixels |" in text and ", ".join(CLASSES) in text
    facts = {"model": "m", "classes": ["a|b"], "metrics": {"map": 0.71234, "metric": "voc07", "images": 1200}}
    facts |= {
        "imported_from": "x.pth",
        "url": "https://h/x.pth",
        "sha256": "ab",
        "licence": "BSD",
        "iteration": 9,
    }
    card = model_card(facts, (300, 200), 12345, "hf://me/m", "mit")
    for row in (
        "| network | `m`, 12,345 parameters |", "| input | 300 x 200 pixels |", "| classes | a\\|b |",
        "| mAP (voc07) | 0.7123 on 1,200 images |", "| imported from | https://h/x.pth, sha256 ab |",
        "| licence of those weights | BSD |", "| licence | mit |", "| updates of the training | 9 |",
    ):  # fmt: skip
        assert row in card
