"""Documentation that is made from the code is up to date, and what pages point at exists."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").rglob("*.md")]


def test_configuration_page_matches_the_classes(tmp_path):
    script = (
        f"import sys; sys.path.insert(0, {str(ROOT / 'docs')!r}); import generate_reference as g; "
        "sys.exit(0 if g.PAGE.read_text() == g.page() else 'run: python docs/generate_reference.py')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_of_a_page_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
    missing = [target for target in targets if "://" not in target and not (page.parent / target).exists()]
    assert not missing


def test_readme_names_every_command():
    from voxelseg.cli import COMMANDS

    readme = (ROOT / "README.md").read_text()
    table = {line.split()[1].strip("`").split()[0] for line in readme.splitlines() if line.startswith("| `")}
    assert set(COMMANDS) - {"demo"} <= table
    assert "voxelseg demo" in readme


def test_readme_shows_the_lines_that_make_runs():
    readme = (ROOT / "README.md").read_text()
    recipe = [line.strip() for line in (ROOT / "Makefile").read_text().splitlines() if line.startswith("\t$(BIN)/")]
    for line in recipe:
        command = line.replace("$(BIN)", ".venv/bin").removeprefix(".venv/bin/")
        assert command in readme.replace(".venv/bin/", ""), command


def test_every_setting_says_what_it_means():
    lines = (ROOT / "docs/reference/configuration.md").read_text().splitlines()
    assert not [line for line in lines if line.endswith("|  |")]
