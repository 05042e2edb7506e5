"""Table 12 of Liu et al. 2019 beside a detector that was measured here."""

from __future__ import annotations

import csv
from importlib.resources import files

from shrinkbench.spec import PublishedWidths, RunSpec

_NETWORK = "torchvision/resnet34"
_SCRATCH = {"epochs": "scratch-E", "computation": "scratch-B"}


def paper_precision(
    detector: RunSpec, *, classifier: RunSpec | None, model: str, after_transfer: bool
) -> float | None:
    """Its mean average precision in the table (0 to 1, over 11 points of recall), if it has such a row.

    ``classifier`` is the run whose network was transferred, where one is known: it tells whether that was
    fine-tuned or trained from scratch. Rows are of ResNet-34 (``model``), whole or at widths of Li et al. 2017.
    """
    if model != _NETWORK or (after_transfer and detector.is_control):  # the table trains no detector twice
        return None
    pruned = detector if classifier is None or after_transfer else classifier
    way, network = "", "unpruned"
    if not pruned.is_control:
        if not isinstance(pruned.amount, PublishedWidths):
            return None
        mode = pruned.method.finetuning
        way = "prune-D" if after_transfer else _SCRATCH[mode.equal] if mode.weights == "scratch" else "prune-C"
        family, _, network = pruned.amount.target.partition(":")
        if family != "li2017":
            return None
    return _table_12().get((way, network.replace("-", "").casefold()))


def _table_12() -> dict[tuple[str, str], float]:
    text = files("shrinkbench.literature").joinpath("data/liu2019/facts.csv").read_text(encoding="utf-8")
    return {
        (row["finetuning"], row["network"].replace("-", "").casefold()): float(row["value"]) / 100
        for row in csv.DictReader(text.splitlines())
        if row["quantity"] == "mean_average_precision"
    }
