import subprocess
import sys

import pytest
import torch
from torch import nn

from voxelseg.errors import ConfigError
from voxelseg.nets import create_model
from voxelseg.nets.baselines.monai_network import OnCpu, multiple_of


def test_monai_is_imported_by_the_first_network_that_needs_it_and_not_before():
    script = "import sys, voxelseg.nets; print('monai' in sys.modules, 'einops' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", script], text=True).split() == ["False", "False"]


@pytest.mark.parametrize("package", ["monai", "einops"])
def test_a_missing_package_is_named_with_what_to_install(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "monai.networks", raising=False)
    with pytest.raises(ConfigError, match=rf'{package}.* is not installed.*pip install "voxelseg\[baselines\]"'):
        create_model("segresnet", in_channels=1, num_classes=2)


def test_tables_are_on_the_cpu_where_a_default_device_has_no_values():
    with torch.device("meta"), OnCpu(torch.linspace):
        assert torch.linspace(0, 1, 3).tolist() == [0.0, 0.5, 1.0]
        assert torch.zeros(3).is_meta


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vnet", {"width": 2}),
        ("attention_unet", {"channels": (4, 6, 8), "strides": (2, 2)}),
        ("unet3d_residual", {"channels": (4, 6, 8), "strides": (2, 2), "norm": "batch"}),
    ],
)
def test_batch_norms_are_folded_without_changing_what_the_network_says(name, options):
    torch.manual_seed(0)
    model = create_model(name, in_channels=1, num_classes=2, **options).train()
    x = torch.randn(2, 1, 48, 16, 32)
    model(x)  # running statistics that are not 0 and 1
    with torch.no_grad():
        expected = model.eval()(x)
        before = sum(isinstance(module, nn.BatchNorm3d) for module in model.modules())
        model.fuse()
        torch.testing.assert_close(model(x), expected, rtol=1e-3, atol=1e-4)
    assert sum(isinstance(module, nn.BatchNorm3d) for module in model.modules()) < before / 2


def test_sizes_that_are_no_multiples_are_refused():
    with pytest.raises(ConfigError, match=r"image_size = \(8, 12, 16\): expected multiples of 8"):
        multiple_of((8, 12, 16), 8)
