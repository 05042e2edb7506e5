"""One run with nothing left to defaults, what it shares with others, and its key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import SerializerFunctionWrapHandler, model_serializer, model_validator

from shrinkbench.spec.amount import UNPRUNED, Amount, Compression
from shrinkbench.spec.axes import CONTINUE, CONTROL_METHOD, SCRATCH_E, MethodSpec
from shrinkbench.spec.constraints import UNCONSTRAINED, Constraints
from shrinkbench.spec.recipe import Recipe
from shrinkbench.spec.task import DataSpec, ExtraSpec, ModelSpec, Objective, TaskSpec, WeightsSpec
from shrinkbench.spec.value import Digest, KeyedValue, Seed


class RunSpec(KeyedValue):
    """One run, resolved in full.

    ``amount`` is how much is pruned, within ``constraints``; a control has none, and where there are none the
    key has no entry for them, as it has none for embeddings that are not prunable. ``recipe`` is the training
    whose outcome is measured; ``search`` that of a method which prunes while it trains, where another training
    follows. ``migrated_from`` is the key under which an earlier schema stored the run: it makes the key another
    than that of any new run.
    """

    task: TaskSpec
    method: MethodSpec
    amount: Amount
    constraints: Constraints = UNCONSTRAINED
    seed: Seed
    recipe: Recipe
    search: Recipe | None = None
    prune_classifier: bool = False
    prune_biases: bool = False
    prune_embeddings: bool = False
    extra: tuple[ExtraSpec, ...] = ()
    migrated_from: Digest | None = None

    @model_validator(mode="after")
    def _has_one_control(self) -> RunSpec:
        if self.is_constrained and self.is_control:
            raise ValueError("nothing is pruned, so that constraints have no say; leave them out")
        return self

    @model_serializer(mode="wrap")
    def _leave_out_none(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without what was added later and is not asked for: so keys stay what they are."""
        fields: dict[str, Any] = handler(self)
        for name in self._not_asked_for:
            fields.pop(name, None)
        return fields

    def _parts(self) -> Mapping[str, Any]:
        """As :meth:`_leave_out_none` has it."""
        left_out = self._not_asked_for
        return {name: part for name, part in super()._parts().items() if name not in left_out}

    @property
    def _not_asked_for(self) -> frozenset[str]:
        asked = {"constraints": self.is_constrained, "prune_embeddings": self.prune_embeddings}
        return frozenset(name for name, wanted in asked.items() if not wanted)

    @property
    def is_constrained(self) -> bool:
        """Whether there is anything that the surgery or the proportions have to keep."""
        return self.constraints is not UNCONSTRAINED and self.constraints != UNCONSTRAINED

    @property
    def also_prunable(self) -> dict[str, Any]:
        """What is prunable beside the weights that always are, by the names under which pruning is told."""
        return {
            "prune_classifier": self.prune_classifier,
            "prune_biases": self.prune_biases,
            "prune_embeddings": self.prune_embeddings,
        }

    @property
    def data(self) -> DataSpec:
        """The dataset of the task."""
        return self.task.data

    @property
    def model(self) -> ModelSpec:
        """The network of the task."""
        return self.task.model

    @property
    def weights(self) -> WeightsSpec:
        """The weights before pruning."""
        return self.task.weights

    @property
    def sources(self) -> tuple[str, ...]:
        """Digests of the code from outside this package on which the run rests."""
        task = self.task
        parts = (task.objective.source, task.data.source, task.model.source, *(e.source for e in self.extra))
        return tuple(dict.fromkeys([*(source for source in parts if source is not None), *self.method.sources]))

    @property
    def is_control(self) -> bool:
        """Whether nothing is pruned."""
        return self.amount == UNPRUNED

    @property
    def target(self) -> float | None:
        """The compression that was asked for; ``None`` where something else was."""
        return self.amount.ratio if isinstance(self.amount, Compression) else None

    @property
    def pretraining(self) -> PretrainSpec | None:
        """What has to be trained first, for ``pretrain`` weights and methods that start from trained ones."""
        if self.weights.recipe is None or self.method.start == "initialisation":
            return None
        return PretrainSpec(
            objective=self.task.objective,
            data=self.data,
            model=self.model,
            recipe=self.weights.recipe,
            seed=self.seed if self.weights.seed is None else self.weights.seed,
        )

    @property
    def searching(self) -> RunSpec | None:
        """The run that only finds the masks: equal for all that differ in the training afterwards."""
        if self.search is None or self.is_control:
            return None
        return self.model_copy(
            update={
                "method": self.method.finetuned_by(CONTINUE),
                "recipe": self.search,
                "search": None,
                "extra": (),
                "migrated_from": None,
            }
        )

    @property
    def rounds(self) -> RunSpec | None:
        """The run whose rounds end with the layerwise proportions of this one, shared by all that have them.

        Of a method of several rounds it is the run itself, of its controls (``random@METHOD``) that of METHOD.
        """
        method = self.method.allocation.like or self.method
        if self.is_control or method.schedule.rounds == 1 or method.schedule.during:
            return None
        return self.model_copy(update={"method": method, "extra": (), "migrated_from": None})

    @property
    def control(self) -> RunSpec:
        """The unpruned network under the same fine-tuning: equal for every method that has the same."""
        finetuning, start = self.method.finetuning, self.method.start
        if self.method.from_scratch:  # nothing pruned: equal epochs are equal computation
            finetuning = SCRATCH_E.model_copy(
                update={"version": finetuning.version, "source": finetuning.source}
            )
            start = "initialisation"
        elif self.search is not None:  # in place of a training that prunes stands one that does not
            start = "trained"
        schedule = CONTROL_METHOD.schedule.model_copy(update={"start": start})
        method = CONTROL_METHOD.model_copy(update={"finetuning": finetuning, "schedule": schedule})
        return self.model_copy(
            update={
                "method": method,
                "amount": UNPRUNED,
                "constraints": UNCONSTRAINED,
                "search": None,
                "prune_classifier": False,
                "prune_biases": False,
                "prune_embeddings": False,
                "migrated_from": None,
            }
        )


class PretrainSpec(KeyedValue):
    """A network trained here: everything that its weights follow from."""

    objective: Objective
    data: DataSpec
    model: ModelSpec
    recipe: Recipe
    seed: Seed
