"""Public data sets of the brain: FeTA 2021 and BraTS 2021."""

from dataclasses import replace

from voxelseg.data.convert.public import HeldOut, Part, PublicDataset, Source, exclusive_labels
from voxelseg.data.labels import parse_labels

FETA21 = PublicDataset(
    name="feta21",
    title="FeTA 2021: fetal brain tissue segmentation",
    target="fetal brain tissues",
    modality="MRI",
    channels=("T2w",),
    labels=parse_labels(
        exclusive_labels(
            (
                "external cerebrospinal fluid",
                "grey matter",
                "white matter",
                "ventricles",
                "cerebellum",
                "deep grey matter",
                "brainstem",
            )
        )
    ),
    num_training=80,
    sources=(
        Source(
            folder="feta_2.1",
            training=Part(
                images=("sub-{n}/anat/sub-{n}_rec-*_T2w",),
                label="sub-{n}/anat/sub-{n}_rec-*_dseg",
                case="sub-{n}",
                digits=3,
                numbers=(1, 80),
            ),
        ),
    ),
    pages=("https://feta.grand-challenge.org", "https://doi.org/10.1038/s41597-021-00946-3"),
    access="Register with Synapse and accept the data use terms that the challenge names.",
    licence="The data use terms on Synapse, which are for research.",
    citation="Payette et al., An automatic multi-tissue human fetal brain segmentation benchmark using the Fetal "
    "Tissue Annotation Dataset, Scientific Data 8, 2021.",
    papers=("3D UX-Net: direct training, 61 scans to train (it says 62) and 18 to test on in the published list",),
    fetch=(
        "Follow the data page of the challenge to Synapse and accept the terms.",
        "Download and unpack feta_2.1; give its folder, with sub-001 and so on.",
    ),
    remarks=(
        "Reconstructions are called rec-mial or rec-irtk, by the method; both are taken.",
        "Later releases go on after sub-080 with scans of other hospitals: those are left out.",
    ),
    held_out=(
        HeldOut(
            name="uxnet",
            validation=tuple(f"sub-{number + 1:03d}" for number in (*range(60, 71), *range(72, 78), 79)),
            unused=("sub-011",),
            about="3D UX-Net's 18 held-out scans: data lists of the authors' code (MASILab/3DUX-Net), which number the "
            "scans from 0 in their order, so that FeTA_060 is taken for sub-061. FeTA_010 is in neither list.",
        ),
    ),
)

_BRATS_CHANNELS = {"T1": "t1", "T1ce": "t1ce", "T2": "t2", "FLAIR": "flair"}
_BRATS_FILE = "BraTS2021_{n}/BraTS2021_{n}_"

BRATS21 = PublicDataset(
    name="brats21",
    title="BraTS 2021: brain tumour segmentation, as the challenge's three regions",
    target="brain tumour, regions",
    modality="MRI",
    channels=tuple(_BRATS_CHANNELS),
    labels=parse_labels(
        {"background": 0, "whole tumour": [1, 2, 4], "tumour core": [1, 4], "enhancing tumour": [4]},
        regions_class_order=[2, 1, 4],
    ),
    num_training=1251,
    sources=(
        Source(
            folder="BraTS2021_Training_Data",
            training=Part(
                images=tuple(f"{_BRATS_FILE}{name}" for name in _BRATS_CHANNELS.values()),
                label=f"{_BRATS_FILE}seg",
                case="BraTS2021_{n}",
                digits=5,
                numbers=(0, 99999),
            ),
        ),
    ),
    pages=("https://www.synapse.org/Synapse:syn27046444/wiki/616992",),
    access="Register with Synapse and ask for the data of the challenge.",
    licence="The terms of the challenge on Synapse.",
    citation="Baid et al., The RSNA-ASNR-MICCAI BraTS 2021 Benchmark on Brain Tumor Segmentation and Radiogenomic "
    "Classification, arXiv:2107.02314; Menze et al., IEEE TMI 34, 2015; Bakas et al., Scientific Data 4, 2017.",
    papers=("MedNeXt: five folds of the 1251 training scans",),
    fetch=(
        "Join the challenge on its page and download the training data of task 1, segmentation.",
        "Unpack it; give the folder with BraTS2021_00000 and so on.",
    ),
    remarks=(
        (
            "The label maps hold 1 necrotic core, 2 oedema and 4 enhancing tumour; there is no 3. The numbers are "
            "kept, so predictions can be handed in as they are: whole tumour is 1, 2 and 4, tumour core 1 and 4, "
            "enhancing tumour 4. nnU-Net's own conversion renumbers them to 2, 1 and 3 for the same regions."
        ),
        "The numbers of the cases have gaps and go beyond 1251.",
    ),
)

BRATS21_CLASSES = replace(
    BRATS21,
    name="brats21_classes",
    title="BraTS 2021: brain tumour segmentation, as three exclusive classes",
    target="brain tumour, classes",
    labels=parse_labels(exclusive_labels(("necrotic core", "oedema", "enhancing tumour"), values=(1, 2, 4))),
    remarks=(
        "The label maps hold 1 necrotic core, 2 oedema, 4 enhancing tumour; there is no 3, and the numbers are kept.",
        *BRATS21.remarks[1:],
    ),
)

BRAIN = (FETA21, BRATS21, BRATS21_CLASSES)
