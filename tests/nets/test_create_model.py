import pytest

from voxelseg.errors import ConfigError, DataError
from voxelseg.nets import create_model, describe_models, list_models


def test_an_unknown_model_names_the_closest_and_all_known():
    with pytest.raises(ConfigError, match=r"'mednext-s' \(did you mean 'mednext_s'\?\)\. Known: mednext_xs, "):
        create_model("mednext-s", in_channels=1, num_classes=2)


def test_an_unknown_option_names_the_closest_and_all_known():
    with pytest.raises(ConfigError, match=r"no option 'kernel' \(did you mean 'kernel_size'\?\).*Known: in_channels"):
        create_model("mednext_s", in_channels=1, num_classes=2, kernel=5)


@pytest.fixture
def few_networks(only_networks):
    only_networks("mednext_s", "unet_s", "unetr", "transunet")


@pytest.mark.usefixtures("few_networks")
def test_models_are_described_without_being_built():
    begun: list[tuple[int, str]] = []
    described = {entry["name"]: entry for entry in describe_models(progress=lambda *news: begun.append(news))}
    assert list(described) == list_models()
    assert begun == list(enumerate(list_models()))
    assert described["mednext_s"]["parameters"] == 5_551_310
    # 128.05 G at 128^3, of which the transposed convolutions to 2n - 1 voxels grow a little faster than the volume
    assert described["mednext_s"]["macs"] / 1e9 == pytest.approx(128.05 * 27 / 64, rel=0.01)
    assert described["unet_s"]["divisor"] == [8, 8, 8]
    assert all(entry["summary"] and entry["source"] for entry in described.values())


@pytest.mark.usefixtures("few_networks")
def test_a_patch_that_a_network_cannot_take_is_replaced_by_the_next_larger_one():
    # unetr is built for its size, transunet takes slices, one voxel at the lowest level is doubled for the norms
    sizes = {entry["name"]: entry["size"] for entry in describe_models((16, 8, 20))}
    assert sizes == {
        "mednext_s": [16, 16, 32],
        "unet_s": [16, 8, 24],
        "unetr": [16, 16, 32],
        "transunet": [16, 32],
    }
    sizes = {entry["name"]: entry["size"] for entry in describe_models((16, 16, 16))}
    assert sizes == {
        "mednext_s": [16, 16, 32],
        "unet_s": [16, 16, 16],
        "unetr": [16, 16, 32],
        "transunet": [16, 32],
    }


@pytest.mark.parametrize("size", [(96, 96), (0, 96, 96), (96, 96, -1)])
def test_a_patch_without_voxels_or_axes_is_refused(size):
    with pytest.raises(DataError, match="expected one voxel or more along each of D, H, W"):
        describe_models(size)
