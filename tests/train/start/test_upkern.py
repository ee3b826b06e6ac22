import json

import pytest
import torch
from safetensors.torch import load_file

from voxelseg.errors import CheckpointError
from voxelseg.nets import create_model
from voxelseg.nets.official import convert
from voxelseg.train.start.upkern import grow_kernels


def test_golden_kernels_grow_as_the_authors_grow_them(golden_data):
    tensors = load_file(golden_data / "mednext_upkern_small.safetensors")
    facts = json.loads((golden_data / "mednext_upkern_small.json").read_text())
    small, large = (
        convert("mednext", {key.removeprefix(prefix): tensors[key] for key in tensors if key.startswith(prefix)})
        for prefix in ("source_state_dict.", "state_dict.")
    )
    options = {"width": 8, "blocks": 1, "expansion": 2, "deep_supervision": True, "in_channels": 1, "num_classes": 3}
    model = create_model("mednext_s", kernel_size=5, **options)
    grown = grow_kernels(small, model.state_dict())
    assert grown.keys() == large.keys()
    for key, value in grown.items():
        torch.testing.assert_close(value, large[key], msg=key)
    model.load_state_dict(grown)
    source = create_model("mednext_s", kernel_size=3, **options)
    source.load_state_dict(small)
    with torch.no_grad():
        for index, (output, before) in enumerate(zip(model(tensors["input"]), source(tensors["input"]), strict=True)):
            tolerance = {"rtol": 1e-4, "atol": facts["suggested_tolerance"]["atol"][index]}
            torch.testing.assert_close(output, tensors[f"output_{index}"], **tolerance)
            torch.testing.assert_close(before, tensors[f"source_output_{index}"], **tolerance)


@pytest.mark.parametrize("dims", [2, 3])
def test_three_taps_become_five_by_linear_interpolation_per_axis(dims):
    # Without aligned corners, tap i of 5 lies at 0.6 i - 0.2 of 3: the rows below.
    matrix = torch.tensor([[1, 0, 0], [0.6, 0.4, 0], [0, 1, 0], [0, 0.4, 0.6], [0, 0, 1.0]])
    small = torch.randn(4, 1, *(3,) * dims)
    expected = small
    for axis in range(2, 2 + dims):
        expected = torch.tensordot(expected, matrix, dims=([axis], [1])).movedim(-1, axis)
    grown = grow_kernels({"depthwise.weight": small}, {"depthwise.weight": torch.empty(4, 1, *(5,) * dims)})
    torch.testing.assert_close(grown["depthwise.weight"], expected)


def test_flat_kernels_grow_in_plane_only_and_other_levels_on_all_axes():
    options = {"in_channels": 1, "num_classes": 2, "width": 2, "blocks": 1, "strides": ((1, 2, 2), 2, 2, 2)}
    small = create_model("mednext_s", **options, kernel_size=((1, 3, 3), 3, 3, 3, 3))
    large = create_model("mednext_s", **options, kernel_size=((1, 5, 5), (3, 5, 5), 5, 5, 5))
    grown = grow_kernels(small.state_dict(), large.state_dict())
    large.load_state_dict(grown)
    key = "encoder.0.0.depthwise.weight"
    in_plane = grow_kernels({key: small.state_dict()[key].squeeze(2)}, {key: torch.empty(2, 1, 5, 5)})
    torch.testing.assert_close(grown[key].squeeze(2), in_plane[key])
    middle = "encoder.1.0.depthwise.weight"  # slices of three taps stay the three slices
    slices = grow_kernels({middle: small.state_dict()[middle][:, :, 1]}, {middle: torch.empty(4, 1, 5, 5)})
    torch.testing.assert_close(grown[middle][:, :, 1], slices[middle])


def test_heads_may_differ_in_deep_supervision():
    options = {"in_channels": 1, "num_classes": 2, "width": 2, "blocks": 1}
    plain = create_model("mednext_s", **options)
    supervised = create_model("mednext_s", **options, kernel_size=5, deep_supervision=True)
    supervised.load_state_dict(grow_kernels(plain.state_dict(), supervised.state_dict()))
    assert torch.equal(supervised.heads[0].weight, plain.heads[0].weight)
    back = create_model("mednext_s", **options, kernel_size=7)
    back.load_state_dict(grow_kernels(supervised.state_dict(), back.state_dict()))


def test_networks_that_differ_in_more_are_refused():
    options = {"in_channels": 1, "num_classes": 2, "blocks": 1}
    small = create_model("mednext_s", width=2, **options)
    for other, message in (
        (create_model("mednext_s", width=4, **options), r"stem.weight is \(2, 1, 1, 1, 1\)"),
        (
            create_model("mednext_s", width=2, **options | {"blocks": 2}),
            "encoder.0.1.depthwise.weight is not in",
        ),
        (create_model("mednext_s", width=2, residual_resampling=False, **options), "is not in the large network"),
    ):
        with pytest.raises(CheckpointError, match=message):
            grow_kernels(small.state_dict(), other.state_dict())
