"""kill -9 of any process at random moments changes no number (K1 to K8, L1, D1), and a lost, damaged or
put-back state directory is refused by name and recovered exactly (K10, K11, K14).

The oracle is the generator's own truth, computed from what it sent, never from what was served.
"""
import json
import random
import shutil
import subprocess
import time
from datetime import datetime, timedelta, timezone

import pytest

from conftest import ADTALLY, CRASH_EVENTS, CRASH_SEEDS, SANITIZED, run

SETTINGS = ["--grace", "3m", "--checkpoint-min", "50ms", "--checkpoint-max", "500ms", "--heartbeat", "500ms"]
SHARES = ["--duplicates", "0.05", "--conflicts", "0.002", "--out-of-order", "0.02", "--late", "0.005", "--broken", "0.001",
          "--currencies", "EUR,USD"]


def generate(a, seed, events=CRASH_EVENTS, rate=None):
    """Traffic in the background; its truth is written at the end."""
    rate = rate or max(2500, events // 10)
    truth = a.data.parent / f"truth-{seed}.json"
    return truth, subprocess.Popen(
        [str(ADTALLY), "generate", "--to", a.url, "--live", "--events", str(events), "--seed", str(seed), "--rate", str(rate),
         "--campaigns", "20", *SHARES, "--grace", "3m", "--truth", str(truth), "--quiet"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process, seed):
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0, f"seed {seed}: generate: exit {process.returncode}\n{out}"


def check(a, truth, seed, *options):
    """Every minute, hour and day number, the ledger, and each source's balance."""
    done = run("check", "--url", a.url, "--truth", truth, "--wait", "60s", *options, check=False)
    assert done.returncode == 0, f"seed {seed}\n{done.stdout}\n{done.stderr}\n{a.tail()}"
    q = a.quality()
    assert q["balanced"], f"seed {seed}: {q['ledger']}"
    for s in q["sources"]:
        n = s["ledger"]
        assert n["accepted"] == sum(n[k] for k in ["counted", "duplicate", "conflict", "late", "quarantined", "pending"]), \
            f"seed {seed}: {s}"
        assert s["sequence_gaps"] == 0, f"seed {seed}: {s}"
    for start in q["ingest"]:
        assert start["received"] == start["accepted"] + start["rejected"] + start["unanswered"], f"seed {seed}: {start}"


@pytest.mark.parametrize("seed", range(1, CRASH_SEEDS + 1))
def test_kill_anything_anytime(start, seed):
    dice = random.Random(seed)
    a = start(*SETTINGS)
    truth, sender = generate(a, seed)
    while sender.poll() is None:
        time.sleep(dice.uniform(0.05, 1.2))
        victim = dice.choice(["realtime", "realtime", "ingest", "api", "up"])
        a.kill(victim)
        if victim == "up":  # the whole machine's worth of processes; everything dies with it
            a.start()
    finish(sender, seed)
    check(a, truth, seed, "--killed")
    assert a.stop() == 0
    # And once more from disk: nothing was only in memory.
    a.start()
    check(a, truth, seed, "--killed")


@pytest.mark.sanitized
def test_kill_sanitized(start):
    """The same with AddressSanitizer watching, once."""
    if not SANITIZED:
        pytest.skip("the other build runs this")
    a = start(*SETTINGS)
    truth, sender = generate(a, 99, events=4000, rate=1000)
    dice = random.Random(99)
    while sender.poll() is None:
        time.sleep(dice.uniform(0.5, 1.5))
        a.kill(dice.choice(["realtime", "api"]))
    finish(sender, 99)
    check(a, truth, 99)
    assert "ERROR: AddressSanitizer" not in a.log.read_text(errors="replace")


@pytest.fixture
def filled(start):
    """A stopped Adtally with numbers, and the truth about them."""
    a = start(*SETTINGS)
    truth, sender = generate(a, 7, events=4000, rate=4000)
    finish(sender, 7)
    check(a, truth, 7)
    a.stop()
    return a, truth


def state(a, partition):
    return a.data / "state" / "events" / str(partition)


def checkpoint(a, partition):
    return state(a, partition) / (state(a, partition) / "CURRENT").read_text().split()[0]


def refusal(a):
    """Labels of refused partitions; none as well while it is still starting."""
    try:
        return [labels for (name, labels) in a.prometheus() if name == "adtally_partition_refused"]
    except OSError:
        return []


def wait(what, seconds=30):
    until = time.time() + seconds
    while not what():
        assert time.time() < until, "it did not happen"
        time.sleep(0.2)


def check_days(a, truth, more):
    """The truth's days, beside clicks that it does not know: {campaign: clicks}."""
    days = json.loads(truth.read_text())["day"]
    span = {"window": "day", "from": days[0]["window_start"],
            "to": (datetime.now(timezone.utc) + timedelta(days=1)).strftime("%Y-%m-%dT00:00:00Z")}
    for campaign, clicks in more.items():
        assert sum(r["clicks"] for r in a.metrics(**span, campaign_id=campaign)["rows"]) == clicks
    for r in days:
        served = a.metrics(**span, campaign_id=r["campaign_id"], group_by="campaign_id")["rows"]
        same = [s for s in served if (s["window_start"], s["currency"]) == (r["window_start"], r["currency"])]
        assert len(same) == 1
        for k in ["impressions", "clicks", "conversions", "spend_micros", "payout_micros", "conversion_value_micros"]:
            assert same[0][k] == r[k], (r, same)


def test_lost_state_is_refused_then_rebuilt_from_the_log(filled):
    """K10, K11: outputs stay suppressed, the other partitions go on."""
    a, truth = filled
    shutil.rmtree(state(a, 2))
    a.start(wait=0)
    wait(lambda: a.log.read_text(errors="replace").count("refused") > 0)
    wait(lambda: refusal(a))
    assert 'partition="2"' in refusal(a)[0] and 'code="state_mismatch"' in refusal(a)[0]
    wait(lambda: a.metrics(window="hour")["missing_partitions"] == [2])
    for i in range(200):  # the others count on
        assert a.post({"event_id": f"more-{i}", "type": "click", "advertiser_id": "z", "campaign_id": "z"})[0] == 202
    dry = run("recover", "--data", a.data, "--partition", 2, "--from", "log", "--dry-run")
    assert "would" in dry.stdout
    run("recover", "--data", a.data, "--partition", 2, "--from", "log")
    wait(lambda: not refusal(a))
    a.wait_counted()
    check_days(a, truth, {"z": 200})


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_damaged_checkpoint_is_named_then_the_parent_is_used(filled, damage):
    """K2, K11: each kind of damage is detected before use; `recover --from checkpoint` goes back."""
    a, truth = filled
    victim = max((p for p in checkpoint(a, 1).iterdir() if p.suffix == ".sst" or p.name.startswith("MANIFEST")),
                 key=lambda p: p.stat().st_size)
    if damage == "remove":
        victim.unlink()
    else:
        data = bytearray(victim.read_bytes())
        if damage == "flip":
            data[len(data) // 2] ^= 1
        else:
            del data[len(data) // 2:]
        victim.unlink()  # the inode is shared with the parent through a hard link
        victim.write_bytes(data)
    a.start(wait=0)
    wait(lambda: refusal(a))
    assert 'partition="1"' in refusal(a)[0] and 'code="corrupt"' in refusal(a)[0]
    assert victim.name in a.log.read_text(errors="replace")
    shown = run("recover", "--data", a.data, "--partition", 1).stdout
    assert "DAMAGED" in shown and victim.name in shown
    done = run("recover", "--data", a.data, "--partition", 1, "--from", "checkpoint", check=False)
    if done.returncode != 0:  # only one checkpoint was ever kept
        run("recover", "--data", a.data, "--partition", 1, "--from", "log")
    wait(lambda: not refusal(a))
    check(a, truth, 7)


def test_other_settings_are_refused_by_name(filled):
    """K14: another grace would make other numbers of the same log."""
    a, truth = filled
    a.settings = ["--grace", "5m"]
    a.start(wait=0)
    wait(lambda: len(refusal(a)) == 4)
    assert "grace" in a.log.read_text(errors="replace")
    a.stop()
    a.settings = SETTINGS
    a.start()
    check(a, truth, 7)


def test_lost_view_is_built_again(filled):
    """The view is a cache of the log: the same numbers from an empty directory, or from its snapshot."""
    a, truth = filled
    shutil.rmtree(a.data / "view")
    a.start()
    check(a, truth, 7)


def test_deaf_state_directory_of_another_partition(filled):
    """K8, K14: foreign state is never used."""
    a, truth = filled
    shutil.rmtree(state(a, 3))
    shutil.copytree(state(a, 0), state(a, 3))
    a.start(wait=0)
    wait(lambda: refusal(a))
    assert "foreign state" in a.log.read_text(errors="replace")
    run("recover", "--data", a.data, "--partition", 3, "--from", "log")
    wait(lambda: not refusal(a))
    check(a, truth, 7)
