"""What a corpus counts: papers, datasets, networks, pairs, Table 1, and the histograms of Figures 2 and 4."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from shrinkbench.literature.corpus import Corpus
from shrinkbench.literature.curves import Pair, is_plottable, most_common_pairs, points_per_curve
from shrinkbench.literature.errata import Erratum
from shrinkbench.literature.filters import Applied, Extract, extract
from shrinkbench.literature.graph import comparison_graph
from shrinkbench.literature.normalise import Normalised, derivation_counts

TABLE1_MINIMUM = 4
"""Table 1 lists the pairs that at least this many papers use."""

Histogram = dict[str, dict[int, int]]
"""Split by peer review ("peer_reviewed", "other"): value -> how many papers or curves have it."""


@dataclass(frozen=True)
class Usage:
    """One row of Table 1."""

    dataset: str
    architecture: str
    papers: int


@dataclass(frozen=True)
class PrintDifference:
    """A printed number that the corpus does not give, and why."""

    number: str
    printed: int
    found: int
    why: str

    def __str__(self) -> str:
        return f"{self.number}: {self.found} here, {self.printed} in print: {self.why}"


@dataclass(frozen=True)
class CorpusSummary:
    """Everything that ``shrinkbench literature summary`` says; counts of papers unless named otherwise."""

    corpus: str
    origin: str
    papers: int
    papers_since_2010: int
    papers_before_2010: int
    non_pruning_papers: int
    peer_reviewed_papers: int
    datasets: int
    architectures: int
    pairs: int
    results: int
    results_with_numbers: int
    compare_to_none: int
    compare_to_at_most_one: int
    compare_to_at_most_three: int
    never_compared_to: int
    four_pairs: tuple[Pair, ...]
    papers_on_four_pairs: int
    table1: tuple[Usage, ...]
    figure2: dict[str, Histogram]
    figure4: dict[str, Histogram]
    exclusions: dict[str, tuple[Applied, ...]]
    derivations: dict[str, int]
    conflicts: int
    errata: tuple[Erratum, ...]
    errata_applied: int
    errata_told: str
    printed: str
    agrees_with_print: tuple[str, ...]
    differs_from_print: tuple[PrintDifference, ...]

    def as_json(self) -> dict[str, Any]:
        """The summary as plain values for JSON, shares included."""
        data = asdict(self)
        data["errata"] = [erratum.model_dump(mode="json") for erratum in self.errata]
        for name in ("compare_to_none", "compare_to_at_most_one", "compare_to_at_most_three"):
            data[f"{name}_share"] = round(data[name] / self.papers, 4) if self.papers else None
        return data


def summarise_corpus(corpus: Corpus, *, keep: Collection[str] = ()) -> CorpusSummary:
    """Count ``corpus``; ``keep`` names exclusions that are not to apply."""
    counted, drawn = extract(corpus, "counts", keep=keep), extract(corpus, "curves", keep=keep)
    four = most_common_pairs(corpus, keep=keep)
    numbers = _numbers(corpus, counted, four)
    table1 = tuple(use for use in _uses(corpus, counted.results) if use.papers >= TABLE1_MINIMUM)
    agrees, differs = _against_print(corpus, numbers, table1, _Reasons(corpus, keep, four, counted, drawn))
    graph = comparison_graph(corpus)
    incoming = [(paper.key, graph.compared_to_by[paper.key]) for paper in corpus.surveyed]
    points = points_per_curve(drawn.results, four)
    return CorpusSummary(
        corpus=corpus.name,
        origin=corpus.origin,
        **numbers,
        four_pairs=four,
        table1=table1,
        figure2={
            "compared_to_by": _split_by_review(corpus, incoming),
            "compares_to": _split_by_review(corpus, graph.compares_to.items()),
        },
        figure4={
            "pairs_per_paper": _split_by_review(corpus, pairs_per_paper(corpus, counted.results).items()),
            "points_per_curve": _split_by_review(corpus, ((paper, n) for (paper, _), n in points.items())),
        },
        exclusions={"counts": counted.excluded, "curves": (*drawn.excluded, *drawn.merged)},
        derivations=derivation_counts(counted.results),
        conflicts=sum(len(n.conflicts) for n in counted.results),
        errata=corpus.errata,
        errata_applied=0 if corpus.as_printed else len(corpus.errata),
        errata_told=corpus.errata_told,
        printed=corpus.rules.printed.source,
        agrees_with_print=agrees,
        differs_from_print=differs,
    )


def _numbers(corpus: Corpus, counted: Extract, four: tuple[Pair, ...]) -> dict[str, int]:
    """Every plain count, by the name of its field."""
    surveyed, results = corpus.surveyed, counted.results
    graph = comparison_graph(corpus)
    outgoing, incoming = graph.compares_to.values(), graph.compared_to_by
    return {
        "papers": len(surveyed),
        "papers_since_2010": sum(p.year >= 2010 for p in surveyed),
        "papers_before_2010": sum(p.year < 2010 for p in surveyed),
        "non_pruning_papers": sum(not p.pruning for p in surveyed),
        "peer_reviewed_papers": sum(p.peer_reviewed for p in surveyed),
        "datasets": len({n.result.dataset for n in results}),
        "architectures": len({n.result.architecture for n in results}),
        "pairs": len({n.result.pair for n in results}),
        "results": len(results),
        "results_with_numbers": sum("evaluated" not in n.result.facts for n in results),
        "compare_to_none": sum(degree == 0 for degree in outgoing),
        "compare_to_at_most_one": sum(degree <= 1 for degree in outgoing),
        "compare_to_at_most_three": sum(degree <= 3 for degree in outgoing),
        "never_compared_to": sum(incoming[paper.key] == 0 for paper in surveyed),
        "papers_on_four_pairs": len(_on_pairs(corpus, counted, four)),
    }


def pairs_per_paper(corpus: Corpus, results: Iterable[Normalised]) -> dict[str, int]:
    """How many pairs each paper uses, toy datasets left out; papers with none are left out as in Figure 4."""
    used: dict[str, set[Pair]] = {}
    for n in results:
        if n.result.dataset not in corpus.rules.toy_datasets:
            used.setdefault(n.result.paper, set()).add(n.result.pair)
    return {paper: len(pairs) for paper, pairs in used.items()}


def _uses(corpus: Corpus, results: Iterable[Normalised]) -> tuple[Usage, ...]:
    papers: dict[Pair, set[str]] = {}
    for n in results:
        papers.setdefault(n.result.pair, set()).add(n.result.paper)
    rows = [Usage(pair[0], corpus.rules.shown(pair[1]), len(using)) for pair, using in papers.items()]
    return tuple(sorted(rows, key=lambda row: (-row.papers, row.dataset, row.architecture)))


def _split_by_review(corpus: Corpus, values: Iterable[tuple[str, int]]) -> Histogram:
    """Histogram of (paper, value), split by peer review, values rising."""
    histogram: dict[str, Counter[int]] = {"peer_reviewed": Counter(), "other": Counter()}
    for paper, value in values:
        histogram["peer_reviewed" if corpus.by_key[paper].peer_reviewed else "other"][value] += 1
    return {side: dict(sorted(counts.items())) for side, counts in histogram.items()}


def _on_pairs(corpus: Corpus, used: Extract, pairs: tuple[Pair, ...]) -> set[str]:
    into = {name: merge.name for merge in corpus.rules.merges for name in merge.architectures}
    return {
        n.result.paper
        for n in used.results
        if (n.result.dataset, into.get(n.result.architecture, n.result.architecture)) in pairs
    }


def _list_plotted(used: Extract, pairs: tuple[Pair, ...]) -> set[str]:
    return {n.result.paper for n in used.results if n.result.pair in pairs and is_plottable(n)}


def _against_print(
    corpus: Corpus, values: Mapping[str, int], table1: tuple[Usage, ...], reasons: _Reasons
) -> tuple[tuple[str, ...], tuple[PrintDifference, ...]]:
    """What equals the printed numbers, and what does not with the reason."""
    printed = corpus.rules.printed
    agrees, differs = [], []
    for name, number in printed.numbers.items():
        if values[name] == number:
            agrees.append(f"{name}: {number}")
        else:
            differs.append(PrintDifference(name, number, values[name], reasons.why(name, number)))
    found = {(row.dataset, row.architecture): row.papers for row in table1}
    wanted = {(dataset, architecture): papers for dataset, architecture, papers in printed.table1}
    for pair in dict.fromkeys([*wanted, *found]) if wanted else ():
        if wanted.get(pair) != found.get(pair):
            name = f"table1, {pair[0]} / {pair[1]}"
            differs.append(PrintDifference(name, wanted.get(pair, 0), found.get(pair, 0), reasons.why(name, 0)))
    if wanted:
        rows = sum(found.get(pair) == papers for pair, papers in wanted.items())
        agrees.append(f"table1: {rows} of {len(wanted)} rows")
    return tuple(agrees), tuple(differs)


@dataclass(frozen=True)
class _Reasons:
    """Finds out from the data why a count differs from a printed one."""

    corpus: Corpus
    keep: Collection[str]
    four: tuple[Pair, ...]
    counted: Extract
    drawn: Extract

    def why(self, name: str, printed: int) -> str:
        if name.endswith("2010"):
            old = sorted((p for p in self.corpus.surveyed if p.year < 2010), key=lambda p: p.date)
            listed = ", ".join(f"{p.label} ({p.key})" for p in old)
            return f"by the dates on record, the papers before 2010 are {listed}"
        if name == "papers_on_four_pairs":
            return self._four_pairs(printed)
        kept = f"; kept by request: {', '.join(self.keep)}" if self.keep else ""
        return f"the corpus and the exclusions in force give another count{kept}"

    def _four_pairs(self, printed: int) -> str:
        used, drawn = _on_pairs(self.corpus, self.counted, self.four), _list_plotted(self.drawn, self.four)
        names = [applied.name for applied in self.drawn.excluded]
        enough = [
            name
            for name in names
            if len(_list_plotted(extract(self.corpus, "curves", keep=[*self.keep, name]), self.four)) == printed
        ]
        hint = f"; without the exclusion {' or '.join(enough)} it would be {printed}" if enough else ""
        return (
            f"{len(used)} papers have a result on these pairs, of which {len(drawn)} give both an efficiency "
            "and "
            f"a change in accuracy and have a curve in Figure 3{hint}; no curve: "
            f"{', '.join(sorted(used - drawn))}"
        )
