"""A detector pruned after the transfer: what it computes, and what is refused."""

from __future__ import annotations

import pytest
import torch
from made_voc import classifier, write_voc

from shrinkbench.datasets.voc_detection import read_voc
from shrinkbench.errors import ShrinkbenchError
from shrinkbench.models.faster_rcnn import build_detector
from shrinkbench.network.coupling import couple
from shrinkbench.pruning.structures.channel_masks import masks_of_units
from shrinkbench.spec import Recipe
from shrinkbench.surgery.detector import shrink_detector
from shrinkbench.training import RECIPES


@pytest.fixture(scope="module")
def voc(tmp_path_factory):
    return write_voc(tmp_path_factory.mktemp("voc"))


def detector():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_detector(classifier(), min_size=96, max_size=128)


@pytest.mark.slow
def test_prune_d_keeps_what_the_detector_learned_where_nothing_is_removed(voc):
    made = detector().eval()
    image = read_voc(voc, "test")[0][0]
    module = classifier()
    coupling = couple(module, (3, 64, 64))
    keep = {
        g.layer: torch.arange(g.units) % 2 == 0
        for g in coupling.free
        if g.layer.endswith("conv1") and "layer" in g.layer
    }
    masks = masks_of_units(module, coupling, keep)
    small = shrink_detector(made, masks, (3, 64, 64))
    with torch.no_grad():
        for layer in (made, small):
            assert {"boxes", "labels", "scores"} <= layer([image])[0].keys()
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in made.parameters())
    assert small.network.backbone.stages[1][0].conv1.out_channels == 64
    for name in ("rpn", "roi_heads.box_predictor"):
        for a, b in zip(
            small.network.get_submodule(name).parameters(),
            made.network.get_submodule(name).parameters(),
            strict=True,
        ):
            assert torch.equal(a, b)
    whole = {g.layer: torch.ones(g.units, dtype=torch.bool) for g in coupling.free}
    same = shrink_detector(made, masks_of_units(module, coupling, whole), (3, 64, 64)).eval()
    with torch.no_grad():
        torch.testing.assert_close(same([image])[0]["boxes"], made([image])[0]["boxes"])


@pytest.mark.slow
def test_masks_that_narrow_a_stage_are_refused():
    module = classifier()
    coupling = couple(module, (3, 64, 64))
    stream = coupling.group_of("layer3.0.conv2")
    masks = masks_of_units(module, coupling, {stream.layer: torch.arange(stream.units) > 3})
    with pytest.raises(ShrinkbenchError, match="prune inner channels of blocks alone"):
        shrink_detector(detector(), masks, (3, 64, 64))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:shrinkbench.detection has moved")
def test_the_example_of_the_last_version_still_runs(voc):
    from shrinkbench.detection import mean_average_precision, prune_detector, read_voc, train_detector

    made, told = detector(), []
    images = read_voc(voc, "trainval")
    losses = train_detector(
        made,
        images,
        Recipe(**{**RECIPES.get("voc-faster-rcnn").model_dump(), "epochs": 1}),
        seed=0,
        on_epoch=lambda epoch, loss: told.append((epoch, loss)),
    )
    assert told == list(enumerate(losses, 1))
    assert len(told) == 1
    smaller = prune_detector(made, {}, (3, 64, 64))
    found = mean_average_precision(smaller, read_voc(voc, "test"))
    assert 0 <= found["mean"] <= 1
    assert set(found) <= {"mean", "person", "car"}
