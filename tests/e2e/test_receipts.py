"""What became of an event (GET /events/{event_id}), and quarantine: what it holds, and how an event comes back out of it
(docs/RUNBOOK.md#quarantine). Outcomes are known here by construction, or by the rules applied to what make_log wrote."""
import json
import random
import signal
import subprocess
import time
import urllib.parse

import archive_reader
import log_reader
from conftest import BUILD, Adtally, run
from test_reconcile import GRACE, HORIZON, HOUR, MINUTE, OUT_OF_ORDERNESS, PARTITIONS, SETTINGS, made, seen_before, statement
from test_subjects import log_frames

PUT_EVENTS = BUILD / "tests/e2e/put_events"
IMPORT_BEGIN = 7  # of an EventBatch
ODD = "click/1 2?x=%é&#"
SEALED = bytes(range(1, 49))
AHEAD = 300000  # how far an event may be ahead of its receipt


def text(ms):
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ms // 1000)) + f".{ms % 1000:03d}Z"


def receipt(a, event_id, **params):
    query = urllib.parse.urlencode(params)
    return a.get("/v1/events/" + urllib.parse.quote(event_id, safe="") + ("?" + query if query else ""))


def copies(a, event_id, **params):
    status, answer = receipt(a, event_id, **params)
    assert status == 200, f"{event_id}: {status} {answer}"
    return answer["copies"]


def outcomes(a, event_id):
    return [c["outcome"] for c in copies(a, event_id)]


def quarantine(a, verb, *args, check=True):
    done = run("quarantine", verb, *args, "--data", a.data, "--listen", f"127.0.0.1:{a.port}", "--quiet", check=check)
    return [json.loads(line) for line in done.stdout.splitlines()], done


def put(place, lines):
    """Events straight into the log of a data directory that nothing runs on; {id: (partition, fingerprint)}."""
    (place / "data/log").mkdir(parents=True)
    text = "".join("\t".join(str(v) for v in line) + "\n" for line in lines)
    out = subprocess.run([PUT_EVENTS, place / "data/log", str(PARTITIONS)], input=text, check=True, capture_output=True, text=True)
    got = [line.split("\t") for line in out.stdout.splitlines()]
    return {line[1]: (int(p), f) for line, (p, f) in zip([line for line in lines if line[1] != "-"], got)}


def stored(a, event_id):
    """[(user_id_sealed, fingerprint, source)] of this event in the raw log, by another reader."""
    out = []
    for raw in log_frames(a, "events"):
        for record in archive_reader.delimited(raw):
            for number, _, value in archive_reader.fields(record):
                got = {f[0]: f[2] for f in archive_reader.fields(value)} if number == 1 else {}
                if got.get(1) == event_id.encode():
                    out.append((got.get(29), int.from_bytes(got[25], "little"), got[22].decode()))
    return out


def spend(a, campaign, ms):
    """{minute: spend in micros} of this campaign in the minutes around."""
    first = (ms // MINUTE - 1) * MINUTE
    rows = a.metrics(window="minute", campaign_id=campaign, **{"from": text(first)[:-5] + "Z", "to": text(first + 20 * MINUTE)[:-5] + "Z"})
    return {r["window_start"]: (r["clicks"], r["spend_micros"]) for r in rows["rows"]}


def click(event_id, ms, campaign="c", **more):
    return {"event_id": event_id, "type": "click", "event_time": ms, "campaign_id": campaign, "cost_micros": 250000,
            "currency": "EUR", **more}


def test_every_outcome_has_its_receipt_and_what_was_refused_comes_back(place):
    now = int(time.time() * 1000) - 2000
    soon = now + AHEAD + 7000  # too far ahead of its receipt, for some seconds
    was = put(place, [
        (now, "-", 0, 0, 0, "-", 0, "-", "-"),
        (now + 1, "future", 2, soon, now + 1, "f", 1500000000, "-", "-"),
        (now + 1, "sealed", 2, soon, now + 1, "s", 1, SEALED.hex(), "123456789abcdef0"),
        (now + 1, "stale", 2, now - 3 * HOUR, now - 2 * HOUR, "t", 5, "-", "-"),
        (now + 1, "ahead", 2, now + 4 * MINUTE, now + 20000, "a", 7, "-", "-"),
        (now + 1, "old", 2, now - 8 * 24 * HOUR, now + 1, "o", 9, "-", "-"),
        (now + 1, "twice", 2, soon, now + 1, "w", 11, "-", "-"),
        (now + 1, "later", 2, soon + HOUR, now + 1, "l", 13, "-", "-"),
        (now + 2, "-", 0, 0, 0, "-", 0, "-", "-"),
    ])
    a = Adtally(place / "data", "--partitions", PARTITIONS, "--grace", "0s", "--out-of-orderness", "0s", "--checkpoint-max", "300ms")
    try:
        a.start()
        go(a, was, soon)
    finally:
        a.destroy()


def go(a, was, soon):
    held = {"future": "future_event", "sealed": "future_event", "stale": "stale_receive", "ahead": "clock", "old": "too_old",
            "twice": "future_event", "later": "future_event"}
    time.sleep(max(0, time.time() % 60 - 57) and 4)  # with no grace a minute that ends meanwhile makes events late
    now, longest = int(time.time() * 1000), "é" * 64
    assert a.post([click(ODD, now), click("late", now - 10 * MINUTE), click(longest, now), click("twice", now, "w")])[1]["accepted"] == 4
    a.wait_counted()
    assert a.post([click(ODD, now), click(ODD, now, cost_micros=1), click(ODD, now, cost_micros=1)])[1]["accepted"] == 3
    ledger = a.wait_counted()
    # After a conflict its content is what the next copy is compared with (D1).
    assert [ledger[k] for k in ("counted", "duplicate", "conflict", "late", "quarantined")] == [3, 2, 1, 1, 7], ledger
    # ---- receipts
    odd = copies(a, ODD)
    assert [c["outcome"] for c in odd] == ["counted", "duplicate", "conflict", "duplicate"]
    places = [{"offset": c["offset"], "index": c["index"]} for c in odd]
    assert [c.get("of") for c in odd] == [None, places[0], places[1], places[2]]
    minute = text(now // MINUTE * MINUTE)[:-5] + "Z"
    assert odd[0]["cell"] == {"window_start": minute, "advertiser_id": "", "campaign_id": "c", "currency": "EUR", "invalid": False,
                              "spend_nanos": 250000000, "payout_nanos": 0}
    assert odd[2]["stated"]["cost_nanos"] == 1000 and odd[0]["stated"]["event_time"] == text(now)
    (late,) = copies(a, "late")
    assert late["outcome"] == "late" and late["watermark"] >= minute[:15]
    assert outcomes(a, longest) == ["counted"]
    for event_id, code in held.items():
        assert outcomes(a, event_id) == ([code, "counted"] if event_id == "twice" else [code]), event_id
    status, answer = receipt(a, longest + "x")
    assert status == 400 and answer["error"]["code"] == "too_long", answer
    status, answer = receipt(a, "nobody")
    assert status == 404 and answer["error"]["code"] == "not_found" and "from and to" in answer["error"]["message"], answer
    assert receipt(a, ODD, to=text(now - HOUR))[0] == 404
    assert len(copies(a, ODD, **{"from": text(now - HOUR), "to": text(now + HOUR)})) == 4
    for bad, code in [({"from": "yesterday"}, "bad_time"), ({"frm": "x"}, "unknown_parameter"), ({"tenant": ""}, "bad_tenant"),
                      ({"from": text(now), "to": text(now)}, "empty_range")]:
        status, answer = receipt(a, ODD, **bad)
        assert status == 400 and answer["error"]["code"] == code, (bad, answer)
    assert receipt(a, ODD, tenant="other")[0] == 404  # no keys file: class admin
    a.kill("realtime", signal.SIGSTOP)
    assert a.post([click("waits", now)])[1]["accepted"] == 1
    assert outcomes(a, "waits") == ["pending"]
    a.kill("realtime", signal.SIGCONT)
    # ---- list and show
    listed, _ = quarantine(a, "list")
    entries = {e["event_id"]: e for e in listed[:-1] if e["event_id"] != ODD}
    assert {i: e["code"] for i, e in entries.items()} == held
    assert all((e["partition"], e["released"], e["releasable"]) == (was[i][0], None, True) for i, e in entries.items())
    assert listed[-1] == {"entries": 8, "shown": 8, "counts": {"conflict": 1, "clock": 1, "stale_receive": 1, "future_event": 4, "too_old": 1}}
    assert quarantine(a, "list", "--code", "clock", "--limit", "0")[0] == [{"entries": 1, "shown": 0, "counts": {"clock": 1}}]
    assert quarantine(a, "list", "--to", text(now - HOUR))[0][-1]["entries"] == 0
    at = {i: f"{e['partition']}/{e['offset']}/{e['index']}" for i, e in entries.items()}
    (shown,), _ = quarantine(a, "show", at["sealed"])
    assert (shown["event"]["user_id_sealed"], shown["event"]["fingerprint"]) == (SEALED.hex(), was["sealed"][1])
    assert shown["text"] and shown["what_to_do"] and quarantine(a, "show", "--id", "sealed")[0] == [shown]
    assert quarantine(a, "show", "0/999999/0", check=False)[1].returncode == 65
    for wrong in [["show", "1/-2"], ["show", "x"], ["release"], ["release", "--all"], ["list", "--code", "counted"], ["mend"]]:
        assert quarantine(a, *wrong, check=False)[1].returncode == 64, wrong
    # ---- release
    (line, _), done = quarantine(a, "release", at["later"], check=False)
    assert done.returncode == 1 and line["code"] == "event_time_future", line
    time.sleep(max(0, (soon - AHEAD) / 1000 - time.time() + 0.1))
    dry, done = quarantine(a, "release", "--all", "--code", "future_event", "--dry-run", check=False)
    assert dry[-1] == {"selected": 4, "would_be_sent": 3, "refused": 1} and done.returncode == 1
    before = a.quality()["ledger"]
    sent, done = quarantine(a, "release", "--all", "--code", "future_event", check=False)
    result = {e["event_id"]: (e["result"], e.get("code")) for e in sent[:-1]}
    assert result == {"future": ("sent", None), "sealed": ("sent", None), "twice": ("refused", "duplicate"),
                      "later": ("refused", "event_time_future")} and done.returncode == 1, done.stderr
    for event_id in ["ahead", "stale"]:
        assert quarantine(a, "release", "--id", event_id)[0][-1] == {"selected": 1, "sent": 1, "refused": 0}
    for event_id, code in [(ODD, "not_releasable"), ("old", "event_time_old"), ("future", "duplicate")]:
        (line, total), done = quarantine(a, "release", "--id", event_id, check=False)
        assert (line["code"], total["refused"], done.returncode) == (code, 1, 1), line
    ledger = a.wait_counted()
    assert ledger["accepted"] == ledger["counted"] + ledger["duplicate"] + ledger["conflict"] + ledger["late"] + ledger["quarantined"]
    assert (ledger["counted"] - before["counted"], ledger["late"] - before["late"]) == (3, 1), ledger
    assert a.quality()["balanced"]
    assert outcomes(a, "future") == ["future_event", "counted"] and outcomes(a, "stale") == ["stale_receive", "late"]
    assert spend(a, "f", soon) == {text(soon // MINUTE * MINUTE)[:-5] + "Z": (1, 1500000)}
    assert list(spend(a, "a", now).values()) == [(1, 0)] and list(spend(a, "w", now).values()) == [(1, 250000)]
    # The statement is the same one, and the user id is sealed once.
    first, again = stored(a, "sealed")
    assert first[:2] == again[:2] == (SEALED, int(was["sealed"][1], 16)) and again[2] == "release:" + at["sealed"]
    released = {e["event_id"]: e["released"] for e in quarantine(a, "list")[0][:-1] if e["event_id"] != ODD}
    assert {i for i, r in released.items() if r} == {"future", "sealed", "ahead", "stale"}
    assert released["future"]["offset"] == copies(a, "future")[1]["offset"]
    # Whoever sends it again all the same sends a duplicate.
    event = next(f[2] for raw in log_frames(a, "events") for r in archive_reader.delimited(raw) for f in archive_reader.fields(r)
                 if f[0] == 1 and b"release:" + at["future"].encode() in f[2])
    status, answer = a.request("/v1/quarantine/release", body=archive_reader.again([(1, 2, event)]),
                               headers={"Content-Type": "application/x-protobuf"})
    assert (status, answer["accepted"]) == (202, 1), answer
    a.wait_counted()
    assert outcomes(a, "future") == ["future_event", "counted", "duplicate"] and spend(a, "f", soon) != {}
    assert list(spend(a, "f", soon).values()) == [(1, 1500000)]
    status, answer = a.request("/v1/quarantine/release", body=b"{}", headers={"Content-Type": "application/json"})
    assert status == 415, answer


def imported(a, path, *more, tenant="default"):
    done = run("import", path, "--map", "id=event_id,what=type,when=event_time,campaign=campaign_id,cost=cost", "--currency", "EUR", "--tenant",
               tenant, "--data", a.data, "--listen", f"127.0.0.1:{a.port}", "--json", "--quiet", *more)
    return json.loads(done.stdout)


def test_an_imported_event_has_a_receipt_like_any_other(start, place):
    """R6: where it lies, what became of it, and which run counted it. Oracle: the rows of the files, and the topic as another reader
    sees it."""
    a = start("--partitions", PARTITIONS, "--checkpoint-max", "300ms")
    rows, other = place / "rows.csv", place / "other.csv"
    head, when = "id,what,when,campaign,cost\n", "2026-03-01T10:00:00Z"
    rows.write_text(head + "".join(f"i{i},click,{when},c{i},{i}.25\n" for i in range(40)))
    other.write_text(head + f"theirs,click,{when},c,1\n")
    done = imported(a, rows, "--dataset", "d", "--wait", "60s")
    assert done["new"] == 40, done
    (topic,) = (p.name for p in a.data.glob("log/topics/import.*"))
    for i in range(40):
        (c,) = copies(a, f"i{i}")
        assert (c["topic"], c["outcome"], c["text"]) == (topic, "counted", "counted in its window"), c
        assert c["cell"] == {"window_start": when, "advertiser_id": "", "campaign_id": f"c{i}", "currency": "EUR", "invalid": False,
                             "spend_nanos": i * 10**9 + 250000000, "payout_nanos": 0}
        assert c["import"] == {"dataset": "d", "from": c["import"]["from"], "to": c["import"]["to"], "complete": True, "aborted": False}
        assert c["import"]["from"] <= when < c["import"]["to"]
    # By another reader: the record that it names has it, and the run is what the partition's first record begins.
    _, last = receipt(a, "i7")
    records = dict(log_reader.records(a.data, topic, last["partition"]))
    last = last["copies"][0]
    assert archive_reader.event_ids(records[last["offset"]])[last["index"]] == "i7"
    begin = archive_reader.fields(log_reader.one(archive_reader.fields(records[0]), IMPORT_BEGIN))
    assert last["run"] == f"{int.from_bytes(log_reader.one(begin, 1), 'little'):016x}"
    # Sent live as well: two copies, each of its own topic, in the order in which they were taken.
    assert a.post([click("i7", int(time.time() * 1000))])[1]["accepted"] == 1
    a.wait_counted()
    assert [(c["topic"], c["run"], c["outcome"]) for c in copies(a, "i7")] == [(topic, last["run"], "counted"), ("events", "live", "counted")]
    # Of another tenant.
    imported(a, other, "--dataset", "e", "--wait", "60s", tenant="t2")
    assert receipt(a, "theirs")[0] == 404 and [c["outcome"] for c in copies(a, "theirs", tenant="t2")] == ["counted"]
    # It was taken when the import ran, not when it happened.
    status, answer = receipt(a, "i7", **{"from": "2026-03-01T00:00:00Z", "to": "2026-03-02T00:00:00Z"})
    assert status == 404 and "when its import ran" in answer["error"]["message"], answer
    assert receipt(a, "i40")[0] == 404


def by_the_rules(events):
    """The outcome of each event by (partition, offset): each is a record of its own."""
    out = {}
    for p in range(PARTITIONS):
        watermark, by_id = -10**18, {}
        for offset, e in enumerate(x for x in events if x["partition"] == p):
            if "heartbeat_ms" in e:
                watermark = max(watermark, e["heartbeat_ms"] - OUT_OF_ORDERNESS)
                continue
            hour, earlier = e["receive_ms"] // HOUR, by_id.setdefault(e["id"], [])
            before, watermark = watermark, max(watermark, min(e["event_ms"], e["receive_ms"]) - OUT_OF_ORDERNESS)
            seen = seen_before([(h, (s, o)) for h, s, o in earlier], hour, HORIZON)
            late = before >= e["event_ms"] // MINUTE * MINUTE + MINUTE + GRACE
            earlier.append((hour, statement(e), offset))
            what = "late" if late else "counted"
            if seen:
                what = "duplicate" if seen[1][0] == statement(e) else "conflict"
            out[p, offset] = {"id": e["id"], "outcome": what, "of": seen and seen[1][1], "receive_ms": e["receive_ms"]}
    return out


def keys(place):
    token = {}
    for name, kind, tenant in [("read", "read", "default"), ("server", "server", "default"), ("admin", "admin", "default"), ("other", "admin", "t2")]:
        out = run("key", "create", "--class", kind, "--tenant", tenant, "--keys", place / "keys").stdout
        token[name] = "Bearer " + out.split("key: ")[1].strip()
    return token


def only_who_may(a, token, events):
    event_id = next(e["id"] for e in events if "id" in e)
    raw = next(f[2] for raw in log_frames(a, "events") for r in archive_reader.delimited(raw) for f in archive_reader.fields(r)
               if f[0] == 1 and dict((g[0], g[2]) for g in archive_reader.fields(f[2]))[1] == event_id.encode())
    stated = [f for f in archive_reader.fields(raw) if f[0] != 22] + [(22, 2, b"release:0/1/0")]

    def ask(who, path="/v1/events/" + event_id, **kw):
        return a.request(path, headers={"Authorization": token[who], "Content-Type": "application/x-protobuf"}, **kw)

    def release(who):
        return ask(who, "/v1/quarantine/release", body=archive_reader.again([(1, 2, archive_reader.again(stated))]))

    assert [ask(who)[0] for who in ("read", "admin", "server", "other")] == [200, 200, 403, 404]
    assert ask("other", f"/v1/events/{event_id}?tenant=default")[0] == 200
    assert ask("read", f"/v1/events/{event_id}?tenant=t2")[0] == 403
    assert [release(who)[0] for who in ("read", "server")] == [403, 403]
    status, answer = release("other")
    assert status == 403 and answer["rejected"][0]["code"] == "forbidden" and answer["rejected"][0]["field"] == "tenant_id", answer


def test_receipts_of_some_days_are_what_the_rules_say(place, start):
    seed = 81
    _, events = made(place, seed, events=2500)
    want, dice = by_the_rules(events), random.Random(seed)
    token = keys(place)
    a = start(*SETTINGS, "--keys", place / "keys")
    ask = a.request
    a.request = lambda path, headers=None, **kw: ask(path, headers=headers or {"Authorization": token["read"]}, **kw)
    a.wait_counted()
    only_who_may(a, token, events[-20:])
    by_id = {}
    for at, w in want.items():
        by_id.setdefault(w["id"], []).append((at, w))
    many = [i for i, c in by_id.items() if len(c) > 1]
    first = min(w["receive_ms"] for w in want.values())
    met = set()
    for event_id in dice.sample(many, 90) + dice.sample(sorted(by_id), 20):
        for since in [first, dice.choice(by_id[event_id])[1]["receive_ms"]]:
            told = copies(a, event_id, **{"from": text(since)})
            expected = [(at, w) for at, w in by_id[event_id] if w["receive_ms"] >= since]
            assert [c["offset"] for c in told] == [at[1] for at, _ in expected], f"seed {seed}: {event_id} from {since}"
            for c, (at, w) in zip(told, expected):
                got = (c["outcome"], c["of"]["offset"] if c.get("of") else None)
                assert got == (w["outcome"], w["of"]), f"seed {seed}: {event_id} at {at} from {since}: {c}"
                met.add(w["outcome"])
    assert met == {"counted", "duplicate", "conflict", "late"}, f"seed {seed}: {met}"


def test_pages_of_copies_that_came_at_once(start):
    """A batch of one event 2,500 times is taken in a moment: each copy is told on one page, and the first alone counts."""
    a = start("--partitions", "2", "--reconcile", "off")
    sent = 2500
    status, answer = a.post([click("same", int(time.time() * 1000))] * sent)
    assert (status, answer["accepted"]) == (202, sent)
    a.wait_counted()
    told, pages, at = [], 0, {}
    while pages == 0 or at["from"]:
        status, page = receipt(a, "same", **at)
        assert status == 200, page
        told += page["copies"]
        pages, at = pages + 1, {"from": page["more_from"], "at": page["more_at"]}
    assert pages == 3 and len(told) == sent
    places = [(c["offset"], c["index"]) for c in told]
    assert places == sorted(set(places))
    assert [c["outcome"] for c in told] == ["counted"] + ["duplicate"] * (sent - 1)
    status, refused = receipt(a, "same", at="events/0/0")
    assert (status, refused["error"]["code"], refused["error"]["field"]) == (400, "bad_place", "at"), refused
