"""A vision transformer small enough to train on CIFAR-10."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shrinkbench.models.card import NO_PUBLIC_WEIGHTS, ModelCard, register


class Attention(nn.Module):
    """Multi-head self-attention with one linear layer for queries, keys and values."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (N, T, width) to (N, T, width)."""
        batch, tokens, width = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.heads, width // self.heads)
        queries, keys, values = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(queries, keys, values)
        out: Tensor = self.proj(y.transpose(1, 2).reshape(batch, tokens, width))
        return out


class EncoderBlock(nn.Module):
    """Attention and a two-layer perceptron, each behind a layer norm and beside a shortcut."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (N, T, width) to (N, T, width)."""
        x = x + self.attention(self.norm1(x))
        out: Tensor = x + self.fc2(F.gelu(self.fc1(self.norm2(x))))
        return out


class VisionTransformer(nn.Module):
    """Patches, a class token, learned positions, pre-norm encoder blocks, linear head on the class token."""

    def __init__(
        self, num_classes: int, *, image: int, patch: int, width: int, depth: int, heads: int, hidden: int
    ) -> None:
        super().__init__()
        tokens = (image // patch) ** 2
        self.patches = nn.Conv2d(3, width, patch, stride=patch)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.empty(1, tokens + 1, width))
        self.blocks = nn.Sequential(*(EncoderBlock(width, heads, hidden) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, num_classes)
        nn.init.trunc_normal_(self.positions, std=0.02)
        for layer in self.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of images (N, 3, H, W)."""
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat((self.class_token.expand(x.shape[0], -1, -1), x), 1) + self.positions
        logits: Tensor = self.head(self.norm(self.blocks(x))[:, 0])
        return logits


def _vit_cifar(num_classes: int) -> nn.Module:
    return VisionTransformer(num_classes, image=32, patch=4, width=192, depth=6, heads=3, hidden=768)


register(
    ModelCard(
        name="vit-cifar",
        family="vit",
        definition=(
            "ViT for CIFAR: 4x4 patches (64 tokens and a class token), width 192, 6 pre-norm blocks of 3 heads "
            "and 768 hidden units with GELU, learned positions, linear head on the class token; truncated "
            "normal weights (0.02), no dropout"
        ),
        reference="dosovitskiy2021image",
        input_shape=(3, 32, 32),
        num_classes=10,
        parameters=2_693_578,
        multiply_adds=182_849_664,
        agrees_with=(
            "no publication: half the depth of DeiT-Tiny (5.7M parameters), whose width and heads it has; "
            "hand count in docs/models.md"
        ),
        build=_vit_cifar,
        namesakes={
            "torchvision/vit_b_16": "ViT-Base on 224x224 with 16x16 patches: 86,567,656 parameters",
            "timm/deit_tiny_patch16_224": "width 192, 12 blocks, 16x16 patches: 5,717,416 parameters",
        },
        weights_note=NO_PUBLIC_WEIGHTS,
    )
)
