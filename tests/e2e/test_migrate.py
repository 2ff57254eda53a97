"""The move from the file log to Kafka (`adtally migrate`): it carries dedupe state and ledger, loses and doubles nothing,
and is refused, or gone on with, wherever it is interrupted (K4, K8, K14, E1, T2).

Oracles: the generator's truth, and an own parser of the file log's segments (runtime/filelog/frame.c says the layout)
against an independent reader of the topics (tests/kafka/reader.py).
"""
import ctypes
import ctypes.util
import json
import os
import random
import signal
import struct
import subprocess
import time
from pathlib import Path

import pytest

import reader
from conftest import ADTALLY, run
from test_crash import SETTINGS, check, finish, generate
from test_first import stamp, this_minute

QUICK = ["--kafka-session-timeout", "6s"]
TOPICS = {"billing": 1, "commands": 1, "events": 4, "late": 4, "quarantine": 4, "rollups": 4, "runs": 1}  # partitions


# ---- the file log, read by other code --------------------------------------------------------------------------------
def inflate(raw, size):
    zstd = ctypes.CDLL(ctypes.util.find_library("zstd"))
    zstd.ZSTD_decompress.restype = ctypes.c_size_t
    out = ctypes.create_string_buffer(size)
    got = zstd.ZSTD_decompress(out, ctypes.c_size_t(size), raw, ctypes.c_size_t(len(raw)))
    assert got == size, f"zstd: {got} of {size} bytes"
    return out.raw


def frames(segment):
    at, data = 0, segment.read_bytes()
    while data[at:at + 4] == b"ADL1":
        base, _, append_ms = struct.unpack_from("<QQq", data, at + 8)
        count, _, raw_len, stored_len, _, codec = struct.unpack_from("<IIIIII", data, at + 32)
        payload = data[at + 56:at + 56 + stored_len]
        yield base, append_ms, count, inflate(payload, raw_len) if codec else payload
        at += 56 + stored_len


def file_log(data):
    """{(topic, partition): [(offset, append_ms, value)]} of the file log under a data directory."""
    out = {}
    for topic in sorted(p for p in (data / "log/topics").iterdir() if not p.name.startswith(".")):
        for part in sorted(p for p in topic.iterdir() if p.name.isdigit()):
            rows = out[(topic.name, int(part.name))] = []
            for segment in sorted(part.glob("*.seg")):
                for base, append_ms, count, raw in frames(segment):
                    at = 0
                    for i in range(count):
                        n, at = reader.varint(raw, at)
                        rows.append((base + i, append_ms, raw[at:at + n]))
                        at += n
    return out


def copied(kafka, names):
    out = {}
    for name in names:
        for p in reader.partitions(kafka.bootstrap, kafka.prefix + name):
            out[(name, p)] = []
        for r in reader.records(kafka.bootstrap, kafka.prefix + name):
            out[(name, r.partition)].append((r.offset, r.append_ms, r.value))
    return out


def same(kafka, was, why):
    """Bytes, offsets and times, record for record."""
    now = copied(kafka, sorted({t for t, _ in was}))
    assert sorted(now) == sorted(was), why
    for key, rows in was.items():
        assert now[key] == rows, f"{why}: {key}: {len(now[key])} records, {len(rows)} in the file log"


# ---- the command -----------------------------------------------------------------------------------------------------
def command(a, kafka, *more):
    return ["migrate", "--data", str(a.data), "--to", f"kafka:{kafka.bootstrap}", "--kafka-prefix", kafka.prefix,
            *SETTINGS, "--quiet", *more]


def migrate(a, kafka, *more, check=True, fail=None):
    env = {**os.environ, "DF_FAIL": fail} if fail else None
    return run(*command(a, kafka, *more), check=check, env=env)


def on_kafka(a, kafka, *settings):
    a.settings = [*SETTINGS, *settings, *QUICK, *kafka.settings()]
    return a.start()


def event(i, minute_ms=None, **more):
    e = {"event_id": f"e-{i}", "type": "click", "advertiser_id": "acme", "campaign_id": f"c{i % 5}",
         "cost_micros": 1000 + i, "currency": "EUR"}
    if minute_ms:
        e["event_time"] = stamp(minute_ms)
    return {**e, **more}


def rows(a, since):
    """Minute rows of half an hour, in an order of their own."""
    found = a.metrics(window="minute", **{"from": stamp(since - 1200000), "to": stamp(since + 600000)})["rows"]
    keep = [{k: v for k, v in r.items() if k not in ("state", "final", "partial", "status")} for r in found]
    return sorted(keep, key=lambda r: json.dumps(r, sort_keys=True))


def fill(a, seed, n=600):
    """Clicks with duplicates, late ones and conflicts, which are quarantined; the events and what was counted of them."""
    dice = random.Random(seed)
    _, minute = this_minute()
    sent = [event(i, minute) for i in range(n)]
    for i in range(0, n, 100):
        assert a.post(sent[i:i + 100])[0] == 202
    assert a.post(dice.sample(sent, 50))[0] == 202
    assert a.post([{**e, "cost_micros": 7} for e in sent[:3]])[0] == 202  # conflicts
    assert a.post([event(n + i, minute - 600000) for i in range(20)])[0] == 202  # late: grace is 3 min
    ledger = a.wait_counted()
    assert [ledger[k] for k in ("counted", "duplicate", "conflict", "late")] == [n, 50, 3, 20], \
        f"seed {seed}: {ledger}"
    return sent, minute


@pytest.fixture
def filled(start, place):
    a = start(*SETTINGS)
    sent, minute = fill(a, 5)
    before = rows(a, minute)
    assert a.stop() == 0
    return a, sent, minute, before


# ---- it moves --------------------------------------------------------------------------------------------------------
def test_everything_goes_on_where_it_stopped(filled, kafka):
    """D1, K8: what was counted before is a duplicate afterwards; rows, ledger, sources and positions are the same."""
    a, sent, minute, before = filled
    was = file_log(a.data)
    assert {t for t, _ in was} == set(TOPICS) and sum(map(len, was.values())) > 20
    done = migrate(a, kafka)
    assert f"adtally up --data {a.data} --log kafka:{kafka.bootstrap} --kafka-prefix {kafka.prefix}" in done.stdout
    for t in TOPICS:
        n = sum(len(r) for (name, _), r in was.items() if name == t)
        size = sum(len(v) for (name, _), r in was.items() if name == t for _, _, v in r)
        line = next(x for x in done.stdout.splitlines() if x.startswith(t + " "))
        assert line.split() == [t, str(TOPICS[t]), str(n), str(size), "yes"]
    same(kafka, was, "after the move")
    current = {p: (a.data / f"state/events/{p}/CURRENT").read_text().strip() for p in range(4)}
    for p, (offset, metadata) in reader.committed(kafka.bootstrap, kafka.prefix).items():
        assert metadata == f"adtally1 {current[p]}" and offset <= len(was[("events", p)])
    a = on_kafka(a, kafka)
    assert rows(a, minute) == before
    for i in range(0, len(sent), 100):
        assert a.post(sent[i:i + 100])[0] == 202
    assert a.post([event(10000 + i, minute) for i in range(40)])[0] == 202
    ledger = a.wait_counted()
    # The first three ids were seen last with other money (D1), and are conflicts again.
    assert [ledger[k] for k in ("counted", "duplicate", "conflict", "late")] == [640, 647, 6, 20], ledger
    assert a.quality()["balanced"]
    assert a.stop() == 0
    found = reader.Ledger(kafka.bootstrap, kafka.prefix)
    found.check_chain()
    assert not found.problems, "\n".join(found.problems[:20])


def test_traffic_goes_through_the_move(start, kafka):
    """The generator sends on; what got no answer it sends again with the same ids. Its truth is the oracle, before and
    after another restart."""
    seed = 61
    a = start(*SETTINGS)
    truth, sender = generate(a, seed, events=12000, rate=1000)
    time.sleep(4)
    assert a.stop() == 0
    was = file_log(a.data)
    assert sum(map(len, was.values())) > 20, f"seed {seed}"
    migrate(a, kafka)
    on_kafka(a, kafka)
    same_prefix = {k: [r for r in v if r[0] < len(was[k])] for k, v in copied(kafka, TOPICS).items()}
    assert same_prefix == was, f"seed {seed}"
    finish(sender, seed)
    check(a, truth, seed, "--killed")
    assert a.stop() == 0
    a.start()
    check(a, truth, seed, "--killed")
    assert a.stop() == 0
    found = reader.Ledger(kafka.bootstrap, kafka.prefix)
    found.check_chain()
    assert not found.problems, f"seed {seed}\n" + "\n".join(found.problems[:20])


def test_a_log_whose_beginning_was_deleted(start, kafka):
    """Retention: the topic on Kafka begins at the same offset, and the state goes on."""
    a = start(*SETTINGS, "--segment-size", "4096")
    sent, minute = fill(a, 8)
    for i in range(8):  # more segments
        assert a.post(sent[:300])[0] == 202
    a.wait_counted()
    before = rows(a, minute)
    assert a.stop() == 0
    for p in range(4):
        segments = sorted((a.data / f"log/topics/events/{p}").glob("*.seg"))
        assert len(segments) > 2, "the test must delete some"
        for s in segments[:len(segments) - 1]:
            s.unlink()
    was = file_log(a.data)
    firsts = {p: was[("events", p)][0][0] for p in range(4) if was[("events", p)]}
    assert firsts and min(firsts.values()) > 0
    migrate(a, kafka)
    from confluent_kafka import TopicPartition
    c = reader.consumer(kafka.bootstrap)
    for p, first in firsts.items():
        low, high = c.get_watermark_offsets(TopicPartition(kafka.prefix + "events", p), 20)
        assert (low, high) == (first, was[("events", p)][-1][0] + 1), p
    c.close()
    same(kafka, {k: v for k, v in was.items() if k[0] != "events"}, "the other topics")
    on_kafka(a, kafka)
    assert rows(a, minute) == before
    assert a.post(sent[10:110])[0] == 202
    ledger = a.wait_counted()
    assert (ledger["counted"], ledger["duplicate"]) == (600, 50 + 2397 + 100), ledger


def crc32c(data):
    crc = 0xffffffff
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
    return crc ^ 0xffffffff


def shift_first_frame(segment, ms):
    """The file log's clock was elsewhere when it wrote this one."""
    data = bytearray(segment.read_bytes())
    struct.pack_into("<q", data, 24, struct.unpack_from("<q", data, 24)[0] + ms)
    struct.pack_into("<I", data, 4, crc32c(data[8:56]))
    segment.write_bytes(data)


def test_old_and_future_times(filled, kafka):
    """T2, K10: what retention would delete is refused with the figure; times are carried, however far from the broker's."""
    a, *_ = filled
    hour = 3600000
    for topic, ms in [("late", -200 * hour), ("quarantine", 30 * hour)]:
        segments = [s for p in range(4) for s in sorted((a.data / f"log/topics/{topic}/{p}").glob("*.seg")) if s.stat().st_size]
        shift_first_frame(segments[0], ms)
    was = file_log(a.data)
    done = migrate(a, kafka, check=False)
    assert done.returncode == 78 and "200 h ago" in done.stderr and "--keep-log 224h" in done.stderr, done.stderr
    migrate(a, kafka, "--keep-log", "224h")
    same(kafka, was, "times")
    on_kafka(a, kafka, "--keep-log", "224h")
    assert a.wait_counted()["counted"] == 600


# ---- interrupted -----------------------------------------------------------------------------------------------------
STEPS = ["settle", "scan", "begin", "copy", "compare", "seal", "commit", "mark", "finish"]
CLOSED = "run `adtally migrate` again"


def died(done, where):
    assert done.returncode < 0, f"{where}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow)])
def test_killed_anywhere_and_run_again(filled, kafka, seed):
    """At steps drawn by the seed, and twice at any time: the copy is equal and the numbers go on; in between no job starts
    on the half of it."""
    dice = random.Random(seed)
    a, sent, minute, before = filled
    was = file_log(a.data)
    for step in sorted(dice.sample(STEPS, 5), key=STEPS.index):
        nth = dice.randint(1, 4 if step in ("settle", "begin", "copy", "commit", "finish") else 1)
        died(migrate(a, kafka, check=False, fail=f"{step}=abort@{nth}"), f"seed {seed}: {step}@{nth}")
        if step == "copy":
            up = run("up", "--data", a.data, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", *SETTINGS,
                     *kafka.settings(), check=False, timeout=60)
            assert up.returncode == 78 and CLOSED in up.stderr, f"seed {seed}: {up.returncode}\n{up.stderr}"
    for _ in range(2):
        p = subprocess.Popen([str(ADTALLY), *command(a, kafka)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        time.sleep(dice.uniform(0.05, 1.0))
        p.send_signal(signal.SIGKILL)
        p.communicate()
    migrate(a, kafka)
    same(kafka, was, f"seed {seed}")
    on_kafka(a, kafka)
    assert rows(a, minute) == before, f"seed {seed}"
    assert a.post(sent[10:210])[0] == 202
    ledger = a.wait_counted()
    assert (ledger["counted"], ledger["duplicate"]) == (600, 250), f"seed {seed}: {ledger}"


@pytest.mark.slow
@pytest.mark.parametrize("delayed", ["copy=delay(4000)@4", "compare=delay(4000)"])
def test_broker_lost_in_the_middle(filled, kafka, delayed):
    """Wherever it was, it ends with what to do, and goes on when the broker is back."""
    a, *_ = filled
    was = file_log(a.data)
    env = {**os.environ, "DF_FAIL": delayed}
    p = subprocess.Popen([str(ADTALLY), *command(a, kafka)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
    until = time.time() + 30
    while not any(copied_yet(kafka, t) for t in TOPICS):
        assert time.time() < until and p.poll() is None
        time.sleep(0.1)
    kafka.cluster.nodes[0].kill()
    _, err = p.communicate(timeout=120)
    assert p.returncode == 75 and "by running it again" in err, (p.returncode, err)
    kafka.cluster.nodes[0].start()
    kafka.cluster.wait_ready()
    migrate(a, kafka)
    same(kafka, was, "after the broker came back")


def copied_yet(kafka, topic):
    try:
        return bool(reader.records(kafka.bootstrap, kafka.prefix + topic))
    except LookupError:
        return False


@pytest.mark.parametrize("step", [pytest.param("copy@3", marks=pytest.mark.slow),
                                  pytest.param("compare", marks=pytest.mark.slow), "mark"])
def test_gone_on_with_the_file_log_then_moved(filled, kafka, step):
    """Until the mark the file log is the log: what it counted after an interrupted run is moved by the next."""
    a, sent, minute, _ = filled
    name, _, nth = step.partition("@")
    died(migrate(a, kafka, check=False, fail=f"{name}=abort@{nth or 1}"), step)
    a.start()
    assert a.post([event(5000 + i, minute) for i in range(60)])[0] == 202
    assert a.wait_counted()["counted"] == 660
    before = rows(a, minute)
    assert a.stop() == 0
    was = file_log(a.data)
    migrate(a, kafka)
    same(kafka, was, step)
    on_kafka(a, kafka)
    assert rows(a, minute) == before
    assert a.post([event(5000 + i, minute) for i in range(60)])[0] == 202
    ledger = a.wait_counted()
    assert (ledger["counted"], ledger["duplicate"]) == (660, 110), ledger


def test_outputs_without_seals_are_written_before_the_copy(start, kafka):
    """K4: realtime died between CURRENT and the last output; the move's takeover writes what is missing."""
    os.environ["DF_FAIL"] = "append:rollups=abort@6*0"
    try:
        a = start(*SETTINGS)
        _, minute = this_minute()
        a.process.send_signal(signal.SIGSTOP)  # nobody starts realtime again
        pid, i, until = a.job_pid("realtime"), 0, time.time() + 60
        while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
            assert time.time() < until and a.post([event(i, minute)])[0] == 202, "realtime lives"
            i += 1
    finally:
        del os.environ["DF_FAIL"]
    a.kill("up")
    time.sleep(1)
    was = file_log(a.data)
    done = migrate(a, kafka)
    now = file_log(a.data)
    assert len(now[("rollups", 0)]) + len(now[("rollups", 1)]) + len(now[("rollups", 2)]) + len(now[("rollups", 3)]) > \
        sum(len(was[("rollups", p)]) for p in range(4)), f"nothing was missing\n{done.stdout}"
    same(kafka, now, "after the settling")
    on_kafka(a, kafka)
    ledger = a.wait_counted()
    assert ledger["counted"] == ledger["accepted"] and a.quality()["balanced"], ledger
    assert a.stop() == 0
    found = reader.Ledger(kafka.bootstrap, kafka.prefix)
    found.check_chain()
    assert not found.problems, "\n".join(found.problems[:20])


# ---- refused ---------------------------------------------------------------------------------------------------------
def test_a_record_too_many_or_another_one_is_refused(filled, kafka):
    """Nothing is switched: the file log goes on."""
    from confluent_kafka import Producer
    a, sent, minute, before = filled
    was = file_log(a.data)
    died(migrate(a, kafka, check=False, fail="compare=abort"), "compare")
    p = Producer({"bootstrap.servers": kafka.bootstrap})
    p.produce(kafka.prefix + "late", b"one more", partition=2)
    assert p.flush(20) == 0
    done = migrate(a, kafka, check=False)
    assert done.returncode == 65 and "late/2" in done.stderr and "Delete the topic" in done.stderr, done.stderr
    assert not (a.data / "log/MOVED").exists()
    a.start()
    assert rows(a, minute) == before
    assert a.stop() == 0


def test_another_record_is_named_by_its_offset(filled, kafka):
    """The copy is killed in front of a record, another one is put in its place: the digest differs."""
    from confluent_kafka import Producer
    a, *_ = filled
    topic, at = "events", 0
    died(migrate(a, kafka, check=False, fail="copy=abort@1"), "copy")
    # Whichever topic was begun, `rollups` and `events` are empty yet: make one of them begin wrongly.
    died(migrate(a, kafka, check=False, fail="begin=abort@4"), "begin")
    was = file_log(a.data)
    died(migrate(a, kafka, check=False, fail="compare=abort"), "compare")
    delete(kafka, topic)
    died(migrate(a, kafka, check=False, fail="copy=abort"), "copy")
    p = Producer({"bootstrap.servers": kafka.bootstrap})
    p.produce(kafka.prefix + topic, b"another", partition=1, timestamp=was[(topic, 1)][0][1])
    assert p.flush(20) == 0
    done = migrate(a, kafka, check=False)
    assert done.returncode == 65 and f"{topic}/1 offset {at} differs" in done.stderr, done.stderr
    delete(kafka, topic)  # the way out that it names
    migrate(a, kafka)
    same(kafka, file_log(a.data), "after the way out")


def delete(kafka, topic):
    from confluent_kafka.admin import AdminClient
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    admin.delete_topics([kafka.prefix + topic])[kafka.prefix + topic].result(30)
    until = time.time() + 30
    while kafka.prefix + topic in admin.list_topics(timeout=10).topics:
        assert time.time() < until
        time.sleep(0.1)


def test_afterwards_the_file_log_is_closed_and_the_move_is_done(filled, kafka):
    a, *_ = filled
    was = file_log(a.data)
    dry = migrate(a, kafka, "--dry-run")
    assert "would copy" in dry.stdout and not (a.data / "log/MOVED").exists()
    migrate(a, kafka)
    up = run("up", "--data", a.data, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", *SETTINGS, check=False, timeout=60)
    assert up.returncode == 78, up.stderr
    assert f"start with --log kafka:{kafka.bootstrap} --kafka-prefix {kafka.prefix}" in up.stderr, up.stderr
    again = migrate(a, kafka)
    assert "moved already" in again.stdout, again.stdout
    on_kafka(a, kafka)
    again = migrate(a, kafka)  # also beside the running one
    assert "moved already" in again.stdout, again.stdout
    assert file_log(a.data) == was
    kafka.prefix += "other."
    other = migrate(a, kafka, check=False)
    assert other.returncode == 78 and "moved already" in other.stderr, other.stderr


def test_while_it_runs_it_is_refused(start, kafka):
    a = start(*SETTINGS)
    assert a.post([event(1)])[0] == 202
    done = migrate(a, kafka, check=False)
    assert done.returncode == 75 and "stop `adtally up` first" in done.stderr, done.stderr


def test_topics_that_are_there_are_not_touched(filled, kafka, start):
    """A prefix in use by another installation."""
    a, *_ = filled
    b = start(*SETTINGS, *QUICK, *kafka.settings(), name="other")
    assert b.post([event(1)])[0] == 202
    b.wait_counted()
    assert b.stop() == 0
    done = migrate(a, kafka, check=False)
    assert done.returncode == 1 and "--kafka-prefix that is not in use" in done.stderr, done.stderr
    b.start()
    assert b.wait_counted()["counted"] == 1


def test_wrong_settings_and_places_are_refused(filled, kafka, place):
    a, *_ = filled
    for more, code, text in [(["--grace", "4m"], 78, "grace"), (["--partitions", "5"], 78, "partitions"),
                             (["--from", "file:/nowhere"], 65, "no file log"), (["--from", "tape:x"], 78, "file:DIR"),
                             (["--keep-log", "2h"], 78, "--keep-log must be")]:
        done = migrate(a, kafka, *more, check=False)
        assert done.returncode == code and text in done.stderr, (more, done.returncode, done.stderr)
    assert run("migrate", "--data", a.data, check=False).returncode == 64
    migrate(a, kafka)
