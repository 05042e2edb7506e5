"""What single runs wrote down beside their accuracy and is hard to believe: losses, dates and timings."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from shrinkbench.results.copies import telling
from shrinkbench.results.record import RunResult
from shrinkbench.spec import CLASSIFICATION

FURTHEST = 1000.0
"""A loss that is this many times another one of the same weights is not believed."""
FASTEST = 10.0
"""A network is hardly faster than its multiply-adds, or its weights, became fewer: not by this factor."""
RISES, RISE = 3, 1.5
"""A loss that rises so often without a fall, to so many times its first value, was not trained by."""
FIRST = 2016
"""The year of the first PyTorch."""
_CLOCKS = timedelta(days=2)  # by which the clocks of two machines may differ


def find_odd_records(run: RunResult) -> Iterator[str]:
    """One clause for everything of that kind in ``run``."""
    yield from _of_losses(run)
    yield from _of_splits(run)
    yield from _of_rising(run)
    yield from _of_training(run)
    yield from _of_date(run.provenance.started, run.provenance.seconds)
    yield from _of_timings(run)


def _of_losses(run: RunResult) -> Iterator[str]:
    """Cross-entropies in training that do not go with that on validation after the same epoch.

    It is 0 where every answer has probability 1 alone; what a teacher adds to it says nothing of the answers.
    """
    objective = run.spec.task.objective
    if objective.loss != CLASSIFICATION.loss or objective.source is not None or run.spec.recipe.distillation:
        return
    for epoch in run.epochs:
        known = epoch.validation.get("loss", 0.0)
        if known > 0 and not 0 < epoch.train_loss <= FURTHEST * known:
            yield (
                f"the training loss of epoch {epoch.epoch} is {epoch.train_loss:.4g}, and that on validation "
                f"after it {known:.4g}"
            )
            return


def _of_splits(run: RunResult) -> Iterator[str]:
    """Numbers of one split under the name of the other.

    A constant answer has one loss on all splits where classes are equally frequent, and is right for one class.
    """
    test, validation = (quality.metrics if quality else {} for quality in (run.after, run.validation))
    classes = 1 / max(test.get("top1", 0.0), 1e-9)
    is_constant = classes > 1 and abs(classes - round(classes)) < 1e-6
    if telling(test.get("loss", 0.0)) and test["loss"] == validation.get("loss") and not is_constant:
        yield "its test loss is that on validation, to the last digit"


def _of_rising(run: RunResult) -> Iterator[str]:
    """Training whose loss rises all the time, though what was trained did not become worse.

    It may rise where more is pruned on the way, or the teacher weighs more. Training that diverges raises the
    loss on validation too, and may leave the accuracy at that of chance, which cannot fall.
    """
    losses = [epoch.train_loss for epoch in run.epochs]
    top1 = [epoch.validation.get("top1", 0.0) for epoch in run.epochs]
    validation = [epoch.validation.get("loss", 0.0) for epoch in run.epochs]
    if run.spec.method.schedule.during or run.spec.recipe.distillation or len(losses) <= RISES:
        return
    rises = all(after > before for before, after in itertools.pairwise(losses))
    became_worse = top1[-1] < top1[0] or validation[-1] > validation[0]
    if rises and losses[-1] > RISE * losses[0] and top1[0] > 0 and not became_worse:
        yield (
            f"its training loss rises after every epoch, from {losses[0]:.4g} to {losses[-1]:.4g}, and its "
            "accuracy on validation does not fall, nor its loss there rise"
        )


def _of_training(run: RunResult) -> Iterator[str]:
    """Training that took no time, or after which all reads as before it."""
    if not run.epochs or run.status == "failed" or run.spec.migrated_from is not None:
        return
    if not run.provenance.seconds:
        yield f"it trained {len(run.epochs)} epochs in 0 seconds"
    moved = run.selected_epoch and any(epoch.learning_rate for epoch in run.epochs)
    if moved and run.after is not None and run.after == run.before and "loss" in run.after.metrics:
        yield f"after epoch {run.selected_epoch} it reads as before training, to the last digit of the loss"


def _of_date(text: str, seconds: float) -> Iterator[str]:
    try:
        started = datetime.fromisoformat(text)
    except ValueError:
        yield f"it was started at '{text[:40]}', which is no date"
        return
    since = datetime.now(UTC) + _CLOCKS - started.replace(tzinfo=started.tzinfo or UTC)
    if since < timedelta():
        yield f"it was started on {started:%Y-%m-%d}, which is still to come"
    elif seconds > since.total_seconds():
        yield f"it was started on {started:%Y-%m-%d} and took {seconds:.4g} seconds, which are not over"
    elif started.year < FIRST:
        yield f"it was started on {started:%Y-%m-%d}, before there was a PyTorch"


def _of_timings(run: RunResult) -> Iterator[str]:
    timings = run.provenance.latency
    counts = Counter((t.form, t.batch_size, t.threads, t.precision, t.memory_format) for t in timings)
    for (form, batch, *_), count in counts.items():
        if count > 1:
            yield f"its {form} network was timed {count} times at batch size {batch}, and one of them counts"
    most = max(run.size.compression, run.size.theoretical_speedup) if run.size else 1.0
    for timed in timings:
        speedup = timed.dense_seconds / timed.seconds
        if speedup > FASTEST * most:
            yield (
                f"at batch size {timed.batch_size} it is {speedup:.4g} times as fast, with {most:.4g} times "
                "fewer weights or multiply-adds at most"
            )
            return
