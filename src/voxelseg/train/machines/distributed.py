"""Several processes that train one network together, as `torchrun` starts them, on one machine or many.

Each process has a device of its own and sees its share of every batch. Decisions are taken together, and only the main
process writes files and shows progress. A process that fails says why to the others, which end with its message.
"""

import gc
import json
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from voxelseg import errors
from voxelseg.errors import ConfigError, StoppedError, VoxelsegError
from voxelseg.train.machines.batch_norm import synchronise_batch_norms

Value = TypeVar("Value")

LONGEST_WAIT = timedelta(days=7)
"""The others wait while the main process preprocesses a data set; they notice its end at once, however it ends."""
_FAILURE = "failure"
"""Key under which a process that fails leaves its reason."""
_LOST = ("gloo", "nccl", "connection", "broken pipe", "socket")
"""Words in the errors of torch.distributed when another process is gone."""


class Processes:
    """All processes of a training, seen from one of them.

    Every method but the properties is called by all processes alike, in the same order.
    """

    def __init__(self, device: torch.device, *, rank: int = 0, count: int = 1) -> None:
        self.device = device
        """Of this process."""
        self.rank = rank
        """Number of this process, from 0."""
        self.count = count

    @classmethod
    def alone(cls, device: torch.device) -> "Processes":
        """A training in this process only."""
        return cls(device)

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def check_batch(self, batch_size: int) -> None:
        """ConfigError unless a batch of so many patches can be shared evenly."""
        if batch_size % self.count:
            more = -(-batch_size // self.count) * self.count
            raise ConfigError(
                f"{self.count} processes cannot share a batch of {batch_size} patches evenly. Start another number of "
                f"processes, or train with --set plan.batch_size={more}."
            )

    def wrap(self, network: nn.Module) -> nn.Module:
        """What to call in place of `network` in training: gradients and batch norms are those of all processes.

        Changes the batch norms of `network` in place, and gives it the weights of the main process. With one process
        `network` itself. Parameters that are frozen must be so before.
        """
        if self.count == 1:
            return network
        synchronise_batch_norms(network)
        return DistributedDataParallel(network)

    def alone_for_now(self, wrapped: nn.Module) -> AbstractContextManager[None]:
        """In it, backward passes add up gradients in this process only; the next one outside exchanges the sums."""
        return wrapped.no_sync() if isinstance(wrapped, DistributedDataParallel) else nullcontext()

    def total(self, values: Tensor) -> Tensor:
        """Sum of the tensors of all processes, differentiable where all of them compute the same from it.

        The gradient is scaled by the number of processes, since `wrap` averages what comes of it.
        """
        if self.count == 1:
            return values
        total: Tensor = _Total.apply(values, self.count)  # type: ignore[no-untyped-call]
        return total

    def mean(self, value: float) -> float:
        """Mean of all processes' values."""
        if self.count == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(total)
        return float(total) / self.count

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in some process."""
        return self.mean(float(flag)) > 0

    def gather(self, value: Value) -> list[Value]:
        """The values of all processes, in their order."""
        if self.count == 1:
            return [value]
        gathered: list[Any] = [None] * self.count
        dist.all_gather_object(gathered, value)
        return gathered

    def clock(self, own: Callable[[], float]) -> Callable[[], float]:
        """A clock for decisions that all processes must take alike: the main process's, which all read together."""
        if self.count == 1:
            return own

        def read() -> float:
            now = torch.tensor(own(), dtype=torch.float64)
            dist.broadcast(now, src=0)
            return float(now)

        return read

    def from_main(self, make: Callable[[], Value]) -> Value:
        """What `make` returns in the main process, where alone it is called; the others wait and get it as JSON.

        An error in the main process is raised in all of them; if it is none that users meet, as a VoxelsegError.
        """
        if self.count == 1:
            return make()
        if not self.is_main:
            received: Value = self._received()
            return received
        try:
            value = make()
        except BaseException as error:
            with suppress(RuntimeError):  # the others are gone
                self._send({"failure": _described(error)})
            raise
        self._send({"value": value})
        return value

    def barrier(self) -> None:
        """Wait until all processes are here."""
        self.any(False)

    def _send(self, message: dict[str, Any]) -> None:
        content = torch.frombuffer(bytearray(json.dumps(message).encode()), dtype=torch.uint8)
        dist.broadcast(torch.tensor(len(content)), src=0)
        dist.broadcast(content, src=0)

    def _received(self) -> Any:
        length = torch.tensor(0)
        dist.broadcast(length, src=0)
        content = torch.empty(int(length), dtype=torch.uint8)
        dist.broadcast(content, src=0)
        message = json.loads(bytes(content.tolist()))
        if "failure" in message:
            raise _error_of(message["failure"])
        return message["value"]


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, values: Tensor, count: int) -> Tensor:
        ctx.count = count  # type: ignore[attr-defined]
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad * ctx.count, None


def started_together() -> bool:
    """Whether `torchrun` started this process as one of several."""
    return dist.is_torchelastic_launched() and int(os.environ["WORLD_SIZE"]) > 1


def processes_here() -> int:
    """How many processes of the training run on this machine."""
    return int(os.environ["LOCAL_WORLD_SIZE"]) if started_together() else 1


def own_device(name: str) -> str:
    """Name of this process's device where the user named `name`: the processes of a machine take one GPU each.

    ConfigError if there are fewer GPUs than processes, or one GPU is named for all.
    """
    if not started_together():
        return name
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    started = processes_here()
    if name == "cpu" or (name == "auto" and not gpus):
        return "cpu"
    if name not in ("auto", "cuda"):
        raise ConfigError(f"device {name}: {started} processes cannot share it. Use --device cuda, auto or cpu.")
    if started > gpus:
        raise ConfigError(
            f"torchrun started {started} processes on this machine, which has {gpus} CUDA device"
            f"{'' if gpus == 1 else 's'}. Start as many (--nproc-per-node), or use --device cpu."
        )
    return f"cuda:{os.environ['LOCAL_RANK']}"


@contextmanager
def joined(device: torch.device) -> Iterator[Processes]:
    """The processes that `torchrun` started, connected meanwhile; this one alone if it was started otherwise.

    An error in one process ends all: the others raise it, too, or a VoxelsegError if the process left no message.
    """
    if not started_together():
        yield Processes.alone(device)
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    store, rank, count = next(rendezvous("env://", timeout=LONGEST_WAIT))
    backend = "gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl"
    dist.init_process_group(
        backend, store=PrefixStore("training", store), rank=rank, world_size=count, timeout=LONGEST_WAIT
    )
    try:
        with warnings.catch_warnings():
            # Of the weights of pointwise convolutions, whose memory is the same in either order.
            warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
            yield Processes(device, rank=rank, count=count)
    except BaseException as error:
        reason = _reason(error, store)
        if reason is not None:
            raise reason from error
        with suppress(RuntimeError):  # the store went with the others
            store.set(_FAILURE, json.dumps(_described(error)))
        raise
    finally:
        # Networks that were wrapped hold the group until they are collected. If that is at the interpreter's end, the
        # group's threads abort the process, in one of three to six trials.
        gc.collect()
        dist.destroy_process_group()


def _reason(error: BaseException, store: Store) -> VoxelsegError | None:
    """What to raise for `error` if another process caused it, by ending; None if it is this process's own."""
    if not isinstance(error, RuntimeError | KeyboardInterrupt):  # torchrun interrupts all when one has failed
        return None
    with suppress(RuntimeError):  # the store went with the others
        if store.check([_FAILURE]):
            return _error_of(json.loads(store.get(_FAILURE)))
    if isinstance(error, RuntimeError) and any(word in str(error).lower() for word in _LOST):
        return VoxelsegError(
            "another process of this training ended without a word, or its machine did. Mostly the memory ran out. The "
            "same command continues."
        )
    return None


def _described(error: BaseException) -> dict[str, str]:
    """An error as JSON: its class if users meet it, and its message."""
    if isinstance(error, VoxelsegError):
        return {"kind": type(error).__name__, "message": str(error)}
    if isinstance(error, KeyboardInterrupt):
        return {"kind": StoppedError.__name__, "message": ""}
    return {"kind": VoxelsegError.__name__, "message": f"another process failed: {type(error).__name__}: {error}"}


def _error_of(described: dict[str, str]) -> VoxelsegError:
    """The error that another process described."""
    kind = getattr(errors, described["kind"], VoxelsegError)
    assert issubclass(kind, VoxelsegError)
    found: VoxelsegError = kind(described["message"])
    return found
