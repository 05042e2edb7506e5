"""Tables in every format, figures that are readable, citations, and the origin of results."""

import csv
import io
import itertools
import math
from importlib.resources import files

import numpy as np
import pytest
from made_results import layer_densities, make_results, make_spec, size_of
from PIL import Image

from shrinkbench import plotting
from shrinkbench.errors import ShrinkbenchError
from shrinkbench.report.diagram import mean_ranks_figure
from shrinkbench.report.figures import efficiency_figure, tradeoff_figure
from shrinkbench.report.layer_figures import weight_figure
from shrinkbench.report.page.citations import bibtex, cite, parse_bibtex
from shrinkbench.report.page.origin import as_toml, trace_origin
from shrinkbench.report.result_tables import all_tables, result_tables
from shrinkbench.report.statistics.compare import at_equal_training, curve_summaries, pairwise, winners
from shrinkbench.report.statistics.curves import at_equal
from shrinkbench.report.statistics.observations import aggregate, observe
from shrinkbench.report.statistics.ranks import rank_methods
from shrinkbench.report.tables import Cell, Table
from shrinkbench.report.verdict import reach_verdict
from shrinkbench.spec import ExperimentSpec, read_experiments

PAIR = [("cifar10", "resnet20")]


@pytest.fixture(scope="module")
def observations():
    return observe(make_results(pairs=PAIR))


# Colours


def rgb(colour):
    channels = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def lab(linear):
    matrix = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    t = matrix @ np.clip(linear, 0, 1) / np.array([0.9505, 1.0, 1.089])
    f = np.where(t > 0.008856, np.cbrt(t), 7.787 * t + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


# Machado, Oliveira & Fernandes (2009), severity 1, on linear RGB
DEFICIENCIES = {
    "none": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.01182, 0.04294, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.3039],
    ],
}


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_series_differ_for_every_eye(deficiency):
    seen = [lab(np.array(DEFICIENCIES[deficiency]) @ rgb(colour)) for colour in plotting.COLOURS]
    for one, other in itertools.combinations(seen, 2):
        assert np.linalg.norm(one - other) > 15  # CIELAB; about 2 is just noticeable


def test_colours_stand_out_from_white():
    for colour in plotting.COLOURS:
        luminance = np.array([0.2126, 0.7152, 0.0722]) @ rgb(colour)
        assert 1.05 / (luminance + 0.05) >= 3


def test_styles_do_not_repeat_soon():
    assert len({plotting.series_style(i) for i in range(780)}) == 780


def test_twelve_series_differ_by_colour_and_without_it():
    styles = [plotting.series_style(index) for index in range(12)]
    assert len({style.colour for style in styles}) == len({style.marker for style in styles}) == 12
    chart = files("shrinkbench.report") / "templates" / "chart.js"
    drawn = chart.read_text().split("const MARKERS = {")[1].split("};")[0]
    for marker in plotting.MARKERS:
        assert f"{marker}: " in drawn or f'"{marker}": ' in drawn


def test_figures_repeat_byte_for_byte(observations, tmp_path):
    contents = []
    for name in "ab":
        figure = tradeoff_figure(observations, metric="top1", axis="compression")
        contents.append([p.read_bytes() for p in plotting.save(figure, tmp_path / name / "f")])
    assert contents[0] == contents[1]


def test_a_figure_draws_means_deviations_and_the_control(observations):
    figure = tradeoff_figure(observations, metric="top1", axis="theoretical_speedup")
    panel = figure.axes[0]
    assert panel.get_xscale() == "log"
    lines = {line.get_label(): line for line in panel.get_lines()}
    rows = observations.pruned[observations.pruned["method"] == "random"]
    means = rows.groupby("compression_target")[["theoretical_speedup", "top1"]].mean()
    control = observations.control["top1"].mean()
    assert lines["random"].get_xdata() == pytest.approx([1.0, *means["theoretical_speedup"]])
    assert lines["random"].get_ydata() == pytest.approx([control, *means["top1"]])
    assert lines["control"].get_ydata()[0] == pytest.approx(control)
    bars = [segment for c in panel.collections for segment in c.get_segments() if len(segment) == 2]
    shown = means["top1"] >= panel.get_ylim()[0]
    assert shown.sum() >= 3
    spread = rows.groupby("compression_target")["top1"].std(ddof=1)[shown]
    heights = {round(float(abs(b[1][1] - b[0][1])), 9) for b in bars}
    assert {round(float(2 * s), 9) for s in spread} <= heights


def lies_on_its_page(figure):
    """Whether all that is drawn, names and labels included, lies inside the figure."""
    figure.draw_without_rendering()
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    return min(box.x0, box.y0, width - box.x1, height - box.y1) >= -0.01


@pytest.mark.parametrize("methods", [2, 7, 12])
@pytest.mark.parametrize("name", ["m", "random@global_gradient", "channels[allocation=pattern:one.json]"])
def test_a_ranking_lies_on_its_page(methods, name):
    scores = np.random.default_rng(0).normal(size=(9, methods)) + np.arange(methods) / 2
    names = [f"{name}{index}" for index in range(methods)]
    assert lies_on_its_page(mean_ranks_figure(names, rank_methods(scores)))


@pytest.mark.parametrize("datasets", [("cifar10",), ("cifar10", "cifar100", "imagenet", "digits")])
def test_tradeoffs_lie_on_their_page(datasets):
    made = observe(make_results(pairs=[(dataset, "mobilenet_v2") for dataset in datasets]))
    for axis in ("compression", "theoretical_speedup"):
        assert lies_on_its_page(tradeoff_figure(made, metric="top1", axis=axis))
    assert lies_on_its_page(efficiency_figure(made, metric="top1"))


def test_the_png_is_the_pdf_in_pixels(observations, tmp_path):
    figure = tradeoff_figure(observations, metric="top1", axis="compression")
    (alone,) = plotting.save(figure, tmp_path / "alone", formats=("png",))
    vector, pixels = plotting.save(figure, tmp_path / "both", formats=("pdf", "png"))
    assert vector.read_bytes().startswith(b"%PDF")
    assert alone.read_bytes() == pixels.read_bytes()
    with Image.open(pixels) as image:
        inches = [side / plotting.PIXELS_PER_INCH for side in image.size]
        colours = {colour for _, colour in image.getcolors(1 << 20)}
    assert inches == pytest.approx(figure.get_size_inches().tolist(), abs=0.01)
    drawn = {plotting.series_style(index).colour for index in range(len(observations.methods))}
    assert {tuple(bytes.fromhex(colour[1:])) for colour in drawn} <= colours


def test_a_weight_figure_shows_both_distributions():
    result = make_results(pairs=PAIR, methods=["random"], compressions=(8,), seeds=(0,))[0]
    before, after = (patch.get_data().values for patch in weight_figure(result).axes[0].patches)
    assert tuple(before) == result.weight_histogram.before
    assert tuple(after) == result.weight_histogram.after
    with pytest.raises(ShrinkbenchError, match="no weight distribution"):
        weight_figure(result.model_copy(update={"weight_histogram": None}))


# Tables


def test_a_table_reads_alike_in_every_format():
    table = Table("t", "50 % of_it", ("method", "2×"), ((Cell("a_b"), Cell("91.2 ± 0.1", best=True)),))
    assert table.as_markdown().splitlines() == ["| method | 2× |", "| --- | ---: |", "| a_b | **91.2 ± 0.1** |"]
    assert "\\textbf{\\boldmath 91.2 $\\pm$ 0.1}" in table.as_latex()
    assert "a\\_b &" in table.as_latex()
    assert "50 \\% of\\_\\allowbreak{}it" in table.as_latex()
    assert list(csv.reader(io.StringIO(table.as_csv()))) == [["method", "2×"], ["a_b", "91.2 ± 0.1"]]
    assert "<td><strong>91.2 ± 0.1</strong></td>" in table.as_html()


def test_html_tables_escape_names():
    assert "&lt;b&gt;" in Table("t", "", ("method",), ((Cell("<b>"),),)).as_html()


def test_result_tables_agree_with_the_results(observations):
    table = result_tables(observations, "top1")[0]
    rows = observations.pruned
    cell = rows[(rows["method"] == "random") & (rows["compression_target"] == 4)]["top1"]
    texts = {row[0].text: row for row in table.rows}
    column = table.columns.index("4×")
    assert texts["random"][column].text == f"{100 * cell.mean():.2f} ± {100 * cell.std(ddof=1):.2f}"
    assert texts["control"][1].text.startswith(f"{100 * observations.control['top1'].mean():.2f}")
    best = rows[rows["compression_target"] == 4].groupby("method")["top1"].mean().idxmax()
    assert [name for name, row in texts.items() if row[column].best] == [best]


def test_every_table_is_rectangular(observations):
    for table in all_tables(observations):
        assert {len(row) for row in table.rows} == {len(table.columns)}, table.name


# Comparisons


def test_cells_carry_mean_deviation_n_and_interval(observations):
    table = aggregate(observations.pruned, ["top1"]).set_index(["method", "compression_target"])
    rows = observations.pruned
    cell = rows[(rows["method"] == "random") & (rows["compression_target"] == 8)]["top1"]
    found = table.loc[("random", 8)]
    half = 4.302652729749464 * cell.std(ddof=1) / math.sqrt(3)  # t quantile 0.975, 2 degrees of freedom
    assert found["top1_low"] == pytest.approx(cell.mean() - half)
    assert found["top1_high"] == pytest.approx(cell.mean() + half)
    assert found["n"] == 3


def test_equal_size_gives_the_measured_values(observations):
    values = at_equal(observations, "compression").set_index(["method", "level", "seed"])["value"]
    for row in observations.pruned.itertuples():
        assert values[row.method, row.compression_target, row.seed] == pytest.approx(row.top1)


def test_equal_speedup_is_interpolated_and_never_extended(observations):
    values = at_equal(observations, "theoretical_speedup", levels=(4.0, 1000.0))
    assert set(values["level"]) == {4.0}
    rows = observations.pruned[(observations.pruned["method"] == "random") & (observations.pruned["seed"] == 0)]
    rows = rows.sort_values("theoretical_speedup")
    expected = np.interp(np.log(4), np.log(rows["theoretical_speedup"]), rows["top1"])
    found = values[(values["method"] == "random") & (values["seed"] == 0)]["value"].item()
    assert found == pytest.approx(expected)


def test_equal_latency_uses_measured_speedups():
    from shrinkbench.spec.measures import Latency

    results = []
    for r in make_results(pairs=PAIR, methods=["random", "global_magnitude"]):
        seconds = 1.0 / math.sqrt(r.spec.target)
        timed = Latency(
            batch_size=64, form="small", dense_seconds=1.0, seconds=seconds, threads=2, precision="float32"
        )
        provenance = r.provenance.model_copy(update={"latency": (timed,)})
        results.append(r.model_copy(update={"provenance": provenance}))
    observations = observe(results)
    values = at_equal(observations, "measured_speedup", levels=(2.0,))
    rows = observations.pruned
    at_four = rows[rows["compression_target"] == 4].set_index(["method", "seed"])["top1"]
    found = values.set_index(["method", "seed"])["value"]
    assert found.to_dict() == pytest.approx(at_four.to_dict())


def test_equal_training_compares_only_what_both_cover():
    from made_results import FINETUNE

    def runs(method, epochs):
        recipe = FINETUNE.model_copy(update={"name": f"e{epochs}", "epochs": epochs})
        return make_results(pairs=PAIR, methods=[method], compressions=(1, 4), recipe=recipe)

    results = (
        runs("random", 10) + runs("random", 40) + runs("global_magnitude", 20) + runs("global_gradient", 90)
    )
    table = at_equal_training(observe(results))
    assert set(table["level"]) == {20.0}
    assert set(table["method"]) == {"random", "global_magnitude"}


def of_two_lengths(method, seeds, *, lost=()):
    """Runs of 5 and 50 epochs; seed 0 is a lucky one, and those ``lost`` fail where they prune."""
    from made_results import FINETUNE, make_result, make_spec

    def accuracy(spec):
        better = 0.01 * (spec.method.name == "global_magnitude")
        return 0.9 + 0.05 * (spec.seed == 0) + better + 0.0001 * spec.recipe.epochs

    for epochs, ratio, seed in itertools.product((5, 50), (1.0, 4.0), seeds):
        recipe = FINETUNE.model_copy(update={"name": f"e{epochs}", "epochs": epochs})
        spec = make_spec(method=method, compression=ratio, seed=seed, recipe=recipe)
        fails = "diverged" if seed in lost and not spec.is_control else None
        yield make_result(spec, accuracy=accuracy, failed=fails)


@pytest.mark.parametrize(("seeds", "lost"), [((0,), ()), ((0, 1, 2), (1, 2))], ids=["one seed", "failed"])
def test_a_lucky_seed_wins_nothing_at_equal_training(seeds, lost):
    whole = [*of_two_lengths("global_magnitude", (0, 1, 2)), *of_two_lengths("layerwise_magnitude", (0, 1, 2))]
    told = {run.key: run for run in (*whole, *of_two_lengths("random", seeds, lost=lost))}
    warnings = reach_verdict(observe(told.values())).warnings
    (sentence,) = [warning for warning in warnings if "equal numbers of epochs" in warning]
    assert sentence.endswith("mean in 2 comparisons, which are not tested: global_magnitude 2.")
    table = at_equal_training(observe(told.values()))
    assert set(table["method"]) == {"global_magnitude", "layerwise_magnitude"}
    assert set(table["seed"]) == {0, 1, 2}


def test_level_means_at_equal_training_are_nobodys():
    both = [*of_two_lengths("layerwise_magnitude", (0, 1)), *of_two_lengths("random", (0, 1))]
    warnings = reach_verdict(observe(both)).warnings
    assert any(warning.endswith("which are not tested: level in 2.") for warning in warnings)


def test_winners_are_paired_by_seed(observations):
    table = winners(observations).set_index("level")
    rows = observations.pruned[observations.pruned["compression_target"] == 16]
    wide = rows.pivot(index="seed", columns="method", values="top1")
    first, second = wide.mean().sort_values(ascending=False).index[:2]
    assert (table.loc[16, "best"], table.loc[16, "runner_up"]) == (first, second)
    assert table.loc[16, "difference"] == pytest.approx((wide[first] - wide[second]).mean())
    assert (table["difference"] >= 0).all()


def test_pairs_have_one_unit_for_each_seed(observations):
    table = pairwise(observations)
    assert len(table) == 7 * 6 / 2
    assert set(table["n"]) == {3}


def test_curve_summaries_use_the_range_that_all_methods_share():
    results = make_results(pairs=PAIR, methods=["random"], compressions=(1, 2, 4))
    results += make_results(pairs=PAIR, methods=["global_magnitude"], compressions=(1, 2, 4, 8, 16, 32))
    table = curve_summaries(observe(results)).set_index("method")
    short = make_results(pairs=PAIR, methods=["global_magnitude"], compressions=(1, 2, 4))
    alone = curve_summaries(observe(short)).set_index("method")
    assert table.loc["global_magnitude", "area"] == pytest.approx(alone.loc["global_magnitude", "area"])


# Citations and origin


def test_citations_name_what_they_are_for():
    results = [
        r.model_copy(update={"references": {"model": "he2016deep", "method": "nowhere2020"}})
        for r in make_results(pairs=PAIR, methods=["random"], seeds=(0,))
    ]
    found = {c.key: c for c in cite(results)}
    assert found["he2016deep"].cited_for[:1] == ("network resnet20",)
    assert found["he2016deep"].year == 2016
    assert found["nowhere2020"].entry == ""
    text = bibtex(found.values())
    assert "@inproceedings{he2016deep" in text
    assert "nowhere2020" not in text
    assert set(parse_bibtex(text)) == {c.key for c in found.values() if c.entry}


def test_origin_lists_every_value_once():
    origin = trace_origin(make_results(), None)
    assert [d.name for d in origin.recipes] == ["cifar-finetune", "pretrain"]
    assert {d.name for d in origin.datasets} == {"cifar10", "imagenet"}
    assert dict(origin.recipes[0].values)["epochs"] == "5"
    assert sum(m.runs for m in origin.machines) == 378
    assert origin.commands == (("shrinkbench sweep made", 378),)


def test_experiment_files_give_the_same_grid(tmp_path):
    experiment = ExperimentSpec(
        name="e",
        description='with "quotes" and \\',
        dataset=("a", "b"),
        model="m",
        method="random",
        compression=(1, 2.5),
        seed=(0, 3),
        finetune={"epochs": 2, "precision": "bf16-mixed"},
        train_images=100,
    )
    (tmp_path / "e.toml").write_text(as_toml(experiment))
    assert read_experiments(tmp_path / "e.toml") == (experiment,)


def test_a_run_of_the_made_store_is_plausible():
    spec = make_spec(compression=8.0)
    assert spec.key == make_spec(compression=8.0).key != make_spec(compression=8.0, seed=1).key


def smaller(result, compression):
    """The result of a network that was compressed as much as that."""
    layers = layer_densities(result.spec.method, compression)
    return result.model_copy(update={"size": size_of(layers), "layers": layers})


def test_a_caption_says_where_bold_compares_if_not_at_the_amount_asked_for():
    """One network fell short of 32x: the bold cell of that column is the best at 29x."""
    whole = make_results(pairs=PAIR, methods=["global_magnitude", "layerwise_magnitude"])
    (table,) = result_tables(observe(whole), "top1")
    assert "Bold compares" not in table.caption
    short = [
        smaller(r, 29.0) if (r.spec.method.name, r.spec.target) == ("layerwise_magnitude", 32) else r
        for r in whole
    ]
    (table,) = result_tables(observe(short), "top1")
    assert table.caption.endswith("interpolated where one fell short: 32× at 29×.")
