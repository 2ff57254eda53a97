"""The ledger test (RELIABILITY 3.7): several realtime processes and the broker are struck while self-describing events
come in; afterwards the invariants I1 to I6 and I8 hold, found by a reader that shares no code with Adtally.

Every event is (source, sequence, random weight), the weight being its cost, so a wrong sum names the event. Retries and
repeats are sent on purpose. I7 (the state's digest) is checked by Adtally itself at each takeover (K8).
"""
import os
import random
import signal
import subprocess
import threading
import time

import pytest

import reader
from conftest import ADTALLY, BUILD, LEDGER_SECONDS, LEDGER_SEED
from proxy import Proxy
from test_crash import check, finish

SETTINGS = ["--grace", "15m", "--checkpoint-min", "100ms", "--checkpoint-max", "1s", "--heartbeat", "500ms"]
SESSION_SECONDS = 6
GROUP = ["--kafka-session-timeout", f"{SESSION_SECONDS}s"]


class Member:
    """One more realtime process, as on a machine of its own: own data directory, the shared checkpoint store."""

    def __init__(self, place, name, settings):
        self.name, self.log, self.process = name, place / f"{name}.log", None
        self.args = [str(BUILD / "jobs/realtime/adtally-realtime"), "--data", str(place / name), "--instance", name,
                     *map(str, settings)]
        (place / name).mkdir()

    def start(self):
        with open(self.log, "ab") as out:
            self.process = subprocess.Popen(self.args, stdout=out, stderr=out)

    def running(self):
        return self.process is not None and self.process.poll() is None

    def send(self, sig):
        if self.running():
            self.process.send_signal(sig)

    def end(self, sig=signal.SIGTERM, seconds=40):
        """Its exit code; whatever state it is in, it is gone afterwards."""
        if self.process is None:
            return None
        self.send(signal.SIGCONT)
        self.send(sig)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"{self.name} did not end within {seconds} s\n{self.log.read_text(errors='replace')[-3000:]}")

    def destroy(self):
        if self.running():
            self.process.kill()
            self.process.wait()


class Source(threading.Thread):
    """Posts until told to end; what it was told 202 for is in `accepted`."""

    def __init__(self, a, name, seed, rate):
        super().__init__(daemon=True)
        self.a, self.name_, self.dice, self.rate = a, name, random.Random(seed), rate
        self.accepted, self.weights, self.ending, self.error, self.retries = set(), {}, threading.Event(), None, 0

    def event(self, seq):
        i = f"{self.name_}-{seq:08d}"
        self.weights[i] = self.dice.randrange(1, 1 << 40)
        return {"event_id": i, "type": "click", "event_time": int(time.time() * 1000), "advertiser_id": "ledger",
                "campaign_id": f"{self.name_}-{seq % 7}", "cost_micros": self.weights[i], "currency": "EUR"}

    def post(self, batch):
        until = time.time() + 120
        while True:
            try:
                status, answer = self.a.post(batch, timeout=60)
            except OSError as e:
                status, answer = 0, str(e)
            if status == 202:
                assert answer["accepted"] == len(batch), answer
                self.accepted.update(e["event_id"] for e in batch)
                return
            if status not in (0, 429, 500, 502, 503) or time.time() > until:
                raise AssertionError(f"POST /events: {status} {answer}")
            self.retries += 1
            time.sleep(0.2)

    def run(self):
        seq, old = 0, []
        try:
            while not self.ending.is_set():
                n = self.dice.randrange(1, 200)
                batch = [self.event(seq + i) for i in range(n)]
                seq += n
                if old and self.dice.random() < 0.1:
                    self.post(self.dice.choice(old))  # sent again, byte for byte
                self.post(batch)
                old = [*old[-20:], batch]
                time.sleep(n / self.rate)
        except BaseException as e:  # shown by the test, whose thread this is not
            self.error = e

    def finish(self):
        self.ending.set()
        self.join(150)
        assert not self.is_alive(), f"source {self.name_} hangs"
        if self.error:
            raise self.error


@pytest.fixture
def members(place):
    made = []

    def make(name, settings):
        made.append(Member(place, name, settings))
        return made[-1]

    yield make
    for m in made:
        m.destroy()


def wait_committed(kafka, ends, seconds=120):
    """Until every partition's committed offset reached what the raw topic held."""
    until = time.time() + seconds
    while True:
        have = {p: o for p, (o, _) in reader.committed(kafka.bootstrap, kafka.prefix).items()}
        if all(have.get(p, -1) >= end for p, end in ends.items()):
            return
        assert time.time() < until, f"not counted after {seconds} s: committed {have}, the topic held {ends}"
        time.sleep(0.5)


def raw_ends(kafka):
    ends = {}
    for r in reader.records(kafka.bootstrap, kafka.prefix + "events"):
        ends[r.partition] = r.offset + 1
    return ends


class Chaos:
    """Strikes until the time is over; at its end everything runs again."""

    def __init__(self, a, kafka, extras, dice):
        self.a, self.kafka, self.extras, self.dice, self.said = a, kafka, extras, dice, []
        self.paused, self.broker_at = {}, 0.0

    def say(self, what):
        self.said.append(f"{time.strftime('%H:%M:%S')} {what}")

    def pause(self, name, send):
        if name in self.paused:
            return
        send(signal.SIGSTOP)
        self.paused[name] = (time.time() + self.dice.uniform(SESSION_SECONDS + 1, SESSION_SECONDS + 6), send)
        self.say(f"stop {name}")

    def resume(self, all_of_them=False):
        for name, (until, send) in list(self.paused.items()):
            if all_of_them or time.time() > until:
                send(signal.SIGCONT)
                del self.paused[name]
                self.say(f"continue {name}")

    def broker(self):
        if time.time() - self.broker_at < 25:
            return
        node = self.dice.choice(self.kafka.cluster.nodes)
        how = self.dice.choice(["kill", "stop"])
        self.say(f"broker {how}")
        getattr(node, how)()
        time.sleep(self.dice.uniform(0, 3))
        node.start()
        self.kafka.cluster.wait_ready()
        self.broker_at = time.time()

    def main_pid(self):
        try:
            pid = self.a.job_pid("realtime")
        except (OSError, AttributeError, IndexError):
            return None
        return lambda sig: self.send(pid, sig)

    def send(self, pid, sig):
        try:
            os.kill(pid, sig)
        except ProcessLookupError:
            pass

    def strike(self):
        what = self.dice.choice(["kill main", "kill", "kill", "pause main", "pause", "join or leave", "join or leave", "broker"])
        m = self.dice.choice(self.extras)
        if what == "kill main" and "main" not in self.paused:
            self.say(what)
            self.a.kill("realtime")
        elif what == "pause main" and self.main_pid():
            self.pause("main", self.main_pid())
        elif what == "broker":
            self.broker()
        elif m.name in self.paused:
            pass
        elif what == "kill" and m.running():
            self.say(f"kill {m.name}")
            m.process.kill()
            m.process.wait()
        elif what == "pause" and m.running():
            self.pause(m.name, m.send)
        elif what == "join or leave" and m.running():
            self.say(f"{m.name} leaves: {m.end()}")
        elif not m.running():
            self.say(f"{m.name} joins")
            m.start()

    def run(self, seconds):
        until = time.time() + seconds
        while time.time() < until:
            time.sleep(self.dice.uniform(0.5, 4))
            self.resume()
            self.strike()
        self.resume(all_of_them=True)
        for m in self.extras:
            if not m.running():
                m.start()


def run_ledger(start, kafka, members, place, seed, seconds, rate=600):
    dice = random.Random(seed)
    settings = [*SETTINGS, *GROUP, *kafka.settings(), "--checkpoint-store", place / "store", "--partitions", 4]
    (place / "store").mkdir()
    a = start(*settings)
    extras = [members(n, settings) for n in ("b", "c")]
    extras[0].start()
    sources = [Source(a, f"s{i}", seed * 10 + i, rate) for i in range(2)]
    watchers = [reader.Watcher(kafka.bootstrap, kafka.prefix + t, 4) for t in ("rollups", "late", "quarantine")]
    for t in [*sources, *watchers]:
        t.start()
    chaos = Chaos(a, kafka, extras, dice)
    try:
        chaos.run(seconds)
        healed = time.time()
        for s in sources:
            s.finish()
        ends = raw_ends(kafka)
        wait_committed(kafka, ends)
        recovered = time.time() - healed
        problems = judge(a, kafka, extras, sources, watchers)
    except BaseException:
        print(f"seed {seed}\n" + "\n".join(chaos.said))
        raise
    sent = sum(len(s.accepted) for s in sources)
    print(f"ledger: seed {seed}, {seconds} s, {sent} events accepted, {sum(s.retries for s in sources)} retries, "
          f"{len(chaos.said)} strikes, all counted {recovered:.1f} s after the last")
    assert not problems, f"seed {seed}: {len(problems)} problems\n" + "\n".join(problems[:30] + chaos.said)


def judge(a, kafka, extras, sources, watchers):
    weights = {i: w for s in sources for i, w in s.weights.items()}
    accepted = {i for s in sources for i in s.accepted}
    a.wait_counted(90)
    totals = a.quality()["ledger"]
    assert a.stop() == 0, a.tail()
    for m in extras:
        # 75: it was fenced by its own name after its session had lapsed, and says that it is to be started again.
        assert m.end() in (0, None, 75), m.log.read_text(errors="replace")[-3000:]
    problems = [p for w in watchers for p in w.finish()]
    found = reader.Ledger(kafka.bootstrap, kafka.prefix)
    problems += found.check(accepted)
    # What the view says, against the raw topic and against what was sent.
    ids = {i for _, i in found.ids}
    if totals["counted"] != len(ids):
        problems.append(f"the view counts {totals['counted']} events, {len(ids)} ids are in the topic")
    spend = sum(c[3] for c in found.topics["rollups"].cells.values())
    want = sum(weights[i] for i in ids) * 1000
    if spend != want:
        problems.append(f"I2: rows sum to {spend} nanos, the weights of the ids in the topic to {want}: {spend - want}")
    return problems


def test_ledger(start, kafka, members, place):
    seed = LEDGER_SEED or random.randrange(1, 1 << 31)
    run_ledger(start, kafka, members, place, seed, LEDGER_SECONDS)


@pytest.mark.slow
def test_ledger_long(start, kafka, members, place):
    run_ledger(start, kafka, members, place, LEDGER_SEED or random.randrange(1, 1 << 31), max(600, LEDGER_SECONDS))


def test_a_stopped_owner_is_fenced_and_harmless(start, kafka, members, place):
    """K8: the other process takes its partitions over; the zombie, continued, changes nothing."""
    settings = [*SETTINGS, *GROUP, *kafka.settings(), "--checkpoint-store", place / "store", "--partitions", 4]
    (place / "store").mkdir()
    a = start(*settings)
    other = members("b", settings)
    other.start()
    source = Source(a, "z", 7, 300)
    source.start()
    time.sleep(4)
    pid = a.job_pid("realtime")
    os.kill(pid, signal.SIGSTOP)
    stopped = time.time()
    try:
        time.sleep(SESSION_SECONDS)
        wait_committed(kafka, raw_ends(kafka), 60)  # also of the partitions that the stopped process had
        print(f"takeover from a stopped process: {time.time() - stopped:.1f} s, of them {SESSION_SECONDS} to notice")
    finally:
        os.kill(pid, signal.SIGCONT)
    time.sleep(3)
    source.finish()
    wait_committed(kafka, raw_ends(kafka), 60)
    problems = judge(a, kafka, [other], [source], [])
    assert not problems, "\n".join(problems[:20])


@pytest.mark.parametrize("name, key", [("EndTxn", Proxy.END_TXN), ("TxnOffsetCommit", Proxy.TXN_OFFSET_COMMIT),
                                       ("AddOffsetsToTxn", Proxy.ADD_OFFSETS), ("Produce", Proxy.PRODUCE)])
def test_a_lost_answer_counts_once(start, kafka, name, key):
    """K3, K7: the broker did it, the client never heard; asked again or taken over, it is there exactly once."""
    node = kafka.cluster.nodes[0]
    with Proxy(node.proxy, node.proxied) as p:
        a = start(*SETTINGS, *GROUP, *kafka.settings(f"127.0.0.1:{node.proxy}"))
        truth, sender = generate_at(a, 61)
        while sender.poll() is None:
            p.drop_answer(key)
            time.sleep(1.0)
        finish(sender, 61)
        p.heal()
        assert len(p.done["answer dropped"]) >= 3, (name, dict(p.seen), dict(p.done))
        check(a, truth, 61, "--killed")
        assert a.stop() == 0
    found = reader.Ledger(kafka.bootstrap, kafka.prefix)
    found.check_chain()
    assert not found.problems, "\n".join(found.problems[:20])


def generate_at(a, seed):
    """Grace as in SETTINGS: the truth depends on it."""
    truth = a.data.parent / f"truth-{seed}.json"
    return truth, subprocess.Popen(
        [str(ADTALLY), "generate", "--to", a.url, "--live", "--events", "6000", "--seed", str(seed), "--rate", "600",
         "--campaigns", "20", "--duplicates", "0.05", "--currencies", "EUR,USD", "--grace", "15m", "--truth", str(truth),
         "--quiet"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
