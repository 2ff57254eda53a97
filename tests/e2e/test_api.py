"""The api job of a whole Adtally: killed, asked for much, seen by a browser; the ledger of a quiet system.

Numbers are compared with what the test itself sent.
"""
import http.client
import json
import re
import shutil
import socket
import subprocess
import tempfile
import time
from datetime import datetime, timezone

import pytest

from conftest import SANITIZED, run

QUICK = ["--checkpoint-min", "50ms", "--checkpoint-max", "500ms", "--heartbeat", "500ms"]
CHROMIUM = next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None)


def event(i, kind="click", **other):
    return {"event_id": f"{kind}{i}", "type": kind, "advertiser_id": "a", "campaign_id": "c1", **other}


def wait(what, seconds=30):
    until = time.time() + seconds
    while not (answer := what()):
        assert time.time() < until, f"it did not happen within {seconds} s"
        time.sleep(0.1)
    return answer


def test_killed_it_goes_on_with_its_view(start):
    """K5: rows and read position are one write. After kill -9 the view is opened as it was, every event counts once."""
    a = start(*QUICK)
    sent = 0
    for turn in range(6):
        batch = [event(f"{turn}-{i}") for i in range(200)]
        assert a.post(batch)[0] == 202
        sent += len(batch)
        if turn % 2 == 0:
            a.wait_counted()
        assert a.kill("api")
        wait(lambda: alive(a))
    assert a.wait_counted()["counted"] == sent
    # pending is 0 with the last seal; its rows were in the same write.
    assert a.metrics(window="total", group_by="none")["totals"][0]["clicks"] == sent
    opened = re.findall(r"follow view=(\w+)", a.tail(100000))
    assert len(opened) >= 7 and opened[0] == "empty" and set(opened[1:]) == {"kept"}, opened
    assert a.quality()["balanced"] is True


def alive(a):
    try:
        return a.get("/v1/quality")[0] == 200
    except OSError:
        return False


def test_long_questions_between_events_on_one_connection(start):
    """Requests of one connection go to two jobs in turn, some to the threads for long questions: each gets its own answer,
    in order, also when all are sent before the first is read."""
    a = start(*QUICK)
    assert a.post([event(i, campaign_id=f"c{i}") for i in range(40)])[0] == 202
    a.wait_counted()
    day = datetime.now(timezone.utc).strftime("%Y-%m-%d")
    before = (datetime.now(timezone.utc).timestamp() // 86400 - 2) * 86400
    first = datetime.fromtimestamp(before, timezone.utc).strftime("%Y-%m-%d")
    # 2 days of minutes, each with every campaign: 115,200 rows are made for this answer.
    long = f"/v1/metrics?window=minute&tz=UTC&fill=zero&limit=1&from={first}&to={day}"
    fill = f"/v1/metrics?window=minute&tz=UTC&fill=zero&limit=1&group_by=none&from={first}"
    requests, want = b"", []
    for i in range(5):
        body = json.dumps(event(f"p{i}")).encode()
        requests += b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        requests += b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n" % (long if i % 2 else fill).encode()
        requests += b"GET /v1/metrics?window=nonsense HTTP/1.1\r\nHost: localhost\r\n\r\n"
        want += [(202, "accepted"), (200, "rows"), (400, "error")]
    with socket.create_connection(("127.0.0.1", a.port), timeout=60) as s:
        s.sendall(requests)
        reader = s.makefile("rb")
        for status, field in want:
            assert int(reader.readline().split()[1]) == status
            headers = http.client.parse_headers(reader)
            assert field in json.loads(reader.read(int(headers["Content-Length"])))
    assert wait(lambda: a.wait_counted()["counted"] == 45)


def test_a_refused_event_is_in_the_ledger_soon(start):
    """The edge ledger of a quiet system: partitions without events are sealed every 30 s (K12), yet what ingest answered is
    told from its newest heartbeat in the log."""
    a = start()  # default cadence
    assert a.post([{"type": "nonsense"}])[0] == 422
    ledger = wait(lambda: (a.quality()["ledger"]["received"] and a.quality()["ledger"]), 12)
    assert (ledger["received"], ledger["rejected"], ledger["accepted_at_edge"]) == (1, 1, 0)
    assert a.post([event(1), {"type": "nonsense"}])[0] == 202
    wait(lambda: a.quality()["ledger"]["received"] == 3, 12)
    q = a.quality()
    assert (q["ledger"]["rejected"], q["ledger"]["accepted_at_edge"], q["balanced"]) == (2, 1, True)


# ---- the page ----

def browse(a, path="/", *flags):
    """What the page shows after some seconds (its own clock runs faster), and what the browser complained about."""
    with tempfile.TemporaryDirectory(prefix="adtally-browser-") as profile:
        done = subprocess.run(
            [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync", f"--user-data-dir={profile}", "--virtual-time-budget=6000",
             "--enable-logging=stderr", "--dump-dom", *flags, a.url + path], capture_output=True, text=True, timeout=120)
    text = re.sub(r"<(style|script)>.*?</\1>", "", done.stdout, flags=re.S)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", text)), [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.skipif(CHROMIUM is None or SANITIZED, reason="no chromium here")
def test_the_page_in_a_browser(start):
    """It shows the numbers, the ledger and the state, by its policy's own code alone."""
    a = start(*QUICK)
    text, complaints = browse(a)
    assert complaints == []
    assert "all accounted for" in text and "curl -i" in text  # nothing yet: how to send one
    events = [event(i, "impression") for i in range(1500)] + [event(i) for i in range(30)]
    events += [event(f"e{i}", cost_micros=250000, currency="EUR") for i in range(10)]
    events += [event(f"<b>{i}", campaign_id="<b>x</b>", cost_micros=10**9, currency="USD") for i in range(3)]
    for at in range(0, len(events), 500):
        assert a.post(events[at:at + 500])[0] == 202
    assert a.post([{"type": "nonsense"}])[0] == 422
    a.wait_counted()
    wait(lambda: a.quality()["ledger"]["rejected"] == 1)
    for hash in ["", "#hour", "#day"]:
        text, complaints = browse(a, "/" + hash)
        assert complaints == []
        for part in ["Impressions 1,500", "Clicks 43 CTR 2.87 %", "€2.50", "$3,000.00", "1,544 received = 1,543 accepted + 1 rejected",
                     "1,543 stored = 1,543 counted", "balanced", "&lt;b&gt;x&lt;/b&gt; USD", "all accounted for", "open"]:
            assert part in text, (hash, part, text)


@pytest.mark.skipif(CHROMIUM is None or SANITIZED, reason="no chromium here")
def test_the_page_asks_for_a_key(start, place):
    keys = place / "keys"
    run("key", "create", "--class", "read", "--keys", keys)
    a = start("--keys", str(keys), *QUICK)
    text, complaints = browse(a)
    assert "This server asks for a key." in text and "locked" in text
    assert all("401" in line for line in complaints), complaints  # the browser tells of them; nothing else
