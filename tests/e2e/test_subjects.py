"""User ids sealed at ingest with a key for each subject, and the key destroyed (docs/PRIVACY.md): no byte of the log, of
the archive or of the key store holds a user id; no number, fingerprint or answer depends on a key.

The log's frames are read here by hand (runtime/filelog/frame.c says how), its records as protobuf by hand.
"""
import json
import random
import struct
import subprocess
import threading
import time
import urllib.parse
from datetime import datetime, timedelta, timezone

import pytest

import archive_reader
from conftest import run

SEED = 61
USERS = [f"person-{i}-{random.Random(SEED + i).getrandbits(48):012x}" for i in range(20)]
ODD = "a/b c%?&=é"  # one segment of a path, whatever it holds
NUMBERS = ["impressions", "clicks", "conversions", "spend_micros"]


def events(count, seed, users=USERS):
    dice, now = random.Random(seed), int(time.time() * 1000)
    return [{"event_id": f"{seed}-{i}", "type": dice.choice(["click", "impression"]), "event_time": now - dice.randrange(1000),
             "campaign_id": f"c{dice.randrange(3)}", "user_id": dice.choice(users), "cost_micros": 10, "currency": "EUR"}
            for i in range(count)]


def frames(data):
    """The raw bytes of each frame: 56 bytes of header, then stored_len bytes, as they are or zstd."""
    at = 0
    while at + 56 <= len(data) and data[at:at + 4] == b"ADL1":
        raw_len, stored_len, _, codec = struct.unpack_from("<IIII", data, at + 40)
        stored = data[at + 56:at + 56 + stored_len]
        raw = subprocess.run(["zstd", "-dcq"], input=stored, stdout=subprocess.PIPE, check=True).stdout if codec else stored
        assert len(raw) == raw_len
        yield raw
        at += 56 + stored_len


def log_frames(a, topic):
    for path in sorted(a.data.glob(f"log/topics/{topic}/*/*")):
        if path.is_file():
            yield from frames(path.read_bytes())


def log_events(a):
    """{event_id: [(user_id, user_id_sealed), ...]} of everything in `events`."""
    out = {}
    for raw in log_frames(a, "events"):
        for record in archive_reader.delimited(raw):
            for number, _, value in archive_reader.fields(record):
                if number == 1:
                    got = {f[0]: f[2] for f in archive_reader.fields(value)}
                    out.setdefault(got[1].decode(), []).append((got.get(9), got.get(29)))
    return out


def path_of(user):
    return "/v1/subjects/" + urllib.parse.quote(user, safe="")


def opened(a, sealed):
    return a.get(f"/v1/subjects/open?sealed={sealed.hex()}")


def nowhere(a, text):
    """In no file of the data directory, and in no record of any topic."""
    for path in a.data.rglob("*"):
        if path.is_file():
            assert text not in path.read_bytes(), path
    for topic in ["events", "late", "quarantine", "rollups"]:
        for raw in log_frames(a, topic):
            assert text not in raw, topic


def numbers(a):
    since = datetime.now(timezone.utc) - timedelta(hours=2)
    answer = a.metrics(window="total", group_by="campaign_id", **{"from": since.strftime("%Y-%m-%dT%H:00:00Z")})
    return {r["campaign_id"]: [r[n] for n in NUMBERS] for r in answer["rows"]}


def test_a_user_that_was_deleted_is_unreadable_and_no_number_changes(start):
    a = start("--partitions", "2", "--checkpoint-max", "300ms")
    sent = events(600, SEED, USERS + [ODD])
    who = {e["event_id"]: e["user_id"] for e in sent}
    assert a.post(sent)[1]["accepted"] == len(sent)
    a.wait_counted()
    before = numbers(a)
    assert sum(r[0] + r[1] for r in before.values()) == len(sent)
    stored = log_events(a)
    assert set(stored) == set(who), f"seed {SEED}"
    for user in [*USERS, ODD]:
        nowhere(a, user.encode())
    ids = {}  # of a user: one sealed id, and nobody else's
    for event, [(plain, sealed)] in stored.items():
        assert plain is None and ids.setdefault(who[event], sealed) == sealed, f"seed {SEED}: {event}"
    assert len({s[:16] for s in ids.values()}) == len(ids)
    for user, sealed in ids.items():
        assert opened(a, sealed) == (200, {"user_id": user})
        assert a.get(path_of(user)) == (200, {"key": True})
    gone = [USERS[3], ODD]
    assert any(ids[gone[0]][:16] in p.read_bytes() for p in a.data.glob("subjects/*")), "this test looks in the wrong place"
    for user in gone:
        assert a.request(path_of(user), method="DELETE") == (200, {"deleted": True})
        assert a.request(path_of(user), method="DELETE") == (200, {"deleted": False})
        assert a.get(path_of(user)) == (200, {"key": False})
        status, answer = opened(a, ids[user])
        assert status == 404 and answer["error"]["code"] == "subject_deleted", answer
        for p in a.data.glob("subjects/*"):
            assert ids[user][:16] not in p.read_bytes(), p
    assert opened(a, ids[USERS[4]]) == (200, {"user_id": USERS[4]})
    # D1: the fingerprint is of what was stated, so a retry is a duplicate, not a conflict, without the key too.
    assert a.post(sent)[1]["accepted"] == len(sent)
    ledger = a.wait_counted()
    assert (ledger["counted"], ledger["duplicate"], ledger["conflict"]) == (len(sent), len(sent), 0), f"seed {SEED}: {ledger}"
    assert numbers(a) == before, f"seed {SEED}"
    again = {sealed for pairs in log_events(a).values() for _, sealed in pairs if sealed[:16] not in {s[:16] for s in ids.values()}}
    assert len(again) == len(gone), "a new key for each, nothing in common with the old one"
    assert {opened(a, s)[1]["user_id"] for s in again} == set(gone)
    assert opened(a, ids[gone[0]])[0] == 404
    more = events(50, SEED + 1)
    assert a.post(more)[1]["accepted"] == len(more)
    assert a.wait_counted()["counted"] == len(sent) + len(more)
    for user in [*USERS, ODD]:
        nowhere(a, user.encode())
    assert a.stop() == 0
    a.start()
    assert opened(a, ids[USERS[4]]) == (200, {"user_id": USERS[4]}) and opened(a, ids[gone[1]])[0] == 404


def test_the_commands(start):
    a = start("--partitions", "1")
    assert a.post([{"event_id": "1", "type": "click", "campaign_id": "c", "user_id": ODD}])[0] == 202
    where = ["--listen", f"127.0.0.1:{a.port}"]
    sealed = log_events(a)["1"][0][1].hex()
    assert json.loads(run("subject", "show", ODD, *where).stdout) == {"key": True}
    assert json.loads(run("subject", "open", sealed, *where).stdout) == {"user_id": ODD}
    assert json.loads(run("subject", "delete", ODD, *where).stdout) == {"deleted": True}
    assert json.loads(run("subject", "show", ODD, *where).stdout) == {"key": False}
    done = run("subject", "open", sealed, *where, check=False)
    assert done.returncode != 0 and "subject_deleted" in done.stderr, done.stderr
    assert run("subject", "forget", ODD, *where, check=False).returncode == 64
    for bad in ["zz", "", sealed[:-2] + "0", sealed.upper(), "00" * 97]:
        status, answer = a.get(f"/v1/subjects/open?sealed={bad}")
        assert status == 400 and answer["error"]["code"] == "bad_sealed_id", (bad, answer)
    assert a.request(path_of("u" * 65), method="DELETE")[0] == 400
    assert a.request(path_of("u"), method="POST", body=b"")[0] == 405


def test_only_an_admin_and_only_its_tenant(start, place):
    keys, token = place / "keys", {}
    for name, kind, tenant in [("admin", "admin", "t1"), ("other", "admin", "t2"), ("server", "server", "t1"), ("read", "read", "t1")]:
        out = run("key", "create", "--class", kind, "--tenant", tenant, "--keys", keys).stdout
        token[name] = out.split("key: ")[1].strip()
    a = start("--keys", keys, "--partitions", "1")

    def ask(who, path, method="GET"):
        return a.request(path, method=method, headers={"Authorization": f"Bearer {token[who]}"})

    def post(who):
        return a.post([{"event_id": who, "type": "click", "campaign_id": "c", "user_id": "anna"}],
                      headers={"Authorization": f"Bearer {token[who]}", "Content-Type": "application/json"})

    assert post("server")[0] == 202 and post("other")[0] == 202
    sealed = {event: pairs[0][1] for event, pairs in log_events(a).items()}
    assert sealed["server"] != sealed["other"]
    for method in ["GET", "DELETE"]:
        assert a.request(path_of("anna"), method=method)[0] == 401
        for who in ["server", "read"]:
            assert ask(who, path_of("anna"), method)[0] == 403
    assert ask("other", f"/v1/subjects/open?sealed={sealed['server'].hex()}")[0] == 400
    assert ask("other", path_of("anna"), "DELETE") == (200, {"deleted": True})
    assert ask("admin", f"/v1/subjects/open?sealed={sealed['server'].hex()}") == (200, {"user_id": "anna"})
    assert ask("other", f"/v1/subjects/open?sealed={sealed['other'].hex()}")[0] == 404


def test_off_means_plain_and_what_was_sealed_before_can_still_be_deleted(start):
    a = start("--partitions", "1", "--seal-user-ids=false")
    assert a.post([{"event_id": "1", "type": "click", "campaign_id": "c", "user_id": "anna"}])[0] == 202
    assert log_events(a)["1"] == [(b"anna", None)] and not (a.data / "subjects").exists()
    assert a.get(path_of("anna")) == (200, {"key": False})
    assert a.request(path_of("anna"), method="DELETE") == (200, {"deleted": False})
    a.stop()
    a.settings = ["--partitions", "1"]
    a.start()
    assert a.post([{"event_id": "2", "type": "click", "campaign_id": "c", "user_id": "ben"}])[0] == 202
    a.stop()
    a.settings = ["--partitions", "1", "--seal-user-ids=false"]
    a.start()
    sealed = log_events(a)["2"][0][1]
    assert opened(a, sealed) == (200, {"user_id": "ben"})
    assert a.request(path_of("ben"), method="DELETE") == (200, {"deleted": True}) and opened(a, sealed)[0] == 404


@pytest.mark.parametrize("points", ["before_keys=abort@3;after_keys=abort@5", "before_keys=error(disk_full)@2*3", ""])
def test_whatever_dies_every_event_of_the_log_can_be_opened(start, monkeypatch, place, points):
    """New keys are durable before the record that needs them: kill -9 around their write, a full disk, and at any moment."""
    once, dice = place / "struck", random.Random(SEED)
    once.mkdir()
    if points:
        monkeypatch.setenv("DF_FAIL", points)
        if "*" not in points:
            monkeypatch.setenv("DF_FAIL_ONCE", str(once))
    a = start("--partitions", "2")
    for name in ["DF_FAIL", "DF_FAIL_ONCE"]:
        monkeypatch.delenv(name, raising=False)
    who, stop = {}, threading.Event()

    def killer():
        while not stop.wait(dice.uniform(0.3, 1.2)):
            a.kill("ingest")

    if not points:
        threading.Thread(target=killer, daemon=True).start()
    for n in range(60):
        batch = events(20, SEED + n, [f"new-{n}-{i}" for i in range(10)] + USERS)
        who.update({e["event_id"]: e["user_id"] for e in batch})
        if n == 50:
            stop.set()
        until = time.time() + 60
        while True:
            try:
                if a.post(batch, timeout=5)[0] == 202:
                    break
            except OSError:
                pass
            assert time.time() < until, f"seed {SEED}: batch {n}\n{a.tail()}"
            time.sleep(0.1)
    a.wait_ready()
    stored = log_events(a)
    assert set(stored) == set(who), f"seed {SEED}"
    for event, pairs in stored.items():
        for plain, sealed in pairs:
            assert plain is None and opened(a, sealed) == (200, {"user_id": who[event]}), f"seed {SEED}: {event}\n{a.tail()}"
    if points and "*" not in points:
        assert len(list(once.iterdir())) == 2, f"never struck: {list(once.iterdir())}"


def test_a_deletion_cut_short_is_ended_by_the_next_life(start, monkeypatch, place):
    once = place / "struck"
    once.mkdir()
    monkeypatch.setenv("DF_FAIL", "before_forget=abort@1")
    monkeypatch.setenv("DF_FAIL_ONCE", str(once))
    a = start("--partitions", "1")
    monkeypatch.delenv("DF_FAIL")
    monkeypatch.delenv("DF_FAIL_ONCE")
    assert a.post([{"event_id": "1", "type": "click", "campaign_id": "c", "user_id": "anna"}])[0] == 202
    sealed = log_events(a)["1"][0][1]
    with pytest.raises(OSError):
        a.request(path_of("anna"), method="DELETE")
    until = time.time() + 60
    while any(sealed[:16] in p.read_bytes() for p in a.data.glob("subjects/*") if p.exists()):
        assert time.time() < until, a.tail()
        time.sleep(0.1)
    a.wait_ready()
    assert a.request(path_of("anna"), method="DELETE") == (200, {"deleted": False}) and opened(a, sealed)[0] == 404


def test_an_import_has_no_keys_and_stores_no_user_ids(start, place):
    """R6: the same file again is known, with the user id as a part of what was stated; another one is other content."""
    a = start("--partitions", "1")
    rows, when = place / "rows.csv", "2026-03-01T10:00:00Z"
    rows.write_text("id,what,when,campaign,who\n" + "".join(f"i{i},click,{when},c1,{USERS[i]}\n" for i in range(10)))
    args = ["import", rows, "--map", "id=event_id,what=type,when=event_time,campaign=campaign_id,who=user_id", "--data", a.data,
            "--listen", f"127.0.0.1:{a.port}", "--dataset", "d", "--json"]
    first = json.loads(run(*args).stdout)
    assert (first["new"], first["user_ids_left_out"]) == (10, 10), first
    assert "10 events was not stored" in run(*args[:-3], "--dataset", "d2", "--tenant", "other").stdout
    again = json.loads(run(*args).stdout)
    assert (again["new"], again["known"]) == (0, 10), again
    for user in USERS[:10]:
        nowhere(a, user.encode())
        assert all(user.encode() not in raw for topic in a.data.glob("log/topics/import*") for raw in log_frames(a, topic.name))
    plain = json.loads(run(*args[:-3], "--dataset", "d3", "--tenant", "third", "--json", "--seal-user-ids=false").stdout)
    assert (plain["new"], plain["user_ids_left_out"]) == (10, 0), plain
    assert any(USERS[0].encode() in raw for topic in a.data.glob("log/topics/import*") for raw in log_frames(a, topic.name))
