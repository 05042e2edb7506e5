"""What methods are chosen by: families, and a sentence for each."""

from __future__ import annotations

from shrinkbench.pruning.finetunings import continue_
from shrinkbench.pruning.method import PruningMethod
from shrinkbench.spec import PublishedWidths

FAMILIES = {
    "magnitude": "by the size of weights",
    "gradient": "by gradients: what the loss does where a weight goes",
    "curvature": "by curvature: second derivatives of the loss or of a layer's error",
    "activation": "by what layers compute on data",
    "structure": "by how the network is connected, how alike its parts are, or by search",
    "sparse training": "masks that change within one training from initial weights",
    "learned": "learned in a training of its own: penalties, noise and gates",
    "published widths": "the widths that a paper reports",
    "random": "by chance, as controls",
}
"""In the order in which they are listed, with what each is."""


def family_of(method: PruningMethod) -> str:
    """The family that ``method`` is listed in, by its values: how it learns, else what its score looks at."""
    schedule = method.schedule
    if isinstance(method.amount, PublishedWidths):
        return "published widths"
    if method.kind == "random":
        return "random"
    if schedule.during is not None and (schedule.decided_last or schedule.train_after):
        return "learned"
    if schedule.during is not None and schedule.start == "initialisation":
        return "sparse training"
    return "structure" if method.kind == "other" else method.kind


def ranked_by(method: PruningMethod) -> str:
    """By what the schedule itself ranks weights while it trains, in words; empty where the score does."""
    return str(getattr(method.schedule.hook, "RANKED_BY", ""))


def sentence_of(method: PruningMethod) -> str:
    """One sentence: what the score is, and what is not as most have it: single weights, all compared, once."""
    schedule, mode = method.schedule, method.finetuning
    summary = method.summary.rstrip(".")
    parts = [summary]
    if schedule.during is not None:
        own = ranked_by(method)
        parts = [schedule.description, own or f"by {summary[:1].lower()}{summary[1:]}"]
    elif schedule.rounds != 1:
        parts.append(schedule.description)
    if method.structure.name != "weights":
        parts.append(f"units are {method.structure.description}")
    allocation = method.allocation.description
    if method.allocation.name != "global":
        parts.append(f"{allocation[:1].lower()}{allocation[1:].rstrip('.')}")
    if mode != continue_:
        parts.append(mode.description)
    text = "; ".join(parts)
    return f"{text[:1].upper()}{text[1:]}."
