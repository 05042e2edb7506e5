"""What lies beside the five tables of the published export: single papers' full results, lists of networks."""

from __future__ import annotations

import re
from collections.abc import Iterable
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from shrinkbench.literature.corpus import Finding
from shrinkbench.literature.schema import UNPRUNED, Fact, Listing
from shrinkbench.literature.tables import Row, lies_at, read_table

REMEDY = "fetch the folder again from the original repository, or remove it to go without"
LOTTERY, SPARSITY = "lottery-tix", "state-of-sparsity-resnet50"
_PAIR = {"dataset": "ImageNet", "architecture": "ResNet-50"}
_LOTTERY_FILES = {
    "fig5-resnet50-reset-to-epoch-vs-top1.csv": ("resetToEpoch", "ResetToEpoch", "figure 5"),
    "fig9-resnet50-turnaround-epoch-vs-top1.csv": ("pruneAtEpoch", "PruneAtEpoch", "figure 9"),
}
# File -> method, column of the fraction pruned, column of the accuracy (a fraction).
_SPARSITY_FILES = {
    "rn50_magnitude_pruning.csv": ("Magnitude", "Sparsity", "accuracy"),
    "rn50_variational_dropout.csv": ("SparseVD", "global sparsity", "Accuracy"),
    "rn50_l0_regularization.csv": ("HardConcrete", "global_sparsity", "accuracy"),
    "rn50_random_pruning.csv": ("Random", "Target Sparsity", "accuracy"),
}
# File -> quantity: column, unit.
_LISTING_FILES: dict[str, dict[str, tuple[str, str]]] = {
    "efficientnet/efficientnet-models-summary.csv": {
        "top1": ("Top1", "percent"),
        "top5": ("Top5", "percent"),
        "parameters": ("MParams", "million"),
        "operations": ("GFLOPS", "billion"),
    },
    "pytorch-pretrained/ModelsComparison.csv": {
        "top1": ("Top-1 (%)", "percent"),
        "top5": ("Top-5 (%)", "percent"),
        "parameters": ("# Parameters", "one"),
        "operations": ("FLOPs", "billion"),
    },
}


def read_supplements(folder: Path, facts: tuple[Fact, ...]) -> tuple[tuple[Fact, ...], tuple[Finding, ...]]:
    """Every operating point of two papers on ResNet-50, and a finding for each folder that is absent.

    A supplement without initial values takes those that ``facts`` state for the same paper and network.
    """
    read: list[Fact] = []
    findings = []
    for name, reader in ((LOTTERY, _lottery), (SPARSITY, _sparsity)):
        if lies_at(folder / name):
            read.extend(reader(folder / name, facts))
        else:
            findings.append(Finding("absent", name, "the folder is absent; Figure 5 is drawn without it"))
    return tuple(read), tuple(findings)


def read_listings(folder: Path) -> tuple[tuple[Listing, ...], tuple[Finding, ...]]:
    """The published lists of unpruned networks, and a finding for each that is absent."""
    listings: list[Listing] = []
    findings = []
    for name, quantities in _LISTING_FILES.items():
        path = folder / name
        if not lies_at(path):
            findings.append(Finding("absent", name, "the list is absent; Figure 1 is drawn without it"))
            continue
        for row in read_table(path, ["Model", *(c for c, _ in quantities.values())], remedy=REMEDY):
            for quantity, (column, unit) in quantities.items():
                if row[column]:
                    fields = {
                        "catalogue": Path(name).parent.name,
                        "dataset": "ImageNet",
                        "architecture": row["Model"],
                        "quantity": quantity,
                        "value": decimal(row, column),
                        "unit": unit,
                        "source": f"{path.name}, row {row.number}",
                    }
                    listings.append(Listing.model_validate(fields))
    return tuple(listings), tuple(findings)


def decimal(row: Row, column: str) -> Decimal:
    """The finite number in a cell."""
    try:
        number = Decimal(row[column])
    except InvalidOperation:
        raise row.error(column, f"'{row[column]}' is not a number") from None
    if not number.is_finite() or abs(number) >= 10**12 or number.adjusted() < -12 or len(row[column]) > 24:
        raise row.error(column, f"'{row[column]}' is no number that a table of results holds")
    return number


def _lottery(folder: Path, facts: tuple[Fact, ...]) -> Iterable[Fact]:
    paper = "lottery-ticket-followup"
    yield from _initial_values(paper, LOTTERY, facts)
    for name, (column, method, place) in _LOTTERY_FILES.items():
        rows = read_table(folder / name, [column], remedy=REMEDY)
        for row in rows:
            for cell in row.cells:
                kept = re.fullmatch(r"fracRemaining=(\d+)%", cell)
                if kept is None or not row[cell]:
                    continue
                common: dict[str, Any] = {
                    "paper": paper,
                    "method": f"{method}={row[column]}",
                    "network": f"{kept[1]} % kept, {method} {row[column]}",
                    "collection": LOTTERY,
                    "source": f"{place} ({name}, row {row.number})",
                    **_PAIR,
                }
                spread = f"stdFrac{kept[1]}%"
                has_spread = bool(row.cells.get(spread))
                yield Fact(quantity="parameters_kept", value=Decimal(kept[1]), unit="percent", **common)
                yield Fact(
                    quantity="top1",
                    value=decimal(row, cell),
                    unit="percent",
                    spread=decimal(row, spread) if has_spread else None,
                    spread_kind="maximum deviation" if has_spread else "",
                    **common,
                )


def _sparsity(folder: Path, facts: tuple[Fact, ...]) -> Iterable[Fact]:
    del facts  # this supplement states its own baselines
    common: dict[str, Any] = {"paper": "google-state-of-sparsity", "collection": SPARSITY, **_PAIR}
    baselines = read_table(folder / "rn50_baselines.csv", ["Accuracy"], remedy=REMEDY)
    values = [decimal(row, "Accuracy") for row in baselines]
    if values:
        yield Fact(
            quantity="top1",
            value=(sum(values, Decimal(0)) / len(values)).quantize(Decimal("0.01")),
            unit="percent",
            network=UNPRUNED,
            trials=len(values),
            source="rn50_baselines.csv",
            note=f"mean of {len(values)} baselines",
            **common,
        )
    for name, (method, pruned, accuracy) in _SPARSITY_FILES.items():
        for row in read_table(folder / name, [pruned, accuracy], remedy=REMEDY):
            point = {**common, "method": method, "network": f"{name}, row {row.number}", "source": name}
            for quantity, column in (("parameters_pruned", pruned), ("top1", accuracy)):
                yield Fact(quantity=quantity, value=decimal(row, column), unit="fraction", **point)


def _initial_values(paper: str, collection: str, facts: tuple[Fact, ...]) -> Iterable[Fact]:
    """What the paper states elsewhere about the unpruned network, where it states one value only."""
    stated = [
        fact
        for fact in facts
        if fact.paper == paper
        and fact.dataset == _PAIR["dataset"]
        and fact.architecture == _PAIR["architecture"]
        and fact.quantity == "initial_top1"
    ]
    if len({fact.value for fact in stated}) == 1:
        yield Fact(
            paper=paper,
            network=UNPRUNED,
            quantity="top1",
            value=stated[0].value,
            unit=stated[0].unit,
            collection=collection,
            source=stated[0].source,
            note="stated for the same network elsewhere in the paper",
            **_PAIR,
        )
