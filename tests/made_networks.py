"""Small networks of a user's own, of the kinds that a graph of operations is misread on, with their inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Kind = Callable[[], tuple[nn.Module, tuple[int, ...]]]
KINDS: dict[str, Kind] = {}
IMAGE = (3, 8, 8)


def kind(make: Kind) -> Kind:
    KINDS[make.__name__.replace("_", "-")] = make
    return make


class Net(nn.Module):
    """Layers by name, and a function of them and the input."""

    def __init__(self, forward: Callable[[Any, Tensor], Any], **layers: nn.Module) -> None:
        super().__init__()
        self.body = forward
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Any:
        return self.body(self, x)


def conv(inputs: int, outputs: int, **settings: Any) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, **settings)


def pooled(x: Tensor) -> Tensor:
    return x.mean((2, 3))


class RMS(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.weight


@dataclass
class Answer:
    logits: Tensor
    features: Tensor


def around(middle: Callable[[Tensor], Tensor], width: int = 8) -> Kind:
    """A convolution, ``middle``, another convolution and a classifier."""
    return lambda: (
        Net(
            lambda m, x: m.fc(pooled(F.relu(m.b(middle(F.relu(m.a(x))))))),
            a=conv(3, 8),
            b=conv(width, 8),
            fc=nn.Linear(8, 4),
        ),
        IMAGE,
    )


KINDS["flip"] = around(lambda y: y.flip(1))
KINDS["roll"] = around(lambda y: y.roll(3, 1))
KINDS["gather"] = around(lambda y: y[:, [3, 1, 0, 2, 7, 6, 4, 5]])
KINDS["cumulative-sum"] = around(lambda y: y.cumsum(1))
KINDS["sort"] = around(lambda y: y.sort(1).values)
KINDS["softmax-over-channels"] = around(lambda y: y.softmax(1))
KINDS["channel-shuffle"] = around(lambda y: F.channel_shuffle(y, 2))
KINDS["maxout"] = around(lambda y: y.view(y.shape[0], 4, 2, 8, 8).amax(2), 4)
KINDS["sum-over-groups"] = around(lambda y: y.view(y.shape[0], 2, 4, 8, 8).sum(1), 4)
KINDS["pixel-shuffle"] = around(lambda y: F.pixel_shuffle(y, 2), 2)
KINDS["space-to-depth"] = around(lambda y: F.pixel_unshuffle(y, 2), 32)
KINDS["functional-glu"] = around(lambda y: F.glu(y, 1), 4)
KINDS["chunk-gate"] = around(lambda y: y.chunk(2, 1)[0] * y.chunk(2, 1)[1].sigmoid(), 4)
KINDS["channels-swapped-with-rows"] = around(lambda y: y.transpose(1, 2))
KINDS["mean-over-channels-taken-off"] = around(lambda y: y - y.mean(1, keepdim=True))
KINDS["sigmoid"] = around(torch.sigmoid)


@kind
def permute_and_flatten():
    body = Net(
        lambda m, x: m.head(F.relu(m.fc(F.relu(m.conv(x)).permute(0, 2, 3, 1).flatten(1)))),
        conv=conv(3, 8),
        fc=nn.Linear(512, 16),
        head=nn.Linear(16, 4),
    )
    return body, IMAGE


@kind
def linear_over_pixels():
    body = Net(
        lambda m, x: m.head(F.relu(m.fc(F.relu(m.conv(x)).flatten(2))).mean(1)),
        conv=conv(3, 8),
        fc=nn.Linear(64, 16),
        head=nn.Linear(16, 4),
    )
    return body, IMAGE


@kind
def linear_to_image():
    body = Net(
        lambda m, x: m.out(F.relu(m.conv(F.relu(m.fc(x)).view(-1, 8, 2, 2)))),
        fc=nn.Linear(6, 32),
        conv=conv(8, 8),
        out=conv(8, 3),
    )
    return body, (6,)


@kind
def tied_transpose():
    body = Net(lambda m, x: F.linear(F.relu(m.encode(x)), m.encode.weight.t()), encode=nn.Linear(8, 6))
    return body, (8,)


@kind
def token_mixing():
    def forward(m, x):
        y = F.relu(m.patches(x)).flatten(2).transpose(1, 2)
        y = y + m.tokens(y.transpose(1, 2)).transpose(1, 2)
        return m.head(F.relu(m.mlp(y)).mean(1))

    layers = {"patches": nn.Conv2d(3, 16, 2, stride=2), "tokens": nn.Linear(16, 16)}
    return Net(forward, **layers, mlp=nn.Linear(16, 12), head=nn.Linear(12, 4)), IMAGE


@kind
def u_net():
    def forward(m, x):
        a = F.relu(m.a(x))
        b = F.relu(m.b(F.max_pool2d(a, 2)))
        return m.out(F.relu(m.c(torch.cat([a, m.up(b)], 1))))

    layers = {"a": conv(3, 6), "b": conv(6, 8), "up": nn.ConvTranspose2d(8, 6, 2, stride=2)}
    return Net(forward, **layers, c=conv(12, 6), out=nn.Conv2d(6, 2, 1)), IMAGE


@kind
def feature_pyramid():
    def forward(m, x):
        c2 = F.relu(m.c2(x))
        c3 = F.relu(m.c3(c2))
        p3 = m.l3(c3)
        return {"p2": m.l2(c2) + F.interpolate(p3, scale_factor=2.0), "p3": p3}

    layers = {"c2": conv(3, 8), "c3": conv(8, 12, stride=2)}
    return Net(forward, **layers, l2=nn.Conv2d(8, 6, 1), l3=nn.Conv2d(12, 6, 1)), IMAGE


@kind
def every_stage_is_an_output():
    def forward(m, x):
        a = F.relu(m.a(x))
        b = F.relu(m.b2(F.relu(m.b1(a))))
        return [a, b, F.relu(m.c2(F.relu(m.c1(b))))]

    layers = {"a": conv(3, 8), "b1": conv(8, 8), "b2": conv(8, 8), "c1": conv(8, 8), "c2": conv(8, 8)}
    return Net(forward, **layers), IMAGE


@kind
def two_towers():
    def forward(m, x):
        left, right = F.relu(m.left(x)), F.relu(m.right(x))
        return m.fc(torch.cat([pooled(m.left2(left)), pooled(m.right2(right))], 1))

    layers = {"left": conv(3, 6), "right": conv(3, 8), "left2": conv(6, 6), "right2": conv(8, 4)}
    return Net(forward, **layers, fc=nn.Linear(10, 4)), IMAGE


@kind
def siamese():
    def forward(m, x):
        one, two = (pooled(F.relu(m.b(F.relu(m.a(half))))) for half in x.chunk(2, -1))
        return m.fc((one - two).abs())

    return Net(forward, a=conv(3, 8), b=conv(8, 8), fc=nn.Linear(8, 2)), IMAGE


@kind
def squeeze_and_excite():
    def forward(m, x):
        y = F.relu(m.a(x))
        y = y * m.up(F.relu(m.down(pooled(y)))).sigmoid()[..., None, None]
        return m.fc(pooled(F.relu(m.b(y))))

    layers = {"a": conv(3, 8), "down": nn.Linear(8, 4), "up": nn.Linear(4, 8)}
    return Net(forward, **layers, b=conv(8, 8), fc=nn.Linear(8, 4)), IMAGE


@kind
def swiglu():
    def forward(m, x):
        return m.head(m.norm(x + m.down(F.silu(m.gate(x)) * m.up(x))).mean(1))

    layers = {"gate": nn.Linear(8, 12), "up": nn.Linear(8, 12), "down": nn.Linear(12, 8)}
    return Net(forward, **layers, norm=RMS(8), head=nn.Linear(8, 4)), (5, 8)


def recurrent(layer: type[nn.Module]) -> Kind:
    def forward(m, x):
        return m.fc(m.rnn(F.relu(m.conv(x)).transpose(1, 2))[0][:, -1])

    return lambda: (
        Net(
            forward,
            conv=nn.Conv1d(4, 8, 3, padding=1),
            rnn=layer(8, 6, batch_first=True),
            fc=nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3)),
        ),
        (4, 10),
    )


KINDS["lstm"], KINDS["gru"] = recurrent(nn.LSTM), recurrent(nn.GRU)


@kind
def grouped_query_attention():
    def forward(m, x):
        n, t, _ = x.shape
        q = m.q(x).view(n, t, 4, 4).transpose(1, 2)
        k, v = (p(x).view(n, t, 2, 4).transpose(1, 2).repeat_interleave(2, dim=1) for p in (m.k, m.v))
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, t, 16)
        x = x + m.o(y)
        return m.head((x + m.down(F.relu(m.up(x)))).mean(1))

    layers = {"q": nn.Linear(8, 16), "k": nn.Linear(8, 8), "v": nn.Linear(8, 8), "o": nn.Linear(16, 8)}
    return Net(forward, **layers, up=nn.Linear(8, 16), down=nn.Linear(16, 8), head=nn.Linear(8, 4)), (6, 8)


@kind
def gate_at_zero():
    """ReZero; inside the branch a norm that is no element-wise operation."""
    net = Net(
        lambda m, x: m.head(F.relu(m.a(x)) + m.alpha * m.c(m.norm(m.b(x)))),
        a=nn.Linear(6, 8),
        b=nn.Linear(6, 12),
        norm=RMS(12),
        c=nn.Linear(12, 8),
        head=nn.Linear(8, 4),
    )
    net.alpha = nn.Parameter(torch.zeros(()))
    return net, (6,)


@kind
def layer_scale_of_zeros():
    net, shape = gate_at_zero()
    net.alpha = nn.Parameter(torch.zeros(8))
    return net, shape


@kind
def last_batch_norm_of_zeros():
    net = Net(
        lambda m, x: m.fc(pooled(F.relu(m.a(x)) + m.n(m.c(F.relu(m.b(x)).flip(1))))),
        a=conv(3, 8),
        b=conv(3, 8),
        c=conv(8, 8),
        n=nn.BatchNorm2d(8),
        fc=nn.Linear(8, 4),
    )
    nn.init.zeros_(net.n.weight)
    return net, IMAGE


@kind
def branch_that_is_switched_off():
    """Whatever is cut in the branch, no output shows it; later its user sets the factor to one."""
    return (
        Net(
            lambda m, x: m.head(F.relu(m.a(x)) + 0.0 * m.c(m.norm(m.b(x)))),
            a=nn.Linear(6, 8),
            b=nn.Linear(6, 12),
            norm=RMS(12),
            c=nn.Linear(12, 8),
            head=nn.Linear(8, 4),
        ),
        (6,),
    )


@kind
def saturated():
    net, shape = around(lambda y: y.flip(1))()
    return Net(lambda m, x: (m.net(x) + 30).sigmoid(), net=net), shape


@kind
def two_heads():
    def forward(m, x):
        f = pooled(F.relu(m.trunk(x)))
        return m.a(f), m.b(m.norm(m.hidden(f)))

    layers = {"trunk": conv(3, 8), "a": nn.Linear(8, 4), "hidden": nn.Linear(8, 16), "norm": RMS(16)}
    return Net(forward, **layers, b=nn.Linear(16, 3)), IMAGE


@kind
def logits_and_features():
    def forward(m, x):
        f = pooled(F.relu(m.b(F.relu(m.a(x)))))
        return Answer(m.fc(f), f)

    return Net(forward, a=conv(3, 8), b=conv(8, 8), fc=nn.Linear(8, 4)), IMAGE


@kind
def auxiliary_head():
    """A head that runs in training alone, as GoogLeNet's."""

    def forward(m, x):
        y = F.relu(m.a(x))
        logits = m.fc(pooled(F.relu(m.b(y))))
        return (logits, m.aux_fc(pooled(F.relu(m.aux(y))))) if m.training else logits

    layers = {"a": conv(3, 8), "b": conv(8, 8), "aux": conv(8, 16), "aux_fc": nn.Linear(16, 4)}
    return Net(forward, **layers, fc=nn.Linear(8, 4)), IMAGE


@kind
def old_weight_norm():
    import warnings

    net, shape = around(F.relu)()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nn.utils.weight_norm(net.b)
    return net, shape


@kind
def group_norm():
    net = Net(
        lambda m, x: m.fc(pooled(F.relu(m.c(F.relu(m.b(F.relu(m.n(m.a(x))))))))),
        a=conv(3, 8),
        n=nn.GroupNorm(2, 8),
        b=conv(8, 8),
        c=conv(8, 8),
        fc=nn.Linear(8, 4),
    )
    return net, IMAGE


def make_kind(name: str) -> tuple[nn.Module, tuple[int, ...]]:
    """The network of that kind with fixed random weights, and the shape of one input."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module, shape = KINDS[name]()
    return module.eval(), shape


OWN = tuple(KINDS)
"""Those of this file: others add theirs when they are imported."""
