"""Reconcile processes of one log on a broker, each with a data directory of its own, as machines have, and one checkpoint
store. The oracle is what was sent; the digest is that of one process that begins anew."""
import json
import os
import re
import signal
import subprocess
import time
from collections import defaultdict

import reader
from conftest import BUILD, Adtally, run
from test_kafka_money import QUICK, send, shown
from test_money import ask, wait

JOB = BUILD / "jobs/reconcile/adtally-reconcile"


class Member:
    """An adtally-reconcile of its own, as on a machine of its own."""

    def __init__(self, place, name, settings):
        self.name, self.data, self.process = name, place / name, None
        self.args = [str(JOB), "--data", str(self.data), "--instance", name, *map(str, settings)]
        self.data.mkdir()

    def start(self, **fail):
        """fail: DF_FAIL and its like, of this life alone."""
        with open(self.data / "log", "ab") as out:
            self.process = subprocess.Popen(self.args, stdout=out, stderr=out, env={**os.environ, **fail})
        return self

    def metric(self, name):
        """Of this life; None: not told yet."""
        try:
            text = (self.data / "run/reconcile.prom").read_text()
        except FileNotFoundError:
            return None
        found = re.search(rf"^adtally_reconcile_{name} (\S+)$", text, re.M)
        return float(found.group(1)) if f" pid={self.process.pid} " in text and found else None

    def leads(self):
        return self.metric("leads") == 1

    def status(self):
        file = self.data / "run/reconcile.json"
        return json.loads(file.read_text()) if file.exists() else {"state": ""}

    def state(self):
        return self.status()["state"]

    def helps(self, leader):
        """With the run of this leader, and has partitions of it."""
        s = self.status()
        return s["state"] == "helping" and s["leader"] == leader.name and s["partitions"] > 0

    def taken(self):
        """{(partition, epoch)} of `events` that it took over, by its own log lines."""
        found = re.findall(r"task=events/(\d+) taken over k=\d+ epoch=(\d+)", (self.data / "log").read_text(errors="replace"))
        return {(int(p), int(epoch)) for p, epoch in found}

    def died(self):
        return self.process.poll() is not None

    def end(self, sig=signal.SIGTERM):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(sig)
        return self.process.wait(60) if self.process else None

    def tail(self):
        return "\n".join((self.data / "log").read_text(errors="replace").splitlines()[-25:])


class Rig:
    """Everything but the bill on one machine, and the members of three others."""

    def __init__(self, place, kafka, *more):
        (place / "store").mkdir()
        self.place, self.kafka = place, kafka
        self.common = [*QUICK, *kafka.settings(), "--checkpoint-store", place / "store", *more]
        self.a = Adtally(place / "data", *self.common, "--reconcile", "off").start()
        # `archive` is one that all see, as several machines have it.
        self.settings = [*self.common, "--archive", f"dir:{place}/data/archive"]
        self.members = [Member(place, f"r{i}", self.settings) for i in range(3)]
        self.sent = 0

    def tail(self):
        return "\n".join(f"---- {m.name}\n{m.tail()}" for m in self.members if m.process)

    def send(self, name, count, micros, age_ms=0):
        self.sent += send(self.a, name, count, micros, age_ms)
        self.a.wait_counted()

    def until(self, what, condition, seconds=60):
        end = time.time() + seconds
        while not condition():
            assert time.time() < end, f"{what}: it did not happen\n{self.tail()}"
            time.sleep(0.1)

    def asked(self, name):
        ask(self.a, "/v1/reconcile", {"id": name})

    def applied(self, name):
        """Whoever leads: its result, whose money is all that was sent, each event once."""
        try:
            got = wait(lambda: (r := ask(self.a, f"/v1/reconcile/{name}"))["state"] == "applied" and r, self.a, 150)
        except AssertionError as e:
            raise AssertionError(f"{name}: {e}\n{self.tail()}") from e
        assert got["unexplained"] == 0, got
        assert shown(self.a)[1] == self.sent, f"{name}: {shown(self.a)} of {self.sent}\n{self.tail()}"
        return got

    def chains(self):
        """In the checkpoint store."""
        return sorted(p.name.removeprefix("reconcile-") for p in (self.place / "store").glob("reconcile-????????????????"))

    def shares(self):
        """K5, K6: the seals of the chain's rows continue each other without a gap. {member's name: [(partition, k)]} of
        who wrote them: no two takeovers have an epoch of a partition in common."""
        chain, = self.chains()
        owner = {taken: m.name for m in self.members if m.process for taken in m.taken()}
        c = reader.Collector("bill")
        for r in reader.records(self.kafka.bootstrap, f"{self.kafka.prefix}reconcile-{chain}-bill"):
            c.take(r.partition, r.offset, r.value)
        c.finish()
        assert not c.problems, c.problems
        out = defaultdict(list)
        for (partition, _), seals in c.seals.items():
            for s in seals:
                out[owner[partition, s["epoch"]]].append((partition, s["k"]))
        return out

    def check_alone(self, last):
        """R1: one process that reads all from the first record finds the same rows. Ends the members."""
        for m in self.members:
            m.end()
        chain, = self.chains()
        settings = [s for s in self.settings if str(s) not in ("--reconcile-every", "1h")]
        run("reconcile", "--drop", chain, "--data", self.members[2].data, *settings)
        (self.place / "alone").mkdir()
        done = run("reconcile", "--json", "--quiet", "--data", self.place / "alone", *settings, check=False)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        assert last["digest"] in done.stdout, f"{last} {done.stdout}"

    def end(self):
        for m in self.members:
            m.end(signal.SIGKILL)
        self.a.destroy()
