"""Several realtime processes of one data directory, seen from outside (K2, K8, K9, K11).

The oracle is the generator's truth, and who runs what is read from the status file of each process.
"""
import json
import os
import re
import signal
import time

from conftest import run
from test_crash import SETTINGS, check, finish, generate

TWO = ["--realtime-processes", 2, "--kafka-session-timeout", "6s"]
PARTITIONS = {0, 1, 2, 3}


def runs(a, file):
    """Partitions of `events` that this process runs, by its own word."""
    text = (a.data / "run" / f"{file}.prom").read_text()
    return {int(p) for p in re.findall(r'^adtally_task_running\{stream="events",partition="(\d+)"\} 1$', text, re.M)}


def wait(seed, what, condition, a, seconds=30):
    until = time.time() + seconds
    while not condition():
        assert time.time() < until, f"seed {seed}: {what}: it did not happen\n{a.tail()}"
        time.sleep(0.2)


def shared(a):
    one, two = runs(a, "realtime"), runs(a, "realtime-r2")
    return one and two and not one & two and one | two == PARTITIONS


def whole(a):
    return a.get("/readyz", admin=True)[0] == 200 and a.metrics(window="hour")["missing_partitions"] == []


def test_a_stopped_process_is_replaced_by_its_peer(start, kafka):
    """K8: the peer takes over from the shared checkpoints (K2); K11: then nothing is missing any more; the stopped
    one, continued, changes no number."""
    seed = 71
    a = start(*SETTINGS, *TWO, *kafka.settings())
    truth, sender = generate(a, seed, events=12000, rate=600)
    wait(seed, "both own partitions", lambda: shared(a), a)
    wait(seed, "ready with two", lambda: whole(a), a)
    up = {labels: v for (name, labels), v in a.prometheus().items() if name == "adtally_job_up" and "realtime" in labels}
    assert up == {'job="realtime",instance="main"': 1, 'job="realtime",instance="r2"': 1}, f"seed {seed}: {up}"
    victim = a.job_pid("realtime-r2")
    os.kill(victim, signal.SIGSTOP)
    try:
        wait(seed, "the peer runs all", lambda: runs(a, "realtime") == PARTITIONS, a)
        wait(seed, "nothing is missing beside a stopped process", lambda: whole(a), a)
        jobs = json.loads(run("status", "--data", a.data, *kafka.settings()[:2], "--json", check=False).stdout)["jobs"]
        found = {j["instance"]: j["running"] for j in jobs if j["job"] == "realtime"}
        assert found == {"main": True, "r2": False}, f"seed {seed}: {jobs}"
        running = {labels for (name, labels) in a.prometheus() if name == "adtally_task_running"}
        assert not [labels for labels in running if 'instance="r2"' in labels], f"seed {seed}: {running}"
    finally:
        os.kill(victim, signal.SIGCONT)
    finish(sender, seed)
    check(a, truth, seed)
    wait(seed, "both own partitions again", lambda: shared(a), a)
    assert a.stop() == 0
    # One process again: it needs what the other one left in DATA/checkpoints, and nobody misses the other one.
    a.settings[a.settings.index("--realtime-processes") + 1] = "1"
    a.start()
    check(a, truth, seed)
    assert not (a.data / "run/realtime-r2.prom").exists()
    assert not [labels for (_, labels) in a.prometheus() if "instance=" in labels]


def test_several_processes_on_the_file_log_are_refused(place):
    done = run("up", "--data", place / "d", "--listen", "127.0.0.1:0", "--realtime-processes", 2, check=False, timeout=60)
    assert done.returncode == 78, done.stderr
    assert "--realtime-processes 2: on the file log one process" in done.stderr, done.stderr


def test_checkpoints_of_one_process_are_no_store(place):
    """K2: a peer would refuse every partition whose checkpoint it cannot read; said before anything starts."""
    (place / "d/state/events/0").mkdir(parents=True)
    done = run("up", "--data", place / "d", "--listen", "127.0.0.1:0", "--log", "kafka:127.0.0.1:1", "--realtime-processes", 2,
               check=False, timeout=60)
    assert done.returncode == 78, done.stderr
    assert "(K2): make the directory" in done.stderr and not (place / "d/checkpoints").exists(), done.stderr
