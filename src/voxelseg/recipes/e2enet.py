"""E2ENet within nnU-Net v1 (Wu et al., NeurIPS 2024): three data sets and three sparsities, and from CT to MRI.

Where the paper's text and its tables describe different networks, recipes have that of the tables, whose parameters and
operations are counted beside the scores; it is also the code's.
"""

from typing import Any, Literal

from voxelseg.recipes.families import HALF_PRECISION, POOLED_DICE, nnunet, nnunet_sgd
from voxelseg.recipes.recipe import UNSAID, Difference, Recipe, Score, Source, merged

Data = Literal["amos22", "btcv", "msd_brats"]

PUBLIC: dict[Data, str] = {"amos22": "amos22_ct", "btcv": "btcv", "msd_brats": "msd_brats"}
SPARSITIES = (0.7, 0.8, 0.9)
PATCH: dict[Data, int] = {"amos22": 128, "btcv": 96, "msd_brats": 128}
"""Voxels per axis for which Tables 1 to 3 count operations."""
STRIDES = [[1, 1, 1], *[[2, 2, 2]] * 5]
"""With which Tables 1 to 5 count."""
FINE_TUNING_EPOCHS = 250

_SOURCE_CODE = "github.com/boqian333/E2ENet-Medical at 7b18d91, --Tconv shiftConvPP"
_PAPER = "E2ENet: Wu et al., NeurIPS 2024, arXiv:2312.04727"

# mean Dice in %, surface Dice in %: Tables 1 and 8 (AMOS), 2 (BTCV), 3 (BraTS)
_AMOS: dict[float, tuple[tuple[float, float], ...]] = {
    0.7: ((90.1, 82.3), (90.3, 82.7), (90.6, 82.0), (90.7, 82.2)),
    0.8: ((90.0, 82.3), (90.3, 82.5), (90.4, 81.8), (90.7, 82.1)),
    0.9: ((89.6, 81.4), (89.9, 81.8), (90.1, 80.7), (90.4, 81.4)),
}
_AMOS_WHERE = (
    "Table 1, 100 validation scans",
    "Table 1, 100 validation scans, postprocessed",
    "Table 8, test scans",
    "Table 8, test scans, postprocessed",
)
_BTCV_TEST = 88.3
_BRATS: dict[float, float] = {0.7: 74.5, 0.8: 74.2, 0.9: 74.3}
_MRI = (87.8, 83.9)  # Table 7


def e2enet(data: Data = "amos22", *, sparsity: float = 0.8) -> Recipe:
    """Recipe of E2ENet with `sparsity` on `data` (Sec. 4.2, Tables 1 to 3 and 8)."""
    where = {"amos22": "Tables 1, 5 and 8", "btcv": "Table 2", "msd_brats": "Tables 3 and 4"}[data]
    settings = merged(
        nnunet(),
        {
            "model": {"strides": STRIDES},
            "plan": {"patch_size": [PATCH[data]] * 3, "batch_size": 2},
            "train": {**nnunet_sgd(), "batch_dice": data != "msd_brats"},
            "sparse": _sparse(sparsity),
        },
        {"plan": {"normalization": [{"kind": "zscore_mask"}] * 4}} if data == "msd_brats" else {},
        {"predict": {"postprocess": True}} if data == "amos22" else {},
    )
    return Recipe(
        name=f"e2enet_s{round(100 * sparsity)}_{data}",
        model="e2enet",
        settings=settings,
        data=PUBLIC[data],
        source=Source(paper=_PAPER, where=f"Sec. 3 and 4.2; {where}", code=_SOURCE_CODE),
        differences=_differences() if sparsity else _dense_differences(),
        reported=_reported(data, sparsity),
        notes=_notes(data, sparsity),
    )


def e2enet_ct_to_mri(*, sparsity: float = 0.8) -> Recipe:
    """Recipe of fine-tuning on the MRI scans of AMOS what was trained on the CT scans, with its topology (Sec. 4.8)."""
    pretrained = e2enet("amos22", sparsity=sparsity)
    settings = merged(pretrained.settings, {"train": {"epochs": FINE_TUNING_EPOCHS}})
    frozen = {"sparsity": sparsity, "freeze_topology": True, "mask_gradients": False}
    settings["sparse"] = frozen if sparsity else _sparse(sparsity)
    percent = round(100 * sparsity)
    return Recipe(
        name=f"e2enet_s{percent}_amos22_mri_finetuned",
        model="e2enet",
        settings=settings,
        data="amos22_mri",
        source=Source(paper=_PAPER, where="Sec. 4.8 and Table 7", code="none for this training; " + _SOURCE_CODE),
        differences=_network_differences() if sparsity else _dense_differences(),
        reported=(
            Score(metric="Dice (%)", digits=1, value=_MRI[0], where="Table 7, from CT to MRI"),
            Score(metric="surface Dice (%)", digits=1, value=_MRI[1], where="Table 7, from CT to MRI"),
        ),
        needs={
            "transfer.init": "a network trained on CT. Give --init with the run of recipe "
            f"e2enet_s{percent}_amos22, or with the authors' weights; the active kernels stay those of it."
        },
        notes=(
            "The sparsity of Table 7 is not printed; it is that of the network to start from.",
            "Only the length, 250 epochs, and the fixed topology are printed; all else is as on CT.",
            *_SHARED_NOTES,
        ),
    )


def _sparse(sparsity: float) -> dict[str, Any]:
    """How kernels move; without sparsity all of them are active, and none can."""
    if sparsity == 0:
        return {"sparsity": 0.0}
    return {
        "sparsity": sparsity,
        "growth": "random",
        "update_every": None,  # in this length every 1200 steps (Table 5), in a shorter one as much more often
        "initial_rate": 0.5,
        "final_rate": 0.0,
        "mask_gradients": False,
    }


def _dense_differences() -> tuple[Difference, ...]:
    """Those of the network that can be set where all kernels are active."""
    return tuple(one for one in _network_differences() if not any("sparse" in setting for setting in one.settings))


def _network_differences() -> tuple[Difference, ...]:
    return (
        Difference(
            what="depth shift",
            paper="three chunks of channels, by -1, 0, 1",
            code="five chunks, by -2 to 2, whatever it is asked for",
            settings=("model.shift=[-2,-1,0,1,2]",),
        ),
        Difference(
            what="strides",
            paper="(1, 2, 2) first in the text and in Table 6, (2, 2, 2) throughout in Tables 1 to 5",
            code="those of nnU-Net's plan",
            settings=("model.strides=[[1,1,1],[1,2,2],[2,2,2],[2,2,2],[2,2,2],[2,2,2]]",),
            note="The recipe has those of the tables with the scores, the setting those of the text. A plan's, as "
            "`voxelseg plan` writes them, can be given likewise.",
        ),
        Difference(
            what="sparse layers",
            paper="the fusion nodes",
            code="their transposed convolutions, too",
            settings=("model.sparse_up=false",),
            note="The printed parameter counts need the code's.",
        ),
        Difference(
            what="convolutions of the last diagonal's nodes",
            paper="one",
            code="two",
            settings=("model.last_convs=1",),
            note="The printed parameter counts need the code's.",
        ),
        Difference(
            what="order of what a node sees",
            paper="downsampled, own level, upsampled",
            code="own level, upsampled, downsampled",
            settings=("model.concatenation=above-own-below",),
            note="The recipe has the code's, for which there are weights.",
        ),
        Difference(
            what="deep supervision",
            paper="three outputs, weights 4/7, 2/7, 1/7 (Algorithm 1)",
            code="four, 8/15 to 1/15",
            settings=("model.num_heads=3",),
            note="The printed operations include four.",
        ),
        Difference(what="momentum", paper="0.99", code="0.99, Nesterov's", note="Here Nesterov's, as in nnU-Net."),
        Difference(
            what="largest gradient norm",
            paper=UNSAID,
            code="12, before the gradients of inactive kernels are left out",
            settings=("sparse.mask_gradients=true",),
        ),
    )


def _differences() -> tuple[Difference, ...]:
    return (
        *_network_differences(),
        Difference(
            what="share of kernels that move at the end",
            paper="0 (Algorithm 1)",
            code="0.001",
            settings=("sparse.final_rate=0.001",),
        ),
        Difference(
            what="steps between two moves",
            paper="1200 (Table 5), elsewhere called epochs",
            code="1200 in the README's command, 5 by default",
            note="Here 1200. Table 5 has 600 and 1800, too: --set sparse.update_every=600.",
        ),
        Difference(
            what="kernels that may become active",
            paper="those that were inactive before (Algorithm 1, drawn before others are removed)",
            code="those and the ones that were just removed",
            note="Here as in the code.",
        ),
        Difference(
            what="moving at all",
            paper="dynamic",
            code="with the README's command, --fix False, masks are static, since Python reads the word as true",
            settings=(
                "sparse.freeze_topology=true",
                "sparse.final_rate=0.001",
            ),
            note="Table 1 has both for AMOS at 0.9, with the same score, 89.6.",
        ),
        Difference(
            what="kernels that start to be active",
            paper="initialised anew",
            code="zero",
            note="Here zero.",
        ),
        Difference(
            what="step in which kernels move",
            paper="takes the place of a training step (Algorithm 1)",
            code="comes after it",
            note="Here as in the code.",
        ),
    )


def _reported(data: Data, sparsity: float) -> tuple[Score, ...]:
    if sparsity not in SPARSITIES:
        return ()
    if data == "amos22":
        return tuple(
            Score(metric=metric, digits=1, value=value, where=where)
            for where, values in zip(_AMOS_WHERE, _AMOS[sparsity], strict=True)
            for metric, value in zip(("Dice (%)", "surface Dice (%)"), values, strict=True)
        )
    if data == "btcv":
        test = Score(metric="Dice (%)", digits=1, value=_BTCV_TEST, where="Table 2, the challenge's test scans")
        return (test,) if sparsity == 0.7 else ()
    return (Score(metric="Dice (%)", digits=1, value=_BRATS[sparsity], where="Table 3, five-fold cross-validation"),)


_SHARED_NOTES = (
    "The patch is that for which operations are counted, and the batch nnU-Net's usual one: the paper prints neither.",
    "Spacing is the planner's.",
    HALF_PRECISION,
)


def _notes(data: Data, sparsity: float) -> tuple[str, ...]:
    notes = list(_SHARED_NOTES)
    if data == "amos22":
        notes.append(
            "Trained on the 200 training scans in five folds, whose networks are averaged on the 100 validation scans: "
            "predict them with all folds."
        )
        notes.append(
            "The paper postprocesses as Isensee et al., arXiv:2208.10791; voxelseg chooses the classes that keep only "
            "their largest component."
        )
    if (data, sparsity) == ("amos22", 0.8):
        notes.append("Table 9 has a wider one, E2ENet(+), with 90.4 %: --set model.width=58.")
    if (data, sparsity) == ("amos22", 0.9):
        notes.append("Table 6 has 89.0 % for this network, Table 1 89.6 %.")
    if (data, sparsity) == ("amos22", 0.7):
        notes.append(
            "In the code, layers of 48 channels keep 20 % of their kernels whatever is asked for, which shows in the "
            "printed 11.23 M parameters; with the same share everywhere they are 11.25 M."
        )
    if data != "msd_brats":
        notes.append(POOLED_DICE)
    if data == "btcv" and sparsity != 0.7:
        notes.append("For BTCV the paper prints sparsity 0.7 only.")
    return tuple(notes)


RECIPES = [*(e2enet(data, sparsity=sparsity) for data in PUBLIC for sparsity in SPARSITIES), e2enet_ct_to_mri()]
