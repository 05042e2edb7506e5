"""What the commands on the literature print and write of a corpus and its comparisons."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from shrinkbench.files import write_atomically

if TYPE_CHECKING:
    from shrinkbench.literature.corpus import Corpus
    from shrinkbench.literature.graph import ComparisonGraph
    from shrinkbench.literature.summary import CorpusSummary


def print_summary(found: CorpusSummary) -> None:
    """The counts of a corpus, and what was left out of them."""

    def share(count: int) -> str:
        return f"{count} ({count / found.papers:.0%})" if found.papers else str(count)

    typer.echo(f"{found.corpus} [{found.origin}]")
    typer.echo(
        f"{found.papers} papers ({found.peer_reviewed_papers} peer-reviewed, {found.non_pruning_papers} not "
        "on pruning), "
        f"{found.datasets} datasets, {found.architectures} architectures, {found.pairs} pairs, "
        f"{found.results} results ({found.results_with_numbers} with numbers)"
    )
    typer.echo(
        f"papers that compare to no other: {share(found.compare_to_none)}, to at most one: "
        f"{share(found.compare_to_at_most_one)}, to at most three: {share(found.compare_to_at_most_three)}; "
        f"never compared to: {share(found.never_compared_to)}"
    )
    for usage in found.table1:
        typer.echo(f"  {usage.papers:3d}  {usage.dataset}, {usage.architecture}")
    for scope, applied in found.exclusions.items():
        for choice in applied:
            typer.echo(f"left out or merged ({scope}): {choice}")
    if found.errata_told:
        typer.echo(found.errata_told)
    typer.echo(f"conflicts between printed values: {found.conflicts} (`lint` lists them)")
    for derivation, count in found.derivations.items():
        typer.echo(f"derived {count:4d}  {derivation}")
    if found.printed:
        typer.echo(f"as printed in {found.printed}: {'; '.join(found.agrees_with_print) or 'nothing'}")
    for difference in found.differs_from_print:
        typer.echo(f"not as printed: {difference}")


def print_graph(comparisons: ComparisonGraph, *, as_json: bool) -> None:
    """Papers by how many compare to them, and edges that lead nowhere."""
    degrees = comparisons.compared_to_by
    most = sorted(comparisons.papers, key=lambda paper: (-degrees[paper.key], paper.key))
    data: dict[str, Any] = {
        "papers": [
            {"key": p.key, "label": p.label, "date": p.date, "compared_to_by": degrees[p.key]} for p in most
        ],
        "comparisons": [list(edge) for edge in comparisons.edges],
        "never_compared_to": [paper.key for paper in comparisons.never_compared_to],
        "to_later_papers": [[source.key, target.key] for source, target in comparisons.impossible],
        "dangling": [list(edge) for edge in comparisons.dangling],
    }
    if as_json:
        typer.echo(json.dumps(data, indent=2, ensure_ascii=False))
        return
    typer.echo(f"{len(comparisons.papers)} papers, {len(comparisons.edges)} comparisons")
    listed = ", ".join(f"{p.label} ({p.key}) {degrees[p.key]}" for p in most[:8] if degrees[p.key])
    typer.echo(f"most compared to: {listed}")
    never = comparisons.never_compared_to
    typer.echo(f"never compared to ({len(never)}): {', '.join(f'{p.label} ({p.key})' for p in never)}")
    for source, target in comparisons.impossible:
        typer.echo(f"compares to a later paper: {source.key} ({source.date}) to {target.key} ({target.date})")
    for source_key, target_key in comparisons.dangling:
        typer.echo(f"leads nowhere: {source_key} to {target_key}")


def print_candidates(
    corpus: Corpus, dataset: str, architecture: str, keep: list[str], *, as_json: bool
) -> None:
    """The papers that a new one on a pair would have to compare to."""
    from shrinkbench.cli.tables import print_table
    from shrinkbench.literature.graph import must_compare_to

    rows = [
        {
            "paper": candidate.paper.key,
            "label": candidate.paper.label,
            "results": candidate.results,
            "with_numbers": candidate.with_numbers,
            "compared_to_by": candidate.compared_to_by,
        }
        for candidate in must_compare_to(corpus, dataset, architecture, keep=keep)
    ]
    if as_json:
        typer.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    typer.echo(f"a new paper on {dataset} with {architecture} meets {len(rows)} papers with results there:")
    print_table(rows, ("paper", "label", "results", "with_numbers", "compared_to_by"))


def print_paper(corpus: Corpus, comparisons: ComparisonGraph, key: str, *, as_json: bool) -> None:
    """One paper, with those that it compares to and those that compare to it."""
    chosen = corpus.paper(key)
    data = {
        "paper": chosen.key,
        "label": chosen.label,
        "title": chosen.title,
        "compares_to": [target for source, target in comparisons.edges if source == key],
        "compared_to_by": [source for source, target in comparisons.edges if target == key],
    }
    if as_json:
        typer.echo(json.dumps(data, indent=2, ensure_ascii=False))
        return
    typer.echo(f"{chosen.label}: {chosen.title}")
    for name in ("compares_to", "compared_to_by"):
        typer.echo(f"{name.replace('_', ' ')} ({len(data[name])}): {', '.join(data[name]) or 'none'}")


def write_graph(comparisons: ComparisonGraph, out: Path) -> None:
    """Comparisons as a table, as DOT and drawn."""
    from shrinkbench.literature.graph import as_dot
    from shrinkbench.literature.histograms import draw_graph
    from shrinkbench.literature.tables import write_table
    from shrinkbench.plotting import figure_style, save

    edges = [{"paper": source, "compares_to": target} for source, target in comparisons.edges]
    write_table(out / "comparisons.csv", ("paper", "compares_to"), edges)
    write_atomically(out / "comparisons.dot", as_dot(comparisons).encode())
    with figure_style():
        drawn = draw_graph(comparisons)
    save(drawn, out / "comparison_graph")
