"""The books on a real broker, when their state is lost (K8, K10, R4). The oracle is what was sent, and `billing` as an
independent reader finds it: what the books said stays, to the byte."""
import shutil

import log_reader
import reader
from conftest import run
from test_kafka_money import QUICK, send, shown
from test_money import reconciled, wait


def billing(kafka):
    """The postings and runs in the topic, in its order, each checkpoint once (K5)."""
    return log_reader.books_of([(r.offset, r.value) for r in reader.records(kafka.bootstrap, kafka.prefix + "billing")])


def check_sequence(entries):
    """R4: nothing is posted twice, and nothing of what was posted is lost."""
    assert [e[1] for e in entries if e[0] == "posting"] == list(range(1, sum(e[0] == "posting" for e in entries) + 1))


def test_lost_books_are_made_again_from_the_log(start, kafka):
    """K10: `runs` is kept for ever; they go on as if nothing had been lost."""
    a = start(*QUICK, *kafka.settings())
    sent = send(a, "first", 50, 1000)
    a.wait_counted()
    reconciled(a, "one")
    sent += send(a, "second", 30, 7, campaign="c2")
    a.wait_counted()
    reconciled(a, "two")
    assert shown(a)[1] == sent
    assert a.stop() == 0
    before = billing(kafka)
    check_sequence(before)
    assert [e[1]["why"] for e in before if e[0] == "applied"] == ["", ""]
    shutil.rmtree(a.data / "state/runs/0")
    a.start(wait=0)
    wait(lambda: "task=runs/0 refused" in a.tail(400), a)
    assert a.get("/readyz", admin=True)[0] == 503
    recover = ["recover", "--data", a.data, *kafka.settings(), "--topic", "runs", "--partition", 0, "--from", "log"]
    assert "would" in run(*recover, "--dry-run").stdout
    assert not list((a.data / "state/runs").glob("*.rebuild")) and billing(kafka) == before
    run(*recover)
    a.wait_ready()
    assert shown(a)[1] == sent
    sent += send(a, "third", 20, 3)
    a.wait_counted()
    reconciled(a, "three")
    assert shown(a)[1] == sent
    assert a.stop() == 0
    after = billing(kafka)
    assert after[:len(before)] == before and len(after) > len(before)
    check_sequence(after)
    assert not list((a.data / "state/runs").glob("*.rebuild")), "the mark is gone after the first commit"
