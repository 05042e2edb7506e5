"""What a method is in a comparison: baseline, control, or what is judged; by its values and its amount."""

from __future__ import annotations

from collections.abc import Iterable

from shrinkbench.spec import Amount, ChannelFraction, Compression, FractionPerLayer, MethodSpec, StructureSpec


def is_random(method: MethodSpec) -> bool:
    """Whether the score is chance."""
    return method.score.kind == "random"


def is_magnitude(method: MethodSpec) -> bool:
    """Whether the score is the size of weights."""
    return method.score.kind == "magnitude"


def is_plain(method: MethodSpec) -> bool:
    """Whether a method prunes trained weights once and then fine-tunes what is left, as a baseline does."""
    schedule, after = method.schedule, method.finetuning
    once = schedule.start == "trained" and schedule.rounds == 1 and not schedule.during
    return once and after.weights == "kept" and after.recipe == "finetuning"


def is_global(method: MethodSpec, amount: Amount | None = None) -> bool:
    """Whether all layers compete, or chance does not look at layers.

    An amount may settle that itself, and a published one leaves nothing to compete for. Without ``amount``, a
    compression is meant.
    """
    if _settled(method, amount) is not None:
        return _settled(method, amount) == "global"
    return method.allocation.scope == "global" and isinstance(amount, Compression | type(None))


def is_uniform(method: MethodSpec, amount: Amount | None = None) -> bool:
    """Whether every layer keeps the same share: by the method, or because the amount is one of every layer."""
    if _settled(method, amount) is not None:
        return _settled(method, amount) == "layerwise"
    return method.allocation.uniform and isinstance(amount, Compression | type(None))


def _settled(method: MethodSpec, amount: Amount | None) -> str | None:
    """The allocation that the amount settles for the method, by name; a control has that of its method."""
    return None if amount is None or method.allocation.like is not None else amount.settles


def is_control(method: MethodSpec) -> bool:
    """Whether a method serves to judge another: with its layerwise proportions, or its architecture alone.

    The first shows what the other's score adds, the second, trained from scratch, what its weights add.
    """
    return method.allocation.like is not None or method.from_scratch


def is_structured(method: MethodSpec) -> bool:
    """Whether more than single weights are removed together; not so where nobody said what a unit is."""
    return method.structure.unit not in ("weight", StructureSpec.model_fields["unit"].default)


def is_automatic(method: MethodSpec, amount: Amount | None = None) -> bool:
    """Whether the method settles how much of every layer stays, and nobody beforehand (Liu et al. 2019).

    Not so where all units of a network are whole layers, or a pattern N:M settles the share of each.
    """
    structure, allocation = method.structure, method.allocation
    settled = structure.one_per_layer or structure.pattern is not None or is_uniform(method, amount)
    by_itself = isinstance(amount, Compression | ChannelFraction | type(None))
    return by_itself and not settled and (allocation.scope == "free" or is_global(method, amount))


def is_scratch_of(control: MethodSpec, method: MethodSpec) -> bool:
    """Whether ``control`` trains what ``method`` keeps from scratch, for equal computation (Scratch-B)."""
    after = control.finetuning
    return after.weights == "scratch" and after.equal == "computation" and _pruning(control) == _pruning(method)


def _pruning(method: MethodSpec) -> tuple[object, ...]:
    """All of a method but how its networks are trained afterwards, whatever it is called."""
    return method.structure, method.score, method.allocation, method.schedule, method.update


def same_method(first: MethodSpec, second: MethodSpec) -> bool:
    """Whether two methods do the same, whatever they are called."""
    return _pruning(first) == _pruning(second) and first.finetuning == second.finetuning


def is_uniform_counterpart(
    other: MethodSpec, others_amount: Amount, method: MethodSpec, amount: Amount
) -> bool:
    """Whether ``other`` removes as much of the same structure, the same share of every layer.

    The counterpart of a fraction of all channels is that fraction of every layer.
    """
    same = others_amount == amount or (
        isinstance(amount, ChannelFraction)
        and isinstance(others_amount, FractionPerLayer)
        and amount.fraction == others_amount.fraction
    )
    return same and other.structure == method.structure and is_uniform(other, others_amount)


def is_baseline(method: MethodSpec) -> bool:
    """Whether a method is one of the checklist's own: plain chance or magnitude, global or uniform."""
    simple = is_global(method) or is_uniform(method)
    return (
        (is_random(method) or is_magnitude(method)) and is_plain(method) and simple and not is_control(method)
    )


def judged(methods: Iterable[MethodSpec]) -> frozenset[MethodSpec]:
    """The methods that are judged unless the author names others: neither baselines nor controls.

    Where there are baselines only, all that are not random are judged; where controls only, all.
    """
    methods = list(methods)
    others = [m for m in methods if not is_control(m)] or methods
    proposed = [m for m in others if not is_baseline(m)]
    return frozenset(proposed or [m for m in others if not is_random(m)])
