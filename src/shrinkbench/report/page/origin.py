"""Where results come from: machines, versions, recipes, data, weights, and the commands to repeat them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shrinkbench.results.apart import digest_once
from shrinkbench.results.record import RunResult
from shrinkbench.results.store import Plan
from shrinkbench.spec import ExperimentSpec, Value


@dataclass(frozen=True)
class Machine:
    """One setting in which runs happened."""

    processor: str
    device: str
    threads: int
    python: str
    platform: str
    versions: str
    commit: str
    runs: int


@dataclass(frozen=True)
class Definition:
    """One value that runs share, in full: a recipe, a dataset, initial weights, a method."""

    name: str
    digest: str
    values: tuple[tuple[str, str], ...]
    runs: int


@dataclass(frozen=True)
class ResultsOrigin:
    """Everything that is needed to repeat the results."""

    started: str
    ended: str
    computing: str
    machines: tuple[Machine, ...]
    recipes: tuple[Definition, ...]
    datasets: tuple[Definition, ...]
    weights: tuple[Definition, ...]
    methods: tuple[Definition, ...]
    commands: tuple[tuple[str, int], ...]
    experiments: tuple[tuple[str, str], ...]


def trace_origin(results: Sequence[RunResult], plan: Plan | None) -> ResultsOrigin:
    """Collect the origin of ``results``; ``plan`` adds the experiment files."""
    started = sorted(r.provenance.started for r in results)
    recipes: list[Value] = [r.spec.recipe for r in results]
    recipes += [r.spec.weights.recipe for r in results if r.spec.weights.recipe]
    return ResultsOrigin(
        started=started[0] if started else "",
        ended=started[-1] if started else "",
        computing=duration(sum(r.provenance.seconds for r in results)),
        machines=_machines(results),
        recipes=_definitions(recipes),
        datasets=_definitions(r.spec.data for r in results),
        weights=_definitions(r.spec.weights for r in results),
        methods=_definitions(r.spec.method for r in results),
        commands=tuple(Counter(r.provenance.command for r in results if r.provenance.command).most_common()),
        experiments=tuple((e.name, as_toml(e)) for e in plan.experiments) if plan else (),
    )


def duration(seconds: float) -> str:
    """A time in the unit that suits it.

    >>> duration(42), duration(90), duration(5400), duration(400_000)
    ('42.0 seconds', '1.5 minutes', '1.5 hours', '4.6 days')
    """
    for unit, size in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} seconds"


def _machines(results: Sequence[RunResult]) -> tuple[Machine, ...]:
    counted = Counter(
        (
            p.processor,
            p.device,
            p.threads,
            p.python,
            p.platform,
            ", ".join(f"{name} {version}" for name, version in sorted(p.versions.items())),
            p.commit or "not recorded",
        )
        for p in (r.provenance for r in results)
    )
    return tuple(Machine(*setting, runs=count) for setting, count in counted.most_common())


def _definitions(values: Iterable[Value]) -> tuple[Definition, ...]:
    counted: Counter[str] = Counter()
    found: dict[str, Value] = {}
    for value in values:
        key = digest_once(value)
        counted[key] += 1
        found.setdefault(key, value)
    definitions = [
        Definition(
            str(getattr(value, "name", "")), key[:12], _flat(value.model_dump(mode="json")), counted[key]
        )
        for key, value in found.items()
    ]
    return tuple(sorted(definitions, key=lambda d: (d.name, d.digest)))


def _flat(values: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Fields and values as text; nested recipes are listed on their own, so only their name stands here."""
    rows = []
    for name, value in values.items():
        if name == "recipe" and isinstance(value, Mapping):
            value = value["name"]
        rows.append((name.replace("_", " "), value if isinstance(value, str) else json.dumps(value)))
    return tuple(rows)


def as_toml(experiment: ExperimentSpec) -> str:
    """An experiment file that gives this very grid.

    >>> print(as_toml(ExperimentSpec(name="e", dataset="digits", model="m", method="random", compression=2)))
    name = "e"
    dataset = ["digits"]
    model = ["m"]
    weights = ["pretrain"]
    method = ["random"]
    compression = [2.0]
    seed = [0]
    prune_classifier = false
    prune_biases = false
    keep = "none"
    """
    plain, tables = [], []
    for name, value in experiment.model_dump(mode="json", exclude_none=True).items():
        if isinstance(value, dict):
            if value:
                tables.append(f"\n[{name}]")
                tables += [f"{_toml_key(key)} = {_toml(entry)}" for key, entry in value.items()]
        elif value not in ("", []):
            plain.append(f"{name} = {_toml(value)}")
    return "\n".join(plain + tables)


def _toml_key(key: str) -> str:
    """A key, in quotes unless it may stand bare."""
    return key if key.isascii() and key.replace("_", "").replace("-", "").isalnum() else json.dumps(key)


def _toml(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{k} = {_toml(v)}' for k, v in value.items())} }}"
    return json.dumps(value, ensure_ascii=False)
