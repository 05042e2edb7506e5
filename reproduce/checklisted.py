"""What the checklist says of the published runs, and why lines are open: a section of the page."""

from __future__ import annotations

from collections.abc import Iterable

from asking import bundle_of

from shrinkbench.report import checklist

HEAD = """## What the checklist says of these runs

`shrinkbench checklist docs/results/NAME.zip` judges each bundle as if it were a paper's. Undecidable lines ask
for prose that no run contains. Violated lines, and why they are:"""

WHY = {
    "random-same-proportions": "a random run with every layer's share was made for no method but those whose "
    "shares are uniform; `random@METHOD` is the name of it",
    "magnitude-same-proportions": "likewise for magnitude; `magnitude@METHOD`",
    "pairs": "no machine at hand trains on ImageNet; all pairs are small",
    "operating-points": "what is asked here needs fewer amounts; the matrix has two for its cost",
    "seeds": "two seeds, or one for each initial network where it is the initial network that is varied",
    "range": "the paper's table or figure, or the question, has these amounts alone",
    "random": "the paper's table or figure, or the question, has no random pruning",
    "random-global": "likewise",
    "magnitude": "the paper's table is about fine-tuning modes of one method, which is its own reference",
    "magnitude-global-or-uniform": "likewise",
    "competing-curves": "likewise: one method, several fine-tuning modes",
    "error-bars": "one run for each initial network: the deviation is the one over these networks, told above",
    "means-and-deviations": "likewise",
    "same-code": "`group_norm` and `skeletonization` in the matrix, `network_slimming` for Figure 3 "
    "were run at a later commit; `network_slimming` in rethinking-gpu-small too, on another GPU",
    "from-scratch": "training from scratch is asked of the runs for Tables 1, 6 and 9 of Liu et al",
    "uniform": "Figure 3 of Liu et al. asks it, by uniform widths of all channels, not of those alone that a "
    "scale of network slimming gates",
}


def open_lines(bundles: Iterable[str]) -> list[str]:
    """Counts by bundle, then every violated line with its reason; ``KeyError`` where one has none."""
    counts, found = [], dict[str, list[str]]()
    texts: dict[str, str] = {}
    for name in bundles:
        bundle = bundle_of(name)
        if bundle is None:
            continue
        lines = checklist.judge(
            bundle.results, missing=bundle.missing, disputed=bundle.disputed, sequential=bundle.sequential
        )
        for line in lines:
            if line.status == "violated":
                found.setdefault(line.id, []).append(name)
                texts[line.id] = line.text
        told = {s: sum(line.status == s for line in lines) for s in ("satisfied", "violated", "undecidable")}
        counts.append(f"| {name} | {' | '.join(map(str, told.values()))} |")
    reasons = [
        f"- *{texts[line]}* ({', '.join(names) if len(names) < len(counts) else 'all'}): {WHY[line]}."
        for line, names in found.items()
    ]
    head = ["| bundle | satisfied | violated | undecidable |", "|" + " --- |" * 4]
    return [HEAD, "", *head, *counts, "", *reasons]
