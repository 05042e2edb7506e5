"""Pruning by a pattern: the shares that other networks keep of their stages."""

from __future__ import annotations

import json

import pytest
import torch
from places import SHARED
from typer.testing import CliRunner

from shrinkbench.cli.patterns import app
from shrinkbench.errors import ShrinkbenchError
from shrinkbench.metrics import layer_densities, measure_size
from shrinkbench.metrics.patterns import kernel_pattern, layer_widths, stage_pattern
from shrinkbench.models import build, load_weights
from shrinkbench.pruning import METHODS, prune
from shrinkbench.pruning.allocations.by_pattern import PUBLISHED, Pattern, ShapePoint
from shrinkbench.results.record import RunResult
from shrinkbench.results.store import ResultStore
from shrinkbench.runner import sweep
from shrinkbench.spec import ExperimentSpec

SHAPE = (3, 32, 32)
WEIGHTS = SHARED / "data" / "weights" / "resnet56-4bfd9763.th"


def call(*arguments):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


def written(tmp_path, kind, *stages, name="pattern.json", compression=3.0):
    point = ShapePoint(compression=compression, networks=1, stages=stages)
    Pattern(kind=kind, source="test", points=(point,)).save(tmp_path / name)
    return tmp_path / name


@pytest.mark.slow
def test_a_published_pattern_gives_its_own_networks():
    module = build("cifar-vgg16")
    for point in PUBLISHED["liu2019-vgg16"].points[-1:]:
        masks = prune(
            module,
            "channel_l1[allocation=pattern:liu2019-vgg16]",
            compression=point.compression,
            input_shape=SHAPE,
        )
        assert measure_size(module, SHAPE, masks).compression == pytest.approx(point.compression, rel=1e-3)
        found = stage_pattern(layer_widths(module, masks, SHAPE))
        for (expected,), share in zip(point.stages, found.values(), strict=True):
            assert share == pytest.approx(expected, abs=0.025)


@pytest.mark.slow
def test_a_pattern_is_transferred_to_a_deeper_network_and_scaled_to_the_target():
    module = build("cifar-vgg19", num_classes=100)
    method = "channel_l1[allocation=pattern:liu2019-vgg16]"
    shares = []
    for compression in (6, 8):  # the nearest point is that of 6.29
        masks = prune(module, method, compression=compression, input_shape=SHAPE, one_shot=True)
        assert measure_size(module, SHAPE, masks).compression == pytest.approx(compression, rel=2e-3)
        shares.append(list(stage_pattern(layer_widths(module, masks, SHAPE)).values()))
    for of_one in shares:
        assert of_one[4] < of_one[3] < min(of_one[:3])  # the order of Table 21
    assert all(larger >= smaller for larger, smaller in zip(*shares, strict=True))


def test_kernels_keep_in_proportion_at_every_position_and_meet_the_budget(tmp_path):
    module = build("resnet20")
    corner = (0.1, 0.1, 0.1, 0.1, 0.4, 0.1, 0.1, 0.1, 0.1)
    path = written(tmp_path, "kernels", corner, (0.2,) * 9, (0.1,) * 9)
    method = f"uniform_sparsification[allocation=pattern:{path}]"
    for compression in (3, 6):
        generator = torch.Generator().manual_seed(0)
        masks = prune(
            module, method, compression=compression, input_shape=SHAPE, generator=generator, one_shot=True
        )
        total = sum(p.numel() for p in module.parameters())
        assert total - (masks.total - masks.kept) == round(total / compression)
        found = kernel_pattern(module, masks, SHAPE)
        scale = float(found[2].mean()) / 0.2
        torch.testing.assert_close(
            found[1].flatten(), torch.tensor(corner).mul(scale).clamp_max(1), atol=0.005, rtol=0
        )
        torch.testing.assert_close(found[3], torch.full((3, 3), 0.1 * scale), atol=0.005, rtol=0)


def test_the_content_of_a_file_is_part_of_the_methods_name(tmp_path):
    first = METHODS.get(f"uniform_channels[allocation=pattern:{written(tmp_path, 'channels', (0.5,))}]")
    assert METHODS.get(first.name).spec == first.spec  # a worker reads the name again
    written(tmp_path, "channels", (0.6,))
    with pytest.raises(ShrinkbenchError, match="has changed since"):
        METHODS.get(first.name)


def test_patterns_that_do_not_fit_are_refused(tmp_path):
    module = build("resnet20")

    def attempt(method, pattern):
        prune(
            module, f"{method}[allocation=pattern:{pattern}]", compression=3, input_shape=SHAPE, one_shot=True
        )

    with pytest.raises(ShrinkbenchError, match="the pattern is of 5 stages, this network has 3; take one"):
        attempt("channel_l1", "liu2019-vgg16")
    with pytest.raises(ShrinkbenchError, match="which single weights stay; use it with structure"):
        attempt("channel_l1", written(tmp_path, "kernels", *[(0.5,) * 9] * 3))
    with pytest.raises(ShrinkbenchError, match=r"there is no pattern 'none\.json'; write one with"):
        attempt("channel_l1", "none.json")
    (tmp_path / "torn.json").write_text("{", encoding="utf-8")
    with pytest.raises(ShrinkbenchError, match=r"cannot read a pattern from .*torn\.json"):
        attempt("channel_l1", tmp_path / "torn.json")


def test_layers_of_a_result_tell_the_same_as_masks():
    module = build("resnet20")
    masks = prune(module, "convolution_magnitude", compression=4, input_shape=SHAPE)
    layers = layer_densities(module, masks)
    assert layer_widths(module, layers, SHAPE) == layer_widths(module, masks, SHAPE)
    by_masks, by_layers = kernel_pattern(module, masks, SHAPE), kernel_pattern(module, layers, SHAPE)
    assert all(torch.equal(by_masks[stage], by_layers[stage]) for stage in by_masks)


@pytest.mark.skipif(not WEIGHTS.exists(), reason="needs ../shared/data/weights")
def test_a_real_network_guides_another_from_the_command_line(tmp_path):
    """ResNet-56 trained on CIFAR-10, pruned by magnitude; its pattern on ResNet-20."""
    module = build("resnet56")
    load_weights(module, str(WEIGHTS))
    masks = prune(module, "convolution_magnitude", compression=4, input_shape=SHAPE)
    masks.save(tmp_path / "masks.safetensors")
    common = ("--model", "resnet56", "--masks", tmp_path / "masks.safetensors", "--of", "kernels")
    rows = json.loads(call(*common, "--out", tmp_path / "found.json", "--json"))[0]["rows"]
    assert len(rows) == 3 * 9
    kept = kernel_pattern(module, masks, SHAPE)
    assert rows[4]["4x"]["mean"] == pytest.approx(float(kept[1][1, 1]))
    small = build("resnet20")
    guided = prune(
        small,
        f"uniform_sparsification[allocation=pattern:{tmp_path / 'found.json'}]",
        compression=4,
        input_shape=SHAPE,
        one_shot=True,
    )
    ours = kernel_pattern(small, guided, SHAPE)
    shares = [float(ours[s].mean() / kept[s].mean()) for s in kept]
    assert max(shares) - min(shares) < 0.02  # all stages scaled alike


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """Two networks of the digits by network slimming, after one epoch."""
    folder = tmp_path_factory.mktemp("swept")
    epoch = {"epochs": 1}
    spec = ExperimentSpec(
        name="slim",
        dataset=("digits",),
        model=("digits-cnn",),
        method=("network_slimming", "uniform_channels"),
        compression=(2,),
        seed=(0, 1),
        train_images=200,
        finetune=epoch,
        pretrain=epoch,
    )
    sweep(spec, folder, device="cpu")
    return folder


@pytest.mark.slow
def test_a_sweep_gives_tables_a_pattern_and_figures(swept, tmp_path):
    results: list[RunResult] = ResultStore(swept).results()[0]
    of_slimming = [r for r in results if r.spec.method.name == "network_slimming"]
    one = ("--method", "network_slimming", "--of", "scales")
    table = json.loads(call(swept, *one, "--by-layer", "--json"))[0]
    assert table["networks"] == "digits / digits-cnn, network_slimming"
    for row in table["rows"]:
        kept = [r.layers[f"{row['layer']}.weight"].kept for r in of_slimming]
        assert row["2x"]["mean"] == pytest.approx(sum(kept) / 2)
        assert row["2x"]["std"] == pytest.approx(abs(kept[0] - kept[1]) / 2**0.5)
    text = call(swept, *one, "--out", tmp_path / "found.json", "--figures", tmp_path)
    assert "[allocation=pattern:" in text
    for name in ("weights-digits-digits-cnn-2x", "top1-parameters"):
        assert (tmp_path / f"{name}.svg").stat().st_size > 1000
    point = Pattern.load(tmp_path / "found.json").at(2)
    assert (point.networks, len(point.stages)) == (2, 2)


@pytest.mark.slow
def test_questions_without_an_answer_are_refused(swept, tmp_path):
    with pytest.raises(
        ShrinkbenchError, match=r"these are several .*choose with --dataset, --model and --method"
    ):
        call(swept, "--out", tmp_path / "found.json")
    with pytest.raises(ShrinkbenchError, match="holds no finished run of a pruned network with method lamp"):
        call(swept, "--method", "lamp")
    with pytest.raises(ShrinkbenchError, match="pass the folder of a sweep, or --model with --masks"):
        call()
    with pytest.raises(ShrinkbenchError, match="--by-layer counts channels"):
        call(swept, "--of", "kernels", "--by-layer")
