"""What goes into a network: the arguments of a forward pass as one value, and how a batch is split.

Nothing here is about images. A network may take several tensors, named ones (dictionaries, the batches of
Hugging Face) and whole numbers; what it returns may be any tree of tensors.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from shrinkbench.errors import ShrinkbenchError

TARGETS = ("labels", "label", "targets", "target", "y")
"""Under which of these names a batch that is a dictionary holds what is to come out; the first that it has."""


def map_tensors(function: Callable[[Tensor], Any], tree: Any) -> Any:
    """``tree`` with ``function`` of every tensor in it; a read-only mapping becomes a dictionary."""
    if isinstance(tree, Tensor):
        return function(tree)
    if isinstance(tree, PackedSequence):  # the sizes of its batches are plain numbers to torch
        return tree._replace(data=function(tree.data))
    if isinstance(tree, Mapping):
        new: Any = copy.copy(tree) if isinstance(tree, MutableMapping) else {}
        for key, value in tree.items():
            new[key] = map_tensors(function, value)
        return new
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(map_tensors(function, part) for part in tree))
    if isinstance(tree, list | tuple):
        return type(tree)([map_tensors(function, part) for part in tree])
    if is_dataclass(tree) and not isinstance(tree, type):
        new = copy.copy(tree)
        for item in fields(tree):
            object.__setattr__(new, item.name, map_tensors(function, getattr(tree, item.name)))
        return new
    return tree


def tensors_in(tree: Any) -> list[Tensor]:
    """Every tensor in lists, tuples, mappings and dataclasses, in order."""
    found: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    map_tensors(note, tree)
    return found


@dataclass(frozen=True)
class Inputs:
    """The arguments of one forward pass: ``args`` by place and ``kwargs`` by name, trees of tensors.

    A tensor holds a row for each of ``rows`` examples where its first dimension says so; any other goes with
    every example. A tensor on the meta device stands for any values of its shape and type.

    >>> batch = Inputs.of({"ids": torch.zeros(4, 7, dtype=torch.int64), "mask": torch.ones(4, 7)})
    >>> batch.rows, batch.part(0, 2).kwargs["ids"].shape
    (4, torch.Size([2, 7]))
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, example: Example) -> Inputs:
        """Of a tensor, a tuple (arguments by place), a mapping (by name), or the shape of one float input."""
        if isinstance(example, Inputs):
            return example
        if isinstance(example, Tensor):
            found = cls((example,))
        elif isinstance(example, Mapping):
            found = cls((), dict(example))
        elif not isinstance(example, Sequence) or isinstance(example, str):
            raise ShrinkbenchError(
                f"inputs of type {type(example).__name__} are none that a network could be called with; give a "
                "tensor, a tuple of arguments, a dictionary of named ones, or the shape of one input"
            )
        elif all(isinstance(size, Integral) for size in example):  # numpy's too
            shape = tuple(int(size) for size in example)
            if any(size < 1 for size in shape):
                raise ShrinkbenchError(
                    f"the input shape {shape} has a dimension below 1; give that of one input, without batch "
                    "dimension"
                )
            found = cls((torch.empty((1, *shape), device="meta"),))
        else:
            found = cls(tuple(example))
        first = next(iter(tensors_in((found.args, found.kwargs))), None)
        if first is None or not first.dim():
            raise ShrinkbenchError(
                "the inputs hold no tensor with a first dimension of examples; give tensors with one row for "
                "each example"
            )
        return found

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors, by place first."""
        return tensors_in((self.args, dict(self.kwargs)))

    @property
    def rows(self) -> int:
        """Examples: the first dimension of the first tensor."""
        return len(self.tensors[0])

    @property
    def device(self) -> torch.device:
        """Where the first tensor lies."""
        return self.tensors[0].device

    @property
    def single(self) -> Tensor:
        """The only argument, a tensor; raises ``ShrinkbenchError`` where there is more."""
        if len(self.args) == 1 and not self.kwargs and isinstance(self.args[0], Tensor):
            return self.args[0]
        raise ShrinkbenchError(
            f"this takes a network of one input, and here there is {self}; wrap the network in a module that "
            "takes one tensor"
        )

    @property
    def plain(self) -> Any:
        """As a batch would hold them: one tensor, a tuple, or a dictionary."""
        if self.kwargs:
            return self if self.args else dict(self.kwargs)
        return self.args[0] if len(self.args) == 1 else self.args

    @property
    def signature(self) -> tuple[object, ...]:
        """Everything but the values of tensors, to be compared."""
        tree = map_tensors(lambda t: (tuple(t.shape), str(t.dtype)), (self.args, dict(self.kwargs)))
        return (repr(tree),)

    def __str__(self) -> str:
        return describe(self.plain)

    def map(self, function: Callable[[Tensor], Tensor]) -> Inputs:
        """``function`` of every tensor."""
        return Inputs(map_tensors(function, self.args), map_tensors(function, self.kwargs))

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Inputs:
        """On ``device``, floating tensors as ``dtype`` too; those without values stay without."""
        return self.map(lambda t: _moved(t, torch.device(device), dtype))

    def part(self, start: int, stop: int) -> Inputs:
        """The examples from ``start`` up to ``stop``."""
        rows = self.rows
        return self.map(lambda t: t[start:stop] if _has_rows(t, rows) else t)

    @property
    def fewest(self) -> Inputs:
        """The first example; all where a tensor has no row for each: the first alone may be no input then."""
        rows = self.rows
        shared = any(t.dim() and not _has_rows(t, rows) for t in self.tensors)
        return self if shared else self.part(0, 1)

    def filled(self, value: float) -> Inputs:
        """With ``value`` in place of the values that are not known, on the CPU."""
        return self.map(lambda t: torch.full_like(t, value, device="cpu") if t.is_meta else t)

    def repeated(self, count: int) -> Inputs:
        """``count`` examples, the same in turn where there are not as many."""
        rows = self.rows
        return self.map(lambda t: t[torch.arange(count) % rows] if _has_rows(t, rows) else t)

    def drawn(self, count: int, *, seed: int, dtype: torch.dtype = torch.float32, scale: float = 1.0) -> Inputs:
        """``count`` examples of N(0, 1) values, every second times ``scale``.

        Whole numbers, truth values and floating masks (of 0 and 1, or 0 and large negative numbers) keep the
        values that they have: they are places in a table, lengths or choices, of which not all are valid.
        """
        generator = torch.Generator().manual_seed(seed)
        rows = self.rows

        def draw(tensor: Tensor) -> Tensor:
            if not tensor.is_floating_point() or (not tensor.is_meta and is_mask(tensor)):
                return tensor[torch.arange(count) % rows] if _has_rows(tensor, rows) else tensor
            shape = (count, *tensor.shape[1:]) if _has_rows(tensor, rows) else tensor.shape
            values = torch.randn(shape, generator=generator, dtype=dtype)
            if scale != 1 and values.dim():
                values[1::2] *= scale
            return values if tensor.is_meta else values.to(tensor.device)

        return self.map(draw)

    def call(self, module: nn.Module) -> Any:
        """What ``module`` returns for them."""
        args, kwargs = self.bound(module)
        return module(*args, **kwargs)

    def bound(self, module: nn.Module) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments as ``module`` takes them.

        Named inputs that its forward pass has no such names for go in as one dictionary or, where there is one
        only, as itself.
        """
        kwargs = dict(self.kwargs)
        if not kwargs or self.args:
            return self.args, kwargs
        try:
            inspect.signature(module.forward).bind(**kwargs)
        except TypeError:
            only = next(iter(kwargs.values())) if len(kwargs) == 1 else kwargs
            return (only,), {}
        return (), kwargs


def form_of(inputs: Inputs) -> str:
    """Structure and shapes of ``inputs``, whatever the number of examples and the precision."""
    rows = inputs.rows

    def form(tensor: Tensor) -> tuple[object, ...]:
        per_example = tensor.dim() > 0 and len(tensor) == rows
        kind = "floating" if tensor.is_floating_point() else str(tensor.dtype)
        return (tuple(tensor.shape[1:] if per_example else tensor.shape), kind)

    return repr(map_tensors(form, (inputs.args, dict(inputs.kwargs))))


def range_of(inputs: Inputs) -> str:
    """Which whole numbers go in, in words; a device that has failed is not asked."""
    whole = [t for t in inputs.tensors if not (t.is_floating_point() or t.is_complex()) and t.numel()]
    if not whole or any(t.device.type != "cpu" for t in whole):
        return ""
    lowest, highest = (int(end) for end in whole[0].aminmax())
    return f", numbers {lowest} to {highest}"


def given_example(input_shape: Any, example_inputs: Any) -> Inputs | None:
    """What a caller says the network takes, by one of two arguments; ``None`` where by neither."""
    if input_shape is not None and example_inputs is not None:
        raise ShrinkbenchError("input_shape= and example_inputs= are both given; give one of them")
    found = input_shape if example_inputs is None else example_inputs
    return None if found is None else Inputs.of(found)


def required_example(input_shape: Any, example_inputs: Any) -> Inputs:
    """:func:`given_example`; refused where nothing is said."""
    found = given_example(input_shape, example_inputs)
    if found is None:
        raise ShrinkbenchError(
            "what the network takes has to be known; give example_inputs= (a tensor, a tuple of arguments or a "
            "dictionary of named ones) or input_shape=(channels, height, width)"
        )
    return found


Example = Inputs | Tensor | Mapping[str, Any] | Sequence[Any]
"""What a network may be shown: example inputs, or the shape of one floating input, without batch dimension."""


@dataclass(frozen=True)
class Batch:
    """One batch of data: what goes in, and what is to come out (``None`` where nobody says)."""

    inputs: Inputs
    targets: Any = None

    def __len__(self) -> int:
        return self.inputs.rows

    def __iter__(self) -> Iterator[Any]:
        yield self.inputs.plain
        yield self.targets

    def map(self, function: Callable[[Tensor], Tensor]) -> Batch:
        """``function`` of every tensor."""
        return Batch(self.inputs.map(function), map_tensors(function, self.targets))

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Batch:
        """On ``device``, floating inputs as ``dtype`` too."""
        return Batch(
            self.inputs.to(device, dtype), map_tensors(lambda t: _moved(t, torch.device(device)), self.targets)
        )

    def part(self, start: int, stop: int) -> Batch:
        """The examples from ``start`` up to ``stop``."""
        rows = len(self)
        return Batch(
            self.inputs.part(start, stop),
            map_tensors(lambda t: t[start:stop] if _has_rows(t, rows) else t, self.targets),
        )

    def parts(self, count: int) -> list[Batch]:
        """In ``count`` parts, as equal as they can be made with all but the last alike."""
        step = -(-len(self) // count)
        return [self.part(start, start + step) for start in range(0, len(self), step)]

    def joined(self, other: Batch) -> Batch | None:
        """Both as one batch; ``None`` where their examples are not of one shape."""
        one, two = (tensors_in((b.inputs.args, dict(b.inputs.kwargs), b.targets)) for b in (self, other))
        rows = (len(self), len(other))
        if len(one) != len(two) or any(
            a.shape[1:] != b.shape[1:] or not (_has_rows(a, rows[0]) and _has_rows(b, rows[1]))
            for a, b in zip(one, two, strict=True)
        ):
            return None
        following = iter(two)
        return self.map(lambda tensor: torch.cat([tensor, next(following)]))


def split_batch(batch: Any) -> Batch:
    """What goes in and what is to come out of a batch as data loaders give it: the one place that tells.

    Pairs are (inputs, targets), where the inputs may be a tensor, a tuple of several or a dictionary. A
    dictionary holds its targets under one of the names of ``TARGETS``. A tensor alone has no targets.

    >>> split_batch({"input_ids": torch.zeros(2, 5), "labels": torch.tensor([0, 1])}).targets
    tensor([0, 1])
    """
    if isinstance(batch, Batch):
        return batch
    if isinstance(batch, Inputs | Tensor):
        return Batch(Inputs.of(batch))
    if isinstance(batch, Mapping):
        name = next((name for name in TARGETS if name in batch), None)
        given = {key: value for key, value in batch.items() if key != name}
        return _checked(Batch(Inputs.of(given), None if name is None else batch[name]))
    if not isinstance(batch, Sequence) or isinstance(batch, str) or len(batch) not in (1, 2):
        what = f"{len(batch)} things" if isinstance(batch, Sequence) else f"a {type(batch).__name__}"
        raise ShrinkbenchError(
            f"a batch of {what} does not tell inputs from targets; let it be (inputs, targets), with several "
            "inputs as a tuple: ((a, b), targets), or a dictionary with 'labels'"
        )
    if len(batch) == 2 and all(isinstance(size, int) for size in batch):
        raise ShrinkbenchError(
            f"a batch holds the numbers {tuple(batch)}; give tensors with one row per example"
        )
    return _checked(Batch(Inputs.of(batch[0]), batch[1] if len(batch) == 2 else None))


def _checked(batch: Batch) -> Batch:
    targets = batch.targets
    if isinstance(targets, Tensor) and targets.dim() and len(targets) != len(batch):
        raise ShrinkbenchError(
            f"a batch has {len(batch)} rows of inputs ({batch.inputs}) and {len(targets)} of targets; give "
            "both with one row for each example, the examples first"
        )
    return batch


def describe(tree: Any) -> str:
    """Shapes and types of the tensors in ``tree``, in a few words.

    >>> describe({"ids": torch.zeros(2, 3, dtype=torch.int64)})
    '{ids: int64 2x3}'
    """
    if isinstance(tree, Inputs):
        both = bool(tree.args) and bool(tree.kwargs)
        return f"{describe(tree.args)} and {describe(tree.kwargs)}" if both else describe(tree.plain)
    if isinstance(tree, Tensor):
        return f"{str(tree.dtype).removeprefix('torch.')} {'x'.join(map(str, tree.shape)) or 'number'}"
    if isinstance(tree, Mapping):
        return "{" + ", ".join(f"{key}: {describe(value)}" for key, value in tree.items()) + "}"
    if isinstance(tree, list | tuple):
        return f"({', '.join(describe(part) for part in tree)})"
    return type(tree).__name__


def _has_rows(tensor: Tensor, rows: int) -> bool:
    return tensor.dim() > 0 and len(tensor) == rows


def _moved(tensor: Tensor, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    dtype = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
    return tensor.to(dtype) if tensor.is_meta else tensor.to(device, dtype)


def is_mask(tensor: Tensor) -> bool:
    """Whether a floating tensor says which places count, and no more."""
    values = tensor.detach()
    closed = (values == 0) | (values == 1) | (values <= -1e4)
    return bool(closed.all()) and bool((values != values.flatten()[0]).any()) if values.numel() else False
