"""Layers that lay their weight out as (inputs, outputs) are pruned as their twins are, or refused."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.pruning import prune, training_hook
from shrinkbench.pruning.methods.network_slimming import masks_of_scales, scaled_channels

transformers = pytest.importorskip("transformers.pytorch_utils")
TOKENS, WIDTH = 5, 12


class Perceptron(nn.Module):
    """Tokens of 12 numbers through two layers of either layout."""

    def __init__(self, transposed, tokens=True):
        super().__init__()
        make = transformers.Conv1D if transposed else lambda outputs, inputs: nn.Linear(inputs, outputs)
        self.first, self.second, self.last = make(16, WIDTH), make(8, 16), nn.Linear(8, 3)
        self.tokens = tokens

    def forward(self, x):
        x = self.second(self.first(x).relu()).relu()
        return self.last(x.mean(1) if self.tokens else x)


class Deconvolution(nn.Module):
    """A convolution, a batch norm, and a transposed convolution or its twin."""

    def __init__(self, transposed, outputs=6):
        super().__init__()
        self.first, self.norm = nn.Conv1d(2, 8, 3, padding=1), nn.BatchNorm1d(8)
        self.second = (nn.ConvTranspose1d if transposed else nn.Conv1d)(8, outputs, 3, padding=1)
        self.last = nn.Linear(outputs, 3)
        nn.init.uniform_(self.norm.weight, 0.5, 1.5)

    def forward(self, x):
        return self.last(self.second(self.norm(self.first(x)).relu()).relu().mean(2))


def swapped(name, tensor):
    return tensor.transpose(0, 1) if name in ("first.weight", "second.weight") else tensor


def perceptrons(tokens=True):
    torch.manual_seed(0)
    plain, turned = Perceptron(False, tokens), Perceptron(True, tokens)
    turned.load_state_dict({name: swapped(name, t) for name, t in plain.state_dict().items()})
    return plain, turned


def deconvolutions(outputs=6):
    torch.manual_seed(0)
    plain, turned = Deconvolution(False, outputs), Deconvolution(True, outputs)
    state = plain.state_dict()
    state["second.weight"] = state["second.weight"].transpose(0, 1).flip(2)
    turned.load_state_dict(state)
    return plain, turned


def data(*shape):
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(8, *shape, generator=generator), torch.randint(0, 3, (8,), generator=generator))]


def trained(net, method, batches):
    """The masks of a short training by ``method``."""
    x, y = batches[0]
    hook = training_hook(
        net,
        method,
        compression=1.6,
        epochs=1,
        steps_per_epoch=12,
        seed=0,
        input_shape=x.shape[1:],
        batches=lambda _: batches,
        batch_size=len(x),
    )
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    hook.start(optimizer)
    for step in range(1, 13):
        net.train()
        hook.before_step(step)
        F.cross_entropy(net(x), y).backward()
        hook.after_backward(step)
        optimizer.step()
        optimizer.zero_grad()
        hook.after_step(step)
    hook.after_epoch(1)
    return hook.masks


def test_importance_is_carried_back_through_either_layout():
    plain, turned = perceptrons(tokens=False)
    masks, others = (
        prune(net, "nisp", compression=1.6, batches=data(WIDTH), input_shape=(WIDTH,))
        for net in (plain, turned)
    )
    assert all(torch.equal(swapped(name, others[name]), mask) for name, mask in masks.items())
    plain, turned = deconvolutions()
    masks, others = (
        prune(net, "nisp", compression=1.6, batches=data(2, 9), input_shape=(2, 9)) for net in (plain, turned)
    )
    assert torch.equal(masks["first.weight"], others["first.weight"])
    assert not masks["first.weight"][:6].all()  # by importance, not by position


@pytest.mark.parametrize("method", ["pcas", "autopruner"])
def test_gates_of_maps_stand_at_the_channels_of_either_layout(method):
    plain, turned = perceptrons()
    masks, others = (trained(net, method, data(TOKENS, WIDTH)) for net in (plain, turned))
    assert all(torch.equal(swapped(name, others[name]), mask) for name, mask in masks.items())


@pytest.mark.parametrize("outputs", [6, 8])
@pytest.mark.parametrize("method", ["slimming_without_penalty", "magnitude@slimming_without_penalty"])
def test_batch_norms_may_feed_a_transposed_convolution(method, outputs):
    plain, turned = deconvolutions(outputs)
    masks, others = (prune(net, method, compression=1.6, input_shape=(2, 9)) for net in (plain, turned))
    assert torch.equal(masks["norm.weight"], others["norm.weight"])
    assert torch.equal(masks["second.weight"].transpose(0, 1), others["second.weight"])


class Shared(nn.Module):
    """What the batch norm scales, two layers read before it: its channels leave it and its reader alone."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv1d(2, 4, 3, padding=1), nn.BatchNorm1d(4)
        self.second, self.last = nn.ConvTranspose1d(4, 4, 3, padding=1), nn.Linear(4, 3)

    def forward(self, x):
        x = self.first(x)
        return self.last((x + self.second(self.norm(x).relu())).mean(2))


def test_channels_of_a_shared_stream_leave_the_rows_of_a_transposed_reader():
    from shrinkbench.network.coupling import couple

    net = Shared()
    coupling = couple(net, (2, 9))
    assert scaled_channels(net, coupling)[0].group is None
    masks = masks_of_scales(net, coupling, {"norm": torch.tensor([True, False, True, True])})
    assert masks["second.weight"].flatten(1).any(1).tolist() == [True, False, True, True]


@pytest.mark.parametrize(
    "method", ["data_free_merging", "discrimination_aware", "thinet", "channel_regression"]
)
@pytest.mark.parametrize("outputs", [6, 8])
def test_what_solves_for_rows_of_inputs_refuses_them_before_anything_is_trained(method, outputs):
    _, turned = deconvolutions(outputs)
    with pytest.raises(ShrinkbenchError, match="lays its weight out as"):
        prune(turned, method, compression=1.6, batches=data(2, 9), input_shape=(2, 9), one_shot=True)
    if method == "discrimination_aware":
        with pytest.raises(ShrinkbenchError, match="lays its weight out as"):
            training_hook(
                turned, method, compression=1.6, epochs=1, steps_per_epoch=1, seed=0, input_shape=(2, 9)
            )
