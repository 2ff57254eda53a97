"""Every numbered step of the commit protocol, struck by a crash and by an error, changes no number (K1 to K8).

The points are those of runtime/core/session.c ("Steps"); each strikes once over all lives of the job (DF_FAIL_ONCE), so
the next life gets past it. The oracle is the generator's truth; late and quarantined events are part of it.
"""
import pytest

import reader
from test_crash import SETTINGS, check, finish, generate

OPEN = ["takeover", "restore", "scan:late", "scan:quarantine", "scan:rollups", "read"]
COMMIT = ["cut", "persist", "publish", "append:late", "append:quarantine", "append:rollups", "retire", "release"]
STEPS = [f"{s}@1" for s in OPEN] + [f"{s}@3" for s in COMMIT]
# On Kafka (session_txn.c); without retention by consumers there is nothing to release.
TXN = ["begin", "produce:late", "produce:quarantine", "produce:rollups", "offsets", "commit"]
KAFKA_STEPS = [f"{s}@1" for s in ["fence", *OPEN]] + [f"{s}@3" for s in ["cut", "persist", *TXN, "publish", "retire"]]


def run_with(start, monkeypatch, place, points, seed, seconds, rate=400, settings=()):
    once = place / "struck"
    once.mkdir()
    monkeypatch.setenv("DF_FAIL", ";".join(points))
    monkeypatch.setenv("DF_FAIL_ONCE", str(once))
    a = start(*SETTINGS, "--checkpoint-max", "100ms", *settings, wait=0)
    monkeypatch.delenv("DF_FAIL")
    monkeypatch.delenv("DF_FAIL_ONCE")
    a.wait_ready(90)
    truth, sender = generate(a, seed, events=rate * seconds, rate=rate)
    finish(sender, seed)
    check(a, truth, seed)
    missed = [p for i, p in enumerate(points) if not (once / str(i)).exists()]
    assert not missed, f"seed {seed}: never struck: {missed}\n{a.tail()}"
    return a


def test_names_are_checked(start, monkeypatch):
    """A test that misspells a point must not pass."""
    for bad in ["persist", "persist=explode", "persist=error(no_such)", "persist=delay", "=abort"]:
        monkeypatch.setenv("DF_FAIL", bad)
        a = start(wait=0)
        assert a.process.wait(30) != 0, bad
        assert "DF_FAIL" in a.tail(), bad


# After some crashes in a row the supervisor waits 5 s before each restart.
@pytest.mark.parametrize("action, seconds", [("abort", 50), ("error", 15), ("error(disk_full)", 15), ("delay(50)", 5)])
def test_all_in_one_run(start, monkeypatch, place, action, seconds):
    run_with(start, monkeypatch, place, [s.replace("@", f"={action}@") for s in STEPS], 31, seconds)


@pytest.mark.slow
@pytest.mark.parametrize("action", ["abort", "error"])
@pytest.mark.parametrize("step", STEPS)
def test_each_alone(start, monkeypatch, place, step, action):
    run_with(start, monkeypatch, place, [step.replace("@", f"={action}@")], 32, 4)


def on_kafka(start, monkeypatch, place, kafka, points, seed, seconds):
    """K3, K7, K8: the independent reader sees every checkpoint once, late and quarantine included."""
    (place / "store").mkdir()
    a = run_with(start, monkeypatch, place, points, seed, seconds, rate=200,
                 settings=["--kafka-session-timeout", "6s", "--checkpoint-store", place / "store", *kafka.settings()])
    assert a.stop() == 0
    found = reader.Ledger(kafka.bootstrap, kafka.prefix)
    found.check_chain()
    assert not found.problems, f"seed {seed}\n" + "\n".join(found.problems[:20])


@pytest.mark.parametrize("action, seconds", [("abort", 100), ("error", 30), pytest.param("delay(50)", 8, marks=pytest.mark.slow)])
def test_all_in_one_run_on_kafka(start, monkeypatch, place, kafka, action, seconds):
    on_kafka(start, monkeypatch, place, kafka, [s.replace("@", f"={action}@") for s in KAFKA_STEPS], 33, seconds)


@pytest.mark.slow
@pytest.mark.parametrize("action", ["abort", "error", "error(ownership_lost)", "error(try_again)"])
@pytest.mark.parametrize("step", KAFKA_STEPS)
def test_each_alone_on_kafka(start, monkeypatch, place, kafka, step, action):
    on_kafka(start, monkeypatch, place, kafka, [step.replace("@", f"={action}@")], 34, 8)
