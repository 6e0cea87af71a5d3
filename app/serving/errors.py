"""Serving room: a request that cannot be answered, as its status and one sentence."""

from collections.abc import Mapping


class RequestError(Exception):
    """Ends a request.

    Args:
        status: of HTTP.
        message: one sentence.
        headers: beside it.
    """

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.headers = status, message, dict(headers or {})


class ExpiredError(Exception):
    """Nobody waits for what is being computed any more."""
