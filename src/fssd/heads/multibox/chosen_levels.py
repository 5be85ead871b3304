"""The levels of priors that the options choose: a table, with ratios of their own, or fitted priors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fssd.config.bounds import finite_numbers
from fssd.errors import ConfigError, nearest
from fssd.heads.head import HeadBlueprint
from fssd.heads.multibox.priors import RULES, Level, Ratios, fitted_levels, make_levels


def chosen_levels(blueprint: HeadBlueprint) -> tuple[Level, ...]:
    """The levels of a multibox head, see the options of `MultiboxHead.build`.

    Raises ConfigError for options that are wrong or do not go together.
    """
    options = blueprint.options
    priors, rule = options["priors"], options.get("prior_rule", RULES[0])
    if not isinstance(rule, str) or rule not in RULES:
        raise ConfigError(f"there is no prior_rule {rule!r}{nearest(str(rule), RULES)}")
    if isinstance(priors, Mapping):
        given = sorted({"ratios", "truncate", "clip"} & set(options))
        if given:
            raise ConfigError(f"{given[0]} belongs to a table of priors, not to fitted ones; leave it out")
        return fitted_levels(blueprint.cells, blueprint.steps, priors)
    if not isinstance(options.get("truncate", True), bool):
        raise ConfigError(f"truncate is {options['truncate']!r}; it is true or false")
    ratios = _ratios(options.get("ratios"))
    # A level that takes several sizes of the table is as many levels there, which are joined afterwards.
    index = [level for level, count in enumerate(blueprint.prior_scales) for _ in range(count)]
    if ratios is None and options.get("shared_head"):
        ratios = ((2.0, 3.0),) * len(index)
    rows = make_levels(
        [blueprint.cells[level] for level in index],
        [blueprint.steps[level] for level in index],
        blueprint.image_size,
        priors,
        ratios=ratios,
        truncate=options.get("truncate", True),
        clip=options.get("clip", "none"),
        rule=rule,
        starts=None if blueprint.starts is None else [blueprint.starts[level] for level in index],
    )
    joined: dict[int, Level] = {}
    for level, row in zip(index, rows, strict=True):
        before = joined.get(level, row._replace(shapes=(), centres=row.centres and ()))
        centres = None if row.centres is None else (before.centres or ()) + row.centres
        joined[level] = row._replace(shapes=before.shapes + row.shapes, centres=centres)
    return tuple(joined.values())


def _ratios(rows: Sequence[Sequence[float]] | None) -> Ratios | None:
    if rows is None:
        return None
    try:
        ratios = tuple(map(finite_numbers, rows))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"ratios are {rows!r}; give a list of numbers for each level") from error
    if not all(ratio > 0 for row in ratios for ratio in row):
        raise ConfigError(f"ratios are {rows}; each must be above 0")
    return ratios
