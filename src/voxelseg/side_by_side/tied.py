"""Run a module as `python -m` does, and end it, as SIGTERM would, when its standard input ends.

    python -m voxelseg.side_by_side.tied MODULE ARGUMENT ...

Whoever holds the other end of that input takes the module along, however it ends itself, `kill -9` included.
"""

import os
import runpy
import signal
import sys
import threading


def main() -> None:
    """Run the module that the command line names with the arguments after it."""
    threading.Thread(target=_end_after_input, daemon=True).start()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


def _end_after_input() -> None:
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
