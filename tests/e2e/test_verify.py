"""`adtally verify` on copies alone. The manifest is written here, by docs/BILLING.md, from a recount in Python of the raw
segments, and signed by the openssl command: nothing of the product made what it has to agree with."""
import base64
import hashlib
import json
import random
import shutil
import subprocess
import time
from collections import defaultdict
from datetime import datetime, timezone

import pytest

import archive_reader
from conftest import BUILD, run
from test_archive import S3_ACCESS, s3, s3_bucket  # noqa: F401 - s3: a fixture
from test_bill_sql import archived
from test_reconcile import BILLING, HORIZON, HOUR, PARTITIONS, QUARTER, made

pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not installed: deploy/setup test")
ARCHIVE = BUILD / "jobs/archive/adtally-archive"
SEED = 431
FORMAT = ["impressions", "clicks", "conversions", "spend_nanos", "payout_nanos", "conversion_value_nanos",
          "invalid_impressions", "invalid_clicks", "invalid_conversions"]


def utc(quarter):
    return datetime.fromtimestamp(quarter * 900, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def compact(value):
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def archive_of(data, place):
    """All that can be archived of a log that stands still."""
    copy = place / "copy"
    process = subprocess.Popen([ARCHIVE, "--data", place / "archiver", "--log", f"file:{data}/log", "--archive", f"dir:{copy}",
                                "--partitions", str(PARTITIONS)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        before, since, until = None, time.time(), time.time() + 60
        while time.time() - since < 1.5:
            assert process.poll() is None and time.time() < until, f"nothing is archived: {before}"
            now = {p: len(archive_reader.manifest(p)) for p in copy.glob("archive/events.*/*/manifest")}
            if now != before or len(now) < PARTITIONS:
                before, since = now, time.time()
            time.sleep(0.1)
    finally:
        process.kill()
        process.wait()
    return copy


def billed(copy, vector, first, end):
    """The lines of the account default/acme, and its totals, by D4 alone: of the copies of an id the first within the
    horizon, in the order of the log."""
    offsets, rows = [], defaultdict(lambda: [0] * 9)
    for n, part in archive_reader.parts(copy).items():
        offsets += [(n, o) for o, _, value in part.records for f in archive_reader.fields(value) if f[0] == 1]
    seen = defaultdict(list)
    for (n, offset), (part, _, event_id, kind, campaign, publisher, receive, event, cost, payout, value, labels) in zip(
            offsets, archived(copy), strict=True):
        assert n == part
        hour, copies = receive // HOUR, seen[part, event_id]
        if offset >= vector[n]:
            continue
        again = any(hour - BILLING <= h <= hour + 1 for h in copies)
        copies.append(hour)
        if again or not first <= event // QUARTER < end:
            continue
        row = rows[event // QUARTER, campaign, publisher]
        for i, v in enumerate([kind == 1, kind == 2, kind == 3, cost, payout, value]):
            row[i] += 0 if labels else v
        row[5 + kind] += labels != 0
    lines = [compact({"window_start": utc(q), "tenant_id": "default", "advertiser_id": "acme", "campaign_id": c,
                      "publisher_id": p, "currency": "EUR", **dict(zip(FORMAT, row, strict=True))}) + b"\n"
             for (q, c, p), row in sorted(rows.items()) if any(row)]
    totals = [sum(row[i] for row in rows.values()) for i in range(9)]
    return lines, totals


def manifest_of(copy, vector, first, end, lines, totals):
    folder = next((copy / "archive").iterdir())
    partitions = []
    for n, part in archive_reader.parts(copy).items():
        need = [e for e in part.entries if e["first"] < vector[n]]
        partitions.append({"partition": n, "from": part.entries[0]["first"], "to": vector[n], "archived_to": need[-1]["end"],
                           "segments": len(need), "chain": need[-1]["chain"].hex(),
                           "listed": [{"from": e["first"], "to": e["end"], "sha256": e["sha256"].hex()} for e in need]})
    nothing = hashlib.sha256().hexdigest()
    return {"adtally_period_manifest": 1, "tenant_id": "default", "advertiser_id": "acme", "period": "2026-04", "zone": "UTC",
            "zone_version": "", "from": utc(first), "to": utc(end), "closed_at": "2026-05-01T00:00:00Z", "asked_by": "close-1",
            "run": "0123456789abcdef", "chain": "0123456789abcdef", "version": "0.1.0",
            "settings": {"grace": "15m", "out-of-orderness": "10s", "accepted-age": "30d", "dedupe-horizon": str(HORIZON),
                         "billing-horizon": str(BILLING), "cell-cap": "100000", "pricing": "client", "groupings": 1},
            "prices": {"version": 0, "tables": []}, "corrections": {"to": 0, "sha256": nothing, "commands": []},
            "sources": [{"topic": "events", "generation": folder.name.split(".")[1], "partitions": partitions}],
            "rows": {"count": len(lines), "sha256": hashlib.sha256(b"".join(lines)).hexdigest()},
            "totals": [{"currency": "EUR", **{k: str(v) if k.endswith("nanos") else v
                                              for k, v in zip(FORMAT, totals, strict=True)}}]}


def write(place, name, manifest, key):
    """MANIFEST and MANIFEST.sig: Ed25519 over the domain behind its length, and the bytes."""
    path, text, domain = place / name, compact(manifest), b"adtally-period-1"
    path.write_bytes(text)
    (place / "signed").write_bytes(bytes([len(domain)]) + domain + text)
    subprocess.run(["openssl", "pkeyutl", "-sign", "-rawin", "-inkey", key, "-in", place / "signed", "-out", f"{path}.sig"],
                   check=True)
    return path


def verify(path, copy, *more):
    return run("verify", path, "--key", path.parent / "public.pem", "--archive", f"dir:{copy}", "--quiet", *more, check=False)


def refused(done, *parts):
    assert done.returncode == 1 and done.stdout == "", (done.returncode, done.stdout, done.stderr)
    for part in parts:
        assert f"not verified: {part}" in done.stderr, done.stderr
    assert done.stderr.count("\n") == len(parts), done.stderr


@pytest.fixture(scope="module")
def period(tmp_path_factory):
    place = tmp_path_factory.mktemp("verify")
    data, _ = made(place, SEED, events=4000, hours=12)
    copy = archive_of(data, place)
    shutil.rmtree(data)  # copies alone
    found = archive_reader.parts(copy)
    assert len(found) == PARTITIONS and all(len(p.entries) > 7 for p in found.values())
    # Not all that is archived: the vector ends within the segment before the last one.
    vector = {n: p.entries[-2]["first"] + 3 for n, p in found.items()}
    quarters = [r[7] // QUARTER for r in archived(copy)]
    first, end = min(quarters) + 12, max(quarters) - 3
    lines, totals = billed(copy, vector, first, end)
    assert len(lines) > 300 and totals[3] > 0 and totals[7] > 0
    key = place / "key.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", key], check=True)
    subprocess.run(["openssl", "pkey", "-in", key, "-pubout", "-out", place / "public.pem"], check=True)
    manifest = manifest_of(copy, vector, first, end, lines, totals)
    return place, copy, manifest, lines, key


def test_a_recount_of_copies_gives_the_signed_digest(period):
    place, copy, manifest, lines, key = period
    path = write(place, "good", manifest, key)
    work = place / "work"
    work.mkdir()
    done = verify(path, copy, "--work", work, "--out", place / "rows", "--workers", 1)
    assert done.returncode == 0, done.stderr
    assert (place / "rows").read_bytes() == b"".join(lines), f"seed {SEED}"
    assert f"{len(lines)} rows, SHA-256 {manifest['rows']['sha256']}: verified" in done.stdout
    assert list(work.iterdir()) == []
    signature = path.with_suffix(".sig")
    signature.with_suffix(".b64").write_text(base64.b64encode(signature.read_bytes()).decode() + "\n")
    public = base64.b64encode(subprocess.run(["openssl", "pkey", "-in", key, "-pubout", "-outform", "DER"], check=True,
                                             capture_output=True).stdout[12:]).decode()
    done = run("verify", path, "--key", public, "--archive", f"dir:{copy}", "--signature", signature.with_suffix(".b64"), "--json",
               "--workers", 3)
    assert json.loads(done.stdout)["sha256"] == manifest["rows"]["sha256"]


def test_what_was_signed_and_is_not_so(period):
    """Signed with the right key, but other than what the raw events give."""
    place, copy, manifest, lines, key = period
    more = json.loads(json.dumps(manifest))
    more["totals"][0]["spend_nanos"] = str(int(more["totals"][0]["spend_nanos"]) + 1)
    refused(verify(write(place, "more", more, key), copy), "totals: they are not the sums of the recounted rows")
    less = json.loads(json.dumps(manifest))
    less["sources"][0]["partitions"][0]["to"] -= 20  # without the last records
    refused(verify(write(place, "less", less, key), copy), f"rows: the manifest states {len(lines)}, SHA-256 ",
            "totals: they are not")
    tables = json.loads(json.dumps(manifest))
    tables["prices"] = {"version": 1, "tables": [{"version": 1, "sha256": hashlib.sha256(b"x").hexdigest()}]}
    path, prices = write(place, "tables", tables, key), place / "prices"
    assert "--prices is missing" in verify(path, copy).stderr
    prices.mkdir()
    refused(verify(path, copy, "--prices", prices), "prices: ")
    (prices / "1.csv").write_bytes(b"y")
    refused(verify(path, copy, "--prices", prices), f"prices: {prices}/1.csv is not the table that was signed")


def test_a_forged_manifest_is_named(period):
    place, copy, manifest, _, key = period
    path = write(place, "forged", manifest, key)
    text = path.read_bytes()
    path.write_bytes(text.replace(b'"spend_nanos":"', b'"spend_nanos":"1', 1))
    refused(verify(path, copy), "signature: key ")
    path.write_bytes(text[:-1])
    refused(verify(path, copy), "signature: key ")
    path.write_bytes(text)
    other = place / "other.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", other], check=True)
    refused(verify(write(place, "forged", manifest, other), copy), "signature: key ")
    path.with_suffix(".sig").write_bytes(b"x" * 63)
    done = verify(path, copy)
    assert done.returncode == 65 and "forged.sig is no signature" in done.stderr
    # A signature for anything else than a period is none for it.
    (place / "signed").write_bytes(b"\x10adtally-period-2" + text)
    subprocess.run(["openssl", "pkeyutl", "-sign", "-rawin", "-inkey", key, "-in", place / "signed", "-out", f"{path}.sig"], check=True)
    refused(verify(path, copy), "signature: key ")


def test_every_damage_of_the_archive_is_named(period):
    place, copy, manifest, _, key = period
    path, bad = write(place, "damage", manifest, key), place / "bad"
    shutil.copytree(copy, bad)
    folder = next((bad / "archive").iterdir())

    def again():
        shutil.rmtree(bad)
        shutil.copytree(copy, bad)

    def segment(partition, i):
        return folder / f"{partition:05d}" / f"{manifest['sources'][0]['partitions'][partition]['listed'][i]['from']:020d}.seg.zst"

    def name(file):
        return str(file.relative_to(bad))

    # A flipped byte and a missing segment at once: both are named.
    flipped = bytearray(segment(0, 3).read_bytes())
    flipped[len(flipped) // 2] ^= 1
    segment(0, 3).write_bytes(flipped)
    segment(1, 0).unlink()
    done = verify(path, bad)
    refused(done, "segment: ", "segment: ")
    assert name(segment(0, 3)) in done.stderr and name(segment(1, 0)) in done.stderr and "is missing" in done.stderr
    # What lies behind the period does not matter.
    again()
    last = archive_reader.parts(copy)[0].entries[-1]["first"]
    (folder / "00000" / f"{last:020d}.seg.zst").unlink()
    assert verify(path, bad).returncode == 0
    # The manifest of a partition: cut in the middle, cut at an entry, gone.
    again()
    object_ = folder / "00001/manifest"
    object_.write_bytes(object_.read_bytes()[:-100])
    refused(verify(path, bad), "archive of events/1: ")
    again()
    object_.unlink()
    refused(verify(path, bad), "archive of events/1: ")
    again()
    shorter(object_, manifest["sources"][0]["partitions"][1]["segments"] - 1)
    refused(verify(path, bad), "archive of events/1: its manifest is cut: ")
    # Another archive of the same length, whole in itself: the chain says so.
    again()
    object_.write_bytes((folder / "00000/manifest").read_bytes())
    refused(verify(path, bad), "archive of events/1: ")
    # Of another generation beside it nothing is said.
    again()
    shutil.copytree(folder, folder.with_name("events.ffffffffffffffff"))
    assert "it also holds generation ffffffffffffffff" in verify(path, bad).stderr


def test_copies_in_an_object_store(period, s3, monkeypatch):
    """The same proof from S3: the period, and a flipped byte and a missing object by name."""
    place, copy, manifest, lines, key = period
    path, prefix = write(place, "objects", manifest, key), f"verify-{random.getrandbits(40):x}"
    bucket = s3_bucket(s3)
    objects = {f"{prefix}/{p.relative_to(copy)}": p.read_bytes() for p in copy.rglob("*") if p.is_file()}
    for name, body in objects.items():
        bucket.put_object(Key=name, Body=body)
    monkeypatch.setenv("ADTALLY_S3_ACCESS_KEY", S3_ACCESS["aws_access_key_id"])
    monkeypatch.setenv("ADTALLY_S3_SECRET_KEY", S3_ACCESS["aws_secret_access_key"])
    command = ["verify", path, "--key", place / "public.pem", "--archive", f"s3:adtally-test/{prefix}", "--s3-endpoint", s3,
               "--s3-region", "eu-test-1", "--quiet"]
    done = run(*command, check=False)
    assert done.returncode == 0 and f"{len(lines)} rows, SHA-256 {manifest['rows']['sha256']}: verified" in done.stdout, done.stderr
    flipped, gone = sorted(n for n in objects if "/00000/" in n and n.endswith(".zst"))[:2]
    body = bytearray(objects[flipped])
    body[len(body) // 2] ^= 1
    bucket.put_object(Key=flipped, Body=bytes(body))
    bucket.Object(gone).delete()
    done = run(*command, check=False)
    refused(done, "segment: ", "segment: ")
    for name in flipped, gone:
        assert name.removeprefix(f"{prefix}/") in done.stderr, done.stderr


def shorter(path, entries):
    """The archive's manifest as it was when it had so many entries (docs/ARCHIVE.md)."""
    fields = archive_reader.fields(path.read_bytes())
    kept = [f for f in fields if f[0] == 6][:entries]
    last = next(f[2] for f in archive_reader.fields(kept[-1][2]) if f[0] == 9)
    out = [f for f in fields if f[0] <= 4] + [(5, 2, last)] + kept
    path.write_bytes(archive_reader.again(out))


def test_usage(period):
    place, copy, manifest, _, key = period
    path = write(place, "usage", manifest, key)
    for args, part in [([path, "--archive", f"dir:{copy}"], "--key is missing"),
                       ([path, "--key", place / "public.pem"], "--archive is missing"),
                       (["--key", "x", "--archive", f"dir:{copy}"], "expected one MANIFEST")]:
        done = run("verify", *args, check=False)
        assert done.returncode == 64 and part in done.stderr, done.stderr
    done = run("verify", place / "nothing", "--key", place / "public.pem", "--archive", f"dir:{copy}", check=False)
    assert done.returncode == 65 and "nothing" in done.stderr
    done = run("verify", path, "--key", "/nowhere", "--archive", f"dir:{copy}", check=False)
    assert done.returncode == 65 and "no such file, and no public key" in done.stderr
