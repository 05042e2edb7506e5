"""Any method in anybody's training loop: attached to an optimizer, whose steps it follows."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.metrics.size import count_kept, count_parameters
from shrinkbench.network.calling import WhenCalled
from shrinkbench.network.inputs import Example, given_example
from shrinkbench.network.view import Batches, Loss
from shrinkbench.network.weights import hooks_on, require_network
from shrinkbench.pruning.amounts import amount_of
from shrinkbench.pruning.constraining import constraints_for
from shrinkbench.pruning.context import PruneContext
from shrinkbench.pruning.during_training import hook_for
from shrinkbench.pruning.joint_steps import JointSteps
from shrinkbench.pruning.loss_scale import LossScale
from shrinkbench.pruning.masking import prune_once
from shrinkbench.pruning.masks import Masks, Upholder, optimizer_in, require_held
from shrinkbench.pruning.method import METHODS, PruningMethod
from shrinkbench.pruning.moved_weights import MovedWeights
from shrinkbench.pruning.optimizer_steps import require_counted
from shrinkbench.pruning.prunable import prunable_names
from shrinkbench.pruning.pruner_arguments import check_method, source_of, steps_of_epoch
from shrinkbench.pruning.rounds import rounds_of
from shrinkbench.pruning.rounds_in_training import RoundsInTraining
from shrinkbench.pruning.schedules.hook import PruningHook
from shrinkbench.seeds import stream
from shrinkbench.spec import Amount, Compression
from shrinkbench.training.hook import Hook


class Pruner:
    """Prunes ``module`` by a method and its schedule while anybody's loop trains it.

    ``total_steps`` are the optimizer steps of the training; methods that act after epochs (soft pruning, SET)
    need ``steps_per_epoch`` too. How much goes, and within which bounds, is said as for
    :func:`shrinkbench.prune`; ``batches`` is an iterable of batches as there, or draws one from a generator.
    ``seed`` is that of a run: with the same data in the same order, masks are those of a sweep. ``rewound`` are
    the weights to which a method that rewinds (a state dict of an early epoch) goes back after each round; the
    learning rate is the caller's throughout.

    The network is left alone before :meth:`attach`. Casts and moves of it are followed. Where gradients are
    clipped, scores of gradients see them so. Raises ``ShrinkbenchError`` where a method cannot be
    carried out in one training.

    >>> net = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    >>> pruner = Pruner(net, "gradual_magnitude", compression=2, input_shape=(8,), total_steps=20)
    >>> pruner.attach(optimizer)
    >>> for _ in range(20):
    ...     net(torch.ones(4, 8)).square().sum().backward()
    ...     optimizer.step()
    >>> pruner.finish().kept + 8 + 18  # kept weights, biases and the classifier: half of 90 parameters
    45
    """

    def __init__(
        self,
        module: nn.Module,
        method: str | PruningMethod,
        *,
        total_steps: int,
        steps_per_epoch: int | None = None,
        compression: float | None = None,
        fraction_per_layer: float | None = None,
        channels: float | None = None,
        speedup: float | None = None,
        round_to: int | None = None,
        ignore: Sequence[str] = (),
        max_ratio: float | None = None,
        batches: Batches | Callable[[torch.Generator], Batches] | None = None,
        input_shape: Example | None = None,
        example_inputs: Example | None = None,
        seed: int = 0,
        rewound: Mapping[str, Tensor] | None = None,
        prune_classifier: bool = False,
        prune_biases: bool = False,
        prune_embeddings: bool = False,
        loss: Loss = F.cross_entropy,
    ) -> None:
        self._module = require_network(module)
        self._method = METHODS.get(method) if isinstance(method, str) else method
        self._amount = amount_of(
            self._method,
            compression=compression,
            fraction_per_layer=fraction_per_layer,
            channels=channels,
            speedup=speedup,
        )
        bounds = constraints_for(
            self._method, self._amount, round_to=round_to, ignore=ignore, max_ratio=max_ratio
        )
        self._total, self._seed, self._rewound = total_steps, seed, rewound
        self._per_epoch = steps_of_epoch(self._method, total_steps, steps_per_epoch)
        check_method(self._method, rewound)
        given = given_example(input_shape, example_inputs)
        self._draw, shape = source_of(batches, self._method.batch_count, seed)
        self._settings: dict[str, Any] = {
            "input_shape": shape if given is None else given,
            "prune_classifier": prune_classifier,
            "prune_biases": prune_biases,
            "prune_embeddings": prune_embeddings,
            "constraints": bounds,
            "loss": loss,
        }
        self._hook: PruningHook | RoundsInTraining | None = None
        self._moved = MovedWeights(module, self._method.name)
        self._optimizers: tuple[Optimizer, ...] = ()
        self._held: dict[str, nn.Parameter] = {}  # what can be pruned and was seen in an optimizer
        self._scale: LossScale | None = None
        self._loaded: dict[str, Any] | None = None
        self._step = 0
        self._steps = JointSteps(before=self._before, ready=self._after_backward, after=self._after)
        self._handles: list[RemovableHandle] = []
        self._placed: list[tuple[torch.device, torch.dtype]] = []

    @property
    def masks(self) -> Masks:
        """The masks of now; before :meth:`attach`, none."""
        return Masks({}) if self._hook is None else self._hook.masks

    @property
    def module(self) -> nn.Module:
        """The network that is pruned."""
        return self._module

    @property
    def step(self) -> int:
        """Optimizer steps so far."""
        return self._step

    @property
    def is_done(self) -> bool:
        """Whether all steps have been taken, so that masks are final."""
        return self._hook is not None and self._step >= self._total

    def attach(self, optimizer: Optimizer, *others: Optimizer, scaler: object = None) -> None:
        """Follow the steps of ``optimizer`` from now on, in place of an earlier one; may prune at once.

        ``others`` move the rest of the network, where one optimizer does not hold it all: a step is one of
        each, on gradients computed before the first, and is over once all have moved or the network is called
        again. ``scaler`` is the ``GradScaler`` of the loss: methods that train gates or noise beside the
        weights need it (an optimizer wrapped by Accelerate brings its own). Raises ``ShrinkbenchError`` where
        weights that can be pruned and train are in none of the optimizers.
        """
        inner, *beside = (optimizer_in(each) for each in (optimizer, *others))
        require_counted(inner, *beside)
        require_held(self._module, prunable := self._prunable(), inner, *beside)
        self._detach()
        self._optimizers, self._held = (inner, *beside), {n: self._module.get_parameter(n) for n in prunable}
        self._placed_hooks = hooks_on(self._module)
        if self._hook is None:
            self._hook = self._begin()
        self._hook.start(*self._optimizers)
        self._moved.note(beneath=False)
        scaler = getattr(optimizer, "scaler", None) if scaler is None else scaler
        self._scale = LossScale(self._module, self._hook, scaler, method=self._method.name)
        self._handles = [*self._steps.watch(self._module, self._optimizers), *self._scale.watch()]
        called, loaded = (partial(self._hold, how) for how in (Upholder.before_call, Upholder.__call__))
        self._handles.append(self._module.register_forward_pre_hook(WhenCalled(called)))
        self._handles.append(self._module.register_load_state_dict_post_hook(WhenCalled(loaded)))
        if self._step < self._total:
            self._hook.before_step(self._step + 1)
        self._forget_programs()

    def finish(self) -> Masks:
        """Let go of the optimizer, zero what is pruned, and return the final masks.

        Raises ``ShrinkbenchError`` where the schedule has not come to its target.
        """
        self._steps.close()
        hook = self._hook
        kind: Any = type(hook)
        early = hook is not None and kind.settled is not Hook.settled and hook.settled
        if hook is None and self._loaded is not None:
            raise ShrinkbenchError(
                f"a state after {self._step} of {self._total} steps is loaded, and its masks are not in the "
                "network yet; attach(optimizer), then finish"
            )
        if hook is None:
            raise ShrinkbenchError(
                f"this Pruner of '{self._method.name}' is not attached; attach it to the optimizer, then finish"
            )
        if self._step < self._total and not early:
            raise ShrinkbenchError(
                f"'{self._method.name}' has seen {self._step} of {self._total} steps and is not at its target; "
                "attach it and train on, or make a Pruner with fewer total_steps"
            )
        self._require_met(hook.masks)
        self._detach()
        self._forget_programs()
        Masks(dict(hook.masks)).apply(self._module)
        return hook.masks

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values from which a training goes on bit for bit; save the network's beside."""
        self._steps.close()
        state = self._loaded if self._hook is None else self._hook.state_dict()
        return {**self._identity, "step": self._step, "hook": state}

    @property
    def _also_prunable(self) -> dict[str, bool]:
        return {n: self._settings[n] for n in ("prune_classifier", "prune_biases", "prune_embeddings")}

    @property
    def _identity(self) -> dict[str, Any]:
        """What decides masks, apart from the network and its data, by the names of the arguments."""
        settings = self._settings
        return {
            "method": self._method.name,
            **self._amount.model_dump(mode="json"),
            "total_steps": self._total,
            "steps_per_epoch": self._per_epoch,
            "seed": self._seed,
            **settings["constraints"].model_dump(mode="json"),
            **self._also_prunable,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state``, in a Pruner with the same arguments that is not attached yet."""
        if self._hook is not None:
            raise ShrinkbenchError("this Pruner has begun already; load its state before attach()")
        own = self._identity
        lacking = [name for name in (*own, "step", "hook") if name not in state]
        if lacking:
            raise ShrinkbenchError(
                f"this is no state of a Pruner: it lacks '{lacking[0]}'; give state_dict()'s"
            )
        for name, value in own.items():
            if state[name] != value:
                raise ShrinkbenchError(
                    f"the state has {name} = {state[name]}, this Pruner {value}; give the same arguments"
                )
        step, hook = state["step"], state["hook"]
        if type(step) is not int or step < 0 or not isinstance(hook, dict | None):
            raise ShrinkbenchError(f"this is no state of a Pruner: it has step = {step!r}; give state_dict()'s")
        self._loaded, self._step = hook, step

    def _prunable(self) -> tuple[str, ...]:
        settings = self._settings
        return prunable_names(
            self._module,
            input_shape=settings["input_shape"],
            **self._also_prunable,
            ignore=settings["constraints"].ignore,
        )

    def _require_met(self, masks: Masks) -> None:
        """Refuse masks that keep more than a compression asks for, and more by a whole unit."""
        method, amount = self._method, self._amount
        loose = method.allocation.fixed or not method.allocation.exact or self._settings["constraints"].on_units
        if loose or not isinstance(amount, Compression):
            return
        total = count_parameters(self._module)
        kept, asked = count_kept(self._module, masks), total / amount.ratio
        if kept > asked + 0.5 and kept > asked + self._largest_unit():
            raise ShrinkbenchError(
                f"the masks of '{method.name}' keep {kept:,} of {total:,} parameters, and {asked:,.0f} were "
                "asked for: these steps were not those of its schedule; train anew with total_steps steps"
            )

    def _largest_unit(self) -> int:
        ctx = PruneContext(self._module, self._prunable(), input_shape=self._settings["input_shape"])
        groups = self._method.structure.group(ctx, ctx.weights).units.values()
        return max((int(torch.as_tensor(units.size).max()) for units in groups), default=0)

    def _forget_programs(self) -> None:
        """Have torch.compile read the network anew where hooks came or went, for which it does not look."""
        now, dynamo = hooks_on(self._module), sys.modules.get("torch._dynamo")
        if now != self._placed_hooks and dynamo is not None:
            dynamo.reset()
        self._placed_hooks = now

    def _begin(self) -> PruningHook | RoundsInTraining:
        """The hook of the schedule; where a state was loaded, the network keeps the weights it has."""
        if self._loaded is None:
            hook = self._make_hook()
            if isinstance(hook, RoundsInTraining):
                hook.begin()
            return hook
        before = {name: p.detach().clone() for name, p in self._module.named_parameters()}
        hook = self._make_hook()
        try:
            hook.load_state_dict(self._loaded)
        except KeyError as error:
            raise ShrinkbenchError(
                f"the state that is loaded lacks {error} of '{self._method.name}'; give state_dict()'s"
            ) from None
        with torch.no_grad():
            for name, parameter in self._module.named_parameters():
                parameter.copy_(before[name])
        self._loaded = None
        return hook

    def _make_hook(self) -> PruningHook | RoundsInTraining:
        if self._method.schedule.during is not None:
            if self._settings["input_shape"] is None:
                raise ShrinkbenchError(
                    "what the network takes has to be known; give example_inputs=, input_shape= or batches="
                )
            return hook_for(
                self._module,
                self._method,
                amount=self._amount,
                epochs=self._total // self._per_epoch,
                steps_per_epoch=self._per_epoch,
                seed=stream(self._seed, "pruning"),
                batches=self._draw,
                **self._settings,
            )
        where = {name: value for name, value in self._settings.items() if name != "loss"}
        return RoundsInTraining(
            self._module,
            self._method,
            rounds_of(self._module, self._method, self._amount, **where),
            steps=self._total,
            prune=self._prune_round,
            rewound=self._rewound,
        )

    def _prune_round(self, amount: Amount, masks: Masks, number: int) -> Masks:
        def generator(purpose: str) -> torch.Generator:
            return torch.Generator().manual_seed(stream(self._seed, purpose, number))

        return prune_once(
            self._module,
            self._method,
            amount=amount,
            batches=None if self._draw is None else self._draw(generator("scoring-batch")),
            masks=masks,
            generator=generator("scoring"),
            iteration=number,
            **self._settings,
        )

    def _before(self, optimizer: Optimizer) -> bool:
        now, names = dict(self._module.named_parameters(remove_duplicate=False)), {**self._held, **self.masks}
        if any(n not in self._held or now.get(n) is not self._held[n] for n in names):
            require_held(self._module, names, *self._optimizers)  # biases go with channels, layers are replaced
            self._held = {name: now[name] for name in names}
        others = (each for each in self._optimizers if each is not optimizer)
        return self._scale is None or self._scale.take_out(optimizer, *others)

    def _after_backward(self) -> None:
        if self._step < self._total:
            self._moved.require_none()
            self._follow_moves(hook := self._started())
            hook.after_backward(self._step + 1)

    def _after(self) -> None:
        hook = self._started()
        self._step += 1
        self._follow_moves(hook)
        if self._step > self._total:
            hook.upheld = Upholder(self._module, hook.masks)
            hook.upheld()
            self._moved.note(beneath=False)
            return
        hook.upheld = None
        hook.after_step(self._step)
        if self._step % self._per_epoch == 0:
            hook.after_epoch(self._step // self._per_epoch)
        if self._step < self._total:
            hook.before_step(self._step + 1)
        self._moved.note(beneath=hook.beneath)
        self._forget_programs()

    def _hold(self, uphold: Callable[[Upholder], None]) -> None:
        """What wraps an optimizer (Lookahead), or a state that is loaded, moves weights after its step."""
        upheld = self._started().upheld
        if upheld is not None:
            uphold(upheld)

    def _started(self) -> PruningHook | RoundsInTraining:
        assert self._hook is not None  # noqa: S101  hooks of the optimizer are set by attach() alone
        return self._hook

    def _follow_moves(self, hook: PruningHook | RoundsInTraining) -> None:
        """Bring what the hook holds to where the network is, once its tensors have been moved or cast."""
        placed = [(p.device, p.dtype) for p in self._module.parameters()]
        if self._placed and placed != self._placed:
            hook.load_state_dict(hook.state_dict())
        self._placed = placed

    def _detach(self) -> None:
        self._steps.close()
        for handle in self._handles:
            handle.remove()
        self._handles = []
