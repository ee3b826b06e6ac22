"""Keep the C library from giving freed memory back to the system between tensor operations.

By default glibc maps each large tensor afresh and unmaps it when it is freed, so every operation pays page faults for
memory that the one before had just returned: about half of the time of a CPU training step. Called by training and
prediction, never on import.
"""

import ctypes
import sys

_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4


def keep_freed_memory() -> bool:
    """Let the process reuse freed memory; True if that could be set (Linux with glibc), else nothing happens."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))
