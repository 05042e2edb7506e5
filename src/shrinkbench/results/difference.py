"""What tells two sets of results apart: runs, numbers, settings, and the means that follow."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, NamedTuple

from shrinkbench.results.bundle import Bundle
from shrinkbench.results.conflicts import numbers_of, unlike
from shrinkbench.results.labels import RunLabel, distinct_runs, label_runs
from shrinkbench.results.record import RunResult
from shrinkbench.spec import RunSpec


class SettingDifference(NamedTuple):
    """A field of specifications, by its path, with its value in the first set and in the second."""

    field: str
    first: Any
    second: Any


@dataclass(frozen=True)
class Unequal:
    """A run of both sets with other numbers or another outcome; ``fields`` names what differs."""

    key: str
    label: str
    first: float | None
    second: float | None
    fields: tuple[str, ...]

    @property
    def difference(self) -> float | None:
        """Second minus first headline metric; ``None`` where one failed."""
        return None if self.first is None or self.second is None else self.second - self.first


@dataclass(frozen=True)
class OtherSettings:
    """Pairs of runs (their keys) of one name, amount and seed whose specifications differ in ``settings``."""

    settings: tuple[SettingDifference, ...]
    pairs: tuple[tuple[str, str], ...]
    example: str


@dataclass(frozen=True)
class CellChange:
    """Task, method and amount with finished runs in both sets, and the means of the headline metric.

    It is found by its name; ``same_settings`` tells whether the runs of both are alike but for the seed.
    """

    label: str
    metric: str
    first: float
    first_n: int
    second: float
    second_n: int
    same_settings: bool


@dataclass(frozen=True)
class ResultsDifference:
    """What tells two sets apart; labels are of both together; ``only_*`` hold the runs of ``settings``.

    ``disputed`` are the keys of runs whose conflicts are not the same in both, ``planned`` those that one plan
    alone asks for and nobody ran.
    """

    runs: tuple[int, int]
    only_first: tuple[tuple[str, str], ...]
    only_second: tuple[tuple[str, str], ...]
    unequal: tuple[Unequal, ...]
    settings: tuple[OtherSettings, ...]
    cells: tuple[CellChange, ...]
    disputed: tuple[str, ...] = ()
    planned: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether both sets hold the same runs with the same numbers, and lack the same ones."""
        return not (self.only_first or self.only_second or self.unequal or self.disputed or self.planned)


def difference_of(first: Bundle, second: Bundle) -> ResultsDifference:
    """Compare the results of two sources by key, and what their plans miss; provenance is left aside.

    Compared is everything measured, as :func:`shrinkbench.results.conflicts.unlike` does: whole images exactly,
    losses to five digits; durations and the rest of the provenance are not.
    """
    sets = ({r.key: r for r in first.results}, {r.key: r for r in second.results})
    both = [*first.results, *(r for r in second.results if r.key not in sets[0])]
    labels = dict(zip((r.key for r in both), label_runs([r.spec for r in both]), strict=True))
    names = {r.key: _name(r, labels[r.key]) for r in both}
    shared = [(result, sets[1][key]) for key, result in sets[0].items() if key in sets[1]]
    unequal = [found for pair in shared if (found := _unequal(pair, names))]
    unequal.sort(key=lambda u: (-abs(u.difference) if u.difference is not None else float("-inf"), u.label))
    lonely = (
        [r for k, r in sets[0].items() if k not in sets[1]],
        [r for k, r in sets[1].items() if k not in sets[0]],
    )
    return ResultsDifference(
        runs=(len(sets[0]), len(sets[1])),
        only_first=tuple((r.key, names[r.key]) for r in lonely[0]),
        only_second=tuple((r.key, names[r.key]) for r in lonely[1]),
        unequal=tuple(unequal),
        settings=_other_settings(*lonely, names),
        cells=tuple(_cells(first.results, second.results)),
        disputed=_disputed(first, second),
        planned=tuple(sorted(_missing(first, sets[1]) ^ _missing(second, sets[0]))),
    )


def _missing(bundle: Bundle, elsewhere: Mapping[str, RunResult]) -> set[str]:
    """Keys of planned runs that neither set has."""
    return {spec.migrated_from or spec.key for spec in bundle.missing} - elsewhere.keys()


def _disputed(first: Bundle, second: Bundle) -> tuple[str, ...]:
    """Runs on which one set holds numbers in conflict that the other set does not."""
    known = [{(r.key, numbers_of(r)) for pair in b.conflicts for r in pair} for b in (first, second)]
    return tuple(sorted({key for key, _ in known[0] ^ known[1]}))


def _name(result: RunResult, label: RunLabel) -> str:
    method = f"{label.method_alone} {label.control}" if result.spec.is_control else label.method
    return f"{label.task}, {method}, {label.amount}, seed {result.spec.seed}"


def _unequal(pair: tuple[RunResult, RunResult], names: Mapping[str, str]) -> Unequal | None:
    first, second = pair
    found = {place.partition(".")[0] for place in unlike(first, second)}
    if first.error != second.error and first.status == second.status:
        found.add("error")
    if not found:
        return None
    fields = tuple(name for name in type(first).model_fields if name in found)
    return Unequal(first.key, names[first.key], first.headline, second.headline, fields)


def _other_settings(
    first: Sequence[RunResult], second: Sequence[RunResult], names: Mapping[str, str]
) -> tuple[OtherSettings, ...]:
    """Pairs of runs that go by one name and are not one run, together where the same fields tell them apart."""
    open_: dict[tuple[Any, ...], list[tuple[RunResult, dict[str, Any]]]] = defaultdict(list)
    for result in second:
        open_[_called(result)].append((result, dict(_leaves(result))))
    groups: dict[str, list[tuple[tuple[SettingDifference, ...], str, str]]] = defaultdict(list)
    for result in first:
        candidates = open_[_called(result)]
        if candidates:
            own = dict(_leaves(result))
            found = [(_settings(own, leaves), number) for number, (_, leaves) in enumerate(candidates)]
            settings, number = min(found, key=lambda item: len(item[0]))
            groups[repr(settings)].append((settings, result.key, candidates.pop(number)[0].key))
    members = sorted(groups.values(), key=len, reverse=True)
    return tuple(
        OtherSettings(group[0][0], tuple((a, b) for _, a, b in group), names[group[0][1]]) for group in members
    )


def _called(result: RunResult) -> tuple[Any, ...]:
    """What a person calls the run by."""
    spec = result.spec
    return spec.data.name, spec.model.name, spec.method.name, spec.amount.label, spec.seed


def _settings(first: Mapping[str, Any], second: Mapping[str, Any]) -> tuple[SettingDifference, ...]:
    fields = dict.fromkeys([*first, *second])
    found = [SettingDifference(field, first.get(field), second.get(field)) for field in fields]
    return tuple(setting for setting in found if setting.first != setting.second)


def _leaves(result: RunResult) -> Iterator[tuple[str, Any]]:
    """Every single value of the specification by its path, such as ``recipe.epochs``."""
    return _walk("", result.spec.model_dump(mode="json"))


def _walk(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, member in value.items():
            yield from _walk(f"{path}.{name}" if path else name, member)
    else:
        yield path, value


def _cells(first: Sequence[RunResult], second: Sequence[RunResult]) -> list[CellChange]:
    """Cells of both sets whose means differ, those that differ most first."""
    sets = [_runs_by_cell(results) for results in (first, second)]
    cells = []
    for cell in sets[0].keys() & sets[1].keys():
        runs = sets[0][cell], sets[1][cell]
        means = [fmean(v for run in members if (v := run.headline) is not None) for members in runs]
        settings = [{_without_seed(run) for run in members} for members in runs]
        if means[0] != means[1]:
            same = settings[0] == settings[1]
            cells.append(
                CellChange(", ".join(cell[:-1]), cell[-1], means[0], len(runs[0]), means[1], len(runs[1]), same)
            )
    return sorted(cells, key=lambda cell: (-abs(cell.second - cell.first), cell.label))


def _without_seed(run: RunResult) -> RunSpec:
    """What is alike for all runs of a cell; a control is the same whichever method refers to it."""
    spec = run.spec.control if run.spec.is_control else run.spec
    return spec.model_copy(update={"seed": 0, "migrated_from": None})


def _runs_by_cell(results: Sequence[RunResult]) -> dict[tuple[str, ...], list[RunResult]]:
    """Finished runs by task, method, amount and metric, as this set needs to tell them apart.

    A control that methods share stands there once.
    """
    found: dict[tuple[str, ...], list[RunResult]] = defaultdict(list)
    seen: set[str] = set()
    for result, label in distinct_runs(result for result in results if result.status == "done"):
        spec = result.spec
        if spec.is_control and label.control_key in seen:
            continue
        if spec.is_control:
            seen.add(label.control_key)
        method = label.control if spec.is_control else label.method
        found[label.task, method, label.amount, spec.task.objective.headline].append(result)
    return found
