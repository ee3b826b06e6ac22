"""Networks that the papers compare with, under the same interface; MONAI's need `pip install "voxelseg[baselines]"`."""

from voxelseg.nets.baselines import (
    cotr,
    deeplabv3,
    medformer,
    monai_dints,
    monai_segresnets,
    monai_transformers,
    monai_unets,
    nnformer,
    rapnet,
    transbts,
    transunet,
)
from voxelseg.nets.network import NetworkEntry

ENTRIES: dict[str, NetworkEntry] = {
    **monai_unets.ENTRIES,
    **monai_segresnets.ENTRIES,
    **monai_transformers.ENTRIES,
    **monai_dints.ENTRIES,
    **cotr.ENTRIES,
    **deeplabv3.ENTRIES,
    **rapnet.ENTRIES,
    **transbts.ENTRIES,
    **transunet.ENTRIES,
    **nnformer.ENTRIES,
    **medformer.ENTRIES,
}
"""All of them, one line per module."""
