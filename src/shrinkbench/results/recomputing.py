"""What a result states and what follows from the rest of it: computation, learning rates, epochs and cost."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from shrinkbench.results.record import RunResult, Spent
from shrinkbench.spec import DETECTION
from shrinkbench.spec.recipe import learning_rate
from shrinkbench.spec.training_cost import PASSES_PER_STEP

_EXACT = 1e-9
_FLOORS = 1e-3  # each product of a network is rounded down


def find_other_rates(results: Iterable[RunResult]) -> Iterator[str]:
    """Runs whose epochs had other learning rates than their recipe gives; one clause for each run.

    Of recipes that are stretched to equal computation nothing is said.
    """
    for run in results:
        if run.spec.migrated_from is not None or run.spec.method.finetuning.equal == "computation":
            continue
        for epoch in run.epochs:
            expected = learning_rate(run.spec.recipe, epoch.epoch)
            if not math.isclose(epoch.learning_rate, expected, rel_tol=_EXACT, abs_tol=_EXACT**2):
                yield (
                    f"run {run.key[:12]}: the learning rate of epoch {epoch.epoch} is {epoch.learning_rate:g}, "
                    f"and that of recipe '{run.spec.recipe.name}' is {expected:g}"
                )
                break


def find_other_computation(results: Iterable[RunResult]) -> Iterator[str]:
    """Runs whose multiply-adds do not go with what is kept of their layers.

    A product of a share of a layer's weights takes that share: so all of them together take a share between the
    smallest and 1, and networks of which as much is kept of every layer take as much. A detector is cut beside.
    """
    taken: dict[object, RunResult] = {}
    for run in results:
        size = run.size
        if size is None or not run.layers or not size.multiply_adds:
            continue
        if run.spec.task.objective.headline == DETECTION.headline:
            continue
        least = min(layer.kept / max(1, layer.total) for layer in run.layers.values())
        share = size.multiply_adds_kept / size.multiply_adds
        if not least - _FLOORS <= share <= 1:
            yield (
                f"run {run.key[:12]}: it keeps {share:.4g} of its multiply-adds, and of every layer at least "
                f"{least:.4g}"
            )
            continue
        kept = tuple(sorted((name, layer.kept, layer.positions) for name, layer in run.layers.items()))
        network = run.spec.task.model, run.spec.data.name, run.spec.data.sides, size.multiply_adds
        first = taken.setdefault((network, kept), run)
        alike = first.size.multiply_adds_kept if first.size is not None else 0
        if not math.isclose(size.multiply_adds_kept, alike, rel_tol=_FLOORS):
            yield (
                f"run {run.key[:12]}: it keeps {size.multiply_adds_kept:,} multiply-adds, and run "
                f"{first.key[:12]}, with as much of every layer, {alike:,}"
            )


def find_other_epochs(results: Iterable[RunResult]) -> Iterator[str]:
    """Runs that took another epoch than their recipe takes, or began or ended where it does not.

    The best of some epochs is best from the first on, of those that follow where a network is pruned meanwhile.
    Of recipes that are stretched to equal computation, or that look at the test split, nothing is said.
    """
    for run in results:
        stretches = run.spec.method.finetuning.equal == "computation"
        if run.epochs and run.status == "done" and run.spec.migrated_from is None and not stretches:
            yield from (f"run {run.key[:12]}: {clause}" for clause in _of_epochs(run))


def _of_epochs(run: RunResult) -> Iterator[str]:
    recipe, selected = run.spec.recipe, run.selected_epoch
    headline = run.spec.task.objective.metric(run.spec.task.objective.headline)
    sign = 1 if headline.direction == "higher" else -1
    scores = {e.epoch: sign * e.validation[headline.name] for e in run.epochs if headline.name in e.validation}
    first, last = run.epochs[0].epoch, run.epochs[-1].epoch
    if first != 1 and run.spec.method.finetuning.recipe == "finetuning":  # pretraining goes on from any epoch
        yield f"its training began with epoch {first}, and recipe '{recipe.name}' with the first"
    if recipe.selection == "last" and selected != last:
        yield f"recipe '{recipe.name}' takes the last epoch, {last}, and epoch {selected} was selected"
    if recipe.selection == "best-validation" and selected in scores:
        since = selected if run.spec.method.schedule.during else first
        best = max((e for e in scores if e >= since), key=scores.__getitem__)
        if scores[best] > scores[selected]:
            yield (
                f"recipe '{recipe.name}' takes the best epoch, and epoch {best} has {headline.name} "
                f"{sign * scores[best]:g} on validation, epoch {selected}, which was selected, "
                f"{sign * scores[selected]:g}"
            )
    if recipe.early_stopping and len(scores) == len(run.epochs) and not run.spec.method.schedule.during:
        end = _end_of(scores, recipe.epochs, recipe.early_stopping.patience)
        if recipe.selection != "best-test" and last != end:
            stops = "later" if end is None else f"after epoch {end}"
            yield f"its training ended after epoch {last}, and recipe '{recipe.name}' stops {stops}"
    elif not recipe.early_stopping and last != recipe.epochs:
        yield f"its training ended after epoch {last}, and recipe '{recipe.name}' has {recipe.epochs} epochs"


def _end_of(scores: dict[int, float], epochs: int, patience: int) -> int | None:
    """The epoch after which training stops; ``None`` where that is none of those that are known."""
    best, since = -math.inf, 0
    for epoch, score in scores.items():
        best, since = max(best, score), 0 if score > best else since + 1
        if since >= patience or epoch == epochs:
            return epoch
    return None


def find_other_costs(results: Iterable[RunResult]) -> Iterator[str]:
    """Runs whose cost of training does not go with their epochs, images and size; one clause for each.

    A network that is pruned while it is trained takes up to what it takes whole; a teacher adds a pass. Runs
    that train on one dataset by batches of one size have as many images in an epoch.
    """
    usual: dict[object, tuple[RunResult, float]] = {}
    for run in results:
        cost, size, epochs = run.cost, run.size, run.epochs_run
        if cost is None or size is None or epochs is None or run.spec.migrated_from is not None:
            continue
        spent, images = cost.retraining, run.spec.data.train_images
        taught = spent.images * size.multiply_adds if run.spec.recipe.distillation else 0
        whole, small = (
            PASSES_PER_STEP * spent.images * adds + taught
            for adds in (size.multiply_adds, size.multiply_adds_kept)
        )
        most = whole if run.spec.method.schedule.during else small
        data = run.spec.data.model_copy(update={"test_images": None})
        own = run, spent.images / epochs if epochs else 0.0
        alike, each = (
            usual.setdefault((data, run.spec.task.objective, run.spec.recipe.batch_size), own)
            if epochs
            else own
        )
        if wrong := _of_pretraining(run, cost.pretraining):
            yield f"run {run.key[:12]}: {wrong}"
        elif spent.epochs != epochs:
            yield f"run {run.key[:12]}: it was trained for {epochs} epochs, and its cost is of {spent.epochs:g}"
        elif images is not None and spent.images != images * epochs:
            yield (
                f"run {run.key[:12]}: its cost is of {spent.images} images, and {epochs} epochs of {images} "
                f"are {images * epochs}"
            )
        elif not math.isclose(own[1], each, rel_tol=_FLOORS):
            yield (
                f"run {run.key[:12]}: its epochs have {own[1]:,.0f} images, and those of run "
                f"{alike.key[:12]}, on the same data, {each:,.0f}"
            )
        elif whole and not (1 - _FLOORS) * small <= spent.multiply_adds <= (1 + _FLOORS) * most:
            yield (
                f"run {run.key[:12]}: its training cost {spent.multiply_adds:.4g} multiply-adds, and "
                f"{spent.images} images through its network take {small:.4g}"
            )


def _of_pretraining(run: RunResult, spent: Spent | None) -> str:
    """What is wrong with the epochs that the network was trained for before; nothing where they are unknown."""
    recipe, after = run.spec.weights.recipe, run.spec.method.finetuning
    if spent is None or recipe is None or recipe.early_stopping is not None or spent.epochs == recipe.epochs:
        return ""
    if not spent.epochs and (
        run.spec.pretraining is None or after.weights != "kept"
    ):  # none was needed, or kept
        return ""
    return f"its pretraining cost {spent.epochs:g} epochs, and recipe '{recipe.name}' has {recipe.epochs}"
