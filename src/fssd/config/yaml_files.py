"""YAML with plain types, in which no key can stand twice."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from fssd.errors import ConfigError

_SPECIAL = ("tag:yaml.org,2002:merge", "tag:yaml.org,2002:value")  # the keys << and =


class _Loader(yaml.SafeLoader):
    """Refuses a key that a mapping has twice: PyYAML would drop what the first one says, and say nothing."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        # Not when the mapping is constructed: by then a merge (<<) has put overridden keys into it.
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag in _SPECIAL:
                continue
            value = self.construct_object(key)
            if value in seen:
                problem = f"the key {value!r} is there twice; keep one of them"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            seen.add(value)
        return node


def load_yaml(text: str | bytes) -> Any:
    """The value in YAML; it has only plain types. Raises YAMLError, or ValueError for a date that is none."""
    return yaml.load(text, _Loader)


def read_mapping(path: Path) -> dict[str, Any]:
    """The YAML mapping in a file. Raises ConfigError if it cannot be read or is something else."""
    try:
        values = load_yaml(path.read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except yaml.MarkedYAMLError as error:
        place = f" (line {error.problem_mark.line + 1})" if error.problem_mark else ""
        raise ConfigError(f"{path}{place}: is not valid YAML ({error.problem})") from error
    except (yaml.YAMLError, ValueError) as error:  # a date such as 2020-13-45 is no YAMLError
        raise ConfigError(f"{path}: is not valid YAML ({error})".replace("\n", " ")) from error
    if not isinstance(values, Mapping):
        kind = type(values).__name__
        raise ConfigError(f"{path}: a configuration is a mapping of names to values, not a {kind}")
    return dict(values)
