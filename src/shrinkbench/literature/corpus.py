"""A loaded corpus and the results it holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from shrinkbench.errors import UnknownNameError
from shrinkbench.literature.errata import Erratum, tell
from shrinkbench.literature.rules import Rules
from shrinkbench.literature.schema import UNPRUNED, Fact, Listing, Paper


@dataclass(frozen=True)
class Finding:
    """Something wrong or doubtful in a corpus: the check that found it, where, and what."""

    check: str
    where: str
    message: str


@dataclass(frozen=True)
class Result:
    """One pruned network of one paper: its facts by quantity, initial values included.

    Facts about parts of a network are left out; ``repeated`` are those that the paper prints again.
    """

    paper: str
    dataset: str
    architecture: str
    method: str
    finetuning: str
    network: str
    collection: str
    facts: Mapping[str, Fact]
    repeated: tuple[Fact, ...] = ()

    @property
    def fields(self) -> dict[str, str]:
        """The fields that exclusions may name."""
        return {
            "paper": self.paper,
            "dataset": self.dataset,
            "architecture": self.architecture,
            "method": self.method,
            "finetuning": self.finetuning,
            "collection": self.collection,
        }

    @property
    def pair(self) -> tuple[str, str]:
        """Dataset and architecture."""
        return (self.dataset, self.architecture)

    @property
    def variant(self) -> str:
        """Method and fine-tuning as one name; empty where the paper has one method."""
        return ", ".join(part for part in (self.method, self.finetuning) if part)

    @property
    def source(self) -> str:
        """Where the result was printed."""
        return next((fact.source for fact in self.facts.values()), "")

    @property
    def where(self) -> str:
        """A place that a person can find: paper, network, and the printed source."""
        name = f"{self.paper}: {self.dataset} / {self.architecture}"
        return name + "".join(f", {part}" for part in (self.variant, self.source) if part)


@dataclass(frozen=True, eq=False)
class Corpus:
    """Papers, facts and unpruned networks, with the named choices that go with them.

    ``errata`` are the listed corrections that the facts have, or would have if they were not read
    ``as_printed``. Compared and hashed by identity, so that what is derived from it can be kept.
    """

    name: str
    reference: str
    papers: tuple[Paper, ...]
    facts: tuple[Fact, ...]
    listings: tuple[Listing, ...] = ()
    rules: Rules = field(default_factory=Rules)
    findings: tuple[Finding, ...] = ()
    origin: str = "bundled"
    errata: tuple[Erratum, ...] = ()
    as_printed: bool = False

    @property
    def errata_told(self) -> str:
        """One sentence on all errata, with their number; empty where none is listed."""
        return tell(self.errata, as_printed=self.as_printed)

    @cached_property
    def by_key(self) -> dict[str, Paper]:
        """Papers by key."""
        return {paper.key: paper for paper in self.papers}

    @cached_property
    def surveyed(self) -> tuple[Paper, ...]:
        """The papers whose content is on record: what the corpus counts."""
        return tuple(paper for paper in self.papers if paper.surveyed)

    @cached_property
    def results(self) -> tuple[Result, ...]:
        """Every pruned network, supplements included, in the order of the facts."""
        return _group(self.facts)

    def paper(self, key: str) -> Paper:
        """The paper called ``key``; raises ``UnknownNameError`` with the nearest keys."""
        if key not in self.by_key:
            raise UnknownNameError(f"the corpus has no paper '{key}'; {nearest(key, self.by_key)}")
        return self.by_key[key]


def nearest(name: str, known: Mapping[str, object] | tuple[str, ...]) -> str:
    """A hint for a name that is not known: the nearest ones, or all of a few."""
    import difflib

    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if near:
        return "did you mean " + " or ".join(f"'{n}'" for n in near) + "?"
    return f"known: {', '.join(names[:12])}" + (", ..." if len(names) > 12 else "")


def _group(facts: tuple[Fact, ...]) -> tuple[Result, ...]:
    """Collect facts into results and hand each the initial values and sizes that it shares with others."""
    unpruned: dict[tuple[str, ...], list[Fact]] = {}
    networks: dict[tuple[str, ...], list[Fact]] = {}
    for fact in facts:
        if fact.part:
            continue
        pair = (fact.paper, fact.dataset, fact.architecture, fact.collection)
        if fact.network == UNPRUNED:
            unpruned.setdefault(pair, []).append(fact)
        else:
            networks.setdefault((*pair, fact.network), []).append(fact)
    results = []
    for (paper, dataset, architecture, collection, network), own in networks.items():
        initial = unpruned.get((paper, dataset, architecture, collection), [])
        for method, finetuning in _variants(own):
            shared, repeated = _facts_of(own, initial, method, finetuning)
            results.append(
                Result(
                    paper=paper,
                    dataset=dataset,
                    architecture=architecture,
                    method=method,
                    finetuning=finetuning,
                    network=network,
                    collection=collection,
                    facts=shared,
                    repeated=repeated,
                )
            )
    return tuple(results)


def _variants(facts: list[Fact]) -> list[tuple[str, str]]:
    """Method and fine-tuning of each result of one network; a blank that a named one fills is none itself."""
    variants = list(dict.fromkeys((fact.method, fact.finetuning) for fact in facts))
    return [v for v in variants if not any(w != v and _holds(v, w) for w in variants)]


def _holds(general: tuple[str, str], special: tuple[str, str]) -> bool:
    """Whether facts of method and fine-tuning ``general``, blanks meaning any, hold for ``special``."""
    return all(g in ("", s) for g, s in zip(general, special, strict=True))


def _facts_of(
    own: list[Fact], initial: list[Fact], method: str, finetuning: str
) -> tuple[dict[str, Fact], tuple[Fact, ...]]:
    facts: dict[str, Fact] = {}
    repeated = []
    for fact in own:
        if _holds((fact.method, fact.finetuning), (method, finetuning)):
            if fact.quantity in facts:
                repeated.append(fact)
            facts.setdefault(fact.quantity, fact)
    # The most specific initial value wins: same fine-tuning, then same method, then any.
    for fact in sorted(initial, key=lambda f: (not f.finetuning, not f.method)):
        if _holds((fact.method, fact.finetuning), (method, finetuning)):
            facts.setdefault(f"initial_{fact.quantity}", fact)
    return facts, tuple(repeated)
