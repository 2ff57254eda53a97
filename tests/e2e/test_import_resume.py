"""`adtally import` killed with SIGKILL at random moments, and aborted (R6).

The oracle is the list of rows that the test wrote.
"""
import json
import os
import random
import signal
import subprocess
import time
from collections import Counter

import pytest

from conftest import ADTALLY, run

pytestmark = pytest.mark.sanitized
START = 1_554_076_800  # 2019-04-01T00:00:00Z
OPTIONS = ["--map", "time=event_time,kind=type,camp=campaign_id,cost=cost,advertiser_id:=a", "--currency", "EUR",
           "--dataset", "history"]


def write(path, rows):
    with open(path, "w") as f:
        f.write("time,kind,camp,cost\n")
        f.writelines(f"{START + t},{kind},{camp},{cost}\n" for t, kind, camp, cost in rows)


def make_rows(seed, count, hours=3):
    r = random.Random(seed)
    return [(r.randrange(hours * 3600), r.choice(["view", "view", "view", "click"]), f"c{r.randrange(5)}",
             r.choice(["0.25", "1", "0.000001", ""])) for _ in range(count)]


def recount(rows):
    n, money = Counter(), Counter()
    for t, kind, camp, cost in rows:
        minute = time.strftime("%Y-%m-%dT%H:%M:00Z", time.gmtime(START + t))
        n[(minute, camp, kind)] += 1
        money[(minute, camp)] += {"0.25": 250000, "1": 1000000, "0.000001": 1, "": 0}[cost]
    return {k: (n[(*k, "view")], n[(*k, "click")], money[k]) for k in money}


def served(a, hours=3):
    out = {}
    for h in range(hours):
        stamp = [time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(START + x * 3600)) for x in (h, h + 1)]
        answer = a.metrics(window="minute", tz="UTC", group_by="campaign_id", limit=10000, **{"from": stamp[0], "to": stamp[1]})
        assert answer["next_cursor"] is None
        for row in answer["rows"]:
            out[(row["window_start"], row["campaign_id"])] = (row["impressions"], row["clicks"], row["spend_micros"])
    return out


def command(a, path, *more):
    return [str(ADTALLY), "import", str(path), *OPTIONS, "--data", str(a.data), "--url", a.url, "--quiet", *more]


def test_killed_at_random_moments_every_row_counts_once(start, place):
    seed = int(time.time())
    r = random.Random(seed)
    a = start("--partitions", "3")
    rows = make_rows(seed, 60_000)
    path = place / "history.csv"
    write(path, rows)
    kills = 0
    for _ in range(60):
        p = subprocess.Popen(command(a, path, "--json"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            out, err = p.communicate(timeout=r.uniform(0.01, 0.03 + 0.04 * kills) if kills < 12 else 120)
        except subprocess.TimeoutExpired:
            p.send_signal(signal.SIGKILL)
            p.communicate()
            kills += 1
            continue
        assert p.returncode == 0, f"seed {seed}: {err}"
        break
    assert kills > 0, f"seed {seed}: it was never killed"
    s = json.loads(run(*command(a, path, "--json", "--wait", "60s")[1:]).stdout)
    assert (s["new"], s["known"]) == (0, len(rows)), f"seed {seed}"
    until = time.time() + 60  # `pending` is about `events`; an import's rows may still be on the way
    while a.quality()["ledger"]["counted"] < len(rows) and time.time() < until:
        time.sleep(0.2)
    ledger = a.quality()["ledger"]
    assert (ledger["counted"], ledger["duplicate"], ledger["quarantined"]) == (len(rows), 0, 0), f"seed {seed}"
    assert served(a) == recount(rows), f"seed {seed}"
    assert a.quality()["balanced"]


def half_import(a, path, after):
    """Killed so long after its topic appeared."""
    p = subprocess.Popen(command(a, path), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    topics = a.data / "log" / "topics"
    while p.poll() is None and not any(x.startswith("import.") for x in os.listdir(topics)):
        time.sleep(0.001)
    time.sleep(after)
    p.send_signal(signal.SIGKILL)
    p.communicate()


def test_aborted_rows_are_void_and_come_again(start, place):
    a = start()
    rows = make_rows(7, 60_000)
    path = place / "history.csv"
    write(path, rows)
    for after in (0.01, 0.02, 0.05, 0.1, 0.2):  # until it was killed behind its ImportBegin
        half_import(a, path, after)
        done = run(*command(a, path, "--abort")[1:], check=False)
        if done.returncode == 0:
            break
        assert done.returncode == 65 and "nothing to abort" in done.stderr
    assert done.returncode == 0, done.stderr
    until = time.time() + 60
    while served(a) and time.time() < until:
        time.sleep(0.3)
    assert served(a) == {}
    fewer = rows[:5000]
    write(path, fewer)
    s = json.loads(run(*command(a, path, "--json", "--wait", "60s")[1:]).stdout)
    assert (s["new"], s["known"]) == (5000, 0)
    until = time.time() + 30
    while served(a) != recount(fewer) and time.time() < until:
        time.sleep(0.3)
    assert served(a) == recount(fewer)
