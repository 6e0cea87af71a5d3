"""Serving room: what lies around every request: the key, the body and its limits, the log, and errors as JSON."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import json
import sys
import time
import traceback
import zlib
from collections.abc import Awaitable, Callable, Collection, Mapping, MutableMapping
from datetime import datetime, timezone
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.config import InputError
from app.serving.errors import RequestError
from app.serving.hosts import find_strange
from app.serving.metrics import Metrics

OPEN_PATHS = ("/", "/healthz", "/readyz")  # asked without a key
PROBES = ("/healthz", "/readyz", "/metrics")  # asked every few seconds, not logged
UNREAD_SECONDS, UNREAD_BYTES = 2.0, 64 * 2**20  # of a refused body that are still taken, so that the client can listen
BODY_SECONDS = 60.0  # in which a body must have arrived
PACKED_PART = 2**12  # bytes unpacked at a time: what follows a member is copied, and there may be many small ones
LARGE_PACKED = 2**16  # bytes; larger bodies are unpacked beside the loop
Handler = Callable[[Request], Awaitable[Response]]


class JsonResponse(Response):
    """JSON as people read it, no escapes for letters."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace")


class RefusedBody(JsonResponse):
    """An answer to a request whose body was not read: takes some of the rest, so that the client sees the answer."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [*self.raw_headers, (b"connection", b"close")]
        await send({"type": "http.response.start", "status": self.status_code, "headers": headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        try:
            await asyncio.wait_for(_take_rest(receive), UNREAD_SECONDS)
        except asyncio.TimeoutError:
            pass
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _take_rest(receive: Receive) -> None:
    left = UNREAD_BYTES
    while left > 0:
        message = await receive()
        left -= len(message.get("body", b""))
        if message["type"] != "http.request" or not message.get("more_body"):
            return


def refuse(error: RequestError) -> Response:
    kind = RefusedBody if error.status == 413 else JsonResponse
    return kind({"error": error.message}, status_code=error.status, headers=error.headers)


def refuse_unknown() -> Response:
    """What is said of a fault of the server itself."""
    return JsonResponse({"error": "the server could not answer; its log says why"}, status_code=500)


async def read_body(request: Request, most: int) -> bytes:
    """The body, unpacked.

    Raises:
        RequestError: it is larger than `most` bytes, packed in an unknown way, damaged, or does not arrive.
    """
    too_large = RequestError(413, f"a body must have 0 to {most} bytes")
    packing = request.headers.get("content-encoding", "identity").strip().lower()
    if packing not in ("identity", "gzip", ""):
        raise RequestError(415, f"Content-Encoding must be gzip or identity, received {packing[:40]!r}")
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or int(length[:20]) > most:
        raise too_large
    body = bytearray()
    try:
        async with _in_time(BODY_SECONDS):
            async for part in request.stream():
                body += part
                if len(body) > most:
                    raise too_large
    except asyncio.TimeoutError as error:
        raise RequestError(408, f"the body did not arrive in {BODY_SECONDS:g} s") from error
    if packing != "gzip":
        return bytes(body)
    if len(body) > LARGE_PACKED:
        return await asyncio.to_thread(_unpack, bytes(body), most, too_large)
    return _unpack(bytes(body), most, too_large)


def _in_time(seconds: float) -> Any:
    return asyncio.timeout(seconds) if hasattr(asyncio, "timeout") else _Untimed()


class _Untimed:
    """Python 3.10 and older cannot limit a block."""

    async def __aenter__(self) -> None:
        return None

    async def __aexit__(self, *_: object) -> None:
        return None


def _unpack(body: bytes, most: int, too_large: RequestError) -> bytes:
    """The members of gzip, which follow each other with nothing between or after them (RFC 1952, section 2.2)."""
    found, unpacker = bytearray(), _open_member()
    for at in range(0, len(body), PACKED_PART):
        part = body[at : at + PACKED_PART]
        while part:
            if unpacker.eof:
                unpacker = _open_member()
            try:
                found += unpacker.decompress(part, most + 1 - len(found))
            except zlib.error as error:
                raise RequestError(400, f"the body is not gzip, as its Content-Encoding says: {error}") from error
            if len(found) > most:
                raise too_large
            part = unpacker.unused_data
    if not unpacker.eof:
        raise RequestError(400, "the body is not gzip, as its Content-Encoding says: its end is missing")
    return bytes(found)


def _open_member() -> Any:
    return zlib.decompressobj(16 + zlib.MAX_WBITS)


class Gate:
    """The outermost layer of the server: host, key, metrics, log, and a sentence for whatever went wrong.

    Args:
        app: the routes.
        api_key: that requests must bring; empty = none.
        hosts: names under which it may be asked, see `read_hosts`; None = any.
        metrics: counts them.
        access_log: whether each is logged.
        show_texts: whether texts are.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        api_key: str,
        hosts: Collection[str] | None,
        metrics: Metrics,
        access_log: bool,
        show_texts: bool,
    ) -> None:
        self._app, self._key, self._hosts, self._metrics = app, api_key.encode("utf-8"), hosts, metrics
        self._logs, self._show_texts = access_log, show_texts
        self._stopping = False

    def stop(self) -> None:
        """From now on requests are refused; those that have begun are answered."""
        self._stopping = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, seen = time.perf_counter(), _Seen()
        noted: dict[str, Any] = {}
        scope["noted"] = noted

        async def watched(message: Message) -> None:
            seen.watch(message)
            await send(message)

        try:
            if refused := self._refusal(scope):
                await RefusedBody({"error": refused.message}, refused.status, refused.headers)(scope, receive, watched)
            else:
                await self._answer(scope, receive, watched, seen)
        finally:
            seconds = time.perf_counter() - began
            path = getattr(scope.get("route"), "path", "") or "other"
            self._metrics.count(path, seen.status, seconds)
            if self._logs and not (path in PROBES and seen.status < 400):
                self._log(scope, noted, seen, seconds)

    def _refusal(self, scope: Scope) -> RequestError | None:
        """Why a request is not even looked at."""
        if self._stopping:
            return RequestError(503, "the server is being stopped", {"Retry-After": "1"})
        if strange := find_strange((value for name, value in scope["headers"] if name == b"host"), self._hosts):
            said = f"this server does not answer to the name {strange[:100]!r}; if it should, add that to"
            return RequestError(403, f"{said} serve.allowed_hosts when it is started")
        if self._key and scope["path"] not in OPEN_PATHS and not self._has_key(scope):
            said = "this server wants its key: Authorization: Bearer KEY, or X-Api-Key: KEY"
            return RequestError(401, said, {"WWW-Authenticate": "Bearer"})
        return None

    async def _answer(self, scope: Scope, receive: Receive, send: Send, seen: _Seen) -> None:
        try:
            await self._app(scope, receive, send)
        except ClientDisconnect:
            seen.status = seen.status or 499
        except Exception as error:
            if isinstance(error, RequestError):
                response = refuse(error)
            elif isinstance(error, InputError):
                response = JsonResponse({"error": str(error)}, status_code=400)
            else:
                log({"event": "error", "path": scope["path"][:200], "traceback": _traceback(error)})
                response = refuse_unknown()
            if not seen.status:
                await response(scope, receive, send)
            elif not seen.complete:  # the connection is closed: what follows would be taken for the rest of the answer
                raise RuntimeError("an answer broke off") from None

    def _has_key(self, scope: Scope) -> bool:
        """Compares in constant time."""
        found = b""
        for name, value in scope["headers"]:
            if name == b"x-api-key":
                found = value
            elif name == b"authorization" and value[:7].lower() == b"bearer ":
                found = value[7:].strip()
            elif name == b"authorization" and value[:6].lower() == b"basic ":  # http://any:KEY@HOST, in Label Studio
                found = _password(value[6:])
        return hmac.compare_digest(found, self._key)

    def _log(self, scope: Scope, noted: Mapping[str, Any], seen: _Seen, seconds: float) -> None:
        texts = {} if self._show_texts or "texts" not in noted else {"texts": len(noted["texts"])}
        log(
            {
                "method": scope["method"],
                "path": scope["path"][:200],
                "status": seen.status,
                "ms": round(1000 * seconds, 2),
                "bytes": seen.bytes,
                **noted,
                **texts,
            }
        )


def _password(value: bytes) -> bytes:
    """That of basic authentication; empty if the header is malformed."""
    try:
        return base64.b64decode(value.strip(), validate=True).partition(b":")[2]
    except binascii.Error:
        return b""


class _Seen:
    """What has been sent."""

    def __init__(self) -> None:
        self.status = self.bytes = 0
        self.complete = False

    def watch(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        elif message["type"] == "http.response.body":
            self.bytes += len(message.get("body", b""))
            self.complete = not message.get("more_body", False)


def _traceback(error: BaseException) -> str:
    """Where, and of what kind: messages may hold texts."""
    places = traceback.extract_tb(error.__traceback__)[-6:]
    return f"{type(error).__name__} at " + " < ".join(f"{at.name} ({at.lineno})" for at in reversed(places))


def log(record: Mapping[str, Any]) -> None:
    """One JSON line on stderr."""
    now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
    line = json.dumps({"time": now, **record}, ensure_ascii=True)
    try:
        sys.stderr.write(f"{line}\n")
    except OSError:  # a reader that has gone must not end the server
        return
