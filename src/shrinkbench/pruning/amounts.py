"""How much is pruned: said in one way, and turned into steps and into weights to keep."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn

from shrinkbench.errors import CannotMeetTargetError, ShrinkbenchError
from shrinkbench.pruning.method import PruningMethod
from shrinkbench.spec import UNPRUNED, Amount, ChannelFraction, Compression, FractionPerLayer
from shrinkbench.spec.amount import ratio_of


def amount_of(
    method: PruningMethod,
    *,
    compression: float | None = None,
    fraction_per_layer: float | None = None,
    channels: float | None = None,
) -> Amount:
    """How much ``method`` is to prune, said in exactly one way."""
    said = {
        "compression": compression,
        "fraction_per_layer": fraction_per_layer,
        "channels": channels,
    }
    given = [name for name, value in said.items() if value is not None]
    if method.amount is not None:
        if given and (given != ["compression"] or compression != 1):
            raise ShrinkbenchError(
                f"'{method.name}' prunes {method.amount.label} by its name, so that "
                f"{given[0]}={said[given[0]]:g} has no say; leave it out"
            )
        return UNPRUNED if given else method.amount
    if len(given) != 1:
        raise ShrinkbenchError(
            f"how much '{method.name}' is to prune is said {'in several ways' if given else 'nowhere'}; give "
            "one of compression, fraction per layer and channels"
        )
    if compression is not None:
        return check_compression(compression)
    fraction = fraction_per_layer if fraction_per_layer is not None else channels
    if not (isinstance(fraction, int | float) and 0 < fraction < 1):
        raise ShrinkbenchError(f"{given[0]} = {fraction!r} is not a fraction above 0 and below 1")
    if channels is not None:
        return fraction_of_channels(method, channels)
    return fraction_of_layers(method, fraction)


def check_compression(ratio: float) -> Compression:
    """``ratio`` as an amount; raises ``ShrinkbenchError`` where it is none."""
    if not (isinstance(ratio, int | float) and math.isfinite(ratio) and ratio >= 1):
        raise ShrinkbenchError(
            f"compression {ratio!r} is not a finite number of at least 1 (original / kept parameters)"
        )
    return Compression(ratio=ratio)


def fraction_of_channels(method: PruningMethod, fraction: float) -> ChannelFraction:
    """The ``fraction`` of all channels; refused where ``method`` removes something else."""
    if not method.spec.structure.counts_channels:
        raise ShrinkbenchError(
            f"'{method.name}' removes units of structure '{method.structure.name}', which are no channels; "
            "give compression or fraction_per_layer, or choose a method over channels or filters"
        )
    return ChannelFraction(fraction=fraction)


def fraction_of_layers(method: PruningMethod, fraction: float) -> FractionPerLayer:
    """The ``fraction`` of every layer, as ``method`` means it."""
    how = method.per_layer
    return FractionPerLayer(fraction=fraction, rounding=how.rounding, projections=how.projections)


def steps_to(method: PruningMethod, amount: Amount) -> tuple[Amount, ...]:
    """The amounts on the way to ``amount``, which is the last."""
    if not isinstance(amount, Compression):
        if method.schedule.rounds != 1:
            ratio_of(amount)  # says that several rounds need a compression
        return (amount,)
    return tuple(Compression(ratio=ratio) for ratio in method.schedule(amount.ratio))


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
