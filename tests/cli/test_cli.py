"""The command line as a person uses it: what it prints, and how it refuses."""

import json
import subprocess
import sys

import pytest
import torch
from places import SHARED
from safetensors.torch import load_file
from sampling import sampled

from shrinkbench.cli import main
from shrinkbench.datasets import load_dataset
from shrinkbench.models import build, get_model
from shrinkbench.pruning import Masks, prune
from shrinkbench.seeds import stream

WEIGHTS = SHARED / "data" / "weights" / "resnet56-4bfd9763.th"
needs_weights = pytest.mark.skipif(not WEIGHTS.exists(), reason=f"{WEIGHTS} is not there")
EXACT = ("global_magnitude", "layerwise_magnitude")


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the command line in this process: (exit code, standard output, standard error)."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["shrinkbench", *map(str, arguments)])
        try:
            code = main()
        except SystemExit as exit_:
            code = exit_.code
        captured = capsys.readouterr()
        return code or 0, captured.out, captured.err

    return call


@pytest.fixture
def small(tmp_path):
    """Weights of the digits network."""
    path = tmp_path / "digits.pt"
    torch.save({"state_dict": build("digits-cnn").state_dict()}, path)
    return path


def test_help_is_quick_and_does_not_import_torch():
    code = (
        "import sys\nsys.argv = ['shrinkbench', '--help']\nfrom shrinkbench.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'torchvision', 'pandas', 'matplotlib', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@needs_weights
@pytest.mark.parametrize("method", EXACT)
@pytest.mark.parametrize("compression", sampled([2, 4, 8, 16, 32], every=3))
def test_prune_meets_the_target_to_one_weight(run, method, compression):
    code, out, _ = run(
        "prune", "--model", "resnet56", "--weights", WEIGHTS, "--method", method,
        "--compression", compression, "--json",
    )  # fmt: skip
    report = json.loads(out)
    assert code == 0
    assert report["parameters"] == 853018
    assert abs(report["parameters_kept"] - 853018 / compression) <= 1
    assert report["multiply_adds"] == 125485696
    assert report["compression"] == report["parameters"] / report["parameters_kept"]
    unmasked = 853018 - sum(layer["total"] for layer in report["layers"].values())
    assert report["parameters_kept"] == unmasked + sum(layer["kept"] for layer in report["layers"].values())
    assert not any(name.startswith("linear") for name in report["layers"])


def test_prune_names_the_layers_that_it_empties(run):
    options = ("--prune-classifier", "--prune-biases", "--model", "lenet-300-100", "--compression", 1000)
    code, _, said = run("prune", "--method", "global_magnitude", *options)
    assert code == 0
    assert said.count("note: layer collapse: no weight stays in fc1.weight") == 1
    code, _, said = run("prune", "--method", "layerwise_magnitude", *options)
    assert (code, said) == (0, "")


def test_prune_writes_weights_and_masks_that_agree(run, small, tmp_path):
    out, masks = tmp_path / "pruned.safetensors", tmp_path / "masks.safetensors"
    code, _, _ = run(
        "prune", "--model", "digits-cnn", "--weights", small, "--method", "global_gradient",
        "--dataset", "digits", "--compression", 8, "--out", out, "--masks-out", masks,
    )  # fmt: skip
    assert code == 0
    weights, kept = load_file(out), load_file(masks)
    assert all(mask.dtype == torch.bool for mask in kept.values())
    assert all(bool((weights[name][~mask] == 0).all()) for name, mask in kept.items())
    build("digits-cnn").load_state_dict(weights)
    code, text, _ = run(
        "evaluate", "--model", "digits-cnn", "--weights", out, "--masks", masks, "--dataset", "digits", "--json"
    )
    quality = json.loads(text)
    assert code == 0
    assert 0 <= quality["top1"] <= quality["top5"] <= 1
    assert quality["images"] == 355


def test_same_seed_same_random_masks(run, small, tmp_path):
    files = [tmp_path / f"{n}.safetensors" for n in "abc"]
    for file, seed in zip(files, (0, 0, 1), strict=True):
        run("prune", "--model", "digits-cnn", "--weights", small, "--method", "random", "--compression", 2,
            "--seed", seed, "--masks-out", file)  # fmt: skip
    a, b, c = map(load_file, files)
    assert all(torch.equal(a[n], b[n]) for n in a)
    assert not all(torch.equal(a[n], c[n]) for n in a)


def test_describe_counts_layers_that_sum_to_the_whole(run):
    _, out, _ = run("describe", "resnet20", "--json")
    described = json.loads(out)
    assert described["parameters"] == 269722
    assert (
        sum(layer["multiply_adds"] for layer in described["layers"]) == described["multiply_adds"] == 40551040
    )
    assert described["classifier"] == ["linear.weight"]
    _, out, _ = run("describe", "resnet20", "--input-shape", "3,64,64", "--json")
    stem_and_blocks = 40551040 - 640
    assert json.loads(out)["multiply_adds"] == 4 * stem_and_blocks + 640


@pytest.mark.parametrize("what", ["methods", "models", "datasets", "recipes", "experiments"])
def test_lists_are_tables_and_json(run, what):
    code, out, _ = run("list", what, "--json")
    names = [row["name"] for row in json.loads(out)]
    assert code == 0
    assert len(names) == len(set(names)) > 0
    code, out, _ = run("list", what)
    assert code == 0
    assert names[0] in out
    assert max(len(line) for line in out.splitlines()) <= 100


def test_a_listed_method_is_told_by_the_names_of_its_axes(run):
    _, out, _ = run("list", "methods", "--json")
    rows = {row["name"]: row for row in json.loads(out)}
    row = rows["gradual_magnitude"]
    axes = [row[axis] for axis in ("structure", "score", "allocation", "schedule", "finetuning")]
    assert axes == ["weights", "magnitude", "layerwise", "gradual-cubic", "continue"]
    assert (row["kind"], row["amount"]) == ("magnitude", None)
    assert rows["li2017:resnet56-a"]["amount"] == "as published"


def test_methods_are_chosen_by_what_tells_them_apart(run):
    def names(*options):
        code, out, err = run("list", "methods", "--json", *options)
        assert code == 0, err
        return {row["name"]: row for row in json.loads(out)}

    every = names()
    filters = names("--structure", "filters", "--without", "gradients", "--without", "labels")
    assert {"filter_l1", "apoz"} <= filters.keys() < every.keys()
    assert not {"filter_taylor_2016", "skeletonization", "global_magnitude"} & filters.keys()
    untrained = names("--start", "untrained", "--since", "2021")
    assert {"ac_dc", "granet", "mest"} <= untrained.keys()
    assert not {"snip", "rigl", "alpha_pruning"} & untrained.keys()
    # Of 4x, 20 % of what is left goes in 7 rounds; half of it in 2; slimming searches and fine-tunes.
    trainings = {name: every[name]["trainings"] for name in every}
    assert [trainings[n] for n in ("lottery_ticket", "iterative_magnitude", "network_slimming")] == [7, 2, 2]
    assert [trainings[n] for n in ("magnitude_without_finetuning", "rigl", "synflow")] == [0, 1, 1]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("methods", "--structure", "toes"), "no method has the structure 'toes'"),
        (("methods", "--start", "later"), "no method has the start 'later'; there are trained, untrained"),
        (("methods", "--without", "sleep"), "no method has the need 'sleep'"),
        (("methods", "--since", "2199"), "no method is left"),
        (("models", "--since", "2020"), "are of methods, not of models"),
        (("methods", "--needs", "sleep"), "no method has the need 'sleep'"),
        (("methods", "--needs", "data", "--without", "data"), "asked for by --needs and excluded by --without"),
        (("models", "--needs", "data"), "are of methods, not of models"),
    ],
)
def test_a_choice_that_leaves_nothing_is_told(run, arguments, sentence):
    code, _, err = run("list", *arguments)
    assert code == 2
    assert sentence in err


def test_a_method_is_described(run):
    code, out, _ = run("describe", "lottery_ticket")
    assert code == 0
    assert "iterative-20" in out
    assert "trainings at 4x" in out
    assert "frankle2019lottery: The Lottery Ticket Hypothesis" in " ".join(out.split())
    _, out, _ = run("describe", "random@rigl", "--json")
    assert json.loads(out)["allocation"] == "as:rigl"
    code, _, err = run("describe", "no_such_thing")
    assert code == 2
    assert "no_such_thing" in err
    code, _, err = run("describe", "lottery_tickets")
    assert code == 2
    assert "no network, method or axis value is called 'lottery_tickets'; did you mean 'lottery_ticket'" in err


def prune_arguments(small, **changes):
    options = {"model": "digits-cnn", "weights": small, "method": "random", "compression": 2, **changes}
    given = {f"--{name.replace('_', '-')}": value for name, value in options.items() if value is not None}
    return ["prune", *(x for option in given.items() for x in option)]


BAD = {
    "unknown method": ({"method": "global_magnitud"}, "did you mean 'global_magnitude'"),
    "unknown model": ({"model": "resnet21"}, "unknown model 'resnet21'"),
    "compression below one": ({"compression": 0.5}, "compression 0.5 is not a finite number of at least 1"),
    "compression too high": ({"compression": 1e9}, "largest possible target is 63"),
    "compression not finite": ({"compression": "nan"}, "compression nan is not a finite number"),
    "compression no number": ({"compression": "x"}, "Invalid value for '--compression'"),
    "missing weights": ({"weights": "no/such/file.pt"}, "no/such/file.pt"),
    "data without dataset": ({"data": "."}, "without --dataset"),
    "no data for gradients": ({"method": "global_gradient"}, "--dataset"),
    "trains": ({"method": "gradual_magnitude"}, "(--one-shot)"),
    "no amount": ({"compression": None}, "is said nowhere; give one of compression, fraction per layer"),
    "two amounts": ({"channels": 0.5}, "is said in several ways"),
    "an amount of its own": ({"method": "network_slimming:70"}, "compression=2 has no say; leave it out"),
    "no fraction": ({"compression": None, "channels": 1.5}, "channels = 1.5 is not a fraction above 0"),
    "one file for two": ({"out": "x.st", "masks_out": "./x.st"}, "both name x.st; give each a file of its own"),
    "unwritable output": ({"out": "/proc/no/such.safetensors"}, "cannot write /proc/no/such.safetensors"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence_and_exit_code_2(run, small, case):
    changes, sentence = BAD[case]
    code, out, err = run(*prune_arguments(small, **changes))
    assert code == 2
    assert sentence in err
    assert "Traceback" not in out + err


def test_prune_takes_each_kind_of_amount(run, small):
    def pruned(*arguments, **changes):
        code, out, err = run(*prune_arguments(small, compression=None, **changes), "--json", *arguments)
        assert code == 0, err
        return json.loads(out)["layers"], err

    layers, _ = pruned(method="layerwise_magnitude", fraction_per_layer=0.5)
    assert all(layer["kept"] * 2 == layer["total"] for layer in layers.values())
    layers, noted = pruned(method="global_channel_l1", channels=0.5)
    kept = sum(layer["kept"] for layer in layers.values())
    assert kept < 0.5 * sum(layer["total"] for layer in layers.values())
    assert noted == ""


@pytest.mark.parametrize("method", ["gradual_magnitude", "lottery_ticket"])
def test_a_method_that_trains_is_pruned_at_once_only_when_asked(run, small, method):
    code, out, err = run(*prune_arguments(small, method=method))
    assert (code, out) == (2, "")
    assert "prunes over a training" in err
    code, out, _ = run(*prune_arguments(small, method=method), "--one-shot", "--json")
    assert code == 0
    assert json.loads(out)["compression"] == pytest.approx(2, rel=1e-4)


@pytest.mark.slow
def test_a_method_with_an_amount_of_its_own_is_asked_for_none(run):
    code, out, err = run("prune", "--model", "resnet56", "--method", "li2017:resnet56-a", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["parameters_kept"] == get_model("resnet56-a").parameters
    slimming = ("prune", "--model", "digits-cnn", "--method", "network_slimming:70")
    assert run(*slimming)[0] == 2  # its scales are trained
    code, out, _ = run(*slimming, "--one-shot", "--json")
    assert code == 0
    assert json.loads(out)["compression"] > 1.5


@pytest.mark.slow
def test_several_rounds_without_training_are_those_of_the_library(run, small, tmp_path):
    masks = tmp_path / "masks.safetensors"
    data = ("--dataset", "digits", "--masks-out", masks)
    assert run(*prune_arguments(small, method="iterative_snip", compression=8), *data)[0] == 0
    module = build("digits-cnn")
    module.load_state_dict(torch.load(small)["state_dict"])
    order = torch.Generator().manual_seed(stream(0, "scoring-batch"))
    digits = load_dataset("digits")
    batches = digits.train.batches(64, normalisation=digits.card.normalisation, generator=order)
    expected = prune(module, "iterative_snip", compression=8, batches=batches)
    assert Masks.load(masks).equal(expected)


def test_corrupt_and_foreign_weights(run, small, tmp_path):
    corrupt = tmp_path / "corrupt.pt"
    corrupt.write_bytes(small.read_bytes()[:1000])
    code, _, err = run(*prune_arguments(corrupt))
    assert code == 2
    assert "damaged" in err
    code, _, err = run(*prune_arguments(small, model="resnet20"))
    assert code == 2
    assert "is for another network than resnet20" in err


SWEEP = 'name = "t"\ndataset = "digits"\nmodel = "digits-cnn"\nmethod = "random"\ncompression = 4\n'


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("name = ", "is not valid TOML"),
        (SWEEP + "colour = 1\n", "unknown key 'colour'"),
        (SWEEP.replace("compression = 4", "compression = 0.5"), "compression 0.5 must be"),
        (SWEEP.replace("compression = 4", 'compression = "x"'), "compression"),
        (SWEEP.replace('model = "digits-cnn"\n', ""), "the key 'model' is missing"),
        (SWEEP.replace('"random"', '"random_"') + "seed = [-1]\n", "seed"),
    ],
)
def test_bad_experiments(run, tmp_path, text, sentence):
    file = tmp_path / "t.toml"
    file.write_text(text)
    code, out, err = run("sweep", file, "--out", tmp_path / "out")
    assert code == 2
    assert sentence in err
    assert "Traceback" not in out + err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["sweep", "no-such-experiment"], "known names"),
        (["sweep", "quickstart", "--set", "seed"], "write key=value"),
        (["sweep", "quickstart", "--set", "name.x=1"], "is not a table"),
        (["sweep", "quickstart", "--out", "/proc/no/such"], "cannot write"),
        (["sweep", "quickstart", "--workers", "0"], "--workers 0"),
        (["sweep", "quickstart", "--data", "/no/such/place"], "no such file or folder"),
        (["sweep", "quickstart", "--part", "a"], "no such part, it has none"),
        (["sweep", "rethinking-table-1", "--part", "vgg"], "its parts are vgg16, resnet56, resnet110"),
        (["sweep", "quickstart", "--set", "method=channel_l1[finetuning=scratch-c]"], "did you mean 'scratch-"),
        (["sweep", "quickstart", "--set", "method=li2017:vgg16-c"], "choose li2017:"),
        (["sweep", "quickstart", "--set", "method=network_slimming:0"], "name 1 to 99"),
        (["scratch", "/no/such/place"], "/no/such/place"),
        (["report", "/no/such/place"], "/no/such/place"),
        (["status", "/no/such/place"], "/no/such/place"),
        (["status", "n" * 300], "File name too long"),
        (["merge", "a", "b", "--out", "n" * 300], "File name too long"),
        (["sweep", "quickstart", "--out", "n" * 300], "File name too long"),
        (["describe", "resnet20", "--input-shape", "3,x"], "--input-shape"),
        (["evaluate", "--model", "resnet20", "--dataset", "cifar10", "--data", "."], "cifar10"),
        (["prune", "--plugin", "/no/such.py", "--model", "digits-cnn", "--method", "random",
          "--compression", "2"], "no plug-in file"),
    ],
)  # fmt: skip
def test_bad_commands(run, arguments, sentence, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*arguments)
    assert code == 2
    assert sentence in err
    assert "Traceback" not in out + err


@pytest.mark.usefixtures("sweeps_here")
def test_sweep_status_report_round_trip(run, tmp_path):
    file = tmp_path / "t.toml"
    file.write_text(SWEEP + "train_images = 100\n[pretrain]\nepochs = 1\n[finetune]\nepochs = 1\n")
    code, out, _ = run("sweep", file, "--out", tmp_path / "out", "--set", "compression=[1, 4]")
    assert code == 0
    assert "2 of 2 runs done" in out
    _, out, _ = run("status", tmp_path / "out", "--json")
    assert json.loads(out) == {"total": 2, "done": 2, "failed": 0, "missing": 0}
    code, _, _ = run("report", tmp_path / "out", "--out", tmp_path / "report", "--figures", "none")
    assert code == 0
    assert {"index.html", "results.csv", "results.parquet"} <= {p.name for p in (tmp_path / "report").iterdir()}


@pytest.mark.usefixtures("sweeps_here")
def test_a_plugin_is_listed_and_swept(run, tmp_path):
    plugin = tmp_path / "mine.py"
    plugin.write_text(
        "from shrinkbench import pruning_method\n\n\n@pruning_method('my_cube')\ndef cube(ctx):\n"
        "    'Cube of the magnitude.'\n    return {n: w.abs() ** 3 for n, w in ctx.weights.items()}\n"
    )
    _, out, _ = run("list", "methods", "--plugin", plugin, "--json")
    assert "my_cube" in [row["name"] for row in json.loads(out)]
    file = tmp_path / "t.toml"
    file.write_text(
        SWEEP.replace("random", "my_cube")
        + "train_images = 100\n[pretrain]\nepochs = 1\n[finetune]\nepochs = 0\n"
    )
    code, out, _ = run("sweep", file, "--out", tmp_path / "out", "--plugin", plugin)
    assert code == 0
    assert "1 of 1 runs done" in out


def test_a_card_that_cannot_be_written_is_told_before_the_training(run, tmp_path):
    (tmp_path / "a.json").mkdir()
    out = tmp_path / "a.safetensors"
    code, _, err = run("pretrain", "--model", "digits-cnn", "--dataset", "digits", "--out", out)
    assert code == 2
    assert "a.json is a folder" in err
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.slow
def test_pretrained_weights_bring_their_card(run, tmp_path):
    """Two sets of weights for one network, as in Figure 8 of Blalock et al., and a sweep over both."""
    for name, rate in (("A", 1e-3), ("B", 1e-4)):
        code, _, err = run(
            "pretrain", "--model", "digits-cnn", "--dataset", "digits", "--train-images", 200,
            "--set", "epochs=2", "--set", f"learning_rate={rate}", "--out", tmp_path / f"{name}.safetensors",
        )  # fmt: skip
        assert code == 0
        assert "epoch 2/2" in err
    card = json.loads((tmp_path / "A.json").read_text())
    _, out, _ = run(
        "evaluate",
        "--model",
        "digits-cnn",
        "--weights",
        tmp_path / "A.safetensors",
        "--dataset",
        "digits",
        "--json",
    )
    assert json.loads(out)["top1"] == card["test"]["metrics"]["top1"]
    assert {p.name for p in tmp_path.iterdir()} == {"A.json", "A.safetensors", "B.json", "B.safetensors"}
    file = tmp_path / "t.toml"
    file.write_text(
        SWEEP + f'weights = ["{tmp_path}/A.safetensors", "{tmp_path}/B.safetensors"]\n[finetune]\nepochs = 0\n'
    )
    assert run("sweep", file, "--out", tmp_path / "out")[0] == 0
    from shrinkbench.results.store import ResultStore

    results, _ = ResultStore(tmp_path / "out").results()
    assert sorted(r.spec.weights.name for r in results) == ["A", "B"]
    code, _, err = run(
        "pretrain",
        "--model",
        "digits-cnn",
        "--dataset",
        "digits",
        "--out",
        tmp_path / "A.pt",
        "--set",
        "epochs=1",
    )
    assert code == 2
    assert "ends in .safetensors" in err
