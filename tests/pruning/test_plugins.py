"""Methods from files and installed packages, as the tutorial writes them."""

import re
from importlib.metadata import EntryPoint

import pytest
import torch
from places import ROOT
from sample_networks import ConvNet, batches, seeded

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.pruning import METHODS, Masks, load_entry_points, load_plugin, plugins, prune

TUTORIAL = ROOT / "docs" / "add-a-method.md"


def blocks_of_the_tutorial():
    return re.findall(r"```python\n(.*?)```", TUTORIAL.read_text(encoding="utf-8"), re.DOTALL)


def test_the_methods_of_the_tutorial_work_as_written(tmp_path):
    blocks = blocks_of_the_tutorial()
    assert len(blocks) >= 3
    first = [line for line in blocks[0].splitlines() if line.strip()]
    assert len(first) <= 10
    for number, block in enumerate(blocks):
        path = tmp_path / f"method_{number}.py"
        path.write_text(block, encoding="utf-8")
        names = load_plugin(path)
        assert names
        for name in names:
            method = METHODS.get(name)
            module = seeded(ConvNet)
            masks = prune(module, name, compression=2, batches=batches(4))
            total = sum(p.numel() for p in module.parameters())
            assert total / (total - masks.total + masks.kept) == pytest.approx(2, rel=0.05), name
            assert method.spec.source is not None
            assert method.summary


def write(tmp_path, text, name="plugin.py"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


HEAD = "from shrinkbench import pruning_method\n"


def test_a_file_is_run_once(tmp_path):
    path = write(
        tmp_path,
        HEAD + "@pruning_method('once')\ndef once_score(ctx):\n    'x'\n    return dict(ctx.weights)\n",
    )
    assert load_plugin(path) == ("once",)
    assert load_plugin(path) == ("once",)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("x = 1\n", "registers no method; decorate a function with @shrinkbench.pruning_method"),
        ("import nothing_of_this_name\n", "fails in line 1: ModuleNotFoundError: No module named"),
        ("def f(:\n", "fails in line 1: SyntaxError"),
        (
            HEAD + "@pruning_method('global_magnitude')\ndef own(ctx):\n    return {}\n",
            "pruning method 'global_magnitude' is already registered",
        ),
        (
            HEAD + "@pruning_method('mine')\ndef magnitude(ctx):\n    return {}\n",
            "another score is called 'magnitude' already",
        ),
    ],
)
def test_faulty_files_are_told_in_one_sentence(tmp_path, text, sentence):
    with pytest.raises(ShrinkbenchError) as caught:
        load_plugin(write(tmp_path, text))
    assert sentence in str(caught.value)
    assert "plugin.py" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(ShrinkbenchError, match="there is no plug-in file"):
        load_plugin(tmp_path / "none.py")
    with pytest.raises(ShrinkbenchError, match=r"name must end in \.py"):
        load_plugin(write(tmp_path, "", "plugin.txt"))


def test_the_key_of_a_plugin_changes_with_its_code(tmp_path):
    def digest_of(body):
        text = (
            HEAD
            + f"def helper(w):\n    return {body}\n"
            + (
                f"@pruning_method('keyed_{len(body)}')\ndef keyed_{len(body)}(ctx):\n    'x'\n"
                "    return {n: helper(w) for n, w in ctx.weights.items()}\n"
            )
        )
        (name,) = load_plugin(write(tmp_path, text, f"keyed_{len(body)}.py"))
        return METHODS.get(name).spec.source

    assert digest_of("w.abs()") != digest_of("w.abs() + 1")


def test_entry_points_register_modules_and_methods(tmp_path, monkeypatch):
    (tmp_path / "package_of_methods.py").write_text(
        HEAD + "from shrinkbench.pruning import PruningMethod\n"
        "@pruning_method('from_entry_point')\ndef entry_score(ctx):\n    'x'\n    return dict(ctx.weights)\n"
        "other = PruningMethod(name='from_entry_point_too', score=entry_score)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    points = [
        EntryPoint("a", "package_of_methods", plugins.GROUP),
        EntryPoint("b", "package_of_methods:other", plugins.GROUP),
    ]
    monkeypatch.setattr(plugins, "entry_points", lambda group: points)
    assert load_entry_points() == ("from_entry_point", "from_entry_point_too")
    assert load_entry_points() == ()
    monkeypatch.setattr(
        plugins, "entry_points", lambda group: [EntryPoint("c", "absent_package", plugins.GROUP)]
    )
    with pytest.raises(ShrinkbenchError, match=r"entry point 'c' .* mend or uninstall"):
        load_entry_points()


def register(name, score):
    from shrinkbench.pruning import PruningMethod

    return PruningMethod(name=name, score=score)


def test_what_a_method_returns_is_checked():
    module = seeded(ConvNet)

    def shape(ctx):
        return {n: torch.ones(7) for n in ctx.weights}

    with pytest.raises(ShrinkbenchError, match=r"the score of 'stem\.weight' has shape \(7,\)"):
        prune(module, register("shape", shape), compression=2, input_shape=(3, 8, 8))

    def missing(ctx):
        return {"stem.weight": ctx.weights["stem.weight"]}

    with pytest.raises(ShrinkbenchError, match="the score gave nothing for"):
        prune(module, register("missing", missing), compression=2, input_shape=(3, 8, 8))

    def nan(ctx):
        return {n: w * float("nan") for n, w in ctx.weights.items()}

    with pytest.raises(ShrinkbenchError, match="contain NaN"):
        prune(module, register("nan", nan), compression=2, input_shape=(3, 8, 8))


def fails(ctx):
    return {name: w / 0 for name, w in {"a": 1}.items()}


def forgets(ctx):
    pass


def lists(ctx):
    return list(ctx.weights.values())


def numbers(ctx):
    return {name: float(w.sum()) for name, w in ctx.weights.items()}


def writes(ctx):
    for w in ctx.weights.values():
        w.zero_()
    return dict(ctx.weights)


def diverges(ctx):
    name = "stem.weight"
    full = torch.ones_like(ctx.weights[name], dtype=torch.bool)
    return Masks({name: full}, new_weights={name: ctx.weights[name] / 0})


@pytest.mark.parametrize(
    ("score", "told"),
    [
        (fails, r"method 'made' fails in .*test_plugins\.py in line \d+: ZeroDivisionError: division by zero"),
        (forgets, "returns a value of type NoneType; return one tensor per weight"),
        (lists, "returns a value of type list"),
        (numbers, "returns a dictionary of float"),
        (writes, r"writes into the network while it scores \('stem\.weight'\)"),
        (diverges, r"the new values of 'stem\.weight' that made gives contain NaN or infinity"),
    ],
)
def test_mistakes_of_a_method_are_told_in_one_sentence(score, told):
    with pytest.raises(ShrinkbenchError, match=told) as caught:
        prune(seeded(ConvNet), register("made", score), compression=2, input_shape=(3, 8, 8))
    assert "\n" not in str(caught.value)


def test_a_callback_decides_everything_itself():
    def first_half(ctx):
        assert ctx.target == 2
        assert ctx.iteration == 3
        assert ctx.inputs.shape == (8, 3, 8, 8)
        assert ctx.activations.keys() == ctx.weights.keys() == ctx.gradients.keys()
        mask = torch.zeros_like(ctx.weights["stem.weight"], dtype=torch.bool)
        mask[:8] = True
        return Masks({"stem.weight": mask}, new_weights={"stem.weight": 2 * ctx.weights["stem.weight"]})

    module = seeded(ConvNet)
    old = module.stem.weight.detach().clone()
    masks = prune(module, register("c", first_half), compression=2, batches=batches(1), iteration=3)
    assert masks["grouped.weight"].all()
    masks.apply(module)
    assert torch.equal(module.stem.weight[:8], 2 * old[:8])
    assert not module.stem.weight[8:].any()


def test_values_for_another_network_are_refused():
    def wrong(ctx):
        return Masks({"stem.weight": torch.ones(1, dtype=torch.bool)})

    with pytest.raises(ShrinkbenchError, match="which the network does not have in that shape"):
        prune(seeded(ConvNet), register("w", wrong), compression=2, input_shape=(3, 8, 8))
