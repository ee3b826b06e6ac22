import json
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from voxelseg.errors import CheckpointError, ConfigError, DataError
from voxelseg.nets.e2enet import PRINTED, RELEASED_SHIFT, E2ENet, E2ENetConfig, paper_cost, sparse_cost
from voxelseg.nets.kernel_masks import MASK, num_active, sparse_weights
from voxelseg.nets.official import convert, load_official
from voxelseg.ops.dispatch import plain_forms

SHIFTS = {"shift5": RELEASED_SHIFT, "shift3": (-1, 0, 1), "noshift": ()}
TEXT_STRIDES = ((1, 1, 1), (1, 2, 2), *((2, 2, 2),) * 4)


def small(**options: object) -> E2ENet:
    torch.manual_seed(0)
    settings = {"in_channels": 2, "num_classes": 3, "width": 4, "max_width": 10, "strides": (1, 2, 2, 2)}
    return E2ENet(E2ENetConfig(**{**settings, "sparsity": 0.6, **options}))


def patch(batch: int = 1, *, channels: int = 2) -> Tensor:
    return torch.randn(batch, channels, 8, 16, 24, generator=torch.Generator().manual_seed(1))


def golden(folder: Path, shift: tuple[int, ...]) -> tuple[E2ENet, dict[str, Tensor]]:
    tensors = load_file(folder / "e2enet_a_shared.safetensors")
    facts = json.loads((folder / "e2enet_a_shared.json").read_text())
    config = E2ENetConfig(
        in_channels=facts["in_channels"],
        num_classes=facts["num_classes"],
        width=facts["base_features"],
        max_width=facts["max_features"],
        strides=((1, 1, 1), *facts["pool_kernels"]),
        kernel=facts["conv_kernel"],
        sparsity=facts["sparsity"],
        shift=shift,
        deep_supervision=True,
    )
    model = E2ENet(config)
    official = {key.removeprefix("state."): value for key, value in tensors.items() if key.startswith("state.")}
    model.load_state_dict(convert("e2enet", official), strict=True)
    return model.eval(), tensors


@pytest.mark.parametrize("name", SHIFTS)
@pytest.mark.parametrize("forms", [nullcontext, plain_forms])
def test_outputs_are_those_of_the_authors_code(golden_data, name, forms):
    model, tensors = golden(golden_data, SHIFTS[name])
    with torch.no_grad(), forms():
        outputs = model(tensors["input"])
    assert len(outputs) == 4
    for number, output in enumerate(outputs):
        torch.testing.assert_close(output, tensors[f"output.{name}.{number}"], rtol=0, atol=2e-4)


def test_masks_are_those_that_the_authors_code_drew(golden_data):
    model, tensors = golden(golden_data, RELEASED_SHIFT)
    masks = {key.removeprefix("mask."): mask.bool() for key, mask in tensors.items() if key.startswith("mask.")}
    assert len(masks) == len(model.sparse_layers()) == 35
    own = model.state_dict()
    for key, mask in masks.items():
        (name,) = (name for name in convert("e2enet", {key: torch.ones(1, 1, 1)}) if name.endswith("weight"))
        assert torch.equal(own[name.removesuffix("weight") + MASK], mask)
        assert int(mask.sum()) == num_active(mask.numel(), 0.8)


def test_fast_forms_have_the_gradients_of_the_authors_network(golden_data):
    """The plain forms in double precision are the authors' operations one by one."""
    model, tensors = golden(golden_data, RELEASED_SHIFT)
    results = []
    for dtype, forms in ((torch.float32, nullcontext), (torch.float64, nullcontext), (torch.float64, plain_forms)):
        model.to(dtype).zero_grad()
        x = tensors["input"].to(dtype, copy=True).requires_grad_()
        with forms():
            loss = sum(output.square().mean() for output in model(x))
        loss.backward()
        gradients = {key: p.grad.double() for key, p in model.named_parameters() if not key.endswith("conv.bias")}
        results.append({"input": x.grad.double(), **gradients})
    *fast, plain = results
    for found, tolerance in zip(fast, (1e-3, 1e-9), strict=True):
        for key, gradient in found.items():
            assert (gradient - plain[key]).norm() < tolerance * plain[key].norm(), key


def test_weights_of_the_authors_load_without_the_heads_below_full_resolution(golden_data):
    tensors = load_file(golden_data / "e2enet_a_shared.safetensors")
    official = {"module." + key[6:]: value for key, value in tensors.items() if key.startswith("state.")}
    model = small(width=8, max_width=20, strides=TEXT_STRIDES, shift=RELEASED_SHIFT)
    report = load_official(model, "e2enet", {"state_dict": official})
    assert report.left_out == ("heads.1.weight", "heads.2.weight", "heads.3.weight")
    assert len(report.matched) == len(model.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(model(tensors["input"]), tensors["output.shift5.0"], rtol=0, atol=2e-4)


def test_names_of_other_networks_are_refused():
    with pytest.raises(CheckpointError, match="conv_blocks_localization"):
        convert("e2enet", {"conv_blocks_localization.0.0.weight": torch.zeros(1)})


@pytest.mark.parametrize(
    ("sparsity", "amos", "brats"),
    [  # millions of parameters and G of operations, as reproduced on the authors' code; the paper has two digits less
        (0.0, (23.8991, 3069.55), (23.8925, 3071.78)),
        (0.7, (11.2520, 1064.82), (11.2454, 1067.06)),
        (0.8, (9.4454, 778.74), (9.4388, 780.98)),
        (0.9, (7.6386, 492.28), (7.6320, 494.52)),
    ],
)
def test_parameters_and_operations_are_those_that_the_papers_formula_gives(sparsity, amos, brats):
    for channels, classes, expected in ((1, 16, amos), (4, 4, brats)):
        config = E2ENetConfig(in_channels=channels, num_classes=classes, sparsity=sparsity)
        parameters, operations = paper_cost(config, (128, 128, 128))
        assert (round(parameters / 1e6, 4), round(operations / 1e9, 2)) == expected


@pytest.mark.parametrize("printed", PRINTED, ids=lambda printed: f"{printed.where}, {printed.gflops} G")
def test_printed_costs_are_met(printed):
    config = E2ENetConfig(in_channels=printed.in_channels, num_classes=printed.num_classes, **printed.options)
    parameters, operations = paper_cost(config, printed.size)
    assert parameters / 1e6 == pytest.approx(printed.parameters_m, rel=5e-3)
    tolerance = 0.1 if printed.note else 1e-4
    assert operations / 1e9 == pytest.approx(printed.gflops, rel=tolerance)


def test_true_costs_count_transposed_convolutions_where_they_read():
    # As specified for 1 x 128^3, 16 classes and all heads: 2 * macs = 2025, 751, 569 and 387 G.
    costs = [
        sparse_cost(
            E2ENetConfig(in_channels=1, num_classes=16, sparsity=sparsity, deep_supervision=True), (128, 128, 128)
        )[1]
        for sparsity in (0.0, 0.7, 0.8, 0.9)
    ]
    assert [round(2 * macs / 1e9) for macs in costs] == [2025, 751, 569, 387]


def test_a_dense_network_costs_what_it_holds():
    config = E2ENetConfig(in_channels=1, num_classes=14, sparsity=0.0, deep_supervision=True)
    with torch.device("meta"):
        model = E2ENet(config)
    held = sum(parameter.numel() for parameter in model.parameters())
    assert held == paper_cost(config, (32, 32, 32))[0] == sparse_cost(config, (32, 32, 32))[0] == 23_897_776


def test_heads_that_are_not_asked_for_cost_nothing():
    config = E2ENetConfig(in_channels=1, num_classes=14)
    all_heads = sparse_cost(E2ENetConfig(in_channels=1, num_classes=14, deep_supervision=True), (32, 32, 32))
    alone = sparse_cost(config, (32, 32, 32))
    # Heads of 96, 192 and 320 channels on 16^3, 8^3 and 4^3 voxels, 14 classes.
    assert all_heads[1] - alone[1] == 14 * (96 * 16**3 + 192 * 8**3 + 320 * 4**3)
    assert all_heads[0] == alone[0]


def test_sparse_layers_are_the_fusion_nodes_and_the_transposed_convolutions():
    model = small(sparsity=0.7, deep_supervision=True)
    # Four levels: three stages of 3, 2 and 1 nodes, of which the last of each has two convolutions.
    assert len(model.sparse_layers()) == (6 + 3) + 6
    assert set(sparse_weights(model)) == set(model.sparse_layers())
    for name, (weight, mask) in sparse_weights(model).items():
        assert int(mask.sum()) == num_active(mask.numel(), 0.7), name
        assert not weight[~mask].any()
    dense_up = small(sparsity=0.7, sparse_up=False)
    assert all(name.startswith("fusion.") for name in sparse_weights(dense_up))
    assert all(up.weight.all() for stage in dense_up.up for up in stage)


def test_a_dense_network_names_no_sparse_layers():
    assert small(sparsity=0.0).sparse_layers() == []


@pytest.mark.parametrize("concatenation", ["own-below-above", "above-own-below"])
def test_fusion_nodes_say_which_channels_come_from_where(concatenation):
    """Each source in turn is set to zero, and the node's input must change in just the channels it is said to fill."""
    model = small(width=2, max_width=6, strides=(1, 2, 2, 2), concatenation=concatenation)
    nodes = {node.name: node for node in model.fusion_nodes()}
    assert list(nodes) == ["x[1,0]", "x[1,1]", "x[1,2]", "x[2,0]", "x[2,1]", "x[3,0]"]
    assert set(nodes["x[1,0]"].sources) == {"forward", "up"}
    node = nodes["x[2,1]"]
    assert node.layer == "fusion.1.1.0.conv"
    block, seen = model.get_submodule("fusion.1.1.0"), {}
    block.register_forward_pre_hook(lambda module, parts: seen.update(x=torch.cat(parts, dim=1).detach()))
    sources = {"forward": "fusion.0.1", "up": "fusion.0.2", "down": "fusion.0.0"}
    x = patch()
    model(x)
    whole = seen["x"]
    for direction, source in sources.items():
        last = model.get_submodule(source)[-1]
        cut = last.register_forward_hook(lambda module, inputs, output: torch.zeros_like(output))
        model(x)
        cut.remove()
        changed = (seen["x"] != whole).flatten(2).any(2).any(0).nonzero().flatten().tolist()
        assert changed
        assert set(changed) <= set(node.sources[direction])
    assert sorted(channel for channels in node.sources.values() for channel in channels) == list(range(4 + 4 + 2))


def test_weights_do_not_depend_on_the_sparsity():
    dense, sparse = small(sparsity=0.0), small(sparsity=0.8)
    assert all(mask.all() for _, mask in sparse_weights(dense).values())
    for (weight, _), (masked, mask) in zip(
        sparse_weights(dense).values(), sparse_weights(sparse).values(), strict=True
    ):
        assert torch.equal(weight[mask], masked[mask])


def test_training_steps_leave_inactive_kernels_and_their_momentum_at_zero():
    model = small(deep_supervision=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-3)
    for _ in range(2):
        optimizer.zero_grad()
        sum(output.square().mean() for output in model(patch())).backward()
        optimizer.step()
        model.after_step(optimizer)
    for weight, mask in sparse_weights(model).values():
        assert not weight[~mask].any()
        assert not optimizer.state[weight]["momentum_buffer"][~mask].any()
        assert weight[mask].all()


def test_outputs_have_the_strides_of_an_anisotropic_plan():
    model = small(strides=((1, 1, 1), (1, 2, 2), (2, 2, 3)), deep_supervision=True, num_heads=2)
    assert model.divisor == (2, 4, 6)
    assert model.output_strides == [(1, 1, 1), (1, 2, 2)]
    outputs = model(torch.randn(3, 2, 4, 8, 12))
    assert [tuple(output.shape) for output in outputs] == [(3, 3, 4, 8, 12), (3, 3, 4, 4, 6)]
    model.deep_supervision = False
    torch.testing.assert_close(model(torch.zeros(1, 2, 4, 8, 12)).shape, torch.Size((1, 3, 4, 8, 12)))


@pytest.mark.parametrize(("levels", "heads"), [(2, 1), (3, 1), (4, 2), (6, 4)])
def test_every_node_of_the_last_diagonal_but_the_lowest_has_a_head(levels, heads):
    with torch.device("meta"):
        model = small(strides=(1,) + (2,) * (levels - 1), deep_supervision=True)
        outputs = model(torch.empty(1, 2, *(2 ** (levels - 1) * n for n in (1, 2, 3))))
    assert model.config.num_heads == heads
    assert len(outputs) == heads if heads > 1 else outputs.shape[1] == 3


def test_a_plan_gives_the_strides():
    strides, kernels = TEXT_STRIDES[:4], ((1, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3))
    assert E2ENetConfig.plan_options({}, strides, kernels) == {"strides": strides}


def test_a_plan_of_one_level_gets_a_second_one_of_the_same_resolution():
    planned = E2ENetConfig.plan_options({}, ((1, 1, 1),), ((3, 3, 3),))
    model = small(**planned)
    assert model.config.strides == ((1, 1, 1), (1, 1, 1))
    assert model(torch.randn(1, 2, 3, 4, 5)).shape == (1, 3, 3, 4, 5)


def test_with_few_planes_the_image_keeps_its_place_unless_the_user_wants_otherwise():
    """A single channel, moved by a voxel, would lose all of a volume of one plane."""
    strides = ((1, 1, 1), (1, 2, 2), (1, 2, 2))
    planned = E2ENetConfig.plan_options({}, strides, ((1, 3, 3), (1, 3, 3), (3, 3, 3)))
    assert planned == {"strides": strides, "shift_input": False}
    assert E2ENetConfig.plan_options({"shift_input": True}, strides, strides)["shift_input"]
    model = small(in_channels=1, **planned)
    x = torch.randn(2, 1, 1, 8, 12)
    assert not torch.allclose(model(x)[0], model(x)[1], rtol=1e-2)


@pytest.mark.parametrize(
    "options",
    [
        {"shift": RELEASED_SHIFT},
        {"shift": ()},
        {"shift": (-2, 0, 2)},
        {"shift_axis": "H"},
        {"shift_axis": "W"},
        {"shift_input": False},
        {"kernel": (3, 1, 3)},
        {"kernel": (3, 3, 1)},
        {"kernel": 3},
        {"inner_kernel": 3},
        {"last_convs": 1},
        {"concatenation": "above-own-below"},
        {"sparsity": 0.5},
        {"sparse_up": False},
        {"max_width": 8},
    ],
)
def test_every_option_changes_the_result_and_every_parameter_learns(options):
    reference, model = small(deep_supervision=True), small(**options, deep_supervision=True)
    outputs = model.double()(patch().double())
    sum(output.square().mean() for output in outputs).backward()
    largest = max(float(parameter.grad.abs().max()) for parameter in model.parameters())
    inert = [key for key, value in model.named_parameters() if value.grad.abs().max() < 1e-12 * largest]
    # The norm after each convolution removes its bias; nothing else is without effect.
    assert [key for key in inert if not key.endswith("conv.bias")] == []
    assert not torch.allclose(outputs[0], reference.double()(patch().double())[0], rtol=1e-2)


def test_volumes_of_few_planes_are_taken():
    model = small(strides=((1, 1, 1), (1, 2, 2), (1, 2, 2)))
    for depth in (1, 2, 3):
        assert model(torch.randn(1, 2, depth, 8, 12)).isfinite().all()


def test_a_kernel_one_number_wide_stands_for_all_axes():
    with torch.device("meta"):
        model = small(kernel=3, inner_kernel=(1, 3, 3))
    kernels = {name: layer.kernel_size for name, layer in model.fusion.named_modules() if hasattr(layer, "kernel_size")}
    assert kernels["0.2.0.conv"] == kernels["0.2.1.conv"] == (3, 3, 3)
    assert kernels["0.0.0.conv"] == kernels["0.1.0.conv"] == (1, 3, 3)
    assert E2ENetConfig(in_channels=1, num_classes=2, kernel=3).inner_kernel == (3, 3, 3)


def test_deep_supervision_without_heads_is_refused():
    with pytest.raises(ConfigError, match="Build it with deep_supervision=True"):
        small().deep_supervision = True


def test_sizes_that_do_not_fit_say_what_to_pad_to():
    with pytest.raises(DataError, match=r"Pad the input to \(8, 16, 24\)"):
        small()(torch.zeros(1, 2, 8, 16, 20))


def test_encoder_parameters_are_those_of_stage_zero():
    model = small(deep_supervision=True)
    names = {id(parameter): key for key, parameter in model.named_parameters()}
    assert {names[id(parameter)].split(".")[0] for parameter in model.encoder_parameters()} == {"encoder"}


def test_initial_weights_are_he_normal_and_biases_zero():
    model = small(width=32, max_width=64, sparsity=0.0)
    conv = model.encoder[0][1].conv
    assert conv.weight.std().item() == pytest.approx((2 / (1 + 0.01**2) / (9 * 32)) ** 0.5, rel=0.02)
    up = model.up[0][0]
    assert up.weight.std().item() == pytest.approx((2 / (1 + 0.01**2) / (8 * 32)) ** 0.5, rel=0.02)
    assert not conv.bias.any()


def test_one_patch_is_learned_by_heart_with_masked_kernels():
    model = small(in_channels=1, num_classes=2, width=8, max_width=16, strides=(1, 2, 2))
    x = patch(channels=1)
    target = (torch.nn.functional.avg_pool3d(x, 3, 1, 1)[:, 0] > 0).long()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(60):
        loss = torch.nn.functional.cross_entropy(model(x), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        model.after_step(optimizer)
    assert loss.item() < 0.2
    assert all(not weight[~mask].any() for weight, mask in sparse_weights(model).values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strides": (2, 2)}, "the first with stride 1"),
        ({"strides": (1,)}, "at least two levels"),
        ({"strides": (1, (2, 2))}, "three of them"),
        ({"kernel": 2}, "odd"),
        ({"kernel": (1, 3)}, "three of them"),
        ({"inner_kernel": (1, 2, 3)}, "inner_kernel.*odd"),
        ({"shift": 1}, "whole numbers"),
        ({"shift": (-1, 0, 0.5)}, "whole numbers"),
        ({"shift_axis": "Z"}, "'D', 'H', 'W'"),
        ({"concatenation": "own"}, "'own-below-above', 'above-own-below'"),
        ({"sparsity": 1}, "from 0 up to but not including 1"),
        ({"sparsity": -0.1}, "from 0 up to but not including 1"),
        ({"sparsity": True}, "from 0 up to but not including 1"),
        ({"sparsity": 0.98}, r"fusion\.2\.0\.1\.conv .* none of its 16 kernels"),
        ({"num_heads": 4}, "with 4 levels there can be 3"),
        ({"num_heads": 0}, "positive integer"),
        ({"last_convs": 0}, "positive integer"),
        ({"width": 0}, "positive integer"),
        ({"sparse_up": "no"}, "true or false"),
        ({"shift_input": 1}, "true or false"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        small(**options)
