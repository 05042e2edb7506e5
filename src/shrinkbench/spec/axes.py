"""A pruning method as a value: structure x scoring x allocation x scheduling x fine-tuning.

Whoever asks what a method *is* asks these values, never how a name is spelt. ``version`` is raised whenever
the code behind a built-in name does something else; ``source`` is a digest of the code where it came from
outside this package. Both are part of a run's key.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from shrinkbench.spec.value import Digest, Value

ScoreKind = Literal["random", "magnitude", "gradient", "activation", "curvature", "other"]
Scope = Literal["global", "layerwise", "given", "free", "none"]
AxisName = Literal["structure", "allocation", "schedule", "finetuning"]
CHANNELS = ("channel", "filter")  # units of which a fraction of channels can be taken
AXES: tuple[AxisName, ...] = ("structure", "allocation", "schedule", "finetuning")
Version = Annotated[int, Field(ge=0)]
Parameters = dict[str, bool | int | float | str | tuple[str, ...]]


class AxisValue(Value):
    """What every axis has: a name, the version of what the name does, and the digest of outside code.

    Version 0 stands for results that were stored before versions were.
    """

    name: str
    version: Version = 1
    source: Digest | None = None
    parameters: Parameters = Field(default_factory=dict)

    def __hash__(self) -> int:  # of all but the parameters, which are a dictionary
        return hash((type(self), self.name, self.version, self.source))


class ScoreSpec(AxisValue):
    """Which units matter. ``kind`` is what the score looks at; code that does not say is ``other``.

    ``needs`` names what is looked at beyond the weights, over ``batches`` minibatches.
    """

    kind: ScoreKind = "other"
    needs: tuple[str, ...] = ()
    batches: int = Field(default=1, ge=1)


class StructureSpec(AxisValue):
    """What is removed together. ``unit`` is what one is called, ``pattern`` is (n, m) of an N:M structure.

    ``overlapping``: a weight may belong to several units; ``one_per_layer``: a layer is one unit.
    """

    unit: str = "unit"
    pattern: tuple[int, int] | None = None
    overlapping: bool = False
    one_per_layer: bool = False

    @property
    def counts_channels(self) -> bool:
        """Whether a fraction of channels can be asked of it."""
        return self.unit in CHANNELS


class AllocationSpec(AxisValue):
    """How many units stay in which layer.

    ``scope``: all units are compared with one another (``global``), every layer has its share by a rule
    (``layerwise``), the shares are ``given`` by a pattern or by the method ``like``, or the score settles them
    itself (``free``). ``exact``: to the budget, up to one unit.
    """

    scope: Scope = "free"
    uniform: bool = False
    exact: bool = True
    like: MethodSpec | None = None


class ScheduleSpec(AxisValue):
    """When pruning happens.

    ``start`` tells which weights are pruned first: ``trained`` ones, or those at ``initialisation``.
    ``rounds`` is how many there are (``None``: as many as the target takes). ``during``: while the network is
    trained, after which it is trained once more if ``train_after``.
    """

    start: Literal["trained", "initialisation"] = "trained"
    rounds: int | None = Field(default=1, ge=1)
    during: bool = False
    train_between: bool = True
    train_after: bool = False


class FinetuningSpec(AxisValue):
    """From which weights training goes on, and by which recipe.

    ``weights``: ``kept`` as pruning left them, ``rewound`` to those after ``epoch`` of pretraining,
    ``reinitialised`` by a fresh draw, or from ``scratch``. ``recipe``: the ``finetuning`` one,
    ``pretraining`` from ``epoch`` on, or ``none``. ``equal``: pretraining's ``epochs`` or its ``computation``.
    ``step`` is the step of pretraining that is rewound to, in place of an epoch.
    """

    weights: Literal["kept", "rewound", "reinitialised", "scratch"] = "kept"
    recipe: Literal["finetuning", "pretraining", "none"] = "finetuning"
    epoch: int = Field(default=0, ge=0)
    equal: Literal["epochs", "computation"] = "epochs"
    step: int = Field(default=0, ge=0)

    @model_serializer(mode="wrap")
    def _leave_out_none(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without a step, as it was before there were any: so keys stay what they are."""
        fields: dict[str, Any] = handler(self)
        if not self.step:
            fields.pop("step", None)
        return fields


CONTINUE = FinetuningSpec(name="continue")
SCRATCH_E = FinetuningSpec(name="scratch-e", weights="scratch", recipe="pretraining")


class MethodSpec(Value):
    """A pruning method: five axis values, and what gives new values to weights that stay (``update``).

    ``base`` is the registered name and ``changed`` the axes in which the method differs from it; together they
    make its :attr:`name`.
    """

    base: str
    changed: tuple[AxisName, ...] = ()
    structure: StructureSpec
    score: ScoreSpec
    allocation: AllocationSpec
    schedule: ScheduleSpec
    finetuning: FinetuningSpec
    update: AxisValue | None = None

    @property
    def name(self) -> str:
        """``METHOD`` or ``METHOD[axis=value,...]``, axes in one order."""
        text = ",".join(f"{axis}={getattr(self, axis).name}" for axis in AXES if axis in self.changed)
        return f"{self.base}[{text}]" if text else self.base

    @property
    def start(self) -> Literal["trained", "initialisation"]:
        """From which weights pruning starts."""
        return self.schedule.start

    @property
    def from_scratch(self) -> bool:
        """Whether the pruned architecture is trained from random weights, and nothing else is kept."""
        return self.finetuning.weights == "scratch"

    @property
    def sources(self) -> tuple[str, ...]:
        """Digests of the code from outside this package on which the method rests."""
        axes = (self.structure, self.score, self.allocation, self.schedule, self.finetuning, self.update)
        own = [axis.source for axis in axes if axis is not None and axis.source is not None]
        like = self.allocation.like
        return tuple(dict.fromkeys([*own, *(like.sources if like is not None else ())]))

    def finetuned_by(self, finetuning: FinetuningSpec) -> MethodSpec:
        """The method with another fine-tuning; other axes stay."""
        changed = tuple(
            axis
            for axis in AXES
            if (axis != "finetuning" and axis in self.changed)
            or (axis == "finetuning" and finetuning.name != CONTINUE.name)
        )
        return self.model_copy(update={"finetuning": finetuning, "changed": changed})


CONTROL_METHOD = MethodSpec(
    base="control",
    structure=StructureSpec(name="none"),
    score=ScoreSpec(name="none"),
    allocation=AllocationSpec(name="none", scope="none"),
    schedule=ScheduleSpec(name="none"),
    finetuning=CONTINUE,
)
