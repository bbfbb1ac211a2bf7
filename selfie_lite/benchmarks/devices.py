"""Calls in the time that there is, on the GPUs that there are."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def ending_after(seconds: float) -> Iterator[list[bool]]:
    """After so many seconds this process gets SIGTERM, at which a training run saves and ends, and everything else
    raises KeyboardInterrupt if the caller has seen to that. Gives a list that is no longer empty then."""
    ended: list[bool] = []

    def end() -> None:
        ended.append(True)
        os.kill(os.getpid(), signal.SIGTERM)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield ended
    finally:
        timer.cancel()


def on_all_devices(calls: Sequence[Callable], say: Callable[[str], None]) -> list[Any]:
    """What the calls give, in their order. With several GPUs, as many at once, each in a process that sees one of them;
    else here, one after the other, and each is given `say`."""
    count = torch.accelerator.device_count()
    if count < 2:
        return [call(say=say) for call in calls]
    context = multiprocessing.get_context("spawn")
    free = context.Queue()
    for number in (os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(count)))).split(","):
        free.put(number)
    with ProcessPoolExecutor(count, context, _take_device, (free,)) as pool:
        running = [pool.submit(call) for call in calls]
        try:
            return [one.result() for one in running]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.terminate()  # a training run saves and ends
            raise


def _take_device(free: Any) -> None:
    os.environ["CUDA_VISIBLE_DEVICES"] = free.get()
    torch._dynamo.config.recompile_limit = 1000  # many models in one process
