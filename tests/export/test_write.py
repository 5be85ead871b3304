"""Exported files: they find what PyTorch finds, carry what they need, and a wrong one is not written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from fssd.data.source import open_data
from fssd.data.tiles import Tiles
from fssd.errors import CheckpointError, ConfigError, ExportError
from fssd.export import images as pictures
from fssd.export import write
from fssd.export.images import make_pictures
from fssd.export.trial import Trial
from fssd.export.write import export_model
from fssd.heads.head import Thresholds
from fssd.inference.detections import Detections
from fssd.inference.detector import Detector
from fssd.runtimes.choose import RUNTIMES
from fssd.runtimes.runner import NetworkRunner

onnx = pytest.importorskip("onnx", reason='needs onnx: pip install "fssd[export]"')
pytest.importorskip("onnxscript", reason='needs onnxscript: pip install "fssd[export]"')

PACKAGES = {"onnx": "onnxruntime", "openvino": "openvino"}
EXTRAS = {"onnxruntime": "export", "openvino": "openvino", "nncf": "openvino"}
NMS = Thresholds(score=0.05, nms=0.4, top_k=150, keep=60)


def need(package: str) -> None:
    """Skip the test where a package is absent. It is not imported: OpenVINO would set up its telemetry."""
    if find_spec(package) is None:
        pytest.skip(f'needs {package}: pip install "fssd[{EXTRAS[package]}]"')


@pytest.fixture(params=["onnx", "openvino"])
def to(request: pytest.FixtureRequest) -> str:
    need(PACKAGES[request.param])
    return str(request.param)


@pytest.fixture
def picture() -> np.ndarray:
    """(120, 200, 3) uint8 RGB."""
    return np.ascontiguousarray(make_pictures(5, (240, 240))[4].permute(1, 2, 0).numpy()[:120, :200])


@pytest.fixture
def export(
    detectors: dict[str, Detector], traced: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Any]:
    """`export_model` by the name of a detector, without tracing it again.

    damage: what to do to its graph. few: compare on 5 images.
    """

    def run(
        name: str,
        out: Path,
        to: Any,
        damage: Callable[[Any], None] | None = None,
        few: bool = True,
        **settings: Any,
    ) -> Any:
        graph = traced(name)
        if damage is not None:
            damage(graph)
        monkeypatch.setattr(pictures, "CHECKED", 5 if few else 33)
        monkeypatch.setattr(write, "trace", lambda *_: graph)
        return export_model(detectors[name], out, to, **settings)

    return run


def assert_same(one: Detections, other: Detections) -> None:
    """Box for box and in order; the pictures here have no ties."""
    assert np.array_equal(one.labels, other.labels)
    np.testing.assert_allclose(one.scores, other.scores, rtol=0, atol=1e-4)
    np.testing.assert_allclose(one.boxes, other.boxes, rtol=0, atol=0.1)
    assert one.classes == other.classes


@pytest.mark.parametrize(
    ("name", "nms"),
    [("fssd300-lite", None), ("fssd300-lite", NMS), ("ssd300-lite", NMS)],
    ids=["fssd-raw", "fssd-nms", "ssd-nms"],
)
def test_it_finds_what_pytorch_finds(
    detectors: dict[str, Detector],
    export: Callable[..., Any],
    picture: np.ndarray,
    tmp_path: Path,
    to: str,
    name: str,
    nms: Thresholds | None,
) -> None:
    out = tmp_path / f"model{RUNTIMES[to].suffix}"
    done = export(name, out, to, nms=nms, few=nms is not None)
    assert done.parity.images == (5 if nms else 33)
    assert done.parity.detections > 200
    assert done.parity.box < 0.01, "fp32 on both sides; 0.1 is for the odd processor"
    expected_files = {out.name, "model.bin"} if to == "openvino" else {out.name}
    assert {file.name for file in tmp_path.iterdir()} == expected_files

    loaded = Detector.load(out, device="cpu", threads=1)
    assert (loaded.classes, loaded.image_size) == (detectors[name].classes, (300, 300))
    assert loaded.facts["iteration"] == 7
    settings = vars(NMS)
    images = [picture, picture[::-1], picture[:60]]
    expected = detectors[name](images, **settings)
    assert all(len(found) > 3 for found in expected)
    for one, other in zip(expected, loaded(images, batch_size=2, **settings), strict=True):
        assert_same(one, other)
    above = float(np.median(expected[0].scores))
    fewer = {**settings, "score": above, "keep": 5}
    assert_same(detectors[name](picture, **fewer), loaded(picture, **fewer))
    assert len(loaded(picture, **{**settings, "score": 1.0})) == 0


@pytest.mark.parametrize(
    "wanted", [{"score": 0.01}, {"nms": 0.45}, {"top_k": 400}, {"keep": 61}], ids=lambda w: next(iter(w))
)
def test_what_a_file_with_nms_inside_cannot_do(
    export: Callable[..., Any], picture: np.ndarray, tmp_path: Path, wanted: dict[str, Any]
) -> None:
    need("onnxruntime")
    export("tiny", tmp_path / "a.onnx", "onnx", nms=NMS)
    loaded = Detector.load(tmp_path / "a.onnx")
    found = loaded(picture)  # the default score is above, the rest is left as it is inside
    assert 0 < len(found) <= 60 and found.scores.min() > 0.5
    with pytest.raises(ConfigError, match="--raw"):
        loaded(picture, **wanted)


def test_a_file_for_high_scores_needs_no_score(
    export: Callable[..., Any], picture: np.ndarray, tmp_path: Path
) -> None:
    """0.5 is the default of a call, but not where nothing below 0.6 is reported."""
    need("onnxruntime")
    export("tiny", tmp_path / "a.onnx", "onnx", nms=replace(NMS, score=0.6))
    loaded = Detector.load(tmp_path / "a.onnx")
    found = loaded(picture)
    assert len(found) > 0 and found == loaded(picture, score=0.6)


def test_padding_of_a_graph_with_nms(export: Callable[..., Any], tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    export("tiny", tmp_path / "a.onnx", "onnx", nms=replace(NMS, score=0.6))
    session = runtime.InferenceSession(tmp_path / "a.onnx", providers=["CPUExecutionProvider"])
    images = np.ascontiguousarray(make_pictures(4, (300, 300)).permute(0, 2, 3, 1).numpy())
    boxes, scores, labels, count = session.run(None, {"images": images})
    assert (boxes.shape, scores.shape, labels.shape, count.shape) == ((4, 60, 4), (4, 60), (4, 60), (4,))
    assert count.max() > 0
    for row, number in enumerate(count):
        assert np.all(scores[row, :number] > 0.6) and np.all(np.diff(scores[row, :number]) <= 0)
        assert set(labels[row, :number]) <= {0, 1, 2}
        assert not boxes[row, number:].any() and not scores[row, number:].any()
        assert np.all(labels[row, number:] == -1)


def first_bias(graph: Any) -> None:
    """A hundredth on the biases of the first convolution."""
    conv = next(n for n in graph.graph.node if n.op_type == "Conv")
    tensor = next(w for w in graph.graph.initializer if w.name == conv.input[2])
    values = onnx.numpy_helper.to_array(tensor) + np.float32(0.01)
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))


@pytest.mark.parametrize("nms", [None, NMS], ids=["raw", "nms"])
def test_a_broken_graph_leaves_nothing(
    export: Callable[..., Any], tmp_path: Path, to: str, nms: Thresholds | None
) -> None:
    out = tmp_path / f"model{RUNTIMES[to].suffix}"
    with pytest.raises(ExportError, match="differs from the PyTorch model"):
        export("tiny", out, to, damage=first_bias, nms=nms)
    assert list(tmp_path.iterdir()) == []
    for file in (out, out.with_suffix(".bin")):
        file.write_text("older")
    with pytest.raises(ExportError):
        export("tiny", out, to, damage=first_bias, nms=nms)
    assert {file.read_text() for file in tmp_path.iterdir()} == {"older"}


def test_a_new_file_takes_the_place_of_an_older_one(
    export: Callable[..., Any], picture: np.ndarray, tmp_path: Path, to: str
) -> None:
    out = tmp_path / f"model{RUNTIMES[to].suffix}"
    export("tiny", out, to)
    before = Detector.load(out)(picture, score=0.05)
    export("tiny", out, to)
    assert_same(before, Detector.load(out)(picture, score=0.05))


def test_a_link_leads_to_all_files(
    export: Callable[..., Any], picture: np.ndarray, tmp_path: Path, to: str
) -> None:
    suffix = RUNTIMES[to].suffix
    store, out = tmp_path / "store", tmp_path / f"lk{suffix}"
    store.mkdir()
    out.symlink_to(store / f"real{suffix}")
    for _ in range(2):  # the second time in place of the first
        export("tiny", out, to)
        names = {f"real{end}" for end in (suffix, *RUNTIMES[to].beside)}
        assert {file.name for file in store.iterdir()} == names
        assert set(tmp_path.iterdir()) == {store, out} and out.is_symlink()
    expected = Detector.load(store / f"real{suffix}")(picture, score=0.05)
    assert_same(expected, Detector.load(out)(picture, score=0.05))


def test_real_images_come_first(export: Callable[..., Any], tmp_path: Path) -> None:
    need("onnxruntime")
    for given, compared in ((7, 7), (3, 5)):
        done = export("tiny", tmp_path / "a.onnx", "onnx", images=make_pictures(given, (300, 300)))
        assert done.parity.images == compared


def test_a_shy_model_is_asked_with_lower_scores(
    detectors: dict[str, Detector], export: Callable[..., Any], tmp_path: Path
) -> None:
    """Class scores far below 0.01: a raw graph is compared below, one with NMS inside proves nothing."""
    need("onnxruntime")

    def shy(graph: Any) -> None:
        for tensor in graph.graph.initializer:
            if tensor.name.startswith("heads.conf.") and tensor.name.endswith(".3.bias"):
                values = onnx.numpy_helper.to_array(tensor).reshape(-1, 4).copy()
                values[:, 0] += 12
                tensor.CopyFrom(onnx.numpy_helper.from_array(values.reshape(-1), tensor.name))

    network = detectors["tiny"].network
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    try:
        for head in network.heads.conf:
            head[-1].bias.data.reshape(-1, 4)[:, 0] += 12
        parity = export("tiny", tmp_path / "a.onnx", "onnx", damage=shy).parity
        assert parity.detections > 0
        with pytest.raises(ExportError, match="finds nothing"):
            export("tiny", tmp_path / "b.onnx", "onnx", damage=shy, nms=Thresholds(score=0.5))
    finally:
        network.load_state_dict(state)
    assert not (tmp_path / "b.onnx").exists()


def test_nothing_of_this_machine_is_in_the_file(export: Callable[..., Any], tmp_path: Path) -> None:
    need("onnxruntime")
    export("tiny", tmp_path / "a.onnx", "onnx", nms=NMS)
    content = (tmp_path / "a.onnx").read_bytes()
    for path in (Path(write.__file__).parents[1], Path(torch.__file__).parent, tmp_path):
        assert os.fsencode(path) not in content


def test_eight_bits_are_measured_on_the_same_tiles(
    detectors: dict[str, Detector], scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny, seen = detectors["tiny"], []
    monkeypatch.setattr(write, "_map", lambda one, *_: seen.append(one.tiles) or 0.5)
    val, quantised = open_data(scenes, "val"), SimpleNamespace(geometry=tiny.geometry, thresholds=None)
    tiled = Detector(tiny.network, tiny.classes, tiles=120)
    trial = Trial(make_pictures(1, (32, 32)), val)
    assert write._measure(tiled, quantised, trial, allow_drop=False) == (0.5, 0.5)  # type: ignore[arg-type]
    assert seen == [Tiles(120), Tiles(120)]


@pytest.mark.parametrize(
    ("to", "nms"), [("onnx", None), ("openvino", NMS)], ids=["onnx", "openvino"], indirect=["to"]
)
def test_eight_bits(
    detectors: dict[str, Detector],
    export: Callable[..., Any],
    scenes: Path,
    picture: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    to: str,
    nms: Thresholds | None,
) -> None:
    if to == "openvino":
        need("nncf")
    out = tmp_path / f"model{RUNTIMES[to].suffix}"
    trial = Trial(make_pictures(6, (300, 300)), open_data(scenes, "val"), few=True)
    settings = {"nms": nms, "trial": trial}
    monkeypatch.setattr(
        write, "_map", lambda one, *_: 0.9 if isinstance(one.runner, NetworkRunner) else 0.885
    )
    with pytest.raises(ExportError, match=r"cost 1\.5 points of mAP \(90\.0 to 88\.5\)"):
        export("tiny", out, to, **settings)
    assert list(tmp_path.iterdir()) == []
    assert export("tiny", out, to, allow_drop=True, **settings).maps == (0.9, 0.885)
    monkeypatch.undo()

    loaded = Detector.load(out)
    assert loaded.facts["precision"] == "int8"
    maps = write._measure(detectors["tiny"], loaded.runner, trial, allow_drop=False)
    assert min(maps) >= 0 and max(maps) < 0.1, "measured indeed, on a network that knows nothing"
    wide, narrow = detectors["tiny"](picture, score=0.3), loaded(picture, score=0.3)
    assert abs(float(wide.scores[0]) - float(narrow.scores[0])) < 0.05
    assert not np.array_equal(wide.scores[:5], narrow.scores[:5])


def test_classes_that_the_detector_does_not_know_do_not_thin_a_loss(make_set: Callable[..., Any]) -> None:
    """Eight bits lose one of two cats: 50 points, however many dogs there are, which it never knew."""
    box = (10.0, 10.0, 60.0, 60.0)
    cats = [(0, 0.9, box)]
    dataset, found = make_set([([(0, box), (1, box)], cats), ([(0, box), (1, box)], cats)])
    _, less = make_set([([(0, box)], cats), ([(0, box)], [])])

    def asked(rows: list[Detections]) -> Any:
        own = [replace(one, classes=("cat",)) for one in rows]
        return SimpleNamespace(evaluate_on=lambda *_, **__: iter(own))

    assert [write._map(asked(rows), dataset, {}) for rows in (found, less)] == [1.0, 0.5]


def test_files_that_are_not_ours(tmp_path: Path) -> None:
    helper = pytest.importorskip("onnx").helper
    need("onnxruntime")
    graph = helper.make_graph(
        [helper.make_node("Identity", ["images"], ["out"])],
        "foreign",
        [helper.make_tensor_value_info("images", 1, [1])],
        [helper.make_tensor_value_info("out", 1, [1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    file = tmp_path / "foreign.onnx"
    file.write_bytes(model.SerializeToString())
    with pytest.raises(CheckpointError, match=r"foreign\.onnx.*fssd export"):
        Detector.load(file)
    for text, reason in (("{", "damaged"), ('{"format": 2}', "format 2"), ('{"format": 1}', "damaged")):
        helper.set_model_props(model, {"fssd": text})
        file.write_bytes(model.SerializeToString())
        with pytest.raises(CheckpointError, match=reason):
            Detector.load(file)


@pytest.mark.parametrize("content", [None, b"", b"nothing of the kind"])
@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_files_that_are_no_model(tmp_path: Path, suffix: str, content: bytes | None) -> None:
    need("onnxruntime" if suffix == ".onnx" else "openvino")
    file = tmp_path / f"model{suffix}"
    if content is not None:
        file.write_bytes(content)
        file.with_suffix(".bin").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model\."):
        Detector.load(file)


def test_openvino_without_its_weights(export: Callable[..., Any], tmp_path: Path) -> None:
    need("openvino")
    export("tiny", tmp_path / "a.xml", "openvino")
    (tmp_path / "a.bin").unlink()
    with pytest.raises(CheckpointError, match=r"a\.bin"):
        Detector.load(tmp_path / "a.xml")


def test_onnx_files_open_in_old_runtimes(export: Callable[..., Any], tmp_path: Path) -> None:
    """IR version 8 came with opset 18, and every domain is named once."""
    need("onnxruntime")
    for nms in (None, NMS):
        export("tiny", tmp_path / "a.onnx", "onnx", nms=nms)
        model = onnx.load(tmp_path / "a.onnx")
        assert model.ir_version == 8
        assert [(one.domain, one.version) for one in model.opset_import] == [("", 18)]


@pytest.mark.parametrize("opset", [17, 19, 20, 21])
def test_other_opsets(
    detectors: dict[str, Detector],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    one_trace: None,
    opset: int,
) -> None:
    """Each is run in ONNX Runtime and compared before it is written."""
    need("onnxruntime")
    monkeypatch.setattr(pictures, "CHECKED", 5)
    for nms in (None, NMS):
        done = export_model(detectors["tiny"], tmp_path / "a.onnx", "onnx", nms=nms, opset=opset)
        assert done.parity.detections > 200
        model = onnx.load(tmp_path / "a.onnx")
        onnx.checker.check_model(model, full_check=True)
        assert (model.ir_version, [one.version for one in model.opset_import]) == (8, [opset])


@pytest.mark.parametrize("opset", [16, 22, 17.5, "18"])
def test_opsets_that_are_not_written(detectors: dict[str, Detector], tmp_path: Path, opset: Any) -> None:
    with pytest.raises(ConfigError, match=r"opset is .*; it must be .*17 to 21"):
        export_model(detectors["tiny"], tmp_path / "a.onnx", "onnx", opset=opset)


def test_every_file_is_checked_against_its_digest(
    export: Callable[..., Any], tmp_path: Path, to: str
) -> None:
    """One bit, in the weights, the graph or the metadata."""
    out = tmp_path / f"model{RUNTIMES[to].suffix}"
    export("tiny", out, to)
    for file in (out, *(out.with_suffix(suffix) for suffix in RUNTIMES[to].beside)):
        whole = file.read_bytes()
        for place in (len(whole) // 3, len(whole) // 2, whole.rfind(b"eight") if file == out else 5):
            changed = bytearray(whole)
            changed[place] ^= 1
            file.write_bytes(changed)
            with pytest.raises(CheckpointError, match=r"model\.(onnx|xml): .*damaged"):
                Detector.load(out)
        file.write_bytes(whole)
    assert Detector.load(out).classes


def test_a_bin_of_another_export(export: Callable[..., Any], tmp_path: Path) -> None:
    need("openvino")
    export("tiny", tmp_path / "a.xml", "openvino")
    export("ssd300-lite", tmp_path / "b.xml", "openvino")
    (tmp_path / "a.bin").write_bytes((tmp_path / "b.bin").read_bytes())
    with pytest.raises(CheckpointError, match=r"a\.xml: does not fit a\.bin beside it: .* of another export"):
        Detector.load(tmp_path / "a.xml")


def test_what_openvino_says_of_a_damaged_file_of_version_0_1(
    export: Callable[..., Any], tmp_path: Path
) -> None:
    """Without a digest its own words are passed on, and not the place in its sources."""
    need("openvino")
    export("tiny", tmp_path / "a.xml", "openvino")
    stored = rb"&quot;content_sha256&quot;: &quot;\w+&quot;, "
    graph = re.sub(stored, b"", (tmp_path / "a.xml").read_bytes())
    (tmp_path / "a.xml").write_bytes(graph)
    assert b"content_sha256" not in graph and Detector.load(tmp_path / "a.xml").facts
    weights = (tmp_path / "a.bin").read_bytes()
    (tmp_path / "a.bin").write_bytes(weights[:1000])
    with pytest.raises(CheckpointError, match=r"a\.xml: .* with a\.bin \(Incorrect weights in bin file!\)"):
        Detector.load(tmp_path / "a.xml")
    (tmp_path / "a.bin").write_bytes(weights)
    (tmp_path / "a.xml").write_bytes(graph[: len(graph) // 2])
    with pytest.raises(CheckpointError, match=r"a\.xml: is damaged .*\((?!Exception from)"):
        Detector.load(tmp_path / "a.xml")
    (tmp_path / "a.bin").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"a\.bin: is empty"):
        Detector.load(tmp_path / "a.xml")


def test_suffixes_in_capitals(
    export: Callable[..., Any], picture: np.ndarray, tmp_path: Path, to: str
) -> None:
    out = tmp_path / f"model{RUNTIMES[to].suffix}"
    export("tiny", out, to)
    expected = Detector.load(out)(picture, score=0.05)
    for file in list(tmp_path.iterdir()):
        file.rename(tmp_path / file.name.upper())
    assert_same(expected, Detector.load(tmp_path / out.name.upper())(picture, score=0.05))


def test_settings_that_cannot_be(export: Callable[..., Any], tmp_path: Path, to: str) -> None:
    out = tmp_path / f"model{RUNTIMES[to].suffix}"
    with pytest.raises(ConfigError, match="rename"):
        export("tiny", tmp_path / "model.pt", to)
    export("tiny", out, to)
    with pytest.raises(ConfigError, match="device"):
        Detector.load(out, device="abacus")
    with pytest.raises(ConfigError, match="threads"):
        Detector.load(out, threads=0)
    with pytest.raises(ConfigError, match="no PyTorch network"):
        _ = Detector.load(out).network


@pytest.mark.parametrize(
    ("package", "suffix", "extra"),
    [("onnxruntime", ".onnx", "export"), ("openvino", ".xml", "openvino")],
)
def test_a_missing_runtime_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, package: str, suffix: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=rf'{package}; pip install "fssd\[{extra}\]"'):
        Detector.load(tmp_path / f"model{suffix}")


def test_openvino_reports_to_nobody(tmp_path: Path) -> None:
    """Its telemetry leaves an identity in the user's home when it is set up; here it never is."""
    need("nncf")
    code = (
        "import sys; from fssd.runtimes.packages import require_openvino as need;"
        "need('openvino'); nncf = need('nncf'); assert 'openvino_telemetry' not in sys.modules;"
        "from unittest.mock import MagicMock; assert isinstance(nncf.telemetry.wrapper.telemetry, MagicMock);"
        "from openvino.tools.ovc import telemetry_utils; print(telemetry_utils.tm.__name__)"
    )
    environment = {**os.environ, "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("telemetry_stub")
    assert not (tmp_path / "intel").exists()
