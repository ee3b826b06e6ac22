import pytest

from voxelseg.commands.configuring import what_to_train
from voxelseg.errors import ConfigError
from voxelseg.recipes import RECIPES
from voxelseg.recipes.e2enet import e2enet

NOTHING = dict.fromkeys(("recipe", "model", "init", "grow_kernel", "epochs", "budget")) | {"settings": []}


def asked(**options):
    return what_to_train(**{**NOTHING, **options})


def test_options_stand_for_settings(tmp_path):
    _, _, config = asked(init=tmp_path / "a run", grow_kernel="3:5", epochs=7, settings=["train.lr=0.5"])
    assert config.transfer.init == str(tmp_path / "a run")
    assert (config.train.grow_kernel, config.train.epochs, config.train.lr) == ((3, 5), 7, 0.5)
    assert asked(budget="1h30m")[2].train.budget_s == 5400


def test_a_recipe_stands_for_a_network_and_many_settings_and_the_user_s_go_first():
    recipe, model, config = asked(recipe="mednext_s_k3_btcv", epochs=7)
    assert (recipe.name, model) == ("mednext_s_k3_btcv", "mednext_s")
    assert config.plan["patch_size"] == [128, 128, 128]
    assert (config.train.steps_per_epoch, config.train.epochs) == (250, 7)  # the recipe has 1000 epochs


def test_a_recipe_may_be_one_that_has_no_name_on_the_command_line():
    recipe, model, config = asked(recipe=e2enet("btcv", sparsity=0.5))
    assert recipe.name not in RECIPES
    assert (model, config.sparse.sparsity) == ("e2enet", 0.5)


def test_without_a_recipe_or_a_model_it_is_mednext_s():
    assert asked()[:2] == (None, "mednext_s")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"recipe": "mednext_s_k3_btcv", "model": "unet_s"}, "is a training of mednext_s, not of unet_s"),
        ({"init": "RUN", "settings": ["transfer.init=RUN"]}, "--init and --set transfer.init say the same thing"),
        ({"grow_kernel": "3:5", "settings": ["train.grow_kernel=[3,5]"]}, "--grow-kernel and --set train.grow_kernel"),
        ({"budget": "soon"}, "budget 'soon': expected a time"),
        ({"recipe": "mednext"}, "unknown recipe 'mednext'"),
    ],
)
def test_options_that_are_impossible_or_contradict_each_other_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        asked(**options)
