"""Bad input and hostile clients over real HTTP: each gets the documented status and code (docs/EVENTS.md,
docs/API.md), nothing crashes, and good events beside bad ones are counted exactly.

The oracle is the count of what was answered 202, kept by the test itself.
"""
import json
import socket
import threading
import time

import pytest

JOBS = ["ingest", "realtime", "api"]
MAX_ID, MAX_EVENT_ID = 64, 128


class Sender:
    """Posts to a running Adtally and keeps count of what must be in its ledger."""

    def __init__(self, a):
        self.a = a
        self.number = self.received = self.accepted = self.rejected = 0
        self.spend = 0
        self.pids = {job: a.job_pid(job) for job in JOBS}

    def event(self, **other):
        self.number += 1
        e = {"event_id": f"e{self.number}", "type": "click", "event_time": int(time.time() * 1000), "advertiser_id": "adv",
             "campaign_id": "camp", "cost_micros": 7, "currency": "EUR"}
        e.update(other)
        return {k: v for k, v in e.items() if v is not ...}

    def post(self, body, kind="application/json", **kw):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.a.request("/v1/events", body=data, headers={"Content-Type": kind}, method="POST", **kw)

    def good(self, count=1):
        events = [self.event() for _ in range(count)]
        assert self.post(events) == (202, {"accepted": count, "rejected": [], "warnings": []})
        self.count(count, 0)

    def count(self, accepted, rejected):
        self.received += accepted + rejected
        self.accepted += accepted
        self.rejected += rejected
        self.spend += 7 * accepted

    def refused_event(self, what, body, code, field=None, status=422, event_id=None, **kw):
        """One event, refused: it is in the ledger."""
        got, answer = self.post(body, **kw)
        assert got == status, f"{what}: {got} {str(answer)[:300]}"
        assert answer["error"]["code"] == code and answer["error"]["field"] == field, f"{what}: {str(answer)[:300]}"
        assert answer["error"]["retryable"] is False and answer["error"]["message"], what
        assert answer["accepted"] == 0 and len(answer["rejected"]) == 1, what
        r = answer["rejected"][0]
        assert (r["index"], r["code"], r["field"], r["retryable"]) == (0, code, field, False), f"{what}: {r}"
        if event_id is not None:
            assert r["event_id"] == event_id, f"{what}: {r}"
        self.count(0, 1)

    def refused_body(self, what, body, code, status=400, **kw):
        """A body that is no batch of events: none of it is in the ledger."""
        got, answer = self.post(body, **kw)
        assert got == status, f"{what}: {got} {str(answer)[:300]}"
        assert list(answer) == ["error"] and answer["error"]["code"] == code, f"{what}: {str(answer)[:300]}"
        assert answer["error"]["retryable"] is False and answer["error"]["message"], what

    def check(self):
        """Nothing crashed; both ledgers and the numbers are exactly what was answered."""
        a = self.a
        if self.accepted:
            ledger = a.wait_counted()
            assert (ledger["accepted"], ledger["counted"]) == (self.accepted, self.accepted), ledger
            totals = a.metrics(window="total", group_by="none")["totals"]
            assert [(t["currency"], t["clicks"], t["spend_micros"]) for t in totals] == [("EUR", self.accepted, self.spend)]
        assert {job: a.job_pid(job) for job in JOBS} == self.pids, "a job was started again\n" + a.tail()
        assert a.stop() == 0
        a.start()  # the closing heartbeat carried the edge ledger into the log
        until = time.time() + 40
        while True:
            q = a.quality()
            edge = [s for s in q["ingest"] if s["received"]]
            if sum(s["received"] for s in edge) == self.received or time.time() > until:
                break
            time.sleep(0.2)
        assert [(s["received"], s["accepted"], s["rejected"], s["unanswered"], s["closed"]) for s in edge] == \
            [(self.received, self.accepted, self.rejected, 0, True)]
        assert q["balanced"] and q["ledger"]["accepted"] == self.accepted, q["ledger"]


# ---- the bad input table ----

WRONG_TYPES = {  # field: values of a type that it cannot have
    "event_id": [1, 1.5, True, [], {}],
    "type": [1, True, ["click"], {}],
    "event_time": [True, 1.5, [], {}],
    "advertiser_id": [1, False, [], {}],
    "campaign_id": [1, [], {}],
    "ad_id": [1, {}],
    "publisher_id": [1, []],
    "placement_id": [1, []],
    "user_id": [12345678901, []],
    "country": [1, []],
    "device": [1, []],
    "click_id": [1, {}],
    "cost_micros": ["5", 187.4, 1.0, True, [], {}],
    "payout_micros": ["5", 0.5, False],
    "conversion_value_micros": ["5", 1e3, []],
    "currency": [978, True, []],
    "conversion_value_currency": [978, {}],
    "attributes": [1, "x", [], {"k": 1}, {"k": None}, {"k": {}}],
}


@pytest.mark.sanitized
def test_bad_input_table(start):
    a = start()
    s = Sender(a)
    s.good(3)
    e = s.event

    s.refused_body("empty body", b"", "empty_body")
    s.refused_body("batch of 0", [], "empty_batch")
    s.refused_body("envelope of 0", {"events": []}, "empty_batch")
    s.refused_body("NDJSON of blank lines", b"\n \r\n\n", "empty_batch", kind="application/x-ndjson")
    for text in [b" ", b"{", b"[", b"nul", b"{}}", b"[{}] x", b'{"a":}', b"{'a':1}", b"\xff\xfe{}", b"NaN", b'{"a":01}']:
        got, answer = s.post(text)
        assert (got, answer["error"]["code"]) in [(400, "bad_json"), (400, "bad_utf8")], (text, answer)

    whole = json.dumps(e()).encode()
    for n in range(1, len(whole)):
        s.refused_body(f"cut at byte {n}", whole[:n], "bad_json")
    for n in range(1, len(whole)):  # a bad line refuses itself, not its neighbours
        got, answer = s.post(whole[:n] + b"\n" + json.dumps(e()).encode() + b"\n", kind="application/x-ndjson")
        assert got == 202 and answer["accepted"] == 1, f"NDJSON cut at byte {n}: {answer}"
        assert [(r["index"], r["code"]) for r in answer["rejected"]] == [(0, "bad_json")], f"NDJSON cut at byte {n}"
        s.count(1, 1)
    s.refused_event("one bad line", b"{\n", "bad_json", status=400, kind="application/x-ndjson")

    for field, values in WRONG_TYPES.items():
        for v in values:
            s.refused_event(f"{field}={v!r}", e(**{field: v}), "wrong_type", field)
    for v in [None, 5, "x", True, 2.5]:
        s.refused_event(f"body {v!r}", v, "not_an_event")
    s.refused_event("an array in an array", [[]], "not_an_event")

    for field in ["cost_micros", "payout_micros", "conversion_value_micros"]:
        s.refused_event(f"{field} 2^63", e(**{field: 2**63}), "out_of_range", field)
        s.refused_event(f"{field} 2^64-1", e(**{field: 2**64 - 1}), "out_of_range", field)
        s.refused_event(f"{field} 1e15+1", e(**{field: 10**15 + 1}), "out_of_range", field)
        s.refused_event(f"{field} -1", e(**{field: -1}), "negative", field)
        s.refused_event(f"{field} -2^63", e(**{field: -2**63}), "negative", field)
        s.refused_body(f"{field} 2^64", e(**{field: 2**64}), "bad_json")
        s.refused_body(f"{field} -2^63-1", e(**{field: -2**63 - 1}), "bad_json")
    s.refused_event("event_time 2^63", e(event_time=2**63), "out_of_range", "event_time")

    for v in ["Click", "CLICK", "view", "", "click "]:
        s.refused_event(f"type {v!r}", e(type=v), "unknown_type", "type")
    for field in ["currency", "conversion_value_currency"]:
        for v in ["EURO", "eur", "XXX", "ZZZ", "", "€"]:
            s.refused_event(f"{field} {v!r}", e(**{field: v}), "unknown_currency", field)
    s.refused_event("cost without currency", e(currency=...), "missing_currency", "currency")
    s.refused_event("value without currency", e(currency=..., cost_micros=..., conversion_value_micros=1),
                    "missing_currency", "currency")

    s.refused_event("unknown field", e(campain_id="x"), "unknown_field", "campain_id")
    s.refused_event("stamped field", e(tenant_id="other"), "unknown_field", "tenant_id")
    s.refused_event("unknown field beside events", {"events": [e()], "x": 1}, "unknown_field", "events")
    for field in ["event_id", "type", "campaign_id"]:
        s.refused_event(f"no {field}", e(**{field: ...}), "missing_field", field)
        s.refused_event(f"{field} null", e(**{field: None}), "missing_field", field)
    s.refused_event("empty event_id", e(event_id=""), "missing_field", "event_id")
    s.refused_event("nothing stated", {}, "missing_field", "event_id")

    raw = json.dumps(e())
    s.refused_event("duplicate key", (raw[:-1] + ',"type":"click"}').encode(), "duplicate_key", "type")
    s.refused_event("duplicate attribute", (raw[:-1] + ',"attributes":{"a":"1","a":"2"}}').encode(), "duplicate_key", "attributes")

    s.refused_event("event_id of 129", e(event_id="x" * (MAX_EVENT_ID + 1)), "too_long", "event_id")
    s.refused_event("campaign_id of 65", e(campaign_id="x" * (MAX_ID + 1)), "too_long", "campaign_id")
    s.refused_event("65 bytes of UTF-8", e(campaign_id="é" * 32 + "x"), "too_long", "campaign_id")
    for field in ["event_id", "campaign_id", "user_id"]:
        s.refused_event(f"{field} of 10 MB", e(**{field: "x" * 10_000_000}), "too_long", field)
    s.refused_event("key of 10 MB", e(**{"k" * 10_000_000: 1}), "unknown_field", "k" * MAX_ID)
    s.refused_event("key cut inside a character", e(**{"k" * (MAX_ID - 1) + "é" * 9: 1}), "unknown_field", "k" * (MAX_ID - 1))
    s.refused_event("key with NUL", e(**{"k\0": 1}), "unknown_field", "k")
    s.refused_event("long attribute", e(attributes={"k": "v" * 257}), "too_long", "attributes")
    s.refused_event("long attribute key", e(attributes={"k" * 65: "v"}), "too_long", "attributes")
    s.refused_event("17 attributes", e(attributes={f"k{i}": "v" for i in range(17)}), "too_many_attributes", "attributes")
    s.refused_event("empty attribute key", e(attributes={"": "v"}), "bad_character", "attributes")

    for bad in ["a\0b", "\x1f", "a\nb", "\x7f", "\u0085"]:
        s.refused_event(f"id {bad!r}", e(event_id=bad), "bad_character", "event_id")
        s.refused_event(f"id {bad!r}", e(ad_id=bad), "bad_character", "ad_id")
    s.refused_body("raw NUL", raw.encode().replace(b"camp", b"ca\0mp", 1), "bad_json")
    for bad in [b"\xff", b"\xc3", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"]:
        s.refused_body(f"UTF-8 {bad!r}", raw.encode().replace(b"adv", bad, 1), "bad_utf8")
    s.refused_body("lone surrogate", raw.encode().replace(b"adv", b"\\ud800", 1), "bad_json")
    s.refused_body("17 levels", b'{"event_id":' + b"[" * 17 + b"]" * 17 + b"}", "bad_json")

    now = int(time.time() * 1000)
    for bad in ["", "x", "2026-11-24", "2026-11-24T10:00:00", "2026-13-01T00:00:00Z", "2026-02-29T00:00:00Z", "1e3"]:
        s.refused_event(f"time {bad!r}", e(event_time=bad), "bad_time", "event_time")
    for bad in [0, -1, -2**63]:
        s.refused_event(f"time {bad}", e(event_time=bad), "bad_time", "event_time")
    s.refused_event("in 6 min", e(event_time=now + 6 * 60000), "event_time_future", "event_time")
    s.refused_event("8 days ago", e(event_time=now - 8 * 86400000), "event_time_old", "event_time")
    s.refused_event("seconds for ms", e(event_time=now // 1000), "event_time_old", "event_time")

    # Several mistakes: the first in the event's own order; the rejection names the event all the same.
    s.refused_event("two mistakes", {"ad_id": 1, "type": "x", "event_id": "known"}, "wrong_type", "ad_id", event_id="known")

    small = b'{"event_id":"%d","type":"click","campaign_id":"c"}'
    s.refused_body("batch of 100,000", b"[" + b",".join(small % i for i in range(100_000)) + b"]", "batch_too_large", 413)
    s.refused_body("NDJSON of 100,000", b"\n".join(small % i for i in range(100_000)), "batch_too_large", 413,
                   kind="application/x-ndjson")
    s.refused_body("protobuf of 100,000", bytes([0x0A, 0x00]) * 100_000, "batch_too_large", 413, kind="application/x-protobuf")
    s.refused_body("10,001 events", [{}] * 10_001, "batch_too_large", 413)
    s.refused_body("a million values", b"[" + b"[]," * 1_000_000 + b"[]]", "batch_too_large", 413)

    got, answer = s.post(b"x" * (17 << 20))
    assert (got, answer["error"]["code"]) == (413, "body_too_large"), answer
    s.good(3)
    s.check()


def test_content_types(start):
    a = start()
    s = Sender(a)
    for kind in ["application/json", "APPLICATION/JSON", "application/json; charset=utf-8", 'application/json;charset="UTF-8"']:
        assert s.post(s.event(), kind=kind)[0] == 202, kind
        s.count(1, 0)
    for kind in ["", "text/plain", "application/jsonp", "application/json; charset=latin1", "application/json; x=y", "multipart/form-data"]:
        s.refused_body(kind, s.event(), "unsupported_media_type", 415, kind=kind)
    for encoding in ["gzip", "br", "zstd", "gzip, identity"]:
        got, answer = a.request("/v1/events", body=json.dumps(s.event()).encode(), method="POST",
                                headers={"Content-Type": "application/json", "Content-Encoding": encoding})
        assert (got, answer["error"]["code"]) == (415, "unsupported_media_type"), encoding
    got, _ = a.request("/v1/events", body=json.dumps(s.event()).encode(), method="POST",
                       headers={"Content-Type": "application/json", "Content-Encoding": "identity"})
    assert got == 202
    s.count(1, 0)
    for body in [b"\n".join(json.dumps(s.event()).encode() for _ in range(3)), json.dumps(s.event()).encode() + b"\r\n\r\n"]:
        got, answer = s.post(body, kind="application/x-ndjson")
        assert got == 202 and answer["rejected"] == []
        s.count(answer["accepted"], 0)
    assert s.post({"events": [s.event(), s.event()]})[1]["accepted"] == 2
    s.count(2, 0)
    # EventBatch{Event{event_id, type: CLICK, advertiser_id, campaign_id, cost{0.000007}, currency}} (proto/event.proto)
    event = b"\x0a\x02pb\x10\x02\x22\x03adv\x2a\x04camp" + b"\x6a\x03\x10\xb0\x6d" + b"\x82\x01\x03EUR"
    got, answer = s.post(b"\x0a" + bytes([len(event)]) + event, kind="application/x-protobuf")
    assert got == 202 and answer["accepted"] == 1 and [w["code"] for w in answer["warnings"]] == ["time_missing"], answer
    s.count(1, 0)
    s.refused_body("protobuf cut", b"\x0a\x7f" + event, "bad_protobuf", kind="application/x-protobuf")
    s.refused_body("no protobuf", b"hello", "bad_protobuf", kind="application/x-protobuf")
    s.check()


@pytest.mark.sanitized
def test_good_events_beside_bad_ones(start):
    """Every good event of a batch is accepted; every other one is listed with its index."""
    a = start()
    s = Sender(a)
    bad = [(5, "not_an_event"), ({}, "missing_field"), (s.event(type="x"), "unknown_type"), (s.event(cost_micros=-1), "negative"),
           (s.event(currency="eur"), "unknown_currency"), (s.event(x=1), "unknown_field"), (s.event(event_id="y" * 129), "too_long")]
    batch, codes = [], []
    for i in range(700):
        if i % 3 == 1:
            b, code = bad[i % len(bad)]
            codes.append((i, code))
            batch.append(b)
        else:
            batch.append(s.event())
    got, answer = s.post(batch)
    assert got == 202 and answer["accepted"] == 700 - len(codes)
    assert [(r["index"], r["code"]) for r in answer["rejected"]] == codes
    s.count(answer["accepted"], len(codes))
    # All refused for one reason: its status. For several: 422, the first one's code.
    got, answer = s.post([s.event(type="x"), s.event(type="y")])
    assert (got, answer["error"]["code"], answer["accepted"], len(answer["rejected"])) == (422, "unknown_type", 0, 2)
    got, answer = s.post([s.event(type="x"), 7])
    assert (got, answer["error"]["code"]) == (422, "unknown_type")
    s.count(0, 4)
    # Warnings: accepted, with a remark.
    got, answer = s.post([s.event(event_time=...), s.event(event_time=int(time.time() * 1000) - 3600_000)])
    assert got == 202 and answer["warnings"] == [{"index": 0, "code": "time_missing"}, {"index": 1, "code": "probably_late"}]
    s.received, s.accepted = s.received + 2, s.accepted + 2
    ledger = a.wait_counted()
    assert (ledger["accepted"], ledger["counted"], ledger["late"]) == (s.accepted, s.accepted - 1, 1)
    assert {job: a.job_pid(job) for job in JOBS} == s.pids


def test_largest_acceptable_batch(start):
    """The limits themselves are inside: 10,000 events, ids of 128 and 64 bytes, 16 attributes, 1e15 micros."""
    a = start()
    now = int(time.time() * 1000)
    batch = [{"event_id": f"{i:0128d}", "type": "click", "event_time": now, "campaign_id": "c" * 64, "advertiser_id": "é" * 32,
              "cost_micros": 10**15, "currency": "EUR"} for i in range(10_000)]
    batch[0]["attributes"] = {f"{k:064d}": "v" * 256 for k in range(16)}
    got, answer = a.post(batch)
    assert got == 202 and answer["accepted"] == 10_000 and answer["rejected"] == []
    a.wait_counted()
    total = a.metrics(window="total")["totals"][0]
    assert (total["clicks"], total["spend_micros"]) == (10_000, 10**19)  # beyond 64 bits: sums have 128


# ---- raw sockets: RELIABILITY 5.2 against the real port ----

def talk(port, data, seconds=8, end=False):
    """Send bytes; everything that comes back until the server closes (or the time is over)."""
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as c:
        c.sendall(data)
        if end:
            c.shutdown(socket.SHUT_WR)
        got, until = b"", time.time() + seconds
        while time.time() < until:
            try:
                more = c.recv(65536)
            except (socket.timeout, ConnectionResetError):
                return got, False
            if not more:
                return got, True
            got += more
        return got, False


def answers(data):
    """[(status, headers, body)] of the responses in the bytes."""
    out = []
    while data:
        head, _, rest = data.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines[1:])}
        n = int(headers.get("content-length", 0))
        out.append((int(lines[0].split()[1]), headers, rest[:n]))
        data = rest[n:]
    return out


def request(body=b"", path="/v1/events", host="localhost", extra=b"", length=True, method="POST"):
    head = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n".encode() + extra
    return head + (b"Content-Length: %d\r\n" % len(body) if length else b"") + b"\r\n" + body


def smuggled():
    """What must never be read as a request of its own."""
    return request(json.dumps({"event_id": "smuggled", "type": "click", "campaign_id": "evil"}).encode())


GOOD = b'{"event_id":"raw","type":"click","campaign_id":"c"}'
HEAD = b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"

BAD_REQUESTS = {
    "two equal Content-Length": HEAD + b"Content-Length: 51\r\nContent-Length: 51\r\n\r\n" + GOOD,
    "two different Content-Length": HEAD + b"Content-Length: 51\r\nContent-Length: 5\r\n\r\n" + GOOD,
    "+5": HEAD + b"Content-Length: +51\r\n\r\n" + GOOD,
    "-5": HEAD + b"Content-Length: -51\r\n\r\n" + GOOD,
    "5,5": HEAD + b"Content-Length: 51,51\r\n\r\n" + GOOD,
    "0x33": HEAD + b"Content-Length: 0x33\r\n\r\n" + GOOD,
    "5 5": HEAD + b"Content-Length: 5 1\r\n\r\n" + GOOD,
    "empty length": HEAD + b"Content-Length:\r\n\r\n" + GOOD,
    "xchunked": HEAD + b"Transfer-Encoding: xchunked\r\n\r\n33\r\n" + GOOD + b"\r\n0\r\n\r\n",
    "gzip, chunked": HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n33\r\n" + GOOD + b"\r\n0\r\n\r\n",
    "chunked twice": HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n33\r\n" + GOOD + b"\r\n0\r\n\r\n",
    "identity": HEAD + b"Transfer-Encoding: identity\r\nContent-Length: 51\r\n\r\n" + GOOD,
    "CL and TE": HEAD + b"Content-Length: 51\r\nTransfer-Encoding: chunked\r\n\r\n33\r\n" + GOOD + b"\r\n0\r\n\r\n",
    "TE and CL": HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 51\r\n\r\n33\r\n" + GOOD + b"\r\n0\r\n\r\n",
    "TE in HTTP/1.0": HEAD.replace(b"1.1", b"1.0") + b"Transfer-Encoding: chunked\r\n\r\n33\r\n" + GOOD + b"\r\n0\r\n\r\n",
    "space before colon": HEAD + b"Transfer-Encoding : chunked\r\n\r\n33\r\n" + GOOD + b"\r\n0\r\n\r\n",
    "space before colon of length": HEAD + b"Content-Length : 51\r\n\r\n" + GOOD,
    "bare LF after a header": HEAD + b"X: y\nContent-Length: 51\r\n\r\n" + GOOD,
    "bare LF everywhere": (HEAD + b"Content-Length: 51\r\n\r\n").replace(b"\r\n", b"\n") + GOOD,
    "bare CR": HEAD + b"X: y\rZ: z\r\nContent-Length: 51\r\n\r\n" + GOOD,
    "folded line": HEAD + b"X: y\r\n z\r\nContent-Length: 51\r\n\r\n" + GOOD,
    "empty header name": HEAD + b": y\r\nContent-Length: 51\r\n\r\n" + GOOD,
    "NUL in a value": HEAD + b"X: a\0b\r\nContent-Length: 51\r\n\r\n" + GOOD,
    "NUL in a name": HEAD + b"X\0: b\r\nContent-Length: 51\r\n\r\n" + GOOD,
    "DEL in a value": HEAD + b"X: a\x7fb\r\nContent-Length: 51\r\n\r\n" + GOOD,
    "no Host": HEAD.replace(b"Host: localhost\r\n", b"") + b"Content-Length: 51\r\n\r\n" + GOOD,
    "no Host in HTTP/1.0": HEAD.replace(b"Host: localhost\r\n", b"").replace(b"1.1", b"1.0") + b"Content-Length: 51\r\n\r\n" + GOOD,
    "two Hosts": HEAD + b"Host: localhost\r\nContent-Length: 51\r\n\r\n" + GOOD,
    "Host with a path": HEAD.replace(b"localhost", b"localhost/x") + b"Content-Length: 51\r\n\r\n" + GOOD,
    "Host with a user": HEAD.replace(b"localhost", b"u@localhost") + b"Content-Length: 51\r\n\r\n" + GOOD,
    "empty Host": HEAD.replace(b"Host: localhost", b"Host:") + b"Content-Length: 51\r\n\r\n" + GOOD,
    "HTTP/2.0": HEAD.replace(b"HTTP/1.1", b"HTTP/2.0") + b"Content-Length: 51\r\n\r\n" + GOOD,
    "HTTP/1.2": HEAD.replace(b"HTTP/1.1", b"HTTP/1.2") + b"Content-Length: 51\r\n\r\n" + GOOD,
    "no version": b"GET /\r\n\r\n",
    "two spaces": HEAD.replace(b"POST /", b"POST  /") + b"Content-Length: 51\r\n\r\n" + GOOD,
    "absolute form": HEAD.replace(b"/v1/events", b"http://localhost/v1/events") + b"Content-Length: 51\r\n\r\n" + GOOD,
    "fragment": HEAD.replace(b"/v1/events", b"/v1/events#x") + b"Content-Length: 51\r\n\r\n" + GOOD,
    "TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "leading CRLF": b"\r\n" + HEAD + b"Content-Length: 51\r\n\r\n" + GOOD,
    "chunk size 0x33": HEAD + b"Transfer-Encoding: chunked\r\n\r\n0x33\r\n" + GOOD + b"\r\n0\r\n\r\n",
    "chunk size +33": HEAD + b"Transfer-Encoding: chunked\r\n\r\n+33\r\n" + GOOD + b"\r\n0\r\n\r\n",
    "chunk size empty": HEAD + b"Transfer-Encoding: chunked\r\n\r\n\r\n" + GOOD + b"\r\n0\r\n\r\n",
    "chunk extension": HEAD + b"Transfer-Encoding: chunked\r\n\r\n33;x=y\r\n" + GOOD + b"\r\n0\r\n\r\n",
    "chunk size with LF": HEAD + b"Transfer-Encoding: chunked\r\n\r\n33\n" + GOOD + b"\r\n0\r\n\r\n",
    "chunk too short": HEAD + b"Transfer-Encoding: chunked\r\n\r\n32\r\n" + GOOD + b"\r\n0\r\n\r\n",
    "chunk of 17 digits": HEAD + b"Transfer-Encoding: chunked\r\n\r\n00000000000000033\r\n" + GOOD + b"\r\n0\r\n\r\n",
    "trailer": HEAD + b"Transfer-Encoding: chunked\r\n\r\n33\r\n" + GOOD + b"\r\n0\r\nX: y\r\n\r\n",
    "bad escape in a query": b"GET /v1/metrics?a=%zz HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "65 parameters": b"GET /v1/metrics?" + b"&".join(b"a=1" for _ in range(65)) + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
}


@pytest.mark.sanitized
def test_hostile_requests(start):
    """One refusal, then the connection closes: what follows on it is never a second request."""
    a = start()
    pids = {job: a.job_pid(job) for job in JOBS}
    for what, data in BAD_REQUESTS.items():
        got, closed = talk(a.port, data + smuggled())
        replies = answers(got)
        assert closed and len(replies) == 1, f"{what}: {got[:500]!r}"
        status, headers, body = replies[0]
        error = json.loads(body)["error"]
        assert (status, error["code"]) == (400, "bad_request"), f"{what}: {status} {body!r}"
        assert headers.get("connection") == "close" and error["message"] and error["retryable"] is False, what
    for what, data, status, code in [
            ("head of 8 KiB", b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 8200 + b"\r\n\r\n", 431, "head_too_large"),
            ("65 headers", b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 64 + b"\r\n", 431, "head_too_large"),
            ("another expectation", HEAD + b"Expect: 200-ok\r\nContent-Length: 51\r\n\r\n" + GOOD, 417, "expectation_failed"),
            ("POST without a length", HEAD + b"\r\n", 411, "length_required"),
            ("length beyond 64 bits", HEAD + b"Content-Length: 99999999999999999999999\r\n\r\n", 413, "body_too_large"),
            ("chunks beyond the limit", HEAD + b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFF\r\n", 413, "body_too_large")]:
        got, closed = talk(a.port, data + smuggled())
        replies = answers(got)
        assert closed and len(replies) == 1, f"{what}: {got[:500]!r}"
        assert (replies[0][0], json.loads(replies[0][2])["error"]["code"]) == (status, code), f"{what}: {replies}"
    # Routes: a request without a body leaves the connection usable.
    two = (b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\nGET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n"
           b"DELETE /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\nGET /v1/quality HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    replies = answers(talk(a.port, two)[0])
    assert [r[0] for r in replies] == [404, 405, 405, 200]
    assert replies[1][1]["allow"] == "POST, OPTIONS"
    assert {job: a.job_pid(job) for job in JOBS} == pids
    ledger = a.quality()["ledger"]
    assert ledger["accepted"] == 0, "nothing of it became an event"
    assert "rejected" in ledger and a.metrics(window="total")["rows"] == []


def test_pipelining_chunks_and_both_paths(start):
    """What is well-formed works: pipelined, chunked, HTTP/1.0, Expect, with and without /v1."""
    a = start()
    now = int(time.time() * 1000)

    def e(i):
        return json.dumps({"event_id": f"p{i}", "type": "click", "event_time": now, "campaign_id": "c", "advertiser_id": "a"}).encode()

    data = b"".join(request(e(i), path="/v1/events" if i % 2 else "/events") for i in range(40))
    chunked = e(40)
    data += HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(b"1\r\n%c\r\n" % c for c in chunked) + b"0\r\n\r\n"
    data += request(e(41), extra=b"Connection: close\r\n")
    got, closed = talk(a.port, data)
    assert closed and [r[0] for r in answers(got)] == [202] * 42
    got, closed = talk(a.port, request(e(42)).replace(b"HTTP/1.1", b"HTTP/1.0"))
    assert closed and [r[0] for r in answers(got)] == [202]
    with socket.create_connection(("127.0.0.1", a.port), timeout=10) as c:
        body = e(43)
        c.sendall(request(body, extra=b"Expect: 100-continue\r\n")[:-len(body)])
        assert c.recv(1000).startswith(b"HTTP/1.1 100 Continue\r\n\r\n")
        c.sendall(body)
        assert b" 202 " in c.recv(1000)
    with socket.create_connection(("127.0.0.1", a.port), timeout=10) as c:  # byte by byte
        for byte in request(e(44)):
            c.sendall(bytes([byte]))
        assert b" 202 " in c.recv(1000)
    assert a.wait_counted()["counted"] == 45


def test_slow_clients_are_cut_and_harm_nobody(start):
    """Deadlines hold for the whole request, not for each read."""
    a = start()
    results = {}

    def slow(name, first, drip, every):
        began = time.time()
        with socket.create_connection(("127.0.0.1", a.port), timeout=30) as c:
            c.sendall(first)
            c.setblocking(False)
            got = b""
            while time.time() - began < 25:
                try:
                    more = c.recv(65536)
                    got += more
                    if not more:
                        break
                except BlockingIOError:
                    pass
                except ConnectionResetError:
                    break
                if not got:
                    try:
                        c.sendall(drip)
                    except OSError:
                        pass
                time.sleep(every)
        results[name] = (time.time() - began, got)

    threads = [threading.Thread(target=slow, args=args) for args in [
        ("head", b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nX: ", b"y", 0.3),
        ("body", HEAD + b"Content-Length: 100000\r\n\r\n", b" ", 0.1),
        ("chunks", HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n", 0.1)]]
    for t in threads:
        t.start()
    sent, worst = 0, 0.0
    while any(t.is_alive() for t in threads):
        began = time.time()
        assert a.post({"event_id": f"honest-{sent}", "type": "click", "campaign_id": "c"})[0] == 202
        worst = max(worst, time.time() - began)
        sent += 1
        time.sleep(0.02)
    for t in threads:
        t.join()
    for name, (seconds, got) in results.items():
        status, _, body = answers(got)[0]
        assert (status, json.loads(body)["error"]["code"]) == (408, "timeout"), f"{name}: {got!r}"
        assert json.loads(body)["error"]["retryable"] is True
        assert seconds < (14 if name == "head" else 6), f"{name}: cut after {seconds:.1f} s"
    assert sent > 50 and worst < 2, f"{sent} honest requests, the slowest {worst:.2f} s"
    assert a.wait_counted()["counted"] == sent
