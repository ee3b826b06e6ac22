import json

import networks
import pytest

from voxelseg.nets import create_model


def test_monais_network_is_of_the_same_size():
    ours = create_model("mednext_s", num_classes=3, width=4, deep_supervision=True)
    theirs = networks.MONAI["mednext_s"]({"width": 4})
    assert sum(p.numel() for p in theirs.parameters()) == sum(p.numel() for p in ours.parameters())


@pytest.mark.slow
def test_a_tiny_network_is_measured_in_every_form(tmp_path, capsys):
    out = tmp_path / "rows.json"
    network = ["--network", '["unet_s", {"width": 2, "strides": [1, 2]}]', "--patch", "8", "8", "16"]
    networks.main(["--threads", "1", "--repeats", "1", "--out", str(out), *network])
    rows = json.loads(out.read_text())["rows"]
    assert [row["form"] for row in rows] == ["plain", "plain, kept", "fast, kept", "fast, fused"]
    assert all(row["forward_s"] > 0 and row["peak_mb"] > 10 for row in rows)
    assert [row["step_s"] is None for row in rows] == [False, False, False, True]
    assert "unet_s width=2" in capsys.readouterr().out
