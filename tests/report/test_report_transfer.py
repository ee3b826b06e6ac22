import re

import pytest
from test_page import Checked

from voxelseg.errors import DataError
from voxelseg.files import write_json
from voxelseg.report import write_report

REPORT = {
    "path": "PRE/model.safetensors",
    "checksum": "0",
    "what": "mednext_s, pre-trained by mae",
    "share": 0.995,
    "matched": ["stem.weight", "stem.bias"],
    "fresh_heads": ["heads.0.weight"],
    "untrained": [],
    "warnings": ["Trained at other spacings."],
    "notes": ["Scans were seen."],
}


def test_the_report_of_a_run_says_which_tensors_moved(run_folder, tmp_path):
    write_json(run_folder / "fold_0" / "transfer.json", REPORT)
    page = Checked()
    page.feed(write_report(run_folder, tmp_path / "report.html").read_text(encoding="utf-8"))
    assert page.open == []
    words = re.sub(r"\s+", " ", " ".join(page.text))
    for part in (
        "Where the weights came from",
        "From PRE/model.safetensors (mednext_s, pre-trained by mae): 99.5% of the weights without heads.",
        "Taken 2 Heads, start fresh 1",
        "Trained at other spacings.",
        "stem.weight, stem.bias",
    ):
        assert part in words, part
    assert "not pre-trained" not in words


@pytest.mark.parametrize("damaged", [[], {"path": "PRE"}])
def test_a_damaged_record_of_a_transfer_is_named(run_folder, tmp_path, damaged):
    write_json(run_folder / "fold_0" / "transfer.json", damaged)
    with pytest.raises(DataError, match=r"transfer\.json of a fold is no record"):
        write_report(run_folder, tmp_path / "report.html")
