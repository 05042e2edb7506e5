"""What a method is, costs and asks for: rows to choose by, and a description of one."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from shrinkbench.errors import ShrinkbenchError, some_of

if TYPE_CHECKING:
    from shrinkbench.pruning import PruningMethod
    from shrinkbench.registry import Registry

Row = dict[str, Any]
_EXAMPLE = 4.0
"""The compression of prunable weights for which rounds and trainings are counted."""
METHOD_AXES = ("structure", "score", "allocation", "schedule", "finetuning")
STARTS = {"trained": "trained", "initialisation": "untrained"}


def method_row(name: str, method: PruningMethod) -> Row:
    """One method as a row; ``trainings`` are those that follow its starting weights at 4x."""
    return {
        "name": name,
        "year": _year(method.reference),  # as text: a year has no thousands
        "start": STARTS[method.schedule.start],
        "trainings": trainings(method),
        **dict(zip(METHOD_AXES, method.axes, strict=True)),
        "kind": method.kind,
        "amount": None if method.amount is None else method.amount.label,
        "needs": list(method.needs),
        "reference": method.reference,
        "description": method.summary,
    }


def trainings(method: PruningMethod) -> int:
    """Trainings that follow the starting weights at 4x: one for each round that trains, and the fine-tuning."""
    schedule = method.schedule
    after = 0 if method.finetuning.name == "none" else 1
    if schedule.during is not None:
        return 1 + (after if schedule.train_after else 0)
    between = len(schedule(_EXAMPLE)) - 1 if schedule.train_between else 0
    return between + after


def _year(reference: str) -> str | None:
    from shrinkbench.report.page.citations import Citation, bibliography

    years = [Citation(key, (), bibliography().get(key, "")).year for key in reference.split(", ") if key]
    return max((str(year) for year in years if year is not None), default=None)


def narrow(
    rows: Sequence[Row],
    *,
    structure: str | None = None,
    without: Sequence[str] = (),
    start: str | None = None,
    since: int | None = None,
) -> list[Row]:
    """The ``rows`` of that structure and start, from ``since`` on, that need nothing of ``without``.

    Raises ``ShrinkbenchError`` for values that no method has, and where nothing is left.
    """
    _require(structure, {row["structure"] for row in rows}, "structure")
    _require(start, set(STARTS.values()), "start")
    needs = {need for row in rows for need in row["needs"]}
    for need in without:
        _require(need, needs, "need")
    found = [
        row
        for row in rows
        if structure in (None, row["structure"])
        and start in (None, row["start"])
        and (since is None or int(row["year"] or 0) >= since)
        and not set(without) & set(row["needs"])
    ]
    if not found:
        raise ShrinkbenchError("no method is left; ask for less, or see all by `shrinkbench list methods`")
    return found


def _require(value: str | None, known: set[str], what: str) -> None:
    if value is not None and value not in known:
        some = some_of(known, value, more="`shrinkbench list methods`")
        raise ShrinkbenchError(f"no method has the {what} '{value}'; there are {some}")


def is_method(name: str) -> bool:
    """Whether ``name`` is a method's and no network's."""
    from shrinkbench.models import MODELS
    from shrinkbench.pruning import METHODS

    return not _knows(MODELS, name) and _knows(METHODS, name)


def _knows(registry: Registry[Any], name: str) -> bool:
    try:
        registry.get(name)
    except ShrinkbenchError:
        return False
    return True


def no_method(name: str) -> str:
    """That no method has this ``name``, and which is near it."""
    from shrinkbench.pruning import METHODS

    near = difflib.get_close_matches(name[:100], METHODS, n=2, cutoff=0.6)
    mean = " or ".join(f"'{n}'" for n in near)
    hint = f"did you mean {mean}?" if near else "see `shrinkbench list methods`"
    return f"no method has that name either; {hint}"


def describe_method(name: str) -> Row:
    """A method's axes with the numbers by which they work, what it costs, and what to cite."""
    from shrinkbench.pruning import METHODS
    from shrinkbench.report.page.citations import Citation, bibliography

    method = METHODS.get(name)
    row = method_row(method.name, method)
    keys = [key for key in method.reference.split(", ") if key]
    cited = [Citation(key, (), bibliography().get(key, "")) for key in keys]
    steps = method.schedule(_EXAMPLE)
    return {
        **row,
        "description": inspect.getdoc(method.score) or "",
        "axes": {
            "structure": method.structure.description,
            "allocation": method.allocation.description,
            "schedule": method.schedule.description,
            "finetuning": method.finetuning.description,
        },
        "numbers": method.schedule.numbers,
        "batches": method.batch_count if method.needs else 0,
        "rounds": [round(step, 4) for step in steps],
        "cite": {citation.key: citation.title for citation in cited},
    }


def print_method(row: Row) -> None:
    """Print what :func:`describe_method` found."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False)
    facts = Table(box=None, show_header=False, pad_edge=False)
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column(overflow="fold")

    def tell(key: str, value: str) -> None:
        facts.add_row(key, escape(value))

    tell("method", row["name"])
    tell("score", f"{row['score']} ({row['kind']})")
    for axis, description in row["axes"].items():
        tell(axis, f"{row[axis]}: {description}")
    if row["numbers"]:
        tell("numbers", ", ".join(f"{name} = {value:g}" for name, value in row["numbers"].items()))
    if row["amount"]:
        tell("amount", row["amount"])
    tell("starts from", f"{row['start']} weights")
    rounds = row["rounds"]
    some = ", ".join(f"{step:g}x" for step in rounds[:4])
    tell("rounds at 4x", f"{len(rounds)}: {some}{', ...' if len(rounds) > 4 else ''}")
    tell("trainings at 4x", str(row["trainings"]))
    scored = f"{row['batches']} minibatch{'' if row['batches'] == 1 else 'es'}"
    tell("scored on", f"{', '.join(row['needs'])} of {scored}" if row["needs"] else "the weights alone")
    for key, title in row["cite"].items():
        tell("cite", f"{key}: {title}")
    console.print(facts)
    console.print()
    console.print(escape(row["description"]), soft_wrap=True)
