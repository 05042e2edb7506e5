"""What a results folder lacks: planned results, networks that were kept, outside code that results rest on."""

from __future__ import annotations

from collections import Counter

from shrinkbench.results.layout import NETWORK_NAME, PLUGINS
from shrinkbench.results.plan import Plan
from shrinkbench.results.record import RunResult
from shrinkbench.results.store import ResultStore


def find_absent(store: ResultStore) -> list[str]:
    """A sentence for each kind of thing that is not there though the plan or a result names it.

    None of it is damage: a sweep may be under way, and weights may have been removed to save room.
    """
    results, _ = store.results()
    there = {result.key for result in results}
    plan = store.find_plan()
    planned = [run.key for run in plan.runs] if isinstance(plan, Plan) else []
    found = []
    if missing := sum(key not in there for key in planned):
        found.append(f"{missing} of {len(planned)} planned runs have no result")
    bare = sum(any(not (store.run_dir(r.key) / name).exists() for name in _files_of(r)) for r in results)
    if bare:
        found.append(f"of {bare} runs that kept their networks, files of these are not there")
    stored = store.sources()[0]
    for code, runs in Counter(code for result in results for code in result.spec.sources).items():
        if code not in stored:
            found.append(
                f"{PLUGINS}/{code} is not there: nobody can read the outside code that {runs} runs rest on"
            )
    return found


def _files_of(result: RunResult) -> list[str]:
    """What a run that keeps its network writes beside its result."""
    tensors = [f"{name}.safetensors" for name in result.provenance.kept]
    return [*tensors, NETWORK_NAME] if tensors else []
