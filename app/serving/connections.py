"""Serving room: what uvicorn does with connections, where it would answer in another form than the rest of the server.

What cannot be parsed as HTTP is refused as JSON, like everything else; and a server that is told to stop answers those
who have connected already, before it closes its socket.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Callable

import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

LISTEN_BACKLOG = 2048
HEAD_SECONDS = 60.0  # in which the head of a request must have arrived
HEAD_BYTES = 2**17  # about as many; more without an end are refused
_LOOK_SECONDS = 0.05  # between two looks at who has connected
_ACCEPT_LOOKS = 40  # for others in the backlog, at most
_ASK_LOOKS = 20  # for those who have connected to ask, at most


class JsonHttpProtocol(HttpToolsProtocol):
    """HTTP as uvicorn speaks it, with its own errors as JSON, and an end to heads that have none.

    uvicorn waits for the rest of a head for ever, and keeps all of it: a few thousand clients that say nothing more
    would leave no connection for others.
    """

    _timer: asyncio.TimerHandle | None = None
    _head_bytes, _begun = 0, False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_head()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._timer is not None:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._timer is not None and self._head_bytes > HEAD_BYTES and not self.transport.is_closing():
            self._refuse(431, f"the head of a request must have at most {HEAD_BYTES} bytes")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._begun = True
        self._expect_head()

    def on_headers_complete(self) -> None:
        self._begun = False
        self._end_head()
        super().on_headers_complete()

    def _expect_head(self) -> None:
        if self._timer is None:
            self._head_bytes = 0
            self._timer = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def _end_head(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        self._timer = None
        if self.transport.is_closing():
            return
        if self.cycle is not None and not self.cycle.response_complete:  # it sent the next one ahead, and waits
            self._expect_head()
        elif self._begun:
            self._refuse(408, f"the head of the request did not arrive in {HEAD_SECONDS:g} s")
        else:
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, "the request is not valid HTTP")

    def _refuse(self, status: int, said: str) -> None:
        self._end_head()
        body = json.dumps({"error": said}).encode()
        headers = [
            *self.server_state.default_headers,
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
        ]
        lines = [STATUS_LINE[status], *(b"%s: %s\r\n" % pair for pair in headers), b"\r\n", body]
        self.transport.write(b"".join(lines))
        self.transport.close()


class DrainingServer(uvicorn.Server):
    """A server that, told to stop, first answers those who have connected.

    Closing a socket that listens resets the connections that the system has taken and the program has not, and closing
    a connection with a request that is not read yet resets it. So `on_stop` is called, which has every new request
    refused in a sentence; connections in the backlog are taken, and given time to ask; then the socket is closed.

    Args:
        config: of uvicorn.
        on_stop: called once, in the loop, before anything else is done.
    """

    def __init__(self, config: uvicorn.Config, *, on_stop: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_stop = on_stop
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # the server has its own log, without texts

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._on_stop()
        for listening in sockets or []:
            listening.listen(0)  # as few as possible are added to those who wait
        await self._take_backlog()
        for server in self.servers:
            server.close()
        for listening in sockets or []:
            listening.close()
        await self._hear_out()
        await super().shutdown(sockets)

    async def _take_backlog(self) -> None:
        """The loop accepts who has connected; waits until it finds nobody new."""
        known = set(self.server_state.connections)
        for _ in range(_ACCEPT_LOOKS):
            await asyncio.sleep(_LOOK_SECONDS)
            new = self.server_state.connections - known
            if not new:
                return
            known |= new

    async def _hear_out(self) -> None:
        """Waits for those who have connected and not asked anything yet."""
        for _ in range(_ASK_LOOKS):
            if all(getattr(each, "cycle", True) for each in self.server_state.connections):
                return
            await asyncio.sleep(_LOOK_SECONDS)
