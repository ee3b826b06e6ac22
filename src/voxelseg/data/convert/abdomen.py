"""Public data sets of the abdomen: BTCV, AMOS 2022, FLARE 2021 and 2022, KiTS 2019."""

from dataclasses import replace

from voxelseg.data.convert.public import HeldOut, Part, PublicDataset, Source, exclusive_labels
from voxelseg.data.labels import parse_labels

_UXNET = "data lists of the authors' code (MASILab/3DUX-Net)"

BTCV = PublicDataset(
    name="btcv",
    title="BTCV: Multi-Atlas Labeling Beyond the Cranial Vault, abdomen (2015)",
    target="abdominal organs",
    modality="CT",
    channels=("CT",),
    labels=parse_labels(
        exclusive_labels(
            (
                "spleen",
                "right kidney",
                "left kidney",
                "gallbladder",
                "esophagus",
                "liver",
                "stomach",
                "aorta",
                "inferior vena cava",
                "portal and splenic veins",
                "pancreas",
                "right adrenal gland",
                "left adrenal gland",
            )
        )
    ),
    num_training=30,
    num_test=20,
    sources=(
        Source(
            folder="RawData",
            training=Part(
                images=("Training/img/img{n}",),
                label="Training/label/label{n}",
                case="img{n}",
                digits=4,
                numbers=(1, 60),
            ),
            test=Part(images=("Testing/img/img{n}",), label=None, case="img{n}", digits=4, numbers=(61, 80)),
        ),
        Source(
            folder="Training",
            training=Part(images=("img/img{n}",), label="label/label{n}", case="img{n}", digits=4, numbers=(1, 60)),
        ),
    ),
    pages=("https://www.synapse.org/Synapse:syn3193805/wiki/217789",),
    access="Register with Synapse, join the challenge and accept its terms of use.",
    licence="The terms of use of the challenge on Synapse.",
    citation="Landman et al., MICCAI Multi-Atlas Labeling Beyond the Cranial Vault - Workshop and Challenge, 2015.",
    papers=(
        "MedNeXt: five folds of the 30 labelled scans",
        "E2ENet: five folds, scored on the challenge's test scans",
        "LoGoNet: 24 scans to train and select on, 6 to test on",
    ),
    fetch=(
        "Sign in at the challenge's page and join the challenge.",
        "Under Files, open Abdomen and download RawData.zip.",
        "Unpack it; give the folder RawData.",
    ),
    remarks=(
        "Labelled are img0001 to img0010 and img0021 to img0040; there is no img0011 to img0020.",
        (
            "The label maps of these scans on Zenodo (record 1169361) are another annotation, of other organs: take "
            "those of the challenge."
        ),
    ),
    held_out=(
        HeldOut(
            name="24_6",
            validation=tuple(f"img{number:04d}" for number in range(35, 41)),
            about="LoGoNet's code (its test cases) and the Swin UNETR tutorial of MONAI: img0035 to img0040 held out. "
            "LoGoNet selects its model on img0032 to img0034 of the other 24.",
        ),
    ),
)

_AMOS_ORGANS = exclusive_labels(
    (
        "spleen",
        "right kidney",
        "left kidney",
        "gallbladder",
        "esophagus",
        "liver",
        "stomach",
        "aorta",
        "inferior vena cava",
        "pancreas",
        "right adrenal gland",
        "left adrenal gland",
        "duodenum",
        "bladder",
        "prostate or uterus",
    )
)


def _amos(numbers: tuple[int, int]) -> Source:
    """The folder amos22, of which the cases with these numbers are taken."""

    def part(ending: str) -> Part:
        return Part(
            images=(f"images{ending}/amos_{{n}}",),
            label=f"labels{ending}/amos_{{n}}",
            case="amos_{n}",
            digits=4,
            numbers=numbers,
        )

    return Source(folder="amos22", training=part("Tr"), test=part("Va"))


AMOS22_CT = PublicDataset(
    name="amos22_ct",
    title="AMOS 2022: abdominal multi-organ segmentation, the CT scans",
    target="abdominal organs",
    modality="CT",
    channels=("CT",),
    labels=parse_labels(_AMOS_ORGANS),
    num_training=200,
    num_test=100,
    test_labelled=True,
    sources=(_amos((1, 500)),),
    pages=("https://amos22.grand-challenge.org", "https://zenodo.org/records/7262581"),
    access="No registration for the release on Zenodo.",
    licence="Read the Zenodo record: reported as CC BY 4.0, while the paper's page names a non-commercial licence.",
    citation="Ji et al., AMOS: A Large-Scale Abdominal Multi-Organ Benchmark for Versatile Medical Image "
    "Segmentation, NeurIPS Datasets and Benchmarks 2022, arXiv:2206.08023.",
    papers=(
        "3D UX-Net: fine-tuning of a network trained on FLARE 2021, 180 scans to train and 20 to test on",
        "MedNeXt: five folds of the 200 training scans",
        "E2ENet: trained on the 200 training scans, scored on the 100 validation scans",
    ),
    fetch=(
        "Download amos22.zip from the Zenodo record.",
        "Unpack it; give the folder amos22 with imagesTr, labelsTr, imagesVa and labelsVa.",
    ),
    remarks=(
        "Numbers up to 500 are CT, higher ones MRI: they lie in the same folders, and this takes the CT scans.",
        (
            "The challenge's validation scans, which have label maps, become the test cases (imagesTs, labelsTs); its "
            "own test scans, which have none, are left out."
        ),
    ),
    held_out=(
        HeldOut(
            name="uxnet",
            validation=tuple(
                f"amos_{number:04d}"
                for number in (
                    *(381, 383, 384, 387, 388, 390, 391, 392, 395, 396),
                    *(398, 400, 401, 402, 403, 404, 405, 406, 408, 410),
                )
            ),
            about=f"3D UX-Net's 180 and 20 scans: {_UXNET}.",
        ),
    ),
)

AMOS22_MRI = replace(
    AMOS22_CT,
    name="amos22_mri",
    title="AMOS 2022: abdominal multi-organ segmentation, the MRI scans",
    modality="MRI",
    channels=("MRI",),
    num_training=40,
    num_test=20,
    sources=(_amos((501, 9999)),),
    papers=("E2ENet: fine-tuning of a network trained on the CT scans, with its topology fixed",),
    remarks=(
        "Numbers above 500 are MRI, lower ones CT: they lie in the same folders, and this takes the MRI scans.",
        *AMOS22_CT.remarks[1:],
    ),
    held_out=(),
)

_FLARE_ACCESS = "Register with grand-challenge.org and join the challenge."

FLARE21 = PublicDataset(
    name="flare21",
    title="FLARE 2021: fast and low GPU memory abdominal organ segmentation",
    target="abdominal organs",
    modality="CT",
    channels=("CT",),
    labels=parse_labels(exclusive_labels(("liver", "kidneys", "spleen", "pancreas"))),
    num_training=361,
    num_test=50,
    sources=(
        Source(
            folder="FLARE21",
            training=Part(
                images=("TrainingImg/train_{n}_0000",),
                label="TrainingMask/train_{n}",
                case="train_{n}",
                digits=3,
                numbers=(0, 360),
            ),
            test=Part(images=("ValidationImg/validation_{n}_0000",), label=None, case="validation_{n}", digits=3),
        ),
    ),
    pages=("https://flare.grand-challenge.org",),
    access=_FLARE_ACCESS,
    licence="The terms of the challenge's data page; the scans are those of MSD Pancreas and NIH Pancreas-CT.",
    citation="Ma et al., Fast and Low-GPU-memory abdomen CT organ segmentation: The FLARE challenge, Medical Image "
    "Analysis 82, 2022.",
    papers=("3D UX-Net: direct training, 341 scans to train and 20 to test on in the published lists",),
    fetch=(
        "Join the challenge and follow the download links of its Data page.",
        "Put the unpacked folders TrainingImg and TrainingMask, and ValidationImg if wanted, into one folder.",
        "Give this folder.",
    ),
    remarks=(
        (
            "The label maps hold 1 liver, 2 kidneys, 3 spleen, 4 pancreas. The lists published with 3D UX-Net call "
            "them spleen, kidney, liver, pancreas: there the names of 1 and 3 are exchanged."
        ),
        "The paper's text counts 511 scans, which is the whole challenge; 361 have label maps.",
    ),
    held_out=(
        HeldOut(
            name="uxnet",
            validation=tuple(
                f"train_{number:03d}"
                for number in (
                    *(36, 39, 44, 54, 80, 125, 135, 157, 158, 183),
                    *(193, 220, 230, 242, 286, 296, 299, 323, 341, 351),
                )
            ),
            about=f"3D UX-Net's 341 and 20 scans: {_UXNET}. The five folds of its tables are not published.",
        ),
    ),
)

FLARE22 = PublicDataset(
    name="flare22",
    title="FLARE 2022: semi-supervised abdominal organ segmentation, the 50 labelled scans",
    target="abdominal organs",
    modality="CT",
    channels=("CT",),
    labels=parse_labels(
        exclusive_labels(
            (
                "liver",
                "right kidney",
                "spleen",
                "pancreas",
                "aorta",
                "inferior vena cava",
                "right adrenal gland",
                "left adrenal gland",
                "gallbladder",
                "esophagus",
                "stomach",
                "duodenum",
                "left kidney",
            )
        )
    ),
    num_training=50,
    sources=(
        Source(
            folder="FLARE22_LabeledCase50",
            training=Part(
                images=("images/FLARE22_Tr_{n}_0000",), label="labels/FLARE22_Tr_{n}", case="FLARE22_Tr_{n}", digits=4
            ),
        ),
    ),
    pages=("https://flare22.grand-challenge.org", "https://zenodo.org/records/7860267"),
    access=_FLARE_ACCESS,
    licence="The terms of the challenge's data page; the scans are those of MSD Pancreas.",
    citation="Ma et al., Unleashing the strengths of unlabelled data in deep learning-assisted pan-cancer abdominal "
    "organ quantification: the FLARE22 challenge, Lancet Digital Health 6, 2024.",
    fetch=("Download the 50 labelled cases and unpack them.", "Give the folder with images and labels."),
    remarks=(
        "The left kidney is the last class, 13; in FLARE 2021 both kidneys are one class.",
        "The 2000 scans without labels are not taken.",
    ),
)

KITS19 = PublicDataset(
    name="kits19",
    title="KiTS 2019: kidney tumour segmentation",
    target="kidney, tumours",
    modality="CT",
    channels=("CT",),
    labels=parse_labels(exclusive_labels(("kidney", "tumour"))),
    num_training=210,
    num_test=90,
    sources=(
        Source(
            folder="data",
            training=Part(
                images=("case_{n}/imaging",), label="case_{n}/segmentation", case="case_{n}", digits=5, numbers=(0, 209)
            ),
            test=Part(images=("case_{n}/imaging",), label=None, case="case_{n}", digits=5, numbers=(210, 299)),
        ),
    ),
    pages=("https://kits19.grand-challenge.org/data/", "https://github.com/neheller/kits19"),
    access="No registration.",
    licence="CC BY-NC-SA.",
    citation="Heller et al., The KiTS19 Challenge Data: 300 Kidney Tumor Cases with Clinical Context, CT Semantic "
    "Segmentations, and Surgical Outcomes, arXiv:1904.00445.",
    papers=("MedNeXt: five folds of the 210 labelled scans",),
    fetch=(
        "Clone the GitHub repository named above; it holds the label maps.",
        "Download the scans with its own script, as its README says.",
        "Give its folder data, with case_00000 and so on.",
    ),
    remarks=(
        (
            "Arrays run (slice, row, column), and the affine says so: the first axis of the file is the axial one. "
            "voxelseg reads the affine and turns every scan, so nothing has to be swapped by hand."
        ),
        (
            "Affines and some label maps were wrong before April 2019, and cases 15, 23, 37 and 125 were corrected in "
            "December 2019 (changelog.md of the repository): take the newest state, and say which one was used."
        ),
        (
            "The branch 'interpolated' holds the same cases resampled to other spacings under the same names. The "
            "papers use the original spacing: give the main branch, and never mix files of the two."
        ),
    ),
)

ABDOMEN = (BTCV, AMOS22_CT, AMOS22_MRI, FLARE21, FLARE22, KITS19)
