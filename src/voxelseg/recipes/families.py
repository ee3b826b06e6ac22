"""Values that the trainings of several papers share: nnU-Net's first version, and MONAI's transforms.

nnU-Net v1 (Isensee et al., Nature Methods 2021) is what MedNeXt and E2ENet, and one form of 3D UX-Net, were trained
within. MONAI's transforms, losses and sliding window are what 3D UX-Net and LoGoNet use. Each value is written out,
so that a recipe stays what it is when a default of voxelseg changes.
"""

from typing import Any

from voxelseg.recipes.recipe import Settings

STEPS_PER_EPOCH = 250
"""Of nnU-Net."""

HALF_PRECISION = "Half precision is bf16 where the GPU has it, fp16 as in the code elsewhere, none on a CPU."
BEST_IS_SELECTED = (
    "Here by the mean Dice of the running validation, on patches of the held-out scans, whose scores this flatters a "
    "little."
)
POOLED_DICE = (
    "The Dice is pooled over the batch, as nnU-Net does where its planner also makes a low-resolution stage, which it "
    "does for scans as large as these."
)

_NO_AUGMENTATION: dict[str, Any] = {
    "enabled": True,
    "rotation": 0.0,
    "scaling": 0.0,
    "noise": 0.0,
    "blur": 0.0,
    "brightness": 0.0,
    "contrast": 0.0,
    "low_resolution": 0.0,
    "inverted_gamma": 0.0,
    "gamma": 0.0,
    "shift": 0.0,
    "rotation90": 0.0,
    "mirror": False,
}
"""Every change off, to be switched on one by one."""

_TRAINING: dict[str, Any] = {
    "accumulate": 1,
    "dice_weight": 1.0,
    "ce_weight": 1.0,
    "batch_dice": False,
    "ema": 0.0,
    "early_stopping": 0,
    "warmup": 0.0,
}


def nnunet(*, epochs: int = 1000) -> Settings:
    """nnU-Net v1 without optimizer, patch and spacing: preprocessing, sampling, augmentation, loss and inference.

    `epochs` of 250 steps. Intensities, and what else is not here, come from the planner, whose rules are nnU-Net's.
    """
    return {
        "plan": {
            "normalize_first": False,
            "resampling": "edges",
            "image_order": 3,
            "clip_overshoot": True,
            "label_order": 1,
            "nearest_along_coarse": True,
            "crop": "nonzero",
            "mirror_axes": [0, 1, 2],
        },
        "augmentation": {
            **_NO_AUGMENTATION,
            "rotation": 0.2,
            "rotation_degrees": 30.0,
            "rotation_degrees_in_plane": 180.0,
            "scaling": 0.2,
            "scaling_range": [0.7, 1.4],
            "scaling_balanced": True,
            "scaling_per_axis": False,
            "outside": "scan",
            "image_order": 3,
            "label_order": 1,
            "noise": 0.1,
            "noise_std": [0.0, 0.1],
            "blur": 0.2,
            "blur_sigma": [0.5, 1.0],
            "blur_per_axis": False,
            "blur_truncate": 4.0,
            "brightness": 0.15,
            "brightness_range": [0.75, 1.25],
            "brightness_per_channel": True,
            "contrast": 0.15,
            "contrast_range": [0.75, 1.25],
            "low_resolution": 0.25,
            "low_resolution_zoom": [0.5, 1.0],
            "low_resolution_order": 3,
            "inverted_gamma": 0.1,
            "gamma": 0.3,
            "gamma_range": [0.7, 1.5],
            "mirror": True,
            "mirror_probability": 0.5,
        },
        "train": {
            **_TRAINING,
            "epochs": epochs,
            "steps_per_epoch": STEPS_PER_EPOCH,
            "schedule": "poly",
            "poly_power": 0.9,
            "gradient_clip": 12.0,
            "dice_background": False,
            "deep_supervision": True,
            "foreground_share": 0.33,
            "foreground_sampling": "class",
            "crops_per_case": 1,
            "case_order": "random",
            "precision": "auto",
        },
        "predict": {
            "checkpoint": "last",
            "overlap": 0.5,
            "weighting": "gaussian",
            "placement": "even",
            "average": "probabilities",
            "tta": True,
            "postprocess": False,
        },
    }


def nnunet_sgd() -> dict[str, Any]:
    """The optimizer of nnU-Net, keys of `train`."""
    return {"optimizer": "sgd", "lr": 0.01, "momentum": 0.99, "weight_decay": 3e-5}


def monai(*, crops_per_case: int) -> Settings:
    """What 3D UX-Net and LoGoNet share: linear resampling, random crops around voxels, DiceCELoss, sliding window.

    Half of the crops lie around a foreground voxel, the others around a background voxel above 0 (RandCropByPosNegLabel
    with pos = neg = 1); so many in a row come from one case. The Dice includes the background, there is one output, and
    nothing is clipped.
    """
    return {
        "plan": {
            "axes": [0, 1, 2],
            "anisotropic": False,
            "nearest_along_coarse": False,
            "normalize_first": False,
            "image_order": 1,
            "label_order": 0,
            "crop": "positive",
            "patch_size": [96, 96, 96],
        },
        "augmentation": dict(_NO_AUGMENTATION),
        "train": {
            **_TRAINING,
            "optimizer": "adamw",
            "lr": 1e-4,
            "betas": [0.9, 0.999],
            "eps": 1e-8,
            "gradient_clip": 0.0,
            "dice_background": True,
            "deep_supervision": False,
            "foreground_sampling": "voxel",
            "foreground_share": 0.5,
            "background_above": 0.0,
            "crops_per_case": crops_per_case,
            "case_order": "shuffled",
        },
        "predict": {
            "weighting": "constant",
            "placement": "stepped",
            "average": "logits",
            "tta": False,
            "postprocess": False,
        },
    }
