"""Which layers read which: constants made on the way, and memory that is used again, mislead nobody."""

import torch
import torchvision
from sample_networks import batches, seeded
from torch import nn

from shrinkbench.network.dataflow import read_flow
from shrinkbench.network.probe import trace
from shrinkbench.pruning import prune


def small_swin():
    return torchvision.models.swin_transformer.SwinTransformer(
        patch_size=[2, 2], embed_dim=8, depths=[2, 2], num_heads=[2, 4], window_size=[2, 2], num_classes=4
    )


def test_an_attention_reads_its_own_projection_alone():
    """Position biases are looked up and masks of shifted windows are made between the two products."""
    module = seeded(small_swin)
    flow = read_flow(module, (3, 16, 16))
    attention = {step.parameter: step for step in flow.steps if step.head_size is not None}
    paths = [name.removesuffix(".proj.weight") for name in dict(module.named_parameters()) if "proj.w" in name]
    assert len(paths) == 4
    for path in paths:
        step = attention[f"{path}.proj.weight"]
        assert step.sources == {f"{path}.qkv.weight"}
        assert step.head_size == 4


def test_every_block_of_a_transformer_has_two_branches():
    flow = read_flow(seeded(small_swin), (3, 16, 16))
    assert len(flow.branches) == 8
    assert all(len(branch) == 2 for branch in flow.branches)
    assert len(frozenset().union(*flow.branches)) == 16


def test_heads_of_shifted_windows_are_pruned():
    module = seeded(small_swin)
    data = [(torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1]))]
    masks = prune(module, "head_taylor", compression=1.05, batches=data)
    lost = [name for name, mask in masks.items() if not mask.all()]
    assert lost
    assert all(".attn." in name for name in lost)


class Padded(nn.Module):
    """Half of the second layer's inputs are zeros, into which the first one's outputs are written."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.second = nn.Conv2d(8, 4, 3, padding=1)
        self.head = nn.Linear(4, 4)

    def forward(self, x):
        y = self.first(x)
        wide = y.new_zeros(len(y), 8, *y.shape[2:])
        wide[:, 2:6] = y
        return self.head(self.second(wide).mean((2, 3)))


def test_data_written_into_zeros_is_data():
    module = seeded(Padded)
    steps = {step.parameter: step.sources for step in read_flow(module, (3, 8, 8)).steps}
    assert steps["second.weight"] == {"first.weight"}
    assert steps["head.weight"] == {"second.weight"}
    masks = prune(module, "global_gradient", compression=2, batches=batches(1))
    assert {"first.weight", "second.weight"} <= masks.keys()
    assert "head.weight" not in masks


def test_data_written_into_a_constant_made_from_a_parameter_is_data():
    """What a branch leaves once it is cut out: zeros times a parameter, and the input added in place."""

    class Cut(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(4))
            self.after = nn.Linear(4, 3)

        def forward(self, x):
            result = self.scale * torch.zeros_like(x)
            result += x
            return self.after(result)

    traced = trace(Cut(), (4,))
    assert traced.by_parameter == {"after.weight": 12}
    assert traced.logits == {"after.weight"}


class MakesNumbers(nn.Module):
    """Layers between which numbers are made that torch does not show being made."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(12))

    def forward(self, x):
        for layer in self.layers:
            y = layer(x)
            x = None  # its memory, and its address, may be used again
            x = torch.where(y > 0, y, torch.tensor(-1.0, dtype=y.dtype, device=y.device))
        return x


def test_numbers_made_in_freed_memory_are_made_by_no_layer():
    module = MakesNumbers()
    for _ in range(5):
        for number, step in enumerate(read_flow(module, (4,)).steps[1:]):
            assert step.sources == {f"layers.{number}.weight"}
