"""Where pruning left channels: what stands side by side, and what is never averaged."""

from __future__ import annotations

import json

import pytest
import torch
from made_results import FINETUNE, make_result, make_spec, method, write_store
from typer.testing import CliRunner

from shrinkbench.cli.patterns import app
from shrinkbench.metrics import layer_densities
from shrinkbench.metrics.patterns import layer_widths, stage_pattern
from shrinkbench.models import build
from shrinkbench.pruning.allocations.by_pattern import Pattern
from shrinkbench.pruning.methods.network_slimming import slimming_masks
from shrinkbench.report.layer_figures import kernel_figure
from shrinkbench.report.patterns import selected, series_of_runs
from shrinkbench.results.record import Size
from shrinkbench.spec import ChannelFraction, FinetuningSpec

SHAPE = (1, 8, 8)
UNTRAINED = FinetuningSpec(name="none", recipe="none")
SLIMMING = method("network_slimming", "magnitude", finetuning=UNTRAINED, start="initialisation", during=True)


def network(seed):
    torch.manual_seed(seed)
    module = build("digits-cnn")
    for layer in module.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(layer.weight)
    return module


def slimmed(fraction, seed, *, compression=None, images=None, recipe=FINETUNE):
    """A run that removed ``fraction`` of the channels of a network of random scales."""
    made = make_spec(
        dataset="digits",
        model="digits-cnn",
        method=SLIMMING,
        amount=ChannelFraction(fraction=fraction),
        seed=seed,
        recipe=recipe,
    )
    data = made.data.model_copy(update={"train_images": images})
    spec = made.model_copy(update={"task": made.task.model_copy(update={"data": data})})
    module = network(seed)
    masks = slimming_masks(module, SHAPE, fraction)
    reached = compression or 1 / (1 - fraction)
    layers = layer_densities(module, masks)
    pruned = sum(layer.total - layer.kept for layer in layers.values())
    parameters = round(pruned * reached / (reached - 1))
    size = Size(
        parameters=parameters,
        parameters_kept=parameters - pruned,
        compression=parameters / (parameters - pruned),
        multiply_adds=1,
        multiply_adds_kept=1,
        theoretical_speedup=1,
    )
    return make_result(spec).model_copy(update={"layers": layers, "weight_histogram": None, "size": size})


def patterns(folder, *arguments):
    result = CliRunner().invoke(app, [str(folder), "--of", "scales", *map(str, arguments)])
    assert result.exception is None, result.exception
    return result.output


def tables(folder, *arguments):
    return json.loads(patterns(folder, *arguments, "--json"))


def test_amounts_of_one_method_stand_side_by_side(tmp_path):
    """Tables 18 and 21 of Liu et al.: one table, a column for each share of channels that was removed."""
    runs = [slimmed(fraction, seed) for fraction in (0.2, 0.4, 0.6) for seed in (0, 1)]
    write_store(tmp_path, runs)
    (table,) = tables(tmp_path, "--method", "network_slimming")
    assert list(table["rows"][0])[2:] == [
        "20% of channels (1.2x)", "40% of channels (1.7x)", "60% of channels (2.5x)"
    ]  # fmt: skip
    shares = [stage_pattern(layer_widths(network(r.spec.seed), r.layers, SHAPE, of="scales")) for r in runs[4:]]
    for row in table["rows"]:
        cell = row["60% of channels (2.5x)"]
        assert (cell["mean"], cell["n"]) == (pytest.approx(sum(s[row["stage"]] for s in shares) / 2), 2)
    printed = patterns(tmp_path)  # in a narrow terminal, too, every column is there
    assert all(name in printed for name in list(table["rows"][0])[2:])
    assert "not shown" not in printed


def test_a_pattern_carries_the_compression_that_was_reached(tmp_path):
    """The mean over its networks; what was asked for is no compression."""
    write_store(tmp_path, [slimmed(0.6, 0, compression=3.1), slimmed(0.6, 1, compression=3.3)])
    patterns(tmp_path, "--out", tmp_path / "found.json")
    (point,) = Pattern.load(tmp_path / "found.json").points
    assert (point.compression, point.networks) == (pytest.approx(3.2), 2)


def test_networks_of_different_tasks_or_recipes_are_not_averaged(tmp_path):
    longer = FINETUNE.model_copy(update={"epochs": 60})
    runs = [slimmed(0.4, 0), slimmed(0.4, 1, images=100), slimmed(0.4, 2, images=100, recipe=longer)]
    write_store(tmp_path, runs)
    found = tables(tmp_path)
    assert len({table["networks"] for table in found}) == 3
    cells = [cell for t in found for row in t["rows"] for cell in row.values() if isinstance(cell, dict)]
    assert {cell["n"] for cell in cells} == {1}


def test_a_method_is_chosen_by_its_name_or_the_one_that_it_is_a_variant_of():
    runs = [slimmed(0.4, 0), make_result(make_spec(dataset="digits", model="digits-cnn"))]
    for name in ("network_slimming", SLIMMING.name):
        assert selected(runs, method=name) == runs[:1]
    assert selected(runs, method="slimming") == []


def test_a_name_that_brings_its_amount_along_chooses_it(tmp_path):
    write_store(tmp_path, [slimmed(0.4, 0), slimmed(0.6, 0)])
    for name in ("network_slimming:60", "network_slimming:60[finetuning=none]"):
        (table,) = tables(tmp_path, "--method", name)
        assert list(table["rows"][0])[2:] == ["60% of channels (2.5x)"]


def test_columns_are_in_order_of_the_compression_reached():
    (series,) = series_of_runs([slimmed(0.6, 0, compression=2.0), slimmed(0.2, 0, compression=3.0)])
    assert [column.compression for column in series.columns] == [2.0, 3.0]


@pytest.mark.slow
def test_figures_of_two_tasks_are_two_files(tmp_path):
    write_store(tmp_path, [slimmed(0.4, 0), slimmed(0.4, 0, images=100)])
    patterns(tmp_path, "--figures", tmp_path / "figures")
    names = {path.stem for path in (tmp_path / "figures").glob("weights-*.svg")}
    assert len(names) == 2
    assert all("40-percent-of-channels" in name for name in names)


def test_kernels_are_drawn_by_stage_and_amount():
    shares = [[0.1 * place for place in range(9)], [0.5] * 9]
    figure = kernel_figure("network, method", {"2x": shares, "4x": [shares[1], [0.0] * 9]})
    drawn = [axes.images[0].get_array() for axes in figure.axes]
    assert [image.shape for image in drawn] == [(3, 3)] * 4
    assert drawn[0][0, 2] == pytest.approx(0.2)  # row by row
    assert drawn[0][2, 0] == pytest.approx(0.6)
    assert [axes.get_title() for axes in figure.axes] == ["2x, stage 1", "stage 2", "4x, stage 1", "stage 2"]
    limits = [axes.images[0].get_clim() for axes in figure.axes]
    assert limits == [(0, pytest.approx(0.8))] * 2 + [(0, 0.5)] * 2
