import pytest

from voxelseg.errors import ConfigError
from voxelseg.train.config import TrainConfig, build_config
from voxelseg.train.loop.stage import Stage, after_growth, before_growth, share_before_growth


@pytest.mark.parametrize(
    ("epochs", "share", "first"),
    [(10, 0.5, 5), (10, 0.31, 3), (1000, 0.5, 500), (10, 0.01, 1), (10, 0.99, 9), (2, 0.9, 1)],
)
def test_both_stages_share_the_epochs_and_have_one_at_least(epochs, share, first):
    config = TrainConfig(epochs=epochs, grow_kernel=(3, 5), grow_share=share)
    assert (before_growth(config).epochs, after_growth(config).epochs) == (first, epochs - first)
    assert share_before_growth(config) == pytest.approx(first / epochs)


def test_both_stages_share_a_budget():
    config = TrainConfig(budget_s=600, grow_kernel=(3, 5), grow_share=0.25)
    assert (before_growth(config).budget_s, after_growth(config).budget_s) == (150, 450)
    assert share_before_growth(config) == 0.25


def test_all_other_settings_are_those_of_both_stages():
    config = TrainConfig(epochs=4, grow_kernel=(3, 5), lr=0.3, warmup=0.1)
    for stage in (before_growth(config), after_growth(config)):
        assert stage.model_copy(update={"epochs": 4}) == config


def test_counts_of_a_later_stage_go_on_from_those_before():
    stage = Stage(name="kernel 5", epochs=2, steps=500, elapsed_s=60.0)
    assert stage.counted_on({"epoch": 0, "step": 7, "elapsed_s": 1.5, "best_epoch": 1, "loss": 0.5}) == {
        "epoch": 2,
        "step": 507,
        "elapsed_s": 61.5,
        "best_epoch": 3,
        "loss": 0.5,
    }
    assert Stage().counted_on({"step": 7}) == {"step": 7}
    assert stage.counted_on({"best_epoch": None}) == {"best_epoch": None}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["train.grow_kernel=[5,3]"], "grow_kernel needs the smaller size first"),
        (["train.grow_kernel=[3,3]"], "grow_kernel needs the smaller size first"),
        (["train.grow_kernel=[3,5]", "train.epochs=1"], "2 epochs or more"),
        (["train.grow_kernel=[3,5]", "model.kernel_size=7"], r"model.kernel_size is 5 with train.grow_kernel=\[3, 5\]"),
        (["train.grow_share=1.0"], "grow_share"),
    ],
)
def test_impossible_growth_is_refused_at_once(settings, message):
    with pytest.raises(ConfigError, match=message):
        build_config(settings)
