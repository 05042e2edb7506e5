"""Small modules that take the place of what surgery removed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class ChannelSelect(nn.Module):
    """Pass on the channels ``index`` alone; ``dim`` is 1 for images and -1 for features and tokens."""

    index: Tensor

    def __init__(self, index: Tensor, *, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.register_buffer("index", index)

    def forward(self, x: Tensor) -> Tensor:
        """Map C channels to ``len(index)`` channels."""
        return x.index_select(self.dim, self.index)

    def extra_repr(self) -> str:
        """What ``print`` shows."""
        return f"{len(self.index)} channels, dim={self.dim}"


class ConstantLayer(nn.Module):
    """A convolution or linear layer of which no weight is left: its bias, or zeros, at the right shape.

    ``channels`` is the number of outputs: one for a layer that nothing listens to. Computing it takes no
    multiply-add.
    """

    def __init__(self, layer: nn.Module, channels: int, *, keep_bias: bool) -> None:
        super().__init__()
        self.channels = channels
        bias = layer.bias if keep_bias else None
        self.bias = bias if isinstance(bias, nn.Parameter) else None
        self.steps: tuple[tuple[int, int, int], ...] | None = None  # span of the kernel, padding, stride
        if isinstance(layer, nn.modules.conv._ConvNd):
            spans = [d * (k - 1) + 1 for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
            pads = layer._reversed_padding_repeated_twice  # last dimension first, both ends of each
            total = [pads[i] + pads[i + 1] for i in range(0, len(pads), 2)][::-1]
            self.steps = tuple(zip(spans, total, layer.stride, strict=True))

    @property
    def weight(self) -> Tensor:
        """Nothing: torch's encoder layer asks for it, and does without its fused form where it has no data."""
        return torch.empty(0, device="meta")

    def forward(self, x: Tensor) -> Tensor:
        """Zeros, or the bias, in the shape that the layer would give."""
        if self.steps is None:
            y = x.new_zeros([*x.shape[:-1], self.channels])
            return y if self.bias is None else y + self.bias
        sizes = [
            (size + pad - span) // stride + 1
            for size, (span, pad, stride) in zip(x.shape[2:], self.steps, strict=True)
        ]
        y = x.new_zeros([x.shape[0], self.channels, *sizes])
        return y if self.bias is None else y + self.bias.view(1, -1, *(1 for _ in sizes))


class PassOn(nn.Module):
    """A block of which nothing is left: its input, whatever else it is called with."""

    def forward(self, x: Tensor, *_: Any, **__: Any) -> Tensor:
        """Map a tensor to itself."""
        return x


class ZeroOutputs(nn.Module):
    """A layer or attention that has nothing left: zeros of the input's shape.

    With ``pair``, beside ``None`` in the place of attention weights, as torch's attention returns them.
    """

    # What torch's encoder layer asks of its attention; without a bias it leaves its fused form alone.
    in_proj_bias = None

    def __init__(self, *, pair: bool = False, batch_first: bool = False) -> None:
        super().__init__()
        self.pair, self.batch_first = pair, batch_first

    def forward(self, x: Tensor, *_: Any, **__: Any) -> Any:
        """Map any tensor to zeros of its shape."""
        y = torch.zeros_like(x)
        return (y, None) if self.pair else y
