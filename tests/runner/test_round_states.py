"""Rounds that runs of one method have in common are done once, and the outcome is that of separate runs."""

import pytest
import torch

from shrinkbench.results.store import ResultStore
from shrinkbench.results.upkeep import verify_store
from shrinkbench.runner import retraining as middle
from shrinkbench.runner import sweep
from shrinkbench.runner.sealing import load_sealed, save_sealed
from shrinkbench.spec import ExperimentSpec, parse_value

BASE = {
    "name": "states",
    "dataset": "digits",
    "model": "digits-cnn",
    "method": "global_magnitude[schedule=iterative-50]",
    "compression": [1.9, 3.5, 7],
    "seed": [0],
    "train_images": 64,
    "test_images": 100,
    "pretrain": {"epochs": 2},
    "finetune": {"epochs": 1},
}
ROUNDS = {1.9: 1, 3.5: 2, 7: 3}


def experiment(**fields):
    return parse_value(ExperimentSpec, {**BASE, **fields}, where="test")


@pytest.fixture
def trainings(monkeypatch):
    """The rounds that are trained after, as they are."""
    seen = []
    train = middle._train

    def noted(trial, outcome, iteration, *, last=True):
        seen.append((trial.spec.target, iteration, last))
        train(trial, outcome, iteration, last=last)

    monkeypatch.setattr(middle, "_train", noted)
    return seen


def results_of(root):
    results, problems = ResultStore(root).results()
    assert not problems
    assert not [r.error for r in results if r.error]
    return {(r.spec.method.name, r.spec.target): r for r in results}


def told(result):
    return result.model_dump(exclude={"provenance"})


def states(root):
    return list(root.glob("shared/states/*/card.json"))


@pytest.mark.parametrize("smaller", [False, True], ids=["masked", "smaller"])
def test_the_common_rounds_are_done_once_and_the_numbers_are_those_of_separate_runs(
    tmp_path, trainings, smaller
):
    fields = {"method": "channel_l1[schedule=iterative-50]"} if smaller else {}
    sweep(experiment(**fields), tmp_path / "one", device="cpu", train_smaller=smaller)
    together = list(trainings)
    trainings.clear()
    for ratio in BASE["compression"]:
        sweep(
            experiment(compression=[ratio], **fields),
            tmp_path / f"{ratio:g}",
            device="cpu",
            train_smaller=smaller,
        )
    assert [t for t in trainings if t[0] == 7] == [(7, 0, False), (7, 1, False), (7, 2, True)]
    assert together == [(1.9, 0, True), (3.5, 0, False), (3.5, 1, True), (7, 1, False), (7, 2, True)]
    one = results_of(tmp_path / "one")
    for (method, ratio), result in one.items():
        alone = results_of(tmp_path / f"{ratio:g}")[method, ratio]
        assert told(result) == told(alone)
        assert result.provenance.smaller == alone.provenance.smaller
        if smaller:
            assert result.provenance.smaller.smaller == ROUNDS[ratio]
    assert len(states(tmp_path / "one")) == 1
    assert verify_store(ResultStore(tmp_path / "one")) == []
    assert not any(states(tmp_path / f"{ratio:g}") for ratio in BASE["compression"])  # nobody else would go on


@pytest.mark.parametrize(
    ("finetuning", "together"),
    [
        ("continue", [(2, 0, True), (4, 1, True), (8, 2, True)]),
        # an architecture that is trained from scratch at its end was rewound on the way
        ("scratch-e", [(2, 0, True), (4, 0, False), (4, 1, True), (8, 1, False), (8, 2, True)]),
    ],
)
def test_an_end_that_others_go_through_is_their_round(tmp_path, trainings, finetuning, together):
    method = f"global_magnitude[schedule=halve-in-1,finetuning={finetuning}]"
    sweep(experiment(method=method, compression=[2, 4, 8]), tmp_path / "one", device="cpu")
    assert trainings == together
    for ratio in (2, 4, 8):
        sweep(experiment(method=method, compression=[ratio]), tmp_path / f"{ratio}", device="cpu")
        ((named, alone),) = results_of(tmp_path / f"{ratio}").items()
        assert told(results_of(tmp_path / "one")[named]) == told(alone)
        assert alone.size.compression == pytest.approx(ratio, rel=1e-3)


def test_runs_in_another_order_share_what_is_there(tmp_path, trainings):
    sweep(experiment(compression=[7, 3.5, 1.9]), tmp_path, device="cpu")
    assert trainings == [(7, 0, False), (7, 1, False), (7, 2, True), (3.5, 1, True), (1.9, 0, True)]


def test_what_decides_a_round_is_part_of_its_state(tmp_path, trainings):
    """Other seeds, recipes and methods, and training on other networks, share nothing."""
    sweep(experiment(compression=[3.5, 7]), tmp_path, device="cpu")
    trainings.clear()
    for change in (
        {"seed": [1]},
        {"finetune": {"epochs": 1, "learning_rate": 1e-2}},
        {"method": "global_gradient[schedule=iterative-50]"},
        {"method": "lottery_ticket[schedule=iterative-50]"},
    ):
        sweep(experiment(compression=[7], **change), tmp_path, device="cpu")
        assert [t[1] for t in trainings] == [0, 1, 2], change
        trainings.clear()
    sweep(experiment(compression=[6.9]), tmp_path, device="cpu", train_smaller=True)
    assert [t[1] for t in trainings] == [0, 1, 2]
    trainings.clear()
    sweep(experiment(compression=[6.8]), tmp_path, device="cpu")
    assert [t[1] for t in trainings] == [1, 2]


def test_rounds_that_follow_from_the_target_are_not_shared(tmp_path, trainings):
    """Three equal factors to each target: no round of one is a round of another."""
    plugin = tmp_path / "even.py"
    plugin.write_text(
        "from shrinkbench import SCHEDULES\n"
        "from shrinkbench.pruning.schedules.before_training import exponential\n"
        "from shrinkbench.pruning.schedules.schedule import Schedule\n"
        'SCHEDULES.add("even-three", Schedule("even-three", "three", exponential(3), rounds=3))\n'
    )
    from shrinkbench.pruning import load_plugin

    load_plugin(plugin)
    grid = experiment(method="global_magnitude[schedule=even-three]", compression=[3.5, 7])
    sweep(grid, tmp_path / "out", device="cpu", plugins=[plugin])
    assert len(trainings) == 6
    assert not states(tmp_path / "out")


def test_a_damaged_state_is_set_aside_and_its_rounds_are_done_again(tmp_path, trainings):
    sweep(experiment(compression=[3.5, 7]), tmp_path, device="cpu")
    (card,) = states(tmp_path)
    card.write_text("{}")
    trainings.clear()
    sweep(experiment(compression=[6.8]), tmp_path, device="cpu")
    assert [t[1] for t in trainings] == [0, 1, 2]


def test_controls_with_a_methods_proportions_have_their_own_rounds(tmp_path, trainings):
    names = ["random@lottery_ticket[schedule=iterative-50]", "lottery_ticket[schedule=iterative-50]"]
    sweep(experiment(method=names, compression=[3.5, 7]), tmp_path / "one", device="cpu")
    for ratio in (3.5, 7):
        sweep(experiment(method=names, compression=[ratio]), tmp_path / f"{ratio:g}", device="cpu")
        one, alone = results_of(tmp_path / "one"), results_of(tmp_path / f"{ratio:g}")
        assert all(told(one[key]) == told(result) for key, result in alone.items())


def test_states_of_other_threads_are_not_gone_on_from(tmp_path, trainings):
    """A run says of all of itself with how many threads it was computed."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(before + 1)
        sweep(experiment(compression=[3.5, 7]), tmp_path, device="cpu")
        trainings.clear()
        torch.set_num_threads(before)
        sweep(experiment(compression=[6.8]), tmp_path, device="cpu")
    finally:
        torch.set_num_threads(before)
    assert [t[1] for t in trainings] == [0, 1, 2]


def test_a_state_whose_files_are_of_two_writers_is_not_taken(tmp_path, trainings):
    sweep(experiment(compression=[3.5, 7]), tmp_path, device="cpu")
    (card,) = states(tmp_path)
    masks = card.with_name("masks.safetensors")
    others = {name: ~mask for name, mask in load_sealed(masks, key=card.parent.name).items()}
    save_sealed(others, masks, key=card.parent.name)
    trainings.clear()
    sweep(experiment(compression=[6.8]), tmp_path, device="cpu")
    assert [t[1] for t in trainings] == [0, 1, 2]


COUNTS = """
from torch import nn

class Counts(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.passes, self.fc1, self.fc2 = 0, nn.Linear(64, 32), nn.Linear(32, num_classes)

    def forward(self, x):
        self.passes += self.training
        return self.fc2(self.fc1(x.flatten(1)).relu() / (1 + self.passes / 10))
"""


def test_a_network_from_outside_does_all_of_its_rounds(tmp_path, trainings):
    """It may go on from more than its tensors."""
    (tmp_path / "counts.py").write_text(COUNTS)
    model = f"{tmp_path}/counts.py:Counts"
    sweep(experiment(model=model, compression=[3.5, 7]), tmp_path / "out", device="cpu")
    for ratio in (3.5, 7):
        rounds = [iteration for target, iteration, _ in trainings if target == ratio]
        assert rounds == [*range(len(rounds))]
    assert not states(tmp_path / "out")
