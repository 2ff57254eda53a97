"""What is on Kafka, read by other code than Adtally's: a confluent-kafka consumer and a small decoder of proto/.

`Ledger` is the oracle of RELIABILITY 3.7: it knows only the raw topic, the outputs and the committed offsets.
"""
import re
import struct
import threading
import time
from collections import defaultdict

GROUP = "realtime"
ACCEPTED = 0  # proto/reason.h: outcome codes; checked in test_kafka_ledger against the header


def consumer(bootstrap, **settings):
    from confluent_kafka import Consumer
    return Consumer({"bootstrap.servers": bootstrap, "group.id": "independent-reader", "enable.auto.commit": False,
                     "auto.offset.reset": "error", "isolation.level": "read_committed", "check.crcs": True,
                     "enable.partition.eof": True, "log_level": 2, "reconnect.backoff.ms": 300, **settings})


def partitions(bootstrap, topic, timeout=20):
    from confluent_kafka.admin import AdminClient
    t = AdminClient({"bootstrap.servers": bootstrap}).list_topics(topic, timeout=timeout).topics[topic]
    if t.error:
        raise LookupError(f"{topic}: {t.error}")
    return sorted(t.partitions)


class Record:
    def __init__(self, m):
        self.partition, self.offset, self.value, self.key = m.partition(), m.offset(), m.value(), m.key()
        self.append_ms = m.timestamp()[1]


def records(bootstrap, topic, isolation="read_committed", seconds=60):
    """All records of a topic, up to the end that the reader was told when it came there."""
    from confluent_kafka import KafkaError, TopicPartition
    c = consumer(bootstrap, **{"isolation.level": isolation})
    left = set(partitions(bootstrap, topic))
    c.assign([TopicPartition(topic, p, 0) for p in left])
    out, until = [], time.time() + seconds
    while left:
        if time.time() > until:
            raise TimeoutError(f"{topic}: not at the end of partitions {sorted(left)} after {seconds} s")
        for m in c.consume(500, 0.5):
            if m.error() is None:
                out.append(Record(m))
            elif m.error().code() == KafkaError._PARTITION_EOF:
                left.discard(m.partition())
            elif not m.error().retriable():
                raise RuntimeError(f"{topic}: {m.error()}")
    c.close()
    out.sort(key=lambda r: (r.partition, r.offset))
    return out


def committed(bootstrap, prefix, topic="events"):
    """{partition: (offset, metadata)} of the live group, as the broker keeps them: a client's own answer to
    OffsetFetch may hand the metadata over without its end."""
    out, wanted = {}, (prefix + GROUP, prefix + topic)
    for r in records(bootstrap, "__consumer_offsets"):
        if struct.unpack_from(">h", r.key)[0] > 1:
            continue  # the group itself
        group, at = wire_string(r.key, 2)
        name, at = wire_string(r.key, at)
        if (group, name) != wanted:
            continue
        partition = struct.unpack_from(">i", r.key, at)[0]
        if r.value is None:
            out.pop(partition, None)
            continue
        version, offset = struct.unpack_from(">hq", r.value)
        at = 10 + (4 if version >= 3 else 0)
        if version >= 4:  # a compact string
            n, at = varint(r.value, at)
            metadata = r.value[at:at + n - 1].decode()
        else:
            metadata, _ = wire_string(r.value, at)
        out[partition] = (offset, metadata)
    return out


def wire_string(b, at):
    n = struct.unpack_from(">h", b, at)[0]
    return b[at + 2:at + 2 + n].decode(), at + 2 + n


# ---- the wire format ---------------------------------------------------------------------------------------------
def varint(b, at):
    value = shift = 0
    while True:
        value |= (b[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if b[at - 1] < 128:
            return value, at


def fields(b):
    """(number, value) of each field: int, or bytes of a length-delimited one."""
    at = 0
    while at < len(b):
        tag, at = varint(b, at)
        kind = tag & 7
        if kind == 0:
            value, at = varint(b, at)
        elif kind == 1:
            value, at = struct.unpack_from("<Q", b, at)[0], at + 8
        elif kind == 2:
            n, at = varint(b, at)
            value, at = b[at:at + n], at + n
            if len(value) != n:
                raise ValueError("cut off")
        else:
            raise ValueError(f"wire type {kind}")
        yield tag >> 3, value


def message(b, repeated=()):
    """{number: value}; of the repeated numbers a list."""
    out = {n: [] for n in repeated}
    for n, v in fields(b):
        if n in repeated:
            out[n].append(v)
        else:
            out[n] = v
    return out


def signed(v):
    return v - (1 << 64) if v >= 1 << 63 else v


def nanos(money):
    m = message(money or b"")
    frac = m.get(2, 0)
    return signed(m.get(1, 0)) * 10**9 + ((frac >> 1) ^ -(frac & 1))


def events(value):
    """Events of a record of the topic events, in order."""
    for raw in message(value, {1})[1]:
        e = message(raw, {18})
        yield {"id": e.get(1, b"").decode(), "type": e.get(2, 0), "event_ms": e.get(3, e.get(21, 0)),
               "campaign": e.get(5, b"").decode(), "advertiser": e.get(4, b"").decode(),
               "tenant": e.get(20, b"").decode(), "cost": nanos(e.get(13)), "currency": e.get(16, b"").decode(),
               "fingerprint": e.get(25, 0)}


def output(value):
    """A record of an output topic: {source, k, epoch, n, payload, seal}."""
    m = message(value)
    s = message(m.get(1, b""))
    out = {"source": (s.get(1, b"").decode(), s.get(2, 0), s.get(3, 0)), "k": m.get(2, 0), "epoch": m.get(3, 0),
           "n": m.get(4, 0), "payload": m.get(5, b""), "seal": None}
    if 6 in m:
        q = message(m[6], {6})
        outcomes = {o.get(1, 0): o.get(2, 0) for o in map(message, q[6])}
        out["seal"] = {"parent_k": q.get(1, 0), "parent": q.get(2, b""), "digest": q.get(3, b""), "from": q.get(4, 0),
                       "to": q.get(5, 0), "outcomes": outcomes, "records": q.get(7, 0), "poison": q.get(8, 0),
                       "heartbeats": q.get(9, 0), "events": q.get(10, 0), "rows": q.get(11, 0)}
    return out


def rows(payload):
    """Rows of a RowBatch that the always-kept grouping has: {(minute, tenant, dims, currency): counts}."""
    for raw in message(payload, {1})[1]:
        r = message(raw, {4})
        if r.get(1, 0) == 0:
            key = (r.get(2, 0), r.get(3, b"").decode(), tuple(d.decode() for d in r[4]), r.get(5, b"").decode())
            yield key, (r.get(6, 0), r.get(7, 0), r.get(8, 0), int.from_bytes(r.get(9, b""), "little", signed=True))


# ---- invariants --------------------------------------------------------------------------------------------------
class Collector:
    """What a reader of one output topic sees, in its order: I4 and I5, and the newest rows of each cell."""

    def __init__(self, name):
        self.name, self.open, self.last, self.seals = name, {}, {}, defaultdict(list)
        self.cells, self.payloads, self.problems = {}, [], []

    def take(self, partition, offset, value):
        o = output(value)
        where = f"{self.name}/{partition} offset {offset}: source {o['source']} k {o['k']} epoch {o['epoch']}"
        key = (partition, o["source"], o["k"], o["epoch"])
        got = self.open.setdefault(key, [])
        if o["seal"] is None:
            if o["n"] != len(got):
                self.problems.append(f"I5: {where}: record n {o['n']} after {len(got)} records")
            got.append(o["payload"])
            return
        s = {**o["seal"], "k": o["k"], "epoch": o["epoch"], "offset": offset}
        if s["rows"] != len(got):
            self.problems.append(f"I5: {where}: a seal over {s['rows']} records, {len(got)} were seen")
        chain = (partition, o["source"])
        last = self.last.get(chain)
        if last is None:
            if s["from"] != 0:
                self.problems.append(f"I4: {where}: the first seal begins at {s['from']}")
        elif s["k"] != last["k"] + 1 or s["parent_k"] != last["k"] or s["parent"] != last["digest"] or s["from"] != last["to"]:
            self.problems.append(f"I4: {where}: does not continue k {last['k']} to {last['to']}: {s}")
        self.last[chain] = s
        self.seals[chain].append(s)
        self.payloads += got
        if self.name.endswith("rollups"):
            for payload in got:
                for cell, counts in rows(payload):
                    self.cells[(o["source"], cell)] = counts
        del self.open[key]

    def finish(self):
        for (partition, source, k, epoch), got in self.open.items():
            if got:
                self.problems.append(f"I5: {self.name}/{partition}: {len(got)} records of source {source} k {k} epoch "
                                     f"{epoch} are committed without a seal")
        return self.problems


class Watcher(threading.Thread):
    """I5 while everything is struck: a read_committed reader that runs from the start to the end."""

    def __init__(self, bootstrap, topic, parts):
        super().__init__(daemon=True)
        self.collector, self.ending = Collector(topic), threading.Event()
        self.bootstrap, self.topic, self.parts, self.error = bootstrap, topic, parts, None

    def run(self):
        from confluent_kafka import KafkaError, TopicPartition
        try:
            c = consumer(self.bootstrap)
            c.assign([TopicPartition(self.topic, p, 0) for p in range(self.parts)])
            at_end = set()
            while not (self.ending.is_set() and len(at_end) == self.parts):
                for m in c.consume(200, 0.3):
                    if m.error() is None:
                        at_end.discard(m.partition())
                        self.collector.take(m.partition(), m.offset(), m.value())
                    elif m.error().code() == KafkaError._PARTITION_EOF:
                        at_end.add(m.partition())
            c.close()
        except Exception as e:  # shown by the test, whose thread this is not
            self.error = e

    def finish(self, seconds=60):
        self.ending.set()
        self.join(seconds)
        if self.is_alive() or self.error:
            raise AssertionError(f"the watching reader of {self.topic}: {self.error or 'did not come to the end'}")
        return self.collector.finish()


class Ledger:
    """All topics of a prefix, read and counted again."""

    def __init__(self, bootstrap, prefix):
        for _ in range(20):
            self.committed = committed(bootstrap, prefix)
            self.read(bootstrap, prefix)
            if self.committed == committed(bootstrap, prefix):
                break  # otherwise something was committed meanwhile (heartbeats do), and the two are of different times
        self.recount()

    def read(self, bootstrap, prefix):
        self.problems = []
        self.raw = records(bootstrap, prefix + "events")
        self.topics = {}
        for name in ("rollups", "late", "quarantine"):
            c = self.topics[name] = Collector(prefix + name)
            for r in records(bootstrap, prefix + name):
                c.take(r.partition, r.offset, r.value)
            self.problems += c.finish()

    def recount(self):
        """Counted is the first occurrence of an id; what is late or quarantined is not expected here but seen by I1."""
        self.ids, self.expected, self.duplicates = {}, defaultdict(lambda: [0, 0, 0, 0]), 0
        self.events_at = defaultdict(dict)  # partition -> offset -> number of events
        for r in self.raw:
            n = 0
            for e in events(r.value):
                n += 1
                if (e["tenant"], e["id"]) in self.ids:
                    self.duplicates += 1
                    continue
                self.ids[(e["tenant"], e["id"])] = (r.partition, r.offset)
                cell = (r.partition, e["event_ms"] // 60000, e["tenant"], e["advertiser"], e["campaign"], e["currency"])
                self.expected[cell][e["type"] - 1] += 1
                self.expected[cell][3] += e["cost"]
            self.events_at[r.partition][r.offset] = n

    def check_chain(self):
        """I1, I4 and I6 over every partition."""
        seals = self.topics["rollups"].seals
        for (partition, source), chain in seals.items():
            counts = self.events_at[source[2]]
            for s in chain:
                inside = sum(n for o, n in counts.items() if s["from"] <= o < s["to"])
                if inside != s["events"] or sum(s["outcomes"].values()) != inside:
                    self.problems.append(f"I1: {source} k {s['k']} [{s['from']}, {s['to']}): {inside} events are in the topic, "
                                         f"the seal says {s['events']}, by outcome {s['outcomes']}")
            last, (offset, metadata) = chain[-1], self.committed.get(partition, (-1, ""))
            named = re.match(r"adtally1 ck-(\d+)-", metadata or "")
            if offset != last["to"] or not named or int(named.group(1)) != last["k"]:
                self.problems.append(f"I6: {source}: committed offset {offset} \"{metadata}\", the last seal is k {last['k']} "
                                     f"to {last['to']}")
            for name in ("late", "quarantine"):
                other = self.topics[name].seals.get((partition, source), [])
                if [(s["k"], s["digest"]) for s in other] != [(s["k"], s["digest"]) for s in chain]:
                    self.problems.append(f"I6: {source}: the seals in {name} are others than those in rollups")

    def check_sums(self):
        """I2 and I8: the newest row of every cell equals the count of the raw topic."""
        served = {}
        for (source, (minute, tenant, dims, currency)), counts in self.topics["rollups"].cells.items():
            served[(source[2], minute, tenant, *dims, currency)] = list(counts)
        for cell in sorted(set(served) | set(self.expected)):
            have, want = served.get(cell, [0, 0, 0, 0]), list(self.expected.get(cell, [0, 0, 0, 0]))
            if have != want:
                self.problems.append(f"I2/I8: cell {cell}: rows say {have}, the raw topic {want}")

    def check_ids(self, tenant_ids):
        """I3: what was answered 202 is in the raw topic."""
        ids = {i for _, i in self.ids}
        missing = sorted(set(tenant_ids) - ids)
        if missing:
            self.problems.append(f"I3: {len(missing)} accepted ids are not in the log: {missing[:10]}")

    def check(self, accepted):
        self.check_chain()
        self.check_sums()
        self.check_ids(accepted)
        return self.problems
