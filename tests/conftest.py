"""Shared fixtures: real scans and reference numbers, used where they are present."""

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[1].parent / "shared"


def _present(name: str) -> Path:
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"{name} not present: real scans and reference numbers are not part of the repository")
    return folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real scans, or skip."""
    return _present("data")


@pytest.fixture(scope="session")
def golden_data() -> Path:
    """Folder of the authors' networks' numbers, or skip."""
    return _present("golden")
