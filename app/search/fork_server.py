"""Search room: the process that has imported TensorFlow and is forked for each trial.

    python -m app.search.fork_server MODE

It computes nothing itself, so that each trial is as alone as in a process of its own: memory, random state, devices.
A request is a line of JSON on its standard input, {"mode", "config", "folder", "log"}; `config` is a pickled Config in
base64. Answers are lines of JSON on its standard output: {"ready"} once, then for each request {"pid"}, from the trial
{"headline"} and its result, and at its end {"status"}. A result is {"values": {...}, "headline"} or {"failed": why,
"kind": ...}.

A trial ends with the process that asked for it: whoever goes on with it must find its folder free.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TextIO

from app.config import Config, InputError, RunError
from app.run.directory import Request, RunDirectory
from app.run.files import first_line, full_disk
from app.run.request import import_mode
from app.search.child import read_line, terminate, unpack

LATENCY_CALLS, LATENCY_WARM_UP_CALLS = 30, 5
MODES = {"finetune": ("finetune",), "compress": ("compress", "export")}


def main(mode: str) -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print
    for name in MODES[mode]:
        import_mode(name)
    _say(answers, ready=True)
    while line := read_line():
        request = json.loads(line)
        number = os.fork()
        if not number:
            _become_trial(answers, **request)
        _say(answers, pid=number)
        _say(answers, status=os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]))


def _say(answers: TextIO, **answer: Any) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


def _become_trial(answers: TextIO, *, mode: str, config: str, folder: str, log: str) -> NoReturn:
    signal.signal(signal.SIGTERM, terminate)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever asked for the trial decides when it stops
    threading.Thread(target=_end_with_the_other, daemon=True).start()
    try:
        screen = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        for stream in (1, 2):
            os.dup2(screen, stream)
        result = _train(answers, mode, unpack(config), RunDirectory(folder))
    except KeyboardInterrupt:
        os._exit(128 + signal.SIGTERM)
    except BaseException as error:
        import traceback

        traceback.print_exc()
        result = describe_failure(error)
    _say(answers, **result)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _end_with_the_other() -> None:
    os.read(0, 1)  # returns when the other end is closed, as nothing is written while a trial runs
    os.kill(os.getpid(), signal.SIGKILL)


def _train(answers: TextIO, mode: str, config: Config, run_dir: RunDirectory) -> dict[str, Any]:
    from app.tasks import find_task

    headline = find_task(config.task).headline
    _say(answers, headline=headline)
    request = Request(config, run_dir)
    import_mode(mode).run(request)
    return {"values": VALUES[mode](request, headline), "headline": headline}


def _score(request: Request, headline: str) -> dict[str, float]:
    return {"score": request.run_dir.read_metrics()[f"valid/{headline}"]}


def _score_file(request: Request, headline: str) -> dict[str, float]:
    """Score, size and latency of the one TFLite file of a compressed run; latency on one thread."""
    import numpy as np

    from app.data.packing import FEATURES
    from app.evaluation.litert import TFLiteModel
    from app.evaluation.timing import time_calls

    (name,) = request.config.export.formats
    found = import_mode("export").run(request)
    path = request.run_dir.tflite / f"{name}.tflite"
    model, length = TFLiteModel(path, threads=1), request.config.compression.latency_length
    features = {each: np.ones([1, length], np.int32) for each in FEATURES}
    seconds = time_calls(lambda: model.forward(features), calls=LATENCY_CALLS, warm_up=LATENCY_WARM_UP_CALLS)
    return {
        "score": found[f"export/{name}/valid/{headline}"],
        "size": path.stat().st_size,
        "latency": 1000 * seconds,
    }


VALUES: dict[str, Callable[[Request, str], dict[str, float]]] = {"finetune": _score, "compress": _score_file}


def describe_failure(error: BaseException) -> dict[str, str]:
    """Why a trial failed, and of which kind: a full disk is not the trial's fault."""
    text = first_line(error)
    if full_disk(error):
        return {"failed": f"the disk is full: {text}", "kind": "disk"}
    if isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError":
        return {"failed": "out of memory", "kind": "memory"}
    if isinstance(error, InputError):
        return {"failed": str(error), "kind": "settings"}
    if isinstance(error, RunError):
        return {"failed": str(error), "kind": "run"}
    return {"failed": f"{type(error).__name__}: {text[:300]}", "kind": "error"}


if __name__ == "__main__":
    sys.path[0] = str(Path.cwd()) if sys.path[0] == "" else sys.path[0]
    main(sys.argv[1])
