"""Every experiment that comes with the package can be planned: names, recipes, epochs, part by part."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest
from places import ROOT

from shrinkbench.datasets import DATASETS, Dataset
from shrinkbench.errors import ShrinkbenchError
from shrinkbench.models import build, get_model, known_weights
from shrinkbench.pruning import METHODS, rounds_of
from shrinkbench.pruning.allocations.by_pattern import Pattern, ShapePoint
from shrinkbench.spec import IMAGENET_NORMALISATION, Compression, read_experiments

planning = import_module("shrinkbench.runner.planning")  # the package exports the function of the same name
FILES = sorted((ROOT / "experiments").glob("*.toml"))


class Images:
    """A million, of whatever labels."""

    def __len__(self):
        return 10**6

    def subset(self, count):
        return self


class AllData:
    """A workspace that has every dataset, as far as planning looks at it."""

    def dataset(self, name):
        images = Images()
        return Dataset(
            card=DATASETS.get(name), train=images, validation=images, test=images, revision="r", class_names=()
        )


@pytest.fixture(autouse=True)
def published_weights(monkeypatch):
    def locate(source, *, card):
        assert source in [entry.name for entry in known_weights(card)], (card.name, source)
        return SimpleNamespace(
            name=source, sha256="0" * 64, normalisation=IMAGENET_NORMALISATION, path=Path(source)
        )

    monkeypatch.setattr(planning, "locate_weights", locate)


@pytest.fixture(autouse=True)
def made_patterns(tmp_path, monkeypatch):
    """The patterns that Figure 6 right is guided by: a person has made them of the runs of Figure 4 by then."""
    point = ShapePoint(compression=2, networks=1, stages=((0.5,) * 9,))
    for stem in ("rethinking-figure-4", "rethinking-figure-4-small"):
        Pattern(kind="kernels", source=stem, points=(point,)).save(tmp_path / f"{stem}.json")
    monkeypatch.chdir(tmp_path)


def runs_of(path):
    return [run for part in read_experiments(path) for run in planning.plan(part, AllData()).runs]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_experiment_can_be_planned(path):
    parts = read_experiments(path)
    assert all(part.name.startswith(path.stem) for part in parts)  # the output folder has the file's name
    runs = runs_of(path)
    assert len({run.key for run in runs}) == len(runs) > 0


# Liu et al. 2019, Section 3 and Appendices A, D and E; Scratch-E has the epochs of the large network.
@pytest.mark.parametrize(
    ("table", "dataset", "training", "finetuning"),
    [
        ("1", "cifar10", {160}, {40}),
        ("1", "imagenet", {90}, {20}),
        ("2", "imagenet", {90}, {20}),
        ("3", "imagenet", {90}, {20}),
        ("4", "cifar100", {160}, {40}),
        ("5", "imagenet", {100}, set()),
        ("6", "cifar10", {160}, {40}),
        ("10", "cifar10", {200}, {200}),
        ("13", "cifar10", {160}, {40}),
        ("16", "cifar10", {160}, {40, 80, 160}),
        ("17", "cifar10", {300}, {40}),
    ],
)
def test_epochs_are_those_of_the_paper(table, dataset, training, finetuning):
    path = next(p for p in FILES if p.stem == f"rethinking-table-{table}")
    runs = [r for r in runs_of(path) if r.data.name == dataset]
    large = {r.weights.recipe.epochs for r in runs if r.weights.recipe}
    single = [r for r in runs if r.method.start == "initialisation" and not r.search]  # pruned while trained
    anew = {r.recipe.epochs for r in [*single, *(r for r in runs if r.method.from_scratch)]}
    tuned = {
        r.recipe.epochs for r in runs if r not in single and r.method.finetuning.name in ("continue", "none")
    }
    assert large | anew == training
    assert tuned == finetuning
    seeds = {r.seed for r in runs}
    assert seeds == ({0, 1, 2, 3, 4} if dataset.startswith("cifar") else {0})


def test_scratch_is_doubled_at_most_on_imagenet_alone():
    for number in (1, 2, 4, 6, 13):
        path = next(p for p in FILES if p.stem == f"rethinking-table-{number}")
        for run in runs_of(path):
            if run.method.from_scratch:
                assert run.recipe.largest_stretch == (2 if run.data.name == "imagenet" else None)


@pytest.mark.parametrize("number", range(1, 22))
def test_every_table_has_an_experiment_and_a_small_one(number):
    """By its own file or by one whose description names it; of Table 12 it is the classifiers."""
    first = {11: 10, 14: 13, 15: 13, 18: 7, 19: 7, 20: 7, 21: 7}.get(number, number)
    for suffix in ("", "-small"):
        path = next(p for p in FILES if p.stem == f"rethinking-table-{first}{suffix}")
        assert get_model(read_experiments(path)[0].model[0])


@pytest.mark.parametrize("number", [3, 4, 5, 6, "6-right", 7, 8])
def test_every_figure_of_results_has_an_experiment_and_a_small_one(number):
    stem = "table-9" if number == 7 else f"figure-{number}"
    assert {f"rethinking-{stem}", f"rethinking-{stem}-small"} <= {path.stem for path in FILES}


@pytest.mark.parametrize("number", [6, 7, 8, 11, 15])
def test_every_figure_of_shrinkbench_has_an_experiment_and_a_small_one(number):
    """Figures 9, 10, 13, 14 are the networks of 7; 12, 16, 17 and 18 show other figures' runs by speedup."""
    stem = "cifar10-resnet20" if number == 11 else f"shrinkbench-figure-{number}"
    assert {stem, f"{stem}-small"} <= {path.stem for path in FILES}


# Images a second of one core: training, evaluating.
RATES = {"resnet20": (400, 1500), "cifar-vgg": (200, 750), "resnet56": (133, 500)}


@pytest.mark.parametrize("number", [6, 7, 8, 15])
def test_small_twins_of_shrinkbench_take_an_hour_of_one_core(number):
    seconds = 0.0
    runs = runs_of(ROOT / "experiments" / f"shrinkbench-figure-{number}-small.toml")
    controls = {run.control.key: run.control for run in runs}
    for run in [*controls.values(), *(run for run in runs if not run.is_control)]:
        train, evaluate = RATES[run.model.name]
        data, epochs = run.data, run.recipe.epochs
        seconds += epochs * data.train_images / train
        seconds += (epochs * data.validation_images + 2 * data.test_images) / evaluate
    for spec in {run.pretraining.key: run.pretraining for run in runs if run.pretraining}.values():
        train, evaluate = RATES[spec.model.name]
        seconds += spec.recipe.epochs * (
            spec.data.train_images / train + spec.data.validation_images / evaluate
        )
    assert seconds / 60 < 60
    assert {run.recipe.precision for run in runs} == {"bf16-mixed"}
    assert {run.seed for run in runs} == set(range(5 if number == 8 else 3))


def test_iterative_tickets_are_found_at_each_of_fifteen_rounds():
    """A target that is rounded up takes one round more, which prunes next to nothing and trains in full."""
    for part in read_experiments(ROOT / "experiments" / "rethinking-table-9.toml"):
        if "iterative" not in part.name:
            continue
        network, method = build(part.model[0]), METHODS.get(part.method[0])
        found = [
            rounds_of(network, method, Compression(ratio=ratio), input_shape=(3, 32, 32))
            for ratio in part.compression
        ]
        assert [len(rounds) for rounds in found] == list(range(1, 16))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("part = 3\n", "'part' has to be a list of tables"),
        ('[[part]]\nmodel = "m"\n[[part]]\nname = "b"\n', "each part needs a name of its own"),
        ('[[part]]\nname = "a"\n[[part]]\nname = "a"\n', "each part needs a name of its own"),
        ('[[part]]\nname = "a"\ncolour = 1\n', "part 'a': unknown key 'colour'"),
    ],
)
def test_parts_that_are_wrong_are_told(text, sentence, tmp_path):
    file = tmp_path / "e.toml"
    file.write_text('name = "e"\ndataset = "digits"\nmodel = "m"\nmethod = "random"\ncompression = 2\n' + text)
    with pytest.raises(ShrinkbenchError, match=sentence):
        read_experiments(file)


def test_a_part_stands_in_place_of_the_file_and_overrides_win_over_both(tmp_path):
    file = tmp_path / "e.toml"
    file.write_text(
        'name = "e"\ndataset = "digits"\nmodel = "m"\nmethod = "random"\ncompression = 2\n'
        "[finetune]\nepochs = 3\n"
        '[[part]]\nname = "a"\ncompression = 4\n[[part]]\nname = "b"\n[part.finetune]\nepochs = 5\n'
    )
    a, b = read_experiments(file, {"seed": [1, 2], "finetune.batch_size": 8})
    assert (a.name, a.compression, a.finetune, a.seed) == (
        "e-a",
        (4.0,),
        {"epochs": 3, "batch_size": 8},
        (1, 2),
    )
    assert (b.name, b.compression, b.finetune) == ("e-b", (2.0,), {"epochs": 5, "batch_size": 8})


@pytest.mark.parametrize("axes", ["finetuning=rewind-weights-0", "schedule=iterative-20,finetuning=scratch-b"])
def test_weights_of_a_file_cannot_be_rewound(axes, tmp_path):
    file = tmp_path / "e.toml"
    file.write_text(
        'name = "e"\ndataset = "imagenet"\nmodel = "torchvision/resnet50"\nweights = "IMAGENET1K_V1"\n'
        f'compression = 2\nmethod = "global_magnitude[{axes}]"\n'
    )
    with pytest.raises(ShrinkbenchError, match="have no earlier epochs; use weights = 'pretrain'"):
        runs_of(file)


def test_a_byte_order_mark_is_no_part_of_an_experiment(tmp_path):
    text = 'name = "a"\ndataset = "digits"\nmodel = "digits-cnn"\nmethod = "random"\ncompression = 2\n'
    (tmp_path / "e.toml").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert read_experiments(tmp_path / "e.toml")[0].name == "a"


def test_a_grid_of_more_runs_than_can_be_planned_is_refused_by_their_number(tmp_path):
    """All of a file count: each of a thousand parts may be as large as a plan is."""
    text = (
        'name="a"\ndataset=["digits"]\nmodel=["digits-cnn"]\nmethod=["random"]\ncompression=[%s]\nseed=[%s]\n'
    )
    numbers = ",".join(map(str, range(1, 202)))
    file = tmp_path / "a.toml"
    file.write_text(text % (numbers, numbers))
    with pytest.raises(ShrinkbenchError, match="the grid has 40,401 runs, and up to 40,000 are planned"):
        read_experiments(file)
    parts = "".join(f'[[part]]\nname = "p{n}"\n' for n in range(2))
    file.write_text(text % (numbers, numbers.removesuffix(",200,201")) + parts)
    with pytest.raises(ShrinkbenchError, match=f"{file}: the grid has 79,998 runs"):
        read_experiments(file)
