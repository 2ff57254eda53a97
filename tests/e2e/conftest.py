"""What the end-to-end tests share: a running Adtally, plain HTTP, and killing processes.

The binaries come from the build directory in ADTALLY_BUILD (default: build). Everything listens on
127.0.0.1 at free ports and stops with the test.
"""
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Taken out of the environment: to the product an ADTALLY_* that it does not know is an error.
BUILD = Path(os.environ.pop("ADTALLY_BUILD", "build"))
CRASH_SEEDS = int(os.environ.pop("ADTALLY_CRASH_SEEDS", "20"))
CRASH_EVENTS = int(os.environ.pop("ADTALLY_CRASH_EVENTS", "10000"))  # of a seed; 20 seeds make 200,000
if not BUILD.is_absolute():
    BUILD = ROOT / BUILD
ADTALLY = BUILD / "jobs/adtally/adtally"
NO_KAFKA = os.environ.pop("ADTALLY_NO_KAFKA", "")
LEDGER_SECONDS = int(os.environ.pop("ADTALLY_LEDGER_SECONDS", "60"))
LEDGER_SEED = int(os.environ.pop("ADTALLY_LEDGER_SEED", "0"))  # 0: drawn, and printed
FIGURES = os.environ.pop("ADTALLY_FIGURES", "")  # a file to which figures are added
os.environ.pop("TEST_KAFKA", None)  # of the C tests
sys.path.insert(0, str(ROOT / "tests/kafka"))
import broker  # noqa: E402  pylint: disable=wrong-import-position

os.environ.pop("ADTALLY_KAFKA_LIBS", None)  # broker has read it
SHARED = ROOT.parent / "shared"
SANITIZED = "asan" in BUILD.name


def free_port():
    """Below those that the system gives to connections: none of them takes it before it is listened at."""
    while True:
        port = random.SystemRandom().randrange(10000, 32000)
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
                return port
            except OSError:
                pass


def run(*args, check=True, timeout=300, **kw):
    """One adtally command; its exit code must be 0 unless check is False."""
    done = subprocess.run([str(ADTALLY), *map(str, args)], capture_output=True, text=True, timeout=timeout, **kw)
    if check and done.returncode != 0:
        raise AssertionError(f"adtally {' '.join(map(str, args))}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


class Adtally:
    """`adtally up` on a data directory of its own."""

    def __init__(self, data, *settings):
        self.data = Path(data)
        self.settings = [str(s) for s in settings]
        self.port, self.admin = free_port(), free_port()
        self.process = None
        self.log = self.data.parent / (self.data.name + ".log")

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def start(self, wait=60):
        out = open(self.log, "ab")
        self.process = subprocess.Popen(
            [str(ADTALLY), "up", "--data", str(self.data), "--listen", f"127.0.0.1:{self.port}", "--admin",
             f"127.0.0.1:{self.admin}", *self.settings], stdout=out, stderr=out)
        out.close()
        if wait:
            self.wait_ready(wait)
        return self

    def wait_ready(self, seconds=60):
        until = time.time() + seconds
        while time.time() < until:
            if self.process.poll() is not None:
                raise AssertionError(f"adtally up ended with {self.process.returncode}\n{self.tail()}")
            try:
                if self.get("/readyz", admin=True)[0] == 200:
                    return
            except OSError:
                pass
            time.sleep(0.1)
        raise AssertionError(f"not ready after {seconds} s\n{self.tail()}")

    def tail(self, lines=60):
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def job_pid(self, job):
        m = re.search(r" pid=(\d+) ", (self.data / "run" / f"{job}.prom").read_text().splitlines()[0])
        return int(m.group(1))

    def kill(self, job, sig=signal.SIGKILL):
        """Kill a job, or "up" itself; the jobs end with it."""
        try:
            os.kill(self.process.pid if job == "up" else self.job_pid(job), sig)
        except (ProcessLookupError, FileNotFoundError):
            return False
        if job == "up":
            self.process.wait(30)
        return True

    def stop(self, seconds=60):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(seconds)
        return self.process.returncode if self.process else None

    def destroy(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def request(self, path, body=None, headers=None, admin=False, method=None, timeout=60):
        """(status, decoded body). Never raises for an HTTP status."""
        port = self.admin if admin else self.port
        req = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data=body, headers=headers or {}, method=method)
        try:
            with urllib.request.urlopen(req, timeout=timeout) as r:
                status, data, kind = r.status, r.read(), r.headers.get("Content-Type", "")
        except urllib.error.HTTPError as e:
            status, data, kind = e.code, e.read(), e.headers.get("Content-Type", "")
        return status, json.loads(data) if kind.startswith("application/json") and data else data.decode()

    def get(self, path, **kw):
        return self.request(path, **kw)

    def post(self, events, **kw):
        body = events if isinstance(events, bytes) else json.dumps(events).encode()
        kw.setdefault("headers", {"Content-Type": "application/json"})
        return self.request("/v1/events", body=body, **kw)

    def metrics(self, **params):
        query = "&".join(f"{k}={urllib.request.quote(str(v), safe='')}" for k, v in params.items())
        status, answer = self.get(f"/v1/metrics?{query}")
        assert status == 200, f"GET /metrics?{query}: {status} {answer}"
        return answer

    def quality(self):
        status, answer = self.get("/v1/quality")
        assert status == 200, answer
        return answer

    def prometheus(self):
        """{(name, labels): value} of the admin endpoint."""
        status, text = self.get("/metrics", admin=True)
        assert status == 200, text
        out = {}
        for line in text.splitlines():
            m = re.match(r"([a-z_0-9]+)(?:\{(.*)\})? (\S+)$", line)
            if m:
                out[(m.group(1), m.group(2) or "")] = float(m.group(3))
        return out

    def wait_counted(self, seconds=60):
        """Until nothing that was accepted is pending."""
        until = time.time() + seconds
        while True:
            ledger = self.quality()["ledger"]
            if ledger["pending"] == 0 and ledger["accepted"] > 0:
                return ledger
            if time.time() > until:
                raise AssertionError(f"still pending after {seconds} s: {ledger}\n{self.tail()}")
            time.sleep(0.2)


@pytest.fixture
def place():
    """An empty directory; kept when the test fails, so that it can be looked at."""
    d = Path(tempfile.mkdtemp(prefix="adtally-e2e-"))
    yield d
    shutil.rmtree(d, ignore_errors=True)


@pytest.fixture
def start(place):
    """start(*settings, name="data"): a running Adtally, stopped with the test."""
    running = []

    def go(*settings, name="data", wait=60):
        a = Adtally(place / name, *settings)
        running.append(a)
        return a.start(wait)

    yield go
    for a in running:
        a.destroy()


# ---- Kafka ---------------------------------------------------------------------------------------------------
class Kafka:
    """A broker of this session and what the test at hand calls its topics."""

    def __init__(self, cluster):
        self.cluster, self.prefix, self.bootstrap = cluster, None, cluster.bootstrap

    def settings(self, bootstrap=None):
        return ["--log", f"kafka:{bootstrap or self.bootstrap}", "--kafka-prefix", self.prefix]


@pytest.fixture(scope="session")
def kafka_cluster(tmp_path_factory):
    if NO_KAFKA:
        pytest.skip("ADTALLY_NO_KAFKA is set")
    try:
        import confluent_kafka  # noqa: F401  pylint: disable=unused-import,import-outside-toplevel
    except ImportError:
        pytest.fail("no confluent-kafka in this Python: run it as tests/run does, with build/venv/bin/python -m pytest",
                    pytrace=False)
    try:
        with broker.Cluster(tmp_path_factory.mktemp("kafka") / "1") as c:
            yield c
    except broker.BrokerError as e:
        pytest.fail(str(e), pytrace=False)


@pytest.fixture
def kafka(kafka_cluster):
    """The broker, whole again whatever the test before did to it, and a prefix of this test's own."""
    for n in kafka_cluster.nodes:
        n.resume()
        if not n.running():
            n.start()
    kafka_cluster.wait_ready()
    k = Kafka(kafka_cluster)
    k.prefix = f"t{random.getrandbits(40):x}."
    return k
