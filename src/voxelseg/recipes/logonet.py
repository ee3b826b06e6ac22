"""LoGoNet (Karimi Monsefi et al., KDD 2024) without pre-training: BTCV and six tasks of the Decathlon, two sizes.

Preprocessing, sampling and augmentation are MONAI's transforms. The paper gives the optimizer and the length (Table 3);
what it leaves open is in the first author's public repository.
"""

from math import ceil
from typing import Any, Literal

from voxelseg.data.convert import find_public_data
from voxelseg.recipes.families import BEST_IS_SELECTED, HALF_PRECISION, monai
from voxelseg.recipes.recipe import UNSAID, Difference, Recipe, Score, Settings, Source, merged

Data = Literal[
    "btcv", "msd_colon", "msd_spleen", "msd_hepatic_vessel", "msd_pancreas", "msd_lung", "msd_heart"
]  # names of the public data sets
Size = Literal["normal", "large"]

DATA: tuple[Data, ...] = (
    "btcv",
    "msd_colon",
    "msd_spleen",
    "msd_hepatic_vessel",
    "msd_pancreas",
    "msd_lung",
    "msd_heart",
)
MODEL: dict[Size, str] = {"normal": "logonet", "large": "logonet_l"}
EPOCHS, WARMUP_EPOCHS = 5000, 100
GPUS, CASES_PER_GPU, CROPS_PER_CASE = 16, 2, 2
SAVED = 50
"""Times that the training is validated and saved; the paper's epochs, of one to eight steps, are too short for it."""

# Tables 4 and 5, and Table 8 for the large size: mean Dice
_DICE: dict[Data, float] = {
    "btcv": 0.854,
    "msd_colon": 0.786,
    "msd_spleen": 0.980,
    "msd_hepatic_vessel": 0.757,
    "msd_pancreas": 0.798,
    "msd_lung": 0.802,
    "msd_heart": 0.951,
}
_LARGE_BTCV = 0.855


def logonet(data: Data = "btcv", *, size: Size = "normal") -> Recipe:
    """Recipe of LoGoNet of `size` on `data` (Sec. 4.2, Table 3)."""
    where = ("Table 8" if size == "large" else "Table 4") if data == "btcv" else "Table 5"
    return Recipe(
        name=f"{MODEL[size]}_{data}",
        model=MODEL[size],
        settings=merged(monai(crops_per_case=CROPS_PER_CASE), _values(data), _space(data)),
        data=data,
        splits="24_6" if data == "btcv" else "",
        source=Source(
            paper="LoGoNet: Karimi Monsefi et al., KDD 2024, doi:10.1145/3637528.3672069",
            where=f"Sec. 4.2 and Table 3 (values), Table 12 (sizes), {where}",
            code="github.com/7Amin/SSL_VAN at 3d705fc, " + ("BTCV" if data == "btcv" else "MSD"),
        ),
        differences=_differences(data),
        reported=_reported(data, size),
        notes=_notes(data),
    )


def steps_per_paper_epoch(data: Data) -> int:
    """Optimizer steps in which 16 GPUs with two cases each see every training case of four fifths of `data` once."""
    training = round(0.8 * find_public_data(data).num_training)
    return ceil(ceil(training / GPUS) / CASES_PER_GPU)


def _values(data: Data) -> Settings:
    return {
        "model": {"residual": "released", "strides": 2},
        "plan": {"batch_size": CASES_PER_GPU * CROPS_PER_CASE, "mirror_axes": [0, 1, 2]},
        "augmentation": {
            "mirror": True,
            "mirror_probability": 0.2,
            "rotation90": 0.2,
            "rotation90_axes": [1, 2],
            "brightness": 0.1,
            "brightness_range": [0.9, 1.1],
            "brightness_per_channel": False,
            "shift": 0.1,
            "shift_range": [-0.1, 0.1],
        },
        "train": {
            "epochs": SAVED,
            "steps_per_epoch": EPOCHS // SAVED * steps_per_paper_epoch(data),
            "accumulate": GPUS,
            "weight_decay": 1e-5,
            "schedule": "cosine",
            "warmup": WARMUP_EPOCHS / EPOCHS,
            "precision": "auto",
        },
        "predict": {"overlap": 0.5, "checkpoint": "best"},
    }


def _space(data: Data) -> Settings:
    """Spacing (D, H, W) and intensities: for BTCV of the code and the paper's baselines, for the tasks of the code."""
    if data == "btcv":
        plan: dict[str, Any] = {"spacing_mm": [2.0, 1.5, 1.5], "normalization": [_window(-175.0, 250.0)]}
    else:
        plan = {"spacing_mm": [1.0, 1.0, 1.0], "normalization": [_window(-100.0, 2000.0)], "crop": "none"}
    return {"plan": {"resampling": "centres", **plan}}


def _window(low: float, high: float) -> dict[str, Any]:
    return {"kind": "window", "window": [low, high]}


def _differences(data: Data) -> tuple[Difference, ...]:
    crops = 5 if data == "btcv" else 6
    warmup = 50 if data == "btcv" else 500
    return (
        Difference(
            what="residuals of a block",
            paper="around the attention and around the MLP, from the batch norm's output (Algorithm 3)",
            code="none: the variable is overwritten before it is added",
            settings=("model.residual=algorithm3",),
            note="The printed scores were made with the code's, so the recipe has it.",
        ),
        Difference(
            what="activation in the MLP",
            paper="before and after the depthwise convolution (Algorithm 4)",
            code="after it",
            settings=("model.mlp_pre_gelu=true",),
            note="The printed scores were made with the code's, so the recipe has it.",
        ),
        Difference(
            what="crops of a scan",
            paper="2",
            code=str(crops),
            settings=(f"train.crops_per_case={crops}", f"plan.batch_size={CASES_PER_GPU * crops}"),
        ),
        Difference(
            what="warm-up",
            paper=f"{WARMUP_EPOCHS} of {EPOCHS} epochs",
            code=f"{warmup} by default",
            settings=(f"train.warmup={warmup / EPOCHS:g}",),
        ),
        Difference(
            what="model that is kept",
            paper=UNSAID,
            code="that of the best validation, by a mean of Dice that includes the background",
            settings=("predict.checkpoint=last",),
            note=BEST_IS_SELECTED,
        ),
    )


def _reported(data: Data, size: Size) -> tuple[Score, ...]:
    if size == "large":
        large = Score(metric="Dice", digits=3, value=_LARGE_BTCV, where="Table 8, 6 test scans")
        return (large,) if data == "btcv" else ()
    where = "Table 4, mean of five runs, 6 test scans" if data == "btcv" else "Table 5, mean of two runs"
    return (Score(metric="Dice", digits=3, value=_DICE[data], where=where),)


def _notes(data: Data) -> tuple[str, ...]:
    steps, crops = steps_per_paper_epoch(data), GPUS * CASES_PER_GPU * CROPS_PER_CASE
    notes = [
        f"A step sees {GPUS * CASES_PER_GPU} scans with {CROPS_PER_CASE} crops each, in the paper on {GPUS} GPUs.",
        f"Here {GPUS} batches are accumulated, and a batch norm sees one of them, as it sees one GPU's there.",
        f"On {GPUS} GPUs: --set train.accumulate=1 --set plan.batch_size={crops}. Then a batch norm sees all crops.",
        f"{EPOCHS} epochs of the paper, with every training scan once, are {EPOCHS * steps} steps; ours are longer.",
        "Spacing, intensities, augmentation and windows are the code's; the paper does not say them.",
        HALF_PRECISION,
    ]
    if data == "btcv":
        notes.append(
            "The authors score on the resampled grid, on which an absent class counts as 1; voxelseg scores on the "
            "scan's own. Three of the 24 scans select the model."
        )
    else:
        notes.append(
            "Which scans the paper trained and tested on is not printed, nor whether the table's mean is over classes "
            "and includes the background. The repository has lists of scans, in several versions."
        )
        notes.append("The code's window, -100 to 2000, is the same for all tasks, MRI included.")
    return tuple(notes)


RECIPES = [logonet(data, size=size) for data in DATA for size in ("normal", "large")]
