"""Writing that is never half done (a temporary name in the same folder, sync, rename) and never done twice at once."""

import errno
import hashlib
import json
import logging
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from voxelseg.errors import BusyError, DataError, VoxelsegError

TEMPORARY_PREFIX = ".partial-"
LOCK_FILE = ".lock"
MAX_JSON_LINE = 100


_log = logging.getLogger(__name__)


def write_error(path: Path, error: Exception) -> VoxelsegError:
    """What to raise when writing to `path` failed with an error of the system or of a library."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error).partition("\n")[0]
    return VoxelsegError(
        f"{path}: cannot be written ({reason}). "
        "Check the free disk space and the write permission of the folder, or choose another output folder."
    )


def make_folder(folder: Path) -> None:
    """Make `folder` and its parents; VoxelsegError unless files can be written into it.

    Called before long work, so that a wrong output folder is not found out at its end.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(folder, error) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise write_error(folder, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is synced and renamed to `path`, on failure removed.

    The temporary name ends with the full name of `path`, so writers that look at the suffix see the right one.
    Creates missing parent folders. Raises VoxelsegError when the disk is full or the folder cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(4)}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch(exist_ok=False)
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        with suppress(OSError):  # a folder that vanished or was never made holds no temporary file
            temporary.unlink()


def remove_file(path: Path) -> None:
    """Remove the file if it is there; VoxelsegError if that fails."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise write_error(path, error) from error


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 to `path` atomically; what UTF-8 lacks, as a strange file name has it, as its number."""
    write_bytes(path, text.encode(errors="backslashreplace"))


def write_json(path: Path, value: Any) -> None:
    """Write `value` as JSON for people to `path` atomically: what fits in a line is not broken.

    NaN and infinity become null, since JSON has neither.
    """
    write_text(path, _readable(_finite(value), indent="") + "\n")


def _readable(value: Any, *, indent: str) -> str:
    """JSON text in which the outermost object or list, and each that does not fit in a line, is spread over several."""
    line = json.dumps(value, allow_nan=False)
    if not isinstance(value, dict | list) or not value or (indent and len(indent) + len(line) <= MAX_JSON_LINE):
        return line
    inner = indent + "  "
    if isinstance(value, dict):
        items = [f"{json.dumps(str(key))}: {_readable(item, indent=inner)}" for key, item in value.items()]
        return "{\n" + ",\n".join(inner + item for item in items) + f"\n{indent}}}"
    return "[\n" + ",\n".join(inner + _readable(item, indent=inner) for item in value) + f"\n{indent}]"


def append_json_line(path: Path, value: Any) -> None:
    """Append `value` as one line of JSON, synced; NaN and infinity become null. VoxelsegError when that fails."""
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(_finite(value), allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise write_error(path, error) from error


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def read_json(path: Path, *, remedy: str = "Restore the file or make it again.") -> Any:
    """Content of a JSON file; DataError names the file, the place of the fault and the `remedy`."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise DataError(f"{path}: file not found. {remedy}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}). {remedy}") from error
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"{path}: not valid JSON ({error}). {remedy}") from error


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file that has one in each line; none if there is no file.

    A line that is no JSON object, as one that was half written when its writer was killed, is left out.
    """
    found: list[dict[str, Any]] = []
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            with suppress(json.JSONDecodeError):
                value = json.loads(line)
                if isinstance(value, dict):
                    found.append(value)
    return found


def sha256_of_file(path: Path) -> str:
    """SHA-256 of the file's bytes, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_json(value: Any) -> str:
    """SHA-256 of `value` written as canonical JSON: equal content gives equal hashes, whatever the key order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@contextmanager
def locked(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Make `folder` and keep it from other voxelseg processes meanwhile; half-written leftovers in it are removed.

    If another process holds it, waits for that if `wait`, saying so once, and else raises BusyError. The system opens
    the lock when its holder ends, however that ends; its empty file stays. VoxelsegError if the folder cannot be
    written.
    """
    make_folder(folder)
    lock = FileLock(folder / LOCK_FILE)
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if not wait:
                raise BusyError(
                    f"{folder}: another voxelseg process works in this folder. Wait for its end, or choose another one."
                ) from None
            _log.warning("%s: waiting for another voxelseg process that works in this folder.", folder)
            lock.acquire()
    except OSError as error:
        raise write_error(folder / LOCK_FILE, error) from error
    try:
        remove_leftovers(folder)
        yield
    finally:
        lock.release()


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files and folders that a killed process left in `folder`, which must be locked."""
    for path in folder.glob(f"{TEMPORARY_PREFIX}*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
