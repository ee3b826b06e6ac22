import json
from pathlib import Path

import memory
import pytest


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="reads memory from /proc")
def test_both_commands_are_measured_and_written_with_their_arguments(tiny_msd, tmp_path):
    arguments = [str(tiny_msd), "--out", str(tmp_path), "--minutes", "0.02", "--model", "unet_s"]
    for setting in ("model.width=4", "plan.patch_size=[16,24,16]", "train.workers=0", "train.validation_patches=2"):
        arguments += ["--set", setting]
    peaks = memory.main(arguments)
    assert [peak.command for peak in peaks] == ["train", "predict"]
    for peak in peaks:
        assert peak.beyond_imports_mb < 2000
        assert peak.imports_mb > 50  # pages shared with other tests count in part
        assert peak.largest_process_mb > 200  # torch alone is about that
    written = json.loads((tmp_path / "memory.json").read_text())
    assert written["arguments"] == arguments
    assert [peak["command"] for peak in written["peaks"]] == ["train", "predict"]
