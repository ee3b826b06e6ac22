import json
import shutil
from pathlib import Path

import pytest
import torch
from tiny_runs import MEDNEXT, events, opened_run

from voxelseg.checkpoint import load_checkpoint
from voxelseg.errors import CheckpointError, ConfigError
from voxelseg.patches.loader import load_batches
from voxelseg.report.run import read_run
from voxelseg.train import fitting
from voxelseg.train.fold import train_fold
from voxelseg.train.loop.stage import SMALL_KERNEL_FILE, SMALL_KERNEL_STATE_FILE
from voxelseg.train.loop.state import STATE_FILE
from voxelseg.train.start.upkern import grow_kernels

GROWTH = (*MEDNEXT, "train.grow_kernel=[3,5]")


class KilledError(BaseException):
    """Ends a training as SIGKILL does: nothing of ours may catch it."""


@pytest.fixture(scope="module")
def grown(prepared, tmp_path_factory):
    """Fold 0 of a run whose kernels grew after two of four epochs of one step."""
    run = opened_run(prepared, tmp_path_factory.mktemp("grown"), *GROWTH, epochs=4)
    train_fold(run, 0, prepared.stored)
    return run


def same_weights(first, second):
    one, other = load_checkpoint(first).weights, load_checkpoint(second).weights
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def epochs_of(run):
    return [
        {key: value for key, value in event.items() if key != "elapsed_s"}
        for event in events(run.fold_folder(0), "epoch")
    ]


def test_small_kernels_are_trained_then_grown_and_trained_on(grown):
    folder = grown.fold_folder(0)
    small, large = load_checkpoint(folder / SMALL_KERNEL_FILE), load_checkpoint(grown.model_file(0))
    name = "encoder.1.0.depthwise.weight"
    assert small.weights[name].shape[2:] == (3, 3, 3)
    assert large.weights[name].shape[2:] == (5, 5, 5)
    expected = grow_kernels(small.weights, large.weights)[name]
    assert not torch.equal(large.weights[name], expected)  # trained on
    torch.testing.assert_close(large.weights[name], expected, rtol=0, atol=0.01)  # from there
    assert {path.name for path in folder.iterdir()} == {
        *("model.safetensors", "best.safetensors", SMALL_KERNEL_FILE, STATE_FILE, "log.jsonl", ".lock")
    }


def test_both_stages_are_in_one_log_and_one_report(grown):
    epochs = epochs_of(grown)
    assert [(one["epoch"], one["step"], one["stage"]) for one in epochs] == [
        (0, 1, "kernel 3"),
        (1, 2, "kernel 3"),
        (2, 3, "kernel 5"),
        (3, 4, "kernel 5"),
    ]
    rates = [one["lr"] for one in epochs]
    assert rates[0] == rates[2] == pytest.approx(1e-3)  # a schedule of its own for each stage
    assert rates[1] == rates[3] < rates[0]
    elapsed = [one["elapsed_s"] for one in events(grown.fold_folder(0), "epoch")]
    assert elapsed == sorted(elapsed)
    assert [one["stage"] for one in events(grown.fold_folder(0), "start")] == ["kernel 3", "kernel 5"]
    assert len(events(grown.fold_folder(0), "end")) == 1
    (fold,) = read_run(grown.folder).folds
    assert fold.later_stages == {2: "kernel 5"}
    assert fold.curve("loss")[0] == [0, 1, 2, 3]


def test_the_model_records_both_stages(grown):
    provenance = load_checkpoint(grown.model_file(0)).provenance
    assert (provenance["epochs"], provenance["steps"]) == (4, 4)
    stages = provenance["stages"]
    assert [(one["name"], one["epochs"], one["steps"]) for one in stages] == [("kernel 3", 2, 2), ("kernel 5", 2, 2)]
    assert provenance["training_s"] == pytest.approx(sum(one["training_s"] for one in stages))
    assert provenance["transfer"] is None


def test_the_second_stage_sees_other_samples_than_the_first(prepared, tmp_path, monkeypatch):
    first = []

    def load(*arguments, first_sample, **others):
        first.append(first_sample)
        return load_batches(*arguments, first_sample=first_sample, **others)

    monkeypatch.setattr("voxelseg.train.loop.trainer.load_batches", load)
    run = opened_run(prepared, tmp_path, *GROWTH, epochs=3, plan={"batch_size": 2})
    train_fold(run, 0, prepared.stored)
    assert first == [0, 4]  # two steps of two patches


def test_a_training_killed_after_each_step_and_at_the_growth_ends_with_the_same_bits(
    grown, prepared, tmp_path, monkeypatch
):
    run = opened_run(prepared, tmp_path, *GROWTH, epochs=4)
    lives = 0

    def kill(*_):
        raise KilledError

    def live(**options):
        nonlocal lives
        lives += 1
        assert lives < 20
        return train_fold(run, 0, prepared.stored, **options)

    def killed(name, when):
        """A life that ends when `fitting` calls one of its functions, before or after that."""
        function = getattr(fitting, name)

        def killing(*arguments):
            if when == "after":
                function(*arguments)
            raise KilledError

        with monkeypatch.context() as patched:
            patched.setattr(fitting, name, killing)
            with pytest.raises(KilledError):
                live()

    for _ in range(2):  # steps of the first stage
        with pytest.raises(KilledError):
            live(on_progress=kill)
    assert (run.fold_folder(0) / SMALL_KERNEL_STATE_FILE).is_file()
    killed("save_checkpoint", "before")
    killed("save_checkpoint", "after")
    assert (run.fold_folder(0) / SMALL_KERNEL_FILE).is_file()
    killed("refuse_other_models", "after")
    killed("grow_kernels", "after")
    for _ in range(2):  # steps of the second stage
        with pytest.raises(KilledError):
            live(on_progress=kill)
    live()
    assert same_weights(run.model_file(0), grown.model_file(0))
    assert same_weights(run.best_file(0), grown.best_file(0))
    assert epochs_of(run) == epochs_of(grown)


def test_progress_is_that_of_both_stages(prepared, tmp_path):
    shown = []
    run = opened_run(prepared, tmp_path, *GROWTH, epochs=4)
    train_fold(run, 0, prepared.stored, on_progress=shown.append)
    assert [(one.share, one.step) for one in shown] == [(0.25, 1), (0.5, 2), (0.75, 3), (1.0, 4)]
    assert [one.left_s for one in shown][-1] == 0
    assert shown[0].left_s == pytest.approx(3 * shown[0].elapsed_s)


def test_a_budget_is_shared_by_both_stages(prepared, tmp_path):
    run = opened_run(prepared, tmp_path, *GROWTH, "train.budget_s=4", "train.grow_share=0.25", epochs=None)
    train_fold(run, 0, prepared.stored)
    stages = load_checkpoint(run.model_file(0)).provenance["stages"]
    assert stages[0]["training_s"] < 2
    assert stages[0]["training_s"] + stages[1]["training_s"] < 6
    epochs = events(run.fold_folder(0), "epoch")
    assert [one["epoch"] for one in epochs] == sorted({one["epoch"] for one in epochs})


def test_networks_without_a_kernel_size_cannot_grow(prepared, tmp_path):
    with pytest.raises(ConfigError, match=r"train.grow_kernel: unet_s has no kernel_size"):
        opened_run(prepared, tmp_path, "train.grow_kernel=[3,5]", model="unet_s").build_model()
    with pytest.raises(ConfigError, match=r"kernel_size = 4: expected odd numbers"):
        opened_run(prepared, tmp_path / "even", "train.grow_kernel=[4,5]").build_model()


def test_the_patch_is_planned_for_the_large_kernel(prepared, tmp_path):
    run = opened_run(prepared, tmp_path, *GROWTH)
    assert run.build_model().config.kernels[:2] == ((1, 5, 5), (5, 5, 5))  # of thick slices
    assert run.build_model(kernel_size=3).config.kernels[:2] == ((1, 3, 3), (3, 3, 3))
    isotropic = {"kernels": ((3, 3, 3),) * len(prepared.plan.kernels)}
    run = opened_run(prepared, tmp_path / "isotropic", *GROWTH, plan=isotropic)
    assert run.build_model().config.kernels[0] == (5, 5, 5)


def start(prepared, folder, init, *settings, epochs=1, **changes):
    """Fold 0 of a run that starts from `init`, and what it was told of the weights."""
    told = []
    settings = (*MEDNEXT, f"transfer.init={json.dumps(str(init))}", *settings)
    run = opened_run(prepared, folder, *settings, epochs=epochs, **changes)
    train_fold(run, 0, prepared.stored, on_transfer=told.append)
    return run, told


def test_a_run_starts_from_the_same_fold_of_another(grown, prepared, tmp_path):
    run, (report,) = start(prepared, tmp_path, grown.folder, "model.kernel_size=5", "train.lr=1e-30")
    assert report.path == str(grown.model_file(0))
    found, given = load_checkpoint(run.model_file(0)), load_checkpoint(grown.model_file(0))
    for name, weight in given.weights.items():
        torch.testing.assert_close(found.weights[name], weight)
    record = json.loads((run.fold_folder(0) / "transfer.json").read_text())
    assert set(record["matched"]) == given.weights.keys()
    kept = found.provenance["transfer"]
    assert (kept["path"], kept["checksum"], kept["share"]) == (report.path, given.fingerprint(), 1.0)
    assert set(kept["seen_sha256"]) == {
        one for files in given.provenance["train_cases_sha256"].values() for one in files
    }
    assert report.warnings == ()  # the folds are the same: no held-out case was seen


def test_kernels_grow_from_a_finished_run_too(grown, prepared, tmp_path):
    init = grown.fold_folder(0) / SMALL_KERNEL_FILE
    with pytest.raises(CheckpointError, match=r"transfer.grow_kernels=true"):
        start(prepared, tmp_path / "refused", init, "model.kernel_size=5")
    run, (report,) = start(prepared, tmp_path / "run", init, "model.kernel_size=5", "transfer.grow_kernels=true")
    assert len(report.grown) == 17
    assert load_checkpoint(run.model_file(0)).weights["encoder.1.0.depthwise.weight"].shape[2:] == (5, 5, 5)


def test_the_small_kernels_of_a_growth_may_start_from_weights(grown, prepared, tmp_path):
    init = grown.fold_folder(0) / SMALL_KERNEL_FILE
    run, (report,) = start(prepared, tmp_path, init, "train.grow_kernel=[3,5]", epochs=2)
    assert report.share == 1.0
    assert load_checkpoint(run.model_file(0)).provenance["transfer"]["path"] == str(init)


def test_held_out_cases_of_the_origin_s_training_are_warned_of(grown, prepared, tmp_path):
    other = opened_run(prepared, tmp_path / "splits").splits
    _, (report,) = start(
        prepared, tmp_path / "run", grown.model_file(0), "model.kernel_size=5", splits=[other[1], other[0]]
    )
    assert other[1].validation[0] in grown.splits[0].train
    assert f"({other[1].validation[0]}): the scores of this fold will be too good" in report.warnings[0]


def test_what_a_training_starts_from_is_asked_for_only_once(grown, prepared, tmp_path):
    init = shutil.copy(grown.model_file(0), tmp_path / "init.safetensors")

    def kill(*_):
        raise KilledError

    settings = (*MEDNEXT, "model.kernel_size=5", f"transfer.init={json.dumps(str(init))}")
    run = opened_run(prepared, tmp_path / "run", *settings)
    with pytest.raises(KilledError):
        train_fold(run, 0, prepared.stored, on_progress=kill)
    Path(init).unlink()
    told = []
    again = opened_run(prepared, tmp_path / "run", *settings)
    train_fold(again, 0, prepared.stored, on_transfer=told.append)
    assert told == []
    assert load_checkpoint(run.model_file(0)).provenance["transfer"]["path"] == str(init)


def test_an_interrupted_fine_tuning_ends_with_the_same_bits(grown, prepared, tmp_path):
    settings = ("model.kernel_size=5", "transfer.freeze=[encoder]", "transfer.lr_factors={heads.*: 10}")
    whole, _ = start(prepared, tmp_path / "whole", grown.folder, *settings, epochs=3)

    def kill(*_):
        raise KilledError

    init = f"transfer.init={json.dumps(str(grown.folder))}"
    run = opened_run(prepared, tmp_path / "run", *MEDNEXT, init, *settings, epochs=3)
    for _ in range(3):
        with pytest.raises(KilledError):
            train_fold(run, 0, prepared.stored, on_progress=kill)
    train_fold(run, 0, prepared.stored)
    assert same_weights(run.model_file(0), whole.model_file(0))


def test_a_frozen_encoder_leaves_the_training_as_it_came(grown, prepared, tmp_path):
    run, _ = start(prepared, tmp_path, grown.folder, "model.kernel_size=5", "transfer.freeze=[encoder]", epochs=2)
    found, given = load_checkpoint(run.model_file(0)).weights, load_checkpoint(grown.model_file(0)).weights
    same = {name for name in given if torch.equal(found[name], given[name])}
    assert {name for name in given if name.startswith(("stem", "encoder", "down"))} <= same
    assert not {name for name in given if name.startswith("heads") and name.endswith("weight")} & same


def test_other_weights_under_the_same_name_are_noticed_where_they_are_needed(grown, prepared, tmp_path):
    def kill(*_):
        raise KilledError

    init = shutil.copy(grown.fold_folder(0) / SMALL_KERNEL_FILE, tmp_path / "init.safetensors")
    folder, settings = tmp_path / "run", (*MEDNEXT, f"transfer.init={json.dumps(str(init))}")
    run = opened_run(prepared, folder, *settings)
    with pytest.raises(KilledError):
        train_fold(run, 0, prepared.stored, on_progress=kill)
    shutil.copy(grown.best_file(0), init)
    with pytest.raises(ConfigError, match=r"init.safetensors has changed since the run .* was started"):
        train_fold(run, 1, prepared.stored)
    init.write_bytes(b"damaged")
    train_fold(opened_run(prepared, folder, *settings), 0, prepared.stored)  # it has begun, and needs them no more


def test_folds_that_the_origin_finishes_later_are_recorded_then(grown, prepared, tmp_path):
    origin = tmp_path / "origin"
    shutil.copytree(grown.folder, origin)
    settings = (*MEDNEXT, "model.kernel_size=5", f"transfer.init={json.dumps(str(origin))}")
    opened_run(prepared, tmp_path / "run", *settings)
    shutil.copytree(origin / "fold_0", origin / "fold_1")
    opened_run(prepared, tmp_path / "run", *settings)
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["init"].keys() == {"fold_0/model.safetensors", "fold_1/model.safetensors"}


def test_a_small_kernel_model_of_another_run_is_not_built_upon(grown, prepared, tmp_path):
    run = opened_run(prepared, tmp_path, *GROWTH, epochs=4, seed=3)
    folder = run.fold_folder(0)
    folder.mkdir()
    shutil.copy(grown.fold_folder(0) / SMALL_KERNEL_FILE, folder / SMALL_KERNEL_FILE)
    with pytest.raises(CheckpointError, match=r"small_kernel.safetensors: is not of this run and fold"):
        train_fold(run, 0, prepared.stored)


def test_sparse_layers_keep_the_connections_of_another_training_if_these_are_frozen(prepared, tmp_path):
    e2enet = ("model.width=4", "model.strides=[1,2,2]", "sparse.sparsity=0.5")
    origin = opened_run(prepared, tmp_path / "origin", *e2enet, "sparse.update_every=1", model="e2enet", epochs=3)
    train_fold(origin, 0, prepared.stored)
    init = f"transfer.init={json.dumps(str(origin.folder))}"
    changes = {"model": "e2enet", "seed": 1, "epochs": 3}
    kept = opened_run(prepared, tmp_path / "kept", *e2enet, init, "sparse.freeze_topology=true", **changes)
    moved = opened_run(prepared, tmp_path / "moved", *e2enet, init, "sparse.update_every=1", **changes)
    for run in (kept, moved):
        train_fold(run, 0, prepared.stored)
    given, found, others = (load_checkpoint(run.model_file(0)).weights for run in (origin, kept, moved))
    masks = [name for name in given if name.endswith("kernel_mask")]
    assert masks
    assert all(torch.equal(found[name], given[name]) for name in masks)
    assert not all(torch.equal(others[name], given[name]) for name in masks)
    for name in masks:
        weight, mask = found[name.replace("kernel_mask", "weight")], found[name]
        assert not weight[~mask].any()
        assert not torch.equal(weight, given[name.replace("kernel_mask", "weight")])


COMBINATIONS = {
    "average": ("train.ema=0.9", "train.warmup=0.5"),
    "sparse": ("sparse.layers=[decoder.*.expand]", "sparse.sparsity=0.5", "sparse.update_every=1"),
    "frozen": ("transfer.freeze=[stem.*]", "train.optimizer=sgd", "augmentation.enabled=true"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", COMBINATIONS)
def test_killed_once_after_any_step_of_two_stages_the_same_bits_come_out(prepared, tmp_path, name):
    settings = (*MEDNEXT, "train.grow_kernel=[3,5]", *COMBINATIONS[name])
    whole = opened_run(prepared, tmp_path / "whole", *settings, epochs=4, steps=2)
    train_fold(whole, 0, prepared.stored)

    def killing(step):
        def kill(state):
            if state.step == step:
                raise KilledError

        return kill

    for step in range(1, 9):
        run = opened_run(prepared, tmp_path / f"killed_{step}", *settings, epochs=4, steps=2)
        with pytest.raises(KilledError):
            train_fold(run, 0, prepared.stored, on_progress=killing(step))
        torch.manual_seed(12345)  # where the generators stand must come from the state
        train_fold(run, 0, prepared.stored)
        assert same_weights(run.model_file(0), whole.model_file(0)), step
        assert epochs_of(run) == epochs_of(whole), step


def test_modes_of_a_training_do_not_outlast_it(prepared, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    for number, setting in enumerate(("true", "false")):
        seen = []
        run = opened_run(prepared, tmp_path / str(number), *MEDNEXT, f"train.deterministic={setting}", epochs=1)
        train_fold(
            run,
            0,
            prepared.stored,
            on_progress=lambda state, seen=seen: seen.append(
                (torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark)
            ),
        )
        assert seen == [(setting == "true", setting == "false")]
        assert (torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark) == (False, False)
