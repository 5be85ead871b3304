"""Configurations in files: of a user, of the package by their names, and of a run's folder."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from fssd.config.settings import with_values
from fssd.config.train_config import TrainConfig
from fssd.config.yaml_files import read_mapping
from fssd.errors import ConfigError, nearest


def load_config(path: Path, base: TrainConfig | None = None, above: tuple[Path, ...] = ()) -> TrainConfig:
    """A configuration from YAML, over `base`. `path` may be the name of a packaged one (see `find_config`).

    A file may contain `base: FILE` (relative to the file itself, or a name), and then holds the differences.
    above: the files that have this one as their base. Raises ConfigError for a file that cannot be read, an
    unknown key (with the nearest known one), a value of the wrong type, two settings that exclude each other,
    or files that name each other as base.
    """
    path = find_config(path)
    values = read_mapping(path)
    base = base or TrainConfig()
    if (parent := values.pop("base", None)) is not None:
        above = (*above, path.resolve())
        file = find_config(Path(str(parent)), beside=path.parent)
        if file.resolve() in above:
            raise ConfigError(f"{path}: base {parent} leads back to this file; name another")
        base = load_config(file, base, above)
    return with_values(base, values, where=f"{path}: ")


def packaged(*kinds: str) -> dict[str, Path]:
    """The packaged YAML files by name. kinds: folders of configs/, such as "recipes"; "" for its top."""
    inside = Path(__file__).parents[1] / "configs"
    folder = inside if inside.is_dir() else Path(__file__).parents[3] / "configs"  # a wheel, or a checkout
    return {file.stem: file for kind in kinds for file in sorted((folder / kind).glob("*.yaml"))}


def find_config(
    named: Path, kinds: Collection[str] = ("", "recipes", "ablations"), beside: Path = Path()
) -> Path:
    """The file that `named` means: a path relative to `beside`, or the name of a packaged file.

    Raises ConfigError, with the nearest known name, for a bare name that is neither.
    """
    file = beside / named
    if file.is_file() or named.suffix or len(named.parts) != 1:
        return file
    known = packaged(*kinds)
    if named.name not in known:
        near = nearest(named.name, known)
        raise ConfigError(f"{file}: there is no such file and no configuration of this name{near}")
    return known[named.name]
