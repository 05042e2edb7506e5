"""Observations of made methods, straight from numbers: hundreds of stores in seconds."""

import itertools

import numpy as np
import pandas as pd
from made_results import make_spec

from shrinkbench.report.statistics.observations import Observations

LEVELS = (2.0, 4.0, 8.0, 16.0, 32.0)


def make_observations(
    seed, *, methods=5, seeds=3, tasks=1, weights=1, noise=0.008, seed_effect=0.005, tilt=0.0, lead=None
):
    """Methods of one true curve.

    ``noise`` is a deviation, or one by (method, level); ``lead`` is what a method has above the curve.
    ``tilt`` makes speeds differ between methods; tasks of one place differ in their ``weights``.
    """
    generator = np.random.default_rng(seed)
    names = [f"method{i}" for i in range(methods)]
    deviations = noise if callable(noise) else lambda method, level: noise
    pruned, control, specs = [], [], {}
    for place, initial in itertools.product(range(tasks), range(weights)):
        task = f"data / net{place} / weights{initial}"
        specs[task] = make_spec(model=f"net{place}", weights=f"weights{initial}").task
        for s in range(seeds):
            shared = generator.normal(0, seed_effect)
            top = 0.92 - 0.05 * initial + shared
            start = top + generator.normal(0, deviations(0, 1.0))
            row = {"task": task, "seed": s, "control_key": f"{task} {s}"}
            control.append(
                row
                | {
                    "method": "control",
                    "compression": 1.0,
                    "headline": start,
                    "top1": start,
                    "key": f"{task} {s} c",
                }
            )
            for (i, name), level in itertools.product(enumerate(names), LEVELS):
                top1 = top - 0.01 * np.log2(level) + generator.normal(0, deviations(i, level))
                top1 += lead(task, i, level) if lead else 0.0
                pruned.append(
                    row
                    | {
                        "method": name,
                        "method_alone": name,
                        "amount": f"{level:g}x",
                        "compression_target": level,
                        "compression": level,
                        "theoretical_speedup": level ** (1 - tilt * i),
                        "top1": top1,
                        "headline": top1,
                        "headline_change": top1 - start,
                        "top1_change": top1 - start,
                        "key": f"{task} {name} {level} {s}",
                    }
                )
    reference = pd.DataFrame(control).assign(theoretical_speedup=1.0, top1_change=0.0, headline_change=0.0)
    return Observations(
        pruned=pd.DataFrame(pruned),
        control=reference,
        gaps=pd.DataFrame(),
        tasks=tuple(specs),
        methods=tuple(names),
        chance=frozenset(),
        task_specs=specs,
    )
