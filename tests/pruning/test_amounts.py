"""How much is pruned: said once, as a number, in a way that the method takes, and told before anything runs."""

import numpy as np
import pytest
from sample_networks import ConvNet, seeded

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.pruning import METHODS, amount_of, prune, training_hook

SHAPE = (3, 8, 8)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_numbers_of_numpy_are_numbers(kind):
    method = METHODS.get("filter_l1")
    for how, value in (("fraction_per_layer", 0.3), ("channels", 0.3), ("compression", 2.5)):
        assert amount_of(method, **{how: kind(value)}) == amount_of(method, **{how: value})
    assert amount_of(method, compression=np.int64(2)) == amount_of(method, compression=2)


@pytest.mark.parametrize("how", ["compression", "fraction_per_layer", "channels"])
@pytest.mark.parametrize("value", [True, "0.3", [0.3], float("nan"), float("inf"), -1])
def test_anything_else_is_refused(how, value):
    for method in ("filter_l1", "filter_l1:30"):
        with pytest.raises(ShrinkbenchError, match=f"{how}.*(is not a f|has no say)"):
            amount_of(METHODS.get(method), **{how: value})


@pytest.mark.parametrize(
    ("method", "sentence"),
    [
        ("thinet", "decides itself how much goes where"),
        ("random@thinet", "decides itself how much goes where"),
        ("branch_l1", "has one unit in each layer.*would remove nothing"),
        ("random@branch_l1", "has one unit in each layer.*would remove nothing"),
        ("iterative_magnitude", "in several steps towards a compression"),
        ("synflow", "in several steps towards a compression"),
    ],
)
@pytest.mark.parametrize("how", ["fraction_per_layer", "channels"])
def test_a_method_that_cannot_prune_so_says_it(method, sentence, how):
    with pytest.raises(ShrinkbenchError, match=sentence):
        amount_of(METHODS.get(method), **{how: 0.3})
    with pytest.raises(ShrinkbenchError, match=sentence):
        prune(seeded(ConvNet), method, input_shape=SHAPE, **{how: 0.3})


def test_an_allocation_other_than_that_of_the_amount_is_refused():
    named = METHODS.get("global_filter_l1[allocation=layerwise]")
    with pytest.raises(ShrinkbenchError, match=r"the allocation of .* would change nothing"):
        amount_of(named, channels=0.3)
    assert amount_of(named, fraction_per_layer=0.3).settles == "layerwise"


@pytest.mark.parametrize("training", [(0, 5), (1, 0)])
def test_a_training_without_steps_prunes_nothing_and_is_refused(training):
    epochs, steps = training
    with pytest.raises(ShrinkbenchError, match="has no time for it"):
        training_hook(
            seeded(ConvNet),
            "gradual_magnitude",
            compression=2,
            epochs=epochs,
            steps_per_epoch=steps,
            seed=0,
            input_shape=SHAPE,
        )
