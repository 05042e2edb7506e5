"""What is remembered of the meta device is what torch gives there."""

from contextlib import suppress

import pytest
import torch
from sample_networks import ConvNet, ViT, seeded
from torch import nn

from shrinkbench.models import build
from shrinkbench.network import shapes
from shrinkbench.network.probe import trace

aten = torch.ops.aten
SAMPLE = torch.empty(2, 4, 6, 6, device="meta")
ROWS = torch.empty(3, 4, device="meta")
ONES = torch.empty(4, device="meta")


@pytest.fixture(autouse=True)
def _nothing_is_known(monkeypatch):
    monkeypatch.setattr(shapes, "_results", {})


def forms(output):
    members = output if isinstance(output, tuple) else (output,)
    return [None if m is None else (m.shape, m.stride(), m.dtype, m.storage_offset()) for m in members]


def tensors(output):
    return [m for m in torch.utils._pytree.tree_leaves(output) if isinstance(m, torch.Tensor)]


CALLS = {
    "element by element": (aten.relu.default, (SAMPLE,), {}),
    "another layout": (aten.relu.default, (SAMPLE.to(memory_format=torch.channels_last),), {}),
    "a layout with gaps": (aten.relu.default, (SAMPLE[:, ::2],), {}),
    "another type": (aten.add.Tensor, (SAMPLE.half(), SAMPLE), {}),
    "a number": (aten.add.Tensor, (SAMPLE, 2), {}),
    "an option": (aten.sum.dim_IntList, (SAMPLE, [1]), {"dtype": torch.float64}),
    "several results": (aten.native_batch_norm.default, (SAMPLE, *[ONES] * 4, False, 0.1, 1e-5), {}),
    "a list": (aten.cat.default, ([SAMPLE, SAMPLE], 1), {}),
    "a matrix product": (aten.addmm.default, (ONES, ROWS, torch.empty(4, 4, device="meta")), {}),
    "no elements": (aten.relu.default, (SAMPLE[:0],), {}),
}


class Counted:
    """An operation of torch's that counts how often it is carried out."""

    def __init__(self, func):
        self.func, self.times = func, 0

    def __getattr__(self, name):
        return getattr(self.func, name)

    def __call__(self, *args, **kwargs):
        self.times += 1
        return self.func(*args, **kwargs)


@pytest.mark.parametrize("name", CALLS)
def test_what_is_known_is_not_carried_out_and_is_what_torch_gives(name):
    func, args, kwargs = CALLS[name]
    counted = Counted(func)
    first, second = (shapes.call(counted, args, kwargs) for _ in range(2))
    assert counted.times == 1
    assert forms(first) == forms(second) == forms(func(*args, **kwargs))
    storages = [{t.untyped_storage()._cdata for t in tensors(each)} for each in (first, second, args)]
    assert len(set().union(*storages)) == sum(map(len, storages))


@pytest.mark.parametrize(("one", "other"), [(1, 1.0), (1, True), (1.0, True)])
def test_equal_numbers_of_two_types_are_two(one, other):
    whole = torch.empty(2, dtype=torch.int8, device="meta")
    for number in (one, other, one):
        found = shapes.call(aten.add.Tensor, (whole, number), {})
        assert forms(found) == forms(aten.add.Tensor(whole, number))


@pytest.mark.parametrize(
    ("func", "args"),
    [
        (aten.view.default, (SAMPLE, [2, -1])),
        (aten.t.default, (ROWS,)),
        (aten.split.Tensor, (SAMPLE, 2, 1)),
        (aten.resize_.default, (torch.empty(2, device="meta"), [3])),
        (aten.relu.default, (torch.empty(2),)),
        (aten.relu.default, (torch.empty(2, device="meta", dtype=torch.complex64).conj(),)),
        (aten.relu.default, (nn.parameter.UninitializedParameter(device="meta"),)),
    ],
)
def test_what_is_more_than_a_new_tensor_is_carried_out_each_time(func, args):
    counted = Counted(func)
    for _ in range(2):
        with suppress(RuntimeError, NotImplementedError, ValueError):
            shapes.call(counted, args, {})
    assert counted.times == 2


def test_what_is_written_into_a_tensor_gives_that_tensor():
    counted = Counted(aten.relu_.default)
    for tensor in (torch.empty(2, 3, device="meta") for _ in range(2)):
        assert shapes.call(counted, (tensor,), {}) is tensor
    assert counted.times == 1
    with pytest.raises(RuntimeError):
        shapes.call(aten.add_.Tensor, (ONES, ROWS), {})


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: seeded(ConvNet), (3, 8, 8)),
        (lambda: seeded(ViT), (3, 8, 8)),
        (lambda: build("digits-cnn", seed=0), (1, 8, 8)),
        (lambda: build("torchvision/mobilenet_v2", seed=0), (3, 64, 64)),
    ],
)
def test_a_pass_sees_the_same_whatever_went_before(make, shape, monkeypatch):
    module = make()
    passes = [trace(module, shape) for _ in range(2)]
    assert shapes._results
    monkeypatch.setattr(shapes, "call", lambda func, args, kwargs: func(*args, **kwargs))
    assert passes == [trace(module, shape)] * 2


def test_gradients_flow_through_what_is_remembered():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(16, 2)).to("meta")
    for _ in range(2):
        with shapes.Remembering():
            output = module(torch.empty(1, 3, 4, 4, device="meta"))
        assert output.grad_fn.name() == module[3](torch.empty(1, 16, device="meta")).grad_fn.name()
        output.sum().backward()
        assert all(p.grad.shape == p.shape for p in module.parameters())
    assert shapes._results


def test_of_very_many_results_those_before_are_forgotten(monkeypatch):
    monkeypatch.setattr(shapes, "_MOST", 2)
    for size in range(1, 6):
        assert shapes.call(aten.relu.default, (torch.empty(size, device="meta"),), {}).shape == (size,)
        assert len(shapes._results) <= 2
