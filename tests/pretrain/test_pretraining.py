"""Pre-trainings of tiny networks: the same bits each time and after any kill, and the file that they leave."""

import dataclasses
import json
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "nets"))
from small import SMALL

from voxelseg.checkpoint import load_checkpoint
from voxelseg.errors import CheckpointError, ConfigError, VoxelsegError
from voxelseg.nets import pretrainable_models
from voxelseg.nets.kernel_masks import MASK
from voxelseg.nets.parts import part_tensors
from voxelseg.pretrain.clusters.labels import Clusterers
from voxelseg.pretrain.methods import METHODS
from voxelseg.pretrain.pretraining import check_watching, is_finished, pretrain
from voxelseg.train.loop.state import STATE_FILE
from voxelseg.train.machines.distributed import Processes


class KilledError(BaseException):
    """Ends a training as SIGKILL does: nothing of ours may catch it."""


def events(folder, kind):
    found = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [one for one in found if one["event"] == kind]


def told(folder):
    """What the log says of the epochs, but for the time."""
    return [{key: value for key, value in one.items() if key != "elapsed_s"} for one in events(folder, "epoch")]


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def weights(path):
    return load_checkpoint(path).weights


def killed_after(step):
    def kill(state):
        if state.step == step:
            raise KilledError

    return kill


COMBINATIONS = {
    **{method: {"method": method} for method in METHODS},
    "token": {"method": "masked-clusters", "settings": ["masked_clusters.mask_value=token"]},
    "average": {"method": "simclr", "settings": ["train.ema=0.9", "train.accumulate=2", "train.steps_per_epoch=2"]},
    "moving kernels": {
        "model": "e2enet",
        "settings": ["sparse.update_every=1", "model.strides=[1,2,2]"],
    },
}


def opened(tiny_scans, folder, combination):
    options = dict(COMBINATIONS[combination])
    return tiny_scans.opened(folder, *options.pop("settings", []), **options)


@pytest.mark.parametrize("combination", COMBINATIONS)
def test_killed_within_an_epoch_the_same_bits_come_out(tiny_scans, tmp_path, monkeypatch, combination):
    expected = weights(tiny_scans.train(opened(tiny_scans, tmp_path / "whole", combination)))
    # After step 2 the state of that step is there, after step 4 that of the first epoch, which ends after 2 or 3.
    for step, save_every_s in ((2, -1.0), (4, 300.0)):
        monkeypatch.setattr("voxelseg.train.loop.trainer.SAVE_EVERY_S", save_every_s)
        run = opened(tiny_scans, tmp_path / str(step), combination)
        with pytest.raises(KilledError):
            tiny_scans.train(run, on_progress=killed_after(step))
        torch.manual_seed(999)  # where the generators stand must come from the state
        assert same(expected, weights(tiny_scans.train(run)))
        assert told(tmp_path / "whole") == told(tmp_path / str(step))
        assert events(tmp_path / str(step), "resume")[0]["step"] > 0


def test_kernels_moved_and_only_active_ones_are_not_zero(tiny_scans, tmp_path):
    found = weights(tiny_scans.train(opened(tiny_scans, tmp_path, "moving kernels")))
    assert [one["update"] for one in events(tmp_path, "topology")] == [
        0,
        1,
        2,
        3,
        4,
        5,
    ]  # not after the last of 6 steps
    masks = {name: tensor for name, tensor in found.items() if name.endswith(MASK)}
    assert masks
    for name, mask in masks.items():
        assert not found[name.replace(MASK, "weight")][~mask].any()


def test_two_pretrainings_are_the_same_and_another_seed_is_not(tiny_scans, tmp_path):
    first, second = (weights(tiny_scans.train(tiny_scans.opened(tmp_path / name))) for name in "ab")
    other = weights(tiny_scans.train(tiny_scans.opened(tmp_path / "c", seed=1)))
    assert same(first, second)
    assert not same(first, other)


@pytest.mark.slow
def test_workers_change_nothing(tiny_scans, tmp_path):
    alone = weights(tiny_scans.train(tiny_scans.opened(tmp_path / "a")))
    assert same(alone, weights(tiny_scans.train(tiny_scans.opened(tmp_path / "b", "train.workers=2"))))


@pytest.mark.parametrize("method", METHODS)
def test_the_file_holds_what_was_trained_and_says_how(tiny_scans, tmp_path, method):
    run = tiny_scans.opened(tmp_path, method=method, epochs=1)
    found = load_checkpoint(tiny_scans.train(run))
    prepared = tiny_scans.prepared(run)
    assert found.pretraining["method"] == method
    assert found.pretraining["settings"] == run.config.task.model_dump(mode="json")
    assert (found.pretraining["num_classes"], found.pretraining["slice_axis"]) == (14, 0)
    assert found.pretrained_part == prepared.record["trained"]
    assert set(found.weights) == part_tensors(run.build_network(), found.pretrained_part)
    assert set(found.provenance["train_cases_sha256"]) == {case.id for case in run.parts[0]}
    steps = 2 if method == "simclr" else 3  # one scan more is held out for it
    assert (found.provenance["epochs"], found.provenance["steps"]) == (1, steps)
    torch.manual_seed(0)
    fresh = run.build_network().state_dict()
    moved = [name for name, tensor in found.weights.items() if not torch.equal(tensor, fresh[name])]
    assert len(moved) > len(found.weights) / 2


def test_each_epoch_logs_the_scores_of_held_out_crops(tiny_scans, tmp_path):
    tiny_scans.train(tiny_scans.opened(tmp_path, method="masked-clusters"))
    for epoch in events(tmp_path, "epoch"):
        assert epoch["score"] == epoch["validation_scores"]["score"]
        assert {"accuracy", "accuracy of the nearest visible slice"} <= epoch["validation_scores"].keys()
        assert epoch["validation_loss"] > 0


def test_held_out_scans_are_unknown_to_the_clusterers(tiny_scans, tmp_path):
    run = tiny_scans.opened(tmp_path, method="masked-clusters")
    key = tiny_scans.prepared(run).record["clusterers"]
    said = json.loads((tiny_scans.cache / f"clusters-{key}" / "clusters.json").read_text())
    learnt, held_out = run.parts
    assert [name for name, _ in said["scans"]] == [case.id for case in learnt]
    assert held_out


def test_it_goes_on_with_the_same_clusterers_only(tiny_scans, tmp_path):
    run = tiny_scans.opened(tmp_path, "train.ema=0.5", method="masked-clusters")
    prepared = tiny_scans.prepared(run)
    with pytest.raises(KilledError):
        pretrain(run, tiny_scans.stored, prepared, on_progress=killed_after(4))
    known = prepared.build.keywords["clusterers"]
    others = Clusterers(known._centres.flip(0), known.sizes, known.counts)
    build = partial(prepared.build, clusterers=others)
    with pytest.raises(CheckpointError, match=r"clusterers are not those.*Delete .* to train again"):
        pretrain(run, tiny_scans.stored, dataclasses.replace(prepared, build=build))
    assert pretrain(run, tiny_scans.stored, prepared).is_file()


def test_the_best_weights_are_kept_beside_the_last(tiny_scans, tmp_path):
    run = tiny_scans.opened(tmp_path, epochs=3)
    tiny_scans.train(run)
    best = load_checkpoint(run.best_file)
    last = [one["epoch"] for one in events(tmp_path, "epoch") if one["best"]][-1]
    assert best.provenance["epochs"] == last + 1


def test_without_held_out_scans_nothing_is_watched(tiny_scans, tmp_path):
    run = tiny_scans.opened(tmp_path, "pretrain.held_out=0")
    tiny_scans.train(run)
    assert not run.best_file.exists()
    assert [one["validation_scores"] for one in events(tmp_path, "epoch")] == [None, None]


@pytest.mark.parametrize("setting", ["train.early_stopping=2", "train.schedule=plateau", "train.watch=score"])
def test_what_goes_by_validation_needs_held_out_scans(tiny_scans, tmp_path, setting):
    run = tiny_scans.opened(tmp_path, "pretrain.held_out=0", setting)
    key = setting.removesuffix("=2").removesuffix("=score")
    with pytest.raises(ConfigError, match=rf"{key}.*: no scan is held out.*held_out"):
        check_watching(run)
    check_watching(tiny_scans.opened(tmp_path / "other", setting))


def test_kernels_that_would_never_move_are_refused(tiny_scans, tmp_path):
    run = tiny_scans.opened(tmp_path, "sparse.update_every=6", "model.strides=[1,2,2]", model="e2enet")
    with pytest.raises(ConfigError, match=r"sparse\.update_every=6 is not reached in 6 steps"):
        check_watching(run)


@pytest.mark.parametrize("method", ["simclr", "rubik-cls"])
def test_moves_of_kernels_that_the_method_does_not_train_are_refused(tiny_scans, tmp_path, method):
    still = tiny_scans.opened(tmp_path / "still", "model.strides=[1,2,2]", model="e2enet", method=method, epochs=1)
    tiny_scans.train(still)  # the layers that fuse are sparse, and not of the encoder
    run = tiny_scans.opened(
        *(tmp_path / "moving", "model.strides=[1,2,2]", "sparse.growth=gradient"), model="e2enet", method=method
    )
    with pytest.raises(ConfigError, match=rf"sparse\.growth: {method} trains no sparse layer of e2enet"):
        tiny_scans.train(run)


def test_a_finished_pretraining_is_known_and_one_of_another_seed_is_refused(tiny_scans, tmp_path):
    run, alone = tiny_scans.opened(tmp_path, epochs=1), Processes.alone(torch.device("cpu"))
    assert not is_finished(run, alone)
    tiny_scans.train(run)
    assert is_finished(run, alone)
    with pytest.raises(CheckpointError, match=r"is not of this pre-training\. Delete it to train again"):
        is_finished(dataclasses.replace(run, seed=1), alone)


def test_a_damaged_state_is_named(tiny_scans, tmp_path):
    run = tiny_scans.opened(tmp_path)
    (tmp_path / STATE_FILE).write_bytes(b"half")
    with pytest.raises(CheckpointError, match=rf"{STATE_FILE}: damaged.*Delete .* to train again"):
        tiny_scans.train(run)


def test_memory_that_ran_out_is_said_with_the_remedy(tiny_scans, tmp_path):
    run = tiny_scans.opened(tmp_path)

    def run_out(state):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 10 bytes")

    with pytest.raises(VoxelsegError, match=r"the memory ran out .*smaller memory budget"):
        tiny_scans.train(run, on_progress=run_out)


PATCHES = {"unetr": (48, 16, 32), "unet3d": (32, 32, 32), "unetpp": (32, 32, 32), "swin_unetr": (32, 32, 64)}
"""Networks that the tiny crop is too small for."""


@pytest.mark.slow
@pytest.mark.parametrize("model", pretrainable_models())
def test_each_network_learns_from_scans(tiny_scans, tmp_path, model):
    options = [f"model.{key}={json.dumps(value)}" for key, value in SMALL[model].items() if key != "image_size"]
    plan = {"patch_size": PATCHES.get(model, (16, 32, 16))}
    run = tiny_scans.opened(tmp_path, *options, method="masked-clusters", model=model, epochs=1, plan=plan)
    found = load_checkpoint(tiny_scans.train(run))
    assert set(found.weights) == part_tensors(run.build_network(), "all")
    assert all(bool(tensor.isfinite().all()) for tensor in found.weights.values())
