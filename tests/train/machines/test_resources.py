import pytest
import torch

from voxelseg.train.machines import resources
from voxelseg.train.machines.resources import free_memory, num_cores

CPU = torch.device("cpu")
STAT = "cache 1000\ninactive_file 300\n"


@pytest.fixture
def system(tmp_path, monkeypatch):
    """Files of a Linux system: function that writes them by name."""
    monkeypatch.setattr(resources, "_MEMORY", tmp_path / "meminfo")
    monkeypatch.setattr(resources, "_OWN_GROUPS", tmp_path / "groups")
    monkeypatch.setattr(resources, "_CONTROL_GROUPS", tmp_path / "cgroup")

    def write(**files):
        for name, text in files.items():
            path = tmp_path / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    write(meminfo="MemTotal: 9000 kB\nMemFree: 10 kB\nMemAvailable: 4 kB\n", groups="")
    return write


def test_free_is_what_the_system_can_give_including_its_caches(system):
    assert free_memory(CPU) == 4 * 1024


@pytest.mark.parametrize(
    ("group", "limit", "usage"),
    [
        ("0::/job", "cgroup__job__memory.max", "cgroup__job__memory.current"),
        (
            "4:memory,hugetlb:/job",
            "cgroup__memory__job__memory.limit_in_bytes",
            "cgroup__memory__job__memory.usage_in_bytes",
        ),
    ],
    ids=["version 2", "version 1"],
)
def test_the_limit_of_a_control_group_counts_without_its_file_caches(system, group, limit, usage):
    stat = "__".join(limit.split("__")[:-1]) + "__memory.stat"
    system(groups=f"7:cpu:/other\n{group}\n", **{limit: "2000\n", usage: "900\n", stat: STAT})
    assert free_memory(CPU) == 2000 - 900 + 300


def test_the_limit_of_an_outer_group_counts_too(system):
    files = {"memory.max": "1500", "memory.current": "1000", "memory.stat": STAT}
    system(groups="0::/outer/inner\n", **{f"cgroup__outer__{name}": text for name, text in files.items()})
    system(**{"cgroup__outer__inner__memory.max": "max"})
    assert free_memory(CPU) == 800


def test_a_group_without_limit_is_no_limit(system):
    files = {"memory.max": "max\n", "memory.current": "1000\n", "memory.stat": STAT}
    system(groups="0::/job\n", **{f"cgroup__job__{name}": text for name, text in files.items()})
    assert free_memory(CPU) == 4 * 1024


def test_this_machine_says_something_sensible():
    free = free_memory(CPU)
    assert free is None or 2**20 < free < 2**50


@pytest.mark.gpu
def test_a_gpu_says_what_is_free():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    assert 0 < free_memory(torch.device("cuda", 0)) <= torch.cuda.get_device_properties(0).total_memory


def test_the_cores_are_those_that_the_process_may_use(monkeypatch):
    monkeypatch.setattr(resources.os, "sched_getaffinity", lambda process: {2, 5, 7}, raising=False)
    assert num_cores() == 3
    monkeypatch.delattr(resources.os, "sched_getaffinity")
    monkeypatch.setattr(resources.os, "cpu_count", lambda: None)
    assert num_cores() == 1
