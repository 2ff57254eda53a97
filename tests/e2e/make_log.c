/* make_log.c - a log of some days for end-to-end tests, written in a moment.
 *
 *   make_log DIR PARTITIONS SEED EVENTS HOURS [END_MS]
 *
 * Writes the topic `events` of an embedded log in DIR, ending now (or then), as ingest would have:
 * records in the order of append time, heartbeats, the edge ledger. Among the events are copies
 * soon and long after, some with another event time or other content, events that come late, and
 * labelled ones. Prints each event and heartbeat as a line of JSON, in log order: for a recount.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "df/filelog.h"
#include "proto/wire.h"

#define PARTITIONS_MAX 16
#define MINUTE_MS 60000
#define HOUR_MS 3600000
#define START_ID 77
#define KEPT 4000 /* events that a copy may repeat */

struct event {
        int id, type, campaign, publisher;
        int64_t event_ms, cost, payout, value;
        uint32_t labels;
        bool time_missing;
};

static uint64_t dice_state;
static int64_t now_ms;
static struct df_log_writer *writer;
static uint64_t seq[PARTITIONS_MAX], total;
static struct event kept[KEPT];
static int kept_count, partitions;

/* In the place of the C library's: a test's log need not survive a power cut, and a record in each
 * append would wait for the disk thousands of times. */
int fdatasync(int fd)
{
        (void)fd;
        return 0;
}

static uint64_t dice(uint64_t below)
{
        dice_state ^= dice_state << 13;
        dice_state ^= dice_state >> 7;
        dice_state ^= dice_state << 17;
        return dice_state % below;
}

static int64_t clock_ms(void *arg)
{
        (void)arg;
        return now_ms;
}

static void die(const struct df_error *err)
{
        fprintf(stderr, "make_log: %s\n", err->text);
        exit(1);
}

static struct df_bytes text(char *room, const char *kind, int n)
{
        return df_bytes(room, (size_t)sprintf(room, "%s%d", kind, n));
}

static void append(int partition, const struct df_buf *record)
{
        struct df_append a = {.partition = (uint32_t)partition, .value = df_buf_bytes(record)};
        struct df_error err = {0};

        if (df_log_append(writer, &a, 1, &err) < 0)
                die(&err);
}

static void heartbeat(int partition, bool closing)
{
        struct ad_batch b = {.start_id = START_ID,
                             .first_seq = seq[partition],
                             .schema_version = AD_SCHEMA_VERSION,
                             .has_heartbeat = true};
        struct df_buf record = {0};

        b.heartbeat = (struct ad_heartbeat){.receive_ms = now_ms,
                                            .received = total,
                                            .accepted = total,
                                            .partition_accepted = seq[partition],
                                            .closing = closing};
        ad_wire_batch_header(&record, &b);
        append(partition, &record);
        printf("{\"partition\":%d,\"heartbeat_ms\":%" PRId64 "}\n", partition, now_ms);
        df_buf_release(&record);
}

static void print_event(const struct event *e, int partition)
{
        printf("{\"partition\":%d,\"id\":\"e%d\",\"type\":%d,\"campaign\":\"c%d\",\"publisher\":"
               "\"p%d\",\"receive_ms\":%" PRId64 ",\"event_ms\":%" PRId64
               ",\"time_missing\":%s,\"cost\":%" PRId64 ",\"payout\":%" PRId64 ",\"value\":%" PRId64
               ",\"labels\":%u}\n",
               partition, e->id, e->type, e->campaign, e->publisher, now_ms, e->event_ms,
               e->time_missing ? "true" : "false", e->cost, e->payout, e->value, e->labels);
}

static void send(const struct event *e)
{
        char id[32], campaign[32], publisher[32];
        struct ad_event ev = {.event_id = text(id, "e", e->id),
                              .tenant_id = df_bytes_str("default"),
                              .currency = df_bytes_str("EUR"),
                              .source = df_bytes_str("http"),
                              .event_ms = e->event_ms,
                              .receive_ms = now_ms,
                              .cost_nanos = e->cost,
                              .payout_nanos = e->payout,
                              .value_nanos = e->value,
                              .type = (uint32_t)e->type,
                              .labels = e->labels,
                              .schema_version = AD_SCHEMA_VERSION};
        struct ad_batch b = {.start_id = START_ID, .schema_version = AD_SCHEMA_VERSION};
        struct df_buf record = {0}, one = {0};
        int partition;

        ev.dims[AD_DIM_ADVERTISER] = df_bytes_str("acme");
        ev.dims[AD_DIM_CAMPAIGN] = text(campaign, "c", e->campaign);
        ev.dims[AD_DIM_PUBLISHER] = text(publisher, "p", e->publisher);
        ev.flags = AD_EV_HAS_COST | AD_EV_HAS_PAYOUT | (e->value ? AD_EV_HAS_VALUE : 0) |
                   (e->time_missing ? AD_EV_TIME_MISSING : 0);
        ev.fingerprint = ad_event_fingerprint(&ev);
        partition = (int)ad_event_partition(ad_event_key(ev.tenant_id, ev.event_id),
                                            (uint32_t)partitions);
        b.first_seq = seq[partition]++;
        total++;
        ad_wire_event(&one, &ev);
        ad_wire_batch_entry(&record, df_buf_bytes(&one));
        ad_wire_batch_header(&record, &b);
        append(partition, &record);
        print_event(e, partition);
        df_buf_release(&record);
        df_buf_release(&one);
}

/* A new event, or a copy of an earlier one. */
static struct event next_event(int *next_id)
{
        struct event e;
        uint64_t what = dice(100);

        if (what < 12 && kept_count > 0) {
                e = kept[dice((uint64_t)kept_count)];
                if (e.time_missing || dice(2))
                        e.event_ms = now_ms; /* stamped anew */
                if (dice(6) == 0)
                        e.cost += 1; /* and other content */
                return e;
        }
        e = (struct event){.id = (*next_id)++,
                           .type = 1 + (int)dice(3),
                           .campaign = (int)dice(5),
                           .publisher = (int)dice(3),
                           .event_ms = now_ms - (int64_t)dice(8000),
                           .payout = (int64_t)dice(1000000)};
        e.cost = e.type == AD_CLICK ? 1 + (int64_t)dice(2000000000) : (int64_t)dice(1000);
        e.value = e.type == AD_CONVERSION ? 5000000001 : 0;
        e.labels = dice(25) == 0 ? AD_LABEL_BOT : 0;
        if (what < 17)
                e.event_ms = now_ms - (int64_t)(30 * MINUTE_MS + dice(4 * HOUR_MS)); /* late */
        else if (what < 30) {
                e.time_missing = true;
                e.event_ms = now_ms;
        }
        kept[kept_count < KEPT ? kept_count++ : (int)dice(KEPT)] = e;
        return e;
}

int main(int argc, char **argv)
{
        struct df_filelog_options o = {.clock_ms = clock_ms};
        struct df_error err = {0};
        struct df_log *log;
        int64_t end, hours;
        int events, next_id = 0;

        if (argc != 6 && argc != 7) {
                fprintf(stderr, "make_log DIR PARTITIONS SEED EVENTS HOURS [END_MS]\n");
                return 64;
        }
        partitions = atoi(argv[2]);
        dice_state = strtoull(argv[3], NULL, 10) * 0x9e3779b97f4a7c15ull + 1;
        events = atoi(argv[4]);
        hours = atoi(argv[5]);
        end = argc == 7 ? atoll(argv[6]) : (int64_t)time(NULL) * 1000 - 2000;
        now_ms = end - hours * HOUR_MS;
        if (df_filelog_open(argv[1], &o, &log, &err) < 0 ||
            df_log_topic_create(log, "events", (uint32_t)partitions, &err) < 0 ||
            df_log_writer_open(log, "events", &writer, &err) < 0)
                die(&err);
        for (int p = 0; p < partitions; p++)
                heartbeat(p, false);
        for (int i = 0; i < events; i++) {
                struct event e;

                now_ms += (int64_t)dice((uint64_t)(2 * (end - now_ms) / (events - i) + 1));
                if (now_ms > end) /* ingest would not start behind the log's clock */
                        now_ms = end;
                e = next_event(&next_id);
                send(&e);
                if (i % 20 == 0)
                        heartbeat(i / 20 % partitions, false);
        }
        now_ms = end;
        for (int p = 0; p < partitions; p++)
                heartbeat(p, true);
        df_log_writer_close(writer);
        df_log_close(log);
        return 0;
}
