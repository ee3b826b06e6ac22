from designs import designed

from voxelseg.benchmark.entrants import Entrant
from voxelseg.benchmark.fairness import fairness, seen_before
from voxelseg.benchmark.length import Length
from voxelseg.train.start.origin import read_origin


def test_the_reader_is_told_what_is_equal_and_what_is_not(tmp_path):
    entrants = (
        Entrant(name="plain", model="unet"),
        Entrant(name="tuned", model="unet", settings=("train.lr=0.1",)),
        Entrant(name="learnt", model="logonet", pretrain="simmim"),
        Entrant(name="given", model="unet", init="RUN"),
        Entrant(name="nnunet", model="nnunet"),
    )
    said = fairness(designed(tmp_path, entrants))
    assert said[0].startswith(
        "All contestants but nnU-Net: the same 2 folds, preprocessed scans, patches of 16 x 24 x 32"
    )
    assert said[1] == "Length: 3 steps each, however long these take."
    assert said[2] == "Of their own: tuned (train.lr=0.1)."
    assert said[3].endswith("as long as the training itself: learnt (simmim).")
    assert said[4].endswith("knows nothing more: given (RUN).")
    assert said[5].startswith("nnU-Net: the same folds")


def test_predictions_that_nnunet_averages_over_mirrored_scans_are_told(tmp_path):
    def said(models, *settings):
        told = fairness(designed(tmp_path, models, settings=settings))
        return [one for one in told if one.startswith("In favour of")]

    (sentence,) = said("unet,small=unet:predict.tta=true,nnunet")
    assert "In favour of nnunet: the predictions" in sentence
    assert "those of unet are not. With --set predict.tta=true" in sentence
    assert said("unet,nnunet", "predict.tta=true") == []
    assert said("unet,nnunet:mirroring=false") == []
    assert said("unet") == []


def test_equal_minutes_name_the_machine_that_they_were_on(tmp_path):
    pace = {"device": "cpu", "jobs": 2, "threads": 1}
    said = fairness(designed(tmp_path, "unet", length=Length(budget="30m"), pace=pace))
    assert "30m of training each, steps and running validation, on cpu with 1 thread, 2 trainings at a time" in said[1]
    assert len(said) == 2


def test_networks_without_heads_for_deep_supervision_are_named(tmp_path):
    reasons = {"unet": {"deep_supervision": True}, "uxnet": {"deep_supervision": False}}
    said = fairness(designed(tmp_path, reasons=reasons))
    assert said[2] == "Deep supervision: of unet; not of uxnet, which has no heads for it here."
    alike = {name: {"deep_supervision": True} for name in reasons}
    assert len(fairness(designed(tmp_path, reasons=alike))) == 2


def test_weights_that_have_seen_held_out_cases_are_named_with_them(tiny_run, tmp_path):
    file = tiny_run.folder / "fold_0" / "model.safetensors"
    checkpoint = read_origin(file, model="any").checkpoint
    seen = next(iter(checkpoint.provenance["train_cases_sha256"].values()))
    inputs = {"a": seen, "b": ["of b", "its label"], "c": ["of c", "its label"]}
    entrants = (Entrant(name="given", model="any", init=str(file)), Entrant(name="fresh", model="unet"))
    (said,) = seen_before(designed(tmp_path, entrants), inputs)  # a is held out in fold 0
    assert said.startswith("given: 1 of 2 held-out cases were among those that the weights were trained on (a)")
    gone = (Entrant(name="given", model="any", init=str(tmp_path / "gone")),)
    assert seen_before(designed(tmp_path, gone), inputs) == []
