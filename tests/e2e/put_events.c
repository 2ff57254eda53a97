/* put_events.c - events as no ingest would let them pass, into an embedded log, for e2e tests.
 *
 *   put_events DIR PARTITIONS < LINES
 *
 * A line is, between tabs: append_ms, id, type (1 to 3), event_ms, receive_ms, campaign, cost in
 * nanos, user id sealed (hexadecimal, or -), fingerprint (hexadecimal; - = what it should be). An
 * id of - is a heartbeat to every partition. Each event is a record of its own; prints its
 * partition and fingerprint.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "df/filelog.h"
#include "proto/wire.h"

#define START_ID 78
#define PARTITIONS_MAX 16

static int64_t now_ms;
static uint32_t partitions;
static uint64_t seq[PARTITIONS_MAX];

/* In the place of the C library's: a test's log need not survive a power cut, and a record in each
 * append would wait for the disk thousands of times. */
int fdatasync(int fd)
{
        (void)fd;
        return 0;
}

static int64_t clock_ms(void *arg)
{
        (void)arg;
        return now_ms;
}

static void die(const char *why)
{
        fprintf(stderr, "put_events: %s\n", why);
        exit(1);
}

static void append(struct df_log_writer *w, uint32_t partition, struct df_buf *record)
{
        struct df_append a = {.partition = partition, .value = df_buf_bytes(record)};
        struct df_error err = {0};

        if (df_log_append(w, &a, 1, &err) < 0)
                die(err.text);
        df_buf_release(record);
}

static void heartbeats(struct df_log_writer *w, uint64_t total)
{
        for (uint32_t p = 0; p < partitions; p++) {
                struct ad_batch b = {.start_id = START_ID,
                                     .first_seq = seq[p],
                                     .schema_version = AD_SCHEMA_VERSION,
                                     .has_heartbeat = true};
                struct df_buf record = {0};

                b.heartbeat = (struct ad_heartbeat){.receive_ms = now_ms,
                                                    .received = total,
                                                    .accepted = total,
                                                    .partition_accepted = seq[p],
                                                    .closing = true};
                ad_wire_batch_header(&record, &b);
                append(w, p, &record);
        }
}

static size_t from_hex(const char *hex, uint8_t *ret)
{
        size_t n = 0;
        unsigned v;

        for (; sscanf(hex + 2 * n, "%2x", &v) == 1; n++)
                ret[n] = (uint8_t)v;
        return n;
}

static void put(struct df_log_writer *w, struct ad_event *ev, const char *sealed,
                const char *fingerprint)
{
        struct ad_batch b = {.start_id = START_ID, .schema_version = AD_SCHEMA_VERSION};
        struct df_buf record = {0}, one = {0};
        uint8_t user[AD_SEALED_ID_MAX];
        uint32_t p = ad_event_partition(ad_event_key(ev->tenant_id, ev->event_id), partitions);

        if (*sealed != '-') {
                ev->user_id = df_bytes(user, from_hex(sealed, user));
                ev->flags |= AD_EV_USER_SEALED;
        }
        ev->fingerprint =
                *fingerprint == '-' ? ad_event_fingerprint(ev) : strtoull(fingerprint, NULL, 16);
        b.first_seq = seq[p]++;
        ad_wire_event(&one, ev);
        ad_wire_batch_entry(&record, df_buf_bytes(&one));
        ad_wire_batch_header(&record, &b);
        append(w, p, &record);
        printf("%u\t%016" PRIx64 "\n", p, ev->fingerprint);
        df_buf_release(&one);
}

static int take_line(struct df_log_writer *w, char *line, uint64_t *total)
{
        char id[200], campaign[80], sealed[200], fingerprint[20];
        struct ad_event ev = {.tenant_id = df_bytes_str("default"),
                              .currency = df_bytes_str("EUR"),
                              .source = df_bytes_str("http"),
                              .flags = AD_EV_HAS_COST,
                              .schema_version = AD_SCHEMA_VERSION};

        if (sscanf(line,
                   "%" SCNd64 "\t%199[^\t]\t%u\t%" SCNd64 "\t%" SCNd64 "\t%79[^\t]\t%" SCNd64
                   "\t%199[^\t]\t%19s",
                   &now_ms, id, &ev.type, &ev.event_ms, &ev.receive_ms, campaign, &ev.cost_nanos,
                   sealed, fingerprint) != 9)
                return -1;
        if (strcmp(id, "-") == 0) {
                heartbeats(w, *total);
                return 0;
        }
        ev.event_id = df_bytes_str(id);
        ev.dims[AD_DIM_ADVERTISER] = df_bytes_str("acme");
        ev.dims[AD_DIM_CAMPAIGN] = df_bytes_str(campaign);
        put(w, &ev, sealed, fingerprint);
        ++*total;
        return 0;
}

int main(int argc, char **argv)
{
        struct df_filelog_options o = {.clock_ms = clock_ms};
        struct df_log_writer *w = NULL;
        struct df_error err = {0};
        struct df_log *log;
        uint64_t total = 0;
        char line[1000];

        if (argc != 3)
                die("put_events DIR PARTITIONS");
        partitions = (uint32_t)strtoul(argv[2], NULL, 10);
        now_ms = 1;
        if (df_filelog_open(argv[1], &o, &log, &err) < 0 ||
            df_log_topic_create(log, "events", partitions, &err) < 0 ||
            df_log_writer_open(log, "events", &w, &err) < 0)
                die(err.text);
        while (fgets(line, sizeof(line), stdin))
                if (take_line(w, line, &total) < 0)
                        die(line);
        df_log_writer_close(w);
        df_log_close(log);
        return 0;
}
