"""Laws of training: determinism, resumption, masks, selection."""

import copy

import pytest
import torch
from torch import nn

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.pruning import Masks, Upholder
from shrinkbench.spec import EarlyStopping, Recipe
from shrinkbench.training import RECIPES, evaluate, learning_rate, train


def recipe(**fields):
    base = {"name": "test", "reference": "shrinkbench", "optimizer": "adam", "learning_rate": 0.01}
    return Recipe(**{**base, "batch_size": 16, "epochs": 4, **fields})


class Blobs:
    """Two noisy clusters in eight dimensions."""

    def __init__(self, images=65):
        generator = torch.Generator().manual_seed(7)
        self.labels = torch.arange(images) % 2
        self.inputs = torch.randn(images, 8, generator=generator) + self.labels.unsqueeze(1)

    def train(self, batch_size, *, generator, augment):
        order = torch.randperm(len(self.labels), generator=generator)
        for rows in order.split(batch_size):
            yield self.inputs[rows], self.labels[rows]

    def validation(self):
        yield self.inputs[:20], self.labels[:20]

    def test(self):
        yield self.inputs[20:], self.labels[20:]


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 2))


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


OPTIMIZERS = [
    {"optimizer": "adam", "weight_decay": 0.1},
    {"optimizer": "adamw", "weight_decay": 0.1},
    {"optimizer": "sgd", "momentum": 0.9, "weight_decay": 0.1},
    {"optimizer": "sgd", "momentum": 0.9, "nesterov": True},
]


@pytest.mark.parametrize("fields", OPTIMIZERS)
def test_same_seed_same_weights(fields):
    outcomes = []
    for _ in range(2):
        module = network()
        train(module, recipe(**fields), Blobs(), seed=3)
        outcomes.append(module)
    assert same(*outcomes)
    other = network()
    train(other, recipe(**fields), Blobs(), seed=4)
    assert not same(outcomes[0], other)


@pytest.mark.parametrize("stop_after", [1, 2, 3])
@pytest.mark.parametrize("fields", OPTIMIZERS)
def test_interrupted_and_resumed_equals_uninterrupted(tmp_path, fields, stop_after):
    """The process may die at any epoch's end: what remains is the checkpoint alone."""
    settings = recipe(**fields, selection="best-validation", early_stopping=EarlyStopping(patience=3))
    whole = network()
    complete = train(whole, settings, Blobs(), seed=3)

    class Killed(BaseException):
        pass

    def die(record):
        if record.epoch == stop_after:
            raise Killed

    checkpoint = tmp_path / "checkpoint.pt"
    with pytest.raises(Killed):
        train(network(), settings, Blobs(), seed=3, checkpoint=checkpoint, on_epoch=die)
    resumed = network(seed=99)  # the weights come from the checkpoint
    torch.rand(5)  # and the global random state does not matter
    outcome = train(resumed, settings, Blobs(), seed=3, checkpoint=checkpoint)
    assert outcome == complete
    assert same(whole, resumed)


@pytest.mark.parametrize("fields", OPTIMIZERS)
def test_pruned_weights_stay_exactly_zero(fields):
    module = network()
    train(module, recipe(**fields), Blobs(), seed=1)
    mask = torch.rand(16, 8) < 0.5
    masks = Masks({"0.weight": mask})
    masks.apply(module)
    uphold, checks = Upholder(module, masks), []

    def after_step():
        uphold()
        checks.append(bool((module[0].weight[~mask] == 0).all()))

    train(module, recipe(**fields), Blobs(), seed=2, after_step=after_step)
    assert checks
    assert all(checks)
    assert bool((module[0].weight[mask] != 0).any())


def test_early_stopping_waits_for_its_patience_and_keeps_the_best():
    module = network()
    settings = recipe(
        epochs=50, learning_rate=1e-9, selection="best-validation", early_stopping=EarlyStopping(patience=3)
    )
    training = train(module, settings, Blobs(), seed=0)
    best = max(record.validation["top1"] for record in training.epochs)
    selected = next(r.epoch for r in training.epochs if r.validation["top1"] == best)
    assert training.selected_epoch == selected
    assert len(training.epochs) == selected + 3
    assert evaluate(module, Blobs().validation())["top1"] == best


def test_a_last_batch_of_one_image_does_not_break_batch_norm():
    assert len(Blobs().labels) % 16 == 1
    train(network(), recipe(epochs=1), Blobs(), seed=0)


def test_a_network_in_which_nothing_trains_is_told():
    class Listed(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = [nn.Linear(3, 2)]

    for module in (Listed(), nn.Linear(3, 2).requires_grad_(False)):
        with pytest.raises(ShrinkbenchError, match=r"no parameter that trains; hold layers in nn\.ModuleList"):
            train(module, recipe(), Blobs(), seed=3)


def test_divergence_is_named():
    module = network()
    with torch.no_grad():
        module[0].weight.fill_(float("nan"))
    with pytest.raises(ShrinkbenchError, match=r"training diverged.*lower the learning rate"):
        train(module, recipe(epochs=1), Blobs(), seed=0)


def test_training_leaves_the_global_random_state_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train(network_without_reseeding(), recipe(epochs=1), Blobs(), seed=0)
    assert torch.equal(torch.rand(3), expected)


def network_without_reseeding():
    with torch.random.fork_rng():
        return network()


class TestEvaluate:
    def test_counts_images_and_not_batches(self):
        """A short last batch weighs what it holds: by hand, 3 of 5 right."""
        logits = torch.tensor([[2.0, 0, 0], [2.0, 0, 0], [0, 2.0, 0], [0, 2.0, 0], [0, 0, 2.0]])
        labels = torch.tensor([0, 1, 1, 2, 2])
        batches = [(logits[:4], labels[:4]), (logits[4:], labels[4:])]
        quality = evaluate(nn.Identity(), batches)
        assert quality["top1"] == 0.6
        assert quality.examples == 5
        assert quality["loss"] == pytest.approx(nn.functional.cross_entropy(logits, labels).item(), rel=1e-6)

    def test_top5_holds_the_right_class_among_five(self):
        logits = torch.arange(10.0).repeat(3, 1)
        quality = evaluate(nn.Identity(), [(logits, torch.tensor([9, 5, 4]))])
        assert quality["top1"] == pytest.approx(1 / 3)
        assert quality["top5"] == pytest.approx(2 / 3)

    def test_no_images_is_an_error(self):
        with pytest.raises(ShrinkbenchError, match="no images"):
            evaluate(nn.Identity(), [])

    def test_modes_are_restored(self):
        module = network().train()
        module[3].eval()
        evaluate(module, Blobs().validation())
        assert module.training
        assert not module[3].training


class TestRecipes:
    def test_finetuning_is_that_of_appendix_c2(self):
        cifar, imagenet = RECIPES.get("cifar-finetune"), RECIPES.get("imagenet-finetune")
        assert (cifar.batch_size, cifar.epochs, cifar.optimizer, cifar.learning_rate) == (64, 30, "adam", 3e-4)
        assert (imagenet.batch_size, imagenet.epochs, imagenet.learning_rate) == (256, 20, 1e-3)
        assert (imagenet.optimizer, imagenet.nesterov, imagenet.momentum) == ("sgd", True, 0.9)
        for r in (cifar, imagenet):
            assert r.schedule == "constant"
            assert r.early_stopping is not None
            assert learning_rate(r, 1) == learning_rate(r, r.epochs) == r.learning_rate

    def test_multistep_drops_where_the_paper_says(self):
        r = RECIPES.get("cifar-train")
        rates = [learning_rate(r, epoch) for epoch in range(1, 161)]
        assert rates[:80] == [0.1] * 80
        assert rates[80:120] == pytest.approx([0.01] * 40)
        assert rates[120:] == pytest.approx([0.001] * 40)

    def test_warmup_rises_to_the_full_rate(self):
        r = recipe(warmup_epochs=3, epochs=10, schedule="cosine", learning_rate=1.0)
        rates = [learning_rate(r, e) for e in range(1, 11)]
        assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
        assert rates[3:] == sorted(rates[3:], reverse=True)
        assert all(rate > 0 for rate in rates)

    def test_recipes_that_select_on_the_test_split_say_so(self):
        for name, r in RECIPES.items():
            assert ("best-test" in name) == (r.selection == "best-test")


def test_bf16_trains_float32_weights():
    module = network()
    before = copy.deepcopy(module)
    train(module, recipe(epochs=1, precision="bf16-mixed"), Blobs(), seed=0)
    assert module[0].weight.dtype == torch.float32
    assert not same(before, module)
