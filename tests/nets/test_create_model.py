import dataclasses
import json

import pytest
import torch

from voxelseg.errors import ConfigError
from voxelseg.nets import NETWORKS, create_model, describe_models, list_models


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_keeps_the_contract(name):
    with torch.device("meta"):
        model = create_model(name, in_channels=2, num_classes=3, deep_supervision=True)
        size = [2 * step for step in model.divisor]
        x = torch.empty(1, 2, *size)
        outputs = model(x)
        assert [tuple(output.shape) for output in outputs] == [
            (1, 3, *(n // step for n, step in zip(size, strides, strict=True))) for strides in model.output_strides
        ]
        assert model.output_strides[0] == (1,) * len(size)
        model.deep_supervision = False
        assert model(x).shape == (1, 3, *size)
        assert next(model.encoder_parameters()).shape[1] == 2


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_is_rebuilt_from_its_config_as_json(name):
    with torch.device("meta"):
        model = create_model(name, in_channels=1, num_classes=2, width=6, deep_supervision=True)
        saved = json.loads(json.dumps(dataclasses.asdict(model.config)))
        again = create_model(name, **saved)
    assert again.config == model.config
    assert again.state_dict().keys() == model.state_dict().keys()


def test_an_unknown_model_names_the_closest_and_all_known():
    with pytest.raises(ConfigError, match=r"'mednext-s' \(did you mean 'mednext_s'\?\)\. Known: mednext_xs, "):
        create_model("mednext-s", in_channels=1, num_classes=2)


def test_an_unknown_option_names_the_closest_and_all_known():
    with pytest.raises(ConfigError, match=r"no option 'kernel' \(did you mean 'kernel_size'\?\).*Known: in_channels"):
        create_model("mednext_s", in_channels=1, num_classes=2, kernel=5)


def test_models_are_described_without_being_built():
    described = {entry["name"]: entry for entry in describe_models()}
    assert list(described) == list_models()
    assert described["mednext_s"]["parameters"] == 5_551_310
    assert described["unet_s"]["divisor"] == [8, 8, 8]
    assert all(entry["summary"] and entry["source"] for entry in described.values())
