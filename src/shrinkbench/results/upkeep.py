"""Looking after a results folder: what is damaged, what is left over, and what takes up its room."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from shrinkbench.errors import ShrinkbenchError, one_line
from shrinkbench.files import is_temporary, unique_suffix, write_atomically
from shrinkbench.links import check_links, placed
from shrinkbench.results.claims import CLAIMS, Holder, RunClaims
from shrinkbench.results.damage import verify_store
from shrinkbench.results.index import INDEX_NAME, lines_of_index, read_index, text_of_index
from shrinkbench.results.layout import CONFLICTS, NETWORK_NAME, PLAN_NAME, PLUGINS, RESULT_NAME, set_aside
from shrinkbench.results.locking import hold_lock
from shrinkbench.results.store import Problem, ResultStore

__all__ = ["compact_store", "disk_use", "repair_store", "say_bytes", "sentences_of", "verify_store"]

_OLD = 3600.0  # seconds; nothing that is being written takes longer
_MARKS = {"pretrained": "weights.safetensors", "control": RESULT_NAME}  # what is made last; else card.json
_MARK = "card.json"


def repair_store(store: ResultStore, *, wait: float = 0.0) -> Iterator[str]:
    """Set aside what is damaged and remove what is left over; yields a sentence for each thing done.

    Damaged files are renamed to ``NAME.damaged-...`` and made again by the next sweep; a plan is only told,
    since nothing makes it again. Claims whose owner is gone are removed: those of other hosts after ``wait``
    seconds without a heartbeat. What the claims of living processes name is left alone.
    Raises ``ShrinkbenchError`` where a link leads out of the folder.
    """
    check_links(store.root)
    for problem in verify_store(store):
        if problem.path == store.plan_path:
            yield f"{problem.path} {problem.sentence}; left as it is: move it away to plan anew"
            continue
        place = _place_of(problem.path, store.root)
        if os.path.lexists(place):  # or it went with an earlier one
            again = "; a sweep with this plug-in keeps it anew" if place.parent.name == PLUGINS else ""
            yield f"{problem.path} {problem.sentence}; set aside as {set_aside(place).name}{again}"
    claims = RunClaims(store.root)
    for holder in claims.remove_stale(wait=wait):
        yield f"removed the claim on {holder.key[:24]} of process {holder.pid} on {holder.host}, which is gone"
    unknown = [holder for holder in claims.holders() if holder.alive is None]
    if unknown and wait <= _longest(unknown):
        yield (
            f"left {len(unknown)} claims, the first of process {unknown[0].pid} on {unknown[0].host}: whether "
            f"they live, --wait {_longest(unknown) + 1:.0f} tells"
        )
    for path in _temporaries(store.root):
        yield from _remove(path, "left by a process that ended while it wrote")
    yield from _remove_checkpoints(store, claims)


def _longest(holders: Iterable[Holder]) -> float:
    """Seconds without a heartbeat after which all of the claims have expired."""
    return max(holder.expires_after for holder in holders)


def _place_of(damaged: Path, root: Path) -> Path:
    """What is renamed: of outside code the folder, since one file by itself has no digest."""
    parts = damaged.relative_to(root).parts
    return root / PLUGINS / parts[1] if parts[0] == PLUGINS and len(parts) > 1 else damaged


def compact_store(store: ResultStore) -> Iterator[str]:
    """Remove checkpoints of what is finished and empty folders, and give the index one line for each run.

    Raises ``ShrinkbenchError`` while a process works in the folder, or where a link leads out of it.
    """
    check_links(store.root)
    claims = RunClaims(store.root)
    claims.remove_stale()
    held = claims.holders()
    if held:
        raise ShrinkbenchError(
            f"{store.root} holds {len(held)} claims, the first of process {held[0].pid} on "
            f"{one_line(held[0].host, 40)}; compact it when they have ended, or if they are gone, after "
            f"`shrinkbench store repair --wait {_longest(held) + 1:.0f}`"
        )
    yield from _remove_checkpoints(store, claims)
    for folder in sorted(store.root.glob("*/**/"), reverse=True):
        if folder.parts[len(store.root.parts)] in ("runs", "shared", CLAIMS):
            with contextlib.suppress(OSError):  # it is not empty
                placed(folder).rmdir()
                yield f"removed the empty folder {folder}"
    entries, _ = store.entries()
    with hold_lock(store.root):
        before = read_index(store.root)
        whole = text_of_index(sorted((before | {e.key: e for e in entries}).values(), key=lambda e: e.key))
        path = store.root / INDEX_NAME
        lines = lines_of_index(store.root)
        size = path.stat().st_size if path.is_file() else 0  # lines that are no entries count too
        if size != len(whole) or sorted(lines) != sorted(whole.splitlines()):
            write_atomically(path, whole)
            count = len(whole.splitlines())
            yield f"rewrote {path}: {count} line{'s' * (count != 1)} in place of {len(lines)}"


def _remove_checkpoints(store: ResultStore, claims: RunClaims) -> Iterator[str]:
    """Checkpoints of runs and shared trainings that are finished, or that no plan asks for."""
    held = [holder.key for holder in claims.holders()]
    plan = store.find_plan()
    if isinstance(plan, Problem):
        return
    planned = {run.key for run in plan.runs} if plan is not None else None
    for path in sorted(store.root.glob("runs/*/checkpoint*.pt*")):
        key = path.parent.name
        unwanted = planned is not None and key not in planned
        if (unwanted or store.has(key)) and not any(name.endswith(key) for name in held):
            yield from _remove(path, "no plan asks for its run" if unwanted else "its run is finished")
    for path in sorted(store.root.glob("shared/*/*/checkpoint*.pt*")):
        mark = path.with_name(_MARKS.get(path.parent.parent.name, _MARK))
        if mark.exists() and not any(name.endswith(path.parent.name) for name in held):
            yield from _remove(path, "its training is finished")


def _temporaries(root: Path) -> Iterator[Path]:
    """Files under a writer's temporary name that are too old to be still written, by the disk's own clock."""
    probe = root / f".now.{unique_suffix()}"
    try:
        probe.touch()
        now = probe.stat().st_mtime
        probe.unlink()
    except OSError:
        now = time.time()
    for folder, _, names in os.walk(root):
        for name in filter(is_temporary, names):
            with contextlib.suppress(OSError):
                if now - (Path(folder) / name).stat().st_mtime > _OLD:
                    yield Path(folder) / name


def _remove(path: Path, why: str) -> Iterator[str]:
    placed(path.parent)
    try:
        path.unlink()
    except FileNotFoundError:
        return
    except OSError as error:
        yield f"cannot remove {path}: {error.strerror}"
        return
    yield f"removed {path}: {why}"


def disk_use(root: Path) -> dict[str, int]:
    """Bytes in the folder by kind, the largest first; what disappears meanwhile is not counted."""
    total: dict[str, int] = {}
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(folder) / name
            with contextlib.suppress(OSError):
                kind = _kind_of(path.relative_to(root).parts)
                total[kind] = total.get(kind, 0) + path.lstat().st_size
    return dict(sorted(total.items(), key=lambda item: -item[1]))


def _kind_of(parts: tuple[str, ...]) -> str:
    name = parts[-1]
    if ".damaged" in name:
        return "damaged"
    if name.startswith("checkpoint"):
        return "checkpoints"
    if parts[0] == "shared" and len(parts) > 1:
        return f"shared {parts[1]}"
    if parts[0] == "runs":
        if name.endswith(".safetensors") or name == NETWORK_NAME:
            return "networks"
        return "conflicts" if CONFLICTS in parts else "results" if name == RESULT_NAME else "logs"
    named = {PLAN_NAME: "plan", INDEX_NAME: "index", PLUGINS: PLUGINS, CLAIMS: CLAIMS, "report": "report"}
    return named.get(parts[0], "other")


def say_bytes(kinds: dict[str, int]) -> str:
    """Disk use in one line.

    >>> say_bytes({"results": 1_500_000, "plan": 300, "claims": 0})
    '1.5 MB (results 1.5 MB, plan 300 B)'
    """
    listed = ", ".join(f"{kind} {_size(count)}" for kind, count in kinds.items() if count)
    return _size(sum(kinds.values())) + (f" ({listed})" if listed else "")


def _size(count: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} B"


def sentences_of(problems: Iterable[Problem], root: Path) -> list[str]:
    """Each problem with its place in the folder."""
    return [f"{problem.path.relative_to(root)} {problem.sentence}" for problem in problems]
