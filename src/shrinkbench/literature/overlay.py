"""Own results beside published curves: the same axes, the same normalisation, and what differs all the same.

``read_own`` takes the table that ``shrinkbench report`` writes; ``overlay`` also takes it as a data frame.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median, stdev

import pandas as pd

from shrinkbench.errors import ShrinkbenchError
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
from shrinkbench.literature.filters import Selection, select
from shrinkbench.literature.normalise import Normalised
from shrinkbench.literature.reference import variants
from shrinkbench.literature.store import load_corpus

COLUMNS = ("key", "dataset", "model", "method", "compression_target", "seed", "status", "compression")
OWN_COLUMNS = {
    "compression": "compression",
    "speedup": "theoretical_speedup",
    "top1_change": "top1",
    "top5_change": "top5",
}
"""Metric of a panel -> column of the result table."""
NOTABLE = 0.005
"""Initial accuracies further apart than this are pointed out."""
LEAST_ROOM = 0.05
"""Own points this far below the lowest published one are drawn in any case."""
# Endings that tell variants of one published name apart, and VGGs that papers call by two names.
_VARIANT = re.compile(r"(?:[-_](?:bn|bias|l1|3fc|projection|option-a|v1|2012|ungrouped))+$")
_NAMESAKES = {"vgg": ("VGG-Torch-CIFAR10", "VGG-16"), "vgg16": ("VGG-16", "VGG-Torch-CIFAR10")}


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
    """One own task beside the published results on the pairs of its name, with notes on what differs."""

    task: str
    pairs: tuple[Pair, ...]
    panels: tuple[OverlayPanel, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Overlays:
    """Every task that has a published counterpart; ``unmatched`` says why the others have none."""

    found: tuple[Overlay, ...]
    unmatched: tuple[str, ...]


def read_own(path: Path) -> pd.DataFrame:
    """Read ``results.csv`` or ``results.parquet``, or either from a folder (or its ``report`` folder).

    Raises ``ShrinkbenchError`` where there is none, or where it is no result table.
    """
    if path.is_dir():
        places = [
            folder / name for folder in (path, path / "report") for name in ("results.parquet", "results.csv")
        ]
        found = next((place for place in places if place.is_file()), None)
        if found is None:
            raise ShrinkbenchError(
                f"{path} holds no results.csv or results.parquet; run `shrinkbench report` on its results first"
            )
        path = found
    try:
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        return pd.read_csv(path, compression=None)  # a name that ends in .zip makes no zip
    except FileNotFoundError:
        raise ShrinkbenchError(
            f"{path} does not exist; give the table that `shrinkbench report` writes"
        ) from None
    except (OSError, ValueError) as error:
        problem = str(error).splitlines()[0]
        raise ShrinkbenchError(
            f"{path} cannot be read as a result table ({problem}); write it again with `shrinkbench report`"
        ) from None


def overlay(own: pd.DataFrame, corpus: Corpus | None = None, *, keep: Collection[str] = ()) -> Overlays:
    """Lay the result table ``own`` over ``corpus`` (the bundled one where it is ``None``).

    Tasks are dataset and network, and weights and recipe where there are several. Changes in accuracy are
    measured run by run from the control (``compression_target`` 1) of the same seed. Raises
    ``ShrinkbenchError`` for a table without the needed columns or finished runs.
    """
    corpus = load_corpus() if corpus is None else corpus
    selection = select(corpus, "curves", keep=keep)
    done, failed = _take_finished(own)
    found, unmatched = [], []
    for task, rows in _tasks(done):
        dataset, model = str(rows["dataset"].iloc[0]), str(rows["model"].iloc[0])
        pairs = published_pairs(corpus, selection, dataset, model)
        if not pairs:
            unmatched.append(f"{task}: the corpus has no curve for this dataset and network")
            continue
        if not (rows["compression_target"] == 1).any():
            unmatched.append(
                f"{task}: there is no control, so changes in accuracy are unknown; add compression 1 to the "
                "experiment"
            )
            continue
        control, pruned = _with_changes(rows)
        panels = tuple(
            panel
            for x in EFFICIENCIES
            for y in CHANGES
            if (panel := _panel(corpus, selection.results, pairs, pruned, x, y)).own and panel.published
        )
        if not panels:
            unmatched.append(f"{task}: no published result here gives a metric that the own results have")
            continue
        published = [n for n in selection.results if n.result.pair in pairs and is_plottable(n)]
        notes = _notes(
            _Sides(task, model, pairs, control, pruned, published, panels, corpus, failed.get(task, 0))
        )
        found.append(Overlay(task, pairs, panels, notes))
    return Overlays(tuple(found), tuple(unmatched))


def published_pairs(corpus: Corpus, selection: Selection, dataset: str, model: str) -> tuple[Pair, ...]:
    """The published pairs that an own task goes by: spelling, provider and variant do not matter."""
    bare = model.rsplit("/", 1)[-1].split(".")[0].lower().removeprefix("cifar-")
    bare = _VARIANT.sub("", bare)
    into = {name: merge.name for merge in corpus.rules.merges for name in merge.architectures}
    names = [bare, *_NAMESAKES.get(_plain(bare), ())]
    wanted = {_plain(name) for name in names} | {
        _plain(merged) for name, merged in into.items() if _plain(name) == _plain(bare)
    }
    pairs = dict.fromkeys(n.result.pair for n in selection.results)
    return tuple(p for p in pairs if _plain(p[0]) == _plain(dataset) and _plain(p[1]) in wanted)


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.lower())


def _take_finished(own: pd.DataFrame) -> tuple[pd.DataFrame, Counter[str]]:
    """Finished runs, and the number of others by task."""
    needed = (*COLUMNS, *OWN_COLUMNS.values())
    missing = [name for name in needed if name not in own.columns]
    if missing:
        raise ShrinkbenchError(
            f"the result table lacks the column{'s' if len(missing) > 1 else ''} {', '.join(missing)}; "
            "give the one that `shrinkbench report` writes"
        )
    numbers = ["compression_target", *OWN_COLUMNS.values()]
    own = own.assign(**{name: _as_numbers(own[name]) for name in numbers})
    is_done = own["status"] == "done"
    failed = Counter(f"{row.dataset} / {row.model}" for row in own[~is_done].itertuples())
    if not is_done.any():
        raise ShrinkbenchError("the result table holds no finished run; finish some before overlaying them")
    return own[is_done], failed


def _as_numbers(column: pd.Series) -> pd.Series:
    """The column as floats; an error names the first value that is none, and its row."""
    values = pd.to_numeric(column, errors="coerce").astype(float)
    wrong = (values.isna() & column.notna()).to_numpy()
    if wrong.any():
        row = int(wrong.argmax())
        raise ShrinkbenchError(
            f"the result table's column {column.name} holds {column.iloc[row]!r} in row {row + 1}; "
            "write it again with `shrinkbench report`"
        )
    return values


def _tasks(done: pd.DataFrame) -> Iterable[tuple[str, pd.DataFrame]]:
    """Rows by dataset and network, and by weights and recipe where a network has several."""
    for (dataset, model), rows in done.groupby(["dataset", "model"], sort=True):
        extra = [c for c in ("weights", "recipe") if c in rows.columns and rows[c].nunique(dropna=False) > 1]
        if not extra:
            yield f"{dataset} / {model}", rows
            continue
        for values, part in rows.groupby(extra, sort=True, dropna=False):
            yield " / ".join([str(dataset), str(model), *map(str, values)]), part


def _with_changes(rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The controls, once each, and the pruned runs with their changes from the control of the same seed."""
    is_control = rows["compression_target"] == 1
    control = rows[is_control].drop_duplicates("seed")  # every method lists the one control of a seed
    pruned = rows[~is_control].copy()
    for change in CHANGES:
        column = OWN_COLUMNS[change]
        by_seed = control.groupby("seed")[column].mean()
        reference = pruned["seed"].map(by_seed).fillna(by_seed.mean())
        pruned[change] = pruned[column] - reference
    return control, pruned


def _panel(
    corpus: Corpus, results: Sequence[Normalised], pairs: tuple[Pair, ...], pruned: pd.DataFrame, x: str, y: str
) -> OverlayPanel:
    published = []
    for pair in pairs:
        for curve in tradeoff_curves(corpus, results, pair=pair, x=x, y=y):
            label = f"{curve.label} ({pair[1]})" if len(pairs) > 1 else curve.label
            published.append(PublishedCurve(label, curve.paper, curve.year, curve.points))
    return OverlayPanel(x, y, _own_curves(pruned, x, y), tuple(published))


def _own_curves(pruned: pd.DataFrame, x: str, y: str) -> tuple[PublishedCurve, ...]:
    """One curve per method from the control (no change at ratio 1): mean and sample deviation over seeds."""
    places = pruned[["method", "compression_target", OWN_COLUMNS[x], y]].dropna()
    by_method: dict[str, dict[float, list[tuple[float, float]]]] = {}
    for method, target, *place in sorted(places.itertuples(index=False, name=None)):
        by_method.setdefault(method, {}).setdefault(target, []).append(tuple(place))
    curves = []
    for method, by_target in by_method.items():
        points = [PublishedPoint(1.0, 0.0, None, 1)]
        for at in by_target.values():
            xs, ys = zip(*at, strict=True)
            points.append(PublishedPoint(fmean(xs), fmean(ys), stdev(ys) if len(ys) > 1 else None, len(ys)))
        curves.append(PublishedCurve(f"{method} (own)", "", 0, tuple(points)))
    return tuple(curves)


@dataclass(frozen=True)
class _Sides:
    """Both sides of one overlay, for the notes."""

    task: str
    model: str
    pairs: tuple[Pair, ...]
    control: pd.DataFrame
    pruned: pd.DataFrame
    published: list[Normalised]
    panels: tuple[OverlayPanel, ...]
    corpus: Corpus
    failed: int


def _notes(sides: _Sides) -> tuple[str, ...]:
    """What a reader must know before comparing the two sides; every number is from the data at hand."""
    notes = [
        *_find_starting_points(sides),
        _repetition(sides),
        _sizes(sides),
        _networks(sides),
        "Own test accuracies are of weights chosen without the test split; papers seldom say how theirs were "
        "chosen, "
        "nor name data augmentation, schedules and libraries well enough to rule them out as the cause of a "
        "difference.",
    ]
    lost = {(c.label, p.x) for panel in sides.panels for c, p in panel.beyond}
    if lost:
        notes.append(
            f"{len(lost)} own point{'s lie' if len(lost) > 1 else ' lies'} so far below every published one "
            "that the drawing only points there, from its lower edge; the table has the values."
        )
    if sides.failed:
        notes.append(f"Own runs of this network that failed and have no point: {sides.failed}.")
    return tuple(note for note in notes if note)


def _find_starting_points(sides: _Sides) -> Iterable[str]:
    top1 = [float(value) for value in sides.control["top1"].dropna()]
    own = fmean(top1)
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
    yield (
        f"Own changes are from the unpruned control after the same fine-tuning ({100 * own:.2f} % top-1, "
        f"{len(top1)} seed{'s' if len(top1) > 1 else ''}); "
        "published changes are from each paper's own initial network, seldom trained further "
        f"({'; '.join(part for part in (between, without) if part)})."
    )
    if values and abs(own - median(values)) > NOTABLE:
        side = "below" if own < median(values) else "above"
        yield (
            f"The own network starts {100 * abs(own - median(values)):.1f} points {side} the published median "
            f"({100 * median(values):.2f} %): equal changes from unequal starting points are not equal "
            "achievements."
        )


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
    whole = sides.control.get("parameters_kept", pd.Series(dtype=float)).dropna()
    own = f" ({float(whole.iloc[0]) / 1e6:.4g} M parameters)" if len(whole) else ""
    names = ", ".join(f"{architecture} on {dataset}" for dataset, architecture in sides.pairs)
    initial = [v / 1e6 for n in sides.published if (v := n.value("initial_parameters")) is not None]
    sizes = f" with {_between(initial)} M parameters where stated" if initial else ""
    known = {v.variant for pair in sides.pairs for v in variants(*pair) if v.variant}
    kinds = f" Known variants of the name: {'; '.join(sorted(known))}." if len(known) > 1 else ""
    return (
        f"Own network: {sides.model}{own}; published: {names}{sizes}, "
        f"which may be other networks of that name.{kinds}"
    )


def _between(values: list[float]) -> str:
    """The range of ``values`` to four digits, or the one value that they share."""
    low, high = f"{min(values):.4g}", f"{max(values):.4g}"
    return low if low == high else f"{low} to {high}"


def _papers(count: int) -> str:
    return f"{count} paper{'' if count == 1 else 's'}"
