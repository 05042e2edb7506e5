"""Training pruned architectures from scratch: the small network's own training, for its own time."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from sampling import sampled
from typer.testing import CliRunner

from shrinkbench.cli.report import app
from shrinkbench.models import build
from shrinkbench.pruning import FINETUNINGS, Upholder, prune, restart
from shrinkbench.results.store import ResultStore
from shrinkbench.runner import sweep
from shrinkbench.spec import ExperimentSpec, Recipe, parse_value
from shrinkbench.surgery.shrinking import shrink
from shrinkbench.training import train

SHAPE = (1, 8, 8)
METHODS = ["channel_l1", "channel_l1[finetuning=scratch-e]", "channel_l1[finetuning=scratch-b]"]


class Images:
    """Brightness tells the classes apart."""

    def __init__(self):
        self.labels = torch.arange(48) % 10
        noise = torch.randn(48, *SHAPE, generator=torch.Generator().manual_seed(0))
        self.images = noise * 0.3 + self.labels.view(-1, 1, 1, 1) / 3

    def train(self, batch_size, *, generator, augment):
        order = torch.randperm(48, generator=generator)
        return [(self.images[i].double(), self.labels[i]) for i in order.split(batch_size)]

    def validation(self):
        return [(self.images.double(), self.labels)]

    test = validation


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_training_under_masks_of_whole_channels_is_training_the_small_network(optimizer):
    """Momentum, weight decay, batch norm and clipping included, in double precision."""
    recipe = Recipe(
        name="test", reference="test", optimizer=optimizer, learning_rate=0.01, batch_size=16, epochs=3,
        momentum=0.9, weight_decay=1e-2, clip_gradient_norm=1.0,
    )  # fmt: skip
    module = build("digits-cnn")
    masks = prune(module, "channel_l1", compression=2, input_shape=SHAPE)
    restart(FINETUNINGS.get("scratch-e"), module, masks, build("digits-cnn", seed=5).state_dict())
    masked, small = module.double(), shrink(copy.deepcopy(module).double(), masks, SHAPE)
    train(masked, recipe, Images(), seed=0, hooks=[Upholder(masked, masks)])
    train(small, recipe, Images(), seed=0)
    trained = dict(shrink(masked, masks, SHAPE).state_dict())
    for name, tensor in small.state_dict().items():
        torch.testing.assert_close(tensor, trained[name], rtol=1e-6, atol=1e-9, msg=name)


def run(root, **fields):
    base = {
        "name": "test",
        "dataset": "digits",
        "model": "digits-cnn",
        "method": METHODS,
        "compression": [1, 2],
        "train_images": 200,
        "test_images": 100,
        "pretrain": {"epochs": 4, "schedule": "multistep", "milestones": [2, 3]},
        "finetune": {"epochs": 1},
    }
    status = sweep(parse_value(ExperimentSpec, {**base, **fields}, where="test"), root, device="cpu")
    results, problems = ResultStore(root).results()
    assert not problems
    return status, {(r.spec.method.name, r.spec.target): r for r in results}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("scratch")


@pytest.fixture(scope="module")
def swept(root):
    status, results = run(root)
    assert (status.done, status.total) == (6, 6)
    return results


def test_scratch_b_spends_what_pretraining_spent_up_to_an_epoch(swept):
    tuned, equal, longer = (swept[method, 2].cost for method in METHODS)
    assert equal.pretraining.multiply_adds == longer.pretraining.multiply_adds == 0
    per_epoch = longer.retraining.multiply_adds / longer.retraining.epochs
    assert 0 <= tuned.pretraining.multiply_adds - longer.retraining.multiply_adds < per_epoch
    assert equal.retraining.epochs == tuned.pretraining.epochs


def test_the_command_prints_the_papers_layout_and_the_report_holds_it(swept, root):
    def call(*arguments):
        result = CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)
        assert result.exit_code == 0
        return result.output

    tables = json.loads(call("scratch", root, "--json"))
    (row,) = tables["scratch-top1"]
    assert row["pruned network"] == "channel_l1 2×"
    unpruned = swept["channel_l1", 1].before["top1"]
    assert row["Unpruned"] == f"{100 * unpruned:.2f}"
    for column, method in zip(("Fine-tuned", "Scratch-E", "Scratch-B"), METHODS, strict=True):
        top1 = swept[method, 2].after["top1"]
        assert row[column] == f"{100 * top1:.2f}"
    (cost,) = tables["scratch-cost"]
    assert float(cost["Fine-tuned"].split()[0]) > 1 >= float(cost["Scratch-B"].split()[0]) > 0.8
    assert cost["Scratch-E"].endswith("(4 epochs)")
    assert row["Scratch-E"] in call("scratch", root)
    call("report", root, "--figures", "none")
    page = (root / "report" / "index.html").read_text()
    assert "Trained from scratch" in page
    assert "Scratch-B" in page
    assert (root / "report" / "tables" / "scratch-top1.tex").exists()


def test_scratch_e_repeats_the_epochs_and_scratch_b_the_computation(swept):
    tuned, equal, longer = (swept[method, 2] for method in METHODS)
    assert (tuned.epochs_run, equal.epochs_run) == (1, 4)
    size = longer.size
    assert longer.epochs_run == int(4 * size.multiply_adds / size.multiply_adds_kept) > 4
    epochs = longer.epochs_run
    rates = [record.learning_rate for record in longer.epochs]
    falls = [n for n in range(1, epochs) if rates[n] < rates[n - 1]]
    assert falls == [2 * epochs // 4, 3 * epochs // 4]


def test_the_architecture_is_the_one_that_pruning_left(swept):
    tuned, equal, longer = (swept[method, 2] for method in METHODS)
    assert tuned.layers == equal.layers == longer.layers
    assert equal.before == longer.before != tuned.before  # the same fresh draw
    assert equal.after != longer.after


def test_unpruned_both_are_the_large_network_from_other_random_weights(swept):
    tuned, equal, longer = (swept[method, 1] for method in METHODS)
    assert equal.after == longer.after
    assert equal.epochs_run == longer.epochs_run == 4
    assert tuned.after != equal.after


@pytest.mark.slow
def test_an_iterative_architecture_is_the_lottery_tickets(tmp_path):
    """The two differ in the weights of the last training alone."""
    tickets, random = (
        f"convolution_magnitude[schedule=iterative-20,finetuning={m}]"
        for m in ("rewind-weights-0", "scratch-e")
    )
    _, results = run(tmp_path, method=[tickets, random], compression=1.5, pretrain={"epochs": 2})
    assert results[tickets, 1.5].layers == results[random, 1.5].layers
    assert results[tickets, 1.5].after != results[random, 1.5].after
    assert results[tickets, 1.5].before != results[random, 1.5].before


@pytest.mark.slow
@pytest.mark.parametrize(
    "method",
    sampled(
        ["network_slimming", "soft_filter_pruning", "soft_filter_pruning_pretrained", "gradual_magnitude"],
        every=2,
    ),
)
def test_methods_that_prune_while_they_train_find_the_architecture_first(method, tmp_path):
    modes = ("scratch-e", "scratch-b")
    status, results = run(
        tmp_path,
        method=[method, *(f"{method}[finetuning={mode}]" for mode in modes)],
        compression=1.5,
        pretrain={"epochs": 2},
    )
    assert status.failed == 0
    # Trained once for all; a method that is not trained afterwards prunes in its own run.
    assert len(list(tmp_path.glob("shared/search/*/card.json"))) == 1
    first, *scratch = (r for _, r in sorted(results.items()))
    assert all(r.layers == first.layers for r in scratch)
    assert [r.spec.search.epochs for r in scratch] == [
        1 if "pretrained" in method or "gradual" in method else 2
    ] * 2
    by_mode = {r.spec.method.finetuning.name: r for r in scratch}
    assert by_mode["scratch-e"].epochs_run == 2
    size = by_mode["scratch-b"].size
    assert by_mode["scratch-b"].epochs_run == int(2 * size.multiply_adds / size.multiply_adds_kept)
