"""`adtally replay`: a range of the topic processed again, apart from what is live (R1, W6, K3, K4, K8, K14).

The oracles are the generator's truth, and a naive recount of what was sent (on Kafka: of the raw records, read by
other code). Both logs pass the same tests.
"""
import hashlib
import json
import os
import random
import shutil
import subprocess
import time
from collections import defaultdict
from datetime import datetime, timezone

import pytest

import reader
from conftest import ADTALLY, run
from test_crash import SETTINGS, check, finish, generate

RULES = SETTINGS[:2]
WORDS = 4096  # bytes of --from and of --to
TYPES = {"impression": 0, "click": 1, "conversion": 2}
MONEY = ["spend", "payout", "conversion_value"]


@pytest.fixture(params=["file", "kafka"])
def log(request):
    """(settings of the log, the Kafka of this test or None)."""
    if request.param == "file":
        return [], None
    k = request.getfixturevalue("kafka")
    return k.settings() + ["--kafka-session-timeout", "6s"], k


def replay(a, log, *args, check=True, env=None, timeout=120):
    own = [s for s in log[0] if s != "--kafka-session-timeout" and s != "6s"]
    return run("replay", "--data", a.data, *RULES, *own, "--json", "--quiet", *args, check=check, timeout=timeout,
               env={**os.environ, **(env or {})})


def result(a, log, *args, **kw):
    return json.loads(replay(a, log, *args, **kw).stdout)


def rows(path):
    """{(window_start, campaign, currency): [impressions, clicks, conversions, money in nanos]}, of the always-kept grouping."""
    out = {}
    for line in path.read_text().splitlines():
        r = json.loads(line)
        if r["grouping"] == 0:
            key = (r["window_start"], r["campaign_id"], r["currency"])
            have = out.setdefault(key, [0] * 6)
            for i, name in enumerate(["impressions", "clicks", "conversions", *(f"{m}_nanos" for m in MONEY)]):
                have[i] += r[name]
    return out


def live(a, log):
    """Everything live that a replay could touch, as bytes, while nothing runs."""
    if log[1]:
        k = log[1]
        topics = {t: [(r.partition, r.offset, r.value) for r in reader.records(k.bootstrap, k.prefix + t)]
                  for t in ("events", "rollups", "late", "quarantine")}
        return topics, reader.committed(k.bootstrap, k.prefix)
    places = [a.data / "log/topics" / t for t in ("events", "rollups", "late", "quarantine")] + [a.data / "state"]
    return {str(f): f.read_bytes() for p in places for f in sorted(p.rglob("*")) if f.is_file()}


class Traffic:
    """Seeded events, some sent twice and in both phases; the recount knows only what was sent."""

    def __init__(self, a, seed):
        self.a, self.dice, self.sent, self.next = a, random.Random(seed), [], 0

    def send(self, count, again=()):
        """A phase: fresh events, a tenth of them twice, and those of `again` once more."""
        fresh = []
        for _ in range(count):
            self.next += 1
            fresh.append({"event_id": f"e{self.next}", "type": self.dice.choice(list(TYPES)), "advertiser_id": "adv",
                          "campaign_id": f"c{self.dice.randrange(5)}", "cost_micros": self.dice.randrange(1000),
                          "currency": self.dice.choice(["EUR", "USD"]), "event_time": int(time.time() * 1000)})
        phase = fresh + self.dice.sample(fresh, count // 10) + list(again)
        for i in range(0, len(phase), 50):
            status, answer = self.a.post(phase[i:i + 50])
            assert status == 202 and answer["accepted"] == len(phase[i:i + 50]), answer
        return phase


def recount(events):
    """Each id once, by its first copy (D1); nothing here is late."""
    cells, seen = defaultdict(lambda: [0] * 6), set()
    for e in events:
        if e["event_id"] in seen:
            continue
        seen.add(e["event_id"])
        minute = e["event_time"] // 60000 * 60
        start = datetime.fromtimestamp(minute, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        cell = cells[(start, e["campaign_id"], e["currency"])]
        cell[TYPES[e["type"]]] += 1
        cell[3] += e["cost_micros"] * 1000
    return dict(cells), {"counted": len(seen), "duplicate": len(events) - len(seen)}


def outcomes(r):
    return {k: v for k, v in r["outcomes"].items() if v}


def expect(a, log, place, events, what, *args):
    out = place / "rows"
    r = result(a, log, "--out", out, *args)
    cells, ended = recount(events)
    assert outcomes(r) == {k: v for k, v in ended.items() if v}, f"{what}: {r}"
    assert rows(out) == cells, f"{what}: run {r['run']}"
    assert hashlib.sha256(out.read_bytes()).hexdigest() == r["sha256"], what
    return r


def vector(a, log, *args):
    r = result(a, log, "--dry-run", *args)
    return [p["to"] for p in r["partitions"]]


# ---- the whole topic ---------------------------------------------------------------------------------------------
def test_whole_topic_equals_the_truth_and_live_is_untouched(start, place, log):
    """R1, W6: final cells depend on input alone; nothing live is written: topics, state, offsets, view."""
    seed = 51
    a = start(*SETTINGS, *log[0])
    truth, sender = generate(a, seed, events=10000)
    finish(sender, seed)
    check(a, truth, seed)
    a.stop()
    before = live(a, log)
    out = place / "rows"
    r = result(a, log, "--workers", 2, "--out", out)
    assert live(a, log) == before, f"seed {seed}: the replay wrote to what is live"
    t = json.loads(truth.read_text())
    want = {k: t["truth"][k] for k in ("counted", "duplicate", "conflict", "late")}
    assert outcomes(r) == want, f"seed {seed}"
    cells = {(m["window_start"], m["campaign_id"], m["currency"]):
             [m["impressions"], m["clicks"], m["conversions"], *(m[f"{k}_micros"] * 1000 for k in MONEY)] for m in t["minute"]}
    assert rows(out) == cells, f"seed {seed}"
    again = result(a, log)
    assert again == r, f"seed {seed}: a finished run tells its result again"
    run("replay", "--data", a.data, *log[0], "--drop", r["run"])
    one = result(a, log, "--workers", 1)
    assert one == r, f"seed {seed}: one worker, another result than two"
    if log[1]:  # or the cluster would keep what the run made
        done = run("replay", "--data", a.data, "--drop", r["run"], check=False)
        assert done.returncode == 64 and "is on another log (kafka" in done.stderr, done.stderr
    a.start()
    check(a, truth, seed)
    listed = run("replay", "--data", a.data, "--list").stdout
    assert f"{r['run']}  done" in listed
    run("replay", "--data", a.data, *log[0], "--drop", r["run"])
    assert "no runs" in run("replay", "--data", a.data, "--list").stdout
    assert "replay-" not in run("log", "list", "--data", a.data, *log[0]).stdout


# ---- ranges ------------------------------------------------------------------------------------------------------
def test_ranges_equal_a_recount(start, place, log):
    """R1: by time and by offsets, while live traffic goes on; copies of earlier events count as new (D1)."""
    a = start(*SETTINGS, *log[0])
    t = Traffic(a, 52)
    one = t.send(300)
    time.sleep(0.05)
    cut, cut_ms = vector(a, log), int(time.time() * 1000)
    time.sleep(0.05)
    two = t.send(200, again=one[:40])
    end = vector(a, log)
    assert all(x < y for x, y in zip(cut, end)), (cut, end)
    iso = datetime.fromtimestamp(cut_ms / 1000, timezone.utc).isoformat(timespec="milliseconds")
    words = "offset:" + ",".join(f"{p}={n}" for p, n in enumerate(cut))
    expect(a, log, place, one, "to a time", "--to", iso)
    r = expect(a, log, place, two, "from a time", "--from", iso)
    assert r["earlier_ids_known"] is False
    expect(a, log, place, one, "to offsets", "--to", words)
    expect(a, log, place, two, "from offsets", "--from", words)
    expect(a, log, place, one + two, "all", "--from", "offset:0")
    r = expect(a, log, place, [], "nothing", "--from", words, "--to", words)
    assert (r["records"], r["rows"]) == (0, 0)
    said = replay(a, log, "--dry-run", "--from", words).stderr
    assert "ids seen before" in said and f"0:[{cut[0]}," in said
    if log[1]:  # one partition alone, against the raw records of just that range
        raw = reader.records(log[1].bootstrap, log[1].prefix + "events")
        n, seen = 0, set()
        for rec in raw:
            if rec.partition == 2 and cut[2] <= rec.offset < end[2]:
                for e in reader.events(rec.value):
                    n += 1
                    seen.add(e["id"])
        others = ",".join(f"{p}={end[p]}" for p in range(4) if p != 2)
        r = result(a, log, "--from", f"offset:2={cut[2]},{others}", "--to", "offset:" + f"2={end[2]},{others}")
        assert outcomes(r) == {k: v for k, v in {"counted": len(seen), "duplicate": n - len(seen)}.items() if v}


# ---- crashes -----------------------------------------------------------------------------------------------------
def test_killed_midway_goes_on(start, place, log):
    """K4, K8: killed before each step of a checkpoint, the same command goes on with the same run; counted once."""
    a = start(*SETTINGS, "--heartbeat", "10ms", *log[0])  # many records, so several checkpoints a partition
    t = Traffic(a, 53)
    events = []
    for _ in range(6):
        events += t.send(200)
        time.sleep(1)
    a.stop()
    quick = ["--checkpoint-min", "10ms"]
    whole = expect(a, log, place, events, "without kills")
    run("replay", "--data", a.data, *log[0], "--drop", whole["run"])
    for step in ["persist", "begin", "produce:*", "commit", "publish"] if log[1] else \
            ["cut", "persist", "publish", "append:*", "retire", "release"]:
        died = replay(a, log, *quick, check=False, env={"DF_FAIL": f"{step}=abort@3"})
        if "fail points" in died.stderr:
            pytest.skip("a build without fail points")
        assert died.returncode in (-6, -9), f"{step}: {died.returncode}\n{died.stderr}"
        assert f"run {whole['run']}:" in died.stderr, step
        assert f"{whole['run']}  unfinished" in run("replay", "--data", a.data, "--list").stdout, step
        assert result(a, log, *quick) == whole, f"killed before {step}"
        run("replay", "--data", a.data, *log[0], "--drop", whole["run"])


# ---- transactions ------------------------------------------------------------------------------------------------
def test_transactions_inside_the_range(start, place, kafka):
    """R1: it ends on position: aborted records count nowhere, markers at the tail and an open transaction hold nothing."""
    from confluent_kafka import Producer
    log = (kafka.settings(), kafka)
    a = start(*SETTINGS, *log[0])
    events = Traffic(a, 54).send(300)
    a.stop()
    raw = [r for r in reader.records(kafka.bootstrap, kafka.prefix + "events") if list(reader.events(r.value))]
    copies = [e for r in raw for e in reader.events(r.value)]

    def producer(name):
        p = Producer({"bootstrap.servers": kafka.bootstrap, "transactional.id": kafka.prefix + name})
        p.init_transactions(30)
        p.begin_transaction()
        for r in raw:
            p.produce(kafka.prefix + "events", value=r.value, partition=r.partition)
        p.flush(30)
        return p

    producer("aborted").abort_transaction(30)
    clean = vector(a, log)
    expect(a, log, place, events, "aborted at the tail")
    producer("kept").commit_transaction(30)
    twice = {"counted": 300, "duplicate": len(events) - 300 + len(copies)}
    r = result(a, log)
    assert outcomes(r) == twice, "a committed transaction, its marker at the tail"
    opened = producer("open")
    held = vector(a, log)
    r = result(a, log)
    assert outcomes(r) == twice and [p["to"] for p in r["partitions"]] == held, "before the open transaction"
    done = replay(a, log, "--to", f"offset:{held[0] + 1}", check=False)
    assert done.returncode == 64 and "is outside events/0" in done.stderr, "behind the last stable offset"
    opened.abort_transaction(30)
    r = result(a, log)
    assert outcomes(r) == twice and all(p["to"] > h for p, h in zip(r["partitions"], held))
    words = "offset:" + ",".join(f"{p}={n}" for p, n in enumerate(clean))
    r = result(a, log, "--from", words)
    assert outcomes(r) == {"counted": 300, "duplicate": len(copies) - 300}


# ---- refusals ----------------------------------------------------------------------------------------------------
def test_refusals(start, log):
    """K14 and the command line: by name, and nothing is made."""
    a = start(*SETTINGS, *log[0])
    Traffic(a, 55).send(100)
    for code, text, args in [
            (64, "--from is behind --to", ["--from", "end", "--to", "start"]),
            (64, "is outside events/0, which holds [0,", ["--to", "offset:1000000"]),
            (64, "no partition 9", ["--to", "offset:9=1"]),
            (64, "is not start, end", ["--from", "yesterday"]),
            (64, "holds no live events", ["--topic", "rollups"]),
            (65, "there is no topic nothing", ["--topic", "nothing"]),
            (64, "is not the id of a run", ["--drop", "../x"]),
            (65, "there is no run", ["--drop", "0123456789abcdef"])]:
        done = replay(a, log, *args, check=False)
        assert done.returncode == code and text in done.stderr, (args, done.returncode, done.stderr)
    beyond = "offset:" + "0" * (WORDS - len("offset:") + 1)
    for words in ("--from", "--to"):
        done = replay(a, log, words, beyond, check=False)
        assert done.returncode == 64 and f"{words}: more than {WORDS} bytes" in done.stderr, done.stderr
    assert "no runs" in run("replay", "--data", a.data, "--list").stdout


def test_words_as_long_as_they_may_be(start):
    """R1: they are part of what the run is, and the same words take it up again."""
    a = start(*SETTINGS)
    Traffic(a, 58).send(100)
    a.wait_counted()
    a.stop()
    words = "offset:" + "0" * (WORDS - len("offset:"))
    first, again = (result(a, ([], None), "--from", words) for _ in (1, 2))
    assert outcomes(first)["counted"] == 100 and again == first, (first, again)


def test_a_second_process_is_refused(start, log):
    """R1: one process a run; the refused one changes nothing."""
    a = start(*SETTINGS, *log[0])
    Traffic(a, 56).send(500)
    a.stop()
    own = ["replay", "--data", a.data, *RULES, *log[0], "--json", "--quiet"]
    first = subprocess.Popen([str(ADTALLY), *map(str, own)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                             env={**os.environ, "DF_FAIL": "persist=delay(500)*0"})
    try:
        until = time.time() + 30
        while "running" not in run("replay", "--data", a.data, "--list").stdout:
            assert first.poll() is None and time.time() < until, first.communicate()
            time.sleep(0.02)
        done = replay(a, log, check=False)
        assert done.returncode == 75 and f"pid {first.pid}" in done.stderr, done.stderr
        out, err = first.communicate(timeout=60)
        assert first.returncode == 0, err
    finally:
        if first.poll() is None:
            first.kill()
            first.wait()
    assert json.loads(out) == result(a, log)


def test_a_topic_created_again_is_refused(start):
    """K14: an unfinished run of the old generation is named, with the way out."""
    a = start(*SETTINGS)
    Traffic(a, 57).send(500)
    a.stop()
    log = ([], None)
    died = replay(a, log, check=False, env={"DF_FAIL": "persist=abort"})
    assert died.returncode in (-6, -9), died.stderr
    shutil.rmtree(a.data / "log/topics/events")
    shutil.rmtree(a.data / "state")
    for t in ("rollups", "late", "quarantine"):
        shutil.rmtree(a.data / "log/topics" / t)
    shutil.rmtree(a.data / "view", ignore_errors=True)
    a.start()
    events = Traffic(a, 58).send(100)
    done = replay(a, log, check=False)
    old = died.stderr.split()[1].rstrip(":")
    assert done.returncode == 78 and "was created again since" in done.stderr and old in done.stderr, done.stderr
    run("replay", "--data", a.data, "--drop", old)
    assert outcomes(result(a, log)) == recount(events)[1]
