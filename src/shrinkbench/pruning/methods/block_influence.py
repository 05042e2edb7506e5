"""Removing whole blocks by how little they change the hidden state: Block Influence (ShortGPT)."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from shrinkbench.network.blocks import BlockCall, watch_blocks
from shrinkbench.pruning.context import PruneContext
from shrinkbench.pruning.method import decides, pruning_method
from shrinkbench.pruning.structures.whole_blocks import removable_blocks, whole_blocks
from shrinkbench.pruning.units import UnitScores


@pruning_method(
    "block_influence",
    kind="activation",
    structure=whole_blocks,
    needs=("data",),
    batch_count=4,
    reference="men2024shortgpt",
)
@decides("structure")
def block_influence(ctx: PruneContext) -> UnitScores:
    """One minus the mean cosine of the states that a block is given and gives out, over all positions."""
    blocks = removable_blocks(ctx)
    paths = frozenset(blocks)
    sums = dict.fromkeys(paths, 0.0)
    counts = dict.fromkeys(paths, 0)

    def visit(call: BlockCall) -> None:
        cosine = F.cosine_similarity(call.state_in.double(), call.state_out.double(), dim=-1)
        sums[call.path] += float(cosine.sum())
        counts[call.path] += cosine.numel()

    for batch in ctx.each_batch():
        watch_blocks(ctx.module, batch.inputs, visit, only=paths)
    return UnitScores({path: torch.tensor([1 - sums[path] / counts[path]]) for path in blocks})
