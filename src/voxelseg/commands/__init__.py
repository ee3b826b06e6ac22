"""What each command of the command line does, as a function of the same name (`data list`: `list_data`).

    from voxelseg import commands
    commands.train("Task04_Hippocampus", out="run", model="mednext_s", fold="0", budget="20m")

All take paths as text or Path. With `console` they show progress and say what they wrote; without it they are silent.
Each is loaded when it is first used, so that checking or scoring does not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from voxelseg.commands.benchmarking import benchmark
    from voxelseg.commands.checking import check
    from voxelseg.commands.cluster import slurm
    from voxelseg.commands.comparing import compare
    from voxelseg.commands.data import convert_data, list_data, show_data
    from voxelseg.commands.demonstration import demo
    from voxelseg.commands.listing import models, recipes
    from voxelseg.commands.planning import plan, preprocess
    from voxelseg.commands.predicting import predict
    from voxelseg.commands.pretraining import pretrain
    from voxelseg.commands.reporting import report
    from voxelseg.commands.scoring import evaluate
    from voxelseg.commands.studying import label_study
    from voxelseg.commands.training import train
    from voxelseg.commands.voxel_probe import probe

_HOMES = {
    "benchmark": "benchmarking",
    "check": "checking",
    "compare": "comparing",
    "convert_data": "data",
    "demo": "demonstration",
    "evaluate": "scoring",
    "label_study": "studying",
    "list_data": "data",
    "models": "listing",
    "plan": "planning",
    "predict": "predicting",
    "preprocess": "planning",
    "pretrain": "pretraining",
    "probe": "voxel_probe",
    "recipes": "listing",
    "report": "reporting",
    "show_data": "data",
    "slurm": "cluster",
    "train": "training",
}

__all__ = [
    "benchmark",
    "check",
    "compare",
    "convert_data",
    "demo",
    "evaluate",
    "label_study",
    "list_data",
    "models",
    "plan",
    "predict",
    "preprocess",
    "pretrain",
    "probe",
    "recipes",
    "report",
    "show_data",
    "slurm",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
