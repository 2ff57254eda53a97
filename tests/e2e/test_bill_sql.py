"""Every billing row against SQL over the raw segments: DuckDB knows neither our code nor our formats. The segments are read
by archive_reader.py (zstd and docs/ARCHIVE.md); what the last hour holds is not archived yet and comes from make_log's list."""
from collections import defaultdict

import pytest

import archive_reader
from conftest import Adtally
from test_reconcile import BILLING, MEASURES, PARTITIONS, SETTINGS, by_cause, made, read_rows, reconcile

COLUMNS = ["part", "ord", "id", "type", "campaign", "publisher", "receive_ms", "event_ms", "cost", "payout", "value", "labels"]
# D4: the first copy of an id in the order of the log, among those whose receive hour lies in [h - H, h + 1].
RECOUNT = f"""
WITH bill AS (
  SELECT * FROM events e WHERE NOT EXISTS (
    SELECT 1 FROM events f WHERE f.id = e.id AND f.part = e.part AND f.ord < e.ord
      AND f.receive_ms // 3600000 BETWEEN e.receive_ms // 3600000 - {BILLING} AND e.receive_ms // 3600000 + 1))
SELECT event_ms // 900000, campaign, publisher,
  count(*) FILTER (labels = 0 AND type = 1), count(*) FILTER (labels = 0 AND type = 2), count(*) FILTER (labels = 0 AND type = 3),
  coalesce(sum(cost) FILTER (labels = 0), 0), coalesce(sum(payout) FILTER (labels = 0), 0),
  coalesce(sum("value") FILTER (labels = 0), 0), count(*) FILTER (labels <> 0)
FROM bill GROUP BY ALL"""


def nanos(money):
    got = {f[0]: f[2] for f in archive_reader.fields(money)}
    small = got.get(2, 0)
    return got.get(1, 0) * 10**9 + (small >> 1 ^ -(small & 1))


def archived(place):
    """Rows of COLUMNS, of everything in the segments."""
    rows = []
    for n, part in archive_reader.parts(place).items():
        for _, _, value in part.records:
            for event in (f[2] for f in archive_reader.fields(value) if f[0] == 1):
                g = {f[0]: f[2] for f in archive_reader.fields(event)}
                rows.append((n, len(rows), g[1].decode(), g[2], g[5].decode(), g[7].decode(), g[21], g[3],
                             nanos(g.get(13, b"")), nanos(g.get(14, b"")), nanos(g.get(15, b"")), g.get(24, 0)))
    return rows


def test_sql_over_the_segments_equals_every_row(place):
    duckdb = pytest.importorskip("duckdb")
    seed = 98
    data, lines = made(place, seed)
    events = [e for e in lines if "heartbeat_ms" not in e]
    a = Adtally(data, *SETTINGS)
    try:
        a.start()
        result = reconcile(a, "--out", place / "rows")
        rows = archived(data / "archive")
        assert len(rows) > len(events) * 3 // 4, f"seed {seed}: only {len(rows)} of {len(events)} are archived"
        for n in range(PARTITIONS):
            mine = [e for e in events if e["partition"] == n]
            have = sum(r[0] == n for r in rows)
            assert [r[2] for r in rows if r[0] == n] == [e["id"] for e in mine[:have]], f"seed {seed}: partition {n}"
            rows += [(n, 10**9 + i, e["id"], e["type"], e["campaign"], e["publisher"], e["receive_ms"], e["event_ms"], e["cost"],
                      e["payout"], e["value"], e["labels"]) for i, e in enumerate(mine[have:])]
        db = duckdb.connect()
        db.execute("CREATE TABLE events (part INT, ord BIGINT, id TEXT, type INT, campaign TEXT, publisher TEXT, receive_ms BIGINT, "
                   "event_ms BIGINT, cost BIGINT, payout BIGINT, \"value\" BIGINT, labels INT)")
        db.executemany(f"INSERT INTO events VALUES ({','.join('?' * len(COLUMNS))})", rows)
        want = {(q, c, p): sums for q, c, p, *sums in db.execute(RECOUNT).fetchall()}
        got = defaultdict(lambda: [0] * 7)
        for (quarter, campaign, publisher, _), r in read_rows(place / "rows").items():
            sums = [r["billed"][m] for m in MEASURES] + [sum(v for k, v in r["billed"].items() if k.startswith("invalid"))]
            row = got[quarter, campaign, publisher]
            for i, v in enumerate(sums):
                row[i] += v
        got = {key: row for key, row in got.items() if any(row)}  # realtime alone counted there: nothing is billed
        assert got == {key: list(sums) for key, sums in want.items()}, f"seed {seed}"
        assert len(got) > 500 and not result["unexplained"] and by_cause(result)["duplicate"]["realtime"]["clicks"] > 0
    finally:
        a.destroy()
