"""Checks that find what is inconsistent, impossible or ambiguous in a corpus."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from statistics import median

from shrinkbench.literature.accuracies import find_unlikely_accuracies
from shrinkbench.literature.corpus import Corpus, Finding
from shrinkbench.literature.graph import comparison_graph
from shrinkbench.literature.normalise import Normalised, normalise, readings
from shrinkbench.literature.reference import TOLERANCE, known_networks, variants
from shrinkbench.literature.schema import UNIDENTIFIED

Check = Callable[[Corpus, tuple[Normalised, ...]], Iterable[Finding]]
SIZE_TOLERANCE = 0.25
"""How far initial sizes of one network may be apart before they are no longer one network."""
_UNDEFINED_RATIO = re.compile(r"compression[ -]?(?:ratio|rate)|undefined|haven't defined", re.IGNORECASE)


def lint(corpus: Corpus) -> tuple[Finding, ...]:
    """Everything that the checks find, check by check; what loading found comes first."""
    results = tuple(normalise(result) for result in corpus.results)
    found = [finding for check in CHECKS.values() for finding in check(corpus, results)]
    return (*corpus.findings, *found)


def _find_conflicts(corpus: Corpus, results: tuple[Normalised, ...]) -> Iterator[Finding]:
    """Accuracy, initial accuracy and change, or sizes and fractions, that do not add up."""
    for n in results:
        for conflict in n.conflicts:
            yield Finding("does-not-add-up", n.result.where, f"{conflict}; correct the wrong one")


def _ranges(corpus: Corpus, results: tuple[Normalised, ...]) -> Iterator[Finding]:
    """Values that cannot be: accuracies or fractions outside [0, 1], networks that grew."""
    for n in results:
        for quantity, fact in n.result.facts.items():
            if fact.impossible:
                message = f"{quantity} = {fact.value}: {fact.impossible}"
                yield Finding("impossible-value", n.result.where, message)
        for quantity, what in (("compression", "parameters"), ("speedup", "operations")):
            value = n.value(quantity)
            if value is not None and value < 1:
                message = f"{quantity} {value:.3g}: more {what} after pruning than before"
                yield Finding("grew", n.result.where, message)


def _find_anachronisms(corpus: Corpus, results: tuple[Normalised, ...]) -> Iterator[Finding]:
    """Comparisons with papers that appeared later."""
    for source, target in comparison_graph(corpus).impossible:
        yield Finding(
            "compares-to-later-paper",
            source.key,
            f"{source.label} ({source.date}) compares to {target.label} ({target.key}, {target.date}); "
            "one date or the comparison is wrong, or the later paper was out as a preprint",
        )


def _find_dangling(corpus: Corpus, results: tuple[Normalised, ...]) -> Iterator[Finding]:
    """Comparisons that lead nowhere."""
    for source, target in comparison_graph(corpus).dangling:
        problem = "compares to itself" if source == target else f"compares to the unknown paper '{target}'"
        yield Finding("dangling-comparison", source, problem)


def _find_papers_without_results(corpus: Corpus, results: tuple[Normalised, ...]) -> Iterator[Finding]:
    """Surveyed papers without a single result on record."""
    having = {n.result.paper for n in results}
    for paper in corpus.surveyed:
        if paper.key not in having:
            yield Finding("no-results", paper.key, f"{paper.label} is surveyed but has no result on record")


def _find_unidentified(corpus: Corpus, results: tuple[Normalised, ...]) -> Iterator[Finding]:
    """Results on datasets or networks that their paper leaves open."""
    for n in results:
        if UNIDENTIFIED in n.result.pair:
            what = "dataset" if n.result.dataset == UNIDENTIFIED else "network"
            yield Finding("unidentified", n.result.where, f"the {what} is not identified")


def _find_repeated(corpus: Corpus, results: tuple[Normalised, ...]) -> Iterator[Finding]:
    """One result printed twice with different values, or several results at one size."""
    for n in results:
        for fact in n.result.repeated:
            first = n.result.facts[fact.quantity]
            if abs(fact.scaled - first.scaled) > max(fact.resolution, first.resolution):
                yield Finding(
                    "printed-twice",
                    n.result.where,
                    f"{fact.quantity} is {first.value} in {first.source} but {fact.value} in {fact.source}",
                )


def _find_uncertain(corpus: Corpus, results: tuple[Normalised, ...]) -> Iterator[Finding]:
    """Facts that whoever recorded them could not read with certainty."""
    for fact in corpus.facts:
        if fact.note.startswith("uncertain"):
            where = f"{fact.paper}: {fact.dataset} / {fact.architecture}, {fact.source}"
            yield Finding("uncertain-reading", where, f"{fact.quantity} = {fact.value}: {fact.note}")


def _find_ambiguous(corpus: Corpus, results: tuple[Normalised, ...]) -> Iterator[Finding]:
    """Shares whose meaning the paper leaves open: kept, pruned, or original over kept."""
    for n in results:
        for quantity in ("parameters_pruned", "parameters_kept", "operations_pruned", "operations_kept"):
            fact = n.result.facts.get(quantity)
            if fact is not None and _UNDEFINED_RATIO.search(fact.note):
                meant = ", ".join(f"{name}: {ratio:.3g}x" for name, ratio in readings(fact.scaled).items())
                yield Finding(
                    "ambiguous-convention",
                    n.result.where,
                    f"{fact.value} {fact.unit} is read as {quantity}; it may mean {meant}",
                )


def _initial_sizes(corpus: Corpus, results: tuple[Normalised, ...]) -> Iterator[Finding]:
    """Networks of one name whose initial sizes are too far apart, and operation counts of unknown kind."""
    reported: dict[tuple[str, str], list[float]] = {}
    for n in results:
        value = n.value("initial_parameters")
        if value is not None:
            reported.setdefault(n.result.pair, []).append(value)
    seen: set[tuple[str, str, str]] = set()
    for n in results:
        place = (n.result.paper, *n.result.pair)
        if place in seen or UNIDENTIFIED in n.result.pair:
            continue
        value = n.value("initial_parameters")
        known = [v.parameters for v in variants(*n.result.pair)]
        usual = median(known or reported.get(n.result.pair, [1]))
        if value is not None and abs(value / usual - 1) > SIZE_TOLERANCE:
            seen.add(place)
            fits = [v.architecture for v in known_networks() if _same(n, v.dataset, value, v.parameters)]
            message = (
                f"{value / 1e6:.4g} M initial parameters where {usual / 1e6:.4g} M are usual: another network"
                + (f", perhaps {fits[0]}" if fits else "")
            )
            yield Finding("initial-size", n.result.where, message)
        fact = n.result.facts.get("initial_operations")
        if fact is not None and known and n.convention == "unknown":
            seen.add(place)
            usual_adds = sorted({v.multiply_adds / 1e9 for v in variants(*n.result.pair)})
            counted = " or ".join(f"{count:.4g}" for count in usual_adds)
            yield Finding(
                "operations-convention",
                n.result.where,
                f"{fact.scaled / 1e9:.4g} G initial operations are neither the {counted} G multiply-adds of "
                "the "
                "network nor twice that; they are not converted",
            )


def _same(result: Normalised, dataset: str, value: float, parameters: int) -> bool:
    return dataset == result.result.dataset and abs(value / parameters - 1) <= 0.02


def _list_networks(corpus: Corpus, results: tuple[Normalised, ...]) -> Iterator[Finding]:
    """Published lists whose operation counts contradict the network, or look exchanged between networks."""
    known = {(v.dataset, v.architecture): v for v in reversed(known_networks())}
    for item in corpus.listings:
        network = known.get((item.dataset, item.architecture))
        if item.quantity != "operations" or network is None:
            continue
        listed = item.scaled
        if abs(listed / network.multiply_adds - 1) <= 2 * TOLERANCE:
            continue
        fits = [
            other.architecture
            for (dataset, _), other in known.items()
            if dataset == item.dataset
            and _stem(other.architecture) == _stem(item.architecture)
            and abs(listed / other.multiply_adds - 1) <= TOLERANCE
        ]
        hint = f"; {' and '.join(fits)} would fit, so the rows look exchanged" if fits else ""
        yield Finding(
            "listed-operations",
            f"{item.catalogue}: {item.architecture} ({item.source})",
            f"{listed / 1e9:.4g} G listed, {network.multiply_adds / 1e9:.4g} G multiply-adds counted{hint}",
        )


def _names(corpus: Corpus, results: tuple[Normalised, ...]) -> Iterator[Finding]:
    """One network or dataset under two names, and two papers under one label."""
    used = {n.result.architecture for n in results} | {n.result.dataset for n in results}
    groups = [tuple(name for name in group if name in used) for group in corpus.rules.synonyms]
    spelled: dict[str, list[str]] = {}
    for name in sorted(used):
        spelled.setdefault(re.sub(r"[\W_]+", "", name.lower()), []).append(name)
    for group in (*groups, *map(tuple, spelled.values())):
        if len(group) > 1:
            yield Finding(
                "two-names", " = ".join(group), "one thing under two names; each is counted for itself"
            )
    labels = Counter(paper.label for paper in corpus.papers)
    for label, count in labels.items():
        if count > 1:
            keys = ", ".join(paper.key for paper in corpus.papers if paper.label == label)
            yield Finding("one-label", keys, f"{count} papers are shown as '{label}'; figures add their keys")


def _parts(corpus: Corpus, results: tuple[Normalised, ...]) -> Iterator[Finding]:
    """Tables of parts whose total contradicts the share that the table is about."""
    parts: dict[tuple[str, ...], dict[str, float]] = {}
    for fact in corpus.facts:
        if fact.part and fact.quantity == "channels":
            key = (fact.paper, fact.dataset, fact.architecture, fact.method, fact.source)
            totals = parts.setdefault(key, {})
            totals[fact.network] = totals.get(fact.network, 0.0) + fact.scaled
    for (paper, dataset, architecture, _, source), totals in parts.items():
        whole = totals.get("unpruned")
        for network, total in totals.items():
            share = re.fullmatch(r"(\d+(?:\.\d+)?) ?%.*", network)
            if whole and share and abs(1 - total / whole - float(share[1]) / 100) > 0.005:
                yield Finding(
                    "total",
                    f"{paper}: {dataset} / {architecture}, {source}",
                    f"the parts add up to {1 - total / whole:.1%} pruned, the table is about {network}",
                )


def _stem(architecture: str) -> str:
    """The family of a network's name: letters before the first digit."""
    return re.split(r"[\d-]", architecture, maxsplit=1)[0]


CHECKS: dict[str, Check] = {
    "does-not-add-up": _find_conflicts,
    "impossible-value": _ranges,
    "unlikely-accuracy": find_unlikely_accuracies,
    "compares-to-later-paper": _find_anachronisms,
    "dangling-comparison": _find_dangling,
    "printed-twice": _find_repeated,
    "total": _parts,
    "ambiguous-convention": _find_ambiguous,
    "uncertain-reading": _find_uncertain,
    "initial-size": _initial_sizes,
    "listed-operations": _list_networks,
    "two-names": _names,
    "unidentified": _find_unidentified,
    "no-results": _find_papers_without_results,
}
"""The checks by the name of their first finding."""
