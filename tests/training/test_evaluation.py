"""What a network does not take is told of the network and its data, before it is measured."""

import pytest
import torch
from torch import nn

from shrinkbench.datasets import load_dataset
from shrinkbench.errors import ShrinkbenchError
from shrinkbench.models.card import ModelCard
from shrinkbench.runner.planning import check_compatible
from shrinkbench.tasks import Classification, Detection
from shrinkbench.tasks.language_modelling import LanguageModelling
from shrinkbench.training.evaluation import require_runs

NAMES = {"network": "hf:short", "dataset": "blocks"}


class Positions(nn.Module):
    """A network of eight positions."""

    def __init__(self) -> None:
        super().__init__()
        self.place, self.out = nn.Embedding(8, 4), nn.Linear(4, 5)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.out(self.place(torch.arange(tokens.shape[1]))).expand(len(tokens), -1, -1)


def test_blocks_longer_than_a_network_takes_are_told():
    module, task = Positions().train(), LanguageModelling()
    require_runs(module, [torch.zeros(1, 8).long()], task=task, **NAMES)
    with pytest.raises(ShrinkbenchError, match=r"'hf:short' does not run on what 'blocks' holds \(IndexError"):
        require_runs(module, [torch.zeros(1, 9).long()], task=task, **NAMES)
    assert module.training


def test_only_the_first_batch_is_tried_and_tasks_of_other_batches_are_left():
    fits, wrong = (torch.rand(2, 4), torch.zeros(2).long()), (torch.rand(2, 3), torch.zeros(2).long())
    require_runs(nn.Linear(4, 2), [fits, wrong], task=Classification(), **NAMES)
    require_runs(nn.Linear(4, 2), [], task=Classification(), **NAMES)
    require_runs(nn.Linear(4, 2), [object()], task=Detection(), **NAMES)
    with pytest.raises(ShrinkbenchError, match="name data that its forward pass takes"):
        require_runs(nn.Linear(4, 2), [wrong], task=Classification(), **NAMES)


def test_a_network_of_tokens_takes_no_images():
    card = ModelCard(name="hf:gpt2", definition="", build=lambda _: nn.Linear(1, 1), takes="tokens")
    with pytest.raises(ShrinkbenchError, match="takes tokens, and dataset 'digits' has numbers of shape 1x8x8"):
        check_compatible(load_dataset("digits", None), card)
