"""What is refused on Kafka, by name, and the way out of it (K8, K10, K11, K14): the numbers are equal afterwards.

The oracle is the generator's truth, and the independent reader's chain of seals.
"""
import shutil
import time

import pytest

import reader
from conftest import run
from test_crash import SETTINGS, check, check_days, checkpoint, finish, generate, refusal, state, wait

QUICK = ["--kafka-session-timeout", "6s", "--partitions", "4"]


@pytest.fixture
def filled(start, kafka):
    """filled(*settings): a stopped Adtally with numbers, and the truth about them."""
    def go(*settings):
        a = start(*SETTINGS, *QUICK, *kafka.settings(), *settings)
        truth, sender = generate(a, 7, events=4000, rate=4000)
        finish(sender, 7)
        check(a, truth, 7)
        assert a.stop() == 0
        return a, truth
    return go


def recover(a, kafka, partition, *options, check_=True):
    return run("recover", "--data", a.data, "--partition", partition, *kafka.settings(), *options, check=check_)


def finish_equal(a, kafka, truth):
    wait(lambda: not refusal(a), 60)
    check(a, truth, 7)
    for i in range(100):  # and it goes on
        assert a.post({"event_id": f"after-{i}", "type": "click", "advertiser_id": "z", "campaign_id": "z"})[0] == 202
    a.wait_counted()
    assert a.stop() == 0
    found = reader.Ledger(kafka.bootstrap, kafka.prefix)
    found.check_chain()
    assert not found.problems, "\n".join(found.problems[:20])


def test_lost_state_is_rebuilt_from_the_log(filled, kafka):
    """K10, K11: without a checkpoint store it is refused; meanwhile the other partitions go on."""
    a, truth = filled()
    shutil.rmtree(state(a, 2))
    a.start(wait=0)
    wait(lambda: refusal(a), 60)
    assert 'partition="2"' in refusal(a)[0], refusal(a)
    assert "--checkpoint-store" in a.log.read_text(errors="replace")
    wait(lambda: a.metrics(window="hour")["missing_partitions"] == [2])
    before = reader.committed(kafka.bootstrap, kafka.prefix)
    for i in range(200):
        assert a.post({"event_id": f"more-{i}", "type": "click", "advertiser_id": "z", "campaign_id": "z"})[0] == 202
    wait(lambda: all(reader.committed(kafka.bootstrap, kafka.prefix)[p] > before[p] for p in (0, 1, 3)), 60)
    assert reader.committed(kafka.bootstrap, kafka.prefix)[2] == before[2]
    assert "would" in recover(a, kafka, 2, "--from", "log", "--dry-run").stdout
    time.sleep(1)
    assert refusal(a), "--dry-run changed something"
    recover(a, kafka, 2, "--from", "log")
    wait(lambda: not refusal(a), 60)
    a.wait_counted()
    assert not list(a.data.glob("state/events/*.rebuild")), "the mark is gone after the first commit"
    a.stop()
    found = reader.Ledger(kafka.bootstrap, kafka.prefix)
    found.check_chain()
    assert not found.problems, "\n".join(found.problems[:20])
    a.start()
    check_days(a, truth, {"z": 200})


def test_lost_state_comes_from_the_checkpoint_store(filled, kafka, place):
    """K2: nobody notices."""
    (place / "store").mkdir()
    a, truth = filled("--checkpoint-store", place / "store")
    shutil.rmtree(a.data / "state")
    a.start(wait=0)
    a.wait_ready()
    finish_equal(a, kafka, truth)


def test_a_missing_store_is_not_made(place, kafka, start):
    """It may be a mount that is not there."""
    a = start(*QUICK, *kafka.settings(), "--checkpoint-store", place / "nowhere", wait=0)
    assert a.process.wait(60) != 0
    assert f"--checkpoint-store {place / 'nowhere'}: No such file" in a.tail()
    assert not (place / "nowhere").exists()


def test_a_store_that_went_away_is_not_replaced(filled, kafka, place):
    """K2: what is in its place would be of this machine alone. It goes on when the store is back."""
    store, elsewhere = place / "store", place / "elsewhere"
    store.mkdir()
    a, truth = filled("--checkpoint-store", store)
    before = a.log.read_text(errors="replace").count("taken over k=")
    a.start()
    wait(lambda: a.log.read_text(errors="replace").count("taken over k=") >= before + 4, 60)
    store.rename(elsewhere)
    store.mkdir()  # as under a mount point
    a.post({"event_id": "more", "type": "click", "advertiser_id": "z", "campaign_id": "z"})
    wait(lambda: "is not the directory that it was at start: mount it" in a.log.read_text(errors="replace"), 60)
    assert not list(store.iterdir())
    store.rmdir()
    elsewhere.rename(store)
    a.wait_counted()
    check_days(a, truth, {"z": 1})


def damage(path, how):
    data = bytearray(path.read_bytes())
    path.unlink()  # the inode is shared with the parent through a hard link
    if how == "flip":
        data[len(data) // 2] ^= 1
        path.write_bytes(data)


@pytest.mark.parametrize("how", ["flip", "remove"])
def test_damaged_in_both_places(filled, kafka, place, how):
    """K2, K11: refused by the file's name, on whichever machine; recovered once for all of them."""
    store = place / "store"
    store.mkdir()
    a, truth = filled("--checkpoint-store", store)
    ck = checkpoint(a, 1)
    name = max((p for p in ck.iterdir() if p.name.startswith("MANIFEST-")), key=lambda p: p.name).name
    damage(ck / name, how)
    damage(store / "events" / "1" / ck.name / name, how)
    a.start(wait=0)
    wait(lambda: refusal(a), 60)
    assert 'partition="1"' in refusal(a)[0] and 'code="corrupt"' in refusal(a)[0]
    assert name in a.log.read_text(errors="replace")
    shown = recover(a, kafka, 1, "--checkpoint-store", store).stdout
    assert "DAMAGED" in shown and name in shown and str(store) in shown
    done = recover(a, kafka, 1, "--checkpoint-store", store, "--from", "checkpoint", check_=False)
    if done.returncode != 0:  # only one checkpoint was ever kept
        recover(a, kafka, 1, "--checkpoint-store", store, "--from", "log")
    finish_equal(a, kafka, truth)


def group_action(kafka, action):
    """Static members hold the group until their session is over."""
    until = time.time() + 40
    while True:
        try:
            return action()
        except Exception as e:  # pylint: disable=broad-except
            if time.time() > until:
                raise
            assert "NON_EMPTY_GROUP" in str(e) or "UNKNOWN_MEMBER" in str(e) or "not empty" in str(e).lower(), e
            time.sleep(1)


@pytest.mark.parametrize("what", ["deleted", "moved"])
def test_offsets_that_somebody_touched(filled, kafka, what):
    """K14: never "start from latest"."""
    from confluent_kafka import Consumer, TopicPartition
    from confluent_kafka.admin import AdminClient
    a, truth = filled()
    group = kafka.prefix + reader.GROUP

    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})

    def delete():
        admin.delete_consumer_groups([group])[group].result(30)

    def move():
        c = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": group, "enable.auto.commit": False})
        c.commit(offsets=[TopicPartition(kafka.prefix + "events", p, 1) for p in range(4)], asynchronous=False)
        c.close()

    group_action(kafka, delete if what == "deleted" else move)
    a.start(wait=0)
    wait(lambda: len(refusal(a)) == 4, 60)
    says = "offsets were deleted" if what == "deleted" else "the committed offset is not of this program"
    assert says in a.log.read_text(errors="replace"), a.tail()
    for p in range(4):
        recover(a, kafka, p, "--from", "log")
    finish_equal(a, kafka, truth)


def test_changed_partition_count_is_refused(filled, kafka):
    """K14: an id would be counted in two partitions."""
    from confluent_kafka.admin import AdminClient, NewPartitions
    a, _ = filled()
    topic = kafka.prefix + "events"
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    admin.create_partitions([NewPartitions(topic, 5)])[topic].result(30)
    a.start(wait=0)
    assert a.process.wait(60) != 0
    assert "5 partitions" in a.tail() and "events" in a.tail()
