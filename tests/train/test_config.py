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
        ("plan.axes=[0,0,1]", "plan.axes: expected 0, 1 and 2, each once"),
        ("plan.mirror_axes=[1,1]", "plan.mirror_axes: names an axis twice"),
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


@pytest.mark.parametrize(
    ("setting", "length", "message"),
    [
        ("train.budget_s=60", {"budget_s": 1200.0}, r"--budget and --set train.budget_s give 1200 and 60\. Give one"),
        ("train.epochs=6", {"epochs": 5}, r"--epochs and --set train.epochs give 5 and 6\. Give one"),
    ],
)
def test_two_different_lengths_are_refused_and_equal_ones_are_not(setting, length, message):
    with pytest.raises(ConfigError, match=message):
        build_config([setting], **length)
    key, _, value = setting.removeprefix("train.").partition("=")
    assert getattr(build_config([setting], **{key: int(value)}).train, key) == int(value)


def test_a_loss_without_any_part_is_an_error():
    with pytest.raises(ConfigError, match="cannot both be 0"):
        build_config(["train.dice_weight=0", "train.ce_weight=0"])


def test_plateau_without_validation_is_an_error():
    with pytest.raises(ConfigError, match="needs validation_patches"):
        build_config(["train.schedule=plateau", "train.validation_patches=0"])


def test_early_stopping_without_validation_is_an_error():
    with pytest.raises(ConfigError, match="early_stopping needs validation_patches"):
        build_config(["train.early_stopping=3", "train.validation_patches=0"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["train.momentum=0.9"], "train.momentum needs train.optimizer=sgd: without effect here"),
        (["train.optimizer=sgd", "train.eps=1e-8"], "train.eps needs train.optimizer=adamw"),
        (["train.optimizer=sgd", "train.betas=[0.9,0.99]"], "train.betas needs train.optimizer=adamw"),
        (["train.schedule=cosine", "train.poly_power=2"], "train.poly_power needs train.schedule=poly"),
        (["train.plateau_factor=0.1"], "train.plateau_factor needs train.schedule=plateau"),
        (["train.plateau_patience=3"], "train.plateau_patience needs train.schedule=plateau"),
        (["train.dice_weight=0", "train.batch_dice=true"], "train.batch_dice needs a train.dice_weight above 0"),
        (["train.dice_weight=0", "train.dice_background=true"], "train.dice_background needs a train.dice_weight"),
        (["train.validation_patches=0", "train.validate_every=5"], "train.validate_every needs train.validation_pa"),
        (["train.save_best=false", "train.watch=loss"], "train.watch needs .*train.save_best or train.early_stopping"),
        (["train.validation_patches=0", "train.watch=loss"], "train.watch needs train.validation_patches, and"),
        (
            ["augmentation.shift_range=[0,0.2]"],
            "augmentation.shift_range needs augmentation.enabled, and augmentation.sh",
        ),
        (
            ["augmentation.gamma=0", "augmentation.inverted_gamma=0", "augmentation.gamma_range=[0.5,2]"],
            "gamma_range nee",
        ),
        (["augmentation.enabled=false", "augmentation.noise_std=[0,1]"], "noise_std needs augmentation.enabled"),
        (
            ["augmentation.rotation=0", "augmentation.scaling=0", "augmentation.outside=zeros"],
            "rotation or augmentation",
        ),
    ],
)
def test_what_is_set_in_vain_is_refused_with_what_it_needs(settings, message):
    with pytest.raises(ConfigError, match=message):
        build_config(settings)


def test_what_a_recipe_sets_in_vain_beside_the_users_choice_is_no_mistake():
    base = {"train": {"optimizer": "sgd", "momentum": 0.9}, "augmentation": {"scaling_range": [0.8, 1.2]}}
    assert build_config(["train.optimizer=adamw"], base=base).train.optimizer == "adamw"
    assert build_config(["train.momentum=0.95"], base=base).train.momentum == 0.95
    assert build_config(["augmentation.scaling=0"], base=base).augmentation.scaling == 0


def test_how_something_is_changed_may_be_set_where_one_of_several_changes_needs_it():
    config = build_config(["augmentation.gamma=0", "augmentation.gamma_range=[0.5,2]"])  # the inverted one is left
    assert config.augmentation.gamma_range == (0.5, 2)


@pytest.mark.parametrize("setting", ["train.save_best=false", "train.validation_patches=0"])
def test_the_best_weights_predict_only_where_they_are_kept(setting):
    assert build_config(["predict.checkpoint=best"]).predict.checkpoint == "best"
    with pytest.raises(ConfigError, match=r"predict\.checkpoint=best needs train\.save_best"):
        build_config(["predict.checkpoint=best", setting])


def test_preprocessing_of_either_family_is_set_as_yaml():
    config = build_config(
        [
            "plan.normalization=[{kind: window, window: [-175, 250]}]",
            "plan.crop=positive",
            "plan.resampling=file_centres",
            "plan.image_order=1",
            "plan.normalize_first=false",
            "augmentation.rotation_degrees=[12, 0, 0]",
            "augmentation.outside=reflection",
            "train.foreground_sampling=voxel",
            "train.background_above=0",
            "predict.weighting=constant",
        ]
    )
    assert config.plan["normalization"] == [{"kind": "window", "window": [-175, 250]}]
    assert config.plan["crop"] == "positive"
    assert config.augmentation.rotation_degrees == (12, 0, 0)
    assert (config.train.background_above, config.predict.weighting) == (0, "constant")


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("plan.normalization=[{kind: window}]", "plan.normalization: .*a window normalization needs window"),
        ("plan.normalization=[{kind: window, window: [3, 3]}]", "expected low before high"),
        ("plan.crop=body", "plan.crop: .*'nonzero', 'positive' or 'none'"),
        ("augmentation.outside=mirror", "augmentation.outside"),
        ("train.foreground_sampling=organ", "train.foreground_sampling"),
        ("train.crops_per_case=0", "train.crops_per_case"),
        ("train.background_above=0", "background_above needs foreground_sampling=voxel"),
        ("predict.weighting=flat", "predict.weighting"),
        ("predict.placement=random", "predict.placement"),
        ("predict.average=labels", "predict.average"),
    ],
)
def test_impossible_values_of_either_family_are_errors(setting, named):
    with pytest.raises(ConfigError, match=named):
        build_config([setting])


RECIPE = {"train": {"epochs": 80, "steps_per_epoch": 500, "lr": 1e-4}, "plan": {"batch_size": 2}, "model": {"width": 4}}


def test_settings_go_before_the_values_of_a_recipe():
    config = build_config(["train.lr=1e-2", "plan.spacing_mm=[1,1,1]"], epochs=3, base=RECIPE)
    assert (config.train.lr, config.train.epochs, config.train.steps_per_epoch) == (1e-2, 3, 500)
    assert config.plan == {"batch_size": 2, "spacing_mm": [1, 1, 1]}
    assert config.model == {"width": 4}
    assert RECIPE["train"]["lr"] == 1e-4


def test_a_budget_goes_before_the_length_of_a_recipe():
    config = build_config([], budget_s=60, base=RECIPE)
    assert (config.train.budget_s, config.train.epochs) == (60, TrainConfig().epochs)
    with pytest.raises(ConfigError, match="epochs and a budget both set"):
        build_config(["train.epochs=3"], budget_s=60, base=RECIPE)


def test_kernels_that_grow_go_before_the_kernel_size_of_a_recipe():
    config = build_config(["train.grow_kernel=[3,5]"], base={"model": {"kernel_size": 3, "norm": "layer"}})
    assert config.model == {"norm": "layer"}
    with pytest.raises(ConfigError, match=r"model\.kernel_size is 5 with train\.grow_kernel"):
        build_config(["train.grow_kernel=[3,5]", "model.kernel_size=3"], base={})


def test_what_a_recipe_says_of_something_that_is_switched_off_is_left_out():
    base = {
        "sparse": {"sparsity": 0.8, "final_rate": 0.0, "update_every": 2, "mask_gradients": True},
        "train": {"grow_kernel": [3, 5], "grow_share": 0.3, "grow_lr": 1e-4},
    }
    fixed = build_config(["sparse.freeze_topology=true"], base=base).sparse
    assert (fixed.sparsity, fixed.update_every, fixed.final_rate, fixed.mask_gradients) == (0.8, None, 0.001, True)
    assert build_config(["sparse.sparsity=0"], base=base).sparse.update_every is None
    scratch = build_config(["train.grow_kernel=null"], base=base).train
    assert (scratch.grow_kernel, scratch.grow_share, scratch.grow_lr) == (None, 0.5, None)
    with pytest.raises(ConfigError, match="update_every: nothing moves with freeze_topology"):  # both are the user's
        build_config(["sparse.freeze_topology=true", "sparse.update_every=3"], base=base)


def test_epochs_go_before_the_budget_of_a_recipe():
    config = build_config([], epochs=3, base={"train": {"budget_s": 60.0}})
    assert (config.train.budget_s, config.train.epochs) == (None, 3)


def test_a_rate_for_grown_kernels_needs_kernels_that_grow():
    for setting, key in (("train.grow_lr=1e-4", "grow_lr"), ("train.grow_share=0.3", "grow_share")):
        with pytest.raises(ConfigError, match=f"{key}: no kernels grow. Set grow_kernel too"):
            build_config([setting])
