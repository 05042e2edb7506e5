"""CPU seconds and peak memory of what a sweep does before its first run, by the number of planned runs.

    python benchmarks/store_scale.py [RUNS]

Writes RUNS (10,000) made results, all done, into a temporary folder, and measures in a fresh process each: plan
(again) and skip check, and status, as `shrinkbench sweep` and `shrinkbench status` do them. What a process of
`sweep` needs besides, torch above all, is not counted.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1] / "tests"
GRID = {"name": "scale", "dataset": "cifar10", "model": "resnet20", "method": "random", "compression": 4}


def specs(count: int):
    """The runs of one cell, which share task, method and recipe as those of a planned grid do."""
    from made_results import make_spec

    from shrinkbench.spec import RunSpec

    shared = {name: getattr(make_spec(), name) for name in RunSpec.model_fields if name != "seed"}
    return [RunSpec(**shared, seed=seed) for seed in range(count)]


def write(root: Path, count: int) -> None:
    """The results as files, with the index as the writers leave it; not through the lock, for time."""
    from made_results import make_result

    from shrinkbench.results.store import ResultStore

    store = ResultStore(root)
    for spec in specs(count):
        path = store.result_path(spec.key)
        path.parent.mkdir(parents=True)
        path.write_text(make_result(spec).model_dump_json(indent=1))


def plan(root: Path, count: int) -> None:
    from shrinkbench.results.store import ResultStore
    from shrinkbench.spec import ExperimentSpec

    store, runs = ResultStore(root), specs(count)
    assert all(store.has(spec.key) for spec in runs)
    store.write_plan(ExperimentSpec(**GRID, seed=tuple(range(count))), runs)
    store.extend_index()


def status(root: Path, count: int) -> None:
    from shrinkbench.results.store import ResultStore

    assert ResultStore(root).status().done == count


def measure(name: str, root: Path, count: int) -> None:
    """Run one step here and print its CPU seconds, imports left out, and this process's peak memory."""
    import made_results  # noqa: F401 - pydantic and numpy, which every step needs

    start = time.process_time()
    {"write": write, "plan": plan, "status": status}[name](root, count)
    spent = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"{name:<8} {spent:6.2f} s CPU  {peak:5d} MB peak", flush=True)


def main() -> None:
    if len(sys.argv) == 4:
        measure(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
        return
    count = sys.argv[1] if len(sys.argv) > 1 else "10000"
    path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    with tempfile.TemporaryDirectory() as root:
        # The first plan reads every result and writes the index; what comes later trusts it.
        for name in ("write", "plan", "plan", "status"):
            subprocess.run(
                [sys.executable, __file__, name, root, count],
                check=True,
                env={**os.environ, "PYTHONPATH": path},
            )


if __name__ == "__main__":
    main()
