"""Wanda and SparseGPT on a language model, against the authors' algorithms written anew."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from shrinkbench.models.llama import TinyLlama
from shrinkbench.pruning import prune
from shrinkbench.tasks import LanguageModelling

ORDER = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@pytest.fixture
def network():
    torch.manual_seed(0)
    module = TinyLlama(13, width=32, depth=2, heads=4, shared_heads=2, hidden=160).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return module


@pytest.fixture
def batches():
    return [torch.randint(0, 13, (6, 20), generator=torch.Generator().manual_seed(n)) for n in (1, 2)]


def layers(module):
    named = dict(module.named_modules())
    return [
        f"blocks.{b}.attention.{n}" if n in ORDER[:4] else f"blocks.{b}.{n}"
        for b in range(2)
        for n in ORDER
        if named
    ]


def inputs_of(module, path, batches):
    """Rows of inputs of one layer, by a hook."""
    seen = []
    handle = module.get_submodule(path).register_forward_hook(lambda _, args, __: seen.append(args[0]))
    with torch.no_grad():
        for batch in batches:
            module(batch)
    handle.remove()
    return torch.cat([x.reshape(-1, x.shape[-1]) for x in seen])


@pytest.mark.parametrize("method", ["global_magnitude", "global_gradient", "wanda", "sparsegpt"])
def test_the_linear_layers_of_the_blocks_are_what_is_pruned(network, batches, method):
    task = LanguageModelling()
    total = sum(p.numel() for p in network.parameters())
    masks = prune(
        network, method, compression=1.6, batches=[task.split(b) for b in batches], loss=task.criterion
    )
    assert sorted(masks) == sorted(f"{path}.weight" for path in layers(network))
    assert abs(total - (masks.total - masks.kept) - total / 1.6) <= 0.5


def test_wanda_is_that_of_its_authors(network, batches):
    masks = prune(network, "wanda", compression=1.6, batches=batches)
    pruned = copy.deepcopy(network)
    for path in layers(network):
        weight = pruned.get_parameter(f"{path}.weight")
        metric = weight.detach().abs() * inputs_of(pruned, path, batches).square().sum(0).sqrt()
        found = masks[f"{path}.weight"]
        assert int(found.sum(1).max()) - int(found.sum(1).min()) <= 1
        expected = torch.zeros_like(found)
        for row, kept in enumerate(found.sum(1).tolist()):
            expected[row, metric[row].argsort(descending=True)[:kept]] = True
        assert torch.equal(found, expected)
        with torch.no_grad():
            weight.mul_(expected)


def sparsegpt_layer(weight, rows, sequences, keep_counts, block=128):
    """The authors' `fasterprune`, with how many weights stay in each block given."""
    hessian = 2 / sequences * rows.double().T @ rows.double()
    dead = hessian.diagonal() == 0
    hessian[dead, dead] = 1
    weight = weight.double().clone()
    weight[:, dead] = 0
    damp = 0.01 * hessian.diagonal().mean()
    hessian.diagonal().add_(damp)
    inverse = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(hessian)), upper=True)
    mask = torch.ones_like(weight, dtype=torch.bool)
    for start in range(0, weight.shape[1], block):
        stop = min(start + block, weight.shape[1])
        part, errors = weight[:, start:stop].clone(), torch.zeros_like(weight[:, start:stop])
        inner = inverse[start:stop, start:stop]
        saliency = part.square() / inner.diagonal().square()
        order = saliency.flatten().argsort(descending=True)
        keep = torch.zeros(part.numel(), dtype=torch.bool)
        keep[order[: keep_counts[start // block]]] = True
        keep = keep.view(part.shape)
        mask[:, start:stop] = keep
        for column in range(stop - start):
            old = part[:, column].clone()
            new = old * keep[:, column]
            error = (old - new) / inner[column, column]
            part[:, column:] -= error[:, None] * inner[column, column:]
            part[:, column] = new
            errors[:, column] = error
        weight[:, start:stop] = part
        weight[:, stop:] -= errors @ inverse[start:stop, stop:]
    return mask, weight


def test_sparsegpt_is_that_of_its_authors(network, batches):
    masks = prune(network, "sparsegpt", compression=1.6, batches=batches)
    final = copy.deepcopy(network)
    masks.apply(final)
    pruned = copy.deepcopy(network)
    for path in layers(network):
        name = f"{path}.weight"
        weight, found = pruned.get_parameter(name), masks[name]
        counts = [int(found[:, start : start + 128].sum()) for start in range(0, found.shape[1], 128)]
        shares = [count / found[:, 128 * n : 128 * n + 128].numel() for n, count in enumerate(counts)]
        assert max(shares) - min(shares) < 0.01
        rows = inputs_of(pruned, path, batches)
        mask, value = sparsegpt_layer(weight.detach(), rows, sum(map(len, batches)), counts)
        assert torch.equal(found, mask)
        assert torch.allclose(final.get_parameter(name).double(), value * mask, rtol=1e-3, atol=1e-5)
        with torch.no_grad():
            weight.copy_(final.get_parameter(name))
    assert isinstance(final.head, nn.Linear)
    assert torch.equal(final.head.weight, network.head.weight)
