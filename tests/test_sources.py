"""Code from outside this package: where it stands, which files it is, and when its digest changes."""

import functools
import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from sampling import crossed

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.pruning import METHODS
from shrinkbench.pruning.allocations.rules import ALLOCATIONS, layerwise
from shrinkbench.pruning.code import outside_sources
from shrinkbench.registry import Registry
from shrinkbench.results.bundle import EDITED, Bundle
from shrinkbench.results.layout import LARGEST_SOURCE
from shrinkbench.results.store import ResultStore
from shrinkbench.results.upkeep import repair_store, verify_store
from shrinkbench.sources import (
    Origin,
    digest_of,
    digest_of_parts,
    load_file,
    origin_of_caller,
    origin_of_file,
    origins_in,
    texts_behind,
)

AXES = ("score", "structure", "allocation", "schedule", "finetuning", "update")


FILES = {
    "plug": "import helper\nfrom pack.part import x\n"
    "def late():\n    from pack import other\n    import namespace.deep\n",
    "helper": "import importlib\nimportlib.import_module('by_name')\nimport helpers_helper\n",
    "helpers_helper": "x = 1\n",
    "by_name": "x = 1\n",
    "pack____init__": "",
    "pack__part": "from . import beside\nfrom .sub import *\nx = 1\n",
    "pack__beside": "from .. import nothing\nx = 1\n",
    "pack__other": "import torch, json\n",
    "pack__sub____init__": "x = 1\n",
    "pack__sub__member": "x = 1\n",
    "namespace__deep": "x = 1\n",
    "unrelated": "x = 1\n",
    "pack__unrelated": "x = 1\n",
    "json": "x = 1\n",
}


def place(name):
    if name.endswith("____init__"):
        return name.removesuffix("____init__").replace("__", "/") + "/__init__.py"
    return name.replace("__", "/") + ".py"


def written(path, files=FILES):
    for name, text in files.items():
        file = path / place(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode())
    return path / "plug.py"


def digest(path, files=FILES):
    return digest_of([origin_of_file(written(path, files))])


def test_a_folder_that_is_moved_keeps_its_digest(tmp_path):
    assert digest(tmp_path / "a") == digest(tmp_path / "b" / "c")
    assert len(digest(tmp_path / "a")) == 64
    assert digest_of([]) is None
    assert digest_of([None]) is None


@pytest.mark.parametrize("name", [n for n in FILES if "unrelated" not in n and n != "json"])
@pytest.mark.parametrize("edit", [b"# by hand\n", b"\r\n"])
def test_an_edit_of_a_file_that_is_imported_changes_the_digest(tmp_path, name, edit):
    before = digest(tmp_path / "a")
    file = written(tmp_path / "b")
    with (tmp_path / "b" / place(name)).open("ab") as stream:
        stream.write(edit)
    assert digest_of([origin_of_file(file)]) != before


@pytest.mark.parametrize("name", ["unrelated", "pack__unrelated", "json"])
def test_an_edit_of_another_file_does_not(tmp_path, name):
    before = digest(tmp_path / "a")
    assert digest(tmp_path / "b", {**FILES, name: "x = 2\n"}) == before


def test_origins_count_in_any_order(tmp_path):
    one = origin_of_file(written(tmp_path / "a"))
    other = origin_of_file(written(tmp_path / "b", {"plug": "y = 2\n"}))
    assert digest_of([one, other]) == digest_of([other, one]) == digest_of([one | other])
    assert digest_of([one, other]) != digest_of([one])


def test_a_file_that_has_changed_since_is_refused(tmp_path):
    file = written(tmp_path)
    origin = origin_of_file(file)
    (tmp_path / "helpers_helper.py").write_text("x = 2\n")
    with pytest.raises(
        ShrinkbenchError, match=r"helpers_helper\.py has changed since it was loaded.*start again"
    ):
        digest_of([origin])
    (tmp_path / "helpers_helper.py").unlink()
    with pytest.raises(ShrinkbenchError, match="has changed since it was loaded"):
        digest_of([origin])


def test_of_an_installed_package_only_its_own_files_count(tmp_path):
    libraries = tmp_path / "site-packages"
    files = {
        "mine____init__": "",
        "mine__methods": "import other_library\nfrom mine import part\n",
        "mine__part": "x = 1\n",
        "other_library": "x = 1\n",
    }
    written(libraries, files)
    before = digest_of([origin_of_file(libraries / "mine" / "methods.py")])
    moved = tmp_path / "else" / "site-packages"
    written(moved, {**files, "other_library": "x = 2\n"})
    assert digest_of([origin_of_file(moved / "mine" / "methods.py")]) == before
    moved = tmp_path / "third" / "site-packages"
    written(moved, {**files, "mine__part": "x = 2\n"})
    assert digest_of([origin_of_file(moved / "mine" / "methods.py")]) != before


def loaded(tmp_path, name, text):
    file = tmp_path / f"{name}.py"
    file.write_text(text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(name, file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module, file


def test_the_caller_is_whoever_asks_from_outside():
    assert origin_of_caller() == origin_of_file(Path(__file__).resolve())
    registry = Registry("colour")
    registry.add("red", 1)
    registry.add_resolver(lambda name: 2 if name == "BLUE" else None)
    assert registry.origin("red") == registry.origin("BLUE") == origin_of_caller()
    assert registry.source("red") is not None
    with pytest.raises(ShrinkbenchError, match="unknown colour"):
        registry.origin("green")


def test_a_helper_registers_on_behalf_of_the_plug_in(tmp_path):
    helper, helpers_file = loaded(
        tmp_path, "outer_helper", "def add(registry, name):\n    registry.add(name, 1)\n"
    )
    registry = Registry("colour")
    registry.helper = helper
    on_behalf, file = loaded(tmp_path, "on_behalf", "def use(r):\n    r.helper.add(r, 'green')\n")
    on_behalf.use(registry)
    assert registry.origin("green").files == {helpers_file, file}


def test_functions_are_found_wherever_they_hide(tmp_path):
    module, file = loaded(
        tmp_path, "hidden", "def f(x=1):\n    return x\nclass C:\n    def m(self):\n        return 1\n"
    )
    found = frozenset({origin_of_file(file)})
    own = ALLOCATIONS.get("lamp").decide  # a function of this package: nothing of its own counts

    assert origins_in(own) == origins_in(layerwise) == origins_in(3) == origins_in(None) == frozenset()
    for value in (
        module.f,
        functools.partial(module.f, 1),
        functools.partial(sorted, key=module.f),
        module.C,
        module.C(),
        module.C().m,
        functools.lru_cache(module.f),
        {"a": [module.f]},
        Origin(files=(module.f,)),
    ):
        assert origins_in(value) == found, value

    @functools.wraps(own)
    def wrapper(*args):
        return module.f(*args)

    assert wrapper.__module__.startswith("shrinkbench.")
    assert origins_in(wrapper) == found | {origin_of_file(Path(__file__).resolve())}


SESSION = """
import sys
sys.path[:0] = {path!r}
from shrinkbench.registry import Registry
FACTOR = {factor}
def inner(x):
    return x * {inner}
def outer(x):
    def nested():
        return inner(x) + FACTOR
    return nested()
def of_no_matter(): return {other}
from shrinkbench.sources import digest_of, origins_in
print(digest_of(origins_in(outer)))
registry = Registry("r")
exec(compile("registry.add('a', 1)", "<cell>", "exec"))
print(registry.source("a"))
"""


def test_code_without_a_file_counts_with_the_code_that_it_uses():
    def digests(**values):
        text = SESSION.format(path=sys.path, **{"factor": 1, "inner": 2, "other": 3} | values)
        done = subprocess.run(
            [sys.executable, "-c", text], capture_output=True, text=True, check=True, env=dict(os.environ)
        )
        return done.stdout.split()

    function, registered = digests()
    assert len(function) == len(registered) == 64
    assert digests() == [function, registered]
    assert digests(other=4)[0] == function
    assert digests(factor=2)[0] != function
    assert digests(inner=3)[0] != function


BUILT_IN = """
import json, sys
sys.path[:0] = {path!r}
from shrinkbench.datasets import DATASETS
from shrinkbench.datasets.extra import EXTRAS
from shrinkbench.models import MODELS
from shrinkbench.pruning import FINETUNINGS, METHODS
from shrinkbench.pruning.allocations.rules import ALLOCATIONS
from shrinkbench.pruning.code import outside_sources
from shrinkbench.pruning.method import SCORES
from shrinkbench.pruning.schedules.schedule import SCHEDULES
from shrinkbench.pruning.units import STRUCTURES
from shrinkbench.registry import registered_from_outside
from shrinkbench.training.recipe import RECIPES

made = {{
    "pruning method": [
        "random@global_gradient",
        "lottery_ticket[finetuning=rewind-weights-3]",
        "global_magnitude[structure=1:4,schedule=iterative-30]",
        "network_slimming:70",
        "li2017:vgg16-a",
        "random@lottery_ticket[finetuning=rewind-weights-3]",
    ],
    "schedule": ["iterative-35"],
    "fine-tuning mode": ["rewind-weights-7"],
    "structure": ["3:8"],
    "extra evaluation": ["cifar10-c/fog/3"],
    "model": ["torchvision/resnet18"],
}}
found = {{}}
axes = (STRUCTURES, SCORES, ALLOCATIONS, SCHEDULES, FINETUNINGS)
for registry in (METHODS, *axes, MODELS, DATASETS, EXTRAS, RECIPES):
    names = [*registry, *made.get(registry.kind, [])]
    found[registry.kind] = {{n: [registry.source(n), registry.origin(n) is None] for n in names}}
axes = [outside_sources(METHODS.get(n)) for n in found["pruning method"]]
sources = [METHODS.get(n).spec.sources or None for n in found["pruning method"]]
print(json.dumps([found, axes, sources, len(registered_from_outside())]))
"""


@pytest.fixture(scope="module")
def built_in():
    """What a process that has loaded no plug-in says."""
    text = BUILT_IN.format(path=sys.path)
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.slow
def test_nothing_that_is_built_in_has_outside_code(built_in):
    found, _, _, registered = built_in
    assert registered == 0
    assert len(found) == 10
    for kind, sources in found.items():
        assert len(sources) > 2, kind
        assert sources == {name: [None, True] for name in sources}, kind


@pytest.mark.slow
def test_no_axis_of_a_built_in_method_has_outside_code(built_in):
    found, axes, sources, _ = built_in
    assert len(axes) == len(found["pruning method"]) > 80
    assert all(each == dict.fromkeys(AXES) for each in axes)
    assert set(sources) == {None}


def test_what_outside_code_makes_of_a_built_in_method_is_its_own():
    own = origin_of_file(Path(__file__).resolve())
    wanda = METHODS.get("wanda")
    changed = replace(wanda, name="mine", batch_count=2)
    assert (wanda.origin, changed.origin) == (None, own)
    sources = {**outside_sources(changed)}
    assert sources.pop("score") is not None
    assert set(sources.values()) == {None}
    assert changed == replace(changed, origin=None)


ELSEWHERE = {
    "plain": "import sys\nfrom pathlib import Path\n"
    "sys.path.insert(0, str(Path(__file__).parent / 'lib'))\nimport far_away\n",
    "late": "import sys\nfrom pathlib import Path\nsys.path.insert(0, str(Path(__file__).parent / 'lib'))\n"
    "def use():\n    import far_away\n",
    "looked_up": "import importlib\nNAME = 'near_by'\nmodule = importlib.import_module(NAME)\n",
    "renamed": "from importlib import import_module as fetch\nmodule = fetch('near_by')\n",
    "keyword": "import importlib\nmodule = importlib.import_module(name='near_by')\n",
}


@pytest.mark.parametrize(
    ("kind", "edited"), crossed(ELSEWHERE, ["lib/far_away.py", "lib/behind.py", "near_by.py"], every=3)
)
def test_code_that_is_found_by_other_ways_counts(tmp_path, kind, edited):
    """From other folders than the plug-in's own, and by names that are put together."""
    ask = """
import sys
sys.path[:0] = {path!r}
from pathlib import Path
from shrinkbench.sources import digest_of, load_file, origin_of_file
file = Path({file!r})
load_file(file)
print(digest_of([origin_of_file(file)]))
"""
    digests = []
    for number, text in enumerate(("x = 1\n", "x = 1\n", "x = 2\n")):
        folder = tmp_path / str(number)
        files = {"lib/far_away.py": "import behind\n", "lib/behind.py": "", "near_by.py": ""}
        for name, content in {**files, edited: files[edited] + text, "plug.py": ELSEWHERE[kind]}.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(content)
        command = [sys.executable, "-c", ask.format(path=sys.path, file=str(folder / "plug.py"))]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=dict(os.environ))
        digests.append(done.stdout)
    counts = edited.startswith("lib/") == (kind in ("plain", "late"))
    assert digests[0] == digests[1]
    assert (digests[0] != digests[2]) == counts


BY_PATH = {
    "spec": "import importlib.util as u\ns = u.spec_from_file_location('k_mod', HERE / 'k.py')\n"
    "K = u.module_from_spec(s)\ns.loader.exec_module(K)\nX = K.X\n",
    "runpy": "import runpy\nX = runpy.run_path(str(HERE / 'k.py'))['X']\n",
    "loader": "from importlib.machinery import SourceFileLoader\n"
    "X = SourceFileLoader('k_mod', str(HERE / 'k.py')).load_module().X\n",
    "exec": "exec(open(HERE / 'k.py').read())\n",
    "json": "import json\nX = json.loads((HERE / 'k.json').read_text())\n",
    "numpy": "import numpy\nX = int(numpy.load(HERE / 'k.npy'))\n",
    "helper": "import by_helper\nX = by_helper.X\n",
    "below": "X = len((HERE / 'data' / 'k.txt').read_text())\n",
    "package": "from shrinkbench.files import parse_json, read_file\n"
    "X = parse_json(read_file(HERE / 'k.json', most=99))\n",
}
HEAD = "from pathlib import Path\nHERE = Path(__file__).parent\n"
KEY = """
import json, sys
from pathlib import Path
from shrinkbench.sources import digest_of, load_file, origin_of_file
for name in sys.argv[1:]:
    file = Path(name).resolve()
    load_file(file)
    print(json.dumps([name, digest_of([origin_of_file(file)])]))
"""


def write_beside(path, value):
    import numpy as np

    (path / "data").mkdir(exist_ok=True)
    (path / "k.py").write_text(f"X = {value}\n")
    (path / "k.json").write_text(str(value))
    np.save(path / "k.npy", np.array(value))
    (path / "data" / "k.txt").write_text("x" * value)
    (path / "by_helper.py").write_text(HEAD + "X = int((HERE / 'k.json').read_text())\n")


def sources_of(path, names):
    command = [sys.executable, "-c", KEY, *(str(path / f"{name}.py") for name in names)]
    ended = subprocess.run(command, check=False, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return {Path(name).stem: source for name, source in map(json.loads, ended.stdout.splitlines())}


def test_what_a_plug_in_opens_beside_itself_is_part_of_its_digest(tmp_path):
    """Whether it runs it as code or reads it as data, and in a process that finds bytecode in a cache."""
    names = [f"of_{kind}" for kind in (*BY_PATH, "nothing")]
    for kind, name in zip((*BY_PATH, "nothing"), names, strict=True):
        text = HEAD + BY_PATH.get(kind, "")
        (tmp_path / f"{name}.py").write_text(text)
    write_beside(tmp_path, 1)
    before = sources_of(tmp_path, names)
    assert sources_of(tmp_path, reversed(names)) == before
    write_beside(tmp_path, 2)
    after = sources_of(tmp_path, names)
    assert [name for name in names if before[name] == after[name]] == ["of_nothing"]
    assert None not in {*before.values(), *after.values()}


def test_code_beside_that_was_not_digested_is_refused_when_it_is_run(tmp_path):
    (tmp_path / "k.py").write_text("X = 1\n")
    (tmp_path / "known.json").write_text("1")
    file = tmp_path / "lazy_plug.py"
    file.write_text(
        HEAD + "KNOWN = (HERE / 'known.json').read_text()\n"
        "def run():\n    import runpy\n    return runpy.run_path(str(HERE / 'k.py'))['X']\n"
        "def again():\n    return (HERE / 'known.json').read_text()\n"
        "def data():\n    return (HERE / 'late.json').read_text()\n"
    )
    (tmp_path / "late.json").write_text("3")
    module = load_file(file)
    digest_of([origin_of_file(file)])
    with pytest.raises(
        ShrinkbenchError, match=r"runs k\.py beside it, which it did not open while it was loaded"
    ):
        module.run()
    assert module.again() == "1"
    assert module.data() == "3"
    (tmp_path / "known.json").write_text("2")
    with pytest.raises(ShrinkbenchError, match=r"known\.json has changed since it was loaded"):
        module.again()
    with pytest.raises(ShrinkbenchError, match=r"known\.json has changed since it was loaded"):
        digest_of([origin_of_file(file)])


def test_what_is_hidden_or_passing_is_not_part_of_a_digest(tmp_path):
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "x").write_text("1")
    file = tmp_path / "passing_plug.py"
    file.write_text(
        HEAD + "import os\nY = (HERE / '.cache' / 'x').read_text()\n"
        "(HERE / 'scratch').write_text('1')\nZ = (HERE / 'scratch').read_text()\nos.remove(HERE / 'scratch')\n"
    )
    load_file(file)
    alone = digest_of([origin_of_file(file)], elsewhere=False)
    assert digest_of([origin_of_file(file)]) == alone


def test_data_that_a_plug_in_reads_are_kept_with_its_code(tmp_path):
    (tmp_path / "k.json").write_text("1")
    (tmp_path / "large.bin").write_bytes(bytes(LARGEST_SOURCE + 1))
    file = tmp_path / "kept_plug.py"
    file.write_text(HEAD + "X = (HERE / 'k.json').read_text()\n")
    load_file(file)
    digest = digest_of([origin_of_file(file)])
    store = ResultStore(tmp_path / "store")
    store.write_source(digest, texts_behind(digest))
    assert store.sources()[0] == {digest: {"k.json": b"1", "kept_plug.py": file.read_bytes()}}
    parts = [(place, sha256(text).hexdigest()) for place, text in store.sources()[0][digest].items()]
    assert digest_of_parts(parts) == digest
    store.write_source("0" * 64, {"a b.py": b"1", "c.py": b"2"})  # of a name that no bundle has
    assert "0" * 64 not in store.sources()[0]


def test_a_large_file_is_left_out_and_its_checksum_is_kept(tmp_path):
    files = {"mine.py": b"x = 1", "large.bin": bytes(LARGEST_SOURCE + 1)}
    code = digest_of_parts((place, sha256(content).hexdigest()) for place, content in files.items())
    store = ResultStore(tmp_path)
    store.write_source(code, files)
    assert sorted(store.sources()[0][code]) == ["large.bin.sha256", "mine.py"]
    bundle = Bundle("a", tmp_path, None, (), (), sources=store.sources()[0])
    assert "here but for 1 large files" in bundle.lacks_source(code)
    (tmp_path / "plugins" / code / "mine.py").write_text("x = 2")
    bundle = Bundle("a", tmp_path, None, (), (), sources=store.sources()[0])
    assert bundle.lacks_source(code) == EDITED


DAMAGES = {
    "edited": lambda folder: (folder / "mine.py").write_text("x = 2"),
    "deleted": lambda folder: (folder / "part" / "k.json").unlink(),
    "emptied": lambda folder: [path.unlink() for path in folder.rglob("*") if path.is_file()],
    "added": lambda folder: (folder / "more.py").write_text("1"),
    "a pipe": lambda folder: ((folder / "mine.py").unlink(), os.mkfifo(folder / "mine.py")),
    "a folder": lambda folder: ((folder / "mine.py").unlink(), (folder / "mine.py").mkdir()),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_copy_of_a_plug_in_that_is_not_what_keys_name_is_damage(tmp_path, damage):
    files = {"mine.py": b"x = 1", "part/k.json": b"1", "large.bin": bytes(LARGEST_SOURCE + 1)}
    code = digest_of_parts((place, sha256(content).hexdigest()) for place, content in files.items())
    store = ResultStore(tmp_path)
    store.write_source(code, files)
    assert verify_store(store) == []
    folder = tmp_path / "plugins" / code
    DAMAGES[damage](folder)
    found = {problem.path: problem.sentence for problem in verify_store(store)}
    assert EDITED in found[folder]
    (told,) = repair_store(store)
    assert f"set aside as {code}.damaged-" in told
    assert "a sweep with this plug-in keeps it anew" in told
    assert not folder.exists()
    assert verify_store(store) == []
    store.write_source(code, files)
    assert verify_store(store) == []


def test_links_pipes_and_large_files_in_a_folder_are_named_and_not_read(tmp_path):
    store, code = ResultStore(tmp_path / "store"), "a" * 64
    store.write_source(code, {"mine.py": b"x = 1"})
    folder = tmp_path / "store" / "plugins" / code
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "secret.txt").write_text("PRIVATE")
    (folder / "secret.txt").symlink_to(tmp_path / "private" / "secret.txt")
    (folder / "more").symlink_to(tmp_path / "private")
    (folder.parent / ("b" * 64)).symlink_to(tmp_path / "private")
    with (folder / "big.py").open("wb") as file:
        file.truncate(LARGEST_SOURCE + 1)
    os.mkfifo(folder / "pipe.py")
    found, problems = store.sources()
    assert found == {code: {"mine.py": b"x = 1"}}
    assert {problem.path.name for problem in problems} == {"secret.txt", "more", "big.py", "pipe.py"}
    assert {problem.path.name for problem in verify_store(store)} >= {"secret.txt", "pipe.py"}
