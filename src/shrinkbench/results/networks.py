"""One specification of a network is one network: of one size, computation and set of layers in all runs."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from shrinkbench.results.record import RunResult


@dataclass(frozen=True)
class OtherNetwork:
    """Runs whose network has another number of something than ``others`` of its specification have."""

    network: str
    what: str
    usual: int
    found: int
    runs: tuple[RunResult, ...]
    others: int

    @property
    def sentence(self) -> str:
        """What differs, with both numbers.

        >>> OtherNetwork("resnet20 on cifar10", "parameters", 262000, 2620000, (), 9).sentence
        'resnet20 on cifar10 has 2,620,000 parameters and, in 9 other runs of its specification, 262,000'
        """
        others = f"{self.others} other run{'s' * (self.others != 1)}"
        return (
            f"{self.network} has {self.found:,} {self.what} and, in {others} of its specification, "
            f"{self.usual:,}"
        )


def find_other_networks(results: Iterable[RunResult]) -> Iterator[OtherNetwork]:
    """Where runs of one specification, on one data, differ in what their network was before it was pruned.

    Methods may look at different tensors of it: of each tensor, those that name it are compared.
    """
    groups: dict[object, list[RunResult]] = defaultdict(list)
    for run in results:
        if run.status == "done" and run.size is not None:
            data, task = run.spec.data, run.spec.task
            groups[task.model, data.name, data.revision, data.source, data.sides, task.objective].append(run)
    for runs in groups.values():
        if len(runs) > 1:
            yield from _compare(f"{runs[0].spec.model.name} on {runs[0].spec.data.name}", runs)


def _compare(network: str, runs: list[RunResult]) -> Iterator[OtherNetwork]:
    """Size and computation first; layers where these agree, or there would be a sentence for each of them."""
    told: set[str] = set()
    values: dict[str, dict[int, list[RunResult]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        for what, value in _measured(run):
            values[what][value].append(run)
    for what, by_value in values.items():
        if len(by_value) < 2:
            continue
        usual = Counter({value: len(found) for value, found in by_value.items()}).most_common(1)[0][0]
        for value, found in by_value.items():
            new = tuple(run for run in found if run.key not in told)
            if value != usual and new:
                told.update(run.key for run in new)
                yield OtherNetwork(network, what, usual, value, new, len(by_value[usual]))


def _measured(run: RunResult) -> Iterator[tuple[str, int]]:
    """What a run says of the whole network; multiply-adds that could not be counted say nothing."""
    if run.size is not None:
        yield "parameters", run.size.parameters
        if run.size.multiply_adds:
            yield "multiply-adds", run.size.multiply_adds
    for name, layer in run.layers.items():
        yield f"weights in {name}", layer.total
