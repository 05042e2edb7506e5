"""A compiled step is the network's own up to rounding, or the network runs as it is and says why."""

import re

import pytest
import torch
from torch import nn

from shrinkbench.models import build
from shrinkbench.pruning import Upholder, prune
from shrinkbench.tasks import split_for
from shrinkbench.training import RECIPES, compiling, train
from shrinkbench.training.evaluation import CLASSIFY

RECIPE = RECIPES.get("digits-train").model_copy(update={"epochs": 2, "batch_size": 32})


def batch(size=32, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(size, 1, 8, 8, generator=draw), torch.randint(0, 10, (size,), generator=draw)


class Made:
    """72 examples: two whole batches and one of eight."""

    def train(self, batch_size, *, generator, augment):
        images, labels = batch(72)
        order = torch.randperm(72, generator=generator)
        return ((images[rows], labels[rows]) for rows in order.split(batch_size))

    def validation(self):
        return None

    test = train


def network():
    torch.manual_seed(0)
    return build("digits-cnn")


def by(backend, monkeypatch):
    """Programs are made by ``backend`` of a graph: a compiler that nobody waits for."""
    torch.compiler.reset()
    monkeypatch.setattr(compiling, "_COMPARED", set())
    monkeypatch.setattr(compiling, "_compile", lambda module: torch.compile(module, backend=backend))


def found(module, monkeypatch, backend="eager"):
    by(backend, monkeypatch)
    return compiling.compile_steps(module, RECIPE, split_for(CLASSIFY, batch()), CLASSIFY)


def wrong(graph, _):
    return lambda *given: tuple(out * 1.01 if out.is_floating_point() else out for out in graph(*given))


def unlucky(graph, _):
    def run(*given):
        torch.rand(1)
        return graph(*given)

    return run


def broken(graph, _):
    raise RuntimeError("no compiler")


def test_a_program_of_the_same_step_is_taken_and_leaves_no_trace(monkeypatch):
    module = network()
    before = {n: t.clone() for n, t in module.state_dict().items()}
    draws = torch.get_rng_state()
    program = found(module, monkeypatch)
    assert isinstance(program, nn.Module)
    assert next(iter(program.parameters())) is next(iter(module.parameters()))
    assert all(torch.equal(before[n], t) for n, t in module.state_dict().items())
    assert all(p.grad is None for p in module.parameters())
    assert torch.equal(draws, torch.get_rng_state())


@pytest.mark.parametrize(
    ("backend", "reason"),
    [(wrong, "its (loss|gradient) is .* from that in double precision"), (unlucky, "other random numbers")],
)
def test_a_program_of_another_step_is_refused(backend, reason, monkeypatch):
    told = found(network(), monkeypatch, backend)
    assert isinstance(told, str)
    assert re.search(reason, told)


def test_a_compiler_that_fails_is_told(monkeypatch):
    assert "no compiler" in found(network(), monkeypatch, broken)


def test_what_is_hooked_is_not_compiled(monkeypatch):
    module = network()
    next(module.children()).register_forward_hook(lambda *_: None)
    assert found(module, monkeypatch) == "something is hooked into its passes"


def test_a_training_of_the_same_program_is_the_same_training(monkeypatch):
    plain, compiled = network(), network()
    first = train(plain, RECIPE, Made(), seed=1)
    by("eager", monkeypatch)
    masks = prune(compiled, "global_magnitude", compression=1, input_shape=(1, 8, 8))
    second = train(compiled, RECIPE, Made(), seed=1, hooks=[Upholder(compiled, masks)], compiled=True)
    assert first.uncompiled is None
    assert second.uncompiled == ""
    assert [e.train_loss for e in first.epochs] == [e.train_loss for e in second.epochs]
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), compiled.parameters(), strict=True))


def test_networks_that_share_a_program_are_compared_once(monkeypatch):
    by("eager", monkeypatch)
    steps, step = [], compiling._step
    monkeypatch.setattr(compiling, "_step", lambda *given: steps.append(given) or step(*given))
    given = split_for(CLASSIFY, batch())
    for module, recipe, count in (
        (network(), RECIPE, 3),
        (network(), RECIPE, 3),
        (network(), RECIPE.model_copy(update={"label_smoothing": 0.1}), 6),
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), RECIPE, 9),
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 10).requires_grad_(False), nn.Linear(10, 10)), RECIPE, 12),
    ):
        assert isinstance(compiling.compile_steps(module, recipe, given, CLASSIFY), nn.Module)
        assert len(steps) == count
    other = split_for(CLASSIFY, batch(16))
    assert isinstance(compiling.compile_steps(network(), RECIPE, other, CLASSIFY), nn.Module)
    assert len(steps) == 15


def test_only_whole_batches_go_through_the_program(monkeypatch):
    module, sizes = network(), []

    def counted(graph, _):
        def run(*given):
            sizes.append(
                next(t.shape[0] for t in given if t.ndim == 4 and t.shape[-1] == 8 and t.shape[1] == 1)
            )
            return graph(*given)

        return run

    by(counted, monkeypatch)
    train(module, RECIPE, Made(), seed=1, compiled=True)
    assert sizes == [32] * (1 + 2 * 2)  # the comparison, and two of the three batches of two epochs


def test_a_split_without_a_whole_batch_is_told(monkeypatch):
    by("eager", monkeypatch)
    recipe = RECIPE.model_copy(update={"batch_size": 100})
    assert train(network(), recipe, Made(), seed=1, compiled=True).uncompiled == (
        "there is no whole batch of 100 examples"
    )


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bf16-mixed"])
def test_the_first_steps_of_a_compiled_training_are_those_of_the_network(precision):
    """In float32 two steps lie 1e-4 apart; later ones drift as they do with another number of threads."""
    torch.compiler.reset()
    recipe = RECIPE.model_copy(update={"precision": precision, "epochs": 1})
    plain, compiled = network(), network()
    masks = prune(plain, "global_magnitude", compression=4, input_shape=(1, 8, 8))
    for module in (plain, compiled):
        masks.apply(module)
    train(plain, recipe, Made(), seed=1, hooks=[Upholder(plain, masks)])
    done = train(compiled, recipe, Made(), seed=1, hooks=[Upholder(compiled, masks)], compiled=True)
    assert done.uncompiled == ""
    weights = dict(compiled.named_parameters())
    assert all((weights[n][~mask] == 0).all() for n, mask in masks.items())
    one, other = (torch.cat([p.detach().flatten() for p in m.parameters()]) for m in (plain, compiled))
    assert (one - other).norm() <= {"float32": 1e-3, "bf16-mixed": 3e-2}[precision] * one.norm()
