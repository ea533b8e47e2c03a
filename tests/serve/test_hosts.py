"""Which names a server answers to."""

import pytest

from attngan_deploy.errors import T2IError
from attngan_deploy.serve.hosts import AllowedHosts
from attngan_deploy.serve.settings import Settings

LOOPBACK = (
    "localhost",
    "LocalHost:8000",
    "localhost.",
    "127.0.0.1",
    "127.0.0.1:80",
    "127.1.2.3:8000",
    "[::1]",
    "[::1]:80",
)
STRANGE = (
    "evil.example",
    "localhost.evil.example",
    "evil.example:8000",
    "",
    ":8000",
    "localhost:x",
    "a@localhost",
    "[::1",
)
ADDRESSES = ("10.0.0.1", "192.168.7.7:8000", "[2001:db8::1]:8000")


@pytest.mark.parametrize("header", LOOPBACK)
def test_names_of_loopback_are_its_own(header: str) -> None:
    assert header in AllowedHosts("127.0.0.1", ())
    assert header in AllowedHosts("0.0.0.0", ("birds.example.org",))


@pytest.mark.parametrize("header", [*STRANGE, *ADDRESSES])
def test_others_are_not(header: str) -> None:
    assert header not in AllowedHosts("127.0.0.1", ())
    assert header not in AllowedHosts("127.0.0.1", ("birds.example.org",))
    assert header in AllowedHosts("127.0.0.1", ("*",))


@pytest.mark.parametrize("listening", ["0.0.0.0", "::"])
def test_on_all_addresses_every_address_is_its_own_and_no_other_name(listening: str) -> None:
    assert all(header in AllowedHosts(listening, ()) for header in ADDRESSES)
    assert not any(header in AllowedHosts(listening, ()) for header in STRANGE)


def test_the_name_that_it_listens_on_and_those_that_were_told() -> None:
    hosts = AllowedHosts("Birds.local", ("birds.example.org.", "10.0.0.1", "[2001:db8::1]"))
    for header in ("birds.local:8000", "BIRDS.example.ORG", "10.0.0.1", "[2001:db8::1]:8000"):
        assert header in hosts
    assert "10.0.0.2" not in hosts


@pytest.mark.parametrize(
    "name", ["", "https://birds.example.org", "birds.example.org:8000", "a b", "*.example.org", "/"]
)
def test_what_is_no_host_is_refused(name: str) -> None:
    with pytest.raises(T2IError, match="--allowed-host is not a host"):
        Settings({}, allowed_hosts=(name,))


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("https://example.org/", "https://example.org"),
        ("HTTPS://Birds.Example.ORG", "https://birds.example.org"),
        ("https://example.org:443", "https://example.org"),
        ("http://localhost:3000/", "http://localhost:3000"),
        ("http://[2001:DB8::1]:8080", "http://[2001:db8::1]:8080"),
        ("https://v\u00f6gel.example", "https://xn--vgel-5qa.example"),
        ("capacitor://localhost", "capacitor://localhost"),
        ("null", "null"),
        ("*", "*"),
    ],
)
def test_origins_are_what_browsers_send(written: str, sent: str) -> None:
    assert Settings({}, cors_origins=(written,)).cors_origins == (sent,)


@pytest.mark.parametrize(
    ("option", "written", "typed"),
    [
        ("cors_origins", "example.org", "https://example.org"),
        ("cors_origins", "localhost:3000", "http://localhost:3000"),
        ("cors_origins", "https://example.org/birds", "https://example.org"),
        ("cors_origins", "https://example.org?x", "https://example.org"),
        ("cors_origins", "https://me@example.org", "https://example.org"),
        ("cors_origins", "https://*.example.org", ""),
        ("cors_origins", "https://a.example,https://b.example", ""),
        ("cors_origins", "https://example.org:port", ""),
        ("cors_origins", "https://", ""),
        ("cors_origins", "", ""),
        ("allowed_hosts", "https://birds.example.org/", "birds.example.org"),
        ("allowed_hosts", "birds.example.org:8000", "birds.example.org"),
        ("allowed_hosts", "v\u00f6gel.example", "xn--vgel-5qa.example"),
        ("allowed_hosts", "*.example.org", ""),
        ("root_path", "birds/", "/birds"),
        ("root_path", "https://example.org/birds", "/birds"),
        ("root_path", "/birds?x=1", "/birds"),
        ("root_path", "/a%2Fb", ""),
    ],
)
def test_what_could_never_match_is_refused_with_what_could(option: str, written: str, typed: str) -> None:
    several = option != "root_path"
    with pytest.raises(T2IError, match=f"^--{option.rstrip('s').replace('_', '-')} is not a") as refused:
        Settings({}, **{option: (written,) if several else written})
    assert str(refused.value).partition(" Next: ")[2].partition(" ")[2] == typed
    if typed:
        Settings({}, **{option: (typed,) if several else typed})
