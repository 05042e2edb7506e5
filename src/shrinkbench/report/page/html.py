"""The report: figures, tables and one page that holds them together."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby, product
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from shrinkbench.files import check_folder, parse_json, read_file, write_atomically
from shrinkbench.links import check_links
from shrinkbench.plotting import FORMATS
from shrinkbench.report import checklist as checklists
from shrinkbench.report.beside import Drawing, collection_paused, drawing_beside
from shrinkbench.report.diagram import RANKING, mean_ranks_svg, write_ranking
from shrinkbench.report.figures import SIZES, drawn_metrics, figure_name, write_tradeoffs
from shrinkbench.report.page.citations import bibtex, cite
from shrinkbench.report.page.origin import trace_origin
from shrinkbench.report.page.payload import as_script, build_payload
from shrinkbench.report.page.published import (
    check_corpus,
    files_of,
    read_published,
    write_published,
)
from shrinkbench.report.page.rendering import render_page
from shrinkbench.report.page.wording import (
    describe_scales,
    label,
    selection_rule,
    title_of,
)
from shrinkbench.report.pareto import drawn_costs, front_figures, front_tables, write_fronts
from shrinkbench.report.pitfalls import find_pitfalls
from shrinkbench.report.pitfalls.practice import training_is_equal
from shrinkbench.report.profiles import PROFILES, write_profiles
from shrinkbench.report.result_tables import all_tables, folded_groups, latency_table
from shrinkbench.report.scratch import scratch_tables
from shrinkbench.report.short_labels import labels_table, short_labels
from shrinkbench.report.statistics.aggregates import normalised_scores
from shrinkbench.report.statistics.fairness import set_up_table
from shrinkbench.report.statistics.observations import AXES, Observations, aggregate, observe_bundle
from shrinkbench.report.tables import TEXTS, Table
from shrinkbench.report.verdict import BASES, Verdict, reach_verdict
from shrinkbench.results.bundle import Bundle, read_source, require_results
from shrinkbench.results.conflicts import describe_conflict, say_conflict
from shrinkbench.results.frame import as_csv, to_frame
from shrinkbench.results.labels import share_values
from shrinkbench.results.places import check_output
from shrinkbench.results.record import RunResult

Figures = Literal["main", "all", "none"]
"""Figures for papers: of the metrics that tasks lead with, of other metrics too, or none."""


@dataclass(frozen=True)
class WrittenReport:
    """What a report consists of, and the files that could not be used."""

    index: Path
    files: tuple[Path, ...]
    runs: int
    problems: tuple[str, ...]


def write_report(
    source: Path | Bundle,
    out_dir: Path,
    *,
    proposed: Sequence[str] = (),
    figures: Figures = "main",
    corpus: Path | None = None,
) -> WrittenReport:
    """Write ``index.html``, figures (SVG, PDF, PNG), tables, ``results.csv`` and ``results.parquet``.

    ``source`` is a store's folder, a bundle's file, or what was read of either.
    Needs no network and no torch. ``proposed`` names the methods that the checklist judges. ``corpus`` is the
    literature that results are laid beside, the bundled tables of Liu et al. 2019 where it is ``None``.
    ``figures`` are those of the metrics that tasks lead with, of others as well (``"all"``), or none, without
    that literature. Files of the store that cannot be read are named in the page; files of an earlier report in
    ``out_dir`` are replaced, others left alone. Raises ``ShrinkbenchError`` where the folder holds no results
    or ``out_dir`` cannot be written.
    """
    # A stranger's folder with a link in it does not decide which files are written.
    check_links(out_dir, within=source if isinstance(source, Path) and out_dir.parent == source else None)
    check_output(out_dir)
    check_folder(out_dir)
    with collection_paused():
        return _write(source, out_dir, proposed=proposed, figures=figures, corpus=corpus)


def _write(
    source: Path | Bundle, out_dir: Path, *, proposed: Sequence[str], figures: Figures, corpus: Path | None
) -> WrittenReport:
    folder, beside = out_dir / "figures", out_dir / "published"
    with nullcontext(_leave_out) if figures == "none" else drawing_beside() as draw:
        bundle = read_source(source) if isinstance(source, Path) else source
        require_results(bundle, "run a sweep into it first")
        results, plan, problems = bundle.results, bundle.plan, bundle.problems
        conflicts = (*bundle.conflicts, *bundle.differing_controls)
        if corpus is not None:
            check_corpus(corpus)  # told before anything is drawn
        results = tuple(share_values(results))
        evidence = checklists.gather(
            results,
            proposed=proposed,
            missing=bundle.missing,
            disputed=bundle.disputed,
            sequential=bundle.sequential,
        )
        frame = to_frame(results)
        everything = evidence.observations
        if bundle.sequential is not None:  # the evidence is of the first look
            everything = observe_bundle(replace(bundle, results=results))
        labels = short_labels(everything, results, plan)
        observations = everything.renamed(labels)
        if figures != "none":
            for scale, metric, stem in drawn_metrics(observations, everything=figures == "all"):
                having = [task for task in scale.tasks if observations.has(task, metric)]
                draw(partial(write_tradeoffs, observations.only(having), folder, metric=metric, stem=stem))
        draw(partial(write_fronts, observations, folder))
        draw(partial(write_published, frame, corpus, beside))
        verdict = reach_verdict(observations)
        ranked = len(verdict.ranked) > 1
        if ranked:
            draw(partial(write_ranking, verdict.ranked, verdict.ranking, folder))
        scores = normalised_scores(observations)
        if scores:
            draw(partial(write_profiles, scores, folder))
        tables = [replace(table, group="Trained from scratch") for table in scratch_tables(results)]
        tables += [*all_tables(observations), *front_tables(observations)]
        tables += [table for table in (set_up_table(results), latency_table(results)) if table]
        tables = [table.relabelled(labels) for table in tables] + [labels_table(labels)] * bool(labels)
        written = _write_data(frame, everything, tables, out_dir)
        citations = cite(results)
        written.append(out_dir / "references.bib")
        write_atomically(written[-1], bibtex(citations).encode(), durable=False)
        content = {
            **_facts(bundle, observations, figures),
            "conflict": say_conflict(conflicts),
            "conflicts": [describe_conflict(conflict) for conflict in conflicts],
            **_judgement(results, evidence, observations, labels),
            **describe_scales(observations),
            **_verdict(verdict, observations),
            "training": training_is_equal(results, observations)[1],
            "tables_by_group": _group_tables(tables, observations),
            "open_rows": OPEN_ROWS,
            "origin": trace_origin(results, plan),
            "citations": citations,
            "bibtex": bibtex(citations),
        }
    published = None
    if figures != "none":
        published = read_published(beside)
        written += files_of(published, beside)
        stems = [stem for stem, _ in _figures(observations, figures)] + [RANKING] * ranked
        written += [folder / f"{stem}.{extension}" for stem, extension in product(stems, FORMATS)]
    page = render_page("index.html.j2", **content, published=published, published_dir=beside)
    index = out_dir / "index.html"
    write_atomically(index, page.encode(errors="backslashreplace"), durable=False)  # a folder's name
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
        earlier = [str(name) for name in parse_json(read_file(listing, most=1 << 20))]
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
    columns = [c for c in (*AXES, *observations.columns) if cells[c].notna().any()]
    write_atomically(written[2], as_csv(aggregate(cells, columns)).encode(), durable=False)
    write_atomically(written[0], as_csv(frame).encode(), durable=False)
    write_atomically(written[1], frame.to_parquet(index=False), durable=False)
    return written + _write_tables(tables, out_dir / "tables")


def _facts(bundle: Bundle, observations: Observations, figures: Figures) -> dict[str, Any]:
    """What the head of the page says."""
    results, plan = bundle.results, bundle.plan
    stored = {r.key for r in results}
    return {
        "name": title_of([e.name for e in plan.experiments] if plan else [], otherwise=bundle.name),
        "description": " ".join(dict.fromkeys(e.description for e in plan.experiments)) if plan else "",
        "directory": bundle.source,
        "counts": {
            "done": sum(r.status == "done" for r in results),
            "failed": sum(r.status == "failed" for r in results),
            "missing": sum(run.key not in stored for run in plan.runs) if plan else None,
            "unplanned": len(stored - {run.key for run in plan.runs}) if plan else 0,
        },
        "problems": [(p.path.relative_to(bundle.source), p.sentence) for p in bundle.problems],
        "tasks": observations.tasks,
        "methods": observations.methods,
        "figures": [
            {"stem": f"figures/{stem}", "title": title} for stem, title in _figures(observations, figures)
        ],
        "selection": selection_rule(results, observations),
        "sequential": observations.design is not None,
    }


def _figures(observations: Observations, figures: Figures) -> list[tuple[str, str]]:
    """Name and title of every figure for papers but the ranking; nothing where none is drawn."""
    if figures == "none":
        return []
    return [
        *(
            (figure_name(stem, axis), f"{label(observations, scale, metric)} against {AXES[axis]}")
            for scale, metric, stem in drawn_metrics(observations, everything=figures == "all")
            for axis in SIZES
        ),
        *(
            (stem, title)
            for cost in drawn_costs(observations)
            for _, stem, title in front_figures(observations, cost)
        ),
        *([(PROFILES, "performance profiles over tasks")] if normalised_scores(observations) else []),
    ]


def _judgement(
    results: Sequence[RunResult],
    evidence: checklists.Evidence,
    observations: Observations,
    labels: Mapping[str, str],
) -> dict[str, Any]:
    """Checklist and pitfalls by the evidence; what scripts draw, and the ledger, have all runs."""
    lines = checklists.judge_from(evidence)
    pitfalls = find_pitfalls(results, evidence.observations.renamed(labels))
    counts = {s: sum(line.status == s for line in lines) for s in ("satisfied", "violated", "undecidable")}
    return {
        "checklist": [
            (f"{source}: {group}", list(members))
            for (source, group), members in groupby(lines, key=lambda line: (line.source, line.group))
        ],
        "counts_of_lines": counts,
        "violated": counts["violated"],
        "proposed": [labels.get(method, method) for method in evidence.proposed],
        "pitfalls": pitfalls,
        "pitfall_groups": [
            list(members) for _, members in groupby(enumerate(pitfalls), key=lambda item: item[1].kind)
        ],
        "payload": as_script(build_payload(results, observations, pitfalls)),
    }


def _verdict(verdict: Verdict, observations: Observations) -> dict[str, Any]:
    """Winners by basis, and the ranking as a drawing."""
    bases = []
    for axis, name in BASES.items():
        here = {t.task: b for t in verdict.tasks for b in t.bases if b.axis == axis}
        found = {task: basis.wins for task, basis in here.items() if basis.wins}
        left_out = [(task, text) for task, basis in here.items() for text in basis.left_out]
        levels = sorted({win.level for wins in found.values() for win in wins})
        rows = []
        for task, wins in found.items():
            by_level = {win.level: win for win in wins}
            rows.append((task, observations.metric(task), [by_level.get(level) for level in levels]))
        if here:
            slack = any(win.slack for wins in found.values() for win in wins)
            basis = {"axis": axis, "label": name, "levels": levels, "rows": rows, "left_out": left_out}
            bases.append({**basis, "slack": slack})
    of_all = verdict.tasks[0].sentences if len(verdict.tasks) > 1 else ()
    of_all = tuple(s for s in of_all if all(s in task.sentences for task in verdict.tasks))
    drawn = len(verdict.ranked) > 1 and verdict.ranking.blocks > 0
    return {
        "verdict": verdict,
        "said_of_all": of_all,
        "by_task": [(t.task, [s for s in t.sentences if s not in of_all]) for t in verdict.tasks]
        if len(verdict.tasks) > 1
        else [],
        "open_tasks": OPEN_TASKS,
        "bases": bases,
        "ranking_svg": mean_ranks_svg(verdict.ranked, verdict.ranking) if drawn else "",
        "ranked_over": "tasks" if len(observations.tasks) > 1 else "seeds",
    }


@dataclass(frozen=True)
class Shown:
    """A table of the page: what it is about, whether it is folded, and the task where it is of one."""

    table: Table
    title: str
    folded: bool
    task: str


def _group_tables(tables: Sequence[Table], observations: Observations) -> list[tuple[str, list[Shown]]]:
    """Tables under their headings: of each group as many open as make ``OPEN_ROWS`` rows.

    Metrics that no task leads with are folded.
    """
    groups: dict[str, list[Shown]] = {}
    rows: Counter[str] = Counter()
    beside, tasks = folded_groups(observations), observations.tasks
    for table in tables:
        title = table.caption.split(": ")[0]
        rows[table.group] += len(table.rows)
        members = groups.setdefault(table.group, [])
        folded = table.group in beside or (bool(members) and rows[table.group] > OPEN_ROWS)
        members.append(Shown(_put_last(table), title, folded, title if title in tasks else ""))
    return list(groups.items())


OPEN_TASKS = 3
"""Tasks whose answers stand open on the first screen; of more, the headline and the table of winners tell."""
OPEN_ROWS = 20
"""Rows of a group of tables, and of one table, that stand open."""
_LAST = ("d_z", "superiority")


def _put_last(table: Table) -> Table:
    """The table with effect sizes behind all else: interval, p and n stay in view on a narrow screen."""
    order = sorted(range(len(table.columns)), key=lambda i: table.columns[i] in _LAST)
    rows = tuple(tuple(row[i] for i in order) for row in table.rows)
    return replace(table, columns=tuple(table.columns[i] for i in order), rows=rows)


def _write_tables(tables: Sequence[Table], folder: Path) -> list[Path]:
    """Every table as LaTeX, Markdown and CSV."""
    paths = []
    for table in tables:
        for extension, write in TEXTS.items():
            paths.append(folder / f"{table.name}.{extension}")
            write_atomically(paths[-1], (write(table).rstrip("\n") + "\n").encode(), durable=False)
    return paths
