"""Reading a network's graph although some of its modules cannot be read: these are found and stood in for.

Where the graph of the whole network cannot be built, its modules are replaced by stand-ins one after the other,
from the outside in, until it can: what is then replaced is left whole and named, and the rest is read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import replace

import torch
from torch import nn

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.network.graph_reader import GraphReader
from shrinkbench.network.inputs import Inputs
from shrinkbench.network.shapes import Remembering
from shrinkbench.network.skeleton import Skeleton, is_there, one_of, outermost, skeleton_of, without_values
from shrinkbench.network.watching import fused_layers_off

VALUES = "depends on values, and networks are followed without data"
UNREADABLE = "computes what torch-pruning cannot read"
_MOST_TRIALS = 200


class _ValuesError(Exception):
    """The forward pass cannot do without data."""


def read_graph(module: nn.Module, example: Inputs) -> tuple[Skeleton, GraphReader]:
    """A skeleton of ``module`` whose graph can be built, and the reader of that graph.

    Raises ``ShrinkbenchError`` where the network's own code, outside of any submodule, cannot be read.
    """
    skeleton = skeleton_of(module, example)
    inputs = without_values(example)
    try:
        return skeleton, _read(skeleton, inputs)
    except Exception as error:
        with_values = _read_with_values(module, example)
        if with_values is not None:
            return with_values
        search = _Search(skeleton, inputs)
        found = search.find(error)
    with ExitStack() as stack:
        whole = stack.enter_context(skeleton.behind(found))
        named = {path: f"it {why}" for path, why in found.items()}
        whole = replace(whole, unreadable={**skeleton.unreadable, **named})
        reader = _read(whole, inputs)
        stack.pop_all()  # the stand-ins stay
    return whole, reader


def _read_with_values(module: nn.Module, example: Inputs) -> tuple[Skeleton, GraphReader] | None:
    """The same in memory, for a network that looks at whole numbers or truth values: which places are padding.

    Only where every input is one of these: what depends on real numbers may be otherwise for others.
    """
    if any(tensor.is_floating_point() or tensor.is_meta for tensor in example.tensors):
        return None
    try:
        skeleton = skeleton_of(module, example, device="cpu")
        return skeleton, _read(skeleton, one_of(example))
    except Exception:  # whatever a network's own code, or torch-pruning, raises
        return None


def _read(skeleton: Skeleton, inputs: Inputs) -> GraphReader:
    with fused_layers_off(), torch.device("meta") if skeleton.makes_meta else nullcontext():
        try:
            with torch.no_grad(), Remembering():
                inputs.call(skeleton.module)
        except Exception as error:  # whatever a network's own code raises where there are no values
            raise _ValuesError(_first_line(error)) from None
        return GraphReader(skeleton, inputs)


class _Search:
    """For the smallest modules without which the graph of a skeleton can be built."""

    def __init__(self, skeleton: Skeleton, inputs: Inputs) -> None:
        self._skeleton, self._inputs = skeleton, inputs
        self._trials = 0
        self._reasons: dict[str, str] = {}

    def find(self, error: Exception) -> dict[str, str]:
        """The modules, and why each cannot be read."""
        found: set[str] = set()
        for path in self._inside("", frozenset(), error):
            found.add(path)
            alike = self._alike(found)
            if self._try(alike) is None:
                return {p: self._reason(p) for p in sorted(alike)}
        raise _refusal(error)

    def _inside(self, path: str, outside: frozenset[str], error: Exception) -> Iterator[str]:
        """The smallest unreadable modules at ``path`` or inside of it, stand-ins being put at ``outside``."""
        children = self._children(path)
        alone = self._try(outside | children)
        if alone is not None:  # not one of its modules: its own code
            if not path:
                raise _refusal(alone)
            self._reasons[path] = VALUES if isinstance(error, _ValuesError) else UNREADABLE
            yield path
            return
        for child in sorted(children):
            others = outside | (children - {child})
            failed = self._try(others)
            if failed is not None:
                yield from self._inside(child, others, failed)

    def _try(self, paths: Iterable[str]) -> Exception | None:
        """What is raised where stand-ins are put at ``paths``."""
        self._trials += 1
        if self._trials > _MOST_TRIALS:
            return RuntimeError("too many of its modules cannot be read")
        try:
            with self._skeleton.behind(dict.fromkeys(paths, "")) as trial:
                _read(trial, self._inputs)
        except Exception as error:
            return error
        return None

    def _children(self, path: str) -> frozenset[str]:
        """The outermost modules that are called inside of the one at ``path``, and can be stood in for."""
        prefix = f"{path}." if path else ""
        return frozenset(outermost([p for p in self._readable() if p.startswith(prefix) and p != path]))

    def _readable(self) -> Iterator[str]:
        """Paths of the modules that are called and no stand-ins yet."""
        return (p for p in self._skeleton.called if is_there(p, self._skeleton.opaque))

    def _alike(self, found: Collection[str]) -> frozenset[str]:
        """The modules found and all of their kinds, but for torch's own."""
        own = {kind for kind in map(self._kind, found) if not kind.__module__.startswith("torch.nn.")}
        return frozenset(outermost([p for p in self._readable() if p in found or self._kind(p) in own]))

    def _kind(self, path: str) -> type[nn.Module]:
        return type(self._skeleton.module.get_submodule(path))

    def _reason(self, path: str) -> str:
        """Why the module at ``path``, or the one of its kind that was looked at, cannot be read."""
        same = (p for p in self._reasons if self._kind(p) is self._kind(path))
        return self._reasons[path if path in self._reasons else next(same)]


def _refusal(error: Exception) -> ShrinkbenchError:
    if isinstance(error, _ValuesError):
        return ShrinkbenchError(
            f"the network cannot be followed without data ({error}); channels can only be removed where what "
            "is computed outside of submodules does not depend on values"
        )
    return ShrinkbenchError(
        "torch-pruning cannot follow what this network computes outside of its submodules; single weights can "
        "be pruned, and channels too once that code is a submodule of its own"
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")[:80]
