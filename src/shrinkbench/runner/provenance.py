"""Where and when a run happened."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from shrinkbench.errors import escaped
from shrinkbench.results.record import Provenance
from shrinkbench.spec import SeedsAdded

_PACKAGES = ("shrinkbench", "torch", "torchvision", "numpy", "scikit-learn", "pillow", "pyarrow", "timm")


class Stopwatch:
    """Started at its making; says when that was and how many seconds have passed."""

    def __init__(self) -> None:
        self.started = datetime.now(UTC).isoformat(timespec="seconds")
        self._start = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Wall-clock seconds so far."""
        return round(time.perf_counter() - self._start, 3)


def provenance(
    watch: Stopwatch, device: str, *, processes: int = 1, seeds_added: SeedsAdded | None = None
) -> Provenance:
    """The record of this process, now; ``processes`` have done together what is recorded."""
    return Provenance(
        started=watch.started,
        seconds=watch.seconds,
        host=platform.node(),
        device=torch.cuda.get_device_name() if device == "cuda" else "cpu",
        processes=processes,
        threads=torch.get_num_threads(),
        python=platform.python_version(),
        platform=platform.platform(),
        processor=processor(),
        versions=_versions(),
        commit=_commit(),
        seeds_added=seeds_added,
        command=escaped(os.environ.get("SHRINKBENCH_COMMAND", " ".join(sys.argv))),
    )


@cache
def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return {**found, "torch": torch.__version__}  # with the build: of one release there are several


@cache
def processor() -> str:
    """The processor's name, where the system tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


@cache
def _commit() -> str | None:
    """Commit of the source tree that runs, where it is a git checkout; with ``+`` where it was changed."""
    folder = Path(__file__).parent
    try:
        head = _git(folder, "rev-parse", "HEAD")
        tracked = _git(folder, "ls-files", "--error-unmatch", Path(__file__).name)
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no", ".")
    except (OSError, subprocess.SubprocessError):
        return None
    return head + ("+" if changed else "") if tracked else None


def _git(folder: Path, *arguments: str) -> str:
    """What git says; it writes nothing meanwhile, as the lock of the index would outlive a kill."""
    words = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=5)
    return done.stdout.strip()
