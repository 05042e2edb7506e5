"""A device that is none: values lie in memory, and whatever a GPU would refuse is refused.

``install()`` gives torch a device ``other``. Its tensors compute on the CPU underneath, one operation at a
time, and an operation is refused with ``WrongDevice`` where a GPU refuses it: tensors of two devices in one
(numbers without dimensions beside elementwise operations, and indices, may come from the CPU), a generator of
the CPU for numbers that are drawn on the device, ``numpy()``. Numbers drawn on the device without a generator
are refused as well, but for dropout: shrinkbench draws on the CPU, so that one seed gives the same run on every
device.
"""

import functools

import torch
import torch.utils.benchmark  # it asks what device there is when it is read
from torch.utils import backend_registration
from torch.utils._python_dispatch import return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map

OTHER = "other"
aten = torch.ops.aten


class WrongDevice(Exception):  # noqa: N818 (no RuntimeError: code that catches those must not swallow it)
    """An operation that a GPU would refuse, or that would draw other numbers there than on the CPU."""


class OtherTensor(torch.Tensor):
    """A tensor that says to be on ``other``; ``raw`` holds its values."""

    @staticmethod
    def __new__(cls, raw, requires_grad=False):
        return torch.Tensor._make_wrapper_subclass(
            cls,
            raw.size(),
            strides=raw.stride(),
            storage_offset=raw.storage_offset(),
            dtype=raw.dtype,
            device=torch.device(OTHER, 0),
            requires_grad=requires_grad,
        )

    def __init__(self, raw, requires_grad=False):
        self.raw = raw

    __torch_function__ = torch._C._disabled_torch_function_impl

    def __tensor_flatten__(self):
        return ["raw"], None

    @staticmethod
    def __tensor_unflatten__(inner, context, size, stride):
        return OtherTensor(inner["raw"])

    def tolist(self):
        return self.raw.tolist()

    def untyped_storage(self):
        return self.raw.untyped_storage()

    def numpy(self, *, force=False):
        raise WrongDevice("numpy() of a tensor on the device; move it to the CPU")

    def __array__(self, dtype=None):
        raise WrongDevice("an array of a tensor on the device; move it to the CPU")

    def __repr__(self):
        return f"OtherTensor({self.raw!r})"

    def __reduce_ex__(self, protocol):
        """As a tensor of the CPU: whoever reads it maps every device there."""
        return self.raw.detach().requires_grad_(self.requires_grad).__reduce_ex__(protocol)

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        return on_other(operation, args, kwargs or {})


INDICES = {aten.index.Tensor, aten.index_put_.default, aten.index_put.default, aten._index_put_impl_.default}
ACROSS = {
    aten.copy_.default,
    aten._to_copy.default,
    aten._local_scalar_dense.default,
    aten.equal.default,
    aten._foreach_copy_.default,
}
DROPOUT = {
    aten.bernoulli_.float,
    aten.native_dropout.default,
    aten.bernoulli.p,
    aten.bernoulli.default,
    aten.dropout.default,
    aten.dropout_.default,
}
WITH_NUMBERS = {aten.index_put_.default, aten.index_put.default, aten._index_put_impl_.default, aten.where.self}


def on_other(operation, args, kwargs):
    """Compute ``operation`` on the CPU, and give tensors of the device where the device is asked for."""
    flat = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, torch.Tensor)]
    inside = any(isinstance(x, OtherTensor) for x in flat)
    asked = kwargs.get("device")
    check_devices(operation, args, kwargs, flat)
    target = torch.device(asked).type if asked is not None else (OTHER if inside else "cpu")
    if target == OTHER and asked is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    kwargs.pop("pin_memory", None) if target == OTHER else None
    raw = operation(*tree_map(unwrap, args), **tree_map(unwrap, kwargs))
    if operation is aten._local_scalar_dense.default:
        return raw
    if target != OTHER:
        return raw
    with torch.inference_mode(mode=False):  # views of tensors from outside are none of inference's own
        wrapped = tree_map(wrap, raw)
    return return_and_correct_aliasing(operation, args, kwargs, wrapped) if inside else wrapped


def check_devices(operation, args, kwargs, flat):
    """Raise ``WrongDevice`` for what a GPU refuses."""
    generator = kwargs.get("generator")
    if torch.Tag.nondeterministic_seeded in operation.tags and operation not in DROPOUT:
        raise WrongDevice(f"{operation} draws on the device ({generator}); draw on the CPU, and move")
    if operation in ACROSS and operation is not aten.equal.default:
        return
    if operation in INDICES:
        if not isinstance(args[0], OtherTensor):
            raise WrongDevice(f"{operation}: indices on {OTHER} into a tensor on the CPU")
        flat = [args[0], *args[2:3]] if len(args) > 2 else [args[0]]
    numbers = torch.Tag.pointwise in operation.tags or operation in WITH_NUMBERS
    strange = [
        tuple(x.shape)
        for x in flat
        if not isinstance(x, OtherTensor) and not (numbers and x.dim() == 0 and x.device.type == "cpu")
    ]
    if strange and any(isinstance(x, OtherTensor) for x in flat):
        raise WrongDevice(f"{operation}: tensors on {OTHER} and on the CPU (of shape {strange})")


def unwrap(x):
    return x.raw if isinstance(x, OtherTensor) else x


def wrap(x):
    return OtherTensor(x) if isinstance(x, torch.Tensor) and not isinstance(x, OtherTensor) else x


class _Module(backend_registration._DummyBackendModule):
    """What torch asks of a kind of device."""

    def get_amp_supported_dtype(self):
        return [torch.bfloat16, torch.float16]

    def get_rng_state(self, device=None):
        return torch.empty(0, dtype=torch.uint8)

    def set_rng_state(self, state, device=None):
        pass

    def current_device(self):
        return 0

    def device_count(self):
        return 1


@functools.cache
def install():
    """Make ``torch.device("other")`` known; once in a process."""
    backend_registration._setup_privateuseone_for_python_backend(OTHER, backend_module=_Module())
    library = torch.library.Library("_", "IMPL")
    library.fallback(lambda operation, *args, **kwargs: on_other(operation, args, kwargs), "PrivateUse1")
    library.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
    return library
