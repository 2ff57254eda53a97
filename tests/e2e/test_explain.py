"""GET /explain and `adtally explain`: the offsets of a number are those of its events. Oracle: the raw segments, read by
archive_reader.py, and the events that make_log says it wrote."""
import json
import random
import urllib.parse
import urllib.request
from datetime import datetime, timezone

import archive_reader
from conftest import Adtally, free_port, run
from test_archive import S3_ACCESS, s3, s3_bucket  # noqa: F401 - s3: a fixture
from test_reconcile import PARTITIONS, SETTINGS, judge, made

MINUTE, HOUR = 60000, 3600000


def utc(ms):
    return datetime.fromtimestamp(ms / 1000, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def ask(a, **params):
    try:
        with urllib.request.urlopen(f"{a.url}/v1/explain?{urllib.parse.urlencode(params)}", timeout=60) as r:
            return r.status, json.load(r)
    except urllib.error.HTTPError as e:
        return e.code, json.load(e)


def check_sources(got, archived, counted, seed):
    """The segments are those of the archive, and their records hold every event that was counted."""
    assert [s["partition"] for s in got["sources"]] == list(range(PARTITIONS))
    for s in got["sources"]:
        assert s["complete"] and s["chained"] and not s["earlier_seals_deleted"] and s["seals"] > 0, s
        listed = {(x["from_offset"], x["to_offset"], x["sha256"]) for x in s["segments"]}
        part = archived[s["partition"]]
        want = {(e["first"], e["end"], e["sha256"].hex()) for e in part.entries
                if e["first"] < s["to_offset"] and e["end"] > s["from_offset"]}
        assert listed == want and s["segment_count"] == len(want) > 0, f"seed {seed}: {s}"
        ids = {i for o, _, value in part.records if s["from_offset"] <= o < s["to_offset"]
               for i in archive_reader.event_ids(value)}
        lacks = [e["id"] for e in counted if e["partition"] == s["partition"] and e["id"] not in ids]
        assert not lacks, f"seed {seed}: {lacks[:3]}"


def test_the_offsets_hold_every_event_that_was_counted(place):
    seed = 517
    data, events = made(place, seed, events=5000, hours=12)
    judge(events)
    a = Adtally(data, *SETTINGS)
    try:
        a.start()
        last = max(e["receive_ms"] for e in events)
        start = last // HOUR * HOUR - 5 * HOUR
        question = {"from": utc(start), "to": utc(start + HOUR), "campaign_id": "c1", "group_by": "none"}
        run("reconcile", "--data", a.data, "--quiet", "--dedupe-horizon", 2)  # realtime has come to the log's end
        shown = a.metrics(window="total", **question)
        status, got = ask(a, **question)
        assert status == 200 and got["view"] == "realtime" and got["damaged_collections"] == 0, got
        counted = [e for e in events if e["counted"] and not e["labels"] and start <= e["event_ms"] < start + HOUR]
        mine = [e for e in counted if e["campaign"] == "c1"]
        assert len(mine) > 10 and got["totals"][0]["spend_nanos"] == str(sum(e["cost"] for e in mine)), f"seed {seed}"
        assert shown["totals"][0]["impressions"] == got["totals"][0]["impressions"] == sum(e["type"] == 1 for e in mine)
        check_sources(got, archive_reader.parts(data / "archive"), counted, seed)
        # For people, by the URL of the number itself.
        text = run("explain", f"{a.url}/v1/metrics?{urllib.parse.urlencode(question)}").stdout
        for s in got["sources"]:
            assert f"events/{s['partition']}  offsets {s['from_offset']} to {s['to_offset']}: {s['seals']} seals" in text, text
            assert all(x["name"] in text and x["sha256"] in text for x in s["segments"])
        assert json.loads(run("explain", urllib.parse.urlencode(question), "--url", a.url, "--json").stdout) == got
        # Now: more may still come.
        status, now = ask(a)
        assert status == 200 and not any(s["complete"] for s in now["sources"])
        for params, code in [({"view": "both"}, "view_not_available"), ({"format": "csv"}, "bad_format"),
                             ({"cursor": "x"}, "bad_cursor"), ({"campain_id": "x"}, "unknown_parameter")]:
            status, refused = ask(a, **params)
            assert status == 400 and refused["error"]["code"] == code, refused
        for question, part in [(a.url + "/v1/metrics", "no parameters"), (a.url + "/v1/metrics?view=both", "view_not_available"),
                               ("x=" + 5000 * "y", "fewer values")]:
            done = run("explain", question, check=False)
            assert done.returncode == 64 and part in done.stderr, done.stderr
        # What to do next is said, also where the server cannot.
        done = run("explain", "view=realtime", "--url", f"http://127.0.0.1:{a.admin}", check=False)
        assert done.returncode == 64 and "product port" in done.stderr, done.stderr
        done = run("explain", "view=realtime", "--url", f"http://127.0.0.1:{free_port()}", check=False)
        assert done.returncode == 75 and "does `adtally up` run at" in done.stderr and "--url" in done.stderr, done.stderr
    finally:
        a.destroy()


def test_segments_in_an_object_store(place, s3, monkeypatch):
    """The same of an archive on S3, read back by another client."""
    seed, prefix = 523, f"explain-{random.getrandbits(40):x}"
    bucket = s3_bucket(s3)
    monkeypatch.setenv("ADTALLY_S3_ACCESS_KEY", S3_ACCESS["aws_access_key_id"])
    monkeypatch.setenv("ADTALLY_S3_SECRET_KEY", S3_ACCESS["aws_secret_access_key"])
    data, events = made(place, seed, events=3000, hours=12)
    judge(events)
    to = ["--archive", f"s3:adtally-test/{prefix}", "--s3-endpoint", s3, "--s3-region", "eu-test-1"]
    a = Adtally(data, *SETTINGS, *to)
    try:
        a.start()
        start = max(e["receive_ms"] for e in events) // HOUR * HOUR - 5 * HOUR
        question = {"from": utc(start), "to": utc(start + HOUR), "group_by": "none"}
        run("reconcile", "--data", a.data, "--quiet", "--dedupe-horizon", 2, *to)
        counted = [e for e in events if e["counted"] and not e["labels"] and start <= e["event_ms"] < start + HOUR]
        assert len(counted) > 10, f"seed {seed}"
        status, got = ask(a, **question)
        assert status == 200, got
        for o in bucket.objects.filter(Prefix=f"{prefix}/"):
            path = place / "copy" / o.key.removeprefix(f"{prefix}/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(o.get()["Body"].read())
        check_sources(got, archive_reader.parts(place / "copy"), counted, seed)
    finally:
        a.destroy()


def test_without_an_archive_it_says_what_is_not_shown(place):
    a = Adtally(place / "data", "--partitions", PARTITIONS, "--archive", "none", "--reconcile", "off", "--keys", place / "keys")
    key = run("key", "create", "--class", "read", "--keys", place / "keys").stdout.split("key: ")[1].strip()
    try:
        a.start()
        question = ["from=2026-01-01T00:00:00Z&to=2026-01-02T00:00:00Z", "--url", a.url]
        done = run("explain", *question, check=False)
        assert done.returncode == 64 and "unauthorized" in done.stderr and "key create --class read" in done.stderr, done.stderr
        got = json.loads(run("explain", *question, "--key", key, "--json").stdout)
        assert [(n["code"], n["proved_by"]) for n in got["not_shown"]] == [("no_archive", None)], got
        assert "NOT SHOWN  segments and their hashes" in run("explain", *question, "--key", key).stdout
    finally:
        a.destroy()
