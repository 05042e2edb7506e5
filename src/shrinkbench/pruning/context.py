"""What a method may look at: weights, gradients and data, on demand and without a trace on the model."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.network import derivatives
from shrinkbench.network.blocks import chain_of
from shrinkbench.network.blockwise import BlockByBlock
from shrinkbench.network.dataflow import Flow, Geometry, read_flow, read_geometry
from shrinkbench.network.inputs import Batch, Example, Inputs, is_mask, map_tensors
from shrinkbench.network.observation import Maps, Product, observe_maps, observe_products
from shrinkbench.network.view import Batches, Loss
from shrinkbench.pruning.checked_batches import Taken, read_again, with_examples
from shrinkbench.pruning.masks import Masks
from shrinkbench.pruning.units import SINGLE_WEIGHTS, Structure
from shrinkbench.seeds import stream
from shrinkbench.spec.amount import UNPRUNED, Amount, ratio_of
from shrinkbench.spec.constraints import UNCONSTRAINED, Constraints


@dataclass(frozen=True)
class Proportions:
    """How many weights of each group another method keeps when it is done: what its controls end with.

    ``progress`` in (0, 1] is the share of all its removals that are made by the end of this round.
    """

    kept: Mapping[str, int]
    progress: float = 1.0

    def share(self, name: str, total: int) -> float:
        """Weights of the group ``name``, of ``total``, that stay in this round."""
        return total - self.progress * (total - self.kept[name])


def stream_beside(generator: torch.Generator, purpose: str) -> torch.Generator:
    """A stream for ``purpose`` that follows from the state of ``generator``, which stays as it is."""
    twin = torch.Generator(device=generator.device)
    twin.set_state(generator.get_state())
    drawn = int(torch.randint(2**62, (1,), generator=twin, device=generator.device))
    return torch.Generator(device=generator.device).manual_seed(stream(drawn, purpose))


class PruneContext:
    """One network at one moment of pruning.

    ``weights`` are the prunable parameters (detached; half precision as float32, else in shared storage: do
    not write to them), ``masks`` what earlier rounds and ``torch.nn.utils.prune`` left,
    ``amount`` how much is to go, ``budget`` how many of the prunable weights stay, ``structure`` what is
    removed together, and ``iteration`` the round,
    from 0. ``proportions`` are those of the method that a control goes with, where it has several rounds,
    ``constraints`` what bounds the units that a layer keeps.
    ``learned`` is what a schedule has learned beside the weights, such as noise or gates, in the form that the
    score of its method knows; ``None`` where no such training has been. ``module`` is the network itself: look,
    but do not touch.

    Everything that needs data is computed when first asked for, from at most ``batch_count`` batches, in
    evaluation mode as the network will be used. It leaves weights, ``.grad``, buffers, modes,
    ``requires_grad`` and the global random state as they are.
    """

    def __init__(
        self,
        module: nn.Module,
        names: Iterable[str],
        *,
        batches: Batches | None = None,
        batch_count: int = 1,
        input_shape: Example | None = None,
        generator: torch.Generator | None = None,
        masks: Masks | None = None,
        amount: Amount = UNPRUNED,
        budget: int | None = None,
        iteration: int = 0,
        loss: Loss = F.cross_entropy,
        structure: Structure = SINGLE_WEIGHTS,
        gradients: Mapping[str, Tensor] | None = None,
        proportions: Proportions | None = None,
        constraints: Constraints = UNCONSTRAINED,
        learned: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.learned = learned
        self.module = module
        parameters = dict(module.named_parameters())
        self.parameters: dict[str, Tensor] = {name: parameters[name].detach() for name in names}
        self.weights: dict[str, Tensor] = {name: _readable(p) for name, p in self.parameters.items()}
        self.total = sum(p.numel() for p in parameters.values())
        self.masks = (masks or Masks({})).intersect(Masks.of_torch(module)).beside(parameters)
        self.amount = amount
        self.budget = sum(w.numel() for w in self.weights.values()) if budget is None else budget
        self.iteration = iteration
        self.generator = generator or torch.Generator().manual_seed(0)
        self.loss = loss
        self.structure = structure
        self.proportions = proportions
        self.constraints = constraints
        self._example = None if input_shape is None else Inputs.of(input_shape)
        self._taken = Taken(self._example)
        self._source = None if batches is None else read_again(batches)
        self._batch_count = batch_count
        self._blocks: BlockByBlock | None = None
        self._geometries = read_geometry(module)  # now: while a pass is observed, parameters are replaced
        if gradients is not None:  # a training step has computed them already
            self.__dict__["gradients"] = dict(gradients)

    # The network

    @property
    def target(self) -> float:
        """The compression aimed at; raises ``ShrinkbenchError`` where the amount is stated in another way."""
        return ratio_of(self.amount)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(iter(self.weights.values())).device

    @property
    def example(self) -> Inputs:
        """What the network takes: the example inputs that were given, or else those of the first batch."""
        return next(self.each_batch()).inputs if self._example is None else self._example

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input, without batch dimension; raises where the network takes more than one tensor."""
        return tuple(self.example.single.shape[1:])

    @cached_property
    def flow(self) -> Flow:
        """How data flows between the weighted layers."""
        return read_flow(self.module, self.example)

    def geometry(self, name: str) -> Geometry:
        """How the tensor of weight ``name`` is laid out."""
        return self._geometries.get(name, Geometry())

    def removed(self, name: str) -> Tensor:
        """Where an earlier round has removed weights of ``name``."""
        if name in self.masks:
            return ~self.masks[name]
        return torch.zeros_like(self.weights[name], dtype=torch.bool)

    def only(self, name: str) -> PruneContext:
        """This context with one prunable weight."""
        part = copy.copy(self)
        part.weights = {name: self.weights[name]}
        return part

    def block_by_block(self) -> PruneContext:
        """This context, going forward only: products are looked at within a block, on the states held.

        What is seen is the same. Networks without a chain of blocks are run from their beginning each time.
        """
        found = copy.copy(self)
        chain = chain_of(self.module, next(self.each_batch()).inputs.fewest)
        found._blocks = BlockByBlock(self.module, chain, self.each_batch) if chain else None
        return found

    def per_row(self, name: str, values: Tensor) -> Tensor:
        """One value per output (filter, neuron), in a shape that broadcasts to that of weight ``name``."""
        shape = self.geometry(name).rows(self.weights[name]).shape
        return self.geometry(name).restore(values.reshape(-1, *[1] * (len(shape) - 1)).expand(shape))

    def per_column(self, name: str, values: Tensor) -> Tensor:
        """Values of (groups, inputs per group, *kernel), in the shape of weight ``name``."""
        shape = self.geometry(name).rows(self.weights[name]).shape
        groups = self.geometry(name).groups
        spread = values.unsqueeze(1).expand(groups, shape[0] // groups, *values.shape[1:])
        return self.geometry(name).restore(spread.reshape(shape))

    # Data

    def each_batch(self) -> Iterator[Batch]:
        """The batches that scoring may use, on the network's device and in its precision.

        Each has ``inputs`` and ``targets``, and unpacks into both.

        A data loader is read anew each time and nothing is kept; a one-shot iterator is kept, to be read
        twice. A batch without examples, or that the network does not take, is refused by its number; so are
        inputs that are 0 throughout, once all are read.
        """
        if self._source is None:
            raise ShrinkbenchError(
                "this method scores weights on data, and none was given; pass batches=, an iterable of "
                "(inputs, targets)"
            )
        dtype = next(iter(self.parameters.values())).dtype
        empty = blank = True
        with derivatives.random_state_kept(self.device):  # a data loader draws from it
            given = with_examples(islice(self._source, self._batch_count))
            for number, found in enumerate(given, 1):
                empty = False
                batch = found.to(self.device)
                batch = Batch(batch.inputs.map(_usable), map_tensors(_plain, batch.targets))
                batch = batch.to(self.device, dtype)
                blank = blank and _is_blank(batch.inputs)
                self._taken.require(self.module, batch, number)
                yield batch
        if empty:
            raise ShrinkbenchError("batches= is empty; this method needs at least one batch of data")
        if blank:
            raise ShrinkbenchError(
                "the inputs of batches= are 0 throughout, and no score can tell anything of them; give data as "
                "the network is to see it"
            )

    @cached_property
    def image_count(self) -> int:
        """Examples in all batches that scoring may use."""
        return sum(map(len, self.each_batch()))

    @property
    def inputs(self) -> Tensor:
        """Inputs of the first batch, (N, ...), of a network of one input."""
        return next(self.each_batch()).inputs.single

    def uniform(self, like: Tensor) -> Tensor:
        """Independent draws from U[0, 1) in the shape of ``like``, from the run's own generator."""
        return torch.rand(like.shape, generator=self.generator).to(like.device)

    # Derivatives

    @cached_property
    def gradients(self) -> dict[str, Tensor]:
        """Mean over the images of d loss / d weight, for every prunable weight.

        Batches are accumulated, not kept.
        """
        return self.mean_gradients()

    def mean_gradients(
        self, *, loss: Loss | None = None, batch_statistics: bool = False, parts: int = 1
    ) -> dict[str, Tensor]:
        """:attr:`gradients` of another ``loss`` or, with ``batch_statistics``, as in training.

        Batch norm then normalises by the statistics of the batch, or of each of its ``parts``; an untrained
        network has no others.
        """
        return derivatives.mean_gradients(
            self.module,
            self.parameters,
            self.each_batch(),
            loss or self.loss,
            batch_statistics=batch_statistics,
            parts=parts,
        )

    def batch_gradients(self) -> Iterator[dict[str, Tensor]]:
        """For one batch after another, the mean of d loss / d weight over its images.

        One is held at a time: the dictionary is emptied when the next one is asked for.
        """
        for batch in self.each_batch():
            found = derivatives.mean_gradients(self.module, self.parameters, [batch], self.loss)
            yield from derivatives.lent(found)

    def image_gradients(self) -> Iterator[dict[str, Tensor]]:
        """For one image after another, d loss / d weight; lent as :meth:`batch_gradients` are."""
        return derivatives.image_gradients(self.module, self.parameters, self.each_batch(), self.loss)

    def output_gradients(self, images: int) -> Iterator[dict[str, Tensor]]:
        """Vectors whose outer products, added up over the first ``images``, give the Gauss-Newton matrix.

        Several per image, 16 at most: d/d weight of the logits along each direction in which the loss curves,
        times the root of that curvature.
        """
        return derivatives.output_gradients(
            self.module, self.parameters, self.each_batch(), self.loss, images=images
        )

    def hessian_product(
        self, vectors: Mapping[str, Tensor], *, loss: Loss | None = None, batch_statistics: bool = False
    ) -> dict[str, Tensor]:
        """Hessian of the mean loss over the images, times ``vectors`` (weight-shaped; booleans are signs)."""
        return derivatives.hessian_product(
            self.module,
            self.parameters,
            self.each_batch(),
            loss or self.loss,
            vectors,
            batch_statistics=batch_statistics,
        )

    # Activations

    @cached_property
    def activations(self) -> dict[str, Tensor]:
        """Input of every layer on the first batch: weight name -> (N, inputs, ...) or (rows, inputs).

        A layer that runs several times has its inputs joined. One batch of activations is kept; to go over
        many batches use :meth:`observe`.
        """
        first = next(self.each_batch())
        found: dict[str, list[Tensor]] = {}
        observe_products(self, lambda p: found.setdefault(p.parameter, []).append(p.input), batches=[first])
        return {name: torch.cat(parts) for name, parts in found.items()}

    def observe(
        self,
        visit: Callable[[Product], None],
        *,
        names: Iterable[str] | None = None,
        values: Mapping[str, Tensor] | None = None,
    ) -> int:
        """Call ``visit`` with every product of a prunable weight, batch after batch; keep nothing.

        ``names`` are the weights of interest (all), ``values`` weights to use in place of the network's own.
        Returns the number of images seen. Raises ``ShrinkbenchError`` for a weight that no product uses.
        """
        wanted = set(self.weights if names is None else names)
        if self._blocks is not None and self._blocks.shows(wanted):
            return self._blocks.observe(self, visit, names=wanted, values=values)
        return observe_products(self, visit, names=names, values=values, batches=self.each_batch())

    def observe_maps(self, visit: Callable[[Maps], None]) -> int:
        """Call ``visit`` with the maps that every layer produces, after the activation function behind it."""
        return observe_maps(self, visit, batches=self.each_batch())


def _is_blank(inputs: Inputs) -> bool:
    """Whether all numbers are 0; whole numbers are places in a table, of which 0 is one."""
    return not any(not t.is_floating_point() or bool(t.any()) for t in inputs.tensors)


def _usable(inputs: Tensor) -> Tensor:
    """The inputs, which have to be finite unless they are a mask."""
    floating = inputs.is_floating_point() and inputs.numel() > 0
    if floating and not all(bool(end.isfinite()) for end in inputs.aminmax()) and not is_mask(inputs):
        raise ShrinkbenchError(
            "batches= contain NaN or infinite inputs, which no score can be computed from; clean the data"
        )
    return _plain(inputs)


def _plain(tensor: Tensor) -> Tensor:
    """A tensor that autograd takes: those of inference mode it does not."""
    return tensor.clone() if tensor.is_inference() else tensor


def _readable(parameter: Tensor) -> Tensor:
    """Half precision as float32: squares and products of small weights would vanish."""
    return parameter.float() if parameter.dtype in (torch.float16, torch.bfloat16) else parameter
