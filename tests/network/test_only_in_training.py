"""What runs in training alone is compared too, whether it holds parameters or not."""

from __future__ import annotations

import warnings

import pytest
import torch
from made_networks import Net, conv, pooled
from torch import nn
from torch.nn import functional as F

from shrinkbench.errors import LeftWholeWarning
from shrinkbench.network.coupling import couple


class OnlyInTraining(nn.Module):
    def __init__(self, move):
        super().__init__()
        self.move = move

    def forward(self, y):
        return self.move(y) if self.training else y


def between(move):
    return Net(
        lambda m, x: m.fc(pooled(m.b(m.n(m.a(x).relu())).relu())),
        a=conv(3, 8), b=conv(8, 8), n=OnlyInTraining(move), fc=nn.Linear(8, 4),
    )  # fmt: skip


def with_output(extra):
    def forward(m, x):
        y = m.a(x).relu()
        logits = m.fc(pooled(m.b(y).relu()))
        return (logits, extra(y)) if m.training else logits

    return Net(forward, a=conv(3, 8), b=conv(8, 8), fc=nn.Linear(8, 4))


WRONG = {
    "channel dropout of a fixed width": lambda: between(
        lambda y: y * (torch.rand(8) > 0.1)[:, None, None].to(y)
    ),
    "sizes that are written": lambda: between(lambda y: y.view(len(y), 2, 4, 8, 8).flatten(1, 2)),
    "flipped": lambda: between(lambda y: y.flip(1)),
    "features as an output": lambda: with_output(pooled),
    "mean over channels as an output": lambda: with_output(lambda y: y.mean(1)),
}
RIGHT = {
    "mixed over the batch": lambda: between(lambda y: 0.5 * y + 0.5 * y.flip(0)),
    "functional dropout": lambda: between(lambda y: F.dropout(y, 0.5)),
    "dropout of channels": lambda: between(lambda y: F.dropout2d(y, 0.5)),
    "noise": lambda: between(lambda y: y + y.tanh() * torch.randn_like(y)),
    "batch norm and dropout": lambda: nn.Sequential(
        conv(3, 8),
        nn.BatchNorm2d(8),
        nn.Dropout(),
        conv(8, 8),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_training_alone_does_to_channels_leaves_them_whole(name):
    module = WRONG[name]()
    with pytest.warns(
        LeftWholeWarning, match="channels of 'a' are left whole: a part that runs in training alone"
    ):
        assert [group.layer for group in couple(module, (3, 8, 8)).free] == ["b"]


@pytest.mark.parametrize("name", RIGHT)
def test_what_training_does_to_each_channel_alone_stops_nothing(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(couple(RIGHT[name](), (3, 8, 8)).free) == 2
