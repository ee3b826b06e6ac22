"""Documentation that is made from the code is up to date, and what pages point at exists."""

import inspect
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_imports import STAGES
from typer.main import get_group

from voxelseg import cli
from voxelseg.commands.configuring import what_to_train
from voxelseg.geometry import Grid
from voxelseg.io import write_volume
from voxelseg.pretrain.config import build_pretraining
from voxelseg.volume import Volume

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").rglob("*.md")]


@pytest.mark.parametrize("page", ["configuration.md", "recipes.md", pytest.param("models.md", marks=pytest.mark.slow)])
def test_a_page_made_from_the_code_is_up_to_date(page):
    script = (
        f"import sys; sys.path.insert(0, {str(ROOT / 'docs')!r}); import generate_reference as g; "
        f"current = (g.FOLDER / {page!r}).read_text() == g.PAGES[{page!r}](); "
        "sys.exit(0 if current else 'run: python docs/generate_reference.py')"
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


def test_readme_leads_to_every_how_to_page():
    readme = (ROOT / "README.md").read_text()
    pages = [page.name for page in (ROOT / "docs" / "how-to").glob("*.md")]
    assert not [page for page in pages if f"(docs/how-to/{page})" not in readme]


def commands_of(page):
    """Words of every command of voxelseg in the blocks of a page, each without its options in brackets."""
    lines = re.findall(r"^    .*", page.read_text().replace("\\\n", " "), re.MULTILINE)
    found = [re.match(r"    (?:torchrun .* -m )?voxelseg (.+)", line) for line in lines]
    return [shlex.split(re.sub(r"\[--?[a-z][^]]*\]", "", match[1]), comments=True) for match in found if match]


@pytest.mark.parametrize("page", (ROOT / "docs" / "how-to").glob("*.md"), ids=lambda page: page.stem)
def test_commands_of_a_page_are_ones_that_can_be_given(page):
    app = get_group(cli.app)
    for name, *arguments in commands_of(page):
        command = app.commands[name]
        if name == "data":
            command = command.commands[arguments.pop(0)]
        with command.make_context(name, arguments) as context:
            given = context.params
        if name == "slurm":
            with app.commands["train"].make_context("train", given["arguments"]) as context:
                given = context.params
        if name == "pretrain":
            build_pretraining(given["method"], given["settings"] or [])
        if name in ("train", "slurm"):
            options = {key: given[key] for key in inspect.signature(what_to_train).parameters}
            what_to_train(**{**options, "settings": options["settings"] or []})


def test_python_lines_of_the_readme_run(tmp_path, monkeypatch):
    affine = np.diag([-0.7, 0.7, 2.5, 1.0])
    scan = Volume(np.ones((1, 6, 9, 8), np.int16), Grid(shape_ijk=(8, 9, 6), affine_ijk=affine))
    write_volume(tmp_path / "scan.nii.gz", scan)
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(block, names)
    assert names["scan"].array.shape == (1, 6, 9, 8)
    assert names["scan"].spacing_mm == pytest.approx((2.5, 0.7, 0.7))
    assert any(weight.shape[2:] == (5, 5, 5) for weight in names["model"].parameters())


def test_architecture_page_lists_every_part_in_the_order_of_imports():
    page = (ROOT / "docs" / "architecture.md").read_text()
    listed = re.findall(r"^  (\w+)(?:\.py|/) ", page, re.MULTILINE)
    assert listed == ["__init__", *STAGES]


def test_page_on_benchmarks_names_every_script():
    page = (ROOT / "benchmarks" / "README.md").read_text()
    assert not [script.name for script in (ROOT / "benchmarks").glob("*.py") if f"`{script.name}`" not in page]


def test_every_setting_says_what_it_means():
    lines = (ROOT / "docs/reference/configuration.md").read_text().splitlines()
    assert not [line for line in lines if line.endswith("|  |")]
