"""Facts about the public data sets."""

import dataclasses

import pytest

from voxelseg.data.convert import PUBLIC_DATASETS, find_public_data
from voxelseg.data.convert.public import Part, Source, exclusive_labels, folder_tree, label_table
from voxelseg.errors import ConfigError

EVERY = pytest.mark.parametrize("dataset", PUBLIC_DATASETS.values(), ids=PUBLIC_DATASETS)


def test_the_data_sets_of_the_four_papers_are_there():
    assert {"btcv", "amos22_ct", "amos22_mri", "flare21", "feta21", "kits19", "brats21"} <= set(PUBLIC_DATASETS)
    decathlon = {name for name in PUBLIC_DATASETS if name.startswith("msd_")}
    assert len(decathlon) == 10
    logonet = {one.name for one in PUBLIC_DATASETS.values() if any(paper.startswith("LoGoNet") for paper in one.papers)}
    tasks = {"msd_heart", "msd_lung", "msd_pancreas", "msd_hepatic_vessel", "msd_spleen", "msd_colon"}  # its Table 5
    assert logonet == {"btcv", *tasks}


def test_an_unknown_name_is_refused_with_the_closest():
    with pytest.raises(ConfigError, match=r"'amos22_cd' \(did you mean 'amos22_ct'\?\).*voxelseg data list"):
        find_public_data("amos22_cd")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("flare21", {"liver": 1, "kidneys": 2, "spleen": 3, "pancreas": 4}),
        ("flare22", {"liver": 1, "right kidney": 2, "gallbladder": 9, "duodenum": 12, "left kidney": 13}),
        ("btcv", {"spleen": 1, "left kidney": 3, "portal and splenic veins": 10, "left adrenal gland": 13}),
        ("amos22_ct", {"spleen": 1, "pancreas": 10, "duodenum": 13, "bladder": 14, "prostate or uterus": 15}),
        ("kits19", {"kidney": 1, "tumour": 2}),
        ("feta21", {"external cerebrospinal fluid": 1, "deep grey matter": 6, "brainstem": 7}),
        ("brats21_classes", {"necrotic core": 1, "oedema": 2, "enhancing tumour": 4}),
        ("msd_brats", {"edema": 1, "non-enhancing tumour": 2, "enhancing tumour": 3}),
    ],
)
def test_classes_have_the_values_of_the_makers(name, values):
    table = label_table(find_public_data(name).labels)
    assert {key: table[key] for key in values} == values


def test_regions_of_brats21_join_the_values_1_2_4():
    labels = find_public_data("brats21").labels
    assert label_table(labels) == {
        "background": 0,
        "whole tumour": [1, 2, 4],
        "tumour core": [1, 4],
        "enhancing tumour": [4],
    }
    # painted one over the other: what is tumour but no core is oedema (2), what is core but not enhancing is 1
    assert [one.paint for one in labels.classes] == [2, 1, 4]
    assert labels.num_outputs == 3


@pytest.mark.parametrize(
    ("name", "outputs"),
    [("btcv", 14), ("amos22_ct", 16), ("kits19", 3), ("flare21", 5), ("feta21", 8), ("msd_brats", 4)],
)
def test_networks_get_the_outputs_that_the_papers_count(name, outputs):
    assert find_public_data(name).labels.num_outputs == outputs


@pytest.mark.parametrize(
    ("name", "division", "train", "held_out"),
    [
        ("btcv", "24_6", 24, 6),
        ("flare21", "uxnet", 341, 20),
        ("amos22_ct", "uxnet", 180, 20),
        ("feta21", "uxnet", 61, 18),
    ],
)
def test_divisions_of_papers_have_their_sizes(name, division, train, held_out):
    dataset = find_public_data(name)
    (found,) = [one for one in dataset.held_out if one.name == division]
    assert len(set(found.validation)) == len(found.validation) == held_out
    assert dataset.num_training - held_out - len(found.unused) == train


@EVERY
def test_every_fact_is_given(dataset):
    for field in dataclasses.fields(dataset):
        if field.name not in ("num_test", "test_labelled", "papers", "remarks", "held_out"):
            assert getattr(dataset, field.name), field.name
    assert all(page.startswith("http") for page in dataset.pages)
    assert dataset.num_test == 0 or all(
        source.test is not None or source is not dataset.sources[0] for source in dataset.sources
    )


@EVERY
def test_held_out_cases_are_cases_of_the_data_set(dataset):
    part = dataset.sources[0].training
    start = part.case.replace("{n}", "")
    for division in dataset.held_out:
        for case in (*division.validation, *division.unused):
            number = case.removeprefix(start)
            assert case.startswith(start)
            assert len(number) == part.digits
            assert part.has(number)


@EVERY
def test_channels_and_files_fit(dataset):
    for source in dataset.sources:
        parts = [source.training, *([source.test] if source.test else [])]
        for part in parts:
            one_file = dataset.layout == "msd"
            assert len(part.images) == (1 if one_file else len(dataset.channels))
            assert all("{n}" in template for template in part.templates)
        assert source.training.label


def test_numbers_tell_ct_from_mri():
    ct, mri = (find_public_data(name).sources[0].training for name in ("amos22_ct", "amos22_mri"))
    assert (ct.has("0500"), mri.has("0500")) == (True, False)
    assert (ct.has("0507"), mri.has("0507")) == (False, True)


def test_the_folder_is_drawn_from_one_example_of_each_file():
    training = Part(images=("case_{n}/scan",), label="case_{n}/label", case="case_{n}", digits=3, numbers=(0, 9))
    test = Part(images=("more/{n}",), label=None, case="{n}", digits=3, numbers=(10, 12))
    assert folder_tree(Source(folder="data", training=training, test=test), 10) == (
        "data/\n"
        "    case_000/\n"
        "        scan.nii.gz\n"
        "        label.nii.gz\n"
        "    more/\n"
        "        010.nii.gz\n"
        "    ... 10 labelled cases in all"
    )


def test_names_are_numbered_from_1_unless_values_are_given():
    assert exclusive_labels(("a", "b")) == {"background": 0, "a": 1, "b": 2}
    assert exclusive_labels(("a", "b"), values=(1, 4)) == {"background": 0, "a": 1, "b": 4}
