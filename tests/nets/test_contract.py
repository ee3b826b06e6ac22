"""What every network that `create_model` knows must do, held over all of them in their small versions."""

import dataclasses
import io
import json
import re
from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise
from math import prod
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from small import SMALL
from torch import Tensor

from voxelseg.errors import ConfigError, DataError
from voxelseg.nets import NETWORKS, Network, create_model
from voxelseg.nets.complexity import count, operations
from voxelseg.nets.logonet import LoGoNet
from voxelseg.nets.parts import PARTS, part_parameters
from voxelseg.nets.ulkanet import ULKANet
from voxelseg.ops.dispatch import plain_forms

every_network = pytest.mark.parametrize("name", [name for name in NETWORKS if name in SMALL])


def _in_form(value: Any) -> Any:
    """`value` of an option with each number other than 0 replaced by its type: how many there are stays."""
    if isinstance(value, tuple | list):
        return tuple(map(_in_form, value))
    return type(value) if isinstance(value, int | float) and not isinstance(value, bool) and value else value


def _different() -> list[str]:
    """One name for each class, depth and choice among the small versions.

    Sizes that differ in widths and ratios alone, or in what the small versions leave out, are one network here; those
    numbers are held against the publications by the tests of each network.
    """
    found: dict[Any, str] = {}
    for name, options in SMALL.items():
        entry = NETWORKS[name]
        config = entry.config(in_channels=1, num_classes=2, **{**entry.options, **options})
        form = tuple(_in_form(getattr(config, field.name)) for field in dataclasses.fields(config))
        found.setdefault((type(config), form), name)
    return list(found.values())


every_small_network = pytest.mark.parametrize("name", _different())


def small(name: str, *, seed: int = 0, in_channels: int = 1, num_classes: int = 2, **options: Any) -> Network:
    """The small version of a network with weights drawn from `seed`."""
    torch.manual_seed(seed)
    return create_model(name, in_channels=in_channels, num_classes=num_classes, **{**SMALL[name], **options})


@cache
def published(name: str) -> Network:
    """The published size with all heads on the meta device, which several tests look at; in either mode."""
    with torch.device("meta"):
        return create_model(name, in_channels=1, num_classes=3, **with_all_heads(name))


def with_all_heads(name: str) -> dict[str, bool]:
    """The option that builds the heads of deep supervision, for networks that have them."""
    fields = [field.name for field in dataclasses.fields(NETWORKS[name].config)]
    return {"deep_supervision": True} if "deep_supervision" in fields else {}


def fitting_size(model: Network) -> tuple[int, ...]:
    """A small input size with unequal sides, where the network does not prescribe one."""
    if model.image_size is not None:
        return model.image_size
    times = (1, 2, 3) if prod(model.divisor) <= 16**3 else (1, 1, 2)
    return tuple(times[axis - len(model.divisor)] * step for axis, step in enumerate(model.divisor))


def patch(model: Network, *, batch: int = 1, channels: int = 1) -> Tensor:
    return torch.randn(batch, channels, *fitting_size(model), generator=torch.Generator().manual_seed(1))


def as_list(outputs: Tensor | list[Tensor]) -> list[Tensor]:
    return [outputs] if isinstance(outputs, Tensor) else outputs


def loss_of(model: Network, outputs: Tensor | list[Tensor]) -> Tensor:
    """Depends on every output, and differently on each of its values."""
    total = torch.stack([(output * _ramp(output)).square().mean() for output in as_list(outputs)]).sum()
    return total if model.auxiliary_loss is None else total + model.auxiliary_loss


def _ramp(output: Tensor) -> Tensor:
    return torch.linspace(0.5, 1, output.numel(), dtype=output.dtype, device=output.device).view_as(output)


def test_every_network_has_a_small_version():
    assert set(SMALL) == set(NETWORKS)


@every_network
def test_a_network_is_rebuilt_from_its_config_as_json(name):
    with torch.device("meta"):
        changed = small(name, in_channels=3, **with_all_heads(name))
    for model in (changed, published(name)):
        saved = json.loads(json.dumps(dataclasses.asdict(model.config)))
        with torch.device("meta"):
            again = create_model(name, **saved)
        assert again.config == model.config
        assert again.state_dict().keys() == model.state_dict().keys()


@every_network
def test_nothing_is_allocated_on_the_meta_device(name):
    model = published(name)
    assert all(tensor.is_meta for tensor in model.state_dict().values())
    assert all(tensor.is_meta for tensor in (*model.parameters(), *model.buffers()))


@every_network
def test_logits_have_the_shape_of_the_input_and_the_other_outputs_follow_by_strides(name):
    for batch, channels in ((2, 1), (1, 3)):
        with torch.device("meta"):
            model = small(name, in_channels=channels, num_classes=5, **with_all_heads(name)).eval()
            size = model.image_size or tuple(step * (axis + 1) for axis, step in enumerate(model.divisor))
            outputs = model(torch.empty(batch, channels, *size))
        assert isinstance(outputs, list) == model.deep_supervision
        assert [tuple(output.shape) for output in as_list(outputs)] == [
            (batch, 5, *(n // step for n, step in zip(size, strides, strict=True))) for strides in model.output_strides
        ]
        assert model.output_strides[0] == (1,) * len(size)
        assert all(prod(fine) <= prod(coarse) for fine, coarse in pairwise(model.output_strides))


@every_network
def test_the_published_size_runs_in_training_and_evaluation_alike(name):
    model = published(name)
    with torch.device("meta"):
        x = torch.empty(2, 1, *fitting_size(model))
        shapes = [[output.shape for output in as_list(model.train(mode)(x))] for mode in (True, False)]
    assert shapes[0] == shapes[1]
    assert len(shapes[0]) == len(model.output_strides)


@every_small_network
def test_deep_supervision_is_switched_without_touching_the_state_dict(name):
    model = small(name, **with_all_heads(name)).eval()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    x = patch(model)
    with torch.no_grad():
        full = as_list(model(x))[0]
        model.deep_supervision = False
        alone = model(x)
    assert isinstance(alone, Tensor)
    torch.testing.assert_close(alone, full)
    assert model.output_strides == [(1,) * (x.ndim - 2)]
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], tensor) for key, tensor in before.items())


@every_network
def test_inputs_of_any_size_give_outputs_of_that_size(name):
    with torch.device("meta"):
        model = small(name, **with_all_heads(name)).eval()
        size = tuple(n - 3 + axis for axis, n in enumerate(fitting_size(model)))  # odd ones among them
        outputs = model.forward_any_size(torch.empty(1, 1, *size))
    assert [tuple(output.shape[2:]) for output in as_list(outputs)] == [
        tuple(-(-n // step) for n, step in zip(size, strides, strict=True)) for strides in model.output_strides
    ]


@every_network
def test_sizes_that_do_not_fit_are_refused_with_the_size_to_pad_to(name):
    with torch.device("meta"):
        model = small(name).eval()
        fits = fitting_size(model)
        wrong = (*fits[:-1], fits[-1] - 1)
        if model.divisor[-1] == 1 and model.image_size is None:
            pytest.skip("takes every size")
        with pytest.raises(DataError, match=re.escape(f"= {wrong}: ") + ".*" + re.escape(str(fits))):
            model(torch.empty(1, 1, *wrong))
        with pytest.raises(DataError, match=r"expects \(B, 1, "):
            model(torch.empty(1, 2, *fits))


INERT = {
    "MedNeXt": r".*depthwise\.bias",
    "UNet": r"(en|de)coder.*conv\.bias",
    "ResEncUNet": r"(en|de)coder.*conv\.bias",
    "E2ENet": r"(encoder|fusion).*conv\.bias",
    "ULKANet": r"body\..*(embed|embed_norm|project_out|conv)\.bias",
    "LoGoNet": r"(global_net|local_nets)\..*(embed|embed_norm|project_out|conv)\.bias|conv\.bias",
    "UNet3D": r".*conv\.bias",
    "ResidualUNet3D": r"network\.model\.(0|1|2\.0).*conv\.bias",
    "AttentionUNet": r"network\.model\.[01].*conv\.bias",
    "UNetPlusPlus": r".*conv\.bias",
    "VNet": r".*up_conv\.bias",
    "SegResNetVAE": r".*vae_fc2.*",
    "UNETR": r".*norm_cross_attn.*",
}
"""Names of parameters that no output depends on, by class: what they add to a channel, the next norm takes away."""


def inert_parameters(model: Network) -> Callable[[str], re.Match[str] | None]:
    return re.compile(INERT.get(type(model).__name__, "(?!)")).fullmatch


def unreached_parameters(model: Network) -> set[str]:
    """Parameters that are to be trained and whose gradient is nothing or next to nothing, in double precision."""
    loss_of(model, model.double().train()(patch(model, batch=2).double())).backward()
    gradients = {key: parameter.grad for key, parameter in model.named_parameters() if parameter.requires_grad}
    sizes = {key: 0.0 if gradient is None else float(gradient.abs().max()) for key, gradient in gradients.items()}
    return {key for key, size in sizes.items() if size < 1e-12 * max(sizes.values())}


@every_small_network
def test_gradients_reach_every_parameter_that_matters(name):
    model = small(name, **with_all_heads(name))
    inert = inert_parameters(model)
    unreached = {key for key in unreached_parameters(model) if not inert(key)}
    for seed in range(1, 4):  # a ReLU of a few units may be off by chance
        unreached &= unreached_parameters(small(name, seed=seed, **with_all_heads(name))) if unreached else set()
    assert unreached == set()


@every_small_network
def test_the_state_dict_carries_all_that_decides_the_output(name):
    first, second = (small(name, seed=seed).eval() for seed in (0, 1))
    x = patch(first)
    with torch.no_grad():
        assert not torch.allclose(first(x), second(x), rtol=1e-3)
        second.load_state_dict(first.state_dict())
        torch.testing.assert_close(second(x), first(x), rtol=0, atol=0)


def outputs_and_gradients(model: Network, x: Tensor) -> list[tuple[str, Tensor]]:
    """Outputs, and the gradients of all parameters that matter, each with a name."""
    model.zero_grad()
    outputs = model(x)
    loss_of(model, outputs).backward()
    found = [(f"output {number}", output.detach()) for number, output in enumerate(as_list(outputs))]
    inert = inert_parameters(model)
    return found + [(key, p.grad) for key, p in model.named_parameters() if p.grad is not None and not inert(key)]


def assert_all_close(found: list[tuple[str, Tensor]], expected: list[tuple[str, Tensor]], *, tolerance: float) -> None:
    """Each tensor as a whole, in the Euclidean norm; gradients that are next to nothing among the others may differ."""
    largest = max(float(tensor.norm() / tensor.numel() ** 0.5) for _, tensor in expected)
    assert [name for name, _ in found] == [name for name, _ in expected]
    for (name, one), (_, other) in zip(found, expected, strict=True):
        allowed = tolerance * (other.norm() + 1e-3 * largest * other.numel() ** 0.5)
        assert (one - other).norm() < allowed, name


@every_small_network
def test_plain_and_fast_forms_of_the_operations_give_the_same_network(name):
    model = small(name, **with_all_heads(name)).eval()
    x = patch(model, batch=2)
    fast = outputs_and_gradients(model, x)
    with plain_forms():
        plain = outputs_and_gradients(model, x)
    assert_all_close(fast, plain, tolerance=1e-3)


@every_small_network
def test_half_and_double_precision_are_close_to_single(name):
    model = small(name).eval()
    x = patch(model)
    single = model(x).detach()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = model(x)
    # Runs; the values are not looked at, since oneDNN's weight gradient in bfloat16 of a volume of a few voxels, as at
    # the lowest level here, reads memory that nothing was written to (torch 2.13).
    mixed.float().square().mean().backward()
    assert (mixed.float() - single).norm() < 0.1 * single.norm()
    with torch.no_grad():
        double = model.double()(x.double())
    assert double.dtype == torch.float64
    assert (single - double).norm() < 1e-4 * double.norm()


@every_network
def test_some_but_not_all_parameters_encode(name):
    with torch.device("meta"):
        model = small(name)
    own = {id(parameter) for parameter in model.parameters()}
    encoding = [id(parameter) for parameter in model.encoder_parameters()]
    assert len(encoding) == len(set(encoding))
    assert set() < set(encoding) < own


every_pretrainable_network = pytest.mark.parametrize(
    "name", [name for name in _different() if NETWORKS[name].pretrainable]
)


@every_pretrainable_network
def test_features_are_what_the_head_sees_with_deep_supervision_or_without(name):
    model = small(name, **with_all_heads(name)).eval()
    x = patch(model, batch=2)
    with torch.no_grad():
        logits = as_list(model(x))[0]
        supervised = model.features(x)
        model.deep_supervision = False
        features = model.features(x)
        alone = model(x)
    assert features.shape == (2, model.feature_channels, *x.shape[2:])
    assert torch.equal(features, supervised)
    assert torch.equal(alone, logits)
    # A ULKANet's forward pass does not concatenate what its features have in one.
    exact = not isinstance(model, ULKANet)
    torch.testing.assert_close(model.classify(features), logits, **({"rtol": 0, "atol": 0} if exact else {}))


@every_pretrainable_network
def test_encodings_have_the_lowest_resolution(name):
    model = small(name).eval()
    x = patch(model, batch=2)
    with torch.no_grad():
        whole, *of_parts = model.encode(x)
    assert whole.ndim == 5
    assert whole.shape[0] == 2
    assert whole.shape[2:] == tuple(n // step for n, step in zip(x.shape[2:], model.divisor, strict=True))
    assert len(of_parts) == (4 if isinstance(model, LoGoNet) else 0)  # 1 x 2 x 2 parts
    assert all(part.shape[0] == 2 for part in of_parts)


@every_pretrainable_network
@pytest.mark.parametrize("part", PARTS)
def test_gradients_of_features_and_encodings_reach_their_part_and_nothing_else(name, part):
    model = small(name, **with_all_heads(name)).double().train()
    x = patch(model, batch=2).double()
    outputs = [model.features(x)] if part == "all" else model.encode(x)
    loss_of(model, outputs).backward()
    gradients = {key: parameter.grad for key, parameter in model.named_parameters() if parameter.grad is not None}
    named = part_parameters(model, part)
    assert gradients.keys() == named
    assert named < dict(model.named_parameters()).keys()
    if part == "encoder":
        encoding = {id(parameter) for parameter in model.encoder_parameters()}
        assert {id(dict(model.named_parameters())[key]) for key in named} <= encoding
        return
    inert, largest = inert_parameters(model), max(float(gradient.abs().max()) for gradient in gradients.values())
    still = {key for key, gradient in gradients.items() if float(gradient.abs().max()) < 1e-12 * largest}
    assert {key for key in still if not inert(key)} == set()


@pytest.mark.parametrize("name", [name for name in _different() if not NETWORKS[name].pretrainable])
def test_other_networks_say_that_they_cannot_be_pretrained_and_which_can(name):
    with torch.device("meta"):
        model = small(name)
    x = torch.empty(1, 1, *fitting_size(model), device="meta")
    for ask in (model.features, model.encode, model.classify, lambda _: model.feature_channels):
        with pytest.raises(ConfigError, match=rf"{type(model).__name__} cannot be pre-trained.*mednext_s, .*logonet"):
            ask(x)


@every_small_network
def test_one_patch_is_learned_by_heart(name):
    model = small(name).train()
    size = model.image_size or (*model.divisor[:-1], 2 * model.divisor[-1])
    target = torch.zeros(1, *size, dtype=torch.long)
    target[..., size[-1] // 2 :] = 1  # the right half, a little brighter than the left one
    x = torch.randn(1, 1, *size) + target.unsqueeze(1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(80):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), target)
        (loss if model.auxiliary_loss is None else loss + model.auxiliary_loss).backward()
        optimizer.step()
        if loss < 0.1:
            return
    pytest.fail(f"the loss is still {loss:.2f}")


@pytest.fixture(scope="module")
def one_table_of_operators() -> Iterator[None]:
    """torch.onnx builds its table of all operators anew in each export, a third of its time: here once for all."""
    try:
        from torch.onnx._internal.exporter._registration import ONNXRegistry
    except ImportError:  # another torch: only time is lost
        yield
        return
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ONNXRegistry, "from_torchlib", staticmethod(cache(ONNXRegistry.from_torchlib)))
        yield


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning")  # of torch's own exporter
@pytest.mark.usefixtures("one_table_of_operators")
@every_small_network
def test_exported_programs_and_onnx_files_give_the_same(name):
    onnxruntime = pytest.importorskip("onnxruntime")
    model = small(name).eval()
    x = patch(model)
    with torch.no_grad():
        expected = model(x)
        program = torch.export.export(model, (x,))
        assert_all_close([("logits", program.module()(x))], [("logits", expected)], tolerance=1e-4)
    file = io.BytesIO()
    torch.onnx.export(program, (x,), dynamo=True, verbose=False).save(file)
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    assert_all_close([("logits", torch.from_numpy(logits))], [("logits", expected)], tolerance=1e-4)


@pytest.mark.gpu
@every_small_network
def test_a_gpu_computes_what_the_cpu_computes(name):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    model = small(name, **with_all_heads(name)).eval()
    x = patch(model, batch=2)
    cpu = outputs_and_gradients(model, x)
    gpu = outputs_and_gradients(model.cuda(), x.cuda())
    assert_all_close([(key, tensor.cpu()) for key, tensor in gpu], cpu, tolerance=5e-3)


OPTIONS: dict[str, dict[str, list[Any]]] = {
    "mednext_s": {
        "width": [6],
        "expansion": [3],
        "blocks": [2],
        "kernel_size": [5, (3, 3, (1, 3, 3), 3, 3)],
        "strides": [((1, 2, 2), 2, 2, 2)],
        "deep_supervision": [True],
        "residual": [False],
        "resampling": ["standard"],
        "residual_resampling": [False],
        "norm": ["layer"],
        "grn": [True],
        "spatial_dims": [2],
        "checkpointing": [True],
    },
    "uxnet": {
        "features": [(6, 6, 8, 10)],
        "hidden": [12],
        "depths": [(1, 2, 1, 1)],
        "kernel_size": [5, (3, 5, 3, 3)],
        "stem_kernel": [5],
        "residual_kernel": [((1, 3, 3), 3, 3, 3, 3)],
        "strides": [((1, 2, 2), 2, 2, 2)],
        "block": ["paper"],
        "scaling": ["mlp", "none"],
        "depthwise": [False],
        "layer_scale": [None, 0.5],
        "drop_path": [0.5],
        "transition_norm": [False],
        "output_norm": [False],
        "bottleneck": ["conv", "none"],
        "deep_supervision": [True],
    },
    "e2enet": {
        "width": [6],
        "max_width": [12],
        "strides": [(1, (1, 2, 2), 2, 2), (1, 2, 2)],
        "kernel": [3, (3, 1, 3)],
        "inner_kernel": [3],
        "shift": [(-2, -1, 0, 1, 2), ()],
        "shift_axis": ["H", "W"],
        "shift_input": [False],
        "last_convs": [1],
        "concatenation": ["above-own-below"],
        "sparsity": [0.0, 0.9],
        "sparse_up": [False],
        "num_heads": [3],
        "deep_supervision": [True],
        "checkpointing": [True],
    },
    "ulkanet": {
        "dims": [(6, 6)],
        "depths": [(1, 2)],
        "mlp_ratios": [(2, 3)],
        "residual": ["prenorm", "released"],
        "mlp_pre_gelu": [True],
        "feature_channels": [3],
        "strides": [((1, 2, 2), 2, 2)],
        "kernels": [((1, 3, 3), 3, 3, 3)],
    },
    "logonet": {
        "dims": [(6, 6)],
        "depths": [(1, 2)],
        "mlp_ratios": [(2, 3)],
        "residual": ["prenorm", "released"],
        "mlp_pre_gelu": [True],
        "feature_channels": [3],
        "strides": [((1, 2, 2), 2, 2)],
        "kernels": [((1, 3, 3), 3, 3, 3)],
        "cubes_per_axis": [2],
        "local_stages": [2],
        "share_local": [True],
        "local_execution": ["batch"],
    },
}
"""Values of every option of the published networks, each of which must change something."""
CHANGE_COST_ALONE = {"checkpointing", "local_execution"}
"""Options with which the same numbers are computed in another way."""


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_of_the_published_networks_is_tried(name):
    fields = {field.name for field in dataclasses.fields(NETWORKS[name].config)}
    assert set(OPTIONS[name]) == fields - {"in_channels", "num_classes"}


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [(name, option, value) for name in OPTIONS for option, values in OPTIONS[name].items() for value in values],
)
def test_every_option_changes_the_parameters_the_output_or_the_cost(name, option, value):
    others = {"deep_supervision": True} if option == "num_heads" else {}
    plain, changed = small(name, **others), small(name, **others, **{option: value})
    shapes = [{key: tensor.shape for key, tensor in model.state_dict().items()} for model in (plain, changed)]
    larger = max(plain, changed, key=lambda model: prod(fitting_size(model)))
    x = patch(larger if shapes[0] == shapes[1] else changed, batch=2)
    loss_of(changed, changed.train()(x)).backward()
    if shapes[0] != shapes[1]:
        assert option not in CHANGE_COST_ALONE
        return
    found = []
    for model in (plain, changed):
        torch.manual_seed(0)  # of what is dropped
        found.append([("output", output.detach()) for output in as_list(model.train()(x))])
    if option in CHANGE_COST_ALONE:
        assert_all_close(found[1], found[0], tolerance=1e-4)
        size = x.shape[2:]
        costs = [(operations(model, size), count(model, size)) for model in (plain, changed)]
        assert costs[0] != costs[1]
    else:
        assert any(not torch.allclose(one, other, rtol=1e-3) for (_, one), (_, other) in zip(*found, strict=True))
