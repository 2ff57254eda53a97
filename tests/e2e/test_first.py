"""The first promises of the README, against the real processes."""
import time
from datetime import datetime, timezone

import pytest


def stamp(ms):
    return datetime.fromtimestamp(ms / 1000, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def this_minute():
    now = int(time.time() * 1000)
    return now, now // 60000 * 60000


@pytest.mark.sanitized
def test_a_click_sent_twice_is_counted_once(start):
    """D1: one paste from nothing to a number."""
    a = start()
    now, minute = this_minute()
    click = {"event_id": "click-1", "type": "click", "event_time": now, "advertiser_id": "acme", "campaign_id": "c17",
             "cost_micros": 250000, "currency": "EUR"}
    assert a.post(click) == (202, {"accepted": 1, "rejected": [], "warnings": []})
    assert a.post(click) == (202, {"accepted": 1, "rejected": [], "warnings": []})
    ledger = a.wait_counted()
    assert (ledger["counted"], ledger["duplicate"]) == (1, 1)
    rows = a.metrics(window="minute", **{"from": stamp(minute), "to": stamp(minute + 60000)}, campaign_id="c17")["rows"]
    assert len(rows) == 1
    assert (rows[0]["clicks"], rows[0]["impressions"], rows[0]["spend_micros"]) == (1, 0, 250000)
    assert rows[0]["currency"] == "EUR" and rows[0]["state"] == "open" and rows[0]["final"] is False


@pytest.mark.sanitized
def test_same_id_with_other_content_is_a_conflict(start):
    """D1: the second is quarantined, the first stays counted."""
    a = start()
    now, minute = this_minute()
    e = {"event_id": "x", "type": "click", "event_time": now, "advertiser_id": "a", "campaign_id": "c",
         "cost_micros": 5, "currency": "USD"}
    assert a.post(e)[0] == 202
    assert a.post({**e, "cost_micros": 6})[0] == 202
    ledger = a.wait_counted()
    assert (ledger["counted"], ledger["conflict"], ledger["duplicate"]) == (1, 1, 0)
    total = a.metrics(window="hour", **{"from": stamp(now // 3600000 * 3600000),
                                        "to": stamp(now // 3600000 * 3600000 + 3600000)})["totals"]
    assert total[0]["spend_micros"] == 5


def test_one_port_for_both_jobs_on_one_connection(start):
    """Connections change hands between ingest and api (df/net.h), also while one of them restarts."""
    import http.client
    import json

    a = start()
    c = http.client.HTTPConnection("127.0.0.1", a.port, timeout=30)
    for i in range(20):
        e = {"event_id": f"e{i}", "type": "impression", "advertiser_id": "a", "campaign_id": "c"}
        c.request("POST", "/v1/events", json.dumps(e), {"Content-Type": "application/json"})
        r = c.getresponse()
        assert r.status == 202, r.read()
        r.read()
        c.request("GET", "/v1/quality")
        r = c.getresponse()
        assert r.status == 200
        r.read()
    sock = c.sock
    assert sock is not None, "the connection was kept over all 40 requests"
    c.close()


def test_api_restart_drops_no_request_of_ingest(start):
    """DESIGN section 4: a restart of one job never drops another's requests, and its own wait."""
    import signal

    a = start()
    assert a.kill("api", signal.SIGKILL)
    for i in range(50):
        assert a.post({"event_id": f"e{i}", "type": "click", "advertiser_id": "a", "campaign_id": "c"})[0] == 202
    assert a.quality()["ledger"] is not None  # waits for the new api process
    assert a.wait_counted()["counted"] == 50


def test_second_up_on_the_same_directory_is_refused_by_name(start, place):
    from conftest import run

    a = start()
    done = run("up", "--data", a.data, "--listen", "127.0.0.1:0", check=False)
    assert done.returncode == 75
    assert f"pid {a.process.pid}" in done.stderr and "in use" in done.stderr


def test_status_and_admin_endpoint(start):
    from conftest import run

    a = start()
    a.post({"event_id": "1", "type": "click", "advertiser_id": "a", "campaign_id": "c"})
    a.wait_counted()
    time.sleep(1.5)  # status files are written every second
    done = run("status", "--data", a.data)
    assert "all is well" in done.stdout and "events/0" in done.stdout
    m = a.prometheus()
    names = {n for n, _ in m}
    for need in ["adtally_task_lag_records", "adtally_watermark_lag_seconds", "adtally_checkpoint_age_seconds",
                 "adtally_ledger_imbalance", "adtally_disk_free_bytes", "adtally_job_up"]:
        assert need in names, need
    assert all(v == 0 for (n, _), v in m.items() if n == "adtally_ledger_imbalance")
    assert a.stop() == 0
    assert run("status", "--data", a.data, check=False).returncode == 69
