"""Options that make each network small enough to be run, overfitted and exported in seconds."""

from typing import Any

SMALL: dict[str, dict[str, Any]] = {
    "mednext_xs": {"width": 4, "blocks": 1},
    "mednext_s": {"width": 4, "blocks": 1},
    "mednext_b": {"width": 4, "blocks": 1},
    "mednext_m": {"width": 4, "blocks": 1},
    "mednext_l": {"width": 4, "blocks": 1},
    "unet": {"width": 4},
    "unet_s": {"width": 4},
}
"""By name in NETWORKS."""
