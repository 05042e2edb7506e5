"""The proof of each group of coupled channels: a network without some computes what zeroing them gives.

torch-pruning's graph is a guess about networks whose code it does not read. Here every group is cut on a copy
of the network whose parameters, constants and statistics are drawn at random, in double precision: a zero or a
saturated output of the network itself hides nothing. All groups are cut at once; where an output differs,
halves of them are. What no output shows is not proven either. What a gate opens or closes is found with other
values: the network's own, negative ones, and switches the other way.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from shrinkbench.network.cutting import cut
from shrinkbench.network.groups import Group
from shrinkbench.network.inputs import Example, Inputs
from shrinkbench.network.made_values import other_values, random_values
from shrinkbench.network.probe import floating_leaves
from shrinkbench.network.weights import copy_of, in_mode

UNSEEN = "no output shows what they do, so a wrong cut would not be noticed"
OUTPUT = "they are part of an output"
STUCK = "the network does not run without some of them"
CHANGED = "removing some changes the outputs: what mixes or counts them is no layer that torch-pruning knows"
IN_TRAINING = "a part that runs in training alone reads them"

_GAINS = (1.0, 0.5, 2.0)  # of the random weights, in turn until every group's influence has been seen
_CHANCE = frozenset({
    *("rand", "rand_like", "randn", "randn_like", "uniform", "uniform_", "normal", "normal_"),
    *("bernoulli", "bernoulli_", "normal_functional", "exponential_"),
})  # fmt: skip
_MANY_INPUTS = 20_000  # numbers in one input, above which two of them are shown, else four


def find_unsound(
    module: nn.Module, groups: Iterable[Group], example: Example, *, in_training: bool
) -> dict[str, str]:
    """Layer -> why the units of its group have to stay, for those whose removal is not proven right.

    ``in_training`` adds a pass as in training to the evaluation, for networks of which parts run there alone.
    """
    reasons: dict[str, str] = {}
    tested = [group for group in groups if group.units > 1]
    unseen = {group.layer: _matrices(module, group) for group in tested}
    for seed, gain in enumerate(_GAINS):
        if not any(names for layer, names in unseen.items() if layer not in reasons):
            break
        choices = _choose(tested, seed)
        drawn = random_values(module, seed, gain)
        for choice in choices:
            while left := [g for g in tested if g.layer not in reasons and (seed == 0 or unseen[g.layer])]:
                look = any(unseen[group.layer] for group in left)
                try:
                    bench = _Bench(copy_of(drawn), left, choice)
                    bench.run(_inputs(bench.module, example, seed), in_training=in_training, look=look)
                except Exception as error:  # whatever a network's own code raises
                    reason = f"the network cannot be run on random values ({_first_line(error)})"
                    return reasons | {group.layer: reason for group in left}
                if not bench.finite:
                    break
                found = bench.unsound(left)
                reasons |= found
                if not found:
                    for group in left:
                        unseen[group.layer] -= bench.seen(group)
                    break
    for drawn in other_values(module):
        left = [g for g in tested if g.layer not in reasons]
        inputs = _inputs(drawn, example, 0)
        reasons |= _unsound_by(drawn, left, _choose(left, 0)[1], inputs, in_training=in_training)
    return reasons | {layer: UNSEEN for layer, names in unseen.items() if names and layer not in reasons}


def differs_in_training(module: nn.Module, example: Example) -> bool:
    """Whether a pass as in training takes other steps than an evaluation, but for what torch's layers do."""
    still = random_values(module, 0, 1.0)
    inputs = _inputs(still, example, 0)
    own = [child for child in still.modules() if type(child).__module__.startswith("torch.nn.modules.")]
    try:
        expected = _run(in_mode(still, training=False), inputs)
        still.train()
        for child in own:
            child.training = False  # those inside are asked for themselves
        found = _run(still, inputs)
    except Exception:  # whatever a network's own code raises
        return False
    return expected.steps != found.steps or len(expected.leaves) != len(found.leaves)


def _unsound_by(
    drawn: nn.Module,
    groups: Sequence[Group],
    choice: Mapping[str, Tensor],
    inputs: Inputs,
    *,
    in_training: bool,
) -> dict[str, str]:
    """Layer -> why its units have to stay with the values of ``drawn``, which the network may not run with."""
    if not groups:
        return {}
    try:
        bench = _Bench(drawn, groups, choice)
        before = [p._version for p in bench.module.parameters()]
        bench.run(inputs, in_training=in_training, look=False)
    except Exception:  # whatever a network's own code raises
        return {}
    unchanged = before == [p._version for p in bench.module.parameters()]
    return bench.unsound(groups) if bench.finite and unchanged else {}


def _matrices(module: nn.Module, group: Group) -> set[str]:
    """The weights whose influence has to be seen; that of a bias may be cancelled by a norm behind it."""
    parameters = dict(module.named_parameters())
    return {
        s.tensor
        for s in group.slices
        if s.role != "carries" and s.tensor in parameters and parameters[s.tensor].dim() > 1
    }


def _choose(groups: Sequence[Group], seed: int) -> list[dict[str, Tensor]]:
    """Three random choices of units to remove: one of each group, and twice about half.

    Of the halves one has an odd number: what swaps channels in pairs (a flip, the two halves of a gate) may map
    an even number of them to itself. No tensor loses all of its channels.
    """
    generator = torch.Generator().manual_seed(seed)
    choices: list[dict[str, Tensor]] = [{}, {}, {}]
    for group in groups:
        half = group.units // 2
        for choice, count in zip(choices, (1, half - (half % 2 == 0 and half > 1), half), strict=True):
            gone = torch.zeros(group.units, dtype=torch.bool)
            gone[torch.randperm(group.units, generator=generator)[:count]] = True
            for units in (piece.unit[piece.unit >= 0] for piece in group.slices):
                if len(units) and bool(gone[units].all()):
                    gone[units[0]] = False
            choice[group.layer] = gone
    return choices


class _Bench:
    """A random network in which, from now on, the units ``gone`` of every group are zero."""

    def __init__(self, module: nn.Module, groups: Sequence[Group], gone: Mapping[str, Tensor]) -> None:
        self._gone = gone
        self.module = module
        tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        with torch.no_grad():
            for group in groups:
                for piece in group.slices:
                    at = gone[group.layer][piece.unit] & (piece.unit >= 0)
                    tensor = tensors[piece.tensor]
                    tensor.index_fill_(piece.dim, at.nonzero().flatten().to(tensor.device), 0)
        self._influence: dict[str, Tensor] = {}
        self._expected: list[Tensor] = []
        self._expected_in_training: list[Tensor] = []

    def run(self, inputs: Inputs, *, in_training: bool, look: bool) -> None:
        """Compute what is to be reached and, with ``look``, what the outputs show of each weight."""
        self._inputs = inputs
        self._read_outputs(gradients=look, in_training=in_training)
        if look:
            self._read_influence()
        self._expected = [leaf.detach() for leaf in self._expected]

    def _read_outputs(self, *, gradients: bool, in_training: bool) -> None:
        """What the network computes, in evaluation and in training, and how precisely."""
        precision = _Precision()
        try:
            with precision:
                self._expected = _outputs(self.module, self._inputs, gradients=gradients)
        except (RuntimeError, TypeError):  # no doubles on this device, or a cast inside the network
            self.module.float()
            self._inputs = self._inputs.to(self._inputs.device, torch.float32)
            self._expected = _outputs(self.module, self._inputs, gradients=gradients)
            precision.low = True
        self._tolerance = 1e-4 if precision.low else 1e-9
        self.finite = all(bool(leaf.isfinite().all()) for leaf in self._expected)
        if not in_training:
            return
        try:
            self._expected_in_training = _outputs(self.module, self._inputs, training=True)
        except Exception:  # the whole network does not run in training on such an input either
            return
        if not all(bool(leaf.isfinite().all()) for leaf in self._expected_in_training):
            self._expected_in_training = []

    def _read_influence(self) -> None:
        """How much of the outputs each weight has a say in."""
        parameters = {n: p for n, p in self.module.named_parameters() if p.requires_grad}
        with torch.enable_grad():
            loss = sum((_spread(leaf) for leaf in self._expected if leaf.requires_grad), torch.zeros(()))
        if loss.requires_grad:
            loss.backward()  # reentrant checkpoints know no other way
            for name, parameter in parameters.items():
                if parameter.grad is not None:
                    self._influence[name] = parameter.grad.mul_(parameter.detach()).abs_()
                    parameter.grad = None

    def seen(self, group: Group) -> set[str]:
        """The weights of the group that, at the units which stay, have a say in some output."""
        found = set()
        for piece in group.slices:
            if piece.tensor in self._influence:
                influence = self._influence[piece.tensor].movedim(piece.dim, 0)
                here = influence.reshape(len(influence), -1).sum(1).cpu()[piece.unit >= 0]
                if len(here) and float(here.max()) > 10 * self._tolerance:
                    found.add(piece.tensor)
        return found

    def unsound(self, groups: Sequence[Group]) -> dict[str, str]:
        """Why the groups that cannot be cut cannot be; all at once, then by halving."""
        reason = self._try(groups)
        if reason is None:
            return {}
        if len(groups) == 1:
            return {groups[0].layer: reason}
        middle = len(groups) // 2
        found = self.unsound(groups[:middle]) | self.unsound(groups[middle:])
        return found or {group.layer: reason for group in groups}  # right one by one, and not together

    def _try(self, groups: Sequence[Group]) -> str | None:
        """Cut units of ``groups``, and say what is wrong with it."""
        kept: dict[str, dict[int, Tensor]] = {}
        heads = {}
        for group in groups:
            gone = self._gone[group.layer]
            if group.attention is not None:
                heads[group.attention] = group.heads_left(gone)
            for piece in group.slices:
                stays = ~gone[piece.unit] | (piece.unit < 0)
                dims = kept.setdefault(piece.tensor, {})
                dims[piece.dim] = dims[piece.dim] & stays if piece.dim in dims else stays
        positions = {
            tensor: {dim: stays.nonzero().flatten().tolist() for dim, stays in dims.items()}
            for tensor, dims in kept.items()
        }
        try:
            small = cut(_with_parameters_of(self.module), positions, heads)
            found = _outputs(small, self._inputs)
        except Exception:  # shapes that no longer fit together, in the network's own code
            return STUCK
        reason = self._compare(self._expected, found)
        if reason is None and self._expected_in_training:
            try:
                found = _outputs(small, self._inputs, training=True)
            except Exception:
                return IN_TRAINING
            reason = self._compare(self._expected_in_training, found) and IN_TRAINING
        return reason

    def _compare(self, expected: Sequence[Tensor], found: Sequence[Tensor]) -> str | None:
        if [leaf.shape for leaf in expected] != [leaf.shape for leaf in found]:
            return OUTPUT
        for one, other in zip(expected, found, strict=True):
            if one.numel() and not float((one - other).abs().max()) <= self._tolerance * _scale(one):
                return CHANGED
        return None


class _Certain(TorchDispatchMode):
    """Random numbers are all alike, however many are drawn, and what drops some of its input drops none."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's own
        self.steps: list[str] = []  # names of the operations, in order
        self.leaves: list[Tensor] = []  # what the network gave

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        name = func._overloadpacket.__name__
        self.steps.append(name)
        if name == "native_dropout":
            return args[0].clone(), torch.ones_like(output[1])
        return output.fill_(1 if name.startswith("bernoulli") else 0.7) if name in _CHANCE else output


class _Precision(TorchDispatchMode):
    """Whether values in double precision are cast to fewer digits."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's own
        self.low = False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        if func._overloadpacket.__name__ == "_to_copy" and args[0].dtype == torch.float64:
            self.low = self.low or (output.is_floating_point() and output.dtype != torch.float64)
        return output


def _with_parameters_of(module: nn.Module) -> nn.Module:
    """A copy that has the same parameters, and all else for itself."""
    return copy_of(module, sharing=module.parameters())


def _outputs(
    module: nn.Module, inputs: Inputs, *, training: bool = False, gradients: bool = False
) -> list[Tensor]:
    """Every floating tensor that the network returns; the same random numbers each time, should it draw any.

    What a pass leaves in the network (biases kept for the next one, a power iteration's vectors) is forgotten.
    """
    module = _with_parameters_of(module)
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.random.fork_rng(devices=[]), torch.set_grad_enabled(gradients):
            # What seeds all devices takes down, for those that have not begun yet, who has asked for it.
            on_cpu = inputs.device.type == "cpu"
            (torch.default_generator.manual_seed if on_cpu else torch.manual_seed)(0)
            return (
                _run(in_mode(module, training=True), inputs).leaves
                if training
                else floating_leaves(inputs.call(in_mode(module, training=False)))
            )
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)


def _run(module: nn.Module, inputs: Inputs) -> _Certain:
    """The floating outputs in the modes that the modules are in, where chance has no say."""
    certain = _Certain()
    with certain, torch.no_grad():
        certain.leaves = floating_leaves(inputs.call(module))
    return certain


def _spread(leaf: Tensor) -> Tensor:
    """One number to which every element of the output contributes about equally."""
    generator = torch.Generator().manual_seed(0)
    signs = torch.randn(leaf.shape, generator=generator, dtype=torch.float64).to(leaf)
    return ((leaf * signs).sum() / (_scale(leaf) * math.sqrt(max(leaf.numel(), 1)))).cpu()


def _scale(leaf: Tensor) -> float:
    return max(float(leaf.detach().abs().max()), 1e-12) if leaf.numel() else 1.0


def _inputs(module: nn.Module, example: Example, seed: int) -> Inputs:
    """A few random inputs of two sizes: what rectifiers cut off for some of them shows for others."""
    like = next(module.parameters(), torch.empty(0))
    one = Inputs.of(example).part(0, 1)
    rows = 2 if sum(t.numel() for t in one.tensors) > _MANY_INPUTS else 4
    return Inputs.of(example).drawn(rows, seed=seed, dtype=torch.float64, scale=3).to(like.device)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:80]
