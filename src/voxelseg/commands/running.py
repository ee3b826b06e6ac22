"""Many trainings side by side, with a bar that says which ones run, have ended or have failed."""

from collections.abc import Sequence

from rich.console import Console

from voxelseg.commands.display import counting_bar
from voxelseg.side_by_side.jobs import Job, run_side_by_side


def run_with_bar(
    jobs: Sequence[Job], *, done: int, places: Sequence[tuple[str, ...]], threads: int, console: Console | None
) -> dict[str, str]:
    """Run the jobs in their places, with `threads` each; returns what went wrong, by the names of those that failed.

    `done` of the trainings were finished before; the bar counts them.
    """
    with counting_bar(console, "training", total=done + len(jobs)) as update:

        def show(running: Sequence[str], ended: Job | None, fault: str) -> None:
            nonlocal done
            if ended is not None:
                done += not fault
                if console is not None:
                    text = f"failed: {ended.name}: {fault} (log: {ended.log})" if fault else f"finished: {ended.name}"
                    console.print(text, soft_wrap=True, highlight=False, markup=False)
            update(done, note="; ".join(running))

        update(done)
        return run_side_by_side(jobs, places=places, environment={"OMP_NUM_THREADS": str(threads)}, on_change=show)
