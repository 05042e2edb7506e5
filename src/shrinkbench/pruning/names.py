"""The grammar of method names: methods that are made from others, for sweeps and checklists to ask for.

``SCORE@METHOD``: prune by SCORE with the layerwise proportions of METHOD, such as ``random@global_gradient``
and ``magnitude@global_gradient``, the two controls that the checklist of Blalock et al. 2020 asks for.

``inverted@METHOD``: as many units per layer as METHOD, but those with its *lowest* scores, a sanity check of
Frankle et al. 2021. The two others are other words for what has a name already, and the same runs:
``shuffled@METHOD``, as many units per layer in random places, is ``random@METHOD``, and
``reinitialised@METHOD``, weights drawn anew under the masks, is ``METHOD[finetuning=reinitialise]``.

``METHOD[axis=value, ...]``: METHOD with other axes, such as ``lottery_ticket[finetuning=rewind-weights-3]``.

``METHOD:PERCENT``: METHOD by the percentage of every layer's units that goes (``soft_filter_pruning:30``) or,
where its paper counts so, of all channels (``network_slimming:70``). It is METHOD with an amount of its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

from torch import Tensor

from shrinkbench.errors import ShrinkbenchError, one_line
from shrinkbench.pruning.allocations.rules import ALLOCATIONS, given, global_, independent
from shrinkbench.pruning.amounts import fraction_of_layers
from shrinkbench.pruning.context import PruneContext
from shrinkbench.pruning.finetunings import FINETUNINGS
from shrinkbench.pruning.masking import decide, kept_by_group
from shrinkbench.pruning.method import METHODS, SCORES, PruningMethod, Score, ScoreEntry, decided_by
from shrinkbench.pruning.schedules.before_training import at_initialisation, one_shot
from shrinkbench.pruning.schedules.schedule import SCHEDULES
from shrinkbench.pruning.units import STRUCTURES, Scores, Units, UnitScores
from shrinkbench.registry import Registry
from shrinkbench.spec import Amount, ChannelFraction
from shrinkbench.spec.axes import AXES

_FIRST = -1e30  # finite in sums too

_AXES: dict[str, Registry[Any]] = {
    "structure": STRUCTURES,
    "allocation": ALLOCATIONS,
    "schedule": SCHEDULES,
    "finetuning": FINETUNINGS,
}


@METHODS.add_resolver
def control_named(name: str) -> PruningMethod | None:
    """The method that ``SCORE@METHOD`` names, or ``None`` for other names."""
    score, at, method = name.partition("@")
    if not at or not score or not method:
        return None
    if score == "shuffled":
        return same_proportions("random", METHODS.get(method))
    if score == "reinitialised":
        return METHODS.get(f"{method}[finetuning=reinitialise]")
    if score == "inverted":
        return inverted(METHODS.get(method))
    return same_proportions(score, METHODS.get(method))


def same_proportions(score: str, method: PruningMethod) -> PruningMethod:
    """Prune by ``score``, keeping as many units in each layer as ``method`` ends with.

    Where units are whole layers, that would leave nothing to choose: as much is kept in the whole network.
    Structure, schedule and fine-tuning are those of ``method``. Where it decides at the end of a training of
    its own, the control is trained alike. Where it prunes while it trains, the proportions must be known
    beforehand, which they are if it allocates by layer; the control is then pruned once.
    """
    entry = SCORES.get(score)
    return _with_proportions(entry, entry.function.__name__, method)  # however it was spelt


def _with_proportions(entry: ScoreEntry, score: str, method: PruningMethod) -> PruningMethod:
    """:func:`same_proportions` by the score ``entry``, which names call ``score``."""
    if method.like is not None:
        raise ShrinkbenchError(
            f"'{method.name}' has the proportions of '{method.like.name}' already; its controls are those of "
            f"that method: write {score}@{method.like.name}"
        )
    settled = decided_by(entry.function)
    if "allocation" in settled or ("structure" in settled and method.structure != entry.structure):
        raise ShrinkbenchError(
            f"the score '{score}' decides for itself what goes where, so that it cannot take the proportions "
            f"of another method; there is no control {score}@{method.name}"
        )
    schedule = method.schedule
    if schedule.during is not None and not schedule.decided_last:
        if method.allocation.by_values or method.allocation.scope not in ("layerwise", "given"):
            raise ShrinkbenchError(
                f"the layerwise proportions of '{method.name}' are known only after its training; there is no "
                f"control {score}@{method.name}, choose a method that prunes before training or by layer"
            )
        schedule = at_initialisation if schedule.start == "initialisation" else one_shot
    share = f"as:{method.name}"
    as_much = (
        replace(global_, name=share) if method.structure.one_per_layer else given(share, _weights_of(method))
    )
    changed = tuple(axis for axis in method.changed if axis == "finetuning")
    others = tuple(axis for axis in method.changed if axis != "finetuning")
    base = f"{score}@{replace(method, changed=others).spec.name}"
    return PruningMethod(
        name=f"{base}[finetuning={method.finetuning.name}]" if changed else base,
        base=base,
        changed=changed,
        score=entry.function,
        kind=entry.kind,
        version=entry.version,
        structure=method.structure,
        allocation=as_much,
        schedule=schedule,
        finetuning=method.finetuning,
        needs=tuple(dict.fromkeys((*entry.needs, *method.needs))),
        batch_count=max(entry.batch_count, method.batch_count),
        reference="blalock2020state",
        amount=method.amount,
        per_layer=method.per_layer,
        like=method,
        imposed=("structure", "allocation"),
    )


def inverted(method: PruningMethod) -> PruningMethod:
    """Keep as many units of each layer as ``method`` ends with: those that it holds for the least important.

    Raises ``ShrinkbenchError`` for methods whose score decides by itself what stays.
    """
    if method.decides or method.update is not None:
        raise ShrinkbenchError(
            f"'{method.name}' decides by more than scores that could be turned round; there is no control "
            f"inverted@{method.name}"
        )
    own = SCORES.get(method.score.__name__)
    made = _with_proportions(replace(own, function=_turned_round(method.score)), "inverted", method)
    return replace(made, reference="frankle2021pruning")


@cache
def _turned_round(score: Score) -> Score:
    """The score of the opposite sign, by the name ``inverted_SCORE``."""

    def turned(ctx: PruneContext) -> Scores | UnitScores:
        found = score(ctx)
        if isinstance(found, UnitScores):
            return UnitScores({name: _opposite(values) for name, values in found.scores.items()})
        return {name: _opposite(values) for name, values in found.items()}

    turned.__name__ = f"inverted_{score.__name__}"
    turned.__doc__ = f"The scores of {score.__name__} with the opposite sign."
    return turned


def _opposite(scores: Tensor) -> Tensor:
    """``-scores``, where what goes last of all (infinity) goes first, but has not gone before (-infinity)."""
    return (-scores).clamp(min=_FIRST)


def _weights_of(method: PruningMethod) -> Callable[[Mapping[str, Units], PruneContext], Mapping[str, float]]:
    def weights(units: Mapping[str, Units], ctx: PruneContext) -> Mapping[str, float]:
        if ctx.proportions is not None:
            return {name: ctx.proportions.share(name, u.total) for name, u in units.items()}
        kept = kept_by_group(method, ctx, decide(method, ctx))
        return {name: kept[name] for name in units}

    return weights


@METHODS.add_resolver
def variant_named(name: str) -> PruningMethod | None:
    """The method that ``METHOD[axis=value, ...]`` names, or ``None`` for other names."""
    match = re.fullmatch(r"(.+)\[([^\[\]]*)\]", name)
    if match is None:
        return None
    method = METHODS.get(match[1])
    changes: dict[str, Any] = {}
    for setting in match[2].split(","):
        axis, equals, value = (part.strip() for part in setting.partition("="))
        if not equals or axis not in _AXES:
            raise ShrinkbenchError(
                f"'{setting.strip()}' in method '{name}' is not understood; write axis=value with an axis of "
                f"{', '.join(_AXES)}"
            )
        if axis in method.decides:
            raise ShrinkbenchError(
                f"'{method.name}' decides its {axis} itself, so that {axis}={value} would change nothing; "
                "choose a method of that score and another axis, or leave it out"
            )
        if axis in changes:
            raise ShrinkbenchError(f"method '{name}' names its {axis} twice; name it once")
        changes[axis] = _AXES[axis].get(value)
    changes = {axis: value for axis, value in changes.items() if value != getattr(method, axis)}
    if changes.get("allocation") is independent and method.kind != "random":
        raise ShrinkbenchError(
            f"the allocation 'independent' draws by uniform scores, and '{method.name}' has others; choose "
            f"another allocation: {', '.join(n for n in ALLOCATIONS if n != 'independent')}"
        )
    changed = tuple(axis for axis in AXES if axis in changes or axis in method.changed)
    made = replace(method, imposed=(*method.imposed, *changes), changed=changed, **changes)
    text = ",".join(f"{axis}={getattr(made, axis).name}" for axis in changed)
    base = method.base or method.name
    return replace(made, base=base, name=f"{base}[{text}]" if text else base)


@METHODS.add_resolver
def percent_named(name: str) -> PruningMethod | None:
    """The method that ``METHOD:PERCENT`` names, or ``None`` for other names."""
    base, colon, percent = (part.strip() for part in name.rpartition(":"))
    if not (colon and _is_number(percent) and (base in METHODS or base.endswith("]"))):
        return None
    method = METHODS.get(base)
    if method.amount is not None:
        raise ShrinkbenchError(
            f"'{name}' says twice how much is pruned: '{base}' brings its amount; say it once"
        )
    if not (re.fullmatch("[0-9]{1,9}", percent) and 0 < int(percent) < 100):
        raise ShrinkbenchError(
            f"'{one_line(percent, 40)}' in method '{one_line(name, 80)}' is no whole percentage of units to "
            "remove; name 1 to 99, or give the amount apart from the name"
        )
    fraction = int(percent) / 100
    if method.per_layer.percent == "channels":
        return replace(method, amount=ChannelFraction(fraction=fraction))
    return replace(method, amount=fraction_of_layers(method, fraction))


def carried_out(method: PruningMethod, amount: Amount) -> PruningMethod:
    """``method`` with the allocation that it has at ``amount``: a fraction of layers or channels settles it.

    >>> from shrinkbench.pruning.names import METHODS, ChannelFraction, carried_out
    >>> carried_out(METHODS.get("channel_l1"), ChannelFraction(fraction=0.3)).name
    'channel_l1[allocation=global]'
    """
    own = method if method.like is None else method.like
    if amount.settles is None or own.allocation.name == amount.settles:
        return method
    name = f"{own.name}[allocation={amount.settles}]"
    if method.like is not None:
        name = f"{method.name.partition('@')[0]}@{name}"
    return replace(METHODS.get(name), amount=method.amount)


def _is_number(text: str) -> bool:
    """Whether ``text`` is meant as a number; other families have names there (``thinet:vgg-conv``)."""
    try:
        float(text)
    except ValueError:
        return False
    return True
