"""What people ask over HTTP: corrections, runs, closes. Each request is one record of the topic `commands`, whatever is
repeated, killed or asked at once. The topic is decoded here by hand (proto/books.proto)."""
import hashlib
import json
import signal
import threading
import time
import urllib.request

import archive_reader
from conftest import run
from test_subjects import log_frames

WHO = {"reason": "wrong price", "requested_by": "ann", "approved_by": "bob"}
VOID = {**WHO, "action": "void", "scope": {"campaign_id": "c1"}}
KEYS = {"reader": "read", "finance": "finance", "boss": "admin", "other": "finance"}


def keys_file(place):
    """A key of each class; `other` is of another tenant. Returns the file."""
    path = place / "keys"
    path.write_text("".join(f"{k} {c} {'globex' if k == 'other' else 'acme'} {hashlib.sha256(k.encode()).hexdigest()}\n"
                            for k, c in KEYS.items()))
    return path


def ask(a, path, body=None, key="finance", **headers):
    return a.request(path, body=None if body is None else json.dumps(body).encode(),
                     headers={"Authorization": f"Bearer {key}.{key}", "Content-Type": "application/json", **headers})


def until(what, seconds=30):
    end = time.time() + seconds
    while True:
        try:
            got = what()
            if got:
                return got
        except OSError:
            pass
        assert time.time() < end, f"not after {seconds} s"
        time.sleep(0.05)


def ready(a):
    until(lambda: ask(a, "/v1/corrections")[0] == 200)


def commands(a):
    """[{field: value}] of the topic, in its order."""
    out = []
    for raw in log_frames(a, "commands"):
        for record in archive_reader.delimited(raw):
            out.append({n: v for n, _, v in archive_reader.fields(record)})
    return out


def text(command, field):
    return command[field].decode() if field in command else ""


def code_of(answer):
    return answer["error"]["code"]


def check_access(a):
    assert ask(a, "/v1/corrections", VOID, key="reader")[0] == 403
    assert ask(a, "/v1/reconcile", {}, key="reader")[0] == 403
    assert ask(a, "/v1/periods/2026-04/close", {**WHO, "advertiser_id": "a"}, key="reader")[0] == 403
    assert a.request("/v1/corrections", body=b"{}")[0] == 401
    assert ask(a, "/v1/corrections", key="reader")[0] == 200
    assert ask(a, "/v1/corrections?tenant=globex")[0] == 403
    assert ask(a, "/v1/corrections?tenant=globex", key="boss")[0] == 200


def check_refusals(a):
    for body, code in [({**VOID, "approved_by": "ann"}, "approval_needed"), ({**VOID, "scope": {}}, "empty_scope"),
                       ({**VOID, "scope": {"event_ids": ["e"] * 1001}}, "too_many_event_ids"),
                       ({**VOID, "id": "x" * 65}, "too_long"), ([VOID], "bad_json")]:
        status, answer = ask(a, "/v1/corrections", body)
        assert (status, code_of(answer)) == (400, code), answer
    status, answer = ask(a, "/v1/corrections", VOID, **{"Idempotency-Key": "a b"})
    assert (status, code_of(answer)) == (400, "bad_id")
    status, answer = ask(a, "/v1/corrections", {**VOID, "id": "a"}, **{"Idempotency-Key": "b"})
    assert (status, code_of(answer)) == (400, "bad_id")
    status, answer = a.request("/v1/corrections", body=b'{"a":1,"a":2}', headers={"Authorization": "Bearer finance.finance"})
    assert (status, code_of(answer)) == (400, "bad_json")
    status, answer = a.request("/v1/corrections", body=b" " * (1 << 20) + b"{}",
                               headers={"Authorization": "Bearer finance.finance"})
    assert (status, code_of(answer)) == (413, "body_too_large")


def check_idempotency(a):
    """The same answer before and after the job was killed, and by whichever of the two ways the id was given."""
    status, first = ask(a, "/v1/corrections", {**VOID, "id": "once"})
    assert (status, first["repeated"]) == (202, False)
    a.kill("api")
    ready(a)
    status, again = ask(a, "/v1/corrections", VOID, **{"Idempotency-Key": "once"})
    assert (status, again) == (200, {**first, "repeated": True})
    status, answer = ask(a, "/v1/corrections", {**VOID, "id": "once", "reason": "other"})
    assert (status, code_of(answer)) == (409, "id_reused")
    assert ask(a, "/v1/corrections", {**VOID, "id": "once"}, key="other")[0] == 202, "ids are a tenant's own"
    assert [text(c, 2) for c in commands(a) if text(c, 1) == "once"] == ["acme", "globex"]


def check_kills(a):
    """Many clients repeat their requests until they are answered, while the job is killed: each id is there once."""
    ids, left = [f"k{i}" for i in range(24)], threading.Semaphore(0)

    def client(some):
        for i in some:
            until(lambda i=i: ask(a, "/v1/corrections", {**VOID, "id": i})[0] in (200, 202), 60)
            left.release()

    threads = [threading.Thread(target=client, args=(ids[n::3] + ids[(n + 1) % 3::3],)) for n in range(3)]
    for t in threads:
        t.start()
    for _ in range(2):
        time.sleep(0.3)
        a.kill("api", signal.SIGKILL)
    for t in threads:
        t.join(90)
    assert sorted(text(c, 1) for c in commands(a) if text(c, 1) in ids) == sorted(ids)
    ready(a)


def check_records(a):
    """Every field as it was asked for, decoded by hand."""
    body = {**WHO, "id": "full", "action": "reprice", "values": {"price": "0.0125", "currency": "EUR"},
            "scope": {"event_ids": ["e1", "e2"], "advertiser_id": "a", "publisher_id": "p", "label": ["bot"],
                      "from": "2026-04-01T00:00:00+02:00", "to": "2026-05-01T00:00:00Z"}}
    assert ask(a, "/v1/corrections", body)[0] == 202
    c = next(c for c in commands(a) if text(c, 1) == "full")
    assert (text(c, 2), text(c, 4), text(c, 5), text(c, 6)) == ("acme", "ann", "bob", "wrong price")
    assert abs(c[3] - time.time() * 1000) < 60000
    correction = archive_reader.fields(c[10])
    scope = archive_reader.fields(dict((n, v) for n, _, v in correction)[1])
    assert [(n, v) for n, _, v in scope] == [(1, b"e1"), (1, b"e2"), (2, b"a"), (4, b"p"), (5, 1), (6, 1774994400000),
                                             (7, 1777593600000)]
    assert [(n, v) for n, _, v in correction[1:]] == [(2, 2), (3, 12500000), (4, b"EUR")]
    shown = ask(a, "/v1/corrections/full")[1]
    assert shown["scope"]["event_ids"] == ["e1", "e2"] and shown["values"] == {"price": "0.012500000", "currency": "EUR"}
    assert shown["state"] in ("waiting", "applied")
    close = {**WHO, "id": "close", "advertiser_id": "a"}
    assert ask(a, "/v1/periods/2026-03/close", close)[0] == 202
    c = archive_reader.fields(next(c for c in commands(a) if text(c, 1) == "close")[11])
    assert [(n, v) for n, _, v in c][1:5] == [(2, b"2026-03"), (3, 1772319600000 // 900000), (4, 1774994400000 // 900000),
                                              (5, b"Europe/Berlin")]
    assert [v for _, _, v in archive_reader.fields(c[0][2])] == [b"acme", b"a"]
    assert ask(a, "/v1/reconcile", {"id": "now"})[0] == 202
    assert 12 in next(c for c in commands(a) if text(c, 1) == "now")
    assert ask(a, "/v1/reconcile/now")[1]["state"] in ("waiting", "working", "applied")
    assert ask(a, "/v1/reconcile/now", key="other")[0] == 404


def check_command_line(a, place):
    def cli(*args, **kw):
        return run(*args, "--url", a.url, "--key", "finance.finance", **kw)

    who = ["--reason", "r", "--requested-by", "ann", "--approved-by", "bob"]
    ids = place / "ids"
    ids.write_text("e1\ne2\r\n\n")
    made = json.loads(cli("correction", "create", "--id", "cli", "--action", "remap", "--event-ids", ids, "--campaign", "c1",
                          "--new-publisher", "p2", *who).stdout)
    assert made["id"] == "cli"
    shown = json.loads(cli("correction", "show", "cli").stdout)
    assert shown["scope"] == {"event_id_count": 2, "event_ids": ["e1", "e2"], "campaign_id": "c1"}
    assert shown["values"] == {"publisher_id": "p2"}
    price = place / "price.json"
    price.write_text(json.dumps({**VOID, "id": "file"}))
    assert json.loads(cli("correction", "create", price).stdout)["id"] == "file"
    assert json.loads(cli("correction", "cancel", "cli", *who).stdout)["see"] == "/v1/corrections/cli"
    listed = json.loads(cli("correction", "list", "--limit", "2").stdout)["corrections"]
    assert [c["id"] for c in listed] == ["file", "cli"]
    assert listed[1]["cancel"]["requested_by"] == "ann"
    bad = cli("correction", "create", "--action", "void", "--campaign", "c1", "--reason", "r", "--requested-by", "ann",
              check=False)
    assert bad.returncode != 0 and "approval_needed" in bad.stderr
    months = json.loads(cli("period", "list", "--advertiser", "a").stdout)["periods"]
    assert {"period": "2026-03", "state": "closing"}.items() <= months[0].items()
    assert "period_not_over" in cli("period", "close", months[-1]["period"], "--advertiser", "a", *who, check=False).stderr
    assert run("correction", "nonsense", check=False).returncode == 64
    assert run("period", "show", check=False).returncode == 64


def test_commands(start, place):
    accounts = place / "accounts"
    accounts.write_text("acme advertiser Europe/Berlin EUR\n")
    a = start("--keys", keys_file(place), "--accounts", accounts)
    ready(a)
    check_access(a)
    check_refusals(a)
    assert not commands(a), "a refusal is no command"
    check_idempotency(a)
    check_kills(a)
    check_records(a)
    check_command_line(a, place)
    with urllib.request.urlopen(f"http://127.0.0.1:{a.admin}/metrics") as r:
        assert "adtally_commands_damaged" in r.read().decode()
