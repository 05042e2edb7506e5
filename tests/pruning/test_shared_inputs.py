"""Networks whose inputs have not one row for each example: graphs, tables that all share, sets of negatives."""

import pytest
import torch
from torch import nn

import shrinkbench
from shrinkbench.errors import ShrinkbenchError


class Graph(nn.Module):
    """Nodes take the mean of what edges bring."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(8, 32), nn.Linear(32, 3)

    def forward(self, nodes, edges):
        hidden = self.first(nodes).relu()
        return self.last(torch.zeros_like(hidden).index_add(0, edges[1], hidden[edges[0]]))


class Negatives(nn.Module):
    """Four others beside each example, in rows of their own."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(8, 32), nn.Linear(32, 8)

    def forward(self, one, others):
        a, b = (self.last(self.first(x).relu()) for x in (one, others))
        return (a[:, None] * b.view(len(one), 4, -1)).sum(-1)


def batches_of(kind):
    torch.manual_seed(0)
    if kind is Graph:
        edges = [torch.randint(0, 6, (2, 9)) for _ in range(3)]
        return [((torch.randn(6, 8), each), torch.randint(0, 3, (6,))) for each in edges]
    return [((torch.randn(5, 8), torch.randn(20, 8)), torch.randint(0, 4, (5,))) for _ in range(3)]


@pytest.mark.parametrize("kind", [Graph, Negatives])
@pytest.mark.parametrize("method", ["global_magnitude", "snip", "wanda", "sparsegpt", "synflow"])
def test_what_runs_on_whole_batches_alone_is_pruned(kind, method):
    torch.manual_seed(1)
    network = kind()
    total = sum(p.numel() for p in network.parameters())
    masks = shrinkbench.prune(network, method, compression=1.3, batches=batches_of(kind))
    kept = total - sum(int((~masks[name]).sum()) for name in masks)
    assert abs(kept - total / 1.3) <= 1


def test_wanda_sees_whole_graphs():
    torch.manual_seed(1)
    network, batch = Graph(), batches_of(Graph)[0]
    masks = shrinkbench.prune(network, "wanda", compression=1.3, batches=[batch], prune_classifier=True)
    (nodes, edges), _ = batch
    with torch.no_grad():
        network.first.weight *= masks["first.weight"]
        hidden = network.first(nodes).relu()
        taken = torch.zeros_like(hidden).index_add(0, edges[1], hidden[edges[0]])
        score = network.last.weight.abs() * taken.square().mean(0).sqrt()
    for row, kept in zip(score, masks["last.weight"], strict=True):
        assert set(row.topk(int(kept.sum())).indices.tolist()) == set(kept.nonzero().flatten().tolist())


def test_a_batch_of_one_has_no_statistics_and_that_is_said():
    network = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))
    with pytest.raises(ShrinkbenchError, match=r"statistics of the batch.*Expected more than 1 value"):
        shrinkbench.prune(network, "snip", compression=1.5, batches=[(torch.randn(1, 8), torch.tensor([1]))])


def test_a_part_of_a_graph_is_told_as_that():
    """It was told that numbers are beyond a table."""
    with pytest.raises(ShrinkbenchError, match=r"this method runs the network on .* and it fails .IndexError"):
        shrinkbench.prune(Graph(), "grasp", compression=1.3, batches=batches_of(Graph))
