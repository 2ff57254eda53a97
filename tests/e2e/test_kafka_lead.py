"""Several reconcile processes of one log (R1, R4, K2, K7, K8), each with a data directory of its own, as machines have: one leads,
and whoever takes over goes on. The oracle is what was sent; the digest is that of one process that begins anew."""
import json
import os
import re
import signal
import subprocess
import time

from conftest import BUILD, Adtally, run
from test_kafka_money import HOURS_MS, QUICK, send, shown
from test_money import ask, wait

JOB = BUILD / "jobs/reconcile/adtally-reconcile"
LOST = 75


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

    def leads(self):
        try:
            text = (self.data / "run/reconcile.prom").read_text()
        except FileNotFoundError:
            return False
        return f" pid={self.process.pid} " in text and re.search(r"^adtally_reconcile_leads 1$", text, re.M) is not None

    def state(self):
        file = self.data / "run/reconcile.json"
        return json.loads(file.read_text())["state"] if file.exists() else ""

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

    def __init__(self, place, kafka):
        (place / "store").mkdir()
        self.common = [*QUICK, *kafka.settings(), "--checkpoint-store", place / "store"]
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

    def end(self):
        for m in self.members:
            m.end(signal.SIGKILL)
        self.a.destroy()


def test_whoever_takes_the_lead_goes_on(place, kafka):
    rig = Rig(place, kafka)
    try:
        one, two, three = rig.members
        rig.send("first", 200, 1000)
        time.sleep(1)  # heartbeats in every partition: two hours ago is over
        rig.send("late", 30, 500, HOURS_MS)
        # Dies in the middle of its post; the next one in the middle of the chain's commit.
        one.start(DF_FAIL="post-end=abort")
        rig.until("one leads", one.leads)
        two.start(DF_FAIL="commit=abort@5", DF_FAIL_ONLY="events/")
        three.start()
        rig.until("the others wait", lambda: two.state() == three.state() == "standby")
        rig.asked("a")
        rig.until("one dies while it posts", one.died)
        rig.until("two leads", two.leads)
        rig.applied("a")
        chains = sorted(p.name for p in (place / "store").glob("reconcile-????????????????"))
        assert len(chains) == 1, chains
        rig.send("second", 100, 7)
        rig.asked("b")
        rig.until("two dies while it works", two.died)
        rig.until("three leads", three.leads)
        rig.applied("b")
        # The first one is back: the lead is its again, whatever it still has on its disk is of long ago.
        one.start()
        rig.until("three ends", three.died)
        assert three.process.returncode == LOST, rig.tail()
        three.start()
        rig.until("one leads again", one.leads)
        rig.send("third", 50, 3)
        rig.asked("c")
        rig.applied("c")
        # It stands still; when it goes on it is not the leader any more, and ends by itself.
        one.process.send_signal(signal.SIGSTOP)
        rig.send("fourth", 40, 9)
        rig.asked("d")
        rig.until("three leads again", three.leads)
        rig.applied("d")
        one.process.send_signal(signal.SIGCONT)
        rig.until("one ends", one.died)
        assert one.process.returncode == LOST, rig.tail()
        rig.asked("e")
        last = rig.applied("e")
        assert sorted(p.name for p in (place / "store").glob("reconcile-????????????????")) == chains
        assert three.end() == 0
        alone(rig, place, chains[0].removeprefix("reconcile-"), last)
    finally:
        rig.end()


def alone(rig, place, chain, last):
    """R1: one process that reads all from the first record finds the same rows."""
    settings = [s for s in rig.settings if str(s) not in ("--reconcile-every", "1h")]
    run("reconcile", "--drop", chain, "--data", place / "r2", *settings)
    (place / "alone").mkdir()
    done = run("reconcile", "--json", "--quiet", "--data", place / "alone", *settings, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert last["digest"] in done.stdout, f"{last} {done.stdout}"
