"""Appendix B, first two parts: the technique and the experiments as they are described."""

from __future__ import annotations

from shrinkbench.cells import say_count
from shrinkbench.report.checklist.causes import say
from shrinkbench.report.checklist.evidence import Evidence
from shrinkbench.report.checklist.lines import Judgement, listing, rule, satisfied, undecidable, violated
from shrinkbench.report.checklist.roles import is_magnitude
from shrinkbench.report.page.citations import THE_PAPER, cite
from shrinkbench.results.networks import find_other_networks
from shrinkbench.results.record import RunResult

OLD = 2010
MOST = 3
"""Sizes that are told of, where one network has more."""


@rule("context")
def context(evidence: Evidence) -> Judgement:
    """Magnitude must be among the methods; whether the others are recent is a matter of the text."""
    magnitude = [name for name, method in evidence.methods.items() if is_magnitude(method)]
    if not magnitude:
        return violated(
            f"Methods that were run: {listing(list(evidence.methods))}; none scores by magnitude.",
            needed="Run global_magnitude beside the other methods.",
        )
    published = {c.key: c.year for c in cite(evidence.results) if c.year and c.key != THE_PAPER}
    keys = {r.spec.method.name: r.references.get("method", "") for r in evidence.results}
    years = [f"{name} ({published[key]})" for name, key in sorted(keys.items()) if key in published]
    dated = f" Methods with a dated source: {listing(years)}." if years else ""
    return undecidable(
        f"Magnitude pruning was run ({listing(magnitude)}).{dated}",
        needed=f"“{listing(list(evidence.proposed))} relates to <recent techniques> and to <techniques before "
        f"{OLD}, such as optimal brain damage> as follows: ...”",
    )


@rule("algorithm")
def algorithm(evidence: Evidence) -> Judgement:
    """Axes and recipes are stored in full; a plug-in's code is known by its digest only."""
    foreign = [name for name, method in evidence.methods.items() if method.sources]
    recipes = sorted({r.spec.recipe.name for r in evidence.results})
    facts = (
        f"Every method is stored by its axes (structure, score, allocation, schedule, fine-tuning), and every "
        f"value of the recipes {listing(recipes)} is printed under Provenance."
    )
    if foreign:
        return undecidable(
            facts,
            f"Plug-ins, known by a digest of their code only: {listing(foreign)}.",
            needed=f"“The code of {listing(foreign)} is listed in <appendix or link>.”",
        )
    return satisfied(facts, "All methods are part of shrinkbench in the versions listed there.")


@rule("claims")
def claims(evidence: Evidence) -> Judgement:
    """The results can only say what a claim may cover."""
    datasets = sorted({r.spec.data.name for r in evidence.results})
    networks = sorted({r.spec.model.name for r in evidence.results})
    objectives = sorted({r.spec.task.objective.name for r in evidence.results})
    reached = [r.size.compression for runs in evidence.cells.values() for r in runs if r.size]
    ends = dict.fromkeys(f"{end:.3g}" for end in (min(reached), max(reached))) if reached else {}
    span = f"compression {' to '.join(ends)}" if reached else "no compression"
    return undecidable(
        f"Measured: {listing(datasets)}; {listing(networks)}; {span}.",
        needed=f"“All claims hold for {listing(objectives)} on {listing(datasets)} with {listing(networks)} at "
        f"{span}; nothing is claimed beyond.”",
    )


@rule("code")
def _code(evidence: Evidence) -> Judgement:
    """A link is in no result."""
    commits = sorted({r.provenance.commit[:12] for r in evidence.results if r.provenance.commit})
    recording = sum(bool(r.provenance.commit) for r in evidence.results)
    of_all = f"{recording} of {len(evidence.results)} runs record the commit {listing(commits)}."
    known = of_all if commits else "The runs record no commit."
    return undecidable(known, needed="“The source code is available at <link>.”")


@rule("architecture")
def architecture(evidence: Evidence) -> Judgement:
    """A network's name is one exact definition; its weights need a recipe or a digest."""
    vague = [r for r in evidence.results if _is_vague(r)]
    if vague:
        names = sorted({r.spec.weights.name for r in vague})
        return violated(
            f"Initial weights without a digest or a recipe of their training: {listing(names)}.",
            needed="Give the weights as a file, so that its SHA-256 is recorded.",
            runs=tuple(r.key for r in vague),
        )
    others = list(find_other_networks(evidence.results))
    if others:
        every = [evidence.point_of(run) for run in evidence.results]
        return violated(
            *(
                f"{o.sentence}: {say([evidence.point_of(run) for run in o.runs], every)}."
                for o in others[:MOST]
            ),
            needed="Run again what was another network; one specification is one network.",
            runs=tuple(run.key for other in others for run in other.runs),
        )
    foreign = _networks_from_outside(evidence)
    if foreign:
        return undecidable(
            f"Networks of plug-ins, known by a digest of their code only: {listing(foreign)}.",
            needed=f"“The definition of {listing(foreign)} is listed in <appendix or link>.”",
        )
    figures = {
        f"{r.spec.model.name} ({r.size.parameters:,} parameters, {r.size.multiply_adds:,} multiply-adds)"
        for r in evidence.results
        if r.size
    }
    return satisfied(
        f"Exact definitions, printed by `shrinkbench describe`: {listing(sorted(figures))}.",
        "Initial weights are drawn, or known by their pretraining recipe or by SHA-256 (under Provenance).",
    )


def _networks_from_outside(evidence: Evidence) -> list[str]:
    """Networks whose code `shrinkbench describe` does not have by itself."""
    return sorted({r.spec.model.name for r in evidence.results if r.spec.model.source is not None})


def _is_vague(run: RunResult) -> bool:
    """Whether nobody can tell which initial weights a run had: none that were drawn, trained here or hashed."""
    weights = run.spec.weights
    return weights.digest is None and weights.recipe is None and weights.kind != "random"


@rule("architecture-citation")
def architecture_citation(evidence: Evidence) -> Judgement:
    """The network's card carries a reference; its namesakes are told apart there."""
    known = {c.key for c in cite(evidence.results) if c.entry}
    networks = sorted({r.spec.model.name for r in evidence.results})
    cited = {r.spec.model.name for r in evidence.results if r.references.get("model") in known}
    missing = [network for network in networks if network not in cited]
    if missing:
        return undecidable(
            f"Networks without a recorded reference: {listing(missing)}.",
            needed=f"“{listing(missing)} was introduced in <citation>; it differs here in <differences>.”",
        )
    printed = "" if _networks_from_outside(evidence) else "; `shrinkbench describe` prints each network"
    return satisfied(f"References of {listing(networks)} are in references.bib{printed}.")


@rule("dataset")
def dataset(evidence: Evidence) -> Judgement:
    """Every run stores the data's digest, subset, normalisation, batch size and augmentation."""
    vague = undescribed_data(evidence)
    if vague:
        return vague
    facts = sorted(
        {
            f"{r.spec.data.name} (digest {r.spec.data.revision[:12]}, batch size {r.spec.recipe.batch_size}, "
            f"augmentation {'on' if r.spec.recipe.augment else 'off'})"
            for r in evidence.results
        }
    )
    return satisfied(f"Recorded with every run: {listing(facts)}; normalisation and subsets under Provenance.")


def undescribed_data(evidence: Evidence) -> Judgement | None:
    """The judgement where runs do not tell their data, else nothing."""
    vague = tuple(r.key for r in evidence.results if not r.spec.data.revision)
    if not vague:
        return None
    return violated(
        f"{say_count(len(vague), 'run does', 'runs do')} not record the data.",
        needed="Run them again.",
        runs=vague,
    )


@rule("hardware")
def hardware(evidence: Evidence) -> Judgement:
    """Versions, device and processor are part of a run's provenance."""
    bare = [
        r
        for r in evidence.results
        if "torch" not in r.provenance.versions or not (r.provenance.processor and r.provenance.device)
    ]
    if bare:
        return violated(
            f"{say_count(len(bare), 'run records', 'runs record')} no version of PyTorch, no device "
            "or no processor.",
            needed="Run them again on a machine that tells its processor.",
            runs=tuple(r.key for r in bare),
        )
    used = sorted({f"{r.provenance.device} on {r.provenance.processor}" for r in evidence.results})
    torch = sorted({r.provenance.versions["torch"] for r in evidence.results})
    return satisfied(f"{listing(used)}; PyTorch {listing(torch)}; all versions under Provenance.")
