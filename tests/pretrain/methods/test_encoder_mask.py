import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "nets"))
from small import SMALL

from voxelseg.errors import ConfigError
from voxelseg.nets import create_model, pretrainable_models
from voxelseg.ops.dispatch import plain_forms
from voxelseg.pretrain.methods.encoder_mask import EncoderMask, _encoder_blocks

TRANSFORMERS = {"unetr"}  # its tokens have no place of their own in a volume
NETWORKS = [name for name in pretrainable_models() if not name.endswith(("_b", "_m", "_l", "_xl"))]


def small(name, **options):
    torch.manual_seed(0)
    return create_model(name, in_channels=1, num_classes=3, **{**SMALL[name], **options}).eval()


def scene(network):
    """An image of the smallest fitting size with three parts along each axis, and which voxels are visible."""
    size = network.image_size or tuple(2 * step for step in network.divisor)
    generator = torch.Generator().manual_seed(0)
    visible = torch.zeros(2, 1, *size)
    visible[0, :, : size[0] // 2, :, size[2] // 2 :] = 1
    visible[1, :, :, size[1] // 2 :] = 1
    return torch.randn(2, 1, *size, generator=generator) * visible, visible


@pytest.mark.parametrize("name", [name for name in NETWORKS if name not in TRANSFORMERS])
def test_the_deepest_features_are_zero_where_nothing_is_visible_and_only_there(name):
    network = small(name)
    image, visible = scene(network)
    EncoderMask(network).show(visible)
    with torch.no_grad():
        features = network.encode(image)
    if name.startswith("logonet"):
        features = features[:1]  # those of parts are looked at below
    for deepest in features:
        seen = torch.nn.functional.adaptive_max_pool3d(visible, deepest.shape[2:]).expand_as(deepest) > 0
        assert not deepest[~seen].any()
        assert deepest[seen].any()


@pytest.mark.parametrize("name", NETWORKS)
def test_features_depend_on_the_mask_and_are_as_before_without_it(name):
    network = small(name)
    image, visible = scene(network)
    with torch.no_grad():
        before = network.features(image)
        mask = EncoderMask(network)
        assert torch.equal(network.features(image), before)
        mask.show(visible)
        assert not torch.equal(network.features(image), before)
        mask.show(None)
        assert torch.equal(network.features(image), before)


@pytest.mark.parametrize("name", ["unet_s", "mednext_s", "ulkanet", "e2enet", "uxnet"])
def test_fast_and_plain_forms_are_masked_alike(name):
    network = small(name)
    image, visible = scene(network)
    EncoderMask(network).show(visible)
    with torch.no_grad():
        fast = network.features(image)
        with plain_forms():
            plain = network.features(image)
    torch.testing.assert_close(fast, plain, rtol=1e-3, atol=1e-4)


def parts_of(network, image, visible):
    EncoderMask(network).show(visible)
    with torch.no_grad():
        return network.encode(image)[1:]


@pytest.mark.parametrize("shared", [False, True])
def test_each_local_network_of_a_logonet_sees_the_mask_of_its_part(shared):
    network = small("logonet", share_local=shared)  # parts along H and W, W fastest
    image, _ = scene(network)
    visible = torch.ones_like(image)
    visible[0, :, :, : image.shape[3] // 2, image.shape[4] // 2 :] = 0  # all of the second part, of one sample
    parts = parts_of(network, image * visible, visible)
    assert len(parts) == 4
    assert not parts[1][0].any()
    assert all(part[1].any() for part in parts)
    assert all(parts[number][0].any() for number in (0, 2, 3))


@pytest.mark.parametrize(("shared", "execution", "remedy"), [(False, "batch", "loop"), (True, "loop", "batch")])
def test_local_networks_whose_parts_cannot_be_told_apart_are_refused(shared, execution, remedy):
    network = small("logonet", share_local=shared, local_execution=execution)
    with pytest.raises(ConfigError, match=f"local_execution={execution}.*auto or {remedy}"):
        EncoderMask(network)


def test_only_blocks_of_the_encoder_are_masked():
    network = small("unet_s")
    blocks = {id(block) for block, _ in _encoder_blocks(network)}
    assert blocks == {id(block) for stage in network.encoder for block in stage}


def test_a_voxel_larger_than_blocks_is_seen_if_any_of_them_is():
    network = small("unet_s")  # 8 voxels become one
    visible = torch.zeros(1, 1, 16, 16, 16)
    visible[:, :, 0, 0, 0] = 1
    EncoderMask(network).show(visible)
    with torch.no_grad():
        (deepest,) = network.encode(visible)
    assert deepest[:, :, 0, 0, 0].any()
    assert not deepest[:, :, 1:].any()
