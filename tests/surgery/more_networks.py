"""More kinds of small networks of a user's own; importing this adds them to those of ``made_networks``."""

from __future__ import annotations

import torch
import torchvision
from made_networks import IMAGE, KINDS, RMS, Kind, Net, around, conv, kind, pooled
from torch import nn
from torch.nn import functional as F

BEFORE = frozenset(KINDS)
TOKENS = (6, 8)

KINDS["scatter"] = around(
    lambda y: torch.zeros_like(y).index_add(1, torch.arange(7, -1, -1, device=y.device), y)
)
KINDS["top-channels"] = around(lambda y: y.topk(4, 1).values, 4)
KINDS["einsum"] = around(lambda y: torch.einsum("nchw,cd->ndhw", y, torch.ones(8, 8).to(y)))
KINDS["fourier"] = around(lambda y: torch.fft.ifft2(torch.fft.fft2(y) * 0.5).real)
KINDS["unfold-and-fold"] = around(lambda y: F.fold(F.unfold(y, 3, padding=1), (8, 8), 3, padding=1))
KINDS["repeated-channels"] = around(lambda y: y.repeat_interleave(2, 1), 16)
KINDS["tiled-channels"] = around(lambda y: y.repeat(1, 2, 1, 1), 16)
KINDS["both-signs"] = around(lambda y: torch.cat([y.relu(), (-y).relu()], 1), 16)
KINDS["with-coordinates"] = around(lambda y: torch.cat([y, torch.ones_like(y[:, :1])], 1), 9)
KINDS["every-second-channel"] = around(lambda y: y[:, ::2], 4)
KINDS["padded-channels"] = around(lambda y: F.pad(y, (0, 0, 0, 0, 2, 2)), 12)
KINDS["differences-of-channels"] = around(lambda y: y.diff(dim=1), 7)
KINDS["response-norm"] = around(lambda y: F.local_response_norm(y, 3))
KINDS["functional-group-norm"] = around(lambda y: F.group_norm(y, 2))
KINDS["non-local"] = around(
    lambda y: (y.flatten(2) @ (y.flatten(2).transpose(1, 2) @ y.flatten(2)).softmax(1)).view_as(y)
)
KINDS["spatial-attention"] = around(
    lambda y: (
        y * torch.cat([y.mean(1, keepdim=True), y.amax(1, keepdim=True)], 1).mean(1, keepdim=True).sigmoid()
    )
)
KINDS["checkpoint"] = around(lambda y: torch.utils.checkpoint.checkpoint(torch.relu, y, use_reentrant=False))


class Mirror(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.flip(1)

    @staticmethod
    def backward(ctx, gradient):
        return gradient.flip(1)


KINDS["autograd-function"] = around(Mirror.apply)


class Within(nn.Module):
    """A module of two convolutions, of which the input's values choose."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = conv(8, 8), conv(8, 8)

    def forward(self, x):
        return self.one(x) if bool(x.sum() > -1e9) else self.two(x)


def inside(make) -> Kind:
    def forward(m, x):
        return m.fc(pooled(F.relu(m.c(F.relu(m.middle(F.relu(m.b(F.relu(m.a(x))))))))))

    layers = {"a": (3, 8), "b": (8, 8), "c": (8, 8)}
    return lambda: (
        Net(forward, **{n: conv(*w) for n, w in layers.items()}, middle=make(), fc=nn.Linear(8, 4)),
        IMAGE,
    )


KINDS["chosen-by-values"] = inside(Within)
KINDS["scripted-module"] = inside(lambda: torch.jit.script(nn.Sequential(conv(8, 8), nn.ReLU(), conv(8, 8))))
KINDS["shared-module"] = inside(lambda: nn.Sequential(*[conv(8, 8)] * 2))
for named, normalise in (
    ("weight-norm", nn.utils.parametrizations.weight_norm),
    ("spectral-norm", nn.utils.parametrizations.spectral_norm),
    ("old-spectral-norm", nn.utils.spectral_norm),
):
    KINDS[named] = inside(
        lambda normalise=normalise: nn.Sequential(conv(8, 8), nn.ReLU(), normalise(conv(8, 8)))
    )


class KeptBiases(nn.Module):
    """Biases of places, which an evaluation computes once and keeps, as timm's LeViT and its kin do."""

    def __init__(self):
        super().__init__()
        self.biases = nn.Parameter(torch.linspace(-1, 1, 5))
        self.register_buffer("index", torch.arange(64).view(8, 8) % 5)
        self.kept = {}

    def train(self, mode=True):
        self.kept = {}
        return super().train(mode)

    def _apply(self, fn, *args, **kwargs):
        self.kept = {}
        return super()._apply(fn, *args, **kwargs)

    def forward(self, x):
        if self.training:
            return x + self.biases[self.index]
        return x + self.kept.setdefault(str(x.device), self.biases[self.index])


KINDS["kept-biases"] = inside(KeptBiases)
KINDS["standardised-convolution"] = inside(
    lambda: nn.Sequential(nn.GroupNorm(2, 8), Standardised(8, 8, 3, padding=1), nn.ReLU(), conv(8, 8))
)


class Standardised(nn.Conv2d):
    def forward(self, x):
        w = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return self._conv_forward(x, w / w.std((1, 2, 3), keepdim=True), self.bias)


def recurrent(make, call, width=6) -> Kind:
    def forward(m, x):
        return m.fc(F.relu(m.d(call(m.rnn, m.b(F.relu(m.a(x))).transpose(1, 2)))))

    layers = {"a": (4, 8, 3), "b": (8, 8, 3)}
    return lambda: (
        Net(
            forward,
            **{name: nn.Conv1d(*sizes) for name, sizes in layers.items()},
            rnn=make(),
            d=nn.Linear(width, 6),
            fc=nn.Linear(6, 3),
        ),
        (4, 8),
    )


def last(rnn, x):
    return rnn(x)[0][:, -1]


def step_by_step(cell, x):
    state = None
    for t in range(x.shape[1]):
        state = cell(x[:, t], state)
    return state[0] if isinstance(state, tuple) else state


def packed(rnn, x):
    lengths = torch.full((len(x),), x.shape[1])
    y, _ = rnn(nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True))
    return nn.utils.rnn.pad_packed_sequence(y, batch_first=True)[0][:, -1]


KINDS["bidirectional-lstm"] = recurrent(lambda: nn.LSTM(8, 3, batch_first=True, bidirectional=True), last)
KINDS["stacked-gru"] = recurrent(lambda: nn.GRU(8, 6, 2, batch_first=True), last)
KINDS["plain-recurrent"] = recurrent(lambda: nn.RNN(8, 6, batch_first=True), last)
KINDS["projected-lstm"] = recurrent(lambda: nn.LSTM(8, 9, batch_first=True, proj_size=6), last)
KINDS["packed-lstm"] = recurrent(lambda: nn.LSTM(8, 6, batch_first=True), packed)
KINDS["lstm-cell"] = recurrent(lambda: nn.LSTMCell(8, 6), step_by_step)
KINDS["gru-cell"] = recurrent(lambda: nn.GRUCell(8, 6), step_by_step)


def tokens(make, call) -> Kind:
    """Something on tokens beside a perceptron."""

    def forward(m, x):
        y = call(m.middle, m.embed(x))
        return m.head((y + m.down(F.relu(m.up(y)))).mean(1))

    layers = {"embed": (8, 16), "up": (16, 24), "down": (24, 16), "head": (16, 4)}
    return lambda: (
        Net(forward, **{name: nn.Linear(*sizes) for name, sizes in layers.items()}, middle=make()),
        TOKENS,
    )


def attend(attention, x):
    return attention(x, x, x)[0]


KINDS["attention"] = tokens(lambda: nn.MultiheadAttention(16, 4, batch_first=True), attend)
KINDS["attention-over-batch"] = tokens(
    lambda: nn.MultiheadAttention(16, 4), lambda a, x: attend(a, x.transpose(0, 1)).transpose(0, 1)
)
KINDS["attention-with-more-keys"] = tokens(
    lambda: nn.MultiheadAttention(16, 4, batch_first=True, add_bias_kv=True, add_zero_attn=True), attend
)
KINDS["attention-of-other-widths"] = tokens(
    lambda: nn.MultiheadAttention(16, 4, batch_first=True, kdim=6, vdim=10),
    lambda a, x: a(x, x[..., :6], x[..., :10])[0],
)
KINDS["encoder"] = tokens(
    lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 4, 24, batch_first=True), 2),
    lambda encoder, x: encoder(x),
)
KINDS["decoder"] = tokens(
    lambda: nn.TransformerDecoder(nn.TransformerDecoderLayer(16, 4, 24, batch_first=True), 1),
    lambda decoder, x: decoder(x, 2 * x),
)


class Rotary(nn.Module):
    """Rotated queries and keys, and keys and values shared by several heads, as Hugging Face writes them."""

    def __init__(self, *, pairs: bool) -> None:
        super().__init__()
        self.pairs = pairs
        self.q, self.o = nn.Linear(16, 16, bias=False), nn.Linear(16, 16, bias=False)
        self.k, self.v = nn.Linear(16, 8, bias=False), nn.Linear(16, 8, bias=False)

    def rotate(self, x):
        angles = torch.arange(x.shape[2], device=x.device, dtype=x.dtype)[:, None]
        if self.pairs:
            one, two = x[..., ::2], x[..., 1::2]
            turned = torch.stack([-two, one], -1).flatten(-2)
        else:
            turned = torch.cat([-x[..., 2:], x[..., :2]], -1)
        return x * angles.cos() + turned * angles.sin()

    def forward(self, x):
        n, t, _ = x.shape
        q, k, v = (layer(x).view(n, t, -1, 4).transpose(1, 2) for layer in (self.q, self.k, self.v))
        k, v = (y[:, :, None].expand(n, 2, 2, t, 4).reshape(n, 4, t, 4) for y in (self.rotate(k), v))
        y = F.scaled_dot_product_attention(self.rotate(q), k, v, is_causal=True)
        return x + self.o(y.transpose(1, 2).reshape(n, t, 16))


KINDS["rotated-halves"] = tokens(lambda: nn.Sequential(Rotary(pairs=False), RMS(16)), lambda m, x: m(x))
KINDS["rotated-pairs"] = tokens(lambda: nn.Sequential(Rotary(pairs=True), RMS(16)), lambda m, x: m(x))


@kind
def rotated_by_the_network_itself():
    rotary = Rotary(pairs=False)
    net, shape = tokens(nn.Identity, lambda m, x: x)()
    for name in "qkvo":
        net.add_module(name, getattr(rotary, name))
    net.pairs = False
    net.rotate = rotary.rotate
    net.body = lambda m, x: m.head(
        (lambda y: y + m.down(F.relu(m.up(y))))(Rotary.forward(m, m.embed(x))).mean(1)
    )
    return net, shape


def experts(choose) -> Kind:
    def forward(m, x):
        share = choose(m.gate(x).softmax(-1))
        return m.head(F.relu(sum(share[:, i : i + 1] * expert(x) for i, expert in enumerate(m.experts))))

    perceptrons = lambda: nn.ModuleList(  # noqa: E731
        nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 6)) for _ in range(3)
    )
    return lambda: (
        Net(forward, gate=nn.Linear(8, 3), experts=perceptrons(), head=nn.Linear(6, 3)),
        (8,),
    )


KINDS["mixture-of-experts"] = experts(lambda share: share)
KINDS["two-best-experts"] = experts(lambda share: share * (share >= share.topk(2, -1).values[:, -1:]))


@kind
def dense_concatenation():
    def forward(m, x):
        y = m.stem(x)
        for layer in m.layers:
            y = torch.cat([y, layer(y)], 1)
        return m.fc(pooled(F.relu(y)))

    layers = (nn.Sequential(nn.BatchNorm2d(6 + 4 * i), nn.ReLU(), conv(6 + 4 * i, 4)) for i in range(3))
    return Net(forward, stem=conv(3, 6), layers=nn.ModuleList(layers), fc=nn.Linear(18, 4)), IMAGE


@kind
def depthwise_separable():
    layers = (
        conv(3, 8),
        nn.ReLU6(),
        conv(8, 16, groups=8),
        nn.ReLU(),
        nn.Conv2d(16, 12, 1),
        nn.BatchNorm2d(12),
    )
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 4)), IMAGE


@kind
def shuffled_halves():
    def forward(m, x):
        one, two = F.relu(m.a(x)).chunk(2, 1)
        y = F.channel_shuffle(torch.cat([one, F.relu(m.c(F.relu(m.b(two))))], 1), 2)
        return m.fc(pooled(F.relu(m.d(y))))

    return Net(forward, a=conv(3, 8), b=conv(4, 6), c=conv(6, 4), d=conv(8, 8), fc=nn.Linear(8, 4)), IMAGE


@kind
def called_at_two_sizes():
    def forward(m, x):
        return m.fc(sum(pooled(F.relu(m.b(F.relu(m.a(y))))) for y in (x, F.avg_pool2d(x, 2))))

    return Net(forward, a=conv(3, 8), b=conv(8, 8), fc=nn.Linear(8, 4)), IMAGE


@kind
def deformable():
    def forward(m, x):
        y = F.relu(m.a(x))
        return m.fc(pooled(F.relu(m.c(F.relu(m.deform(y, m.offsets(y)))))))

    layers = {
        "a": conv(3, 8),
        "offsets": conv(8, 18),
        "deform": torchvision.ops.DeformConv2d(8, 8, 3, padding=1),
    }
    return Net(forward, **layers, c=conv(8, 8), fc=nn.Linear(8, 4)), IMAGE


@kind
def regions():
    def forward(m, x):
        y = F.relu(m.b(F.relu(m.a(x))))
        boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0]]).to(x)
        return m.fc(pooled(F.relu(m.c(torchvision.ops.roi_align(y, [boxes] * len(x), (2, 2))))))

    return Net(forward, a=conv(3, 8), b=conv(8, 8), c=conv(8, 8), fc=nn.Linear(8, 4)), IMAGE


@kind
def cosine_classifier():
    net = Net(
        lambda m, x: F.cosine_similarity(pooled(F.relu(m.b(F.relu(m.a(x)))))[:, None], m.classes[None], dim=-1),
        a=conv(3, 8),
        b=conv(8, 8),
    )
    net.classes = nn.Parameter(torch.randn(4, 8))
    return net, IMAGE


@kind
def bilinear_layer():
    def forward(m, x):
        return m.fc(F.relu(m.both(m.b(F.relu(m.a(x))), m.c(x))))

    layers = {"a": nn.Linear(6, 8), "b": nn.Linear(8, 5), "c": nn.Linear(6, 4), "both": nn.Bilinear(5, 4, 7)}
    return Net(forward, **layers, fc=nn.Linear(7, 3)), (6,)


@kind
def frozen_front():
    def forward(m, x):
        with torch.no_grad():
            y = F.relu(m.b(F.relu(m.a(x))))
        return m.fc(F.relu(m.c(pooled(y))))

    return Net(forward, a=conv(3, 8), b=conv(8, 8), c=nn.Linear(8, 12), fc=nn.Linear(12, 4)), IMAGE


@kind
def variational():
    def forward(m, x):
        mean, spread = m.encode(x).chunk(2, -1)
        return {"made": m.decode(mean), "mean": mean, "spread": [spread, None]}

    layers = {"encode": (8, 12, 8), "decode": (4, 12, 8)}
    halves = {n: nn.Sequential(nn.Linear(a, b), nn.ReLU(), nn.Linear(b, c)) for n, (a, b, c) in layers.items()}
    return Net(forward, **halves), (8,)


@kind
def gated_recurrence():
    """A state-space layer: a gate, a depthwise convolution, and a state that is carried along."""

    def forward(m, x):
        y, gate = m.enter(x).chunk(2, -1)
        y = F.silu(m.conv(y.transpose(1, 2))[..., : x.shape[1]].transpose(1, 2))
        state, states = torch.zeros_like(y[:, 0]), []
        for t in range(x.shape[1]):
            state = state * m.decay.sigmoid() + y[:, t]
            states.append(state)
        return m.head((x + m.leave(torch.stack(states, 1) * F.silu(gate))).mean(1))

    layers = {"enter": nn.Linear(8, 24), "conv": nn.Conv1d(12, 12, 3, padding=2, groups=12)}
    net = Net(forward, **layers, leave=nn.Linear(12, 8), head=nn.Linear(8, 3))
    net.decay = nn.Parameter(torch.randn(12))
    return net, TOKENS


@kind
def squeezed_tokens():
    """The spatial gating unit of gMLP."""

    def forward(m, x):
        one, two = m.enter(x).chunk(2, -1)
        return m.head((x + m.leave(one * m.mix(two.transpose(1, 2)).transpose(1, 2))).mean(1))

    layers = {"enter": nn.Linear(8, 24), "mix": nn.Linear(6, 6), "leave": nn.Linear(12, 8)}
    return Net(forward, **layers, head=nn.Linear(8, 3)), TOKENS


ADDED = tuple(name for name in KINDS if name not in BEFORE)
