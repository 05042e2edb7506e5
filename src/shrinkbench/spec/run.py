"""One run with nothing left to defaults, what it shares with others, and its key."""

from __future__ import annotations

from pydantic import Field

from shrinkbench.spec.axes import CONTROL_METHOD, MethodSpec
from shrinkbench.spec.recipe import Recipe
from shrinkbench.spec.task import DataSpec, ExtraSpec, WeightsSpec
from shrinkbench.spec.value import Value, digest


class RunSpec(Value):
    """One run, resolved in full.

    ``compression`` is original parameters / kept parameters, at least 1, over the whole network. ``recipe`` is
    the training whose outcome is measured; ``search`` that of a method which prunes while it trains, where
    another training follows.
    """

    data: DataSpec
    model: str
    weights: WeightsSpec
    method: MethodSpec
    compression: float = Field(ge=1)
    seed: int = Field(ge=0)
    recipe: Recipe
    search: Recipe | None = None
    prune_classifier: bool = False
    prune_biases: bool = False
    extra: tuple[ExtraSpec, ...] = ()

    @property
    def key(self) -> str:
        """SHA-256 over the canonical JSON of every resolved value."""
        return digest(self)

    @property
    def pretraining(self) -> PretrainSpec | None:
        """What has to be trained first, for ``pretrain`` weights and methods that start from trained ones."""
        if self.weights.recipe is None or self.method.start == "initialisation":
            return None
        return PretrainSpec(data=self.data, model=self.model, recipe=self.weights.recipe, seed=self.seed)

    @property
    def searching(self) -> RunSpec | None:
        """The run that only finds the masks: equal for all that differ in the training afterwards."""
        if self.search is None or self.compression == 1:
            return None
        name = self.method.name_without_finetuning
        method = self.method.model_copy(update={"name": name, "finetuning": "continue"})
        return self.model_copy(update={"method": method, "recipe": self.search, "search": None, "extra": ()})

    @property
    def control(self) -> RunSpec:
        """The unpruned network under the same fine-tuning: equal for every method that has the same."""
        same = {"finetuning": self.method.finetuning, "start": self.method.start}
        if self.method.from_scratch:  # nothing pruned: equal epochs are equal computation
            same = {"finetuning": "scratch-e", "start": "initialisation"}
        elif self.search is not None:  # in place of a training that prunes stands one that does not
            same["start"] = "trained"
        return self.model_copy(
            update={
                "method": CONTROL_METHOD.model_copy(update=same),
                "compression": 1.0,
                "search": None,
                "prune_classifier": False,
                "prune_biases": False,
            }
        )


class PretrainSpec(Value):
    """A network trained here: everything that its weights follow from."""

    data: DataSpec
    model: str
    recipe: Recipe
    seed: int = Field(ge=0)

    @property
    def key(self) -> str:
        """SHA-256 over the canonical JSON of every value."""
        return digest(self)
