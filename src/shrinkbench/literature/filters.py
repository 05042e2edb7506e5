"""Which results an analysis uses: every exclusion and merge by name, with its count."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from functools import lru_cache

from shrinkbench.errors import UnknownNameError
from shrinkbench.literature.corpus import Corpus, nearest
from shrinkbench.literature.errata import tell
from shrinkbench.literature.normalise import Normalised, normalise
from shrinkbench.literature.rules import Scope, Where
from shrinkbench.literature.schema import UNPRUNED


@dataclass(frozen=True)
class Applied:
    """A named choice and what it touched."""

    name: str
    reason: str
    results: int
    papers: tuple[str, ...]

    def __str__(self) -> str:
        papers = f"{len(self.papers)} paper{'s' if len(self.papers) != 1 else ''}"
        return (
            f"{self.name}: {self.results} result{'s' if self.results != 1 else ''} of {papers} ({self.reason})"
        )


@dataclass(frozen=True)
class Extract:
    """Results in use, in common metrics, and what was left out, merged or kept by request."""

    results: tuple[Normalised, ...]
    excluded: tuple[Applied, ...]
    merged: tuple[Applied, ...] = ()
    kept: tuple[str, ...] = ()


def extract(
    corpus: Corpus,
    scope: Scope,
    *,
    keep: Collection[str] = (),
    supplements: bool = False,
    pair: tuple[str, str] | None = None,
) -> Extract:
    """The results of ``corpus`` that ``scope`` uses.

    Each named exclusion of that scope applies unless ``keep`` names it; a result that several exclusions cover
    counts for the first. Curves and variability see merged architectures, counts do not. ``supplements`` adds
    the collections that stand beside the corpus; ``pair`` narrows everything to one dataset and network.
    Raises ``UnknownNameError`` for a name that is no exclusion.
    """
    names = tuple(exclusion.name for exclusion in corpus.rules.exclusions)
    for name in keep:
        if name not in names:
            raise UnknownNameError(f"the corpus has no exclusion '{name}'; {nearest(name, names)}")
    left = [
        n
        for n in _normalise_all(corpus)
        if (supplements or not n.result.collection) and pair in (None, n.result.pair)
    ]
    excluded = []
    for exclusion in corpus.rules.exclusions:
        if scope not in exclusion.scope or exclusion.name in keep:
            continue
        out = [n for n in left if any(fits(where, n) for where in exclusion.where)]
        if out:
            excluded.append(_apply(exclusion.name, exclusion.reason, out))
            gone = set(map(id, out))
            left = [n for n in left if id(n) not in gone]
    merged: tuple[Applied, ...] = ()
    if scope != "counts":
        left, merged = _merge(corpus, left)
    return Extract(tuple(left), tuple(excluded), merged, tuple(keep))


def fits(where: Where, result: Normalised) -> bool:
    """Whether a result is one that ``where`` describes."""
    return where.matches(result.result.fields, result.value("top1"), result.value("compression"))


def errata_told(corpus: Corpus, results: Iterable[Normalised]) -> str:
    """One sentence on the errata of ``corpus`` that are about ``results``; empty where none is."""
    networks = {(n.result.paper, n.result.dataset, n.result.network) for n in results}
    papers = {(paper, dataset, UNPRUNED) for paper, dataset, _ in networks}
    about = [e for e in corpus.errata if (e.paper, e.dataset, e.network) in networks | papers]
    return tell(about, as_printed=corpus.as_printed)


@lru_cache(maxsize=4)
def _normalise_all(corpus: Corpus) -> tuple[Normalised, ...]:
    return tuple(normalise(result) for result in corpus.results)


def _apply(name: str, reason: str, results: list[Normalised]) -> Applied:
    papers = tuple(dict.fromkeys(n.result.paper for n in results))
    return Applied(name, reason, len(results), papers)


def _merge(corpus: Corpus, results: list[Normalised]) -> tuple[list[Normalised], tuple[Applied, ...]]:
    """Results with merged architectures under one name; derivations used the names before."""
    applied = []
    for merge in corpus.rules.merges:
        touched = [n for n in results if n.result.architecture in merge.architectures]
        if touched:
            applied.append(_apply(f"merge {merge.name}", merge.reason, touched))
        results = [
            replace(n, result=replace(n.result, architecture=merge.name))
            if n.result.architecture in merge.architectures
            else n
            for n in results
        ]
    return results, tuple(applied)
