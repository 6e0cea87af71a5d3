import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from app.feedback.store import Store


@dataclass(frozen=True)
class Server:
    """A PostgreSQL server that runs for the tests."""

    port: int
    password: str

    def url(self, name: str, password: str = "") -> str:
        return f"postgresql://app:{password or self.password}@127.0.0.1:{self.port}/{name}"

    def run(self, statement: str, name: str = "postgres") -> None:
        import psycopg

        with psycopg.connect(self.url(name), autocommit=True) as connection:
            connection.execute(statement)

    def make_empty(self) -> str:
        """The URL of a schema of its own, which is faster to make than a database."""
        name = f"test_{secrets.token_hex(6)}"
        self.run(f"CREATE SCHEMA {name}")
        return self.url(f"postgres?options=-csearch_path%3D{name}")


def find_binary(name: str) -> str | None:
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return shutil.which(name, path=os.pathsep.join([*map(str, places), os.environ.get("PATH", "")]))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A server of its own: PostgreSQL's programs refuse to run as root, so they run as another user then."""
    initdb, server = find_binary("initdb"), find_binary("postgres")
    if not (initdb and server):
        pytest.skip("there is no PostgreSQL server on this machine")
    pytest.importorskip("psycopg")
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    as_user: dict[str, object] = {"cwd": folder, "env": {**os.environ, "LC_ALL": "C", "HOME": str(folder)}}
    if os.geteuid() == 0:
        user = next(pwd.getpwnam(name) for name in ("postgres", "nobody"))
        os.chown(folder, user.pw_uid, user.pw_gid)
        as_user.update(user=user.pw_uid, group=user.pw_gid, extra_groups=[])
    running = Server(free_port(), secrets.token_hex(8))
    data = folder / "data"
    with tempfile.NamedTemporaryFile("w") as secret:
        secret.write(running.password)
        secret.flush()
        os.chmod(secret.name, 0o644)
        subprocess.run(
            [initdb, "-D", data, "-U", "app", "--auth=scram-sha-256", f"--pwfile={secret.name}", "-E", "UTF8", "-N"],
            check=True, capture_output=True, **as_user,
        )  # fmt: skip
    log = (folder / "log").open("wb")
    process = subprocess.Popen(
        [server, "-D", data, "-k", folder, "-c", "listen_addresses=127.0.0.1", "-p", str(running.port), "-F"],
        stdout=log, stderr=subprocess.STDOUT, **as_user,
    )  # fmt: skip
    try:
        wait_for(running, process)
        yield running
    finally:
        process.send_signal(signal.SIGQUIT)  # at once: nothing in it is needed any more
        process.wait(timeout=30)
        log.close()
        shutil.rmtree(folder, ignore_errors=True)


def wait_for(server: Server, process: subprocess.Popen[bytes]) -> None:
    import time

    import psycopg

    until = time.monotonic() + 60
    while True:
        try:
            return server.run("SELECT 1")
        except psycopg.OperationalError:
            if process.poll() is not None or time.monotonic() > until:
                raise
            time.sleep(0.05)


@pytest.fixture(params=["sqlite", "postgres"])
def url(request, tmp_path) -> str:
    """An empty database, once of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/feedback.sqlite"
    return request.getfixturevalue("postgres").make_empty()


@pytest.fixture
def store(url) -> Iterator[Store]:
    with Store.open(url) as opened:
        yield opened
