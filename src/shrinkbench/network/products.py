"""Operations that multiply and add up: what they multiply, how often, and how many of these are by no zero."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._library.custom_ops import OPDEFS
from torch.utils.flop_counter import flop_registry

NonZeros = Tensor | None
"""Which entries of an operand are multiplied; ``None``: all of them."""


@dataclass(frozen=True)
class Multiplication:
    """``multiply_adds`` of ``operands`` (matrices, or what the operation takes) by one another."""

    operation: str
    multiply_adds: int
    operands: tuple[Tensor, ...]

    @property
    def position_of_weights(self) -> int | None:
        """Which operand holds the weights, where the operation says so."""
        either = self.operation in _MATRICES or self.operation == "mul"
        return 1 if self.operation in _OPERANDS and not either else None

    def kept(self, nonzeros: Sequence[NonZeros]) -> int:
        """Multiply-adds that are left when entries outside the ``nonzeros`` of the operands are skipped."""
        found = [(i, entries) for i, entries in enumerate(nonzeros) if entries is not None]
        if self.operation == "mul" and len(found) == 2:
            return int((found[0][1] & found[1][1]).sum())
        if not found or self.operation not in _OPERANDS:
            return self.multiply_adds
        if len(found) == 2 and self.operation in _MATRICES:
            left, right = (entries.long() for _, entries in found)
            left = left if left.ndim > 1 else left.unsqueeze(0)
            right = right if right.ndim > 1 else right.unsqueeze(-1)
            return int((left.sum(-2) * right.sum(-1)).sum())
        # Every entry of an operand takes part in equally many products. The weights of a convolution are its
        # second operand; the zeros of its input are not followed.
        index, entries = found[-1]
        if self.position_of_weights not in (None, index):
            return self.multiply_adds
        return self.multiply_adds * int(entries.sum()) // max(entries.numel(), 1)


# Where the operands lie among the arguments; what is added on top is no operand.
_OPERANDS = {
    **dict.fromkeys(("mm", "bmm", "mv", "dot", "vdot", "_int_mm", "_scaled_mm", "_trilinear", "conv_tbc"), 0),
    "mkldnn_rnn_layer": 0,
    "mul": 0,
    **dict.fromkeys(("addmm", "baddbmm", "addbmm", "addmv", "addr", "_addmm_activation"), 1),
    "deform_conv2d": 0,
    **dict.fromkeys(("convolution", "_convolution", "cudnn_convolution", "_slow_conv2d_forward"), 0),
}
_MATRICES = frozenset(
    {"mm", "bmm", "mv", "dot", "vdot", "addmm", "baddbmm", "addbmm", "addmv", "_addmm_activation"}
)
# Of torch's own operations those that multiply and add up in ways that no formula here counts.
_UNCOUNTED = frozenset({
    "_cdist_forward", "_euclidean_dist", "_pdist_forward", "_fft_r2c", "_fft_c2r", "_fft_c2c", "cholesky",
    "cholesky_inverse", "cholesky_solve", "_cholesky_solve_helper", "triangular_solve", "lu_unpack", "ormqr",
    "geqrf", "linalg_matrix_exp", "matrix_exp", "linalg_matrix_sqrth", "linalg_polar", "linalg_inv_ex",
    "linalg_cholesky_ex", "linalg_householder_product", "linalg_qr", "linalg_lu", "linalg_lu_factor_ex",
    "linalg_lu_solve", "linalg_solve_triangular", "linalg_lstsq", "linalg_eig", "_linalg_eigvals",
    "linalg_ldl_factor_ex", "linalg_ldl_solve", "_linalg_svd", "_linalg_eigh", "_linalg_solve_ex",
    "_linalg_det", "_linalg_slogdet", "linalg_pinv", "_spsolve", "_compute_linear_combination",
    "_cudnn_rnn", "miopen_rnn",
    "_lstm_mps", "quantized_lstm", "quantized_gru", "_grouped_mm", "_scaled_grouped_mm",
    "_scaled_grouped_mm_v2", "_scaled_mm_v2", "_foreach_mm", "_mixed_dtypes_linear", "mkldnn_linear",
    "_weight_int4pack_mm", "_weight_int4pack_mm_for_cpu", "_weight_int4pack_mm_with_scales_and_zeros",
    "_weight_int8pack_mm", "_dyn_quant_matmul_4bit", "_cslt_sparse_mm", "_sparse_addmm",
    "_sparse_mm_reduce_impl", "_sparse_sparse_matmul", "hspmm", "sspaddmm", "sparse_sampled_addmm",
    "_sparse_semi_structured_addmm", "_sparse_semi_structured_linear", "_sparse_semi_structured_mm",
    "_conv_depthwise2d", "conv_depthwise3d", "cudnn_convolution_add_relu", "cudnn_convolution_relu",
    "cudnn_convolution_transpose", "miopen_convolution", "miopen_convolution_add_relu",
    "miopen_convolution_relu", "miopen_convolution_transpose", "miopen_depthwise_convolution",
    "mkldnn_convolution", "_mps_convolution", "_mps_convolution_transpose", "_nnpack_spatial_convolution",
    "slow_conv3d_forward", "slow_conv_dilated2d", "slow_conv_dilated3d", "slow_conv_transpose2d",
    "slow_conv_transpose3d", "_native_multi_head_attention", "_triton_multi_head_attention",
    "_triton_scaled_dot_attention", "_cudnn_attention_forward", "_scaled_dot_product_attention_math_for_mps",
    "_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_fused_attention_overrideable",
    "_flash_attention_forward_no_dropout_inplace",
})  # fmt: skip
_OWN = frozenset({"aten", "prim", "prims", "profiler"})
# What is picked or interpolated is not counted, as little as torch's own pooling and resizing.
_PICKING = frozenset({"nms", "roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool"})


def name_of(func: Any) -> str:
    """The operation's name, without overload and without the underscore of one that works in place."""
    packet = getattr(func, "_overloadpacket", func)
    name = str(getattr(packet, "__name__", packet))
    return name[:-1] if name.endswith("_") and not name.endswith("__") else name


def parts_of(func: Any) -> Callable[..., Any] | None:
    """What ``func`` consists of, as a function of the same arguments; ``None`` where it is one operation.

    A custom operation that is written in Python is its code.
    """
    if has_formula(func):
        return None
    if func.namespace not in _OWN:
        written = OPDEFS.get(func.name())
        return None if written is None else written._init_fn
    composite = torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd")
    return func.decompose if composite else None


def has_formula(func: Any) -> bool:
    """Whether the multiply-adds of ``func`` are known."""
    return name_of(func) in _OPERANDS or _registered(func) is not None


def _registered(func: Any) -> Callable[..., int] | None:
    """torch's own formula, or one that was registered with ``torch.utils.flop_counter``."""
    packet = getattr(func, "_overloadpacket", func)
    found = flop_registry.get(packet)
    if found is None and getattr(func, "namespace", "") == "aten":
        found = flop_registry.get(getattr(torch.ops.aten, name_of(func), None))
    return found


def is_uncounted(func: Any) -> bool:
    """Whether ``func`` may multiply and add up in a way that is not known."""
    if has_formula(func):
        return False
    namespace = getattr(func, "namespace", "")
    if namespace == "torchvision" and name_of(func) in {*_PICKING, "_cuda_version"}:  # asked at its import
        return False
    return namespace not in _OWN or name_of(func) in _UNCOUNTED


def multiplications_of(
    func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
) -> tuple[Multiplication, ...]:
    """What one call of ``func`` multiplies, the product with weights first; nothing for other operations."""
    name = name_of(func)
    if name == "mul":
        return _outer(args, output)
    if name in ("_embedding_bag", "_embedding_bag_forward_only"):
        return _weighted_bag(args, kwargs)
    if name == "affine_grid_generator":  # every coordinate by a row of the matrix
        return (Multiplication(name, output.numel() * args[0].shape[-1], (args[0],)),)
    if not has_formula(func):
        return ()
    first = _OPERANDS.get(name)
    if name == "_trilinear":
        return _trilinear(args)
    if name == "mkldnn_rnn_layer":  # of (steps, inputs, features): both weights at every step
        data, *weights = args[:3]
        steps = data.shape[0] * data.shape[1]
        return tuple(Multiplication(name, steps * w.numel(), (data, w)) for w in weights)
    operands = tuple(a for a in (args if first is None else args[first : first + 2]) if isinstance(a, Tensor))
    formula = _registered(func)
    if formula is not None:
        counted = formula(*args, **kwargs, out_val=output) // 2
    else:
        left, right = operands
        counted = _products(name, left, right, output)
    return (Multiplication(name, counted, operands),)


def _products(name: str, left: Tensor, right: Tensor, output: Tensor) -> int:
    """Multiply-adds of an operation that torch's registry lacks."""
    if name == "addr":
        return left.numel() * right.numel()
    if name == "deform_conv2d":  # where it reads is interpolated, which is not counted
        return output.numel() * right[0].numel()
    if name == "conv_tbc":  # weights of (kernel, inputs, outputs)
        return output.shape[0] * output.shape[1] * right.numel()
    return left.numel() * (right.shape[-1] if right.ndim > 1 else 1)


def _outer(args: tuple[Any, ...], output: Any) -> tuple[Multiplication, ...]:
    """An outer product (``torch.outer``, ``torch.kron``): each operand is repeated along one of the other's.

    Any other element-wise product, of a scale or a gate, adds nothing up and is not counted.
    """
    both = [a for a in args[:2] if isinstance(a, Tensor) and a.is_floating_point()]
    if len(both) < 2 or not isinstance(output, Tensor):
        return ()
    sizes = [(1,) * (output.ndim - tensor.ndim) + tuple(tensor.shape) for tensor in both]
    repeats = [any(m == 1 < n for m, n in zip(one, output.shape, strict=True)) for one in sizes]
    return (Multiplication("mul", output.numel(), tuple(both)),) if all(repeats) else ()


def _weighted_bag(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Multiplication, ...]:
    """Sums of embeddings, each times its weight; without weights nothing is multiplied."""
    weights = kwargs.get("per_sample_weights", args[6] if len(args) > 6 else None)
    if not isinstance(weights, Tensor):
        return ()
    return (Multiplication("_embedding_bag", weights.numel() * args[0].shape[1], (args[0], weights)),)


def _trilinear(args: tuple[Any, ...]) -> tuple[Multiplication, ...]:
    """``sum of a * w * b``: every weight once by the last tensor, then the sums by the first."""
    tensors, expands, summed = args[:3], args[3:6], args[6]
    shapes = []
    for tensor, dims in zip(tensors, expands, strict=True):
        shape = list(tensor.shape)
        for dim in sorted(dims):
            shape.insert(dim, 1)
        shapes.append(shape)
    whole = torch.broadcast_shapes(*shapes)
    inner = max(summed)
    return (
        Multiplication("_trilinear", math.prod(whole), (tensors[0], tensors[1], tensors[2])),
        Multiplication("_trilinear", math.prod(whole) // max(whole[inner], 1), ()),
    )
