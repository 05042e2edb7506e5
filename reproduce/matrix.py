"""The missing matrix: methods that the literature compares, under one protocol; a section of the page."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

from asking import observed

from shrinkbench.report.statistics.blocks import common_block
from shrinkbench.report.statistics.claims import found_with
from shrinkbench.report.statistics.curves import curves
from shrinkbench.report.statistics.observations import HEADLINE
from shrinkbench.report.statistics.pairs import Claim, Layout, compare_pair, relative_noise
from shrinkbench.report.statistics.tests import ALPHA, holm

MATRIX = "cifar10-resnet20-matrix-small"
FIRST = "global_magnitude"

MATRIX_HEAD = """## The matrix

Methods that the literature compares to, and those since 2020, from one trained ResNet-20 on CIFAR-10 under one
protocol (`cifar10-resnet20-matrix-small`): mean top-1 in % over the seeds, and the difference from global
magnitude pruning with its 95 % interval. A star: told apart from it, corrected for all comparisons of this
table (Holm). Fine-tuning is short, which is hard on methods that prune while they train."""


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
        others = [m for m in block.methods if m != FIRST]
        pairs = {m: compare_pair("matrix", MATRIX, layout, (m, FIRST)) for m in others}
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
        "in 10, were it the only question.",
    ]
