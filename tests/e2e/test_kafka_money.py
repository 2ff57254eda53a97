"""The bill on a real broker (R2 to R4, K3): runs, corrections and the books, over kill -9 of their job. The oracle is what was
sent: clicks that count in both, late ones that only the bill counts, copies that neither does."""
import time

from test_first import this_minute
from test_money import WHO, ask, click, reconciled, wait

QUICK = ["--kafka-session-timeout", "6s", "--heartbeat", "500ms", "--reconcile-every", "1h"]
HOURS_MS = 2 * 3600000


def shown(a):
    """(realtime, billing, late, correction) spend in micros of the newest applied run."""
    answer = ask(a, "/v1/metrics?view=both&window=total&group_by=none&from=2020-01-01T00:00:00Z&to=2040-01-01T00:00:00Z")
    row, = answer["rows"]
    causes = {name: c["spend_micros"] for name, c in row["causes"].items()}
    return row["realtime_spend_micros"], row["billing_spend_micros"], causes.get("late", 0), causes.get("correction", 0)


def send(a, name, count, micros, age_ms=0, campaign="c1"):
    _, minute = this_minute()
    batch = [click(f"{name}-{i}", minute - age_ms, micros + i, campaign_id=campaign) for i in range(count)]
    assert a.post(batch)[0] == 202 and a.post(batch)[0] == 202  # each of them twice
    return sum(e["cost_micros"] for e in batch)


def test_runs_corrections_and_books(start, kafka):
    a = start(*QUICK, *kafka.settings())
    on_time = send(a, "on-time", 50, 1000)
    voided = send(a, "voided", 20, 7, campaign="c2")
    a.wait_counted()
    time.sleep(1)  # heartbeats in every partition: two hours ago is over
    late = send(a, "late", 30, 500, HOURS_MS)
    a.wait_counted()
    reconciled(a, "one")
    assert shown(a) == (on_time + voided, on_time + voided + late, late, 0)
    assert a.kill("reconcile")
    ask(a, "/v1/corrections", {**WHO, "id": "void-c2", "action": "void", "scope": {
        "campaign_id": "c2", "from": "2020-01-01T00:00:00Z", "to": "2040-01-01T00:00:00Z"}})
    more = send(a, "more", 10, 3)
    a.wait_counted()
    reconciled(a, "two")
    assert shown(a) == (on_time + voided + more, on_time + late + more, late, -voided)
    # Everything dies; the view and the books go on with what was posted.
    a.kill("up")
    time.sleep(1)
    a.start()
    assert wait(lambda: a.request("/v1/metrics?view=billing")[0] == 200, a) and shown(a)[1] == on_time + late + more
    ask(a, "/v1/corrections/void-c2/cancel", WHO)
    reconciled(a, "three")
    assert shown(a) == (on_time + voided + more, on_time + voided + late + more, late, 0)
    assert a.stop() == 0
