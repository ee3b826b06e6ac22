import dataclasses
import json
from contextlib import nullcontext

import pytest
import torch

from voxelseg.errors import ConfigError
from voxelseg.nets import NETWORKS, create_model, describe_models, list_models
from voxelseg.ops.dispatch import plain_forms


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


@pytest.mark.parametrize("name", ["mednext_xs", "unet_s"])
def test_plain_and_fast_forms_of_the_operations_give_the_same_network(name):
    torch.manual_seed(0)
    model = create_model(name, in_channels=1, num_classes=2, width=4, deep_supervision=True)
    x = torch.randn(2, 1, *(2 * step for step in model.divisor))
    results = []
    for forms in (nullcontext(), plain_forms()):
        model.zero_grad()
        with forms:
            outputs = model(x)
        sum(output.square().mean() for output in outputs).backward()
        results.append([*outputs, *(parameter.grad for parameter in model.parameters())])
    for fast, plain in zip(*results, strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["mednext_xs", "unet_s"])
def test_mixed_precision_is_close_to_single(name):
    torch.manual_seed(0)
    model = create_model(name, in_channels=1, num_classes=2, width=4)
    x = torch.randn(1, 1, *(2 * step for step in model.divisor))
    single = model(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = model(x)
    mixed.float().square().mean().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert (mixed.float() - single).norm() < 0.05 * single.norm()


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["mednext_xs", "unet_s"])
def test_a_gpu_computes_what_the_cpu_computes(name):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    torch.manual_seed(0)
    model = create_model(name, in_channels=1, num_classes=2, width=4, deep_supervision=True)
    x = torch.randn(2, 1, *(2 * step for step in model.divisor))
    results = []
    for device in ("cpu", "cuda"):
        model.to(device).zero_grad()
        outputs = model(x.to(device))
        sum(output.square().mean() for output in outputs).backward()
        results.append([tensor.cpu() for tensor in (*outputs, *(p.grad for p in model.parameters()))])
    for cpu, gpu in zip(*results, strict=True):
        torch.testing.assert_close(gpu, cpu, rtol=5e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["mednext_xs", "unet_s"])
def test_networks_can_be_exported(name):
    model = create_model(name, in_channels=1, num_classes=2, width=4).eval()
    x = torch.randn(1, 1, *(2 * step for step in model.divisor))
    exported = torch.export.export(model, (x,)).module()
    torch.testing.assert_close(exported(x), model(x), rtol=1e-3, atol=1e-4)
