"""How data flows between the weighted layers of a network, seen on one forward pass without data.

From it follow: the order of layers, the batch norm behind a convolution, which linear layers are the two
halves of a perceptron, which projections belong to an attention, and which layers form a residual branch.
No name of a module or attribute is looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from shrinkbench.network.following import Call
from shrinkbench.network.inputs import Example
from shrinkbench.network.probe import Trace, trace
from shrinkbench.network.weights import is_transposed_linear, layer_of, weight_parameters
from shrinkbench.network.zeros import storage_id

_BATCH_NORMS = frozenset(
    {
        "native_batch_norm",
        "_native_batch_norm_legit",
        "_native_batch_norm_legit_no_training",
        "_batch_norm_no_update",
        "batch_norm",
        "cudnn_batch_norm",
    }
)


@dataclass(frozen=True)
class Step:
    """One weighted product: ``sources`` are the products whose results it reads.

    ``head_size`` is the width of one attention head where the products are those of an attention.
    """

    parameter: str
    sources: frozenset[str]
    linear: bool
    head_size: int | None = None


@dataclass(frozen=True)
class Flow:
    """Weighted products in order of execution (a reused layer occurs as often as it runs), and more.

    ``batch_norms`` maps a weight to the scale of the batch norm behind it; ``branches`` are the weights of
    each residual branch that runs beside a shortcut, disjoint; ``projections`` the weights that lie on such a
    shortcut alone; ``logits`` the weights that make the output.
    """

    steps: tuple[Step, ...]
    batch_norms: Mapping[str, str]
    branches: tuple[frozenset[str], ...]
    projections: frozenset[str]
    logits: frozenset[str]

    @property
    def order(self) -> tuple[str, ...]:
        """Each weight once, in order of first use."""
        return tuple(dict.fromkeys(step.parameter for step in self.steps))

    def consumers(self, parameter: str) -> frozenset[str]:
        """The weights that multiply what ``parameter`` produced."""
        return frozenset(step.parameter for step in self.steps if parameter in step.sources)


@dataclass(frozen=True)
class ProjectedHeads:
    """Attention whose queries, keys and values are made by a weight each, ``sources`` in this order or another.

    ``units`` are the heads of keys and values; the query heads that read one are those that follow one another.
    """

    sources: tuple[str, ...]
    output: str
    units: int


def projected_heads(flow: Flow, weights: Mapping[str, Tensor]) -> tuple[ProjectedHeads, ...]:
    """Every attention of three projections and an output among ``weights``, by shapes alone.

    Queries are as wide as what the output reads; keys and values are as wide as each other, by a divisor.
    """
    found: dict[str, ProjectedHeads] = {}
    for step in flow.steps:
        if step.head_size is None or step.parameter in found or len(step.sources) != 3:
            continue
        if not {step.parameter, *step.sources} <= weights.keys():
            continue
        sources = sorted(step.sources, key=lambda name: (-len(weights[name]), list(weights).index(name)))
        rows = [len(weights[name]) for name in sources]
        width = weights[step.parameter].shape[-1]
        fits = (
            rows[0] == width and rows[1] == rows[2] and width % rows[1] == 0 and rows[1] % step.head_size == 0
        )
        if fits and all(weights[name].ndim == 2 for name in (*sources, step.parameter)):
            found[step.parameter] = ProjectedHeads(tuple(sources), step.parameter, rows[1] // step.head_size)
    return tuple(found.values())


class _Reader:
    """Notes steps, batch norms and sums; ancestry and head sizes are followed through storages."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.batch_norms: dict[str, str] = {}
        self.branches: dict[frozenset[str], frozenset[str]] = {}  # with the weights on the shortcut beside
        self._ancestors: dict[int, frozenset[str]] = {}
        self._heads: dict[int, int | None] = {}

    def __call__(self, call: Call) -> None:
        # Only of data: a constant may have the address of data that is gone.
        ids = [storage_id(t) for t, owner in zip(call.inputs, call.owners, strict=True) if owner == ""]
        head = next((self._heads[i] for i in ids if self._heads.get(i) is not None), None)
        ancestors = frozenset[str]().union(*(self._ancestors.get(i, frozenset()) for i in ids))
        if call.parameter is not None:
            linear = call.function != "convolution"
            self.steps.append(Step(call.parameter, call.sources, linear, head))
            ancestors, head = ancestors | {call.parameter}, None
        elif call.function in ("bmm", "baddbmm"):
            head = call.outputs[0].shape[-1]
        elif call.function in _BATCH_NORMS:
            self._note_batch_norm(call)
        elif call.function in ("add", "add_"):
            self._note_sum(call)
        for tensor in call.outputs:
            self._ancestors[storage_id(tensor)] = ancestors
            self._heads[storage_id(tensor)] = head

    def _note_batch_norm(self, call: Call) -> None:
        scale = call.owners[1] if len(call.owners) > 1 else None
        if scale and len(call.sources) == 1:
            self.batch_norms.setdefault(next(iter(call.sources)), scale)

    def _note_sum(self, call: Call) -> None:
        data = [t for t, owner in zip(call.inputs, call.owners, strict=True) if owner == ""]
        if len(data) != 2 or data[0].shape != data[1].shape:
            return
        left, right = (self._ancestors.get(storage_id(t), frozenset()) for t in data)
        # The branch is the side with more layers of its own; the other is an identity or a projection.
        shorter, longer = sorted((left - right, right - left), key=len)
        if len(shorter) < len(longer):
            self.branches.setdefault(longer, shorter)


def read_flow(module: nn.Module, example: Example) -> Flow:
    """The flow of ``module`` for one input, of ``example`` or of that shape."""
    return trace_flow(module, example)[0]


def trace_flow(module: nn.Module, example: Example) -> tuple[Flow, Trace]:
    """The flow, and all that was seen of the same pass."""
    readers: list[_Reader] = []

    def watch() -> _Reader:
        readers.append(_Reader())
        return readers[-1]

    traced = trace(module, example, watch=watch)
    reader = readers[-1]
    branches: list[frozenset[str]] = []
    for branch in sorted(reader.branches, key=len):
        if not any(branch & other for other in branches):
            branches.append(branch)
    first = {step.parameter: i for i, step in reversed(list(enumerate(reader.steps)))}
    branches.sort(key=lambda branch: min(first[name] for name in branch))
    beside = frozenset[str]().union(*(reader.branches[branch] for branch in branches))
    return Flow(tuple(reader.steps), reader.batch_norms, tuple(branches), beside, traced.logits), traced


def projections(module: nn.Module, example: Example) -> frozenset[str]:
    """Weights that lie on a shortcut: what brings the input of a residual branch to the shape of its output.

    They are what soft filter pruning leaves whole on ImageNet (``downsample`` in torchvision's networks).
    Shortcuts without weights have none.
    """
    return read_flow(module, example).projections


@dataclass(frozen=True)
class Geometry:
    """How the tensor of a weight is laid out."""

    groups: int = 1
    transposed: bool = False

    def rows(self, tensor: Tensor) -> Tensor:
        """``tensor`` with one row per output: (outputs, inputs per group, *kernel)."""
        if not self.transposed:
            return tensor
        inputs, outputs, *kernel = tensor.shape  # per group: (inputs / groups, outputs)
        split = tensor.reshape(self.groups, inputs // self.groups, outputs, *kernel)
        return split.transpose(1, 2).reshape(self.groups * outputs, inputs // self.groups, *kernel)

    def restore(self, rows: Tensor) -> Tensor:
        """The inverse of :meth:`rows`."""
        if not self.transposed:
            return rows
        outputs, inputs, *kernel = rows.shape
        split = rows.reshape(self.groups, outputs // self.groups, inputs, *kernel)
        return split.transpose(1, 2).reshape(self.groups * inputs, outputs // self.groups, *kernel)


def read_geometry(module: nn.Module) -> dict[str, Geometry]:
    """Geometry of the weights of convolutions, and of linear layers that are transposed; others are plain."""
    layers = {name: module.get_submodule(layer_of(name)) for name in weight_parameters(module)}
    convolutions = {
        name: Geometry(layer.groups, layer.transposed)
        for name, layer in layers.items()
        if isinstance(layer, nn.modules.conv._ConvNd)
    }
    turned = {name: Geometry(transposed=True) for name, layer in layers.items() if is_transposed_linear(layer)}
    return convolutions | turned
