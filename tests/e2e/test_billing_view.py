"""GET /metrics of the bill (R7) by a real api job, over kill -9, a damaged store, and runs that come while it serves.

`billing` is written by make_bill, which prints what it wrote; answers are counted again from that."""
import csv
import datetime
import io
import json
import random
import signal
import subprocess
import time
from collections import defaultdict

import pytest

from conftest import BUILD, Adtally

SEED = 4711
QUARTER = 900_000
BASE = 20513 * 96
NAMES = ["impressions", "clicks", "conversions", "spend_micros", "payout_micros", "conversion_value_micros"]
CAUSES = ["late", "duplicate", "conflict", "price", "unfolded", "not_yet_processed", "unexplained", "label", "correction"]


class Api(Adtally):
    """The api job alone: nobody else writes `billing`."""

    def start(self, wait=60):
        (self.data / "run").mkdir(parents=True, exist_ok=True)
        with open(self.log, "ab") as out:
            self.process = subprocess.Popen([BUILD / "jobs/api/adtally-api", "--data", self.data, "--partitions", "2",
                                             "--listen", f"127.0.0.1:{self.port}"], stdout=out, stderr=out)
        until = time.time() + wait
        while True:
            try:
                if self.get("/v1/metrics")[0] == 200:
                    return self
            except OSError:
                pass
            assert self.process.poll() is None and time.time() < until, self.tail()
            time.sleep(0.05)


class Bill:
    """What make_bill wrote, and the answers that follow from it."""

    def __init__(self, data):
        self.data, self.made, self.lines = data, 0, []

    def make(self, to):
        (self.data / "log").mkdir(parents=True, exist_ok=True)
        done = subprocess.run([BUILD / "tests/e2e/make_bill", self.data / "log", str(SEED), str(self.made), str(to)],
                              capture_output=True, text=True, check=True)
        self.lines += [json.loads(line) for line in done.stdout.splitlines()]
        self.made = to

    def runs(self):
        return [x for x in self.lines if "applied" in x]

    def cells(self, seq):
        """{(quarter, *cell): causes} of the newest versions up to seq."""
        return {(x["quarter"], *x["cell"]): x["causes"] for x in self.lines if "causes" in x and x["seq"] <= seq}

    def rows(self, seq, window, group, keep=lambda key: True):
        """{(window's first quarter, *dims, currency): (billed, realtime, causes, adjusted)}, amounts in nanos."""
        closes = [x for x in self.lines if "closed" in x and x["seq"] <= seq]
        now, then = self.cells(seq), self.cells(closes[0]["seq"]) if closes else {}
        out = defaultdict(lambda: ([0] * 6, [0] * 6, defaultdict(lambda: [0] * 6), [False]))
        for key, causes in now.items():
            if not keep(key):
                continue
            dims = dict(zip(("advertiser_id", "campaign_id", "publisher_id"), key[1:4]))
            billed, realtime, by_cause, adjusted = out[(key[0] // window * window, *(dims[g] for g in group), key[4])]
            for cause, sides in causes.items():
                for i in range(6):
                    billed[i] += sides["billed"][i]
                    realtime[i] += sides["realtime"][i]
                    if cause != "none":
                        by_cause[cause][i] += sides["billed"][i] - sides["realtime"][i]
            if closes and key[0] < closes[0]["closed"]:
                sums = [[sum(s["billed"][i] for s in c.values()) for i in range(6)] for c in (causes, then.get(key, {}))]
                adjusted[0] |= sums[0] != sums[1]
        return out


def shown(amounts):
    """Counts, and money in micros, rounded half to even."""
    return [a if i < 3 else round(a, -3) // 1000 for i, a in enumerate(amounts)]


def instant(quarter):
    return datetime.datetime.fromtimestamp(quarter * 900, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def check(api, bill, run, window, name, group, what):
    """Both views of one question, as JSON, and as CSV, against the recount."""
    span = {"from": instant(BASE), "to": instant(BASE + 10 * 96), "window": name, "group_by": ",".join(group) or "none",
            "limit": 10000}
    if run is not bill.runs()[-1]:
        span["as_of"] = instant(run["at_ms"] // QUARTER)
    want = bill.rows(run["seq"], window, group)
    answer = api.metrics(view="billing", **span)
    assert (answer["run"], answer["billed_through"]) == (run["id"], instant(run["at_ms"] // QUARTER)), what
    got = {(r["window_start"], *(r[g] for g in group), r["currency"]): r for r in answer["rows"]}
    assert sorted(got) == sorted((instant(k[0]), *k[1:]) for k in want), what
    both = api.metrics(view="both", **span)["rows"]
    both = {(r["window_start"], *(r[g] for g in group), r["currency"]): r for r in both}
    closed = [x["closed"] for x in bill.lines if "closed" in x and x["seq"] <= run["seq"]]
    for key, (billed, realtime, by_cause, adjusted) in want.items():
        row = got[(instant(key[0]), *key[1:])]
        end = key[0] + window
        state = "closed" if closed and end <= closed[0] else "billed" if end * QUARTER <= run["at_ms"] else "open"
        assert [row[n] for n in NAMES] == shown(billed), f"{what}: {key}"
        assert (row["state"], row["adjusted"]) == (state, adjusted[0]), f"{what}: {key}"
        row = both[(instant(key[0]), *key[1:])]
        assert [row[f"billing_{n}"] for n in NAMES] == shown(billed), f"{what}: {key}"
        assert [row[f"realtime_{n}"] for n in NAMES] == shown(realtime), f"{what}: {key}"
        assert {c: [d[n] for n in NAMES] for c, d in row["causes"].items()} == \
            {c: shown(d) for c, d in by_cause.items() if any(d)}, f"{what}: {key}"
        drift = abs(realtime[3] - billed[3]) / billed[3]
        assert row["drift"] == pytest.approx(drift, rel=1e-5), f"{what}: {key}"
    for total in answer["totals"]:
        sums = [sum(r[0][i] for k, r in want.items() if k[-1] == total["currency"]) for i in range(6)]
        assert [total[n] for n in NAMES] == shown(sums), what
    status, text = api.get("/v1/metrics?view=both&format=csv&" + "&".join(f"{k}={v}" for k, v in span.items()))
    assert status == 200, text
    table = list(csv.DictReader(io.StringIO(text)))
    assert len(table) == len(want), what
    for line in table:
        row = both[(line["window_start"], *(line[g] for g in group), line["currency"])]
        assert [int(line[f"billing_{n}"]) for n in NAMES] == [row[f"billing_{n}"] for n in NAMES], what
        assert float(line["drift"]) == row["drift"] and line["state"] == row["state"], what
        for c in CAUSES:
            assert int(line[f"{c}_spend_micros"]) == row["causes"].get(c, {"spend_micros": 0})["spend_micros"], what


def wait_run(api, bill):
    """Until the newest run is what the bill is of."""
    until = time.time() + 30
    while True:
        status, answer = api.get("/v1/metrics?view=billing")
        if status == 200 and answer["run"] == bill.runs()[-1]["id"]:
            return
        assert time.time() < until and status in (200, 503), f"seed {SEED}: {status} {answer}\n{api.tail()}"
        time.sleep(0.05)


def ask_about(api, bill, what, count=6):
    dice = random.Random(f"{SEED}{what}")
    for _ in range(count):
        run = dice.choice(bill.runs() + bill.runs()[-1:] * 5)
        window, name = dice.choice([(4, "hour"), (96, "day")])
        group = dice.choice([[], ["campaign_id"], ["advertiser_id", "publisher_id"]])
        check(api, bill, run, window, name, group, f"seed {SEED}, {what}: run {run['id']}, {name} by {group}")


def test_billing_view(place):
    """R7, K5: each answer, at each run, is the recount; whatever became of the job and of its store."""
    bill = Bill(place / "data")
    api = Api(place / "data")
    try:
        api.start()
        status, answer = api.get("/v1/metrics?view=billing")
        assert (status, answer["error"]["code"]) == (503, "billing_not_ready"), answer
        assert api.quality()["drift"] is None
        bill.make(10)
        wait_run(api, bill)
        ask_about(api, bill, "ten runs")
        bill.make(14)  # while it serves; the first day is closed in between
        wait_run(api, bill)
        ask_about(api, bill, "fourteen runs")
        api.process.send_signal(signal.SIGKILL)
        api.process.wait(30)
        bill.make(20)
        api.start()
        wait_run(api, bill)
        ask_about(api, bill, "after kill -9", 3)
        drift = api.quality()["drift"]
        assert drift["run"] == bill.runs()[-1]["id"] and drift["alarm"] and drift["unexplained_cells"] == 1
        sides = bill.rows(bill.runs()[-1]["seq"], 10**9, [], lambda k: k[0] > bill.runs()[-1]["at_ms"] // QUARTER - 96)
        for c in drift["last_day"]["currencies"]:
            billed, realtime = next(v[:2] for k, v in sides.items() if k[-1] == c["currency"])
            assert (c["billing_spend_micros"], c["realtime_spend_micros"]) == (shown(billed)[3], shown(realtime)[3])
        assert drift["open_period"]["period"] == "2026-03"
        api.process.send_signal(signal.SIGKILL)
        api.process.wait(30)
        for path in (place / "data/view-billing").iterdir():
            if path.name.startswith("MANIFEST") or path.suffix == ".sst":
                path.write_bytes(b"damaged" * 100)
        api.start()
        wait_run(api, bill)
        assert "built anew" in api.log.read_text(), api.tail()
        ask_about(api, bill, "built anew", 3)
        question = {"view": "both", "from": instant(BASE), "to": instant(BASE + 960), "window": "hour", "group_by": "campaign_id"}
        whole, rows, page = api.metrics(**question, limit=10000)["rows"], [], api.metrics(**question, limit=7)
        while page["next_cursor"]:
            rows += page["rows"]
            page = api.metrics(cursor=page["next_cursor"], limit=7)
        assert page["view"] == "both" and rows + page["rows"] == whole and len(whole) > 20
        early = instant(BASE)
        status, answer = api.get(f"/v1/metrics?view=billing&as_of={early}")
        assert (status, answer["error"]["code"]) == (400, "as_of_before_first_run"), answer
        assert instant(BASE + 7) in answer["error"]["message"]
    finally:
        api.destroy()
