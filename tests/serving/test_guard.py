"""Access control: other sites, other names, no token."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import urlsplit

import pytest

from srgan_cli.cli import main
from srgan_cli.config import EngineOptions
from srgan_cli.errors import ExitCode, SettingsError
from srgan_cli.serving.server import HttpServer, _listen
from srgan_cli.serving.settings import ServeOptions
from tests.serving.servers import ask, get, png, post, running

TOKEN = "a-token-of-the-tests"


def test_a_name_that_leads_here_by_rebinding_is_refused(server: HttpServer) -> None:
    port = urlsplit(server.address).port
    for host in (f"127.0.0.1:{port}", "localhost", f"LOCALHOST:{port}", f"[::1]:{port}"):
        assert get(server, "/", Host=host).status == 200, host
    for host in (
        "evil.example",
        f"evil.example:{port}",
        "127.0.0.1.evil.example",
        "",
        "[::1",
        "localhost@evil.example:1",
    ):
        for path in ("/", "/v1/models", "/healthz"):
            assert get(server, path, Host=host).status in (400, 421), host


def test_other_sites_cannot_use_it(server: HttpServer) -> None:
    own = server.address.rstrip("/")
    assert post(server, "/v1/upscale", png(), Origin=own).status == 200
    for origin in ("http://evil.example", "null", "http://127.0.0.1:1", f"{own}.evil.example", "http://["):
        for method, path in (
            ("POST", "/v1/upscale"),
            ("POST", "/v1/jobs"),
            ("GET", "/v1/models"),
            ("DELETE", "/v1/jobs/x"),
        ):
            assert ask(server, method, path, png(), {"Origin": origin}).status == 403, (origin, path)
    for site, status in (("cross-site", 403), ("same-site", 403), ("same-origin", 200), ("none", 200)):
        assert get(server, "/v1/models", **{"Sec-Fetch-Site": site}).status == status
    assert get(server, "/", **{"Sec-Fetch-Site": "cross-site"}).status == 200, "a link to the page is a link"


def test_every_answer_has_the_headers(server: HttpServer) -> None:
    for answer in (
        get(server, "/"),
        get(server, "/v1/nothing"),
        get(server, "/", Host="evil.example"),
        post(server, "/v1/upscale", b"x"),
    ):
        for name in (
            "X-Content-Type-Options",
            "Content-Security-Policy",
            "Referrer-Policy",
            "Cross-Origin-Resource-Policy",
        ):
            assert answer.headers[name], name
        assert answer.headers["Cache-Control"] == "no-store"
        assert "server" not in answer.headers
    policy = get(server, "/").headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_beyond_this_machine_a_token_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    for host in ("0.0.0.0", "192.168.1.2", "::", "example.org"):
        with pytest.raises(SettingsError, match="give --token"):
            ServeOptions(host=host)
        ServeOptions(host=host, token=TOKEN)
    assert main(["serve", "--host", "0.0.0.0"]) == ExitCode.USAGE
    assert "SRGAN_SERVE_TOKEN" in capsys.readouterr().err
    for short in ("", "short", "with spaces in the middle", "ümlaute-im-geheimnis"):
        with pytest.raises(SettingsError, match="--token must have"):
            ServeOptions(token=short)


@pytest.fixture(scope="module")
def locked(options: ServeOptions) -> Iterator[HttpServer]:
    with running(replace(options, token=TOKEN)) as started:
        yield started


def test_the_token(locked: HttpServer) -> None:
    for path in ("/v1/models", "/metrics", "/page.js", "/v1/jobs/x", "/nothing"):
        answer = get(locked, path)
        assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, "Bearer"), path
    for wrong in ("Bearer wrong", f"Basic {TOKEN}", "Bearer", f"Bearer {TOKEN}x", "Bearer \xe4\xf6"):
        assert get(locked, "/v1/models", Authorization=wrong).status == 401
    assert get(locked, "/v1/models", Authorization=f"Bearer {TOKEN}").status == 200
    assert get(locked, "/v1/models", Cookie=f"srgan_token={TOKEN}").status == 200
    assert get(locked, "/healthz").status == 200
    metrics = get(locked, "/metrics", Authorization=f"Bearer {TOKEN}").body.decode()
    assert 'srgan_requests_total{route="refused",status="401"}' in metrics
    assert post(locked, "/v1/upscale", png(), Authorization=f"Bearer {TOKEN}").status == 200


def test_signing_in(locked: HttpServer) -> None:
    first = get(locked, "/")
    assert (first.status, first.headers["Location"]) == (303, "/login")
    assert b"password" in get(locked, "/login").body
    kind = {"Content_Type": "application/x-www-form-urlencoded"}
    assert post(locked, "/login", b"token=wrong", **kind).status == 401
    assert post(locked, "/login", b"token=" + b"x" * 10_000, **kind).status == 413
    assert post(locked, "/login", f"token={TOKEN}".encode(), Origin="http://evil.example", **kind).status == 403
    answer = post(locked, "/login", f"token={TOKEN}".encode(), Origin=locked.address.rstrip("/"), **kind)
    assert answer.status == 303
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert get(locked, "/", Cookie=cookie.split(";")[0]).status == 200


@pytest.mark.parametrize("name", ["", "http://127.0.0.1", "127.0.0.1:8080", "a b", "[::1]", "a/b", "*.here", "a..b"])
def test_a_host_is_a_name_or_an_address(name: str) -> None:
    for options in ({"host": name}, {"allow_hosts": (name,)}):
        with pytest.raises(SettingsError, match=r"without a port|is empty"):
            ServeOptions(token=TOKEN, **options)
    for good in ("::1", "fe80::1%eth0", "10.0.0.7", "my-nas.local", "größe.example", "my_pc"):
        ServeOptions(token=TOKEN, host=good, allow_hosts=(good,))


def test_a_host_that_is_elsewhere_is_not_a_matter_of_the_port() -> None:
    for host in ("192.0.2.1", "no-such-host.invalid"):
        with pytest.raises(SettingsError, match="an address of this machine with --host"):
            _listen(ServeOptions(token=TOKEN, host=host, port=0))
    with pytest.raises(SettingsError, match="not a possible name"):
        _listen(ServeOptions(token=TOKEN, host="ü" * 70, port=0))


def test_several_devices_are_several_servers() -> None:
    with pytest.raises(SettingsError, match="a server for each"):
        ServeOptions(engine=EngineOptions("cpu:2x1"))


def test_a_port_that_is_taken(server: HttpServer, capsys: pytest.CaptureFixture[str]) -> None:
    port = str(urlsplit(server.address).port)
    assert main(["serve", "--port", port]) == ExitCode.USAGE
    assert "address already in use" in capsys.readouterr().err
    assert main(["serve", "--port", "0", "--model", "no-such-model"]) == ExitCode.WEIGHTS
