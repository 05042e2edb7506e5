"""Groups of coupled channels as values: which slices of which tensors make up one unit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.network.attention import HeadsLeft, Role


@dataclass(frozen=True)
class Slice:
    """Positions along dimension ``dim`` of a parameter or buffer, by the unit that they belong to.

    ``unit`` (int64, one entry per position) holds -1 where a position belongs to another group. A tensor
    ``produces`` its channels (filters), ``carries`` them (batch norm, depthwise filters, scales) or
    ``consumes`` them (input slices of the next layer). A channel whose consumers are all masked does not
    reach the output.
    """

    tensor: str
    dim: int
    unit: Tensor = field(compare=False)
    role: Role


@dataclass(frozen=True)
class Group:
    """Units (channels, blocks of a grouped convolution, attention heads) that leave a network together.

    Projected heads are those of an attention whose queries, keys and values linear layers make that it calls.
    ``layer`` is the first layer that produces them and names the group; ``refused_because`` tells
    why none of them can leave, or is ``None``. ``attention`` is the module that holds how many heads there are;
    ``given_biases``: it is given position biases for each of them.
    """

    layer: str
    kind: Literal["channels", "heads", "projected heads"]
    units: int
    slices: tuple[Slice, ...]
    refused_because: str | None = None
    attention: str | None = None
    given_biases: bool = False

    def heads_left(self, gone: Tensor) -> HeadsLeft:
        """What its attention has to know of the units that are not ``gone``."""
        stay = (~gone).nonzero().flatten().tolist()
        return tuple(stay) if self.given_biases else len(stay)

    def layers(self, role: Role) -> tuple[str, ...]:
        """Paths of the layers in that role."""
        return tuple(dict.fromkeys(s.tensor.rpartition(".")[0] for s in self.slices if s.role == role))


@dataclass(frozen=True)
class Coupling:
    """All groups of a network; ``feeding_norm`` maps a layer to the batch norm whose output it alone reads.

    ``notes`` are sentences on groups that could not be read, or not be proven, and are left whole.
    """

    groups: tuple[Group, ...]
    feeding_norm: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def free(self) -> tuple[Group, ...]:
        """The groups that units can leave."""
        return tuple(g for g in self.groups if g.refused_because is None)

    def group_of(self, layer: str) -> Group:
        """The group of the channels that ``layer`` produces."""
        found = [g for g in self.groups if layer == g.layer or layer in g.layers("produces")]
        for group in sorted(found, key=lambda g: layer != g.layer):  # that which it names, before others
            return group
        raise ShrinkbenchError(f"no layer '{layer}' of the network produces channels; give a layer's path")
