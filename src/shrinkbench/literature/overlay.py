"""Own results beside published curves: the same axes, the same normalisation, and what differs all the same.

``read_own`` takes the table that ``shrinkbench report`` writes; ``overlay`` also takes it as a data frame.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from statistics import fmean, median

import pandas as pd

from shrinkbench.literature.corpus import Corpus
from shrinkbench.literature.curves import (
    CHANGES,
    EFFICIENCIES,
    Pair,
    PublishedCurve,
    PublishedPoint,
    is_plottable,
    tradeoff_curves,
)
from shrinkbench.literature.filters import Extract, errata_told, extract
from shrinkbench.literature.normalise import Normalised
from shrinkbench.literature.own_results import OwnTask, own_tasks, read_own
from shrinkbench.literature.reference import variants
from shrinkbench.literature.store import load_corpus
from shrinkbench.spec.published_names import published_names

__all__ = ["Overlay", "OverlayPanel", "Overlays", "overlay", "published_pairs", "read_own"]

NOTABLE = 0.005
"""Initial accuracies further apart than this are pointed out."""
LEAST_ROOM = 0.05
"""Own points this far below the lowest published one are drawn in any case."""


@dataclass(frozen=True)
class OverlayPanel:
    """Own and published curves on one choice of axes; y values are fractions."""

    x: str
    y: str
    own: tuple[PublishedCurve, ...]
    published: tuple[PublishedCurve, ...]

    @property
    def floor(self) -> float:
        """Where a drawing ends: collapsed networks lie so far down that published curves would be one line."""
        ys = [point.y for curve in self.published for point in curve.points]
        return min(ys) - max(2 * (max(ys) - min(ys)), LEAST_ROOM)

    @property
    def beyond(self) -> tuple[tuple[PublishedCurve, PublishedPoint], ...]:
        """Own points below :attr:`floor`."""
        return tuple((curve, p) for curve in self.own for p in curve.points if p.y < self.floor)


@dataclass(frozen=True)
class Overlay:
    """One own task beside the published results on the pairs of its name, with notes on what differs.

    ``stem`` is the name of its files, another for every task.
    """

    task: str
    stem: str
    pairs: tuple[Pair, ...]
    panels: tuple[OverlayPanel, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Overlays:
    """Every task that has a published counterpart; ``unmatched`` says why the others have none."""

    found: tuple[Overlay, ...]
    unmatched: tuple[str, ...]


def overlay(own: pd.DataFrame, corpus: Corpus | None = None, *, keep: Collection[str] = ()) -> Overlays:
    """Lay the result table ``own`` over ``corpus`` (the bundled one where it is ``None``).

    Runs of one ``task_key`` belong together; changes in accuracy are measured run by run from the run's own
    control, that of its ``control_key``. Raises ``ShrinkbenchError`` for a table without the needed columns or
    finished runs.
    """
    corpus = load_corpus() if corpus is None else corpus
    used = extract(corpus, "curves", keep=keep)
    found: list[Overlay] = []
    unmatched = []
    for task in own_tasks(own):
        pairs = published_pairs(corpus, used, task.dataset, task.published_as or published_names(task.model))
        if not pairs:
            unmatched.append(f"{task.name}: the corpus has no curve for this dataset and network")
            continue
        if task.pruned.empty:
            unmatched.append(
                f"{task.name}: there is no control of a pruned run, so changes in accuracy are unknown; add "
                "compression 1 to the experiment"
            )
            continue
        panels = tuple(
            panel
            for x in EFFICIENCIES
            for y in CHANGES
            if (panel := _panel(corpus, used.results, pairs, task, x, y)).own and panel.published
        )
        if not panels:
            unmatched.append(f"{task.name}: no published result here gives a metric that the own results have")
            continue
        published = [n for n in used.results if n.result.pair in pairs and is_plottable(n)]
        facts = {fact for n in used.results if n.result.pair in pairs for fact in n.result.facts.values()}
        impossible = sum(bool(fact.impossible) for fact in facts)
        notes = _notes(_Sides(task, pairs, published, panels, errata_told(corpus, published), impossible))
        stem = _file_name(task.name, {earlier.stem for earlier in found})
        found.append(Overlay(task.name, stem, pairs, panels, notes))
    return Overlays(tuple(found), tuple(unmatched))


def _file_name(task: str, taken: Collection[str]) -> str:
    """A name for the files of ``task`` that is not ``taken``."""
    stem = f"overlay-{re.sub(r'[^a-z0-9.+_-]+', '-', task.lower()).strip('-')}"
    return next(name for n in count(1) if (name := stem if n == 1 else f"{stem}-{n}") not in taken)


def published_pairs(
    corpus: Corpus, used: Extract, dataset: str, published_as: Iterable[str]
) -> tuple[Pair, ...]:
    """The published pairs that an own task goes by; case and punctuation of names do not matter."""
    names = {_plain(name) for name in published_as}
    names |= {
        _plain(merge.name)
        for merge in corpus.rules.merges
        if names & {_plain(name) for name in merge.architectures}
    }
    pairs = dict.fromkeys(n.result.pair for n in used.results)
    return tuple(p for p in pairs if _plain(p[0]) == _plain(dataset) and _plain(p[1]) in names)


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.lower())


def _panel(
    corpus: Corpus, results: Sequence[Normalised], pairs: tuple[Pair, ...], task: OwnTask, x: str, y: str
) -> OverlayPanel:
    published = []
    for pair in pairs:
        for curve in tradeoff_curves(corpus, results, pair=pair, x=x, y=y):
            label = f"{curve.label} ({pair[1]})" if len(pairs) > 1 else curve.label
            published.append(PublishedCurve(label, curve.paper, curve.year, curve.points))
    return OverlayPanel(x, y, task.curves(x, y), tuple(published))


@dataclass(frozen=True)
class _Sides:
    """Both sides of one overlay, for the notes."""

    task: OwnTask
    pairs: tuple[Pair, ...]
    published: list[Normalised]
    panels: tuple[OverlayPanel, ...]
    errata: str
    impossible: int


def _notes(sides: _Sides) -> tuple[str, ...]:
    """What a reader must know before comparing the two sides; every number is from the data at hand."""
    notes = [
        *_find_starting_points(sides),
        _subset(sides.task),
        _repetition(sides),
        _sizes(sides),
        _networks(sides),
        _impossible(sides),
        sides.errata and f"Published numbers: {sides.errata[0].lower()}{sides.errata[1:]}",
        "Papers seldom say how the weights that they report were chosen, nor name data augmentation, schedules "
        "and libraries well enough to rule them out as the cause of a difference.",
    ]
    lost = {(c.label, p.x) for panel in sides.panels for c, p in panel.beyond}
    if lost:
        notes.append(
            f"{len(lost)} own point{'s lie' if len(lost) > 1 else ' lies'} so far below every published one "
            "that the drawing only marks them, in a strip beneath its axis; the table has the values."
        )
    if sides.task.failed:
        notes.append(f"Own runs of this task that failed and have no point: {sides.task.failed}.")
    if sides.task.without_control:
        notes.append(
            f"Own runs that have no control of their own, and so no point: {sides.task.without_control}."
        )
    return tuple(note for note in notes if note)


def _find_starting_points(sides: _Sides) -> Iterable[str]:
    stated: dict[str, list[float]] = {}
    for n in sides.published:
        value = n.value("initial_top1")
        if value is not None:
            stated.setdefault(n.result.paper, []).append(value)
    papers = {n.result.paper for n in sides.published}
    values = [median(found) for found in stated.values()]
    between = f"{_between([100 * v for v in values])} % top-1 in {_papers(len(values))}" if values else ""
    silent = len(papers) - len(values)
    without = f"{_papers(silent)} without one" if silent else ""
    own = {name: [float(v) for v in rows["top1"].dropna()] for name, rows in sides.task.controls.items()}
    own = {name: top1 for name, top1 in own.items() if top1}
    yield (
        f"Own changes are from the run's own control, the unpruned network trained alike ({_controls(own)}); "
        "published changes are from each paper's own initial network, seldom trained further "
        f"({'; '.join(part for part in (between, without) if part)})."
    )
    for name, top1 in own.items():
        gap = fmean(top1) - median(values) if values else 0.0
        if abs(gap) > NOTABLE:
            whose = f"The own network ({name})" if len(own) > 1 else "The own network"
            yield (
                f"{whose} starts {100 * abs(gap):.1f} points {'below' if gap < 0 else 'above'} the published "
                f"median ({100 * median(values):.2f} %): equal changes from unequal starting points are not "
                "equal achievements."
            )


def _controls(own: dict[str, list[float]]) -> str:
    """Accuracy and seeds of every control; each by its name where there are several."""
    texts = []
    for name, top1 in own.items():
        seeds = f"{len(top1)} seed{'s' if len(top1) > 1 else ''}"
        texts.append(f"{f'{name}: ' if len(own) > 1 else ''}{100 * fmean(top1):.2f} % top-1, {seeds}")
    return "; ".join(texts) or "its top-1 is not measured"


def _subset(task: OwnTask) -> str:
    """That own points come from a part of the data, where they do."""
    used = " and ".join(f"{count:,} {kind}" for kind, count in task.images.items())
    return f"Own points come from a subset of the data: {used} images." if used else ""


def _repetition(sides: _Sides) -> str:
    counts = [p.results for panel in sides.panels for curve in panel.own for p in curve.points[1:]]
    points = {
        (c.label, p.x, p.y): p.spread for panel in sides.panels for c in panel.published for p in c.points
    }
    spread = sum(value is not None for value in points.values())
    runs = f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"
    return (
        f"Own points are means of {runs} seed{'s' if max(counts) > 1 else ''}, with one sample standard "
        "deviation "
        f"as a bar{'' if max(counts) > 1 else ' where there are more'}; of {len(points)} published points, "
        f"{spread} "
        "give any spread."
    )


def _sizes(sides: _Sides) -> str:
    ways: Counter[str] = Counter()
    for n in sides.published:
        for quantity in EFFICIENCIES:
            if quantity in n.measures:
                ways[f"{quantity}, {n.measures[quantity].derivation}"] += 1
    told = "; ".join(f"{way}: {count}" for way, count in ways.most_common())
    conventions = Counter(n.convention for n in sides.published if n.value("speedup") is not None)
    names = {"unknown": "not known"}
    counted = ", ".join(f"{names.get(kind, kind)} for {count}" for kind, count in conventions.most_common())
    return (
        "Own ratios count all parameters of the network and all multiply-adds. Published ratios follow what "
        "each "
        f"paper prints ({told})."
        + (f" What the published operation counts count: {counted}." if counted else "")
    )


def _networks(sides: _Sides) -> str:
    rows = next(iter(sides.task.controls.values()))
    whole = rows.get("parameters_kept", pd.Series(dtype=float)).dropna()
    own = f" ({float(whole.iloc[0]) / 1e6:.4g} M parameters)" if len(whole) else ""
    names = ", ".join(f"{architecture} on {dataset}" for dataset, architecture in sides.pairs)
    initial = [v / 1e6 for n in sides.published if (v := n.value("initial_parameters")) is not None]
    sizes = f" with {_between(initial)} M parameters where stated" if initial else ""
    known = {v.variant for pair in sides.pairs for v in variants(*pair) if v.variant}
    kinds = f" Known variants of the name: {'; '.join(sorted(known))}." if len(known) > 1 else ""
    return (
        f"Own network: {sides.task.model}{own}; published: {names}{sizes}, "
        f"which may be other networks of that name.{kinds}"
    )


def _impossible(sides: _Sides) -> str:
    """That printed values were left out, where any cannot be."""
    if not sides.impossible:
        return ""
    values = "value that cannot be is" if sides.impossible == 1 else "values that cannot be are"
    return f"{sides.impossible} published {values} left out; `shrinkbench literature lint` says why."


def _between(values: list[float]) -> str:
    """The range of ``values`` to four digits, or the one value that they share."""
    low, high = f"{min(values):.4g}", f"{max(values):.4g}"
    return low if low == high else f"{low} to {high}"


def _papers(count: int) -> str:
    return f"{count} paper{'' if count == 1 else 's'}"
