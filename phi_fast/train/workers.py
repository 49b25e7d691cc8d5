"""Worker processes that answer tasks in order: started afresh, fed through pipes, gone when their parent is.

Not `multiprocessing`: its spawn runs the caller's main module again and its fork copies a process full of threads.
These start by a command of their own, so they work from scripts, notebooks and the command line alike; they end when
their pipe does, however the parent died, and leave Ctrl-C to it.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Self

from phi_fast.errors import PhiFastError, RunError

_ROOT = str(Path(__file__).parents[2])
_START = "import sys; sys.path.insert(0, sys.argv[1]); from phi_fast.train.workers import serve; serve()"


class Workers:
    """A number of processes that each hold what ``setup`` made of ``given`` and answer tasks with it.

    Parameters
    ----------
    count
        Processes.
    setup
        ``"module:function"``; called once in each process with `given`, it returns the function of one task.
    given
        What can be pickled.
    """

    def __init__(self, count: int, setup: str, given: Any) -> None:
        self._tasks: queue.SimpleQueue[tuple[Future[Any], Any] | None] = queue.SimpleQueue()
        self._count = count
        command = [sys.executable, "-c", _START, _ROOT]
        env = {**os.environ, "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
        self._processes = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env) for _ in range(count)
        ]
        hello = pickle.dumps((setup, given), pickle.HIGHEST_PROTOCOL)
        for process in self._processes:
            threading.Thread(target=self._feed, args=(process, hello), daemon=True, name="phi-fast-feeder").start()

    def map(self, tasks: Iterable[tuple[Any, Any]]) -> Iterator[tuple[Any, Any]]:
        """Answer tasks, given as (key, task), with (key, result) in their order; few are held at a time.

        Raises
        ------
        RunError
            A process was lost; and whatever a task raised of phi_fast's own errors.
        """
        pending: deque[tuple[Any, Future[Any]]] = deque()
        for key, task in tasks:
            future: Future[Any] = Future()
            self._tasks.put((future, task))
            pending.append((key, future))
            if len(pending) > 2 * self._count + 2:
                key, future = pending.popleft()
                yield key, future.result()
        while pending:
            key, future = pending.popleft()
            yield key, future.result()

    def _feed(self, process: subprocess.Popen[bytes], hello: bytes) -> None:
        assert process.stdin is not None and process.stdout is not None
        while (item := self._tasks.get()) is not None:
            future, task = item
            try:
                said = pickle.dumps(task, pickle.HIGHEST_PROTOCOL)
                process.stdin.write(hello)
                hello = b""
                process.stdin.write(said)
                process.stdin.flush()
                error, result = pickle.load(process.stdout)
            except (OSError, EOFError, pickle.UnpicklingError, ValueError):
                future.set_exception(RunError(_lost(process)))
                return
            except BaseException as failure:  # nobody else would hear of it
                future.set_exception(failure)
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            self._tasks.put(None)
            process.kill()
        for process in self._processes:
            process.wait()


def _lost(process: subprocess.Popen[bytes]) -> str:
    try:
        code = process.wait(2)
    except subprocess.TimeoutExpired:
        return "a worker process answers no more. The same command goes on from here."
    how = f"killed by signal {-code}" if code < 0 else f"ended with {code}"
    hint = " (out of memory? give fewer --workers)" if code == -signal.SIGKILL else ""
    return f"a worker process was {how}{hint}. Nothing is lost: the same command goes on from here."


def serve() -> None:
    """Answer tasks from standard input on standard output until it ends; the main function of a worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    source, sink = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not stand among the answers
    job: Callable[[Any], Any] | None = None
    with contextlib.suppress(EOFError, BrokenPipeError):
        name, given = pickle.load(source)
        while True:
            task = pickle.load(source)
            answer: tuple[BaseException | None, Any]
            try:
                if job is None:
                    module, _, function = name.partition(":")
                    job = getattr(importlib.import_module(module), function)(given)
                answer = (None, job(task))
            except PhiFastError as error:
                answer = (error, None)
            except Exception:
                answer = (RuntimeError(f"in a worker process:\n{traceback.format_exc()}"), None)
            pickle.dump(answer, sink, pickle.HIGHEST_PROTOCOL)
            sink.flush()
