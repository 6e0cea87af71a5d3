"""Serving room: under which names a server may be asked. Imports nothing heavy.

A page can have its own name lead to this machine once it is loaded (DNS rebinding): the browser then takes the server
for the site of the page, and lets it read and write. The name stays in the header `Host`, so it gives that away.
Addresses do not: nobody can have an address of their own lead elsewhere.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Iterable

from app.config import InputError, ServeConfig

ANY = "*"
_LOCAL = "localhost"
_NAME = re.compile(r"(\*\.)?[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*\.?")
_HEADER = re.compile(r"(\[[^\[\]]*\]|[^\[\]:]*)(:\d*)?")


def read_hosts(config: ServeConfig, *, has_key: bool = False) -> frozenset[str] | None:
    """The names under which a server may be asked, in small letters; None = any.

    Args:
        config: its `allowed_hosts` and `host`.
        has_key: whether requests must bring a key, which no page of another site knows.

    Raises:
        InputError: one of them is no name.
    """
    given = [each.strip().lower() for each in config.allowed_hosts]
    for name in given:
        if name != ANY and not _is_address(name) and not _NAME.fullmatch(name):
            raise InputError(
                "serve.allowed_hosts must hold names without scheme and port, such as ner.example.com, *.example.com "
                f"for all below it, or * for any, received {name!r}"
            )
    if ANY in given or (not given and (has_key or not is_loopback(config.host))):
        return None
    return frozenset(name.removesuffix(".") for name in (*given, config.host.lower()))


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine reaches an address to listen on."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return _is_local(host.lower())


def find_strange(headers: Iterable[bytes], allowed: Collection[str] | None) -> str:
    """The first name among headers `Host` under which a server may not be asked; empty if there is none.

    Args:
        headers: their values; none is fine, since browsers always send one.
        allowed: of `read_hosts`.
    """
    if allowed is None:
        return ""
    for value in headers:
        text = value.decode("latin-1").strip().lower()
        found = _HEADER.fullmatch(text)
        name = found[1].removesuffix(".") if found else ""
        known = not text or _is_address(name.strip("[]")) or _is_local(name) or _is_among(name, allowed)
        if not found or not known:
            return name or text
    return ""


def _is_among(name: str, allowed: Collection[str]) -> bool:
    below = name.split(".")
    return name in allowed or any(f"*.{'.'.join(below[at:])}" in allowed for at in range(1, len(below)))


def _is_local(name: str) -> bool:
    """Names that lead to this machine everywhere (RFC 6761, section 6.3)."""
    return name == _LOCAL or name.endswith(f".{_LOCAL}")


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
