"""Batch norm over the patches of all processes of a training.

PyTorch's own `SyncBatchNorm` is for GPUs. `ProcessesBatchNorm` does the same with any backend of torch.distributed; a
layer becomes one, or the other, without a change of its parameters, buffers and names.
"""

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm


class ProcessesBatchNorm(_BatchNorm):
    """Batch norm of (B, C, *space) whose mean and variance in training are those of the batches of all processes."""

    def forward(self, x: Tensor) -> Tensor:
        """`x`, normalised; in evaluation mode as by any batch norm, without any exchange: one process may be alone."""
        if not self.training:
            own = self.running_mean is None  # without running statistics those of `x`
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, own, eps=self.eps)
        out, mean, variance, count = _Normalise.apply(x, self.weight, self.bias, self.eps)  # type: ignore[no-untyped-call]
        if self.track_running_stats:
            self._follow(mean, variance * (count / (count - 1)))
        result: Tensor = out
        return result

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance, share)

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002 - the name of PyTorch
        """Any number of axes is taken."""


class _Normalise(torch.autograd.Function):
    """Needs one exchange between the processes forwards, and one backwards."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        mean, variance, count = _joint_moments(x)
        ctx.save_for_backward(x, weight, mean, (variance + eps).rsqrt(), count)  # type: ignore[arg-type]
        ctx.mark_non_differentiable(mean, variance, count)
        out = F.batch_norm(x, mean, variance, weight, bias, training=False, eps=eps)
        return out, mean, variance, count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, inverse_std, count = ctx.saved_tensors
        over = _all_but_channels(x)
        centred = x - _spread(mean, x)
        own = torch.stack([grad.sum(over), (grad * centred).sum(over)])  # (2, C)
        joint = own.clone()
        dist.all_reduce(joint)
        slope = joint[1] / count * inverse_std.square()
        scale = inverse_std if weight is None else inverse_std * weight
        grad_x = (grad - _spread(joint[0] / count, x) - centred * _spread(slope, x)) * _spread(scale, x)
        # Of the parameters' gradients each process gives its own part; they are averaged with all others.
        return grad_x, None if weight is None else own[1] * inverse_std, None if weight is None else own[0], None


def _joint_moments(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and variance (C) over all processes' `x`, and the number of values per channel (a scalar).

    Each process's own mean and variance are joined, which loses nothing where the mean is large, as sums of squares do.
    """
    variance, mean = torch.var_mean(x, dim=_all_but_channels(x), correction=0)
    own = torch.cat([mean, variance, mean.new_tensor([x.numel() / x.shape[1]])])
    all_of_them = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(all_of_them, own)
    table, channels = torch.stack(all_of_them), x.shape[1]  # (P, 2 C + 1)
    means, variances, counts = table[:, :channels], table[:, channels:-1], table[:, -1:]
    count = counts.sum()
    share = counts / count
    joint_mean = (share * means).sum(0)
    joint_variance = (share * (variances + (means - joint_mean).square())).sum(0)
    return joint_mean, joint_variance, count


def _all_but_channels(x: Tensor) -> list[int]:
    return [axis for axis in range(x.ndim) if axis != 1]


def _spread(values: Tensor, x: Tensor) -> Tensor:
    """Values of channels (C) with axes of length 1 for the others of `x`."""
    return values.view(1, -1, *(1,) * (x.ndim - 2))


def synchronise_batch_norms(network: nn.Module) -> None:
    """Make every batch norm of `network` one over all processes: PyTorch's own on a GPU, else `ProcessesBatchNorm`.

    Parameters and buffers stay the same objects under the same names.
    """
    for parent in list(network.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, _BatchNorm) and not isinstance(layer, nn.SyncBatchNorm | ProcessesBatchNorm):
                on_gpu = next((True for tensor in (*layer.parameters(), *layer.buffers()) if tensor.is_cuda), False)
                setattr(parent, name, _twin(layer, nn.SyncBatchNorm if on_gpu else ProcessesBatchNorm))


def _twin(layer: _BatchNorm, kind: type[_BatchNorm]) -> _BatchNorm:
    """Layer of that kind with the settings of `layer`, and its own parameters and buffers."""
    twin = kind(
        layer.num_features,
        eps=layer.eps,
        momentum=layer.momentum,
        affine=layer.affine,
        track_running_stats=layer.track_running_stats,
    )
    for name, parameter in layer.named_parameters(recurse=False):
        twin.register_parameter(name, parameter)
    for name, buffer in layer.named_buffers(recurse=False):
        twin.register_buffer(name, buffer)
    return twin.train(layer.training)
