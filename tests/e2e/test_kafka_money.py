"""The bill on a real broker (R2 to R4, K3): runs, corrections and the books, over kill -9 of their job. The oracle is what was
sent: clicks that count in both, late ones that only the bill counts, copies that neither does."""
import time
from fractions import Fraction

from conftest import run
from test_first import this_minute
from test_money import WHO, ask, check_proof, click, close, invoice, lines, month_boundary, reconciled, this_month, wait

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


def test_a_period_is_closed_and_proved(start, kafka, place):
    """R5, A1: closed over the broker's log and its archive, verified from a copy; later money is an adjustment."""
    first, before, after = month_boundary()
    old_ms = int(first.timestamp() * 1000) - HOURS_MS
    a = start(*QUICK, "--accepted-age", "70d", "--keep-log", "400d", "--archive-segment", "2MiB", *kafka.settings())
    run("key", "create", "--signing", "--data", a.data)
    now = send(a, "now", 20, 900)
    old = send(a, "old", 25, 1000, int(time.time() * 1000) - old_ms)
    a.wait_counted()
    reconciled(a, "one")
    close(a, before)
    closed = invoice(a, before)
    assert lines(closed, "usage") == {"c1": Fraction(old, 10**6)} and not lines(closed, "adjustment")
    check_proof(a, before, place)
    late = send(a, "late", 5, 77, int(time.time() * 1000) - old_ms)
    a.wait_counted()
    reconciled(a, "two")
    assert invoice(a, before) == closed, "a closed period changed"
    opened = invoice(a, after)
    assert lines(opened, "adjustment") == {"c1": Fraction(late, 10**6)}
    assert lines(invoice(a, this_month()), "usage") == {"c1": Fraction(now, 10**6)}
    assert a.stop() == 0
