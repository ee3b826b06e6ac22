"""Keeping freed memory in the process, so that the next tensor does not fault it in again."""

import ctypes
import sys

_M_TRIM_THRESHOLD = -1  # malloc.h of glibc
_M_MMAP_MAX = -4
_NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Make glibc's malloc keep what the process frees; returns whether it does.

    Large tensors otherwise get fresh pages from the kernel each time and give them back when they are freed: up to half
    of the time of an eager CPU training step is page faults. The price: the process keeps its peak memory to its end.
    The setting is for the whole process and cannot be taken back, so commands call it, imports never do. Does nothing
    (False) where the C library is not glibc, as on macOS, Windows and musl.
    """
    if not sys.platform.startswith("linux"):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version") or not hasattr(library, "mallopt"):
        return False
    return bool(library.mallopt(_M_MMAP_MAX, 0)) and bool(library.mallopt(_M_TRIM_THRESHOLD, _NEVER))
