import re
from pathlib import Path

import pytest

import voxelseg.data
from voxelseg.data import Problem
from voxelseg.data.codes import CODES

DATA = Path(voxelseg.data.__file__).parent
PAGE = Path(__file__).resolve().parents[2] / "docs/reference/checks.md"


def test_the_page_shows_every_code_with_its_severity_and_meaning():
    rows = re.findall(r"^\| `(.+)` \| (.+) \| (.+) \|$", PAGE.read_text(), re.MULTILINE)
    assert rows == [(code, severity, meaning) for code, (severity, meaning) in CODES.items()]


@pytest.mark.parametrize("code", CODES)
def test_every_code_is_in_use(code):
    sources = "".join(path.read_text() for path in DATA.rglob("*.py") if path.name != "codes.py")
    by_kind = {f"{kind}-mismatch" for kind in ("shape", "spacing", "origin", "direction")}
    assert f'"{code}"' in sources or code in by_kind


def test_a_problem_has_one_of_these_codes():
    with pytest.raises(AssertionError, match="mispelt-code"):
        Problem("", "error", "mispelt-code", "", "")
