"""The network's steps as one compiled program, where that is asked for and gives what the network gives.

Masks are upheld outside of the program, on the parameters that it reads, so that trainings of one network and
batch size in a process share it. Only rounding differs, which is shown on a batch before each training.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Hashable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from shrinkbench.errors import ShrinkbenchError, one_line, text_of
from shrinkbench.network.inputs import map_tensors
from shrinkbench.network.weights import copy_of
from shrinkbench.spec import Recipe
from shrinkbench.tasks import Task
from shrinkbench.training.data import Data
from shrinkbench.training.shares import count_of

FARTHEST = 3.0
"""A compiled step is at most so many times as far from the step in double precision as the network's own."""
_FLOOR = {"loss": {"float32": 1e-5, "bf16-mixed": 2**-8}, "gradient": {"float32": 1e-5, "bf16-mixed": 1e-5}}
"""Nearer than this part of the loss, or of the norm of the gradient, is rounding in any case: one loss may lie
nearer by luck than a number in bf16 can, which a gradient of thousands of numbers does not."""
_MOST_PROGRAMS = 64  # of one network: its widths, batch sizes and precisions
_LONGEST = 200
_COMPARED: set[Hashable] = set()
_LOGGERS = ("torch._inductor", "torch._dynamo", "torch.utils.cpp_extension")


def compile_steps(module: nn.Module, recipe: Recipe, batch: Any, task: Task) -> nn.Module | str:
    """``module`` as ``torch.compile`` runs it, on the same parameters, or why it runs as it is.

    A copy is compiled and takes a step on ``batch``, in training mode, as does the network: loss and gradients
    have to be as near to those in double precision, up to a factor of :data:`FARTHEST`, and the random draws
    the same; networks of one class, modules and shapes share a program, and one of them is compared. What is
    hooked into the passes of a network is not in a program that exists already, so that such a network is never
    compiled.
    """
    if any(map(_is_hooked, module.modules())):
        return "something is hooked into its passes"
    kind = _kind_of(module, recipe, batch, task)
    with _settings():
        program = _compile(module)
        if kind in _COMPARED:
            return program
        try:
            own = _step(copy_of(module), batch, recipe, task)
            trial = copy_of(module)
            found = _replayed(trial, batch, recipe, task, _compile(trial))
            true = _step(copy_of(module).double(), *_in_double(batch, recipe), task)
        except Exception as error:  # of a compiler, on a network of somebody's
            return one_line(f"{type(error).__name__}: {text_of(error)}", _LONGEST)
    difference = _difference(found, own, true, recipe.precision)
    if not difference:
        _COMPARED.add(kind)
    return difference or program


def _kind_of(module: nn.Module, recipe: Recipe, batch: Any, task: Task) -> Hashable:
    """What two networks and batches have in common that one program is for."""

    def shape(tensor: Tensor) -> Hashable:
        return (*tensor.shape, *tensor.stride()), tensor.dtype, tensor.device, tensor.requires_grad

    own = tuple((name, shape(t)) for name, t in [*module.named_parameters(), *module.named_buffers()])
    given: list[Hashable] = []

    def note(tensor: Tensor) -> Tensor:
        given.append(shape(tensor))
        return tensor

    map_tensors(note, batch)
    trained = recipe.precision, recipe.label_smoothing, recipe.distillation, repr(task.objective), type(task)
    return type(module), repr(module), own, tuple(given), trained


def _compile(module: nn.Module) -> nn.Module:
    """The program; on a GPU one CUDA graph launches its kernels, since small networks wait for launches."""
    mode = "reduce-overhead" if _on_gpu(module) else None
    return cast(nn.Module, torch.compile(module, dynamic=False, mode=mode))


def _on_gpu(module: nn.Module) -> bool:
    return any(p.device.type == "cuda" for p in module.parameters())


def _in_double(batch: Any, recipe: Recipe) -> tuple[Any, Recipe]:
    double = map_tensors(lambda t: t.double() if t.is_floating_point() else t, batch)
    return double, recipe.model_copy(update={"precision": "float32"})


def program_of(
    module: nn.Module, recipe: Recipe, data: Data, task: Task, *, seed: int
) -> tuple[nn.Module | None, str]:
    """The program for the steps of ``module`` on batches of ``data``, or none and why."""
    order = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        batches = task.training_batches(data.train(recipe.batch_size, generator=order, augment=False))
        whole = next((batch for batch in batches if count_of(batch) == recipe.batch_size), None)
    if whole is None:
        return None, f"there is no whole batch of {recipe.batch_size} examples"
    found = compile_steps(module, recipe, whole, task)
    return (None, found) if isinstance(found, str) else (found, "")


def _is_hooked(module: nn.Module) -> bool:
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
    return any(hooks) or bool(module._backward_pre_hooks)


@contextmanager
def _settings() -> Iterator[None]:
    """Draws as the network's own, and room for several programs; what torch logs of failures is told by us."""
    torch._dynamo.config.recompile_limit = _MOST_PROGRAMS
    torch._inductor.config.fallback_random = True
    torch._inductor.config.compile_threads = 1  # no processes of its own, which outlive a worker that dies
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@dataclass(frozen=True)
class _Step:
    """What one step gives: loss, gradients and the state of the random numbers afterwards."""

    loss: Tensor
    gradients: dict[str, Tensor]
    draws: Tensor

    def distance(self, other: _Step) -> tuple[float, float]:
        """How far loss and gradients lie from those of ``other``, the latter by the norm over all."""
        loss = float((self.loss.double() - other.loss.double()).abs())
        apart = [g.double() - other.gradients[n].double() for n, g in self.gradients.items()]
        return loss, _norm(apart)


def _random_state(trial: nn.Module) -> Tensor:
    """The state of the generators that a network on its device may draw from."""
    states = [torch.get_rng_state()]
    if _on_gpu(trial):
        states.append(torch.cuda.get_rng_state())
    return torch.cat(states)


def _norm(tensors: Iterable[Tensor]) -> float:
    return math.sqrt(sum(float(t.double().square().sum()) for t in tensors))


def _replayed(trial: nn.Module, batch: Any, recipe: Recipe, task: Task, program: nn.Module) -> _Step:
    """A step of the ``program`` as later ones are: the second records a CUDA graph, the third plays it."""
    for _ in range(2 if _on_gpu(trial) else 0):
        _step(trial, batch, recipe, task, program)
    return _step(trial, batch, recipe, task, program)


def _step(trial: nn.Module, batch: Any, recipe: Recipe, task: Task, program: nn.Module | None = None) -> _Step:
    """One step of ``trial``, or of the ``program`` on its parameters."""
    trial.train()
    trial.zero_grad(set_to_none=True)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        loss, _ = task.loss(trial if program is None else program, batch, recipe)
        loss.backward()
        draws = _random_state(trial)
    gradients = {n: p.grad.clone() for n, p in trial.named_parameters() if p.grad is not None}
    return _Step(loss.detach(), gradients, draws)


def _difference(found: _Step, own: _Step, true: _Step, precision: str) -> str:
    """What tells the compiled step from the network's own; empty where rounding explains it."""
    if not torch.equal(found.draws, own.draws):
        return "compiled, it draws other random numbers"
    if found.gradients.keys() != own.gradients.keys():
        return "compiled, it has gradients for other parameters"
    sizes = float(true.loss.abs()), _norm(true.gradients.values())
    for what, size, far, near in zip(
        ("loss", "gradient"), sizes, found.distance(true), own.distance(true), strict=True
    ):
        if not far <= FARTHEST * near + _FLOOR[what][precision] * size:
            return f"compiled, its {what} is {far:.2g} from that in double precision, {near:.2g} as it is"
    return ""


@functools.cache
def require_compiler() -> None:
    """Raise ``ShrinkbenchError`` where this machine cannot compile: ``torch.compile`` needs a C++ compiler."""
    with _settings():
        try:
            torch.compile(torch.square)(torch.ones(3))
        except Exception as error:
            told = one_line(text_of(error).partition("\n")[0], _LONGEST)
            raise ShrinkbenchError(
                f"torch cannot compile here: {told}; install g++, or leave --compile out"
            ) from error
