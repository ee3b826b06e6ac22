"""The ten tasks of the Medical Segmentation Decathlon."""

from voxelseg.data.convert.public import Part, PublicDataset, Source, exclusive_labels
from voxelseg.data.labels import parse_labels

_LOGONET = "LoGoNet: one of the six tasks of its Table 5"


def _task(
    number: int,
    organ: str,
    prefix: str,
    classes: tuple[str, ...],
    counts: tuple[int, int],
    target: str,
    *,
    name: str = "",
    channels: tuple[str, ...] = ("CT",),
    papers: tuple[str, ...] = (),
    remarks: tuple[str, ...] = (),
) -> PublicDataset:
    """Task `number`, with its `counts` of training and test cases; files are called <prefix>_<number>."""
    folder = f"Task{number:02d}_{organ}"

    def part(ending: str, *, labelled: bool) -> Part:
        return Part(
            images=(f"images{ending}/{prefix}_{{n}}",),
            label=f"labels{ending}/{prefix}_{{n}}" if labelled else None,
            case=f"{prefix}_{{n}}",
        )

    return PublicDataset(
        name=f"msd_{name or organ.lower()}",
        title=f"Medical Segmentation Decathlon, {folder}",
        target=target,
        modality="CT" if channels == ("CT",) else "MRI",
        channels=channels,
        labels=parse_labels(exclusive_labels(classes)),
        num_training=counts[0],
        num_test=counts[1],
        sources=(Source(folder=folder, training=part("Tr", labelled=True), test=part("Ts", labelled=False)),),
        layout="msd",
        pages=("http://medicaldecathlon.com",),
        access="No registration.",
        licence="CC BY-SA 4.0.",
        citation="Antonelli et al., The Medical Segmentation Decathlon, Nature Communications 13, 2022; "
        "Simpson et al., arXiv:1902.09063.",
        papers=papers,
        fetch=(f"Download {folder}.tar from its page and unpack it; give the folder {folder}.",),
        remarks=(
            "voxelseg reads the folder as it is; converting it checks that it is complete and adds nnU-Net's folds.",
            *remarks,
        ),
    )


DECATHLON = (
    _task(
        1,
        "BrainTumour",
        "BRATS",
        ("edema", "non-enhancing tumour", "enhancing tumour"),
        (484, 266),
        "brain tumour, classes",
        name="brats",
        channels=("FLAIR", "T1w", "T1gd", "T2w"),
        papers=("E2ENet: five folds, the three labels as exclusive classes",),
        remarks=(
            (
                "Labels are 1 edema, 2 non-enhancing tumour, 3 enhancing tumour: exclusive classes, and in another "
                "order than in BraTS 2021."
            ),
            "The four sequences are the last axis of one file.",
        ),
    ),
    _task(2, "Heart", "la", ("left atrium",), (20, 10), "left atrium", channels=("MRI",), papers=(_LOGONET,)),
    _task(3, "Liver", "liver", ("liver", "tumour"), (131, 70), "liver, tumours"),
    _task(4, "Hippocampus", "hippocampus", ("anterior", "posterior"), (260, 130), "hippocampus", channels=("MRI",)),
    _task(
        5,
        "Prostate",
        "prostate",
        ("peripheral zone", "transition zone"),
        (32, 16),
        "prostate zones",
        channels=("T2", "ADC"),
    ),
    _task(6, "Lung", "lung", ("cancer",), (63, 32), "lung tumours", papers=(_LOGONET,)),
    _task(7, "Pancreas", "pancreas", ("pancreas", "cancer"), (281, 139), "pancreas, tumours", papers=(_LOGONET,)),
    _task(
        8,
        "HepaticVessel",
        "hepaticvessel",
        ("vessel", "tumour"),
        (303, 140),
        "hepatic vessels, tumours",
        name="hepatic_vessel",
        papers=(_LOGONET,),
    ),
    _task(9, "Spleen", "spleen", ("spleen",), (41, 20), "spleen", papers=(_LOGONET,)),
    _task(10, "Colon", "colon", ("colon cancer primaries",), (126, 64), "colon cancer", papers=(_LOGONET,)),
)
