"""Where results lie: one folder per run, and a whole file in it means that the run is finished."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.files import is_folder, read_file, remove_file, write_atomically
from shrinkbench.links import confine
from shrinkbench.results.conflicts import differ, numbers_of
from shrinkbench.results.index import IndexEntry, append_index, read_index
from shrinkbench.results.layout import (
    AGAIN,
    CONFLICTS,
    FAILURE_NAME,
    LARGEST_PLAN,
    LARGEST_RESULT,
    LARGEST_SOURCE,
    LEFT_OUT,
    PLAN_NAME,
    PLUGIN_FILE,
    PLUGINS,
    RESULT_NAME,
    conflict_file,
    plugin_file,
    result_file,
    set_aside,
)
from shrinkbench.results.locking import hold_lock
from shrinkbench.results.outside_code import EDITED, lack_of
from shrinkbench.results.plan import Plan, PlannedRun, PlanOutline, Status, merge_plans, status_of
from shrinkbench.results.reading import (
    Problem,
    check_plan_size,
    parse_plan,
    parse_result,
    read_result,
)
from shrinkbench.results.record import RunResult
from shrinkbench.sources import texts_behind
from shrinkbench.spec import ExperimentSpec, RunSpec

__all__ = [
    "Plan",
    "PlannedRun",
    "Problem",
    "ResultStore",
    "Status",
    "existing_store",
    "parse_plan",
    "parse_result",
    "read_result",
    "status_of",
]


class ResultStore:
    """Results of one experiment in the folder ``root``.

    ``plan.json`` lists the runs; ``runs/<key>/result.json`` holds one outcome each. Files appear whole or not
    at all: they are written beside their place, flushed to the disk and renamed, so a kill at any moment leaves
    only finished results behind. Any number of processes may write at once: what is read and then replaced is
    so under a lock. A run that is done is never replaced by one that failed.
    """

    def __init__(self, root: Path) -> None:
        confine(root)
        self.root = Path(root)
        self._index: dict[str, IndexEntry] | None = None  # as of the first look
        self._unlisted: list[IndexEntry] = []  # what was read since, as no line described it

    # Places

    @property
    def plan_path(self) -> Path:
        """The file that lists the planned runs."""
        return self.root / PLAN_NAME

    def run_dir(self, key: str) -> Path:
        """The folder of one run; checkpoints lie beside its result."""
        return self.root / "runs" / key

    def result_path(self, key: str) -> Path:
        """The file that says that the run is finished, and how."""
        return self.root / result_file(key)

    def shared_dir(self, kind: str, key: str) -> Path:
        """The folder of something that several runs share: a pretrained network, a control."""
        return self.root / "shared" / kind / key

    # Plan

    def write_plan(self, experiment: ExperimentSpec, runs: Sequence[RunSpec]) -> Plan:
        """Store the plan of ``experiment``, in place of an earlier one of the same name.

        Plans of other experiments in this folder are kept, and so is every stored result. Raises
        ``ShrinkbenchError`` where there is a plan that cannot be read: what it asked for would be lost.
        """
        with hold_lock(self.root):
            plan = merge_plans(None, experiment, runs)
            content = plan.as_json()
            if not self._plan_is(content):  # else it need not be read, which takes long
                earlier = self.read_plan() if self.plan_path.exists() else None
                if earlier is not None and any(e.name != experiment.name for e in earlier.experiments):
                    plan = merge_plans(earlier, experiment, runs)
                    content = plan.as_json()
                if len(content) > LARGEST_PLAN:
                    raise ShrinkbenchError(
                        f"{self.plan_path} would have {len(plan.runs):,} runs in {len(content) >> 20} MiB, and "
                        f"plans up to {LARGEST_PLAN >> 20} MiB are read; sweep part of them into another folder"
                    )
                write_atomically(self.plan_path, content)
        return plan

    def _plan_is(self, content: bytes) -> bool:
        try:
            return read_file(self.plan_path, most=LARGEST_PLAN) == content
        except OSError:
            return False

    def find_plan(self) -> Plan | Problem | None:
        """The stored plan, what is wrong with it, or nothing where there is none."""
        if not self.plan_path.exists():
            return None
        try:
            return self.read_plan()
        except ShrinkbenchError as error:
            return Problem(self.plan_path, str(error).removeprefix(f"{self.plan_path} "))

    def outline(self) -> PlanOutline | None:
        """Keys and names of the stored plan, many times as fast as all of it; nothing where there is none."""
        if not self.plan_path.exists():
            return None
        try:
            content = read_file(self.plan_path, most=LARGEST_PLAN)
            check_plan_size(content)
            return PlanOutline.model_validate_json(content)
        except (OSError, ValueError):  # what pydantic raises is one
            plan = self.read_plan()  # of schema 1, or its error says what is wrong
            return PlanOutline.model_validate(plan, from_attributes=True)

    def read_plan(self) -> Plan:
        """The stored plan; an error names the file where it is absent or not a plan."""
        try:
            return parse_plan(self.plan_path, read_file(self.plan_path, most=LARGEST_PLAN))
        except FileNotFoundError:
            raise ShrinkbenchError(
                f"{self.root} holds no {PLAN_NAME}; name the output folder of a sweep"
            ) from None
        except OSError as error:
            raise ShrinkbenchError(f"{self.plan_path} cannot be read ({error.strerror})") from None

    # Results

    def has(self, key: str) -> bool:
        """Whether the run is finished (done or failed), its file can be read, and nobody asks for it again."""
        return self.entry(key) is not None

    def entry(self, key: str) -> IndexEntry | None:
        """What is known of a finished run; ``None`` where it has to be carried out (again)."""
        if (self.run_dir(key) / AGAIN).exists():
            return None
        found = self._look(key)
        return found if isinstance(found, IndexEntry) else None

    def damaged(self, keys: Iterable[str]) -> list[Problem]:
        """The files of the runs ``keys`` that are no results of them; their runs count as missing."""
        found = map(self._look, keys)
        return [problem for problem in found if isinstance(problem, Problem)]

    def entries(self) -> tuple[list[IndexEntry], list[Problem]]:
        """Every readable result in order of key, and problems; what the index describes is not read."""
        entries: list[IndexEntry] = []
        problems: list[Problem] = []
        try:
            keys = sorted(os.listdir(self.root / "runs"))  # noqa: PTH208 - ten thousand names, no paths
        except OSError:
            keys = []
        for key in keys:
            found = self._look(key)
            if isinstance(found, IndexEntry):
                entries.append(found)
            elif found is not None:
                problems.append(found)
        return entries, problems

    def _look(self, key: str) -> IndexEntry | Problem | None:
        """What lies at the place of a run: its entry in the index where that is up to date, else by reading."""
        path = self.result_path(key)
        if self._index is None:
            self._index = read_index(self.root)
        known = self._index.get(key)
        try:
            stat = path.stat()  # before the reading: a file that is replaced meanwhile is looked at again
            if known is not None and known.describes(stat):
                return known
            content = read_file(path, most=LARGEST_RESULT)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            return Problem(path, f"cannot be read ({error.strerror or error})")
        result = parse_result(path, content)
        if isinstance(result, Problem):
            return result
        entry = IndexEntry.of(result, content, stat)
        self._index[key] = entry
        self._unlisted.append(entry)
        return entry

    def extend_index(self) -> None:
        """Add to the index what this store had to read: for commands that write here anyway.

        Who only reads leaves a folder as it is.
        """
        append_index(self.root, self._unlisted)
        self._unlisted = []

    def read(self, key: str) -> RunResult:
        """The stored result; an error says what is wrong with the file."""
        result = read_result(self.result_path(key))
        if isinstance(result, Problem):
            raise ShrinkbenchError(f"{result.path}: {result.sentence}")
        return result

    def write(self, result: RunResult) -> Path:
        """Store a result under its key, replacing an earlier one, and return its place.

        A failure does not replace a run that is done: it is stored beside it, as ``failure.json``. A file that
        is no result of the run is renamed to ``result.json.damaged-...``, so that nothing is lost.
        """
        path, content = self.result_path(result.key), result.as_json()
        beside = self.run_dir(result.key) / FAILURE_NAME
        with hold_lock(self.root):
            standing = read_result(path) if os.path.lexists(path) else None  # a link to itself too
            if isinstance(standing, Problem):
                set_aside(path)
            if result.status == "failed" and isinstance(standing, RunResult) and standing.status == "done":
                write_atomically(beside, content)
                path = beside
            else:
                write_atomically(path, content)
                entry = IndexEntry.of(result, content, path.stat())
                append_index(self.root, [entry])
                if self._index is not None:
                    self._index[result.key] = entry
                remove_file(beside)
            remove_file(self.run_dir(result.key) / AGAIN)
        return path

    def ask_again(self, key: str) -> None:
        """Have a run carried out once more; its result stands until the new one takes its place."""
        write_atomically(self.run_dir(key) / AGAIN, b"")

    def results(self) -> tuple[list[RunResult], list[Problem]]:
        """Every readable result in order of key, and a problem for every file that is not one."""
        results: list[RunResult] = []
        problems: list[Problem] = []
        for path in sorted(self.root.glob(f"runs/*/{RESULT_NAME}")):
            outcome = read_result(path)
            if isinstance(outcome, Problem):
                problems.append(outcome)
            else:
                results.append(outcome)
        return results, problems

    def write_conflict(self, result: RunResult) -> None:
        """Store another result of a run beside the first; equal numbers are stored once."""
        path = self.root / conflict_file(result.key, numbers_of(result))
        if not path.exists():
            write_atomically(path, result.as_json())

    def conflicts(self, results: Iterable[RunResult]) -> tuple[list[RunResult], list[Problem]]:
        """Results that contradict those of ``results`` under the same keys, and problems.

        A later failure that lies beside a run that is done is one, where it lies in the run.
        """
        used = {result.key: result for result in results}
        found: dict[tuple[str, str, str], RunResult] = {}
        problems: list[Problem] = []
        for name in (f"{CONFLICTS}/*.json", FAILURE_NAME):
            for path in sorted(self.root.glob(f"runs/*/{name}")):
                outcome = read_result(path)
                if isinstance(outcome, Problem):
                    problems.append(outcome)
                elif outcome.key not in used or differ(used[outcome.key], outcome):
                    found.setdefault((outcome.key, outcome.status, numbers_of(outcome)), outcome)
        return list(found.values()), problems

    def has_second_outcomes(self) -> bool:
        """Whether some run has another result beside the one that is used, or failed later."""
        return any(any(self.root.glob(f"runs/*/{name}")) for name in (CONFLICTS, FAILURE_NAME))

    # Code from outside

    def keep_sources(self, runs: Iterable[RunSpec]) -> None:
        """Store the files of the outside code that ``runs`` rest on, as far as this process has loaded it."""
        for digest in sorted({digest for run in runs for digest in run.sources}):
            self.write_source(digest, texts_behind(digest))

    def write_source(self, digest: str, files: Mapping[str, bytes]) -> None:
        """Store the files behind ``digest``, by place; of a large one its SHA-256, as ``NAME.sha256``.

        Nothing is stored where one has no plain name, since the rest could not be told from edited code. A
        copy that is whole stays as it is, and one that is not is set aside, so that no files of the two mix.
        """
        named = {plugin_file(digest, place): content for place, content in files.items()}
        if not named or not all(PLUGIN_FILE.fullmatch(name + LEFT_OUT) for name in named):
            return
        folder = self.root / PLUGINS / digest
        with hold_lock(self.root):  # else a copy that is being written would look like one that is not whole
            standing = self.sources(digest)[0].get(digest, {})
            if standing and lack_of(standing, digest) != EDITED:
                return
            if os.path.lexists(folder):
                set_aside(folder)
            for name, content in named.items():
                if len(content) <= LARGEST_SOURCE:
                    write_atomically(self.root / name, content)
                else:
                    sha256 = hashlib.sha256(content).hexdigest()
                    write_atomically(self.root / (name + LEFT_OUT), sha256.encode())

    def sources(self, digest: str = "*") -> tuple[dict[str, dict[str, bytes]], list[Problem]]:
        """The stored files of outside code: place -> content for each digest, or one, and problems.

        Nothing of them is run. Who made a folder must not decide which files of the reader are passed on: what
        lies behind a link that leads out of it is not read.
        """
        found: dict[str, dict[str, bytes]] = {}
        problems: list[Problem] = []
        home = os.path.realpath(self.root)
        for path in sorted(self.root.glob(f"{PLUGINS}/{digest}/**/*")):
            name = PLUGIN_FILE.fullmatch(path.relative_to(self.root).as_posix())
            if name is None or (path.is_dir() and not path.is_symlink()):  # what no sweep has put there
                continue
            if not Path(os.path.realpath(path)).is_relative_to(home):
                problems.append(Problem(path, "is behind a link that leads out of the folder, and is not read"))
                continue
            try:
                content = read_file(path, most=LARGEST_SOURCE)
            except OSError as error:
                problems.append(Problem(path, f"cannot be read ({error.strerror or error})"))
            else:
                found.setdefault(name["digest"], {})[name["file"]] = content
        return found, problems

    def status(self) -> Status:
        """Counts over the planned runs; a file that cannot be read counts as missing.

        Without a plan the stored results themselves are the total.
        """
        return status_of(self.entries()[0], self.outline())


def existing_store(root: Path) -> ResultStore:
    """The store in ``root``; an error says so where the folder holds neither a plan nor results."""
    store = ResultStore(root)
    if not is_folder(store.root):
        raise ShrinkbenchError(f"{root} is not a folder; name the output folder of a sweep")
    if not store.plan_path.exists() and not (store.root / "runs").is_dir():
        raise ShrinkbenchError(f"{root} holds no results of shrinkbench; name the output folder of a sweep")
    return store
