"""The commands `data list`, `data show` and `data convert`."""

from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from voxelseg.commands.display import PathLike, counting_bar, say
from voxelseg.data.convert import PUBLIC_DATASETS, Conversion, convert_public_data, find_public_data
from voxelseg.data.convert.public import PublicDataset
from voxelseg.data.labels import LabelClass

_NUMBERS = ("classes", "cases", "test")


def list_data() -> list[dict[str, Any]]:
    """What is known of every public data set, in JSON form."""
    return [dataset.to_dict() for dataset in PUBLIC_DATASETS.values()]


def show_data(name: str) -> dict[str, Any]:
    """What is known of the public data set `name`, in JSON form, with the recipes for it; ConfigError if unknown."""
    return {**find_public_data(name).to_dict(), "recipes": _recipes_for(name)}


def _recipes_for(name: str) -> list[str]:
    from voxelseg.recipes import RECIPES  # loads torch, which listing and converting need not wait for

    return [recipe.name for recipe in RECIPES.values() if recipe.data == name]


def convert_data(
    name: str, source: PathLike, out: PathLike, *, how: str = "link", console: Console | None = None
) -> Conversion:
    """Make the data set folder `out` from the public data set `name` as its makers hand it out in `source`.

    Nothing is downloaded, and no file is changed. With `how` "link" images are hard links and label maps copies, with
    "copy" everything is copied. The same call continues after an interruption.

    Raises ConfigError for an unknown name; DataError, which names all files that are missing or wrong, before anything
    is written; VoxelsegError if `out` is not empty or cannot be written.
    """
    dataset = find_public_data(name)
    with counting_bar(console, "converting") as update:
        conversion = convert_public_data(dataset, source, out, how=how, progress=update)
    if console is not None:
        _report(conversion, Path(source), console)
    return conversion


def _report(conversion: Conversion, given: Path, console: Console) -> None:
    """Print what was found, what was written and what to do next."""
    lines = []
    if conversion.source != given:
        lines.append(f"Found {conversion.dataset.title} in {conversion.source}.")
    lines += [f"Warning: {problem.message} {problem.remedy}" for problem in conversion.warnings]
    if conversion.left_out:
        lines.append(f"Left out {conversion.left_out} cases that do not belong to {conversion.dataset.name}.")
    cases = f"{conversion.num_training} training and {conversion.num_test} test cases"
    files = f"{conversion.num_linked} files are hard links and {conversion.num_copied} copies"
    lines.append(f"Wrote {conversion.out}: {cases}; {files}.")
    lines += [f"Folds in {name}: {about}" for name, about in conversion.splits.items()]
    lines.append(f"Cite: {conversion.dataset.citation}")
    say(console, "\n".join(lines), ["check", conversion.out])


# ------------------------------------------------------------------------------------------------------ showing


def data_table() -> Table:
    """All public data sets, a line each."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1))
    for column in ("name", "target", "channels", "classes", "cases", "test", "used by"):
        table.add_column(column, no_wrap=column == "name", justify="right" if column in _NUMBERS else "left")
    for one in PUBLIC_DATASETS.values():
        papers = ", ".join(paper.partition(":")[0] for paper in one.papers)
        channels = ", ".join(one.channels)
        numbers = (str(number) if number else "" for number in (len(one.classes), one.num_training, one.num_test))
        table.add_row(one.name, one.target, channels, *numbers, papers)
    return table


def print_data(name: str, console: Console) -> None:
    """Print everything about one public data set."""
    dataset = find_public_data(name)
    console.print(Text(dataset.title, style="bold"))
    facts = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    facts.add_column(style="cyan", no_wrap=True)
    facts.add_column(overflow="fold")
    for key, value in _facts(dataset).items():
        facts.add_row(key, Text(value))
    console.print(facts)
    folder = dataset.to_dict()["folder"]
    console.print(Text(f"\nWhat `voxelseg data convert {dataset.name} SOURCE OUT` reads as SOURCE:\n\n{folder}"))


def _facts(dataset: PublicDataset) -> dict[str, str]:
    """What is known of a data set, for people; without what there is nothing to say of."""
    tests = f"{dataset.num_test} {'labelled' if dataset.test_labelled else 'unlabelled'} test cases"
    facts = {
        "name": dataset.name,
        "channels": ", ".join(dataset.channels),
        "classes": "\n".join(_class_in_words(one) for one in dataset.labels.classes),
        "cases": f"{dataset.num_training} training cases{f', {tests}' if dataset.num_test else ''}",
        "pages": "\n".join(dataset.pages),
        "access": dataset.access,
        "licence": dataset.licence,
        "citation": dataset.citation,
        "used by": "\n".join(dataset.papers),
        "recipes": "\n".join(_recipes_for(dataset.name)),
        "how to get it": "\n".join(f"{number}. {step}" for number, step in enumerate(dataset.fetch, start=1)),
        "mind": "\n".join(f"- {remark}" for remark in dataset.remarks),
        "folds": "\n".join(f"splits_{one.name}.json: {one.about}" for one in dataset.held_out),
    }
    return {key: value for key, value in facts.items() if value}


def _class_in_words(one: LabelClass) -> str:
    return f"{', '.join(map(str, one.values))}  {one.name}"
