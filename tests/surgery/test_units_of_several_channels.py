"""Units of several channels: groups of a norm, and the halves of a gate."""
# ruff: noqa: E501  one case a line

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from made_networks import RMS, Net, conv, pooled
from torch import nn
from torch.nn import functional as F

from shrinkbench.errors import LeftWholeWarning
from shrinkbench.metrics import count_parameters, measure_size
from shrinkbench.network.coupling import couple
from shrinkbench.pruning.masks import Masks
from shrinkbench.pruning.structures.channel_masks import masks_of_units
from shrinkbench.surgery.checking import largest_difference
from shrinkbench.surgery.operation import Surgery, operate
from shrinkbench.surgery.shrinking import plan_and_shrink

IMAGE, TOKENS = (3, 8, 8), (5, 8)


def normed(norm, width=8):
    layers = {"a": conv(3, width), "n": norm, "b": conv(width, 6)}
    return Net(lambda m, x: m.fc(pooled(F.relu(m.b(F.relu(m.n(m.a(x))))))), **layers, fc=nn.Linear(6, 4))


def normed_stream(norm):
    """A residual stream that passes a norm, beside a branch with norms of its own."""

    def forward(m, x):
        x = m.stem(x)
        x = x + m.c(F.relu(m.n2(m.b(F.relu(m.n1(x))))))
        return m.fc(pooled(F.relu(m.n3(x))))

    layers = {"stem": conv(3, 8), "n1": norm(8), "b": conv(8, 12), "n2": norm(12), "c": conv(12, 8)}
    return Net(forward, **layers, n3=norm(8), fc=nn.Linear(8, 4))


def joined():
    def forward(m, x):
        return m.fc(pooled(F.relu(m.n(torch.cat([m.a(x), m.b(x)], 1)))))

    return Net(forward, a=conv(3, 4), b=conv(3, 8), n=nn.GroupNorm(3, 12), fc=nn.Linear(12, 4))


def gated(split, *, first=None, second=None):
    """``split`` makes two halves of the channels, of which the second is a gate."""

    def forward(m, x):
        one, two = split(m.a(x))
        return m.fc(pooled(F.relu(m.b(one * two.sigmoid()))))

    return Net(forward, a=first or conv(3, 12), b=second or conv(6, 8), fc=nn.Linear(8, 4))


def feed_forward(middle):
    return Net(lambda m, x: m.head((x + m.w3(middle(m.w12(x)))).mean(1)),
               w12=nn.Linear(8, 24), w3=nn.Linear(12, 8), head=nn.Linear(8, 4))  # fmt: skip


def silu_gate(y):
    one, two = y.chunk(2, -1)
    return F.silu(one) * two


class Attention(nn.Module):
    """As in LLaMA: rotated queries and keys, keys and values shared by several heads, no biases."""

    def __init__(self, width, heads, kv_heads, head_dim, bias):
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = heads, kv_heads, head_dim
        self.q, self.o = nn.Linear(width, heads * head_dim, bias=bias), nn.Linear(heads * head_dim, width)
        self.k, self.v = (nn.Linear(width, kv_heads * head_dim, bias=bias) for _ in range(2))

    def rotate(self, x):
        half = self.head_dim // 2
        angles = torch.arange(x.shape[2], device=x.device)[:, None] / 7.0 ** torch.arange(half, device=x.device)
        one, two = x.chunk(2, -1)
        cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        return torch.cat([one * cos - two * sin, two * cos + one * sin], -1)

    def forward(self, x):
        n, t, _ = x.shape
        q = self.rotate(self.q(x).view(n, t, self.heads, self.head_dim).transpose(1, 2))
        k = self.rotate(self.k(x).view(n, t, self.kv_heads, self.head_dim).transpose(1, 2))
        v = self.v(x).view(n, t, self.kv_heads, self.head_dim).transpose(1, 2)
        k, v = (y.repeat_interleave(self.heads // self.kv_heads, 1) for y in (k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o(y.transpose(1, 2).reshape(n, t, self.heads * self.head_dim))


class Block(nn.Module):
    def __init__(self, attention, width, hidden):
        super().__init__()
        self.norm1, self.attention, self.norm2 = RMS(width), attention, RMS(width)
        self.gate_proj, self.up_proj = (
            nn.Linear(width, hidden, bias=False),
            nn.Linear(width, hidden, bias=False),
        )
        self.down_proj = nn.Linear(hidden, width, bias=False)

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        y = self.norm2(x)
        return x + self.down_proj(F.silu(self.gate_proj(y)) * self.up_proj(y))


def llama(kind, heads, kv_heads, head_dim, *, bias=False):
    blocks = [Block(kind(8, heads, kv_heads, head_dim, bias), 8, 12) for _ in range(2)]
    stack = nn.Sequential(*blocks, RMS(8))
    return Net(
        lambda m, x: m.head(m.stack(m.embed(x)).mean(1)),
        embed=nn.Linear(8, 8),
        stack=stack,
        head=nn.Linear(8, 3),
    )


CASES = {  # network, shape of one input, {group: its units}
    "group norm": (lambda: normed(nn.GroupNorm(4, 8)), IMAGE, {"a": 4}),
    "instance norm as a group norm": (lambda: normed(nn.GroupNorm(8, 8)), IMAGE, {"a": 8}),
    "instance norm": (lambda: normed(nn.InstanceNorm2d(8, affine=True)), IMAGE, {"a": 8}),
    "instance norm without scales": (lambda: normed(nn.InstanceNorm2d(8)), IMAGE, {"a": 8}),
    "group norms on a stream": (lambda: normed_stream(lambda n: nn.GroupNorm(4, n)), IMAGE, {"stem": 4, "b": 4}),
    # the first group of three holds all of a, the others halves of b
    "group norm over a concatenation": (joined, IMAGE, {"a": 1, "b": 2}),
    "chunk gate": (lambda: gated(lambda y: y.chunk(2, 1)), IMAGE, {"a": 6, "b": 8}),
    "gate by half the width": (lambda: gated(lambda y: y.split(y.shape[1] // 2, 1)), IMAGE, {"a": 6, "b": 8}),
    "chunk gate behind a batch norm": (
        lambda: gated(lambda y: y.chunk(2, 1), first=nn.Sequential(conv(3, 12), nn.BatchNorm2d(12))), IMAGE, {"a.0": 6},
    ),
    "gate between depthwise layers": (
        lambda: gated(lambda y: y.chunk(2, 1), first=nn.Sequential(conv(3, 12), conv(12, 12, groups=12)),
                      second=nn.Sequential(conv(6, 6, groups=6), nn.Conv2d(6, 8, 1))), IMAGE, {"a.0": 6, "b.1": 8},
    ),
    "gated linear unit": (
        lambda: Net(lambda m, x: m.fc(pooled(m.b(F.glu(m.a(x), 1)))), a=conv(3, 12), b=conv(6, 8), fc=nn.Linear(8, 4)),
        IMAGE, {"a": 6, "b": 8},
    ),
    "fused SwiGLU": (lambda: feed_forward(silu_gate), TOKENS, {"w12": 12}),
    "fused linear GLU": (lambda: feed_forward(lambda y: F.glu(y, -1)), TOKENS, {"w12": 12}),
    "four parts": (
        lambda: Net(lambda m, x: m.head(sum(p * (i + 1) for i, p in enumerate(m.a(x).chunk(4, -1)))),
                    a=nn.Linear(6, 20), head=nn.Linear(5, 3)), (6,), {"a": 5},
    ),
}  # fmt: skip


def made(name):
    make, shape, units = CASES[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make().eval(), shape, units


def assert_cut_right(module, shape, *, kept_share):
    coupling = couple(module, shape)
    keep = {}
    for number, group in enumerate(coupling.free):
        stays = torch.zeros(group.units, dtype=torch.bool)
        order = torch.randperm(group.units, generator=torch.Generator().manual_seed(number))
        stays[order[: max(1, round(group.units * kept_share))]] = True
        keep[group.layer] = stays
    masks = masks_of_units(module, coupling, keep)
    small, surgery = plan_and_shrink(module, masks, shape)
    masked = copy.deepcopy(module)
    Masks(masks).apply(masked)
    assert largest_difference(masked, small, shape) < 1e-9
    assert count_parameters(small) == measure_size(module, shape, masks).parameters_kept
    assert count_parameters(small) < count_parameters(module)
    small.train()(torch.randn(2, *shape)).sum().backward()
    return small, masked, surgery


@pytest.mark.filterwarnings("ignore:input.s size at dim=1 does not match")
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("kept_share", [0.3, 0.7])
def test_units_are_cut_right(name, kept_share):
    module, shape, units = made(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LeftWholeWarning)
        coupling = couple(module, shape)
        assert units.items() <= {g.layer: g.units for g in coupling.free}.items()
        if all(count == 1 or round(count * kept_share) == count for count in units.values()):
            return
        _, masked, surgery = assert_cut_right(module, shape, kept_share=kept_share)
    again = operate(copy.deepcopy(masked), Surgery.from_json(surgery.as_json()))
    assert largest_difference(masked, again, shape) < 1e-9


def test_norm_groups_are_counted_anew():
    module, shape, _ = made("group norm")
    small, _, _ = assert_cut_right(module, shape, kept_share=0.5)
    assert (small.n.num_groups, small.n.num_channels, small.a.out_channels) == (2, 4, 4)


@pytest.mark.parametrize(
    ("norm", "reason"),
    [(nn.GroupNorm(1, 8), "mixes channels"), (nn.GroupNorm(2, 8, affine=False), "mixes channels")],
)
def test_norms_over_all_channels_or_without_scales_stay_whole(norm, reason):
    assert reason in (couple(normed(norm), IMAGE).group_of("a").refused_because or "")


def test_a_split_by_written_numbers_is_left_whole_and_named():
    with pytest.warns(
        LeftWholeWarning, match="channels of 'a' are left whole: the network does not run without"
    ):
        couple(gated(lambda y: y.split([6, 6], 1)), IMAGE)


def test_attention_whose_sizes_are_written_down_is_left_whole_and_named():
    class Fixed(Attention):
        def forward(self, x):
            q = self.q(x).view(*x.shape[:2], 4, 2).transpose(1, 2)
            k, v = (
                p(x).view(*x.shape[:2], 2, 2).transpose(1, 2).repeat_interleave(2, 1) for p in (self.k, self.v)
            )
            return self.o(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))

    with pytest.warns(LeftWholeWarning, match="left whole"):
        coupling = couple(llama(Fixed, 4, 2, 2), TOKENS)
    assert "stack.0.attention.q" not in {group.layer for group in coupling.free}
    assert "stack.0.gate_proj" in {group.layer for group in coupling.free}


def test_rotated_queries_are_left_whole_and_named_and_the_perceptrons_are_cut():
    module = llama(Attention, 4, 2, 2)
    with pytest.warns(
        LeftWholeWarning, match=r"'stack\.0\.attention\.q', 'stack\.1\.attention\.q' are left whole"
    ):
        coupling = couple(module, TOKENS)
    assert {group.layer for group in coupling.free} == {"stack.0.gate_proj", "stack.1.gate_proj"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LeftWholeWarning)
        small, _, _ = assert_cut_right(module, TOKENS, kept_share=0.5)
    assert small.stack[1].up_proj.out_features == 6


@pytest.mark.parametrize("name", ["SwiGLU", "SwiGLUPacked", "GluMlp", "ConvMlp"])
def test_perceptrons_of_timm(name):
    layers = pytest.importorskip("timm.layers")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        kind = getattr(layers, name)
        mlp = kind(8, 24) if name != "ConvMlp" else kind(8, 24, 8)
    if name == "ConvMlp":
        module = Net(
            lambda m, x: m.head(pooled(m.mlp(m.stem(x)))), stem=conv(3, 8), mlp=mlp, head=nn.Linear(8, 3)
        )
        assert_cut_right(module.eval(), IMAGE, kept_share=0.5)
        return
    module = Net(lambda m, x: m.head((x + m.mlp(x)).mean(1)), mlp=mlp, head=nn.Linear(8, 3)).eval()
    assert_cut_right(module, TOKENS, kept_share=0.5)
