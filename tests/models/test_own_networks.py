"""A network of one's own is made anew each time, and what its function raises is told."""

import functools

import pytest
import torch
from torch import nn

from shrinkbench.datasets.own import _card_of as dataset_of
from shrinkbench.errors import ShrinkbenchError
from shrinkbench.models.own import _card_of

KEPT = nn.Linear(3, 2)


def same():
    return KEPT


@functools.cache
def cached():
    return nn.Linear(3, 2)


def shared():
    return nn.Sequential(nn.Linear(3, 3), KEPT)


@pytest.mark.parametrize("make", [same, cached, shared])
def test_parameters_that_were_returned_before_are_refused(make):
    build = _card_of("parts.py:make", make).build
    build(2)
    with pytest.raises(ShrinkbenchError, match="let it make a fresh network each time"):
        build(2)


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
