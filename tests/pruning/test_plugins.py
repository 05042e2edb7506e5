"""Methods from files and installed packages, as the tutorial writes them."""

import os
import re
import subprocess
import sys

import pytest
import torch
from places import ROOT
from sample_networks import ConvNet, batches, seeded

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.models import MODELS
from shrinkbench.pruning import METHODS, Masks, load_entry_points, load_plugin, plugins, prune
from shrinkbench.pruning.allocations.rules import ALLOCATIONS
from shrinkbench.training.recipe import RECIPES


@pytest.fixture(scope="module", autouse=True)
def _registered_for_these_tests():
    """What the plug-ins of this file register goes when it is over: their files are gone, or edited."""
    registries = (METHODS, MODELS, ALLOCATIONS, RECIPES)
    before = [
        (r, dict(r._entries), dict(r._spellings), dict(r._origins), list(r._resolvers)) for r in registries
    ]
    yield
    for registry, entries, spellings, origins, resolvers in before:
        registry._entries, registry._spellings = entries, spellings
        registry._origins, registry._resolvers = origins, resolvers


TUTORIAL = ROOT / "docs" / "add-a-method.md"


def blocks_of_the_tutorial():
    found = re.findall(r"```python\n(.*?)```", TUTORIAL.read_text(encoding="utf-8"), re.DOTALL)
    return [block for block in found if "@pruning_method" in block]


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
            masks = prune(module, name, compression=2, batches=batches(4), one_shot=True)
            total = sum(p.numel() for p in module.parameters())
            assert total / (total - masks.total + masks.kept) == pytest.approx(2, rel=0.05), name
            assert method.spec.sources
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
        ("x = 1\n", "registers nothing; decorate a function with @shrinkbench.pruning_method"),
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
        return METHODS.get(name).spec.sources

    assert digest_of("w.abs()") != digest_of("w.abs() + 1")


def install(folder, package, **entry_points):
    """As pip does, while this process runs."""
    info = folder / f"{package}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    lines = [f"{name} = {value}" for name, value in entry_points.items()]
    (info / "entry_points.txt").write_text("\n".join([f"[{plugins.GROUP}]", *lines]))


def test_entry_points_register_modules_and_methods(tmp_path, monkeypatch):
    (tmp_path / "package_of_methods.py").write_text(
        HEAD + "from shrinkbench.pruning import PruningMethod\n"
        "@pruning_method('from_entry_point')\ndef entry_score(ctx):\n    'x'\n    return dict(ctx.weights)\n"
        "other = PruningMethod(name='from_entry_point_too', score=entry_score)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert load_entry_points() == ()
    install(tmp_path, "methods", a="package_of_methods", b="package_of_methods:other")
    assert load_entry_points() == ("from_entry_point", "from_entry_point_too")
    assert load_entry_points() == ()
    install(tmp_path, "broken", c="absent_package")
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
        prune(module, register("shape", shape), compression=2, input_shape=(3, 8, 8), one_shot=True)

    def missing(ctx):
        return {"stem.weight": ctx.weights["stem.weight"]}

    with pytest.raises(ShrinkbenchError, match="the score gave nothing for"):
        prune(module, register("missing", missing), compression=2, input_shape=(3, 8, 8), one_shot=True)

    def nan(ctx):
        return {n: w * float("nan") for n, w in ctx.weights.items()}

    with pytest.raises(ShrinkbenchError, match="contain NaN"):
        prune(module, register("nan", nan), compression=2, input_shape=(3, 8, 8), one_shot=True)


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
        prune(seeded(ConvNet), register("made", score), compression=2, input_shape=(3, 8, 8), one_shot=True)
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
    masks = prune(
        module, register("c", first_half), compression=2, batches=batches(1), iteration=3, one_shot=True
    )
    assert masks["grouped.weight"].all()
    masks.apply(module)
    assert torch.equal(module.stem.weight[:8], 2 * old[:8])
    assert not module.stem.weight[8:].any()


def test_values_for_another_network_are_refused():
    def wrong(ctx):
        return Masks({"stem.weight": torch.ones(1, dtype=torch.bool)})

    with pytest.raises(ShrinkbenchError, match="which the network does not have in that shape"):
        prune(seeded(ConvNet), register("w", wrong), compression=2, input_shape=(3, 8, 8), one_shot=True)


def files(folder, **texts):
    """Files by name: ``__at__`` stands for a slash; returns the place of ``plug``."""
    for name, text in texts.items():
        path = folder / f"{name.replace('__init', '/__init__').replace('__at__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder / "plug.py"


ASK = f"import sys\nsys.path[:0] = {sys.path!r}\nfrom shrinkbench.pruning import METHODS, load_plugin\n"
CARD = (
    "from dataclasses import replace\nfrom shrinkbench.models import MODELS\n"
    "MODELS.add('{0}', replace(MODELS.get('digits-cnn'), name='{0}'))\n"
)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (CARD.format("only-a-network"), ("only-a-network",)),
        (
            "from shrinkbench.training.recipe import RECIPES\n"
            "RECIPES.add('only-a-recipe', RECIPES.get('digits-train'))\n",
            ("only-a-recipe",),
        ),
        (
            "from shrinkbench.pruning.allocations.rules import by_layer\n"
            "@by_layer('only-an-allocation')\ndef share(units, budget, ctx):\n    'x'\n    return {}\n",
            ("only-an-allocation",),
        ),
        (
            "from shrinkbench.models import MODELS\n@MODELS.add_resolver\ndef only(name):\n    return None\n",
            (),
        ),
    ],
)
def test_a_plug_in_may_register_anything(tmp_path, monkeypatch, text, names):
    for registry in (MODELS, RECIPES, ALLOCATIONS):  # forget it afterwards
        for table in ("_entries", "_spellings", "_resolvers"):
            monkeypatch.setattr(registry, table, getattr(registry, table).copy())
    path = write(tmp_path, text)
    assert load_plugin(path) == names
    assert load_plugin(path) == names


def test_a_built_in_module_that_a_plug_in_reads_first_is_not_taken_for_its_own(tmp_path):
    path = str(write(tmp_path, CARD.format("the-only-one")))
    text = f"{ASK}print(load_plugin({path!r}))\n"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert done.stdout == "('the-only-one',)\n"


def scoring(name, body="helper.scaled(w)", head="import helper\n"):
    return (
        f"{head}{HEAD}@pruning_method('{name}')\ndef {name}(ctx):\n    'x'\n"
        f"    return {{n: {body} for n, w in ctx.weights.items()}}\n"
    )


LATE = "def late(w):\n    import helper_1\n    return helper_1.scaled(w)\n"
SCALED = "def scaled(w):\n    return w.abs()\n"


def test_a_plug_in_imports_what_lies_beside_it(tmp_path):
    path = files(
        tmp_path,
        plug=scoring("with_helper_1", "late(w)", LATE),
        helper_1="from space.inner import scaled\n",
        space__at__inner="from packed import scaled\n",
        packed__init="from .inside import scaled\n",
        packed__at__inside=SCALED,
    )
    before = list(sys.path)
    assert load_plugin(path) == ("with_helper_1",)
    assert sys.path == before
    assert prune(seeded(ConvNet), "with_helper_1", compression=2, input_shape=(3, 8, 8)).kept > 0


def test_a_file_of_a_package_imports_relatively(tmp_path):
    files(
        tmp_path,
        whole_package__init="",
        whole_package__at__part=scoring("in_package", "scaled(w)", "from .beside import scaled\n"),
        whole_package__at__beside=SCALED,
    )
    assert load_plugin(tmp_path / "whole_package" / "part.py") == ("in_package",)
    assert METHODS.get("in_package").score.__module__ == "whole_package.part"


def test_helpers_of_the_same_name_are_not_mixed_up(tmp_path):
    for folder, name in (("a", "first_of_two"), ("b", "second_of_two")):
        files(tmp_path / folder, plug=scoring(name, head="import twin as helper\n"), twin=SCALED)
    assert load_plugin(tmp_path / "a" / "plug.py") == ("first_of_two",)
    with pytest.raises(ShrinkbenchError, match=r"its own folder, but .*rename") as told:
        load_plugin(tmp_path / "b" / "plug.py")
    assert str(tmp_path / "a" / "twin.py") in str(told.value)
    assert "second_of_two" not in METHODS
    taken = files(tmp_path / "c", plug=scoring("third", head="import torch as helper\n"), torch=SCALED)
    with pytest.raises(ShrinkbenchError, match="'torch' from its own folder"):
        load_plugin(taken)


def test_a_plug_in_may_import_another(tmp_path):
    path = files(
        tmp_path,
        plug=scoring("imports_another", head="import another as helper\n"),
        another=scoring("another_1", "scaled(w)", SCALED),
    )
    assert load_plugin(path) == ("another_1", "imports_another")
    assert load_plugin(tmp_path / "another.py") == ("another_1",)
    first = write(tmp_path, scoring("comes_first", "scaled(w)", SCALED), "comes_first.py")
    assert load_plugin(first) == ("comes_first",)
    second = write(tmp_path, scoring("comes_second", head="import comes_first as helper\n"), "comes_second.py")
    assert load_plugin(second) == ("comes_second",)


@pytest.mark.parametrize("edited", ["plug", "edited_helper"])
def test_a_plug_in_that_has_changed_is_refused(tmp_path, edited):
    name = f"changed_{edited}"
    score = scoring(name, head=f"import {edited}_1 as helper\n")
    path = files(tmp_path, plug=score, **{f"{edited}_1": SCALED})
    load_plugin(path)
    changed = path if edited == "plug" else tmp_path / f"{edited}_1.py"
    changed.write_text(changed.read_text() + "# edited\n")
    with pytest.raises(ShrinkbenchError, match=r"has changed since it was loaded.*start again"):
        load_plugin(path)
    with pytest.raises(ShrinkbenchError, match=r"has changed since it was loaded.*start again"):
        _ = METHODS.get(name).spec


def test_a_worker_loads_what_was_planned_with_or_nothing(tmp_path):
    texts = {"plug": scoring("planned", head="import planned_1 as helper\n"), "planned_1": SCALED}
    planned = plugins.digest_of_plugin(files(tmp_path / "a", **texts))
    edited = files(tmp_path / "b", **{**texts, "planned_1": SCALED + "# edited\n"})
    with pytest.raises(ShrinkbenchError, match="was edited after the runs were planned; start again"):
        load_plugin(edited, digest=planned)
    assert load_plugin(files(tmp_path / "c", **texts), digest=planned) == ("planned",)


def test_a_plug_in_that_failed_can_be_mended(tmp_path):
    path = files(tmp_path, plug=scoring("mended", head="import broken as helper\n"), broken="def f(:\n")
    with pytest.raises(ShrinkbenchError, match="SyntaxError"):
        load_plugin(path)
    (tmp_path / "broken.py").write_text(SCALED)
    assert load_plugin(path) == ("mended",)
    empty = write(tmp_path, "x = 1\n", "empty.py")
    with pytest.raises(ShrinkbenchError, match="registers nothing"):
        load_plugin(empty)
    write(tmp_path, scoring("no_longer_empty", "w.abs()", ""), "empty.py")
    assert load_plugin(empty) == ("no_longer_empty",)


@pytest.mark.slow
def test_what_was_digested_is_what_runs(tmp_path):
    """An edit of equal length within the same second: Python's own cache of bytecode would not see it."""
    score = scoring("digested", "w * helper.F", "import cached_helper as helper\n")
    path = files(tmp_path, plug=score, cached_helper="F = 1\n")
    ask = (
        f"{ASK}load_plugin({str(path)!r})\nimport cached_helper\n"
        "print(cached_helper.F, METHODS.get('digested').spec.score.source)\n"
    )

    def answer():
        done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
        return done.stdout.split()

    helper = tmp_path / "cached_helper.py"
    first, digest = answer()
    times = helper.stat()
    helper.write_text("F = 2\n")
    os.utime(helper, ns=(times.st_atime_ns, times.st_mtime_ns))
    second, other = answer()
    assert (first, second) == ("1", "2")
    assert digest != other


FALLS = {
    'import sys; sys.exit("no")': "in line 1: it calls sys.exit('no')",
    "import sys; sys.exit(3)": "in line 1: it calls sys.exit(3)",
    "import sys; sys.exit()": "in line 1: it calls sys.exit()",
    "class X(BaseException): pass\nraise X('hi')": "in line 2: X: hi",
    "class Y(Exception):\n def __str__(self): return 1 / 0\nraise Y": "in line 3: Y: its text cannot be told",
}


@pytest.mark.parametrize("number", range(len(FALLS)))
def test_whatever_a_file_raises_is_told_with_its_name(number, tmp_path):
    text, told = list(FALLS.items())[number]
    path = tmp_path / f"falls_{number}.py"
    path.write_text(text)
    for _ in range(2):
        with pytest.raises(ShrinkbenchError, match=re.escape(f"falls_{number}.py fails {told}")):
            load_plugin(path)
        with pytest.raises(ShrinkbenchError, match=re.escape(f"falls_{number}.py fails {told}")):
            MODELS.get(f"{path}:network")


def test_an_interrupt_is_no_fall_of_a_file(tmp_path):
    path = tmp_path / "interrupted.py"
    path.write_text("raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        load_plugin(path)
    path.write_text("from shrinkbench.cli.stopping import Ended\nraise Ended(143)")
    with pytest.raises(SystemExit):
        load_plugin(path)
