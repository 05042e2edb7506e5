"""Laws that every pruning method keeps, checked in seconds on two small networks.

They ship with the package, so that who writes a method can ask ``shrinkbench check FILE``; the project's own
tests walk the same functions over every registered method.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shrinkbench.errors import CannotMeetTargetError, ShrinkbenchError, one_line
from shrinkbench.pruning.context import PruneContext
from shrinkbench.pruning.masks import Masks
from shrinkbench.pruning.method import METHODS, PruningMethod
from shrinkbench.pruning.plugins import load_plugin
from shrinkbench.pruning.prunable import prunable_names
from shrinkbench.pruning.rounds import prune

SHAPE = (3, 8, 8)
_ASKED = (2.2, 1.15)  # compressions; structures that leave much of a network whole reach the second only


class ConvNet(nn.Module):
    """Dense, grouped and depthwise convolutions, batch norm, a residual sum; 8 x 8 images, 4 classes."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.grouped = nn.Conv2d(width, width, 3, padding=1, groups=4)
        self.norm2 = nn.BatchNorm2d(width)
        self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        self.norm3 = nn.BatchNorm2d(width)
        self.pointwise = nn.Conv2d(width, width, 1)
        self.norm4 = nn.BatchNorm2d(width)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = F.relu(self.norm1(self.stem(x)))
        y = F.relu(self.norm2(self.grouped(x)))
        y = F.relu(self.norm3(self.depthwise(y)))
        x = F.relu(self.norm4(self.pointwise(y)) + x)
        logits: Tensor = self.fc(self.drop(x.mean((2, 3))))
        return logits


class ToyBlock(nn.Module):
    """One encoder block; its attention returns a tuple."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm2 = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens."""
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        added: Tensor = x + self.fc2(F.gelu(self.fc1(self.norm2(x))))
        return added


class ViT(nn.Module):
    """Two encoder blocks on 4 tokens; 8 x 8 images, 4 classes."""

    def __init__(self, width: int = 16, heads: int = 4, hidden: int = 32) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, stride=4)
        self.positions = nn.Parameter(0.02 * torch.randn(1, 4, width))
        self.blocks = nn.Sequential(ToyBlock(width, heads, hidden), ToyBlock(width, heads, hidden))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = self.patches(x).flatten(2).transpose(1, 2) + self.positions
        logits: Tensor = self.head(self.norm(self.blocks(x)).mean(1))
        return logits


NETWORKS: dict[str, Callable[[], nn.Module]] = {"convolutional": ConvNet, "transformer": ViT}


def seeded(make: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """A network with weights from ``seed`` and batch-norm statistics that are not the initial ones."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = make()
        for layer in module.modules():
            if (
                isinstance(layer, nn.BatchNorm2d)
                and layer.running_mean is not None
                and layer.running_var is not None
            ):
                nn.init.uniform_(layer.running_mean, -0.3, 0.3)
                nn.init.uniform_(layer.running_var, 0.5, 1.5)
    return module


def batches(count: int = 2, size: int = 8, seed: int = 1) -> list[tuple[Tensor, Tensor]]:
    """Random images with random classes."""
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(size, *SHAPE, generator=generator), torch.randint(0, 4, (size,), generator=generator))
        for _ in range(count)
    ]


class NotApplicableError(ShrinkbenchError):
    """The method refuses the network, in a sentence that says what to do."""


class Breach(Exception):  # noqa: N818 - no error of the person who reads it
    """A law that a method breaks, and how."""


def _decide(
    method: PruningMethod, module: nn.Module, compression: float, *, seed: int = 0, **options: Any
) -> Masks:
    """Masks by ``method`` at once; ``NotApplicableError`` where it refuses the network."""
    amount: dict[str, Any] = {"compression": compression} if method.amount is None else {}
    options = {"batches": batches(2, 4), **amount, **options}
    generator = torch.Generator().manual_seed(seed)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return prune(module, method, generator=generator, one_shot=True, **options)
    except CannotMeetTargetError:
        raise
    except ShrinkbenchError as error:
        raise NotApplicableError(str(error)) from None


def kept_parameters(module: nn.Module, masks: Masks) -> int:
    """Parameters of the whole network that the masks keep."""
    return sum(p.numel() for p in module.parameters()) - (masks.total - masks.kept)


def largest_unit(method: PruningMethod, module: nn.Module, shape: tuple[int, ...] = SHAPE) -> int:
    """Weights in the largest unit of the method's structure (1 for single weights)."""
    ctx = PruneContext(module, prunable_names(module, input_shape=shape), input_shape=shape)
    groups = method.structure.group(ctx, ctx.weights).units.values()
    return max(int(u.size.max()) if isinstance(u.size, Tensor) else u.size for u in groups)


def meet_budget(method: PruningMethod, make: Callable[[], nn.Module], compression: float) -> None:
    """As many parameters stay as were asked for, up to one unit; every prunable weight has a mask."""
    if method.amount is not None:
        raise NotApplicableError("the method has an amount of its own")
    module = seeded(make)
    masks = _decide(method, module, compression)
    unmasked = sorted(set(prunable_names(module, input_shape=SHAPE)) - masks.keys())
    if unmasked:
        raise Breach(f"the prunable weight {unmasked[0]} has no mask")
    kept, target = kept_parameters(module, masks), sum(p.numel() for p in module.parameters()) / compression
    if not method.allocation.exact:
        met = abs(kept - target) < 5 * (masks.total / 4) ** 0.5
    elif method.structure.name == "weights" or method.structure.pattern:
        met = abs(kept - target) <= 0.5
    else:
        met = target - largest_unit(method, module) < kept <= target + 0.5
    if not met:
        raise Breach(f"{kept:,} parameters stay, and compression {compression:g} keeps {target:,.1f}")


def keep_masks_nested(method: PruningMethod, make: Callable[[], nn.Module], compression: float) -> None:
    """What an earlier round removed does not come back, though the weights have changed in between."""
    module, masks = seeded(make), None
    for iteration, asked in enumerate((1 + (compression - 1) / 2, compression)):
        new = _decide(method, module, asked, seed=iteration, masks=masks, iteration=iteration)
        if masks is not None and not new.within(masks):
            raise Breach("weights that the first round removed are kept by the second")
        masks = new
        masks.apply(module)
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(iteration))
                parameter.add_(0.02 * noise * masks.get(name, True))


class Loader:
    """Draws from the global random state when it is read, as torch's own loader does."""

    def __iter__(self) -> Any:
        torch.rand(3)
        return iter(batches(2, 4))


def leave_no_trace(method: PruningMethod, make: Callable[[], nn.Module], compression: float) -> None:
    """Weights, buffers, modes, hooks, gradients, switches and the global random state are as before."""
    module = seeded(make)
    module.train()
    next(module.children()).eval()
    module(batches(1)[0][0]).sum().backward()
    before = _photograph(module)
    refusal = None
    try:
        _decide(method, module, compression, batches=Loader())
    except ShrinkbenchError as error:  # that leaves no trace either
        refusal = error
    after = _photograph(module)
    changed = [aspect for aspect in before if not _same(before[aspect], after[aspect])]
    if changed:
        raise Breach(f"changed are the network's {', '.join(changed)}")
    if refusal is not None:
        raise refusal


def repeat(method: PruningMethod, make: Callable[[], nn.Module], compression: float) -> None:
    """One seed gives the same masks and weights again, whatever the global random state is."""
    module = seeded(make)
    first = _decide(method, module, compression, seed=1)
    with torch.random.fork_rng():
        torch.manual_seed(12345)
        again = _decide(method, module, compression, seed=1)
    if not first.equal(again) or not _same(first.new_weights, again.new_weights):
        raise Breach("the same seed gives other masks; draw with ctx.uniform, which follows the run's seed")


def say_what_is_needed(method: PruningMethod, make: Callable[[], nn.Module], compression: float) -> None:
    """A method that does not need data runs without; one that does not need labels takes no notice of them."""
    module = seeded(make)
    if "data" not in method.needs_to_decide:
        try:
            _decide(method, module, compression, batches=None, input_shape=SHAPE)
        except NotApplicableError as error:
            _decide(method, module, compression)  # it refuses the network anyway
            raise Breach(f'without data it says: {error}; add needs=("data",)') from None
    elif "labels" not in method.needs_to_decide:
        data = batches(2, 4)
        changed = [(x, torch.zeros_like(y)) for x, y in data]
        by_one, by_other = (_decide(method, module, compression, batches=d) for d in (data, changed))
        if not by_one.equal(by_other):
            raise Breach('masks follow the labels; add needs=("data", "labels")')


def leave_a_network(method: PruningMethod, make: Callable[[], nn.Module], compression: float) -> None:
    """Pruned weights are zero, and outputs stay finite."""
    module = seeded(make).eval()
    masks = _decide(method, module, compression)
    masks.apply(module)
    parameters = dict(module.named_parameters(remove_duplicate=False))
    if any(bool(parameters[name][~mask].any()) for name, mask in masks.items()):
        raise Breach("a pruned weight is not zero")
    with torch.no_grad():
        if not bool(module(batches(1)[0][0]).isfinite().all()):
            raise Breach("the pruned network's outputs are not finite")


Law = Callable[[PruningMethod, Callable[[], nn.Module], float], None]
LAWS: dict[str, Law] = {
    "the budget is met": meet_budget,
    "masks are nested over rounds": keep_masks_nested,
    "the network is left untouched": leave_no_trace,
    "one seed gives one outcome": repeat,
    "needs are true": say_what_is_needed,
    "there is a network for it, which works": leave_a_network,
}


Outcome = Literal["passed", "failed", "not applicable"]


@dataclass(frozen=True, kw_only=True)
class LawFinding:
    """What came of one law for one method; ``reason`` says why it failed or does not apply."""

    method: str
    law: str
    outcome: Outcome
    reason: str = ""


def check(*subjects: Path | str | PruningMethod) -> tuple[LawFinding, ...]:
    """Check every law for the methods: a plug-in's path, methods' names, or methods themselves.

    A path ends in ``.py``; it is code and is run. Raises ``ShrinkbenchError`` where it cannot be loaded, or
    registers no method.
    """
    methods = [method for subject in subjects for method in _methods_of(subject)]
    return tuple(_find(method, law, keeps) for method in methods for law, keeps in LAWS.items())


def _methods_of(subject: Path | str | PruningMethod) -> list[PruningMethod]:
    if isinstance(subject, PruningMethod):
        return [subject]
    if isinstance(subject, str) and not subject.endswith(".py"):
        return [METHODS.get(subject)]
    methods = [METHODS.get(name) for name in load_plugin(subject) if name in METHODS]
    if not methods:
        raise ShrinkbenchError(f"{subject} registers no pruning method, so there is nothing to check")
    return methods


def _find(method: PruningMethod, law: str, keeps: Law) -> LawFinding:
    """The law on both networks: it fails where it fails on one, and applies where it applies to one."""
    refusals, passed = [], False
    for kind, make in NETWORKS.items():
        try:
            _keep_at_some_target(method, make, keeps)
            passed = True
        except (NotApplicableError, CannotMeetTargetError) as error:
            refusals.append(f"{kind}: {error}")
        except Breach as breach:
            return LawFinding(method=method.name, law=law, outcome="failed", reason=f"{kind} network: {breach}")
        except Exception as error:
            reason = one_line(f"{kind} network: it raises {type(error).__name__}: {error}")
            return LawFinding(method=method.name, law=law, outcome="failed", reason=reason)
    if passed:
        return LawFinding(method=method.name, law=law, outcome="passed")
    # A method without a network is none; that is said once.
    outcome: Outcome = "failed" if keeps is leave_a_network and method.amount is None else "not applicable"
    each = 290 // len(refusals)
    reason = "; ".join(one_line(refusal, each) for refusal in refusals)
    return LawFinding(method=method.name, law=law, outcome=outcome, reason=reason)


def _keep_at_some_target(method: PruningMethod, make: Callable[[], nn.Module], keeps: Law) -> None:
    most, least = _ASKED
    try:
        keeps(method, make, most)
    except CannotMeetTargetError:
        keeps(method, make, least)


def _photograph(module: nn.Module) -> dict[str, Any]:
    return {
        "weights and buffers": {n: t.clone() for n, t in module.state_dict().items()},
        "modes": [child.training for child in module.modules()],
        "hooks": [
            len(c._forward_hooks) + len(c._forward_pre_hooks) + len(c._backward_hooks) for c in module.modules()
        ],
        "gradients": {n: None if p.grad is None else p.grad.clone() for n, p in module.named_parameters()},
        "trainable parameters": [p.requires_grad for p in module.parameters()],
        "tensors in place": [(id(p), p.data_ptr(), p._version) for p in module.parameters()],
        "random state": torch.get_rng_state(),
        "switches": (torch.is_grad_enabled(), torch.backends.mha.get_fastpath_enabled()),
    }


def _same(a: object, b: object) -> bool:
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and torch.equal(a, b)
    if isinstance(a, Mapping):
        return isinstance(b, Mapping) and a.keys() == b.keys() and all(_same(a[k], b[k]) for k in a)
    return a == b
