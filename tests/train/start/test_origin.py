import dataclasses

import pytest
import torch
from safetensors.torch import save_file

from voxelseg.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from voxelseg.data.labels import NO_LABELS, parse_labels
from voxelseg.errors import CheckpointError, ConfigError
from voxelseg.nets import create_model
from voxelseg.train.start.origin import (
    differences,
    is_model_file,
    leaks,
    origin_checksums,
    origin_file,
    read_origin,
    same_classes,
    seen_inputs,
    seen_without_labels,
)

MEDNEXT = {"width": 2, "blocks": 1}


@pytest.fixture
def model_file(prepared, tmp_path):
    """A model of ours that was trained on two cases."""
    path = tmp_path / "run" / "fold_0" / "model.safetensors"
    network = create_model("mednext_xs", num_classes=3, **MEDNEXT)
    checkpoint = Checkpoint(
        weights=network.state_dict(),
        model="mednext_xs",
        model_options=MEDNEXT,
        plan=prepared.plan,
        labels=prepared.dataset.labels,
        file_ending=".nii.gz",
        provenance={
            "train_cases_sha256": {"a": ["scan a", "no label"], "b": ["scan b", "no label"]},
            "transfer": {"seen_sha256": ["scan c"]},
        },
    )
    save_checkpoint(path, checkpoint)
    return path


def test_a_file_is_what_it_is_for_every_fold(model_file):
    assert origin_file(str(model_file), 3) == model_file


def test_the_folder_of_a_fold_is_its_model(model_file):
    assert origin_file(str(model_file.parent), 3) == model_file


def test_a_run_is_its_model_of_the_same_fold(model_file):
    run = model_file.parents[1]
    assert origin_file(str(run), 0) == model_file
    with pytest.raises(ConfigError, match=r"no finished model of fold 2.*choose a model for all folds, as .*fold_0"):
        origin_file(str(run), 2)


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"transfer.init: there is no .*nothing.*RUN/fold_0/model.safetensors"):
        origin_file(str(tmp_path / "nothing"), 0)
    with pytest.raises(ConfigError, match="holds no finished model"):
        origin_file(str(tmp_path), 0)


def test_a_checksum_is_that_of_the_weights_and_not_of_what_the_file_says_besides(model_file, tmp_path):
    run, name = str(model_file.parents[1]), "fold_0/model.safetensors"
    before = origin_checksums(run)
    assert before.keys() == {name}
    found = load_checkpoint(model_file)
    save_checkpoint(model_file, dataclasses.replace(found, provenance={**found.provenance, "note": 1}))
    assert origin_checksums(run) == before
    assert origin_checksums(str(model_file)) == {"model.safetensors": before[name]}
    save_checkpoint(model_file, dataclasses.replace(found, weights={k: v + 1 for k, v in found.weights.items()}))
    assert origin_checksums(run) != before
    assert origin_checksums(str(tmp_path / "nothing")) == {}


def test_files_of_weights_are_told_apart_and_damaged_ones_found_out(model_file, tmp_path):
    assert is_model_file(model_file)
    theirs, damaged = tmp_path / "theirs.safetensors", tmp_path / "damaged.safetensors"
    save_file({"stem.weight": torch.zeros(1)}, theirs)
    damaged.write_bytes(b"damaged")
    assert not is_model_file(theirs)
    assert not is_model_file(tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=r"damaged.safetensors: damaged"):
        is_model_file(damaged)


def test_a_model_of_ours_is_read_with_what_is_known_of_it(model_file):
    origin = read_origin(model_file, model="mednext_xs")
    assert (origin.what, origin.kind) == ("mednext_xs", None)
    assert origin.checksum == load_checkpoint(model_file).fingerprint()
    assert seen_inputs(origin).labelled == {"scan a", "scan b", "scan c", "no label"}
    assert not seen_inputs(origin).unlabelled


def test_weights_of_the_authors_get_our_names(tmp_path):
    path = tmp_path / "official.pth"
    torch.save({"state_dict": {"module.stem.weight": torch.ones(2, 1, 1, 1, 1), "dummy_tensor": torch.ones(1)}}, path)
    origin = read_origin(path, model="mednext_s")
    assert (origin.what, origin.kind, origin.checkpoint) == ("the authors' mednext", "mednext", None)
    assert origin.weights.keys() == {"stem.weight"}


def test_weights_of_other_networks_and_of_unknown_authors_are_refused(tmp_path):
    path = tmp_path / "official.pth"
    torch.save({"encoder.conv": torch.ones(1)}, path)
    with pytest.raises(CheckpointError, match=r"official.pth: not a parameter of the official uxnet: encoder.conv"):
        read_origin(path, model="uxnet")
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(CheckpointError) as error:
        read_origin(tmp_path / "text.pth", model="uxnet")
    assert str(error.value).count("text.pth") == 1
    with pytest.raises(ConfigError, match=r"official.pth is no model of voxelseg, and no authors' weights.*for unet_s"):
        read_origin(path, model="unet_s")


def test_images_of_another_kind_are_named(model_file, prepared):
    origin = read_origin(model_file, model="mednext_xs")
    assert differences(origin, prepared.plan) == []
    spacing = prepared.plan.spacing_mm
    near, far = (tuple(factor * mm for mm in spacing) for factor in (1.05, 1.5))
    assert differences(origin, prepared.plan.changed(spacing_mm=near)) == []
    (words,) = differences(origin, prepared.plan.changed(spacing_mm=far))
    assert "Trained at 2 x 1 x 1.5 mm per voxel, here 3 x 1.5 x 2.25 mm" in words
    assert "--set plan.spacing_mm=[2,1,1.5]" in words
    (words,) = differences(origin, prepared.plan.changed(channels=("CT",)))
    assert words == "Trained on the channels MRI, here CT."
    assert differences(origin, prepared.plan.changed(channels=("channel_0",))) == []  # a folder that names none
    window = {"kind": "ct", "window": (0, 1), "mean": 0, "std": 1}
    (words,) = differences(origin, prepared.plan.changed(normalization=(window,)))
    assert words == "Trained on intensities normalised by zscore, here by ct."
    (words,) = differences(origin, prepared.plan.changed(axes=(1, 0, 2)))
    assert (
        words
        == "Trained with canonical axes [0,1,2] as D, H, W, here [1,0,2]. --set plan.axes=[0,1,2] takes over theirs."
    )


def test_classes_are_the_same_only_with_the_same_names_and_values(model_file, prepared):
    origin = read_origin(model_file, model="mednext_xs")
    assert same_classes(origin, prepared.dataset.labels)
    assert not same_classes(origin, parse_labels({"background": 0, "rod": 1, "ball": 2}))


def test_held_out_cases_that_were_trained_on_are_named(model_file):
    origin = read_origin(model_file, model="mednext_xs")
    held_out = {"b": ["scan b", "no label"], "c": ["scan c", "other"], "new": ["scan d", "no label"]}
    (words,) = leaks(origin, held_out)  # an empty label map of the same bytes says nothing
    assert "2 of 3 held-out cases were among those that the weights were trained on (b, c)" in words
    assert leaks(origin, {"new": ["scan d", "no label"]}) == []


@pytest.fixture
def pretrained_file(model_file):
    """What a pre-training left that began with that model and saw scan d besides, in slices along D."""
    found = load_checkpoint(model_file)
    path = model_file.parents[2] / "pre" / "model.safetensors"
    pretraining = {"method": "simclr", "num_classes": 14, "trained": "encoder", "slice_axis": 0}
    provenance = {"train_cases_sha256": {"d": ["scan d"]}, "transfer": {"seen_sha256": ["scan a"]}}
    left = dataclasses.replace(found, pretraining=pretraining, labels=NO_LABELS, provenance=provenance)
    save_checkpoint(path, left)
    return path


def test_the_folder_of_a_pre_training_is_its_file_for_every_fold(pretrained_file):
    assert origin_file(str(pretrained_file.parent), 3) == pretrained_file
    assert origin_checksums(str(pretrained_file.parent)).keys() == {"model.safetensors"}


def test_what_a_pre_training_left_says_how_it_was_made_and_knows_no_classes(pretrained_file, prepared):
    origin = read_origin(pretrained_file, model="mednext_xs")
    assert origin.what == "mednext_xs, pre-trained by simclr, the encoder only"
    assert same_classes(origin, prepared.dataset.labels)  # its shapes decide


def test_other_axes_are_named_with_the_slices_that_were_learnt_from(pretrained_file, prepared):
    origin = read_origin(pretrained_file, model="mednext_xs")
    (words,) = differences(origin, prepared.plan.changed(axes=(1, 0, 2)))
    assert "here [1,0,2]; the slices that it learnt from follow one another along D there, along H here." in words
    (words,) = differences(origin, prepared.plan.changed(axes=(0, 2, 1)))
    assert "slices" not in words  # D is the same axis


def test_scans_that_were_seen_without_labels_are_a_note_and_no_leak(pretrained_file):
    origin = read_origin(pretrained_file, model="mednext_xs")
    held_out = {"a": ["scan a", "label"], "d": ["scan d", "label"], "e": ["scan e", "label"]}
    assert seen_inputs(origin).unlabelled == {"scan d"}
    (warning,) = leaks(origin, held_out)
    assert "1 of 3 held-out cases were among those that the weights were trained on (a)" in warning
    (note,) = seen_without_labels(origin, held_out)
    assert "The scans of 1 of 3 held-out cases were pre-trained on (d): without their labels" in note
    assert seen_without_labels(origin, {"e": ["scan e"]}) == []


def test_what_a_pre_training_saw_is_remembered_by_what_started_from_it(pretrained_file, model_file):
    found = load_checkpoint(model_file)
    report = {"seen_sha256": ["scan a"], "seen_unlabelled_sha256": ["scan d", "scan b"]}
    save_checkpoint(model_file, dataclasses.replace(found, provenance={**found.provenance, "transfer": report}))
    origin = read_origin(model_file, model="mednext_xs")
    assert seen_inputs(origin).unlabelled == {"scan d", "scan b"}
    assert seen_without_labels(origin, {"b": ["scan b"]}) == []  # its labels were seen later: a leak, and said as one
    assert len(leaks(origin, {"b": ["scan b"]})) == 1
