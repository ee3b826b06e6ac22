import pytest
from designs import designed, finish

from voxelseg.benchmark.length import Length
from voxelseg.benchmark.machines import unequal_devices
from voxelseg.files import write_json

QUICK, SLOW = "cuda (NVIDIA H200)", "cuda (Quadro M2000)"
PACE = {"device": "cuda", "jobs": 1, "threads": 8}


@pytest.fixture
def benchmark(tmp_path):
    """A design in minutes, and a function that finishes a training of it on a device."""
    design = designed(tmp_path, "unet,uxnet,next=unet", folds=(0,), length=Length(budget="30m"), pace=PACE)

    def trained(name, seed, device):
        write_json(finish(design, name, 0, seed).parent / "run.json", {"device": device})

    return design, trained


def test_who_had_which_device_is_told_where_they_differ(benchmark, tmp_path):
    design, trained = benchmark
    trained("unet", 0, QUICK)
    trained("uxnet", 0, QUICK)
    assert unequal_devices(design) == []
    trained("uxnet", 1, SLOW)
    trained("next", 0, QUICK)
    (said,) = unequal_devices(design)
    assert said.startswith(f"Not equal: unet, next on {QUICK}; uxnet on {QUICK} and {SLOW}. A quicker device")
    (said,) = unequal_devices(designed(tmp_path, "unet,uxnet", folds=(0,)))
    assert said.startswith(f"Trained on different devices: unet on {QUICK}; uxnet on {QUICK} and {SLOW}. Steps are")


def test_threads_and_devices_of_unknown_model_make_no_difference(benchmark):
    design, trained = benchmark
    trained("unet", 0, "cpu (Intel Xeon, 8 threads)")
    trained("unet", 1, "cpu (Intel Xeon, 4 threads)")
    trained("uxnet", 0, "cpu (8 threads)")  # as earlier versions wrote it
    write_json(finish(design, "uxnet", 0, 1) / "training.json", {"steps": 3})
    assert unequal_devices(design) == []
    trained("next", 0, "cpu (AMD EPYC, 8 threads)")
    (said,) = unequal_devices(design)
    assert said.startswith("Not equal: unet on cpu (Intel Xeon); next on cpu (AMD EPYC). ")


def test_nnunet_says_its_device_in_its_own_record(tmp_path):
    design = designed(tmp_path, "unet,nnunet", folds=(0,), seeds=(0,))
    write_json(finish(design, "unet", 0, 0).parent / "run.json", {"device": QUICK})
    write_json(finish(design, "nnunet", 0, 0) / "training.json", {"device": SLOW})
    (said,) = unequal_devices(design)
    assert f"unet on {QUICK}; nnunet on {SLOW}" in said
