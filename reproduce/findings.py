"""What both papers found, asked again of our own runs: writes docs/results/README.md from docs/results/*.zip.

    python reproduce/findings.py

Every question is one comparison of two methods on common seeds, by the report's own statistics; p-values are
corrected for all questions of the page (Holm). A verdict follows from a question's sign and p alone.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from asking import CONTROL, RESULTS, Answer, Question, ask, bundle_of, correct, observed
from checklisted import open_lines
from matrix import MATRIX, MATRIX_HEAD, matrix
from noise import BUNDLE as NOISE
from noise import THREADS, noise
from scipy.stats import f

from shrinkbench.report.statistics.observations import CHANGE, HEADLINE
from shrinkbench.report.statistics.tests import ALPHA, holm
from shrinkbench.spec import UNPRUNED


@dataclass(frozen=True)
class Finding:
    """A statement of a paper, and the questions whose answers speak for it or against it."""

    number: int
    statement: str
    source: str
    questions: tuple[Question, ...] = ()
    note: str = ""


def explosions() -> list[str]:
    """Deviations over seeds at 2x and halfway down, where the mean is nearest to the middle, as a table."""
    rows, raw = [], []
    for bundle, task in ((DIGITS, ""), VGG, DEEP):
        observations = observed(bundle)
        for method in (*MAGNITUDE, *GRADIENT):
            if observations is None:
                continue
            found = observations.pruned[observations.pruned["method"] == method]
            found = found[found["task"].str.contains(task, regex=False)]
            cells = found.groupby("compression_target")[HEADLINE]
            means, spread, n = cells.mean(), 100 * cells.std(), int(cells.count().min())
            half = (means - (means.max() + means.min()) / 2).abs().idxmin()
            ratio = spread[half] / spread[2.0]
            low, high = (ratio / math.sqrt(f.ppf(q, n - 1, n - 1)) for q in (0.975, 0.025))
            raw.append(2 * min(f.sf(ratio**2, n - 1, n - 1), f.cdf(ratio**2, n - 1, n - 1)))
            told = ", ".join(f"{value:.2f} at {target:g}x" for target, value in spread.items())
            rows.append(
                (_runs(bundle, task), method, told, f"{half:g}x", f"{ratio:.1f} [{low:.1f}, {high:.1f}]")
            )
    verdicts = [("confirmed" if float(row[4].split()[0]) > 1 else "contradicted") for row in rows]
    head = ("runs", "method", "deviations", "halfway down", "ratio to 2x", "p", "verdict")
    lines = [
        (*row, f"{p:.2g}", verdict if p < ALPHA else "undecided")
        for row, verdict, p in zip(rows, verdicts, holm(raw), strict=True)
    ]
    return ["| " + " | ".join(line) + " |" for line in (head, ("---",) * len(head), *lines)]


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


def epochs(bundle: str, method: str) -> str:
    """For how long the last training of a method's pruned networks was, from the shortest to the longest."""
    found = bundle_of(bundle)
    pruned = [r for r in found.results if r.spec.amount != UNPRUNED] if found else []
    lengths = [r.epochs_run for r in pruned if r.spec.method.name == method and r.epochs_run]
    return f"{min(lengths)} to {max(lengths)}" if len(set(lengths)) > 1 else f"{lengths[0] if lengths else 0}"


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
        "The paper: at large amounts many methods are above random, at small ones not always. So "
        "confirmed at 2x "
        "speaks against the exception.",
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
        "Standard deviations of top-1 over seeds, in points; their ratio halfway down, at the amount "
        "whose mean is "
        "nearest to the middle of the method's best and worst, to 2x, with its 95 % interval; p of an F-test, "
        "corrected for the lines of this table (Holm). Where a network is left with the accuracy of chance, or "
        "has one collapsed seed, deviations are not those of a normal distribution, on which the test rests.",
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
        )
        + tuple(
            Question(INITIAL, MAGNITUDE[1], MAGNITUDE[0], level=level, task=w, other=other, metric=metric)
            for w, other in (("adam-a", "adam-b"), ("adam-b", "adam-a"))
            for metric in (HEADLINE, CHANGE)
            for level in (4, 16)
        ),
        "Weights A are trained with Adam at 1e-3, weights B at 1e-4. The last eight lines are what a "
        "table shows "
        "that compares a method from one with a method from the other: where one says confirmed, "
        "initial weights "
        "turn the order of the first four lines round, and where it is of changes, reporting them "
        "does not cure it.",
    ),
    Finding(
        7,
        "Small amounts of pruning can raise accuracy.",
        BLALOCK,
        tuple(
            Question(bundle, method, CONTROL, level=2, task=task)
            for bundle, task in ((DIGITS, ""), (SMALL, ""), VGG, DEEP)
            for method in MAGNITUDE
        ),
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
        "at least as good, would be spoken against by a line that says contradicted. On CIFAR-10 "
        "training is cut "
        f"short: Scratch-B trains for {epochs(SHORT, anew(NORM, 'scratch-b'))} epochs where 16, and "
        f"{epochs(LONG, anew(NORM, 'scratch-b'))} where 50 train the large network, and so ends with a lower "
        "training loss than Scratch-E of the same network. How much of its lead that is, no line tells.",
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
        "The paper: in some cases at 95 %; at 1.419x (30 %) training from scratch is mostly on par "
        "there. As above, "
        f"Scratch-B trains for {epochs(SHORT, anew(KEPT, 'scratch-b'))} epochs where 16 train the "
        "large network, "
        f"on the digits {epochs(WEIGHTS, anew(KEPT, 'scratch-b'))} where 20 do, and Scratch-E at "
        "large learning "
        "rates beside 4 or 12 epochs at small ones.",
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
        "The paper: no noticeable improvement. A line that says confirmed speaks against it; "
        "undecided is no proof "
        "of it.",
    ),
)

HEAD = """# The findings of two papers, asked again

Written by `reproduce/findings.py` from the bundles beside this page; `make reproduce` runs their experiments
again. A line is one comparison of two methods on common seeds, in points of top-1, with its 95 % interval and
the p-value corrected for all {asked} comparisons of this page (Holm). A verdict follows from sign and p
alone: *undecided* means that these runs do not tell, not that there is no difference. These are calibrated
twins: fewer images, epochs and seeds than in the papers, whose own settings are the experiments without
`-small`. Where two seeds were run, verdicts are weak: the 5 % are not kept then where one method is much
noisier than others ([measured](../statistics.md#measured)).
"""


def _runs(bundle: str, task: str) -> str:
    return f"{bundle}, {task}" if task else bundle


def told(answer: Answer) -> str:
    """One line of a finding's table."""
    asked, claim = answer.question, answer.claim
    methods = (asked.first, asked.second)
    if asked.other:
        methods = (f"{asked.first}, {asked.task}", f"{asked.second}, {asked.other}")
    runs = _runs(asked.bundle, "" if asked.other else asked.task)
    axis = "speedup" if asked.axis == SPEEDUP else "size"
    axis += ", change from the control" if asked.metric == CHANGE else ""
    if claim is None:
        where = f"equal {axis}" + ("" if asked.level is None else f", {asked.level:g}x")
        row = (runs, *methods, where, "", "", "", f"{answer.verdict}: {answer.why}")
    else:
        low, high = claim.reach
        reach = f"{low:.3g}x" if low == high else f"{low:.3g} to {high:.3g}x"
        where = reach if asked.second == CONTROL else f"equal {axis}, {reach}"
        interval = f"{100 * claim.difference:+.2f} [{100 * claim.low:.2f}, {100 * claim.high:.2f}]"
        p = "undefined" if math.isnan(claim.p) else f"{claim.p:.2g}"
        row = (runs, *methods, where, interval, str(claim.n), p, answer.verdict)
    return "| " + " | ".join(row) + " |"


def counted(answers: Iterable[Answer]) -> str:
    """How often each verdict was given."""
    found = Counter(answer.verdict for answer in answers)
    return (
        f"Of {found.total()} lines: " + ", ".join(f"{n} {verdict}" for verdict, n in found.most_common()) + "."
    )


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
            own = [next(answers) for _ in finding.questions]
            parts.append("\n".join([*rows, *map(told, own)]))
            parts.append(counted(own))
        if finding.number == 5:
            parts.append("\n".join(explosions()))
    parts.append(MATRIX_HEAD)
    parts.append("\n".join(matrix()))
    parts.append("\n".join(noise()))
    columns = ("bundle", "runs", "computing", "on", "with", "commit")
    asked = [q.bundle for finding in FINDINGS for q in finding.questions]
    names = dict.fromkeys([*asked, NOISE, *THREADS])
    rows = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns), *map(origin, names)]
    parts.append(
        "## The runs\n\n`shrinkbench sweep NAME` carries each of them out (those of one and of two "
        "threads: the lines of `make reproduce`); a commit with + had changes."
    )
    parts.append("\n".join(rows))
    parts.append("\n".join(open_lines(names)))
    (folder / "README.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write_page()
