"""The same product on a real broker: the first numbers, restarts and kills (K3, K8, K9, K13, D1).

The oracles are the generator's truth, and an independent read_committed reader of the topics (tests/kafka/reader.py).
"""
import json
import random
import time
from pathlib import Path

import pytest

import reader
from conftest import run
from test_crash import SETTINGS, check, finish, generate
from test_first import stamp, this_minute

QUICK = ["--kafka-session-timeout", "6s"]


def test_a_click_sent_twice_is_counted_once(start, kafka):
    a = start(*kafka.settings())
    now, minute = this_minute()
    click = {"event_id": "click-1", "type": "click", "event_time": now, "advertiser_id": "acme", "campaign_id": "c17",
             "cost_micros": 250000, "currency": "EUR"}
    assert a.post(click) == (202, {"accepted": 1, "rejected": [], "warnings": []})
    assert a.post(click) == (202, {"accepted": 1, "rejected": [], "warnings": []})
    ledger = a.wait_counted()
    assert (ledger["counted"], ledger["duplicate"]) == (1, 1)
    rows = a.metrics(window="minute", **{"from": stamp(minute), "to": stamp(minute + 60000)}, campaign_id="c17")["rows"]
    assert [(r["clicks"], r["spend_micros"]) for r in rows] == [(1, 250000)]
    raw = [e for r in reader.records(kafka.bootstrap, kafka.prefix + "events") for e in reader.events(r.value)]
    assert [e["id"] for e in raw] == ["click-1", "click-1"]
    assert not (a.data / "log").exists(), "the file log is not used beside Kafka"
    assert [c["outcome"] for c in a.get("/v1/events/click-1")[1]["copies"]] == ["counted", "duplicate"]
    assert a.post({**click, "cost_micros": 1})[0] == 202
    assert a.wait_counted()["conflict"] == 1
    assert [c["outcome"] for c in a.get("/v1/events/click-1")[1]["copies"]] == ["counted", "duplicate", "conflict"]
    held = run("quarantine", "list", "--data", a.data, *kafka.settings()).stdout.splitlines()
    assert [json.loads(e).get("code") for e in held] == ["conflict", None], held


def test_numbers_equal_the_truth_also_after_a_restart(start, kafka):
    a = start(*SETTINGS, *QUICK, *kafka.settings())
    truth, sender = generate(a, 41, events=10000)
    finish(sender, 41)
    check(a, truth, 41)
    before = reader.committed(kafka.bootstrap, kafka.prefix)
    assert all(metadata.startswith("adtally1 ck-") for _, metadata in before.values()), before
    assert a.stop() == 0
    a.start()
    check(a, truth, 41)
    found = reader.Ledger(kafka.bootstrap, kafka.prefix)
    found.check_chain()
    assert not found.problems, "\n".join(found.problems[:20])


def test_kill_realtime_anytime(start, kafka):
    """K8: the instance comes back as the same static member and goes on where the transaction ended."""
    seed = 42
    dice = random.Random(seed)
    a = start(*SETTINGS, *QUICK, *kafka.settings())
    truth, sender = generate(a, seed, events=20000, rate=1500)
    while sender.poll() is None:
        time.sleep(dice.uniform(0.3, 2.0))
        a.kill(dice.choice(["realtime", "realtime", "api", "ingest"]))
    finish(sender, seed)
    check(a, truth, seed, "--killed")
    found = reader.Ledger(kafka.bootstrap, kafka.prefix)
    found.check_chain()
    assert not found.problems, "\n".join(found.problems[:20])


def test_broker_is_killed_and_comes_back(start, kafka):
    """Ingest answers 503 or waits, nothing is lost or counted twice."""
    a = start(*SETTINGS, *QUICK, *kafka.settings())
    truth, sender = generate(a, 43, events=8000, rate=800)
    time.sleep(3)
    kafka.cluster.nodes[0].kill()
    time.sleep(2)
    kafka.cluster.nodes[0].start()
    kafka.cluster.wait_ready()
    finish(sender, 43)
    check(a, truth, 43, "--killed")


@pytest.mark.parametrize("setting", ["isolation.level=read_uncommitted", "enable.idempotence=false", "acks=1",
                                     "auto.offset.reset=earliest", "partition.assignment.strategy=roundrobin"])
def test_overrides_that_break_exactness_are_refused(place, kafka, setting):
    """K13: by name, with the reason."""
    name, value = setting.split("=")
    done = run("up", "--data", place / "d", "--listen", "127.0.0.1:0", *kafka.settings(), f"--kafka.{name}={value}",
               check=False, timeout=60)
    assert done.returncode != 0 and f"kafka.{name} cannot be set" in done.stderr and "K13" in done.stderr, done.stderr


def test_other_settings_reach_every_job_and_no_command_line(start, kafka):
    """A secret goes by the environment: command lines can be read by everybody."""
    a = start(*kafka.settings(), "--kafka.sasl.password=hunter2", "--kafka.client.rack=r1")
    lines = [Path(f"/proc/{a.job_pid(j)}/cmdline").read_bytes() for j in ("realtime", "api", "ingest")]
    assert not [line for line in lines if b"hunter2" in line]
    environments = [Path(f"/proc/{a.job_pid(j)}/environ").read_bytes() for j in ("realtime", "api", "ingest")]
    assert all(b"ADTALLY_KAFKA__CLIENT_RACK=r1" in e for e in environments)


def test_no_broker_there_is_said(place):
    from conftest import free_port
    port = free_port()
    done = run("up", "--data", place / "d", "--listen", "127.0.0.1:0", "--log", f"kafka:127.0.0.1:{port}", check=False,
               timeout=60)
    assert done.returncode != 0 and f"127.0.0.1:{port}" in done.stderr, done.stderr
