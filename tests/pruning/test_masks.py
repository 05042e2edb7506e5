"""Masks: what they hold, how they are stored, and that pruned weights stay exactly zero."""

import copy
import io
import warnings

import pytest
import torch
from sample_networks import ConvNet, batches, seeded
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional as F

from shrinkbench.errors import OtherCodeWarning, ShrinkbenchError
from shrinkbench.models import get_model
from shrinkbench.pruning import Masks, Upholder, prune
from shrinkbench.pruning.masks import IdleWarning
from shrinkbench.pruning.plugins import load_plugin


def test_a_round_trip_through_a_file_changes_nothing(tmp_path):
    masks = prune(seeded(ConvNet), "global_magnitude", compression=3, input_shape=(3, 8, 8))
    masks.save(tmp_path / "masks.safetensors")
    loaded = Masks.load(tmp_path / "masks.safetensors")
    assert loaded.equal(masks)
    assert loaded.kept == masks.kept
    assert [p.name for p in tmp_path.iterdir()] == ["masks.safetensors"]


def test_a_damaged_file_is_named(tmp_path):
    path = tmp_path / "masks.safetensors"
    path.write_bytes(b"not safetensors at all")
    with pytest.raises(ShrinkbenchError, match=r"cannot read masks from .*masks\.safetensors"):
        Masks.load(path)
    with pytest.raises(ShrinkbenchError, match="cannot write"):
        Masks({}).save(path / "below" / "masks.safetensors")


def test_masks_are_boolean_and_fit_the_network():
    with pytest.raises(ShrinkbenchError, match="boolean"):
        Masks({"weight": torch.ones(2)})
    layer = nn.Linear(2, 2)
    with pytest.raises(ShrinkbenchError, match="no parameter 'other'"):
        Masks({"other": torch.ones(2, 2, dtype=torch.bool)}).apply(layer)
    with pytest.raises(ShrinkbenchError, match=r"shape \(2, 3\)"):
        Masks({"weight": torch.ones(2, 3, dtype=torch.bool)}).apply(layer)


def test_intersection_keeps_what_both_keep():
    one = Masks({"a": torch.tensor([True, True, False]), "b": torch.tensor([True])})
    two = Masks({"a": torch.tensor([True, False, True])})
    both = one.intersect(two)
    assert both["a"].tolist() == [True, False, False]
    assert both["b"].tolist() == [True]
    assert both.within(one)
    assert both.within(two)
    assert not one.within(two)


OPTIMIZERS = {
    "adam": lambda p: torch.optim.Adam(p, lr=1e-2, fused=True),
    "adam with decay": lambda p: torch.optim.Adam(p, lr=1e-2, weight_decay=1e-2),
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=0.1),
    "momentum": lambda p: torch.optim.SGD(p, lr=1e-2, momentum=0.9),
    "nesterov and decay": lambda p: torch.optim.SGD(
        p, lr=1e-2, momentum=0.9, nesterov=True, weight_decay=1e-2, fused=True
    ),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=1e-3, momentum=0.9),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_pruned_weights_stay_exactly_zero_with_optimizer_state_from_before(name, layout):
    module = seeded(ConvNet).to(memory_format=layout)
    optimizer = OPTIMIZERS[name](module.parameters())

    def step() -> None:
        for x, y in batches(3):
            F.cross_entropy(module(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()
            if uphold is not None:
                uphold()
                assert_zero()

    def assert_zero() -> None:
        for key, mask in masks.items():
            assert not parameters[key][~mask].any()

    parameters = dict(module.named_parameters())
    uphold = None
    step()
    masks = prune(module, "global_magnitude", compression=4, input_shape=(3, 8, 8))
    masks.apply(module)
    uphold = Upholder(module, masks)
    kept_before = parameters["stem.weight"][masks["stem.weight"]].clone()
    step()
    step()
    assert not torch.equal(kept_before, parameters["stem.weight"][masks["stem.weight"]])


def test_applying_masks_sets_new_values_first():
    layer = nn.Linear(2, 1, bias=False)
    masks = Masks({"weight": torch.tensor([[True, False]])}, new_weights={"weight": torch.tensor([[3.0, 4.0]])})
    masks.apply(layer)
    assert layer.weight.tolist() == [[3.0, 0.0]]


CHANGES = {
    "double": lambda m: m.double(),
    "half and back": lambda m: m.half().float(),
    "assign": lambda m: m.load_state_dict({k: v.clone() for k, v in m.state_dict().items()}, assign=True),
    "vector": lambda m: nn.utils.vector_to_parameters(
        nn.utils.parameters_to_vector(m.parameters()), m.parameters()
    ),
    "layout": lambda m: m.to(memory_format=torch.channels_last),
}


@pytest.mark.parametrize("change", CHANGES)
def test_masks_are_upheld_after_the_modules_tensors_were_replaced(change):
    module = seeded(ConvNet)
    masks = prune(module, "global_magnitude", compression=4, input_shape=(3, 8, 8))
    masks.apply(module)
    uphold = Upholder(module, masks)
    for _ in range(2):  # before the change and after it
        optimizer = torch.optim.SGD(module.parameters(), 0.1, momentum=0.9)
        handle = uphold.attach(optimizer)
        for x, y in batches(2):
            optimizer.zero_grad()
            F.cross_entropy(module(x.to(module.stem.weight.dtype)), y).backward()
            optimizer.step()
            assert all(not module.get_parameter(name)[~mask].any() for name, mask in masks.items())
        handle.remove()
        CHANGES[change](module)


def test_an_upholder_tells_that_a_weight_has_gone():
    module = nn.Sequential(nn.Linear(2, 2))
    uphold = Upholder(module, Masks({"0.weight": torch.eye(2, dtype=torch.bool)}))
    module[0] = nn.Linear(2, 3)
    with pytest.raises(ShrinkbenchError, match=r"no longer has the parameter '0.weight' of shape \(2, 2\)"):
        uphold()
    module[0] = nn.ReLU()
    with pytest.raises(ShrinkbenchError, match="make a new Upholder"):
        uphold()


def test_an_upholder_that_does_nothing_is_told():
    layer = nn.Linear(2, 1)
    masks = Masks({"weight": torch.tensor([[True, False]])})
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    with pytest.warns(IdleWarning, match="without having kept anything at zero"):
        Upholder(layer, masks)
    with warnings.catch_warnings(action="error"):
        kept = Upholder(layer, masks)
        kept()
        del kept
        Upholder(layer, masks).attach(optimizer).remove()


@pytest.mark.parametrize(
    "kind",
    [
        torch.float32,
        torch.float64,
        torch.float16,
        torch.bfloat16,
        torch.float8_e4m3fn,
        torch.complex64,
        torch.int64,
    ],
)
def test_pruned_weights_are_zero_whatever_they_have_become_and_kept_ones_stay_as_they_are(kind):
    values = torch.tensor([[-1.0, 2.0, 3.0, -4.0], [5.0, -0.0, 7.0, 8.0]]).t().to(kind)
    if kind.is_floating_point or kind.is_complex:
        values[2, 0] = values[3, 1] = torch.tensor(torch.nan).to(kind)
        values[3, 0] = values[1, 0] = torch.tensor(448.0 if kind == torch.float8_e4m3fn else torch.inf).to(kind)
    layer = nn.Module()
    layer.weight = nn.Parameter(values.clone(), requires_grad=False)
    kept = torch.tensor([[True, True], [False, True], [False, True], [False, True]])
    Upholder(layer, Masks({"weight": kept}))()
    found = layer.weight.to(torch.complex128)
    assert torch.equal(found[~kept], torch.zeros(3, dtype=torch.complex128))
    torch.testing.assert_close(found[kept], values.to(torch.complex128)[kept], rtol=0, atol=0, equal_nan=True)


def test_an_upholder_is_attached_to_what_moves_the_pruned_weights():
    layer, other = nn.Linear(2, 1), nn.Linear(2, 1)
    uphold = Upholder(layer, Masks({"weight": torch.tensor([[True, False]])}))
    for optimizer in (torch.optim.SGD([layer.bias], lr=0.1), torch.optim.SGD(other.parameters(), lr=0.1)):
        with pytest.raises(ShrinkbenchError, match="'weight' can be pruned and is in no optimizer given"):
            uphold.attach(optimizer)
    with pytest.raises(ShrinkbenchError, match="a Linear is no optimizer"):
        uphold.attach(layer)
    first, second = torch.optim.SGD([layer.bias], lr=0.1), torch.optim.SGD([layer.weight], lr=0.1)
    handle = uphold.attach(first, second)
    for hold in (True, False):
        layer(torch.ones(1, 2)).sum().backward()
        second.step()
        assert (layer.weight[0, 1].item() == 0) == hold
        handle.remove()


class Lookahead:
    """Pulls weights back towards slow ones after every second step of the optimizer inside."""

    def __init__(self, optimizer):
        self.optimizer, self.count = optimizer, 0
        self.weights = [p for group in optimizer.param_groups for p in group["params"]]
        self.slow = [p.detach().clone() for p in self.weights]

    def step(self):
        self.optimizer.step()
        self.count += 1
        for weight, slow in zip(self.weights, self.slow, strict=True):
            if self.count % 2 == 0:
                slow.add_(0.5 * (weight.detach() - slow))
                weight.data.copy_(slow)


def upheld_layer():
    layer = nn.Linear(2, 1, bias=False)
    wrapped = Lookahead(torch.optim.SGD(layer.parameters(), lr=0.1))
    masks = Masks({"weight": torch.tensor([[True, False]])})
    masks.apply(layer)
    return layer, wrapped, Upholder(layer, masks).attach(wrapped)


def test_what_moves_weights_after_the_step_is_upheld_before_the_next_call():
    layer, wrapped, handle = upheld_layer()
    called = []
    layer.register_forward_pre_hook(lambda *_: called.append(layer.weight[0, 1].item()))
    for _ in range(4):
        layer(torch.ones(1, 2)).sum().backward()
        wrapped.step()
    assert called == [0] * 4
    assert layer.weight[0, 1].item() != 0
    handle.remove()
    assert layer.weight[0, 1].item() == 0
    layer.weight.data.fill_(1.0)
    layer(torch.ones(1, 2))
    assert layer.weight[0, 1].item() == 1  # it has let go


def test_upholding_before_a_call_disturbs_no_other_use_of_the_network():
    layer, wrapped, _ = upheld_layer()
    (layer(torch.ones(1, 2)) + layer(2 * torch.ones(1, 2))).sum().backward()  # two calls, one pass back
    wrapped.step()
    given = {"weight": torch.ones(1, 2)}
    assert torch.func.functional_call(layer, given, (torch.ones(1, 2),)).item() == 2
    twin = nn.Linear(1, 2).requires_grad_(False)
    twin.weight = nn.Parameter(torch.ones(1, 2))
    assert torch.func.functional_call(layer, {"weight": twin.weight}, (torch.ones(1, 2),)).item() == 2
    assert twin.weight.tolist() == [[1, 1]]  # a parameter of another network
    other = copy.deepcopy(layer)
    other.weight.data.fill_(1.0)
    other(torch.ones(1, 2))
    assert other.weight[0, 1].item() == 1  # a copy is its own
    torch.save(layer, io.BytesIO())


def test_values_that_are_not_real_take_nothing_from_an_upholder():
    layer, wrapped, _ = upheld_layer()
    with FakeTensorMode(allow_non_fake_inputs=True):
        layer(torch.ones(1, 2))
    assert "mul" not in make_fx(layer)(torch.ones(1, 2)).code
    layer(torch.ones(1, 2)).sum().backward()
    wrapped.step()
    layer(torch.ones(1, 2))
    assert layer.weight[0, 1].item() == 0


def test_tools_that_read_a_network_while_it_is_upheld():
    layer, _, handle = upheld_layer()
    whole = nn.Sequential(layer, nn.ReLU())
    traced = torch.fx.symbolic_trace(whole)
    assert torch.equal(traced(torch.ones(1, 2)), whole(torch.ones(1, 2)))
    with pytest.raises(AttributeError, match="TorchScript compiles no hooks"):
        torch.jit.script(layer)
    handle.remove()
    torch.jit.script(layer)


def test_masks_tell_that_other_code_made_their_network(tmp_path):
    """Names and shapes of another network in a file of the same name fit as well."""
    text = "from torch import nn\n\n\ndef make():\n    return nn.Sequential(nn.Linear(3, 4), nn.{}())\n"
    name, masks = "masked_parts.py:make", Masks({"0.weight": torch.ones(4, 3) > 0})
    for folder, layer in (("one", "ReLU"), ("two", "Tanh")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "masked_parts.py").write_text(text.format(layer))
    load_plugin(tmp_path / "one" / "masked_parts.py")
    masks.save(tmp_path / "m.safetensors", network=name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Masks.load(tmp_path / "m.safetensors", network=name).keys() == masks.keys()
        Masks.load(tmp_path / "m.safetensors")
    (tmp_path / "one" / "masked_parts.py").unlink()
    get_model(f"{tmp_path / 'two'}/masked_parts.py:make")
    with pytest.warns(OtherCodeWarning, match=r"masks for masked_parts\.py:make as other code made it"):
        Masks.load(tmp_path / "m.safetensors", network=name)
