"""What several processes compute together, written as JSON by the main one: what test_distributed.py looks at.

torchrun --nproc-per-node 2 process_checks.py OUT
"""

import json
import sys
import time
from pathlib import Path

import torch
from torch import nn

from voxelseg.errors import DataError
from voxelseg.losses import DiceCrossEntropy
from voxelseg.train.machines.distributed import Processes, joined

CPU = torch.device("cpu")
BATCH = 4


def drawn(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def own_part(whole: torch.Tensor, processes: Processes) -> torch.Tensor:
    return whole.chunk(processes.count)[processes.rank]


def batch_norms(processes: Processes) -> float:
    """Largest difference of weights and running statistics from those of one process after 3 steps."""

    def network() -> nn.Sequential:
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv3d(1, 4, 3),
            nn.BatchNorm3d(4),
            nn.GELU(),
            nn.BatchNorm3d(4, affine=False, momentum=None),
            nn.Conv3d(4, 2, 1),
        )

    # far from zero, where sums of squares lose digits
    images, wanted = drawn(BATCH, 1, 4, 5, 6, seed=1) + 10, drawn(BATCH, 2, 2, 3, 4, seed=2)
    states = []
    for together in (True, False):
        net = network()
        forward = processes.wrap(net) if together else net
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            x, y = (own_part(one, processes) if together else one for one in (images, wanted))
            (forward(x) - y).square().mean().backward()
            optimizer.step()
        states.append(net.state_dict())
    assert list(states[0]) == list(states[1])
    return max(float((states[0][name] - states[1][name]).abs().max()) for name in states[0])


def losses(processes: Processes) -> dict[str, list[float]]:
    """Loss of one process, and differences of the processes' mean loss and gradients from it, for each kind."""
    logits, target = drawn(BATCH, 3, 2, 3, 4, seed=3), torch.arange(BATCH * 24).view(BATCH, 2, 3, 4) % 3
    target[0] = -1  # the first patch is hardly labelled, so that the processes see unequal numbers of known voxels
    target[0, 0, 0, 0] = 1
    found = {}
    for name, settings in {"pooled": {"batch_dice": True}, "apart": {}, "cross entropy": {"dice_weight": 0.0}}.items():
        whole = logits.clone().requires_grad_()
        loss_of_all = DiceCrossEntropy(**settings)(whole, target)
        loss_of_all.backward()
        expected = float(loss_of_all.detach())
        own = own_part(logits, processes).clone().requires_grad_()
        loss = DiceCrossEntropy(**settings, total=processes.total)(own, own_part(target, processes))
        loss.backward()
        gradient = own.grad / processes.count  # as `wrap` averages it
        difference = float((gradient - own_part(whole.grad, processes)).abs().max())
        mean = processes.mean(float(loss.detach()))
        found[name] = [expected, abs(mean - expected), max(processes.gather(difference))]
    return found


def failure(processes: Processes) -> list[str]:
    """The error that each process gets when the main one fails."""

    def fail() -> None:
        raise DataError("scan.nii.gz: damaged")

    try:
        processes.from_main(fail)
    except DataError as error:
        return processes.gather(str(error))
    raise AssertionError


def wait_for_main(processes: Processes) -> list[bool]:
    """Whether each process waited until the main one was there."""
    began = time.monotonic()
    if processes.is_main:
        time.sleep(0.5)
    processes.barrier()
    return processes.gather(time.monotonic() - began > 0.3)


if __name__ == "__main__":
    torch.set_num_threads(1)
    with joined(CPU) as processes:
        result = {
            "batch_norms": batch_norms(processes),
            "losses": losses(processes),
            "failure": failure(processes),
            "any": [processes.any(processes.rank == 1), processes.any(False)],
            "mean": processes.mean(float(processes.rank)),
            "from_main": processes.gather(processes.from_main(lambda: [processes.rank, 0.1, float("inf")])),
            "clock": processes.gather(processes.clock(lambda: 10.0 + processes.rank)()),
            "writes": processes.gather(processes.is_main),
            "waited": wait_for_main(processes),
        }
        if processes.is_main:
            Path(sys.argv[1]).write_text(json.dumps(result))
