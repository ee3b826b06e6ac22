import json

import pytest

from voxelseg.benchmark.entrants import Entrant, parse_entrants, split_outside_brackets
from voxelseg.errors import ConfigError


def test_a_list_names_networks_their_options_and_other_settings():
    found = parse_entrants("unet, small=logonet:num_stages=3:train.lr=5e-4,uxnet:features=[24, 48]")
    assert found == (
        Entrant(name="unet", model="unet"),
        Entrant(name="small", model="logonet", settings=("model.num_stages=3", "train.lr=5e-4")),
        Entrant(name="uxnet_features_24_48", model="uxnet", settings=("model.features=[24, 48]",)),
    )


def test_separators_within_brackets_belong_to_a_value():
    assert split_outside_brackets("a:b=[1, 2],c:d={e: [3, 4]},", ",") == ["a:b=[1, 2]", "c:d={e: [3, 4]}"]


@pytest.mark.parametrize("suffix", [".json", ".yaml"])
def test_a_file_says_the_same_and_also_what_is_learnt_before(tmp_path, suffix):
    path = tmp_path / f"contestants{suffix}"
    one = {"name": "tuned", "model": "unet", "options": {"width": 16}, "settings": {"train.betas": [0.9, 0.99]}}
    path.write_text(json.dumps([one, {"model": "logonet", "pretrain": "simmim"}, "uxnet:kernel_size=9"]))  # YAML, too
    assert parse_entrants(str(path)) == (
        Entrant(name="tuned", model="unet", settings=("model.width=16", "train.betas=[0.9, 0.99]")),
        Entrant(name="logonet", model="logonet", pretrain="simmim"),
        Entrant(name="uxnet_kernel_size_9", model="uxnet", settings=("model.kernel_size=9",)),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no network"),
        ("unet,unet", "several contestants are called unet"),
        ("unet,UNET", "several contestants are called unet"),  # one folder where letters' cases do not count
        ("a/b=unet", "the name 'a/b' cannot be that of a folder"),
        ("..=unet", "cannot be that of a folder"),
        ("=unet", "expected MODEL"),
        ("unet:width", "expected MODEL"),
        (
            "unet:plan.patch_size=[8, 8, 8]",
            "plan.patch_size cannot be a contestant's own, since the plan is one for all",
        ),
        ("unet:width=4:model.width=6", "unet_width_4_width_6: model.width: is given twice"),
        ("unet:train.epochs=3", "since --epochs, --steps or --budget sets the length of all"),
        ("unet:train.threads=3", "since --threads sets that of all"),
        ("nnunet:lr=3", "Only batch_size, a number, and mirroring"),
        ("nnunet:mirroring=perhaps", "Only batch_size"),
    ],
)
def test_what_cannot_be_a_contestant_is_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_entrants(text)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read as JSON or YAML"),
        ("model: unet", "expected a list of contestants"),
        ("- {name: a}", "expected an object with a model"),
        ("- {model: unet, option: 3}", "no 'option' .did you mean 'options'"),
        ("- {model: unet, options: 3}", "expected keys with values"),
        ("- {model: unet, pretrain_settings: {simmim.share: 0.5}}", "unet: pretrain_settings need a method"),
    ],
)
def test_a_file_of_another_form_is_refused(tmp_path, content, message):
    path = tmp_path / "contestants.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=message):
        parse_entrants(str(path))


def test_what_is_not_set_is_not_recorded():
    assert Entrant(name="a", model="unet").to_dict() == {"name": "a", "model": "unet"}
    assert parse_entrants("nnunet:batch_size=2:mirroring=false")[0].nnunet_options == {
        "batch_size": 2,
        "mirroring": False,
    }
