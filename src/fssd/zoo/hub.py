"""Models on a Hugging Face hub, by address: hf://user/name, hf://user/name@revision, hf://user/name/FILE.
A slash in the name of a revision is written %2F, as in web addresses: hf://user/name@refs%2Fpr%2F1.

HF_ENDPOINT, HF_TOKEN, HF_HOME and HF_HUB_OFFLINE mean what they mean everywhere; downloads are kept in that
cache, which is also read where there is no network.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import unquote

from fssd.config.run_files import CONFIG_FILE, MODEL_FILES
from fssd.errors import ConfigError, FetchError, lacking, shown

BESIDE = {".xml": (".bin",), ".param": (".bin", ".json")}  # `Runtime.beside`, by the suffix of its file
NETWORK = ("httpx", "httpx2", "requests")  # packages by which huggingface_hub speaks
_ADDRESS = re.compile(r"hf:/{1,2}([\w.-]+)/([\w.-]+)(?:@([\w.%-]+))?(?:/([^@]+))?")


class HubAddress(NamedTuple):
    """Of a repository, or of one file in it. revision: a branch, tag or commit, None for the main branch."""

    repository: str
    revision: str | None
    file: str | None


def is_hub_address(place: Path | str) -> bool:
    """Whether this is meant as an address on a hub. A Path keeps only one of the slashes."""
    return str(place).startswith("hf:/")


def read_address(place: Path | str) -> HubAddress:
    """The parts of an address. Raises ConfigError."""
    found = _ADDRESS.fullmatch(str(place))
    if found is None or ".." in str(place):
        raise ConfigError(
            f"{shown(place)}: is no address on a hub; write hf://user/name, hf://user/name@revision or"
            " hf://user/name/FILE"
        )
    user, name, revision, file = found.groups()
    return HubAddress(f"{user}/{name}", revision and unquote(revision), file)


@cache
def hub_file(place: Path | str) -> Path:
    """The local copy of a model on a hub: the file of the address, else the repository's best or final model.

    Downloaded once for each process, so that a command sees one version. Raises ConfigError without
    huggingface_hub, FetchError if the model cannot be had.
    """
    address = read_address(place)
    hub = _import_hub()
    names = list(MODEL_FILES) if address.file is None else [address.file]
    for name in names:
        files = [name, *_beside(name)]
        with _hub_errors(hub, place):
            folder = hub.snapshot_download(
                address.repository, revision=address.revision, allow_patterns=files
            )
        file = Path(folder) / name
        if file.is_file():
            return file
    slash = "" if address.revision is None else " (a slash in the name of a revision is written %2F)"
    raise FetchError(f"{shown(place)}: holds no {' or '.join(names)}; name a file that it holds{slash}")


class Uploaded(NamedTuple):
    """url: the web address of a repository. removed: files of an earlier model that are no longer in it."""

    url: str
    removed: list[str]


def upload_folder(folder: Path, place: str, *, private: bool = False) -> Uploaded:
    """Write the files of a folder, a model, to a repository, which is made if need be.

    The model and settings of an earlier one go in the same commit: else they would be read instead.
    Raises ConfigError for the address of a file or revision, FetchError if the hub refuses.
    """
    address = read_address(place)
    if address.file or address.revision:
        raise ConfigError(f"{place}: a model is written to a repository, hf://user/name; leave the rest out")
    hub = _import_hub()
    with _hub_errors(hub, place):
        api = hub.HfApi()
        url = api.create_repo(address.repository, private=private or None, exist_ok=True)
        before = set(api.list_repo_files(address.repository))
        removed = [
            name for name in (*MODEL_FILES, CONFIG_FILE) if name in before and not (folder / name).exists()
        ]
        api.upload_folder(
            repo_id=address.repository,
            folder_path=folder,
            commit_message="Model of fssd",
            delete_patterns=removed or None,
        )
    return Uploaded(str(url), removed)


def _beside(name: str) -> list[str]:
    """The files that belong to an exported one."""
    file = PurePosixPath(name)
    return [str(file.with_suffix(suffix)) for suffix in BESIDE.get(file.suffix.lower(), ())]


def _import_hub() -> Any:
    try:
        package = importlib.import_module("huggingface_hub")
        importlib.import_module("huggingface_hub.errors")  # the package does not import it by itself
        return package
    except ImportError as error:
        missing = f"huggingface_hub{lacking('huggingface_hub', error)}"
        raise ConfigError(f'hf:// needs the package {missing}; pip install "fssd[hub]"') from error


@contextmanager
def _hub_errors(hub: Any, place: Path | str) -> Iterator[None]:
    """Name the address, and say in one sentence what went wrong."""
    errors, where = hub.errors, shown(place)
    try:
        yield
    except (errors.GatedRepoError, errors.LocalTokenNotFoundError) as error:
        raise FetchError(
            f"{where}: asks for an account; log in with `hf auth login` or set HF_TOKEN"
        ) from error
    except errors.RepositoryNotFoundError as error:
        reason = "there is no such repository, or it is private"
        raise FetchError(f"{where}: {reason}; check the address, or log in with `hf auth login`") from error
    except errors.RevisionNotFoundError as error:
        advice = "check the branch, tag or commit, and write a slash in it as %2F"
        raise FetchError(f"{where}: has no such revision; {advice}") from error
    except errors.LocalEntryNotFoundError as error:
        reason = "the hub cannot be reached and the cache does not hold it"
        raise FetchError(f"{where}: {reason}; connect, or give the path of a local model") from error
    except errors.HFValidationError as error:
        raise ConfigError(
            f"{where}: is no name of a repository ({_first_line(error)}); correct it"
        ) from error
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        if status in (401, 403):
            advice = "log in with `hf auth login`, or set HF_TOKEN to a token that may write there"
            raise FetchError(f"{where}: the hub refuses ({status}); {advice}") from error
        raise FetchError(f"{where}: the hub answers {_first_line(error)}; try again later") from error
    except Exception as error:  # of the network, which is another package's from version to version
        if not isinstance(error, OSError) and type(error).__module__.split(".")[0] not in NETWORK:
            raise
        raise FetchError(f"{where}: the hub cannot be reached ({_first_line(error)}); try again") from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__
