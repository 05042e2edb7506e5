"""What pruned networks trained from scratch show: do they match the fine-tuned ones, and the paper's numbers?

A comparison is of one pruned network: from scratch minus fine-tuned, seeds paired. All comparisons of a table
are corrected together: their intervals hold at once with 95 % (Bonferroni), and they decide.
"""

from __future__ import annotations

import csv
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

from shrinkbench.report.statistics import tests as stats
from shrinkbench.report.tables import Cell, Table, interval, plus_minus
from shrinkbench.results.record import RunResult
from shrinkbench.spec import PublishedWidths, RunSpec

MARGIN = 0.5
"""Points within which two ways of training count as equal, unless a reader says otherwise."""
SCRATCH = ("Scratch-E", "Scratch-B")
BASES = ("Fine-tuned", "Pruned")


@dataclass(frozen=True)
class Network:
    """A pruned network of the tables: how it is called, its runs by column, and the unpruned values."""

    task: str
    name: str
    spec: RunSpec
    columns: Mapping[str, Sequence[RunResult]]
    unpruned: tuple[float, ...] = ()

    @property
    def is_share(self) -> bool:
        """Whether its headline metric is shown in percent."""
        objective = self.spec.task.objective
        return objective.metric(objective.headline).unit == "fraction"

    def by_seed(self, column: str) -> dict[int, float]:
        """The headline metric of each seed, in points; a larger number is a better one."""
        objective = self.spec.task.objective
        sign = 1.0 if objective.metric(objective.headline).direction == "higher" else -1.0
        scale = sign * (100.0 if self.is_share else 1.0)
        return {r.spec.seed: scale * v for r in self.columns.get(column, ()) if (v := r.headline) is not None}


@dataclass(frozen=True)
class Contrast:
    """From scratch minus fine-tuned of one network: ``differences`` of seeds that both have, of ``seeds``."""

    network: Network
    scratch: str
    base: str
    differences: tuple[float, ...]
    seeds: int


def conclude(networks: Sequence[Network], ways: Mapping[str, str], *, margin: float = MARGIN) -> list[Table]:
    """The conclusion for every network; ``ways`` is what a column is, whatever its recipe is called."""
    found = [contrast for network in networks for contrast in _contrasts(network, ways)]
    if not found:
        return []
    level = 1 - stats.ALPHA / len(found)
    return [
        Table(
            name="scratch-conclusion",
            caption="From scratch minus fine-tuned of the same pruned network, seeds paired, in points; the "
            f"95 % intervals hold for all {len(found)} comparison{'s' * (len(found) > 1)} at once "
            f"(Bonferroni). Matches: the whole interval lies within the margin of {margin:g} points; better or "
            "worse: it lies beyond zero; else these runs cannot tell.",
            columns=("task", "pruned network", "from scratch", "against", "points", "interval", "n", "it"),
            rows=tuple(_row(contrast, level, margin) for contrast in found),
            stubs=2,
        )
    ]


def _contrasts(network: Network, ways: Mapping[str, str]) -> Iterator[Contrast]:
    """Every column from scratch against every fine-tuned one or, without any, what was only pruned."""
    present = [column for column in ways if network.columns.get(column)]
    kinds = [kind for kind in BASES if any(ways[column] == kind for column in present)]
    bases = [column for column in present if kinds and ways[column] == kinds[0]]
    for scratch in (column for column in present if ways[column] in SCRATCH):
        for base in bases:
            new, old = network.by_seed(scratch), network.by_seed(base)
            common = tuple(new[seed] - old[seed] for seed in sorted(new.keys() & old.keys()))
            yield Contrast(network, scratch, base, common, len(new.keys() | old.keys()))


def _row(contrast: Contrast, level: float, margin: float) -> tuple[Cell, ...]:
    found = stats.summarise(contrast.differences, confidence=level)
    n = str(found.n) if found.n == contrast.seeds else f"{found.n} of {contrast.seeds}"
    texts = (contrast.network.task, contrast.network.name, contrast.scratch, contrast.base)
    points = f"{found.mean:+.2f}".replace("-", "−") if found.n else "–"
    bounds = interval(found.low, found.high) if found.n > 1 and found.std > 1e-9 else "–"
    return (*map(Cell, texts), Cell(points), Cell(bounds), Cell(n), Cell(say_contrast(found, margin=margin)))


def say_contrast(difference: stats.Summary, *, margin: float) -> str:
    """What a difference with its interval shows.

    >>> say_contrast(stats.summarise([0.1, 0.0, -0.1, 0.05]), margin=0.5)
    'matches'
    >>> say_contrast(stats.summarise([2.0]), margin=0.5)
    'cannot tell (n = 1)'
    """
    if difference.n < 2:
        return f"cannot tell (n = {difference.n})"
    if difference.std <= 1e-9:
        return "cannot tell (no spread)"
    if -margin <= difference.low and difference.high <= margin:
        return "matches"
    if difference.low > 0:
        return "better"
    return "worse" if difference.high < 0 else "cannot tell"


# The paper's numbers of networks whose widths it states

_METHODS = {
    "li2017": "L1-norm filter pruning (Li 2017)",
    "thinet": "ThiNet (Luo 2017)",
    "he2017": "Regression feature reconstruction (He 2017b)",
}
"""Families of published widths, and what the tables call their method."""
_Places = dict[tuple[str, str, str, str], tuple[str, float]]


def beside_paper(networks: Sequence[Network], ways: Mapping[str, str]) -> list[Table]:
    """The numbers of Liu et al. 2019 beside those measured here, for networks of the widths that they state."""
    published = read_paper_values()
    rows = []
    for network in networks:
        cells = [_compared(network, column, way, published) for column, way in ways.items()]
        if any(cells):
            rows.append((Cell(network.task), Cell(network.name), *(Cell(text or "–") for text in cells)))
    if not rows:
        return []
    return [
        Table(
            name="scratch-published",
            caption="The top-1 of Liu et al. 2019 beside that measured here, in %. Where the paper states a "
            "change from its unpruned network, so does this table, from the unpruned network here.",
            columns=("task", "pruned network", *ways),
            rows=tuple(rows),
            stubs=2,
        )
    ]


def _compared(network: Network, column: str, way: str, published: _Places) -> str:
    amount, results = network.spec.amount, network.columns.get(column)
    if not isinstance(amount, PublishedWidths) or not results or not network.is_share:
        return ""
    family, _, name = amount.target.partition(":")
    place = (_METHODS.get(family, ""), _bare(network.spec.data.name), _bare(name), way.casefold())
    if place not in published:
        return ""
    quantity, value = published[place]
    values = [v for r in results if (v := r.headline) is not None]
    spread = statistics.stdev(values) if len(values) > 1 else math.nan
    if quantity == "top1":
        return f"paper {value:.2f}, here {plus_minus(statistics.mean(values), spread, percent=True)}"
    if not network.unpruned:
        return f"paper {value:+.2f}, here no unpruned network".replace("-", "−")
    change = 100 * (statistics.mean(values) - statistics.mean(network.unpruned))
    return f"paper {value:+.2f}, here {change:+.2f} from unpruned".replace("-", "−")


def read_paper_values() -> _Places:
    """Top-1 or its change by method, dataset, pruned network and way, of the bundled tables."""
    text = files("shrinkbench.literature").joinpath("data/liu2019/facts.csv").read_text(encoding="utf-8")
    return {
        (row["method"], _bare(row["dataset"]), _bare(row["network"]), row["finetuning"].casefold()): (
            row["quantity"],
            float(row["value"]),
        )
        for row in csv.DictReader(text.splitlines())
        if row["quantity"] in ("top1", "top1_change") and row["network"] != "unpruned"
    }


def _bare(name: str) -> str:
    """A name as the tables and the library write it alike: ResNet-56-A and resnet56-a."""
    return "".join(letter for letter in name.casefold() if letter.isalnum())
