"""How old the bill is, whether it can be read, and whether its runs fail: readiness, status and /quality say so.

The old bill is make_bill's, of months ago; what is due is told by the schedule alone."""
import datetime
import json
import time

from conftest import run
from test_billing_view import Bill

QUICK = ["--partitions", "2", "--checkpoint-min", "50ms", "--checkpoint-max", "500ms", "--heartbeat", "500ms"]
SEGMENT = "log/topics/billing/0/00000000000000000000.seg"


def click(i):
    return {"event_id": f"e{i}", "type": "click", "advertiser_id": "a1", "campaign_id": "c1", "cost_micros": 250_000, "currency": "EUR"}


def wait(good, a, seconds=60):
    until = time.time() + seconds
    while not good():
        assert time.time() < until, a.tail()
        time.sleep(0.1)


def status(a):
    """(exit code, what --json says, the text)."""
    text = run("status", "--data", a.data, check=False).stdout
    done = run("status", "--data", a.data, "--json", check=False)
    return done.returncode, json.loads(done.stdout), text


def ms_of(text):
    return int(datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() * 1000)


def test_a_bill_that_was_never_made_is_no_reason(start):
    a = start("--reconcile", "off", *QUICK)
    time.sleep(1.5)  # status files are written every second
    code, told, text = status(a)
    assert (code, told["bill"], told["problems"]) == (0, None, []), told
    assert "no run was posted yet" in text and "all is well" in text
    assert a.get("/readyz", admin=True)[0] == 200
    assert ("adtally_billing_overdue", 'job="api"') not in a.prometheus()


def test_status_tells_how_old_the_bill_is(start):
    """What status says is what the books say of the last run."""
    a = start("--reconcile-every", "1h", *QUICK)
    assert a.post([click(i) for i in range(10)])[0] == 202
    a.wait_counted()
    assert a.request("/v1/reconcile", body=b"{}", headers={"Idempotency-Key": "ask-1"})[0] == 202
    wait(lambda: a.get("/v1/reconcile/ask-1")[1].get("state") == "applied", a)
    wait(lambda: status(a)[1]["bill"], a)
    code, told, text = status(a)
    through = a.get("/v1/metrics?view=billing")[1]["billed_through"]
    assert abs(ms_of(told["bill"]["billed_through"]) - ms_of(through)) < 1000, (told["bill"], through)
    assert abs(told["bill"]["age_s"] - (time.time() - ms_of(through) / 1000)) < 10
    assert (code, told["bill"]["every_s"], told["problems"]) == (0, 3600, [])
    assert "billed through 20" in text and "due every 3600 s" in text


def test_a_bill_that_is_overdue_is_a_problem_and_no_reason(start, place):
    bill = Bill(place / "data")
    bill.make(14)  # the last run explains all
    a = start("--reconcile", "off", *QUICK)
    wait(lambda: status(a)[1]["bill"], a)
    code, told, text = status(a)
    at = bill.runs()[-1]["at_ms"]
    assert abs(ms_of(told["bill"]["billed_through"]) - at) < 1000
    assert code == 1 and len(told["problems"]) == 1 and "a run is due every 3600 s" in told["problems"][0], told["problems"]
    assert "PROBLEMS" in text
    assert a.prometheus()[("adtally_billing_overdue", 'job="api"')] == 1
    assert a.get("/readyz", admin=True)[0] == 200
    drift = a.quality()["drift"]
    assert drift["alarm"] and drift["alarms"] == ["overdue"] and abs(drift["age_ms"] - (time.time() * 1000 - at)) < 10_000


def test_a_run_that_fails_is_an_alarm_and_no_reason(start, monkeypatch):
    """Before the first run and after it, until one succeeds."""
    monkeypatch.setenv("DF_FAIL", "post-begin=error@1;post-begin=error@3")
    a = start("--reconcile-every", "500ms", *QUICK)
    assert a.post([click(i) for i in range(10)])[0] == 202
    wait(lambda: "the last run failed: " in (a.quality()["drift_reason"] or ""), a)
    assert any("the last reconcile run failed" in p for p in status(a)[1]["problems"])
    assert a.get("/readyz", admin=True)[0] == 200
    wait(lambda: (a.quality()["drift"] or {}).get("alarms") == ["run_failed"], a)
    assert "post-begin" in a.quality()["drift"]["run_error"]
    wait(lambda: (a.quality()["drift"]["alarm"], a.quality()["drift"]["run_error"]) == (False, ""), a)
    wait(lambda: status(a)[0] == 0, a)


def test_a_bill_that_cannot_be_read_is_not_ready(start, place):
    """Not while the topic is damaged and its view has to be built; again once it is whole."""
    bill = Bill(place / "data")
    bill.make(14)
    whole, damaged = (place / "data" / SEGMENT).read_bytes(), bytearray((place / "data" / SEGMENT).read_bytes())
    damaged[len(damaged) // 2] ^= 0x40
    (place / "data" / SEGMENT).write_bytes(damaged)
    a = start("--reconcile", "off", *QUICK, wait=0)

    def reasons():
        try:
            code, text = a.get("/readyz", admin=True)
            return code, text.splitlines()
        except OSError:
            return None

    wait(lambda: reasons() == (503, ["the view of the bill is being built", "the bill cannot be read (log lines of api, books)"]), a)
    assert a.get("/v1/metrics?view=billing")[1]["error"]["code"] == "billing_not_ready"
    assert any("the bill cannot be read" in p for p in status(a)[1]["problems"])
    (place / "data" / SEGMENT).write_bytes(whole)
    wait(lambda: reasons() == (200, ["ready"]), a)
    assert a.get("/v1/metrics?view=billing")[1]["run"] == bill.runs()[-1]["id"]
