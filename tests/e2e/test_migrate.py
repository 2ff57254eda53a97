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

import pytest

import reader
from conftest import ADTALLY, run
from test_crash import SETTINGS, check, finish, generate
from test_first import stamp, this_minute

QUICK = ["--kafka-session-timeout", "6s"]
OUTPUTS = ["events", "late", "quarantine", "rollups"]


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
    assert {t for t, _ in was} == set(OUTPUTS) and sum(map(len, was.values())) > 20
    done = migrate(a, kafka)
    assert f"adtally up --data {a.data} --log kafka:{kafka.bootstrap} --kafka-prefix {kafka.prefix}" in done.stdout
    for t in OUTPUTS:
        n = sum(len(r) for (name, _), r in was.items() if name == t)
        size = sum(len(v) for (name, _), r in was.items() if name == t for _, _, v in r)
        line = next(x for x in done.stdout.splitlines() if x.startswith(t + " "))
        assert line.split() == [t, "4", str(n), str(size), "yes"]
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
    assert (ledger["counted"], ledger["duplicate"], ledger["late"]) == (640, 650, 20), ledger
    assert a.quality()["balanced"]
    assert a.stop() == 0
    found = reader.Ledger(kafka.bootstrap, kafka.prefix)
    found.check_chain()
    assert not found.problems, "\n".join(found.problems[:20])
