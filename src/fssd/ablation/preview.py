"""The rows of an ablation before anything is trained: networks, their costs, what is published of them."""

from __future__ import annotations

import torch

from fssd.ablation.output import cells, remark
from fssd.ablation.plan import AblationPlan, AblationRow, PublishedRow
from fssd.config.train_config import TrainConfig
from fssd.model.build import build_model
from fssd.model.cost import multiply_adds, parameters
from fssd.training.start import FIT, network_options

CLASSES = {"coco": 80}  # by metric, as its benchmark has them; the others are VOC's
VOC_CLASSES = 20
HEAD = ("row", "network", "parameters", "multiply-adds", "paper")


def preview(plan: AblationPlan) -> str:
    """The table as Markdown, without results. Costs are for VOC's 20 or COCO's 80 classes."""
    rows: dict[str, AblationRow | PublishedRow] = {row.name: row for row in plan.rows}
    rows |= {row.name: row for row in plan.published}
    text = [f"# {plan.title}", "", cells(HEAD), cells(["---", "---", *["---:"] * 3])]
    remarks: list[str] = []
    for row in (rows[name] for name in plan.order):
        note = remark(row)
        remarks += [note] * bool(note)
        mark = f" ({len(remarks)})" if note else ""
        if isinstance(row, PublishedRow):
            text.append(cells([row.name, "published", "", "", f"{row.value:.1f}{mark}"]))
            continue
        paper = "" if row.paper is None else f"{row.paper:.1f}"
        text.append(cells([row.name, row.config.model, *_costs(row.config), f"{paper}{mark}"]))
    numbered = [f"{number}. {note}" for number, note in enumerate(remarks, start=1)]
    return "\n".join([*text, *([""] if numbered else []), *numbered]) + "\n"


def _costs(config: TrainConfig) -> tuple[str, str]:
    options = network_options(config)
    if options.get("priors") == FIT:  # there is nothing to fit them to; their number is the same
        del options["priors"]
    with torch.device("meta"):
        network = build_model(config.model, CLASSES.get(config.metric, VOC_CLASSES), **options).eval()
    return f"{parameters(network):,}", f"{multiply_adds(network) / 1e9:.2f} G"
