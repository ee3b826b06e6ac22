"""What a training must be told again to start from a pre-training: its network, plan and masks, as `--set` options."""

import json
from collections.abc import Mapping
from typing import Any

_MASKS = ("layers", "sparsity")
"""Of the `sparse` section: which layers are sparse; how kernels move is a matter of each training."""


def repeated_settings(config: Mapping[str, Any]) -> list[str]:
    """`--set` options that repeat what was set of network, plan and masks; `config` is that of pretraining.json."""
    sparse = config.get("sparse") or {}
    sections = {
        "model": config.get("model") or {},
        "plan": config.get("plan") or {},
        "sparse": {key: sparse[key] for key in _MASKS if sparse.get(key) not in (None, [])},
    }
    return [
        word
        for section, values in sections.items()
        for key, value in values.items()
        for word in ("--set", f"{section}.{key}={json.dumps(value)}")
    ]
