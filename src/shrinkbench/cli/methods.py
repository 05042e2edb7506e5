"""What a method is, costs and asks for: rows to choose by, and a description of one."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from shrinkbench.cli.documented import plain
from shrinkbench.errors import ShrinkbenchError, some_of

if TYPE_CHECKING:
    from shrinkbench.pruning import PruningMethod

Row = dict[str, Any]
_EXAMPLE = 4.0
"""The compression of prunable weights for which rounds and trainings are counted."""
METHOD_AXES = ("structure", "score", "allocation", "schedule", "finetuning")
STARTS = {"trained": "trained", "initialisation": "untrained"}


def method_row(name: str, method: PruningMethod) -> Row:
    """One method as a row; ``trainings`` are those that follow its starting weights at 4x."""
    from shrinkbench.pruning.families import family_of, sentence_of

    return {
        "name": name,
        "family": family_of(method),
        "year": _year(method.reference),  # as text: a year has no thousands
        "start": STARTS[method.schedule.start],
        "trainings": trainings(method),
        **dict(zip(METHOD_AXES, method.axes, strict=True)),
        "kind": method.kind,
        "amount": None if method.amount is None else method.amount.label,
        "needs": list(method.all_needs),
        "needs_by_axis": {axis: list(needs) for axis, needs in method.needs_by_axis.items()},
        "reference": method.reference,
        "sentence": sentence_of(method),
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
    needs: Sequence[str] = (),
    without: Sequence[str] = (),
    start: str | None = None,
    since: int | None = None,
) -> list[Row]:
    """The ``rows`` of that structure and start, from ``since`` on, with all of ``needs``, none of ``without``.

    Raises ``ShrinkbenchError`` for values that no method has, and where nothing is left.
    """
    from shrinkbench.pruning.units import STRUCTURES

    if structure is not None and structure in STRUCTURES:  # by whatever spelling
        structure = STRUCTURES.get(structure).name
    _require(structure, {row["structure"] for row in rows}, "structure")
    _require(start, set(STARTS.values()), "start")
    known = {need for row in rows for need in row["needs"]}
    for need in (*needs, *without):
        _require(need, known, "need")
    both = next((need for need in needs if need in without), None)
    if both is not None:
        raise ShrinkbenchError(f"'{both}' is asked for by --needs and excluded by --without; give it once")
    found = [
        row
        for row in rows
        if structure in (None, row["structure"])
        and start in (None, row["start"])
        and (since is None or int(row["year"] or 0) >= since)
        and set(needs) <= set(row["needs"])
        and not set(without) & set(row["needs"])
    ]
    if not found:
        raise ShrinkbenchError("no method is left; ask for less, or see all by `shrinkbench list methods`")
    return found


def _require(value: str | None, known: set[str], what: str) -> None:
    if value is not None and value not in known:
        some = some_of(known, value, more="`shrinkbench list methods`")
        raise ShrinkbenchError(f"no method has the {what} '{value}'; there are {some}")


def describe_method(name: str) -> Row:
    """A method's axes with formulas and deviations, its numbers, its costs, and what to cite."""
    from shrinkbench.cli.courses import course_in_text
    from shrinkbench.cli.documented import note_of
    from shrinkbench.pruning import METHODS
    from shrinkbench.pruning.course import course_of
    from shrinkbench.pruning.families import ranked_by
    from shrinkbench.report.page.citations import Citation, bibliography

    method = METHODS.get(name)
    row = method_row(method.name if method.amount is None else name, method)
    keys = [key for key in method.reference.split(", ") if key]
    cited = [Citation(key, (), bibliography().get(key, "")) for key in keys]
    course = course_of(method, target=_EXAMPLE)
    in_rounds = course.along == "rounds" and row["amount"] is None
    return {
        **row,
        "description": inspect.getdoc(method.score) or "",
        "axes": {
            "structure": method.structure.description,
            "allocation": method.allocation.description,
            "schedule": method.schedule.description,
            "finetuning": _after(method),
        },
        "notes": {
            axis: note
            for axis in METHOD_AXES
            if (note := note_of(axis, row[axis])) and (axis != "finetuning" or _finetunes(method))
        },
        "ranked_by": ranked_by(method),
        "mechanism": _mechanism(method),
        "numbers": method.schedule.numbers,
        "batches": method.batch_count if method.needs_to_decide else 0,
        "when": course.when,
        "rounds": [round(step, 4) for step in course.ratios[1:]] if in_rounds else None,
        "figure": course_in_text(course),
        "course": {"along": course.along, "ratios": [round(ratio, 4) for ratio in course.ratios]},
        "cite": {citation.key: citation.title for citation in cited},
    }


def _finetunes(method: PruningMethod) -> bool:
    """Whether the fine-tuning recipe follows the last masks."""
    return method.schedule.train_after or (
        method.schedule.start == "trained" and method.schedule.during is None
    )


def _after(method: PruningMethod) -> str:
    """What trains the network that is left, in words."""
    from shrinkbench.pruning.finetunings import continue_

    mode, schedule = method.finetuning, method.schedule
    if mode != continue_ or _finetunes(method):
        return mode.description
    recipe = "pretraining" if schedule.start == "initialisation" else "fine-tuning"
    if schedule.during is not None:
        return f"nothing follows the training that it prunes in, which is by the {recipe} recipe"
    return f"train what is left by the {recipe} recipe, with the mask fixed"


def _mechanism(method: PruningMethod) -> str:
    """What a schedule does while the network trains, by its formulas: the docstring of its hook."""
    hook: Any = method.schedule.hook
    own = getattr(hook, "__doc__", None)  # of the class itself: what it builds upon does something else
    return inspect.cleandoc(own) if own else ""


def print_method(row: Row) -> None:
    """Print what :func:`describe_method` found."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False)
    facts = Table(box=None, show_header=False, pad_edge=False)
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column(overflow="fold")
    for key, value in _facts(row):
        facts.add_row(key, escape(value))
    console.print(facts)
    console.print()
    for line in row["figure"]:
        console.print(escape(line), soft_wrap=True)
    paragraphs = [row["description"], row["mechanism"], *_notes(row)]
    for paragraph in filter(None, paragraphs):
        console.print()
        console.print(escape(plain(paragraph)), soft_wrap=True)


def _facts(row: Row) -> list[tuple[str, str]]:
    """What is told of a method, line by line."""
    score = f"{row['score']} ({row['kind']})"
    if row["ranked_by"]:
        score = f"none decides: the schedule ranks weights {row['ranked_by']}; one-shot, {score}"
    told = [("method", row["name"]), ("family", row["family"]), ("score", score)]
    told += [(axis, f"{row[axis]}: {description}") for axis, description in row["axes"].items()]
    if row["numbers"]:
        told.append(("numbers", ", ".join(f"{name} = {value:g}" for name, value in row["numbers"].items())))
    if row["amount"]:
        told.append(("amount", f"{row['amount']}, whatever is asked for"))
    at = "" if row["amount"] else " at 4x"
    told.append(("starts from", f"{row['start']} weights"))
    told.append(("prunes", row["when"]))
    if row["rounds"] and len(row["rounds"]) > 1:
        some = ", ".join(f"{step:g}x" for step in row["rounds"][:4])
        told.append((f"rounds{at}", f"{len(row['rounds'])}: {some}{', ...' if len(row['rounds']) > 4 else ''}"))
    told.append((f"trainings{at}", str(row["trainings"])))
    whose = [f"{axis}: {', '.join(needs)}" for axis, needs in row["needs_by_axis"].items()]
    told.append(("needs", "; ".join(whose) or "the weights alone"))
    if row["batches"] and {"data"} & {need for axis in ("score", "allocation") for need in _of(row, axis)}:
        told.append(("scored on", f"{row['batches']} minibatch{'' if row['batches'] == 1 else 'es'}"))
    return told + [("cite", f"{key}: {title}") for key, title in row["cite"].items()]


def _of(row: Row, axis: str) -> list[str]:
    found: list[str] = row["needs_by_axis"].get(axis, [])
    return found


def _notes(row: Row) -> list[str]:
    """Formula, source and differences from the paper, by axis."""
    return [
        f"{axis} {row[axis]}: {'; '.join(f'{column}: {text}' for column, text in columns.items())}"
        for axis, columns in row["notes"].items()
    ]


def print_methods(rows: Sequence[Row]) -> None:
    """Print methods by family, each with its sentence and all that tells it apart; long lines fold."""
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    from shrinkbench.pruning.families import FAMILIES

    console = Console(highlight=False)
    for family, what in FAMILIES.items():
        members = [row for row in rows if row["family"] == family]
        if not members:
            continue
        console.print(Text(f"{family}: {what}", style="bold"))
        for row in members:
            console.print(Padding(Text(_head(row), overflow="fold"), (0, 0, 0, 2)))
            for line in (plain(row["sentence"]), _in_axes(row)):
                console.print(Padding(Text(line, style="dim", overflow="fold"), (0, 0, 0, 6)))
        console.print()
    console.print(
        f"{len(rows)} method{'' if len(rows) == 1 else 's'}; `shrinkbench describe METHOD` says all of one",
        style="dim",
    )


def _head(row: Row) -> str:
    """Name, year, and what it takes."""
    count = row["trainings"]
    parts = [
        f"from {row['start']} weights",
        f"{count} training{'' if count == 1 else 's'}{'' if row['amount'] else ' at 4x'}",
        f"needs {', '.join(row['needs']) or 'weights alone'}",
        *([f"amount {row['amount']}"] if row["amount"] else []),
    ]
    return f"{row['name']}  {row['year'] or ''}  {'; '.join(parts)}"


def _in_axes(row: Row) -> str:
    return f"{', '.join(f'{axis} {row[axis]}' for axis in METHOD_AXES)}; cite {row['reference']}"
