"""Serving room: a server on its socket, in this thread or in one of its own."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Any

import uvicorn

from app.config import InputError
from app.config.rules import describe_taken_port
from app.serving.connections import LISTEN_BACKLOG, DrainingServer, JsonHttpProtocol
from app.serving.server import ModelServer, build_app


class Listener:
    """A server on its socket; listens as soon as it is made.

    Args:
        server: what answers.
        host, port: to listen on; port 0 takes a free one.

    Raises:
        InputError: the port is taken.
    """

    def __init__(self, server: ModelServer, *, host: str, port: int) -> None:
        self.server = server
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.socket(family)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((host, port))
            self._socket.listen(LISTEN_BACKLOG)
        except OSError as error:
            self._socket.close()
            raise InputError(describe_taken_port(host, port, error)) from error
        self.port: int = self._socket.getsockname()[1]
        app = build_app(server)
        self._uvicorn = DrainingServer(
            uvicorn.Config(
                app,
                http=JsonHttpProtocol,
                loop="uvloop",
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=75,
                timeout_graceful_shutdown=max(1, round(server.seconds) + 1),
                backlog=LISTEN_BACKLOG,
            ),
            on_stop=app.stop,
        )
        server.stop = self.stop

    @property
    def url(self) -> str:
        host = self._socket.getsockname()[0]
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    def run(self) -> None:
        """Answers until it is told to stop, by `stop` or a signal, and then what it has taken.

        Raises:
            InputError: a model could not be loaded.
        """
        self._uvicorn.run(sockets=[self._socket])
        if self.server.failure is not None:
            raise self.server.failure

    def stop(self) -> None:
        self._uvicorn.should_exit = True


@contextlib.contextmanager
def listening(server: ModelServer) -> Any:
    """A server in a thread, on a free port of this machine: its URL, when it is ready.

    Raises:
        InputError: a model could not be loaded.
    """
    ready = threading.Event()
    before = server.on_ready

    def note_ready() -> None:
        before()
        ready.set()

    server.on_ready = note_ready
    listener = Listener(server, host="127.0.0.1", port=0)

    def run() -> None:
        try:
            listener.run()
        except Exception:
            pass  # told below
        finally:
            ready.set()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        ready.wait()
        if server.failure is not None:
            raise server.failure
        yield listener.url
    finally:
        listener.stop()
        thread.join()
