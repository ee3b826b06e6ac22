import json

import pytest
import torch
from safetensors.torch import load_file

from voxelseg.ops.depth_shift import depth_shift, depth_shift_plain
from voxelseg.ops.dispatch import plain_forms

OFFSETS = {3: (-1, 0, 1), 5: (-2, -1, 0, 1, 2)}


@pytest.mark.parametrize("case", range(7))
def test_shifts_are_those_of_the_authors_code(golden_data, case):
    tensors = load_file(golden_data / "e2enet_a_shared_ops.safetensors")
    facts = json.loads((golden_data / "e2enet_a_shared_ops.json").read_text())["depth_shift"][case]
    x, expected = tensors[f"shift.{case}.input"], tensors[f"shift.{case}.output"]
    offsets = OFFSETS[facts["chunks"]]
    torch.testing.assert_close(depth_shift([x], offsets), expected, rtol=0, atol=0)
    torch.testing.assert_close(depth_shift_plain([x], offsets), expected, rtol=0, atol=0)


def test_a_negative_offset_moves_content_to_lower_planes_and_nothing_wraps():
    x = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 1, 4, 1, 1).repeat(1, 3, 1, 1, 1)
    moved = depth_shift([x], (-1, 0, 2)).view(3, 4)
    assert moved.tolist() == [[2.0, 3.0, 4.0, 0.0], [1.0, 2.0, 3.0, 4.0], [0.0, 0.0, 1.0, 2.0]]


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("offsets", [(-1, 0, 1), (-2, -1, 0, 1, 2), (-3, 0, 3), (4,), (0,), ()])
@pytest.mark.parametrize("widths", [(1,), (4,), (5, 3), (4, 2, 6)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_copying_slices_agrees_with_rolling(axis, offsets, widths, layout):
    torch.manual_seed(0)
    parts = [torch.randn(2, width, 3, 4, 5).contiguous(memory_format=layout).requires_grad_() for width in widths]
    out = depth_shift(parts, offsets, axis=axis)
    expected = depth_shift_plain(parts, offsets, axis=axis)
    torch.testing.assert_close(out, expected, rtol=0, atol=0)
    assert out.is_contiguous(memory_format=layout)
    grad = torch.randn_like(out)
    for one, other in zip(
        torch.autograd.grad(out, parts, grad), torch.autograd.grad(expected, parts, grad), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_gradients_are_computed_for_the_parts_that_need_them():
    fixed, learned = torch.randn(1, 2, 3, 2, 2), torch.randn(1, 3, 3, 2, 2, requires_grad=True)
    depth_shift([fixed, learned], (-1, 0, 1)).sum().backward()
    assert fixed.grad is None
    # 5 channels in chunks of 2, 2, 1: of the learned ones the first two stay, the last loses its last plane.
    assert learned.grad[0, :, :, 0, 0].tolist() == [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0], [1.0, 1.0, 0.0]]


def test_under_autocast_the_result_has_the_type_of_the_convolution_after_it():
    parts = [torch.randn(1, 2, 3, 2, 2, requires_grad=True), torch.randn(1, 3, 3, 2, 2).bfloat16().requires_grad_()]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = depth_shift(parts, (-1, 0, 1))
    assert out.dtype == torch.bfloat16
    out.float().sum().backward()
    assert [part.grad.dtype for part in parts] == [torch.float32, torch.bfloat16]
    assert depth_shift([part.detach() for part in parts], (-1, 0, 1)).dtype == torch.float32


def test_under_autocast_double_precision_stays_as_the_convolution_after_it_leaves_it():
    parts = [torch.randn(1, 2, 3, 2, 2), torch.randn(1, 3, 3, 2, 2).double()]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert depth_shift(parts, (-1, 0, 1)).dtype == torch.float64


def test_a_compiler_gets_the_plain_form():
    with plain_forms():
        out = depth_shift([torch.randn(1, 3, 4, 2, 2, requires_grad=True)], (-1, 0, 1))
    assert "DepthShift" not in type(out.grad_fn).__name__
