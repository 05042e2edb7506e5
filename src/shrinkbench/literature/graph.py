"""Who compares to whom: the directed graph of comparisons between papers, and questions to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

from shrinkbench.errors import UnknownNameError
from shrinkbench.literature.corpus import Corpus, nearest
from shrinkbench.literature.filters import extract
from shrinkbench.literature.schema import Paper


@dataclass(frozen=True)
class ComparisonGraph:
    """Papers, and an edge from each to every paper that it compares to; ``dangling`` edges lead nowhere."""

    papers: tuple[Paper, ...]
    edges: tuple[tuple[str, str], ...]
    dangling: tuple[tuple[str, str], ...]

    @property
    def compares_to(self) -> dict[str, int]:
        """Out-degree: to how many papers each surveyed paper compares."""
        counts = Counter(source for source, _ in self.edges)
        return {paper.key: counts[paper.key] for paper in self.papers if paper.surveyed}

    @property
    def compared_to_by(self) -> dict[str, int]:
        """In-degree: how many papers compare to each paper."""
        counts = Counter(target for _, target in self.edges)
        return {paper.key: counts[paper.key] for paper in self.papers}

    @property
    def never_compared_to(self) -> tuple[Paper, ...]:
        """Papers whose methods nobody has compared to, oldest first."""
        degrees = self.compared_to_by
        return tuple(sorted((p for p in self.papers if degrees[p.key] == 0), key=_age))

    @property
    def impossible(self) -> tuple[tuple[Paper, Paper], ...]:
        """Comparisons to a paper that appeared later."""
        by_key = {paper.key: paper for paper in self.papers}
        pairs = ((by_key[source], by_key[target]) for source, target in self.edges)
        return tuple((source, target) for source, target in pairs if target.is_later_than(source))


@dataclass(frozen=True)
class Candidate:
    """A paper that a new one on the same dataset and network must look at."""

    paper: Paper
    results: int
    with_numbers: int
    compared_to_by: int


def comparison_graph(corpus: Corpus) -> ComparisonGraph:
    """The graph of ``corpus``; papers that compare to themselves or to unknown papers do not count as edges."""
    edges, dangling = [], []
    for paper in corpus.papers:
        for target in paper.compares_to:
            if target == paper.key or target not in corpus.by_key:
                dangling.append((paper.key, target))
            else:
                edges.append((paper.key, target))
    return ComparisonGraph(corpus.papers, tuple(edges), tuple(dangling))


def must_compare_to(
    corpus: Corpus, dataset: str, architecture: str, *, keep: Collection[str] = ()
) -> tuple[Candidate, ...]:
    """The papers with results on ``dataset`` and ``architecture``, most compared-to first.

    Merged names and table names are understood. Raises ``UnknownNameError`` for a pair without results.
    """
    graph = comparison_graph(corpus)
    hidden = {shown: name for name, shown in corpus.rules.display.items()}
    merged = {merge.name: merge.architectures for merge in corpus.rules.merges}
    wanted = merged.get(architecture, (hidden.get(architecture, architecture),))
    used = extract(corpus, "counts", keep=keep).results
    found = [n for n in used if n.result.dataset == dataset and n.result.architecture in wanted]
    if not found:
        pairs = {f"{n.result.dataset} / {corpus.rules.shown(n.result.architecture)}": n for n in used}
        name = f"{dataset} / {architecture}"
        raise UnknownNameError(f"the corpus has no results on '{name}'; {nearest(name, pairs)}")
    by_paper: dict[str, list[bool]] = {}
    for n in found:
        by_paper.setdefault(n.result.paper, []).append("evaluated" not in n.result.facts)
    degrees = graph.compared_to_by
    candidates = [
        Candidate(corpus.by_key[key], len(numbers), sum(numbers), degrees[key])
        for key, numbers in by_paper.items()
    ]
    return tuple(sorted(candidates, key=lambda c: (-c.compared_to_by, -c.paper.year, c.paper.key)))


def as_dot(graph: ComparisonGraph) -> str:
    """The graph in the DOT language, one node per paper, edges from who compares to who is compared to."""
    lines = ["digraph comparisons {", "  rankdir=LR;"]
    for paper in graph.papers:
        shape = "box" if paper.peer_reviewed else "ellipse"
        lines.append(f'  "{paper.key}" [label="{paper.label}", shape={shape}];')
    lines += [f'  "{source}" -> "{target}";' for source, target in graph.edges]
    return "\n".join([*lines, "}"]) + "\n"


def _age(paper: Paper) -> tuple[str, str]:
    return (paper.date, paper.key)
