"""Weights come from files of many kinds; what does not fit is named in one sentence."""

from __future__ import annotations

import copy
import io
import json
import os
import pickle
import re
import zipfile
from argparse import Namespace
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from places import SHARED
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils.prune import custom_from_mask

from shrinkbench.errors import ShrinkbenchError, TakenWarning
from shrinkbench.files import fetch, git_blob_of
from shrinkbench.models import (
    build,
    get_model,
    identify,
    known_weights,
    load_weights,
    locate_weights,
    read_state_dict,
)
from shrinkbench.pruning import import_masks
from shrinkbench.spec import IMAGENET_NORMALISATION

WEIGHTS = SHARED / "data" / "weights"
CIFAR = SHARED / "data" / "cifar10" / "test.parquet"
RESNET_20 = WEIGHTS / "resnet20-12fca82f.th"
public_files = pytest.mark.skipif(not RESNET_20.is_file(), reason=f"no public weights in {WEIGHTS}")


@pytest.fixture
def trained():
    module = build("digits-cnn", seed=5)
    module(torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(0)))  # moves the running statistics
    return module


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {"state_dict": s, "epoch": 3},
        lambda s: {"model": s, "optimizer": {"lr": 0.1}},
        lambda s: {"model_state_dict": s},
        lambda s: {"state_dict": OrderedDict((f"module.{k}", v) for k, v in s.items()), "best_prec1": 91.0},
        lambda s: {"model": {"state_dict": {f"_orig_mod.{k}": v for k, v in s.items()}}},
        lambda s: {f"module._orig_mod.{k}": v for k, v in s.items()},
        lambda s: {k: v for k, v in s.items() if not k.endswith("num_batches_tracked")},
    ],
    ids=["plain", "state_dict", "model", "model_state_dict", "parallel", "nested", "both", "no-counters"],
)
def test_checkpoints_load_however_they_are_wrapped(trained, tmp_path, wrap):
    torch.save(wrap(trained.state_dict()), tmp_path / "w.pt")
    module = build("digits-cnn", seed=1)
    for name, value in module.state_dict().items():
        if name.endswith("num_batches_tracked"):
            value.copy_(trained.state_dict()[name])
    file = load_weights(module, tmp_path / "w.pt", card=get_model("digits-cnn"))
    assert same(module, trained)
    assert file.entry is None
    assert file.name == "w.pt"
    assert len(file.sha256) == 64


def test_safetensors_load(trained, tmp_path):
    save_file(trained.state_dict(), tmp_path / "w.safetensors")
    module = build("digits-cnn", seed=1)
    load_weights(module, tmp_path / "w.safetensors")
    assert same(module, trained)


class Mischief:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return (os.mkdir, (str(self.mark),))


def test_nothing_in_a_file_is_executed(tmp_path):
    mark = tmp_path / "executed"
    torch.save({"state_dict": {"w": torch.ones(1)}, "x": Mischief(mark)}, tmp_path / "w.pt")
    with pytest.raises(ShrinkbenchError, match=r"holds Python objects other than tensors \(posix\.mkdir\)"):
        read_state_dict(tmp_path / "w.pt")
    assert not mark.exists()


def truncated(path: Path) -> None:
    buffer = io.BytesIO()
    torch.save(build("digits-cnn").state_dict(), buffer)
    path.write_bytes(buffer.getvalue()[:5000])


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("w.pt", truncated, "is damaged or not a PyTorch checkpoint"),
        ("w.pt", lambda p: p.write_bytes(b""), "is damaged or not a PyTorch checkpoint"),
        ("w.pt", lambda p: p.write_text("hello"), "is damaged or not a PyTorch checkpoint"),
        (
            "w.pt",
            lambda p: p.write_bytes(pickle.dumps([1, 2], protocol=2)),
            r"holds no weights by name|is damaged",
        ),
        ("w.safetensors", lambda p: p.write_bytes(b"\x00" * 40), "is damaged or not a safetensors file"),
        ("w.pt", lambda p: torch.save(torch.ones(2), p), r"holds no weights by name \(found Tensor\)"),
        ("w.pt", lambda p: torch.save({}, p), r"holds no weights by name \(found dict\)"),
        ("w.pt", lambda p: torch.save({"a": 1.5}, p), "its entry 'a' is a float, not a tensor"),
        ("w.pt", lambda p: torch.save({"state_dict": {"a": "b"}}, p), "its entry 'a' is a str, not a tensor"),
    ],
)
def test_bad_files_are_named_in_one_sentence(tmp_path, name, write, message):
    path = tmp_path / name
    write(path)
    with pytest.raises(ShrinkbenchError, match=message) as raised:
        read_state_dict(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_missing_file_says_what_else_there_is(tmp_path):
    with pytest.raises(ShrinkbenchError, match=r"there is no weights file .*nowhere") as raised:
        locate_weights(tmp_path / "nowhere.pt", card=get_model("resnet20"))
    assert "resnet20-12fca82f" in str(raised.value)
    with pytest.raises(ShrinkbenchError, match="there is no weights file"):
        locate_weights(tmp_path)  # a folder
    with pytest.raises(ShrinkbenchError, match="no public weights are known for digits-cnn"):
        locate_weights("DEFAULT", card=get_model("digits-cnn"))


def test_a_file_for_another_network_says_where_they_differ(tmp_path):
    torch.save(build("lenet5").state_dict(), tmp_path / "w.pt")
    with pytest.raises(ShrinkbenchError, match="is for another network than lenet5-caffe") as raised:
        load_weights(build("lenet5-caffe"), tmp_path / "w.pt", card=get_model("lenet5-caffe"))
    text = str(raised.value)
    assert "conv1.weight is 6x1x5x5 in the file and 20x1x5x5 in the network" in text
    assert "the file lacks ip1.weight, ip1.bias and 2 more" in text
    assert "the network lacks fc1.weight, fc1.bias and 4 more" in text


def test_another_number_of_classes_is_a_difference_of_shape(tmp_path):
    torch.save(build("lenet5", num_classes=10).state_dict(), tmp_path / "w.pt")
    with pytest.raises(ShrinkbenchError, match=r"fc3.weight is 10x84 in the file and 7x84 in the network"):
        load_weights(build("lenet5", num_classes=7), tmp_path / "w.pt")


def test_a_refused_file_leaves_the_network_as_it_was(tmp_path):
    module = build("lenet5", seed=4)
    state = {**build("lenet5", seed=9).state_dict(), "fc3.weight": torch.zeros(3, 3)}
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(ShrinkbenchError):
        load_weights(module, tmp_path / "w.pt")
    assert same(module, build("lenet5", seed=4))


def test_densenets_old_names_and_training_heads_are_understood(tmp_path):
    class Small(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.denselayer1 = nn.ModuleDict({"norm1": nn.Linear(2, 2), "conv2": nn.Linear(2, 2)})

    state = {
        f"denselayer1.{old}.{p}": torch.ones(2, 2)[:, 0] if p == "bias" else torch.ones(2, 2)
        for old in ("norm.1", "conv.2")
        for p in ("weight", "bias")
    }
    torch.save(
        {**state, "aux1.fc.weight": torch.ones(1), "AuxLogits.fc.weight": torch.ones(1)}, tmp_path / "w.pt"
    )
    module = Small()
    load_weights(module, tmp_path / "w.pt")
    assert module.denselayer1["conv2"].weight.eq(1).all()


@public_files
@pytest.mark.parametrize("name", ["resnet20", "resnet56"])
def test_public_files_are_known_and_bring_their_normalisation(name):
    card = get_model(name)
    path = WEIGHTS / f"{card.weights[0].name}.th"
    file = load_weights(build(name), path, card=card)
    assert file.entry is card.weights[0]
    assert file.sha256 == card.weights[0].sha256
    assert file.normalisation == IMAGENET_NORMALISATION
    assert identify(path) is card.weights[0]


@public_files
def test_a_public_file_for_another_depth_is_refused():
    with pytest.raises(
        ShrinkbenchError, match=r"is for another network than resnet56: the file lacks layer1\.3"
    ):
        load_weights(build("resnet56"), RESNET_20, card=get_model("resnet56"))


def test_a_file_is_known_by_what_git_knows_it_by(tmp_path, monkeypatch):
    """Where no SHA-256 is on record: ShrinkBench's CIFAR-VGG."""
    card = get_model("cifar-vgg")
    path = tmp_path / "w.pt"
    path.write_bytes(b"what is up, doc?")  # the example of the Git book
    blob = "bd9dbf5aae1a3862dd1526723246b20206e5fc37"
    entry = replace(card.weights[0], git_blob=blob)
    monkeypatch.setattr("shrinkbench.models.weights.known_weights", lambda card: (entry,))
    assert git_blob_of(path) == blob
    assert identify(path, card=card) is entry
    found = locate_weights(path, card=card)
    assert (found.name, found.normalisation) == ("vgg_bn_drop", entry.normalisation)
    path.write_bytes(b"something else")
    assert identify(path, card=card) is None


def test_a_download_that_git_knows_as_another_is_refused(tmp_path):
    source = tmp_path / "there.th"
    source.write_bytes(b"what is up, doc?")
    blob = "bd9dbf5aae1a3862dd1526723246b20206e5fc37"
    url = source.as_uri()
    assert fetch(url, tmp_path / "a.th", sha256=None, git_blob=blob, instead="wait").is_file()
    with pytest.raises(ShrinkbenchError, match=r"has Git's SHA-1 bd9dbf5aae1a3862..., not 8f00bd8c"):
        fetch(url, tmp_path / "b.th", sha256=None, git_blob=f"8f00bd8c{blob[8:]}", instead="wait")
    assert not (tmp_path / "b.th").exists()


def test_an_unknown_file_is_not_identified(tmp_path):
    (tmp_path / "w.pt").write_bytes(b"x")
    assert identify(tmp_path / "w.pt") is None


def test_entries_of_a_card_have_names_of_their_own():
    from shrinkbench.models import MODELS

    for _, card in MODELS.items():
        names = [entry.name.lower() for entry in card.weights]
        assert len(set(names)) == len(names)
    digests = [e.sha256 or e.git_blob for _, card in MODELS.items() for e in card.weights]
    assert len(set(digests)) == len(digests)


def measured_top1(name: str, images: int | None) -> float:
    """Top-1 of the public weights on the JPEG copy, read and evaluated without this library's own code."""
    import numpy as np
    import pyarrow.parquet as parquet
    from PIL import Image

    card = get_model(name)
    module = build(name).eval()
    file = load_weights(module, WEIGHTS / f"{card.weights[0].name}.th", card=card)
    table = parquet.read_table(CIFAR)
    table = table if images is None else table.slice(0, images)
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(row["bytes"]))) for row in table["img"].to_pylist()])
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (file.normalisation.mean, file.normalisation.std))
    inputs = (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 - mean) / std
    with torch.inference_mode():
        guesses = torch.cat([module(batch).argmax(1) for batch in inputs.split(500)])
    return (guesses == torch.tensor(table["label"].to_pylist())).float().mean().item()


@public_files
def test_public_weights_recognise_images():
    if not CIFAR.is_file():
        pytest.skip(f"no {CIFAR}")
    assert measured_top1("resnet20", 500) > 0.76


@public_files
@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet20", "resnet56"])
def test_measured_accuracy_of_the_cards(name):
    if not CIFAR.is_file():
        pytest.skip(f"no {CIFAR}")
    (recorded,) = get_model(name).weights[0].measured_top1.values()
    assert measured_top1(name, None) == pytest.approx(recorded, abs=5e-4)
    assert recorded < get_model(name).weights[0].published_top1


def test_messages_are_one_sentence(tmp_path):
    torch.save({"x": torch.ones(1)}, tmp_path / "w.pt")
    with pytest.raises(ShrinkbenchError) as raised:
        load_weights(build("lenet5"), tmp_path / "w.pt", card=get_model("lenet5"))
    assert not re.search(r"\n|Traceback", str(raised.value))


def test_features_load_from_a_network_with_another_head(trained, tmp_path):
    """Everything under the prefix is taken and must fit; a file of the network itself loads whole."""
    card = replace(get_model("digits-cnn"), features_of=("digits-cnn", "features."))
    other = {k: v for k, v in trained.state_dict().items() if k.startswith("features.")}
    other["head.weight"] = torch.ones(3, 3)
    torch.save(other, tmp_path / "other.pt")
    module = build("digits-cnn", seed=1)
    drawn = module.linear.weight.detach().clone()
    load_weights(module, tmp_path / "other.pt", card=card)
    assert torch.equal(module.linear.weight, drawn)
    assert all(torch.equal(module.state_dict()[k], v) for k, v in other.items() if k.startswith("features."))
    torch.save(trained.state_dict(), tmp_path / "own.pt")
    load_weights(module, tmp_path / "own.pt", card=card)
    assert same(module, trained)
    del other["features.3.weight"]
    torch.save(other, tmp_path / "short.pt")
    with pytest.raises(ShrinkbenchError, match=r"the file lacks features\.3\.weight"):
        load_weights(module, tmp_path / "short.pt", card=card)


def test_a_network_with_another_head_knows_the_weights_of_its_features():
    card = get_model("vgg16-gap")
    assert [e.name for e in known_weights(card)] == [e.name for e in get_model("torchvision/vgg16").weights]
    with pytest.raises(ShrinkbenchError, match=r"vgg16-gap also knows the weights .*IMAGENET1K_V1"):
        locate_weights("nowhere.pth", card=card)
    features = build("torchvision/vgg16").features.state_dict()
    assert {n: v.shape for n, v in build("vgg16-gap").features.state_dict().items()} == {
        n: v.shape for n, v in features.items()
    }


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: {f"_orig_mod.module._orig_mod.module.{k}": v for k, v in s.items()},
        lambda s: {"net": {f"module.{k}": v for k, v in s.items()}, "acc": np.float64(93.1)},
        lambda s: {"state_dict": s, "args": Namespace(lr=0.1), "best": np.float32(1), "step": np.int64(3)},
        lambda s: {"n_averaged": torch.tensor(3), **{f"module.{k}": v for k, v in s.items()}},
        lambda s: {"state_dict": {f"model._orig_mod.{k}": v for k, v in s.items()}},
    ],
    ids=["compiled-parallel", "net", "numbers-beside", "averaged", "lightning"],
)
def test_checkpoints_of_other_tools_load_without_a_word(trained, tmp_path, wrap, recwarn):
    torch.save(wrap(trained.state_dict()), tmp_path / "w.pt")
    module = build("digits-cnn", seed=1)
    load_weights(module, tmp_path / "w.pt")
    assert same(module, trained)
    assert not [w for w in recwarn if issubclass(w.category, TakenWarning)]


def test_which_of_several_was_taken_is_told_unless_it_is_asked_for(trained, tmp_path):
    other, module = build("digits-cnn", seed=9).state_dict(), build("digits-cnn", seed=1)
    averaged = {"n_averaged": torch.tensor(3), **{f"module.{k}": v for k, v in trained.state_dict().items()}}
    torch.save({"model": other, "model_ema": averaged}, tmp_path / "w.pt")
    with pytest.warns(TakenWarning, match="'model' was taken and not 'model_ema'"):
        load_weights(module, tmp_path / "w.pt")
    assert torch.equal(module.linear.weight, other["linear.weight"])
    load_weights(module, tmp_path / "w.pt", entry="model_ema")
    assert same(module, trained)
    both = {f"net.{k}": v for k, v in other.items()}
    both |= {f"teacher.{k}": v for k, v in trained.state_dict().items()}
    torch.save({"state_dict": both}, tmp_path / "w.pt")
    with pytest.warns(TakenWarning, match=r"what is under 'net\.' was taken, and 'teacher\."):
        load_weights(module, tmp_path / "w.pt")
    load_weights(module, tmp_path / "w.pt", entry="teacher")
    assert same(module, trained)
    with pytest.raises(ShrinkbenchError, match="no weights under 'student'"):
        load_weights(module, tmp_path / "w.pt", entry="student")


def test_sparse_and_quantised_tensors_are_refused_by_name(trained, tmp_path):
    weight = trained.linear.weight.detach()
    for value, sentence in (
        (weight.to_sparse(), r"'linear.weight' in .* is a sparse_coo tensor"),
        (weight.to_sparse_csr(), r"is a sparse_csr tensor"),
        (torch.quantize_per_tensor(weight, 0.1, 0, torch.qint8), r"is quantised \(torch.qint8\)"),
    ):
        torch.save({**trained.state_dict(), "linear.weight": value}, tmp_path / "w.pt")
        with pytest.raises(ShrinkbenchError, match=sentence):
            load_weights(build("digits-cnn", seed=1), tmp_path / "w.pt")


@pytest.mark.parametrize("dtype", [torch.int8, torch.bool, torch.complex64])
def test_numbers_of_another_kind_are_refused(dtype, tmp_path):
    module = nn.Linear(3, 2)
    state = {name: (127 * value).to(dtype) for name, value in module.state_dict().items()}
    torch.save(state, tmp_path / "other.pt")
    with pytest.raises(
        ShrinkbenchError, match=rf"weight is of {dtype} in the file, the network's of torch.float32"
    ):
        load_weights(module, tmp_path / "other.pt")


@pytest.mark.parametrize("overlapping", [False, True])
def test_a_file_that_unpacks_to_more_than_it_is_large_is_refused_unread(tmp_path, overlapping):
    """torch would make room for all of it: 1.6 MB took 2 GB."""
    path = tmp_path / "bomb.pt"
    torch.save({"w": torch.zeros(4 << 20)}, path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED if overlapping else zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        largest = max(archive.infolist(), key=lambda info: info.file_size)
        if overlapping:  # two names of one member
            other = copy.copy(largest)
            other.filename = other.orig_filename = largest.filename + "1"
            archive.filelist.append(other)
            archive.NameToInfo[other.filename] = other
    with pytest.raises(ShrinkbenchError, match=r"has [\d,]+ bytes and unpacks to \d\d,\d{3},\d{3}; torch"):
        read_state_dict(path)


def test_a_flipped_byte_is_found_by_the_checksum(tmp_path):
    module = nn.Linear(64, 64)
    path = tmp_path / "whole.pt"
    torch.save(module.state_dict(), path)
    content = bytearray(path.read_bytes())
    place = content.index(module.weight.detach().numpy().tobytes()[:64])
    content[place + 8] ^= 1
    path.with_name("flipped.pt").write_bytes(content)
    load_weights(module, path)
    with pytest.raises(
        ShrinkbenchError, match=r"flipped.pt is damaged: '.*data/.*' in it is not what its checksum"
    ):
        load_weights(module, path.with_name("flipped.pt"))


class Wrapped(nn.Module):
    """All of its parameters lie where a wrapper of torch would put them."""

    def __init__(self, name):
        super().__init__()
        self.add_module(name, nn.Linear(3, 2))


@pytest.mark.parametrize("name", ["module", "_orig_mod"])
def test_names_of_the_network_itself_are_no_wrappers(name, tmp_path):
    saved, module = Wrapped(name), Wrapped(name)
    torch.save(saved.state_dict(), tmp_path / "own.pt")
    torch.save({f"module.{key}": value for key, value in saved.state_dict().items()}, tmp_path / "wrapped.pt")
    for file in ("own.pt", "wrapped.pt"):
        load_weights(module, tmp_path / file)
        assert all(torch.equal(a, b) for a, b in zip(saved.parameters(), module.parameters(), strict=True))


@pytest.mark.parametrize("name", ["module", "_orig_mod"])
def test_masks_of_torch_are_found_under_the_networks_own_names(name, tmp_path):
    saved, keep = Wrapped(name), torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]])
    custom_from_mask(getattr(saved, name), "weight", keep)
    torch.save(saved.state_dict(), tmp_path / "masked.pt")
    for take in (load_weights, import_masks):
        module = Wrapped(name)
        found = take(module, tmp_path / "masked.pt")
        assert torch.equal(getattr(module, name).weight, getattr(saved, name).weight)
    assert torch.equal(found[f"{name}.weight"], keep != 0)


@pytest.mark.parametrize("odd", [float("nan"), 0.5, -1.0])
def test_masks_of_torch_that_say_neither_are_refused(trained, tmp_path, odd):
    state = trained.state_dict()
    state["linear.weight_orig"] = state.pop("linear.weight")
    state["linear.weight_mask"] = torch.ones_like(state["linear.weight_orig"])
    state["linear.weight_mask"][0, 0] = odd
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(ShrinkbenchError, match=r"'linear.weight_mask' holds other values than 0 and 1"):
        load_weights(build("digits-cnn", seed=1), tmp_path / "w.pt")


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.reads, self.writes = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
        self.writes.weight = self.reads.weight


def test_two_values_of_one_tensor_are_refused(tmp_path):
    values = {"reads.weight": torch.zeros(4, 4), "writes.weight": torch.ones(4, 4)}
    save_file(values, tmp_path / "w.safetensors")
    with pytest.raises(ShrinkbenchError, match=r"'reads.weight' and 'writes.weight' are one tensor"):
        load_weights(Tied(), tmp_path / "w.safetensors")
    torch.save(dict.fromkeys(values, torch.full((4, 4), 2.0).to(torch.float8_e4m3fn)), tmp_path / "w.pt")
    module = Tied()
    load_weights(module, tmp_path / "w.pt")
    assert bool((module.writes.weight == 2).all())


def test_values_that_the_networks_precision_has_not_are_refused(trained, tmp_path):
    torch.save({n: t.double() * 1e300 for n, t in trained.state_dict().items()}, tmp_path / "w.pt")
    with pytest.raises(ShrinkbenchError, match=r"holds values in the file that torch\.float32 has not"):
        load_weights(build("digits-cnn"), tmp_path / "w.pt")


@pytest.fixture
def sharded(trained, tmp_path):
    state, index = trained.state_dict(), tmp_path / "model.safetensors.index.json"
    places = {name: f"model-{number % 2}.safetensors" for number, name in enumerate(state)}
    for file in set(places.values()):
        save_file({name: state[name] for name in state if places[name] == file}, tmp_path / file)
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return index


def test_weights_in_several_files_are_read_by_their_index(trained, sharded):
    network = build("digits-cnn", seed=1)
    file = load_weights(network, sharded)
    assert same(network, trained)
    part = sharded.with_name("model-1.safetensors")
    save_file({name: value + 1 for name, value in read_state_dict(part).items()}, part)
    assert locate_weights(sharded).sha256 != file.sha256
    with pytest.raises(ShrinkbenchError, match="has changed since the run was planned"):
        read_state_dict(sharded, sha256=file.sha256)
    part.unlink()
    with pytest.raises(ShrinkbenchError, match=r"cannot read .*model-1\.safetensors"):
        load_weights(network, sharded)


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "[]",
        '{"weight_map": {}}',
        '{"weight_map": {"a": "../x.safetensors"}}',
        '{"weight_map": {"a": 3}}',
        "{",
    ],
)
def test_an_index_that_names_no_files_beside_it_is_refused(tmp_path, text):
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(ShrinkbenchError, match="is no index of weights: its weight_map names"):
        load_weights(build("digits-cnn"), tmp_path / "model.safetensors.index.json")


def test_two_files_that_hold_one_tensor_are_refused(sharded):
    part = sharded.with_name("model-1.safetensors")
    save_file({**read_state_dict(part), **read_state_dict(sharded.with_name("model-0.safetensors"))}, part)
    with pytest.raises(ShrinkbenchError, match="or some that another file of"):
        load_weights(build("digits-cnn"), sharded)


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.module.", "model."])
def test_what_lies_beside_the_tensors_is_left_aside_and_told(trained, tmp_path, prefix):
    beside = {"best_acc": np.float64(0.93), "epoch": 3, "arch": "cnn", "scheduler": None, "seen": {1: [2, 3]}}
    torch.save({**{prefix + k: v for k, v in trained.state_dict().items()}, **beside}, tmp_path / "w.pth")
    network = build("digits-cnn", seed=1)
    with pytest.warns(TakenWarning, match="'best_acc', 'epoch', 'arch' and 2 more"):
        load_weights(network, tmp_path / "w.pth")
    assert same(network, trained)


def test_a_number_in_place_of_a_tensor_of_the_network_is_missed_by_name(trained, tmp_path):
    torch.save({**trained.state_dict(), "features.0.weight": np.float64(0.5)}, tmp_path / "w.pth")
    with (
        pytest.warns(TakenWarning, match=r"features\.0\.weight"),
        pytest.raises(ShrinkbenchError, match=r"the file lacks features\.0\.weight"),
    ):
        load_weights(build("digits-cnn"), tmp_path / "w.pth")


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(trained, tmp_path, odd):
    state = {name: value.clone() for name, value in trained.state_dict().items()}
    state["features.0.weight"].view(-1)[7] = odd
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(ShrinkbenchError, match=r"1 of 288 values of 'features\.0\.weight' .* NaN or infinite"):
        load_weights(build("digits-cnn"), tmp_path / "w.pth")


def test_what_is_infinite_in_the_network_itself_may_be_so_in_the_file(tmp_path):
    network = nn.Linear(2, 2)
    network.register_buffer("mask", torch.tensor([0.0, -torch.inf]))
    torch.save(network.state_dict(), tmp_path / "w.pth")
    load_weights(network, tmp_path / "w.pth")


class Scaled(nn.Module):
    """A layer that stores a number beside its tensors."""

    def __init__(self, scale=1.0):
        super().__init__()
        self.layer, self.scale = nn.Linear(2, 2), scale

    def get_extra_state(self):
        return {"scale": self.scale}

    def set_extra_state(self, state):
        self.scale = state["scale"]


def test_what_a_layer_stores_beside_its_tensors_is_loaded(tmp_path):
    known, network = Scaled(5.0), Scaled()
    torch.save({f"module.{name}": value for name, value in known.state_dict().items()}, tmp_path / "w.pth")
    load_weights(network, tmp_path / "w.pth")
    assert (network.scale, torch.equal(network.layer.weight, known.layer.weight)) == (5.0, True)
    torch.save({f"layer.{name}": value for name, value in known.layer.state_dict().items()}, tmp_path / "w.pth")
    with pytest.raises(ShrinkbenchError, match="the file lacks _extra_state"):
        load_weights(network, tmp_path / "w.pth")


def test_of_two_copies_the_average_is_not_taken_and_an_entry_two_levels_deep_is_named(trained, tmp_path):
    state = trained.state_dict()
    averaged = {f"ema.{k}": v + 1 if v.is_floating_point() else v for k, v in state.items()}
    torch.save({**averaged, **{f"net.{k}": v for k, v in state.items()}}, tmp_path / "w.pth")
    network = build("digits-cnn", seed=1)
    with pytest.warns(TakenWarning, match=r"what is under 'net\.' was taken"):
        load_weights(network, tmp_path / "w.pth")
    assert same(network, trained)
    torch.save({"checkpoint": {"model": state, "epoch": 3}}, tmp_path / "w.pth")
    with pytest.raises(ShrinkbenchError, match="'checkpoint' is a dict, not a tensor; name the entry"):
        load_weights(network, tmp_path / "w.pth")
    load_weights(network, tmp_path / "w.pth", entry="checkpoint")


def test_a_second_network_beside_a_whole_one_is_left_aside(trained, tmp_path):
    torch.save({**trained.state_dict(), "teacher": build("digits-cnn").state_dict()}, tmp_path / "w.pth")
    network = build("digits-cnn", seed=1)
    with pytest.warns(TakenWarning, match="what lies beside them was left aside: 'teacher'"):
        load_weights(network, tmp_path / "w.pth")
    assert same(network, trained)
    with pytest.raises(ShrinkbenchError, match="'teacher' is a OrderedDict, not a tensor; name the entry"):
        read_state_dict(tmp_path / "w.pth")
