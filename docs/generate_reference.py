"""Write docs/reference/configuration.md from the configuration classes: `python docs/generate_reference.py`."""

from pathlib import Path

from pydantic import BaseModel

from voxelseg.patches.augmentation import AugmentationConfig
from voxelseg.plan.plan import Normalization, Plan
from voxelseg.train.config import PredictConfig, TrainConfig

PAGE = Path(__file__).parent / "reference" / "configuration.md"
SECTIONS: dict[str, type[BaseModel]] = {
    "train": TrainConfig,
    "augmentation": AugmentationConfig,
    "predict": PredictConfig,
    "plan": Plan,
}
_HEAD = """# Configuration

Set any key with `--set section.key=value` (the value is YAML, so lists are `[1,2,3]`). Keys of `model` are the
options of the network's config class, as in `--set model.kernel_size=5`. Keys of `plan` replace what the planner
decided; they can also be changed in `plan.json`. An unknown key is an error.

This page is made by `python docs/generate_reference.py` from the classes.
"""


def _rows(config: type[BaseModel]) -> list[str]:
    rows = ["| key | default | meaning |", "|---|---|---|"]
    for name, field in config.model_fields.items():
        default = "from the data" if field.is_required() else f"`{field.default!r}`"
        meaning = " ".join((field.description or "").split()).replace("|", "or")
        rows.append(f"| `{name}` | {default} | {meaning} |")
    return rows


def page() -> str:
    """The page's text."""
    parts = [_HEAD]
    for section, config in SECTIONS.items():
        parts += [f"## {section}\n", " ".join((config.__doc__ or "").split()) + "\n", "\n".join(_rows(config)) + "\n"]
    parts += ["### One entry of `plan.normalization`\n", "\n".join(_rows(Normalization)) + "\n"]
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")
    print(f"Wrote {PAGE}.")
