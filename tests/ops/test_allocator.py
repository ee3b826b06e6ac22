import platform
import subprocess
import sys

import pytest

SCRIPT = """
import resource, torch
from voxelseg.ops.allocator import keep_freed_memory
assert keep_freed_memory()
for _ in range(20):  # the heap settles after a few
    torch.empty(2**23).fill_(1.0)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.empty(2**23).fill_(1.0)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is glibc's")
def test_freed_memory_is_used_again_without_page_faults():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 20000  # ten times 32 MB are 81920 pages of 4 kB


def test_other_systems_are_left_alone(monkeypatch):
    from voxelseg.ops.allocator import keep_freed_memory

    monkeypatch.setattr(sys, "platform", "darwin")
    assert keep_freed_memory() is False
