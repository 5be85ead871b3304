"""The parts of a model card that are filled in from measurements, so that no number is typed by hand."""

from __future__ import annotations

import re

from fssd.errors import ConfigError


def fill_part(card: str, part: str, text: str) -> str:
    """The card with the text between `<!-- PART -->` and `<!-- /PART -->` replaced.

    Raises ConfigError if the card does not have exactly one such part.
    """
    pattern = re.compile(rf"(<!-- {part} -->\n).*?(<!-- /{part} -->)", flags=re.DOTALL)
    filled, count = pattern.subn(lambda found: f"{found[1]}\n{text}\n\n{found[2]}", card)
    if count != 1:
        raise ConfigError(f"the model card has {count} parts marked {part!r}; it needs one")
    return filled
