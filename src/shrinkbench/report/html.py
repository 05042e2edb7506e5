"""The report: figures, tables and one page that holds them together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.report.figures import TRADEOFFS, write_tradeoffs
from shrinkbench.report.observations import observe
from shrinkbench.results.frame import to_frame
from shrinkbench.results.store import existing_store, write_atomically


@dataclass(frozen=True)
class WrittenReport:
    """What a report consists of, and the files that could not be used."""

    index: Path
    files: tuple[Path, ...]
    runs: int
    problems: tuple[str, ...]


def write_report(store_dir: Path, out_dir: Path) -> WrittenReport:
    """Write ``index.html``, figures (SVG, PDF, PNG), ``results.csv`` and ``results.parquet``.

    Needs no network and no torch. Files of the store that cannot be read are named in the page. Raises
    ``ShrinkbenchError`` where the folder holds no results or ``out_dir`` cannot be written.
    """
    store = existing_store(store_dir)
    results, problems = store.results()
    if not results:
        hint = f"; {problems[0].path} {problems[0].sentence}" if problems else ""
        raise ShrinkbenchError(f"{store_dir} holds no results; run a sweep into it first{hint}")
    frame = to_frame(results)
    observations = observe(results)
    csv, parquet = out_dir / "results.csv", out_dir / "results.parquet"
    write_atomically(csv, frame.to_csv(index=False).encode())
    write_atomically(parquet, frame.to_parquet(index=False))
    files = [csv, parquet, *write_tradeoffs(observations, out_dir / "figures")]
    page = (
        _environment()
        .get_template("index.html.j2")
        .render(
            name=store_dir.name,
            runs=len(results),
            failed=[r for r in results if r.status == "failed"],
            problems=[(p.path.relative_to(store_dir), p.sentence) for p in problems],
            figures=[f"figures/{metric}-{axis.replace('_', '-')}" for metric, axis in TRADEOFFS],
        )
    )
    index = out_dir / "index.html"
    write_atomically(index, page.encode())
    return WrittenReport(
        index=index,
        files=(index, *files),
        runs=len(results),
        problems=tuple(f"{p.path}: {p.sentence}" for p in problems),
    )


def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("shrinkbench.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
