"""What is known of a public data set: its classes, where it comes from, and how its files lie."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from voxelseg.data.labels import LabelScheme


@dataclass(frozen=True, kw_only=True)
class Part:
    """How the files of one part of a data set, such as the training cases, lie below its folder.

    Paths have no suffix, since .nii.gz and .nii are both taken. In them `{n}` stands for the number of the case, always
    written alike, and `*` for any text.
    """

    images: tuple[str, ...]
    """Path of the image of each channel, or of the one file with all of them."""
    label: str | None
    """Path of the label map; None if the part has none."""
    case: str
    """Id of a case, with `{n}`."""
    digits: int | None = None
    """Number of digits of `{n}`; None if it varies."""
    numbers: tuple[int, int] | None = None
    """First and last number that belong to the part; None if all do."""

    @property
    def templates(self) -> tuple[str, ...]:
        """Paths of the images and, if there is one, of the label map."""
        return (*self.images, *([self.label] if self.label else []))

    def has(self, number: str) -> bool:
        """Whether a case of this number belongs to the part."""
        return self.numbers is None or self.numbers[0] <= int(number) <= self.numbers[1]


@dataclass(frozen=True, kw_only=True)
class Source:
    """One way in which the data set is handed out."""

    folder: str
    """Name that the folder usually has."""
    training: Part
    test: Part | None = None


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """A division into training and held-out cases that a paper or its code fixed."""

    name: str
    """Goes into the file's name, splits_<name>.json."""
    validation: tuple[str, ...]
    """Ids of the held-out cases; the others are trained on."""
    unused: tuple[str, ...] = ()
    """Ids of cases that are in neither."""
    about: str
    """Whose it is and where it is written."""

    def __post_init__(self) -> None:
        assert self.validation, self.name


@dataclass(frozen=True, kw_only=True)
class PublicDataset:
    """A public data set, as it is after `voxelseg data convert`."""

    name: str
    """What commands and recipes call it."""
    title: str
    target: str
    """What is segmented, in a few words."""
    modality: str
    channels: tuple[str, ...]
    """Names in the order of the network's inputs; "CT" holds Hounsfield units."""
    labels: LabelScheme
    """Classes with their values in the label maps; no value is changed by the conversion."""
    num_training: int
    """Labelled cases of the complete data set."""
    num_test: int = 0
    """Cases that become test cases."""
    test_labelled: bool = False
    """Whether the test cases have label maps."""
    sources: tuple[Source, ...]
    """Ways in which it is handed out, the usual one first."""
    layout: Literal["nnunet", "msd"] = "nnunet"
    """Layout of the converted folder."""
    pages: tuple[str, ...]
    """Addresses of the data set's own pages."""
    access: str
    """What has to be done before downloading."""
    licence: str
    citation: str
    papers: tuple[str, ...] = ()
    """Which of the four papers use it, and for what."""
    fetch: tuple[str, ...]
    """Steps from nothing to the folder that `convert` reads."""
    remarks: tuple[str, ...] = ()
    """Pitfalls."""
    held_out: tuple[HeldOut, ...] = ()
    """Divisions fixed by papers, beside nnU-Net's five folds, which are written for every data set."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the foreground classes, in the order of the network's outputs."""
        return self.labels.names

    def to_dict(self) -> dict[str, Any]:
        """JSON form, without what only the conversion needs."""
        facts = asdict(self)
        del facts["sources"], facts["labels"]
        return {
            **facts,
            "labels": label_table(self.labels),
            "regions": self.labels.has_regions,
            "folder": folder_tree(self.sources[0], self.num_training),
        }


def label_table(labels: LabelScheme) -> dict[str, int | list[int]]:
    """The `labels` of an nnU-Net v2 dataset.json: name to value, or to the list of values of a region."""
    table: dict[str, int | list[int]] = {"background": 0}
    for one in labels.classes:
        table[one.name] = list(one.values) if labels.has_regions else one.values[0]
    return table


def exclusive_labels(names: Iterable[str], values: Iterable[int] | None = None) -> Mapping[str, int]:
    """The `labels` of a dataset.json for names in label order: their `values`, or 1, 2, ...."""
    names = tuple(names)
    return {"background": 0, **dict(zip(names, values or range(1, len(names) + 1), strict=True))}


def folder_tree(source: Source, num_cases: int) -> str:
    """Picture of the folder that `convert` reads, from an example of each kind of file."""
    parts = [part for part in (source.training, source.test) if part is not None]
    paths = dict.fromkeys(example(template, part) for part in parts for template in part.templates)
    lines, shown = [f"{source.folder}/"], set[str]()
    for path in paths:
        *folders, file = path.split("/")
        for depth in range(len(folders)):
            folder = "/".join(folders[: depth + 1])
            if folder not in shown:
                shown.add(folder)
                lines.append(f"{'    ' * (depth + 1)}{folders[depth]}/")
        lines.append(f"{'    ' * (len(folders) + 1)}{file}")
    lines.append(f"    ... {num_cases} labelled cases in all")
    return "\n".join(lines)


def example(template: str, part: Part, number: str = "") -> str:
    """Path of a file of the case `number`, by default the first one."""
    first = str(part.numbers[0] if part.numbers else 1).zfill(part.digits or 1)
    return f"{template.replace('{n}', number or first)}.nii.gz"
