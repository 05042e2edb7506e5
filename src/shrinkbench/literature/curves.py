"""Trade-off curves: what each method reports of efficiency against accuracy, per dataset and network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from shrinkbench.literature.corpus import Corpus
from shrinkbench.literature.filters import Extract, extract
from shrinkbench.literature.normalise import Normalised

Pair = tuple[str, str]
EFFICIENCIES = {"compression": "Compression ratio", "speedup": "Theoretical speedup"}
CHANGES = {"top1_change": "Change in top-1 accuracy", "top5_change": "Change in top-5 accuracy"}


@dataclass(frozen=True)
class PublishedPoint:
    """One operating point: the mean over results at one x.

    ``spread`` is the sample standard deviation over those results or, for a single one, what its paper prints.
    ``errata`` counts the corrected numbers that it rests on.
    """

    x: float
    y: float
    spread: float | None
    results: int
    errata: int = 0


@dataclass(frozen=True)
class PublishedCurve:
    """One method on one pair: its points by rising x."""

    label: str
    paper: str
    year: int
    points: tuple[PublishedPoint, ...]


@dataclass(frozen=True)
class PublishedPanel:
    """The curves of one pair and one choice of axes."""

    pair: Pair
    x: str
    y: str
    curves: tuple[PublishedCurve, ...]


def is_plottable(result: Normalised) -> bool:
    """Whether a result has an efficiency and a change in accuracy, and so a place in some panel."""
    has = result.measures
    return any(x in has for x in EFFICIENCIES) and any(y in has for y in CHANGES)


def most_common_pairs(corpus: Corpus, *, keep: Collection[str] = (), count: int = 4) -> tuple[Pair, ...]:
    """The pairs that most papers use, merged networks as one, toy datasets left out.

    Ties go to the pair with more results that can be plotted, then by name.
    """
    into = {name: merge.name for merge in corpus.rules.merges for name in merge.architectures}
    papers: dict[Pair, set[str]] = {}
    plottable: Counter[Pair] = Counter()
    for n in extract(corpus, "counts", keep=keep).results:
        pair = (n.result.dataset, into.get(n.result.architecture, n.result.architecture))
        if pair[0] not in corpus.rules.toy_datasets:
            papers.setdefault(pair, set()).add(n.result.paper)
            plottable[pair] += is_plottable(n)
    ranked = sorted(papers, key=lambda pair: (-len(papers[pair]), -plottable[pair], pair))
    return tuple(ranked[:count])


def fragmentation_panels(
    corpus: Corpus, *, keep: Collection[str] = (), pairs: Sequence[Pair] | None = None
) -> tuple[tuple[PublishedPanel, ...], Extract]:
    """Every panel of Figure 3, columns before rows, and the extract behind it."""
    used = extract(corpus, "curves", keep=keep)
    chosen = most_common_pairs(corpus, keep=keep) if pairs is None else tuple(pairs)
    panels = tuple(
        PublishedPanel(pair, x, y, tradeoff_curves(corpus, used.results, pair=pair, x=x, y=y))
        for pair in chosen
        for x in EFFICIENCIES
        for y in CHANGES
    )
    return panels, used


def tradeoff_curves(
    corpus: Corpus, results: Iterable[Normalised], *, pair: Pair, x: str, y: str
) -> tuple[PublishedCurve, ...]:
    """One curve per method on ``pair``, oldest first; results without both values have no point."""
    placed = []
    for n in results:
        efficiency, change = n.measures.get(x), n.measures.get(y)
        if n.result.pair == pair and efficiency is not None and change is not None:
            errata = efficiency.errata + change.errata
            placed.append(PlacedResult(n, efficiency.value, change.value, change.spread, errata))
    return group_curves(corpus, placed)


@dataclass(frozen=True)
class PlacedResult:
    """A result with its coordinates, and how many corrected numbers they rest on."""

    result: Normalised
    x: float
    y: float
    spread: float | None
    errata: int = 0


def group_curves(corpus: Corpus, places: Iterable[PlacedResult]) -> tuple[PublishedCurve, ...]:
    """Join places into one curve per method, oldest first."""
    grouped: dict[tuple[str, str], list[PlacedResult]] = {}
    for place in places:
        paper = place.result.result.paper
        grouped.setdefault((paper, method_label(corpus, place.result)), []).append(place)
    curves = [
        PublishedCurve(label, paper, corpus.by_key[paper].year, _points(found))
        for (paper, label), found in grouped.items()
    ]
    return tuple(sorted(_distinct(curves), key=lambda c: (c.year, c.label)))


def method_label(corpus: Corpus, result: Normalised) -> str:
    """Author, year and the method that the paper names, unless its variants are merged."""
    label = corpus.by_key[result.result.paper].label
    merged = {merge.paper for merge in corpus.rules.method_merges}
    variant = "" if result.result.paper in merged else result.result.variant
    return f"{label}, {variant}" if variant else label


def points_per_curve(results: Iterable[Normalised], pairs: Collection[Pair]) -> dict[tuple[str, Pair], int]:
    """How many operating points each paper gives each of ``pairs``; only results that can be plotted count."""
    return dict(
        Counter((n.result.paper, n.result.pair) for n in results if n.result.pair in pairs and is_plottable(n))
    )


def methods_without_shared_coordinate(corpus: Corpus, results: Iterable[Normalised]) -> tuple[str, ...]:
    """Papers drawn as several methods although no two of them share an x on any pair.

    Footnote 5 of the paper would draw those as one curve; the corpus names their methods, so they stay apart.
    """
    named: dict[str, set[str]] = {}
    seen: dict[tuple[str, Pair, str, float], set[str]] = {}
    for n in results:
        if n.result.variant and is_plottable(n):
            named.setdefault(n.result.paper, set()).add(method_label(corpus, n))
            for x in EFFICIENCIES:
                value = n.value(x)
                if value is not None:
                    seen.setdefault((n.result.paper, n.result.pair, x, value), set()).add(n.result.variant)
    sharing = {paper for (paper, *_), methods in seen.items() if len(methods) > 1}
    return tuple(sorted(p for p, methods in named.items() if len(methods) > 1 and p not in sharing))


def _points(places: list[PlacedResult]) -> tuple[PublishedPoint, ...]:
    at: dict[float, list[PlacedResult]] = {}
    for place in places:
        at.setdefault(place.x, []).append(place)
    points = []
    for x, together in sorted(at.items()):
        values = [place.y for place in together]
        spread = stdev(values) if len(values) > 1 else together[0].spread
        errata = sum(place.errata for place in together)
        points.append(PublishedPoint(x, fmean(values), spread, len(values), errata))
    return tuple(points)


def _distinct(curves: list[PublishedCurve]) -> list[PublishedCurve]:
    """Curves whose labels tell papers apart: two papers of one author and year get their keys."""
    papers: dict[str, set[str]] = {}
    for curve in curves:
        papers.setdefault(curve.label, set()).add(curve.paper)
    return [
        PublishedCurve(f"{c.label} ({c.paper})", c.paper, c.year, c.points) if len(papers[c.label]) > 1 else c
        for c in curves
    ]
