"""Several reconcile processes of one log (R1, R4, K2, K7, K8): one leads, and whoever takes over goes on."""
import signal
import time

from reconcilers import Rig
from test_kafka_money import HOURS_MS

LOST = 75


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
        chains = rig.chains()
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
        assert rig.chains() == chains
        assert three.end() == 0
        rig.check_alone(last)
    finally:
        rig.end()
