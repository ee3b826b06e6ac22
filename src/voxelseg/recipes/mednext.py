"""MedNeXt within nnU-Net v1 (Roy et al., MICCAI 2023): four data sets, four sizes, two kernel sizes.

Networks with kernels of 5 start from trained ones of 3 (UpKern): a recipe of theirs has both trainings, each at its
full length.
"""

from typing import Literal

from voxelseg.recipes.families import HALF_PRECISION, POOLED_DICE, nnunet
from voxelseg.recipes.recipe import UNSAID, Difference, Recipe, Score, Settings, Source, merged

Data = Literal["btcv", "amos22", "kits19", "brats21"]
Size = Literal["s", "b", "m", "l"]
Kernel = Literal[3, 5]

EPOCHS = 1000
PUBLIC: dict[Data, str] = {"btcv": "btcv", "amos22": "amos22_ct", "kits19": "kits19", "brats21": "brats21_classes"}
RECOMPUTING: tuple[Size, ...] = ("m", "l")
"""Sizes that the authors trained with gradient checkpointing."""

# Table 2: Dice and surface Dice at 1 mm, in %, in the order of PUBLIC
_CROSS_VALIDATION: dict[tuple[Size, Kernel], tuple[tuple[float, float], ...]] = {
    ("s", 3): ((83.90, 86.60), (89.03, 91.97), (90.45, 87.80), (91.27, 90.46)),
    ("b", 3): ((84.01, 86.77), (89.14, 92.10), (91.02, 88.24), (91.30, 90.51)),
    ("m", 3): ((84.31, 87.34), (89.27, 92.28), (90.78, 88.22), (91.57, 90.78)),
    ("l", 3): ((84.57, 87.54), (89.58, 92.62), (90.61, 88.08), (91.57, 90.81)),
    ("s", 5): ((83.92, 86.80), (89.27, 92.26), (90.08, 87.04), (91.40, 90.57)),
    ("b", 5): ((84.23, 87.06), (89.38, 92.36), (90.30, 87.40), (91.48, 90.70)),
    ("m", 5): ((84.41, 87.48), (89.58, 92.65), (90.87, 88.15), (91.49, 90.67)),
    ("l", 5): ((84.82, 87.85), (89.87, 92.95), (90.71, 87.85), (91.46, 90.73)),
}
# Table 4: Dice in % of five averaged networks on the challenges' test sets, of L with kernels of 5
_TEST_DICE: dict[Data, float] = {"btcv": 88.76, "amos22": 91.77, "kits19": 91.02, "brats21": 88.01}


def mednext(data: Data = "btcv", *, size: Size = "s", kernel: Kernel = 3) -> Recipe:
    """Recipe of MedNeXt of `size` with kernels of `kernel` on `data` (Sec. 3.1, Table 2)."""
    grown = kernel == 5
    settings = merged(
        nnunet(epochs=2 * EPOCHS if grown else EPOCHS),
        {
            "model": {"kernel_size": kernel, "strides": 2},
            "plan": {
                "spacing_mm": [1.0, 1.0, 1.0],
                "anisotropic": False,
                "patch_size": [128, 128, 128],
                "batch_size": 2,
            },
            "train": {
                "optimizer": "adamw",
                "lr": 1e-3,
                "weight_decay": 3e-5,
                "betas": [0.9, 0.999],
                "eps": 1e-4,
                "batch_dice": data != "brats21",
                "checkpointing": size in RECOMPUTING,
            },
            "predict": {"tolerance_mm": 1.0},
        },
        _mri() if data == "brats21" else {},
        _growth(data) if grown else {},
    )
    return Recipe(
        name=f"mednext_{size}_k{kernel}_{data}",
        model=f"mednext_{size}",
        settings=settings,
        data=PUBLIC[data],
        source=Source(
            paper="MedNeXt: Roy et al., MICCAI 2023, arXiv:2303.09975",
            where="Sec. 3.1 and Table 2; supplement, Table 3 (sizes) and Table 4 (test sets)",
            code="github.com/MIC-DKFZ/MedNeXt at 0b78ed8, trainers nnUNetTrainerV2_MedNeXt_*",
        ),
        differences=_differences(data, size, grown=grown),
        reported=_reported(data, size, kernel),
        notes=_notes(data, grown=grown),
    )


def _mri() -> Settings:
    """Intensities of BraTS, whose background is 0 and stays 0: the planner's rule for such scans in nnU-Net."""
    return {"plan": {"normalization": [{"kind": "zscore_mask"}] * 4}}


def _growth(data: Data) -> Settings:
    """Kernels of 3 for the first half of the length, of 5 for the second, with a schedule for each."""
    growth: Settings = {"train": {"grow_kernel": [3, 5], "grow_share": 0.5}}
    return merged(growth, {"train": {"grow_lr": 1e-4}}) if data == "kits19" else growth


def _differences(data: Data, size: Size, *, grown: bool) -> tuple[Difference, ...]:
    found = [
        Difference(
            what="batch size",
            paper="2",
            code="what nnU-Net's planner computed for its own patch, which is normally 2",
            note="Here the paper's. For fewer or smaller scans the planner's is larger: --set plan.batch_size=N.",
        ),
        Difference(
            what="deep supervision",
            paper="at each decoder layer (Fig. 1)",
            code="on the bottleneck, too: five outputs with weights 1, 1/2, 1/4, 1/8, 1/16 scaled to a sum of 1",
            note="The network is the code's; its parameter counts are those that the paper prints.",
        ),
        Difference(
            what="weight decay, epsilon of AdamW, largest gradient norm",
            paper=UNSAID,
            code="3e-5, 1e-4, 12",
        ),
    ]
    if data == "brats21":
        found.append(
            Difference(
                what="classes",
                paper="three, not named",
                code="trainers for classes that exclude each other, with softmax",
                note="The printed scores are as high as those of whole tumour, tumour core and enhancing tumour "
                "usually are. To train and score these regions, convert brats21 instead of brats21_classes.",
            )
        )
    if grown:
        found.append(
            Difference(
                what="learning rate with kernels of 5",
                paper="0.001, but 0.0001 on KiTS19",
                code="variants of the trainers with " + ("0.0001 and 0.00025" if size == "s" else "0.0005 to 0.0001"),
                settings=("train.grow_lr=null",) if data == "kits19" else ("train.grow_lr=0.0001",),
            )
        )
    return tuple(found)


def _reported(data: Data, size: Size, kernel: Kernel) -> tuple[Score, ...]:
    dice, surface_dice = _CROSS_VALIDATION[size, kernel][list(PUBLIC).index(data)]
    scores = [
        Score(metric="Dice (%)", digits=2, value=dice, where="Table 2, five-fold cross-validation"),
        Score(
            metric="surface Dice at 1 mm (%)", digits=2, value=surface_dice, where="Table 2, five-fold cross-validation"
        ),
    ]
    if (size, kernel) == ("l", 5):
        scores.append(
            Score(
                metric="Dice (%)",
                digits=2,
                value=_TEST_DICE[data],
                where="Table 4, five folds averaged, on the test set",
            )
        )
    return tuple(scores)


def _notes(data: Data, *, grown: bool) -> tuple[str, ...]:
    notes = [HALF_PRECISION]
    if data != "brats21":
        notes.append(POOLED_DICE)
    if data == "btcv":
        notes.append("The paper has five folds of 30 scans, 24 to train on, but speaks of 18 in Sec. 4.2.")
    if grown:
        rate = " --set train.grow_lr=null --set train.lr=1e-4" if data == "kits19" else ""
        notes.append(f"{EPOCHS} epochs with kernels of 3, then as many with kernels of 5.")
        notes.append(
            "To start from a run with kernels of 3 that is there: --init RUN --set transfer.grow_kernels=true "
            f"--set train.grow_kernel=null{rate} --set train.epochs={EPOCHS}"
        )
    return tuple(notes)


RECIPES = [
    mednext(data, size=size, kernel=kernel) for data in PUBLIC for size in ("s", "b", "m", "l") for kernel in (3, 5)
]
