"""Training on the physically smaller network in place of the masked one, where both are the same computation.

That is proven before each training: one batch of the run's own, in training mode and double precision, has to
give the same loss, gradients, statistics and random draws. Where it does not, the masked network is trained.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from shrinkbench.errors import ShrinkbenchError, one_line, text_of
from shrinkbench.network.inputs import Example, map_tensors
from shrinkbench.network.weights import copy_of, in_mode
from shrinkbench.pruning import Masks, Upholder
from shrinkbench.results.record import TrainedSmaller
from shrinkbench.runner.outcomes import classify
from shrinkbench.runner.workspace import BoundData, Workspace
from shrinkbench.spec import Recipe
from shrinkbench.surgery.correspondence import NothingLeavesError, SmallerNetwork, smaller_network
from shrinkbench.tasks import Batches, Task
from shrinkbench.training.evaluation import CLASSIFY
from shrinkbench.training.hook import Hook

EXAMPLES = 32
"""The batch on which both networks are compared has as many, and is not augmented."""
_TOLERANCE = 1e-6  # of a tensor's largest value, in double precision
_FLOOR = 1e-6  # of the largest gradient of all: what is smaller throughout a tensor is rounding
_LONGEST = 300


class UnequalError(ShrinkbenchError):
    """The two trainings would not be one."""


@dataclass(frozen=True)
class Trained:
    """The network that a training works on, masks and hooks, and how its checkpoint is told from others'."""

    module: nn.Module
    masks: Masks
    hooks: tuple[Hook, ...]
    label: str = ""

    @classmethod
    def masked(cls, module: nn.Module, masks: Masks) -> Trained:
        """The network itself."""
        return cls(module, masks, (Upholder(module, masks),))

    @classmethod
    def smaller(cls, found: SmallerNetwork) -> Trained:
        """What surgery has left of it."""
        hooks = (found.hook(), Upholder(found.module, found.masks))
        return cls(found.module, found.masks, hooks, f"-smaller-{found.digest[:16]}")


@contextmanager
def chosen_for_training(
    module: nn.Module,
    masks: Masks,
    recipe: Recipe,
    data: BoundData,
    workspace: Workspace,
    *,
    example: Example,
    task: Task,
    seed: int,
    own: str = "",
    so_far: TrainedSmaller | None,
) -> Iterator[tuple[Trained, TrainedSmaller | None]]:
    """What to train inside, ``module`` or, where that is asked for, the smaller network; weights are put back.

    ``own`` is what of the run is code from outside: its network is trained masked. Beside what is trained comes
    the account of the run's trainings ``so_far`` and this one. The label holds a digest of
    which weights stayed, so that a training goes on only from states of its own.
    """
    if not workspace.train_smaller or not masks:
        yield Trained.masked(module, masks), so_far
        return
    so_far = so_far or TrainedSmaller()
    if not recipe.epochs:
        yield Trained.masked(module, masks), so_far
        return
    order = torch.Generator().manual_seed(seed)
    batches = data.train(min(recipe.batch_size, EXAMPLES), generator=order, augment=False)
    if workspace.team.size > 1:
        found: SmallerNetwork | str = "several processes train one network together"
    elif own:
        found = f"{own} is code from outside, and one batch does not prove what it does later in training"
    else:
        found = smaller_or_why(module, masks, recipe, batches, example=example, task=task, seed=seed)
    if isinstance(found, SmallerNetwork):
        yield Trained.smaller(found), so_far.with_smaller()
        found.write_back(module)
    else:
        yield Trained.masked(module, masks), so_far.with_masked(found) if found else so_far


def smaller_or_why(
    module: nn.Module,
    masks: Masks,
    recipe: Recipe,
    batches: Batches,
    *,
    example: Example,
    task: Task = CLASSIFY,
    seed: int = 0,
) -> SmallerNetwork | str:
    """The smaller network, or why the masked one is trained: a sentence, empty where nothing would leave."""
    # A gradient of a masked weight counts in the norm by which gradients are clipped, so that it has to stay.
    select = recipe.clip_gradient_norm is None
    try:
        found = smaller_network(module, masks, example, select_inputs=select)
        require_equal_training(module, found, recipe, batches, task=task, seed=seed)
    except NothingLeavesError:
        return ""
    except Exception as error:  # of a network of somebody's, which was never asked for this
        if classify(error) != "scientific":
            raise
        told = text_of(error)
        return one_line(
            told if isinstance(error, ShrinkbenchError) else f"{type(error).__name__}: {told}", _LONGEST
        )
    return found


@dataclass(frozen=True)
class _Step:
    """What one forward and backward pass gives."""

    loss: Tensor
    parameters: Mapping[str, Tensor]
    gradients: Mapping[str, Tensor | None]
    buffers: Mapping[str, Tensor]
    draws: Tensor


def require_equal_training(
    module: nn.Module,
    smaller: SmallerNetwork,
    recipe: Recipe,
    batches: Batches,
    *,
    task: Task = CLASSIFY,
    seed: int = 0,
) -> None:
    """Raise ``UnequalError`` where a batch tells the training of both networks apart.

    Compared in double precision up to rounding are the loss, the gradient at every place of the smaller
    network, its statistics afterwards and the state of the random numbers; where gradients are clipped, their
    norm too. Weights that nothing is said to read are large for it, once positive and once negative. Neither
    network is changed.
    """
    with torch.random.fork_rng():
        batch = next(iter(task.training_batches(batches)), None)
    if batch is None:
        raise UnequalError("there is no batch to compare both networks on")
    batch = map_tensors(lambda t: t.double() if t.is_floating_point() else t, batch)
    plain = recipe.model_copy(update={"precision": "float32"})
    small = _step(copy_of(smaller.module), batch, plain, task, seed)
    for sign in (1.0, -1.0) if smaller.unheard else (1.0,):
        masked = _step(_with_unheard(module, smaller, sign), batch, plain, task, seed)
        _require_equal_steps(masked, small, smaller, clipped=recipe.clip_gradient_norm is not None)


def _with_unheard(module: nn.Module, smaller: SmallerNetwork, sign: float) -> nn.Module:
    """A copy in which the weights that nothing reads are of one ``sign``, and not small."""
    trial, generator = copy_of(module), torch.Generator().manual_seed(0)
    for name in smaller.unheard:
        place = smaller.places[name]
        parameter = trial.get_parameter(place.tensor)
        values = parameter.detach().reshape(-1).clone()
        drawn = sign * (1 + torch.rand(len(place.index), generator=generator))
        values[place.index.to(values.device)] = drawn.to(values.device, values.dtype)
        parameter.data = torch.empty_like(parameter).copy_(values.reshape(parameter.shape))
    return trial


def _require_equal_steps(masked: _Step, small: _Step, smaller: SmallerNetwork, *, clipped: bool) -> None:
    if not torch.equal(masked.draws, small.draws):
        raise UnequalError("it draws random numbers, as dropout does, by the shape of what is removed")
    _require_close("the loss", masked.loss, small.loss)
    largest = max((float(g.abs().max()) for g in masked.gradients.values() if g is not None), default=0.0)
    for name, place in smaller.places.items():
        if name in small.buffers:
            _require_close(f"'{place.tensor}'", place.read(masked.buffers[place.tensor]), small.buffers[name])
            continue
        one, other = masked.gradients[place.tensor], small.gradients[name]
        if name in smaller.unheard:
            other = torch.zeros_like(small.parameters[name])
        if (one is None) != (other is None):
            raise UnequalError(f"only one of both networks trains '{place.tensor}'")
        if one is not None and other is not None:
            what = f"the gradient of '{place.tensor}'"
            _require_close(what, place.read(one), other, least=_FLOOR * largest)
    if clipped:
        _require_close("the norm of the gradients", _norm(masked), _norm(small))


def _step(module: nn.Module, batch: object, recipe: Recipe, task: Task, seed: int) -> _Step:
    """One step of ``module``, which is turned to double precision for it."""
    trial = in_mode(module.double(), training=True)
    device = next((p.device.type for p in trial.parameters()), "cpu")
    trial.zero_grad(set_to_none=True)
    with torch.random.fork_rng(), torch.inference_mode(mode=False), torch.enable_grad():
        torch.manual_seed(seed)
        loss, _ = task.loss(trial, batch, recipe)
        states = [torch.get_rng_state()]
        if device == "cuda":
            states.append(torch.cuda.get_rng_state())
    loss.backward()
    gradients = {n: p.grad for n, p in trial.named_parameters()}
    parameters = dict(trial.named_parameters())
    return _Step(loss.detach(), parameters, gradients, dict(trial.named_buffers()), torch.cat(states))


def _norm(step: _Step) -> Tensor:
    norms = [torch.linalg.vector_norm(g) for g in step.gradients.values() if g is not None]
    total: Tensor = torch.linalg.vector_norm(torch.stack(norms))
    return total


def _require_close(what: str, masked: Tensor, small: Tensor, *, least: float = 0.0) -> None:
    one, other = masked.detach().reshape(-1).double(), small.detach().reshape(-1).double()
    if not one.numel():
        return
    scale = max(float(one.abs().max()), least)
    apart = float((one - other).abs().max())
    if not apart <= _TOLERANCE * scale:
        raise UnequalError(f"{what} differs by {apart:.1e} on a batch, of values up to {scale:.1e}")
