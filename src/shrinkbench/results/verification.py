"""What in the results of a store or a bundle contradicts itself, and what is hard to believe."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence

from shrinkbench.cells import say_count
from shrinkbench.results.bundle import EDITED, Bundle
from shrinkbench.results.conflicts import differences, unlike
from shrinkbench.results.consistency import SHARES
from shrinkbench.results.copies import (
    Trainings,
    agreement,
    find_other_seeds,
    find_shared_starts,
    records_of,
    shared_records,
    telling,
)
from shrinkbench.results.lacking import find_lacking
from shrinkbench.results.layer_counts import find_other_layers, find_unequal_shares
from shrinkbench.results.layout import PLAN_NAME
from shrinkbench.results.networks import find_other_networks
from shrinkbench.results.odd_records import FURTHEST, find_odd_records
from shrinkbench.results.plan import sequential_of
from shrinkbench.results.recomputing import (
    find_other_computation,
    find_other_costs,
    find_other_epochs,
    find_other_rates,
)
from shrinkbench.results.record import Quality, RunResult
from shrinkbench.spec import CLASSIFICATION

ROUNDING = 0.01
"""Half precision adds up losses with an error below this share."""
FAR = 4.0
"""Standard errors of the difference between two splits beyond which it is no noise of drawing their images."""


def verify(bundle: Bundle) -> list[str]:
    """What in the results contradicts itself; nothing where all is consistent.

    Every file must be a valid result whose key follows from its specification, every ratio from its counts,
    every count from the layers, every accuracy from a whole number of images; outside code must have the digest
    that keys name; learning rates, the epoch taken and the last one must be those of the recipe; the cost of
    training must go with its epochs, and multiply-adds with the layers, by one rule for all runs of a network;
    seeds must agree in what each layer keeps where all layers have one share; a control must read alike for
    every method that has it, a run for every source of it, and a network be of one size in all its runs.
    """
    found = [f"{p.path.relative_to(bundle.source)}: {p.sentence}" for p in bundle.problems]
    found += _find_lost_rules(bundle)
    for code, runs in bundle.runs_by_code().items():
        if bundle.lacks_source(code) == EDITED:
            found.append(
                f"outside code {code[:12]}, on which {say_count(len(runs), 'run rests', 'runs rest')}: {EDITED}"
            )
    for pair in bundle.conflicts:
        name, used, other = differences(pair)[0]
        same = pair[0].key == pair[1].key
        source = (
            "another source" if same else f"run {pair[1].key[:12]}, which is the same measured on other splits,"
        )
        later = ", or a later attempt," * same
        has = f"{later} says that it failed" if pair[1].status == "failed" else " has other numbers"
        found.append(f"run {pair[0].key[:12]}: {source}{has}, {name} {other} and not {used}")
    found += _find_differing_controls(bundle.results)
    others = {run.key: other.sentence for other in find_other_networks(bundle.results) for run in other.runs}
    one_network = [run for run in bundle.results if run.key not in others]
    for find in (find_other_rates, find_other_epochs, find_other_costs):
        found += find(bundle.results)
    found += find_other_computation(one_network)
    found += [*find_other_layers(one_network), *find_unequal_shares(one_network)]
    return found + [f"run {key[:12]}: {sentence}" for key, sentence in others.items()]


def _find_lost_rules(bundle: Bundle) -> Iterator[str]:
    """Rules by which seeds were added that runs tell of, where the plan, or another run, has others or none."""
    told = [(run.key, run.provenance.seeds_added) for run in bundle.results if run.provenance.seeds_added]
    planned = sequential_of(bundle.plan)
    rules = planned.seeds_added if planned else None if bundle.plan else bundle.sequential
    keys = [key for key, added in told if added != rules]
    if keys:
        says = "other rules" if rules else "no rules"
        yield (
            f"{PLAN_NAME if bundle.plan else 'another run'} has {says} by which seeds were added until decided "
            f"than {say_count(len(keys), 'run', 'runs')} ({keys[0][:12]}); the plan was edited, or lost"
        )


def _find_differing_controls(results: Sequence[RunResult]) -> Iterator[str]:
    controls: dict[str, RunResult] = {}
    for result in results:
        if result.spec.is_control and result.status == "done":
            first = controls.setdefault(result.spec.control.key, result)
            fields = unlike(first, result)
            if fields:
                yield (
                    f"run {result.key[:12]}: its control differs from that of run {first.key[:12]} in "
                    f"{', '.join(fields[:3])}{f' and {len(fields) - 3} more' if len(fields) > 3 else ''}"
                )


def find_implausible(bundle: Bundle) -> list[str]:
    """What agrees with itself and is hard to believe all the same; each has to be explained by its author."""
    return [
        *_above_validation(bundle.results),
        *(
            f"run {r.key[:12]}: {why}"
            for r in bundle.results
            for why in (*_odd_losses(r), *find_odd_records(r))
        ),
        *find_lacking(bundle.results),
        *_copied(bundle.results),
        *_shared_starts(bundle.results),
        *(
            f"run {run.key[:12]}: its weights before pruning are those of seed {seed}, not {run.spec.seed}"
            for run, seed in find_other_seeds(bundle.results)
        ),
    ]


def _odd_losses(result: RunResult) -> Iterator[str]:
    """Cross-entropies that do not go with the accuracy, or not with that of the same weights on validation.

    An example of which another class is more likely has at most probability 1/2, so at least a loss of ln 2.
    """
    objective = result.spec.task.objective
    after, validation = result.after, result.validation
    if after is None or objective.loss != CLASSIFICATION.loss or not {"top1", "loss"} <= after.metrics.keys():
        return
    least = (1 - after["top1"]) * math.log(2)
    if after["loss"] < (1 - ROUNDING) * least:
        yield f"a loss of {after['loss']:.4g} with top1 {after['top1']:.4f}, which takes at least {least:.4g}"
    known = validation.metrics.get("loss", 0.0) if validation else 0.0
    if known > 0 and after["loss"] > FURTHEST * known:
        yield f"the test loss {after['loss']:.4g} is far above its own on validation, {known:.4g}"


def _above_validation(results: Sequence[RunResult]) -> Iterator[str]:
    """Test accuracy that the validation accuracy of the same weights does not account for."""
    counted = {metric.name for metric in SHARES}
    for result in results:
        name = result.spec.task.objective.headline
        if name not in counted or result.after is None or result.validation is None:
            continue
        if name in result.validation.metrics:
            ahead, error = _gap(result.after, result.validation, name)
            if ahead > FAR * error:
                yield (
                    f"run {result.key[:12]}: test {name} {result.after[name]:.4f} is {ahead / error:.1f} "
                    f"standard errors above its own on validation, {result.validation[name]:.4f}"
                )


def _gap(test: Quality, validation: Quality, name: str) -> tuple[float, float]:
    """The difference of two shares and its binomial standard error, pooled or not, whichever is larger."""
    splits = [(quality[name], quality.examples) for quality in (test, validation)]
    total = sum(n for _, n in splits)
    pooled = max(sum(share * n for share, n in splits) / total, 1 / total)
    variances = (sum(p * (1 - p) / n for p, n in splits), pooled * (1 - pooled) * sum(1 / n for _, n in splits))
    return test[name] - validation[name], math.sqrt(max(*variances, 1 / total**2))


def _copied(results: Sequence[RunResult]) -> Iterator[str]:
    """Runs of different seeds that share a record of training, or everything, though seeds settle either."""
    alike: dict[object, list[RunResult]] = defaultdict(list)
    for result in results:
        records = records_of(result)
        for name, values in records.items():
            for place, value in enumerate(values):
                if telling(value):
                    alike[name, place, value].append(result)
        is_random = bool(result.epochs) or not result.spec.weights.are_shared
        if not records and result.after is not None and is_random:
            alike[tuple(result.after.metrics.items())].append(result)
    told = set()
    for members in alike.values():
        for number, result in enumerate(members):  # few: what is in common is looked at first
            first = next((other for other in members[:number] if _is_copy(result, other)), None)
            if first is not None and result.key not in told:
                told.add(result.key)
                what = ", ".join(agreement([first, result])) or "all numbers"
                yield _say_copy(result, first, what, "to the last digit")
    for first, result in Trainings().pairs(results):  # what was copied, and changed in a late digit
        if result.key not in told and _differ_in_seed_alone(first, result):
            told.add(result.key)
            yield _say_copy(result, first, "training losses and validation", "up to rounding")


def _say_copy(result: RunResult, first: RunResult, what: str, how: str) -> str:
    return (
        f"run {result.key[:12]}: seed {result.spec.seed} has {what} of seed {first.spec.seed} "
        f"(run {first.key[:12]}), {how}"
    )


def _is_copy(result: RunResult, other: RunResult) -> bool:
    """Whether a record of training, or all that was measured, is the same in runs that differ in seed alone."""
    if result.spec.seed == other.spec.seed:
        return False
    measured = ("before", "after", "validation", "further", "epochs", "layers")
    return bool(
        shared_records(result, other) or all(getattr(result, name) == getattr(other, name) for name in measured)
    ) and _differ_in_seed_alone(result, other)


def _differ_in_seed_alone(first: RunResult, other: RunResult) -> bool:
    same = {"seed": 0, "migrated_from": None}
    return first.spec.seed != other.spec.seed and (
        first.spec.model_copy(update=same) == other.spec.model_copy(update=same)
    )


def _shared_starts(results: Sequence[RunResult]) -> Iterator[str]:
    for first, *others in find_shared_starts(results):
        for other in others:
            yield (
                f"run {other.key[:12]}: seed {other.spec.seed} starts from the network of seed "
                f"{first.spec.seed} (run {first.key[:12]}), which reads alike before training, up to rounding"
            )
