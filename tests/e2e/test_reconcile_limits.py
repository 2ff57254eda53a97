"""Limits of a reconcile run, at each and one beyond (ARCHITECTURE.md): topics, and records without events behind realtime's last
seal. What was sent is the oracle."""
import json
import shutil
import subprocess
import time

import pytest

import log_reader
import reader
import test_import_resume as history
from conftest import BUILD, run
from test_reconcile import reconcile

TOPICS, QUIET = 1024, 10_000
JOB = BUILD / "jobs/reconcile/adtally-reconcile"
ROWS = history.make_rows(1, 10)
LIMIT = f"more than {TOPICS} topics of raw events"


def click(name):
    return {"event_id": name, "type": "click", "advertiser_id": "a", "campaign_id": "c", "cost_micros": 1000, "currency": "EUR"}


def wait(good, what, seconds=60):
    until = time.time() + seconds
    while not good():
        assert time.time() < until, what()
        time.sleep(0.2)


# ---- topics ------------------------------------------------------------------------------------------------------
def one_more(a, n):
    """A topic of a complete import, as another dataset would have made it."""
    topics = a.data / "log/topics"
    made = next(p for p in topics.iterdir() if p.name.startswith("import.") and not p.name.startswith("import.copy"))
    shutil.copytree(made, topics / f"import.copy{n:04d}")


def filled(start, place, topics):
    """A stopped Adtally with `events`, and imports to so many topics."""
    a = start("--partitions", "1", "--reconcile", "off", "--archive", "none")
    assert a.post([click("e1")])[0] == 202
    a.wait_counted()
    history.write(place / "history.csv", ROWS)
    subprocess.run(history.command(a, place / "history.csv", "--wait", "30s"), check=True, stdout=subprocess.DEVNULL)
    assert a.stop() == 0
    for n in range(topics - 2):
        one_more(a, n)
    return a


@pytest.mark.slow
def test_one_topic_too_many_is_no_run(start, place):
    """R1: by name, before anything is judged or posted."""
    a = filled(start, place, TOPICS + 1)
    with open(place / "job.log", "wb") as out:
        job = subprocess.Popen([JOB, "--data", a.data, "--partitions", "1", "--archive", "none", "--reconcile-every", "100ms"],
                               stdout=out, stderr=out)
    try:
        def error():
            file = a.data / "run/reconcile.json"
            return json.loads(file.read_text())["error"] if file.exists() else ""

        wait(lambda: LIMIT in error(), lambda: (place / "job.log").read_text()[-2000:], 120)
        assert "code=limit" in (place / "job.log").read_text()
    finally:
        job.terminate()
        job.wait(60)
    assert log_reader.runs(a.data) == [] and log_reader.books(a.data) == []


@pytest.mark.slow
def test_as_many_topics_as_there_may_be(start, place):
    """All of them are billed, each with its own money; with one more the bill stays as it was, and is told to stand still."""
    a = filled(start, place, TOPICS)
    a.settings = ["--partitions", "1", "--archive", "none", "--reconcile-every", "5s"]
    a.start(wait=0)
    wait(lambda: "unexplained=0" in a.log.read_text(errors="replace"), a.tail, 1800)
    a.wait_ready(300)
    imported = sum(money for _, _, money in history.recount(ROWS).values())

    def billed():
        status, answer = a.get("/v1/metrics?view=billing&window=total&group_by=none&from=2010-01-01T00:00:00Z&to=2040-01-01T00:00:00Z")
        return answer["totals"][0]["spend_micros"] if status == 200 else None

    wait(lambda: billed() == 1000 + (TOPICS - 1) * imported, lambda: f"{billed()}\n{a.tail()}", 60)
    one_more(a, TOPICS)
    wait(lambda: LIMIT in a.quality()["drift"]["run_error"], a.tail, 300)
    assert billed() == 1000 + (TOPICS - 1) * imported
    a.stop(300)


# ---- records without events --------------------------------------------------------------------------------------
def heartbeats(data, count):
    """Records of which nothing is counted, behind all there are, in the one partition."""
    line = f"{int(time.time() * 1000)}\t-\t1\t0\t0\t-\t0\t-\t-\n"
    subprocess.run([BUILD / "tests/e2e/put_events", data / "log", "1"], input=line * count, text=True, check=True,
                   stdout=subprocess.DEVNULL)


def unsealed(data):
    """Records of the one partition of `events` that no seal of realtime covers."""
    seals = [o["seal"]["to"] for o in (reader.output(v) for _, v in log_reader.records(data, "rollups")) if o["seal"]]
    return log_reader.records(data, "events")[-1][0] + 1 - max(seals)


def test_records_that_are_looked_at_for_events(start):
    """R2: behind realtime's last seal so many without events keep no comparison waiting; one more does."""
    a = start("--partitions", "1", "--dedupe-horizon", "2", "--reconcile", "off", "--archive", "none")
    assert a.post([click(f"e{i}") for i in range(50)])[0] == 202
    a.wait_counted()
    assert a.stop() == 0
    heartbeats(a.data, QUIET - unsealed(a.data))
    assert unsealed(a.data) == QUIET
    at = reconcile(a, "--wait", "1s", "--archive", "none")
    assert at["partitions_behind"] == [] and not at["unexplained"], at
    heartbeats(a.data, 1)
    beyond = reconcile(a, "--wait", "1s", "--archive", "none")
    assert beyond["partitions_behind"] == [0] and not beyond["unexplained"], beyond
    assert {c["cause"]: c["billed"]["clicks"] for c in beyond["causes"]} == {"none": 50}, beyond
