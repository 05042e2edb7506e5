"""Attention heads as units: where each head's weights lie, and attention that has lost some of its heads.

Known are ``torch.nn.MultiheadAttention`` (ViT), torchvision's ``ShiftedWindowAttention`` (Swin) and timm's
``Attention``. A head is removable on its own: it meets the other heads only in the output projection, and no
other layer has to change with it.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shrinkbench.errors import ShrinkbenchError

Role = Literal["produces", "carries", "consumes"]
HeadSlices = list[tuple[str, int, Tensor, Role]]
HeadsLeft = int | tuple[int, ...]
"""How many heads of an attention stay, or which, where it is given something for each of them."""


def is_attention(module: nn.Module) -> bool:
    """Whether ``module`` is attention over tokens: torch's, or one with ``qkv`` and ``proj`` linear layers."""
    if isinstance(module, nn.MultiheadAttention):
        return True
    return isinstance(getattr(module, "qkv", None), nn.Linear) and isinstance(
        getattr(module, "proj", None), nn.Linear
    )


def reads_its_weights_itself(attention: nn.Module) -> bool:
    """Whether ``attention`` applies its layers' weights without calling the layers."""
    return type(attention) is nn.MultiheadAttention or type(attention).__name__ == "ShiftedWindowAttention"


def head_slices(attention: nn.Module) -> tuple[int, HeadSlices] | None:
    """Heads of ``attention`` and (tensor, dimension, head of each position, role); ``None`` for other kinds."""
    if isinstance(attention, nn.MultiheadAttention):
        return _multihead(attention)
    kind = type(attention)
    if kind.__name__ in ("ShiftedWindowAttention", "NarrowWindowAttention"):
        return _fused(attention, bias_table=True)
    if kind.__module__.startswith("timm.") and kind.__name__ == "Attention":
        # timm calls by this name attention of other layers too (LeViT), which is none of these.
        plain = isinstance(getattr(attention, "norm", None), nn.Identity) and is_attention(attention)
        gated = getattr(attention, "gate", None) is not None
        return _fused(attention, bias_table=False) if plain and not gated else None
    return None


def _multihead(attention: nn.MultiheadAttention) -> tuple[int, HeadSlices] | None:
    packed = attention._qkv_same_embed_dim or isinstance(attention, NarrowMultiheadAttention)
    if not packed or attention.bias_k is not None or attention.add_zero_attn:
        return None
    heads, inner = attention.num_heads, attention.out_proj.in_features
    of_inner = torch.arange(inner) // (inner // heads)
    slices: HeadSlices = [("in_proj_weight", 0, of_inner.repeat(3), "produces")]
    if attention.in_proj_bias is not None:
        slices.append(("in_proj_bias", 0, of_inner.repeat(3), "produces"))
    return heads, [*slices, ("out_proj.weight", 1, of_inner, "consumes")]


def _fused(attention: nn.Module, *, bias_table: bool) -> tuple[int, HeadSlices]:
    heads, inner = cast(int, attention.num_heads), cast(nn.Linear, attention.proj).in_features
    of_inner = torch.arange(inner) // (inner // heads)
    slices: HeadSlices = [("qkv.weight", 0, of_inner.repeat(3), "produces")]
    if cast(nn.Linear, attention.qkv).bias is not None:
        slices.append(("qkv.bias", 0, of_inner.repeat(3), "produces"))
    if bias_table:
        slices.append(("relative_position_bias_table", 1, torch.arange(heads), "carries"))
    return heads, [*slices, ("proj.weight", 1, of_inner, "consumes")]


def with_heads(attention: nn.Module, stay: HeadsLeft) -> nn.Module:
    """``attention`` with room for the heads that ``stay``, of the same size; its tensors are cut by the caller.

    The result has the same parameter names. Its weights are those of ``attention``, not yet sliced. Where heads
    are named one by one, it is given position biases of all heads, and picks those of its own.
    """
    if not isinstance(stay, int):
        before = heads_held(attention)
        if before is None or not all(0 <= head < before for head in stay):
            raise ShrinkbenchError(
                f"an attention of {before or 'no known number of'} heads cannot keep the heads "
                f"{list(stay)[:8]}; this surgery is for another network"
            )
        attention.register_forward_pre_hook(BiasesOfHeads(tuple(stay), of=before), with_kwargs=True)
    heads = stay if isinstance(stay, int) else len(stay)
    if isinstance(attention, nn.MultiheadAttention):
        return NarrowMultiheadAttention(attention, heads)
    if type(attention).__name__ == "ShiftedWindowAttention":
        return NarrowWindowAttention(attention, heads)
    if not type(attention).__module__.startswith("timm."):
        return _recounted(attention, heads)
    inner = cast(int, attention.head_dim) * heads
    attention.num_heads, attention.attn_dim = heads, inner  # type: ignore[assignment]  # plain attributes
    return attention


_COUNTS = ("num_heads", "num_attention_heads", "n_heads", "n_head")
_SHARED = ("num_key_value_heads",)  # heads of keys and values, each with the queries that read it
_WIDTHS = ("split_size", "all_head_size")


def heads_held(attention: nn.Module) -> int | None:
    """How many heads ``attention`` says that it has, in an attribute that its forward pass may read.

    Where it says so of keys and values alone (Phi-3), and has the queries counted elsewhere, these.
    """
    counts = (getattr(attention, name, None) for name in (*_COUNTS, *_SHARED))
    return next((count for count in counts if type(count) is int), None)


def _recounted(attention: nn.Module, heads: int) -> nn.Module:
    """``attention`` that says that it has ``heads`` heads; whether it then computes as it should is proven."""
    before = heads_held(attention)
    if not before:
        return attention
    holders: list[object] = [attention]
    configuration = getattr(attention, "config", None)
    if configuration is not None and not any(hasattr(attention, name) for name in _COUNTS):
        attention.config = copy.copy(configuration)  # all layers share it, and each loses heads of its own
        holders.append(attention.config)
    for holder in holders:
        for name in (*_COUNTS, *_SHARED, *_WIDTHS):
            held = getattr(holder, name, None)
            if type(held) is int and held % before == 0:
                setattr(holder, name, held // before * heads)
    return attention


@dataclass(frozen=True)
class BiasesOfHeads:
    """Of position biases that attention is given for all ``of`` heads (BLOOM), those of ``heads``, in a hook.

    They are what has three dimensions, the first of them examples x heads.
    """

    heads: tuple[int, ...]
    of: int

    def __call__(
        self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments, with the biases of the heads that are left."""
        rows = args[0].shape[0] if args and isinstance(args[0], Tensor) else 0
        return (
            tuple(self._picked(value, rows) for value in args),
            {name: self._picked(value, rows) for name, value in kwargs.items()},
        )

    def _picked(self, value: Any, rows: int) -> Any:
        if not is_bias_of_heads(value, rows, self.of):
            return value
        index = torch.tensor(self.heads, device=value.device)
        return value.unflatten(0, (rows, self.of)).index_select(1, index).flatten(0, 1)


def is_bias_of_heads(value: object, rows: int, heads: int) -> bool:
    """Whether ``value``, which attention is given for ``rows`` examples, has one part for each head of each."""
    return (
        isinstance(value, Tensor)
        and value.is_floating_point()
        and value.dim() == 3
        and heads > 1
        and value.shape[0] == rows * heads
    )


class NarrowMultiheadAttention(nn.MultiheadAttention):
    """Multi-head attention whose heads together are narrower than the tokens."""

    def __init__(self, wide: nn.MultiheadAttention, heads: int) -> None:
        nn.Module.__init__(self)
        self.embed_dim = self.kdim = self.vdim = wide.embed_dim
        self.num_heads, self.batch_first = heads, wide.batch_first
        self.head_dim = wide.out_proj.in_features // wide.num_heads
        self.dropout, self.add_zero_attn = wide.dropout, False
        self._qkv_same_embed_dim = False  # keeps torch's fused encoder layer, which would misread it, away
        self.in_proj_weight, self.in_proj_bias = wide.in_proj_weight, wide.in_proj_bias
        self.bias_k = self.bias_v = None
        self.out_proj = wide.out_proj
        self.training = wide.training

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,  # noqa: FBT001, FBT002  the signature is torch's
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,  # noqa: FBT001, FBT002
        is_causal: bool = False,  # noqa: FBT001, FBT002
    ) -> tuple[Tensor, Tensor | None]:
        """Attention as torch's module computes it, and its weights where ``need_weights``."""
        if not self.batch_first:
            query, key, value = (x.transpose(0, 1) for x in (query, key, value))
        inner = self.num_heads * self.head_dim
        biases = (None,) * 3 if self.in_proj_bias is None else self.in_proj_bias.split(inner)
        q, k, v = (
            F.linear(x, w, b).unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)
            for x, w, b in zip((query, key, value), self.in_proj_weight.split(inner), biases, strict=True)
        )
        scores = (q * self.head_dim**-0.5) @ k.transpose(-2, -1)
        if is_causal and attn_mask is None:
            attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
        for mask in (attn_mask, None if key_padding_mask is None else key_padding_mask[:, None, None, :]):
            if mask is not None:
                scores = scores.masked_fill(mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
        weights = F.dropout(scores.softmax(-1), self.dropout, self.training)
        y: Tensor = self.out_proj((weights @ v).transpose(1, 2).flatten(2))
        if not self.batch_first:
            y = y.transpose(0, 1)
        if not need_weights:
            return y, None
        return y, weights.mean(1) if average_attn_weights else weights


class NarrowWindowAttention(nn.Module):
    """Shifted-window attention (Liu et al. 2021) whose heads together are narrower than the tokens."""

    relative_position_index: Tensor

    def __init__(self, wide: nn.Module, heads: int) -> None:
        super().__init__()
        source = cast(Any, wide)
        self.window_size, self.shift_size = source.window_size, source.shift_size
        self.num_heads, self.head_dim = heads, source.proj.in_features // source.num_heads
        self.attention_dropout, self.dropout = source.attention_dropout, source.dropout
        self.qkv, self.proj = source.qkv, source.proj
        self.relative_position_bias_table = source.relative_position_bias_table
        self.register_buffer("relative_position_index", source.relative_position_index)
        self.training = wide.training

    def _shifts(self, height: int, width: int) -> tuple[int, int]:
        """No shift along a side that one window spans."""
        rows, columns = self.window_size
        return (
            0 if rows >= height else self.shift_size[0],
            0 if columns >= width else self.shift_size[1],
        )

    def _window_mask(self, height: int, width: int, like: Tensor) -> Tensor:
        """-100 between positions that only the cyclic shift brought into one window, (windows, T, T)."""
        region = torch.zeros(height, width, device=like.device)
        cuts = [
            (0, size - window, size - shift, size)
            for size, window, shift in zip(
                (height, width), self.window_size, self._shifts(height, width), strict=True
            )
        ]
        for i in range(3):
            for j in range(3):
                region[cuts[0][i] : cuts[0][i + 1], cuts[1][j] : cuts[1][j + 1]] = 3 * i + j
        tokens = self._partition(region[None, :, :, None])[..., 0]
        apart = tokens[:, None, :] != tokens[:, :, None]
        return apart.to(like.dtype) * -100.0

    def _partition(self, x: Tensor) -> Tensor:
        """(N, H, W, C) to (N * windows, tokens, C)."""
        n, height, width, channels = x.shape
        rows, columns = self.window_size
        x = x.view(n, height // rows, rows, width // columns, columns, channels)
        return x.transpose(2, 3).reshape(-1, rows * columns, channels)

    def _merge(self, x: Tensor, n: int, height: int, width: int) -> Tensor:
        """Inverse of :meth:`_partition`."""
        rows, columns = self.window_size
        x = x.view(n, height // rows, width // columns, rows, columns, x.shape[-1])
        return x.transpose(2, 3).reshape(n, height, width, -1)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (N, H, W, C) to tokens of the same shape."""
        n, height, width, _ = x.shape
        rows, columns = self.window_size
        x = F.pad(x, (0, 0, 0, -width % columns, 0, -height % rows))
        padded_h, padded_w = x.shape[1:3]
        shift = self._shifts(padded_h, padded_w)
        if any(shift):
            x = x.roll((-shift[0], -shift[1]), (1, 2))
        tokens = self._partition(x)
        qkv = self.qkv(tokens).unflatten(-1, (3, self.num_heads, self.head_dim)).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        scores = (q * self.head_dim**-0.5) @ k.transpose(-2, -1)
        table = self.relative_position_bias_table[self.relative_position_index]
        scores = scores + table.view(rows * columns, rows * columns, -1).permute(2, 0, 1)
        if any(shift):
            mask = self._window_mask(padded_h, padded_w, scores)
            scores = (scores.unflatten(0, (n, -1)) + mask[:, None]).flatten(0, 1)
        weights = F.dropout(scores.softmax(-1), self.attention_dropout, self.training)
        tokens = self.proj((weights @ v).transpose(1, 2).flatten(2))
        tokens = F.dropout(tokens, self.dropout, self.training)
        x = self._merge(tokens, n, padded_h, padded_w)
        if any(shift):
            x = x.roll(shift, (1, 2))
        return x[:, :height, :width, :]
