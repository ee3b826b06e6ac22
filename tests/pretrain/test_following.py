import pytest

from voxelseg.pretrain.following import repeated_settings


def test_what_was_set_of_network_plan_and_masks_is_repeated():
    config = {
        "model": {"width": 8},
        "plan": {"patch_size": [16, 32, 16]},
        "sparse": {"layers": ["decoder*"], "sparsity": 0.5, "growth": "gradient"},
        "train": {"lr": 0.1},
    }
    assert repeated_settings(config) == [
        *("--set", "model.width=8"),
        *("--set", "plan.patch_size=[16, 32, 16]"),
        *("--set", 'sparse.layers=["decoder*"]'),
        *("--set", "sparse.sparsity=0.5"),
    ]


@pytest.mark.parametrize("config", [{}, {"model": {}, "plan": None, "sparse": {"layers": [], "sparsity": None}}])
def test_nothing_is_repeated_where_nothing_was_set(config):
    assert repeated_settings(config) == []
