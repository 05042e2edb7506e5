"""What runs need of each other, as a graph of tasks: a run starts when what it needs is there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from shrinkbench.runner.executors.protocol import Kind, Task
from shrinkbench.spec import PretrainSpec, RunSpec

Graph = Mapping[Task, tuple[Task, ...]]
"""Each task with what it needs, in the order in which a failure of these is told."""


def graph_of(
    runs: Sequence[RunSpec], is_there: Callable[[Task], bool], before: Mapping[str, str | None]
) -> Graph:
    """The tasks that carry ``runs`` out, without shared ones that are there already.

    ``before`` has the digest of the result that a run replaces, by key.
    """
    modes = [spec.method.finetuning for spec in runs]
    keep = tuple(sorted({mode.epoch for mode in modes if mode.weights == "rewound" and mode.epoch > 0}))
    owners = {
        spec.rounds.key: spec
        for spec in reversed(runs)
        if spec.rounds is not None and spec.method.allocation.like is None
    }
    graph: dict[Task, tuple[Task, ...]] = {}
    known: dict[Task, bool] = {}

    def shared(kind: Kind, spec: RunSpec | PretrainSpec | None, *needs: Task) -> tuple[Task, ...]:
        """The task that makes ``spec``, in the graph from now on; none where that is there."""
        if spec is None:
            return ()
        task = Task(kind, spec.key, spec, keep if kind == "pretraining" else ())
        if task not in graph:
            if task not in known:
                known[task] = is_there(task)
            if known[task]:
                return ()
            graph[task] = needs
        return (task,)

    for spec in runs:
        pretraining = shared("pretraining", (spec.control if spec.is_control else spec).pretraining)
        needs = pretraining
        if spec.is_control:
            needs += shared("control", spec.control, *pretraining)
        search = spec.searching
        if search is not None:
            needs += shared("search", search, *shared("pretraining", search.pretraining))
        rounds = spec.rounds
        if rounds is not None and spec.method.allocation.like is not None:
            # The rounds of a method tell its controls how much of every layer to keep.
            owner = owners.get(rounds.key)
            needs += (
                (Task("run", owner.key, owner, before=before.get(owner.key)),)
                if owner is not None
                else shared("rounds", rounds, *shared("pretraining", rounds.pretraining))
            )
        graph[Task("run", spec.key, spec, before=before.get(spec.key))] = needs
    return graph
