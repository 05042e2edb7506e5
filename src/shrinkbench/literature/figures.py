"""Every figure of the survey from one corpus, with its data as a table and a caption that counts exclusions."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.files import write_atomically
from shrinkbench.literature.corpus import Corpus
from shrinkbench.literature.curve_figures import draw_families, draw_fragmentation, draw_variability
from shrinkbench.literature.curves import (
    PublishedCurve,
    fragmentation_panels,
    is_plottable,
    methods_without_shared_coordinate,
)
from shrinkbench.literature.filters import Extract, errata_told
from shrinkbench.literature.graph import comparison_graph
from shrinkbench.literature.histograms import draw_breadth, draw_comparisons, draw_graph
from shrinkbench.literature.standard import StandardModel, family_panels, variability_curves
from shrinkbench.literature.summary import CorpusSummary, Histogram, summarise_corpus
from shrinkbench.literature.tables import write_table
from shrinkbench.plotting import FORMATS, figure_style, save


@dataclass(frozen=True)
class Plate:
    """A figure with its caption and data; ``figure`` is missing where there is nothing to draw."""

    name: str
    caption: str
    figure: Figure | None
    rows: tuple[Mapping[str, object], ...] = ()


def plates(corpus: Corpus, *, keep: Collection[str] = ()) -> tuple[Plate, ...]:
    """Figures 1 to 5 and the graph of comparisons, in this order."""
    summary = summarise_corpus(corpus, keep=keep)
    makers: tuple[Callable[[], Plate], ...] = (
        lambda: _families(corpus, keep),
        lambda: _comparisons(summary),
        lambda: _fragmentation(corpus, keep),
        lambda: _breadth(summary),
        lambda: _variability(corpus, keep),
        lambda: _graph(corpus),
    )
    with figure_style():
        return tuple(make() for make in makers)


def write_figures(
    corpus: Corpus, folder: Path, *, keep: Collection[str] = (), formats: Collection[str] = FORMATS
) -> tuple[tuple[Plate, list[Path]], ...]:
    """Write every figure in ``formats``, its data as CSV, and all captions to ``captions.md``.

    Raises ``ShrinkbenchError`` for another format than SVG, PDF and PNG.
    """
    for unknown in set(formats) - set(FORMATS):
        raise ShrinkbenchError(
            f"figures are written as {', '.join(FORMATS)}, not as '{unknown}'; choose one of these"
        )
    written = []
    captions = [f"# {corpus.name}\n", *([f"{corpus.errata_told}\n"] if corpus.errata_told else [])]
    for plate in plates(corpus, keep=keep):
        paths: list[Path] = []
        if plate.figure is not None:
            paths = save(plate.figure, folder / plate.name, formats=formats)
            if plate.rows:
                write_table(folder / f"{plate.name}.csv", list(plate.rows[0]), plate.rows)
                paths.append(folder / f"{plate.name}.csv")
        captions.append(f"## {plate.name}\n\n{plate.caption}\n")
        written.append((plate, paths))
    write_atomically(folder / "captions.md", "\n".join(captions).encode(), durable=False)
    return tuple(written)


def _families(corpus: Corpus, keep: Collection[str]) -> Plate:
    panels, used, standards = family_panels(corpus, keep=keep)
    if not any(panel.unpruned or panel.pruned for panel in panels):
        return Plate("figure1", "Not drawn: the corpus holds no list of unpruned networks.", None)
    rows = [
        {
            "family": panel.family.name,
            "network": point.name,
            "kind": kind,
            "size": panel.size,
            "size_value": point.size,
            "accuracy": panel.accuracy,
            "accuracy_value": point.accuracy,
            "errata": point.errata,
        }
        for panel in panels
        for kind, points in (("unpruned", panel.unpruned), ("pruned", panel.pruned))
        for point in points
    ]
    caption = (
        "Size and speed against accuracy for families of networks (lines) and for networks pruned from them "
        "(stars). Pruned networks are scaled as if every one of a name had begun the same: "
        f"{_standards(standards)}. Operations of unknown convention count as the fraction that the paper "
        "gives. "
        f"{_exclusions(used)}{_errata(corpus, used)}"
    )
    return Plate("figure1", caption, draw_families(panels), tuple(rows))


def _comparisons(summary: CorpusSummary) -> Plate:
    caption = (
        f"Reported comparisons between papers. Of {summary.papers} papers, {summary.compare_to_none} compare "
        "to no "
        f"other, {summary.compare_to_at_most_one} to at most one and {summary.compare_to_at_most_three} to "
        "at most "
        f"three; {summary.never_compared_to} have never been compared to."
    )
    return Plate("figure2", caption, draw_comparisons(summary), _histogram_rows(summary.figure2))


def _fragmentation(corpus: Corpus, keep: Collection[str]) -> Plate:
    panels, used = fragmentation_panels(corpus, keep=keep)
    drawn = [curve for panel in panels for curve in panel.curves]
    if not drawn:
        return Plate("figure3", "Not drawn: no result has both an efficiency and a change in accuracy.", None)
    pairs = {panel.pair for panel in panels}
    on_pairs = [n for n in used.results if n.result.pair in pairs]
    without = [n for n in on_pairs if not is_plottable(n)]
    merged = methods_without_shared_coordinate(corpus, on_pairs)
    footnote = (
        f" {', '.join(merged)}: methods are drawn apart as the corpus names them, although none share an x."
        if merged
        else ""
    )
    caption = (
        "Fragmentation of results: every self-reported result on the pairs that most papers use, toy "
        "datasets left "
        f"out. {len({c.label for c in drawn})} methods of {len({c.paper for c in drawn})} papers; up and to "
        "the "
        "right is better; bars are standard deviations where a paper gives any. Results without an "
        "efficiency or "
        f"a change in accuracy: {len(without)} of {len({n.result.paper for n in without})} papers. "
        f"{_exclusions(used)}{_errata(corpus, used)}{footnote}"
    )
    rows = [row for panel in panels for row in _curve_rows(panel.curves, panel.pair, panel.x, panel.y)]
    return Plate("figure3", caption, draw_fragmentation(panels), tuple(rows))


def _breadth(summary: CorpusSummary) -> Plate:
    pairs = ", ".join(f"{architecture} on {dataset}" for dataset, architecture in summary.four_pairs)
    caption = (
        "Number of results reported by each paper, toy datasets left out. Top: pairs used. Bottom: operating "
        "points "
        f"per paper and pair, on {pairs}; a point needs an efficiency and a change in accuracy."
    )
    return Plate("figure4", caption, draw_breadth(summary), _histogram_rows(summary.figure4))


def _variability(corpus: Corpus, keep: Collection[str]) -> Plate:
    magnitude, other, used, standard = variability_curves(corpus, keep=keep)
    if standard is None or not (magnitude or other):
        return Plate("figure5", "Not drawn: the corpus names no network whose variability to show.", None)
    caption = (
        f"Pruning {standard.pair[1]} on {standard.pair[0]}. Methods above all prune the weights of smallest "
        "magnitude "
        "and differ in implementation, schedule and fine-tuning; below are all others. Points that share a "
        "size are "
        f"averaged, with their standard deviation as a bar. Scaled to one standard initial model: "
        f"{_standards((standard,))}. {_exclusions(used)}{_errata(corpus, used)}"
    )
    rows = [
        *_curve_rows(magnitude, standard.pair, "parameters", "top1"),
        *_curve_rows(other, standard.pair, "parameters", "top1"),
    ]
    return Plate("figure5", caption, draw_variability(magnitude, other, standard.pair), tuple(rows))


def _graph(corpus: Corpus) -> Plate:
    graph = comparison_graph(corpus)
    caption = (
        f"The {len(graph.edges)} comparisons between {len(graph.papers)} papers by date. Marks grow with the "
        "number of "
        f"papers that compare to them; {len(graph.never_compared_to)} are hollow, as nobody compares to them; "
        f"{len(graph.impossible)} comparisons lead to a paper of a later date (dashed)."
    )
    rows = tuple({"paper": source, "compares_to": target} for source, target in graph.edges)
    return Plate("comparison_graph", caption, draw_graph(graph), rows)


def _standards(standards: Iterable[StandardModel]) -> str:
    """Standard initial models in words, with the number of papers behind each value."""
    units = {"parameters": (1e-6, "M parameters"), "multiply_adds": (1e-9, "G multiply-adds")}
    texts = []
    for standard in sorted(standards, key=lambda s: s.pair):
        values = []
        for name, value in standard.values.items():
            scale, unit = units.get(name, (100, f"% {name}"))
            papers = standard.papers[name]
            behind = f"median of {papers} paper{'s' if papers > 1 else ''}" if papers else "published list"
            corrected = standard.errata[name]
            behind += f", {corrected} errat{'a' if corrected > 1 else 'um'} applied" if corrected else ""
            values.append(f"{value * scale:.4g} {unit} ({behind})")
        texts.append(f"{standard.pair[1]} {', '.join(values)}")
    return "; ".join(texts) if texts else "none"


def _exclusions(used: Extract) -> str:
    named = [str(applied) for applied in (*used.excluded, *used.merged)]
    return f"Left out or merged: {'; '.join(named)}." if named else "Nothing is left out."


def _errata(corpus: Corpus, used: Extract) -> str:
    """The errata of the results in use; the column ``errata`` tells which points they touch."""
    told = errata_told(corpus, used.results)
    return f" {told}" if told else ""


def _histogram_rows(histograms: Mapping[str, Histogram]) -> tuple[Mapping[str, object], ...]:
    return tuple(
        {
            "histogram": name,
            "value": value,
            **{side: counts.get(value, 0) for side, counts in histogram.items()},
        }
        for name, histogram in histograms.items()
        for value in sorted({value for counts in histogram.values() for value in counts})
    )


def _curve_rows(
    curves: Iterable[PublishedCurve], pair: tuple[str, str], x: str, y: str
) -> list[Mapping[str, object]]:
    return [
        {
            "dataset": pair[0],
            "architecture": pair[1],
            "paper": curve.paper,
            "method": curve.label,
            "x": x,
            "x_value": point.x,
            "y": y,
            "y_value": point.y,
            "spread": point.spread,
            "results": point.results,
            "errata": point.errata,
        }
        for curve in curves
        for point in curve.points
    ]
