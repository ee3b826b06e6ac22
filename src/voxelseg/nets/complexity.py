"""What a network costs: parameters, multiply-accumulates and memory, exactly and as the papers count.

Nothing is computed. A copy of the network on PyTorch's meta device, where tensors have shapes and no memory, runs in
its plain forms, and an observer looks at every operation that reaches PyTorch. So the numbers are those of the network,
not of the form in which a device runs it.
"""

import copy
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from voxelseg.errors import DataError
from voxelseg.nets.e2enet import E2ENet, paper_cost
from voxelseg.nets.network import Network
from voxelseg.ops.dispatch import plain_forms

_ADAMW_MOMENTS = 2
"""Tensors of the size of the weights that AdamW keeps."""


@dataclass(frozen=True, kw_only=True)
class Complexity:
    """What one patch costs; bytes are estimates for the network's own precision and PyTorch's own operations."""

    parameters: int
    """Numbers in the weights, those of heads that are not asked for included; buffers and masks are not."""
    macs: int
    """Multiply-accumulates of a prediction, in convolutions, linear layers and attention products; FLOPs are twice as
    many."""
    prediction_bytes: int
    """Weights, input, and the most that is held at once of what a prediction computes."""
    training_bytes: int
    """Weights, gradients, AdamW's moments, and `kept_bytes`. Not in it: what the backward pass takes before it frees
    more, buffers of single operations, what the allocator leaves unused, what checkpointing recomputes."""
    kept_bytes: int
    """What the forward pass of a training step holds when it ends, for the backward pass."""


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One operation of a forward pass that some paper counts."""

    kind: Literal["convolution", "linear", "attention", "norm", "layer_norm", "activation"]
    """Batch, instance and group norms are "norm"."""
    macs: int = 0
    """Multiply-accumulates: a transposed convolution is counted where it reads, at the resolution of its input."""
    full_kernel: int = 0
    """The same if every output voxel took all taps: for transposed convolutions more, by the product of the strides."""
    elements: int = 0
    """Values returned."""
    affine: bool = False
    """Whether there is a bias (convolutions), or a scale and shift (norms)."""


def count(model: Network, input_size: Sequence[int]) -> Complexity:
    """Parameters, multiply-accumulates and memory of what `forward` returns now for one patch of `input_size` voxels.

    Where `model` lies and whether it trains does not matter, and it is left as it is. With deep supervision switched on
    the other heads cost too. DataError for a size that does not fit.
    """
    twin = _without_memory(model)
    prediction, training = (_observed(twin, input_size, training=training) for training in (False, True))
    weights = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
    changing = sum(parameter.nbytes for parameter in model.parameters())
    return Complexity(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        macs=_macs(prediction.operations),
        prediction_bytes=weights + prediction.peak_bytes,
        training_bytes=weights + (1 + _ADAMW_MOMENTS) * changing + training.kept_bytes,
        kept_bytes=training.kept_bytes,
    )


def operations(model: Network, input_size: Sequence[int]) -> list[Operation]:
    """The operations of a prediction of one patch, in the order in which they run."""
    return _observed(_without_memory(model), input_size, training=False).operations


def _macs(operations: list[Operation]) -> int:
    return sum(operation.macs for operation in operations)


def _fvcore(operations: list[Operation]) -> int:
    """Multiply-accumulates, and 5 for each normalised value: MedNeXt's Table 3."""
    normalised = sum(operation.elements for operation in operations if operation.kind in ("norm", "layer_norm"))
    return _macs(operations) + 5 * normalised


def _ptflops(operations: list[Operation]) -> int:
    """As 3D UX-Net's Table 1: full kernels of transposed convolutions, biases, norms, activations; no attention.

    Layer norms over channels are the authors' own class, which the tool did not know.
    """
    total = 0
    for operation in operations:
        if operation.kind == "convolution":
            total += operation.full_kernel + operation.affine * operation.elements
        elif operation.kind == "linear":
            total += operation.macs
        elif operation.kind == "norm":
            total += (1 + operation.affine) * operation.elements
        elif operation.kind == "activation":
            total += operation.elements
    return total


def _thop(operations: list[Operation]) -> int:
    """As LoGoNet's Table 1: full kernels of transposed convolutions, 2 or 4 for each normalised value; no attention."""
    total = 0
    for operation in operations:
        if operation.kind in ("norm", "layer_norm"):
            total += 2 * (1 + operation.affine) * operation.elements
        elif operation.kind in ("convolution", "linear"):
            total += operation.full_kernel
    return total


def _e2enet(operations: list[Operation]) -> int:
    """As E2ENet's tables for networks without sparsity: two for each product, full kernels; no attention."""
    return 2 * sum(operation.full_kernel for operation in operations if operation.kind != "attention")


CONVENTIONS: dict[str, Callable[[list[Operation]], int]] = {
    "macs": _macs,
    "fvcore": _fvcore,
    "ptflops": _ptflops,
    "thop": _thop,
    "e2enet": _e2enet,
}
"""What papers call FLOPs, by the name of the tool or formula that they counted with."""


def cost_in_papers(model: Network, input_size: Sequence[int], *, convention: str) -> tuple[int, int, int]:
    """Parameters and operations for one patch as papers that count by `convention` print them, and the exact macs.

    `convention` is a key of CONVENTIONS. For an E2ENet by its own only active kernels count, and all its heads do; the
    last number has all kernels.
    """
    observed = operations(model, input_size)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    counted = CONVENTIONS[convention](observed)
    if convention == "e2enet" and isinstance(model, E2ENet):
        parameters, counted = paper_cost(model.config, input_size)
    return parameters, counted, _macs(observed)


# In inference mode the observer would see no operation in the form that it knows, and there would be no gradients.
@torch.inference_mode(False)
def _observed(twin: Network, input_size: Sequence[int], *, training: bool) -> "_Observer":
    """What one forward pass of a network on the meta device does; its mode is another one afterwards."""
    if any(type(size) is not int or size < 1 for size in input_size):
        raise DataError(f"input of {tuple(input_size)} voxels: expected a positive integer for each axis.")
    config: Any = twin.config
    observer = _Observer(twin.train(training))
    with torch.device("meta"), torch.set_grad_enabled(training), plain_forms(), observer:
        outputs = twin(torch.zeros(1, config.in_channels, *input_size, dtype=next(twin.parameters()).dtype))
    observer.kept_bytes = observer.held_bytes  # with the outputs, all that their gradients need is held until here
    del outputs
    return observer


@torch.inference_mode(False)
def _without_memory(model: Network) -> Network:
    """Copy whose parameters and buffers are on the meta device."""
    replaced: dict[int, Any] = {id(model.auxiliary_loss): None}  # it hangs on a graph, which cannot be copied
    for tensor in (*model.parameters(), *model.buffers()):
        empty = torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
        is_parameter = isinstance(tensor, torch.nn.Parameter)
        replaced[id(tensor)] = torch.nn.Parameter(empty, tensor.requires_grad) if is_parameter else empty
    return copy.deepcopy(model, replaced)


class _Observer(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the operations that run within it, and how many bytes of their results are alive at most."""

    def __init__(self, model: Network) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: list[Operation] = []
        self.peak_bytes = 0
        self.held_bytes = 0
        self.kept_bytes = 0
        self._known = weakref.WeakSet(tensor.untyped_storage() for tensor in (*model.parameters(), *model.buffers()))

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = _shortcut(func, args)
        if out is None:
            out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._hold(tensor)
        operation = _counted(func._overloadpacket, args, kwargs or {}, out)
        if operation is not None:
            self.operations.append(operation)
        return out

    def _hold(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage in self._known:  # a view, or the same tensor changed in place
            return
        self._known.add(storage)
        self.held_bytes += storage.nbytes()
        self.peak_bytes = max(self.peak_bytes, self.held_bytes)
        weakref.finalize(storage, self._release, storage.nbytes()).atexit = False

    def _release(self, number: int) -> None:
        self.held_bytes -= number


_aten = torch.ops.aten
_NORMS: dict[Any, int] = {_aten.native_batch_norm: 1, _aten.native_group_norm: 1, _aten.native_layer_norm: 2}
"""Which argument of each norm is its scale."""
_ACTIVATIONS = {_aten.relu, _aten.relu_, _aten.leaky_relu, _aten.leaky_relu_, _aten.elu, _aten.elu_, _aten.gelu}
_ACTIVATIONS |= {_aten.gelu_, _aten._prelu_kernel, _aten.silu, _aten.silu_, _aten.hardtanh, _aten.hardtanh_}


_OF_SAME_SHAPE = {_aten.add.Tensor, _aten.mul.Tensor, _aten.gelu.default, _aten.relu.default, _aten.leaky_relu.default}


def _shortcut(func: Any, args: tuple[Any, ...]) -> Any:
    """What `func` returns, as tensors without memory, for the operations that take most of the time; None for others.

    PyTorch works these out in Python, a millisecond each; so all networks are described in less than half the time.
    """
    x: Any = args[0] if args else None
    others = [arg for arg in args[1:] if isinstance(arg, Tensor)]
    if func in _OF_SAME_SHAPE and all(other.shape == x.shape for other in others):
        return _empty(x, x.shape)
    if func in (_aten.upsample_trilinear3d.default, _aten.upsample_bilinear2d.default):
        return _empty(x, (*x.shape[:2], *args[1]))
    if func is _aten.native_group_norm.default:
        *_, groups, _ = args
        return _empty(x, x.shape), _empty(x, (len(x), groups)), _empty(x, (len(x), groups))
    if func is _aten.native_batch_norm.default:
        channels = x.shape[1] if args[5] else 0  # in training it returns mean and deviation
        return _empty(x, x.shape), _empty(x, (channels,)), _empty(x, (channels,))
    return None


def _empty(x: Tensor, shape: Sequence[int]) -> Tensor:
    return torch.empty(shape, dtype=x.dtype, device="meta")


def _counted(packet: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Operation | None:
    """What `packet`, an operation of PyTorch that returned `out`, adds to some count; None for nothing."""
    if packet in _NORMS:
        affine = args[_NORMS[packet]] is not None
        kind: Any = "layer_norm" if packet is _aten.native_layer_norm else "norm"
        return Operation(kind=kind, elements=out[0].numel(), affine=affine)
    if packet in _ACTIVATIONS:
        return Operation(kind="activation", elements=out.numel())
    if packet not in flop_registry:
        return None
    macs = flop_registry[packet](*args, **kwargs, out_val=out) // 2
    if packet is _aten.convolution:
        return _counted_convolution(*args, macs=macs, out=out)
    if packet in (_aten.mm, _aten.addmm):
        return Operation(kind="linear", macs=macs, full_kernel=macs, elements=out.numel())
    return Operation(kind="attention", macs=macs, full_kernel=macs)


def _counted_convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, *others: Any, macs: int, out: Tensor
) -> Operation | None:
    *_, transposed, _, groups = others
    if transposed and groups == weight.numel():
        return None  # spreads each channel over a finer grid, as plain forms do: one tap per channel, nothing is summed
    full = weight.numel() * out[:, 0].numel()
    return Operation(kind="convolution", macs=macs, full_kernel=full, elements=out.numel(), affine=bias is not None)
