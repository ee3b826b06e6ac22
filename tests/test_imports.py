"""The structure that the architecture page promises."""

import ast
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import voxelseg

PACKAGE = Path(voxelseg.__file__).parent
# A module may import from its own stage or one further up.
STAGES = [
    "version",
    "errors",
    "files",
    "geometry",
    "volume",
    "io",
    "parallel",
    "data",
    "plan",
    "preprocess",
    "patches",
    "ops",
    "nets",
    "losses",
    "metrics",
    "statistics",
    "checkpoint",
    "predict",
    "evaluate",
    "compare",
    "train",
    "pretrain",
    "recipes",
    "report",
    "side_by_side",
    "study",
    "benchmark",
    "phantom",
    "commands",
    "cli",
    "__main__",
]


def _stage(module: str) -> int:
    return STAGES.index(module.split(".")[1])


def _imports(path: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found += names if node.module == "voxelseg" else [node.module]
    return [name for name in found if name.startswith("voxelseg.")]


def test_every_module_belongs_to_a_stage():
    modules = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in PACKAGE.rglob("*.py")}
    assert modules - {"__init__"} <= set(STAGES)


def test_imports_run_one_way():
    wrong = []
    for path in PACKAGE.rglob("*.py"):
        relative = path.relative_to(PACKAGE)
        if relative.name == "__init__.py" and len(relative.parts) == 1:
            continue  # the public names come from every stage
        own = STAGES.index(relative.parts[0].removesuffix(".py"))
        wrong += [f"{relative} imports {name}" for name in _imports(path) if _stage(name) > own]
    assert not wrong


def test_networks_are_usable_alone():
    allowed = {"voxelseg.nets", "voxelseg.ops", "voxelseg.errors"}
    for path in [*(PACKAGE / "nets").rglob("*.py"), *(PACKAGE / "ops").rglob("*.py")]:
        assert all(".".join(name.split(".")[:2]) in allowed for name in _imports(path)), path


def test_importing_the_package_does_nothing():
    script = (
        "import os, sys; before = dict(os.environ); import voxelseg; "
        "assert dict(os.environ) == before; assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_torchvision_is_absent():
    assert find_spec("torchvision") is None
    assert find_spec("timm") is None
