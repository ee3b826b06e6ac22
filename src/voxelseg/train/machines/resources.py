"""What a machine has free, within the limits that a container or batch system sets, and what this process holds."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import torch

_CONTROL_GROUPS = Path("/sys/fs/cgroup")
_OWN_GROUPS = Path("/proc/self/cgroup")
_MEMORY = Path("/proc/meminfo")


def free_memory(device: torch.device) -> int | None:
    """Bytes that may still be taken on `device`; None if the system does not say."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    known = [free for free in (_free_of_machine(), *_free_of_groups()) if free is not None]
    return min(known, default=None)


def resident_bytes() -> int | None:
    """Memory that this process holds now; None where the system does not say, as outside Linux."""
    return _of_process("VmRSS")


def peak_bytes() -> int | None:
    """Most memory that this process has held; None where the system does not say, as outside Linux."""
    return _of_process("VmHWM")


def _of_process(name: str) -> int | None:
    with suppress(OSError):
        for line in Path(f"/proc/{os.getpid()}/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return None


def num_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _free_of_machine() -> int | None:
    with suppress(OSError, ValueError, IndexError):
        for line in _MEMORY.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    with suppress(OSError, ValueError, AttributeError):  # no such call on Windows, no such name on macOS
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def _free_of_groups() -> Iterator[int]:
    """Bytes left to this process's control groups on Linux, of either version, and to those that they lie in."""
    with suppress(OSError):
        for line in _OWN_GROUPS.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers == "":
                root, limit, usage = _CONTROL_GROUPS, "memory.max", "memory.current"
            elif "memory" in controllers.split(","):
                root, limit, usage = _CONTROL_GROUPS / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
            else:
                continue
            group = root / path.lstrip("/")
            for folder in (group, *group.parents):
                free = _free_of_group(folder, limit, usage)
                if free is not None:
                    yield free
                if folder == root:
                    break


def _free_of_group(folder: Path, limit: str, usage: str) -> int | None:
    """Bytes left to one group; what files occupy in the cache is given up when it is needed. None without a limit."""
    with suppress(OSError, ValueError):  # no such file, or "max"
        allowed, used = int((folder / limit).read_text()), int((folder / usage).read_text())
        pairs = (line.split() for line in (folder / "memory.stat").read_text().splitlines())
        stat = {name: int(value) for name, value in pairs}
        cached = stat.get("total_inactive_file", stat.get("inactive_file", 0))
        return max(allowed - used + cached, 0)
    return None
