"""Where results lie: one folder per run, and a whole file in it means that the run is finished."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, ValidationError, model_validator

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.files import write_atomically
from shrinkbench.results.migration import migrate_plan, migrate_result, migrate_run
from shrinkbench.results.record import SCHEMA_VERSION, RunResult
from shrinkbench.spec import ExperimentSpec, RunSpec, Value

PLAN_NAME = "plan.json"
RESULT_NAME = "result.json"
_READ = (1, SCHEMA_VERSION)


class PlannedRun(Value):
    """One run of a plan under its key; ``experiment`` names the grid that asks for it."""

    key: str
    spec: RunSpec
    experiment: str

    @model_validator(mode="after")
    def _follows(self) -> PlannedRun:
        if self.key != (self.spec.migrated_from or self.spec.key):
            raise ValueError("the key does not follow from the specification")
        return self


class Plan(Value):
    """What a store is to hold: the experiments as a person wrote them and every run that follows from them.

    ``name`` and ``description`` are of the first experiment. A run that several experiments ask for stands
    under the first of them.
    """

    schema_version: Literal[2] = 2
    name: str
    description: str
    experiments: tuple[ExperimentSpec, ...] = Field(min_length=1)
    runs: tuple[PlannedRun, ...]


@dataclass(frozen=True)
class Problem:
    """A file that could not be read as a result, and one sentence that says why."""

    path: Path
    sentence: str


@dataclass(frozen=True)
class Status:
    """How far a store is: ``total`` = ``done`` + ``failed`` + ``missing``."""

    total: int
    done: int
    failed: int
    missing: int

    def as_dict(self) -> dict[str, int]:
        """The four counts by name.

        >>> Status(total=3, done=1, failed=1, missing=1).as_dict()
        {'total': 3, 'done': 1, 'failed': 1, 'missing': 1}
        """
        return asdict(self)


class _Header(BaseModel):
    """The part of any schema's file that tells which schema it is."""

    schema_version: int = Field(ge=0)


class ResultStore:
    """Results of one experiment in the folder ``root``.

    ``plan.json`` lists the runs; ``runs/<key>/result.json`` holds one outcome each. Files appear whole or not
    at all: they are written beside their place, flushed to the disk and renamed, so any number of processes
    may write at once and a kill at any moment leaves only finished results behind.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    # Places

    @property
    def plan_path(self) -> Path:
        """The file that lists the planned runs."""
        return self.root / PLAN_NAME

    def run_dir(self, key: str) -> Path:
        """The folder of one run; checkpoints lie beside its result."""
        return self.root / "runs" / key

    def result_path(self, key: str) -> Path:
        """The file that says that the run is finished, and how."""
        return self.run_dir(key) / RESULT_NAME

    def shared_dir(self, kind: str, key: str) -> Path:
        """The folder of something that several runs share: a pretrained network, a control."""
        return self.root / "shared" / kind / key

    # Plan

    def write_plan(self, experiment: ExperimentSpec, runs: Sequence[RunSpec]) -> Plan:
        """Store the plan of ``experiment``, in place of an earlier one of the same name.

        Plans of other experiments in this folder are kept, and so is every stored result.
        """
        found = self.find_plan()
        earlier = found if isinstance(found, Plan) else None  # one that cannot be read is replaced
        grids = {e.name: e for e in earlier.experiments} if earlier else {}
        grids[experiment.name] = experiment
        planned = {run.key: run for run in earlier.runs if run.experiment != experiment.name} if earlier else {}
        for run in runs:
            key = run.migrated_from or run.key
            planned.setdefault(key, PlannedRun(key=key, spec=run, experiment=experiment.name))
        first = next(iter(grids.values()))
        plan = Plan(
            name=first.name,
            description=first.description,
            experiments=tuple(grids.values()),
            runs=tuple(planned.values()),
        )
        write_atomically(self.plan_path, plan.model_dump_json(indent=1).encode())
        return plan

    def find_plan(self) -> Plan | Problem | None:
        """The stored plan, what is wrong with it, or nothing where there is none."""
        if not self.plan_path.exists():
            return None
        try:
            return self.read_plan()
        except ShrinkbenchError as error:
            return Problem(self.plan_path, str(error).removeprefix(f"{self.plan_path} "))

    def read_plan(self) -> Plan:
        """The stored plan; an error names the file where it is absent or not a plan."""
        try:
            return parse_plan(self.plan_path, self.plan_path.read_bytes())
        except FileNotFoundError:
            raise ShrinkbenchError(
                f"{self.root} holds no {PLAN_NAME}; name the output folder of a sweep"
            ) from None
        except OSError as error:
            raise ShrinkbenchError(f"cannot read {self.plan_path}: {error.strerror}") from None

    # Results

    def has(self, key: str) -> bool:
        """Whether the run is finished (done or failed) and its file can be read."""
        return isinstance(read_result(self.result_path(key)), RunResult)

    def read(self, key: str) -> RunResult:
        """The stored result; an error says what is wrong with the file."""
        result = read_result(self.result_path(key))
        if isinstance(result, Problem):
            raise ShrinkbenchError(f"{result.path}: {result.sentence}")
        return result

    def write(self, result: RunResult) -> Path:
        """Store a result under its key, replacing an earlier one."""
        path = self.result_path(result.key)
        write_atomically(path, result.model_dump_json(indent=1).encode())
        return path

    def discard(self, key: str) -> None:
        """Remove a stored result, so that its run is missing again."""
        try:
            self.result_path(key).unlink(missing_ok=True)
        except OSError as error:
            raise ShrinkbenchError(f"cannot remove {self.result_path(key)}: {error.strerror}") from None

    def results(self) -> tuple[list[RunResult], list[Problem]]:
        """Every readable result in order of key, and a problem for every file that is not one."""
        results: list[RunResult] = []
        problems: list[Problem] = []
        for path in sorted(self.root.glob(f"runs/*/{RESULT_NAME}")):
            outcome = read_result(path)
            if isinstance(outcome, Problem):
                problems.append(outcome)
            else:
                results.append(outcome)
        return results, problems

    def status(self) -> Status:
        """Counts over the planned runs; a file that cannot be read counts as missing.

        Without a plan the stored results themselves are the total.
        """
        outcomes = {result.key: result.status for result in self.results()[0]}
        planned = {run.key for run in self.read_plan().runs} if self.plan_path.exists() else set(outcomes)
        states = [outcomes.get(key) for key in planned]
        return Status(
            total=len(planned),
            done=states.count("done"),
            failed=states.count("failed"),
            missing=states.count(None),
        )


def existing_store(root: Path) -> ResultStore:
    """The store in ``root``; an error says so where the folder holds neither a plan nor results."""
    store = ResultStore(root)
    if not store.root.is_dir():
        raise ShrinkbenchError(f"{root} is not a folder; name the output folder of a sweep")
    if not store.plan_path.exists() and not (store.root / "runs").is_dir():
        raise ShrinkbenchError(f"{root} holds no results of shrinkbench; name the output folder of a sweep")
    return store


def read_result(path: Path) -> RunResult | Problem:
    """Read one file; whatever is wrong with it becomes a problem, not an exception."""
    try:
        return parse_result(path, path.read_bytes())
    except OSError as error:
        return Problem(path, f"cannot be read ({error.strerror or error})")


def parse_plan(path: Path, content: bytes) -> Plan:
    """The plan in ``content`` of ``path``, of this schema or of the first; an error where it is neither."""
    try:
        if _Header.model_validate_json(content).schema_version == 1:
            return Plan.model_validate(migrate_plan(json.loads(content)))
        return Plan.model_validate_json(content)
    except _NOT_OF_SCHEMA_1 as error:
        why = _first(error) if isinstance(error, ValidationError) else _why_not_of_schema_1(error)
        raise ShrinkbenchError(
            f"{path} is not a plan of this version of shrinkbench ({why}); run the sweep again to rewrite it"
        ) from None


def parse_result(path: Path, content: bytes) -> RunResult | Problem:
    """The result in ``content`` of ``path``, whose folder is named by its key, or what is wrong with it."""
    try:
        version = _Header.model_validate_json(content).schema_version
        result = _as_result(content, version)
    except ValidationError as error:
        return Problem(path, _why_unreadable(content, error))
    except _NOT_OF_SCHEMA_1 as error:
        return Problem(path, f"is not a valid result of schema version 1: {_why_not_of_schema_1(error)}")
    if result.key != path.parent.name:
        return Problem(path, f"lies in a folder of another key; it says {result.key[:12]}")
    if not _follows(result):
        return Problem(path, "does not agree with its key: its specification was edited")
    return result


def _as_result(content: bytes, version: int) -> RunResult:
    """The result in ``content``; one of schema 1 is migrated."""
    if version == 1:
        content = json.dumps(migrate_result(json.loads(content))).encode()
    return RunResult.model_validate_json(content, strict=True)  # "0.5" and true are no accuracies


def _follows(result: RunResult) -> bool:
    """Whether the key follows from the specification, of a migrated run from that which schema 1 stored."""
    spec = result.spec
    if spec.migrated_from is None or result.migrated_spec is None:
        return result.migrated_spec is None and result.key == spec.key
    try:
        return spec == RunSpec.model_validate(migrate_run(result.migrated_spec, result.key))
    except _NOT_OF_SCHEMA_1:
        return False


_NOT_OF_SCHEMA_1 = (ValueError, KeyError, TypeError, AttributeError, RecursionError)


def _why_not_of_schema_1(error: Exception) -> str:
    """One clause about what the migration stumbled over."""
    if isinstance(error, KeyError):
        return f"the field {error} is missing"
    return str(error) if isinstance(error, ValueError) else "a field is of another kind than there"


def _why_unreadable(content: bytes, error: ValidationError) -> str:
    """Tell a half-written file from foreign JSON and from another version of the schema."""
    if error.errors()[0]["type"] == "json_invalid":
        return "is empty" if not content.strip() else f"is not whole JSON ({error.errors()[0]['ctx']['error']})"
    try:
        version = _Header.model_validate_json(content).schema_version
    except ValidationError:
        return "is JSON, but not a shrinkbench result"
    if version not in _READ:
        return f"has schema version {version}; this shrinkbench reads versions {' and '.join(map(str, _READ))}"
    return f"is not a valid result: {_first(error)}"


def _first(error: ValidationError) -> str:
    """The first complaint of a validation error, with its place."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    return f"{place}{': ' if place else ''}{message[:1].lower()}{message[1:]}"
