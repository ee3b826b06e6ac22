"""A trained network as fast as it can be made without changing what it says."""

import copy

import torch

from voxelseg.nets.network import Network


def optimize_for_inference(model: Network, device: torch.device | str | None = None) -> Network:
    """Copy of `model` on `device` (default: where it lies) that gives the same full-resolution logits, only faster.

    The copy is in evaluation mode, without gradients and without deep supervision, so heads at lower resolutions cost
    nothing, and what can be computed ahead is (`Network.fuse`: batch norms folded into convolutions, for example). What
    follows: it cannot be trained further, its state dict may have other names, and its logits differ from those of
    `model` in evaluation mode by rounding. `model` itself stays as it is. The fast forms of single operations are
    chosen by each operation when it runs and need no preparation.
    """
    optimized = copy.deepcopy(model, {id(model.auxiliary_loss): None})  # it hangs on a graph, which cannot be copied
    optimized.deep_supervision = False
    optimized.eval()
    with torch.no_grad():
        optimized.fuse()
    return optimized.requires_grad_(False).to(device)
