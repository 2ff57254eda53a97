"""The reconcile job: its runs in `runs`, the books in `billing`, killed wherever it posts (R2 to R4). The oracles are the
recount of test_reconcile.py and an independent reader of the topics."""
import json
import random
import shutil
import subprocess
import threading
import time
from collections import defaultdict

import log_reader
import test_import_resume as history
from archive_reader import event_ids
from conftest import BUILD, Adtally, run
from test_reconcile import (HORIZON, BILLING, MEASURES, PARTITIONS, QUARTER, SETTINGS, judge, made, recount)

POINTS = ["post-begin", "post-targets", "post-end", "post-marks", "append:billing"]


class Traffic(threading.Thread):
    """A click now and then: realtime commits, runs have something new; some of the clicks are late."""

    def __init__(self, a, seed):
        super().__init__(daemon=True)
        self.a, self.dice, self.sent, self.ending = a, random.Random(seed), {}, threading.Event()

    def run(self):
        while not self.ending.wait(0.15):
            late = self.dice.random() < 0.3
            ms = int(time.time() * 1000) - (2 * 3600000 if late else 0)
            name, cost = f"live-{len(self.sent)}", self.dice.randrange(1, 10**6)
            event = {"event_id": name, "type": "click", "advertiser_id": "acme", "campaign_id": "c1", "publisher_id": "p1",
                     "event_time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ms // 1000)) + f".{ms % 1000:03d}Z",
                     "cost_micros": cost, "currency": "EUR"}
            assert self.a.post([event])[0] == 202
            self.sent[name] = (ms, cost, late)

    def end(self):
        self.ending.set()
        self.join()


def wait_for(what, a, seconds=60):
    until = time.time() + seconds
    while not what():
        assert time.time() < until, a.tail()
        time.sleep(0.2)


def applied(a):
    return [e[1] for e in log_reader.books(a.data) if e[0] == "applied"]


def wanted(events, traffic, data, vector):
    """{key: {cause: {side: {measure}}}} of what stands before the vector."""
    rows = defaultdict(dict)
    for (quarter, campaign, publisher, cause), row in recount(events).items():
        rows[quarter, "default", "acme", campaign, publisher, "EUR"][cause] = row
    for (stream, partition), to in vector.items():
        for offset, value in log_reader.records(data, stream, partition) if stream == "events" else []:
            for name in event_ids(value) if offset < to else []:
                if not name.startswith("live-"):
                    continue
                ms, cost, late = traffic.sent[name]
                key = (ms // QUARTER, "default", "acme", "c1", "p1", "EUR")
                row = rows[key].setdefault("late" if late else "none",
                                           {"billed": defaultdict(int), "realtime": defaultdict(int)})
                for side in ("billed",) if late else ("billed", "realtime"):
                    row[side]["clicks"] += 1
                    row[side]["spend_nanos"] += cost * 1000
    return rows


def imported(rows):
    """What history.make_rows made, both sides the same."""
    out = defaultdict(lambda: {"none": {side: defaultdict(int) for side in ("billed", "realtime")}})
    for t, kind, camp, cost in rows:
        for side in out[(history.START + t) * 1000 // QUARTER, "default", "a", camp, "", "EUR"]["none"].values():
            side["impressions" if kind == "view" else "clicks"] += 1
            side["spend_nanos"] += {"0.25": 250000, "1": 1000000, "0.000001": 1, "": 0}[cost] * 1000
    return out


def same(got, want, seed):
    assert set(got) == set(want), f"seed {seed}: {sorted(set(got) ^ set(want))[:5]}"
    for key, causes in want.items():
        assert set(got[key]) == set(causes), f"seed {seed}: {key}: {got[key].keys()} {causes.keys()}"
        for cause, row in causes.items():
            for side in ("billed", "realtime"):
                for name in MEASURES:
                    assert got[key][cause][side][name] == row[side][name], f"seed {seed}: {key} {cause} {side} {name}"


def check_postings(data, seed):
    """The last posting of each cell, up to the last run that was applied; nothing was posted twice."""
    cells, seq, entries = {}, 0, log_reader.books(data)
    while entries[-1][0] != "applied":
        entries.pop()
    for entry in entries:
        if entry[0] != "posting":
            continue
        assert entry[1] == seq + 1, f"seed {seed}: posting {entry[1]} after {seq}"
        seq = entry[1]
        assert cells.get(entry[3]) != entry[4], f"seed {seed}: {entry[3]} was posted twice"
        cells[entry[3]] = entry[4]
    return cells


def check_runs(data, seed):
    """Every run that ended says how many targets it has; returns those, by id."""
    ended, begun, count = {}, None, 0
    for entry in log_reader.runs(data):
        if entry[0] == "begin":
            begun, count = entry[1], 0
        elif entry[0] == "targets":
            assert entry[1] == begun["run"]
            count += len(entry[2])
        else:
            assert entry[1]["run"] == begun["run"] and entry[1]["targets"] == count, f"seed {seed}"
            ended[begun["run"]] = dict(begun, **entry[1])
    return ended


def asked(data):
    """The requests in the order in which runs answered them; each once, but for one that died behind its answer."""
    begun, out = None, []
    for entry in log_reader.runs(data):
        if entry[0] == "begin":
            begun = entry[1]["asked_by"]
        elif entry[0] == "end" and begun and (not out or out[-1] != begun):
            out.append(begun)
    return out


def test_killed_wherever_it_posts_nothing_is_posted_twice(place, monkeypatch):
    seed = 191
    data, events = made(place, seed, events=2500, hours=20)
    judge(events)
    for i in (1, 2):
        subprocess.run([BUILD / "tests/e2e/make_commands", data / "log"], input=f"id=ask-{i} do=run\n", text=True, check=True)
    once = place / "struck"
    once.mkdir()
    monkeypatch.setenv("DF_FAIL", ";".join(f"{p}=abort" for p in POINTS) + ";post-targets=abort@3")
    monkeypatch.setenv("DF_FAIL_ONCE", str(once))
    a = Adtally(data, *SETTINGS, "--billing-horizon", BILLING, "--reconcile-every", "200ms", "--checkpoint-min", "50ms",
                "--checkpoint-max", "300ms")
    try:
        a.start()
        traffic = Traffic(a, seed)
        traffic.start()
        wait_for(lambda: len(list(once.iterdir())) >= len(POINTS), a)
        wait_for(lambda: [d["whole"] for d in applied(a)][-2:] == [False, False], a)
        # A newer price table is another chain: posted whole, and what did not change is not posted.
        first = applied(a)[-1]["chain"]
        (place / "prices").write_text("tenant_id,advertiser_id,campaign_id,ad_id,model,price,currency,valid_from\n"
                                      ",,,,cpc,0.5,EUR,\n")
        run("prices", "load", place / "prices", "--data", data)
        wait_for(lambda: applied(a)[-1]["chain"] != first and not applied(a)[-1]["whole"], a)
        # So is one with an import, whose cells it adds up, too.
        second, rows = applied(a)[-1]["chain"], history.make_rows(seed, 500)
        history.write(place / "old.csv", rows)
        subprocess.run(history.command(a, place / "old.csv", "--wait", "30s"), check=True, stdout=subprocess.DEVNULL)
        wait_for(lambda: applied(a)[-1]["chain"] not in (first, second) and not applied(a)[-1]["whole"], a)
        traffic.end()
        a.stop()
        ended, done = check_runs(data, seed), applied(a)
        last = ended[done[-1]["run"]]  # one more may be posted, and not be in the books yet
        assert asked(data) == ["ask-1", "ask-2"], f"seed {seed}"
        cells = check_postings(data, seed)
        same(cells, {**wanted(events, traffic, data, last["vector"]), **imported(rows)}, seed)
        assert done[-1]["sha256"] == last["sha256"]
        assert last["unexplained"] == 0 and last["pending"] == 0 and not last["whole"]
        assert done[0]["whole"] and list(dict.fromkeys(d["chain"] for d in done)) == [first, second, last["chain"]]
        whole = next(d for d in done if d["chain"] == second)
        assert whole["whole"] and whole["posted"] < 10 and all(d["why"] == "" for d in done)
        assert len([p for p in (data / "reconcile").iterdir() if p.is_dir()]) == 2  # of events, and of the import
        assert not list((data / "log/topics").glob(f"reconcile-{first}-*"))
        # What was added up run by run is what is added up at once.
        rules = ["--dedupe-horizon", HORIZON, "--billing-horizon", BILLING, "--partitions", PARTITIONS]
        args = ["reconcile", "--data", data, "--quiet", "--json", "--wait", "0ms", *rules, "--out"]
        for _ in (1, 2):  # the stop may have interrupted a run, which comes to its own end first
            kept = json.loads(run(*args, place / "kept").stdout)
        assert kept["run"] == second
        run("reconcile", "--data", data, "--drop", second)
        run(*args, place / "anew")
        assert (place / "kept").read_bytes() == (place / "anew").read_bytes() != b""
    finally:
        a.destroy()


def test_lost_books_are_made_again_from_the_log(place):
    """K10: `runs` is kept for ever; what the books said stays, and they go on as if nothing had been lost (R4)."""
    seed = 197
    data, events = made(place, seed, events=1500, hours=20)
    judge(events)
    a = Adtally(data, *SETTINGS, "--billing-horizon", BILLING, "--reconcile-every", "200ms", "--checkpoint-min", "50ms",
                "--checkpoint-max", "300ms")
    traffic = Traffic(a, seed)
    try:
        a.start()
        traffic.start()
        wait_for(lambda: len(applied(a)) >= 3, a)
        traffic.end()
        a.stop()
        before = log_reader.books(data)
        shutil.rmtree(data / "state/runs/0")
        a.start(wait=None)
        wait_for(lambda: "task=runs/0 refused" in a.tail(), a)
        run("recover", "--data", data, "--topic", "runs", "--partition", "0", "--from", "log")
        a.wait_ready()
        more = Traffic(a, seed + 1)
        more.sent = traffic.sent
        more.start()
        known = sum(e[0] == "applied" for e in before)
        wait_for(lambda: len(applied(a)) >= known + 3, a)
        more.end()
        a.stop()
        ended, done, after = check_runs(data, seed), applied(a), log_reader.books(data)
        assert after[:len(before)] == before and len(after) > len(before), f"seed {seed}"
        same(check_postings(data, seed), wanted(events, more, data, ended[done[-1]["run"]]["vector"]), seed)
        assert not list((data / "state/runs").glob("*.rebuild"))
    finally:
        a.destroy()
