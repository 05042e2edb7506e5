"""What torch-pruning cannot read, or comes to no end with: left whole and named, and the rest is read."""

from __future__ import annotations

import warnings

import pytest
import torch
from made_networks import IMAGE, Net, conv, pooled
from torch import nn
from torch.nn import functional as F

from shrinkbench.errors import LeftWholeWarning, ShrinkbenchError
from shrinkbench.network.calling import call_with
from shrinkbench.network.coupling import couple
from shrinkbench.network.probe import trace

TOKENS = (6, 8)


def notes(module, shape):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        coupling = couple(module, shape)
    return {group.layer for group in coupling.free}, " / ".join(coupling.notes)


def between(middle):
    """Two convolutions, a module, two more, and a classifier."""

    def forward(m, x):
        y = m.middle(F.relu(m.b(F.relu(m.a(x)))))
        return m.fc(pooled(F.relu(m.d(F.relu(m.c(y))))))

    layers = {"a": conv(3, 8), "b": conv(8, 8), "c": conv(8, 8), "d": conv(8, 8)}
    return Net(forward, **layers, middle=middle, fc=nn.Linear(8, 4)).eval()


class Inner(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = conv(8, 8), conv(8, 8)

    def forward(self, x):
        return torch.relu(self.two(torch.relu(self.one(x))))


class GoesByValues(Inner):
    def forward(self, x):
        return self.one(x) if bool(x.sum() > 0) else self.two(x)


class ThroughNumpy(nn.Module):
    def forward(self, x):
        return torch.from_numpy(x.detach().cpu().numpy() * 2).to(x)


class Dictionary(Inner):
    """Returns containers of tensors and other things."""

    def forward(self, x):
        y = GoesByValues.forward(self, x)
        return {"maps": [y, (y * 2, None)], "count": 3}


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")
@pytest.mark.parametrize(
    ("middle", "said"),
    [
        (lambda: torch.jit.script(Inner()), "'middle' are left whole: it is compiled"),
        (
            lambda: torch.jit.trace(Inner().eval(), torch.randn(1, 8, 8, 8)),
            "'middle' are left whole: it is compiled",
        ),
        (GoesByValues, "'middle' are left whole: it depends on values"),
    ],
    ids=["scripted", "traced", "by values"],
)
def test_a_module_that_cannot_be_read_is_named_and_the_rest_is_free(middle, said):
    free, named = notes(between(middle()), IMAGE)
    assert free == {"a", "c", "d"}
    assert said in named


def test_what_enters_an_unreadable_module_without_weights_is_named():
    free, named = notes(between(ThroughNumpy()), IMAGE)
    assert free == {"c", "d"}
    assert "'b' are left whole: they pass 'middle', which depends on values" in named
    assert "'a' are left whole: no output shows what they do" in named  # it has no gradient


def test_the_smallest_unreadable_modules_are_found():
    deep = nn.Sequential(conv(8, 8), nn.ReLU(), nn.Sequential(GoesByValues(), nn.ReLU(), conv(8, 8)), nn.ReLU())
    free, named = notes(between(deep), IMAGE)
    assert free == {"a", "b", "middle.2.2", "c", "d"}
    assert "'middle.2.0' are left whole" in named
    both = nn.Sequential(GoesByValues(), conv(8, 8), nn.ReLU(), conv(8, 8), GoesByValues())
    free, named = notes(between(both), IMAGE)
    assert free == {"a", "middle.1", "c", "d"}
    assert "'middle.0', 'middle.4' are left whole" in named


def test_stand_ins_return_what_the_module_returned():
    net = between(Dictionary())
    net.body = lambda m, x: m.fc(pooled(m.d(m.c(m.middle(m.b(F.relu(m.a(x))))["maps"][1][0]))))
    assert notes(net, IMAGE)[0] == {"a", "c", "d"}


def test_a_network_whose_own_code_goes_by_values_is_refused():
    net = Net(lambda m, x: m.fc(F.relu(m.a(x)) * float(x.mean())), a=nn.Linear(4, 6), fc=nn.Linear(6, 2))
    with pytest.raises(ShrinkbenchError, match="outside of submodules does not depend on values"):
        couple(net, (4,))


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")
def test_a_compiled_network_is_refused_with_the_reason():
    compiled = torch.jit.script(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)))
    with pytest.raises(ShrinkbenchError, match=r"is compiled \(TorchScript\).*pass the nn.Module"):
        couple(compiled, (4,))


def test_constants_that_code_makes_on_no_device_are_no_values():
    net = Net(
        lambda m, x: m.fc(F.relu(m.b(F.relu(m.a(x)) + torch.zeros(6)))),
        a=nn.Linear(4, 6), b=nn.Linear(6, 7), fc=nn.Linear(7, 2),
    )  # fmt: skip
    assert "b" in notes(net, (4,))[0]


def rotary(m, x):
    """Attention with rotated queries and keys, as Hugging Face writes it, in the network's own code."""
    n, t, _ = x.shape
    q, k, v = (layer(x).view(n, t, -1, 4).transpose(1, 2) for layer in (m.q, m.k, m.v))
    angles = torch.arange(t, device=x.device, dtype=x.dtype)[:, None] / torch.tensor([1.0, 7.0, 1.0, 7.0]).to(x)
    q, k = (y * angles.cos() + torch.cat((-y[..., 2:], y[..., :2]), -1) * angles.sin() for y in (q, k))
    k, v = (y[:, :, None].expand(n, 2, 2, t, 4).reshape(n, 4, t, 4) for y in (k, v))
    x = x + m.o(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, t, 16))
    return m.head((x + m.down(F.silu(m.gate(x)) * m.up(x))).mean(1))


def test_a_reading_that_goes_in_circles_ends_and_is_named():
    layers = {"q": nn.Linear(8, 16), "k": nn.Linear(8, 8), "v": nn.Linear(8, 8), "o": nn.Linear(16, 8)}
    layers |= {"gate": nn.Linear(8, 12), "up": nn.Linear(8, 12), "down": nn.Linear(12, 8)}
    free, named = notes(Net(rotary, **layers, head=nn.Linear(8, 3)), TOKENS)
    assert free == {"gate"}
    assert "'q'" in named
    assert "'k'" in named


def test_a_product_of_two_feature_maps_ends_too():
    net = Net(
        lambda m, x: m.fc((F.relu(m.a(x)).flatten(2) @ F.relu(m.b(x)).flatten(2).transpose(1, 2)).flatten(1)),
        a=conv(3, 4), b=conv(3, 6), fc=nn.Linear(24, 4),
    )  # fmt: skip
    free, named = notes(net, IMAGE)
    assert not free
    assert "comes to no end" in named


@pytest.mark.parametrize(
    ("layer", "call"),
    [
        (nn.GRU(8, 6, batch_first=True), lambda layer, y: layer(y)[0][:, -1]),
        (nn.LSTMCell(8, 6), lambda layer, y: layer(y[:, 0], layer(y[:, 1]))[0]),
        (nn.RNN(8, 3, bidirectional=True), lambda layer, y: layer(y.transpose(0, 1))[0][-1]),
    ],
    ids=["GRU", "LSTM cell", "both ways"],
)
def test_recurrent_layers_sum_over_channels(layer, call):
    net = Net(
        lambda m, x: m.fc(F.relu(m.d(call(m.rnn, m.b(F.relu(m.a(x))))))),
        a=nn.Linear(4, 8), b=nn.Linear(8, 8), rnn=layer, d=nn.Linear(6, 7), fc=nn.Linear(7, 3),
    )  # fmt: skip
    free, named = notes(net, (3, 4))
    assert free == {"a", "d"}
    assert named == "channels of 'b' are left whole: they pass 'rnn', which sums over channels"


def test_packed_sequences_pass_a_stand_in():
    def call(m, x):
        y = m.b(F.relu(m.a(x)))
        packed = nn.utils.rnn.pack_padded_sequence(y, torch.tensor([y.shape[1]] * len(y)), batch_first=True)
        y, _ = nn.utils.rnn.pad_packed_sequence(m.rnn(packed)[0], batch_first=True)
        return m.fc(F.relu(m.d(y)).mean(1))

    layers = {"a": nn.Linear(4, 8), "b": nn.Linear(8, 8), "rnn": nn.LSTM(8, 6, batch_first=True)}
    assert notes(Net(call, **layers, d=nn.Linear(6, 7), fc=nn.Linear(7, 3)), (3, 4))[0] == {"a", "d"}


def test_keys_and_values_of_attention_are_seen():
    def call(m, x):
        y, weights = m.t(m.q(x), m.k(F.relu(m.k1(x))), m.v(F.relu(m.v1(x))))
        return m.head(y.mean(1)), weights.sum(-1)

    layers = {"q": nn.Linear(8, 16), "k1": nn.Linear(8, 12), "k": nn.Linear(12, 6), "v1": nn.Linear(8, 9)}
    attention = nn.MultiheadAttention(16, 4, kdim=6, vdim=10, batch_first=True)
    net = Net(call, **layers, v=nn.Linear(9, 10), t=attention, head=nn.Linear(16, 3))
    coupling = couple(net, TOKENS)
    assert {group.layer for group in coupling.free} == {"k1", "v1"}
    assert {coupling.group_of(layer).refused_because for layer in ("q", "k", "v")} == {
        "they pass 't', which mixes or rearranges channels"
    }


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointed_modules(reentrant):
    class Checkpointed(Inner):
        def forward(self, x):
            inside = super().forward
            return torch.utils.checkpoint.checkpoint(inside, x, use_reentrant=reentrant)

    free, named = notes(between(Checkpointed()), IMAGE)
    assert free >= {"a", "c", "d"}
    assert ("middle.one" in free) is not reentrant
    said = "'middle.one', 'middle.two' are left whole: the network computes them without gradients"
    assert (said in named) is reentrant


def test_layers_without_gradients_and_weights_read_by_hand_are_named():
    def call(m, x):
        with torch.no_grad():
            y = F.relu(m.b(F.relu(m.a(x))))
        return m.fc(F.relu(m.d(F.linear(y, m.c.weight))))

    layers = {"a": nn.Linear(4, 6), "b": nn.Linear(6, 6), "c": nn.Linear(6, 6), "d": nn.Linear(6, 5)}
    free, named = notes(Net(call, **layers, fc=nn.Linear(5, 2)), (4,))
    assert free == {"d"}
    assert "'a', 'b' are left whole: the network computes them without gradients" in named
    assert "'c' are left whole: the network reads their weights without calling" in named


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_where_every_weight_is_computed_the_reason_is_given():
    net = nn.Sequential(*(nn.utils.weight_norm(nn.Linear(4, 4)) for _ in range(2)), nn.Linear(4, 2))
    free, named = notes(net, (4,))
    assert not free
    assert "a weight of '0' is computed from other tensors" in named


def test_a_layer_at_two_places_is_given_back_its_weights():
    shared = nn.Linear(4, 4)
    net = Net(lambda m, x: m.fc(m.two(F.relu(m.one(x)))), one=shared, two=shared, fc=nn.Linear(4, 2))
    tied = nn.Linear(4, 4)
    tied.weight = shared.weight
    net.three = tied
    before = {name: value.clone() for name, value in net.state_dict().items()}
    assert trace(net, (4,)).multiply_adds == 16 + 16 + 8
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    both = nn.Sequential(shared, tied)
    zeros = {name: torch.zeros_like(value) for name, value in both.named_parameters()}
    assert zeros.keys() == {"0.weight", "0.bias", "1.bias"}
    assert not call_with(both, zeros, (torch.ones(1, 4),)).any()


def test_what_cannot_be_read_keeps_the_caller_s_network_as_it_was():
    net = between(GoesByValues()).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.warns(LeftWholeWarning):
        couple(net, IMAGE)
    assert net.training
    assert type(net.middle) is GoesByValues
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert not any(child._forward_hooks for child in net.modules())


class AroundChannels(nn.Module):
    """Two convolutions and a classifier, and between the convolutions what is done to ``wide`` channels."""

    def __init__(self, wide, move, between=None):
        super().__init__()
        self.a, self.b, self.between = nn.Conv2d(3, wide, 3, padding=1), nn.Conv2d(8, 8, 3), between
        self.fc, self.move = nn.Linear(8, 4), move

    def forward(self, x):
        y = self.a(x).relu()
        y = self.move(y) if self.between is None else self.move(y, self.between)
        return self.fc(self.b(y).relu().mean((2, 3)))


def stretch(y):
    return nn.functional.interpolate(y.flatten(2).mT, size=8, mode="linear").mT.unflatten(2, (8, 8))


def attend(y, layer):
    return y * layer(y.mean((2, 3)).unsqueeze(1)).squeeze(1).sigmoid()[:, :, None, None]


CHOSEN = torch.tensor([1, 0, 1, 1, 1, 1, 1, 1, 1, 0], dtype=torch.bool)
REFUSED_BY_THE_GRAPH = {
    "split unevenly": lambda: AroundChannels(8, lambda y: torch.cat(y.split([3, 5], 1)[::-1], 1)),
    "chosen by a mask": lambda: AroundChannels(10, lambda y: y[:, CHOSEN]),
    "interpolated": lambda: AroundChannels(4, lambda y: stretch(y)),
    "one unit of all": lambda: AroundChannels(8, attend, nn.Conv1d(1, 1, 3, padding=1)),
    "convolved over": lambda: AroundChannels(
        4, lambda y, layer: layer(y.unsqueeze(1)).flatten(1, 2), nn.Conv3d(1, 2, 3, padding=1)
    ),
    "normalised over": lambda: AroundChannels(8, lambda y, layer: layer(y), nn.LayerNorm([8, 8, 8])),
}


@pytest.mark.parametrize("name", REFUSED_BY_THE_GRAPH)
def test_channels_that_the_graph_refuses_are_named_once(name):
    module = REFUSED_BY_THE_GRAPH[name]()
    with pytest.warns(LeftWholeWarning, match="channels of 'a'.* are left whole: "):
        free = {group.layer for group in couple(module, (3, 8, 8)).free if group.units > 1}
    assert free - {"between"} == {"b"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        couple(module, (3, 8, 8))


def test_what_is_whole_by_its_nature_is_not_named():
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 4, 1), nn.BatchNorm2d(4)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        couple(module, (3, 8, 8))


class Closed:
    def __init__(self, logits):
        self.logits = logits


def test_an_output_of_a_class_that_is_not_looked_into_is_the_reason():
    layers = {"a": nn.Linear(4, 6), "b": nn.Linear(6, 2)}
    module = Net(lambda m, x: Closed(m.b(m.a(x).relu())), **layers)
    with pytest.warns(LeftWholeWarning, match="'a', 'b' are left whole: no output .* class 'Closed'"):
        couple(module, (4,))
