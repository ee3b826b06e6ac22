"""The papers' ablations as lists of contestants, each with the table that it repeats.

Contestants of a grid differ in what its summary says and in nothing else: not in length either, where the papers' own
sometimes do.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from voxelseg.benchmark.entrants import Entrant, checked
from voxelseg.benchmark.length import Length
from voxelseg.errors import ConfigError, did_you_mean

PUBLISHED_PERIOD = 0.0048
"""Share of an E2ENet's training between two moves of its kernels: 1200 of 250,000 steps."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One contestant of a grid, before the network is chosen."""

    name: str
    settings: tuple[str, ...] = ()
    pretrain: str | None = None
    model: str | None = None
    """None: the grid's."""
    period: float | None = None
    """Steps between two moves of kernels, as a share of the training."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """One ablation."""

    model: str
    """The network of its paper."""
    arms: tuple[Arm, ...]
    source: str
    """Publication and table."""
    summary: str
    """What is varied."""

    @property
    def fixed(self) -> bool:
        """Whether its networks are what is compared, so that no other can take their place."""
        return any(arm.model is not None for arm in self.arms)

    def entrants(self, length: Length, base: Entrant | None = None) -> tuple[Entrant, ...]:
        """Its contestants, with the network and settings of `base` in place of the paper's network.

        ConfigError for a network where networks are compared, and for a length of which a share cannot be told or
        is the same step for two of them.
        """
        if base is not None and (self.fixed or base.init or base.pretrain or base.is_nnunet):
            raise ConfigError(
                "this grid compares networks of its own. Leave out --models."
                if self.fixed
                else "--grid takes one network with options from --models, nothing else."
            )
        own = base.settings if base is not None else ()
        model = base.model if base is not None else self.model
        entrants = [
            Entrant(
                name=arm.name,
                model=arm.model or model,
                settings=(*own, *arm.settings, *_period(arm, length)),
                pretrain=arm.pretrain,
            )
            for arm in self.arms
        ]
        if len({(one.model, one.settings, one.pretrain) for one in entrants}) < len(entrants):
            raise ConfigError(f"with {length} shares of the steps round to the same number. Give more --steps.")
        return checked(entrants)


def _period(arm: Arm, length: Length) -> Sequence[str]:
    if arm.period is None:
        return ()
    if length.steps is None:
        raise ConfigError("this grid takes shares of a training's steps, so their number must be known. Give --steps.")
    return (f"sparse.update_every={max(round(arm.period * length.steps), 1)}",)


def find_grid(name: str) -> Grid:
    """The grid of that name; ConfigError, with the closest match, for an unknown one."""
    if name not in GRIDS:
        raise ConfigError(f"unknown grid {name!r}{did_you_mean(name, GRIDS)}. Known: {', '.join(GRIDS)}.")
    return GRIDS[name]


def grid_entrants(name: str, length: Length, bases: Sequence[Entrant] = ()) -> tuple[Entrant, ...]:
    """Contestants of the grid of that name, with the network of `bases`, one or none; ConfigError as `Grid.entrants`"""
    if len(bases) > 1:
        raise ConfigError(f"--grid {name} varies one network, and --models names {len(bases)}. Give one, or none.")
    try:
        return find_grid(name).entrants(length, replace(bases[0]) if bases else None)
    except ConfigError as error:
        raise ConfigError(f"--grid {name}: {error}") from error


_UXNET = "3D UX-Net: Lee et al., ICLR 2023, arXiv:2209.15076, Table 3"
_MEDNEXT = "MedNeXt: Roy et al., MICCAI 2023, arXiv:2303.09975, Table 1 (right)"
_E2ENET = "E2ENet: Wu et al., NeurIPS 2024, arXiv:2312.04727"
_LOGONET = "LoGoNet: Karimi Monsefi et al., KDD 2024, arXiv:2402.06190"

GRIDS: dict[str, Grid] = {
    "uxnet_kernels": Grid(
        model="uxnet",
        arms=tuple(Arm(name=f"kernel_{size}", settings=(f"model.kernel_size={size}",)) for size in (7, 9, 11, 13)),
        source=_UXNET,
        summary="size of the depthwise kernels in the blocks; that of the first convolution stays 7",
    ),
    "uxnet_convolutions": Grid(
        model="uxnet",
        arms=(Arm(name="depthwise"), Arm(name="dense", settings=("model.depthwise=false",))),
        source=_UXNET,
        summary="depthwise or dense convolutions in the blocks",
    ),
    "uxnet_scaling": Grid(
        model="uxnet",
        arms=tuple(Arm(name=f"scaling_{kind}", settings=(f"model.scaling={kind}",)) for kind in ("none", "mlp", "dcs")),
        source=_UXNET,
        summary="what widens the blocks: nothing, all channels together (MLP), or each on its own (DCS)",
    ),
    "mednext_resampling": Grid(
        model="mednext_b",
        arms=(
            Arm(name="inverted"),
            Arm(name="standard", settings=("model.resampling=standard",)),
        ),
        source=_MEDNEXT,
        summary="up- and downsampling by residual inverted bottlenecks, or by strided convolutions",
    ),
    "mednext_upkern": Grid(
        model="mednext_b",
        arms=(
            Arm(name="k3_upkern_k5", settings=("train.grow_kernel=[3, 5]",)),
            Arm(name="k5_from_scratch", settings=("model.kernel_size=5",)),
            Arm(name="k3_throughout", settings=("model.kernel_size=3",)),
        ),
        source=_MEDNEXT,
        summary="kernels of 5 grown from 3 half way, kernels of 5 or of 3 throughout, all in the same total length",
    ),
    "e2enet_dsff_shift": Grid(
        model="e2enet",
        arms=(
            Arm(name="dense", settings=("sparse.sparsity=0", "model.shift=[]")),
            Arm(name="dense_shift", settings=("sparse.sparsity=0",)),
            Arm(name="dsff", settings=("model.shift=[]",)),
            Arm(name="dsff_shift"),
            Arm(name="dsff_shift_2", settings=("model.shift=[-2, 0, 2]",)),
            Arm(name="dsff_shift_3", settings=("model.shift=[-3, 0, 3]",)),
        ),
        source=f"{_E2ENET}, Tables 4 and 5",
        summary="with and without dynamic sparse feature fusion and depth shift, and shifts by more voxels",
    ),
    "e2enet_kernels": Grid(
        model="e2enet",
        arms=(
            Arm(name="1x3x3_shift_d"),
            Arm(name="3x1x3", settings=("model.kernel=[3, 1, 3]", "model.shift=[]")),
            Arm(name="3x3x1", settings=("model.kernel=[3, 3, 1]", "model.shift=[]")),
            Arm(name="3x1x3_shift_h", settings=("model.kernel=[3, 1, 3]", "model.shift_axis=H")),
            Arm(name="3x3x1_shift_w", settings=("model.kernel=[3, 3, 1]", "model.shift_axis=W")),
            Arm(name="3x3x3", settings=("model.kernel=3", "model.inner_kernel=[1, 3, 3]", "model.shift=[]")),
        ),
        source=f"{_E2ENET}, Tables 4 and 5",
        summary="planar kernels and the axis of the shift, and kernels of 3 x 3 x 3 where the released code has them",
    ),
    "e2enet_update_period": Grid(
        model="e2enet",
        arms=(
            Arm(name="half_period", period=PUBLISHED_PERIOD / 2),
            Arm(name="published_period", period=PUBLISHED_PERIOD),
            Arm(name="one_and_a_half", period=1.5 * PUBLISHED_PERIOD),
            Arm(name="static", settings=("sparse.freeze_topology=true",)),
        ),
        source=f"{_E2ENET}, Table 5 (600, 1200 and 1800 of 250,000 steps) and Fig. 8b",
        summary="steps between two moves of the active kernels, as the published share of the training, or no moves",
    ),
    "logonet_local_global": Grid(
        model="logonet",
        arms=(Arm(name="global_only", model="ulkanet"), Arm(name="local_and_global", model="logonet")),
        source=f"{_LOGONET}, Table 6",
        summary="one ULKANet for the whole volume, or others for its parts besides",
    ),
    "pretrain_methods": Grid(
        model="logonet",
        arms=(
            Arm(name="scratch"),
            Arm(name="masked_clusters", pretrain="masked-clusters"),
            Arm(name="simmim", pretrain="simmim"),
            Arm(name="rubik", pretrain="rubik"),
            Arm(name="simclr", pretrain="simclr"),
        ),
        source=f"{_LOGONET}, Table 7",
        summary="what the network learnt before, on the training scans of the fold without labels",
    ),
    "loss_weights": Grid(
        model="logonet",
        arms=(
            Arm(name="dice_and_ce"),
            Arm(name="ce_only", settings=("train.dice_weight=0",)),
            Arm(name="dice_only", settings=("train.ce_weight=0",)),
        ),
        source=f"{_LOGONET}, Table 10",
        summary="Dice and cross entropy with equal weights, or one of them alone",
    ),
}
"""Ablations by name."""
