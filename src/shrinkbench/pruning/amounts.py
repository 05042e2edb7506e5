"""How much a method is to prune: said in one way that it takes, and turned into steps and weights to keep."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from numbers import Real

from torch import nn

from shrinkbench.errors import CannotMeetTargetError, ShrinkbenchError
from shrinkbench.pruning.method import PruningMethod
from shrinkbench.spec import UNPRUNED, Amount, ChannelFraction, Compression, FractionPerLayer, Speedup
from shrinkbench.spec.axes import CHANNELS


def amount_of(
    method: PruningMethod,
    *,
    compression: float | None = None,
    fraction_per_layer: float | None = None,
    channels: float | None = None,
    speedup: float | None = None,
) -> Amount:
    """How much ``method`` is to prune, said in exactly one way that it takes."""
    said = {
        "compression": compression,
        "fraction_per_layer": fraction_per_layer,
        "channels": channels,
        "speedup": speedup,
    }
    given = [name for name, value in said.items() if value is not None]
    if method.amount is not None:
        idle = next((name for name in given if name != "compression" or _number(compression) != 1), None)
        if idle is not None:
            number = _number(said[idle])
            raise ShrinkbenchError(
                f"'{method.name}' prunes {method.amount.label} by its name, so that "
                f"{idle}={repr(said[idle]) if number is None else format(number, 'g')} has no say; leave it out"
            )
        return UNPRUNED if given else check_amount(method, method.amount)
    if len(given) != 1:
        raise ShrinkbenchError(
            f"how much '{method.name}' is to prune is said {'in several ways' if given else 'nowhere'}; give "
            "one of compression, fraction per layer, channels and speedup"
        )
    if compression is not None:
        return check_compression(compression)
    if speedup is not None:
        ratio = _number(speedup)
        if ratio is None or not (math.isfinite(ratio) and ratio > 1):
            raise ShrinkbenchError(
                f"speedup {speedup!r} is not a finite number above 1 (original / kept multiply-adds)"
            )
        return check_amount(method, Speedup(ratio=ratio))
    fraction = _number(said[given[0]])
    if fraction is None or not 0 < fraction < 1:
        raise ShrinkbenchError(f"{given[0]} = {said[given[0]]!r} is not a fraction above 0 and below 1")
    stated = fraction_of_layers(method, fraction) if channels is None else ChannelFraction(fraction=fraction)
    return check_amount(method, stated)


def check_compression(ratio: float) -> Compression:
    """``ratio`` as an amount; raises ``ShrinkbenchError`` where it is none."""
    number = _number(ratio)
    if number is None or not (math.isfinite(number) and number >= 1):
        raise ShrinkbenchError(
            f"compression {ratio!r} is not a finite number of at least 1 (original / kept parameters)"
        )
    return Compression(ratio=number)


def _number(value: object) -> float | None:
    """``value`` as a number, those of numpy included; truth values are none."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    return float(str(value)) if type(value).__module__ == "numpy" else float(value)  # 0.3 in any precision


def fraction_of_layers(method: PruningMethod, fraction: float) -> FractionPerLayer:
    """The ``fraction`` of every layer, as ``method`` means it."""
    how = method.per_layer
    return FractionPerLayer(fraction=fraction, rounding=how.rounding, projections=how.projections)


def check_amount(method: PruningMethod, amount: Amount) -> Amount:
    """``amount``, or an error where ``method`` cannot prune by an amount of its kind."""
    if method.schedule.rounds != 1 and not isinstance(amount, Compression):
        raise ShrinkbenchError(
            f"'{method.name}' prunes in several steps towards a compression, and {amount.label} is none; give "
            "a compression, or a method of one step, such as this one with [schedule=one-shot]"
        )
    if isinstance(amount, Speedup) and "allocation" in (method.like or method).decides:
        raise takes_no_share(method, amount)
    if not isinstance(amount, FractionPerLayer | ChannelFraction):
        return amount
    if method.structure.one_per_layer:
        raise ShrinkbenchError(
            f"'{method.name}' has one unit in each layer, and one stays in each, so that {amount.label} would "
            "remove nothing; give a compression"
        )
    if isinstance(amount, ChannelFraction) and method.structure.unit not in CHANNELS:
        raise ShrinkbenchError(
            f"'{method.name}' removes units of structure '{method.structure.name}', which are no channels; "
            "give compression or fraction_per_layer, or choose a method over channels or filters"
        )
    if method.like is not None:
        check_amount(method.like, amount)
    elif "allocation" in method.decides:
        raise takes_no_share(method, amount)
    elif "allocation" in method.changed and method.allocation.name != amount.settles:
        raise ShrinkbenchError(
            f"{amount.label} says what goes where, so that the allocation of '{method.name}' would change "
            "nothing; leave it out, or give a compression"
        )
    return amount


def takes_no_share(method: PruningMethod, amount: Amount) -> ShrinkbenchError:
    """Why a method that returns masks takes no share of layers or channels."""
    return ShrinkbenchError(
        f"'{method.name}' decides itself how much goes where, so that {amount.label} cannot be asked of it; "
        "give a compression or choose another method"
    )


def steps_to(method: PruningMethod, amount: Amount, *, total: int, prunable: int) -> tuple[Amount, ...]:
    """The amounts on the way to ``amount``, which is the last.

    Most schedules count the ``prunable`` of ``total`` parameters alone: with F the others, their target is
    ``prunable / (total / compression - F)``, and a ratio r the compression ``total / (F + prunable / r)``.
    """
    if not isinstance(amount, Compression) or amount == UNPRUNED:
        return (amount,)
    fixed = total - prunable
    left = total / amount.ratio - fixed
    if left <= 0:
        raise CannotMeetTargetError.because(
            f"{fixed:,} of {total:,} parameters are not prunable here",
            compression=amount.ratio,
            total=total,
            least=fixed + 1,
        )
    if method.schedule.counts == "all":
        *ratios, _ = method.schedule(amount.ratio)
        return (*(Compression(ratio=r) for r in ratios), amount)
    *ratios, _ = method.schedule(prunable / left)
    return (*(Compression(ratio=max(total / (fixed + prunable / r), 1.0)) for r in ratios), amount)


@contextmanager
def largest_named(meet: Callable[[Compression], object], asked: Amount) -> Iterator[None]:
    """Have an error name a target that ``meet`` accepts: what stops this one is not all that stops the next."""
    try:
        yield
    except CannotMeetTargetError as error:
        if not isinstance(asked, Compression):
            raise
        found = error
        while found.least:
            try:
                meet(Compression(ratio=max(found.total / found.least, 1.0)))
            except CannotMeetTargetError as further:
                if further.least > found.least:
                    found = further
                    continue
            break
        if found is error:
            raise
        raise CannotMeetTargetError.because(
            found.reason, compression=asked.ratio, total=found.total, least=found.least
        ) from None


def budget(module: nn.Module, names: Sequence[str], compression: float) -> int:
    """Prunable weights to keep so that original / kept parameters is ``compression``, up to half a weight.

    With T parameters in all and P prunable ones: round(T / compression) - (T - P). Raises
    ``CannotMeetTargetError`` where that is below one weight; the largest target is T / (T - P + 1).
    """
    keep, total, fixed = _weights_to_keep(module, names, compression)
    if keep < 1:
        reason = f"{fixed:,} of {total:,} parameters are not prunable here"
        raise CannotMeetTargetError.because(reason, compression=compression, total=total, least=fixed + 1)
    return keep


def _weights_to_keep(module: nn.Module, names: Sequence[str], compression: float) -> tuple[int, int, int]:
    """Prunable weights to keep, all parameters, and those that are not prunable.

    The first may be negative: structures whose units hold more than prunable weights can still reach it.
    """
    check_compression(compression)
    parameters = dict(module.named_parameters())
    total = sum(p.numel() for p in parameters.values())
    fixed = total - sum(parameters[name].numel() for name in names)
    return round(total / compression) - fixed, total, fixed


def budget_for(method: PruningMethod, module: nn.Module, names: Sequence[str], amount: Amount) -> int | None:
    """The budget; whether units of several weights can meet it is told once they are known."""
    if not isinstance(amount, Compression):
        return None
    if method.structure.name == "weights" or method.structure.pattern:
        return budget(module, names, amount.ratio)
    return _weights_to_keep(module, names, amount.ratio)[0]
