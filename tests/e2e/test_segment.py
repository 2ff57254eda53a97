"""A1: a segment written here from docs/ARCHIVE.md alone, with the zstd command and struct, is read by
`adtally segment`, and any other byte is refused."""
import hashlib
import json
import random
import struct
import subprocess

import pytest

from conftest import run

SEED = 31


def varint(v):
    out = b""
    while v >= 0x80:
        out += bytes([v & 0x7F | 0x80])
        v >>= 7
    return out + bytes([v])


def field(number, value):
    if isinstance(value, int):
        return varint(number << 3) + varint(value) if value else b""
    return varint(number << 3 | 2) + varint(len(value)) + value if value else b""


def event(i):
    return (field(1, f"id-{i}".encode()) + field(2, 1 + i % 3) + field(3, 1764000000000 + i)
            + field(4, b"acme") + field(5, f"c{i % 5}".encode()))


def records(count):
    dice, offset = random.Random(SEED), 100
    for i in range(count):
        offset += dice.choice([1, 1, 1, 3])
        value = b"".join(field(1, event(10 * i + k)) for k in range(i % 4))
        yield offset, 1764000000000 + i, value


def zstd(raw):
    return subprocess.run(["zstd", "-q", "-3", "--check", "-c"], input=raw, stdout=subprocess.PIPE, check=True).stdout


def segment(path, items, per_frame=7):
    data, frames, raw_bytes = b"", b"", 0
    for at in range(0, len(items), per_frame):
        raw = b""
        for offset, ms, value in items[at:at + per_frame]:
            message = field(1, offset) + field(2, ms) + field(3, value)
            raw += varint(len(message)) + message
        packed = zstd(raw)
        data += packed
        raw_bytes += len(raw)
        frames += field(11, field(1, len(packed)) + field(2, len(raw)) + field(3, items[at][0]))
    footer = (field(1, b"events") + varint(2 << 3 | 1) + struct.pack("<Q", 0xABCD) + field(3, 2)
              + field(4, 100) + field(5, items[-1][0] + 1) + field(6, len(items)) + field(7, raw_bytes)
              + field(8, items[0][1]) + field(9, items[-1][1]) + field(10, 64 << 20) + frames)
    body = data + struct.pack("<II", 0x184D2A5A, len(footer) + 48) + footer + struct.pack("<II", len(footer), 1)
    path.write_bytes(body + hashlib.sha256(body).digest() + b"ADTLYSEG")


@pytest.fixture
def made(tmp_path):
    items = list(records(60))
    segment(tmp_path / "a.seg.zst", items)
    return tmp_path / "a.seg.zst", items


def test_a_segment_made_from_the_document_is_read(made):
    path, items = made
    assert "60 records intact" in run("segment", "verify", path).stdout
    stat = run("segment", "stat", path).stdout
    assert f"events/2 generation {0xABCD:016x} offsets 100 to {items[-1][0] + 1}, 60 records" in stat, stat
    lines = [json.loads(line) for line in run("segment", "cat", path).stdout.splitlines()]
    want = []
    for i, (offset, _, _) in enumerate(items):
        want += [(offset, f"id-{10 * i + k}", f"c{(10 * i + k) % 5}") for k in range(i % 4)] or [(offset, None, None)]
    assert [(r["offset"], r.get("event_id"), r.get("campaign_id")) for r in lines] == want, f"seed {SEED}"


def test_zstd_alone_gives_the_records(made):
    path, items = made
    raw = subprocess.run(["zstd", "-dcq", path], stdout=subprocess.PIPE, check=True).stdout
    assert raw == b"".join(varint(len(m)) + m for m in (field(1, o) + field(2, t) + field(3, v) for o, t, v in items))


def test_a_damaged_one_is_named_and_the_others_are_read(made):
    path, _ = made
    bad = path.with_name("b.seg.zst")
    data = bytearray(path.read_bytes())
    data[random.Random(SEED).randrange(len(data) - 100)] ^= 0x40
    bad.write_bytes(data)
    done = run("segment", "verify", bad, path, check=False)
    assert done.returncode == 65 and str(bad) in done.stderr and "docs/ARCHIVE.md" in done.stderr, done.stderr
    assert "60 records intact" in done.stdout
    assert run("segment", "verify", path.with_name("none"), check=False).returncode != 0
    assert run("segment", "frobnicate", path, check=False).returncode == 64
