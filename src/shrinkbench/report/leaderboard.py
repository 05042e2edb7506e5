"""A static site that ranks methods per task, every entry linked to the report it comes from."""

from __future__ import annotations

import math
import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from shrinkbench.files import write_atomically
from shrinkbench.report.compared import split_by_metric
from shrinkbench.report.page.html import render_page, write_report
from shrinkbench.report.result_tables import amounts_of
from shrinkbench.report.statistics import tests as stats
from shrinkbench.report.statistics.compare import curve_summaries, records
from shrinkbench.report.statistics.curves import Curve, curves
from shrinkbench.report.statistics.observations import Observations, aggregate, observe
from shrinkbench.report.tables import achieved_text, amount_text, plus_minus
from shrinkbench.results.bundle import Bundle, read_source, require_results, write_bundle
from shrinkbench.results.conflicts import conflicts_among
from shrinkbench.results.labels import digest_once, label_runs, recipe_labels, task_variants
from shrinkbench.results.store import Problem
from shrinkbench.results.verification import find_implausible, verify
from shrinkbench.spec import CLASSIFICATION, RunSpec


@dataclass(frozen=True)
class Entry:
    """One method of one bundle on one task; ``weights`` also tell subsets of the data apart.

    ``rank`` is ``None`` where a run of the entry has other numbers under its key in some source.
    """

    rank: int | None
    method: str
    bundle: str
    link: str
    weights: str
    recipe: str
    seeds: int
    area: str
    within: str
    accuracies: tuple[str, ...]
    problems: int


@dataclass(frozen=True)
class Board:
    """The ranking of one task: same data (digest and test images), network and objective."""

    title: str
    data: str
    low: float
    high: float
    amounts: tuple[str, ...]
    entries: tuple[Entry, ...]


class Place(NamedTuple):
    """Where entries are compared: all of these have to be equal."""

    dataset: str
    revision: str
    images: str
    network: str
    version: int
    source: str
    objective: str
    measures: str


@dataclass(frozen=True)
class _Candidate:
    bundle: Bundle
    observations: Observations
    task: str
    spec: RunSpec
    method: str
    curves: tuple[Curve, ...]
    cells: pd.DataFrame
    within: float
    disputed: bool


@dataclass(frozen=True)
class WrittenLeaderboard:
    """The page of the site, and files of the sources that could not be used."""

    index: Path
    problems: tuple[Problem, ...]


def write_leaderboard(sources: Sequence[Path], out: Path) -> WrittenLeaderboard:
    """Write ``index.html`` with one ranking per task, and a report and a bundle for every source.

    A rank is by mean top-1 over log compression on the range that all entries of the task share. Sources that
    contradict themselves are marked; what is wrong stands beside their report. Entries with a run that has
    other numbers in another source, or in their own, have no rank.
    """
    bundles = [read_source(source) for source in sources]
    for bundle in bundles:
        require_results(bundle, "leave it out")
    unique = {bundle.digest: bundle for bundle in bundles}
    conflicts = conflicts_among(part for bundle in unique.values() for part in (bundle.results, bundle.others))
    disputed = frozenset(first.key for first, _ in conflicts)
    problems = {
        name: [
            *verify(bundle),
            *_disputes(bundle, disputed),
            *map("implausible: {}".format, find_implausible(bundle)),
        ]
        for name, bundle in unique.items()
    }
    for bundle in unique.values():
        _write_evidence(bundle, out)
    candidates: dict[Place, list[_Candidate]] = defaultdict(list)
    for bundle in unique.values():
        for place, candidate in _candidates(bundle, disputed):
            candidates[place].append(candidate)
    boards = [_board(place, found, problems) for place, found in sorted(candidates.items())]
    page = render_page(
        "leaderboard.html.j2",
        boards=boards,
        bundles=[(b, _folder(b), problems[b.digest]) for b in unique.values()],
    )
    index = out / "index.html"
    write_atomically(index, page.encode(), durable=False)
    return WrittenLeaderboard(index, tuple(p for bundle in unique.values() for p in bundle.problems))


def _folder(bundle: Bundle) -> str:
    return f"evidence/{bundle.digest[:12]}"


def _write_evidence(bundle: Bundle, out: Path) -> None:
    """The report of one bundle, and the bundle itself for others to download."""
    folder = out / _folder(bundle)
    shutil.rmtree(folder, ignore_errors=True)
    write_report(bundle, folder)
    write_bundle(bundle, folder / "bundle.zip")


def _disputes(bundle: Bundle, disputed: frozenset[str]) -> list[str]:
    """One sentence about the runs of ``bundle`` that some source has other numbers for."""
    own = sorted(result.key for result in bundle.results if result.key in disputed)
    if not own:
        return []
    runs = f"{len(own)} run has" if len(own) == 1 else f"{len(own)} runs have"
    return [f"{runs} other numbers under the same key in another source, first {own[0][:12]}: no rank for them"]


def _candidates(bundle: Bundle, disputed: frozenset[str]) -> list[tuple[Place, _Candidate]]:
    compared = split_by_metric(bundle.results).compared
    observations = observe(compared, missing=bundle.missing)
    specs = {r.key: r.spec for r in bundle.results}
    by_entry: dict[tuple[str, str], list[Curve]] = defaultdict(list)
    for curve in curves(observations, "compression", "top1"):
        by_entry[curve.task, curve.method].append(curve)
    names = ["task", "method"]
    rows = observations.pruned.drop_duplicates(names).set_index(names)["key"].to_dict()
    within = curve_summaries(observations).set_index(names)["largest_within"].to_dict()
    cells = aggregate(observations.pruned, ["top1"])
    labels = zip(compared, label_runs([r.spec for r in compared]), strict=True)
    withheld = {(label.task, label.method) for result, label in labels if result.key in disputed}
    found = []
    for (task, method), members in by_entry.items():
        spec = specs[rows[task, method]]
        images = str(spec.data.test_images or "all")
        network = (spec.model.name, spec.model.version, spec.model.source or "")
        objective = spec.task.objective
        learned = (objective.name, digest_once(objective))
        place = Place(spec.data.name, spec.data.revision, images, *network, *learned)
        own = cells[(cells["task"] == task) & (cells["method"] == method)]
        candidate = _Candidate(
            bundle=bundle,
            observations=observations,
            task=task,
            spec=spec,
            method=method,
            curves=tuple(members),
            cells=own,
            within=within[task, method],
            disputed=(task, method) in withheld,
        )
        found.append((place, candidate))
    return found


def _board(place: Place, candidates: Sequence[_Candidate], problems: Mapping[str, Sequence[str]]) -> Board:
    low = max(curve.x[0] for c in candidates for curve in c.curves)
    high = min(max(curve.x[-1] for curve in c.curves) for c in candidates)
    scored = [(_area(c, low, high), c) for c in candidates]
    scored.sort(
        key=lambda s: (s[1].disputed, -s[0].mean if s[0].n else math.inf, s[1].method, s[1].bundle.digest)
    )
    amounts = amounts_of(pd.concat([c.cells for c in candidates]))
    specs = [c.spec for _, c in scored]
    variants = task_variants(spec.task for spec in specs)
    recipes = recipe_labels(spec.recipe for spec in specs)
    entries = tuple(
        _entry(
            (
                None if c.disputed else rank,
                label.method,
                ", ".join(variants[c.spec.task]),
                recipes[c.spec.recipe],
            ),
            area,
            c,
            tuple(amounts),
            problems[c.bundle.digest],
        )
        for rank, ((area, c), label) in enumerate(zip(scored, label_runs(specs), strict=True), start=1)
    )
    data = f"data digest {place.revision[:12]}, {place.images} test images"
    if not place.version:
        data += ", version of the network not recorded"
    elif place.version > 1:
        data += f", version {place.version} of the network"
    if place.source:
        data += f", code of the network {place.source[:12]}"
    if place.measures != digest_once(CLASSIFICATION):
        data += f", objective {place.objective} {place.measures[:6]}"
    texts = tuple(amount_text(amount, target) for amount, target in amounts.items())
    return Board(f"{place.dataset} / {place.network}", data, low, high, texts, entries)


def _own_rows(candidate: _Candidate) -> pd.DataFrame:
    rows = candidate.observations.pruned
    return rows[(rows["task"] == candidate.task) & (rows["method"] == candidate.method)]


def _area(candidate: _Candidate, low: float, high: float) -> stats.Summary:
    areas = [stats.area_under_log_curve(c.x, c.y, low=low, high=high, tolerance=0.02) for c in candidate.curves]
    return stats.summarise(areas)


def _entry(
    head: tuple[int | None, str, str, str],
    area: stats.Summary,
    candidate: _Candidate,
    amounts: Sequence[str],
    problems: Sequence[str],
) -> Entry:
    """The entry of ``candidate``; ``head`` is its rank, method, variant of the task and recipe."""
    rank, method, variant, recipe = head
    cells = {
        r.amount: plus_minus(r.top1, r.top1_std, percent=True)
        + achieved_text(r.compression_target, r.compression)
        for r in records(candidate.cells)
    }
    return Entry(
        rank=rank,
        method=method,
        bundle=candidate.bundle.name,
        link=f"{_folder(candidate.bundle)}/index.html#curves",
        weights=variant or candidate.spec.weights.name,
        recipe=recipe,
        seeds=int(_own_rows(candidate)["seed"].nunique()),
        area=plus_minus(area.mean, area.std, percent=True),
        within=f"{candidate.within:.3g}×" if math.isfinite(candidate.within) else "no control",
        accuracies=tuple(cells.get(amount, "–") for amount in amounts),
        problems=len(problems),
    )
