"""A period closed by the job, from the command to the proof: the manifest that the books accepted is verified from a copy of the
archive, by `adtally verify`, by openssl, and by a recount in Python that knows the rules alone."""
import hashlib
import json
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections import Counter
from decimal import Decimal

import archive_reader
import log_reader
from archive_reader import again, fields
from conftest import BUILD, Adtally, run
from test_reconcile import BILLING, QUARTER, SETTINGS, judge, made
from test_verify import FORMAT, billed, pytestmark, utc  # noqa: F401 - openssl must be there


def put_commands(data, *commands):
    lines = "".join(again(c).hex() + "\n" for c in commands)
    subprocess.run([BUILD / "tests/e2e/put_records", data / "log", "commands"], input=lines, text=True, check=True)


def command(name, number, what):
    return [(1, 2, name.encode()), (2, 2, b"default"), (3, 0, 1), (4, 2, b"ann"), (5, 2, b"bob"), (6, 2, b"why"),
            (number, 2, again(what))]


def close_of(period, first, end):
    return [(1, 2, again([(1, 2, b"default"), (2, 2, b"acme")])), (2, 2, period.encode()), (3, 0, first), (4, 0, end),
            (5, 2, b"UTC"), (6, 2, b"2026a")]


def closed(data):
    """[(PeriodClose fields, refused, why)] of the topic `billing`."""
    out = []
    for payloads in log_reader.collections(log_reader.records(data, "billing"), "billing"):
        for payload in payloads:
            for kind, _, v in (fields(entry)[0] for _, _, entry in fields(payload)):
                if kind == 3:
                    m = fields(v)
                    out.append((fields(log_reader.one(m, 1)), log_reader.one(m, 2, 0), log_reader.text(m, 3)))
    return out


def wait_for(what, a, seconds=60):
    until = time.time() + seconds
    while not (got := what()):
        assert time.time() < until, a.tail()
        time.sleep(0.1)
    return got


def explained(a, data, first, end):
    """GET /explain of the bill: the runs that posted it, how far they judged, and the number of the postings."""
    question = {"view": "billing", "from": utc(first // 4 * 4), "to": utc(end // 4 * 4), "advertiser_id": "acme"}
    cells, by_run = {}, {}

    def ask():  # an answer while nothing was posted
        entries = [e for e in log_reader.books(data) if e[0] == "posting"]
        status, answer = a.request("/v1/explain?" + urllib.parse.urlencode(question))
        assert status == 200 or answer["error"]["code"] == "billing_not_ready", answer
        for entry in entries:
            cells[entry[3]], by_run[entry[3]] = entry[4], entry[2]
        same = entries == [e for e in log_reader.books(data) if e[0] == "posting"]
        return answer if status == 200 and same and entries else None

    got = wait_for(ask, a)
    mine = {key: sum(c["billed"]["spend_nanos"] for c in causes.values()) for key, causes in cells.items()
            if first // 4 * 4 <= key[0] < end // 4 * 4 and any(v for c in causes.values() for v in c["billed"].values())}
    assert got["cells"] == len(mine) and got["totals"][0]["spend_nanos"] == str(sum(mine.values()))
    assert {r["run"]: r["cells"] for r in got["runs"]} == Counter(by_run[key] for key in mine)
    vectors = {e[1]["run"]: e[1]["vector"] for e in log_reader.runs(data) if e[0] == "begin"}
    assert {(s["stream"], s["partition"]): s["to_offset"] for s in got["sources"]} == vectors[got["run"]]
    assert all(len(r["sha256"]) == 64 and r["corrections_to"] == 1 for r in got["runs"])
    text = run("explain", urllib.parse.urlencode(question), "--url", a.url).stdout
    assert f"run {got['runs'][0]['run']}  of " in text and "judged up to offset" in text


def invoiced(a, close):
    """What the api says of the close: its state, the signed bytes, and an invoice that adds up to what was signed."""
    account, m = "advertiser_id=acme", json.loads(log_reader.one(close, 11))
    wait_for(lambda: [p for p in a.get(f"/v1/periods?{account}")[1].get("periods", [])
                      if (p["period"], p["state"], p.get("asked_by")) == ("2026-04", "closed", "close-1")], a)
    for part, number in ("manifest", 11), ("signature", 12):
        with urllib.request.urlopen(f"{a.url}/v1/periods/2026-04/manifest?{account}&part={part}") as r:
            assert r.read() == log_reader.one(close, number)
    for form in "delta", "ledger":
        invoice = a.get(f"/v1/periods/2026-04?{account}&adjustments={form}")[1]
        assert (invoice["state"], invoice["run"]) == ("closed", log_reader.text(close, 1))
        usage = [c for c in invoice["charges"] if c["kind"] == "usage"]
        assert {c["campaign_id"] for c in usage} and "c2" not in {c["campaign_id"] for c in usage}
        for total in m["totals"]:
            mine = [c for c in usage if c["currency"] == total["currency"]]
            assert sum(Decimal(c["exact"]) * 10**9 for c in mine) == int(total["spend_nanos"])
            assert sum(c["clicks"] for c in mine) == int(total["clicks"])
        for total in invoice["totals"]:
            lines = [c for c in invoice["charges"] if c["currency"] == total["currency"]]
            assert sum(Decimal(c["amount"]) for c in lines) == Decimal(total["amount"])
    assert a.get("/v1/corrections/fix-1")[1]["state"] == "applied"


def test_a_closed_period_is_verified_from_copies(place):
    seed = 611
    data, events = made(place, seed, events=2500, hours=10)
    judge(events)
    last = max(e["receive_ms"] for e in events) // QUARTER
    first, end = last - 36, last - 10
    run("key", "create", "--signing", "--data", data)
    (place / "public.pem").write_text(run("key", "public", "--data", data).stdout)
    void = command("fix-1", 10, [(1, 2, again([(3, 2, b"c2")])), (2, 0, 1)])
    put_commands(data, void, command("close-1", 11, close_of("2026-04", first, end)))
    a = Adtally(data, *SETTINGS, "--billing-horizon", BILLING, "--reconcile-every", "500ms", "--archive-segment", "2MiB")

    def waits():
        try:
            return json.loads((data / "run/reconcile.json").read_text()).get("closes")
        except (OSError, ValueError):
            return None

    try:
        a.start()
        wait_for(lambda: (waits() or [{}])[0].get("why") == "archive_behind", a)
        assert waits()[0] | {"text": ""} == {"id": "close-1", "tenant_id": "default", "advertiser_id": "acme",
                                             "period": "2026-04", "state": "closing", "why": "archive_behind", "text": ""}
        assert closed(data) == []
        explained(a, data, first, end)
        # The archive comes up to the draft's vector: its segments are full.
        filler = {f"k{i}": "x" * 256 for i in range(16)}
        assert a.post([{"event_id": f"full-{i}", "type": "click", "advertiser_id": "acme", "campaign_id": "c1",
                        "publisher_id": "p1", "currency": "EUR", "cost_micros": 1, "attributes": filler}
                       for i in range(1400)])[0] == 202
        (close, refused, why), = wait_for(lambda: closed(data), a)
        assert not refused, why
        wait_for(lambda: waits() == [], a)
        invoiced(a, close)
        # As the api hands it out, to the byte.
        at = "/v1/periods/2026-04/manifest?advertiser_id=acme"
        wait_for(lambda: a.request(at)[0] == 200, a)
        for part, number in (("manifest", 11), ("signature", 12)):
            with urllib.request.urlopen(f"{a.url}{at}&part={part}", timeout=30) as r:
                assert r.read() == log_reader.one(close, number), part
    finally:
        a.destroy()
    # Copies alone from here on.
    copy = place / "copy"
    shutil.copytree(data / "archive", copy)
    shutil.rmtree(data)
    path, text = place / "manifest.json", log_reader.one(close, 11)
    path.write_bytes(text)
    (place / "manifest.json.sig").write_bytes(log_reader.one(close, 12))
    done = run("verify", path, "--key", place / "public.pem", "--archive", f"dir:{copy}", "--json", "--quiet")
    m = json.loads(text)
    assert json.loads(done.stdout)["sha256"] == m["rows"]["sha256"]
    (place / "signed").write_bytes(b"\x10adtally-period-1" + text)
    subprocess.run(["openssl", "pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", place / "public.pem", "-in", place / "signed",
                    "-sigfile", place / "manifest.json.sig"], check=True, capture_output=True)
    # What it says, against a recount; the correction took campaign c2 out.
    vector = {p["partition"]: p["to"] for p in m["sources"][0]["partitions"]}
    lines, _ = billed(copy, vector, first, end)
    lines = [line for line in lines if json.loads(line)["campaign_id"] != "c2"]
    assert len(lines) == m["rows"]["count"] > 50, f"seed {seed}"
    assert hashlib.sha256(b"".join(lines)).hexdigest() == m["rows"]["sha256"], f"seed {seed}"
    sums = {k: sum(json.loads(line)[k] for line in lines) for k in FORMAT}
    assert {k: int(m["totals"][0][k]) for k in FORMAT} == sums
    assert (m["from"], m["to"], m["period"], m["asked_by"]) == (utc(first), utc(end), "2026-04", "close-1")
    assert [c["offset"] for c in m["corrections"]["commands"]] == [0] and m["corrections"]["to"] == 1
    for n, part in archive_reader.parts(copy).items():
        p = m["sources"][0]["partitions"][n]
        assert part.entries[p["segments"] - 1]["chain"].hex() == p["chain"] and vector[n] <= p["archived_to"]
        assert p["segments"] == 1 or part.entries[p["segments"] - 2]["end"] < vector[n]
