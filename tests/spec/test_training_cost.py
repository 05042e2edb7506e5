"""Equal cost: the epochs of Liu et al. 2019, and what two runs have in common."""

from __future__ import annotations

import pytest

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.models import get_model
from shrinkbench.pruning import METHODS
from shrinkbench.report.statistics.fairness import common_set_up
from shrinkbench.spec import Compression, DataSpec, ModelSpec, Normalisation, RunSpec, TaskSpec, WeightsSpec
from shrinkbench.spec.measures import Cost
from shrinkbench.spec.training_cost import (
    epochs_within,
    scratch_b,
    scratch_b_epochs,
    total,
    training_cost,
)
from shrinkbench.training import RECIPES

# Small network, large network, base epochs, cap on the factor, Scratch-B epochs of the released code.
PUBLISHED = [
    ("vgg16-a", "cifar-vgg16-l1", 160, None, 243),
    ("resnet56-a", "resnet56", 160, None, 178),
    ("resnet56-b", "resnet56", 160, None, 220),
    ("resnet110-a", "resnet110", 160, None, 190),
    ("resnet110-b", "resnet110", 160, None, 260),
    ("resnet34-a", "torchvision/resnet34", 90, 2, 106),
    ("resnet34-b", "torchvision/resnet34", 90, 2, 118),
    ("thinet-resnet50-70-v1.5", "torchvision/resnet50", 90, 2, 141),
    ("thinet-resnet50-50-v1.5", "torchvision/resnet50", 90, 2, 180),
    ("thinet-resnet50-30-v1.5", "torchvision/resnet50", 90, 2, 180),
    ("thinet-vgg-conv", "torchvision/vgg16", 90, 2, 180),
    ("thinet-vgg-gap", "torchvision/vgg16", 90, 2, 180),
    ("thinet-vgg-tiny", "torchvision/vgg16", 90, 2, 180),
    ("vgg-16-5x", "torchvision/vgg16", 90, 2, 180),
    ("resnet-50-2x", "torchvision/resnet50", 90, 2, 134),
    ("sss-resnet-41", "sss-resnet-50", 100, None, 117),
    ("sss-resnet-32", "sss-resnet-50", 100, None, 145),
    ("sss-resnet-26", "sss-resnet-50", 100, None, 179),
]


@pytest.mark.parametrize(("small", "large", "epochs", "cap", "expected"), PUBLISHED)
def test_scratch_b_epochs_follow_from_multiply_adds(small, large, epochs, cap, expected):
    assert get_model(small).pruned_from == large
    counts = {"large": get_model(large).multiply_adds, "small": get_model(small).multiply_adds}
    assert scratch_b_epochs(epochs, **counts, cap=cap) == expected


def test_scratch_b_moves_the_decay_in_proportion():
    recipe = RECIPES.get("imagenet-train")
    longer = scratch_b(recipe, large=200, small=150)
    assert (longer.epochs, longer.milestones) == (120, (40, 80))
    assert scratch_b(recipe, large=1000, small=100).epochs == 180  # doubled at most, on ImageNet
    assert scratch_b(RECIPES.get("cifar-train"), large=1000, small=100).epochs == 1600


def test_a_larger_small_network_is_refused():
    with pytest.raises(ShrinkbenchError, match="exchange them"):
        scratch_b_epochs(90, large=10, small=20)


def test_the_small_network_spends_on_scratch_b_what_the_large_one_spent():
    large = training_cost(epochs=160, images=50_000, multiply_adds=313_463_808)
    epochs = scratch_b_epochs(160, large=313_463_808, small=206_279_680)
    small = training_cost(epochs=epochs, images=50_000, multiply_adds=206_279_680)
    assert small.multiply_adds == pytest.approx(large.multiply_adds, rel=1 / epochs)
    assert small.multiply_adds <= large.multiply_adds
    assert int(epochs_within(large, images=50_000, multiply_adds=206_279_680)) == epochs


def cost_of(retraining):
    phase = {"images": 10, "multiply_adds": 100}
    return Cost(
        pretraining=training_cost(epochs=10, **phase),
        pruning=training_cost(epochs=0, **phase),
        retraining=training_cost(epochs=retraining, **phase),
    )


def test_a_cost_adds_up_over_its_phases():
    assert total(cost_of(5)).epochs == 15
    assert total(cost_of(5)).multiply_adds == 3 * 150 * 100


def run_spec(**changes):
    task = TaskSpec(
        data=DataSpec(name="d", revision="r", normalisation=Normalisation(mean=(0,), std=(1,))),
        model=ModelSpec(name="m"),
        weights=WeightsSpec(kind="random", name="w"),
    )
    spec = RunSpec(
        task=task.model_copy(update={"weights": changes.pop("weights", task.weights)}),
        method=METHODS.get("global_magnitude").spec,
        amount=Compression(ratio=4),
        seed=0,
        recipe=RECIPES.get("cifar-finetune-liu-40"),
    )
    return spec.model_copy(update=changes)


def test_the_four_set_ups_are_told_apart():
    one = run_spec()
    other = METHODS.get("layerwise_magnitude").spec
    file = WeightsSpec(kind="file", name="f", digest="0" * 64)
    assert common_set_up(one, run_spec(amount=Compression(ratio=2))) == "none"
    assert common_set_up(one, run_spec(weights=file)) == "task"
    assert common_set_up(one, run_spec(recipe=RECIPES.get("cifar-finetune-liu-80"))) == "weights"
    assert common_set_up(one, run_spec(method=other)) == "finetuning"
    assert common_set_up(one, run_spec(method=other), (cost_of(5), cost_of(9))) == "finetuning"
    assert common_set_up(one, run_spec(method=other), (cost_of(5), cost_of(5))) == "effort"
