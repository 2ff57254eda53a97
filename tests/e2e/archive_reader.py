"""An independent reader of the raw archive, from docs/ARCHIVE.md alone: the zstd command, hashlib, and protobuf by
hand. Everything that the manifest and the footers say is checked while it is read."""
import hashlib
import subprocess
from pathlib import Path


def fields(message):
    """[(number, wire type, value)] of a protobuf message."""
    at, out = 0, []

    def varint():
        nonlocal at
        shift = v = 0
        while True:
            b = message[at]
            at += 1
            v |= (b & 0x7F) << shift
            shift += 7
            if b < 0x80:
                return v

    while at < len(message):
        key = varint()
        kind = key & 7
        if kind == 0:
            value = varint()
        else:
            size = {1: 8, 5: 4}.get(kind)
            size = varint() if size is None else size
            value, at = message[at:at + size], at + size
        out.append((key >> 3, kind, value))
    return out


def varint(v):
    out = b""
    while v >= 0x80:
        out += bytes([v & 0x7F | 0x80])
        v >>= 7
    return out + bytes([v])


def again(items):
    """The bytes of these fields, in this order."""
    out = b""
    for number, kind, value in items:
        out += varint(number << 3 | kind)
        out += varint(value) if kind == 0 else value if kind in (1, 5) else varint(len(value)) + value
    return out


def manifest(path):
    """[{first, end, records, sha256, chain}], the chain computed again."""
    all_fields = fields(path.read_bytes())
    head = again([f for f in all_fields if f[0] <= 4])
    chain, out = None, []
    for number, _, value in all_fields:
        if number != 6:
            continue
        entry = fields(value)
        chain = hashlib.sha256((head if chain is None else chain) + again([f for f in entry if f[0] <= 8])).digest()
        got = {f[0]: f[2] for f in entry}
        assert got[9] == chain, f"{path}: the chain breaks at offset {got.get(1, 0)}"
        out.append({"first": got.get(1, 0), "end": got.get(2, 0), "records": got.get(3, 0), "sha256": got[8], "chain": chain})
    last = [f[2] for f in all_fields if f[0] == 5]
    assert last == ([chain] if out else []), f"{path}: the last chain"
    return out


def delimited(raw):
    """The messages of a stream, each behind its length as a varint."""
    at, out = 0, []
    while at < len(raw):
        shift = size = 0
        while True:
            b = raw[at]
            at += 1
            size |= (b & 0x7F) << shift
            shift += 7
            if b < 0x80:
                break
        out.append(raw[at:at + size])
        at += size
    return out


def records(path):
    """[(offset, append_ms, value)] of a segment."""
    raw = subprocess.run(["zstd", "-dcq", path], stdout=subprocess.PIPE, check=True).stdout
    found = [{f[0]: f[2] for f in fields(m)} for m in delimited(raw)]
    return [(got.get(1, 0), got.get(2, 0), got.get(3, b"")) for got in found]


def event_ids(value):
    """Of an EventBatch."""
    return [next(g[2] for g in fields(f[2]) if g[0] == 1).decode() for f in fields(value) if f[0] == 1]


class Part:
    def __init__(self, folder):
        self.folder = Path(folder)
        self.entries = manifest(self.folder / "manifest")
        self.records = []
        for before, e in zip([None, *self.entries], self.entries):
            path = self.folder / f"{e['first']:020d}.seg.zst"
            assert not before or before["end"] == e["first"], f"{path}: a hole before it"
            assert hashlib.sha256(path.read_bytes()).digest() == e["sha256"], path
            got = records(path)
            assert len(got) == e["records"] and all(e["first"] <= o < e["end"] for o, _, _ in got), path
            self.records += got
        offsets = [r[0] for r in self.records]
        assert offsets == sorted(set(offsets)), self.folder
        self.end = self.entries[-1]["end"] if self.entries else 0

    def ids(self):
        return [i for _, _, value in self.records for i in event_ids(value)]


def parts(place, topic="events"):
    """The partitions of a topic of one generation, by number; what has no manifest yet is left out."""
    folders = sorted(Path(place).glob(f"archive/{topic}.*/*"))
    assert len({f.parent for f in folders}) <= 1, folders
    return {int(f.name): Part(f) for f in folders if (f / "manifest").exists()}
