"""Result bundles: one file that others can check, merge and compare."""

from __future__ import annotations

import hashlib
import io
import math
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.files import check_target, write_atomically
from shrinkbench.results.record import Quality, RunResult
from shrinkbench.results.store import (
    PLAN_NAME,
    RESULT_NAME,
    Plan,
    Problem,
    ResultStore,
    existing_store,
    parse_plan,
    parse_result,
)
from shrinkbench.spec import ExperimentSpec, RunSpec, Value, digest

FORMAT = "shrinkbench-bundle"
MANIFEST = "manifest.json"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # a zip needs a date; a fixed one keeps equal results equal files


class Manifest(Value):
    """What a bundle holds: SHA-256 of every file in it."""

    format: str
    version: int
    name: str
    files: dict[str, str]


@dataclass(frozen=True)
class Bundle:
    """Results read from a store or a bundle; ``digest`` identifies the content, whatever the file's name."""

    name: str
    source: Path
    digest: str
    plan: Plan | None
    results: tuple[RunResult, ...]
    problems: tuple[Problem, ...]


def write_bundle(store_dir: Path, out: Path) -> Bundle:
    """Pack plan and results of ``store_dir`` into the zip file ``out``; equal results give equal bytes."""
    check_target(out)
    bundle = read_source(store_dir)
    if not bundle.results:
        raise ShrinkbenchError(f"{store_dir} holds no results to bundle; run a sweep into it first")
    files = _contents(bundle)
    manifest = _manifest(bundle.name, files)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in {MANIFEST: manifest, **files}.items():
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), content, zipfile.ZIP_DEFLATED, 9)
    write_atomically(out, buffer.getvalue())
    return bundle


def _contents(bundle: Bundle) -> dict[str, bytes]:
    files = {PLAN_NAME: bundle.plan.model_dump_json(indent=1).encode()} if bundle.plan else {}
    for result in sorted(bundle.results, key=lambda r: r.key):
        files[f"runs/{result.key}/{RESULT_NAME}"] = result.model_dump_json(indent=1).encode()
    return files


def _manifest(name: str, files: Mapping[str, bytes]) -> bytes:
    sums = {path: hashlib.sha256(content).hexdigest() for path, content in sorted(files.items())}
    return Manifest(format=FORMAT, version=1, name=name, files=sums).model_dump_json(indent=1).encode()


def read_source(source: Path) -> Bundle:
    """Read a store's folder or a bundle's file."""
    if source.is_dir():
        store = existing_store(source)
        results, problems = store.results()
        plan = store.find_plan()
        if isinstance(plan, Problem):
            problems, plan = [plan, *problems], None
        name = plan.name if plan else source.resolve().name
        return _bundle(name, source, plan, results, problems)
    return read_bundle(source)


def read_bundle(path: Path) -> Bundle:
    """Read a bundle; files whose content is not what the manifest says are an error that names them."""
    try:
        with zipfile.ZipFile(path) as archive:
            files = {info.filename: archive.read(info) for info in archive.infolist()}
    except FileNotFoundError:
        raise ShrinkbenchError(f"there is no bundle or results folder {path}; check the path") from None
    except (OSError, zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
        raise ShrinkbenchError(
            f"{path} is not a whole bundle ({error}); make it again with `shrinkbench bundle`"
        ) from None
    try:
        manifest = Manifest.model_validate_json(files.pop(MANIFEST, b""))
    except ValidationError:
        raise ShrinkbenchError(
            f"{path} has no manifest of a shrinkbench bundle; make it with `shrinkbench bundle`"
        ) from None
    if manifest.format != FORMAT or manifest.version != 1:
        raise ShrinkbenchError(
            f"{path} is a {manifest.format} of version {manifest.version}; this shrinkbench reads version 1"
        )
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    names = sums.keys() | manifest.files.keys()
    altered = sorted(name for name in names if sums.get(name) != manifest.files.get(name))
    if altered:
        raise ShrinkbenchError(
            f"{path}: {len(altered)} file{'s' if len(altered) > 1 else ''} differ from the manifest, first "
            f"{altered[0]}; the bundle was altered or damaged, ask its author for the original"
        )
    return _parse(path, manifest, files)


def _parse(path: Path, manifest: Manifest, files: Mapping[str, bytes]) -> Bundle:
    plan: Plan | None = None
    results: list[RunResult] = []
    problems: list[Problem] = []
    for name, content in files.items():
        if name == PLAN_NAME:
            try:
                plan = parse_plan(path / name, content)
            except ShrinkbenchError as error:
                problems.append(Problem(path / name, str(error).removeprefix(f"{path / name} ")))
            continue
        outcome = parse_result(path / name, content)
        if isinstance(outcome, Problem):
            problems.append(outcome)
        else:
            results.append(outcome)
    return _bundle(manifest.name, path, plan, results, problems)


def _bundle(
    name: str, source: Path, plan: Plan | None, results: Sequence[RunResult], problems: Sequence[Problem]
) -> Bundle:
    sums = "".join(digest(result) for result in sorted(results, key=lambda r: r.key))
    identity = hashlib.sha256(sums.encode()).hexdigest()
    return Bundle(name, source, identity, plan, tuple(results), tuple(problems))


# Verification


def verify(bundle: Bundle) -> list[str]:
    """What in the results contradicts itself; nothing where all is consistent.

    Every file must be a valid result whose key follows from its specification, every ratio from its counts,
    every count from the layers, every accuracy from a whole number of images, and a control must read alike for
    every method that has it.
    """
    found = [f"{p.path.relative_to(bundle.source)}: {p.sentence}" for p in bundle.problems]
    for result in bundle.results:
        found += [f"run {result.key[:12]}: {sentence}" for sentence in _contradictions(result)]
    return found + list(_find_differing_controls(bundle.results))


def _contradictions(result: RunResult) -> Iterator[str]:
    size = result.size
    if size is not None:
        if not math.isclose(size.compression, size.parameters / max(1, size.parameters_kept), rel_tol=1e-9):
            yield "compression is not parameters / parameters kept"
        speedup = size.multiply_adds / max(1, size.multiply_adds_kept)
        if not math.isclose(size.theoretical_speedup, speedup, rel_tol=1e-9):
            yield "theoretical speedup is not multiply-adds / multiply-adds kept"
        pruned = sum(layer.total - layer.kept for layer in result.layers.values())
        if result.layers and size.parameters - size.parameters_kept != pruned:
            yield "the layers do not add up to the parameters kept"
    splits = {"before fine-tuning": result.before, "after": result.after, "on validation": result.validation}
    for split, quality in splits.items():
        if quality is not None and not _is_countable(quality):
            yield f"accuracy {split} is not a count of {quality.examples} images"


def _is_countable(quality: Quality) -> bool:
    """Whether top-1 and top-5 are shares of whole images, top-5 not below top-1."""
    shares = [quality.metrics[name] for name in ("top1", "top5") if name in quality.metrics]
    counts = [share * quality.examples for share in shares]
    return all(abs(count - round(count)) < 1e-3 for count in counts) and shares == sorted(shares)


def _find_differing_controls(results: Sequence[RunResult]) -> Iterator[str]:
    controls: dict[str, RunResult] = {}
    for result in results:
        if result.spec.is_control and result.status == "done":
            first = controls.setdefault(result.spec.control.key, result)
            if first.after != result.after:
                yield f"run {result.key[:12]}: its control differs from that of run {first.key[:12]}"


# Merging


@dataclass(frozen=True)
class Merged:
    """What a merge gave: runs in all, taken over from each source, and runs that sources disagree on.

    ``problems`` are files of the sources that could not be used.
    """

    out: Path
    runs: int
    taken: tuple[tuple[str, int], ...]
    differing: int
    largest_difference: float
    problems: tuple[Problem, ...]


def merge(sources: Sequence[Path], out: Path) -> Merged:
    """Unite stores or bundles in the store ``out``; of one run, a finished result wins over a failed one.

    Where two sources finished the same run with different numbers (another machine), the first is kept and
    the difference is counted. A store that ``out`` already holds is the first source. Raises
    ``ShrinkbenchError`` for a folder ``out`` of anything else.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        existing_store(out)
        sources = [out, *(source for source in sources if source.resolve() != out.resolve())]
    bundles = [read_source(source) for source in sources]
    store = ResultStore(out)
    kept: dict[str, tuple[int, RunResult]] = {}
    differing, largest = 0, 0.0
    stored = (*enumerate(bundles),)
    for number, bundle in stored:
        for result in bundle.results:
            earlier = kept.get(result.key, (0, None))[1]
            if earlier is None or (earlier.status == "failed" and result.status == "done"):
                kept[result.key] = (number, result)
            elif earlier.after and result.after and earlier.after != result.after:
                differing += 1
                largest = max(largest, abs((earlier.headline or 0.0) - (result.headline or 0.0)))
    for experiment, runs in _unite_plans(bundles):
        store.write_plan(experiment, runs)
    for number, result in kept.values():
        if bundles[number].source != out:
            store.write(result)
    taken = tuple((str(b.source), sum(n == number for n, _ in kept.values())) for number, b in stored)
    problems = tuple(problem for bundle in bundles for problem in bundle.problems)
    return Merged(out, len(kept), taken, differing, largest, problems)


def _unite_plans(bundles: Sequence[Bundle]) -> Iterator[tuple[ExperimentSpec, list[RunSpec]]]:
    """Every experiment of every plan; another grid under a name that is taken gets a digest."""
    seen: dict[str, str] = {}
    for bundle in bundles:
        if bundle.plan is None:
            continue
        for experiment in bundle.plan.experiments:
            runs = [run.spec for run in bundle.plan.runs if run.experiment == experiment.name]
            identity = digest(experiment)
            if seen.setdefault(experiment.name, identity) != identity:
                experiment = experiment.model_copy(update={"name": f"{experiment.name}-{identity[:6]}"})
            yield experiment, runs
