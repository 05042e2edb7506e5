"""The report: figures, tables and one page that holds them together."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from itertools import groupby, product
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.files import write_atomically
from shrinkbench.plotting import FORMATS
from shrinkbench.report import checklist as checklists
from shrinkbench.report.beside import Drawing, drawing_beside
from shrinkbench.report.compared import split_by_metric
from shrinkbench.report.diagram import RANKING, critical_difference_svg, write_ranking
from shrinkbench.report.figures import ACCURACIES, FIGURES, figure_name, write_tradeoffs
from shrinkbench.report.page.citations import bibtex, cite
from shrinkbench.report.page.origin import trace_origin
from shrinkbench.report.page.payload import as_script, build_payload
from shrinkbench.report.page.published import (
    as_data_uri,
    check_corpus,
    files_of,
    read_published,
    write_published,
)
from shrinkbench.report.pitfalls import find_pitfalls
from shrinkbench.report.profiles import PROFILES, write_profiles
from shrinkbench.report.result_tables import FOLDED, all_tables, latency_table
from shrinkbench.report.scratch import scratch_tables
from shrinkbench.report.statistics.aggregates import normalised_scores
from shrinkbench.report.statistics.fairness import set_up_table
from shrinkbench.report.statistics.observations import AXES, METRICS, Observations, aggregate
from shrinkbench.report.tables import TEXTS, Table
from shrinkbench.report.verdict import BASES, Verdict, Win, reach_verdict
from shrinkbench.results.frame import to_frame
from shrinkbench.results.record import RunResult
from shrinkbench.results.store import Plan, Problem, existing_store


@dataclass(frozen=True)
class WrittenReport:
    """What a report consists of, and the files that could not be used."""

    index: Path
    files: tuple[Path, ...]
    runs: int
    problems: tuple[str, ...]


def write_report(
    store_dir: Path,
    out_dir: Path,
    *,
    proposed: Sequence[str] = (),
    with_figures: bool = True,
    corpus: Path | None = None,
) -> WrittenReport:
    """Write ``index.html``, figures (SVG, PDF, PNG), tables, ``results.csv`` and ``results.parquet``.

    Needs no network and no torch. ``proposed`` names the methods that the checklist judges. ``corpus`` is the
    literature that results are laid beside, the bundled tables of Liu et al. 2019 where it is ``None``.
    ``with_figures`` leaves out that and the figures for papers, most of the work. Files of the store that
    cannot be read are named in the page; files of an earlier report in ``out_dir`` are replaced, others left
    alone. Raises ``ShrinkbenchError`` where the folder holds no results or ``out_dir`` cannot be written.
    """
    store = existing_store(store_dir)
    figures, beside = out_dir / "figures", out_dir / "published"
    with drawing_beside() if with_figures else nullcontext(_leave_out) as draw:
        results, problems = store.results()
        if not results:
            hint = f" ({problems[0].path} {problems[0].sentence})" if problems else ""
            raise ShrinkbenchError(f"{store_dir} holds no results; run a sweep into it first{hint}")
        if corpus is not None:
            check_corpus(corpus)  # told before anything is drawn
        split = split_by_metric(results)
        plan = store.find_plan()
        if isinstance(plan, Problem):
            problems, plan = [plan, *problems], None
        stored = {result.key for result in results}
        missing = [run.spec for run in plan.runs if run.key not in stored] if plan else []
        evidence = checklists.gather(results, proposed=proposed, missing=missing)
        frame = to_frame(results)
        for metric in ACCURACIES:
            draw(partial(write_tradeoffs, evidence.observations, figures, metric=metric))
        draw(partial(write_published, frame, corpus, beside))
        verdict = reach_verdict(evidence.observations)
        ranked = len(verdict.ranked) > 1
        if ranked:
            draw(partial(write_ranking, verdict.ranked, verdict.ranking, figures))
        scores = normalised_scores(evidence.observations)
        if scores:
            draw(partial(write_profiles, scores, figures))
        tables = [replace(table, group="Trained from scratch") for table in scratch_tables(split.compared)]
        tables += all_tables(evidence.observations)
        tables += [table for table in (set_up_table(split.compared), latency_table(split.compared)) if table]
        written = _write_data(frame, evidence.observations, tables, out_dir)
        citations = cite(results)
        written.append(out_dir / "references.bib")
        write_atomically(written[-1], bibtex(citations).encode(), durable=False)
        content = {
            **_facts(store_dir, results, problems, plan, evidence.observations),
            **_judgement(results, split.compared, evidence),
            "not_compared": split.sentence,
            **_verdict(verdict, evidence.observations),
            "tables_by_group": _group_tables(tables),
            "origin": trace_origin(results, plan),
            "citations": citations,
            "bibtex": bibtex(citations),
        }
    published = None
    if with_figures:
        published = read_published(beside)
        written += files_of(published, beside)
        stems = [figure_name(metric, axis) for metric, axis in FIGURES]
        stems += [RANKING] * ranked + [PROFILES] * (scores is not None)
        written += [figures / f"{stem}.{extension}" for stem, extension in product(stems, FORMATS)]
    page = render_page("index.html.j2", **content, published=published, published_dir=beside)
    index = out_dir / "index.html"
    write_atomically(index, page.encode(), durable=False)
    _replace_listing(out_dir, [index, *written])
    skipped = tuple(f"{p.path}: {p.sentence}" for p in problems)
    return WrittenReport(index, (index, *written), len(results), skipped)


def _leave_out(task: Drawing) -> None:
    """Draw nothing."""


def _replace_listing(out_dir: Path, written: Sequence[Path]) -> None:
    """Note which files make up the report, and remove those that only the report before this one had."""
    listing = out_dir / "files.json"
    names = sorted(path.relative_to(out_dir).as_posix() for path in written)
    try:
        earlier = [str(name) for name in json.loads(listing.read_bytes())]
    except (OSError, ValueError, TypeError):
        earlier = []
    for name in set(earlier) - set(names):
        path = out_dir / name
        if ".." not in path.parts and path.is_relative_to(out_dir):
            path.unlink(missing_ok=True)
    write_atomically(listing, json.dumps(names, indent=1).encode(), durable=False)


def _write_data(
    frame: pd.DataFrame, observations: Observations, tables: Sequence[Table], out_dir: Path
) -> list[Path]:
    """Results by run (CSV, Parquet) and by cell (CSV), and every table of the page in three formats."""
    written = [out_dir / "results.csv", out_dir / "results.parquet", out_dir / "cells.csv"]
    cells = pd.concat([observations.control, observations.pruned])
    columns = [c for c in (*AXES, *observations.metrics) if cells[c].notna().any()]
    write_atomically(written[2], aggregate(cells, columns).to_csv(index=False).encode(), durable=False)
    write_atomically(written[0], frame.to_csv(index=False).encode(), durable=False)
    write_atomically(written[1], frame.to_parquet(index=False), durable=False)
    return written + _write_tables(tables, out_dir / "tables")


def _facts(
    store_dir: Path,
    results: Sequence[RunResult],
    problems: Sequence[Problem],
    plan: Plan | None,
    observations: Observations,
) -> dict[str, Any]:
    """What the head of the page says."""
    stored = {r.key for r in results}
    return {
        "name": plan.name if plan else store_dir.resolve().name,
        "description": plan.description if plan else "",
        "directory": store_dir,
        "counts": {
            "done": sum(r.status == "done" for r in results),
            "failed": sum(r.status == "failed" for r in results),
            "missing": sum(run.key not in stored for run in plan.runs) if plan else None,
            "unplanned": len(stored - {run.key for run in plan.runs}) if plan else 0,
        },
        "problems": [(p.path.relative_to(store_dir), p.sentence) for p in problems],
        "tasks": observations.tasks,
        "methods": observations.methods,
        "figures": [
            {
                "stem": f"figures/{figure_name(metric, axis)}",
                "title": f"{METRICS[metric].label} against {AXES[axis]}",
            }
            for metric, axis in FIGURES
        ]
        + [{"stem": f"figures/{PROFILES}", "title": "Performance profiles over tasks"}]
        * (normalised_scores(observations) is not None),
        "selection": _selection_rule(results),
    }


def _selection_rule(results: Sequence[RunResult]) -> str:
    """Which epoch is reported, and what chose it."""
    rules = {
        "last": "that of the last epoch",
        "best-validation": "that of the epoch with the best validation top-1",
        "best-test": "that of the epoch with the best test top-1, an upper bound",
    }
    used = sorted({r.spec.recipe.selection for r in results})
    return f"Reported accuracy is {' or '.join(rules[u] for u in used)}." if used else ""


def _judgement(
    results: Sequence[RunResult], compared: Sequence[RunResult], evidence: checklists.Evidence
) -> dict[str, Any]:
    """Checklist, pitfalls and what scripts draw; all ``results`` stand in the ledger."""
    lines = checklists.judge_from(evidence)
    pitfalls = find_pitfalls(compared, evidence.observations)
    counts = {s: sum(line.status == s for line in lines) for s in ("satisfied", "violated", "undecidable")}
    return {
        "checklist": [
            (f"{source}: {group}", list(members))
            for (source, group), members in groupby(lines, key=lambda line: (line.source, line.group))
        ],
        "counts_of_lines": counts,
        "violated": counts["violated"],
        "proposed": evidence.proposed,
        "pitfalls": pitfalls,
        "pitfall_groups": [
            list(members) for _, members in groupby(enumerate(pitfalls), key=lambda item: item[1].kind)
        ],
        "payload": as_script(build_payload(results, evidence.observations, pitfalls)),
    }


def _verdict(verdict: Verdict, observations: Observations) -> dict[str, Any]:
    """Winners by basis, and the ranking as a drawing."""
    bases = []
    for axis, label in BASES.items():
        found = {t.task: b.wins for t in verdict.tasks for b in t.bases if b.axis == axis}
        levels = sorted({win.level for wins in found.values() for win in wins})
        rows = []
        for task, wins in found.items():
            by_level = {win.level: win for win in wins}
            rows.append((task, [by_level.get(level) for level in levels]))
        if levels:
            bases.append({"axis": axis, "label": label, "levels": levels, "rows": rows})
    drawn = len(verdict.ranked) > 1 and verdict.ranking.blocks > 0
    return {
        "verdict": verdict,
        "bases": bases,
        "ranking_svg": critical_difference_svg(verdict.ranked, verdict.ranking) if drawn else "",
        "ranked_over": "tasks" if len(observations.tasks) > 1 else "seeds",
    }


def _make_breakable(text: str) -> Markup:
    """Text that may wrap after an underscore, as long method names need on a phone."""
    return Markup("_<wbr>").join(text.split("_"))


def _lead(win: Win) -> str:
    """A lead in points, with its interval where there is one."""
    if win.n == 0:
        return "no shared seed"
    lead = f"+{100 * win.difference:.2f}" if win.difference >= 0 else f"−{100 * -win.difference:.2f}"
    if win.n < 2:
        return f"{lead} (one seed)"
    return f"{lead} [{100 * win.low:.2f}, {100 * win.high:.2f}]".replace("-", "−")


def _group_tables(tables: Sequence[Table]) -> list[tuple[str, list[Table], bool]]:
    """Tables under their headings; long groups and top-5 are folded."""
    groups: dict[str, list[Table]] = {}
    for table in tables:
        groups.setdefault(table.group, []).append(table)
    return [(t, members, t == FOLDED or len(members) > 3) for t, members in groups.items()]


def _write_tables(tables: Sequence[Table], folder: Path) -> list[Path]:
    """Every table as LaTeX, Markdown and CSV."""
    paths = []
    for table in tables:
        for extension, write in TEXTS.items():
            paths.append(folder / f"{table.name}.{extension}")
            write_atomically(paths[-1], (write(table).rstrip("\n") + "\n").encode(), durable=False)
    return paths


def _formats(table: Table) -> list[tuple[str, str]]:
    names = {"tex": "LaTeX", "md": "Markdown", "csv": "CSV"}
    return [(names[extension], write(table)) for extension, write in TEXTS.items()]


def render_page(template: str, **values: Any) -> str:
    """Fill a template; styles and scripts stand inside the page, so that it needs no other file."""
    environment = Environment(
        loader=PackageLoader("shrinkbench.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    assets = files("shrinkbench.report") / "templates"
    texts = {"style": "style.css", "chart_script": "chart.js", "page_script": "page.js"}
    return environment.get_template(template).render(
        **values,
        **{name: (assets / file).read_text(encoding="utf-8") for name, file in texts.items()},
        lead=_lead,
        breakable=_make_breakable,
        formats=_formats,
        as_data_uri=as_data_uri,
        version=_version(),
    )


def _version() -> str:
    try:
        return version("shrinkbench")
    except PackageNotFoundError:
        return "from source"
