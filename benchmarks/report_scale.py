"""Seconds and size of the report of a large comparison: 12 methods, 12 tasks, 6 amounts and 3 seeds.

    python benchmarks/report_scale.py [--figures none] [--profile FILE]

Writes 2,592 made runs, whose methods have names of 30 letters, into a temporary folder and makes their page.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1] / "tests"
METHODS, TASKS, AMOUNTS, SEEDS = 12, 12, (1, 2, 4, 8, 16, 32), 3


def write(root: Path) -> None:
    """The runs as files, not through the lock, for time; every method has a score of its own."""
    from made_results import make_result, make_spec, method

    from shrinkbench.results.store import ResultStore
    from shrinkbench.spec import ScoreSpec

    store = ResultStore(root)
    for number in range(METHODS):
        plain = method(f"a_method_with_a_long_name_no_{number:02d}", "other")
        own = plain.model_copy(update={"score": ScoreSpec(name=f"score_{number}", kind="other")})
        for task in range(TASKS):
            for ratio in AMOUNTS:
                for seed in range(SEEDS):
                    spec = make_spec(method=own, compression=ratio, dataset=f"data-{task:02d}", seed=seed)
                    path = store.result_path(spec.key)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_text(make_result(spec).model_dump_json(indent=1))


def main() -> None:
    """Write the store, make its report, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--figures", default="main", help="As the command takes it: main, all or none.")
    parser.add_argument("--profile", type=Path, help="Where to write what cProfile saw.")
    parser.add_argument("--store", type=Path, help="A folder to write the runs to, and read from again.")
    options = parser.parse_args()
    sys.path.insert(0, str(TESTS))
    with tempfile.TemporaryDirectory() as temporary:
        root = options.store or Path(temporary) / "store"
        if not root.exists():
            write(root)
        out = Path(temporary) / "report"
        command = ["report", str(root), "--out", str(out), "--figures", options.figures]
        program = ["-m", "cProfile", "-o", str(options.profile)] if options.profile else []
        before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(
            [sys.executable, *program, "-m", "shrinkbench", *command], check=True, stdout=subprocess.DEVNULL
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        page = (out / "index.html").stat().st_size
        print(
            f"{METHODS * TASKS * len(AMOUNTS) * SEEDS} runs: {time.perf_counter() - begun:.1f} s, "
            f"{used:.1f} s of processor time, {after.ru_maxrss / 1024:.0f} MB, page {page / 1e6:.2f} MB"
        )


if __name__ == "__main__":
    main()
