"""Models by name: packaged ones, published ones that were fetched, and models on a hub by their address.

Of these only an address, hf://user/name, asks the network.
"""

from mimetypes import guess_type
from pathlib import Path

from fssd.errors import CheckpointError, nearest
from fssd.zoo.hub import hub_file, is_hub_address
from fssd.zoo.published import PUBLISHED, find_published

FOLDER = Path(__file__).parent
MODELS = {
    "animals": FOLDER / "animals.safetensors",  # half precision, for PyTorch
    "animals-int8": FOLDER / "animals-int8.xml",  # eight bits, for OpenVINO
}
PHOTOS = (FOLDER / "photos" / "chelsea.jpg", FOLDER / "photos" / "astronaut.jpg")  # a cat, a person


def find_model(path: Path) -> Path:
    """What a user's MODEL means: an existing path, else the packaged or published model of that name.

    A path with a folder or a suffix is no name and is returned as it is; hf://user/name is downloaded. Raises
    CheckpointError for a name that nothing has, published weights that have not been fetched, and an image;
    what `hub_file` raises.
    """
    if is_hub_address(path):
        return hub_file(path)
    kind = (guess_type(path.name)[0] or "").partition("/")[0]
    if kind in {"image", "video"} and not path.is_dir():
        raise CheckpointError(f"{path}: is of type {kind}, where a model is needed; name the model first")
    if path.exists() or path.suffix or len(path.parts) != 1:
        return path
    name = str(path)
    if name in PUBLISHED:
        return find_published(name, detector=True)
    if name not in MODELS:
        near = nearest(name, [*MODELS, *(name for name, row in PUBLISHED.items() if row.detector)])
        raise CheckpointError(f"{name}: there is no such model file, nor a packaged model of that name{near}")
    return packaged_model(name)


def packaged_model(name: str) -> Path:
    """The file of a packaged model. Raises CheckpointError if the installation lacks it."""
    file = MODELS[name]
    if not file.is_file():
        raise CheckpointError(f"{file}: the packaged model {name!r} is missing; install fssd again")
    return file


def is_published(path: Path) -> bool:
    """Whether a path is the name of published weights, or an address on a hub."""
    return is_hub_address(path) or str(path) in PUBLISHED
