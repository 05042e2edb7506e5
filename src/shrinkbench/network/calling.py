"""Being told that a network is called, and calling it with other tensors in the place of its own."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from shrinkbench.errors import ShrinkbenchError, text_of
from shrinkbench.network.inputs import Inputs

P = ParamSpec("P")
R = TypeVar("R")
# In these modes values are not real.
_PROGRAMS = (torch._C._TorchDispatchModeKey.FAKE, torch._C._TorchDispatchModeKey.PROXY)
# What devices and allocators say, as RuntimeError; a memory format or location is no word of theirs.
_OF_DEVICES = re.compile(r"\b(?:CUDA|cuDNN|CUBLAS|NCCL|HIP|MPS)|out of memory|enough memory|allocate memory")


def is_of_a_device(error: BaseException) -> bool:
    """Whether a device or an allocator has failed, and not the code that was run on it."""
    if isinstance(error, torch.OutOfMemoryError | torch.AcceleratorError):
        return True
    return isinstance(error, RuntimeError) and _OF_DEVICES.search(text_of(error)) is not None


class WhenCalled:
    """A hook that tells that a network is called; copies of the network, in files too, tell nobody."""

    def __init__(self, tell: Callable[[], None] | None = None) -> None:
        self._tell = tell

    def __call__(self, *_: object) -> None:
        """Tell, unless the network is being made into a program, which is of the network alone."""
        made = torch.compiler.is_compiling() or torch._C._get_tracing_state()
        if self._tell is not None and not made and not any(map(torch._C._get_dispatch_mode, _PROGRAMS)):
            self._tell()

    @property
    def __name__(self) -> str:
        """None: TorchScript, which alone asks a hook of a network for it, shows this sentence."""
        raise AttributeError(
            "TorchScript compiles no hooks, and an Upholder or a Pruner watches this network; take it away "
            "first (handle.remove(), pruner.finish()), and script the network itself, not a copy made before"
        )

    def __reduce__(self) -> tuple[type[WhenCalled], tuple[()]]:
        return WhenCalled, ()


def in_own_precision(
    function: Callable[Concatenate[nn.Module, P], R],
) -> Callable[Concatenate[nn.Module, P], R]:
    """``function`` of a network, outside of any autocast: what it finds is of the precision of the weights.

    Autocast is left where the call is made, and taken off the network where Accelerate, by which Hugging Face's
    Trainer goes, has wrapped its forward pass in it.
    """

    @wraps(function)
    def inner(module: nn.Module, /, *args: P.args, **kwargs: P.kwargs) -> R:
        wrapped = [vars(m) for m in module.modules() if {"forward", "_original_forward"} <= vars(m).keys()]
        present = [own["forward"] for own in wrapped]
        kinds = {"cpu", *(p.device.type for p in module.parameters() if not p.is_meta)}
        with ExitStack() as stack:
            for kind in kinds:
                stack.enter_context(torch.autocast(kind, enabled=False))
            try:
                for own in wrapped:
                    own["forward"] = own["_original_forward"]
                return function(module, *args, **kwargs)
            finally:
                for own, forward in zip(wrapped, present, strict=True):
                    own["forward"] = forward

    return inner


def require_decoder_inputs(module: nn.Module, inputs: Inputs) -> None:
    """Say of ``module``, which has failed on ``inputs``, where its decoder was given no tokens to begin from.

    Of Hugging Face's encoder-decoders some shift the encoder's tokens themselves (BART), and run without.
    """
    encodes = getattr(getattr(module, "config", None), "is_encoder_decoder", False)
    if encodes is True and not {"decoder_input_ids", "decoder_inputs_embeds"} & set(inputs.kwargs):
        raise ShrinkbenchError(
            "the network is an encoder with a decoder that reads tokens of its own, and labels are targets, "
            "which do not go in: add decoder_input_ids to every batch "
            "(network.prepare_decoder_input_ids_from_labels(labels=...))"
        )


def call_with(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None = None,
) -> Any:
    """The output of ``module`` with ``tensors``, by the first name of each, as its parameters and buffers.

    ``torch.func.functional_call`` does not give back the tensors of a layer that stands at two places of the
    network; here every layer is met once, and tied tensors are replaced wherever they are held. Gradients of
    the output are dense, also those of embeddings that ask for sparse ones, of which little can be computed.
    """
    first: dict[int, str] = {}
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        first.setdefault(id(tensor), name)
    places: dict[str, Tensor] = {}
    for path, child in module.named_modules():
        for name, tensor in (*child._parameters.items(), *child._buffers.items()):
            known = first.get(id(tensor))
            if known is not None and known in tensors:
                places[f"{path}.{name}" if path else name] = tensors[known]
    with _dense_gradients(module):
        return torch.func.functional_call(module, places, args, dict(kwargs or {}), tie_weights=False)


@contextmanager
def _dense_gradients(module: nn.Module) -> Iterator[None]:
    sparse = [m for m in module.modules() if isinstance(m, nn.Embedding | nn.EmbeddingBag) and m.sparse]
    try:
        for table in sparse:
            table.sparse = False
        yield
    finally:
        for table in sparse:
            table.sparse = True
