"""Networks of other widths: figures by hand, keys and what is refused."""

import pytest
import torch

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.models import build, get_model


def parameters_of_a_resnet20(w, classes=10):
    """Stem, three stages of three blocks of two convolutions with batch norms, a linear layer."""

    def norm(channels):
        return 2 * channels

    found, inputs = 27 * w + norm(w), w
    for stage in (w, 2 * w, 4 * w):
        for block in range(3):
            found += (
                9 * (inputs if block == 0 else stage) * stage + norm(stage) + 9 * stage * stage + norm(stage)
            )
        inputs = stage
    return found + (4 * w + 1) * classes


@pytest.mark.parametrize(("factor", "stem"), [("2", 32), ("0.5", 8), ("0.25", 4), ("1.5", 24)])
def test_a_widened_resnet_by_hand(factor, stem):
    card = get_model(f"resnet20-width-{factor}")
    assert card.parameters == parameters_of_a_resnet20(stem)
    module = build(f"ResNet20-width-{factor}", num_classes=10)
    assert sum(p.numel() for p in module.parameters()) == card.parameters
    assert module.eval()(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    assert not card.weights
    assert parameters_of_a_resnet20(16) == get_model("resnet20").parameters  # the rule is the published one


@pytest.mark.parametrize(
    "name", ["resnet20-projection-width-0.5", "cifar-vgg11-width-0.25", "cifar-vgg16-l1-width-0.25"]
)
def test_other_families_have_widths(name):
    module = build(name, num_classes=10)
    assert module.eval()(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    assert get_model(name).parameters < get_model(name.rpartition("-width")[0]).parameters


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("resnet20-width-1", "not 1"),
        ("resnet20-width-0", "above 0"),
        ("resnet20-width-99", "16 at most"),
        ("wrn-28-10-width-2", "has no factor of its widths"),
        ("resnet20-width-2-width-2", "unknown model"),
        ("resnet20-width-", "resnet20"),
        ("nothing-width-2", "nothing-width-2"),
        ("resnet20-width--2", "resnet20"),
    ],
)
def test_what_means_nothing_is_refused(name, match):
    with pytest.raises(ShrinkbenchError, match=match):
        get_model(name)


@pytest.mark.parametrize("base", ["resnet20", "resnet20-projection", "cifar-vgg16"])
@pytest.mark.parametrize(
    ("factor", "canonical"),
    [("2.0", "2"), ("02", "2"), ("2.000", "2"), ("0.50", "0.5"), ("00.5", "0.5"), ("12.50", "12.5")],
)
def test_one_network_has_one_name(base, factor, canonical):
    with pytest.raises(ShrinkbenchError, match=f"another spelling of '{base}-width-{canonical}'; name it so"):
        get_model(f"{base}-width-{factor}")
    assert get_model(f"{base}-width-{canonical}").name == f"{base}-width-{canonical}"


@pytest.mark.parametrize("factor", ["0.0001", "1.5", "3", "0.3333", "15.9999"])
def test_a_name_that_was_found_finds_itself(factor):
    name = get_model(f"resnet20-width-{factor}").name
    assert get_model(name).name == name == f"resnet20-width-{factor}"
