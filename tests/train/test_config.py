import pytest

from voxelseg.errors import ConfigError
from voxelseg.train.config import TrainConfig, build_config


def test_settings_reach_their_sections_with_their_types():
    config = build_config(
        [
            "train.lr=1e-3",  # YAML 1.1 takes this for text
            "train.optimizer=sgd",
            "train.batch_dice=true",
            "augmentation.scaling_range=[0.9, 1.1]",
            "plan.patch_size=[32,64,48]",
            "model.kernel_size=5",
            "predict.overlap=0.25",
        ],
        epochs=7,
    )
    assert (config.train.lr, config.train.optimizer, config.train.batch_dice, config.train.epochs) == (
        1e-3,
        "sgd",
        True,
        7,
    )
    assert config.augmentation.scaling_range == (0.9, 1.1)
    assert (config.plan, config.model, config.predict.overlap) == (
        {"patch_size": [32, 64, 48]},
        {"kernel_size": 5},
        0.25,
    )


def test_without_settings_the_defaults_hold():
    assert build_config([]).train == TrainConfig()


def test_all_wrong_keys_are_named_at_once_with_the_closest_known_one():
    with pytest.raises(ConfigError) as error:
        build_config(["train.lrr=1", "trian.lr=1", "plan.patchsize=[1,1,1]", "lr=3", "train.lr"])
    message = str(error.value)
    assert "train has no 'lrr' (did you mean 'lr'?)" in message
    assert "no section 'trian' (did you mean 'train'?)" in message
    assert "plan has no 'patchsize' (did you mean 'patch_size'?)" in message
    assert message.count("expected section.key=value") == 2


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("train.lr=0", "train.lr"),
        ("train.lr=.inf", "train.lr"),
        ("train.lr=fast", "train.lr"),
        ("train.epochs=1.5", "train.epochs"),
        ("train.momentum=1", "train.momentum"),
        ("train.ema=1", "train.ema"),
        ("train.warmup=1", "train.warmup"),
        ("train.optimizer=adam", "train.optimizer"),
        ("predict.overlap=1", "predict.overlap"),
        ("augmentation.rotation=2", "augmentation.rotation"),
        ("plan.patch_size=[32,64]", "plan.patch_size"),
        ("plan.batch_size=0", "plan.batch_size"),
        ("train.lr=[", "not valid YAML"),
    ],
)
def test_impossible_values_are_errors_that_name_the_key(setting, named):
    with pytest.raises(ConfigError, match=named.replace(".", r"\.")):
        build_config([setting])


def test_a_budget_and_a_number_of_epochs_exclude_each_other():
    with pytest.raises(ConfigError, match=r"epochs, steps_per_epoch and a budget"):
        build_config(["train.steps_per_epoch=3"], epochs=2, budget_s=60.0)
    assert build_config([], budget_s=60.0).train.budget_s == 60.0


def test_a_loss_without_any_part_is_an_error():
    with pytest.raises(ConfigError, match="cannot both be 0"):
        build_config(["train.dice_weight=0", "train.ce_weight=0"])


def test_plateau_without_validation_is_an_error():
    with pytest.raises(ConfigError, match="needs validation_patches"):
        build_config(["train.schedule=plateau", "train.validation_patches=0"])
