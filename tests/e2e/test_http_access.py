"""Who may ask for what over real HTTP: without keys this machine alone, classes of keys, CORS, rates (docs/API.md)."""
import hashlib
import json
import re
import time

import pytest

from conftest import run
from test_http import JOBS, answers, request, talk


def test_without_keys_only_this_machine_is_served(start):
    """DESIGN section 4: neither a proxy, nor a page in the browser, nor DNS rebinding reaches it."""
    a = start()
    e = json.dumps({"event_id": "x", "type": "click", "campaign_id": "c"}).encode()

    def ask(host="localhost", extra=b"", path="/v1/events"):
        data = request(e, host=host, extra=extra + b"Connection: close\r\n") if path == "/v1/events" else \
            request(path=path, host=host, extra=extra + b"Connection: close\r\n", length=False, method="GET")
        status, headers, body = answers(talk(a.port, data)[0])[0]
        return status, headers, body

    for path in ["/v1/events", "/v1/metrics", "/v1/quality"]:
        ok = 202 if path == "/v1/events" else 200
        for host in ["localhost", "LOCALHOST", "127.0.0.1", f"127.0.0.1:{a.port}", "127.9.9.9", "[::1]", f"[::1]:{a.port}"]:
            assert ask(host, path=path)[0] == ok, (path, host)
        for host in ["evil.example", "localhost.evil.example", "10.0.0.1", "0.0.0.0", "[::2]", "127.0.0.1.evil.example", "128.0.0.1"]:
            status, _, body = ask(host, path=path)
            assert (status, json.loads(body)["error"]["code"]) == (403, "forbidden"), (path, host)
        for name in ["X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "Forwarded", "X-Real-IP", "Via"]:
            status, _, body = ask(extra=f"{name}: 127.0.0.1\r\n".encode(), path=path)
            assert (status, json.loads(body)["error"]["code"]) == (403, "forbidden"), (path, name)
        for origin in ["https://evil.example", "null", "http://localhost.evil.example", "file://", "http://127.0.0.1@evil.example"]:
            assert ask(extra=f"Origin: {origin}\r\n".encode(), path=path)[0] == 403, (path, origin)
        for origin in ["http://localhost:3000", "http://127.0.0.1", "http://[::1]:80"]:
            assert ask(extra=f"Origin: {origin}\r\n".encode(), path=path)[0] == ok, (path, origin)
    ledger = a.wait_counted()
    assert (ledger["counted"], ledger["duplicate"]) == (1, 9)  # the same event 10 times; nothing else came in


def test_listening_elsewhere_needs_keys(place):
    done = run("up", "--data", place / "d", "--listen", "0.0.0.0:0", "--admin", "127.0.0.1:0", check=False)
    assert done.returncode != 0 and "--keys" in done.stderr


def make_key(keys, cls, tenant, *more):
    done = run("key", "create", "--class", cls, "--tenant", tenant, "--keys", keys, *more)
    return re.search(r"^key: (\S+)$", done.stdout, re.M).group(1)


@pytest.fixture
def keyed(start, place):
    keys = place / "keys"
    shop = "https://shop.example"
    tokens = {"public": make_key(keys, "public", "acme", "--origins", shop), "server": make_key(keys, "server", "acme"),
              "read": make_key(keys, "read", "acme"), "finance": make_key(keys, "finance", "acme"),
              "admin": make_key(keys, "admin", "acme"), "other": make_key(keys, "read", "umbrella")}
    a = start("--keys", str(keys))

    def ask(token, method, path, body=None, **headers):
        h = {k.replace("_", "-"): v for k, v in headers.items()}
        if token:
            h["Authorization"] = f"Bearer {tokens.get(token, token)}"
        if body is not None:
            h.setdefault("Content-Type", "application/json")
            body = json.dumps(body).encode()
        return a.request(path, body=body, method=method, headers=h)

    return a, keys, tokens, ask, shop


def test_key_classes(keyed):
    a, keys, tokens, ask, shop = keyed
    n = iter(range(1000))

    def e(**other):
        return {"event_id": f"k{next(n)}", "type": "click", "event_time": int(time.time() * 1000), "campaign_id": "c", **other}

    # Who may send, who may read.
    for token, post, get in [("public", 202, 403), ("server", 202, 403), ("read", 403, 200), ("finance", 403, 200), ("admin", 202, 200)]:
        status, answer = ask(token, "POST", "/v1/events", e(), Origin=shop)
        assert status == post, (token, answer)
        for path in ["/v1/metrics", "/v1/quality"]:
            status, answer = ask(token, "GET", path)
            assert status == get, (token, path, answer)
            if get == 403:
                assert answer["error"]["code"] == "forbidden"
    secret = tokens["server"].split(".")[1]
    for token in [None, "nobody.x", tokens["server"][:-1], tokens["read"].split(".")[0] + "." + secret, "x", ".", secret]:
        for method, path, body in [("POST", "/v1/events", e()), ("GET", "/v1/metrics", None), ("GET", "/v1/quality", None)]:
            status, answer = ask(token, method, path, body)
            assert (status, answer["error"]["code"]) == (401, "unauthorized"), (token, path)
    raw, _ = talk(a.port, request(b"{}", extra=b"Connection: close\r\n"))
    assert answers(raw)[0][1]["www-authenticate"] == "Bearer"
    assert ask(None, "POST", "/v1/events", e(), Authorization="Basic " + tokens["server"])[0] == 401
    assert a.get("/")[0] == 200  # the page holds nothing; it asks for the key

    # Public keys: only from their pages, and never with money.
    for origin in [None, "https://evil.example", "http://shop.example", "https://shop.example:8443", "null"]:
        status, answer = ask("public", "POST", "/v1/events", e(), **({"Origin": origin} if origin else {}))
        assert (status, answer["error"]["code"]) == (403, "forbidden"), origin
    for field in ["cost_micros", "payout_micros", "conversion_value_micros"]:
        status, answer = ask("public", "POST", "/v1/events", e(**{field: 0, "currency": "EUR"}), Origin=shop)
        assert (status, answer["error"]["code"], answer["error"]["field"]) == (403, "money_not_allowed", field)
    status, answer = ask("public", "POST", "/v1/events", [e(), e(cost_micros=1, currency="EUR"), e(currency="EUR")], Origin=shop)
    assert status == 202 and answer["accepted"] == 2 and [r["code"] for r in answer["rejected"]] == ["money_not_allowed"]

    # Foreign Hosts and proxies are welcome when there are keys.
    assert ask("server", "POST", "/v1/events", e(), Host="ads.example", X_Forwarded_For="10.1.2.3")[0] == 202

    # Tenants never see each other; only admin may ask for another.
    assert a.get("/v1/quality", headers={"Authorization": f"Bearer {tokens['read']}"})[0] == 200
    until = time.time() + 20
    while True:
        clicks = sum(r["clicks"] for r in ask("read", "GET", "/v1/metrics?window=total")[1]["rows"])
        if clicks == 6 or time.time() > until:
            break
        time.sleep(0.2)
    assert clicks == 6
    status, answer = ask("other", "GET", "/v1/metrics?window=total")
    assert status == 200 and answer["rows"] == [] and answer["tenant"] == "umbrella" and answer["hint"]["code"] == "no_data"
    assert ask("other", "GET", "/v1/metrics?tenant=acme")[0] == 403
    assert sum(r["clicks"] for r in ask("admin", "GET", "/v1/metrics?window=total&tenant=acme")[1]["rows"]) == 6
    status, answer = ask("admin", "GET", "/v1/metrics?window=total&tenant=umbrella")
    assert status == 200 and answer["rows"] == []


def test_cors_preflight(keyed):
    a, keys, tokens, ask, shop = keyed

    def preflight(origin):
        data = request(path="/v1/events", method="OPTIONS", length=False, host="ads.example",
                       extra=f"Origin: {origin}\r\nAccess-Control-Request-Method: POST\r\n"
                             "Access-Control-Request-Headers: authorization, content-type\r\nConnection: close\r\n".encode())
        return answers(talk(a.port, data)[0])[0]

    status, headers, body = preflight(shop)
    assert status == 204 and body == b""
    assert headers["access-control-allow-origin"] == shop and headers["vary"] == "Origin"
    assert headers["access-control-allow-methods"] == "POST"
    assert headers["access-control-allow-headers"] == "authorization, content-type"
    assert "access-control-allow-credentials" not in headers
    for origin in ["https://evil.example", "null", "https://shop.example.evil.example"]:
        status, headers, _ = preflight(origin)
        assert status == 403 and "access-control-allow-origin" not in headers, origin
    # The answer itself may be read by that page, and by no other.
    body = json.dumps({"event_id": "1", "type": "click", "campaign_id": "c"}).encode()
    auth = f"Authorization: Bearer {tokens['public']}\r\nConnection: close\r\n"
    status, headers, _ = answers(talk(a.port, request(body, extra=f"Origin: {shop}\r\n{auth}".encode()))[0])[0]
    assert status == 202 and headers["access-control-allow-origin"] == shop
    status, headers, _ = answers(talk(a.port, request(body, extra=f"Origin: https://evil.example\r\n{auth}".encode()))[0])[0]
    assert status == 403 and "access-control-allow-origin" not in headers


def test_keys_change_without_a_restart(keyed):
    """Two keys of a tenant side by side; a new one works within seconds; a broken file changes nothing."""
    a, keys, tokens, ask, shop = keyed
    pids = {job: a.job_pid(job) for job in JOBS}

    def eventually(what, token, want):
        until = time.time() + 10
        while ask(token, "GET", "/v1/metrics")[0] != want:
            assert time.time() < until, what
            time.sleep(0.1)

    fresh = make_key(keys, "read", "acme")
    eventually("a new key works", fresh, 200)
    assert ask("read", "GET", "/v1/metrics")[0] == 200
    before = keys.read_text()
    old = tokens["read"].split(".")[0]
    keys.write_text("".join(line for line in before.splitlines(True) if not line.startswith(old)))
    eventually("the old key is gone", "read", 401)
    keys.write_text("this is not a key\n")
    time.sleep(2.5)
    assert ask(fresh, "GET", "/v1/metrics")[0] == 200, "the keys read before stay in force"
    assert "line 1" in a.log.read_text(errors="replace")
    keys.write_text(before)
    eventually("back again", "read", 200)
    assert {job: a.job_pid(job) for job in JOBS} == pids


def test_rate_of_a_key(start, place):
    """More than the key's rate: 429 with Retry-After, and waiting that long helps."""
    keys = place / "keys"
    keys.write_text(f"kslow server acme {hashlib.sha256(b'secret').hexdigest()} rate=10 slow\n"
                    f"kfast server acme {hashlib.sha256(b'secret').hexdigest()} fast\n")
    a = start("--keys", str(keys))
    sent = 0

    def send(count, key):
        nonlocal sent
        body = json.dumps([{"event_id": f"r{sent + i}", "type": "click", "campaign_id": "c"} for i in range(count)]).encode()
        raw, _ = talk(a.port, request(body, extra=f"Authorization: Bearer {key}.secret\r\nConnection: close\r\n".encode()))
        status, headers, answer = answers(raw)[0]
        sent += count if status == 202 else 0
        return status, headers, json.loads(answer)

    assert send(40, "kslow")[0] == 202  # a request passes whole or waits whole
    status, headers, answer = send(1, "kslow")
    assert (status, answer["error"]["code"], answer["error"]["retryable"]) == (429, "over_quota", True)
    assert 1 <= int(headers["retry-after"]) <= 20
    assert send(1, "kfast")[0] == 202  # nobody else waits
    time.sleep(int(headers["retry-after"]))
    assert send(1, "kslow")[0] == 202
