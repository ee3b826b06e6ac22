"""3D UX-Net (Lee et al., ICLR 2023): FeTA and FLARE 2021, AMOS 2022 fine-tuned and from scratch, and within nnU-Net.

Preprocessing and sampling are those of MONAI's transforms. The paper says little about them; what it leaves open is the
authors' code's.
"""

from typing import Any, Literal

from voxelseg.recipes.families import BEST_IS_SELECTED, POOLED_DICE, monai, nnunet, nnunet_sgd
from voxelseg.recipes.recipe import UNSAID, Difference, Recipe, Score, Settings, Source, merged

Data = Literal["feta21", "flare21", "amos22"]
InNNUNet = Literal["feta21", "flare21"]

PUBLIC: dict[Data, str] = {"feta21": "feta21", "flare21": "flare21", "amos22": "amos22_ct"}
STEPS, STEPS_PER_VALIDATION = 40_000, 500
PATIENCE = 11
"""Validations; PyTorch's ReduceLROnPlateau counts them as a patience of 10, which the paper prints."""
STRIDES = [[2, 2, 2]] * 4
SPACING_MM: dict[Data, list[float]] = {"flare21": [1.2, 1.0, 1.0], "amos22": [2.0, 1.5, 1.5]}
"""D, H, W; in the code 1.0 x 1.0 x 1.2 and 1.5 x 1.5 x 2.0 along left-right, posterior-anterior, inferior-superior."""

_CODE = "github.com/MASILab/3DUX-Net at 14ea46b, main_train.py, main_finetune.py, load_datasets_transforms.py"
_PAPER = "3D UX-Net: Lee et al., ICLR 2023, arXiv:2209.15076"

# Table 3: mean Dice by the size of the blocks' kernels
_DICE: dict[InNNUNet, dict[int, float]] = {
    "feta21": {7: 0.874, 9: 0.870, 11: 0.871, 13: 0.871},
    "flare21": {7: 0.934, 9: 0.934, 11: 0.936, 13: 0.938},
}
# Table 6 of the later version: mean Dice with and without deep supervision
_DICE_IN_NNUNET: dict[tuple[InNNUNet, bool], float] = {
    ("feta21", True): 0.881,
    ("feta21", False): 0.876,
    ("flare21", True): 0.944,
    ("flare21", False): 0.940,
}


def uxnet(data: Data = "feta21", *, kernel: int = 7, finetuned: bool = False) -> Recipe:
    """Recipe of 3D UX-Net with blocks of `kernel` on `data` (Appendix A.1, Table 4); fine-tuned only on AMOS.

    Fine-tuning starts from a network trained on FLARE 2021, which the user gives.
    """
    assert data == "amos22" or not finetuned, "the paper fine-tunes on AMOS 2022 only"
    size = "" if kernel == 7 else f"_k{kernel}"
    return Recipe(
        name=f"uxnet{size}_{data}{'_finetuned' if finetuned else ''}",
        model="uxnet",
        settings=merged(monai(crops_per_case=2), _values(data, kernel)),
        data=PUBLIC[data],
        splits="uxnet" if data == "amos22" else "",
        source=Source(
            paper=_PAPER,
            where=f"Sec. 5, Appendix A.1 and Table 4 (values); {_scored(data, kernel, finetuned=finetuned)}",
            code=_CODE,
        ),
        differences=_differences(data),
        reported=_reported(data, kernel, finetuned=finetuned),
        needs={
            "transfer.init": "a network to start from. Give --init with the run of recipe uxnet_flare21, or with the "
            "authors' weights for FLARE 2021. The output layer, whose classes differ, starts fresh."
        }
        if finetuned
        else {},
        notes=_notes(data, finetuned=finetuned),
    )


def _scored(data: Data, kernel: int, *, finetuned: bool) -> str:
    """Where the training itself is written of."""
    if data == "amos22":
        return "Table 2" if finetuned else "no table; TRAINING.md of the code"
    return "Table 1" if kernel == 7 else "Table 3"


def _values(data: Data, kernel: int) -> Settings:
    return {
        "model": {"kernel_size": kernel, "strides": STRIDES},
        "plan": {**_space(data), "batch_size": 2, "mirror_axes": [], "normalization": [_intensities(data)]},
        "augmentation": {
            "rotation": 1.0,
            "rotation_degrees": [30.0, 0.0, 0.0],
            "scaling": 1.0,
            "scaling_range": [0.9, 1.1],
            "scaling_per_axis": True,
            "outside": "reflection",
            "image_order": 1,
            "label_order": 0,
            "shift": 0.5,
            "shift_range": [-0.1, 0.1],
        },
        "train": {
            "epochs": STEPS // STEPS_PER_VALIDATION,
            "steps_per_epoch": STEPS_PER_VALIDATION,
            "weight_decay": 0.08,
            "schedule": "plateau",
            "plateau_factor": 0.9,
            "plateau_patience": PATIENCE,
            "precision": "fp32",
        },
        "predict": {"overlap": 0.7, "checkpoint": "best"},
    }


def _space(data: Data) -> dict[str, Any]:
    if data == "feta21":
        return {"resampling": "none"}
    return {"resampling": "file_centres", "spacing_mm": SPACING_MM[data]}


def _intensities(data: Data) -> dict[str, Any]:
    """Percentiles 1 and 99 of each scan to 0 and 1; CT is clipped first."""
    scaled = {"kind": "percentiles", "percentiles": [1.0, 99.0]}
    return scaled if data == "feta21" else {**scaled, "window": [-175.0, 250.0]}


def _differences(data: Data) -> tuple[Difference, ...]:
    ct = data != "feta21"
    window = "[-125, 275]" if ct else "[0, 1000]"
    degrees = 6 if ct else 12
    return (
        Difference(
            what="intensities",
            paper=("clipped to -175 and 250 HU, then " if ct else "") + "percentiles 1 and 99 to 0 and 1",
            code=f"{window} to 0 and 1, clipped",
            settings=(f"plan.normalization=[{{kind: window, window: {window}}}]",),
        ),
        Difference(
            what="rotation",
            paper="-30 to 30 degrees, the axis not said",
            code=f"-{degrees} to {degrees} degrees about the axis from inferior to superior",
            settings=(f"augmentation.rotation_degrees=[{degrees}, 0, 0]",),
            note="The recipe has the paper's angle and the code's axis.",
        ),
        Difference(
            what="weight decay",
            paper="0.08",
            code="0.01, PyTorch's default",
            settings=("train.weight_decay=0.01",),
        ),
        Difference(
            what="learning rate",
            paper="multiplied by 0.9 on a plateau, patience 10",
            code="constant; the scheduler is commented out",
            settings=("train.schedule=constant",),
            note="Here the paper's, by the loss of the running validation every 500 steps; it does not say by what.",
        ),
        Difference(
            what="crops",
            paper='"at the foreground"',
            code="half of them around a foreground voxel",
            settings=("train.foreground_share=1",),
            note="The paper's table has cropping to the foreground besides; the recipe reads both as the code does.",
        ),
        Difference(
            what="block",
            paper="two norms and two residuals (Eq. 1), no layer scale",
            code="one of each, layer scale from 1e-6, and norms before transitions and on outputs",
            settings=(
                "model.block=paper",
                "model.layer_scale=null",
                "model.transition_norm=false",
                "model.output_norm=false",
            ),
            note="The recipe has the code's network, whose author calls the difference subtle (issue 42 there).",
        ),
        Difference(
            what="overlap of windows",
            paper=UNSAID,
            code="0.7 in the documented test command, 0.5 its default, 0.25 in validation during training",
            settings=("predict.overlap=0.5",),
        ),
        Difference(
            what="model that is kept",
            paper=UNSAID,
            code="that of the best validation, by a running mean of Dice that includes the background",
            settings=("predict.checkpoint=last",),
            note=BEST_IS_SELECTED,
        ),
    )


def _reported(data: Data, kernel: int, *, finetuned: bool) -> tuple[Score, ...]:
    if data == "amos22":
        return (Score(metric="Dice", digits=3, value=0.900, where="Table 2, test scans"),) if finetuned else ()
    if kernel not in _DICE[data]:
        return ()
    where = _scored(data, kernel, finetuned=finetuned)
    scores = [
        Score(
            metric="Dice", digits=3, value=_DICE[data][kernel], where=f"{where}, five-fold cross-validation, test scans"
        )
    ]
    if (data, kernel) == ("flare21", 7):
        scores.append(Score(metric="Dice", digits=3, value=0.936, where="README of the code"))
    return tuple(scores)


def _notes(data: Data, *, finetuned: bool) -> tuple[str, ...]:
    published = {"feta21": "61 and 18", "flare21": "341 and 20", "amos22": "180 and 20"}[data]
    notes = [
        "A step sees two crops of one scan, as in the code; Table 4 has other numbers for fine-tuning.",
        "The five folds of 80 % training, 10 % validation and 10 % test are not published.",
        f"The code lists {published} scans: --splits DATA/splits_uxnet.json, which `voxelseg data convert` makes.",
        "Users who ran the code got 0.813 instead of 0.874 on FeTA and 0.926 instead of 0.934 on FLARE (issue 27).",
    ]
    if data != "feta21":
        notes.append(
            "Spacing is that of the code, which resamples before it turns the scans; the paper does not say it."
        )
    if data == "amos22" and not finetuned:
        notes.append("The paper prints no score for AMOS 2022 from scratch; TRAINING.md of the code has the command.")
    if finetuned:
        notes.append("The code replaces the output layer and trains all weights, with the values of direct training.")
        notes.append(
            "The paper starts from the best of five folds, at its best validation: --init RUN/fold_K/best.safetensors. "
            "--init RUN takes the end of the training of the fold with the same number."
        )
    return tuple(notes)


def uxnet_in_nnunet(data: InNNUNet = "feta21", *, deep_supervision: bool = True) -> Recipe:
    """Recipe of 3D UX-Net in place of nnU-Net's network (later version of the paper, Table 6)."""
    return Recipe(
        name=f"uxnet_nnunet_{data}{'' if deep_supervision else '_single'}",
        model="uxnet",
        settings=merged(
            nnunet(),
            {
                "train": {**nnunet_sgd(), "deep_supervision": deep_supervision, "batch_dice": data == "flare21"},
                "predict": {"postprocess": True},
            },
            {"plan": {"normalization": [{"kind": "zscore_mask"}]}} if data == "feta21" else {},
        ),
        data=PUBLIC[data],
        source=Source(
            paper=f"{_PAPER}, later version: within nnU-Net",
            where="Sec. 7 and Table 6",
            code="none; the network is that of github.com/MASILab/3DUX-Net at 14ea46b",
        ),
        differences=(
            Difference(
                what="learning rate",
                paper="nnU-Net's own values: SGD from 0.01",
                code="none of its own; for MedNeXt's authors, AdamW from 0.0025 (paper) or 0.0005 (code)",
                settings=("train.optimizer=adamw", "train.lr=0.0025"),
            ),
        ),
        reported=(
            Score(
                metric="Dice",
                digits=3,
                value=_DICE_IN_NNUNET[data, deep_supervision],
                where=f"Table 6 of the later version, {'with' if deep_supervision else 'without'} deep supervision",
            ),
        ),
        notes=(
            "Spacing, patch and batch are the planner's, and follow the memory budget (--memory-gb): none is printed.",
            "No code was released; deep supervision has a head on every decoder stage, which is our reading.",
            "The paper averages networks as nnU-Net does; here that is prediction with all folds.",
            POOLED_DICE
            if data == "flare21"
            else "More than a quarter of a FeTA scan is 0, so that nnU-Net looks at the intensities of the rest alone.",
        ),
    )


RECIPES = [
    uxnet("feta21"),
    uxnet("flare21"),
    uxnet("flare21", kernel=13),
    uxnet("amos22", finetuned=True),
    uxnet("amos22"),
    uxnet_in_nnunet("feta21"),
    uxnet_in_nnunet("feta21", deep_supervision=False),
    uxnet_in_nnunet("flare21"),
    uxnet_in_nnunet("flare21", deep_supervision=False),
]
