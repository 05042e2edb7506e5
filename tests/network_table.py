"""Fourteen networks of fourteen kinds, each with batches of data and the loss that it is trained by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Criterion = Callable[[Any, Any], Tensor]


@dataclass
class Kind:
    """A network, two batches for it, and its loss."""

    network: nn.Module
    batches: list[Any]
    loss: Criterion = F.cross_entropy


def images(size=32, classes=4, rows=4, channels=3):
    return [(torch.randn(rows, channels, size, size), torch.randint(0, classes, (rows,))) for _ in range(2)]


def regression():
    net = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 1))
    return Kind(net, [(torch.randn(8, 6), torch.randn(8, 1)) for _ in range(2)], F.mse_loss)


def autoencoder():
    net = nn.Sequential(
        *(nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU()),
        *(nn.ConvTranspose2d(16, 8, 2, 2), nn.ReLU(), nn.ConvTranspose2d(8, 1, 2, 2)),
    )
    return Kind(net, [(x, x) for x in (torch.randn(4, 1, 8, 8), torch.randn(4, 1, 8, 8))], F.mse_loss)


def conv1d():
    net = nn.Sequential(
        *(nn.Conv1d(2, 16, 5, padding=2), nn.BatchNorm1d(16), nn.ReLU(), nn.MaxPool1d(2)),
        *(nn.Conv1d(16, 16, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(16, 4)),
    )
    return Kind(net, [(torch.randn(4, 2, 40), torch.randint(0, 4, (4,))) for _ in range(2)])


def conv3d():
    net = nn.Sequential(
        *(nn.Conv3d(1, 8, 3, padding=1), nn.BatchNorm3d(8), nn.ReLU(), nn.Conv3d(8, 8, 3, stride=2), nn.ReLU()),
        *(nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(8, 4)),
    )
    return Kind(net, [(torch.randn(4, 1, 6, 6, 6), torch.randint(0, 4, (4,))) for _ in range(2)])


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down1 = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.down2 = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU())
        self.up = nn.ConvTranspose2d(16, 8, 2, 2)
        self.fuse = nn.Sequential(nn.Conv2d(16, 8, 3, padding=1), nn.ReLU())
        self.out = nn.Conv2d(8, 4, 1)

    def forward(self, x):
        one = self.down1(x)
        return {"out": self.out(self.fuse(torch.cat([one, self.up(self.down2(one))], 1)))}


def u_net():
    batches = [(torch.randn(2, 3, 16, 16), torch.randint(0, 4, (2, 16, 16))) for _ in range(2)]
    return Kind(UNet(), batches)


def efficientnet():
    import timm

    return Kind(timm.create_model("efficientnet_b0", num_classes=4), images(64, rows=2))


def mobilevit():
    import timm

    return Kind(timm.create_model("mobilevit_xxs", num_classes=4), images(64, rows=2))


def deit():
    import timm

    net = timm.create_model("deit_tiny_patch16_224", num_classes=4, img_size=32, depth=2)
    return Kind(net, images(32, rows=2))


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.image = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.table = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 8))
        self.hidden = nn.Linear(16, 16)
        self.head = nn.Linear(16, 4)

    def forward(self, image, table):
        both = torch.cat([self.image(image), self.table(table)], 1)
        return self.head(F.relu(self.hidden(both)))


def two_inputs():
    return Kind(
        TwoInputs(),
        [((torch.randn(4, 3, 8, 8), torch.randn(4, 5)), torch.randint(0, 4, (4,))) for _ in range(2)],
    )


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(50, 16)
        layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, 4)

    def forward(self, tokens):
        return self.head(self.encoder(self.embed(tokens)).mean(1))


def tokens():
    return Kind(Tokens(), [(torch.randint(0, 50, (4, 7)), torch.randint(0, 4, (4,))) for _ in range(2)])


def bert():
    import transformers

    config = transformers.BertConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=16, num_labels=4,
    )  # fmt: skip
    net = transformers.BertForSequenceClassification(config).eval()

    def batch():
        mask = torch.ones(4, 7, dtype=torch.int64)
        mask[1, 5:] = 0
        data = {"input_ids": torch.randint(0, 50, (4, 7)), "attention_mask": mask}
        return transformers.BatchEncoding({**data, "labels": torch.randint(0, 4, (4,))})

    return Kind(net, [batch(), batch()])


class Named(nn.Module):
    """Takes named arguments and returns a dictionary."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.ReLU())
        self.one, self.two = nn.Linear(16, 4), nn.Linear(16, 1)

    def forward(self, *, image):
        x = self.body(image).mean((2, 3))
        return {"kind": self.one(x), "size": self.two(x)}


def both_heads(outputs, targets):
    return F.cross_entropy(outputs["kind"], targets["kind"]) + F.mse_loss(outputs["size"], targets["size"])


def dictionaries():
    def batch():
        targets = {"kind": torch.randint(0, 4, (4,)), "size": torch.randn(4, 1)}
        return {"image": torch.randn(4, 3, 8, 8), "target": targets}

    return Kind(Named(), [batch(), batch()], both_heads)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(50, 16)
        self.lstm = nn.LSTM(16, 16, batch_first=True)
        self.hidden = nn.Linear(16, 32)
        self.head = nn.Linear(32, 4)

    def forward(self, tokens):
        return self.head(F.relu(self.hidden(self.lstm(self.embed(tokens))[0][:, -1])))


def lstm():
    return Kind(Recurrent(), [(torch.randint(0, 50, (4, 7)), torch.randint(0, 4, (4,))) for _ in range(2)])


def hf_vit():
    import transformers

    config = transformers.ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, image_size=16,
        patch_size=8, num_labels=4,
    )  # fmt: skip
    batches = [
        {"pixel_values": torch.randn(2, 3, 16, 16), "labels": torch.randint(0, 4, (2,))} for _ in range(2)
    ]
    return Kind(transformers.ViTForImageClassification(config).eval(), batches)


KINDS = {
    make.__name__: make
    for make in (
        *(regression, autoencoder, conv1d, conv3d, u_net, efficientnet, mobilevit, deit, two_inputs, tokens),
        *(bert, dictionaries, lstm, hf_vit),
    )
}
