"""The few exceptions that users meet.

Every message says where, what was found, what was expected and what to do. The command line prints it without a
traceback and exits with code 2.
"""

import difflib
from collections.abc import Iterable


class VoxelsegError(Exception):
    """Base of all errors that a user can mend."""


class DataError(VoxelsegError):
    """A scan, label map or data set cannot be read or is not what it should be."""


class ConfigError(VoxelsegError):
    """An option, configuration key or model name is unknown, or its value is impossible."""


class CheckpointError(VoxelsegError):
    """A checkpoint is missing, damaged, or belongs to another model or data set."""


class WorkerError(VoxelsegError):
    """A background worker failed; the message carries the worker's own error."""


class BusyError(VoxelsegError):
    """Another voxelseg process works in a folder."""


class StoppedError(VoxelsegError):
    """The user asked to stop; what is finished is kept, and the same command continues."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The closest of the `known` names to an unknown `name`, as words to put after it; empty if none is close."""
    matches = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {matches[0]!r}?)" if matches else ""


def memory_ran_out(error: BaseException) -> bool:
    """Whether `error` says that a device's memory ran out; torch has no class of its own for that on a CPU."""
    signs = ("DefaultCPUAllocator", "out of memory", "bad_alloc")
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(sign in str(error) for sign in signs)
    )
