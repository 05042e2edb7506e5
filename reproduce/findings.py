"""What both papers found, asked again of our own runs: writes docs/results/README.md from docs/results/*.zip.

    python reproduce/findings.py

Every question is one comparison of two methods on common seeds, by the report's own statistics; p-values are
corrected for all questions of the page (Holm). A verdict follows from a question's sign and p alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from asking import RESULTS, Answer, Question, ask, bundle_of, correct, observed
from checklisted import open_lines
from matrix import MATRIX, MATRIX_HEAD, matrix
from noise import BUNDLE as NOISE
from noise import THREADS, noise

from shrinkbench.report.statistics.observations import CHANGE, HEADLINE


@dataclass(frozen=True)
class Finding:
    """A statement of a paper, and the questions whose answers speak for it or against it."""

    number: int
    statement: str
    source: str
    questions: tuple[Question, ...] = ()
    note: str = ""


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


def deviations(bundle: str, method: str, task: str = "") -> str:
    """Standard deviations over seeds at every target, in points."""
    observations = observed(bundle)
    if observations is None:
        return f"docs/results/{bundle}.zip is not there"
    rows = observations.pruned
    rows = rows[rows["task"].str.contains(task, regex=False)]
    spread = rows[rows["method"] == method].groupby("compression_target")[HEADLINE].std() * 100
    return ", ".join(f"{value:.2f} at {target:g}x" for target, value in spread.items())


SMALL, DIGITS = "cifar10-resnet20-small", "quickstart"
INITIAL = "shrinkbench-figure-8-small"
LARGER, SMALLER = "shrinkbench-figure-7-gpu-small", "shrinkbench-figure-7-small"
VGG, DEEP = (LARGER, "vgg"), (LARGER, "resnet56")
COMPARED = (
    (SMALL, ""),
    (MATRIX, ""),
    (DIGITS, ""),
    ("shrinkbench-figure-6-small", ""),
    ("shrinkbench-figure-15-small", ""),
    VGG,
    DEEP,
)
"""Bundles with magnitude and gradient, global and layerwise, and the part of a task's name."""
NORMS, WEIGHTS, TICKETS = "rethinking-table-1-small", "rethinking-table-6-small", "rethinking-table-9-small"
LONGER = "rethinking-table-16-small"
SHORT, LONG = "rethinking-gpu-small", "rethinking-50-epochs-gpu-small"  # on CIFAR-10, of 16 and of 50 epochs
OF_12, OF_25 = (f"cifar-finetune-liu-40 (epochs {n})" for n in (12, 25))
LENGTHS = (
    ("cifar-finetune-liu-80", "cifar-finetune-liu-40"),
    ("cifar-finetune-liu-160", "cifar-finetune-liu-40"),
)
BLALOCK, LIU = "Blalock et al. 2020", "Liu et al. 2019"
MAGNITUDE, GRADIENT = ("global_magnitude", "layerwise_magnitude"), ("global_gradient", "layerwise_gradient")
NORM = "channel_l1"
SPEEDUP = "theoretical_speedup"
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
            *(Question(bundle, *MAGNITUDE, task=task) for bundle, task in COMPARED),
            *(Question(bundle, *GRADIENT, task=task) for bundle, task in COMPARED),
            Question(SMALL, *MAGNITUDE[::-1], axis=SPEEDUP, level=8),
            Question(SMALL, *GRADIENT[::-1], axis=SPEEDUP, level=8),
            Question(DIGITS, *MAGNITUDE[::-1], axis=SPEEDUP, level=8),
            *(
                Question(bundle, *pair[::-1], axis=SPEEDUP, level=4, task=task)
                for pair in (MAGNITUDE, GRADIENT)
                for bundle, task in (VGG, DEEP)
            ),
            *(
                Question(bundle, *MAGNITUDE[::-1], axis=SPEEDUP, level=8, task=task)
                for bundle, task in (VGG, DEEP)
            ),
        ),
    ),
    Finding(
        2,
        "Magnitude is above gradient in general.",
        BLALOCK,
        (
            *(
                Question(bundle, magnitude, gradient, task=task)
                for magnitude, gradient in zip(MAGNITUDE, GRADIENT, strict=True)
                for bundle, task in COMPARED
            ),
            *(Question(LARGER, MAGNITUDE[0], GRADIENT[0], level=level, task="vgg") for level in (2, 4, 8)),
        ),
        "The paper names an exception, CIFAR-VGG below 10x, asked by the last three lines: contradicted "
        "would bear it out.",
    ),
    Finding(
        3,
        "Random pruning is worst, except at small ratios.",
        BLALOCK,
        tuple(
            Question(SMALL, method, "random", level=level)
            for level in (2, 8)
            for method in (*MAGNITUDE, *GRADIENT)
        )
        + tuple(
            Question(LARGER, method, "random", level=level, task=task)
            for task in ("vgg", "resnet56")
            for level in (2, 32)
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
            *(
                Question(bundle, GRADIENT[0], MAGNITUDE[1], level=level, task=task)
                for bundle, task in (VGG, DEEP)
                for level in (2, 8, 32)
            ),
            *(Question(SMALLER, GRADIENT[0], MAGNITUDE[1], level=8, task=task) for task in ("vgg", "resnet56")),
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
        )
        + tuple(
            Question(SHORT, anew(NORM, mode), NORM, level=level, task="cifar-train")
            for level in (2, 4)
            for mode in ("scratch-e", "scratch-b")
        )
        + tuple(
            Question(LONG, anew(NORM, mode), f"{NORM}, {tuned}", level=2)
            for tuned in (OF_12, OF_25)
            for mode in ("scratch-e", "scratch-b")
        ),
        "Confirmed here means that training from scratch is above fine-tuning; the paper's claim, that it is "
        "at least as good, stands unless a line says contradicted. Training loss still falls when the runs on "
        "CIFAR-10 end, so that Scratch-B gains by its 31 to 99 epochs, beside 16 or 50, whatever was pruned.",
    ),
    Finding(
        9,
        "Of single weights, training from scratch does not match fine-tuning at high ratios.",
        LIU,
        tuple(
            Question(WEIGHTS, KEPT, anew(KEPT, mode), level=level)
            for level in (1.419, 15.403)
            for mode in ("scratch-e", "scratch-b")
        )
        + tuple(
            Question(SHORT, KEPT, anew(KEPT, mode), level=level, task="cifar-train")
            for level in (1.419, 15.264)
            for mode in ("scratch-e", "scratch-b")
        )
        + (Question(LONG, KEPT, anew(KEPT, "scratch-e"), level=15.264),),
        "At 1.419x the paper finds no difference: undecided is what it expects there. As above, Scratch-B "
        "trains for up to 101 epochs beside 16, and Scratch-E at large learning rates beside 4 or 12 epochs at "
        "small ones.",
    ),
    Finding(
        10,
        "Winning tickets beat new random weights only at a small learning rate.",
        LIU,
        tuple(
            Question(TICKETS, anew(KEPT, "rewind-weights-0"), anew(KEPT, "scratch-e"), level=15.403, task=rate)
            for rate in ("learning_rate 0.1", "learning_rate 0.01")
        )
        + tuple(
            Question(SHORT, anew(KEPT, "rewind-weights-0"), anew(KEPT, "scratch-e"), level=15.264, task=recipe)
            for recipe in ("cifar-train", "cifar-train-small-rate")
        )
        + (Question(LONG, anew(KEPT, "rewind-weights-0"), anew(KEPT, "scratch-e"), level=15.264),),
        "A line that says confirmed bears the claim out at the small rate, 0.01, and speaks against it at the "
        "large one, 0.1 (cifar-train and the 50 epochs).",
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
            Question(
                SHORT,
                "network_slimming[finetuning=scratch-e]",
                "uniform_channels[finetuning=scratch-e]",
                level=3,
                task="vgg16",
            ),
        ),
        "The paper finds it on VGG, and less on ResNets.",
    ),
    Finding(
        12,
        "Fine-tuning for longer does not help.",
        LIU,
        (
            *(Question(LONGER, f"{NORM}, {long}", f"{NORM}, {short}", level=4) for long, short in LENGTHS),
            Question(LONG, f"{NORM}, {OF_25}", f"{NORM}, {OF_12}", level=2),
        ),
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


def _runs(bundle: str, task: str) -> str:
    return f"{bundle}, {task}" if task else bundle


def told(answer: Answer) -> str:
    """One line of a finding's table."""
    asked, claim = answer.question, answer.claim
    runs = _runs(asked.bundle, asked.task)
    axis = "speedup" if asked.axis == SPEEDUP else "size"
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


def further(finding: Finding) -> list[str]:
    """What a finding shows that is no comparison of two methods."""
    if finding.number == 5:
        return [
            f"- {_runs(bundle, task)}, {m}: {deviations(bundle, m, task)}"
            for bundle, task in ((DIGITS, ""), VGG, DEEP)
            for m in (*MAGNITUDE, *GRADIENT)
        ]
    if finding.number == 6:
        return [across_weights(level) for level in (4, 16)]
    if finding.number == 7:
        return [
            f"- {_runs(bundle, task)}, {m} at 2x: {changes(bundle, m, 2, task)}"
            for bundle, task in ((DIGITS, ""), (SMALL, ""), VGG, DEEP)
            for m in MAGNITUDE
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
    parts.append("\n".join(noise()))
    columns = ("bundle", "runs", "computing", "on", "with", "commit")
    asked = [q.bundle for finding in FINDINGS for q in finding.questions]
    names = dict.fromkeys([*asked, NOISE, *THREADS])
    rows = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns), *map(origin, names)]
    parts.append(
        "## The runs\n\n`shrinkbench sweep NAME` carries each of them out; a commit with + had changes."
    )
    parts.append("\n".join(rows))
    parts.append("\n".join(open_lines(names)))
    (folder / "README.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write_page()
