import pytest

from voxelseg.errors import ConfigError
from voxelseg.train.config import build_config


def test_one_pattern_needs_no_list():
    assert build_config(["transfer.freeze=encoder"]).transfer.freeze == ("encoder",)
    assert build_config(["sparse.layers=decoder*", "sparse.sparsity=0.5"]).sparse.layers == ("decoder*",)
    assert build_config(["transfer.freeze=[encoder, heads.*]"]).transfer.freeze == ("encoder", "heads.*")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("transfer.freeze=3", r"transfer\.freeze: should be a list, as \[a, b\] \(got 3\)"),
        ("transfer.lr_factors=0.1", r"transfer\.lr_factors: should be names with values, as \{a: 1\} \(got 0\.1\)"),
    ],
)
def test_other_kinds_of_values_are_refused_in_plain_words(setting, message):
    with pytest.raises(ConfigError, match=message):
        build_config([setting])
