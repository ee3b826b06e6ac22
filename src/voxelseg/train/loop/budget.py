"""How long a training lasts: a number of steps, or a budget of time that steps, validation and saving share."""

from collections.abc import Callable

from voxelseg.train.loop.config import LoopConfig
from voxelseg.train.loop.state import Counters

BUDGET_EPOCHS = 50
VALIDATION_TIME_SHARE = 0.03
"""With a budget, running validation is skipped while it has taken more than this share of the time, but at the end."""
LONGEST_VALIDATION = 0.01
"""With a budget, a running validation sees as many patches as fit into this share of it, and at least one."""


def progress(config: LoopConfig, counters: Counters) -> float:
    """Share of the training that is done, by steps, or by time if there is a budget."""
    if config.budget_s is None:
        return min(1.0, counters.step / (config.epochs * config.steps_per_epoch))
    if counters.time_is_up:
        return 1.0
    return min(1.0, counters.elapsed_s / seconds_for_steps(config.budget_s, counters))


def seconds_for_steps(budget_s: float, counters: Counters) -> float:
    """The budget without the validation and saving that end it."""
    ending_s = counters.longest_validation_s + counters.saving_best_s + counters.saving_s
    return max(budget_s - ending_s, 1e-3 * budget_s)


def step_fits(budget_s: float, counters: Counters, *, step_s: float) -> bool:
    """Whether a step that takes `step_s` seconds ends in time."""
    return counters.elapsed_s + step_s <= seconds_for_steps(budget_s, counters)


def epoch_is_over(config: LoopConfig, counters: Counters) -> bool:
    """Whether the last step ended an epoch: so many steps, or a fiftieth of the budget."""
    if config.budget_s is None:
        return counters.step >= (counters.epoch + 1) * config.steps_per_epoch
    return progress(config, counters) >= min(1.0, (counters.epoch + 1) / BUDGET_EPOCHS)


def epochs_done(config: LoopConfig, counters: Counters) -> int:
    """Epochs that are over once the present one is; a step longer than a fiftieth of a budget ends several at once."""
    if config.budget_s is None:
        return counters.epoch + 1
    return max(counters.epoch + 1, int(progress(config, counters) * BUDGET_EPOCHS))


def validation_is_due(config: LoopConfig, counters: Counters) -> bool:
    """Whether the epoch that is over ends with a running validation: each, or some, and the last one.

    With a budget only where it is affordable, and at the end if the budget is kept.
    """
    budget_s, ended = config.budget_s, progress(config, counters) >= 1
    on_turn = epochs_done(config, counters) // config.validate_every > counters.epoch // config.validate_every
    if budget_s is None:
        return on_turn or ended
    if ended:
        ends = counters.elapsed_s + counters.longest_validation_s
        return counters.patch_s is not None and ends <= (1 + LONGEST_VALIDATION) * budget_s
    affordable = counters.validation_s <= VALIDATION_TIME_SHARE * counters.elapsed_s
    return on_turn and (affordable or config.schedule == "plateau")


def num_validation_patches(config: LoopConfig, counters: Counters, wanted: int) -> int:
    """How many patches a running validation sees: those wanted, or with a budget as many as its time allows."""
    if config.budget_s is None or not counters.patch_s:
        return wanted
    return min(wanted, max(1, int(LONGEST_VALIDATION * config.budget_s / counters.patch_s)))


def seconds_left(config: LoopConfig, counters: Counters) -> float:
    """Of the training, as far as one can tell after its first step."""
    if counters.stopped_early:
        return 0.0
    share = progress(config, counters)
    if config.budget_s is None:
        return counters.elapsed_s * (1 - share) / share
    return max(config.budget_s - counters.elapsed_s, 0.0) if share < 1 else 0.0


class StepTimer:
    """Measures the time since the training began, and that of its longest step, the wait for its batch included."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.longest_step_s = 0.0
        """Of the last steps: what was long ago counts less."""
        self._began = clock()
        self._waiting_since: float | None = None

    def start(self, elapsed_s: float) -> None:
        """Begin, or go on after `elapsed_s` seconds."""
        self._began = self.clock() - elapsed_s
        self._waiting_since = None

    def elapsed_s(self) -> float:
        """Since the training began."""
        return self.clock() - self._began

    def batch_arrived(self) -> None:
        """The first batch waits for the workers to start, which says nothing about steps."""
        if self._waiting_since is None:
            self._waiting_since = self.clock()

    def step_ended(self) -> None:
        """Note how long the step took."""
        assert self._waiting_since is not None
        self.longest_step_s = max(0.9 * self.longest_step_s, self.clock() - self._waiting_since)

    def wait(self) -> None:
        """From here on the next batch is waited for."""
        self._waiting_since = self.clock()
