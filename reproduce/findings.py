"""What both papers found, asked again of our own runs: writes docs/results/README.md from docs/results/*.zip.

    python reproduce/findings.py

Every question is one comparison of two methods on common seeds, by the report's own statistics; p-values are
corrected for all questions of the page (Holm). A verdict follows from a question's sign and p alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations
from pathlib import Path

from shrinkbench.report.statistics.blocks import common_block
from shrinkbench.report.statistics.claims import found_with
from shrinkbench.report.statistics.curves import curves, default_levels
from shrinkbench.report.statistics.observations import CHANGE, HEADLINE, Observations, observe_bundle
from shrinkbench.report.statistics.pairs import Claim, Layout, compare_pair, relative_noise
from shrinkbench.report.statistics.tests import ALPHA, holm
from shrinkbench.results.bundle import Bundle, read_source

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"


@dataclass(frozen=True)
class Question:
    """Whether ``first`` is above ``second`` in a bundle, at one level of an axis or over the common range."""

    bundle: str
    first: str
    second: str
    axis: str = "compression"
    level: float | None = None
    task: str = ""  # a part of the task's name, where a bundle holds several


@dataclass(frozen=True)
class Finding:
    """A statement of a paper, and the questions whose answers speak for it or against it."""

    number: int
    statement: str
    source: str
    questions: tuple[Question, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Answer:
    """A question with what the runs say; ``why`` where they say nothing."""

    question: Question
    claim: Claim | None = None
    why: str = ""

    @property
    def verdict(self) -> str:
        """Confirmed or contradicted where the two are told apart, else undecided."""
        if self.claim is None:
            return "cannot be asked"
        if not self.claim.decided:
            return "undecided"
        return "confirmed" if self.claim.difference > 0 else "contradicted"


@cache
def bundle_of(name: str) -> Bundle | None:
    """The runs of a bundle, once."""
    path = RESULTS / f"{name}.zip"
    return read_source(path) if path.exists() else None


@cache
def observed(name: str) -> Observations | None:
    """What a bundle's report reasons about."""
    bundle = bundle_of(name)
    return None if bundle is None else observe_bundle(bundle)


def ask(question: Question) -> Answer:
    """Compare the two on common seeds, over what all methods of the task share, as the report does."""
    observations = observed(question.bundle)
    if observations is None:
        return Answer(question, why=f"docs/results/{question.bundle}.zip is not there")
    tasks = [task for task in observations.tasks if question.task in task]
    if len(tasks) != 1:
        return Answer(question, why=f"{len(tasks)} tasks have '{question.task}' in their name")
    members = [c for c in curves(observations, question.axis, HEADLINE) if c.task == tasks[0]]
    block = common_block(members, level=question.level)
    wanted = (question.first, question.second)
    if not set(wanted) <= set(block.methods):
        absent = [f"{left.method}: {left.why}" for left in block.left_out if left.method in wanted]
        return Answer(question, why="; ".join(absent) or "one of the two was not run")
    levels = default_levels(observations, question.axis)
    noise = relative_noise(common_block(members, level=level).of(block.methods) for level in levels)
    return Answer(question, compare_pair("asked", tasks[0], Layout.of(block, noise), wanted))


def correct(answers: Sequence[Answer]) -> list[Answer]:
    """The same with p-values corrected for all that are asked on the page."""
    raw = [a.claim.p_raw for a in answers if a.claim is not None]
    adjusted = iter(holm([1.0 if math.isnan(p) else p for p in raw]))
    return [
        a if a.claim is None else replace(a, claim=replace(a.claim, p=float(next(adjusted)), alpha=ALPHA))
        for a in answers
    ]


def changes(bundle: str, method: str, target: float, task: str = "") -> str:
    """The change from the control of a method at a target, seed by seed: mean and extremes, in points."""
    observations = observed(bundle)
    if observations is None:
        return f"docs/results/{bundle}.zip is not there"
    rows = observations.pruned
    rows = rows[(rows["method"] == method) & (rows["compression_target"] == target)]
    rows = rows[rows["task"].str.contains(task, regex=False)]
    found = 100 * rows[CHANGE].dropna()
    extremes = f"{found.min():+.2f} to {found.max():+.2f}"
    return f"{found.mean():+.2f} points on average over {len(found)} seeds ({extremes})"


def deviations(bundle: str, method: str) -> str:
    """Standard deviations over seeds at every target, in points."""
    observations = observed(bundle)
    if observations is None:
        return f"docs/results/{bundle}.zip is not there"
    rows = observations.pruned
    spread = rows[rows["method"] == method].groupby("compression_target")[HEADLINE].std() * 100
    return ", ".join(f"{value:.2f} at {target:g}x" for target, value in spread.items())


SMALL, DIGITS, MATRIX = "cifar10-resnet20-small", "quickstart", "cifar10-resnet20-matrix-small"
INITIAL = "shrinkbench-figure-8-small"
NORMS, WEIGHTS, TICKETS = "rethinking-table-1-small", "rethinking-table-6-small", "rethinking-table-9-small"
LONGER = "rethinking-table-16-small"
LENGTHS = (
    ("cifar-finetune-liu-80", "cifar-finetune-liu-40"),
    ("cifar-finetune-liu-160", "cifar-finetune-liu-40"),
)
BLALOCK, LIU = "Blalock et al. 2020", "Liu et al. 2019"
MAGNITUDE, GRADIENT = ("global_magnitude", "layerwise_magnitude"), ("global_gradient", "layerwise_gradient")
NORM = "channel_l1"
KEPT = "convolution_magnitude"


def anew(method: str, mode: str) -> str:
    """The method with another fine-tuning."""
    return f"{method}[finetuning={mode}]"


FINDINGS = (
    Finding(
        1,
        "At equal size global methods are above layerwise ones; at equal theoretical speedup layerwise ones "
        "are above global ones.",
        BLALOCK,
        (
            *(Question(bundle, *MAGNITUDE) for bundle in (SMALL, MATRIX, DIGITS)),
            *(Question(bundle, *GRADIENT) for bundle in (SMALL, MATRIX, DIGITS)),
            Question(SMALL, *MAGNITUDE[::-1], axis="theoretical_speedup", level=8),
            Question(SMALL, *GRADIENT[::-1], axis="theoretical_speedup", level=8),
            Question(DIGITS, *MAGNITUDE[::-1], axis="theoretical_speedup", level=8),
        ),
    ),
    Finding(
        2,
        "Magnitude is above gradient in general.",
        BLALOCK,
        (
            *(Question(bundle, MAGNITUDE[0], GRADIENT[0]) for bundle in (SMALL, MATRIX, DIGITS)),
            *(Question(bundle, MAGNITUDE[1], GRADIENT[1]) for bundle in (SMALL, MATRIX, DIGITS)),
        ),
        "The exception that the paper names, CIFAR-VGG below 10x, was not run: see shrinkbench-figure-* in "
        "experiments/.",
    ),
    Finding(
        3,
        "Random pruning is worst, except at small ratios.",
        BLALOCK,
        tuple(
            Question(SMALL, method, "random", level=level)
            for level in (2, 8)
            for method in (*MAGNITUDE, *GRADIENT)
        ),
    ),
    Finding(
        4,
        "The order of methods changes with network and amount.",
        BLALOCK,
        (
            Question(SMALL, GRADIENT[0], MAGNITUDE[1], level=2),
            Question(SMALL, GRADIENT[0], MAGNITUDE[1], level=16),
            Question(DIGITS, GRADIENT[0], MAGNITUDE[1], level=2),
            Question(DIGITS, GRADIENT[0], MAGNITUDE[1], level=16),
        ),
        "Confirmed where one line says confirmed and another contradicted; everything else leaves it open.",
    ),
    Finding(
        5,
        "Deviations over seeds explode where accuracy drops off.",
        BLALOCK,
        (),
        "No test is made of it. Standard deviations of top-1 over seeds, in points:",
    ),
    Finding(
        6,
        "Which initial weights are pruned changes the verdict, and reporting the change from the control does "
        "not cure it.",
        BLALOCK,
        tuple(
            Question(INITIAL, *MAGNITUDE, level=level, task=w)
            for level in (4, 16)
            for w in ("adam-a", "adam-b")
        ),
        "Weights A are trained with Adam at 1e-3, weights B at 1e-4. What a table shows that compares a method "
        "from one with a method from the other:",
    ),
    Finding(
        7,
        "Small amounts of pruning can raise accuracy.",
        BLALOCK,
        (),
        "Change of top-1 from each run's own control:",
    ),
    Finding(
        8,
        "A network pruned by structure and trained from scratch matches the fine-tuned one.",
        LIU,
        tuple(
            Question(NORMS, anew(NORM, mode), NORM, level=level)
            for level in (4, 16)
            for mode in ("scratch-e", "scratch-b")
        ),
        "Confirmed here means that training from scratch is above fine-tuning; the paper's claim, that it is "
        "at least as good, stands unless a line says contradicted.",
    ),
    Finding(
        9,
        "Of single weights, training from scratch does not match fine-tuning at high ratios.",
        LIU,
        tuple(
            Question(WEIGHTS, KEPT, anew(KEPT, mode), level=level)
            for level in (1.419, 15.403)
            for mode in ("scratch-e", "scratch-b")
        ),
        "At 1.419x the paper finds no difference: undecided is what it expects there.",
    ),
    Finding(
        10,
        "Winning tickets beat new random weights only at a small learning rate.",
        LIU,
        tuple(
            Question(TICKETS, anew(KEPT, "rewind-weights-0"), anew(KEPT, "scratch-e"), level=15.403, task=rate)
            for rate in ("learning_rate 0.1", "learning_rate 0.01")
        ),
    ),
    Finding(
        11,
        "Automatically found widths beat uniform ones.",
        LIU,
        (
            Question(
                "rethinking-figure-3-small",
                "network_slimming[finetuning=scratch-e]",
                "uniform_channels[finetuning=scratch-e]",
            ),
            Question(
                "rethinking-figure-3-small",
                "convolution_magnitude[finetuning=scratch-e]",
                "uniform_sparsification[finetuning=scratch-e]",
            ),
        ),
        "The paper finds it on VGG, and less on ResNets.",
    ),
    Finding(
        12,
        "Fine-tuning for longer does not help.",
        LIU,
        tuple(Question(LONGER, f"{NORM}, {long}", f"{NORM}, {short}", level=4) for long, short in LENGTHS),
        "Contradicted by a line that says confirmed; undecided is what the paper expects.",
    ),
)

HEAD = """# The findings of two papers, asked again

Written by `reproduce/findings.py` from the bundles beside this page; `make reproduce` runs their experiments
again. A line is one comparison of two methods on common seeds, in points of top-1, with its 95 % interval and
the p-value corrected for all {asked} comparisons of this page (Holm). A verdict follows from sign and p
alone: *undecided* means that these runs do not tell, not that there is no difference. These are calibrated
twins: fewer images, epochs and seeds than in the papers, whose own settings are the experiments without
`-small`.
"""


MATRIX_HEAD = """## The matrix

Methods that the literature compares to, and those since 2020, from one trained ResNet-20 on CIFAR-10 under one
protocol (`cifar10-resnet20-matrix-small`): mean top-1 in % over the seeds, and the difference from global
magnitude pruning with its 95 % interval. A star: told apart from it, corrected for all comparisons of this
table (Holm). Fine-tuning is short, which is hard on methods that prune while they train."""


def told(answer: Answer) -> str:
    """One line of a finding's table."""
    asked, claim = answer.question, answer.claim
    runs = f"{asked.bundle}, {asked.task}" if asked.task else asked.bundle
    axis = "speedup" if asked.axis == "theoretical_speedup" else "size"
    if claim is None:
        where = f"equal {axis}" + ("" if asked.level is None else f", {asked.level:g}x")
        row = (runs, asked.first, asked.second, where, "", "", "", f"{answer.verdict}: {answer.why}")
    else:
        low, high = claim.reach
        reach = f"{low:.3g}x" if low == high else f"{low:.3g} to {high:.3g}x"
        interval = f"{100 * claim.difference:+.2f} [{100 * claim.low:.2f}, {100 * claim.high:.2f}]"
        p = "undefined" if math.isnan(claim.p) else f"{claim.p:.2g}"
        seeds = str(claim.n)
        row = (
            runs,
            asked.first,
            asked.second,
            f"equal {axis}, {reach}",
            interval,
            seeds,
            p,
            answer.verdict,
        )
    return "| " + " | ".join(row) + " |"


def across_weights(target: float) -> str:
    """Mean top-1 and its mean change at a target by initial weights and method."""
    observations = observed(INITIAL)
    if observations is None:
        return f"- docs/results/{INITIAL}.zip is not there"
    rows = observations.pruned[observations.pruned["compression_target"] == target]
    means = rows.groupby(["task", "method"])[[HEADLINE, CHANGE]].mean() * 100
    told = [
        f"{'A' if 'adam-a' in task else 'B'} {method} {row[HEADLINE]:.2f} % ({row[CHANGE]:+.2f})"
        for (task, method), row in means.iterrows()
    ]
    return f"- {target:g}x: " + ", ".join(told)


def matrix() -> list[str]:
    """The methods of the matrix beside global magnitude pruning, at both targets."""
    observations = observed(MATRIX)
    if observations is None:
        return [f"docs/results/{MATRIX}.zip is not there."]
    members = curves(observations, "compression", HEADLINE)
    noise = relative_noise(common_block(members, level=level) for level in (4, 16))
    claims: dict[tuple[str, float], Claim] = {}
    means: dict[tuple[str, float], float] = {}
    for level in (4.0, 16.0):
        block = common_block(members, level=level)
        layout = Layout.of(block, noise)
        means |= {(m, level): v for m, v in zip(block.methods, 100 * block.means, strict=True)}
        others = [m for m in block.methods if m != MAGNITUDE[0]]
        pairs = {m: compare_pair("matrix", MATRIX, layout, (m, MAGNITUDE[0])) for m in others}
        claims |= {(method, level): claim for method, claim in pairs.items()}
    adjusted = dict(zip(claims, holm([c.p_raw for c in claims.values()]), strict=True))

    def cell(method: str, level: float) -> str:
        if (method, level) not in means:
            return "left out"
        if (method, level) not in claims:
            return f"{means[method, level]:.2f}"
        claim, told = claims[method, level], adjusted[method, level] < ALPHA
        difference = f"{100 * claim.difference:+.2f} [{100 * claim.low:.2f}, {100 * claim.high:.2f}]"
        return f"{means[method, level]:.2f}, {difference}{' *' if told else ''}"

    order = sorted(observations.methods, key=lambda m: -means.get((m, 4.0), 0.0) - means.get((m, 16.0), 0.0))
    one = next(claim for (_, level), claim in claims.items() if level == 4.0)
    smallest = 100 * found_with(replace(one, p=one.p_raw))
    values = observations.pruned.pivot_table(index=["amount", "seed"], columns="method", values=HEADLINE)
    complete = values.columns[values.notna().all()]
    alike = [f"{a} and {b}" for a, b in combinations(complete, 2) if (values[a] == values[b]).all()]
    return [
        "| method | at 4x | at 16x |",
        "| --- | --- | --- |",
        *(f"| {method} | {cell(method, 4.0)} | {cell(method, 16.0)} |" for method in order),
        "",
        *([f"Equal in every run: {'; '.join(alike)}.", ""] if alike else []),
        f"With these seeds and this noise a difference of {smallest:.1f} points at 4x would be found 8 times "
        "in 10, were it the only question. Smaller differences between published single runs say nothing.",
    ]


def further(finding: Finding) -> list[str]:
    """What a finding shows that is no comparison of two methods."""
    if finding.number == 5:
        return [f"- {bundle}, {m}: {deviations(bundle, m)}" for bundle in (SMALL, DIGITS) for m in MAGNITUDE]
    if finding.number == 6:
        return [across_weights(level) for level in (4, 16)]
    if finding.number == 7:
        return [
            f"- {bundle}, {m} at 2x: {changes(bundle, m, 2)}" for bundle in (SMALL, DIGITS) for m in MAGNITUDE
        ]
    return []


def origin(name: str) -> str:
    """Where the runs of a bundle come from, as a line of a table."""
    bundle = bundle_of(name)
    if bundle is None:
        return f"| {name} | not run | | | | |"
    places = [result.provenance for result in bundle.results]

    def told_once(values: Iterable[str]) -> str:
        return ", ".join(sorted(set(values)))

    machines = told_once(p.processor if p.device == "cpu" else p.device for p in places)
    versions = told_once(f"torch {p.versions['torch']}, Python {p.python}" for p in places)
    minutes = sum(p.seconds for p in places) / 60
    commits = told_once(
        (p.commit or "unknown")[:12] + ("+" if (p.commit or "").endswith("+") else "") for p in places
    )
    failed = sum(result.status == "failed" for result in bundle.results)
    runs = f"{len(bundle.results)}" + (f", {failed} failed" if failed else "")
    return f"| [{name}]({name}.zip) | {runs} | {minutes:.0f} min | {machines} | {versions} | {commits} |"


def write_page(folder: Path = RESULTS) -> None:
    """Ask everything, and write the page."""
    answers = iter(correct([ask(question) for finding in FINDINGS for question in finding.questions]))
    parts = [HEAD.format(asked=sum(len(finding.questions) for finding in FINDINGS))]
    for finding in FINDINGS:
        parts.append(f"## {finding.number}. {finding.statement}\n\n{finding.source}. {finding.note}".rstrip())
        if finding.questions:
            columns = ("runs", "is", "above", "at", "difference", "seeds", "p", "verdict")
            rows = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
            parts.append("\n".join([*rows, *(told(next(answers)) for _ in finding.questions)]))
        if lines := further(finding):
            parts.append("\n".join(lines))
    parts.append(MATRIX_HEAD)
    parts.append("\n".join(matrix()))
    columns = ("bundle", "runs", "computing", "on", "with", "commit")
    names = dict.fromkeys([q.bundle for finding in FINDINGS for q in finding.questions])
    rows = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns), *map(origin, names)]
    parts.append(
        "## The runs\n\n`shrinkbench sweep NAME` carries each of them out; a commit with + had changes."
    )
    parts.append("\n".join(rows))
    (folder / "README.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write_page()
