"""The rules of a sequential comparison are fixed before its first result, and its folder holds nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.results.plan import sequential_of
from shrinkbench.results.store import ResultStore
from shrinkbench.spec import ExperimentSpec


def check_rules(store: ResultStore, experiments: Sequence[ExperimentSpec]) -> None:
    """Refuse rules after results, other rules than those of the folder, and another grid beside them."""
    sequential = [e for e in experiments if e.until_decided is not None]
    outline = store.outline()
    fixed = outline is not None and any(e.until_decided is not None for e in outline.experiments)
    if not sequential and not fixed:
        return
    if len(experiments) > 1:
        raise ShrinkbenchError(
            f"seeds are added until one comparison is decided, and this has {len(experiments)} parts; name one "
            "with --part"
        )
    if not fixed:
        if outline is not None or (store.root / "runs").exists():
            raise ShrinkbenchError(
                f"{store.root} holds runs already, and rules that decide when to stop are fixed before the "
                "first result; give another --out"
            )
        return
    standing = sequential_of(store.read_plan())
    if standing != experiments[0]:
        raise ShrinkbenchError(
            f"the rules and the grid of {store.root} were fixed before its first result, and this sweep has "
            "others; repeat the command that began it, or give another --out"
        )
