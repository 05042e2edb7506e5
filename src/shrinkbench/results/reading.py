"""Files of a results folder turned into plans and results, or into one sentence that says what is wrong."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, Field, ValidationError

from shrinkbench.errors import ShrinkbenchError, one_line
from shrinkbench.files import parse_json, read_file, repeated_name
from shrinkbench.results.conflicts import numbers_of
from shrinkbench.results.consistency import contradictions
from shrinkbench.results.layout import CONFLICTS, LARGEST_BESIDE, LARGEST_RESULT
from shrinkbench.results.migration import migrate_plan, migrate_result, migrate_run
from shrinkbench.results.plan import Plan
from shrinkbench.results.record import SCHEMA_VERSION, RunResult
from shrinkbench.spec import RunSpec

_READ = (1, SCHEMA_VERSION)
_MOST_OF_A_PLAN = (4_000_000, 16_000_000)  # objects and lists, and commas: what is as large has fewer
_MOST_BESIDE = (1000, 200_000)  # a comma for each run of which something is kept
_LONGEST_TEXT = 1 << 16  # bytes of a description; a text is copied more often than what a plan is else made of
_MOST_OF_A_RESULT = (100_000, 500_000)  # 8 MiB of real ones have fewer
_TOLD = 1000  # complaints that are looked at one by one


@dataclass(frozen=True)
class Problem:
    """A file that could not be read as a result, and one sentence that says why."""

    path: Path
    sentence: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "sentence", one_line(self.sentence))  # it may echo what a stranger wrote


def check_plan_size(content: bytes) -> None:
    """Raise ``ValueError`` for JSON text of more parts than any plan has: each takes a hundred bytes."""
    crowd = _crowd(content, _MOST_OF_A_PLAN)
    if crowd:
        raise ValueError(crowd)
    for start in range(0, len(content) - _LONGEST_TEXT + 1, _LONGEST_TEXT):
        part = content[start : start + _LONGEST_TEXT]
        if part.count(b'"') == part.count(b'\\"'):
            raise ValueError(f"it has a text of more than {_LONGEST_TEXT:,} bytes")


def read_beside_plan(path: Path) -> bytes:
    """The JSON text of a ``workspace.json``; ``ValueError`` where it has more parts than any has."""
    content = read_file(path, most=LARGEST_BESIDE)
    crowd = _crowd(content, _MOST_BESIDE)
    if crowd:
        raise ValueError(crowd)
    return content


def _crowd(content: bytes, most: tuple[int, int]) -> str:
    """What JSON text has too many of; nothing where all is within ``most``."""
    counts = content.count(b"{") + content.count(b"["), content.count(b",")
    for what, count, limit in zip(("objects and lists", "commas"), counts, most, strict=True):
        if count > limit:
            return f"it has {count:,} {what}, and up to {limit:,} are read"
    return ""


class _Header(BaseModel):
    """The part of any schema's file that tells which schema it is."""

    schema_version: int = Field(ge=0, le=10**6)


def read_result(path: Path) -> RunResult | Problem:
    """Read one file; whatever is wrong with it becomes a problem, not an exception."""
    try:
        return parse_result(path, read_file(path, most=LARGEST_RESULT))
    except OSError as error:
        return Problem(path, f"cannot be read ({error.strerror or error})")


def parse_plan(path: Path, content: bytes) -> Plan:
    """The plan in ``content`` of ``path``, of this schema or of the first; an error where it is neither."""
    try:
        check_plan_size(content)
        if _Header.model_validate_json(content).schema_version == 1:
            plan = Plan.model_validate(migrate_plan(parse_json(content)))
        else:
            plan = Plan.model_validate_json(content)
        twice = "" if plan.as_json() == content else repeated_name(content)
        if twice:  # readers disagree on which of the two counts
            raise ValueError(f"it has two entries of one name, '{one_line(twice, 60)}'")
    except _NOT_OF_SCHEMA_1 as error:
        why = _first(error) if isinstance(error, ValidationError) else _why_not_of_schema_1(error)
        raise ShrinkbenchError(
            f"{path} is not a plan of this version of shrinkbench ({why}); move it away to plan anew, or "
            "read it with the version that wrote it"
        ) from None
    return plan


def parse_result(path: Path, content: bytes) -> RunResult | Problem:
    """The result in ``content`` of ``path``, whose folder is named by its key, or what is wrong with it.

    A result that contradicts itself is none.
    """
    crowd = _crowd(content, _MOST_OF_A_RESULT)
    if crowd:
        return Problem(path, f"is not a valid result: {crowd}")
    try:
        result = _as_result(content)
        repeated = "" if result.as_json() == content else repeated_name(content)
    except ValidationError as error:
        return Problem(path, _why_unreadable(content, error))
    except _NOT_OF_SCHEMA_1 as error:
        return Problem(path, f"is not a valid result of schema version 1: {_why_not_of_schema_1(error)}")
    if repeated:  # readers disagree on which of the two counts
        return Problem(path, f"has two entries of one name, '{one_line(repeated, 60)}'")
    is_conflict = path.parent.name == CONFLICTS
    if result.key != (path.parent.parent if is_conflict else path.parent).name:
        return Problem(path, f"lies in a folder of another key; it says {result.key[:12]}")
    if not _follows(result):
        return Problem(path, "does not agree with its key: its specification was edited")
    first = next(contradictions(result), None)
    if first is None and is_conflict and path.stem != numbers_of(result):
        first = "it is named by other numbers than it holds"
    return result if first is None else Problem(path, f"contradicts itself: {first}")


def _as_result(content: bytes) -> RunResult:
    """The result in ``content``; one of schema 1 is migrated."""
    try:
        return RunResult.model_validate_json(content, strict=True)  # "0.5" and true are no accuracies
    except ValidationError:
        if _Header.model_validate_json(content).schema_version != 1:
            raise
    migrated = json.dumps(migrate_result(parse_json(content)))
    return RunResult.model_validate_json(migrated, strict=True)


def _follows(result: RunResult) -> bool:
    """Whether the key follows from the specification, of a migrated run from that which schema 1 stored."""
    spec = result.spec
    if spec.migrated_from is None or result.migrated_spec is None:
        is_new = spec.migrated_from is None and result.migrated_spec is None
        return is_new and result.key == spec.key
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
    first = error.errors()[0] if error.error_count() == 1 else None
    if first is not None and first["type"] == "json_invalid":
        return "is empty" if not content.strip() else f"is not whole JSON ({first['ctx']['error']})"
    try:
        version = _Header.model_validate_json(content).schema_version
    except ValidationError:
        return "is JSON, but not a shrinkbench result"
    if version not in _READ:
        return f"has schema version {version}; this shrinkbench reads versions {' and '.join(map(str, _READ))}"
    return f"is not a valid result: {_first(error)}"


def _first(error: ValidationError) -> str:
    """The first complaint of a validation error, with its place."""
    if error.error_count() > _TOLD:  # each takes more room than what it complains of
        return f"{error.error_count():,} parts of it are of another kind"
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    return f"{place[:80]}{': ' if place else ''}{message[:1].lower()}{message[1:140]}"
