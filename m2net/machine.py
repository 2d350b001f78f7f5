"""What the machine can do, and how to ask it well."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager

_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4
_NEVER = 2**31 - 1


def keep_big_blocks() -> bool:
    """Tell glibc to keep freed memory instead of giving every large tensor back to the system.

    Returns:
        Whether the allocator took the hint (Linux with glibc only).
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        libc = ctypes.CDLL("libc.so.6")
        return bool(libc.mallopt(_M_MMAP_MAX, 0)) and bool(libc.mallopt(_M_TRIM_THRESHOLD, _NEVER))
    except (OSError, AttributeError):
        return False


def cpu_count() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def be_one_of_many() -> None:
    """Set a worker process up: big blocks kept, one thread for linear algebra, since its siblings use the other cores.

    Ctrl-C reaches every process of a terminal; the worker leaves it to its parent, and finishes what it is at.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    from threadpoolctl import threadpool_limits

    keep_big_blocks()
    threadpool_limits(1)


@contextmanager
def processes(count: int) -> Iterator[ProcessPoolExecutor]:
    """So many worker processes; where this one stops, by an error or by Ctrl-C, what waits for them is not begun."""
    pool = ProcessPoolExecutor(max(1, count), initializer=be_one_of_many)
    try:
        yield pool
    except BaseException:
        pool.shutdown(cancel_futures=True)
        raise
    pool.shutdown()


def fast_bfloat16() -> bool:
    """Whether the CPU multiplies bfloat16 in hardware (AVX-512 BF16 or AMX)."""
    import torch

    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, name)()) for name in checks if hasattr(torch.cpu, name))
