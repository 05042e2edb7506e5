"""What is measured of a network: quality, size, and one epoch of training."""

from __future__ import annotations

import itertools
from typing import Annotated, Literal

from pydantic import Field, model_validator

from shrinkbench.spec.value import Value

_LARGEST = 2**63 - 1  # of a table's whole numbers
Count = Annotated[int, Field(ge=0, le=_LARGEST)]
Positive = Annotated[int, Field(ge=1, le=_LARGEST)]
_MOST = 1e30  # of what is summed over thousands of runs: multiply-adds, epochs, seconds
NotNegative = Annotated[float, Field(ge=0, le=_MOST, allow_inf_nan=False)]
Timed = Annotated[float, Field(ge=1e-12, le=1e12, allow_inf_nan=False)]
"""Seconds of something that was timed: a clock has told them apart from none, and speedups divide by them."""
Ratio = Annotated[float, Field(ge=1, allow_inf_nan=False)]
LARGEST_FLOAT32 = 3.4028234663852886e38
"""Networks compute in float32 at most, and a mean of its finite numbers is one: nothing measured is larger."""
Finite = Annotated[float, Field(ge=-LARGEST_FLOAT32, le=LARGEST_FLOAT32, allow_inf_nan=False)]


class Quality(Value):
    """Quality on one split: the task's metrics by name, over so many examples."""

    metrics: dict[str, Finite] = Field(min_length=1)
    examples: Positive

    def __getitem__(self, name: str) -> float:
        return self.metrics[name]


class Size(Value):
    """Size and computation; definitions in docs/metrics.md.

    ``compression`` = parameters / parameters_kept, ``theoretical_speedup`` = multiply_adds /
    multiply_adds_kept, both for one input of the dataset's shape.
    """

    parameters: Positive
    parameters_kept: Count
    compression: Ratio
    multiply_adds: Count
    multiply_adds_kept: Count
    theoretical_speedup: Ratio

    @model_validator(mode="after")
    def _is_a_part(self) -> Size:
        if self.parameters_kept > self.parameters or self.multiply_adds_kept > self.multiply_adds:
            raise ValueError("more is kept than there was")
        return self


class LayerDensity(Value):
    """Kept and total weights of one parameter tensor.

    ``outputs`` counts rows (filters) of which a weight is kept, ``None`` where nobody counted. ``positions``
    holds the kept weights at each position of a convolution's kernel, row by row, for kernels beyond 1 x 1.
    """

    kept: Count
    total: Count
    outputs: Count | None = None
    positions: tuple[Count, ...] = ()

    @model_validator(mode="after")
    def _is_a_part(self) -> LayerDensity:
        if self.kept > self.total:
            raise ValueError("more is kept than there was")
        if self.positions and sum(self.positions) != self.kept:
            raise ValueError("the positions do not add up to the weights kept")
        if self.positions and max(self.positions) * len(self.positions) > self.total:
            raise ValueError("a position keeps more than its part of the weights")
        if self.outputs is not None and not min(1, self.kept) <= self.outputs <= self.kept:
            raise ValueError(f"{self.outputs} outputs cannot keep {self.kept} weights, each at least one")
        return self


class EpochRecord(Value):
    """One epoch of fine-tuning; ``validation`` holds the task's metrics on the validation split."""

    epoch: Positive
    learning_rate: NotNegative
    train_loss: Finite
    validation: dict[str, Finite]


class WeightHistogram(Value):
    """Prunable weights of the whole network in bins: before pruning, and those kept after fine-tuning.

    ``edges`` has one entry more than the two counts; weights outside lie in the outermost bins.
    """

    edges: tuple[Finite, ...]
    before: tuple[Count, ...]
    after: tuple[Count, ...]

    @model_validator(mode="after")
    def _has_a_count_for_every_bin(self) -> WeightHistogram:
        if not len(self.edges) - 1 == len(self.before) == len(self.after):
            raise ValueError("the counts are not one for every bin")
        if any(low > high for low, high in itertools.pairwise(self.edges)):
            raise ValueError("the edges of the bins do not rise")
        return self


class Spent(Value):
    """Effort of one phase: epochs of training, images seen, multiply-adds of forward and backward passes.

    Images that were only scored on count as seen, not as epochs. Weights that masks hold at zero cost nothing.
    """

    epochs: NotNegative
    images: Count
    multiply_adds: NotNegative


class Cost(Value):
    """What a run cost in all, by phase; what several runs share counts for each of them.

    ``pretraining`` is ``None`` where it is unknown: weights of a file tell nothing of their making.
    ``pruning`` is finding the masks, earlier rounds of an iterative method included; ``retraining`` is the
    training whose outcome is measured, while it prunes or after.
    """

    pretraining: Spent | None
    pruning: Spent
    retraining: Spent


MemoryFormat = Literal["channels_last", "contiguous"]
UNSTEADY = 0.1
"""An interquartile range above this share of the median is told of."""


class WallTime(Value):
    """Seconds of one forward pass over so many interleaved rounds: the median and both quartiles."""

    median: Timed
    lower: Timed
    upper: Timed
    rounds: Positive

    @model_validator(mode="after")
    def _is_ordered(self) -> WallTime:
        if not self.lower <= self.median <= self.upper:
            raise ValueError("the median does not lie between the quartiles")
        return self

    @property
    def range(self) -> float:
        """Interquartile range in seconds."""
        return self.upper - self.lower

    @property
    def spread(self) -> float:
        """Interquartile range / median."""
        return self.range / self.median

    @property
    def unsteady(self) -> bool:
        """Whether the spread is so large that the median says little."""
        return self.spread > UNSTEADY


class Latency(Value):
    """Wall time of one forward pass, dense and pruned, on the run's device.

    ``form`` tells what was timed: the network with its masks, or the physically smaller one. ``seconds`` are
    medians of rounds in which both had their turn; the rounds' quartiles (``dense_time``, ``time``) and the
    memory format of both networks are absent from results that were stored before these were recorded.
    """

    batch_size: Positive
    form: Literal["masked", "small"]
    dense_seconds: Timed
    seconds: Timed
    threads: Positive
    precision: str
    dense_time: WallTime | None = None
    time: WallTime | None = None
    memory_format: MemoryFormat | None = None

    @model_validator(mode="after")
    def _is_the_median(self) -> Latency:
        timed = (self.dense_seconds, self.dense_time), (self.seconds, self.time)
        if any(time is not None and seconds != time.median for seconds, time in timed):
            raise ValueError("the seconds are not the median of their rounds")
        return self

    @property
    def spread(self) -> float | None:
        """The larger interquartile range / median of the two, where it was recorded."""
        return max((t.spread for t in (self.dense_time, self.time) if t is not None), default=None)
