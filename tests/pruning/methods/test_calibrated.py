"""RIA, OWL and DSnoT on a language model, against the authors' rules written anew; block by block."""

from __future__ import annotations

import copy

import pytest
import torch
import transformers
from torch import nn

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.models.llama import TinyLlama
from shrinkbench.network.blocks import chain_of, read_blocks
from shrinkbench.network.inputs import Inputs
from shrinkbench.pruning import prune
from shrinkbench.pruning.context import PruneContext
from shrinkbench.pruning.methods.calibrated import exchange, relative_importance

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
ORDER = (*ATTENTION, "gate_proj", "up_proj", "down_proj")


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    module = TinyLlama(13, width=32, depth=3, heads=4, shared_heads=2, hidden=48).eval()
    with torch.no_grad():
        for number, parameter in enumerate(module.parameters()):
            parameter.add_(0.1 * torch.randn(parameter.shape) * (1 + number % 5))
        module.blocks[1].input_norm.weight[3] = 60.0  # outliers in one block
    return module


@pytest.fixture(scope="module")
def batches():
    return [torch.randint(0, 13, (6, 20), generator=torch.Generator().manual_seed(n)) for n in (1, 2)]


def paths():
    return [
        f"blocks.{b}.attention.{n}" if n in ATTENTION else f"blocks.{b}.{n}" for b in range(3) for n in ORDER
    ]


def inputs_of(module, path, batches):
    seen = []
    handle = module.get_submodule(path).register_forward_hook(lambda _, args, __: seen.append(args[0]))
    with torch.no_grad():
        for batch in batches:
            module(batch)
    handle.remove()
    return torch.cat([x.reshape(-1, x.shape[-1]) for x in seen])


def layer_after_layer(network, batches, masks):
    """Path, weights, inputs from the layers pruned so far, and the mask found, for every layer in order."""
    pruned = copy.deepcopy(network)
    for path in paths():
        found, weight = masks[f"{path}.weight"], pruned.get_parameter(f"{path}.weight")
        yield path, weight.detach().clone(), inputs_of(pruned, path, batches), found
        with torch.no_grad():
            weight.mul_(found)


def best(metric, count):
    keep = torch.zeros(metric.numel(), dtype=torch.bool)
    keep[metric.flatten().argsort(descending=True)[:count]] = True
    return keep.view(metric.shape)


def test_ria_is_that_of_its_authors(network, batches):
    masks = prune(network, "ria", compression=1.6, batches=batches)
    for _, weight, x, found in layer_after_layer(network, batches, masks):
        size = weight.abs()
        metric = size / size.sum(0) + size / size.sum(1).reshape(-1, 1)
        metric = metric * x.square().sum(0).sqrt().reshape(1, -1) ** 0.5
        assert torch.equal(found, best(metric, int(found.sum())))
    densities = [masks[f"{path}.weight"].float().mean() for path in paths()]
    assert max(densities) - min(densities) < 0.01


def test_relative_importance_by_hand():
    found = relative_importance(torch.tensor([[2.0, 0.0], [-6.0, 4.0]]))
    assert torch.allclose(found, torch.tensor([[2 / 8 + 1, 0.0], [6 / 8 + 6 / 10, 1 + 4 / 10]]))


def test_owl_gives_the_densities_of_its_authors(network, batches):
    masks = prune(network, "owl_wanda", compression=1.6, batches=batches)
    ratios, kept, total = [], [], []
    for block in range(3):
        inside = [path for path in paths() if path.startswith(f"blocks.{block}.")]
        metric = torch.cat(
            [
                (
                    network.get_parameter(f"{path}.weight").detach().abs()
                    * inputs_of(network, path, batches).square().sum(0).sqrt()
                ).flatten()
                for path in inside
            ]
        )
        ratios.append(float((metric > 5 * metric.mean()).float().mean()))
        kept.append(sum(int(masks[f"{path}.weight"].sum()) for path in inside))
        total.append(sum(masks[f"{path}.weight"].numel() for path in inside))
    ratios = torch.tensor(ratios)
    assert float(ratios.max()) > 2 * float(ratios.min()) > 0
    shares = (ratios - ratios.min()) / (ratios.max() - ratios.min()) * 0.16
    shares = shares - shares.mean() + sum(kept) / sum(total)
    assert torch.allclose(torch.tensor(kept) / torch.tensor(total), shares, atol=1e-3)
    for _, weight, x, found in layer_after_layer(network, batches, masks):
        metric = weight.abs() * x.square().sum(0).sqrt()
        rows = [best(row, int(mask.sum())) for row, mask in zip(metric, found, strict=True)]
        assert torch.equal(found, torch.stack(rows))
        assert int(found.sum(1).max()) - int(found.sum(1).min()) <= 1


def test_the_allocation_of_owl_goes_with_other_scores(network, batches):
    masks = prune(network, "layerwise_magnitude[allocation=owl]", compression=1.6, batches=batches[:1])
    owl = prune(network, "owl_sparsegpt", compression=1.6, batches=batches[:1])
    for path in paths():
        assert abs(int(masks[f"{path}.weight"].sum()) - int(owl[f"{path}.weight"].sum())) <= 1


def exchanged_row(weight, kept, norm, mean, variance):
    """One row of DSnoT, weight by weight."""
    kept, moved = set(kept), set()
    everything = set(range(len(weight)))
    for _ in range(50):
        error = sum(weight[i] * mean[i] for i in everything - kept)
        sign = 1 if error > 0 else -1
        gain = {i: sign * weight[i] * mean[i] / variance[i] for i in everything - kept - moved}
        back = max(gain, key=gain.get, default=None)
        can_go = [i for i in kept - moved if weight[i] * mean[i] * error < 0]
        if abs(error) <= 0.1 or back is None or not can_go or weight[back] * mean[back] * error <= 0:
            break
        away = min(can_go, key=lambda i: abs(weight[i]) * norm[i])
        kept = kept - {away} | {back}
        moved |= {away, back}
    return kept


def test_dsnot_is_that_of_its_paper(network, batches):
    wanda = prune(network, "wanda", compression=1.6, batches=batches)
    masks = prune(network, "dsnot", compression=1.6, batches=batches)
    changed = 0
    for path, weight, x, found in layer_after_layer(network, batches, masks):
        norm, mean = x.square().sum(0).sqrt(), x.mean(0)
        variance = x.square().mean(0) - mean.square()
        metric = weight.abs() * norm
        for row, mask in enumerate(found):
            start = best(metric[row], int(mask.sum())).nonzero().flatten().tolist()
            expected = exchanged_row(
                weight[row].tolist(), start, norm.tolist(), mean.tolist(), variance.tolist()
            )
            assert set(mask.nonzero().flatten().tolist()) == expected, path
            changed += set(start) != expected
    assert changed > 50
    assert {n: int(m.sum()) for n, m in masks.items()} == {n: int(m.sum()) for n, m in wanda.items()}


def test_an_exchange_by_hand():
    # Removed are 0 and 3: error 1 + 2 = 3. 3 comes back (gain 2), and of 1 and 2, whose effects are negative,
    # the smaller, 2, goes: error 1 - 0.5. Then 0 comes back and 1 goes: error -0.5 - 1.
    weight, one = torch.tensor([[1.0, -1.0, -0.5, 2.0]]), torch.ones(1, 4)
    mask = torch.tensor([[False, True, True, False]])
    found = exchange(weight, mask, norms=one, means=one, variances=one)
    assert found.tolist() == [[True, False, False, True]]
    fixed = exchange(
        weight, mask, norms=one, means=one, variances=one, gone=torch.tensor([[True, False, False, True]])
    )
    assert torch.equal(fixed, mask)


def hugging_face():
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=13, hidden_size=16, intermediate_size=24, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=False,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval()


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        ("ours", "sparsegpt"),
        ("hugging face", "wanda"),
        *(
            pytest.param(kind, method, marks=pytest.mark.slow)
            for kind in ("ours", "hugging face")
            for method in ("wanda", "sparsegpt", "ria", "dsnot", "owl_sparsegpt", "ria_2_4")
        ),
    ],
)
def test_block_by_block_finds_what_whole_passes_find(network, batches, monkeypatch, method, kind):
    module = network if kind == "ours" else hugging_face()
    given = batches if kind == "ours" else [{"input_ids": batch} for batch in batches]
    found = prune(module, method, compression=1.5, batches=given)
    monkeypatch.setattr(PruneContext, "block_by_block", lambda self: self)
    expected = prune(module, method, compression=1.5, batches=given)
    assert found.equal(expected)
    for name, values in expected.new_weights.items():
        assert torch.equal(found.new_weights[name], values)


def test_a_chain_is_what_runs_one_behind_the_other(network, batches):
    inputs = Inputs.of(batches[0][:1])
    assert [call.path for call in chain_of(network, inputs)] == ["blocks.0", "blocks.1", "blocks.2"]
    module = hugging_face()
    assert len(chain_of(module, Inputs.of({"input_ids": batches[0][:1]}))) == 3

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = nn.ModuleList(nn.TransformerEncoderLayer(8, 2, 8, batch_first=True) for _ in range(3))

        def forward(self, x):
            first, second, third = self.parts
            return third(second(first(x)) + x) + second(x)

    module = Twice().eval()
    x = torch.randn(1, 4, 8)
    assert [call.path for call in read_blocks(module, Inputs.of(x))] == ["parts.0", "parts.2"]
    assert chain_of(module, Inputs.of(x)) == ()
    assert chain_of(nn.Sequential(nn.Linear(8, 8), nn.ReLU()), Inputs.of(x)) == ()


class Counting(nn.Module):
    """Two blocks, and a count of the passes."""

    def __init__(self):
        super().__init__()
        self.more = nn.ModuleList(nn.TransformerEncoderLayer(8, 2, 8, batch_first=True) for _ in range(2))
        self.head = nn.Linear(8, 3)
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, x):
        self.passes.add_(1)
        for part in self.more:
            x = part(x)
        return self.head(x.mean(1))


@pytest.mark.parametrize("method", ["wanda", "owl_wanda"])
def test_looking_at_blocks_leaves_no_trace(method):
    torch.manual_seed(0)
    module = Counting()
    x = torch.randn(4, 5, 8)
    state = torch.get_rng_state()
    prune(module, method, compression=1.3, batches=[(x, torch.zeros(4, dtype=torch.long))])
    assert float(module.passes) == 0
    assert torch.equal(torch.get_rng_state(), state)
    assert module.training


def test_exchanges_leave_no_pattern_so_that_none_is_promised():
    batches = [(torch.randn(4, 8), torch.zeros(4, dtype=torch.long))]
    options = {"compression": 1.5, "batches": batches, "prune_classifier": True}
    with pytest.raises(ShrinkbenchError, match="single weights of a row, which leaves no '2:4'"):
        prune(nn.Linear(8, 4), "dsnot[structure=2:4]", **options)


class Experts(nn.Module):
    """Rows of positive and of negative sum go through one layer each."""

    def __init__(self):
        super().__init__()
        self.experts, self.out = nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 8)]), nn.Linear(8, 2)

    def forward(self, x):
        hidden = torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            chosen = (x.sum(1) > 0) == bool(number)
            if chosen.any():
                hidden[chosen] = expert(x[chosen]).relu()
        return self.out(hidden)


@pytest.mark.filterwarnings("ignore:an evaluation of the network never reads")
def test_an_expert_that_a_later_batch_chooses_is_scored_by_its_inputs():
    net, x = Experts(), torch.rand(12, 8) * torch.arange(1, 9)
    masks = prune(net, "wanda", compression=1.5, batches=[-x, x])
    kept = masks["experts.1.weight"]
    score = net.experts[1].weight.detach().abs() * x.square().sum(0).sqrt()
    assert kept.sum() < kept.numel()
    for row, stays in zip(score, kept, strict=True):
        assert row[stays].min() > row[~stays].max()
