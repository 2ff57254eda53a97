"""One reconcile run shared out over the processes of a log (R1, K2, K7, K8): who stands by works, too, and may die at it. The
oracle is what was sent; the rows are those of one process that does it all alone, and the seals say who did what."""
import re
import signal

from conftest import run
from reconcilers import Rig
from test_kafka_money import HOURS_MS

# Each takeover takes so long that the others come while most of the work is left, and then everybody has some of it.
PARTITIONS = ["--partitions", "8"]
SLOW = {"DF_FAIL": "restore=delay(1500)*0", "DF_FAIL_ONLY": "events/"}


def prices(member, campaign):
    file = member.data.parent / f"{campaign}.csv"
    file.write_text("tenant_id,advertiser_id,campaign_id,ad_id,model,price,currency,valid_from\n"
                    f"default,,{campaign},,cpc,0.07,EUR,\n")
    run("prices", "load", file, "--data", member.data)


def all_help(rig, leader, *others):
    rig.until(f"{leader.name} leads", leader.leads)
    for m in others:
        rig.until(f"{m.name} helps", lambda m=m: m.helps(leader))


def test_who_stands_by_works_too(place, kafka):
    rig = Rig(place, kafka, *PARTITIONS)
    try:
        one, two, three = rig.members
        rig.send("first", 300, 1000)
        one.start(**SLOW)
        rig.until("one leads", one.leads)
        # One with another price table would count something else.
        prices(three, "c9")
        two.start(**SLOW)
        three.start(**SLOW)
        rig.asked("a")
        all_help(rig, one, two)
        rig.until("three says why it does not", lambda: "price table" in three.status()["error"])
        shown = run("status", "--data", two.data, check=False).stdout
        assert re.search(r"reconcile_helps +1$", shown, re.M), shown
        assert "cannot help" in run("status", "--data", three.data, check=False).stdout
        assert two.status()["run"] == one.status()["run"] != "" and two.status()["total"] == one.status()["total"] > 0
        rig.applied("a")
        rig.until("the work is over", lambda: two.state() == "standby")
        assert not (place / "store/reconcile-work").exists()
        assert three.metric("helpless") == 0 and not three.taken(), three.tail()
        first = rig.shares()
        assert set(first) == {"r0", "r1"}, first
        # Now it is the same.
        (three.data / "config/prices/1.csv").unlink()
        rig.send("second", 200, 7, HOURS_MS)
        rig.asked("b")
        all_help(rig, one, two, three)
        rig.applied("b")
        assert set(rig.shares()) == {"r0", "r1", "r2"}
        # One that cannot take over what it is given leaves it to the others, and says so (K11).
        assert two.end() == 0
        two.start(DF_FAIL="restore=error(state_mismatch)*0", DF_FAIL_ONLY="events/")
        rig.send("third", 50, 9)
        rig.asked("c")
        rig.until("two says why it does not", lambda: "fail point" in two.status()["error"])
        last = rig.applied("c")
        rig.check_alone(last)
    finally:
        rig.end()


def test_whoever_dies_leaves_its_work_to_the_others(place, kafka):
    rig = Rig(place, kafka, *PARTITIONS)
    try:
        one, two, three = rig.members
        rig.send("first", 300, 1000)
        one.start(**SLOW)
        rig.until("one leads", one.leads)
        # Killed between its outputs and their commit; the other one is asked to stop while it has partitions.
        two.start(DF_FAIL="commit=abort", DF_FAIL_ONLY="events/")
        three.start(**SLOW)
        rig.asked("a")
        rig.until("two dies while it helps", two.died)
        rig.until("three helps", lambda: three.helps(one))
        assert three.end() == 0, three.tail()
        rig.applied("a")
        # The leader is killed while the others work on its run.
        two.start(**SLOW)
        three.start(**SLOW)
        rig.until("both stand by", lambda: two.metric("leads") == three.metric("leads") == 0)
        rig.send("second", 200, 7, HOURS_MS)
        rig.asked("b")
        all_help(rig, one, two, three)
        one.end(signal.SIGKILL)
        rig.until("another one leads", lambda: two.leads() or three.leads())
        rig.applied("b")
        # A run without news for most, by whoever leads; the one that was killed is back.
        one.start()
        rig.send("third", 40, 3)
        rig.asked("c")
        last = rig.applied("c")
        assert set(rig.shares()) == {"r0", "r1", "r2"}
        rig.check_alone(last)
    finally:
        rig.end()
