"""Callbacks by small stand-ins for the documented hooks of Lightning and transformers."""

import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import nn

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.pruning import Pruner
from shrinkbench.pruning.callbacks import lightning_callback, trainer_callback

STEPS = 20


def made(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    pruner = Pruner(net, "gradual_magnitude", compression=2, input_shape=(8,), total_steps=STEPS)
    return net, pruner, torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)


def steps(net, optimizer, first, last):
    for step in range(first, last):

        def closure(step=step):
            optimizer.zero_grad()
            x = torch.randn(4, 8, generator=torch.Generator().manual_seed(step))
            loss = net(x).square().sum()
            loss.backward()
            return loss

        optimizer.step(closure=closure)  # as Lightning does


@pytest.fixture
def libraries(monkeypatch):
    for name, base in (("lightning.pytorch", "Callback"), ("transformers", "TrainerCallback")):
        module = ModuleType(name)
        setattr(module, base, type(base, (), {}))
        module.callbacks = SimpleNamespace(Checkpoint=type("Checkpoint", (), {}))
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(sys.modules, "lightning", ModuleType("lightning"))


def through_lightning(interrupted, folder):
    net, pruner, optimizer = made()
    callback, trainer = lightning_callback(pruner), SimpleNamespace(optimizers=[optimizer])
    callback.on_train_start(trainer, net)
    steps(net, optimizer, 0, 7)
    if interrupted:
        saved = net.state_dict(), optimizer.state_dict(), callback.state_dict()
        net, pruner, optimizer = made(1)
        callback, trainer = lightning_callback(pruner), SimpleNamespace(optimizers=[optimizer])
        net.load_state_dict(saved[0])
        callback.load_state_dict(saved[2])
        optimizer.load_state_dict(saved[1])
        callback.on_train_start(trainer, net)
    steps(net, optimizer, 7, STEPS)
    callback.on_train_end(trainer, net)
    return net, pruner.masks


def through_trainer(interrupted, folder):
    net, pruner, optimizer = made()
    args, state = SimpleNamespace(output_dir=folder, load_best_model_at_end=False), SimpleNamespace()
    callback = trainer_callback(pruner)
    wrapped = SimpleNamespace(optimizer=optimizer)  # as Accelerate does
    state.global_step = 0
    callback.on_train_begin(args, state, None, optimizer=wrapped)
    steps(net, optimizer, 0, 7)
    if interrupted:
        state.global_step = 7
        (folder / "checkpoint-7").mkdir()
        callback.on_save(args, state, None)
        saved = net.state_dict(), optimizer.state_dict()
        net, pruner, optimizer = made(1)
        net.load_state_dict(saved[0])
        optimizer.load_state_dict(saved[1])
        callback = trainer_callback(pruner)
        callback.on_train_begin(args, state, None, optimizer=optimizer)
    steps(net, optimizer, 7, STEPS)
    callback.on_train_end(args, state, None)
    return net, pruner.masks


@pytest.mark.parametrize("through", [through_lightning, through_trainer])
def test_a_callback_meets_the_target_and_goes_on_where_it_was(libraries, tmp_path, through):
    (whole, masks), (parts, again) = through(False, tmp_path), through(True, tmp_path)
    assert masks.equal(again)
    assert masks.kept + 8 + 18 == 45
    assert not whole[0].weight[~masks["0.weight"]].any()
    assert torch.equal(whole[0].weight, parts[0].weight)


def test_weights_of_a_checkpoint_with_other_masks_are_told(libraries, tmp_path):
    net, pruner, optimizer = made()
    args, callback = SimpleNamespace(output_dir=tmp_path, load_best_model_at_end=True), trainer_callback(pruner)
    early = SimpleNamespace(global_step=0, best_model_checkpoint=str(tmp_path / "checkpoint-2"))
    callback.on_train_begin(args, early, None, optimizer=optimizer)
    steps(net, optimizer, 0, 2)
    for early.global_step in (2, STEPS):
        (tmp_path / f"checkpoint-{early.global_step}").mkdir()
        callback.on_save(args, early, None)
        steps(net, optimizer, pruner.step, STEPS)
    with pytest.raises(ShrinkbenchError, match="weights of checkpoint-2 in place"):
        callback.on_train_end(args, early, None)
    early.best_model_checkpoint = str(tmp_path / f"checkpoint-{STEPS}")
    callback.on_train_end(args, early, None)


def test_what_a_callback_cannot_do_is_told(libraries, tmp_path, monkeypatch):
    _, pruner, optimizer = made()
    other = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1)
    with pytest.raises(ShrinkbenchError, match="none of the module's 2 optimizers holds"):
        lightning_callback(pruner).on_train_start(SimpleNamespace(optimizers=[other] * 2), None)
    args, state = SimpleNamespace(output_dir=tmp_path), SimpleNamespace(global_step=7)
    with pytest.raises(ShrinkbenchError, match="goes on from step 7"):
        trainer_callback(pruner).on_train_begin(args, state, None, optimizer=optimizer)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ShrinkbenchError, match="'transformers' is not installed"):
        trainer_callback(pruner)


def test_optimizers_of_the_network_are_followed_and_no_others(libraries):
    net, pruner, _ = made()
    layers = [torch.optim.SGD(net[n].parameters(), lr=0.1) for n in (0, 2)]
    other = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1)  # as of a network that judges this one
    callback, trainer = lightning_callback(pruner), SimpleNamespace(optimizers=[layers[0], other, layers[1]])
    callback.on_train_start(trainer, net)
    for _ in range(STEPS):
        net(torch.ones(4, 8)).square().sum().backward()
        for optimizer in layers:
            optimizer.step()
    callback.on_train_end(trainer, net)
    assert not net[0].weight[~pruner.masks["0.weight"]].any()


def test_what_averages_weights_goes_first_and_its_average_is_written_pruned(libraries):
    net, pruner, optimizer = made()
    callback, average, writer = lightning_callback(pruner), object(), sys.modules["lightning.pytorch"]
    trainer = SimpleNamespace(
        optimizers=[optimizer], callbacks=[callback, writer.callbacks.Checkpoint(), average]
    )
    _, writes, _ = before = trainer.callbacks
    callback.setup(trainer, net, "fit")
    assert trainer.callbacks == [average, callback, writes]
    assert before == [callback, writes, average]  # which Lightning is going through meanwhile
    whole = nn.ModuleDict({"net": net})
    callback.on_train_start(trainer, whole)
    for done in (False, True):
        written = {"state_dict": {name: torch.ones_like(t) for name, t in whole.state_dict().items()}}
        callback.on_save_checkpoint(trainer, whole, written)
        zeros = written["state_dict"]["net.0.weight"] == 0
        assert torch.equal(zeros, ~pruner.masks["0.weight"]) if done else not zeros.any()
        steps(net, optimizer, 0, STEPS - pruner.step)
