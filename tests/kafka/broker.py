#!/usr/bin/env python3
"""A real Apache Kafka for tests: one or three KRaft nodes on 127.0.0.1, up in seconds, gone with their parent.

  broker.py fetch                              the jars into the cache; prints their directory
  broker.py start --dir DIR [--port N] [--brokers 1|3] [--parent PID]
                                               in the background; prints HOST:PORT[,HOST:PORT...] when it answers
  broker.py stop --dir DIR
  broker.py kill|pause|resume --dir DIR [--node N]   SIGKILL, SIGSTOP, SIGCONT
  broker.py run [--brokers 1|3] -- COMMAND     COMMAND with TEST_KAFKA set; its exit code
  broker.py drive [--brokers 1|3]              for tests that are not in Python: prints HOST:PORT,..., then follows
                                               lines "kill|start|pause|resume N", each answered by "ok"; ends with stdin

It ends with --parent (default: the process that called it; 0: never). Data is for one run only: DIR is emptied at
start. Needs java and, once, mvn with network for the jars, which are kept in
${ADTALLY_KAFKA_LIBS:-${XDG_CACHE_HOME:-~/.cache}/adtally/kafka-VERSION}.
"""
import argparse
import base64
import ctypes
import fcntl
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

HERE = Path(__file__).resolve().parent
POM = HERE / "pom.xml"
VERSION = re.search(r"kafka_2\.13</artifactId>\s*<version>([^<]+)<", POM.read_text()).group(1)
START_SECONDS = 90
JAVA = ["-Xmx400m", "-Xss512k", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto",
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-Dorg.slf4j.simpleLogger.showDateTime=true",
        "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS", "-Djava.awt.headless=true"]
# Read once: to the product an ADTALLY_* that it does not know is an error, so tests take it out of the environment.
LIBS = os.environ.get("ADTALLY_KAFKA_LIBS")
_libc = ctypes.CDLL(None, use_errno=True)


class BrokerError(Exception):
    """What is wrong and what to do; meant to be shown as it is."""


def free_ports(n):
    """n different ports: all are held until all are known."""
    held = []
    for _ in range(n):
        s = socket.socket()
        s.bind(("127.0.0.1", 0))
        held.append(s)
    ports = [s.getsockname()[1] for s in held]
    for s in held:
        s.close()
    return ports


def port_taken(port):
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def die_with_parent():
    """In the child, between fork and exec: SIGKILL when the parent is gone, whatever ended it."""
    os.setsid()  # Ctrl-C at the terminal is for the tests; they stop the broker
    _libc.prctl(1, signal.SIGKILL)


def need(tool, package):
    if not shutil.which(tool):
        raise BrokerError(f"{tool} is missing: install the package {package} (deploy/setup test)")


def libs():
    """The directory of the jars; fetched once, safe when two processes ask at the same time."""
    if LIBS:
        home = Path(LIBS)
    else:
        cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        home = Path(cache) / "adtally" / f"kafka-{VERSION}"
    if (home / f"kafka_2.13-{VERSION}.jar").exists():
        return home
    need("mvn", "maven")
    home.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{home}.lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (home / f"kafka_2.13-{VERSION}.jar").exists():
            return home
        with tempfile.TemporaryDirectory(dir=home.parent, prefix="kafka-new-") as new:
            # The pom is copied: maven may write beside it.
            shutil.copy(POM, new)
            done = subprocess.run(["mvn", "-q", "-B", "-f", f"{new}/pom.xml", "dependency:copy-dependencies",
                                   f"-DoutputDirectory={new}/libs"], capture_output=True, text=True, check=False)
            if done.returncode != 0 or not Path(new, "libs", f"kafka_2.13-{VERSION}.jar").exists():
                said = "\n".join((done.stdout + done.stderr).strip().splitlines()[-8:])
                raise BrokerError(f"the broker's jars could not be fetched by mvn (exit {done.returncode}):\n{said}\n"
                                  "Check the network and maven's settings, or put the jars of tests/kafka/pom.xml into a "
                                  "directory and set ADTALLY_KAFKA_LIBS to it.")
            shutil.rmtree(home, ignore_errors=True)
            os.rename(f"{new}/libs", home)
    return home


# ---- a few requests of the protocol, so that "ready" does not depend on a client library --------------------------
def ask(port, key, version, body, timeout=3.0):
    """One request on a connection of its own; the answer without its header."""
    head = struct.pack(">hhih", key, version, 7, 5) + b"ready"
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as s:
        s.sendall(struct.pack(">i", len(head) + len(body)) + head + body)
        want, data = 4, b""
        while len(data) < want:
            more = s.recv(65536)
            if not more:
                raise OSError("connection closed")
            data += more
            if len(data) >= 4:
                want = 4 + struct.unpack(">i", data[:4])[0]
    return data[8:]


def alive_brokers(port):
    """The number of brokers in a Metadata answer (version 1, no topics)."""
    return struct.unpack(">i", ask(port, 3, 1, struct.pack(">i", 0))[:4])[0]


def coordinator_error(port, kind):
    """FindCoordinator, version 1: 0 group, 1 transaction. The first one creates the internal topic."""
    return struct.unpack(">ih", ask(port, 10, 1, struct.pack(">h5sb", 5, b"ready", kind))[:6])[1]


class Node:
    """One process: broker and controller."""

    def __init__(self, cluster, index, ports):
        self.cluster, self.id = cluster, index + 1
        self.port, self.controller, self.proxied, self.proxy = ports
        self.dir = cluster.dir / f"node{self.id}"
        self.log = cluster.dir / f"node{self.id}.log"
        self.process = None

    def configure(self):
        c, n = self.cluster, len(self.cluster.nodes)
        voters = ",".join(f"{o.id}@127.0.0.1:{o.controller}" for o in c.nodes)
        local = "127.0.0.1"
        settings = {
            "process.roles": "broker,controller", "node.id": self.id, "controller.quorum.voters": voters,
            # PROXIED is the same broker for clients behind tests/kafka/proxy.py: what it advertises is the proxy.
            "listeners": f"PLAINTEXT://{local}:{self.port},PROXIED://{local}:{self.proxied},"
                         f"CONTROLLER://{local}:{self.controller}",
            "advertised.listeners": f"PLAINTEXT://{local}:{self.port},PROXIED://{local}:{self.proxy}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "controller.listener.names": "CONTROLLER", "inter.broker.listener.name": "PLAINTEXT",
            "log.dirs": self.dir / "data", "auto.create.topics.enable": "false", "num.partitions": 1,
            "default.replication.factor": n, "min.insync.replicas": 2 if n > 2 else 1,
            "unclean.leader.election.enable": "false",
            "offsets.topic.num.partitions": 2, "offsets.topic.replication.factor": n,
            "transaction.state.log.num.partitions": 2, "transaction.state.log.replication.factor": n,
            "transaction.state.log.min.isr": 2 if n > 2 else 1,
            "transaction.abort.timed.out.transaction.cleanup.interval.ms": 1000,
            "share.coordinator.state.topic.replication.factor": n, "share.coordinator.state.topic.num.partitions": 1,
            "group.initial.rebalance.delay.ms": 0, "group.min.session.timeout.ms": 1000,
            # A node that was killed may come back at once.
            "broker.session.timeout.ms": 3000, "broker.heartbeat.interval.ms": 500,
            "controller.quorum.election.timeout.ms": 500, "controller.quorum.fetch.timeout.ms": 1500,
            # Small: many of these run on a laptop beside the tests.
            "num.network.threads": 2, "num.io.threads": 4, "background.threads": 2, "log.cleaner.threads": 1,
            "log.cleaner.dedupe.buffer.size": 2 * 1024 * 1024, "log.index.size.max.bytes": 1024 * 1024,
            **c.extra,
        }
        self.dir.mkdir(parents=True)
        (self.dir / "server.properties").write_text("".join(f"{k}={v}\n" for k, v in settings.items()))

    def java(self, *args, **kw):
        return subprocess.Popen(["java", *JAVA, "-cp", f"{self.cluster.libs}/*", *map(str, args)], cwd=self.dir,
                                stdin=subprocess.DEVNULL, preexec_fn=die_with_parent, **kw)

    def format(self):
        return self.java("kafka.tools.StorageTool", "format", "-t", self.cluster.id, "-c", self.dir / "server.properties",
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def start(self):
        """Also after kill or stop: the same data and ports. The caller waits with Cluster.wait_ready."""
        out = open(self.log, "ab")
        self.process = self.java("kafka.Kafka", self.dir / "server.properties", stdout=out, stderr=out)
        out.close()

    def running(self):
        return self.process is not None and self.process.poll() is None

    def signal(self, sig):
        if self.running():
            self.process.send_signal(sig)

    def kill(self):
        """kill -9, and wait until it is gone."""
        self.signal(signal.SIGKILL)
        if self.process:
            self.process.wait(30)

    def pause(self):
        self.signal(signal.SIGSTOP)

    def resume(self):
        self.signal(signal.SIGCONT)

    def stop(self):
        """In order; a broker that does not end within 10 s is killed."""
        self.resume()
        self.signal(signal.SIGTERM)
        if self.process:
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()

    def tail(self, lines=15):
        try:
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        except OSError:
            return "(no log)"


class Cluster:
    """with Cluster(dir) as c: ... c.bootstrap ... c.nodes[0].kill() ... c.nodes[0].start(); c.wait_ready()"""

    def __init__(self, directory, brokers=1, port=None, extra=None):
        if brokers not in (1, 3):
            raise BrokerError(f"--brokers {brokers}: 1 or 3")
        need("java", "default-jre-headless")
        self.libs = libs()
        self.dir = Path(directory).resolve()
        self.extra = extra or {}
        # Never a "-" in front: the storage tool would take the id for an option.
        self.id = "K" + base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")[1:]
        ports = free_ports(4 * brokers)
        if port:  # the clients' ports are fixed: port, port + 1, port + 2
            for i in range(brokers):
                if port_taken(port + i):
                    raise BrokerError(f"port {port + i} is taken: stop what listens there, or use another --port")
                ports[4 * i] = port + i
        self.nodes = []
        for i in range(brokers):
            self.nodes.append(Node(self, i, ports[4 * i:4 * i + 4]))

    @property
    def bootstrap(self):
        return ",".join(f"127.0.0.1:{n.port}" for n in self.nodes)

    def start(self):
        if self.dir.exists() and any(self.dir.iterdir()) and not (self.dir / "cluster.json").exists():
            raise BrokerError(f"{self.dir} is not empty and not a test broker's: name another --dir")
        shutil.rmtree(self.dir, ignore_errors=True)
        self.dir.mkdir(parents=True)
        try:
            for n in self.nodes:
                n.configure()
            for n, p in [(n, n.format()) for n in self.nodes]:
                said, _ = p.communicate(timeout=60)
                if p.returncode != 0:
                    raise BrokerError(f"formatting node {n.id} failed (exit {p.returncode}):\n{said[-2000:]}")
            for n in self.nodes:
                n.start()
            self.save()
            self.wait_ready()
        except BaseException:
            self.kill()
            raise
        return self

    def save(self):
        self.dir.joinpath("cluster.json").write_text(json.dumps(
            {"keeper": os.getpid(), "bootstrap": self.bootstrap, "nodes": [n.process.pid for n in self.nodes]}))

    def wait_ready(self, seconds=START_SECONDS):
        """Until all running nodes answer with all running brokers, and both coordinators are there."""
        until, why = time.time() + seconds, "nothing asked yet"
        while time.time() < until:
            up = [n for n in self.nodes if n.running()]
            for n in self.nodes:
                if n.process and not n.running() and n.process.returncode not in (-signal.SIGKILL, 0, 143, -signal.SIGTERM):
                    raise BrokerError(f"node {n.id} ended with {n.process.returncode}; end of {n.log}:\n{n.tail()}")
            if not up:
                raise BrokerError(f"no node is running; end of {self.nodes[0].log}:\n{self.nodes[0].tail()}")
            try:
                seen = [alive_brokers(n.port) for n in up]
                errors = [coordinator_error(up[0].port, kind) for kind in (0, 1)]
                if all(s >= len(up) for s in seen) and errors == [0, 0]:
                    return self
                why = f"brokers seen by each node: {seen}, coordinator errors (group, transaction): {errors}"
            except (OSError, struct.error) as e:
                why = str(e)
            time.sleep(0.1)
        tails = "\n".join(f"-- end of {n.log}\n{n.tail()}" for n in self.nodes)
        raise BrokerError(f"not ready after {seconds} s: {why}\n{tails}")

    def kill(self):
        for n in self.nodes:
            n.kill()

    def stop(self):
        """The data is thrown away, so there is nothing to stop in order for."""
        self.kill()

    __enter__ = start

    def __exit__(self, *_):
        self.stop()


# ---- commands ----------------------------------------------------------------------------------------------------
def keep(cluster, parent, answer):
    """The background process of `start`: its end is the brokers' end."""
    os.setsid()
    ended = []
    for sig in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(sig, lambda *_: ended.append(1) or sys.exit(0))
    try:
        try:
            cluster.start()
        except BrokerError as e:
            os.write(answer, f"!{e}".encode())
            return
        os.write(answer, cluster.bootstrap.encode())
        os.close(answer)
        for fd in (0, 1, 2):  # whoever reads our output must see its end
            os.dup2(os.open(os.devnull, os.O_RDWR), fd)
        alive = True
        while alive:
            time.sleep(0.5)
            if parent:
                try:
                    os.kill(parent, 0)
                    alive = Path(f"/proc/{parent}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
                except (OSError, IndexError):
                    alive = False
    finally:
        cluster.stop()


def start(args):
    state = Path(args.dir) / "cluster.json"
    if state.exists() and running(json.loads(state.read_text())["keeper"]):
        raise BrokerError(f"{args.dir}: a broker runs there; `broker.py stop --dir {args.dir}` first")
    cluster = Cluster(args.dir, args.brokers, args.port)
    parent = os.getppid() if args.parent is None else args.parent
    r, w = os.pipe()
    if os.fork() == 0:
        os.close(r)
        try:
            keep(cluster, parent, w)
        finally:
            os._exit(0)
    os.close(w)
    said = b""
    while chunk := os.read(r, 65536):
        said += chunk
    if not said or said.startswith(b"!"):
        raise BrokerError(said[1:].decode(errors="replace") or "the starting process was killed")
    print(said.decode())
    return 0


def running(pid):
    """A keeper of ours, not a later process with the same number."""
    try:
        return b"broker.py" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def state_of(args):
    try:
        return json.loads((Path(args.dir) / "cluster.json").read_text())
    except OSError as e:
        raise BrokerError(f"{args.dir}: no broker was started there ({e.strerror})") from e


def stop(args):
    keeper = state_of(args)["keeper"]
    if running(keeper):
        os.kill(keeper, signal.SIGTERM)
        until = time.time() + 30
        while running(keeper) and time.time() < until:
            time.sleep(0.05)
        if running(keeper):
            os.kill(keeper, signal.SIGKILL)  # and the kernel ends its nodes
    return 0


def strike(args):
    s = state_of(args)
    if not running(s["keeper"]) or not 1 <= args.node <= len(s["nodes"]):
        raise BrokerError(f"{args.dir}: no running node {args.node}")
    os.kill(s["nodes"][args.node - 1], {"kill": signal.SIGKILL, "pause": signal.SIGSTOP, "resume": signal.SIGCONT}[args.what])
    return 0


def run(args):
    if not args.command:
        raise BrokerError("run: no command; broker.py run -- COMMAND")
    with tempfile.TemporaryDirectory(prefix="adtally-kafka-") as d:
        with Cluster(Path(d) / "kafka", args.brokers, args.port) as c:
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
            command = subprocess.Popen(args.command, env={**os.environ, "TEST_KAFKA": c.bootstrap})
            try:
                code = command.wait()
            finally:
                if command.poll() is None:
                    command.kill()
                    command.wait()
            return 128 - code if code < 0 else code


def drive(args):
    with tempfile.TemporaryDirectory(prefix="adtally-kafka-") as d:
        with Cluster(Path(d) / "kafka", args.brokers, args.port) as c:
            print(c.bootstrap, flush=True)
            for line in sys.stdin:
                what, number = line.split()
                node = c.nodes[int(number) - 1]
                {"kill": node.kill, "start": node.start, "pause": node.pause, "resume": node.resume}[what]()
                if what == "start":
                    c.wait_ready()
                print("ok", flush=True)
    return 0


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("what", choices=["fetch", "start", "stop", "kill", "pause", "resume", "run", "drive"])
    p.add_argument("--dir")
    p.add_argument("--port", type=int)
    p.add_argument("--brokers", type=int, default=1)
    p.add_argument("--parent", type=int)
    p.add_argument("--node", type=int, default=1)
    argv, command = sys.argv[1:], []
    if "--" in argv:
        at = argv.index("--")
        argv, command = argv[:at], argv[at + 1:]
    args = p.parse_args(argv)
    args.command = command
    if args.what not in ("fetch", "run", "drive") and not args.dir:
        p.error(f"{args.what} needs --dir")
    try:
        if args.what == "fetch":
            print(libs())
            return 0
        return {"start": start, "stop": stop, "run": run, "drive": drive}.get(args.what, strike)(args)
    except BrokerError as e:
        print(f"broker.py: {e}", file=sys.stderr)
        return 69


if __name__ == "__main__":
    sys.exit(main())
