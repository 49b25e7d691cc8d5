"""Tasks for child processes: a kernel that kills its process, hangs or raises costs its own result and nothing else.

A task is a function of a module beside this file, by name, and arguments that JSON holds. A child answers one line of
JSON a task. One that died, or whose GPU context an assertion has ended, is replaced by a new one.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
OUT_OF_TIME = "not measured: out of time"
Answer = dict[str, Any]


class Task(NamedTuple):
    """What is to be run: ``"module:function"``, its arguments, and how long it may take."""

    name: str
    function: str
    arguments: Mapping[str, Any]
    seconds: float = 60.0


class Pool:
    """Child processes that live from stage to stage, so that PyTorch is imported once in each.

    Parameters
    ----------
    environment
        Variables set for the children beside this process's own.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        paths = [str(ROOT), str(HERE), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
        self._environment = {**os.environ, **environment, "PYTHONPATH": os.pathsep.join(one for one in paths if one)}
        self._children: list[_Child] = []
        self._open = True

    def run(self, tasks: Iterable[Task], width: int, until: float, done: Callable[[Answer], None]) -> None:
        """Run tasks in their order on `width` children at once; those that `until` (time.monotonic) cuts off say so.

        `done` gets every task's answer as it comes, one at a time: name, seconds, and one of value, error (with trace)
        and skipped.
        """
        waiting = iter(list(tasks))
        lock = threading.Lock()

        def serve(child: _Child) -> None:
            while True:
                with lock:
                    task = next(waiting, None)
                if task is None or not self._open:
                    return
                left = until - time.monotonic()
                answer = child.ask(task, min(task.seconds, left), left <= task.seconds) if left > 1 else _late(task)
                with lock:
                    done(answer)

        self._open = True
        while len(self._children) < width:
            self._children.append(_Child(self._environment))
        threads = [threading.Thread(target=serve, args=(child,), daemon=True) for child in self._children[:width]]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def keep(self, width: int) -> None:
        """End all children but the first `width`: before something is timed, which needs the GPU alone.

        With 0, what is waiting to be run is not.
        """
        self._open = width > 0
        for child in self._children[width:]:
            child.end()
        del self._children[width:]


def _late(task: Task) -> Answer:
    return {"name": task.name, "seconds": 0.0, "skipped": OUT_OF_TIME}


class _Child:
    """One child, started when it is first asked something."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        self._log = tempfile.TemporaryFile()  # noqa: SIM115

    def ask(self, task: Task, seconds: float, last: bool) -> Answer:
        """Have a task run; `last` says that running out of `seconds` is running out of all time."""
        started = time.monotonic()
        process = self._start()
        assert process.stdin is not None
        answer: Answer
        try:
            process.stdin.write(json.dumps({"function": task.function, "arguments": task.arguments}).encode() + b"\n")
            process.stdin.flush()
            line = self._line(process, started + seconds)
        except BrokenPipeError:
            line = b""
        if line is None:
            self.end()
            answer = {"skipped": OUT_OF_TIME} if last else {"error": f"not done after {seconds:.0f} s"}
        elif line:
            answer = dict(json.loads(line))
        else:
            code = process.wait()
            named = signal.Signals(-code).name if code < 0 else f"exit status {code}"
            answer = {"error": f"its process ended: {named}", "trace": self._said()}
            self.end()
        if answer.pop("ended", False):  # it has answered, and can no more
            self.end()
        if "trace" in answer:  # of use on other machines, which have other folders
            answer["trace"] = re.sub(
                r"/\S*/(site-packages|lib/python[\d.]+)/", "", answer["trace"].replace(f"{ROOT}/", "")
            )
        return {"name": task.name, "seconds": round(time.monotonic() - started, 2), **answer}

    def _start(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._log.seek(0)
            self._log.truncate()
            self._process = subprocess.Popen(
                [sys.executable, str(Path(__file__))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                env=dict(self._environment),
                cwd=ROOT,
                start_new_session=True,
            )
        return self._process

    def _line(self, process: subprocess.Popen[bytes], until: float) -> bytes | None:
        """Read one line; b"" where the child ended, None where time did."""
        assert process.stdout is not None
        found = b""
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while not found.endswith(b"\n"):
                if not selector.select(max(0.0, until - time.monotonic())):
                    return None
                part = os.read(process.stdout.fileno(), 1 << 16)
                if not part:
                    return b""
                found += part
        return found

    def _said(self) -> str:
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, size - 2000))
        return self._log.read().decode(errors="replace")

    def end(self) -> None:
        """Kill it with what it has started; it holds nothing that is wanted."""
        if self._process is not None:
            if self._process.poll() is None:
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    pipe.close()
            self._process = None


def main() -> None:
    """Be a child: read tasks from standard input, answer on what was standard output."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        task = json.loads(line)
        answer: Answer
        try:
            module, function = task["function"].split(":")
            answer = {"value": getattr(importlib.import_module(module), function)(**task["arguments"])}
        except Exception as error:
            text = str(error).strip().splitlines()
            answer = {
                "error": f"{type(error).__name__}: {text[0] if text else ''}"[:400],
                "trace": traceback.format_exc()[-3000:],
            }
        broken = _broken()
        if broken:
            answer = {**({"error": broken} if "value" in answer and not answer["value"].get("ends") else {}), **answer}
            answer["ended"] = True
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
        if broken:
            os._exit(0)  # an ordinary exit would wait for the GPU


def _broken() -> str:
    """Say whether this process's GPU context has failed: every later result of it would too."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return ""
    try:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
    except Exception as error:
        return f"the GPU failed: {str(error).strip().splitlines()[0]}"[:400]
    return ""


if __name__ == "__main__":
    main()
