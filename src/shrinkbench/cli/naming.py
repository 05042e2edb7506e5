"""What a name that was given to ``describe`` means: a network, a method, a value of an axis, or nothing."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from shrinkbench.cli.documented import note_of
from shrinkbench.errors import ShrinkbenchError, UnknownNameError, one_line

if TYPE_CHECKING:
    from shrinkbench.registry import Registry

Row = dict[str, Any]
_MARKS = "[]@"  # what names of methods alone have


def is_method(name: str) -> bool:
    """Whether ``name`` is a method's and no network's; raises where it is written as one and is none."""
    from shrinkbench.models import MODELS
    from shrinkbench.pruning import METHODS

    if _find(MODELS, name) is not None:
        return False
    if set(_MARKS) & set(name) and "/" not in name.partition("[")[0]:
        METHODS.get(name)  # says what is wrong with it
        return True
    return _find(METHODS, name) is not None or _has_amount(name)


def is_model(name: str) -> bool:
    """Whether ``name`` is a network's."""
    from shrinkbench.models import MODELS

    return _find(MODELS, name) is not None


def _has_amount(name: str) -> bool:
    """Whether ``name`` is a known method with a percentage or widths that there are not, which is then told."""
    from shrinkbench.pruning import METHODS
    from shrinkbench.spec.targets import TARGETS

    base, colon, _ = name.rpartition(":")
    families = {target.partition(":")[0] for target in TARGETS}
    if colon and (base in METHODS or base.lower() in families):
        METHODS.get(name)
        return True
    return False


def _find(registry: Registry[Any], name: str) -> object | None:
    try:
        found: object = registry.get(name)
    except ShrinkbenchError:
        return None
    return found


def axes() -> Mapping[str, Registry[Any]]:
    """The registries of values of the five axes."""
    from shrinkbench.pruning import ALLOCATIONS, FINETUNINGS, SCHEDULES, STRUCTURES
    from shrinkbench.pruning.method import SCORES

    return {
        "structure": STRUCTURES,
        "score": SCORES,
        "allocation": ALLOCATIONS,
        "schedule": SCHEDULES,
        "finetuning": FINETUNINGS,
    }


def describe_value(name: str) -> list[Row]:
    """What ``name`` is as a value of an axis, for every axis that has it; of an axis, its values."""
    from shrinkbench.pruning import METHODS

    if name in axes():
        values = ", ".join(axes()[name])
        return [{"axis": name, "name": None, "values": values, "used_by": [], "notes": {}, "description": ""}]
    rows = []
    for axis, registry in axes().items():
        value: Any = _find(registry, name)
        if value is None:
            continue
        own = value.function.__name__ if axis == "score" else value.name
        place = ("structure", "score", "allocation", "schedule", "finetuning").index(axis)
        described = inspect.getdoc(value.function) if axis == "score" else value.description
        rows.append(
            {
                "axis": axis,
                "name": own,
                "description": described or "",
                "notes": note_of(axis, own),
                "used_by": [method for method, entry in METHODS.items() if entry.axes[place] == own],
            }
        )
    return rows


def print_values(rows: list[Row]) -> None:
    """Print what :func:`describe_value` found."""
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False)
    for row in rows:
        if row["name"] is None:
            console.print(
                escape(f"{row['axis']} is an axis of methods, no method; its values: {row['values']}")
            )
            continue
        console.print(escape(f"{row['name']} is a value of the axis {row['axis']}, no method"))
        console.print(escape(row["description"]), soft_wrap=True)
        for column, text in row["notes"].items():
            console.print(escape(f"{column}: {text}"), soft_wrap=True)
        console.print(escape(f"methods that have it: {', '.join(row['used_by']) or 'none'}"))
        if row["axis"] != "score":
            console.print(escape(f"named as METHOD[{row['axis']}={row['name']}]"))


def unknown(name: str) -> UnknownNameError:
    """That ``name`` is nothing that can be described, with what is near it among all that can."""
    from shrinkbench.models import MODELS
    from shrinkbench.pruning import METHODS
    from shrinkbench.spec.axes import CONTROL_METHOD

    if name == CONTROL_METHOD.base:
        return UnknownNameError(
            "'control' is no method: it is the run without pruning that a sweep has by compression = 1; "
            "controls of a method are named SCORE@METHOD, such as random@global_gradient"
        )
    known = list(dict.fromkeys((*METHODS, *MODELS, *(name for each in axes().values() for name in each))))
    parts = [one for one in known if len(name) > 2 and name.lower() in one.lower().replace("-", "_").split("_")]
    near = list(dict.fromkeys([*difflib.get_close_matches(name[:100], known, n=3, cutoff=0.6), *parts]))[:4]
    if not near:
        return UnknownNameError(
            f"no network, method or axis value is called '{one_line(name, 80)}'; see `shrinkbench list "
            "methods` and `shrinkbench list models`"
        )
    mean = " or ".join(f"'{one}'" for one in near)
    return UnknownNameError(
        f"no network, method or axis value is called '{one_line(name, 80)}'; did you mean {mean}?"
    )
