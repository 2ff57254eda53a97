"""From raw events to closed periods and back (D4, R1 to R5, A1): two months of a made log are billed, one is closed, and what
comes later is an adjustment in the other. The oracle is the recount of test_reconcile.py, in exact fractions."""
import csv
import io
import json
import shutil
import subprocess
import time
from collections import defaultdict
from datetime import datetime, timedelta, timezone
from fractions import Fraction

from conftest import ADTALLY, Adtally, run
from test_reconcile import HORIZON, BILLING, PARTITIONS, judge, made

SEED = 611
NANO = 10**9
HOUR_MS = 3600000
WHO = {"reason": "as agreed", "requested_by": "ann", "approved_by": "bob"}
SETTINGS = ["--partitions", PARTITIONS, "--dedupe-horizon", HORIZON, "--billing-horizon", BILLING, "--accepted-age", "70d",
            "--keep-log", "400d", "--archive-segment", "2MiB", "--reconcile-every", "1h"]


def month_boundary():
    """The last beginning of a month that is some hours ago, and the names of the months around it."""
    now = datetime.now(timezone.utc)
    first = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    if now - first < timedelta(hours=12):
        first = (first - timedelta(days=1)).replace(day=1)
    return first, (first - timedelta(days=1)).strftime("%Y-%m"), first.strftime("%Y-%m")


def this_month():
    """Whose usage is what is sent now; in its first 12 hours not the month after the boundary."""
    return datetime.now(timezone.utc).strftime("%Y-%m")


def ask(a, path, body=None, expect=(200, 202)):
    status, answer = a.request(path, body=None if body is None else json.dumps(body).encode(),
                               headers={"Content-Type": "application/json"})
    assert status in expect, f"{path}: {status} {answer}\n{a.tail()}"
    return answer


def wait(what, a, seconds=60):
    until = time.time() + seconds
    while True:
        got = what()
        if got:
            return got
        assert time.time() < until, a.tail()
        time.sleep(0.1)


def reconciled(a, name):
    ask(a, "/v1/reconcile", {"id": name})
    # Realtime commits a partition with heartbeats alone every 30 s, and the comparison waits for it.
    done = wait(lambda: (r := ask(a, f"/v1/reconcile/{name}"))["state"] == "applied" and r, a, 150)
    assert done["unexplained"] == 0, done
    return done


def rounded(exact):
    """Half to even, to the cent."""
    cents, rest = divmod(exact * 100, 1)
    up = rest > Fraction(1, 2) or (rest == Fraction(1, 2) and cents % 2 == 1)
    return Fraction(cents + up, 100)


def spend(events, boundary_ms):
    """{(before the boundary, campaign): what it costs in units}, billed and without label."""
    out = defaultdict(Fraction)
    for e in events:
        if e["billed"] and not e["labels"]:
            out[e["event_ms"] < boundary_ms, e["campaign"]] += Fraction(e["cost"], NANO)
    return out


def lines(invoice, kind):
    out = defaultdict(Fraction)
    for c in invoice["charges"]:
        assert Fraction(c["amount"]) == rounded(Fraction(c["exact"])), c
        if c["kind"] == kind:
            out[c["campaign_id"]] += Fraction(c["exact"])
    totals = {t["currency"]: t for t in invoice["totals"]}
    for currency, t in totals.items():
        assert Fraction(t["amount"]) == sum(Fraction(c["amount"]) for c in invoice["charges"] if c["currency"] == currency)
    return {k: v for k, v in out.items() if v}


def invoice(a, period, advertiser="acme", **more):
    return ask(a, f"/v1/periods/{period}?advertiser_id={advertiser}" + "".join(f"&{k}={v}" for k, v in more.items()))


def click(name, ms, micros, **more):
    return {"event_id": name, "type": "click", "advertiser_id": "acme", "campaign_id": "c1", "publisher_id": "p1",
            "event_time": int(ms), "cost_micros": micros, "currency": "EUR", **more}


def fill_segments(a, name):
    """More than a segment's bytes in each partition, so that what was judged before it is archived before the hour ends."""
    big = {f"k{i}": "x" * 250 for i in range(16)}
    for n in range(0, 1400, 200):
        batch = [click(f"{name}-{n + i}", time.time() * 1000, 0, advertiser_id="filler", attributes=big) for i in range(200)]
        assert a.post(batch)[0] == 202


def close(a, period, advertiser="acme"):
    run("period", "close", period, "--url", a.url, "--advertiser", advertiser, "--reason", "month end", "--requested-by", "ann",
        "--approved-by", "bob")
    for n in range(30):
        fill_segments(a, f"fill-{n}")
        time.sleep(1)
        state, = (p for p in ask(a, f"/v1/periods?advertiser_id={advertiser}")["periods"] if p["period"] == period)
        assert state["state"] in ("open", "closing", "closed"), state
        if state["state"] == "closed":
            return
    raise AssertionError(f"{state}\n{a.tail()}")


def check_both(a, events):
    """GET /metrics?view=both: each side, and the difference by cause, to the last micro of the exact sums."""
    answer = ask(a, "/v1/metrics?view=both&window=total&group_by=none&from=2020-01-01T00:00:00Z&to=2040-01-01T00:00:00Z"
                    "&advertiser_id=acme")
    row, sides, causes = answer["rows"][0], defaultdict(int), defaultdict(int)
    for e in events:
        if e["cause"] is not None and not e["labels"]:
            sides["billing"] += e["cost"] * e["billed"]
            sides["realtime"] += e["cost"] * e["counted"]
            causes[e["cause"]] += e["cost"] * (e["billed"] - e["counted"])
    for side, nanos in sides.items():
        assert abs(Fraction(row[f"{side}_spend_micros"]) - Fraction(nanos, 1000)) <= Fraction(1, 2), (side, row)
    for cause in ("late", "duplicate", "conflict"):
        assert abs(row["causes"][cause]["spend_micros"] - Fraction(causes[cause], 1000)) <= Fraction(1, 2), (cause, row)
    drift = abs(Fraction(sides["realtime"] - sides["billing"], sides["billing"]))
    assert abs(Fraction(row["drift"]) - drift) < Fraction(1, 10**5), row


def check_csv(a, period, wanted):
    text = invoice(a, period, format="csv")
    got = defaultdict(Fraction)
    for r in csv.DictReader(io.StringIO(text)):
        got[r["x_CampaignId"]] += Fraction(r["BilledCost"])
    assert dict(got) == wanted, text


def check_proof(a, period, place):
    """Signed, and made again from a copy of the archive alone; a number that was changed is not."""
    for more, name in ((), "m.json"), (("--signature",), "m.json.sig"):
        with open(place / name, "wb") as out:
            out.write(subprocess.run([str(ADTALLY), "period", "manifest", period, "--url", a.url, "--advertiser", "acme", *more],
                                     check=True, stdout=subprocess.PIPE).stdout)
    (place / "key.pem").write_text(run("key", "public", "--data", a.data).stdout)
    shutil.copytree(a.data / "archive", place / "copy")
    options = ["--key", place / "key.pem", "--archive", f"dir:{place / 'copy'}", "--quiet"]
    assert "verified" in run("verify", place / "m.json", *options).stdout
    forged = (place / "m.json").read_bytes().replace(b'"clicks":', b'"clicks":1', 1)
    (place / "m.json").write_bytes(forged)
    done = run("verify", place / "m.json", *options, check=False)
    assert done.returncode == 1 and "signature" in done.stderr, done.stderr


def test_what_comes_after_the_close_is_an_adjustment(place):
    first, before, after = month_boundary()
    boundary = int(first.timestamp() * 1000)
    data, events = made(place, SEED, events=3000, hours=30, end_ms=boundary + 6 * HOUR_MS)
    judge(events)
    run("key", "create", "--signing", "--data", data)
    a = Adtally(data, *SETTINGS)
    try:
        a.start()
        reconciled(a, "first")
        check_both(a, events)
        want = spend(events, boundary)
        assert lines(invoice(a, before), "usage") == {c: v for (early, c), v in want.items() if early and v}
        # A correction: nothing of c4 is billed in the month that is closed.
        ask(a, "/v1/corrections", {**WHO, "id": "void-c4", "action": "void",
                                   "scope": {"campaign_id": "c4", "from": "2020-01-01T00:00:00Z", "to": first.isoformat()}})
        close(a, before)
        closed = invoice(a, before)
        usage = {c: v for (early, c), v in want.items() if early and v and c != "c4"}
        assert closed["state"] == "closed" and lines(closed, "usage") == usage and not lines(closed, "adjustment")
        check_csv(a, before, {c: rounded(v) for c, v in usage.items() if rounded(v)})
        # Money that comes later: a late click, and the correction is taken back.
        late = click("late-1", boundary - HOUR_MS, 123456789)
        assert a.post([late])[0] == 202
        ask(a, "/v1/corrections/void-c4/cancel", WHO)
        reconciled(a, "second")
        assert invoice(a, before) == closed, "a closed period changed"
        opened = invoice(a, after)
        assert {c["original_period"] for c in opened["charges"] if c["kind"] == "adjustment"} == {before}, opened
        assert lines(opened, "adjustment") == {"c1": Fraction(123456789, 10**6), "c4": want[True, "c4"]}
        assert {c["cause"] for c in opened["charges"] if c["kind"] == "adjustment" and c["campaign_id"] == "c1"} == {"late"}
        assert lines(opened, "usage") == {c: v for (early, c), v in want.items() if not early and v}
        # Over all periods it is what the raw events cost.
        total = sum((Fraction(c["exact"]) for i in (closed, opened) for c in i["charges"]), Fraction())
        assert total == sum(want.values()) + Fraction(123456789, 10**6)
        reconciled(a, "third")
        assert invoice(a, after)["charges"] == opened["charges"], "a run posted something twice"
        check_proof(a, before, place)
    finally:
        a.destroy()


def test_a_price_table_that_changes_after_the_close(place):
    """W6, R3 to R5: the newest table bills; what that changes of a closed period is an adjustment in the open one."""
    first, before, after = month_boundary()
    old_ms, data = int(first.timestamp() * 1000) - HOUR_MS, place / "data"
    run("key", "create", "--signing", "--data", data)

    def load(price):
        (place / "prices").write_text("tenant_id,advertiser_id,campaign_id,ad_id,model,price,currency,valid_from\n"
                                      f",,,,cpc,{price},EUR,\n,,c2,,cpc,0.0000005,EUR,\n")
        run("prices", "load", place / "prices", "--data", data)

    def sent(name, count, ms, campaign):
        batch = [{k: v for k, v in click(f"{name}-{i}", ms, 0, campaign_id=campaign).items() if k not in ("cost_micros", "currency")}
                 for i in range(count)]
        assert a.post(batch)[0] == 202

    load("0.505")
    a = Adtally(data, *SETTINGS, "--pricing", "table")
    try:
        a.start()
        # The clicks of now come first: those of last month are late, and the bill alone counts them.
        sent("now", 40, time.time() * 1000, "c1")
        time.sleep(1)
        sent("old", 7, old_ms, "c1")
        sent("small", 3, old_ms, "c2")
        a.wait_counted()
        reconciled(a, "first")
        close(a, before)
        closed = invoice(a, before)
        assert lines(closed, "usage") == {"c1": 7 * Fraction("0.505"), "c2": 3 * Fraction("0.0000005")}
        load("0.3")
        reconciled(a, "second")
        assert invoice(a, before) == closed, "a closed period changed"
        opened = invoice(a, after)
        assert lines(opened, "adjustment") == {"c1": 7 * (Fraction("0.3") - Fraction("0.505"))}
        assert {c["original_period"] for c in opened["charges"] if c["kind"] == "adjustment"} == {before}
        assert lines(invoice(a, this_month()), "usage") == {"c1": 40 * Fraction("0.3")}
        row, = ask(a, "/v1/metrics?view=both&window=total&group_by=none&from=2020-01-01T00:00:00Z&to=2040-01-01T00:00:00Z"
                      "&advertiser_id=acme")["rows"]
        assert row["causes"]["price"]["spend_micros"] == 40 * (300000 - 505000), row
    finally:
        a.destroy()
