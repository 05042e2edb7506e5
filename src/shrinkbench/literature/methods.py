"""Which papers one has to compare to, and the method here that is theirs, or why there is none."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.literature.corpus import Corpus
from shrinkbench.literature.graph import comparison_graph, must_compare_to
from shrinkbench.literature.schema import Paper
from shrinkbench.literature.tables import read_table


@dataclass(frozen=True)
class Standing:
    """A paper, by how many others it is compared to, and the ``methods`` here, or ``why_not``."""

    paper: Paper
    compared_to_by: int
    methods: tuple[str, ...] = ()
    why_not: str = ""


@cache
def methods_by_paper() -> dict[str, tuple[tuple[str, ...], str]]:
    """Names of methods, and why there are none, by a paper's key in the published export."""
    with resources.as_file(resources.files("shrinkbench.literature") / "data" / "methods.csv") as path:
        rows = read_table(path, ["paper", "methods", "why_not"], remedy="install shrinkbench anew")
        return {row.cells["paper"]: (tuple(row.cells["methods"].split()), row.cells["why_not"]) for row in rows}


def often_compared_to(corpus: Corpus, *, least: int = 2) -> tuple[Standing, ...]:
    """The pruning papers that at least ``least`` others compare to, most often first.

    Raises ``ShrinkbenchError`` where there is none.
    """
    degrees = comparison_graph(corpus).compared_to_by
    papers = [paper for paper in corpus.papers if paper.pruning and degrees[paper.key] >= least]
    if not papers:
        raise ShrinkbenchError(
            f"no pruning paper of this corpus is compared to by {least} others or more; give the published "
            "export with --corpus, or a smaller --least"
        )
    return _standings(sorted(papers, key=lambda p: (-degrees[p.key], p.year, p.key)), degrees)


def on_this_network(corpus: Corpus, dataset: str, architecture: str) -> tuple[Standing, ...]:
    """The papers with results on ``dataset`` and ``architecture``, which a new one there has to compare to."""
    found = must_compare_to(corpus, dataset, architecture)
    return _standings([c.paper for c in found], {c.paper.key: c.compared_to_by for c in found})


def _standings(papers: list[Paper], degrees: dict[str, int]) -> tuple[Standing, ...]:
    known = methods_by_paper()
    return tuple(
        Standing(paper, degrees[paper.key], *known.get(paper.key, ((), "not looked at"))) for paper in papers
    )
