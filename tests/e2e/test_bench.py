"""The benchmarks themselves: small runs whose totals are right, and which leave nothing behind.

No figure is judged here, only that it is there; the totals' oracle is the seeded input, whose duplicates the
benchmark counts as it makes them (D1), and which is recounted here where that is cheap.
"""
import json
import signal
import subprocess
import sys
import time
import xml.dom.minidom

import pytest

from conftest import ADTALLY, BUILD, ROOT, run

FOUR = ("events", "events_per_s", "cpu_ns_per_event", "peak_rss_bytes")
SEED = 71
SMALL = {
    "operators": ["--events", "20000"],
    "log": ["--events", "20000"],
    "realtime": ["--events", "20000"],
    "reconcile": ["--events", "20000"],
    "ingest": ["--events", "2000", "--batch", "100", "--connections", "4"],
    "metrics": ["--events", "2000", "--connections", "4", "--request-rate", "500", "--seconds", "1"],
    "freshness": ["--rate", "2000", "--seconds", "3", "--senders", "3"],
}
EXPECTED = {"operators": 20000, "log": 20000, "reconcile": 20000, "ingest": 2000, "metrics": 500}
BACKLOG = 25000  # of realtime: a quarter more than --events
ON_KAFKA = [n for n in SMALL if n not in ("operators", "reconcile")]


def bench(place, name, *args, **kw):
    done = run("bench", name, "--seed", SEED, "--work", place, "--quiet", "--json", *SMALL[name], *args, **kw)
    return json.loads(done.stdout)


def check_memory(r, text):
    """Ids sent are ids counted (D1), and the bound of their memory is that of ARCHITECTURE.md: 13.5 bytes an id,
    and 128 + 6 + 48 for each of at most 1,048,576 open ones a partition, of which there are 4."""
    assert r["events_counted"] == r["events_end"] >= r["events"], text
    assert r["events_third"] <= r["events_two_thirds"] <= r["events_end"], text
    for when in ("third", "two_thirds", "end"):
        ids = r[f"events_{when}"]
        assert r[f"realtime_rss_model_bytes_{when}"] == 27 * ids // 2 + 4 * 182 * min(ids // 4, 1 << 20), text
        beyond = r[f"realtime_rss_bytes_{when}"] - r[f"realtime_rss_model_bytes_{when}"]
        assert r[f"realtime_rss_beyond_model_bytes_{when}"] == beyond, text
        assert all(r[f"{job}_rss_bytes_{when}"] > 0 for job in ("ingest", "realtime", "api")), text


def check_figures(name, result):
    text = f"seed {SEED}: {name}: {result}"
    assert all(result[k] > 0 or k == "cpu_ns_per_event" and result[k] == 0 for k in FOUR), text  # ticks of 10 ms
    if name in EXPECTED:
        assert result["events"] == EXPECTED[name], text
    elif name == "realtime":
        assert result["backlog_events"] == BACKLOG and 10000 <= result["events"] <= BACKLOG, text
    else:  # three seconds at 2,000; batches of 500, and each sender ends the one it has begun
        assert 4500 <= result["events"] <= 7500 and result["events"] % 500 == 0, text
        assert result["late_batches"] >= 0 and result["sender_cpu_ns_per_event"] > 0, text
        check_memory(result, text)
    assert all(result[k] for k in ("date", "kernel", "cpu", "cores", "librdkafka", "rocksdb")), text


def topics_of(kafka):
    """What the broker has, but for its own."""
    from confluent_kafka.admin import AdminClient  # pylint: disable=import-outside-toplevel
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    topics = [t for t in admin.list_topics(timeout=10).topics if t.startswith(kafka.prefix)]
    groups = [g.group_id for g in admin.list_consumer_groups().result(10).valid if g.group_id.startswith(kafka.prefix)]
    return topics + groups


@pytest.mark.parametrize("name", list(SMALL))
def test_small_run(place, name):
    result = bench(place, name, *(["--recompute"] if name == "freshness" else []))
    check_figures(name, result)
    if name == "freshness":  # how many runs end beside it is the machine's affair
        assert result["reconcile_runs"] >= 0 and result["reconcile_cores"] > 0, f"seed {SEED}: {result}"
    assert not list(place.iterdir()), f"seed {SEED}: {name} left something behind"


@pytest.mark.parametrize("name", ON_KAFKA)
def test_small_run_on_kafka(place, kafka, name):
    result = bench(place, name, *kafka.settings())
    check_figures(name, result)
    assert result["log"] == "kafka" and result["broker"] != "unknown", result
    if name == "realtime":
        assert result["broker_cpu_ns_per_event"] >= 0, result
    assert not list(place.iterdir()), f"seed {SEED}: {name} left a directory behind"
    assert not topics_of(kafka), f"seed {SEED}: {name} left topics or groups behind"


def test_realtime_counts_what_was_made(place):
    """D1: of the same seed each chain sees the same duplicates, about 5 %, whatever the shape of the records."""
    results = [bench(place, "realtime", "--per-record", n) for n in (1, 100)] + [bench(place, "operators", "--events", BACKLOG)]
    found = {r["duplicates"] for r in results}
    assert len(found) == 1 and 500 < found.pop() < 1000, f"seed {SEED}: {found}"
    assert results[0]["records"] == BACKLOG, f"seed {SEED}: one event a record"
    assert results[0]["rows_per_event"] > 0 and results[0]["restart_s"] > 0
    for r in results[:2]:  # what was measured, and how many checkpoints a partition made in it
        assert r["middle"] in (0, 1) and r["warm_up_s"] > 0 and r["warm_up_events_per_s"] > 0, r
        assert 0 < r["checkpoints_per_partition"] <= r["checkpoints"], r
    for operator in ("decode", "guard", "dedupe", "tumble"):
        assert results[1][f"ns_{operator}"] > 0, results[1]


def test_input_begins_a_minute(place):
    """Whether a minute ends in it decides on the rows, and must not depend on when the benchmark was started."""
    within = [bench(place, "realtime", "--event-rate", "500")["rows_per_event"] for _ in range(3)]  # 50 s
    beyond = bench(place, "realtime", "--event-rate", "250")["rows_per_event"]  # 100 s
    assert 0 < 2 * max(within) < beyond, f"seed {SEED}: {within} {beyond}"


def test_input_follows_its_flags(place):
    """One campaign, ad and country over one simulated minute: a handful of rows; spread over a day: far more."""
    one = ["--campaigns", "1", "--ads", "1", "--countries", "1"]
    dense = bench(place, "realtime", *one, "--event-rate", "1000")
    sparse = bench(place, "realtime", *one, "--event-rate", "1")
    assert 0 < dense["rows_per_event"] * 10 < sparse["rows_per_event"], f"seed {SEED}: {dense} {sparse}"


def test_freshness_finds_the_rate(place):
    """--rate 0: half of what was counted at full speed is offered; sums hold over all phases (D1)."""
    result = bench(place, "freshness", "--rate", "0", "--probe", "6", "--seconds", "3")
    text = f"seed {SEED}: {result}"
    assert result["offered_per_s"] == result["max_events_per_s"] // 2 > 0, text
    assert result["events_end"] > result["events"] > 0 and result["late_batches"] >= 0, text
    check_memory(result, text)
    assert not list(place.iterdir()), f"seed {SEED}: left something behind"


def test_freshness_sends_refused_batches_again(place):
    """A server that holds all it may answers 503; the same ids come again, and each is counted once (D1)."""
    result = bench(place, "freshness", "--rate", 100000000, "--seconds", "2", "--senders", "64", "--in-flight-max", "1MiB")
    text = f"seed {SEED}: {result}"
    assert result["repeated_batches"] > 0, text  # 64 bodies of 80 KB at once
    assert result["late_batches"] > 0, text  # nobody can send so many
    check_memory(result, text)


def test_interrupted_run_leaves_nothing(place, kafka):
    """SIGINT at any stage: the exit code says so, jobs end, directory, topics and group are gone."""
    for name, wait in (("realtime", 1), ("realtime", 4), ("metrics", 3), ("freshness", 3)):
        size = ["--seconds", "60"] if name == "freshness" else ["--events", "30000000"]
        p = subprocess.Popen([ADTALLY, "bench", name, *size, "--work", place, "--quiet", *kafka.settings()],
                             stderr=subprocess.PIPE, text=True)
        time.sleep(wait)
        p.send_signal(signal.SIGINT)
        assert p.wait(60) == 75, f"{name} after {wait} s: {p.returncode} {p.stderr.read()}"
        assert "asked to stop" in p.stderr.read()
        assert not list(place.iterdir()), f"{name} after {wait} s left a directory behind"
        assert not topics_of(kafka), f"{name} after {wait} s left topics or groups behind"
        there = subprocess.run(["pgrep", "-f", str(place)], capture_output=True, text=True, check=False).stdout
        assert not there, f"{name} after {wait} s left processes behind"


@pytest.mark.parametrize("args,words", [
    (["nonsense"], "expected one of"),
    (["realtime", "--batch", "5"], "--batch is not for realtime"),
    (["realtime", "--probe", "5"], "--probe is not for realtime"),
    (["freshness", "--probe", "5"], "--probe is for --rate 0"),
    (["freshness", "--events", "5"], "--events is not for freshness"),
    (["realtime", "--log", "file:/tmp/x"], "makes its file log itself"),
    (["operators", "--log", "kafka:127.0.0.1:9"], "nothing to do with a log"),
])
def test_wrong_command_line(args, words):
    done = run("bench", *args, check=False)
    assert done.returncode == 64 and words in done.stderr, done.stderr


def test_results_are_appended(place):
    file = place / "results"
    (place / "work").mkdir()
    for _ in range(2):
        run("bench", "operators", "--events", "2000", "--work", place / "work", "--quiet", "--results", file)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [r["bench"] for r in lines] == ["operators"] * 2
    assert lines[0]["settings"] == {"events": "2000"}, lines[0]


def script(*args):
    done = subprocess.run([sys.executable, *map(str, args)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_scripts(place):
    """run, compare and growth in small, over the file log."""
    out = place / "out.json"
    only = ["--only", "operators", "--only", "realtime-file"]
    script("tests/bench/run", "--quick", "--no-kafka", "--adtally", ADTALLY, *only, "--out", out)
    text = script("tests/bench/run", "--quick", "--no-kafka", "--adtally", ADTALLY, *only, "--compare", out)
    assert set(json.loads(out.read_text())) == {"operators", "realtime-file"}
    assert "new/old" in text and "| realtime-file |" in text and "| dedupe |" in text, text
    text = script("tests/bench/compare", "--runs", 2, BUILD, ADTALLY, "operators", "--events", 2000)
    assert "| cpu_ns_per_event |" in text, text
    script("tests/bench/growth", "--quick", "--no-kafka", "--adtally", ADTALLY, place / "growth")
    assert (place / "growth/growth.md").read_text().count("\n| ") >= 9
    xml.dom.minidom.parse(str(place / "growth/growth.svg"))
