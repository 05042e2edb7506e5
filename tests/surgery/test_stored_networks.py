"""Folders of networks: read again bit for bit, and a stranger's one can do no harm."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from sampling import crossed

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.models import MODELS, ModelCard, build, get_model
from shrinkbench.network.coupling import couple
from shrinkbench.network.inputs import Inputs
from shrinkbench.pruning import prune
from shrinkbench.pruning.masks import Masks
from shrinkbench.pruning.plugins import load_plugin
from shrinkbench.pruning.structures.channel_masks import masks_of_units
from shrinkbench.surgery import export
from shrinkbench.surgery.export import export_folder, export_program, export_weights
from shrinkbench.surgery.folders import NetworkDescription, build_full, read_network, save_network
from shrinkbench.surgery.hub import export_hub
from shrinkbench.surgery.shrinking import plan_and_shrink

SHAPE = (1, 8, 8)
IMAGES = torch.randn(3, *SHAPE)


@pytest.fixture(scope="module")
def masked():
    module = build("digits-cnn", seed=3)
    masks = prune(module, "channel_l1", compression=1.5, input_shape=SHAPE)
    masks.apply(module)
    return module.eval(), masks


@pytest.fixture(scope="module")
def small(masked):
    module, masks = masked
    cut, surgery = plan_and_shrink(module, masks, SHAPE)
    return cut.eval(), NetworkDescription("digits-cnn", 10, SHAPE, surgery)


WHOLE = NetworkDescription("digits-cnn", 10, SHAPE)


def same(module, other, shape=SHAPE):
    inputs = torch.randn(3, *shape)
    with torch.no_grad():
        return torch.equal(module.eval()(inputs), other.eval()(inputs))


def halved_small(name, size, classes):
    """A small network of ``name`` for images of ``size``, half of the units that can be pruned cut out."""
    module, shape = build(name, num_classes=classes).eval(), (get_model(name).input_shape[0], size, size)
    coupling = couple(module, shape)
    keep = {g.layer: torch.arange(g.units) % 2 == 0 for g in coupling.free}
    masks = masks_of_units(module, coupling, keep)
    return *plan_and_shrink(module, masks, shape), shape


QUICK = [("digits-cnn", 8), ("lenet-5", 28), ("resnet20", 32), ("torchvision/mnasnet0_5", 64)]
TORCHVISION = (
    *("alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "googlenet", "mnasnet1_3", "mobilenet_v2"),
    *("mobilenet_v3_small", "regnet_y_400mf", "resnet18", "shufflenet_v2_x0_5", "squeezenet1_1", "swin_t"),
)


def one_of_each_family():
    """The smallest registered network of each family, and the size of its input, at most 64 where it may be."""
    chosen = {}
    for name, card in MODELS.items():
        if card.pruned_from is None and len(card.input_shape or ()) == 3:  # others: test_stored_tokens.py
            known = chosen.get(card.family)
            if known is None or card.parameters < MODELS.get(known).parameters:
                chosen[card.family] = name
    fixed = ("vit", "alexnet")  # tokens, or a first linear layer, of one size
    sizes = {name: MODELS.get(name).input_shape[-1] for name in chosen.values()}
    return [(name, size if name.startswith(fixed) else min(size, 64)) for name, size in sizes.items()]


REST = [*one_of_each_family(), *((f"torchvision/{name}", 64) for name in TORCHVISION)]
FAMILIES = [*QUICK, *(pytest.param(*each, marks=pytest.mark.slow) for each in REST if each not in QUICK)]


@pytest.mark.parametrize(("name", "size"), FAMILIES)
def test_a_small_network_of_every_family_is_read_again(name, size, tmp_path):
    cut, surgery, shape = halved_small(name, size, 10)
    description = NetworkDescription(get_model(name).name, 10, shape, surgery)
    save_network(tmp_path, cut, description)
    again = read_network(tmp_path)
    assert again.description == description
    assert description.is_small
    assert same(cut, again.module, shape)


def test_masked_and_whole_networks_are_read_again(masked, tmp_path):
    module, masks = masked
    export_folder(module, tmp_path / "masked", WHOLE, build_full, masks)
    again = read_network(tmp_path / "masked")
    assert again.masks.equal(masks)
    assert same(module, again.module)
    export_folder(module, tmp_path / "masked", WHOLE, build_full)
    assert len(read_network(tmp_path / "masked").masks) == 0  # nothing is left of the first
    export_weights(module, tmp_path / "w.safetensors", WHOLE, build_full)
    mode = (tmp_path / "w.safetensors").stat().st_mode & 0o777
    assert mode == (tmp_path / "masked" / "network.json").stat().st_mode & 0o777


def test_the_weights_of_a_small_network_alone_are_refused(small, tmp_path):
    with pytest.raises(ShrinkbenchError, match="name a folder"):
        export_weights(small[0], tmp_path / "w.safetensors", small[1], build_full)
    assert list(tmp_path.iterdir()) == []


def test_a_hub_repository_says_what_was_counted(masked, small, tmp_path):
    module, masks = masked
    export_hub(module, tmp_path / "masked", WHOLE, build_full, masks=masks)
    export_hub(small[0], tmp_path / "small", small[1], build_full)
    total = sum(p.numel() for p in module.parameters())
    kept = sum(p.numel() for p in small[0].parameters())
    for folder in ("masked", "small"):
        card = (tmp_path / folder / "README.md").read_text()
        assert f"| parameters | {kept:,} | {total:,} |" in card
        assert f"| {total / kept:.4f} | 1 |" in card
        assert "license: unknown" in card
        assert "No results are recorded." in card
        assert same(small[0] if folder == "small" else module, read_network(tmp_path / folder).module)
        names = {path.name for path in (tmp_path / folder).iterdir()}
        assert {"README.md", "config.json", "model.safetensors"} <= names


def plant(monkeypatch, name):
    """Let the writer ``name`` write a network that differs in one bias."""
    honest = getattr(export, name)

    def dishonest(module, *rest, **more):
        other = export.copy_of(module)
        with torch.no_grad():
            next(p for n, p in reversed(list(other.named_parameters())) if n.endswith("bias"))[0] += 0.5
        return honest(other, *rest, **more)

    monkeypatch.setattr(export, name, dishonest)


@pytest.mark.parametrize(("kind", "ending"), crossed(["masked", "small", "whole"], [".ts", ".pt2"], every=2))
def test_a_planted_difference_in_a_program_is_caught(kind, ending, masked, small, tmp_path, monkeypatch):
    module = {"masked": masked[0], "small": small[0], "whole": build("digits-cnn").eval()}[kind]
    export_program(module, tmp_path / f"net{ending}", SHAPE)
    (tmp_path / f"net{ending}").unlink()
    honest = export.WRITERS[ending]
    monkeypatch.setitem(export.WRITERS, ending, lambda network, *rest: honest(shifted(network), *rest))
    with pytest.raises(ShrinkbenchError, match="computes something else than the network"):
        export_program(module, tmp_path / f"net{ending}", SHAPE)
    assert list(tmp_path.iterdir()) == []


def test_a_planted_difference_in_weights_and_folders_is_caught(masked, small, tmp_path, monkeypatch):
    plant(monkeypatch, "save_network")
    monkeypatch.setattr(export, "save_network", lambda folder, module, *rest, **more: save_network(
        folder, shifted(module), *rest, **more
    ))  # fmt: skip
    with pytest.raises(ShrinkbenchError, match="computes something else"):
        export_folder(small[0], tmp_path / "small", small[1], build_full)
    honest = export.save_tensors
    monkeypatch.setattr(
        export, "save_tensors", lambda state, path: honest({n: t + 1 for n, t in state.items()}, path)
    )
    with pytest.raises(ShrinkbenchError, match="computes something else"):
        export_weights(masked[0], tmp_path / "w.safetensors", WHOLE, build_full)
    assert list(tmp_path.iterdir()) == []


def shifted(module):
    other = export.copy_of(module)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.01)
    return other


def test_outputs_that_are_no_numbers_are_no_equal_outputs():
    class Twice(torch.nn.Module):
        def forward(self, x):
            return x, x / 0 * 0

    with pytest.raises(ShrinkbenchError, match="outputs hold NaN"):
        export.require_same(
            Twice(),
            lambda given: given.call(Twice()),
            Inputs.of(torch.ones(2, 3)),
            export.Path("x"),
            tolerance=1.0,
        )


# --- a stranger's folder -----------------------------------------------------------------------------------


@pytest.fixture
def folder(small, tmp_path):
    save_network(tmp_path / "net", *small)
    return tmp_path / "net"


def edit(folder, **fields):
    path = folder / "network.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


HOSTILE = {
    "code": ({"network": "evil.py:make"}, "which is code"),
    "unknown": ({"network": "no-such-network"}, "unknown model"),
    "classes": ({"num_classes": 10**12}, "no tensor has"),
    "negative": ({"num_classes": -1}, "cannot read a network's description"),
    "text": ({"num_classes": "many"}, "cannot read a network's description"),
    "infinite": ({"num_classes": 1e999}, "cannot read a network's description"),
    "input": ({"input_shape": [10**6, 10**6]}, "cannot read a network's description"),
    "no input": ({"input_shape": []}, "cannot read a network's description"),
    "format": ({"format": 4}, "format 4 is not 1, 2 or 3"),
    "list": ({"surgery": []}, "cannot read a network's description|not a description"),
    "normalisation": ({"normalisation": {"mean": "x", "std": 3, "run": "rm"}}, "cannot read a network's desc"),
    "nested": ({"surgery": {"kept": {"a": 1}}}, "not a description"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_description_is_one_sentence(folder, name):
    fields, sentence = HOSTILE[name]
    edit(folder, **fields)
    with pytest.raises(ShrinkbenchError, match=sentence):
        read_network(folder)


OWN = """from shrinkbench.models import build as registered
def make(num_classes=10):
    return registered("digits-cnn", num_classes=num_classes)
"""


def test_a_plugin_brings_the_network_of_its_file_and_a_folders_own_path_does_not(folder, masked, tmp_path):
    (tmp_path / "brought_parts.py").write_text(OWN)
    (folder / "brought_parts.py").write_text("raise SystemExit('run')")
    edit(folder, network="brought_parts.py:make")
    with pytest.raises(ShrinkbenchError, match="names a network of a Python file"):
        read_network(folder)
    load_plugin(tmp_path / "brought_parts.py")
    assert read_network(folder).description.network == "brought_parts.py:make"
    edit(folder, network=f"{folder}/brought_parts.py:make")
    with pytest.raises(ShrinkbenchError, match="names a network of a Python file"):
        read_network(folder)


SURGERIES = {
    "selected": {"selected": {"layers.3": [10**6]}},
    "heads": {"heads": {"layers.0": 10**9}},
    "constant": {"constant": {"layers.0": [10**12, True]}},
    "identity": {"identity": ["", "layers.0"]},
    "zero": {"zero": ["nowhere"]},
    "kept": {"kept": {"layers.0.weight": {"0": [-5, 10**9]}}},
    "dunder": {"kept": {"__class__.__init__": {"0": [0]}}},
    "types": {"heads": {"layers.0": "x"}, "constant": {"layers.0": ["a", "b"]}},
}


@pytest.mark.parametrize("name", SURGERIES)
def test_a_hostile_surgery_is_one_sentence(folder, name):
    empty = {"kept": {}, "heads": {}, "selected": {}, "constant": {}, "zero": [], "identity": []}
    edit(folder, surgery={**empty, **SURGERIES[name]})
    with pytest.raises(ShrinkbenchError):
        read_network(folder)


def test_a_folder_that_is_no_plain_files_is_refused(folder, tmp_path):
    (folder / "weights.safetensors").unlink()
    os.mkfifo(folder / "weights.safetensors")
    with pytest.raises(ShrinkbenchError, match="holds no weights"):
        read_network(folder)
    (folder / "weights.safetensors").unlink()
    (folder / "weights.safetensors").symlink_to("/dev/zero")
    with pytest.raises(ShrinkbenchError, match="holds no weights"):
        read_network(folder)
    (folder / "weights.safetensors").unlink()
    save_file({"x": torch.zeros(10, 10)}, folder / "weights.safetensors")
    with pytest.raises(ShrinkbenchError, match="do not fit the description"):
        read_network(folder)
    (folder / "weights.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(ShrinkbenchError, match="give a safetensors file"):
        read_network(folder)


def test_masks_that_do_not_belong_to_the_weights_are_refused(masked, tmp_path):
    module, masks = masked
    save_network(tmp_path, module, WHOLE, masks=masks)
    Masks({name: ~mask for name, mask in masks.items()}).save(tmp_path / "masks.safetensors")
    with pytest.raises(ShrinkbenchError, match="not zero where its masks prune them"):
        read_network(tmp_path)
    Masks({"nowhere": torch.ones(2, dtype=torch.bool)}).save(tmp_path / "masks.safetensors")
    with pytest.raises(ShrinkbenchError, match="are for another network"):
        read_network(tmp_path)


@pytest.mark.parametrize("hub", [False, True])
def test_files_of_another_network_of_the_same_form_are_refused(masked, tmp_path, hub):
    module, masks = masked
    one, two = tmp_path / "one", tmp_path / "two"
    for folder, network in ((one, module), (two, shifted(module))):
        masks.apply(network)
        if hub:
            export_hub(network, folder, WHOLE, build_full, masks=masks)
        else:
            save_network(folder, network, WHOLE, masks=masks)
    name = "model.safetensors" if hub else "weights.safetensors"
    assert torch.equal(read_network(one).module(IMAGES), module.eval()(IMAGES))
    (two / name).write_bytes((one / name).read_bytes())
    with pytest.raises(ShrinkbenchError, match=rf"{name} is not the file that .*json was written for"):
        read_network(two)
    (one / "masks.safetensors").unlink()  # it would be told as a whole network
    with pytest.raises(ShrinkbenchError, match=r"masks\.safetensors is not the file"):
        read_network(one)
    (one / "network.json").exists() and edit(one, files=None)
    assert hub or not read_network(one).masks


def test_whole_numbers_are_no_weights(folder):
    tensors = {n: t.to(torch.int64) for n, t in load_file(folder / "weights.safetensors").items()}
    save_file(tensors, folder / "weights.safetensors")
    with pytest.raises(ShrinkbenchError, match=r"is of torch\.int64 and the network's of torch\.float32"):
        read_network(folder)


def test_nothing_is_written_through_a_link(small, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "network.json").symlink_to(victim)
    for write in (lambda: save_network(tmp_path / "out", *small), lambda: export_hub(
        small[0], tmp_path / "hub", small[1], build_full
    )):  # fmt: skip
        (tmp_path / "hub").mkdir(exist_ok=True)
        if not (tmp_path / "hub" / "README.md").is_symlink():
            (tmp_path / "hub" / "README.md").symlink_to(victim)
        with pytest.raises(ShrinkbenchError, match="leads out of it"):
            write()
    assert victim.read_text() == "mine"


def test_another_network_than_the_named_one_is_refused(folder):
    with pytest.raises(ShrinkbenchError, match="holds a network 'digits-cnn', not 'resnet20'"):
        read_network(folder, network="resnet20")


def test_a_hostile_card_cannot_leave_its_table(small, tmp_path):
    from shrinkbench.surgery.hub import Published, _size_of, model_card

    size = _size_of(*small, build_full, None)
    named = replace(small[1], network="x | y\n---\nlicense: mit\n<script>")
    card = model_card(Published(named, size))
    assert "\nlicense: mit" not in card
    assert "<script>" not in card.partition("---\n")[2].partition("---\n")[2].replace("\\<script", "")


def test_a_trace_of_one_way_of_a_branch_is_caught(tmp_path):
    class Forks(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(4, 3)

        def forward(self, x):
            return self.layer(x).relu() if x.sum() > 0 else self.layer(x).tanh()

    with pytest.raises(ShrinkbenchError, match="computes something else than the network"):
        export_program(Forks(), tmp_path / "net.ts", torch.rand(2, 4))


def test_a_network_of_halves_keeps_its_buffers_of_float32():
    class Turns(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(4, 3)
            self.register_buffer("frequencies", torch.rand(4), persistent=False)

        def forward(self, x):
            return self.layer((x.float() * self.frequencies).to(self.layer.weight.dtype))

    module, again = Turns(), Turns()
    module.layer.bfloat16()
    again.load_state_dict(module.state_dict())
    again.frequencies.copy_(module.frequencies)
    description = NetworkDescription("digits-cnn", 3, (4,))
    export.require_same_network(module, again, description, Path("net"))


def test_a_network_that_gives_no_numbers_is_told_as_that(masked, tmp_path):
    module = export.copy_of(masked[0])
    with torch.no_grad():
        next(module.parameters()).fill_(float("nan"))
    with pytest.raises(ShrinkbenchError, match="own outputs hold NaN"):
        export_folder(module, tmp_path / "net", WHOLE, build_full)
    with pytest.raises(ShrinkbenchError, match="own outputs hold NaN"):
        plan_and_shrink(module, {}, SHAPE)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def passing(monkeypatch):
    """What is registered is gone again after the test."""
    for table in ("_entries", "_spellings", "_origins"):
        monkeypatch.setattr(MODELS, table, dict(getattr(MODELS, table)))


def test_a_network_of_other_code_from_outside_is_refused(passing, tmp_path, monkeypatch):
    code = """
import shrinkbench
from torch import nn
def made(num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.ReLU(), nn.Linear(4, num_classes))
card = shrinkbench.models.ModelCard(name="NAME", build=made, num_classes=10, input_shape=(1, 8, 8))
shrinkbench.models.MODELS.add("NAME", card)
"""
    monkeypatch.setattr(MODELS, "source", lambda name: {"stored-once": "a" * 64}.get(name))
    (tmp_path / "one.py").write_text(code.replace("NAME", "stored-once"))
    load_plugin(tmp_path / "one.py")
    description = NetworkDescription("stored-once", 10, SHAPE)
    save_network(tmp_path / "net", build_full("stored-once", 10), description)
    read_network(tmp_path / "net")
    monkeypatch.setattr(MODELS, "source", lambda _: "b" * 64)
    with pytest.raises(ShrinkbenchError, match="was written by other code of 'stored-once'"):
        read_network(tmp_path / "net")


def test_what_is_no_card_and_builds_no_network_is_told(passing):
    with pytest.raises(ShrinkbenchError, match="model 'nothing' is a function; add a ModelCard"):
        MODELS.add("nothing", lambda num_classes: None)
    for name, make, told in (
        ("stored-none", lambda _: None, "is built as a NoneType"),
        ("stored-fault", lambda _: 1 / 0, "failed: ZeroDivisionError"),
    ):
        MODELS.add(name, ModelCard(name=name, build=make, num_classes=10, input_shape=SHAPE))
        with pytest.raises(ShrinkbenchError, match=told):
            build_full(name, 10)
