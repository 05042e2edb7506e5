"""Multiply-adds against counts by hand, whole and under masks: by what really multiplies.

Every mask below keeps the first rows (dimension 0) or columns (dimension 1) of a parameter.
"""
# ruff: noqa: E501  one case a line

import math
import re
from functools import partial

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.metrics import count_multiply_adds, measure_size
from shrinkbench.network.probe import trace
from shrinkbench.network.products import has_formula, is_uncounted
from shrinkbench.pruning import Masks


class Net(nn.Module):
    """``run(self, x)`` over the given children and parameters (tuples are shapes)."""

    def __init__(self, run, **parts):
        super().__init__()
        self.run = run
        for name, part in parts.items():
            setattr(self, name, nn.Parameter(torch.randn(part)) if isinstance(part, tuple) else part)

    def forward(self, x):
        return self.run(self, x)


def standardise(w):
    dims = tuple(range(1, w.ndim))
    return (w - w.mean(dims, keepdim=True)) / w.std(dims, keepdim=True)


def first(parameter, kept, *, dim=0):
    """The mask that keeps the first ``kept`` rows or columns."""
    mask = torch.zeros(parameter.shape, dtype=torch.bool)
    mask.narrow(dim, 0, kept).fill_(True)
    return mask


def first_output(layer):
    return Net(lambda s, x: s.layer(x)[0], layer=layer)


def multihead(run, **options):
    return Net(run, a=nn.MultiheadAttention(8, 2, batch_first=True, **options))


def grouped_query(s, x):
    q = s.q(x).view(1, 6, 4, 2).transpose(1, 2)  # 4 heads of 2 over 2 heads of keys and values
    k, v = (p(x).view(1, 6, 2, 2).transpose(1, 2) for p in (s.k, s.v))
    return s.o(F.scaled_dot_product_attention(q, k, v, enable_gqa=True).transpose(1, 2).reshape(1, 6, 8))


def pooled(s, x):
    scores = (s.q(s.latent).view(1, 2, 8) @ s.k(x).transpose(1, 2)).softmax(-1)
    return scores @ s.v(x)


@torch.inference_mode()
def inside_inference_mode(s, x):
    return s.b(s.a(x).relu())


class Product(torch.autograd.Function):
    """A product that torch only knows as Python code."""

    @staticmethod
    def forward(ctx, x, w):
        return x @ w.T

    @staticmethod
    def backward(ctx, gradient):
        raise NotImplementedError


Conv, Linear = nn.Conv2d, partial(nn.Linear, bias=False)

# network, shape of one input, multiply-adds, {parameter: what its mask keeps}, multiply-adds kept
CASES = {
    "convolution": (Conv(3, 6, 5), (3, 12, 12), 64 * 6 * 3 * 25, {"weight": 2}, 64 * 2 * 3 * 25),
    "strided": (Conv(3, 6, 3, 2, 1), (3, 8, 8), 16 * 6 * 27, {"weight": 1}, 16 * 27),
    "grouped": (Conv(8, 16, 3, padding=1, groups=4), (8, 5, 5), 25 * 16 * 2 * 9, {"weight": 4}, 25 * 4 * 18),
    "depthwise": (Conv(8, 8, 3, padding=1, groups=8), (8, 5, 5), 25 * 8 * 9, {"weight": 3}, 25 * 3 * 9),
    "dilated": (Conv(2, 4, 3, dilation=2), (2, 9, 9), 25 * 4 * 18, {"weight": 1}, 25 * 18),
    "circular": (Conv(2, 4, 3, padding=1, padding_mode="circular"), (2, 6, 6), 36 * 4 * 18, {"weight": 1}, 36 * 18),
    "conv1d": (nn.Conv1d(3, 5, 3), (3, 10), 8 * 5 * 9, {"weight": 2}, 8 * 2 * 9),
    "conv3d": (nn.Conv3d(2, 3, 2), (2, 4, 4, 4), 27 * 3 * 16, {"weight": 1}, 27 * 16),
    # a transposed convolution multiplies every input position by the whole kernel
    "transposed 1-d": (nn.ConvTranspose1d(3, 5, 4, 2), (3, 7), 7 * 3 * 5 * 4, {"weight": 1}, 7 * 5 * 4),
    "transposed": (nn.ConvTranspose2d(4, 6, 3, 2), (4, 5, 5), 25 * 4 * 6 * 9, {"weight": 3}, 25 * 3 * 6 * 9),
    "transposed 3-d": (nn.ConvTranspose3d(2, 3, 2), (2, 3, 3, 3), 27 * 6 * 8, {"weight": 1}, 27 * 3 * 8),
    "transposed grouped": (
        nn.ConvTranspose2d(4, 6, 3, groups=2), (4, 5, 5), 25 * 4 * 3 * 9, {"weight": 1}, 25 * 3 * 9,
    ),
    "tbc": (Net(lambda s, x: torch.conv_tbc(x.transpose(0, 1), s.w, s.b), w=(3, 4, 5), b=(5,)), (9, 4),
            7 * 3 * 4 * 5, {"w": 1}, 7 * 4 * 5),
    "linear on tokens": (nn.Linear(7, 5), (11, 7), 11 * 35, {"weight": 2}, 11 * 14),
    "reused": (nn.Sequential(layer := nn.Linear(4, 4), nn.ReLU(), layer), (4,), 32, {"0.weight": 1}, 8),
    "tied transpose": (Net(lambda s, x: F.linear(s.a(x), s.a.weight.t()), a=Linear(6, 3)), (6,), 36, {"a.weight": 1}, 12),
    "rnn": (first_output(nn.RNN(4, 3, batch_first=True)), (5, 4), 5 * (12 + 9), {"layer.weight_ih_l0": 1}, 5 * (4 + 9)),
    "lstm": (first_output(nn.LSTM(4, 3, batch_first=True)), (5, 4), 5 * 12 * 7, {"layer.weight_hh_l0": 4}, 5 * (48 + 12)),
    "lstm both ways": (
        first_output(nn.LSTM(4, 3, batch_first=True, bidirectional=True)), (5, 4), 2 * 5 * 12 * 7,
        {"layer.weight_ih_l0_reverse": 3}, 5 * 84 + 5 * (12 + 36),
    ),
    "gru": (first_output(nn.GRU(4, 3, batch_first=True)), (5, 4), 5 * 9 * 7, {"layer.weight_ih_l0": 3}, 5 * (12 + 27)),
    "lstm that looks at its data": (
        Net(lambda s, x: s.a(x)[0] if bool((x >= 0).all()) else x, a=nn.LSTM(4, 3, batch_first=True)), (5, 4),
        5 * 12 * 7, {"a.weight_hh_l0": 4}, 5 * (48 + 12),
    ),
    "einsum": (Net(lambda s, x: torch.einsum("bti,oi->bto", x, s.w), w=(5, 7)), (11, 7), 11 * 35, {"w": 2}, 11 * 14),
    "einsum per head": (
        Net(lambda s, x: torch.einsum("bthi,hio->btho", x, s.w), w=(2, 3, 4)), (6, 2, 3), 6 * 24, {"w": 1}, 6 * 12,
    ),
    "tensordot": (Net(lambda s, x: torch.tensordot(x, s.w, 1), w=(7, 5)), (11, 7), 11 * 35, {"w": 3}, 11 * 15),
    "self-attention": (
        multihead(lambda s, x: s.a(x, x, x, need_weights=False)[0]), (5, 8), 4 * 5 * 64 + 2 * 25 * 8,
        {"a.in_proj_weight": 6}, 5 * 6 * 8 + 5 * 64 + 2 * 25 * 8,
    ),
    # packed: 8 rows for 2 queries, 16 for 9 keys and values
    "cross-attention": (
        multihead(lambda s, x: s.a(x[:, :2], x, x)[0]), (9, 8), 2 * 64 + 2 * 9 * 64 + 2 * 18 * 8 + 2 * 64,
        {"a.in_proj_weight": 8}, 2 * 64 + 2 * 18 * 8 + 2 * 64,
    ),
    "cross-attention, own widths": (
        multihead(lambda s, x: s.a(x[:, :2], x[..., :3], x[..., :5])[0], kdim=3, vdim=5), (9, 8),
        2 * 64 + 9 * 24 + 9 * 40 + 2 * 18 * 8 + 2 * 64,
        {"a.k_proj_weight": 4}, 2 * 64 + 9 * 12 + 9 * 40 + 2 * 18 * 8 + 2 * 64,
    ),
    "encoder layer": (
        nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), (5, 8), 4 * 5 * 64 + 400 + 2 * 5 * 128,
        {"linear1.weight": 4}, 4 * 5 * 64 + 400 + 5 * 32 + 5 * 128,
    ),
    "grouped-query attention": (
        Net(grouped_query, q=Linear(8, 8), k=Linear(8, 4), v=Linear(8, 4), o=Linear(8, 8)), (6, 8),
        6 * (64 + 32 + 32 + 64) + 2 * 4 * 36 * 2, {"k.weight": 1}, 6 * (64 + 8 + 32 + 64) + 2 * 4 * 36 * 2,
    ),
    # of 2 queries that the network learns: their projection, scores with 5 keys, sums of 5 values
    "learned queries": (
        Net(pooled, latent=(2, 8), q=Linear(8, 8), k=Linear(8, 8), v=Linear(8, 8)), (5, 8),
        2 * 64 + 2 * 5 * 64 + 2 * 2 * 5 * 8, {"q.weight": 2}, 2 * 16 + 2 * 5 * 64 + 2 * 5 * 2 + 2 * 5 * 8,
    ),
    "learned queries with a bias": (
        Net(pooled, latent=(2, 8), q=nn.Linear(8, 8), k=Linear(8, 8), v=Linear(8, 8)), (5, 8),
        2 * 64 + 2 * 5 * 64 + 2 * 2 * 5 * 8, {"q.weight": 2}, 2 * 16 + 2 * 5 * 64 + 2 * 2 * 5 * 8,
    ),
    # the weights by the second input, then the sums by the first
    "bilinear": (
        Net(lambda s, x: s.a(x, x[:, :3]), a=nn.Bilinear(5, 3, 4)), (5,), 60 + 20, {"a.weight": 1}, 15 + 20,
    ),
    "standardised": (
        Net(lambda s, x: F.conv2d(x, standardise(s.a.weight)), a=Conv(2, 4, 3)), (2, 5, 5), 9 * 72,
        {"a.weight": (2, 1)}, 9 * 72,  # half of the inputs are masked, and none is zero
    ),
    "whole filters of a standardised weight": (
        Net(lambda s, x: F.linear(x, s.a.weight - s.a.weight.mean(1, keepdim=True)), a=Linear(4, 4)), (4,), 16,
        {"a.weight": 1}, 4,
    ),
    "weight norm": (
        parametrizations.weight_norm(nn.Linear(6, 4)), (6,), 24, {"parametrizations.weight.original1": (3, 1)}, 12,
    ),
    "old weight norm": (nn.utils.weight_norm(nn.Linear(6, 4)), (6,), 24, {"weight_v": (3, 1)}, 12),
    # its largest singular value, u (W v), is computed in every pass; of W v three entries are zero
    "spectral norm": (
        parametrizations.spectral_norm(nn.Linear(6, 4)), (6,), 24 + 4 + 24,
        {"parametrizations.weight.original": 1}, 6 + 1 + 6,
    ),
    "pruned before": (
        prune.custom_from_mask(nn.Linear(6, 4), "weight", first(torch.ones(4, 6), 3, dim=1)), (6,), 24,
        {"weight_orig": 1}, 6,  # as the size counts: by the masks that are given, not by those it carries
    ),
    # 6 * 2 * 5 for the weight, which is whole unless both factors of a sum are masked; then 5 * 6
    "low rank": (
        Net(lambda s, x: F.linear(x, s.up @ s.down), up=(5, 2), down=(2, 6)), (6,), 60 + 30,
        {"down": 1}, 30 + 30,
    ),
    "low rank, rows": (
        Net(lambda s, x: F.linear(x, s.up @ s.down), up=(5, 2), down=(2, 6)), (6,), 60 + 30,
        {"up": 2, "down": (3, 1)}, 2 * 2 * 3 + 2 * 3,
    ),
    "generated": (
        Net(lambda s, x: F.linear(x, s.b(s.a(s.z).tanh()).view(3, 4)), z=(2,), a=nn.Linear(2, 5), b=nn.Linear(5, 12)),
        (4,), 10 + 60 + 12, {"b.weight": (1, 1)}, 10 + 12 + 12,
    ),
    "cut by a triangle": (
        Net(lambda s, x: F.linear(x, s.w * torch.ones(4, 4).tril()), w=(4, 4)), (4,), 16, {"w": 2}, 16 - 7,
    ),
    "matrix by vector": (Net(lambda s, x: torch.mv(s.w, x[0])[None], w=(4, 8)), (8,), 32, {"w": 1}, 8),
    "attention pooling": (Net(lambda s, x: x @ s.w, w=(8,)), (6, 8), 48, {"w": 3}, 18),
    "dot": (Net(lambda s, x: torch.dot(x[0], s.w)[None], w=(8,)), (8,), 8, {"w": 3}, 3),
    "addmv": (Net(lambda s, x: torch.addmv(s.b, s.w, x[0])[None], w=(4, 8), b=(4,)), (8,), 32, {"w": 1}, 8),
    "addr": (Net(lambda s, x: torch.addr(s.b, x[0], s.w), w=(4,), b=(8, 4)), (8,), 32, {"w": 1}, 8),
    "outer": (Net(lambda s, x: torch.outer(x[0], s.w)[None], w=(5,)), (8,), 40, {"w": 2}, 16),
    "outer of two parameters": (
        Net(lambda s, x: F.linear(x, torch.outer(s.v, s.w)), v=(4,), w=(8,)), (8,), 32 + 32, {"v": 1, "w": 3}, 3 + 3,
    ),
    "outer by einsum": (Net(lambda s, x: torch.einsum("bi,j->bij", x, s.w), w=(5,)), (8,), 40, {"w": 2}, 16),
    "outer by tensordot": (Net(lambda s, x: torch.tensordot(x, s.w, 0), w=(5,)), (8,), 40, {"w": 2}, 16),
    "kron": (Net(lambda s, x: torch.kron(x[0], s.w)[None], w=(5,)), (8,), 40, {"w": 2}, 16),
    "chain": (Net(lambda s, x: torch.linalg.multi_dot([x, s.w, s.v]), w=(8, 4), v=(4, 3)), (8,), 44, {"w": 1}, 4 + 12),
    "functional bilinear": (Net(lambda s, x: F.bilinear(x, x, s.w), w=(4, 8, 8)), (8,), 256 + 32, {"w": 1}, 64 + 32),
    "unfold and multiply": (Net(lambda s, x: s.w.flatten(1) @ F.unfold(x, 3), w=(4, 2, 3, 3)), (2, 5, 5), 9 * 72, {"w": 1}, 9 * 18),
    "matrix power": (Net(lambda s, x: x @ torch.matrix_power(s.w, 3), w=(8, 8)), (8,), 2 * 512 + 64, {}, 2 * 512 + 64),
    "affine grid": (
        Net(lambda s, x: F.grid_sample(x, F.affine_grid(s.w, (1, 2, 4, 3), False), align_corners=False), w=(1, 2, 3)),
        (2, 5, 5), 12 * 6, {}, 12 * 6,
    ),
    "weighted bag of embeddings": (
        Net(lambda s, x: F.embedding_bag(torch.zeros(1, 3, dtype=torch.long, device=x.device), s.w, per_sample_weights=x, mode="sum"), w=(10, 5)),
        (3,), 15, {}, 15,
    ),
    "baddbmm": (Net(lambda s, x: torch.baddbmm(s.b, x, s.w), w=(1, 7, 5), b=(5,)), (11, 7), 385, {"w": (3, 1)}, 165),
    "addbmm": (Net(lambda s, x: torch.addbmm(s.b, x, s.w), w=(1, 7, 5), b=(5,)), (11, 7), 385, {"w": (3, 1)}, 165),
    "product and sum": (Net(lambda s, x: (x[:, None] * s.w).sum(-1), w=(5, 7)), (7,), 35, {"w": 2}, 14),
    "product and mean": (Net(lambda s, x: (s.w * x[:, None]).mean(dim=2), w=(5, 7)), (7,), 35, {"w": (3, 1)}, 15),
    "product and sum of everything": (Net(lambda s, x: (x * s.w).sum()[None], w=(7,)), (7,), 7, {"w": 2}, 2),
    "product and sum, tokens": (
        Net(lambda s, x: (x[..., None, :] * s.w).sum(-1), w=(5, 7)), (11, 7), 11 * 35, {"w": 2}, 11 * 14,
    ),
    "product and sum, outer": (
        Net(lambda s, x: (x[..., None] * s.w).sum(-2), w=(7, 5)), (11, 7), 11 * 35, {"w": (2, 1)}, 11 * 14,
    ),
    "product, views and sum": (
        Net(lambda s, x: (x[:, None] * s.w).unflatten(-1, (2, 4)).transpose(1, 2).sum((1, 3)), w=(5, 8)), (8,), 40,
        {"w": 2}, 16,
    ),
    "product and sum, in place": (
        Net(lambda s, x: x[:, None].expand(-1, 5, -1).clone().mul_(s.w).sum(-1), w=(5, 7)), (7,), 35, {"w": 2}, 14,
    ),
    "weighted sum over pixels": (Net(lambda s, x: (x * s.w).sum((2, 3)), w=(1, 4, 4)), (3, 4, 4), 48, {"w": (2, 1)}, 24),
    "product and sum of constants": (
        Net(lambda s, x: F.linear(x, (s.a[:, None] * s.b).sum(-1)), a=(5, 3), b=(7, 3)), (7,), 105 + 35,
        {"a": 2}, 2 * 21 + 14,
    ),
    "vecdot": (Net(lambda s, x: torch.linalg.vecdot(x[:, None], s.w), w=(5, 7)), (7,), 35, {"w": 2}, 14),
    "cosine similarity": (
        Net(lambda s, x: F.cosine_similarity(x[:, None], s.w[None], dim=-1), w=(5, 7)), (7,), 35, {"w": 2}, 14,
    ),
    "normalised classifier": (
        Net(lambda s, x: F.linear(F.normalize(x), F.normalize(s.w)), w=(5, 7)), (7,), 35, {"w": 2}, 14,
    ),
    "inner": (Net(lambda s, x: torch.inner(x, s.w), w=(5, 7)), (7,), 35, {"w": 2}, 14),
    "chain_matmul": (Net(lambda s, x: torch.chain_matmul(x, s.w, s.v), w=(8, 4), v=(4, 3)), (8,), 44, {"w": 1}, 4 + 12),
    "fold and unfold": (
        Net(lambda s, x: F.fold(s.w.flatten(1) @ F.unfold(x, 3), (3, 3), 1), w=(4, 2, 3, 3)), (2, 5, 5), 9 * 72,
        {"w": 1}, 9 * 18,
    ),
    "interpolated": (
        Net(lambda s, x: s.a(F.interpolate(x, scale_factor=2, mode="bilinear")), a=Conv(3, 6, 1)), (3, 4, 4), 64 * 18,
        {"a.weight": 2}, 64 * 6,
    ),
    "deformable": (
        Net(lambda s, x: s.d(x, s.o(x)), d=torchvision.ops.DeformConv2d(4, 6, 3, padding=1, bias=False), o=Conv(4, 18, 1)),
        (4, 5, 5), 25 * (6 * 36 + 72), {"d.weight": 2}, 25 * (2 * 36 + 72),
    ),
    "autograd function": (Net(lambda s, x: Product.apply(x, s.w), w=(4, 8)), (8,), 32, {"w": 1}, 8),
    "in place": (Net(lambda s, x: x.new_zeros(1, 5).addmm_(x, s.w), w=(7, 5)), (7,), 35, {"w": 2}, 10),
    "written into": (
        Net(lambda s, x: F.linear(x, torch.zeros(6, 4).index_copy(0, torch.arange(3), s.w)), w=(3, 4)), (4,), 24,
        {"w": 1}, 24 - 8,
    ),
    "inference mode": (
        Net(inside_inference_mode, a=nn.Linear(4, 5), b=nn.Linear(5, 3)), (4,), 35, {"a.weight": 2}, 8 + 15,
    ),
}  # fmt: skip


def masks_of(module, spec):
    parameters = dict(module.named_parameters())
    kept = {name: what if isinstance(what, tuple) else (what, 0) for name, what in spec.items()}
    return {name: first(parameters[name], count, dim=dim) for name, (count, dim) in kept.items()}


@pytest.mark.parametrize("case", CASES)
def test_counts_agree_with_a_hand(case):
    module, shape, whole, spec, kept = CASES[case]
    size = measure_size(module, shape, masks_of(module, spec))
    assert (size.multiply_adds, size.multiply_adds_kept) == (whole, kept)
    assert count_multiply_adds(module, shape) == whole


@pytest.mark.parametrize("case", CASES)
def test_counts_agree_inside_inference_mode(case):
    module, shape, whole, spec, kept = CASES[case]
    with torch.inference_mode():
        size = measure_size(module, shape, masks_of(module, spec))
    assert (size.multiply_adds, size.multiply_adds_kept) == (whole, kept)


@pytest.mark.parametrize("case", CASES)
def test_every_weight_with_a_product_is_told(case):
    module, shape, _, spec, _ = CASES[case]
    assert spec.keys() <= trace(module, shape).multiplied


def test_nothing_is_drawn_and_nothing_is_left_behind():
    module, shape, _, spec, _ = CASES["standardised"]
    before, state = module.a.weight.clone(), torch.get_rng_state()
    measure_size(module, shape, masks_of(module, spec))
    assert torch.equal(module.a.weight, before)
    assert torch.equal(torch.get_rng_state(), state)


@torch.library.custom_op("shrinkbench_tests::product", mutates_args=())
def product(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    return x @ w.T


@product.register_fake
def _(x, w):
    return x.new_empty(len(x), len(w))


def test_a_custom_operation_is_its_python_code():
    net = Net(lambda s, x: product(x, s.w), w=(4, 8))
    size = measure_size(net, (8,), {"w": first(net.w, 1)})
    assert (size.multiply_adds, size.multiply_adds_kept) == (32, 8)


def test_what_cannot_be_counted_is_named_with_its_remedy():
    net = Net(lambda s, x: s.a(torch.fft.fft(x).real), a=nn.Linear(8, 4))
    with pytest.raises(ShrinkbenchError, match=r"'aten\._fft_r2c' are not known.*register_flop_formula"):
        count_multiply_adds(net, (8,))
    with pytest.raises(ShrinkbenchError, match="_fft_r2c"):
        measure_size(net, (8,), {})


@pytest.mark.parametrize(
    "run",
    [
        lambda s, x: x * s.w * x.mean((2, 3), keepdim=True),
        lambda s, x: (x * s.w).mean((2, 3)),  # the scale is the same for all that is averaged
        lambda s, x: (x * s.w).flatten(2).transpose(1, 2).mean(1),
        lambda s, x: (x * x.sigmoid()).mean((2, 3)) * s.w.flatten(),
        lambda s, x: x / (x * x).mean(1, keepdim=True).sqrt() * s.w,
        lambda s, x: (x * (1 + s.w)).relu().sum(1),  # what is summed is no product any more
    ],
    ids=["gate", "pooled", "tokens", "own gate", "norm", "rectified"],
)
def test_scales_and_gates_are_no_products(run):
    assert count_multiply_adds(Net(run, w=(2, 1, 1)), (2, 5, 5)) == 0


def test_what_is_overwritten_is_no_product_any_more():
    net = Net(lambda s, x: (x * s.w).copy_(x).sum(1), w=(8,))
    assert count_multiply_adds(net, (8,)) == 0


# Of the operations whose names speak of products those that add up no products.
_ELEMENTWISE = {
    *("_embedding_bag", "_embedding_bag_forward_only"),  # counted where weighted
    *(
        "_thnn_fused_gru_cell",
        "_thnn_fused_lstm_cell",
        "_weight_norm_interface",
        "linalg_vector_norm",
        "linalg_cross",
    ),
    *(
        "linalg__powsum",
        "dist",
        "_linalg_check_errors",
        "upsample_linear1d",
        "upsample_bilinear2d",
        "upsample_trilinear3d",
    ),
    *("_upsample_bilinear2d_aa", "__upsample_bilinear", "fft_fftfreq", "fft_rfftfreq"),
}
_SPEAKS = (
    r"(?<!ha)mm(?!a|i)|conv(?!ert)|linear|dot|matmul|rnn|lstm|gru|attention|einsum|dist(?!ribut)|fft|_bag|outer|kron|"
    r"gemm|solve|(^|_)det$|svd|eig|linalg|mv(?!l)|addr"
)
_LAYS_OUT = r"backward|_out$|_jvp|_grad|reorder|flatten_weight|search$|_pack_|packed|convert|_nested|slice_inverse|weight_int4pack$"


def _operations():
    """Those of torch's own whose names speak of products and that the dispatcher knows."""
    known = frozenset(torch._C._dispatch_get_all_op_names())
    for schema in torch._C._jit_get_all_schemas():
        name = schema.name.removeprefix("aten::")
        if schema.name == name or not re.search(_SPEAKS, name) or re.search(_LAYS_OUT, name):
            continue
        if "out" in schema.overload_name:  # the same operation into a tensor that is given
            continue
        func = getattr(getattr(torch.ops.aten, name, None), schema.overload_name or "default", None)
        if func is not None and func.name() in known:
            yield name, func


def test_no_operation_of_torch_that_multiplies_is_silent():
    silent = {
        name
        for name, func in _operations()
        if not has_formula(func)
        and not is_uncounted(func)
        and not torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd")
    }
    assert silent <= _ELEMENTWISE, silent - _ELEMENTWISE


@pytest.mark.parametrize(
    "run",
    [lambda s, x: torch.cdist(x, s.w), lambda s, x: F.pdist(x[0])[None] * s.w[0, 0]],
    ids=["cdist", "pdist"],
)
def test_distances_are_named_as_not_counted(run):
    with pytest.raises(ShrinkbenchError, match=r"dist_forward' are not known"):
        count_multiply_adds(Net(run, w=(4, 8)), (6, 8))


def test_a_formula_that_is_registered_counts():
    from torch.utils.flop_counter import flop_registry, register_flop_formula

    register_flop_formula(torch.ops.aten._fft_r2c)(lambda shape, *_, **__: 2 * math.prod(shape))
    try:
        net = Net(lambda s, x: s.a(torch.fft.fft(x).real), a=nn.Linear(8, 4))
        assert count_multiply_adds(net, (8,)) == 8 + 32
    finally:
        del flop_registry[torch.ops.aten._fft_r2c]


def test_masks_that_a_network_carries_count_as_if_they_were_given():
    """16 of 72 weights of the first layer stay, each read at 6 x 6 places; the second layer is whole."""
    net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.Flatten(), nn.Linear(8 * 36, 2))
    prune.l1_unstructured(net[0], "weight", amount=72 - 16)
    size = measure_size(net, (1, 8, 8), Masks.from_module(net))
    assert (size.multiply_adds, size.multiply_adds_kept) == (72 * 36 + 576, 16 * 36 + 576)
