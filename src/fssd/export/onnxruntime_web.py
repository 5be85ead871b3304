"""The files of ONNX Runtime Web that a page needs: from the npm registry, or from a folder of the user's."""

from __future__ import annotations

import base64
import hashlib
import os
import tarfile
from collections.abc import Mapping
from pathlib import Path

from fssd.atomic import make_folder
from fssd.errors import ConfigError, FetchError
from fssd.fetch.download import download
from fssd.storage.cache_folder import cache_folder

VERSION = "1.30.0"
SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
PACKAGE = f"onnxruntime-web-{VERSION}.tgz"
REGISTRY = "https://registry.npmjs.org"

WASM = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
# Since 1.24 WebGPU is in the build called asyncify, before in the one called jsep.
WEBGPU = tuple(
    ("ort.webgpu.min.mjs", f"ort-wasm-simd-threaded.{build}.mjs", f"ort-wasm-simd-threaded.{build}.wasm")
    for build in ("asyncify", "jsep")
)

Files = Mapping[str, bytes]  # content by name


def runtime_files(folder: Path | None, cache: Path | None = None) -> Files:
    """The files for WebAssembly, and those for WebGPU if they are there.

    folder: of an unpacked onnxruntime-web, or its `dist`; None takes the package from `cache` (by default
    that of fssd), where it is downloaded once. Raises ConfigError for a folder without them, FetchError.
    """
    if folder is not None:
        return _chosen(_of_folder(folder), f"{folder}: is no onnxruntime-web")
    file = (cache or cache_folder()) / PACKAGE
    if not _is_intact(file):
        _fetch(file)
    with tarfile.open(file) as archive:
        found = {Path(one.name).name: one for one in archive.getmembers() if "/dist/" in one.name}
        wanted = {name for names in (WASM, *WEBGPU) for name in names} & found.keys()
        content = {name: stream.read() for name in wanted if (stream := archive.extractfile(found[name]))}
    return _chosen(content, f"{file}: is incomplete")


def _chosen(files: Files, problem: str) -> Files:
    missing = [name for name in WASM if name not in files]
    if missing:
        raise ConfigError(f"{problem}: it has no {missing[0]}; name another folder with --ort")
    webgpu = next((names for names in WEBGPU if all(name in files for name in names)), ())
    return {name: files[name] for name in (*WASM, *webgpu)}


def _of_folder(folder: Path) -> Files:
    if not folder.is_dir():
        raise ConfigError(f"{folder}: is no folder; name an unpacked onnxruntime-web with --ort")
    places = (folder / "dist", folder / "package" / "dist", folder)
    place = next((one for one in places if (one / WASM[0]).is_file()), folder)
    names = {name for names in (WASM, *WEBGPU) for name in names}
    return {name: (place / name).read_bytes() for name in names if (place / name).is_file()}


def _is_intact(file: Path) -> bool:
    if not file.is_file():
        return False
    return base64.b64encode(hashlib.sha512(file.read_bytes()).digest()).decode() == SHA512


def _fetch(file: Path) -> None:
    """Download the package from the registry that npm would ask: NPM_CONFIG_REGISTRY, or npm's own."""
    registry = os.environ.get("NPM_CONFIG_REGISTRY", REGISTRY).rstrip("/")
    url = f"{registry}/onnxruntime-web/-/{PACKAGE}"
    make_folder(file.parent)
    file.unlink(missing_ok=True)
    try:
        download(url, file, pauses=(1.0, 2.0))
    except FetchError as error:
        advice = f"place the file at {file}, or name an unpacked onnxruntime-web with --ort"
        raise FetchError(f"{url} cannot be downloaded ({error}); {advice}") from error
    if not _is_intact(file):
        file.unlink()
        raise FetchError(f"{url}: has another SHA-512 than npm states for {PACKAGE}; nothing was kept")
