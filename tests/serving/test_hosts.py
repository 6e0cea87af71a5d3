"""A page whose name leads to this machine must not pass itself off as the server (DNS rebinding)."""

import pytest
from served import ask, fetch, serving

from app.config import InputError, ServeConfig
from app.serving.hosts import find_strange, read_hosts

LOCAL = ["localhost", "LOCALHOST:8501", "ner.localhost:80", "localhost.", "127.0.0.1:8501", "127.8.8.8", "[::1]:8501"]
ADDRESSES = ["192.168.1.5:8501", "0.0.0.0", "[fe80::1]", ""]
STRANGE = ["evil.example", "evil.example:8501", "localhost.evil.example", "notlocalhost", "127.0.0.1.evil.example",
           "127.0.0.1@evil.example", "evil.example#localhost", "[::1", "::1", "localhost:80:80", "é"]  # fmt: skip


def asked_as(name: str, *, has_key: bool = False, **settings) -> str:
    """The name that is refused, if it is."""
    return find_strange([name.encode("latin-1")], read_hosts(ServeConfig(**settings), has_key=has_key))


@pytest.mark.parametrize("bound", ["127.0.0.1", "::1", "localhost", "127.0.1.1"])
def test_a_server_of_this_machine_answers_to_its_own_names_and_to_addresses_alone(bound):
    assert [each for each in (*LOCAL, *ADDRESSES) if asked_as(each, host=bound)] == []
    assert [each for each in STRANGE if not asked_as(each, host=bound)] == []


def test_each_of_several_headers_counts_and_none_is_fine():
    allowed = read_hosts(ServeConfig())
    assert find_strange([b"localhost", b"evil.example:80"], allowed) == "evil.example"
    assert find_strange([], allowed) == ""


@pytest.mark.parametrize(
    "settings", [{"host": "0.0.0.0"}, {"host": "::"}, {"has_key": True}, {"allowed_hosts": ("*",)}]
)
def test_others_answer_to_any_name(settings):
    assert [each for each in (*LOCAL, *STRANGE) if asked_as(each, **settings)] == []


@pytest.mark.parametrize("more", [{}, {"host": "0.0.0.0"}, {"has_key": True}])
def test_names_that_are_set_are_the_only_ones(more):
    settings = {"allowed_hosts": ("NER.example.com", "*.inner.example."), **more}
    fine = ["ner.example.com", "ner.example.com:443", "ner.example.com.", "a.inner.example", "a.b.inner.example"]
    assert [each for each in (*fine, *LOCAL, *ADDRESSES) if asked_as(each, **settings)] == []
    strange = [*STRANGE, "example.com", "a.ner.example.com", "inner.example", "xinner.example"]
    assert [each for each in strange if not asked_as(each, **settings)] == []


@pytest.mark.parametrize("wrong", ["http://ner.example.com", "ner.example.com:8501", "a/b", "", "*.", "a..b", "x*.y"])
def test_what_is_no_name_is_refused(wrong):
    with pytest.raises(InputError, match=r"serve\.allowed_hosts must hold names without scheme and port.*received"):
        read_hosts(ServeConfig(allowed_hosts=(wrong,)))


def test_a_request_under_a_strange_name_is_refused_whatever_it_asks(served_run):
    with serving(served_run, runtime="tflite") as url:
        port = url.rpartition(":")[2]
        for path, body in (("/", None), ("/about", None), ("/entities", {"texts": ["Ada"]})):
            status, headers, content = fetch(url, path, body, Host=f"evil.example:{port}", Origin="http://evil.example")
            assert (status, headers["Content-Type"]) == (403, "application/json")
            assert b"'evil.example'; if it should, add that to serve.allowed_hosts" in content
        assert ask(url, "/entities", {"texts": ["Ada"]}, Host=f"localhost:{port}")[0] == 200
    with serving(served_run, runtime="tflite", allowed_hosts=("ner.example.com",)) as url:
        assert ask(url, "/about", Host="ner.example.com")[0] == 200


def test_a_server_with_a_key_stays_usable_behind_a_proxy(served_run):
    with serving(served_run, runtime="tflite", key="secret") as url:
        assert ask(url, "/about", Host="ner.example.com", X_Api_Key="secret")[0] == 200
        assert ask(url, "/about", Host="ner.example.com")[0] == 401
