"""Who may do what at the web side of a server, and what it says to those who may not."""

from __future__ import annotations

import datetime as dt
import http.client
import logging
import os
import re
import socket
import ssl
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pydicom
import pytest
from argon2 import PasswordHasher
from conftest import make_case
from judges import tool
from server import running_server, wait_for
from web_side import COOKIE, PASSWORD, Client, WebSide, form, serving

from volseg.errors import ConfigError
from volseg.io import write_mask, write_volume
from volseg.io.dicom import write_series
from volseg.serving import read_server_config
from volseg.serving.store import Store, open_store
from volseg.serving.store.jobs import Job, Result, add_job, claim_job, finish_job
from volseg.serving.store.users import Role, add_token, is_password, remove_user, set_user
from volseg.serving.web.attempts import Attempts, network_of

SECRET = "a secret of the proxy"


@pytest.fixture(scope="module", autouse=True)
def _cheap_passwords() -> Iterator[None]:
    """Hash passwords in a hundredth of the time, which is long on purpose."""
    with pytest.MonkeyPatch.context() as patch:
        cheap = PasswordHasher(time_cost=1, memory_cost=8192, parallelism=1)
        patch.setattr("volseg.serving.store.users._hasher", cheap)
        patch.setattr("volseg.serving.store.users._NOBODY", cheap.hash("nobody"))
        yield


@pytest.fixture(scope="module")
def side(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebSide]:
    """A server whose users have to log in: a viewer, a reviewer and an admin, who are called like their roles."""
    with serving(tmp_path_factory.mktemp("security") / "store") as running:
        for role in Role:
            set_user(running.store, role, PASSWORD, role)
        yield running


@pytest.fixture
def client(side: WebSide) -> Client:
    """A stranger."""
    return side.client


@pytest.fixture(scope="module")
def open_side(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebSide]:
    """A server without users: for whoever sits at the machine."""
    with serving(tmp_path_factory.mktemp("open") / "store") as running:
        yield running


# What it refuses to start with


def config(**tree: Any) -> Any:
    return read_server_config(None, {"models": {"ball": "run"}, **tree})


TLS = {"certificate": "c.pem", "key": "k.pem"}
PROXY = {"secret": "secret"}


@pytest.mark.parametrize(
    ("tree", "has_users", "complaint"),
    [
        ({}, False, ""),
        ({"web": {"host": "::1"}, "dicom": {"host": "localhost"}}, False, ""),
        ({"web": {"host": "0.0.0.0"}}, True, "in the clear"),
        ({"web": {"host": "::"}}, True, "in the clear"),
        ({"web": {"host": ""}}, True, "in the clear"),
        ({"web": {"host": "10.0.0.1", "tls": TLS}}, False, "could see all images"),
        ({"web": {"host": "10.0.0.1", "tls": TLS}}, True, ""),
        ({"web": {"host": "10.0.0.1", "behind_proxy": PROXY}}, False, ""),
        ({"dicom": {"host": "0.0.0.0"}}, True, "could send images"),
        ({"dicom": {"host": "0.0.0.0", "senders": [{"ae_title": "PACS"}]}}, True, "could send images"),
        ({"dicom": {"host": "0.0.0.0", "senders": [{"ae_title": "PACS", "address": "10.0.0.2"}]}}, True, ""),
        ({"dicom": {"host": "0.0.0.0", "tls": TLS}}, True, "could send images"),
        ({"dicom": {"host": "0.0.0.0", "tls": {**TLS, "authority": "a.pem"}}}, True, ""),
        ({"dicom": {"host": "0.0.0.0", "port": 0}}, True, ""),
    ],
)
def test_it_does_not_start_unprotected_beyond_this_machine(
    tree: dict[str, Any], has_users: bool, complaint: str
) -> None:
    if not complaint:
        config(**tree).check_protection(has_users=has_users)
        return
    with pytest.raises(ConfigError, match=complaint):
        config(**tree).check_protection(has_users=has_users)


@pytest.mark.slow
def test_the_command_refuses_to_serve_the_network_unprotected(tmp_path: Path, trained_run: Path) -> None:
    words = ["serve", "--model", trained_run, "--store", tmp_path / "store", "--host", "0.0.0.0", "--dicom-port", "0"]
    done = subprocess.run(
        [sys.executable, "-m", "volseg", *map(str, words)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode != 0
    assert "in the clear" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("content", "mode", "complaint"),
    [("short", 0o600, "too short"), (SECRET, 0o644, "others on this machine"), (SECRET, 0o640, "chmod 600")],
)
@pytest.mark.skipif(os.name != "posix", reason="modes of files are POSIX's")
def test_a_secret_that_is_none_is_refused(tmp_path: Path, content: str, mode: int, complaint: str) -> None:
    path = secret_file(tmp_path, content, mode)
    with pytest.raises(ConfigError) as refused:
        read_and_create(tmp_path, path)
    assert complaint in refused.value.explanation


def test_a_secret_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_and_create(tmp_path, tmp_path / "nothing")


def read_and_create(folder: Path, secret: Path) -> None:
    from volseg.serving.web.app import create_app

    create_app(config(web={"behind_proxy": {"secret": secret}}), open_store(folder / "store"))


def secret_file(folder: Path, content: str = SECRET, mode: int = 0o600) -> Path:
    path = folder / "secret"
    path.write_text(content, encoding="utf-8")
    path.chmod(mode)
    return path


@pytest.mark.skipif(os.name != "posix", reason="modes of files are POSIX's")
def test_others_on_the_machine_cannot_read_the_store(side: WebSide) -> None:
    assert side.store.folder.stat().st_mode & 0o777 == 0o700
    for path in side.store.folder.glob("store.sqlite*"):
        assert path.stat().st_mode & 0o777 == 0o600, path


def test_passwords_and_tokens_are_not_in_the_store(side: WebSide) -> None:
    token = add_token(side.store, "viewer", 60)
    content = b"".join(path.read_bytes() for path in side.store.folder.glob("store.sqlite*"))
    assert token.encode() not in content
    assert PASSWORD.encode() not in content
    assert b"$argon2id$" in content


# Roles

_ANYBODY = {("GET", "/api/session"), ("POST", "/api/login"), ("POST", "/api/logout"), ("GET", "/healthz")}
_HERE = {("GET", "/metrics")}
_ADMIN = {("GET", "/api/audit"), ("DELETE", "/api/cases/{case_id}")}


def routes(client: Client) -> list[tuple[str, str]]:
    """All methods and paths of the page's interface."""
    paths = client.get("/openapi.json").json["paths"]
    found = [(method.upper(), path) for path, methods in paths.items() for method in methods]
    return [each for each in found if each not in _ANYBODY | _HERE and each[1].startswith("/api/")]


def needed(method: str, path: str) -> Role:
    if (method, path) in _ADMIN:
        return Role.ADMIN
    return Role.VIEWER if method == "GET" else Role.REVIEWER


def test_every_request_needs_a_user_and_every_change_a_role(side: WebSide, client: Client) -> None:
    found = routes(client)
    assert len(found) > 15
    everybody = {role: client.logged_in(role) for role in Role}
    for method, path in found:
        place = re.sub(r"\{\w+\}", "7", path)
        assert client.ask(method, place).status == 401, (method, path)
        for role in Role:
            is_refused = everybody[role].ask(method, place).status == 403
            assert is_refused is not role.includes(needed(method, path)), (method, path, role)


def test_a_stranger_uploads_nothing(client: Client) -> None:
    kind, body = form([("a.nii", bytes(2_000_000))], {})
    assert client.post("/api/cases", body, Content_Type=kind).status == 401
    assert client.upload([("a.nii", b"")]).status == 401
    assert client.logged_in("viewer").upload([("a.nii", b"")]).status == 403


def test_what_is_no_upload_may_not_be_large(client: Client) -> None:
    assert client.post("/api/login", bytes(1_000_001), Content_Type="application/json").status == 413


def test_the_audit_says_who_looked_at_what(side: WebSide, client: Client) -> None:
    reviewer, viewer = client.logged_in("reviewer"), client.logged_in("viewer")
    (case_id,) = reviewer.upload([("Müller.nii", b"\0" * 400)]).json["case_ids"]
    viewer.get(f"/api/cases/{case_id}")
    lines = [
        (line["who"], line["what"]) for line in client.logged_in("admin").get("/api/audit").json if line["case_id"]
    ]
    assert lines[:2] == [("viewer", "looked at"), ("reviewer", "uploaded")]
    assert re.fullmatch("[0-9a-f]{16}", case_id)


# Sessions


def test_the_cookie_is_for_this_server_alone(client: Client) -> None:
    answer = client.post("/api/login", {"name": "viewer", "password": PASSWORD})
    flags = answer.headers["Set-Cookie"].lower()
    assert "httponly" in flags
    assert "samesite=strict" in flags
    assert "path=/" in flags
    assert "domain" not in flags
    assert "no-store" in answer.headers["Cache-Control"]


def test_a_session_cannot_be_planted(side: WebSide, client: Client) -> None:
    planted = "chosen-by-somebody-else"
    answer = client.post("/api/login", {"name": "viewer", "password": PASSWORD}, Cookie=f"{COOKIE}={planted}")
    assert answer.status == 200
    assert planted not in answer.headers["Set-Cookie"]
    assert client.get("/api/cases", Cookie=f"{COOKIE}={planted}").status == 401


def test_logging_in_and_out_ends_the_session_before(client: Client) -> None:
    first = client.logged_in("viewer")
    first.post("/api/login", {"name": "viewer", "password": PASSWORD})
    assert first.get("/api/cases").status == 401
    second = client.logged_in("viewer")
    assert second.post("/api/logout").status == 200
    assert second.get("/api/cases").status == 401


def test_a_user_who_is_removed_is_logged_out_at_once(side: WebSide, client: Client) -> None:
    set_user(side.store, "leaver", PASSWORD, Role.ADMIN)
    leaver, script = client.logged_in("leaver"), client.with_headers(Authorization=bearer(side.store, "leaver"))
    assert leaver.get("/api/cases").status == script.get("/api/cases").status == 200
    remove_user(side.store, "leaver")
    assert leaver.get("/api/cases").status == script.get("/api/cases").status == 401


def test_a_new_password_or_role_logs_out(side: WebSide, client: Client) -> None:
    set_user(side.store, "changer", PASSWORD, Role.ADMIN)
    changer = client.logged_in("changer")
    set_user(side.store, "changer", PASSWORD, Role.VIEWER)
    assert changer.get("/api/cases").status == 401
    assert client.logged_in("changer").get("/api/audit").status == 403


def bearer(store: Store, name: str, seconds: float = 60) -> str:
    return f"Bearer {add_token(store, name, seconds)}"


def test_a_script_needs_no_csrf_token_but_a_token(side: WebSide, client: Client) -> None:
    script = client.with_headers(Authorization=bearer(side.store, "reviewer"))
    assert script.post("/api/jobs/x/cancel").status == 404
    expired = client.with_headers(Authorization=bearer(side.store, "reviewer", -1))
    for broken in (
        expired,
        *(client.with_headers(Authorization=word) for word in ("Bearer", "Bearer é", "Basic YTpi")),
    ):
        assert broken.get("/api/cases").status == 401


def test_a_token_counts_in_no_address_and_no_cookie(side: WebSide, client: Client) -> None:
    token = add_token(side.store, "admin", 60)
    for name in ("token", "access_token", "Authorization", COOKIE):
        assert client.get(f"/api/cases?{name}={token}").status == 401
    # Else a cookie that needs no CSRF token could be planted.
    assert client.get("/api/cases", Cookie=f"{COOKIE}={token}").status == 401


def test_the_token_of_a_session_needs_the_csrf_token_wherever_it_is_stated(client: Client) -> None:
    session = client.logged_in("reviewer")
    token = session.headers["Cookie"].partition("=")[2]
    assert client.post("/api/jobs/x/cancel", Authorization=f"Bearer {token}").status == 403


# Other web sites

_FOREIGN = [
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://["},
    {"Origin": "http://127.0.0.1:1"},
    {"Sec_Fetch_Site": "cross-site"},
]


@pytest.mark.parametrize("headers", _FOREIGN)
def test_another_web_site_changes_nothing(open_side: WebSide, client: Client, headers: dict[str, str]) -> None:
    for page in (open_side.client.page(), client.logged_in("reviewer")):
        assert page.post("/api/jobs/x/cancel").status == 404
        assert page.post("/api/jobs/x/cancel", **headers).status == 403
    login = {"name": "viewer", "password": PASSWORD}
    assert client.post("/api/login", login, **headers).status == 403


def test_another_web_site_links_to_the_page_and_gets_nothing_else(open_side: WebSide) -> None:
    def asked(path: str, mode: str) -> int:
        return open_side.client.get(path, Sec_Fetch_Site="cross-site", Sec_Fetch_Mode=mode).status

    assert asked("/", "navigate") in {200, 307}
    assert asked("/api/cases", "no-cors") == asked("/api/cases", "cors") == 403


@pytest.mark.parametrize("token", [None, "", "0", "é"])
def test_a_change_needs_the_csrf_token(open_side: WebSide, client: Client, token: str | None) -> None:
    for page in (open_side.client.page(), client.logged_in("reviewer")):
        del page.headers["X-CSRF-Token"]
        told = {} if token is None else {"X_CSRF_Token": token}
        assert page.post("/api/jobs/x/cancel", **told).status == 403
        assert page.upload([("a.nii", b"")]).status == 403


def test_one_user_does_not_know_the_csrf_token_of_another(client: Client) -> None:
    tokens = {client.logged_in(role).headers["X-CSRF-Token"] for role in Role}
    assert len(tokens) == len(Role)


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1@evil.example", "[", "", "127.0.0.1.nip.io", "0"]
)
def test_a_name_that_points_here_is_not_this_server(open_side: WebSide, host: str) -> None:
    assert open_side.client.get("/api/cases", Host=host).status == 403


def test_the_names_of_this_machine_are(open_side: WebSide) -> None:
    for host in ("localhost:1", "127.0.0.1", "[::1]:8000"):
        assert open_side.client.get("/api/cases", Host=host).status == 200


def test_every_answer_protects_the_page(open_side: WebSide, client: Client) -> None:
    answers = [
        open_side.client.get("/page/"),
        open_side.client.get("/api/cases"),
        client.get("/api/cases"),
        client.get("/nothing"),
        client.get("/api/cases", Host="evil.example"),
        client.post("/api/login", b"[" * 100_000, Content_Type="application/json"),
    ]
    for answer in answers:
        policy = answer.headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in policy
        assert "object-src 'none'" in policy
        assert "unsafe-eval" not in policy.replace("wasm-unsafe-eval", "")
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert answer.headers["Server"] is None
        assert answer.headers["Access-Control-Allow-Origin"] is None


# Passwords


def test_an_unknown_name_takes_as_long_as_a_wrong_password(side: WebSide) -> None:
    def seconds(name: str) -> float:
        started = time.perf_counter()
        assert not is_password(side.store, name, "wrong")
        return time.perf_counter() - started

    known, unknown = ([seconds(name) for _ in range(15)] for name in ("viewer", "nobody"))
    assert 0.5 < statistics.median(known) / statistics.median(unknown) < 2


def test_a_flood_of_logins_is_slowed_down(tmp_path: Path) -> None:
    with serving(tmp_path / "store") as running:
        set_user(running.store, "ann", PASSWORD, Role.VIEWER)
        answers = [running.client.post("/api/login", {"name": "ann", "password": "wrong"}) for _ in range(8)]
        assert [answer.status for answer in answers[:5]] == [401] * 5
        assert {answer.status for answer in answers[5:]} <= {401, 429}
        assert answers[-1].status == 429
        assert int(answers[-1].headers["Retry-After"]) >= 1
        right = running.client.post("/api/login", {"name": "ann", "password": PASSWORD})
        assert right.status == 429  # guessing right is no way out
        time.sleep(float(right.headers["Retry-After"]))
        assert running.client.post("/api/login", {"name": "ann", "password": PASSWORD}).status == 200


def test_a_flood_on_a_name_does_not_lock_its_user_out(tmp_path: Path) -> None:
    with serving(tmp_path / "store", {"behind_proxy": None}) as running:
        set_user(running.store, "ann", PASSWORD, Role.VIEWER)
        running.client.logged_in("ann")
        elsewhere = [Client(running.client.port, source=f"127.0.0.{number}") for number in range(2, 14)]
        login = {"name": "ann", "password": "wrong"}
        statuses = [client.post("/api/login", login).status for client in elsewhere for _ in range(4)]
        assert statuses[-1] == 429  # whoever has never been here waits, from whatever address
        assert Client(running.client.port, source="127.0.0.99").post("/api/login", login).status == 429
        running.client.logged_in("ann")  # she does not


def test_waits_grow_to_a_quarter_of_an_hour_and_memory_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("volseg.serving.web.attempts.time", SimpleNamespace(monotonic=lambda: now))
    attempts, waits = Attempts(), []
    for _ in range(30):
        assert attempts.begin("a") == 0
        waits.append(attempts.begin("a") if len(waits) >= 4 else 0.0)
        now += waits[-1]
        if len(waits) < 4:
            continue
    assert max(waits) == 900
    assert sorted(waits) == waits
    for number in range(30_000):
        attempts.begin(str(number))
    assert len(attempts.failures) < 11_000


def test_many_addresses_of_one_subscriber_are_one() -> None:
    assert network_of("2001:db8::1") == network_of("2001:db8::ffff:1") != network_of("2001:db8:0:1::1")
    assert network_of("::ffff:10.0.0.1") == "10.0.0.1" == network_of("10.0.0.1") != network_of("10.0.0.2")


@pytest.mark.parametrize(
    "body",
    [
        b'{"name": "ann", "password": "%b"}' % (b"x" * 900_000),
        b'{"name": "\\ud800", "password": "\\udfff"}',
        b'{"name": NaN, "password": Infinity}',
        b"[" * 200_000,
        b'{"name":' * 100_000,
        b"\xff\xfe\x00",
        b"",
    ],
)
def test_a_hostile_body_is_refused_and_not_repeated(client: Client, body: bytes) -> None:
    answer = client.post("/api/login", body, Content_Type="application/json")
    assert answer.status in {400, 422}
    assert len(answer.body) < 1000
    assert b"xxx" not in answer.body
    assert answer.json["detail"]


@pytest.mark.parametrize(
    "path",
    [
        "/api/results/-1",
        "/api/results/0",
        "/api/results/9223372036854775808",
        "/api/results/" + "9" * 5000,
        "/api/cases/..%2f..%2fstore.sqlite",
        "/api/cases/%00",
        "/api/cases/%FF%FE",
        "/api/models/..%2f..%2fetc/card",
        "/api/models/%00/card",
        "/page/..%2f..%2faccess.py",
        "/page/%2e%2e/access.py",
        "/page/..%5caccess.py",
        "/page//etc/passwd",
        "/page/%00",
        "/static/../../etc/passwd",
    ],
)
def test_no_id_and_no_path_reaches_a_file(open_side: WebSide, path: str) -> None:
    answer = open_side.client.get(path)
    assert answer.status in {404, 422}, answer.body
    assert b"root:" not in answer.body
    assert b"import" not in answer.body


@pytest.mark.parametrize(
    "query",
    [
        "search=%00",
        "search=%ED%A0%80",
        "search=%25';DROP TABLE cases;--".replace(" ", "%20"),
        "limit=-1",
        "limit=1" + "0" * 30,
    ],
)
def test_a_hostile_search_finds_nothing_and_breaks_nothing(open_side: WebSide, query: str) -> None:
    assert open_side.client.get(f"/api/cases?{query}").status == 200
    assert open_side.client.get(f"/api/audit?before={query.partition('=')[2]}").status in {200, 422}


# A reverse proxy


@pytest.fixture
def proxied(tmp_path: Path) -> Iterator[WebSide]:
    with serving(tmp_path / "store", {"behind_proxy": {"secret": secret_file(tmp_path)}}) as running:
        set_user(running.store, "ann", PASSWORD, Role.ADMIN)
        yield running


def test_nobody_goes_round_the_proxy(proxied: WebSide) -> None:
    for secret in ({}, {"X_Proxy_Secret": "wrong"}, {"X_Proxy_Secret": "é"}, {"X_Proxy_Secret": ""}):
        for path in ("/api/cases", "/metrics", "/healthz", "/page/", "/openapi.json"):
            assert proxied.client.get(path, X_Remote_User="ann", **secret).status == 403


def test_the_proxy_says_who_it_is(proxied: WebSide) -> None:
    proxy = proxied.client.with_headers(X_Proxy_Secret=SECRET)
    ann, bob = (proxy.with_headers(X_Remote_User=name) for name in ("ann", "bob"))
    assert ann.get("/api/session").json["role"] == "admin"
    assert bob.get("/api/session").json["role"] == "viewer"
    assert bob.get("/api/audit").status == 403
    assert proxy.get("/api/cases").status == 401
    assert ann.page().headers["X-CSRF-Token"] != bob.page().headers["X-CSRF-Token"]
    assert proxy.post("/api/login", {"name": "ann", "password": PASSWORD}).status == 403
    foreign = ann.page().post("/api/jobs/x/cancel", Origin="https://evil.example", X_Forwarded_Host="volseg.example")
    own = ann.page().post("/api/jobs/x/cancel", Origin="https://volseg.example", X_Forwarded_Host="volseg.example")
    assert (foreign.status, own.status) == (403, 404)
    assert "max-age" in own.headers["Strict-Transport-Security"]


def test_a_second_name_that_slips_past_the_proxy_is_refused(proxied: WebSide) -> None:
    request = (
        f"GET /api/cases HTTP/1.1\r\nHost: x\r\nX-Proxy-Secret: {SECRET}\r\n"
        "X-Remote-User: ann\r\nx-remote-user: bob\r\nConnection: close\r\n\r\n"
    )
    assert raw(proxied.client, request.encode()).startswith(b"HTTP/1.1 403")


def test_numbers_are_for_users_and_this_machine(proxied: WebSide, client: Client) -> None:
    assert b"volseg_cases" in client.get("/metrics").body
    assert "GB free" in client.get("/healthz").json["text"]
    proxy = proxied.client.with_headers(X_Proxy_Secret=SECRET)  # what comes from the proxy may come from anywhere
    assert proxy.get("/metrics").status == 401
    assert proxy.get("/healthz").json == {"is_well": True, "text": ""}
    assert proxy.get("/metrics", X_Remote_User="ann").status == 200


# Transport


def raw(client: Client, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", client.port), timeout=30) as connection:
        connection.sendall(request)
        received = b""
        while piece := connection.recv(65536):
            received += piece
        return received


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 5\r\nContent-Length: 50",
        b"Content-Length: 5\r\nTransfer-Encoding: chunked",
        b"Content-Length: +5",
        b"Content-Length: -1",
        b"Content-Length : 5",
        b"Transfer-Encoding: chunked, identity",
        b"X: a\r\n b: folded\x00",
    ],
)
def test_a_request_of_doubtful_length_is_not_read(client: Client, head: bytes) -> None:
    smuggled = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    request = b"POST /api/logout HTTP/1.1\r\nHost: localhost\r\n%b\r\nConnection: close\r\n\r\n%b" % (head, smuggled)
    answer = raw(client, request)
    assert re.match(rb"HTTP/1.1 4\d\d", answer)
    assert b"is_well" not in answer


def test_a_head_that_never_ends_is_not_kept(client: Client) -> None:
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        raw(client, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 2**23)


def test_requests_that_never_end_hold_up_nobody(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("volseg.serving.web.connection.HEAD_SECONDS", 1.0)
    slow = [socket.create_connection(("127.0.0.1", client.port), timeout=10) for _ in range(200)]
    try:
        for number, connection in enumerate(slow):
            if number % 2:
                connection.sendall(b"GET /api/cases HTTP/1.1\r\nHost: loc")
        started = time.monotonic()
        assert client.get("/healthz").status == 200
        assert time.monotonic() - started < 1
        assert all(connection.recv(1) == b"" for connection in slow)  # they are ended
        assert time.monotonic() - started < 5
    finally:
        for connection in slow:
            connection.close()


def test_a_browser_that_asks_again_is_not_cut_off(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("volseg.serving.web.connection.HEAD_SECONDS", 0.5)
    connection = http.client.HTTPConnection("127.0.0.1", client.port, timeout=10)
    connection.connect()
    first = connection.sock
    for _ in range(3):
        connection.request("GET", "/healthz")
        assert connection.getresponse().read()
        assert connection.sock is first
        time.sleep(0.3)
    connection.close()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, and a certificate that it has signed, for 127.0.0.1: ca.pem, cert.pem, key.pem."""
    pytest.importorskip("cryptography")
    from ipaddress import ip_address

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    folder, now = tmp_path_factory.mktemp("tls"), dt.datetime.now(dt.UTC)
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) for name in ("authority", "server")]
    alternative = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    for number, (file, extension) in enumerate(
        [("ca.pem", x509.BasicConstraints(ca=True, path_length=None)), ("cert.pem", alternative)]
    ):
        certificate = (
            x509.CertificateBuilder()
            .subject_name(names[number])
            .issuer_name(names[0])
            .public_key(keys[number].public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(extension, critical=number == 0)
            .sign(keys[0], hashes.SHA256())
        )
        (folder / file).write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        keys[1].private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return folder


def tls_of(folder: Path, **others: Any) -> dict[str, Any]:
    return {"certificate": folder / "cert.pem", "key": folder / "key.pem", **others}


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_beyond_this_machine_it_speaks_tls_with_users_who_log_in(tmp_path: Path, certificates: Path) -> None:
    web = {"host": "0.0.0.0", "tls": tls_of(certificates)}
    with serving(tmp_path / "store", web) as running:
        set_user(running.store, "ann", PASSWORD, Role.VIEWER)
        running.config.check_protection(has_users=True)
        trusting = ssl.create_default_context(cafile=certificates / "ca.pem")
        client = Client(running.client.port, tls=trusting)
        answer = client.post("/api/login", {"name": "ann", "password": PASSWORD})
        assert "secure" in answer.headers["Set-Cookie"].lower()
        assert "max-age" in answer.headers["Strict-Transport-Security"]
        assert client.get("/api/cases").status == 401
        assert client.logged_in("ann").get("/api/cases").status == 200
        with pytest.raises(ConnectionError):
            running.client.get("/api/cases")
        old = ssl.create_default_context(cafile=certificates / "ca.pem")
        old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises((ssl.SSLError, ConnectionError)):
            Client(running.client.port, tls=old).get("/api/cases")


def test_with_an_authority_only_its_certificates_connect(tmp_path: Path, certificates: Path) -> None:
    web = {"tls": tls_of(certificates, authority=certificates / "ca.pem")}
    with serving(tmp_path / "store", web) as running:
        nobody = ssl.create_default_context(cafile=certificates / "ca.pem")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            Client(running.client.port, tls=nobody).get("/healthz")
        known = ssl.create_default_context(cafile=certificates / "ca.pem")
        known.load_cert_chain(certificates / "cert.pem", certificates / "key.pem")
        assert Client(running.client.port, tls=known).get("/healthz").status == 200


# Defects, and what is logged


def test_a_defect_names_no_patient(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with serving(tmp_path / "store") as running, pytest.MonkeyPatch.context() as patch, caplog.at_level(logging.DEBUG):
        patch.setattr("volseg.serving.web.cases._title", lambda _: 1 / len("Müller^Änne") and int("Müller^Änne"))
        page = running.client.page()
        page.upload([("a.nii", b"\0" * 400)])
        answer = page.get("/api/cases")
        assert answer.status == 500
        assert "Müller" not in answer.body.decode()
        assert "ValueError" in caplog.text
        assert "Müller" not in caplog.text
        patch.setattr(Store, "rows", disk_error)
        assert page.get("/api/cases").status == 507


def disk_error(*_: object) -> None:
    raise OSError(28, "No space left on device", "Müller^Änne.nii")


@pytest.mark.slow
def test_no_line_of_a_run_names_a_patient(tmp_path: Path, trained_run: Path) -> None:
    write_series(make_case(0)[0], tmp_path / "series", modality="MR")
    files, uids = [], set()
    for number, path in enumerate(sorted((tmp_path / "series").glob("*"))):
        dataset = pydicom.dcmread(path)
        dataset.PatientName, dataset.PatientID = "Kanarienvogel^Änne", "PID-4711"
        dataset.StudyDescription = dataset.SeriesDescription = "Befund Kanarienvogel"
        uids |= {str(dataset.StudyInstanceUID), str(dataset.SeriesInstanceUID), str(dataset.SOPInstanceUID)}
        file = BytesIO()
        dataset.save_as(file)
        files.append((f"Kanarienvogel{number}.dcm", file.getvalue()))
    with running_server(tmp_path / "server", {"ball": trained_run}) as server:
        page = Client(int(server.url.rpartition(":")[2])).page()
        answer = page.upload(files, {"model": "ball"})
        assert answer.status == 200, answer.body
        (case_id,) = answer.json["case_ids"]
        page.upload([("Kanarienvogel.nii", b"\0" * 400)], {"model": "ball"})
        page.upload([("Kanarienvogel.exe", b"MZ")])
        page.upload([("Kanarienvogel.dcm", files[0][1][:700])])
        page.upload(files[:1], {"model": "ball"})

        def is_done() -> bool:
            jobs = page.get("/api/jobs").json
            return len(jobs) == 3 and all(job["status"] in {"done", "failed"} for job in jobs)

        wait_for(is_done, 90, "the jobs were not done", server.log)
        page.get(f"/api/cases/{case_id}/image.nii.gz")
        page.get("/api/cases?search=Kanarienvogel")
        raw(page, b"GET /api/cases?search=Kanarienvogel HTTP/1.1\r\nbroken\r\n\r\n")
        audit = page.get("/api/audit").body.decode()
    log = server.log.read_text(encoding="utf-8")
    for text in (log, audit):
        assert not re.search("kanarienvogel|PID-4711|Befund", text, re.IGNORECASE)
        assert not any(uid in text for uid in uids)
    assert case_id not in log


# The description of the interface


def filled(side: WebSide, image: bytes, mask: Path) -> dict[str, Any]:
    """Put a case with a result into a server, and return the ids of all that."""
    (case_id,) = side.client.page().upload([("a.nii.gz", image)]).json["case_ids"]
    add_job(side.store, Job(case_id, "ball", ("nifti",)))
    job = claim_job(side.store)
    assert job is not None
    side.store.job_folder(job.id).mkdir()
    (side.store.job_folder(job.id) / "image.nii.gz").write_bytes(mask.read_bytes())
    labels = '[{"value": 1, "name": "ball", "color": "#ff0000", "volume_ml": 1.5}]'
    finish_job(side.store, job, [Result("image", labels, "", 1.0, "nifti", "image.nii.gz")])
    path = {"case_id": case_id, "job_id": job.id, "result_id": 1, "name": "ball", "model": "ball", "delivery_id": 1}
    return {f"path.{name}": value for name, value in path.items()} | {"query.image": "a.nii.gz"}


#: The case stays for the other requests; and a mask that somebody waits for needs a worker.
_KEPT = """
[[operations]]
include-name = "DELETE /api/cases/{case_id}"
parameters = { "path.case_id" = "nothing" }
[[operations]]
include-name = "POST /infer/{model}"
enabled = false
"""


@pytest.mark.slow
@pytest.mark.parametrize("is_open", [True, False])
def test_nothing_that_fits_the_description_ends_in_a_defect(tmp_path: Path, trained_run: Path, is_open: bool) -> None:
    pytest.importorskip("schemathesis")
    image, mask = make_case(0)
    write_volume(image, tmp_path / "image.nii.gz")
    write_mask(mask, tmp_path / "mask.nii.gz")
    with serving(tmp_path / "store", models={"ball": trained_run}) as side:
        ids = filled(side, (tmp_path / "image.nii.gz").read_bytes(), tmp_path / "mask.nii.gz")
        header = f"X-CSRF-Token: {side.client.page().headers['X-CSRF-Token']}"
        if not is_open:
            set_user(side.store, "ann", PASSWORD, Role.ADMIN)
            header = f"Authorization: {bearer(side.store, 'ann', 600)}"
        toml = "\n".join(["[parameters]", *(f'"{name}" = {value!r}' for name, value in ids.items())]) + _KEPT
        (tmp_path / "schemathesis.toml").write_text(toml, encoding="utf-8")
        checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
        done = subprocess.run(
            [
                *(tool("schemathesis"), "--no-color", "run", f"http://127.0.0.1:{side.client.port}/openapi.json"),
                *(
                    "--max-time",
                    os.environ.get("VOLSEG_TEST_SECONDS", "10"),
                    "--checks",
                    checks,
                    "--phases",
                    "examples,coverage,fuzzing",
                ),
                *("--continue-on-failure", "-H", header),
            ],
            cwd=tmp_path,
            capture_output=True,
            encoding="utf-8",
            timeout=180,
            check=False,
        )
        looked = side.store.rows("SELECT 1 FROM audit WHERE what IN ('looked at', 'downloaded')")
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert len(looked) > 10  # it has found the case
