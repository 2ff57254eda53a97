"""The broker and the proxy that the Kafka tests stand on do what those tests think they do."""
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import broker
import reader
from conftest import ROOT
from proxy import Proxy

BROKER = [sys.executable, str(ROOT / "tests/kafka/broker.py")]


def create(bootstrap, topic, partitions=1, **settings):
    from confluent_kafka.admin import AdminClient, NewTopic
    admin = AdminClient({"bootstrap.servers": bootstrap})  # it must live until the answer is there
    admin.create_topics([NewTopic(topic, partitions, config=settings)])[topic].result(30)


def producer(bootstrap, transactional_id):
    from confluent_kafka import Producer
    p = Producer({"bootstrap.servers": bootstrap, "transactional.id": transactional_id, "log_level": 0})
    p.init_transactions(30)
    return p


def values(bootstrap, topic, isolation="read_committed"):
    return [r.value for r in reader.records(bootstrap, topic, isolation)]


def send(p, topic, value):
    p.begin_transaction()
    p.produce(topic, value)
    p.flush(30)


def test_transactions_are_real(kafka):
    """Unlike a mock: an aborted one is invisible, an open one holds readers back, a second producer fences the first."""
    from confluent_kafka import KafkaException
    topic = kafka.prefix + "x"
    create(kafka.bootstrap, topic)
    first = producer(kafka.bootstrap, topic)
    send(first, topic, b"committed")
    first.commit_transaction(30)
    send(first, topic, b"aborted")
    first.abort_transaction(30)
    send(first, topic, b"open")
    assert values(kafka.bootstrap, topic) == [b"committed"]
    assert values(kafka.bootstrap, topic, "read_uncommitted") == [b"committed", b"aborted", b"open"]
    second = producer(kafka.bootstrap, topic)  # aborts what is open
    with pytest.raises(KafkaException):
        first.commit_transaction(30)
    send(second, topic, b"second")
    second.commit_transaction(30)
    assert values(kafka.bootstrap, topic) == [b"committed", b"second"]


def test_the_proxy_drops_one_answer(kafka):
    """The transaction is committed although the first answer never came."""
    node, topic = kafka.cluster.nodes[0], kafka.prefix + "x"
    create(kafka.bootstrap, topic)
    with Proxy(node.proxy, node.proxied) as p:
        one = producer(f"127.0.0.1:{node.proxy}", topic)
        send(one, topic, b"v")
        p.drop_answer(Proxy.END_TXN)
        one.commit_transaction(30)
        assert [key for key, _ in p.done["answer dropped"]] == [Proxy.END_TXN]
        assert p.seen[Proxy.END_TXN] >= 2, "asked again"
        send(one, topic, b"w")
        p.black_hole(Proxy.END_TXN)
        with pytest.raises(Exception, match="_TIMED_OUT"):
            one.commit_transaction(2)
        assert values(kafka.bootstrap, topic) == [b"v"]
        p.heal()
        p.cut()
        one.commit_transaction(30)
    assert values(kafka.bootstrap, topic) == [b"v", b"w"]


def test_what_is_committed_survives_a_kill(kafka):
    topic = kafka.prefix + "x"
    create(kafka.bootstrap, topic)
    p = producer(kafka.bootstrap, topic)
    send(p, topic, b"v")
    p.commit_transaction(30)
    node = kafka.cluster.nodes[0]
    node.kill()
    with pytest.raises(OSError):
        broker.alive_brokers(node.port)
    node.start()
    kafka.cluster.wait_ready()
    assert values(kafka.bootstrap, topic) == [b"v"]


def java_of(directory):
    """The nodes that run there, by their command lines."""
    found = []
    for d in Path("/proc").iterdir():
        try:
            if d.name.isdigit() and f"{directory}/node".encode() in (d / "cmdline").read_bytes():
                found.append(int(d.name))
        except OSError:
            pass  # it has ended
    return found


def test_it_ends_with_its_parent_and_says_what_is_wrong(place, kafka):
    """A killed test run leaves no broker behind. Needs the fixture only for the jars."""
    parent = subprocess.Popen(["sleep", "100"])
    start = [*BROKER, "start", "--dir", str(place / "k"), "--parent", str(parent.pid)]
    done = subprocess.run(start, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0 and done.stdout.startswith("127.0.0.1:"), done.stderr
    port = int(done.stdout.strip().rsplit(":", 1)[1])
    assert broker.alive_brokers(port) == 1 and len(java_of(place / "k")) == 1
    again = subprocess.run(start, capture_output=True, text=True, check=False, timeout=120)
    assert again.returncode == 69 and "a broker runs there" in again.stderr
    taken = subprocess.run([*BROKER, "start", "--dir", str(place / "k2"), "--port", str(port)], capture_output=True,
                           text=True, check=False, timeout=120)
    assert taken.returncode == 69 and f"port {port} is taken" in taken.stderr
    parent.kill()
    parent.wait()
    until = time.time() + 20
    while java_of(place / "k"):
        assert time.time() < until, "the broker outlives its parent"
        time.sleep(0.2)


def test_nor_does_it_outlive_a_killed_keeper(place, kafka):
    done = subprocess.run([*BROKER, "start", "--dir", str(place / "k")], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout and len(java_of(place / "k")) == 1
    os.kill(json.loads((place / "k/cluster.json").read_text())["keeper"], signal.SIGKILL)
    until = time.time() + 20
    while java_of(place / "k"):
        assert time.time() < until, "the broker outlives its keeper"
        time.sleep(0.2)


def test_three_brokers_and_one_of_them_dies(place, kafka):
    with broker.Cluster(place / "k", brokers=3) as c:
        create(c.bootstrap, "x", 2)
        p = producer(c.bootstrap, "t")
        for i in range(3):
            send(p, "x", b"%d" % i)
            p.commit_transaction(60)
            if i == 0:
                c.nodes[2].kill()
        assert sorted(values(c.bootstrap, "x")) == [b"0", b"1", b"2"]
        c.nodes[2].start()
        c.wait_ready()
