"""What a gate opens or closes is found, whatever the values that open it: a branch may not hide a wrong cut."""

from __future__ import annotations

import warnings

import pytest
import torch
from made_networks import Net, conv, pooled
from torch import nn
from torch.nn import functional as F

from shrinkbench.errors import LeftWholeWarning
from shrinkbench.network.coupling import couple


def tail(m, y):
    return m.fc(pooled(m.b(y).relu()))


def below_zero(m, y):
    return y + F.relu(-m.g) * y.flip(1)


def nearly_closed(m, y):
    share = m.g.clamp(0, 0.4) / 0.4
    return share * y + (1 - share) * y.roll(1, 1)


def hard(m, y):
    is_open = (m.g.sigmoid() > 0.5).to(y)
    return is_open * y + (1 - is_open) * y.flip(1)


def best(m, y):
    first, second = F.one_hot(m.g.argmax(), 2).to(y)
    return first * y + second * y.flip(1)


def small(m, y):
    return torch.where(m.g[:, None, None] < 0.2, y.flip(1), y)


def switch(m, y):
    return torch.where(m.g.bool(), y.flip(1), y)


def second_place(m, y):
    return y + m.g[1] * y.flip(1)


def learned(*values):
    return nn.Parameter(torch.tensor(values if len(values) > 1 else values[0]))


GATES = {
    "below zero": (below_zero, learned(-1.0)),
    "below zero, closed": (below_zero, learned(0.0)),
    "nearly closed": (nearly_closed, learned(0.1)),
    "hard": (hard, learned(-1.0)),
    "hard, the other way": (hard, learned(1.0)),
    "best of two": (best, learned(0.0, 1.0)),
    "best of two, the other way": (best, learned(1.0, 0.0)),
    "small scales": (small, nn.Parameter(torch.full((8,), 0.1))),
    "truth": (switch, torch.tensor([False])[0]),
    "count": (switch, torch.tensor([0])[0]),
    "plan": (second_place, torch.tensor([1.0, 0.0, 0.0])),
}


@pytest.mark.parametrize("name", GATES)
def test_a_gate_hides_no_wrong_cut(name):
    move, gate = GATES[name]
    module = Net(lambda m, x: tail(m, move(m, m.a(x).relu())), a=conv(3, 8), b=conv(8, 8), fc=nn.Linear(8, 4))
    if isinstance(gate, nn.Parameter):
        module.g = gate
    else:
        module.register_buffer("g", gate)
    with pytest.warns(LeftWholeWarning, match="channels of 'a' are left whole"):
        assert [group.layer for group in couple(module, (3, 8, 8)).free] == ["b"]


@pytest.mark.parametrize("value", [-1.0, 0.0, 1.0])
def test_gates_that_keep_the_places_of_channels_are_free(value):
    module = Net(
        lambda m, x: tail(m, (lambda y: y + F.relu(m.g) * y.tanh() * (1 - m.off.to(y)))(m.a(x).relu())),
        a=conv(3, 8), b=conv(8, 8), fc=nn.Linear(8, 4),
    )  # fmt: skip
    module.g = learned(value)
    module.register_buffer("off", torch.tensor([False])[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [group.layer for group in couple(module, (3, 8, 8)).free] == ["a", "b"]
