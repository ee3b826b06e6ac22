import numpy as np
import pytest

from voxelseg.errors import ConfigError
from voxelseg.train.settings import (
    MAX_SEED,
    check_plan_values,
    check_seed,
    read_settings,
    refuse_two_lengths,
    set_length,
)

KNOWN = {"train": ["lr", "epochs"], "model": None}


@pytest.mark.parametrize("seed", [-1, MAX_SEED + 1])
def test_seeds_that_a_generator_does_not_take_are_refused(seed):
    with pytest.raises(ConfigError, match=rf"seed {seed}: expected 0 to 4294967295"):
        check_seed(seed)
    with pytest.raises(ValueError, match=r"[Ss]eed"):
        np.random.seed(seed)  # noqa: NPY002
    for good in (0, MAX_SEED):
        check_seed(good)
        np.random.seed(good)  # noqa: NPY002


def test_each_section_has_its_values_as_yaml_reads_them():
    assert read_settings(["train.lr=1e-3", "model.any=[1, 2]"], KNOWN) == {
        "train": {"lr": 1e-3},
        "model": {"any": [1, 2]},
    }
    assert read_settings([], KNOWN) == {"train": {}, "model": {}}


def test_wrong_sections_and_keys_are_named_together():
    with pytest.raises(ConfigError, match=r"no section 'modle' \(did you mean 'model'\?\).*train has no 'epoch' \("):
        read_settings(["modle.x=1", "train.epoch=2"], KNOWN)


def test_a_length_is_given_once_and_as_one_kind():
    train = {"epochs": 3}
    set_length(train, epochs=3, budget_s=None)
    assert train == {"epochs": 3}
    set_length(train, epochs=None, budget_s=60.0)
    assert train == {"epochs": 3, "budget_s": 60.0}
    with pytest.raises(ConfigError, match="epochs and a budget both set the training's length"):
        refuse_two_lengths(train)
    with pytest.raises(ConfigError, match=r"--epochs and --set train\.epochs give 4 and 3"):
        set_length(train, epochs=4, budget_s=None)


def test_a_value_that_a_key_of_the_plan_cannot_have_is_found_before_there_is_a_plan():
    check_plan_values({"patch_size": [16, 16, 8]})
    with pytest.raises(ConfigError, match=r"plan\.batch_size: .*greater than 0"):
        check_plan_values({"batch_size": 0})
