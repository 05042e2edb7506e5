"""Who is best on one task, whoever ran it: entries of several bundles, judged as a report judges methods."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pandas as pd

from shrinkbench.report.board_controls import ControlRow, control_rows
from shrinkbench.report.recommendation import between
from shrinkbench.report.result_tables import amounts_of
from shrinkbench.report.statistics import tests as stats
from shrinkbench.report.statistics.blocks import Block
from shrinkbench.report.statistics.claims import Claim, Claims, judge
from shrinkbench.report.statistics.compare import curve_summaries, records
from shrinkbench.report.statistics.metrics import HEADLINE, Metric
from shrinkbench.report.statistics.observations import Observations, aggregate, observe
from shrinkbench.report.tables import achieved_text, amount_text, ratio_text
from shrinkbench.report.verdict import describe_task
from shrinkbench.results.bundle import Bundle
from shrinkbench.results.labels import RunLabel, label_runs, recipe_labels
from shrinkbench.results.record import RunResult
from shrinkbench.spec import CLASSIFICATION, Recipe, RunSpec, TaskSpec

DISPUTED = "sources, or methods, have other numbers or another outcome for a run of it or of its control"
ABSENT = "no finished run that prunes"
ALONE = "no other entry can be compared with it"


class Place(NamedTuple):
    """Where entries are compared: data, network, objective and initial weights, and the recipe, by value."""

    task: TaskSpec
    recipe: Recipe


@dataclass(frozen=True)
class Entry:
    """One method, of the bundles ``sources`` (their digests) together.

    ``rank`` is missing where the entry takes no part, and ``why`` says so. ``mean`` is the metric over log
    compression on the board's range and seeds, ``lead`` the first entry's over this one; ``disputed`` are
    entries that sources have different numbers of.
    """

    rank: int | None
    method: str
    sources: tuple[str, ...]
    why: str
    disputed: bool
    seeds: int
    mean: stats.Summary
    lead: Claim | None
    within: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Board:
    """The ranking at one place; ``sentences`` are what a report says of these entries."""

    title: str
    group: str
    data: str
    metric: Metric
    sentences: tuple[str, ...]
    reach: str
    amounts: tuple[str, ...]
    entries: tuple[Entry, ...]
    controls: tuple[ControlRow, ...]
    note: str


@dataclass(frozen=True)
class Boards:
    """All boards of a site, and the number of comparisons that each p-value on it is corrected for."""

    boards: tuple[Board, ...]
    comparisons: int


class _Run(NamedTuple):
    """A finished, failed or missing run of one source, and what it is called among all runs of the site."""

    source: str
    key: str
    spec: RunSpec
    label: RunLabel
    is_there: bool

    @property
    def place(self) -> Place:
        return Place(self.spec.task, self.spec.recipe)


class _Name(NamedTuple):
    """What an entry is called on its board, whose it is, and whether a source contradicts it."""

    title: str
    entry: str
    sources: tuple[str, ...]
    disputed: bool


_Names = Mapping[tuple[str, str], _Name]
"""The entry of each run that prunes, by source and key."""


def name_sources(bundles: Iterable[Bundle]) -> dict[str, str]:
    """What each bundle is called, by digest: its name, with the digest's first digits where two share it."""
    found = {bundle.digest: bundle.name for bundle in bundles}
    counts = Counter(found.values())
    return {d: f"{name} {d[:6]}" if counts[name] > 1 else name for d, name in found.items()}


def rank_entries(bundles: Sequence[Bundle], disputed: frozenset[str]) -> Boards:
    """Judge the entries of all ``bundles``, each place by itself, with one correction over all.

    Runs whose keys are ``disputed`` (other numbers under the same key) take their entries out of every rank.
    """
    parts = {b.digest: (b.results, _missing(b)) for b in bundles}
    runs = _label(parts)
    places = _titles(runs)
    sources = name_sources(bundles)
    names = _name_entries(runs, {place: title for title, (place, _) in places.items()}, disputed, sources)
    pool, rows, controls = _pool(parts, runs, names, places)
    claims = judge(pool)
    within = curve_summaries(pool).set_index(["task", "method"])["largest_within"].to_dict()
    cells = aggregate(rows, [HEADLINE])
    boards = []
    for title, (place, group) in places.items():
        entries = sorted({name for name in names.values() if name.title == title})
        here = cells[cells["task"] == title]
        boards.append(
            Board(
                title=title,
                group=group,
                data=_about(place),
                sentences=tuple(describe_task(pool, claims.of(title), disputed=_count_disputed(rows, title))),
                reach=_reach(claims, title),
                amounts=tuple(amount_text(a, target) for a, target in amounts_of(here).items()),
                entries=_entries(
                    entries, claims, here, rows[rows["task"] == title], within, pool.metric(title)
                ),
                metric=pool.metric(title),
                **control_rows(
                    controls[controls["task"] == title],
                    sources,
                    pool.metric(title),
                    seeds=_ranked_seeds(claims, title),
                ),
            )
        )
    return Boards(tuple(boards), claims.comparisons)


def _count_disputed(rows: pd.DataFrame, title: str) -> int:
    """How many finished runs of a board sources contradict each other on; each key once."""
    return int(rows.loc[(rows["task"] == title) & rows["disputed"].astype(bool), "key"].nunique())


def _missing(bundle: Bundle) -> list[RunSpec]:
    """Planned runs that a bundle has no outcome of."""
    stored = {result.key for result in bundle.results}
    runs = bundle.plan.runs if bundle.plan else ()
    return [run.spec for run in runs if run.key not in stored]


def _label(parts: Mapping[str, tuple[Sequence[RunResult], Sequence[RunSpec]]]) -> list[_Run]:
    """Every run of every source, called as all of them need to be told apart."""
    found = [
        (source, spec, is_there)
        for source, (results, missing) in parts.items()
        for spec, is_there in [*((r.spec, r.status == "done") for r in results), *((s, False) for s in missing)]
    ]
    labels = label_runs([spec for _, spec, _ in found])
    return [
        _Run(source, spec.migrated_from or spec.key, spec, label, is_there)
        for (source, spec, is_there), label in zip(found, labels, strict=True)
    ]


def _titles(runs: Sequence[_Run]) -> dict[str, tuple[Place, str]]:
    """Every board's title with its place and group; recipes are named where a task has several."""
    tasks = {run.spec.task: run.label.task for run in runs if not run.spec.is_control}
    recipes: dict[TaskSpec, dict[Recipe, None]] = defaultdict(dict)
    for run in runs:
        if not run.spec.is_control:
            recipes[run.spec.task][run.spec.recipe] = None
    found = {}
    for task, title in sorted(tasks.items(), key=lambda item: item[1]):
        several = len(recipes[task]) > 1
        for recipe, name in sorted(recipe_labels(recipes[task]).items(), key=lambda item: item[1]):
            group = f"{task.data.name} / {task.model.name}"
            found[f"{title} / {name}" if several else title] = (Place(task, recipe), group)
    return found


def _name_entries(
    runs: Sequence[_Run], titles: Mapping[Place, str], disputed: frozenset[str], sources: Mapping[str, str]
) -> _Names:
    """One entry per method and place; by source where sources share no seed of it or contradict each other."""
    controls = {run.label.control_key for run in runs if run.spec.is_control and run.key in disputed}
    by_method: dict[tuple[Place, str], list[_Run]] = defaultdict(list)
    for run in runs:
        if not run.spec.is_control:
            by_method[run.place, run.label.method].append(run)
    alike = Counter((place, members[0].label.method_alone) for (place, _), members in by_method.items())
    names: dict[tuple[str, str], _Name] = {}
    for (place, method), members in by_method.items():
        alone = members[0].label.method_alone
        short = alone if alike[place, alone] == 1 else method
        doubtful = {r.source for r in members if r.key in disputed or r.label.control_key in controls}
        shares = _share_seeds(members, doubtful)
        for share in shares:
            there = [r.source for r in members if r.source in share and r.is_there]
            own = tuple(dict.fromkeys(there)) or tuple(share)
            lab = " and ".join(sources[source] for source in own)
            entry = f"{short} ({lab})" if len(shares) > 1 else short
            name = _Name(titles[place], entry, own, bool(doubtful & set(share)))
            names |= {(r.source, r.key): name for r in members if r.source in share}
    return names


def _share_seeds(members: Iterable[_Run], apart: set[str]) -> list[list[str]]:
    """Sources of one method that have seeds in common, together; those in ``apart`` alone.

    Equal seeds are equal runs: what one source has more is as if it were merged.
    """
    seeds: dict[str, set[int]] = defaultdict(set)
    for run in members:
        seeds[run.source].add(run.spec.seed)
    found: list[tuple[list[str], set[int]]] = []
    for source, own in seeds.items():
        joined = [] if source in apart else [f for f in found if f[1] & own and f[0][0] not in apart]
        found = [f for f in found if f not in joined]
        found.append(([*(s for f in joined for s in f[0]), source], own.union(*(f[1] for f in joined))))
    return [together for together, _ in found]


def _pool(
    parts: Mapping[str, tuple[Sequence[RunResult], Sequence[RunSpec]]],
    runs: Sequence[_Run],
    names: _Names,
    places: Mapping[str, tuple[Place, str]],
) -> tuple[Observations, pd.DataFrame, pd.DataFrame]:
    """What is judged, the rows of all entries, disputed ones too, and those of all controls of every source."""
    titles = {place: title for title, (place, _) in places.items()}
    by_source: dict[str, dict[str, _Run]] = defaultdict(dict)
    for run in runs:
        by_source[run.source][run.key] = run
    frames = [
        _observe_source(observe(results, missing=missing), by_source[source], names, titles)
        for source, (results, missing) in parts.items()
    ]
    pruned, control, gaps = (pd.concat(part, ignore_index=True) for part in zip(*frames, strict=True))
    cell = ["task", "method", "amount", "seed"]
    pruned = pruned.drop_duplicates(cell, ignore_index=True)
    gaps = gaps.sort_values("kind", kind="stable").drop_duplicates(cell)  # a failure before what is missing
    gaps = gaps[~pd.MultiIndex.from_frame(gaps[cell]).isin(pd.MultiIndex.from_frame(pruned[cell]))]
    judged = pruned[~pruned["disputed"].astype(bool)].reset_index(drop=True)
    pool = Observations(
        pruned=judged,
        control=control.drop_duplicates("control_key", ignore_index=True),
        tasks=tuple(places),
        methods=tuple(sorted(judged["method"].unique())),
        chance=frozenset(),
        task_specs={title: place.task for title, (place, _) in places.items()},
        gaps=gaps[~gaps["disputed"].astype(bool)].reset_index(drop=True),
    )
    return pool, pruned, control


def _observe_source(
    found: Observations, by_key: Mapping[str, _Run], names: _Names, titles: Mapping[Place, str]
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Runs, controls and gaps of one source under the names of the site; runs start from its own controls."""
    values = dict(zip(found.control["control_key"], found.control[HEADLINE], strict=True))
    controls = [by_key[key] for key in found.control["key"]]
    control = found.control.assign(
        source=[run.source for run in controls],
        task=[titles.get(run.place, "") for run in controls],
        method=[run.label.control for run in controls],
        control_key=_own_control(found.control["control_key"], values),
    )
    pruned = _renamed(found.pruned, by_key, names)
    pruned["control_key"] = _own_control(pruned["control_key"], values)
    return pruned, control, _renamed(found.gaps, by_key, names)


def _renamed(rows: pd.DataFrame, runs: Mapping[str, _Run], names: _Names) -> pd.DataFrame:
    """Rows of one source's runs under the names of their entries."""
    found = [runs[key] for key in rows["key"]]
    own = [names[run.source, run.key] for run in found]
    return rows.assign(
        task=[name.title for name in own],
        method=[name.entry for name in own],
        disputed=[name.disputed for name in own],
        amount=[run.label.amount for run in found],
    )


def _own_control(keys: Iterable[str], values: Mapping[str, float]) -> list[str]:
    """Keys of controls with what a source measured: of one key, two numbers are two controls."""
    return [f"{key} {values.get(key)!r}" for key in keys]


def _about(place: Place) -> str:
    """What all entries of a board share, in words."""
    data, model, weights = place.task.data, place.task.model, place.task.weights
    parts = [f"data digest {data.revision[:12]}", f"{data.test_images or 'all'} test images"]
    parts += [f"code of the data {data.source[:12]}"] if data.source else []
    parts += (
        [f"version {model.version} of the network"]
        if model.version
        else ["version of the network not recorded"]
    )
    parts += [f"code of the network {model.source[:12]}"] if model.source else []
    parts.append(f"initial weights {weights.name}{f' {weights.digest[:12]}' if weights.digest else ''}")
    parts.append(f"recipe {place.recipe.name} ({place.recipe.epochs} epochs)")
    objective = place.task.objective
    return ", ".join(parts if objective == CLASSIFICATION else [*parts, f"objective {objective.name}"])


def _reach(claims: Claims, title: str) -> str:
    """Over what the entries are ranked."""
    block = _ranked_block(claims, title)
    if block is None:
        return "no entry can be ranked"
    seeds = f"seed{'s' if len(block.units) > 1 else ''} {', '.join(block.units)}"
    return f"ranked over {block.low:.3g} to {ratio_text(block.high)}, {seeds}"


def _ranked_block(claims: Claims, title: str) -> Block | None:
    """The comparison that entries are ranked by; of one among others that it cannot be compared with, none."""
    task = claims.of(title)
    if task is None or not task.block.methods or len(task.block.methods) < min(2, 1 + len(task.block.left_out)):
        return None
    return task.block


def _ranked_seeds(claims: Claims, title: str) -> tuple[str, ...]:
    block = _ranked_block(claims, title)
    return block.units if block else ()


def _entries(
    names: Sequence[_Name],
    claims: Claims,
    cells: pd.DataFrame,
    rows: pd.DataFrame,
    within: Mapping[Any, float],
    metric: Metric,
) -> tuple[Entry, ...]:
    """Entries by rank; those that take no part stand below in order of their names."""
    amounts = list(amounts_of(cells))
    task = claims.of(names[0].title) if names else None
    block = _ranked_block(claims, names[0].title) if names else None
    pairs = task.pairs if task else ()
    means = dict(zip(block.methods, block.means, strict=True)) if block else {}
    values = dict(zip(block.methods, metric.sign * block.values, strict=True)) if block else {}
    reasons = {one.method: one.why for one in task.block.left_out} if task else {}
    reasons |= dict.fromkeys(task.block.methods, ALONE) if task and not block else {}
    best = max(means, key=lambda method: means[method]) if means else ""
    seeds = rows.groupby("method")["seed"].nunique().to_dict()
    texts = {
        (r.method, r.amount): metric.plus_minus(r.headline, r.headline_std)
        + achieved_text(r.compression_target, r.compression)
        for r in records(cells)
    }
    found = []
    for name in names:
        mean, kept = means.get(name.entry), within.get((name.title, name.entry), math.nan)
        found.append(
            Entry(
                rank=None if mean is None else 1 + sum(other > mean for other in means.values()),
                method=name.entry,
                sources=name.sources,
                why=DISPUTED if name.disputed else "" if mean is not None else reasons.get(name.entry, ABSENT),
                disputed=name.disputed,
                seeds=len(block.units) if block and mean is not None else seeds.get(name.entry, 0),
                mean=stats.summarise(values.get(name.entry, ())),
                lead=between(pairs, best, name.entry) if mean is not None and name.entry != best else None,
                within=ratio_text(kept) if math.isfinite(kept) else "–",
                values=tuple(texts.get((name.entry, amount), "–") for amount in amounts),
            )
        )
    return tuple(sorted(found, key=lambda e: (e.rank is None, e.rank or 0, e.method != best, e.method)))
