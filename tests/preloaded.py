"""Starts `python -m app.main` from a process that has imported TensorFlow already, so that tests pay for it once.

The server is a process of its own that imports and computes nothing; each start is a fork of it, with its own
arguments, folder, environment and pipes. The test process adopts the forks (`PR_SET_CHILD_SUBREAPER`), so that
`subprocess.Popen` waits for them and signals them as it does for any child.
"""

import atexit
import ctypes
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import traceback
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
PR_SET_CHILD_SUBREAPER = 36  # <sys/prctl.h>
MODULES = (
    "app.modes.finetune", "app.modes.pretrain", "app.modes.distill", "app.modes.compress", "app.modes.evaluate",
    "app.modes.predict", "app.modes.export", "app.feedback.updating",
)  # fmt: skip


class Server:
    """The process that is forked; ends with the process that made it."""

    def __init__(self) -> None:
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
        self.end, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with other:
            command = [sys.executable, __file__, str(other.fileno())]
            environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
            self.process = subprocess.Popen(
                command, env=environment, pass_fds=[other.fileno()], stdin=subprocess.DEVNULL
            )

    def fork(self, arguments: list[str], *, cwd: str, env: dict[str, str], files: list[int]) -> int:
        """The id of a new process that runs `app.main`."""
        message = json.dumps({"arguments": arguments, "cwd": cwd, "env": env}).encode()
        socket.send_fds(self.end, [message], files)
        return int(self.end.recv(100))


class Preloaded(subprocess.Popen):
    """`Popen` of `app.main` with these arguments, by a fork of the server."""

    def __init__(self, server: Server, arguments: list[str], *, cwd: Path, **pipes) -> None:
        self._server = server
        super().__init__(arguments, cwd=cwd, **{"text": True} | pipes)

    def _execute_child(
        self, args, _executable, _preexec, _close, _pass, cwd, _env, _info, _flags, _shell, p2cread, p2cwrite,
        c2pread, c2pwrite, errread, errwrite, *_,
    ) -> None:  # fmt: skip
        files = [own if given == -1 else given for own, given in enumerate((p2cread, c2pwrite, errwrite))]
        self.pid = self._server.fork(args, cwd=str(cwd), env=dict(os.environ), files=files)
        self._child_created = True
        self._close_pipe_fds(p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)


def serve(end: socket.socket) -> None:
    """Imports what the modes import, then forks on request until the other end is closed."""
    sys.path[0] = str(PROJECT)  # what `python -m` puts there is the folder it is started in
    for module in MODULES:
        importlib.import_module(module)
    # The machine's peak is sought with small matrices, which saves ten seconds a run; all else is as users run it.
    importlib.import_module("app.training.speed").MATRIX_SIZES = (256,)
    while True:
        message, files, _, _ = socket.recv_fds(end, 2**20, 3)
        if not message:
            return
        asked, arriving = json.loads(message), os.pipe()
        child = os.fork()
        if child:
            os.waitpid(child, 0)  # from now on the grandchild is the test process's own
            end.send(os.read(arriving[0], 100))
            for number in (*files, *arriving):
                os.close(number)
            continue
        grandchild = os.fork()  # its parent ends at once, so that the test process adopts it
        if grandchild:
            os.write(arriving[1], str(grandchild).encode())
            os._exit(0)
        for number in (*arriving, end.fileno()):
            os.close(number)
        become_app(asked, files)


def become_app(asked: dict, files: list[int]) -> None:
    """Runs `app.main` in this process, as the interpreter does, and ends it."""
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    sys.stdin = open(0, closefd=False)
    sys.stdout = open(1, "w", closefd=False)
    sys.stderr = open(2, "w", buffering=1, closefd=False)
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["env"])
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    sys.argv = [str(PROJECT / "app" / "main.py"), *asked["arguments"]]
    sys.path[0] = asked["cwd"]
    sys.path.insert(1, str(PROJECT))
    status = 1
    try:
        runpy.run_module("app.main", run_name="__main__", alter_sys=False)
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        traceback.print_exc()
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
