"""What pruned networks trained from scratch show: do they match the fine-tuned ones, and the paper's numbers?

A comparison is of one pruned network: from scratch minus fine-tuned, seeds paired. All comparisons of a table
are corrected together: their intervals hold at once with 95 % (Bonferroni), and they decide.
"""

from __future__ import annotations

import csv
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import NamedTuple

from shrinkbench.report.statistics import tests as stats
from shrinkbench.report.statistics.metrics import Metric, metric_of
from shrinkbench.report.statistics.observations import SMALLEST_YARDSTICK
from shrinkbench.report.tables import Cell, Table, interval, plus_minus
from shrinkbench.results.record import RunResult
from shrinkbench.spec import (
    UNCONSTRAINED,
    ChannelFraction,
    Compression,
    FractionPerLayer,
    PublishedWidths,
    RunSpec,
)

MARGIN = 0.5
"""Points within which two ways of training count as equal, unless a reader says otherwise."""
SCRATCH = ("Scratch-E", "Scratch-B")
BASES = ("Fine-tuned", "Pruned")


@dataclass(frozen=True)
class Network:
    """A pruned network of the tables: how it is called, its runs by column, and the unpruned values by seed."""

    task: str
    name: str
    spec: RunSpec
    columns: Mapping[str, Sequence[RunResult]]
    unpruned: Mapping[int, float] = field(default_factory=dict)

    @property
    def metric(self) -> Metric:
        """What its task leads with."""
        objective = self.spec.task.objective
        return metric_of(objective.metric(objective.headline))

    @property
    def _whole(self) -> float:
        """What differences are shares of: 1 of a percentage, else what the unpruned (or any) network has."""
        if self.metric.percent:
            return 1.0
        any_value = [r.headline for found in self.columns.values() for r in found if r.headline is not None]
        whole = [*self.unpruned.values()]
        known = [value for value in (*whole, *any_value) if math.isfinite(value)]
        reference = statistics.mean(whole) if whole else known[0] if known else 0.0
        return max(abs(reference), SMALLEST_YARDSTICK)

    def by_seed(self, column: str) -> dict[int, float]:
        """The headline metric of each seed, in points; a larger number is a better one."""
        scale = self.metric.sign * 100.0 / self._whole
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
            caption=f"From scratch minus fine-tuned of the same pruned network, seeds paired, "
            f"in points{_other_unit(found)}; the 95 % intervals hold for all "
            f"{len(found)} comparison{'s' * (len(found) > 1)} at once "
            f"(Bonferroni). Matches: the whole interval lies within the margin of {margin:g} points; "
            "better or worse: it lies beyond zero; else these runs cannot tell.",
            columns=("task", "pruned network", "from scratch", "against", "points", "interval", "n", "it"),
            rows=tuple(_row(contrast, level, margin) for contrast in found),
            stubs=2,
        )
    ]


def _other_unit(found: Sequence[Contrast]) -> str:
    """What points are where the metric is no share."""
    metrics = dict.fromkeys(c.network.metric for c in found if not c.network.metric.percent)
    if not metrics:
        return ""
    named = " and ".join(metric.short for metric in metrics)
    return f" (of {named}: percent of the unpruned network's value; positive: from scratch is better)"


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


# The paper's numbers of networks whose widths it states, or of which it says what fraction is gone

_METHODS = {
    "li2017": "L1-norm filter pruning (Li 2017)",
    "thinet": "ThiNet (Luo 2017)",
    "he2017": "Regression feature reconstruction (He 2017b)",
}
"""Families of published widths, and what the tables call their method."""
_BY_FRACTION: dict[str, tuple[type[ChannelFraction | FractionPerLayer], str]] = {
    "network_slimming": (ChannelFraction, "Network Slimming (Liu 2017)"),
    "network_slimming_residual": (ChannelFraction, "Network Slimming (Liu 2017)"),
    "soft_filter_pruning": (FractionPerLayer, "Soft Filter Pruning (He 2018a), without pretrained"),
    "soft_filter_pruning_pretrained": (FractionPerLayer, "Soft Filter Pruning (He 2018a), with pretrained"),
    "channel_l1[structure=chained-channels]": (FractionPerLayer, "L1-norm filter pruning (Li 2017)"),
}
"""Methods whose rows are fractions that are gone: in what they are stated, and how the tables call them."""
_BY_SIZE = {"sparse_structure_selection": {1.008: "ResNet-41", 1.713: "ResNet-26", 1.791: "ResNet-32"}}
"""Methods whose rows are networks of a size, as a compression of ResNet-50."""
_OF_CONVOLUTIONS = {"convolution_magnitude": "Unstructured magnitude (Han 2015)"}
"""Methods whose rows are fractions of the weights of convolutions, to a percent: what runs have lost counts."""
_ARCHITECTURES = {
    "cifar-vgg19": "VGG-19",
    "cifar-vgg19-bias": "VGG-19",
    "cifar-vgg16-bias": "VGG-16",
    "cifar-resnet50": "ResNet-50",
    "torchvision/vgg16_bn": "VGG-16",
    "densenet-bc-100": "DenseNet-BC-100",
    "vgg11-slimming": "VGG-11",
    "densenet40": "DenseNet-40",
    **{f"preresnet{depth}": f"PreResNet-{depth}" for depth in (56, 110, 164)},
    **{f"resnet{depth}": f"ResNet-{depth}" for depth in (20, 32, 56, 110)},
    **{f"torchvision/resnet{depth}": f"ResNet-{depth}" for depth in (34, 50)},
}
_EPOCHS = {"cifar10": (160, 40), "cifar100": (160, 40), "imagenet": (90, 20)}
"""For how many epochs Liu et al. train, and fine-tune."""
_SOFT = frozenset({"soft_filter_pruning", "soft_filter_pruning_pretrained"})
_SOFT_EPOCHS = {"cifar10": 200, "imagenet": 100}
"""The same of soft filter pruning, which is not fine-tuned."""
_LONG = 300
"""The epochs of Table 17, which names them."""
_TICKETS = {"Winning ticket": "winning-ticket", "Scratch-E": "random-init"}
"""Columns of Table 9, of networks that no other table has."""


class PaperValue(NamedTuple):
    """A number of a table, of what it is, and over how many runs (0: it is not told)."""

    quantity: str
    value: float
    trials: int


class _Place(NamedTuple):
    """Method, dataset, pruned network and way of a number, and the epochs of its training (0: unknown)."""

    key: tuple[str, str, str, str]
    epochs: int


_Places = dict[tuple[str, str, str, str], PaperValue]


def beside_paper(networks: Sequence[Network], ways: Mapping[str, str]) -> list[Table]:
    """The numbers of Liu et al. 2019 beside those measured here, for networks that their tables name.

    That is by the widths that they state, by a fraction of channels, filters or weights of convolutions, or by
    the size of those of Table 5; other networks that were asked for by a compression are in no row of them.
    """
    published = read_paper_values()
    rows = []
    for network in networks:
        cells = [_compared(network, column, way, published) for column, way in ways.items()]
        if any(cells):
            differs = "; ".join(_differs(network, ways, published)) or "–"
            cells = [*(text or "–" for text in cells), differs]
            rows.append((Cell(network.task), Cell(network.name), *map(Cell, cells)))
    if not rows:
        return []
    return [
        Table(
            name="scratch-published",
            caption="The top-1 of Liu et al. 2019 beside that measured here, in %, and here minus paper in "
            "points. Where the paper states a change from its unpruned network, so does this table, from the "
            "unpruned network of the same seed here. What differs in images, epochs and seeds of a row is its "
            "last column; held-out images, normalisation and the epoch that counts differ in all "
            "(docs/reproduction.md).",
            columns=("task", "pruned network", *ways, "differs in"),
            rows=tuple(rows),
            stubs=2,
        )
    ]


def _place(network: Network, column: str, way: str, published: _Places) -> _Place | None:
    """Where the tables have a pruned network that was trained in this way, if they have it.

    Table 16 fine-tunes for other numbers of epochs than the others, Table 17 trains for 300, and Table 9 tells
    winning tickets by the rate of their training.
    """
    results, recipe = network.columns.get(column), network.spec.weights.recipe
    if not results or not network.metric.is_accuracy:
        return None
    data, (method, name) = network.spec.data.name, _in_the_tables(network.spec) or _in_table_6(network)
    trained, tuned = _EPOCHS.get(data, (0, 0))
    if network.spec.method.base in _SOFT:
        trained = tuned = _SOFT_EPOCHS.get(data, 0)
    there, usual = (
        "not fine-tuned" if way == "Pruned" else way.casefold(),
        tuned if way == "Fine-tuned" else trained,
    )
    places = [_Place((method, _bare(data), name, there), usual)]
    epochs = {r.spec.recipe.epochs for r in results}
    if way == "Fine-tuned" and len(epochs) == 1 and epochs != {usual}:
        (own,) = epochs
        places.insert(0, _Place((method, _bare(data), name, f"{there}-{own}"), own))
    if recipe is not None and recipe.epochs == _LONG:
        long = f"{method}, {_LONG}-epoch schedule"
        places.insert(0, _Place((long, _bare(data), name, there), tuned if way == "Fine-tuned" else _LONG))
    if recipe is not None and way in _TICKETS:
        rate = f"{method}, one-shot, initial lr {recipe.learning_rate:g}"
        places.append(_Place((rate, _bare(data), name, _TICKETS[way]), trained))
    return next((place for place in places if place.key in published), None)


def _compared(network: Network, column: str, way: str, published: _Places) -> str:
    place = _place(network, column, way, published)
    if place is None:
        return ""
    results, (quantity, value, _) = network.columns[column], published[place.key]
    whole = dict(network.unpruned)
    values = [v for r in results if (v := r.headline) is not None]
    spread = statistics.stdev(values) if len(values) > 1 else math.nan
    here = 100 * statistics.mean(values) if values else math.nan
    if quantity == "top1":
        apart = f" ({here - value:+.2f})".replace("-", "−") if values else ""
        return f"paper {value:.2f}, here {plus_minus(here / 100, spread, percent=True)}{apart}"
    if whole and network.spec.weights.are_shared:  # it is one network, measured with whatever seed
        whole = dict.fromkeys((r.spec.seed for r in results), statistics.mean(whole.values()))
    paired = [
        (v, whole[r.spec.seed]) for r in results if (v := r.headline) is not None and r.spec.seed in whole
    ]
    if not paired:
        return f"paper {value:+.2f}, here no unpruned network".replace("-", "−")
    change = 100 * statistics.mean(pruned - unpruned for pruned, unpruned in paired)
    return f"paper {value:+.2f}, here {change:+.2f} from unpruned ({change - value:+.2f})".replace("-", "−")


def _differs(network: Network, ways: Mapping[str, str], published: _Places) -> Iterator[str]:
    """In what images, epochs and seeds the runs of a row leave the paper."""
    data = network.spec.data
    if data.train_images is not None:
        yield f"{data.train_images:,} training images"
    for column, way in ways.items():
        place = _place(network, column, way, published)
        if place is None:
            continue
        results = network.columns[column]
        epochs = sorted({r.spec.recipe.epochs for r in results})
        if place.epochs and epochs != [place.epochs]:
            yield f"{column}: {' or '.join(map(str, epochs))} epochs (paper {place.epochs})"
        seeds, trials = len({r.spec.seed for r in results}), published[place.key].trials
        if trials and seeds != trials:
            yield f"{column}: {seeds} seed{'s' * (seeds > 1)} (paper {trials})"


def _in_table_6(network: Network) -> tuple[str, str]:
    """The same of a method that prunes weights of convolutions, by the fraction that is gone in its runs."""
    spec = network.spec
    large, method = _ARCHITECTURES.get(spec.model.name), _OF_CONVOLUTIONS.get(spec.method.name, "")
    runs = [run for column in network.columns.values() for run in column if run.layers]
    if large is None or not method or not runs or spec.constraints != UNCONSTRAINED:
        return "", ""
    cut = [layer for layer in runs[0].layers.values() if layer.kept < layer.total]
    gone = 1 - sum(layer.kept for layer in cut) / sum(layer.total for layer in cut) if cut else 0.0
    return method, f"{_bare(large)} {100 * gone:.0f} %"


def _in_the_tables(spec: RunSpec) -> tuple[str, str] | None:
    """What the tables call the method and the pruned network; nothing where they have no such row."""
    amount = spec.amount
    if isinstance(amount, PublishedWidths):
        family, _, name = amount.target.partition(":")
        return _METHODS.get(family, ""), _bare(name)
    if spec.model.name == "sss-resnet-50" and isinstance(amount, Compression):
        named = _BY_SIZE.get(spec.method.name, {}).get(amount.ratio)
        return None if named is None else ("Sparse Structure Selection (Huang 2018)", _bare(named))
    stated, method = _BY_FRACTION.get(spec.method.name, (None, ""))
    large = _ARCHITECTURES.get(spec.model.name)
    if large is None or stated is None or not isinstance(amount, stated) or spec.constraints != UNCONSTRAINED:
        return None
    return method, f"{_bare(large)} {100 * amount.fraction:g} %"


def read_paper_values() -> _Places:
    """Top-1 or its change by method, dataset, pruned network and way, of the bundled tables."""
    text = files("shrinkbench.literature").joinpath("data/liu2019/facts.csv").read_text(encoding="utf-8")
    found = {}
    for row in csv.DictReader(text.splitlines()):
        if row["quantity"] not in ("top1", "top1_change") or row["network"] == "unpruned":
            continue
        # A row names its network (ResNet-56-A), or only the fraction that is pruned of its architecture (40 %).
        for name in (_bare(row["network"]), f"{_bare(row['architecture'])} {row['network']}"):
            place = (row["method"], _bare(row["dataset"]), name, row["finetuning"].casefold())
            found[place] = PaperValue(row["quantity"], float(row["value"]), int(row["trials"] or 0))
    return found


def _bare(name: str) -> str:
    """A name as the tables and the library write it alike: ResNet-56-A and resnet56-a."""
    return "".join(letter for letter in name.casefold() if letter.isalnum())
