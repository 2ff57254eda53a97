"""An independent reader of the embedded log and of the books' topics: frames as runtime/filelog/frame.c says, protobuf by
hand (proto/log.proto, books.proto), collections by K5."""
import struct
import subprocess

from archive_reader import delimited, fields

CELL = ["impressions", "clicks", "conversions", "invalid_impressions", "invalid_clicks", "invalid_conversions"]
MONEY = ["spend_nanos", "payout_nanos", "conversion_value_nanos"]
CAUSES = ["none", "late", "duplicate", "conflict", "price", "unfolded", "not_yet_processed", "unexplained", "label",
          "correction"]


def unpacked(payload):
    return subprocess.run(["zstd", "-dcq"], input=payload, stdout=subprocess.PIPE, check=True).stdout


def records(data, topic, partition=0):
    """[(offset, value)] of what is durable; stops at a torn tail."""
    out = []
    for path in sorted((data / "log/topics" / topic / str(partition)).glob("*.seg")):
        raw, at = path.read_bytes(), 0
        while at + 56 <= len(raw) and raw[at:at + 4] == b"ADL1":
            base, = struct.unpack_from("<Q", raw, at + 8)
            count, _, size, stored, _, codec = struct.unpack_from("<6I", raw, at + 32)
            payload = raw[at + 56:at + 56 + stored]
            if len(payload) < stored:
                break
            values = delimited(unpacked(payload) if codec else payload)
            assert len(values) == count and (codec or stored == size), path
            out += [(base + i, v) for i, v in enumerate(values)]
            at += 56 + stored
    return out


def one(message, number, default=None):
    return next((v for n, _, v in message if n == number), default)


def text(message, number):
    return one(message, number, b"").decode()


def collections(found, topic):
    """[payloads] of each checkpoint of one source, each k once: those whose seal is there (K5). found: [(offset, value)]."""
    gathered, applied = {}, []
    for offset, value in found:
        m = fields(value)
        k, epoch, seal = one(m, 2, 0), one(m, 3, 0), one(m, 6)
        if seal is None:
            gathered.setdefault((k, epoch), []).append(one(m, 5, b""))
        elif k == len(applied) + 1:
            rows = one(fields(seal), 11, 0)
            got = gathered.pop((k, epoch), [])
            assert len(got) == rows, f"{topic}: offset {offset}: {len(got)} of {rows} payloads"
            applied.append(got)
        else:
            assert k <= len(applied), f"{topic}: offset {offset}: k {k} after {len(applied)}"
    return applied


def cell(message):
    out = {}
    for i, name in enumerate(CELL, 1):
        v = one(message, i, 0)
        out[name] = v - (1 << 64) if v >> 63 else v  # differences are signed
    for i, name in enumerate(MONEY, 7):
        out[name] = int.from_bytes(one(message, i, b""), "little", signed=True)
    return out


def target(message):
    """(quarter, tenant, advertiser, campaign, publisher, currency), {cause: {"billed", "realtime"}}"""
    key = (one(message, 1, 0), *(text(message, n) for n in range(2, 7)))
    causes = {}
    for n, _, v in message:
        if n != 7:
            continue
        c = fields(v)
        cause = CAUSES[one(c, 1, 0)]
        billed = cell(fields(one(c, 2, b"")))
        assert cause not in causes
        causes[cause] = {"billed": billed, "realtime": billed if cause == "none" else cell(fields(one(c, 3, b"")))}
    return key, causes


def runs(data):
    """("begin", {...}) | ("targets", run, [(key, causes)]) | ("end", {...}) in the order of the topic `runs`."""
    out = []
    for _, value in records(data, "runs"):
        kind, _, v = fields(value)[0]
        m = fields(v)
        if kind == 1:
            vector = {}
            for part in (fields(f[2]) for f in m if f[0] == 4):
                source = fields(one(part, 1))
                vector[text(source, 1), one(source, 3, 0)] = one(part, 2, 0)
            out.append(("begin", {"run": text(m, 1), "chain": text(m, 2), "whole": bool(one(m, 3, 0)), "vector": vector,
                                  "at_ms": one(m, 8, 0), "asked_by": text(m, 10)}))
        elif kind == 2:
            out.append(("targets", text(m, 1), [target(fields(f[2])) for f in m if f[0] == 2]))
        elif kind == 3:
            out.append(("end", {"run": text(m, 1), "targets": one(m, 2, 0), "sha256": one(m, 3, b"").hex(),
                                "rows": one(m, 4, 0), "unexplained": one(m, 5, 0), "pending": one(m, 6, 0)}))
    return out


def books(data):
    return books_of(records(data, "billing"))


def books_of(found):
    """("posting", seq, run, key, causes) | ("applied", {...}) | ("closed", {...}) in the order of the topic `billing`."""
    out = []
    for payloads in collections(found, "billing"):
        for payload in payloads:
            for _, _, entry in fields(payload):
                kind, _, v = fields(entry)[0]
                m = fields(v)
                if kind == 1:
                    out.append(("posting", one(m, 1, 0), text(m, 2), *target(fields(one(m, 4)))))
                elif kind == 2:
                    out.append(("applied", {"run": text(m, 1), "chain": text(m, 2), "whole": bool(one(m, 3, 0)),
                                            "posted": one(m, 11, 0), "superseded": one(m, 13, 0),
                                            "sha256": one(m, 14, b"").hex(), "unexplained": one(m, 16, 0),
                                            "pending": one(m, 17, 0), "why": text(m, 18)}))
                elif kind == 3:
                    c = fields(one(m, 1))
                    out.append(("closed", {"period": text(c, 4), "asked_by": text(c, 2),
                                           "refused": bool(one(m, 2, 0)), "why": text(m, 3)}))
    return out
