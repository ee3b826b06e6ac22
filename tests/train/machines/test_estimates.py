import shutil
from dataclasses import replace
from math import prod

import pytest
import torch

from voxelseg.errors import VoxelsegError
from voxelseg.plan.fingerprint import read_fingerprint
from voxelseg.train.machines.distributed import Processes
from voxelseg.train.machines.estimates import Need, check_needs, disk_needs, memory_need, stored_bytes
from voxelseg.train.run import Run

ALONE = Processes.alone(torch.device("cpu"))


def need(*, least, most, free):
    return Need(where="Disk of RUN", parts={"cases": most}, least=least, free=free, remedy="Free some space.")


@pytest.fixture
def own(tiny_msd, train_tiny, tmp_path) -> Run:
    return train_tiny(tiny_msd, tmp_path / "run", epochs=1)


@pytest.fixture
def fingerprint(own):
    return read_fingerprint(own.folder / "work" / "fingerprint.json")


def store_of(run):
    return run.folder / "work" / "store" / run.plan.preprocessing_key()[:12]


def size_of(path):
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")))


def test_what_fits_easily_is_silent_what_may_not_is_a_warning_and_what_cannot_an_error():
    assert check_needs([need(least=1, most=10, free=10)]) == []
    (warning,) = check_needs([need(least=1, most=2_000_000_000, free=1_500_000_000)])
    assert warning == (
        "Disk of RUN: needs at most 2 GB (cases 2 GB), 1.5 GB are free. It may not be enough. Free some space."
    )
    with pytest.raises(VoxelsegError, match=r"^Disk of RUN: needs 8 MB or more, 7 MB are free\. Free some space\.$"):
        check_needs([need(least=8_000_000, most=9_000_000, free=7_000_000)])


def test_all_that_cannot_fit_is_named_at_once():
    with pytest.raises(VoxelsegError, match=r"8 MB or more.*; .*9 MB or more"):
        check_needs([need(least=size, most=size, free=0) for size in (8_000_000, 9_000_000)])


def test_the_estimate_of_a_fresh_training_lies_above_what_it_then_takes_and_its_least_below(own, fingerprint):
    cases, fold = size_of(store_of(own)), own.fold_folder(0)
    written = sum(size_of(fold / name) for name in ("training_state.pt", "model.safetensors", "best.safetensors"))
    shutil.rmtree(own.folder / "work" / "store")
    shutil.rmtree(fold)
    (disk,) = disk_needs(own, [0], fingerprint, store=store_of(own))
    assert list(disk.parts) == ["cases", "states", "models", "predictions"]
    assert disk.parts["cases"] > 0.9 * cases  # noise does not compress, and there are places to sample from
    assert written < disk.parts["states"] + disk.parts["models"] < 2.2 * written + 1e5
    assert disk.least < cases + 2.2 * written
    assert disk.free == pytest.approx(shutil.disk_usage(own.folder).free, rel=0.1)


def test_what_is_there_already_is_not_asked_for_again(own, fingerprint):
    assert disk_needs(own, [0], fingerprint, store=store_of(own)) == []
    own.model_file(0).unlink()
    (continued,) = disk_needs(own, [0], fingerprint, store=store_of(own))
    (own.fold_folder(0) / "training_state.pt").unlink()
    (fresh,) = disk_needs(own, [0], fingerprint, store=store_of(own))
    # While a state is replaced it is there twice: fresh it takes two times its size, continued once more.
    assert fresh.parts["states"] == pytest.approx(2 * continued.parts["states"], rel=0.05)


def test_every_fold_takes_its_own_states_and_models(own, fingerprint):
    (one,) = disk_needs(own, [1], fingerprint, store=store_of(own))
    (three,) = disk_needs(own, [1, 2, 3], fingerprint, store=store_of(own))
    assert three.parts["models"] == 3 * one.parts["models"]
    assert three.parts["states"] == 2 * one.parts["states"]  # 3 + 1 of them, to 1 + 1


def test_the_model_before_the_kernels_grow_is_kept_too(own, fingerprint):
    def models(**settings):
        train = own.config.train.model_copy(update=settings)
        config = own.config.model_copy(update={"train": train, "model": {"width": 2, "blocks": 1, "kernel_size": 5}})
        (disk,) = disk_needs(replace(own, model="mednext_xs", config=config), [1], fingerprint, store=store_of(own))
        return disk.parts["models"]

    # The last and the best, and the one before the kernels grow, which is smaller.
    assert models(grow_kernel=(3, 5)) == pytest.approx(3 / 2 * models())


def test_a_stored_case_has_the_voxels_of_the_plan(fingerprint, own):
    case = next(iter(fingerprint.cases))
    known = fingerprint.cases[case]
    # Halved spacing along each axis: 8 times the voxels, of 4 bytes in the one channel and 2 in the target; and of two
    # classes, both together and the background 10,000 places of three 4-byte numbers, or one for each voxel.
    fine = own.plan.changed(spacing_mm=[mm / 2 for mm in known.spacing_mm])
    voxels = 8 * prod(known.nonzero_shape)
    assert voxels > 10_000
    assert stored_bytes(fingerprint, case, fine) == pytest.approx(voxels * 6 + 4 * 10_000 * 12)
    kept = own.plan.changed(resampling="none", crop="none")
    assert prod(known.shape) < 10_000
    assert stored_bytes(fingerprint, case, kept) == prod(known.shape) * (6 + 4 * 12)


def test_memory_follows_the_share_of_the_batch_and_the_optimizer(own):
    whole, half = memory_need(own, ALONE), memory_need(own, Processes(ALONE.device, count=2))
    if whole is None or half is None:
        pytest.skip("this system does not say how much memory is free")
    assert half.parts["a step"] == pytest.approx(whole.parts["a step"] / 2, abs=1)
    assert half.parts["weights"] == whole.parts["weights"]
    assert whole.parts["weights"] < whole.least < whole.most
    sgd = replace(
        own, config=own.config.model_copy(update={"train": own.config.train.model_copy(update={"optimizer": "sgd"})})
    )
    frugal = memory_need(sgd, ALONE)
    assert frugal is not None
    assert frugal.parts["weights"] == pytest.approx(whole.parts["weights"] * 3 / 4)  # one moment instead of two


def test_a_training_without_space_is_refused_before_it_writes(tiny_msd, train_tiny, tmp_path, monkeypatch):
    from voxelseg.train.machines import estimates

    full = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(estimates.shutil, "disk_usage", lambda _: full)
    with pytest.raises(VoxelsegError, match=r"Disk of .*: needs .* or more, 0.001 MB are free\. Free some space"):
        train_tiny(tiny_msd, tmp_path / "run", epochs=1)
    assert not (tmp_path / "run" / "work" / "store").exists()
