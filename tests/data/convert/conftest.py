"""A look-alike of each public data set."""

from pathlib import Path

import pytest
from look_alikes import MAKERS


@pytest.fixture
def look_alike(tmp_path):
    """Function that writes the look-alike of a public data set and returns the folder to convert."""

    def make(name: str) -> Path:
        return MAKERS[name](tmp_path / "download")

    return make
