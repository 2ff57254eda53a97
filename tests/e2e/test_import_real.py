"""A real log of one ad (607 rows, 12 of them repeat another exactly), imported (R6).

`time` of the file is UTC, its `date` the local day at UTC+3. Its published report for 2 April says
impressions 93, clicks 6, spend 17.43, and counts repeated rows. The oracle is a plain recount of the
file with Python's csv and decimal; the numbers of Adtally are never compared with themselves.
"""
import csv
import json
from collections import defaultdict
from datetime import datetime, timedelta, timezone
from decimal import ROUND_HALF_EVEN, Decimal

import pytest

import test_money as money
from conftest import SHARED, run

FILE = SHARED / "data" / "ads_data_121288.csv"
pytestmark = [pytest.mark.skipif(not FILE.exists(), reason="the real log is not here"), pytest.mark.sanitized]

MAP = "time=event_time,event=type,ad_id=ad_id,platform=device,campaign_id:=one,advertiser_id:=real"
OPTIONS = ["--map", MAP, "--time-zone", "UTC", "--price-model", "cpm=ad_cost@impression", "--currency", "RUB"]
MOSCOW = timezone(timedelta(hours=3))


def read_rows(path=FILE):
    with open(path, newline="") as f:
        return list(csv.DictReader(f))


def time_of(row):
    day, clock = row["time"].split()
    hour, minute, second = map(int, clock.split(":"))
    return datetime.strptime(day, "%Y-%m-%d").replace(hour=hour, minute=minute, second=second, tzinfo=timezone.utc)


WINDOWS = {
    "minute": lambda t: t.replace(second=0),
    "hour": lambda t: t.replace(minute=0, second=0),
    "day": lambda t: t.replace(hour=0, minute=0, second=0),
}


def recount(rows, window, zone, key=lambda row: ()):
    """{(window start as text, *key): [impressions, clicks, spend_micros]}"""
    out = defaultdict(lambda: [0, 0, Decimal(0)])
    for row in rows:
        start = WINDOWS[window](time_of(row).astimezone(zone))
        cell = out[(start.isoformat().replace("+00:00", "Z"), *key(row))]
        if row["event"] == "view":
            cell[0] += 1
            cell[2] += Decimal(row["ad_cost"]) * 1000  # of 1,000 views in units; of one in micros
        else:
            cell[1] += 1
    return {k: tuple(int(x) if x == int(x) else x for x in v) for k, v in out.items()}


def span(rows):
    first, last = min(map(time_of, rows)), max(map(time_of, rows))
    return WINDOWS["day"](first) - timedelta(days=1), WINDOWS["day"](last) + timedelta(days=2)


def served(a, rows, window, tz, dims=()):
    """The same of GET /metrics; asked day by day, so that no answer is cut."""
    zone = MOSCOW if tz == "Europe/Moscow" else timezone.utc
    at, end = (t.replace(tzinfo=zone) for t in span(rows))
    out = {}
    while at < end:
        answer = a.metrics(window=window, tz=tz, limit=10000, **{"from": at.isoformat(), "to": (at + timedelta(days=1)).isoformat()},
                           **({"group_by": ",".join(dims)} if dims else {}))
        assert answer["next_cursor"] is None
        for row in answer["rows"]:
            assert row["currency"] == "RUB" and row["conversions"] == 0 and row["payout_micros"] == 0
            key = (row["window_start"], *(row[d] for d in dims))
            assert key not in out
            out[key] = (row["impressions"], row["clicks"], row["spend_micros"])
        at += timedelta(days=1)
    return out


def assert_equal_everywhere(a, rows):
    for window in WINDOWS:
        for tz, zone in (("UTC", timezone.utc), ("Europe/Moscow", MOSCOW)):
            assert served(a, rows, window, tz) == recount(rows, window, zone), (window, tz)
    by_device = served(a, rows, "hour", "UTC", ("device", "ad_id", "campaign_id", "advertiser_id", "country"))
    assert by_device == recount(rows, "hour", timezone.utc,
                                lambda r: (r["platform"], r["ad_id"], "one", "real", ""))


def assert_bill(a, rows):
    """The bill of the import by raw events is the file's, and realtime differs from it nowhere."""
    out = a.data / "bill.jsonl"
    topic = next((a.data / "log/topics").glob("import.*")).name
    done = json.loads(run("reconcile", "--data", a.data, "--topic", topic, "--out", out, "--json", "--quiet").stdout)
    assert [c["cause"] for c in done["causes"]] == ["none"] and done["compared_cells"] > 0, done
    days = defaultdict(lambda: [0, 0, Decimal(0)])
    for line in out.read_text().splitlines():
        r = json.loads(line)
        day = datetime.fromisoformat(r["window_start"].replace("Z", "+00:00")).astimezone(MOSCOW).date()
        for i, v in enumerate((r["billed"]["impressions"], r["billed"]["clicks"], Decimal(r["billed"]["spend_nanos"]) / 1000)):
            days[f"{day}T00:00:00+03:00",][i] += v
    assert {k: tuple(map(int, v)) for k, v in days.items()} == recount(rows, "day", MOSCOW)


def do_import(a, path, *more):
    done = run("import", path, *OPTIONS, "--data", a.data, "--url", a.url, "--wait", "60s", "--json", "--quiet", *more)
    return json.loads(done.stdout)


def start_with_room(start):
    """A data directory whose account counts in Moscow; the file's own time zone is a flag of import."""
    return start("--time-zone", "Europe/Moscow")


def test_the_published_report_and_every_window(start):
    a = start_with_room(start)
    rows = read_rows()
    assert len(rows) == 607 and len({tuple(r.values()) for r in rows}) == 595
    s = do_import(a, FILE)
    assert (s["rows"], s["new"], s["known"], s["bad"]) == (607, 607, 0, 0)
    day = a.metrics(window="day", tz="Europe/Moscow", **{"from": "2019-04-02T00:00:00+03:00", "to": "2019-04-03T00:00:00+03:00"})
    assert len(day["rows"]) == 1
    row = day["rows"][0]
    assert (row["impressions"], row["clicks"], row["spend_micros"]) == (93, 6, 17_428_200)
    assert abs(row["ctr"] - 0.0645) < 0.00005
    assert row["final"] is True and row["state"] == "settled"
    assert_equal_everywhere(a, rows)
    q = a.quality()
    assert q["balanced"] and q["ledger"]["counted"] == 607 and q["ledger"]["imported"] == 607


def test_again_and_with_one_row_appended_counts_only_what_is_new(start, place):
    a = start_with_room(start)
    rows = read_rows()
    do_import(a, FILE)
    s = do_import(a, FILE)
    assert (s["new"], s["known"], s["written"]) == (0, 607, False)
    assert_equal_everywhere(a, rows)
    assert_bill(a, rows)
    text = FILE.read_bytes().rstrip(b"\r\n") + b"\r\n"
    longer = place / "longer.csv"
    # The appended row repeats the last one: one occurrence more than before, so it is new.
    longer.write_bytes(text + text.splitlines(keepends=True)[-1])
    s = do_import(a, longer)
    assert (s["new"], s["known"]) == (1, 607)
    assert len(read_rows(longer)) == 608
    assert_equal_everywhere(a, read_rows(longer))
    assert_bill(a, read_rows(longer))
    s = do_import(a, longer)
    assert (s["new"], s["known"]) == (0, 608)
    assert_equal_everywhere(a, read_rows(longer))


def test_without_a_running_server_it_is_counted_at_the_next_start(start, place):
    a = start_with_room(start)
    assert a.stop() == 0
    done = run("import", FILE, *OPTIONS, "--data", a.data, "--url", "http://127.0.0.1:1", "--json", "--quiet")
    assert json.loads(done.stdout)["new"] == 607
    # The copy of the known ids is made again from the log when it is lost.
    for f in (a.data / "imports").glob("*.ids"):
        f.unlink()
    done = run("import", FILE, *OPTIONS, "--data", a.data, "--url", "http://127.0.0.1:1", "--json", "--quiet")
    assert json.loads(done.stdout)["known"] == 607
    a.start()
    ledger = a.wait_counted()
    assert (ledger["counted"], ledger["duplicate"]) == (607, 0)
    assert_equal_everywhere(a, read_rows())


def test_rows_over_other_data_are_refused_by_name(start, place):
    """R6: import_overlaps, for another dataset and for live data."""
    a = start_with_room(start)
    do_import(a, FILE)
    done = run("import", FILE, *OPTIONS, "--data", a.data, "--url", a.url, "--dataset", "other", "--quiet", check=False)
    assert done.returncode == 1 and "import_overlaps" in done.stderr and "607 of 607" in done.stderr
    now = datetime.now(timezone.utc)
    a.post({"event_id": "live", "type": "click", "advertiser_id": "real", "campaign_id": "one",
            "event_time": int(now.timestamp() * 1000)})
    a.wait_counted()
    recent = place / "recent.csv"
    head = FILE.read_text().splitlines()[0]
    line = f"{now:%Y-%m-%d},{now:%Y-%m-%d %H:%M:%S},view,web,121288,CPM,187.4\n"
    recent.write_text(head + "\n" + line)
    for _ in range(100):  # the live row has to be in the view
        done = run("import", recent, *OPTIONS, "--data", a.data, "--url", a.url, "--dataset", "recent", "--quiet", "--dry-run",
                   check=False)
        if done.returncode == 1:
            break
    assert "import_overlaps" in done.stderr and "live data" in done.stderr
    s = json.loads(run("import", recent, *OPTIONS, "--data", a.data, "--url", a.url, "--dataset", "recent", "--quiet",
                       "--as-backfill", "--json").stdout)
    assert (s["overlap"], s["backfilled"], s["written"]) == (1, 1, False)
    s = json.loads(run("import", recent, *OPTIONS, "--data", a.data, "--url", a.url, "--dataset", "recent", "--quiet",
                       "--as-backfill", "--json").stdout)
    assert (s["known"], s["backfilled"]) == (1, 0)
    ledger = a.wait_counted()
    assert (ledger["counted"], ledger["duplicate"]) == (609, 0)


def test_the_month_is_billed_closed_and_told_as_csv(start, place):
    """Import, reconcile, close: 2 April costs what the published report says, and the invoice is the month's recount."""
    run("key", "create", "--signing", "--data", place / "data")
    a = start("--time-zone", "Europe/Moscow", "--archive-segment", "2MiB", "--partitions", 2)
    rows = read_rows()
    do_import(a, FILE)
    money.reconciled(a, "all")
    money.close(a, "2019-04", "real")
    day = "view=billing&window=day&tz=Europe/Moscow&format=csv&from=2019-04-02T00:00:00%2B03:00&to=2019-04-03T00:00:00%2B03:00"
    line, = csv.DictReader(money.ask(a, f"/v1/metrics?{day}&advertiser_id=real").splitlines())
    assert (line["impressions"], line["clicks"], line["state"]) == ("93", "6", "closed")
    assert (Decimal(line["spend_micros"]) / 10**6).quantize(Decimal("0.01")) == Decimal("17.43")
    april = [r for r in rows if time_of(r).astimezone(MOSCOW).strftime("%Y-%m") == "2019-04"]
    exact = sum(Decimal(r["ad_cost"]) / 1000 for r in april if r["event"] == "view")
    bill, = csv.DictReader(money.invoice(a, "2019-04", "real", format="csv").splitlines())
    assert (bill["x_CampaignId"], bill["BillingCurrency"]) == ("one", "RUB") and Decimal(bill["x_Exact"]) == exact, bill
    assert Decimal(bill["BilledCost"]) == exact.quantize(Decimal("0.01"), ROUND_HALF_EVEN)
    assert int(bill["x_Impressions"]) == sum(r["event"] == "view" for r in april)
