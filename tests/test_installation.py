"""What `make` and pip need to know: the Python version, the packages, their versions."""

import ast
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
OF_ITS_OWN_ENVIRONMENT = {"nnunetv2"}
"""Imported only by what runs where the user has it installed."""
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def imported_packages() -> set[str]:
    """Names of the packages that some module of voxelseg imports, the standard library and voxelseg left out."""
    found = set()
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.partition(".")[0])
    return found - sys.stdlib_module_names - {"voxelseg"} - OF_ITS_OWN_ENVIRONMENT


def test_every_package_that_is_imported_is_declared():
    extras = PROJECT["optional-dependencies"]
    lines = [*PROJECT["dependencies"], *extras["baselines"], *extras["export"]]
    declared = {canonicalize_name(Requirement(line).name) for line in lines}
    owners = packages_distributions()
    undeclared = [
        name for name in imported_packages() if not declared & {canonicalize_name(one) for one in owners[name]}
    ]
    assert undeclared == []


def test_constraints_pin_everything_that_an_installation_brings():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pinned = {canonicalize_name(line.partition("==")[0]) for line in lines}
    waiting = [Requirement(line) for line in (*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"])]
    needed: set[str] = set()
    while waiting:
        one = waiting.pop()
        extras = ["", *one.extras]
        if canonicalize_name(one.name) in needed:
            continue
        try:
            inner = [Requirement(line) for line in requires(one.name) or ()]
        except PackageNotFoundError:  # not for this platform
            continue
        needed.add(canonicalize_name(one.name))
        waiting += [
            more for more in inner if not more.marker or any(more.marker.evaluate({"extra": name}) for name in extras)
        ]
    of_cuda = {name for name in needed if name.startswith(("nvidia-", "cuda-", "triton"))}  # follow the build of torch
    assert needed - of_cuda - {"voxelseg"} <= pinned


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_refuses_an_old_python_before_it_makes_an_environment(tmp_path):
    old = tmp_path / "python3"
    old.write_text(
        f'#!/bin/sh\nexec {sys.executable} -c "import sys; sys.version_info = (3, 10); exec(sys.argv[2])" "$@"\n'
    )
    old.chmod(0o755)
    command = ["make", "install", f"PYTHON={old}", f"VENV={tmp_path / 'venv'}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert f"{old} is not Python 3.11 or newer. Name one that is, as in: make demo PYTHON=" in done.stderr
    assert not (tmp_path / "venv").exists()
