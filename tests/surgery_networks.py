"""The networks on which surgery is proven, on small inputs, with batch norm as after training."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from shrinkbench.models import build as build_named
from shrinkbench.surgery.folders import read_description, read_network

Made = tuple[nn.Module, tuple[int, int, int]]

CIFAR = ("cifar-vgg", "resnet56", "preresnet56", "densenet40")
TORCHVISION = (
    "resnet50",
    "mobilenet_v2",
    "efficientnet_b0",
    "convnext_tiny",
    "vit_b_16",
    "swin_t",
    "regnet_y_400mf",
)
CONFORMANCE = (*CIFAR, *(f"torchvision/{name}" for name in TORCHVISION))


def make(name: str) -> Made:
    """The network ``name`` with statistics, scales and shifts drawn at random, and its input shape."""
    if name == "torchvision/vit_b_16":  # four tokens and a class token, all layers
        import torchvision

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            module, size = torchvision.models.vit_b_16(image_size=32), 32
    else:
        module, size = build_named(name), 64 if name.startswith("torchvision/") else 32
    return as_trained(module), (3, size, size)


def as_trained(module: nn.Module) -> nn.Module:
    """Give every batch norm scales, shifts and statistics that are not those of a fresh network."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
                layer.weight.uniform_(0.5, 1.5, generator=generator)
                layer.bias.normal_(0, 0.3, generator=generator)
                layer.running_mean.normal_(0, 0.3, generator=generator)
                layer.running_var.uniform_(0.5, 1.5, generator=generator)
        for name, parameter in module.named_parameters():
            hides = parameter.dim() > 1 and float(parameter.abs().max()) < 1e-3
            if hides:  # a classifier of zeros or layer scales of 1e-6 would hide every difference
                parameter.normal_(0, 0.05, generator=generator)
            elif name.endswith("bias") and parameter.dim() == 1:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return module.eval()


def outputs(
    module: nn.Module, shape: tuple[int, ...], convert: Callable[[nn.Module], nn.Module] = nn.Module.eval
):
    """Logits of two random images."""
    inputs = torch.randn((2, *shape), generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        return convert(module)(inputs)


def load_small(folder, build):
    """The network in ``folder``; ``build(network, num_classes)`` makes the full one, by whatever name."""
    return read_network(folder, network=read_description(folder).network, build=build).module
