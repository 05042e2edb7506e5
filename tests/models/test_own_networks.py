"""A network of one's own is made anew each time, and what its function raises is told."""

import functools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from shrinkbench.datasets.own import _card_of as dataset_of
from shrinkbench.errors import ShrinkbenchError
from shrinkbench.models.own import _card_of
from shrinkbench.runner.pretraining import untrained_network
from shrinkbench.tasks import Supervised
from shrinkbench.tasks.task import _maker_of

KEPT, STATISTICS, ARRAY = nn.Linear(3, 2), nn.BatchNorm1d(3), np.zeros((2, 3), dtype=np.float32)


def same():
    return KEPT


@functools.cache
def cached():
    return nn.Linear(3, 2)


def shared():
    return nn.Sequential(nn.Linear(3, 3), KEPT)


@pytest.mark.parametrize("make", [same, cached, shared])
def test_parameters_that_were_returned_before_are_refused(make):
    with pytest.raises(ShrinkbenchError, match="let it make a fresh network each time"):
        _card_of("parts.py:make", make).build(2)


def new_parameters_over_kept_values():
    module = nn.Linear(3, 2)
    module.weight = nn.Parameter(KEPT.weight.detach()[:])
    return module


def kept_buffers():
    module = nn.BatchNorm1d(3)
    module.running_mean = STATISTICS.running_mean
    return module


def from_an_array():
    module = nn.Linear(3, 2)
    module.weight = nn.Parameter(torch.from_numpy(ARRAY))
    return module


@pytest.mark.parametrize("make", [new_parameters_over_kept_values, kept_buffers, from_an_array])
def test_networks_that_share_memory_are_refused_at_the_first(make):
    with pytest.raises(ShrinkbenchError, match=r"share '(weight|running_mean)'.*a fresh network each time"):
        _card_of("parts.py:make", make).build(2)


def test_networks_take_turns():
    first, second = nn.Linear(3, 2), nn.Linear(3, 2)
    turns = iter([first, second, first])
    build = _card_of("parts.py:make", lambda: next(turns)).build
    build(2)
    with pytest.raises(ShrinkbenchError, match="that it has returned before"):
        build(2)


def test_the_second_network_of_the_trial_draws_no_random_numbers():
    def numbers(build):
        torch.manual_seed(0)
        return *build().parameters(), torch.rand(1)

    mine = numbers(lambda: _card_of("parts.py:make", lambda: nn.Linear(3, 2)).build(2))
    assert all(map(torch.equal, mine, numbers(lambda: nn.Linear(3, 2))))


def test_lazy_networks_and_those_without_values_are_taken():
    build = _card_of("parts.py:make", lambda: nn.Sequential(nn.LazyLinear(2), nn.BatchNorm1d(2))).build
    assert isinstance(build(2), nn.Sequential)
    with torch.device("meta"):
        assert _card_of("parts.py:make", lambda: nn.Linear(3, 2)).build(2).weight.is_meta


def test_fresh_networks_are_taken_as_often_as_asked():
    build = _card_of("parts.py:make", lambda: nn.Linear(3, 2)).build
    assert all(isinstance(build(2), nn.Linear) for _ in range(50))


def raises():
    raise ValueError("boom")


def leaves():
    raise SystemExit(3)


@pytest.mark.parametrize(("make", "told"), [(raises, "ValueError: boom"), (leaves, "it calls sys.exit")])
def test_what_a_function_raises_is_told_in_one_sentence(make, told):
    with pytest.raises(ShrinkbenchError, match=rf"'parts.py:make' failed: {told}"):
        _card_of("parts.py:make", make).build(2)
    with pytest.raises(ShrinkbenchError, match=rf"'parts.py:make' failed: {told}"):
        dataset_of("parts.py:make", make).load(None)


def test_the_machines_own_errors_pass():
    def full():
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        _card_of("parts.py:make", full).build(2)
    assert torch.is_grad_enabled()


def one_pair():
    return torch.rand(9, 3), torch.arange(9) % 3


def words():
    return ("a", "b"), ("c", "d")


def four():
    return (one_pair(),) * 4


def few():
    return one_pair(), one_pair()


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (one_pair, "tensors in place of pairs"),
        (words, "taken as tensors"),
        (four, "returned 4 splits"),
        (few, "returned 9 examples to train on, of which every tenth is held out .* there is none"),
    ],
)
def test_data_of_another_shape_are_told(make, told):
    with pytest.raises(ShrinkbenchError, match=told):
        dataset_of("parts.py:make", make).load(None)


def splits_of(images, labels):
    return lambda: ((images, labels), (images[::30], labels[::30]), (images[5:], labels[5:]))


def test_data_laid_out_in_any_way_are_those_of_their_values():
    """A tensor with sizes of one is contiguous to torch whatever its strides are."""
    images = torch.rand(30, 1, 4, 4, generator=torch.Generator().manual_seed(0)).permute(0, 2, 3, 1)
    labels = torch.arange(30) % 2
    found, plain = (
        dataset_of("parts.py:make", splits_of(each, labels)).load(None)
        for each in (images, torch.tensor(images.tolist()))
    )
    assert found.revision == plain.revision


def test_a_task_that_cannot_be_made_is_told():
    with pytest.raises(ShrinkbenchError, match=r"'parts\.py:task' failed: TypeError"):
        _maker_of("parts.py:task", Supervised)


def test_a_run_of_a_network_without_shapes_is_told(tmp_path):
    file = tmp_path / "parts.py"
    file.write_text(
        "from torch import nn\ndef make():\n    return nn.Sequential(nn.Flatten(), nn.LazyLinear(2))\n"
    )
    data = SimpleNamespace(dataset=SimpleNamespace(class_names=("a", "b")), device="cpu")
    with pytest.raises(ShrinkbenchError, match=r"'1\.weight' is lazy and has no shape yet"):
        untrained_network(f"{file}:make", data, 0)
    with pytest.raises(ShrinkbenchError, match=r"names a file, and no model in it; write it as FILE\.py:NAME"):
        untrained_network(str(file), data, 0)
