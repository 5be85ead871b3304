"""Packaged models by name: what `fssd detect animals photo.jpg` finds. Nothing is ever downloaded."""

from mimetypes import guess_type
from pathlib import Path

from fssd.errors import CheckpointError, nearest

FOLDER = Path(__file__).parent
MODELS = {
    "animals": FOLDER / "animals.safetensors",  # half precision, for PyTorch
    "animals-int8": FOLDER / "animals-int8.xml",  # eight bits, for OpenVINO
}
PHOTOS = (FOLDER / "photos" / "chelsea.jpg", FOLDER / "photos" / "astronaut.jpg")  # a cat, a person


def find_model(path: Path) -> Path:
    """What a user's MODEL means: an existing path, else the packaged model of that name.

    A path with a folder or a suffix is no name and is returned as it is. Raises CheckpointError for a name
    that the package does not have, and for an image.
    """
    kind = (guess_type(path.name)[0] or "").partition("/")[0]
    if kind in {"image", "video"} and not path.is_dir():
        raise CheckpointError(f"{path}: is of type {kind}, where a model is needed; name the model first")
    if path.exists() or path.suffix or len(path.parts) != 1:
        return path
    name = str(path)
    if name not in MODELS:
        near = nearest(name, MODELS)
        raise CheckpointError(f"{name}: there is no such model file, nor a packaged model of that name{near}")
    return packaged_model(name)


def packaged_model(name: str) -> Path:
    """The file of a packaged model. Raises CheckpointError if the installation lacks it."""
    file = MODELS[name]
    if not file.is_file():
        raise CheckpointError(f"{file}: the packaged model {name!r} is missing; install fssd again")
    return file
