"""Pretext tasks: what a network learns from scans without labels."""

from voxelseg.pretrain.methods import mae, masked_clusters, rubik, rubik_cls, simclr, simmim
from voxelseg.pretrain.methods.method import Method

METHODS: dict[str, Method] = {
    "masked-clusters": masked_clusters.METHOD,
    "simmim": simmim.METHOD,
    "rubik": rubik.METHOD,
    "rubik-cls": rubik_cls.METHOD,
    "simclr": simclr.METHOD,
    "mae": mae.METHOD,
}
"""Methods by name; the section of the configuration has underscores."""
