"""Takes a few steps of METHOD, alone or as one of several processes: what test_encoding.py compares.

OUT/<number of processes>.pt gets losses, gradients and statistics.
"""

import sys
from pathlib import Path

import torch
from pretexts import drawn, prepared, small_pretext

from voxelseg.train.machines.distributed import joined

SETTINGS = {"simclr": {"embedding": 8}, "rubik-cls": {"gap": 0}}


def main(method: str, out: Path) -> None:
    with joined(torch.device("cpu")) as processes:
        pretext = small_pretext(method, **SETTINGS[method]).train()
        wrapped = processes.wrap(pretext)
        results = {}
        for step in range(3):
            batch = drawn(prepared(method, **SETTINGS[method]), 4, seed=step)
            share = 4 // processes.count
            own = {name: value[processes.rank * share :][:share] for name, value in batch.items()}
            pretext.zero_grad()
            loss = wrapped(own)
            loss.backward()
            results[f"loss {step}"] = torch.tensor(processes.mean(float(loss)))
        for name, parameter in pretext.named_parameters():
            if parameter.grad is not None:
                results[name] = parameter.grad
        results["mean"], results["variance"] = pretext.standardise.mean, pretext.standardise.variance
        if processes.is_main:
            torch.save(results, out / f"{processes.count}.pt")
        del wrapped


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
