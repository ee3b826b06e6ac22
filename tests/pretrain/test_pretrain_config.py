import pytest

from voxelseg.errors import ConfigError
from voxelseg.pretrain.config import build_pretraining, find_method, known_keys, section_of
from voxelseg.pretrain.methods import METHODS


def test_defaults_are_the_paper_s():
    train = build_pretraining("masked-clusters", []).train
    assert (train.optimizer, train.lr, train.weight_decay, train.eps) == ("adamw", 1e-4, 1e-5, 1e-8)
    assert (train.epochs, train.steps_per_epoch, train.schedule, train.warmup) == (100, 0, "cosine", 0.1)


@pytest.mark.parametrize("method", METHODS)
def test_each_method_has_a_section_of_its_own_in_the_record(method):
    config = build_pretraining(method, [])
    record = config.record()
    assert set(record) == {"model", "plan", "train", "sparse", "pretrain", section_of(method)}
    assert record[section_of(method)] == config.task.model_dump(mode="json")


def test_settings_reach_their_sections():
    config = build_pretraining(
        "masked-clusters",
        ["model.width=4", "train.lr=1e-3", "pretrain.slice_axis=2", "masked_clusters.temperature=0.5"],
        epochs=3,
    )
    assert (config.model, config.train.lr, config.train.epochs) == ({"width": 4}, 1e-3, 3)
    assert (config.pretrain.slice_axis, config.task.temperature) == (2, 0.5)


def test_a_budget_is_the_length_instead():
    assert build_pretraining("mae", [], budget_s=60.0).train.budget_s == 60.0
    with pytest.raises(ConfigError, match="epochs and a budget both set"):
        build_pretraining("mae", [], epochs=3, budget_s=60.0)


def test_an_unknown_method_is_named_with_the_closest_ones():
    with pytest.raises(ConfigError, match=r"method 'simmmim': unknown \(did you mean 'simmim'\?\)\. There are masked-"):
        find_method("simmmim")
    with pytest.raises(ConfigError, match="method 'dino': unknown"):
        build_pretraining("dino", [])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["simmim.cubes=3"], r"simmim has no 'cubes' \(did you mean 'cube'\?\)"),
        (["simmin.cube=3"], r"no section 'simmin' \(did you mean 'simmim'\?\)"),
        (["augmentation.noise=0"], "no section 'augmentation'"),
        (["train.dice_weight=0"], "train has no 'dice_weight'"),
        (["simmim.share=2"], r"simmim: share: .*less than 1"),
        (["train.epochs=0"], r"configuration: train\.epochs"),
        (["plan.batch_size=0"], r"plan\.batch_size"),
        (["pretrain.held_out=1"], r"pretrain\.held_out"),
        (["pretrain.slice_axis=1"], r"pretrain\.slice_axis: simmim looks at no slices, so it has no effect"),
        (["rubik.moves=3", "mae.share=0.5"], r"without effect with --method simmim.*--method rubik or --method mae"),
        (["train.momentum=0.9"], r"train\.momentum needs train\.optimizer=sgd: without effect"),
        (["train.save_best=false", "train.watch=loss"], r"train\.watch needs .*train\.save_best"),
        (["train.schedule=plateau", "train.validation_patches=0"], "needs validation_patches"),
    ],
)
def test_wrong_and_idle_settings_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        build_pretraining("simmim", settings)


def test_all_keys_are_known_by_section():
    keys = known_keys()
    assert keys["model"] is None
    assert {section_of(name) for name in METHODS} < set(keys)
    assert "slice_axis" in keys["pretrain"]
