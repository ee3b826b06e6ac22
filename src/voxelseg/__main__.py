"""The command `voxelseg`, also as `python -m voxelseg`: what surrounds the command line.

A user's mistake ends in one message and exit code 2, never in a traceback. So do Ctrl-C, from the first import on, and
SIGTERM, by which SLURM, `docker stop` and `timeout` ask a program to end.
"""

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from types import FrameType

from voxelseg.errors import StoppedError, VoxelsegError


def main() -> None:
    """Run the command line on the process's own arguments and exit with its code."""
    signal.signal(signal.SIGTERM, _as_ctrl_c)
    _let_waiting_threads_sleep()
    try:
        _run_command_line()
    except (KeyboardInterrupt, StoppedError) as error:
        eval("None")  # CPython forgets a Ctrl-C that passed through exec(), as in an import, and keeps our exit code
        _print_error(str(error) or "stopped. What is finished is kept; the same command continues.")
    except BrokenPipeError:  # the reader of our output, such as `head`, has seen enough
        sys.exit(1)
    except VoxelsegError as error:
        _print_error(f"error: {error}")
    except MemoryError:
        _print_error("error: the memory ran out. Use fewer --workers, a smaller --memory-gb, or a bigger machine.")
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _print_error(f"error: {where}{error.strerror or error}. Check that the path exists, its rights and the disk.")
    except Exception as error:  # noqa: BLE001 - the last line of defence
        _print_error(_internal_error(error))
    sys.exit(2)


def _as_ctrl_c(_: int, frame: FrameType | None) -> None:
    """Do what Ctrl-C does at this moment, even where a shell made a job in its background deaf to Ctrl-C."""
    on_ctrl_c = signal.getsignal(signal.SIGINT)
    if callable(on_ctrl_c):
        on_ctrl_c(signal.SIGINT, frame)
    else:
        raise KeyboardInterrupt


def _let_waiting_threads_sleep() -> None:
    """Have GNU OpenMP's threads sleep soon, not spin for long, while they wait for each other; read when torch loads.

    Spinning threads hold the cores that the awaited thread needs. Steps of MedNeXt on two cores, in seconds, alone and
    beside one busy process: 0.40 and more than 10 as GNU OpenMP has it, 0.50 and 0.84 with a count of 1000, 0.39 and
    1.94 with 10000, 0.75 and 1.2 if threads sleep at once.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")


def _run_command_line() -> None:
    """Run it, and send off all that it printed, so that a reader who has gone away is noticed here."""
    from voxelseg.cli import app  # its imports take a while, in which Ctrl-C may come

    try:
        app()
    finally:
        try:
            sys.stdout.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python tries again, and complains
            raise


def _print_error(message: str) -> None:
    print(message, file=sys.stderr)


def _internal_error(error: Exception) -> str:
    """What to say of a fault of ours; its traceback goes into a file."""
    import traceback

    details = _written(traceback.format_exc())
    where = f"Details are in {details}; please report them." if details else "No file for the details could be written."
    return f"internal error: {type(error).__name__}: {error}\n{where}"


def _written(details: str) -> Path | None:
    """File with `details` in the current folder, else in the system's temporary one; None if neither can be written."""
    import tempfile

    with suppress(OSError):
        here = Path("voxelseg-error.log").absolute()
        here.write_text(details, encoding="utf-8")
        return here
    with suppress(OSError):
        number, name = tempfile.mkstemp(prefix="voxelseg-error-", suffix=".log")
        with os.fdopen(number, "w", encoding="utf-8") as file:
            file.write(details)
        return Path(name)
    return None


if __name__ == "__main__":
    main()
