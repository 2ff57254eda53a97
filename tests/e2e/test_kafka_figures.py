"""Figures, printed and never judged (`tests/run --slow` shows them): what a restart, a takeover and a commit take on
Kafka. They go to the file in ADTALLY_FIGURES, too. Numbers are right anyway: that is what the other tests are for.
"""
import os
import re
import signal
import statistics
import time

import pytest

import reader
from conftest import FIGURES
from test_kafka_ledger import GROUP, SESSION_SECONDS, SETTINGS, Source, judge, members, raw_ends, wait_committed  # noqa: F401

pytestmark = pytest.mark.slow


def say(text):
    print(text)
    if FIGURES:
        with open(FIGURES, "a", encoding="utf-8") as f:
            f.write(text + "\n")


def moment(line):
    """Seconds of the day, of a log line."""
    h, m, s = re.match(r"\d+-\d+-\d+T(\d+):(\d+):([\d.]+)Z", line).groups()
    return int(h) * 3600 + int(m) * 60 + float(s)


def takeovers(log, after):
    """(when assigned, [(when taken over, ms of it)]) of what the log says after that many bytes."""
    lines = log.read_text(errors="replace")[after:].splitlines()
    assigned = [moment(x) for x in lines if "change=assign" in x]
    taken = [(moment(x), int(re.search(r" in (\d+) ms", x).group(1))) for x in lines if "taken over k=" in x]
    return assigned, taken


def quantiles(a):
    p = a.prometheus()
    out = {q: v * 1000 for (name, labels), v in p.items() for q in ("0.5", "0.99")
           if name == "adtally_checkpoint_seconds" and f'quantile="{q}"' in labels}
    assert len(out) == 2, p
    return out


def test_restart_takeover_and_commit(start, kafka, members, place):  # noqa: F811
    settings = [*SETTINGS, *GROUP, *kafka.settings(), "--checkpoint-store", place / "store", "--partitions", 4]
    (place / "store").mkdir()
    a = start(*settings)
    source = Source(a, "f", 11, 2000)
    source.start()
    time.sleep(30)
    commit = quantiles(a)
    say(f"commit: p50 {commit['0.5']:.0f} ms, p99 {commit['0.99']:.0f} ms (state uploaded, one transaction; 4 partitions, 30 s)")
    restarts = []
    for _ in range(5):
        at, killed = len(a.log.read_text(errors="replace")), time.time()
        a.kill("realtime")
        while len(takeovers(a.log, at)[1]) < 4:
            assert time.time() < killed + 60, a.tail()
            time.sleep(0.02)
        restarts.append(time.time() - killed)
        time.sleep(6)
    say(f"restart of a killed instance, all 4 partitions: median {statistics.median(restarts):.2f} s of {len(restarts)}, "
        f"most {max(restarts):.2f} s")
    other = members("b", settings)
    other.start()
    time.sleep(8)
    at, stopped = len(other.log.read_text(errors="replace")), time.time()
    os.kill(a.job_pid("realtime"), signal.SIGSTOP)
    pid = a.job_pid("realtime")
    day = time.gmtime(stopped)
    begun = day.tm_hour * 3600 + day.tm_min * 60 + day.tm_sec + stopped % 1
    try:
        while not (found := takeovers(other.log, at))[0] or len(found[1]) < 2:
            assert time.time() < stopped + 60, other.log.read_text(errors="replace")[-2000:]
            time.sleep(0.05)
        detected, restored = found[0][0] - begun, max(t for t, _ in found[1]) - found[0][0]
        say(f"takeover of a stopped peer: noticed after {detected:.1f} s (session time-out {SESSION_SECONDS} s), "
            f"restored in {restored:.2f} s (partitions: {', '.join(f'{ms} ms' for _, ms in found[1])})")
    finally:
        os.kill(pid, signal.SIGCONT)
    source.finish()
    wait_committed(kafka, raw_ends(kafka), 60)
    problems = judge(a, kafka, [other], [source], [])
    assert not problems, "\n".join(problems[:20])
    assert reader.committed(kafka.bootstrap, kafka.prefix)
