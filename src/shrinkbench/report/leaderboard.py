"""A static site that ranks methods per task, every entry linked to the report it comes from."""

from __future__ import annotations

import math
import shutil
import tempfile
import zipfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.files import write_atomically
from shrinkbench.report.page.html import render_page, write_report
from shrinkbench.report.statistics import tests as stats
from shrinkbench.report.statistics.compare import Curve, curves, groups
from shrinkbench.report.statistics.observations import Observations, observe
from shrinkbench.report.tables import plus_minus
from shrinkbench.results.bundle import Bundle, read_source, verify, write_bundle
from shrinkbench.results.store import Problem


@dataclass(frozen=True)
class Entry:
    """One method of one bundle on one task."""

    rank: int
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
    """The ranking of one task: same data (digest and test images) and same network."""

    title: str
    data: str
    low: float
    high: float
    targets: tuple[float, ...]
    entries: tuple[Entry, ...]


Place = tuple[str, str, str, str]
"""Dataset, digest of its data, test images, network: entries are compared only where all are equal."""


@dataclass(frozen=True)
class _Candidate:
    bundle: Bundle
    observations: Observations
    task: str
    method: str
    curves: tuple[Curve, ...]


@dataclass(frozen=True)
class WrittenLeaderboard:
    """The page of the site, and files of the sources that could not be used."""

    index: Path
    problems: tuple[Problem, ...]


def write_leaderboard(sources: Sequence[Path], out: Path) -> WrittenLeaderboard:
    """Write ``index.html`` with one ranking per task, and a report and a bundle for every source.

    A rank is by mean top-1 over log compression on the range that all entries of the task share. Sources that
    contradict themselves are marked; what is wrong stands beside their report.
    """
    bundles = [read_source(source) for source in sources]
    for bundle in bundles:
        if not bundle.results:
            raise ShrinkbenchError(f"{bundle.source} holds no results; leave it out")
    unique = {bundle.digest: bundle for bundle in bundles}
    problems = {name: verify(bundle) for name, bundle in unique.items()}
    for bundle in unique.values():
        _write_evidence(bundle, out)
    candidates: dict[Place, list[_Candidate]] = defaultdict(list)
    for bundle in unique.values():
        for place, candidate in _candidates(bundle):
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
    with tempfile.TemporaryDirectory() as scratch:
        store = bundle.source
        if not store.is_dir():
            store = Path(scratch) / bundle.name
            zipfile.ZipFile(bundle.source).extractall(store)  # its layout is that of a store
        write_report(store, folder)
    write_bundle(bundle.source, folder / "bundle.zip")


def _candidates(bundle: Bundle) -> list[tuple[Place, _Candidate]]:
    observations = observe(bundle.results)
    specs = {r.key: r.spec for r in bundle.results}
    by_entry: dict[tuple[str, str], list[Curve]] = defaultdict(list)
    for curve in curves(observations, "compression", "top1"):
        by_entry[curve.task, curve.method].append(curve)
    rows = (
        observations.pruned.drop_duplicates(["task", "method"]).set_index(["task", "method"])["key"].to_dict()
    )
    found = []
    for (task, method), members in by_entry.items():
        spec = specs[rows[task, method]]
        place = (spec.data.name, spec.data.revision, str(spec.data.test_images or "all"), spec.model)
        found.append((place, _Candidate(bundle, observations, task, method, tuple(members))))
    return found


def _board(place: Place, candidates: Sequence[_Candidate], problems: Mapping[str, Sequence[str]]) -> Board:
    low = max(curve.x[0] for c in candidates for curve in c.curves)
    high = min(max(curve.x[-1] for curve in c.curves) for c in candidates)
    scored = [(_area(c, low, high), c) for c in candidates]
    scored.sort(key=lambda s: (-s[0].mean if s[0].n else math.inf, s[1].method, s[1].bundle.digest))
    targets = tuple(sorted({t for c in candidates for t in _own_rows(c)["compression_target"].tolist()}))
    dataset, revision, images, model = place
    entries = tuple(
        _entry(rank, area, c, targets, problems[c.bundle.digest])
        for rank, (area, c) in enumerate(scored, start=1)
    )
    data = f"data digest {revision[:12]}, {images} test images"
    return Board(f"{dataset} / {model}", data, low, high, targets, entries)


def _own_rows(candidate: _Candidate) -> pd.DataFrame:
    rows = candidate.observations.pruned
    return rows[(rows["task"] == candidate.task) & (rows["method"] == candidate.method)]


def _area(candidate: _Candidate, low: float, high: float) -> stats.Summary:
    areas = [stats.area_under_log_curve(c.x, c.y, low=low, high=high, tolerance=0.02) for c in candidate.curves]
    return stats.summarise(areas)


def _entry(
    rank: int, area: stats.Summary, candidate: _Candidate, targets: Sequence[float], problems: Sequence[str]
) -> Entry:
    rows = _own_rows(candidate)
    control = candidate.observations.control
    controls = control.loc[control["task"] == candidate.task, "top1"].to_numpy(dtype=float)
    reference = float(controls.mean()) if len(controls) else math.nan
    means = rows.groupby("compression_target")[["compression", "top1"]].mean()
    within = stats.largest_within(means["compression"], means["top1"], reference)
    cells = {t: stats.summarise(part["top1"].to_numpy()) for t, part in groups(rows, "compression_target")}
    return Entry(
        rank=rank,
        method=candidate.method,
        bundle=candidate.bundle.name,
        link=f"{_folder(candidate.bundle)}/index.html#curves",
        weights=str(rows["weights"].iloc[0]),
        recipe=", ".join(sorted(rows["recipe"].unique())),
        seeds=int(rows["seed"].nunique()),
        area=plus_minus(area.mean, area.std, percent=True),
        within=f"{within:.3g}×" if math.isfinite(reference) else "no control",
        accuracies=tuple(
            plus_minus(cells[t].mean, cells[t].std, percent=True) if t in cells else "–" for t in targets
        ),
        problems=len(problems),
    )
