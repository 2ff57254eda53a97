"""The bill by raw events, and each difference to realtime under its cause (R1 to R3, D4), against a recount in Python
that knows the rules and none of the code: what make_log wrote is judged here event by event."""
import calendar
import json
import os
import signal
import subprocess
import time
from collections import defaultdict

from conftest import BUILD, Adtally, run

MAKE_LOG = BUILD / "tests/e2e/make_log"
MAKE_COMMANDS = BUILD / "tests/e2e/make_commands"
HORIZON, BILLING = 2, 60  # hours
GRACE, OUT_OF_ORDERNESS, QUARTER, HOUR, MINUTE = 15 * 60000, 10000, 900000, 3600000, 60000
PARTITIONS = 2
RULES = ["--dedupe-horizon", HORIZON, "--billing-horizon", BILLING]
SETTINGS = ["--partitions", PARTITIONS, "--dedupe-horizon", HORIZON, "--keep-log", "7d"]
MEASURES = ["impressions", "clicks", "conversions", "spend_nanos", "payout_nanos", "conversion_value_nanos"]


def made(place, seed, events=6000, hours=30, name="data", end_ms=None):
    data = place / name
    (data / "log").mkdir(parents=True)
    until = [] if end_ms is None else [str(end_ms)]
    out = subprocess.run([MAKE_LOG, data / "log", str(PARTITIONS), str(seed), str(events), str(hours), *until], check=True,
                         capture_output=True, text=True).stdout
    return data, [json.loads(line) for line in out.splitlines()]


# ---- the recount -------------------------------------------------------------------------------------------------
def content(e):
    return tuple(e[k] for k in ("type", "campaign", "publisher", "cost", "payout", "value"))


def statement(e):
    return content(e) + (None if e["time_missing"] else e["event_ms"],)


def seen_before(earlier, hour, horizon):
    """The occurrence that decides (D1): the greatest by (receive hour, log order) in [h - H, h + 1]."""
    best = None
    for h, what in earlier:
        if hour - horizon <= h <= hour + 1 and (best is None or h >= best[0]):
            best = (h, what)
    return best


def judge(events):
    """Realtime's outcome and the bill's of each event, in log order, partition by partition; heartbeats are taken out."""
    for p in range(PARTITIONS):
        watermark, by_id = -10**18, defaultdict(list)
        for e in (e for e in events if e["partition"] == p):
            if "heartbeat_ms" in e:
                watermark = max(watermark, e["heartbeat_ms"] - OUT_OF_ORDERNESS)
                continue
            hour = e["receive_ms"] // HOUR
            before = watermark
            watermark = max(watermark, min(e["event_ms"], e["receive_ms"]) - OUT_OF_ORDERNESS)
            copies = by_id[e["id"]]
            real = seen_before([(h, s) for h, s, _ in copies], hour, HORIZON)
            bill = seen_before([(h, c) for h, _, c in copies], hour, BILLING)
            copies.append((hour, statement(e), content(e)))
            late = before >= e["event_ms"] // MINUTE * MINUTE + MINUTE + GRACE
            counted = real is None and not late
            e["counted"], e["billed"] = counted, bill is None
            e["cause"] = ("none" if counted and bill is None else "late" if bill is None else None if not counted
                          else "duplicate" if bill[1] == content(e) else "conflict")
            assert bill is None or real is None or not counted
    events[:] = [e for e in events if "heartbeat_ms" not in e]


def amounts(e):
    out = dict.fromkeys(MEASURES + ["invalid_impressions", "invalid_clicks", "invalid_conversions"], 0)
    kind = ["impressions", "clicks", "conversions"][e["type"] - 1]
    if e["labels"]:
        out["invalid_" + kind] = 1
        return out
    out.update({kind: 1, "spend_nanos": e["cost"], "payout_nanos": e["payout"], "conversion_value_nanos": e["value"]})
    return out


def recount(events):
    rows = defaultdict(lambda: {"billed": defaultdict(int), "realtime": defaultdict(int)})
    for e in events:
        if e["cause"] is None:
            continue
        row = rows[e["event_ms"] // QUARTER, e["campaign"], e["publisher"], e["cause"]]
        for name, v in amounts(e).items():
            row["billed"][name] += v * e["billed"]
            row["realtime"][name] += v * e["counted"]
    return rows


def read_rows(path):
    out = {}
    for line in path.read_text().splitlines():
        r = json.loads(line)
        start = time.strptime(r["window_start"], "%Y-%m-%dT%H:%M:%SZ")
        key = (calendar.timegm(start) * 1000 // QUARTER, r["campaign_id"], r["publisher_id"], r["cause"])
        assert key not in out and r["tenant_id"] == "default" and r["currency"] == "EUR"
        out[key] = r
    return out


def compare(path, events, seed):
    got, want = read_rows(path), recount(events)
    assert set(got) == set(want), f"seed {seed}: {sorted(set(got) ^ set(want))[:5]}"
    for key, row in want.items():
        for side in ("billed", "realtime"):
            for name in MEASURES:
                assert got[key][side][name] == row[side][name], f"seed {seed}: {key} {side} {name}"


def reconcile(a, *more, check=True, **kw):
    done = run("reconcile", "--data", a.data, "--json", "--quiet", *RULES, *more, check=check, **kw)
    return json.loads(done.stdout) if done.stdout else done


def by_cause(result):
    return {c["cause"]: c for c in result["causes"]}


# ---- the tests ---------------------------------------------------------------------------------------------------
def test_each_difference_has_its_cause_to_the_nano(place):
    seed = 91
    data, events = made(place, seed)
    judge(events)
    a = Adtally(data, *SETTINGS)
    try:
        a.start()
        result = reconcile(a, "--out", place / "rows")
        compare(place / "rows", events, seed)
        found = by_cause(result)
        assert set(found) == {"none", "late", "duplicate", "conflict"}, found.keys()
        assert not result["unexplained"] and result["partitions_behind"] == [] and result["not_compared_cells"] == 0
        assert result["compared_cells"] > 1000
        for cause in found:  # each of them by construction
            n = sum(e["cause"] == cause for e in events)
            assert n >= 20, f"seed {seed}: {n} events of {cause}"
        # What realtime shows is what the run says that realtime counts.
        shown = a.metrics(**{"from": "2020-01-01T00:00:00Z", "to": "2040-01-01T00:00:00Z", "window": "total"})
        total = sum(c["realtime"]["spend_nanos"] for c in result["causes"])
        assert shown["totals"][0]["spend_micros"] == round(total / 1000)
        # Told again it is the same, and so with any number of workers.
        assert reconcile(a)["sha256"] == result["sha256"]
        for workers in (1, 5):
            run("reconcile", "--data", a.data, "--drop", result["run"])
            again = reconcile(a, "--workers", workers)
            assert again["sha256"] == result["sha256"] and again["run"] == result["run"], workers
    finally:
        a.destroy()


def test_it_goes_on_with_what_has_come_since(place):
    """D4: in steps or at once, the rows are the same; realtime may be ahead of a run's end, or behind it."""
    seed = 92
    data, events = made(place, seed, events=2000, hours=20)
    judge(events)
    a = Adtally(data, *SETTINGS)
    try:
        a.start()
        first = reconcile(a)
        clicks = [{"event_id": f"new-{i}", "type": "click", "advertiser_id": "acme", "campaign_id": "c1", "publisher_id": "p1",
                   "cost_micros": 1000, "currency": "EUR"} for i in range(500)]
        # A copy of an event of the log, hours later: realtime has forgotten it, the state of the run has not.
        old = next(e for e in events if e["cause"] == "none" and e["time_missing"] and not e["labels"]
                   and e["receive_ms"] < events[-1]["receive_ms"] - 8 * HOUR and e["value"] == 0)
        copy = {"event_id": old["id"], "type": ["impression", "click", "conversion"][old["type"] - 1],
                "advertiser_id": "acme", "campaign_id": old["campaign"], "publisher_id": old["publisher"], "currency": "EUR",
                "cost_micros": 7}
        assert a.post(clicks + [copy])[0] == 202
        second = reconcile(a)
        assert second["run"] == first["run"] and second["to"] > first["to"]
        before, after = by_cause(first), by_cause(second)
        assert after["none"]["billed"]["clicks"] == before["none"]["billed"]["clicks"] + 500
        assert after["none"]["billed"]["spend_nanos"] == before["none"]["billed"]["spend_nanos"] + 500 * 1000000
        assert after["conflict"]["realtime"]["spend_nanos"] == before["conflict"]["realtime"]["spend_nanos"] + 7000
        assert after["late"] == before["late"] and after["duplicate"] == before["duplicate"]
        # Realtime stands still. Heartbeats (K12: it would take 30 s to commit them) keep nobody waiting ...
        a.kill("realtime", signal.SIGSTOP)
        time.sleep(3)
        quiet = reconcile(a, "--wait", "1s")
        assert quiet["partitions_behind"] == [] and quiet["compared_cells"] > 0 and not quiet["unexplained"]
        # ... and of what has events nothing is called unexplained.
        assert a.post([dict(c, event_id="x" + c["event_id"]) for c in clicks])[0] == 202
        third = reconcile(a, "--wait", "1s")
        a.kill("realtime", signal.SIGCONT)
        assert not third["unexplained"] and third["partitions_behind"] == [0, 1]
        assert by_cause(third)["none"]["billed"]["clicks"] == after["none"]["billed"]["clicks"] + 500
        # All at once.
        run("reconcile", "--data", a.data, "--drop", first["run"])
        whole = reconcile(a, "--out", place / "whole")
        assert whole["to"] >= third["to"]
        assert {k: v["billed"] for k, v in by_cause(whole).items()} == {k: v["billed"] for k, v in by_cause(third).items()}
    finally:
        a.destroy()


def test_archive_and_realtime_in_either_order(place):
    """R2, R3: the archive ahead of realtime, and realtime ahead of the archive: what is missing is named so, never unexplained."""
    data, events = made(place, 94, events=1000, hours=20)
    judge(events)

    def segments():
        return [p for p in (data / "archive").rglob("*") if p.is_file() and p.read_bytes().endswith(b"ADTLYSEG")]

    # Realtime has seen nothing, the archive has all hours but the last.
    archive = subprocess.Popen([str(BUILD / "jobs/archive/adtally-archive"), "--data", str(data), "--partitions", str(PARTITIONS)],
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until = time.time() + 60
        while len(segments()) < PARTITIONS * 15:
            assert time.time() < until and archive.poll() is None, segments()
            time.sleep(0.1)
    finally:
        archive.terminate()
        archive.wait(30)
    a = Adtally(data, *SETTINGS)
    first = reconcile(a, "--wait", "1s")
    assert not first["unexplained"] and first["partitions_behind"] == [0, 1], first
    assert by_cause(first)["not_yet_processed"]["cells"] > 0
    try:
        a.start()
        a.kill("archive", signal.SIGSTOP)
        second = reconcile(a)
        assert not second["unexplained"] and not second["partitions_behind"], second
        want = by_cause(first)
        del want["not_yet_processed"]
        assert by_cause(second) == want
        click = {"event_id": "new", "type": "click", "advertiser_id": "acme", "campaign_id": "c1", "publisher_id": "p1",
                 "cost_micros": 1000, "currency": "EUR"}
        assert a.post([click])[0] == 202
        third = reconcile(a)
        assert not third["unexplained"] and not third["partitions_behind"], third
        assert by_cause(third)["none"]["billed"]["clicks"] == by_cause(second)["none"]["billed"]["clicks"] + 1
    finally:
        a.kill("archive", signal.SIGCONT)
        a.destroy()


def test_killed_anywhere_it_goes_on(place):
    """R1: kill -9 before each step of its commits and takeovers; the digest is that of an undisturbed run."""
    seed = 93
    data, events = made(place, seed, events=3000, hours=20)
    judge(events)
    a = Adtally(data, *SETTINGS)
    try:
        a.start()
        want = reconcile(a)
        run("reconcile", "--data", a.data, "--drop", want["run"])
        once = place / "struck"
        once.mkdir()
        points = ["takeover@1", "read@2", "cut@1", "persist@1", "publish@2", "append:reconcile-*@1", "retire@1"]
        env = dict(os.environ, DF_FAIL=";".join(p.replace("@", "=abort@") for p in points), DF_FAIL_ONCE=str(once))
        lives, done = 0, None
        while lives < 20 and (done is None or done.returncode != 0):
            done = run("reconcile", "--data", a.data, "--json", "--quiet", *RULES, "--checkpoint-max", "20ms",
                       "--checkpoint-min", "10ms", check=False, env=env)
            assert done.returncode in (0, -signal.SIGKILL), done.stderr
            lives += 1
        struck = len(list(once.iterdir()))
        assert struck >= 5, f"seed {seed}: {sorted(once.iterdir())}"
        assert json.loads(done.stdout)["sha256"] == want["sha256"], f"seed {seed}"
    finally:
        a.destroy()


def test_what_realtime_folded_is_told_by_campaign(place):
    """W7: a cap of two campaigns a minute; the bill has all five, and says how much realtime shows as __other__."""
    seed = 97
    data, events = made(place, seed, events=2500, hours=2)
    judge(events)
    a = Adtally(data, *SETTINGS, "--cell-cap", "2")
    try:
        a.start()
        result = reconcile(a, "--cell-cap", "2", "--out", place / "rows")
        compare(place / "rows", events, seed)
        folded = by_cause(result)["unfolded"]
        assert folded["billed"] == folded["realtime"] and folded["realtime"]["clicks"] > 0 and not result["unexplained"]
        shown = a.metrics(**{"from": "2020-01-01T00:00:00Z", "to": "2040-01-01T00:00:00Z", "window": "total",
                             "group_by": "campaign_id", "campaign_id": "__other__"})
        assert sum(r["clicks"] for r in shown["rows"]) >= folded["realtime"]["clicks"]
    finally:
        a.destroy()


def test_two_at_once(place):
    """Two equal commands are one run: one of them works, the other is told so; afterwards both say the same."""
    data, _ = made(place, 94, events=1500, hours=10)
    a = Adtally(data, *SETTINGS)
    try:
        a.start()
        args = [str(x) for x in [BUILD / "jobs/adtally/adtally", "reconcile", "--data", a.data, "--json", "--quiet", *RULES]]
        both = [subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
        outs = [p.communicate(timeout=120) for p in both]
        codes = [p.returncode for p in both]
        assert 0 in codes and set(codes) <= {0, 75}, outs
        assert all("being worked on" in err for (_, err), code in zip(outs, codes) if code), outs
        digests = {json.loads(out)["sha256"] for (out, _), code in zip(outs, codes) if code == 0}
        assert digests == {reconcile(a)["sha256"]}
    finally:
        a.destroy()


def test_what_no_cause_explains_is_an_alarm(place):
    """R3: realtime that ran by other rules than it is said to have."""
    data, _ = made(place, 95, events=1500, hours=10)
    a = Adtally(data, *SETTINGS)
    try:
        a.start()
        done = run("reconcile", "--data", a.data, *RULES, "--grace", "2h", "--quiet", check=False)
        assert done.returncode == 1 and "UNEXPLAINED" in done.stdout, done
    finally:
        a.destroy()


def test_damage_is_named_before_anything_is_billed(place):
    """A flipped byte, a missing segment, a cut manifest: each by name, and no number."""
    data, events = made(place, 96, events=1500, hours=10)
    a = Adtally(data, *SETTINGS)
    try:
        a.start()
        until = time.time() + 60
        while len(list((a.data / "archive").glob("archive/events.*/*/*.seg.zst"))) < 12:
            assert time.time() < until, a.tail()
            time.sleep(0.2)
        a.stop()
        segment = sorted((a.data / "archive").glob("archive/events.*/00001/*.seg.zst"))[3]
        manifest = segment.parent / "manifest"
        whole, listed = segment.read_bytes(), manifest.read_bytes()

        def refused(name):
            done = run("reconcile", "--data", a.data, "--quiet", *RULES, "--wait", "1s", check=False)
            assert done.returncode == 65 and name in done.stderr and done.stdout == "", done

        segment.write_bytes(whole[:100] + bytes([whole[100] ^ 4]) + whole[101:])
        refused(segment.name)
        segment.unlink()
        refused(segment.name)
        segment.write_bytes(whole)
        manifest.write_bytes(listed[:-30])
        refused("00001/manifest")
        manifest.write_bytes(listed)
        judge(events)
        result = reconcile(a, "--wait", "1s", "--out", place / "rows")
        compare(place / "rows", events, 96)
        assert not result["unexplained"]
    finally:
        a.destroy()


# ---- corrections -------------------------------------------------------------------------------------------------
def ask(data, commands):
    """Appends commands to the topic: what people asked, in order."""
    lines = "".join(" ".join(f"{k}={v}" for k, v in c if v is not None) + "\n" for c in commands)
    subprocess.run([MAKE_COMMANDS, data / "log"], input=lines, text=True, check=True)


def in_force(commands):
    """What is left of the corrections: the first of an id, without those that were cancelled later."""
    seen, out = set(), []
    for c in map(dict, commands):
        if (c.get("tenant"), c["id"]) in seen:
            continue
        seen.add((c.get("tenant"), c["id"]))
        if c["do"] == "cancel":
            out = [o for o in out if (o["id"], o.get("tenant")) != (c["of"], c.get("tenant"))]
        elif c["do"] != "run":
            out.append(c | {"events": [v for k, v in commands[[dict(x) for x in commands].index(c)] if k == "event"]})
    return out


def applies(c, e):
    return (c.get("tenant") is None and (not c["events"] or e["id"] in c["events"])
            and all(name not in c or c[name] == have for name, have in (
                ("advertiser", "acme"), ("campaign", e["campaign"]), ("publisher", e["publisher"])))
            and (not c.get("bits") or e["labels"] & c["bits"])
            and c.get("from", 0) <= e["event_ms"] and (not c.get("to") or e["event_ms"] < c["to"]))


def billed_as(e, corrections):
    """None: not at all. Otherwise cell, currency of the cost, cost, and whether it is invalid."""
    cell, price, invalid = ["acme", e["campaign"], e["publisher"]], ("EUR", e["cost"]), bool(e["labels"])
    for c in (c for c in corrections if applies(c, e)):
        if c["do"] == "void":
            return None
        if c["do"] == "reprice":
            price = (c.get("currency", "EUR"), c["price"])
        if c["do"] == "remap":
            cell = [c.get("to_" + k, was) for k, was in zip(("advertiser", "campaign", "publisher"), cell)]
        invalid |= c["do"] == "label"
    return tuple(cell), price[0], 0 if invalid else price[1], invalid


def recount_corrected(events, corrections):
    rows = defaultdict(lambda: {"billed": defaultdict(int), "realtime": defaultdict(int)})

    def add(e, what, cause, side):
        cell, currency, cost, invalid = what
        key = e["event_ms"] // QUARTER, *cell
        for name, v in amounts(e | {"labels": invalid, "cost": cost}).items():
            at = currency if name not in ("payout_nanos", "conversion_value_nanos") else "EUR"
            if v or at == currency:
                rows[*key, at, cause][side][name] += v

    causes = defaultdict(int)
    for e in (e for e in events if e["cause"]):
        cause, sent = e["cause"], billed_as(e, [])
        bill = billed_as(e, corrections) if e["billed"] else None
        if e["billed"] and bill is None:
            cause = "correction"
        elif e["billed"] and bill != sent:
            cause = "label" if bill[3] and not sent[3] else "correction"
        causes[cause] += 1
        if e["counted"]:
            add(e, sent, cause, "realtime")
        if bill:
            add(e, bill, cause, "billed")
    return rows, causes


def compare_corrected(path, events, commands, seed):
    want, causes = recount_corrected(events, in_force(commands))
    got = {}
    for r in map(json.loads, path.read_text().splitlines()):
        start = calendar.timegm(time.strptime(r["window_start"], "%Y-%m-%dT%H:%M:%SZ")) * 1000 // QUARTER
        got[start, r["advertiser_id"], r["campaign_id"], r["publisher_id"], r["currency"], r["cause"]] = r
    assert set(got) == set(want), f"seed {seed}: {sorted(set(got) ^ set(want))[:5]}"
    for key, row in want.items():
        for side in ("billed", "realtime"):
            for name, v in got[key][side].items():
                assert v == row[side][name], f"seed {seed}: {key} {side} {name}"
    return causes


def test_corrections_change_the_bill_and_not_realtime(place):
    """R5: void, reprice (also in another currency), remap, label, and cancelled ones, to the nano and by cause; realtime's
    side, and what realtime shows, stay. Another correction, or a cancel, is another run."""
    seed = 98
    data, events = made(place, seed, events=3000, hours=10)
    judge(events)
    late = [e["id"] for e in events if e["cause"] == "late"][:9]
    first = [e["id"] for e in events if e["cause"] == "none" and not e["labels"]]
    middle = events[len(events) // 2]["event_ms"] // QUARTER * QUARTER
    commands = [
        [("id", "v1"), ("do", "void"), *(("event", i) for i in first[5:40] + late[:5])],
        [("id", "p1"), ("do", "reprice"), ("campaign", "c1"), ("from", middle), ("price", 777), ("currency", "USD")],
        [("id", "p2"), ("do", "reprice"), ("campaign", "c1"), ("publisher", "p2"), ("price", 5)],
        [("id", "m1"), ("do", "remap"), ("campaign", "c2"), ("to", middle), ("to_campaign", "c9"), ("to_advertiser", "other")],
        [("id", "m2"), ("do", "remap"), ("publisher", "p0"), ("campaign", "c2"), ("to_publisher", "p9")],
        [("id", "l1"), ("do", "label"), ("advertiser", "acme"), ("campaign", "c3"), ("publisher", "p1"), ("label", 1)],
        [("id", "v2"), ("do", "void"), ("campaign", "c4"), ("bits", 1)],
        [("id", "gone"), ("do", "void"), ("campaign", "c0")],
        [("id", "x"), ("tenant", "another"), ("do", "void")],
        [("id", "r1"), ("do", "run")],
        [("id", "c1"), ("do", "cancel"), ("of", "gone")],
        [("id", "c2"), ("do", "cancel"), ("of", "never")],
        [("id", "p1"), ("do", "void"), ("campaign", "c1")],  # the id is used: not a correction
    ]
    ask(data, commands)
    a = Adtally(data, *SETTINGS)
    try:
        a.start()
        result = reconcile(a, "--out", place / "rows")
        causes = compare_corrected(place / "rows", events, commands, seed)
        assert all(causes[c] >= 5 for c in ("none", "late", "duplicate", "conflict", "label", "correction")), causes
        assert not result["unexplained"] and result["corrections"] == 8 and result["corrections_to"] == 11
        shown = a.metrics(**{"from": "2020-01-01T00:00:00Z", "to": "2040-01-01T00:00:00Z", "window": "total"})
        assert shown["totals"][0]["spend_micros"] == round(
            sum(c["realtime"]["spend_nanos"] for c in result["causes"]) / 1000)
        a.stop()
        more = [[("id", "c3"), ("do", "cancel"), ("of", "m1")], [("id", "v3"), ("do", "void"), ("event", late[6])]]
        ask(data, more)
        again = reconcile(a, "--out", place / "rows", "--wait", "1s")
        compare_corrected(place / "rows", events, commands + more, seed)
        assert again["run"] != result["run"] and again["corrections"] == 8 and again["corrections_to"] == 15
        assert not again["unexplained"] and reconcile(a, "--wait", "1s")["sha256"] == again["sha256"]
    finally:
        a.destroy()
