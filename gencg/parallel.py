"""Several processes as one: each computes its rows of every batch, sums go over all of them.

`torchrun --nproc-per-node 4 -m gencg run ...` starts the processes, `processes` joins them. All go
through the same program with the same random streams. Each draws the noise of the *whole* batch
and keeps its own rows (`whole_batch`): noise is cheap beside energies, and the batch is then the
one that a single process would have drawn, so that the results are the same up to the order of
sums. What the batch decides together (which samples are dropped, the effective sample size, the
log line) is decided on gathered rows, by every process alike. Process 0 writes and prints.

Without torchrun there is one process, and everything here gives back what it is given.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from functools import wraps
from importlib import import_module
from typing import Any, ParamSpec, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

PATIENCE = timedelta(minutes=30)
"""How long a process waits for a slow one; a dead one is noticed at once."""

P = ParamSpec("P")
T = TypeVar("T")


class LostProcessError(RuntimeError):
    """Another process of the run ended; the checkpoint on disk is whole."""


def rank() -> int:
    """Number of this process, from 0."""
    return int(dist.get_rank()) if _joined() else 0


def size() -> int:
    """Number of processes."""
    return int(dist.get_world_size()) if _joined() else 1


@contextmanager
def processes() -> Iterator[None]:
    """Join the processes that torchrun started; a process of its own stays alone."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    # Imported later, as optimisers do, torch's compiler holds on to the group: its threads would
    # outlive the interpreter and, at times, abort the process
    import_module("torch._dynamo")
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, timeout=PATIENCE)
    try:
        yield
    finally:
        dist.destroy_process_group()


def share(n: int) -> slice:
    """The rows of a batch of `n` that this process computes.

    Raises:
        ValueError: If there are fewer rows than processes.
    """
    if n < size():
        raise ValueError(f"a batch of {n} cannot be shared by {size()} processes; raise it")
    return slice(n * rank() // size(), n * (rank() + 1) // size())


def n_rows(n: int) -> int:
    """How many rows of a batch of `n` this process computes."""
    rows = share(n)
    return int(rows.stop - rows.start)


def whole_batch(n: int) -> AbstractContextManager[Any]:
    """Random tensors with a row per sample are drawn for the whole batch and cut to own rows.

    Args:
        n: Samples in the batch of all processes.
    """
    return _WholeBatch(n) if size() > 1 else nullcontext()


def _told(collective: Callable[P, T]) -> Callable[P, T]:
    """Say what happened where the others do not answer."""

    @wraps(collective)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return collective(*args, **kwargs)
        except RuntimeError as error:
            raise LostProcessError(
                f"process {rank()} lost another one ({str(error).splitlines()[0]}); the same "
                "command goes on from the last checkpoint, with any number of processes"
            ) from None

    return call


@_told
def gather(rows: Tensor, n: int) -> Tensor:
    """The rows of all processes, ``(n, ...)``, in their order.

    Args:
        rows: Own rows, those of `share`.
        n: Rows of all.
    """
    if size() == 1 or (rows.numel() == 0 and rows.ndim > 1):
        return rows if size() == 1 else rows.new_empty(n, *rows.shape[1:])
    # Shares differ by one row: padded, because all must send the same number
    longest = -(-n // size())
    kind = torch.uint8 if rows.dtype == torch.bool else rows.dtype
    padded = rows.new_zeros(longest, *rows.shape[1:], dtype=kind)
    padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in range(size())]
    dist.all_gather(parts, padded)
    edges = [n * k // size() for k in range(size() + 1)]
    whole = [part[: b - a] for part, a, b in zip(parts, edges[:-1], edges[1:], strict=True)]
    return torch.cat(whole).to(rows.dtype)


@_told
def total(values: Tensor) -> Tensor:
    """Sum over all processes."""
    if size() == 1:
        return values
    values = values.detach().clone()
    dist.all_reduce(values)
    return values


def summed(loss: Tensor) -> Tensor:
    """A loss with the value of all processes and the gradient of the own rows."""
    return loss if size() == 1 else loss - loss.detach() + total(loss)


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Add the gradients of all processes up, in place."""
    if size() == 1:
        return
    moving = [p for p in parameters if p.requires_grad]
    # A process may have none where another has: of a member of a mixture that it did not draw from
    own = [torch.zeros_like(p) if p.grad is None else p.grad for p in moving]
    flat = total(torch.cat([gradient.flatten() for gradient in own]))
    parts = torch.split(flat, [gradient.numel() for gradient in own])
    for parameter, part in zip(moving, parts, strict=True):
        if parameter.grad is not None:
            parameter.grad.copy_(part.view_as(parameter))
        elif part.any():
            parameter.grad = part.view_as(parameter).clone()


@_told
def agree(value: T) -> T:
    """The value that process 0 has; any plain value."""
    if size() == 1:
        return value
    told = [value]
    dist.broadcast_object_list(told)
    return told[0]


def wait() -> None:
    """Go on when all processes have come here."""
    total(torch.zeros(1))


@_told
def make_equal(model: nn.Module) -> None:
    """Give all processes the parameters of process 0."""
    if size() > 1:
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point() and tensor.numel():
                dist.broadcast(tensor.data, 0)


def _joined() -> bool:
    return dist.is_available() and dist.is_initialized()


class _WholeBatch(TorchFunctionMode):
    def __init__(self, n: int) -> None:
        super().__init__()
        self.n, self.rows, self.n_own = n, share(n), n_rows(n)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in (Tensor.normal_, Tensor.uniform_) and self._is_ours(args[0].shape):
            own, *rest = args
            whole = func(own.new_empty(self._whole(own.shape)), *rest, **kwargs)
            return own.copy_(whole[self.rows])
        if func in (torch.rand_like, torch.randn_like) and self._is_ours(args[0].shape):
            own, *rest = args
            return func(own.new_empty(self._whole(own.shape)), *rest, **kwargs)[self.rows]
        if func in (torch.rand, torch.randn, torch.randint):
            numbers = args[:-1] if func is torch.randint else ()
            shape = args[len(numbers) :]
            shape = tuple(shape[0]) if isinstance(shape[0], tuple | list) else shape
            if self._is_ours(shape):
                return func(*numbers, self._whole(shape), **kwargs)[self.rows]
        return func(*args, **kwargs)

    def _is_ours(self, shape: tuple[int, ...]) -> bool:
        return len(shape) > 0 and shape[0] == self.n_own

    def _whole(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (self.n, *shape[1:])
