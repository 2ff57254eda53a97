"""The edges of a whole Adtally: wrong clocks, a full disk, damage in the log, drains, zones, caps, settings.

Numbers are compared with what the test itself sent and was told.
"""
import collections
import json
import os
import random
import re
import signal
import socket
import subprocess
import threading
import time
from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest

from conftest import ADTALLY, free_port, run

QUICK = ["--checkpoint-min", "50ms", "--checkpoint-max", "500ms", "--heartbeat", "500ms"]


def now_ms():
    return int(time.time() * 1000)


def ms_of(text):
    return int(datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() * 1000)


def click(i, at=None, **other):
    return {"event_id": f"c{i}", "type": "click", "event_time": at or now_ms(), "advertiser_id": "a", "campaign_id": "c", **other}


def wait(what, seconds=30):
    until = time.time() + seconds
    while not what():
        assert time.time() < until, f"it did not happen within {seconds} s"
        time.sleep(0.1)


# ---- time ----

def test_a_clock_a_day_ahead_harms_only_its_own_events(start):
    """T2, T3: whatever one sender claims, the watermark never passes receive time - out-of-orderness."""
    a = start("--grace", "5s", "--out-of-orderness", "2s", *QUICK)
    day = 86400_000
    counted = rejected = 0
    for turn in range(20):
        good = [click(f"{turn}-good-{i}") for i in range(20)]
        # Up to 5 minutes ahead is taken; it must move the watermark no more than a right clock does.
        ahead = [click(f"{turn}-ahead-{i}", now_ms() + 240_000) for i in range(3)]
        wrong = [click(f"{turn}-wrong-{i}", now_ms() + day) for i in range(5)]
        batch = good + ahead + wrong
        random.Random(turn).shuffle(batch)
        status, answer = a.post(batch)
        assert status == 202 and answer["accepted"] == 23
        assert [r["code"] for r in answer["rejected"]] == ["event_time_future"] * 5
        assert all("wrong" in r["event_id"] for r in answer["rejected"])
        counted += 23
        rejected += 5
        time.sleep(0.1)
    # The grace is 5 s: had the watermark run ahead, these would be late.
    status, answer = a.post([click(f"later-{i}") for i in range(50)])
    assert status == 202 and answer["accepted"] == 50
    counted += 50
    ledger = a.wait_counted()
    q = a.quality()
    assert (ledger["counted"], ledger["late"], ledger["quarantined"]) == (counted, 0, 0), ledger
    assert ms_of(q["watermark"]) <= now_ms() - 2000 + 100
    for s in q["sources"]:
        assert ms_of(s["watermark"]) <= now_ms() - 2000 + 100, s
    assert a.metrics(window="total", **{"from": "2020-01-01T00:00:00Z", "to": "2100-01-01T00:00:00Z"})["totals"][0]["clicks"] == counted
    assert rejected == 100


def test_late_by_event_time_only(start):
    """W5: late is decided by the watermark; the warning says it beforehand."""
    a = start("--grace", "1s", "--out-of-orderness", "1s", *QUICK)
    wait(lambda: a.quality()["watermark"])  # heartbeats brought every partition up to now (T4)
    old = now_ms() - 300_000
    status, answer = a.post([click(i, old) for i in range(40)] + [click(f"n{i}") for i in range(40)])
    assert status == 202 and answer["accepted"] == 80
    assert [w["code"] for w in answer["warnings"]] == ["probably_late"] * 40
    ledger = a.wait_counted()
    assert (ledger["counted"], ledger["late"]) == (40, 40)
    # Late, yet deduplicated (D1): the same events again are duplicates.
    assert a.post([click(i, old) for i in range(40)])[0] == 202
    ledger = a.wait_counted()
    assert (ledger["counted"], ledger["late"], ledger["duplicate"]) == (40, 40, 40)


# ---- zones: numbers of any supported zone, from 15-minute cells (W1) ----

def floor_local(ms, zone, unit):
    """The start of the local hour or day that contains ms: an independent recount with zoneinfo."""
    t = datetime.fromtimestamp(ms // 1000, timezone.utc).astimezone(zone)
    if unit == "day":
        t = t.replace(hour=0, minute=0, second=0, microsecond=0)
    else:
        t = t.replace(minute=0, second=0, microsecond=0)
    return int(t.timestamp() * 1000)


def recount(events, zone, unit):
    out = collections.Counter()
    for e in events:
        k = (floor_local(e["event_time"], zone, unit), e["campaign_id"], e["currency"])
        out[k + ("clicks",)] += 1
        out[k + ("spend",)] += e["cost_micros"]
    return out


def served(a, name, unit, first, last):
    zone = ZoneInfo(name)
    lo = datetime.fromtimestamp(first / 1000, zone).replace(hour=0, minute=0, second=0, microsecond=0)
    hi = datetime.fromtimestamp(last / 1000, zone).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    answer = a.metrics(window=unit, tz=name, **{"from": lo.strftime("%Y-%m-%d"), "to": hi.strftime("%Y-%m-%d")}, limit=10000)
    assert answer["tz"] == name
    out = collections.Counter()
    for r in answer["rows"]:
        k = (ms_of(r["window_start"]), r["campaign_id"], r["currency"])
        out[k + ("clicks",)] += r["clicks"]
        out[k + ("spend",)] += r["spend_micros"]
        offset = datetime.fromisoformat(r["window_start"].replace("Z", "+00:00")).utcoffset()
        assert offset == datetime.fromtimestamp(k[0] / 1000, zone).utcoffset(), r
    return out


def test_hours_and_days_of_zones(start):
    """+3, +5:45, -3:30 and a zone with summer time equal a plain recount."""
    a = start("--grace", "24h", "--out-of-orderness", "1h", "--time-zone", "Europe/Moscow", *QUICK)
    dice = random.Random(20)
    now = now_ms()
    events = [click(i, now - dice.randrange(86_000_000), campaign_id=f"c{dice.randrange(4)}", cost_micros=dice.randrange(1, 10**6),
                    currency=dice.choice(["EUR", "USD"])) for i in range(4000)]
    for i in range(0, len(events), 1000):
        assert a.post(events[i:i + 1000])[1]["accepted"] == 1000
    ledger = a.wait_counted()
    assert (ledger["counted"], ledger["late"]) == (4000, 0), ledger
    first, last = min(e["event_time"] for e in events), max(e["event_time"] for e in events)
    for name in ["Europe/Moscow", "Asia/Kathmandu", "America/St_Johns", "Europe/Berlin", "UTC"]:
        for unit in ["hour", "day"]:
            assert served(a, name, unit, first, last) == recount(events, ZoneInfo(name), unit), f"{name} {unit}"


def test_windows_of_days_with_a_clock_change(start):
    """23 and 25 hours, a month of 30 days and an hour, and local times that do not exist."""
    a = start(*QUICK)
    assert a.post(click(1, cost_micros=1, currency="EUR"))[0] == 202
    a.wait_counted()
    zone, utc = ZoneInfo("Europe/Berlin"), timezone.utc
    year = datetime.now(utc).year
    autumn = next(d for d in (datetime(year - 1, 10, 31) - timedelta(days=i) for i in range(7)) if d.weekday() == 6)
    spring = next(d for d in (datetime(year, 3, 31) - timedelta(days=i) for i in range(7)) if d.weekday() == 6)
    to = (datetime.now(zone) + timedelta(days=1)).strftime("%Y-%m-%d")
    for change, hours in [(autumn, 25), (spring, 23)]:
        # A row of the one campaign for each window from the change until today.
        answer = a.metrics(window="day", tz="Europe/Berlin", fill="zero", limit=10000, **{"from": change.strftime("%Y-%m-%d"), "to": to})
        starts = [ms_of(r["window_start"]) for r in answer["rows"]]
        day, expect = change, []
        while len(expect) < len(starts):
            expect.append(int(day.replace(tzinfo=zone).timestamp() * 1000))
            day += timedelta(days=1)
        assert starts == expect
        assert starts[1] - starts[0] == hours * 3600_000
        answer = a.metrics(window="hour", tz="Europe/Berlin", fill="zero", limit=10000, **{"from": change.strftime("%Y-%m-%d"), "to": to})
        starts = [ms_of(r["window_start"]) for r in answer["rows"]]
        assert starts[0] == expect[0] and starts[hours] == expect[1] and set(b - a for a, b in zip(starts, starts[1:])) == {3600_000}
    status, answer = a.get(f"/v1/metrics?window=minute&tz=Europe/Berlin&from={spring:%Y-%m-%d}T02:30:00&to={spring:%Y-%m-%d}T04:00:00")
    assert (status, answer["error"]["code"], answer["error"]["field"]) == (400, "bad_time", "from")
    status, answer = a.get("/v1/metrics?window=hour&tz=Africa/Monrovia&from=1971-01-01&to=1971-01-02")
    assert (status, answer["error"]["code"]) == (400, "zone_not_supported"), answer  # -0:44:30 until 1972


# ---- __other__ ----

def test_keys_beyond_the_cap_fold_into_other(start):
    """W7: totals stay exact, the rows say that they are partial."""
    a = start("--cell-cap", "3", "--partitions", "1", *QUICK)
    at = now_ms() - 120_000  # ended: the small groupings have left too (W2)
    minute = at // 60000 * 60000
    for i in range(10):  # one after the other: the first three in log order have rows of their own
        assert a.post(click(i, at, campaign_id=f"k{i}", cost_micros=10**i, currency="EUR"))[0] == 202
    a.wait_counted()
    params = {"window": "minute", "from": iso(minute), "to": iso(minute + 60000)}
    rows = a.metrics(**params)["rows"]
    assert {r["campaign_id"]: (r["clicks"], r["spend_micros"]) for r in rows} == {
        "k0": (1, 1), "k1": (1, 10), "k2": (1, 100), "__other__": (7, sum(10**i for i in range(3, 10)))}
    assert all(r["partial"] is True for r in rows)
    for group in ["none", "campaign_id", "country", "placement_id"]:
        for window in ["minute", "total"]:
            answer = a.metrics(**{**params, "window": window, "group_by": group})
            assert [(t["clicks"], t["spend_micros"]) for t in answer["totals"]] == [(10, 1111111111)], (group, window)
    # Another minute has room again.
    assert a.post(click(99, at - 60000, campaign_id="k9", cost_micros=5, currency="EUR"))[0] == 202
    a.wait_counted()
    rows = a.metrics(window="minute", **{"from": iso(minute - 60000), "to": iso(minute)})["rows"]
    assert [(r["campaign_id"], r["clicks"], "partial" in r) for r in rows] == [("k9", 1, False)]


def iso(ms):
    return datetime.fromtimestamp(ms / 1000, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


# ---- disk ----

def test_full_disk_is_refused_and_recovers(start, place):
    """L2: ingest refuses first, says so, and takes events again when there is room."""
    config = place / "adtally.ini"
    config.write_text("grace = 1m\n")
    a = start("--config", str(config), *QUICK)
    assert a.post([click(i) for i in range(100)])[0] == 202
    a.wait_counted()
    assert a.stop() == 0
    config.write_text("grace = 1m\ndisk-min-free = 16TiB\n")
    a.start(wait=0)
    answer = {}

    def refused():
        try:
            status, answer["it"] = a.post(click("full"))
        except OSError:
            return False
        return status == 503 and answer["it"]["error"]["code"] == "disk_full"

    wait(refused)
    assert answer["it"]["error"]["retryable"] is True
    with socket.create_connection(("127.0.0.1", a.port), timeout=10) as c:
        body = json.dumps(click("full")).encode()
        c.sendall(b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        assert int(re.search(rb"Retry-After: (\d+)\r\n", c.recv(4096)).group(1)) >= 10
    assert a.get("/readyz", admin=True)[0] == 503
    assert a.metrics(window="total")["totals"][0]["clicks"] == 100, "reading goes on"
    for i in range(20):
        assert a.post(click(f"full{i}"))[0] == 503
    assert a.stop() == 0
    config.write_text("grace = 1m\n")
    a.start()
    assert a.post([click("full")] + [click(f"full{i}") for i in range(20)])[0] == 202  # the same ids again
    ledger = a.wait_counted()
    assert (ledger["counted"], ledger["duplicate"]) == (121, 0)


@pytest.mark.sanitized
def test_a_flipped_byte_in_the_log_stops_its_partition_only(start):
    """L1: damage is named with its place, found by `log verify`, and no other partition waits for it."""
    a = start("--segment-size", "64MiB", *QUICK)
    pid = a.job_pid("realtime")
    os.kill(pid, signal.SIGSTOP)  # it must not have read them yet
    try:
        for i in range(0, 4000, 100):
            assert a.post([click(i + n, campaign_id=f"c{n % 3}") for n in range(100)])[0] == 202
        segment = a.data / "log/topics/events/1/00000000000000000000.seg"
        at = segment.stat().st_size // 2
        with open(segment, "r+b") as f:
            f.seek(at)
            byte = f.read(1)[0]
            f.seek(at)
            f.write(bytes([byte ^ 0x40]))
    finally:
        os.kill(pid, signal.SIGCONT)
    wait(lambda: any(n == "adtally_partition_refused" for n, _ in a.prometheus()))
    refused = [labels for n, labels in a.prometheus() if n == "adtally_partition_refused"]
    assert len(refused) == 1 and 'partition="1"' in refused[0] and 'code="corrupt"' in refused[0]
    line = re.search(r"task=events/1 refused code=corrupt: (.*)", a.log.read_text(errors="replace")).group(1)
    m = re.search(r"topic events partition 1: .* in segment 0{20}\.seg at byte (\d+), first lost offset (\d+)", line)
    assert m and at - 20_000 < int(m.group(1)) <= at, line
    assert a.get("/readyz", admin=True)[0] == 503

    done = run("log", "verify", "events", "--data", a.data, "--quiet", check=False)
    assert done.returncode == 65
    assert f"segment 00000000000000000000.seg at byte {m.group(1)}" in done.stdout
    assert len(re.findall(r"events/[023]: \d+ records intact", done.stdout)) == 3
    assert run("log", "verify", "events", "2", "--data", a.data, "--quiet").returncode == 0
    for args in [["evnts"], ["events", "4"], ["events", "--data", a.data.parent / "nothing"]]:
        done = run("log", "verify", "--data", a.data, *args, check=False)
        assert done.returncode == 65 and "there is no" in done.stderr, done.stderr
    assert not (a.data.parent / "nothing").exists()

    # The others go on, and the answers name what is missing.
    for i in range(50):
        assert a.post(click(f"more{i}", campaign_id="more"))[0] == 202
    wait(lambda: sum(r["clicks"] for r in a.metrics(window="total", campaign_id="more")["rows"]) >= 30)
    # The view reads of it in realtime's status file, which is written every second.
    wait(lambda: a.metrics(window="total")["missing_partitions"] == [1])
    assert a.metrics(window="total")["completeness"] < 1
    lag = {labels: v for (n, labels), v in a.prometheus().items() if n == "adtally_task_lag_records"}
    assert all(v < 50 for labels, v in lag.items() if 'partition="1"' not in labels), lag

    # Put back what was there: the partition is taken over and nothing was lost.
    with open(segment, "r+b") as f:
        f.seek(at)
        f.write(bytes([byte]))
    (a.data / "run/recovered").touch()  # as docs/RUNBOOK.md says
    wait(lambda: a.get("/readyz", admin=True)[0] == 200)
    ledger = a.wait_counted()
    assert (ledger["counted"], ledger["accepted"]) == (4050, 4050)
    assert a.metrics(window="total", group_by="none")["totals"][0]["clicks"] == 4050


def test_a_flipped_byte_in_the_rollups_is_told_by_every_answer(start):
    """The view lacks what lies behind the damage: the answers, readiness and status say so, until it is mended."""
    a = start("--segment-size", "4KiB", *QUICK)
    sent = 0
    while len(list((a.data / "log/topics/rollups/1").glob("*.seg"))) < 3:  # damage behind the newest
        assert a.post([click(f"{sent}-{n}", campaign_id=f"c{n}") for n in range(200)])[0] == 202
        sent += 200
        a.wait_counted()
    a.stop()
    segment = a.data / "log/topics/rollups/1/00000000000000000000.seg"
    whole = segment.read_bytes()
    at = len(whole) // 2
    segment.write_bytes(whole[:at] + bytes([whole[at] ^ 0x40]) + whole[at + 1:])
    a.data.joinpath("view").rename(a.data / "view.before")  # it has to be read again
    a.start(wait=0)

    def readiness():
        try:
            return a.get("/readyz", admin=True)
        except OSError:
            return None

    wait(lambda: readiness() == (503, 'the view cannot read a partition: partition="1"\n'))
    wait(lambda: a.metrics(window="total")["missing_partitions"] == [1])
    answer = a.metrics(window="total")
    assert sum(t["clicks"] for t in answer["totals"]) < sent and not any(r["final"] for r in answer["rows"])
    assert a.quality()["missing_partitions"] == [1]
    done = run("status", "--data", a.data, check=False)
    assert done.returncode == 1 and "cannot read rollups/1" in done.stdout
    segment.write_bytes(whole)
    wait(lambda: a.get("/readyz", admin=True)[0] == 200)
    wait(lambda: a.metrics(window="total")["missing_partitions"] == [])
    wait(lambda: sum(t["clicks"] for t in a.metrics(window="total")["totals"]) == sent)


# ---- stopping ----

@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_stopping_loses_no_accepted_event(start, sig):
    """Whatever was answered 202 before, during or after the signal is counted, once."""
    a = start(*QUICK)
    accepted, doubtful, stopping = set(), [], threading.Event()

    def sender(worker):
        n = 0
        while True:
            batch = [click(f"{worker}-{n}-{i}") for i in range(10)]
            try:
                status, _ = a.post(batch, timeout=20)
            except OSError:
                status = None
            if status == 202:
                accepted.update(e["event_id"] for e in batch)
            else:
                assert status in (None, 503) and stopping.is_set(), status
                doubtful.extend(batch)  # it may have been stored: sent again later
                return
            n += 1

    threads = [threading.Thread(target=sender, args=(w,)) for w in range(4)]
    for t in threads:
        t.start()
    time.sleep(1.5)
    stopping.set()
    a.process.send_signal(sig)
    assert a.process.wait(60) == 0, a.tail()
    for t in threads:
        t.join()
    assert len(accepted) > 100 and doubtful
    a.start()
    ledger = a.wait_counted()
    assert len(accepted) <= ledger["counted"] <= len(accepted) + len(doubtful)
    assert a.post(doubtful)[0] == 202
    ledger = a.wait_counted()
    assert ledger["counted"] == len(accepted) + len(doubtful)
    assert a.quality()["balanced"]


# ---- commands ----

def test_status_as_json(start):
    a = start()
    assert a.post([click(i) for i in range(10)])[0] == 202
    a.wait_counted()
    time.sleep(1.5)  # status files are written every second
    status = json.loads(run("status", "--data", a.data, "--json").stdout)
    assert status["running"] is True and status["problems"] == []
    assert sorted((j["job"], j["running"], j["pid"]) for j in status["jobs"]) == \
        sorted((job, True, a.job_pid(job)) for job in ["ingest", "realtime", "api", "archive", "reconcile"])
    values = {(m["job"], m["name"], m["labels"]): m["value"] for m in status["metrics"]}
    assert values[("ingest", "adtally_ingest_events_total", 'outcome="accepted"')] == 10
    os.kill(a.job_pid("api"), signal.SIGSTOP)
    try:
        time.sleep(6.5)
        done = run("status", "--data", a.data, "--json", check=False)
        assert done.returncode == 1
        assert any("api" in p for p in json.loads(done.stdout)["problems"])
    finally:
        os.kill(a.job_pid("api"), signal.SIGCONT)
    a.stop()
    done = run("status", "--data", a.data, "--json", check=False)
    assert done.returncode == 69 and json.loads(done.stdout)["running"] is False
    assert run("status", "--data", a.data.parent / "nothing", check=False).returncode == 69


def test_watch_shows_the_last_minutes(start):
    a = start()
    events = [click(i, campaign_id=f"c{i % 5}", type="impression" if i % 4 else "click", cost_micros=250_000, currency="EUR") for i in range(80)]
    assert a.post(events)[0] == 202
    a.wait_counted()
    text = run("watch", "--url", a.url, "--times", 1).stdout
    sums = [sum(float(m.group(g)) for m in re.finditer(r"^  \d{4}-\S+ +EUR +(\d+) +(\d+) +(\d+) +([\d.]+)  open", text, re.M)) for g in range(1, 5)]
    assert sums == [60, 20, 0, 20.0], text  # whatever minutes they fell into
    assert " counted 80 " in text


def test_settings_and_their_origins(place):
    """Defaults, file, environment, flags: the later wins, and config says which it was."""
    config = place / "adtally.ini"
    config.write_text("grace = 2m\npartitions = 7\ncurrency = CHF\n")
    env = {**os.environ, "ADTALLY_PARTITIONS": "8", "ADTALLY_CURRENCY": "GBP"}
    text = run("config", "--config", config, "--currency", "SEK", env=env).stdout
    lines = {line.split("=")[0].strip(): line for line in text.splitlines()}
    for name, value, origin in [("grace", "2m", f"file {config}"), ("partitions", "8", "environment ADTALLY_PARTITIONS"),
                                ("currency", "SEK", "flag"), ("dedupe-horizon", "24", "default")]:
        assert re.fullmatch(rf"{name} += {value} +; {re.escape(origin)}", lines[name]), lines[name]
    # What it prints is a configuration file itself.
    again = place / "again.ini"
    again.write_text(text)
    assert re.sub(" +; .*", "", run("config", "--config", again).stdout) == re.sub(" +; .*", "", text)

    for args, env_more, file, near in [(["--gracee", "5m"], {}, "", "grace"), ([], {"ADTALLY_PARTITION": "4"}, "", "partitions"),
                                       ([], {}, "segment_size = 1MiB\n", "segment-size")]:
        config.write_text(file)
        done = run("config", "--config", config, *args, env={**os.environ, **env_more}, check=False)
        assert done.returncode == 64 and f'did you mean "{near}"?' in done.stderr, done.stderr
    for args, says in [(["--grace", "soon"], "not a duration"), (["--partitions", "0"], "outside 1 to"), (["--partitions", "x"], "whole number"),
                       (["--segment-size", "5XB"], "not a size"), (["--pricing", "free"], "not one of"), (["--grace"], "needs a value"),
                       (["--grace", "25h"], "outside")]:
        done = run("config", *args, check=False)
        assert done.returncode == 64 and says in done.stderr, (args, done.stderr)
    done = run("upp", check=False)
    assert done.returncode == 64 and 'did you mean "up"?' in done.stderr


def test_log_level_holds_for_every_job(start):
    a = start("--log-level", "error")
    assert a.post(click(1))[0] == 202
    assert a.stop() == 0
    assert not re.search(r"Z (info|warn) ", a.log.read_text())


def test_refusals_at_start_are_named(place):
    """What cannot work is said before anything runs, with the exit code of its kind."""
    port = free_port()
    with socket.socket() as s:
        s.bind(("127.0.0.1", port))
        s.listen()
        for listen, admin in [(f"127.0.0.1:{port}", "127.0.0.1:0"), ("127.0.0.1:0", f"127.0.0.1:{port}")]:
            done = run("up", "--data", place / "d", "--listen", listen, "--admin", admin, check=False)
            assert done.returncode == 75 and f"cannot listen at 127.0.0.1:{port}: another program does" in done.stderr, done.stderr
    for args, says in [(["--keep-log", "2h"], "--keep-log must be at least"), (["--currency", "EURO"], "not an ISO 4217 code"),
                       (["--time-zone", "Mars/Base"], "--time-zone"), (["--log", "tape:x"], "expected file:DIR or kafka:")]:
        done = run("up", "--data", place / "d2", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", *args, check=False, timeout=30)
        assert done.returncode in (64, 78) and says in done.stderr, (args, done.returncode, done.stderr)


def test_other_partition_count_is_refused(start):
    """K14: by name, before any number could be wrong."""
    a = start("--partitions", "2", *QUICK)
    assert a.post([click(i) for i in range(20)])[0] == 202
    a.wait_counted()
    a.stop()
    done = run("up", "--data", a.data, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--partitions", "3", check=False, timeout=30)
    assert done.returncode in (65, 78) and "2 partitions" in done.stderr, (done.returncode, done.stderr)
    a.start()
    assert a.wait_counted()["counted"] == 20
