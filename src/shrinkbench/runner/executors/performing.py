"""One attempt at one task, in whatever process it is made: claimed, carried out, logged, its ending told."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import warnings
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from shrinkbench.errors import DamagedWarning, ShrinkbenchError, one_line, text_of
from shrinkbench.files import read_file, remove_temporaries
from shrinkbench.models.hugging_face import remember_folder
from shrinkbench.pruning import load_entry_points, load_plugin
from shrinkbench.results.claims import RunClaims
from shrinkbench.results.layout import LARGEST_RESULT, LOG_NAME
from shrinkbench.results.record import RunResult
from shrinkbench.results.store import ResultStore, read_result
from shrinkbench.runner.execution import ensure_control, run, sentence_of
from shrinkbench.runner.executors.process_state import keep_freed_memory, process_put_back
from shrinkbench.runner.executors.protocol import Ending, Setting, Task
from shrinkbench.runner.logs import RunLog
from shrinkbench.runner.outcomes import classify, doubt_failures, failures_are_doubted
from shrinkbench.runner.pretraining import ensure_pretrained
from shrinkbench.runner.retraining import ensure_rounds, ensure_search
from shrinkbench.runner.tracking import Diary
from shrinkbench.runner.workspace import Workspace
from shrinkbench.spec import PretrainSpec
from shrinkbench.spec.measures import EpochRecord
from shrinkbench.training.global_settings import settings_put_back

_SHARED = {"pretraining": "pretrained", "control": "control", "search": "search", "rounds": "rounds"}
_FILES = {
    "pretraining": "weights.safetensors",
    "control": "result.json",
    "search": "card.json",
    "rounds": "card.json",
    "run": "result.json",
}
_stop = threading.Event()
_leaving = threading.Event()
_lost = threading.Event()


class Interrupted(BaseException):
    """Raised after a whole epoch in a process that was told to stop; no failure of the run."""


def stop_after_this_epoch() -> None:
    """End the task of this process as soon as its state is on disk."""
    doubt_failures()
    _stop.set()


def leave() -> None:
    """Somebody else ends this process next, by ``SystemExit``; that is not the doing of its task."""
    _leaving.set()


def told_to_stop() -> bool:
    """Whether this process was told to stop."""
    return _stop.is_set()


def file_of_task(task: Task, root: Path) -> Path:
    """The file whose being there means that ``task`` is done."""
    store = ResultStore(root)
    folder = store.run_dir(task.key) if task.kind == "run" else store.shared_dir(_SHARED[task.kind], task.key)
    return folder / _FILES[task.kind]


def digest_at(path: Path) -> str | None:
    """SHA-256 of a file as it is now; nothing where there is none."""
    try:
        return hashlib.sha256(read_file(path, most=LARGEST_RESULT)).hexdigest()
    except OSError:
        return None


def find_done(task: Task, root: Path) -> Ending | None:
    """The ending of a task that somebody else has brought about since it was planned."""
    path = file_of_task(task, root)
    if task.kind != "run":
        return Ending("done") if path.exists() else None
    if digest_at(path) == task.before:
        return None
    result = read_result(path)
    return Ending("done", result=result) if isinstance(result, RunResult) else None


def perform(task: Task, setting: Setting, *, own_process: bool = False) -> Ending:
    """Carry ``task`` out unless somebody else does or has; whatever goes wrong becomes an ending.

    In a process of its own (``own_process``) nobody types Ctrl-C, and a ``KeyboardInterrupt`` is the code's.
    """
    try:
        prepare(setting)
    except ShrinkbenchError as error:
        return Ending("unprepared", str(error))
    if _lost.is_set():
        return Ending("environment", "an earlier run has lost this process its GPU; start anew", unfit=True)
    root = setting.workspace.root
    try:
        claim = _claims_in(root).take(f"{task.kind}-{task.key}")
    except ShrinkbenchError as error:
        return Ending("environment", str(error))
    if claim is None:
        return Ending("held", _holder_of(task, root))
    with claim:
        ending = find_done(task, root) or _attempt(task, setting.workspace, own_process=own_process)
        if task.kind == "run" and ending.kind == "done":  # only who has the claim writes there
            remove_temporaries(file_of_task(task, root).parent)
    return ending


def prepare(setting: Setting) -> None:
    """Load in this process what was planned with, or nothing."""
    keep_freed_memory()
    load_entry_points()
    for path in setting.workspace.weights.values():
        if path.name == "config.json":  # what a network of a folder is built by
            remember_folder(path.parent)
    for path, digest in setting.plugins.items():
        load_plugin(path, digest=digest)


def is_free(task: Task, root: Path) -> bool:
    """Whether another attempt at a task that was held is worth it: its claim is given up."""
    claim = _claims_in(root).take(f"{task.kind}-{task.key}")
    if claim is not None:
        claim.release()
    return claim is not None


@cache
def _claims_in(root: Path) -> RunClaims:
    return RunClaims(root)


def _holder_of(task: Task, root: Path) -> str:
    holder = _claims_in(root).holder(f"{task.kind}-{task.key}")
    return f"process {holder.pid} on {holder.host}" if holder is not None else "another process"


def _attempt(task: Task, workspace: Workspace, *, own_process: bool) -> Ending:
    log = RunLog(file_of_task(task, workspace.root).with_name(LOG_NAME))
    log.start(task.label)
    tags = {"key": task.key, "kind": task.kind, "label": task.label}
    diary = Diary(workspace.log_to, workspace.root, tags)

    here = os.getpid()

    def after_epoch(record: EpochRecord) -> None:
        _leave_copy(here)
        log.epoch(record)
        diary.epoch(record)
        if workspace.team.tell(_stop.is_set()):
            raise Interrupted

    workspace.team.tell(task)
    watched = replace(workspace, on_epoch=after_epoch)
    with settings_put_back() as changed, _catch_damage() as notes, process_put_back() as moved:
        ending = _ending_of(task, watched, own_process=own_process)
    _leave_copy(here)
    workspace.team.end(ending.kind)
    diary.end(ending.result)
    for note in notes:
        log.write(f"note: {note}")
    changed += moved
    if changed:  # by code that it ran; the next task finds them as this one has
        log.write(f"note: left settings of the process changed, which are put back: {', '.join(changed)}")
    log.end(ending.kind, ending.sentence)
    if ending.kind != "done" and _device_is_lost():
        _lost.set()
    return replace(ending, notes=tuple(notes), unfit=_lost.is_set())


def _device_is_lost() -> bool:
    """Whether the GPU serves this process no more: after an assertion in a kernel every later call fails."""
    if not torch.cuda.is_initialized():
        return False
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False


def _leave_copy(pid: int) -> None:
    """End this process if it is no more ``pid``, but a copy that somebody's code has made of it by a fork."""
    if os.getpid() != pid:
        os._exit(0)


@contextlib.contextmanager
def _catch_damage() -> Iterator[list[str]]:
    """What is told of damaged files inside; other warnings are shown as ever."""
    notes: list[str] = []
    with warnings.catch_warnings():
        show = warnings.showwarning

        def take(message: Warning | str, category: type[Warning], *place: Any, **further: Any) -> None:
            if issubclass(category, DamagedWarning):
                notes.append(str(message))
            else:
                show(message, category, *place, **further)

        warnings.simplefilter("always", DamagedWarning)
        warnings.showwarning = take
        yield notes


def follow_head(task: Task, workspace: Workspace) -> str:
    """The part of a task that another process of the team has begun; returns how it ended."""

    def after_epoch(record: EpochRecord) -> None:
        if workspace.team.tell(False):
            raise Interrupted

    watched = replace(workspace, on_epoch=after_epoch)
    with settings_put_back(), process_put_back():
        return _ending_of(task, watched, own_process=True).kind


def _ending_of(task: Task, workspace: Workspace, *, own_process: bool) -> Ending:
    try:
        return _carry_out(task, workspace)
    except Interrupted:
        return Ending("interrupted", "was told to stop; it goes on from its last whole epoch")
    except SystemExit as error:
        if _leaving.is_set():
            raise
        return Ending("died", f"called sys.exit({'' if error.code is None else one_line(text_of(error), 80)})")
    except KeyboardInterrupt:
        if not own_process:
            raise
        return Ending("died", "raised KeyboardInterrupt")
    except BaseException as error:  # whatever class a method raises: its process goes on
        if failures_are_doubted():
            return Ending(
                "interrupted", f"failed when it was told to stop ({one_line(sentence_of(error), 120)})"
            )
        cause = classify(error)
        if cause == "interruption" and not own_process:
            raise
        return Ending("environment" if cause == "environment" else "failed", sentence_of(error))


def _carry_out(task: Task, workspace: Workspace) -> Ending:
    spec = task.spec
    if isinstance(spec, PretrainSpec):
        ensure_pretrained(spec, workspace, keep=task.keep)
        return Ending("done")
    if task.kind == "run":
        result = run(spec, workspace)
        return Ending("done" if result.status == "done" else "failed", result.error or "", result)
    {"control": ensure_control, "search": ensure_search, "rounds": ensure_rounds}[task.kind](spec, workspace)
    return Ending("done")
