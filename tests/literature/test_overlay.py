"""Own results beside published ones: the same normalisation, and notes that follow from the data."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from statistics import stdev

import numpy as np
import pandas as pd
import pytest
from places import SHARED
from torch.nn import Linear

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.literature import Corpus
from shrinkbench.literature.curves import PublishedCurve, PublishedPoint
from shrinkbench.literature.filters import extract
from shrinkbench.literature.overlay import Overlay, OverlayPanel, overlay, published_pairs, read_own
from shrinkbench.literature.overlay_figure import OFF_SCALE, View, draw_overlay, views_of, write_overlay
from shrinkbench.models import MODELS, ModelCard, get_model
from shrinkbench.plotting import STRIP
from shrinkbench.spec.published_names import PUBLISHED_AS, published_names, without_provider

EXPORT = SHARED / "data" / "corpus"
CONTROL = {0: 0.930, 1: 0.934}
PRUNED = {0: 0.920, 1: 0.930}


def _own(model: str = "resnet56", dataset: str = "cifar10", **more: object) -> pd.DataFrame:
    rows = []
    for seed in CONTROL:
        common = {
            "dataset": dataset,
            "model": model,
            "task": f"{dataset} / {model}",
            "task_key": f"key of {dataset} / {model}",
            "seed": seed,
            "status": "done",
            "recipe_key": "tune",
            "control": "control",
            "control_key": f"control {dataset} {model} {seed}",
            "train_images": float("nan"),
            "validation_images": float("nan"),
            "test_images": float("nan"),
            "parameters_kept": 853_018,
            "top5": 0.998,
            **more,
        }
        for method in ("global_weight", "random"):  # the control is listed under each method
            named = {**common, "method": method, "method_key": f"key of {method}"}
            rows.append(
                {
                    **named,
                    "key": f"control of {method} {seed} {common['task_key']}",
                    "amount": "1x",
                    "compression_target": 1.0,
                    "compression": 1.0,
                    "theoretical_speedup": 1.0,
                    "top1": CONTROL[seed],
                }
            )
            rows.append(
                {
                    **named,
                    "key": f"{method} {seed} {common['task_key']}",
                    "amount": "4x",
                    "compression_target": 4.0,
                    "compression": 4.02,
                    "theoretical_speedup": 2.5,
                    "top1": PRUNED[seed],
                }
            )
    return pd.DataFrame(rows)


def test_changes_are_from_the_control_of_the_same_seed(bundled: Corpus) -> None:
    (found,) = overlay(_own(), bundled).found
    panel = next(p for p in found.panels if (p.x, p.y) == ("compression", "top1_change"))
    curve = next(c for c in panel.own if c.label == "global_weight (own)")
    assert [p.x for p in curve.points] == pytest.approx([1.0, 4.02])
    assert curve.points[1].y == pytest.approx((-0.010 - 0.004) / 2)
    assert curve.points[1].spread == pytest.approx(stdev([-0.010, -0.004]))
    assert (curve.points[0].y, curve.points[1].results) == (0.0, 2)


def test_published_curves_are_those_of_the_corpus(bundled: Corpus) -> None:
    (found,) = overlay(_own(), bundled).found
    panel = next(p for p in found.panels if p.x == "compression")
    fine_tuned = next(c for c in panel.published if c.label.endswith("(Li 2017), fine-tuned"))
    assert [p.x for p in fine_tuned.points] == pytest.approx([853_018 / 773_336, 853_018 / 735_712])
    assert [p.y for p in fine_tuned.points] == pytest.approx([0.9297 - 0.9314, 0.9267 - 0.9314])


def test_metrics_that_one_side_lacks_get_no_panel(bundled: Corpus) -> None:
    (found,) = overlay(_own(), bundled).found
    assert {(p.x, p.y) for p in found.panels} == {("compression", "top1_change"), ("speedup", "top1_change")}


@pytest.mark.parametrize(
    ("dataset", "model", "pairs"),
    [
        ("cifar10", "resnet56", {("CIFAR-10", "ResNet-56")}),
        ("CIFAR-10", "resnet56-projection", {("CIFAR-10", "ResNet-56")}),
        ("cifar10", "cifar-vgg", {("CIFAR-10", "VGG-Torch-CIFAR10"), ("CIFAR-10", "VGG-16")}),
        ("imagenet", "torchvision/vgg16_bn", {("ImageNet", "VGG-16")}),
        ("imagenet", "timm/resnet50.tv_in1k", {("ImageNet", "ResNet-50")}),
        ("imagenet", "alexnet-2012", {("ImageNet", "Alex/CaffeNet")}),
        ("imagenet", "caffenet", {("ImageNet", "Alex/CaffeNet")}),
        ("imagenet", "vgg16-gap", {("ImageNet", "VGG-GAP"), ("ImageNet", "VGG-16")}),
        ("imagenet", "sss-resnet-50", {("ImageNet", "ResNet-50")}),
        ("digits", "digits-cnn", set()),
        ("cifar100", "resnet56-nonesuch", set()),
    ],
)
def test_published_names_of_own_networks(
    export: Corpus, dataset: str, model: str, pairs: set[tuple[str, str]]
) -> None:
    assert set(published_pairs(export, extract(export, "curves"), dataset, published_names(model))) == pairs


@pytest.mark.parametrize(
    ("model", "architecture"),
    [("vgg16-gap", "VGG-16"), ("vgg11-slimming", "VGG-11"), ("sss-resnet-50", "ResNet-50")],
)
def test_networks_of_the_shipped_experiments_meet_their_published_rows(
    bundled: Corpus, model: str, architecture: str
) -> None:
    names = get_model(model).published_as
    assert published_pairs(bundled, extract(bundled, "curves"), "imagenet", names) == (
        ("ImageNet", architecture),
    )


def test_every_network_with_a_published_name_exists_and_its_card_has_it() -> None:
    for name, published in PUBLISHED_AS.items():
        card = get_model(name if name in MODELS else f"torchvision/{name}")
        assert card.published_as == published
        assert published_names(card.name) == published


def test_every_network_that_has_published_rows_says_so_on_its_card(
    bundled: Corpus, request: pytest.FixtureRequest
) -> None:
    corpora = [bundled, *([request.getfixturevalue("export")] if EXPORT.is_dir() else [])]
    architectures = {"".join(filter(str.isalnum, r.architecture)).lower() for c in corpora for r in c.results}
    library = [f"torchvision/{name}" for name in ("alexnet", "googlenet", "vgg16", "resnet50", "mobilenet_v2")]
    for name in [*MODELS, *library]:
        if "".join(filter(str.isalnum, without_provider(name))).lower() in architectures:
            assert get_model(name).published_as, name


def test_a_network_of_narrower_layers_is_not_the_published_one() -> None:
    assert get_model("resnet20-width-0.5").published_as == ()


def test_a_network_of_ones_own_goes_by_what_its_card_says(bundled: Corpus) -> None:
    card = ModelCard(name="mine", published_as=("ResNet-56",), build=lambda classes: Linear(1, classes))
    own = _own(model="mine", published_as="; ".join(card.published_as))
    (found,) = overlay(own, bundled).found
    assert found.pairs == (("CIFAR-10", "ResNet-56"),)
    both = _own(model="mine", published_as="ResNet-110; ResNet-56")
    assert len(overlay(both, bundled).found[0].pairs) == 2
    for silent in (_own(model="mine"), _own(model="mine", published_as=None)):
        assert overlay(silent, bundled).unmatched


def test_errata_of_the_published_side_are_noted(export: Corpus) -> None:
    own = _own(model="torchvision/vgg16", dataset="imagenet")
    (found,) = overlay(own, export).found
    assert any("Published numbers: errata applied: 3 (zhang" in note for note in found.notes)
    (other,) = overlay(_own(), export).found
    assert not any("rrata" in note for note in other.notes)


def test_notes_say_what_differs(export: Corpus) -> None:
    own = pd.concat([_own(top5=None), _own().tail(1).assign(key="f", status="failed", top1=None)])
    (found,) = overlay(own, export).found
    notes = " ".join(found.notes)
    assert "own control, the unpruned network trained alike (93.20 % top-1, 2 seeds)" in notes
    assert "means of 2 seeds" in notes
    assert "6 give any spread" in notes
    assert "resnet56 (0.853 M parameters)" in notes
    assert "option A; option B" in notes
    assert "failed and have no point: 1" in notes


def test_unequal_starting_points_are_pointed_out(bundled: Corpus) -> None:
    weaker = _own()
    weaker["top1"] -= 0.05
    (found,) = overlay(weaker, bundled).found
    assert any("points below the published median" in note for note in found.notes)


def test_tasks_without_counterpart_are_named(bundled: Corpus) -> None:
    own = pd.concat([_own(), _own(model="digits-cnn", dataset="digits")])
    laid = overlay(own, bundled)
    assert [o.task for o in laid.found] == ["cifar10 / resnet56"]
    (reason,) = laid.unmatched
    assert reason.startswith("digits / digits-cnn: the corpus has no curve")


def _subset(**more: object) -> pd.DataFrame:
    """The same on a part of the data: another task, of other controls."""
    fields = {"task_key": "part", "task": "cifar10 / resnet56 / 300 training, 500 test images"}
    table = _own(train_images=300, test_images=500, **{**fields, **more})
    return table.assign(control_key=table["control_key"] + " part")


def test_tasks_are_not_pooled_as_if_they_were_seeds(bundled: Corpus) -> None:
    """Two subsets: every point is of one of them, from the control of that one."""
    weaker = _subset()
    weaker["top1"] -= 0.6
    found = overlay(pd.concat([_own(), weaker]), bundled).found
    assert [o.task for o in found] == [
        "cifar10 / resnet56",
        "cifar10 / resnet56 / 300 training, 500 test images",
    ]
    for one in found:
        panel = next(p for p in one.panels if (p.x, p.y) == ("compression", "top1_change"))
        for curve in panel.own:
            assert curve.points[1].y == pytest.approx((-0.010 - 0.004) / 2)
            assert curve.points[1].results == 2


def test_notes_say_that_points_come_from_a_subset(bundled: Corpus) -> None:
    whole, part = overlay(pd.concat([_own(), _subset()]), bundled).found
    assert any("a subset of the data: 300 training and 500 test images" in note for note in part.notes)
    assert not any("subset" in note for note in whole.notes)


def test_tasks_that_two_tables_call_alike_are_told_apart(bundled: Corpus, tmp_path: Path) -> None:
    found = overlay(pd.concat([_own(), _subset(task="cifar10 / resnet56")]), bundled).found
    assert [o.task for o in found] == ["cifar10 / resnet56 key of", "cifar10 / resnet56 part"]
    assert not {p.name for p in write_overlay(found[0], tmp_path)} & {
        p.name for p in write_overlay(found[1], tmp_path)
    }


def test_each_run_is_compared_with_its_own_control(bundled: Corpus) -> None:
    """Two ways of training on one task have two controls; neither stands in for the other."""
    anew = _own(control="control, from scratch", recipe_key="train")
    anew = anew.assign(
        control_key=anew["control_key"] + " anew",
        method=anew["method"] + "[finetuning=scratch-e]",
        key=anew["key"] + " anew",
        top1=anew["top1"] - 0.3,
    )
    both = pd.concat([_own(control="control, fine-tuned"), anew])
    (found,) = overlay(both, bundled).found
    panel = next(p for p in found.panels if (p.x, p.y) == ("compression", "top1_change"))
    assert {round(curve.points[1].y, 6) for curve in panel.own} == {-0.007}
    assert any(
        "control, fine-tuned: 93.20 % top-1, 2 seeds; control, from scratch: 63.20 %" in note
        for note in found.notes
    )
    lacking = both[(both["compression_target"] > 1) | (both["control"] == "control, fine-tuned")]
    (found,) = overlay(lacking, bundled).found
    assert {curve.label for panel in found.panels for curve in panel.own} == {
        "global_weight (own)",
        "random (own)",
    }
    assert any("no control of their own, and so no point: 4" in note for note in found.notes)


def test_amounts_that_are_no_compression_are_points_where_they_came_out(bundled: Corpus) -> None:
    table = _own()
    is_pruned = table["compression_target"] > 1
    table.loc[is_pruned, ["amount", "compression_target"]] = ["60% of channels", None]
    (found,) = overlay(table, bundled).found
    curve = next(p for p in found.panels if p.x == "compression").own[0]
    assert [(p.x, p.results) for p in curve.points] == [(1.0, 2 - 1), (pytest.approx(4.02), 2)]


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (
            lambda t: t.drop(columns=["theoretical_speedup", "top1"]),
            "lacks the columns theoretical_speedup, top1",
        ),
        (
            lambda t: t.drop(columns=["task_key", "method_key", "control_key"]),
            "an older version wrote it; write it again with `shrinkbench report`",
        ),
        (lambda t: t.assign(status="failed"), "no finished run"),
    ],
)
def test_tables_that_cannot_be_laid_over(bundled: Corpus, spoil: object, told: str) -> None:
    with pytest.raises(ShrinkbenchError, match=told):
        overlay(spoil(_own()), bundled)  # type: ignore[operator]


def test_tasks_without_a_control_are_told(bundled: Corpus) -> None:
    own = _own()
    laid = overlay(own[own.compression_target > 1], bundled)
    assert not laid.found
    (reason,) = laid.unmatched
    assert "there is no control of a pruned run" in reason


def test_both_files_of_the_report_read_the_same(tmp_path: Path) -> None:
    own = _own()
    own.to_csv(tmp_path / "results.csv", index=False)
    (tmp_path / "report").mkdir()
    own.to_parquet(tmp_path / "report" / "results.parquet")
    pd.testing.assert_frame_equal(
        read_own(tmp_path / "results.csv"), read_own(tmp_path / "report"), check_dtype=False
    )
    assert len(read_own(tmp_path)) == len(own)


def test_files_that_are_no_table(tmp_path: Path) -> None:
    with pytest.raises(ShrinkbenchError, match="holds no results"):
        read_own(tmp_path)
    with pytest.raises(ShrinkbenchError, match="does not exist"):
        read_own(tmp_path / "results.csv")
    (tmp_path / "x.parquet").write_bytes(b"none")
    with pytest.raises(ShrinkbenchError, match="cannot be read as a result table"):
        read_own(tmp_path / "x.parquet")


@pytest.mark.slow
def test_the_figure_shows_both_sides_and_names_both(bundled: Corpus, tmp_path: Path) -> None:
    (found,) = overlay(_own(), bundled).found
    figure = draw_overlay(found)
    assert len(figure.axes) == sum(len(views_of(panel)) for panel in found.panels)
    (legend,) = figure.legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels[:2] == ["global_weight (own)", "random (own)"]
    assert sum(label.startswith("Liu 2019") for label in labels) == 3
    names = {path.suffix for path in write_overlay(found, tmp_path)}
    assert names == {".svg", ".pdf", ".png", ".csv", ".md"}
    assert found.notes[0] in (tmp_path / "overlay-cifar10-resnet56.md").read_text(encoding="utf-8")


def test_collapsed_points_do_not_flatten_the_published_curves(bundled: Corpus) -> None:
    table = _own()
    table.loc[table["compression_target"] > 1, "top1"] = 0.1
    (found,) = overlay(table, bundled).found
    top1 = [panel for panel in found.panels if panel.y == "top1_change"]
    assert top1
    assert all(len(panel.beyond) == 2 for panel in top1)
    assert any("only marks them" in note for note in found.notes)
    drawn = draw_overlay(found)
    for axes, view in zip(drawn.axes, _views(found), strict=True):
        panel = view.panel
        low, high = axes.get_ylim()
        ys = [100 * point.y for curve in panel.published for point in curve.points]
        assert low <= min(ys)
        assert high - low < 30 + 4 * (max(ys) - min(ys))
        drawn.draw_without_rendering()
        marks = [line for line in axes.get_lines() if not line.get_clip_on()]
        assert len(marks) == len(view.beyond)
        for mark in marks:  # outside the axes, between their lower edge and the numbers of the ratio axis
            at = mark.get_transform().transform(np.column_stack(mark.get_data()))[0]
            assert axes.bbox.y0 - STRIP * drawn.dpi < at[1] < axes.bbox.y0
            assert axes.bbox.x0 < at[0] < axes.bbox.x1
    (legend,) = drawn.legends
    assert legend.get_title().get_text() == OFF_SCALE
    (usual,) = overlay(_own(), bundled).found
    assert not any(panel.beyond for panel in usual.panels)
    assert not draw_overlay(usual).legends[0].get_title().get_text()


def _views(found: Overlay) -> list[View]:
    """In the order in which they are drawn."""
    seen = sorted((views_of(panel) for panel in found.panels), key=len, reverse=True)
    return [view for of_panel in seen for view in of_panel]


def test_published_points_that_would_be_crushed_have_a_close_up() -> None:
    def curve(label: str, *points: tuple[float, float]) -> PublishedCurve:
        return PublishedCurve(label, "", 0, tuple(PublishedPoint(x, y, None, 1) for x, y in points))

    own = curve("own", (1.0, 0.0), (2.0, -0.01), (32.0, -0.5))
    crushed = OverlayPanel("compression", "top1_change", (own,), (curve("a", (1.1, -0.01), (1.4, -0.03)),))
    close, whole = views_of(crushed)
    assert (close.low, close.high, close.floor) == (1.0, 1.4, pytest.approx(-0.036))
    assert (whole.low, whole.high, whole.floor) == (1.0, 32.0, crushed.floor)
    assert not close.beyond
    assert [point.x for _, point in whole.beyond] == [32.0]
    wide = OverlayPanel("compression", "top1_change", (own,), (curve("a", (1.1, -0.01), (8.0, -0.03)),))
    assert [(view.low, view.high) for view in views_of(wide)] == [(1.0, 32.0)]
    drawn = draw_overlay(Overlay("t", "overlay-t", (), (crushed, wide), ()))
    assert [axes.get_title() for axes in drawn.axes] == [close.title, whole.title, ""]
    ratios = [axes.get_xlim()[1] for axes in drawn.axes]
    assert ratios[0] < 1.5
    assert min(ratios[1:]) > 32


def test_values_that_are_no_numbers_are_named_with_their_row(bundled: Corpus, tmp_path: Path) -> None:
    table = _own().astype({"top1": object})
    table.loc[2, "top1"] = "abc"
    table.to_csv(tmp_path / "results.csv", index=False)
    with pytest.raises(ShrinkbenchError, match="top1 holds 'abc' in row 3"):
        overlay(read_own(tmp_path / "results.csv"), bundled)
    (tmp_path / "table.zip").write_text("no zip at all")
    with pytest.raises(ShrinkbenchError, match="lacks the columns"):
        overlay(read_own(tmp_path / "table.zip"), bundled)


@pytest.mark.slow
def test_networks_that_differ_in_case_have_files_of_their_own(bundled: Corpus, tmp_path: Path) -> None:
    laid = overlay(pd.concat([_own(), _own(model="ResNet56")]), bundled).found
    assert len(laid) == 2
    files = [{path.name.lower() for path in write_overlay(found, tmp_path)} for found in laid]
    assert not files[0] & files[1]


def test_a_run_that_was_measured_further_is_no_other_seed(bundled: Corpus) -> None:
    table = _own()
    again = table[table["seed"] == 0].assign(key=lambda t: t["key"] + " again", top1=lambda t: t["top1"] - 0.1)
    (found,) = overlay(pd.concat([table, again]), bundled).found
    assert {point.results for curve in found.panels[0].own for point in curve.points[1:]} == {len(CONTROL)}


def test_compressions_of_one_label_are_points_of_their_own(bundled: Corpus) -> None:
    table = _own()
    other = table[table["compression_target"] > 1].assign(
        key=lambda t: t["key"] + " other", compression_target=4.0000001
    )
    (found,) = overlay(pd.concat([table, other]), bundled).found
    for curve in found.panels[0].own:
        assert [point.results for point in curve.points[1:]] == [len(CONTROL), len(CONTROL)]


@pytest.mark.parametrize(
    ("column", "value"),
    [
        *(("top1", value) for value in (92.0, 1.2, -0.2, np.inf)),
        *(("top5", 99.8), ("compression", 0.25), ("compression", 0.0), ("compression", np.inf)),
        ("theoretical_speedup", -3.0),
    ],
)
def test_numbers_that_a_column_cannot_hold_are_refused(bundled: Corpus, column: str, value: float) -> None:
    """Percentages and densities would be drawn as changes of thousands of points, and as networks that grew."""
    own = _own()
    own.loc[own["compression_target"] == 4, column] = value
    with pytest.raises(ShrinkbenchError, match=f"column {column} holds .* in row 2, and it is"):
        overlay(own, bundled)


@pytest.mark.parametrize(("value", "unit"), [("193.1", "percent"), ("-5", "percent"), ("92.97", "fraction")])
def test_published_values_that_cannot_be_are_left_out_and_counted(
    bundled: Corpus, value: str, unit: str
) -> None:
    (before,) = overlay(_own(), bundled).found
    facts = list(bundled.facts)
    place = next(
        n
        for n, f in enumerate(facts)
        if (f.architecture, f.quantity, f.network) == ("ResNet-56", "top1", "ResNet-56-A")
    )
    facts[place] = facts[place].model_copy(update={"value": Decimal(value), "unit": unit})
    (after,) = overlay(_own(), replace(bundled, facts=tuple(facts))).found
    drawn = [
        {p.y for panel in found.panels for curve in panel.published for p in curve.points}
        for found in (before, after)
    ]
    assert drawn[1] < drawn[0]
    told = [note for note in after.notes if note not in before.notes]
    assert any(note.startswith("1 published value that cannot be is left out") for note in told)
