"""What is fuzzed, by name: each makes one wrong input in an empty folder and has it read.

Whoever reads it may accept it, or refuse it with one sentence. ``python tests/fuzzing/targets.py NAME COUNT SEED``
walks COUNT inputs and prints the counts.
"""

import contextlib
import functools
import hashlib
import io
import json
import os
import random
import resource
import sys
import tempfile
import time
import tomllib
import traceback
import warnings
import zipfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from fuzzing.mutations import HOSTILE_TEXTS, HOSTILE_VALUES, as_toml, with_bytes_changed, with_values_changed
from made_results import make_results, write_store
from places import ROOT
from safetensors.torch import save as save_tensors

import shrinkbench
from shrinkbench.cli import main
from shrinkbench.cli.options import parse_settings
from shrinkbench.errors import ShrinkbenchError
from shrinkbench.literature import store as literature
from shrinkbench.models import build, load_weights
from shrinkbench.pruning import Masks
from shrinkbench.results.bundle import read_source
from shrinkbench.results.frame import as_csv, to_frame
from shrinkbench.results.verification import find_implausible, verify
from shrinkbench.runner import Workspace
from shrinkbench.runner.planning import plan
from shrinkbench.spec import RunSpec, read_experiments

LONGEST_SENTENCE, LONGEST_SECONDS = 300, 10


class RefusedFilesError(ShrinkbenchError):
    """Files of a folder were named as unreadable, in sentences."""


@functools.cache
def stored():
    """Files of a small store, by name."""
    results = make_results(pairs=(("cifar10", "resnet20"),), seeds=(0,))
    with tempfile.TemporaryDirectory() as folder:
        root = write_store(Path(folder) / "store", results[:6]).root
        return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*.json"))}


@functools.cache
def network():
    return build("digits-cnn", seed=0)


def experiment(rng, folder):
    """Experiment files and ``--set``, up to the plan."""
    text = (ROOT / "experiments" / "quickstart.toml").read_bytes()
    if rng.random() < 0.4:
        content = with_bytes_changed(rng, text)
    else:
        content = as_toml(with_values_changed(rng, tomllib.loads(text.decode()))).encode(errors="replace")
    path = folder / "experiment.toml"
    path.write_bytes(content)
    settings = []
    if rng.random() < 0.2:
        key = rng.choice(
            ("seed", "method", "compression", "finetune.epochs", "a.b.c", "x." * 5000, *HOSTILE_TEXTS)
        )
        value = rng.choice(("[" * 5000, "9" * 5000, *HOSTILE_TEXTS, *map(str, HOSTILE_VALUES)))
        settings = [f"{key}={value}"]

    def read():
        for spec in read_experiments(path, parse_settings(settings)):
            plan(spec, Workspace(root=folder / "out"))

    return read


def _changed(rng, content):
    if rng.random() < 0.3:
        return with_bytes_changed(rng, content)
    return json.dumps(with_values_changed(rng, json.loads(content)), ensure_ascii=rng.random() < 0.5).encode(
        errors="replace"
    )


def _rekeyed(content):
    """A result whose key follows from its changed specification, where it has one."""
    try:
        data = json.loads(content)
        data["key"] = RunSpec.model_validate(data["spec"]).key
        return data["key"], json.dumps(data).encode()
    except Exception:
        return None, content


def _read_store(source):
    bundle = read_source(source)
    verify(bundle)
    find_implausible(bundle)
    as_csv(to_frame(bundle.results))
    if bundle.problems:
        for problem in bundle.problems:
            _check_sentence(problem.sentence)
        raise RefusedFilesError(bundle.problems[0].sentence)


def _write(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def result(rng, folder):
    """Results of a store; half of those that are changed have a key that follows."""
    files = dict(stored())
    name = rng.choice([n for n in files if n.startswith("runs/")])
    content = _changed(rng, files.pop(name))
    if rng.random() < 0.5:
        key, content = _rekeyed(content)
        name = f"runs/{key}/result.json" if key else name
    _write(folder / "store", {**files, name: content})
    if rng.random() < 0.02:
        options = (folder / "store", "--out", folder / "report", "--no-figures")
        return lambda: (
            command(rng.choice(("status", "checklist")), folder / "store") or command("report", *options)
        )
    return lambda: _read_store(folder / "store")


def planned(rng, folder):
    """The plan of a store."""
    files = dict(stored())
    _write(folder / "store", {**files, "plan.json": _changed(rng, files["plan.json"])})
    return lambda: _read_store(folder / "store")


def bundle(rng, folder):
    """Zip files: changed bytes, members under other names, false sums, bombs."""
    files = dict(stored())
    how = rng.randrange(5)
    if how == 1:
        name = rng.choice(list(files))
        files[name] = _changed(rng, files[name])
    if how == 2:
        files[rng.choice(("../up", "/tmp/up", "runs/x/result.json", "a" * 300, "plan.json/x", "\\up"))] = b"up"
    if how == 3:
        files[rng.choice(list(files))] = b"\0" * rng.choice((10, 9 << 20))
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    manifest = {"format": "shrinkbench-bundle", "version": 1, "name": "made", "files": sums}
    if how == 4:
        manifest = with_values_changed(rng, manifest)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        for name, content in {"manifest.json": json.dumps(manifest).encode(errors="replace"), **files}.items():
            archive.writestr(name, content)
    content = buffer.getvalue()
    (folder / "made.zip").write_bytes(with_bytes_changed(rng, content) if how == 0 else content)
    return lambda: _read_store(folder / "made.zip")


def _tensors(rng, state):
    """``state`` with an entry of another kind, shape or name."""
    state = dict(state)
    name = rng.choice(list(state))
    tensor = state.pop(name)
    other = rng.choice(
        (
            lambda: tensor.double(),
            lambda: tensor.flatten(),
            lambda: tensor.flatten()[:0],
            lambda: tensor.to(torch.complex64),
            lambda: tensor.bool(),
            lambda: torch.full_like(tensor.float(), float("nan")),
            lambda: tensor[None],
            lambda: None,
        )
    )()
    if other is not None:
        state[rng.choice((name, name, *HOSTILE_TEXTS[4:]))] = other
    return state


def masks(rng, folder):
    """Masks in safetensors."""
    full = {name: torch.ones_like(p, dtype=torch.bool) for name, p in network().named_parameters()}
    content = save_tensors(_tensors(rng, full) if rng.random() < 0.5 else full)
    if rng.random() < 0.6:
        content = with_bytes_changed(rng, content)
    (folder / "masks.safetensors").write_bytes(content)
    return lambda: Masks.load(folder / "masks.safetensors", network="digits-cnn").apply(build("digits-cnn"))


def weights(rng, folder):
    """Weights in safetensors and in PyTorch's own format."""
    state = network().state_dict()
    if rng.random() < 0.6:
        state = _tensors(rng, state)
    suffix = rng.choice((".pt", ".safetensors"))
    if suffix == ".pt":
        dense = next((name for name, tensor in state.items() if tensor.dim() == 2), next(iter(state)))
        odd = rng.choice(
            (None, None, lambda t: t.to_sparse(), lambda t: t.to("meta"), lambda t: str, lambda t: [t])
        )
        if odd is not None:
            state = {**state, dense: odd(state[dense])}
        buffer = io.BytesIO()
        wrapped = rng.choice(
            (state, {"state_dict": state}, {"net": {"module." + k: v for k, v in state.items()}})
        )
        torch.save(wrapped, buffer)
        content = buffer.getvalue()
    else:
        content = save_tensors(state)
    if rng.random() < 0.5:
        content = with_bytes_changed(rng, content)
    (folder / f"weights{suffix}").write_bytes(content)
    return lambda: load_weights(build("digits-cnn"), folder / f"weights{suffix}")


@functools.cache
def _own_corpus():
    place = Path(shrinkbench.__file__).parent / "literature" / "data" / "liu2019"
    files = {p.name: p.read_bytes() for p in place.iterdir()}
    files["facts.csv"] = b"".join(files["facts.csv"].splitlines(keepends=True)[:40])
    return files


def corpus(rng, folder):
    """A corpus of tables; bytes or whole cells are changed."""
    files = dict(_own_corpus())
    name = rng.choice(list(files))
    if rng.random() < 0.5 or name.endswith(".json"):
        files[name] = with_bytes_changed(rng, files[name])
    else:
        lines = files[name].decode().splitlines()
        at = rng.randrange(len(lines))
        cells = lines[at].split(",")
        cells[rng.randrange(len(cells))] = rng.choice(
            ("1" * 25, "1e99999", "-9e400", *map(str, HOSTILE_VALUES))
        ).replace("\n", " ")
        lines[at] = ",".join(cells)
        files[name] = "\n".join(lines).encode(errors="replace")
    _write(folder / "corpus", files)

    def read():
        found = literature.load_corpus(folder / "corpus")
        [fact.scaled for fact in found.facts if fact.value is not None]
        if rng.random() < 0.05:
            command(
                "literature", rng.choice(("summary", "lint", "table1")), "--corpus", folder / "corpus", "--json"
            )

    return read


class _EndedError(Exception):
    """A command that ended with a code of its own."""


def command(*arguments):
    """Run the command line in this process; a refusal becomes a ``ShrinkbenchError``, a fault an exception."""
    before, sys.argv = sys.argv, ["shrinkbench", *map(str, arguments)]
    out, err = io.StringIO(), io.StringIO()
    code = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as ended:
        code = ended.code or 0
    finally:
        sys.argv = before
    if code == 2 and len(arguments) > 1:
        sentences = [line for line in err.getvalue().splitlines() if line.startswith("error: ")]
        if len(sentences) != 1 or len(sentences[0]) >= LONGEST_SENTENCE + len("error: "):
            raise _EndedError(f"{str(arguments)[:200]} said {err.getvalue()[:500]!r}")
        raise RefusedFilesError(sentences[0].removeprefix("error: "))
    if code not in (0, 1, 2):
        raise _EndedError(f"{str(arguments)[:200]} ended with {code}: {err.getvalue()[:500]}")


_COMMANDS = ("status", "report", "checklist", "scratch", "bundle", "merge", "leaderboard", "diff", "describe")
_COMMANDS += ("list", "prune", "evaluate", "sweep", "patterns", "shrink", "pretrain", "check", "literature")
_OPTIONS = (
    "--out",
    "--method",
    "--model",
    "--compression",
    "--seed",
    "--weights",
    "--masks",
    "--set",
    "--data",
)
_OPTIONS += (
    "--dataset",
    "--json",
    "--plugin",
    "--corpus",
    "--verify",
    "--batch-size",
    "--workers",
    "--nonsense",
)
_VALUES = (
    "digits-cnn",
    "digits",
    "global_magnitude",
    "2",
    "1.5",
    "store",
    "file",
    "quickstart",
    "methods",
    "/dev/zero",
)
_VALUES += (
    "pipe",
    "store/runs",
    "absent/file",
    "file/below",
    "-1",
    "1e999",
    str(2**63),
    "9" * 5000,
    "[" * 5000,
)


def command_line(rng, folder):
    """Command lines of any words, in a folder with a store, a file and a pipe."""
    _write(folder, {f"store/{name}": content for name, content in stored().items()} | {"file": b"text"})
    os.mkfifo(folder / "pipe")
    words = [rng.choice(_COMMANDS)]
    for _ in range(rng.randrange(6)):
        value = rng.choice((*_VALUES, *(text for text in HOSTILE_TEXTS if "\0" not in text)))
        words += [rng.choice(_OPTIONS), value] if rng.random() < 0.6 else [value]
    if words[0] in ("sweep", "pretrain", "report", "leaderboard"):
        words += ["--nonsense"] if words[0] != "report" else ["--no-figures"]
    return lambda: command(*words)


TARGETS = {
    each.__name__: each for each in (experiment, result, planned, bundle, masks, weights, corpus, command_line)
}


def _check_sentence(sentence):
    assert sentence, "it says nothing"
    assert "\n" not in sentence, f"it has several lines: {sentence!r}"
    assert len(sentence) < LONGEST_SENTENCE, f"it has {len(sentence)} characters: {sentence}"


def try_one(name, seed):
    """Make the input of ``seed`` and have it read: ``"accepted"`` or ``"refused"``."""
    rng = random.Random(f"{name} {seed}")
    with tempfile.TemporaryDirectory() as scratch, contextlib.chdir(scratch):
        read = TARGETS[name](rng, Path(scratch).resolve())
        before = sorted(Path(scratch).rglob("*"))
        start = time.perf_counter()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                read()
            outcome = "accepted"
        except ShrinkbenchError as error:
            _check_sentence(str(error))
            left = sorted(set(Path(scratch).rglob("*")) - set(before))
            assert not left, f"{left[0]} was left behind"
            outcome = "refused"
        seconds = time.perf_counter() - start
        assert seconds < LONGEST_SECONDS, f"it took {seconds:.1f} s"
        return outcome, seconds


def walk(name, count, first=0):
    """Counts of accepted, refused and fallen inputs, and the longest time."""
    counts, longest = {"accepted": 0, "refused": 0, "fallen": 0}, 0.0
    for seed in range(first, first + count):
        try:
            outcome, seconds = try_one(name, seed)
        except Exception as error:
            outcome, seconds = "fallen", 0.0
            last = traceback.extract_tb(error.__traceback__)[-1]
            print(f"{name} {seed}: {type(error).__name__}: {str(error)[:300]} ({last.filename}:{last.lineno})")
        counts[outcome] += 1
        longest = max(longest, seconds)
    return counts, longest


if __name__ == "__main__":
    target, how_many, begin = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    found, slowest = walk(target, how_many, begin)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"{target}: {found}, longest {slowest:.2f} s, peak {peak} MiB")
