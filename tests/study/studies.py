"""Studies without trainings: a design, and scores as trainings leave them."""

from pathlib import Path

from voxelseg.evaluate import ClassScore, Evaluation
from voxelseg.evaluate.evaluation import SUMMARY_FILE
from voxelseg.files import append_json_line
from voxelseg.metrics import METRICS
from voxelseg.study.design import Design, Training
from voxelseg.study.starts import Start
from voxelseg.study.subsets import Subset

HELD_OUT = tuple(f"case_{number}" for number in range(6))


def design_of(folder, *, starts=("mae",), shares=(25.0, 100.0), seeds=(0, 1), held_out=HELD_OUT, **changes):
    subsets = {
        (share, seed): Subset(
            share=share,
            seed=seed,
            cases=tuple(f"train_{number}" for number in range(round(share * 8 / 100))),
            num_patients=round(share * 8 / 100),
            absent=(),
        )
        for share in shares
        for seed in seeds
    }
    files = {name: Path(f"/weights/{name}/model.safetensors") for name in starts}
    return Design(
        **{
            "folder": folder,
            "data": Path("/data/Task01_Tiny"),
            "model": "unet_s",
            "fold": 0,
            "starts": (Start("scratch", None), *(Start(name, file.parent) for name, file in files.items())),
            "shares": shares,
            "seeds": seeds,
            "subsets": subsets,
            "num_training_cases": 8,
            "held_out": {case: case for case in held_out},
            "length": {"epochs": 2},
            "pace": {},
            "settings": ("train.lr=0.01", "transfer.least_share=0.5"),
            "device": "cpu",
            "files": files,
            "checksums": {name: f"sum of {name}" for name in files},
            **changes,
        }
    )


def finish(design, start, share, seed, dice, *, steps=10):
    """Leave what a finished training leaves; `dice` has the Dice of each held-out case."""
    of_name = {one.name: one for one in design.starts}
    fold = design.run_folder(Training(of_name[start], share, seed)) / "fold_0"
    scores = tuple(
        ClassScore(case, "ball", {**dict.fromkeys(METRICS, 1.0), "dice": value}, 1.0, 1.0)
        for case, value in zip(design.held_out, dice, strict=True)
    )
    Evaluation(scores, 1.0).write(fold / "validation")
    append_json_line(fold / "log.jsonl", {"event": "epoch", "epoch": 0, "step": steps, "elapsed_s": 1.5})
    return fold / "validation" / SUMMARY_FILE
