"""The CIFAR hub of Yaofo Chen: files, digests and published accuracies."""

from __future__ import annotations

from shrinkbench.models.card import WeightsEntry
from shrinkbench.spec import Normalisation

_RELEASES = "https://github.com/chenyaofo/pytorch-cifar-models/releases/download"

_NORMALISATION = {
    "cifar10": Normalisation(mean=(0.4914, 0.4822, 0.4465), std=(0.2023, 0.1994, 0.2010)),
    "cifar100": Normalisation(mean=(0.5070, 0.4865, 0.4409), std=(0.2673, 0.2564, 0.2761)),
}

# Network: (leading digits of the SHA-256, top-1 in per cent) on CIFAR-10 and on CIFAR-100.
_FILES = {
    "resnet20": (("4118986f", 92.60), ("23dac2f1", 68.83)),
    "resnet32": (("ef93fc4d", 93.53), ("84213ce6", 70.16)),
    "resnet44": (("2a3cabcb", 94.01), ("ffe32858", 71.63)),
    "resnet56": (("187c023a", 94.37), ("f2eff4c8", 72.63)),
    "vgg11_bn": (("eaeebf42", 92.79), ("57d0759e", 70.78)),
    "vgg13_bn": (("c01e4a43", 94.00), ("5ebe5778", 74.63)),
    "vgg16_bn": (("6ee7ea24", 94.16), ("7d8c4031", 74.00)),
    "vgg19_bn": (("57191229", 93.91), ("b98f7bd7", 73.87)),
}


def chenyaofo_weights(network: str) -> tuple[WeightsEntry, ...]:
    """Entries of ``network`` (the hub's name) on CIFAR-10 and CIFAR-100; none where the hub has none."""
    family = network.rstrip("0123456789") if "resnet" in network else "vgg"
    return tuple(
        WeightsEntry(
            name=f"{dataset}_{network}-{digits}",
            dataset=dataset,
            source="https://github.com/chenyaofo/pytorch-cifar-models",
            licence="BSD-3-Clause",
            normalisation=_NORMALISATION[dataset],
            sha256=digits,
            url=f"{_RELEASES}/{family}/{dataset}_{network}-{digits}.pt",
            published_top1=round(top1 / 100, 4),
            note="the SHA-256 is known by the leading digits that the file's name carries",
        )
        for dataset, (digits, top1) in zip(_NORMALISATION, _FILES.get(network, ()), strict=False)
    )
