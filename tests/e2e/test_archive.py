"""The archive job (A1 to A3): raw records of the log in immutable segments, each once, whoever dies where.

Read back by archive_reader.py, which knows docs/ARCHIVE.md alone. The oracle of what must be there is what was sent,
and, byte for byte, the archive that one undisturbed archiver makes of the same log afterwards."""
import os
import random
import subprocess
import sys
import time

import pytest

import archive_reader
from conftest import BUILD, ROOT, run

ARCHIVE = BUILD / "jobs/archive/adtally-archive"
SEGMENT = "2MiB"
SETTINGS = ["--partitions", "2", "--archive-segment", SEGMENT]
EVENTS, BATCH = 240_000, 5000  # some seven segments in each partition
POINTS = ["archive.put", "archive.manifest", "archive.done"]


def send(a, seed, events=EVENTS // 4):
    dice, ids = random.Random(seed), []
    for first in range(0, events, BATCH):
        batch = [{"event_id": f"{seed}-{i}-{dice.getrandbits(64):016x}", "type": "click", "campaign_id": f"c{dice.randrange(50)}",
                  "advertiser_id": "acme", "publisher_id": f"p{dice.randrange(500)}", "user_id": f"u{dice.getrandbits(40):x}"}
                 for i in range(first, first + BATCH)]
        status, answer = a.post(batch)
        assert status == 202 and answer["accepted"] == BATCH, f"seed {seed}: {status} {answer}"
        ids += [e["event_id"] for e in batch]
    return ids


def wait_archived(a, seed, segments, seconds=60):
    """Until each partition has so many segments in the manifest."""
    until = time.time() + seconds
    while True:
        found = archive_reader.parts(a.data / "archive")
        if len(found) == 2 and all(len(p.entries) >= segments for p in found.values()):
            return found
        assert time.time() < until, f"seed {seed}: {[(n, len(p.entries)) for n, p in found.items()]}\n{a.tail()}"
        time.sleep(0.3)


def check(found, ids, seed, contiguous=True):
    """Every record of the log up to the archive's end, and each of its events as it was sent."""
    archived = [i for p in found.values() for i in p.ids()]
    assert len(set(archived)) == len(archived), f"seed {seed}: an event is archived twice"
    assert set(archived) <= set(ids), f"seed {seed}: an event that nobody sent"
    for n, p in found.items():  # offsets of these logs have no holes: none is missing
        assert not contiguous or [r[0] for r in p.records] == list(range(p.end)), f"seed {seed}: partition {n}"
        assert all(later[1] // 3600000 >= r[1] // 3600000 for r, later in zip(p.records, p.records[1:]))
    assert len(archived) > len(ids) // 2, f"seed {seed}: only {len(archived)} of {len(ids)}"


def lone(a, place, name, *settings):
    """What one archiver makes of this log, undisturbed, in another place."""
    process = subprocess.Popen([ARCHIVE, "--data", place / name, "--log", f"file:{a.data}/log", "--archive",
                                f"dir:{place}/{name}-archive", *SETTINGS, *settings],
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return process, place / f"{name}-archive"


def same(found, other, seed):
    for n, p in found.items():
        ours = [(e["first"], e["sha256"], e["chain"]) for e in p.entries]
        theirs = [(e["first"], e["sha256"], e["chain"]) for e in other[n].entries]
        assert ours == theirs[:len(ours)], f"seed {seed}: partition {n}"


def test_each_record_once_whatever_dies_and_whoever_else_archives(start, monkeypatch, place):
    """A1, A2: kill -9 before each step, and a second archiver with its own deaths beside it."""
    seed, once = 51, place / "struck"
    once.mkdir()
    monkeypatch.setenv("DF_FAIL", ";".join(f"{p}=abort@{n + 1}" for n, p in enumerate(POINTS)) + ";archive.put=error@4")
    monkeypatch.setenv("DF_FAIL_ONCE", str(once))
    a = start(*SETTINGS, "--checkpoint-max", "2s")
    monkeypatch.delenv("DF_FAIL")
    monkeypatch.delenv("DF_FAIL_ONCE")
    second = []
    try:
        ids = send(a, seed, EVENTS // 2)
        for life, point in enumerate([*POINTS, None]):
            if point:
                monkeypatch.setenv("DF_FAIL", f"{point}=abort@2")
            else:
                monkeypatch.delenv("DF_FAIL")
            second.append(subprocess.Popen(
                [ARCHIVE, "--data", place / "second", "--log", f"file:{a.data}/log", "--archive", f"dir:{a.data}/archive",
                 *SETTINGS], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
            ids += send(a, seed + 1 + life, EVENTS // 8)
            if point:
                time.sleep(0.5)  # most of them have died by now
                second[-1].kill()
                second[-1].wait(30)
        found = wait_archived(a, seed, 4)
        until = time.time() + 30  # of the points that strike both, one may have been first
        while missed := [i for i in range(len(POINTS) + 1) if not (once / str(i)).exists()]:
            assert time.time() < until, f"seed {seed}: never struck: {missed}\n{a.tail()}"
            ids += send(a, f"{seed}-{time.time()}", EVENTS // 8)
        time.sleep(2)  # the last cuts
        found = archive_reader.parts(a.data / "archive")
        check(found, ids, seed)
        process, where = lone(a, place, "lone")
        second.append(process)
        until = time.time() + 60
        while True:
            other = archive_reader.parts(where)
            if len(other) == 2 and all(len(other[n].entries) >= len(p.entries) for n, p in found.items()):
                break
            assert time.time() < until, f"seed {seed}: the lone archiver stands still"
            time.sleep(0.3)
        same(found, other, seed)
    finally:
        for p in second:
            p.kill()
            p.wait(30)
    run("archive", "verify", "--data", a.data)


def test_damage_is_named_and_nothing_is_replaced(start, place):
    """A2: a manifest that is cut stops its partition, by name, in readyz, status and the log lines; the other goes on."""
    seed = 61
    a = start(*SETTINGS)
    ids = send(a, seed)
    found = wait_archived(a, seed, 1)
    bad = found[1].folder / "manifest"
    whole = bad.read_bytes()
    a.kill("archive")
    bad.write_bytes(whole[:-20])
    until = time.time() + 60
    while True:
        status, text = a.get("/readyz", admin=True)
        if status == 503 and "not archived" in text and 'partition="1"' in text:
            break
        assert time.time() < until, f"seed {seed}: {status} {text}\n{a.tail()}"
        time.sleep(0.2)
    assert "events/1 is not archived" in run("status", "--data", a.data, check=False).stdout
    assert str(bad.relative_to(a.data / "archive")) in a.tail()
    done = run("archive", "verify", "--data", a.data, check=False)
    assert done.returncode == 65 and "00001/manifest" in done.stderr, done.stderr
    assert bad.read_bytes() == whole[:-20]
    bad.write_bytes(whole)  # a person puts it back: it goes on by itself
    ids += send(a, seed + 1)
    check(wait_archived(a, seed, len(found[1].entries) + 1, 90), ids, seed)
    a.wait_ready()


def test_the_log_keeps_what_is_not_archived(start, place):
    """A3, L2: the archive is a registered consumer that releases up to its manifest's end."""
    a = start(*SETTINGS)
    send(a, 71)
    found = wait_archived(a, 71, 1)
    for _ in range(100):
        held = {n: int((a.data / f"log/topics/events/consumers/archive/{n}").read_text().split()[3]) for n in (0, 1)}
        found = archive_reader.parts(a.data / "archive")
        if held == {n: p.end for n, p in found.items()}:
            break
        time.sleep(0.2)
    assert held == {n: p.end for n, p in found.items()}


def test_an_old_lag_is_a_problem(tmp_path):
    """A3: half of the log's retention."""
    (tmp_path / "run").mkdir()
    now = int(time.time() * 1000)
    for job in ["ingest", "realtime", "api", "archive"]:
        lines = [f"# adtally {job} pid={os.getpid()} started_ms={now} written_ms={now}"]
        if job == "archive":
            lines += ["adtally_archive_lag_limit_seconds 100"]
            lines += [f'adtally_archive_lag_seconds{{stream="events",partition="{n}"}} {v}' for n, v in ((0, 49), (1, 51))]
        (tmp_path / f"run/{job}.prom").write_text("\n".join(lines) + "\n")
    out = run("status", "--data", tmp_path, check=False).stdout
    assert "events/1 has records that are not archived" in out and "events/0 has records" not in out, out


def test_none_is_off(start):
    a = start("--archive", "none")
    status, _ = a.get("/readyz", admin=True)
    assert status == 200 and not (a.data / "archive").exists() and not (a.data / "run/archive.prom").exists()


def test_a_secret_in_a_command_line_is_refused(place):
    done = subprocess.run([ARCHIVE, "--data", place / "x", "--archive", "s3:b", "--s3-secret-key", "k"], capture_output=True,
                          text=True, timeout=60)
    assert done.returncode == 78 and "environment" in done.stderr + done.stdout, done


S3_ACCESS = {"aws_access_key_id": "adtally-test-key", "aws_secret_access_key": "adtally-test-secret"}


def s3_bucket(url):
    """The tests' bucket, by another client."""
    boto3, config = pytest.importorskip("boto3"), pytest.importorskip("botocore.config")
    return boto3.resource("s3", endpoint_url=url, region_name="eu-test-1", config=config.Config(
        s3={"addressing_style": "path"}, request_checksum_calculation="when_required"), **S3_ACCESS).Bucket("adtally-test")


@pytest.fixture
def s3(tmp_path):
    url = os.environ.get("TEST_S3")
    if url:
        yield url
        return
    pytest.importorskip("moto")
    tool = [sys.executable, ROOT / "tests/objects/s3.py"]
    url = subprocess.run([*tool, "start", "--dir", tmp_path / "s3", "--parent", str(os.getpid())], check=True,
                         capture_output=True, text=True).stdout.strip()
    yield url
    subprocess.run([*tool, "stop", "--dir", tmp_path / "s3"], check=True)


def test_to_an_object_store(start, monkeypatch, place, s3):
    """A2 over S3: the same segments as in a directory. Keys come by the environment and are in no command line."""
    seed, prefix = 81, f"e2e-{random.getrandbits(40):x}"
    monkeypatch.setenv("ADTALLY_S3_ACCESS_KEY", "adtally-test-key")
    monkeypatch.setenv("ADTALLY_S3_SECRET_KEY", "adtally-test-secret")
    to = ["--archive", f"s3:adtally-test/{prefix}", "--s3-endpoint", s3, "--s3-region", "eu-test-1"]
    a = start(*SETTINGS, *to)
    send(a, seed)
    process, where = lone(a, place, "lone")
    try:
        until = time.time() + 60
        while len(archive_reader.parts(where)) < 2:
            assert time.time() < until, a.tail()
            time.sleep(0.3)
        done = run("archive", "list", "--data", a.data, *to)
        for n, p in archive_reader.parts(where).items():
            for e in p.entries:
                assert f"events/{n}" in done.stdout and e["sha256"].hex() in done.stdout, done.stdout
        assert "intact" in run("archive", "verify", "--data", a.data, *to).stdout
        pid = a.job_pid("archive")
        with open(f"/proc/{pid}/cmdline", encoding="utf-8") as f:
            assert "adtally-test-secret" not in f.read()
    finally:
        process.kill()
        process.wait(30)
