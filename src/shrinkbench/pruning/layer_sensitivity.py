"""How sensitive each layer is: pruned alone to several densities, all others whole, and nothing is trained."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import nn

from shrinkbench.errors import CannotMeetTargetError, ShrinkbenchError
from shrinkbench.network.coupling import couple
from shrinkbench.network.inputs import Example, Inputs, given_example
from shrinkbench.network.view import Batches, Loss
from shrinkbench.network.weights import copy_of, layer_of
from shrinkbench.pruning.allocations.rules import keep_best
from shrinkbench.pruning.amounts import budget_for
from shrinkbench.pruning.context import PruneContext
from shrinkbench.pruning.masking import decide, grouped, look_ahead, scored, whole_masks
from shrinkbench.pruning.masks import Masks
from shrinkbench.pruning.method import METHODS, PruningMethod
from shrinkbench.pruning.prunable import prunable_names, require_structure_takes
from shrinkbench.pruning.units import Grouping, Units
from shrinkbench.results.sensitivity import LayerGroup, Sensitivity, SensitivityPoint, check_densities
from shrinkbench.seeds import stream
from shrinkbench.spec import UNPRUNED, Amount, Compression
from shrinkbench.spec.measures import Quality
from shrinkbench.tasks import Batches as TaskBatches
from shrinkbench.tasks import Classification, Task, scoring_loss

DENSITIES = (1.0, 0.75, 0.5, 0.25, 0.1, 0.05)
Draw = Callable[[torch.Generator], Batches]
MasksOf = Callable[[str, int], Masks]
"""Masks that keep so many units of one group, and all others whole."""


@torch.inference_mode(mode=False)
def sensitivity(
    module: nn.Module,
    method: str | PruningMethod,
    *,
    validation: TaskBatches | Callable[[], TaskBatches],
    densities: Sequence[float] = DENSITIES,
    batches: Batches | Draw | None = None,
    input_shape: Example | None = None,
    example_inputs: Example | None = None,
    seeds: Sequence[int] = (0,),
    ignore: Sequence[str] = (),
    prune_classifier: bool = False,
    prune_biases: bool = False,
    prune_embeddings: bool = False,
    task: Task | None = None,
    on_point: Callable[[int, int], None] | None = None,
) -> Sensitivity:
    """Quality of ``module`` with one layer at a time pruned by ``method`` to each of ``densities``.

    Where a structure couples layers, all that lose a unit together are pruned together. Of n units
    n - floor(n x (1 - density)) stay, by the method's scores, and as many as the structure or the method needs;
    where the method gives new values to weights that stay, they count. The quality is that on ``validation``,
    batches as ``task`` takes them (or a function that draws them anew); choose bounds by it, and never by the
    split that results are reported on. ``batches`` are what methods score on, or are drawn from a generator,
    for each seed anew. ``module`` is left as it is; ``on_point`` is told (points so far, points in all).

    Raises ``ShrinkbenchError`` for methods of several rounds, over a training, or without a choice of density.

    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).requires_grad_(False)
    >>> data = [(torch.eye(4), torch.tensor([0, 1, 0, 1]))]
    >>> found = sensitivity(net, "global_magnitude", validation=data, densities=[0.5])
    >>> [(point.group, point.kept) for point in found.points]
    [('0', 16)]
    """
    chosen = METHODS.get(method) if isinstance(method, str) else method
    check_method(chosen)
    below, draws = check_densities(densities), _checked_seeds(seeds)
    learned = Classification() if task is None else task
    if any(p.is_inference() for p in module.parameters()):  # autograd refuses them
        module = copy_of(module)
    measuring = _Measuring(module, _drawn_anew(validation), learned)
    given = given_example(input_shape, example_inputs)
    shape = look_ahead(measuring.batches())[1] if given is None else given
    names = prunable_names(
        module,
        input_shape=shape,
        prune_classifier=prune_classifier,
        prune_biases=prune_biases,
        prune_embeddings=prune_embeddings,
        ignore=ignore,
    )
    require_structure_takes(chosen.structure, module, names)
    setting = _Setting(module, chosen, names, shape, _source(batches, chosen), scoring_loss(learned))
    grouping, groups = _groups(setting)
    points: list[SensitivityPoint] = []
    total = len(draws) * len(groups) * len(below)
    whole = measuring.quality(Masks({}))
    for seed in draws:
        masks_of = _by_scores(setting, seed) or _by_method(setting, grouping, seed)
        for key, group in groups.items():
            for density in below:
                masks = masks_of(key, _kept(grouping.units[key], density))
                kept = _units_left(setting, masks, key)
                points.append(SensitivityPoint(group.name, density, kept, seed, measuring.quality(masks)))
                if on_point is not None:
                    on_point(len(points), total)
    return Sensitivity(chosen.name, learned.objective, tuple(groups.values()), whole, tuple(points))


def check_method(method: PruningMethod) -> None:
    """Refuse a method that cannot prune one layer at once to a density that is asked of it."""
    if method.amount is not None:
        reason = f"prunes {method.amount.label} by its name, so that no other density can be asked of it"
    elif not method.in_one_step or method.schedule.rounds != 1:
        reason = f"prunes in several rounds or over a training (schedule {method.schedule.name})"
    elif method.finetuning.weights != "kept":
        reason = f"trains from other weights than those at hand (fine-tuning {method.finetuning.name})"
    elif method.structure.pattern or method.structure.one_per_layer:
        reason = f"has a structure, '{method.structure.name}', that leaves no choice of a layer's density"
    else:
        return
    raise ShrinkbenchError(f"'{method.name}' {reason}; choose a method of one step, such as global_magnitude")


def _checked_seeds(seeds: Sequence[int]) -> tuple[int, ...]:
    for seed in seeds:
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
            raise ShrinkbenchError(f"{seed!r} is no seed; give whole numbers from 0 to 2**63 - 1")
    if not seeds:
        raise ShrinkbenchError("there is no seed; give one at least, such as 0")
    return tuple(dict.fromkeys(seeds))


def _drawn_anew(validation: TaskBatches | Callable[[], TaskBatches]) -> Callable[[], TaskBatches]:
    """What gives the same batches each time; an iterator is read once, and kept."""
    if callable(validation):
        return validation
    kept = list(validation) if iter(validation) is validation else validation
    return lambda: kept


def _source(batches: Batches | Draw | None, method: PruningMethod) -> Draw | None:
    if batches is None:
        if "data" in method.needs_to_decide:
            raise ShrinkbenchError(f"'{method.name}' scores weights on data; give batches= of training data")
        return None
    if callable(batches):
        return batches
    kept = list(islice(batches, method.batch_count)) if iter(batches) is batches else batches
    return lambda _: kept


class _Measuring:
    """A copy of a network that is measured under masks, and is whole again afterwards."""

    def __init__(self, module: nn.Module, batches: Callable[[], TaskBatches], task: Task) -> None:
        self.batches = batches
        self._copy, self._task = copy_of(module), task
        self._original = dict(module.named_parameters(remove_duplicate=False))

    def quality(self, masks: Masks) -> Quality:
        masks.apply(self._copy)
        try:
            return self._task.evaluate(self._copy, self.batches(), precision="float32")
        finally:
            parameters = dict(self._copy.named_parameters(remove_duplicate=False))
            with torch.no_grad():
                for name in {*masks, *masks.new_weights}:
                    parameters[name].copy_(self._original[name])


@dataclass(frozen=True)
class _Setting:
    """What pruning one group and pruning another have in common."""

    module: nn.Module
    method: PruningMethod
    names: tuple[str, ...]
    input_shape: Inputs
    draw: Draw | None
    loss: Loss

    def context(
        self, seed: int, *, names: Sequence[str] | None = None, amount: Amount = UNPRUNED
    ) -> PruneContext:
        """A context of ``names``, all prunable ones by default, with the draws of ``seed``."""

        def generator(purpose: str) -> torch.Generator:
            return torch.Generator().manual_seed(stream(seed, purpose, 0))

        own = self.names if names is None else names
        return PruneContext(
            self.module,
            own,
            batches=None if self.draw is None else self.draw(generator("scoring-batch")),
            batch_count=self.method.batch_count,
            input_shape=self.input_shape,
            generator=generator("scoring"),
            amount=amount,
            budget=budget_for(self.method, self.module, own, amount),
            loss=self.loss,
            structure=self.method.structure,
        )


def _groups(setting: _Setting) -> tuple[Grouping, dict[str, LayerGroup]]:
    """The units of the network, and by key the groups that can lose some."""
    ctx = setting.context(0)
    grouping = setting.method.structure.group(ctx, {n: torch.ones_like(w) for n, w in ctx.weights.items()})
    groups = {
        key: LayerGroup(
            layer_of(key) if key in ctx.weights else key, _layers(ctx, grouping, key), u.scores.numel()
        )
        for key, u in grouping.units.items()
        if u.scores.numel() > max(u.least, 1)
    }
    if not groups:
        raise ShrinkbenchError(
            "no layer of this network has a unit to lose; choose a method of another structure"
        )
    names = [group.name for group in groups.values()]
    if len(set(names)) < len(names):  # a weight and its bias
        groups = {key: LayerGroup(key, group.layers, group.units) for key, group in groups.items()}
    return grouping, groups


def _layers(ctx: PruneContext, grouping: Grouping, key: str) -> tuple[str, ...]:
    """The layers whose weights make the units of a group, the first of them first."""
    touched = [name for name in _touched(ctx, grouping, key) if name in ctx.weights]
    layers = tuple(dict.fromkeys(layer_of(name) for name in touched))
    if key in ctx.weights:
        return layers
    coupling = couple(ctx.module, ctx.example)
    made = [g.layers("produces") for g in coupling.free if key == g.layer or key in g.layers("carries")]
    return tuple(layer for layer in layers if layer in (made[0] if made else ())) or layers


def _touched(ctx: PruneContext, grouping: Grouping, key: str) -> list[str]:
    """Parameters that lose weights where the group keeps as few units as it can."""
    masks = whole_masks(grouping, _keep_first(grouping, key, max(grouping.units[key].least, 1)), ctx)
    return [name for name, mask in masks.items() if not bool(mask.all())]


def _keep_first(grouping: Grouping, key: str, kept: int) -> dict[str, torch.Tensor]:
    keep = _keep_all(grouping.units)
    keep[key].reshape(-1)[kept:] = False
    return keep


def _keep_all(units: Mapping[str, Units]) -> dict[str, torch.Tensor]:
    return {
        name: torch.ones(u.scores.shape, dtype=torch.bool, device=u.scores.device) for name, u in units.items()
    }


def _kept(units: Units, density: float) -> int:
    number = units.scores.numel()
    return max(number - math.floor(number * (1 - density) + 1e-9), units.least, 1)


def _units_left(setting: _Setting, masks: Masks, key: str) -> int:
    ctx = setting.context(0)
    alive = {n: masks[n].to(w).float() if n in masks else torch.ones_like(w) for n, w in ctx.weights.items()}
    return int((setting.method.structure.group(ctx, alive).units[key].scores > 0).sum())


def _by_scores(setting: _Setting, seed: int) -> MasksOf | None:
    """Masks by scores that are found once for the whole network; ``None`` where a method returns more."""
    method = setting.method
    if method.update is not None or "allocation" in method.decides:
        return None
    ctx = setting.context(seed)
    found = scored(method, ctx)
    if isinstance(found, Masks):
        return None
    grouping = grouped(method, ctx, found)

    def masks_of(key: str, kept: int) -> Masks:
        keep = _keep_all(grouping.units)
        keep |= keep_best({key: grouping.units[key]}, kept)
        return whole_masks(grouping, keep, ctx)

    return masks_of


def _by_method(setting: _Setting, grouping: Grouping, seed: int) -> MasksOf:
    """Masks as the method decides them where nothing but the group's own weights is prunable."""
    ctx = setting.context(0)

    def decided(names: Sequence[str], left: int) -> Masks:
        amount = Compression(ratio=ctx.total / left)
        return decide(setting.method, setting.context(seed, names=names, amount=amount))

    def masks_of(key: str, kept: int) -> Masks:
        like = whole_masks(grouping, _keep_first(grouping, key, kept), ctx)
        touched = set(_touched(ctx, grouping, key))
        names = [name for name in setting.names if name in touched]
        try:
            return decided(names, ctx.total - (like.total - like.kept))
        except CannotMeetTargetError as error:  # the method has to keep more than that
            if not error.least:
                raise
            return decided(names, error.least)

    return masks_of
