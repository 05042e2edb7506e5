"""Callbacks in a training of Lightning and of transformers: the masks of a plain loop over the same batches."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from shrinkbench.pruning import Pruner
from shrinkbench.pruning.callbacks import lightning_callback, trainer_callback

STEPS, BATCH = 20, 4
INPUTS = torch.randn(STEPS * BATCH, 8, generator=torch.Generator().manual_seed(1))
LABELS = torch.randint(0, 3, (STEPS * BATCH,), generator=torch.Generator().manual_seed(2))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layers = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))

    def forward(self, x, labels=None):  # optional, as those of transformers
        logits = self.layers(x)
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return {"loss": loss, "logits": logits}


def made(method):
    net = Net()
    batches = [(INPUTS[:BATCH], LABELS[:BATCH])]
    pruner = Pruner(net, method, compression=1.7, batches=batches, total_steps=STEPS, steps_per_epoch=5)
    return net, pruner, torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)


def by_hand(method):
    net, pruner, optimizer = made(method)
    pruner.attach(optimizer)
    for step in range(STEPS):
        rows = slice(step * BATCH, (step + 1) * BATCH)
        optimizer.zero_grad()
        net(INPUTS[rows], LABELS[rows])["loss"].backward()
        optimizer.step()
    return net, pruner.finish()


def by_lightning(method, folder, *others):
    import pytorch_lightning

    net, pruner, optimizer = made(method)

    class Module(pytorch_lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = net

        def training_step(self, batch, _):
            return net(*batch)["loss"]

        def configure_optimizers(self):
            return optimizer

    trainer = pytorch_lightning.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=bool(others),
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
        callbacks=[lightning_callback(pruner), *others],
    )  # fmt: skip
    data = torch.utils.data.TensorDataset(INPUTS, LABELS)
    trainer.fit(Module(), DataLoader(data, batch_size=BATCH))
    return net, pruner.masks


def by_trainer(method, folder):
    import transformers

    net, pruner, optimizer = made(method)

    class InOrder(transformers.Trainer):
        def get_train_dataloader(self):
            rows = [{"x": x, "labels": y} for x, y in zip(INPUTS, LABELS, strict=True)]
            return DataLoader(rows, batch_size=BATCH)

    arguments = transformers.TrainingArguments(
        output_dir=str(folder), max_steps=STEPS, per_device_train_batch_size=BATCH, max_grad_norm=0,
        report_to="none", save_strategy="no", use_cpu=True, disable_tqdm=True, lr_scheduler_type="constant",
    )  # fmt: skip
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
    callbacks = [trainer_callback(pruner)]
    trainer = InOrder(
        net, arguments, train_dataset=[{}] * len(INPUTS), optimizers=(optimizer, schedule), callbacks=callbacks
    )
    trainer.train()
    return net, pruner.masks


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("method", ["gradual_magnitude", "rigl", "soft_filter_pruning", "snip"])
@pytest.mark.parametrize("through", [by_lightning, by_trainer])
def test_masks_are_those_of_a_plain_loop(tmp_path, through, method):
    expected, masks = by_hand(method)
    net, found = through(method, tmp_path)
    assert found.equal(masks)
    for name, parameter in net.named_parameters():
        assert torch.allclose(parameter, dict(expected.named_parameters())[name], atol=1e-6)
        if name in found:
            assert not parameter[~found[name]].any()
    total = sum(p.numel() for p in net.parameters())
    kept = total - sum(int((~mask).sum()) for mask in found.values())
    assert abs(kept - total / 1.7) <= (9 if method == "soft_filter_pruning" else 0.5)  # a filter, or a weight


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("method", ["gradual_magnitude", "rigl", "soft_filter_pruning"])
def test_an_average_of_weights_is_pruned_in_the_network_and_in_checkpoints(tmp_path, method):
    from pytorch_lightning import callbacks

    average, last = callbacks.EMAWeightAveraging(decay=0.9), callbacks.ModelCheckpoint(tmp_path, save_last=True)
    net, masks = by_lightning(method, tmp_path, average, last)
    written = torch.load(tmp_path / "last.ckpt", weights_only=False)["state_dict"]
    for name, mask in masks.items():
        assert not net.get_parameter(name)[~mask].any()
        assert not written[f"net.{name}"][~mask].any()
    expected, _ = by_hand(method)
    assert not torch.allclose(net.layers[0].weight, expected.layers[0].weight, atol=1e-3)  # it is the average
