"""A causal language model of Llama's kind, small enough to train in minutes on a CPU."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.models.card import NO_PUBLIC_WEIGHTS, ModelCard, register

CONTEXT = 1024
"""Tokens of a block at most."""


class RMSNorm(nn.Module):
    """``x / sqrt(mean(x^2) + 1e-5) * weight`` over the last dimension."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Normalised tokens."""
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5) * self.weight


class LlamaAttention(nn.Module):
    """Causal attention with rotary positions, in which several query heads share one of keys and values."""

    cos: Tensor
    sin: Tensor

    def __init__(self, width: int, heads: int, shared_heads: int) -> None:
        super().__init__()
        self.heads, self.shared_heads, self.size = heads, shared_heads, width // heads
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, shared_heads * self.size, bias=False)
        self.v_proj = nn.Linear(width, shared_heads * self.size, bias=False)
        self.o_proj = nn.Linear(width, width, bias=False)
        periods = 10_000 ** (torch.arange(0, self.size, 2).float() / self.size)
        angles = torch.arange(CONTEXT)[:, None, None] / periods
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (N, T, width) to (N, T, width)."""
        batch, tokens, _ = x.shape
        if tokens > CONTEXT:
            raise ShrinkbenchError(f"a block of {tokens} tokens is longer than {CONTEXT}; give shorter blocks")
        queries = self._turned(self.q_proj(x).view(batch, tokens, -1, self.size))
        keys = self._turned(self.k_proj(x).view(batch, tokens, -1, self.size))
        values = self.v_proj(x).view(batch, tokens, -1, self.size)
        times = self.heads // self.shared_heads
        keys, values = keys.repeat_interleave(times, 2), values.repeat_interleave(times, 2)
        queries, keys, values = (y.transpose(1, 2) for y in (queries, keys, values))
        mixed = F.scaled_dot_product_attention(queries, keys, values, is_causal=True)
        out: Tensor = self.o_proj(mixed.transpose(1, 2).flatten(2))
        return out

    def _turned(self, x: Tensor) -> Tensor:
        """Pairs of channels (i, i + size / 2) of every head turned by position / period i."""
        cos, sin = self.cos[: x.shape[1]], self.sin[: x.shape[1]]
        one, two = x.chunk(2, -1)
        return torch.cat([one * cos - two * sin, two * cos + one * sin], -1)


class LlamaBlock(nn.Module):
    """Attention and a gated perceptron (SwiGLU), each behind an RMS norm and beside a shortcut."""

    def __init__(self, width: int, heads: int, shared_heads: int, hidden: int) -> None:
        super().__init__()
        self.input_norm = RMSNorm(width)
        self.attention = LlamaAttention(width, heads, shared_heads)
        self.post_norm = RMSNorm(width)
        self.gate_proj = nn.Linear(width, hidden, bias=False)
        self.up_proj = nn.Linear(width, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (N, T, width) to (N, T, width)."""
        x = x + self.attention(self.input_norm(x))
        y = self.post_norm(x)
        out: Tensor = x + self.down_proj(F.silu(self.gate_proj(y)) * self.up_proj(y))
        return out


class TinyLlama(nn.Module):
    """Token embedding, blocks, RMS norm and a head of its own; blocks of up to 1,024 tokens."""

    def __init__(
        self, vocabulary: int, *, width: int, depth: int, heads: int, shared_heads: int, hidden: int
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.blocks = nn.Sequential(*(LlamaBlock(width, heads, shared_heads, hidden) for _ in range(depth)))
        self.norm = RMSNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        for layer in self.modules():
            if isinstance(layer, nn.Linear | nn.Embedding):
                nn.init.normal_(layer.weight, std=0.02)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Logits (N, T, vocabulary) of the token that follows each of ``input_ids`` (N, T)."""
        logits: Tensor = self.head(self.norm(self.blocks(self.embedding(input_ids))))
        return logits


def _tiny_llama(num_classes: int) -> nn.Module:
    return TinyLlama(num_classes, width=128, depth=4, heads=4, shared_heads=2, hidden=448)


register(
    ModelCard(
        name="tiny-llama",
        family="llama",
        definition=(
            "causal language model of Llama's kind: width 128, 4 pre-norm blocks (RMS norm 1e-5) of 4 query "
            "heads that share 2 of keys and values, rotary positions (base 10,000), SwiGLU of 448 units, "
            "untied head, no biases; N(0, 0.02^2) weights; counted for 128 tokens"
        ),
        reference="touvron2023llama",
        input_shape=(128,),
        takes="tokens",
        num_classes=256,
        parameters=951_424,
        multiply_adds=134_217_728,
        agrees_with="no publication: this network belongs to this library; hand count in docs/models.md",
        build=_tiny_llama,
        weights_note=NO_PUBLIC_WEIGHTS,
    )
)
