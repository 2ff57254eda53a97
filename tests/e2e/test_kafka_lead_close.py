"""A period that is closed over a change of the reconcile leader (R4, R5): whoever leads closes it, once, signed with the one key.
The oracle is what was sent, and the topics as an independent reader finds them."""
import shutil
import signal
import time
from fractions import Fraction

from conftest import run
from reconcilers import Rig
from test_kafka_books import billing, check_sequence
from test_kafka_lead import LOST
from test_kafka_money import HOURS_MS, send, shown
from test_money import ask, check_proof, fill_segments, invoice, lines, month_boundary

OLD = ["--accepted-age", "70d", "--keep-log", "400d", "--archive-segment", "2MiB"]


class ClosingRig(Rig):
    """With the settings of old events, and one signing key on all machines."""

    def __init__(self, place, kafka):
        super().__init__(place, kafka, *OLD)
        run("key", "create", "--signing", "--data", self.a.data)
        for m in self.members:
            shutil.copytree(self.a.data / "keys", m.data / "keys")
        self.fills = 0

    def close(self, period):
        run("period", "close", period, "--url", self.a.url, "--advertiser", "acme", "--reason", "month end", "--requested-by", "ann",
            "--approved-by", "bob")

    def fill(self):
        """The archive comes to what was judged."""
        self.fills += 1
        fill_segments(self.a, f"fill-{self.fills}")
        time.sleep(1)

    def closed(self, period):
        state, = (p for p in ask(self.a, "/v1/periods?advertiser_id=acme")["periods"] if p["period"] == period)
        assert state["state"] in ("open", "closing", "closed"), state
        return state["state"] == "closed"


def test_a_close_goes_on_under_the_next_leader(place, kafka):
    first, before, after = month_boundary()
    rig = ClosingRig(place, kafka)
    try:
        one, two, three = rig.members
        age = int(time.time() * 1000) - int(first.timestamp() * 1000) + HOURS_MS
        old = send(rig.a, "old", 25, 1000, age)
        rig.a.wait_counted()
        one.start(DF_FAIL="close=abort")  # dies when it hands the close to the books
        rig.until("one leads", one.leads)
        two.start()
        three.start()
        rig.until("the others wait", lambda: two.state() == three.state() == "standby")
        rig.close(before)
        rig.until("one dies with the close in its hand", lambda: one.died() or rig.fill(), 120)
        assert not rig.closed(before)
        rig.until("another one leads", lambda: two.leads() or three.leads())
        rig.until("the period is closed", lambda: rig.closed(before) or rig.fill(), 120)
        proof = invoice(rig.a, before)
        assert lines(proof, "usage") == {"c1": Fraction(old, 10**6)} and not lines(proof, "adjustment")
        check_proof(rig.a, before, place)
        # The one that closed it dies, too; whoever is next bills what comes late as an adjustment, and closes nothing again.
        leader, last = (two, three) if two.leads() else (three, two)
        leader.end(signal.SIGKILL)
        rig.until("the last one leads", last.leads)
        late = send(rig.a, "late", 5, 77, age)
        rig.a.wait_counted()
        rig.asked("after")
        rig.until("what came late is billed", lambda: ask(rig.a, "/v1/reconcile/after")["state"] == "applied", 150)
        assert shown(rig.a)[1] == old + late  # the filler costs nothing
        assert invoice(rig.a, before) == proof, "a closed period changed"
        assert lines(invoice(rig.a, after), "adjustment") == {"c1": Fraction(late, 10**6)}
        assert last.end() in (0, LOST)
        entries = billing(kafka)
        check_sequence(entries)
        assert [(e[1]["period"], e[1]["refused"]) for e in entries if e[0] == "closed"] == [(before, False)], entries
    finally:
        rig.end()
