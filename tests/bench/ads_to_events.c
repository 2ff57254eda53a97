/* ads_to_events.c - the peers' ads as records of the topic `events`:
 * ads_to_events PARTITIONS PER_RECORD SHIFT_MS
 *
 * A filter for tests/bench/peers. Input: u32 length and an ad, in the order of time. Output: u32
 * partition, u32 length and a record (host byte order). Partitions are E3's. SHIFT_MS moves all
 * times; an event is received at the greatest event time so far, so that T2 and T3 pass it.
 * Exit code: 0; 1 for damaged input or output that cannot be written.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/wire.h"

#define AD_BYTES_MAX 4096
#define PARTITIONS_MAX 1024

struct ad {
        struct df_bytes id, geo;
        uint64_t number[8]; /* varints by field: 2 type, 3 campaign, 4 ad, 5 time, 6 cost, 7 user */
};

struct filter {
        uint32_t partitions, per_record;
        int64_t shift_ms, newest_ms;
        struct df_buf one, *open;
        uint32_t *count;
        uint64_t *seq;
};

static int fail(const char *what)
{
        (void)fprintf(stderr, "ads_to_events: %s\n", what);
        return 1;
}

static bool varint(const uint8_t **p, const uint8_t *end, uint64_t *ret)
{
        *ret = 0;
        for (int shift = 0; *p < end && shift < 64; shift += 7) {
                uint8_t b = *(*p)++;

                *ret |= (uint64_t)(b & 127) << shift;
                if (b < 128)
                        return true;
        }
        return false;
}

static bool decode(const uint8_t *p, size_t len, struct ad *ret)
{
        const uint8_t *end = p + len;
        uint64_t tag, v;

        *ret = (struct ad){0};
        while (p < end) {
                if (!varint(&p, end, &tag) || !varint(&p, end, &v))
                        return false;
                if (tag == (1 << 3 | 2) || tag == (8 << 3 | 2)) {
                        if (v > (uint64_t)(end - p))
                                return false;
                        *(tag >> 3 == 1 ? &ret->id : &ret->geo) = df_bytes(p, v);
                        p += v;
                } else if (tag >> 3 < 8 && (tag & 7) == 0) {
                        ret->number[tag >> 3] = v;
                } else {
                        return false;
                }
        }
        return ret->id.len == 16 && ret->geo.len >= 2 && ret->geo.len < 64 && ret->number[2] >= 1 &&
               ret->number[2] <= 3;
}

static int close_record(struct filter *f, uint32_t p)
{
        struct ad_batch header = {
                .start_id = 1, .first_seq = f->seq[p], .schema_version = AD_SCHEMA_VERSION};
        struct df_bytes record;
        uint32_t head[2] = {p, 0};

        if (f->count[p] == 0)
                return 0;
        ad_wire_batch_header(&f->open[p], &header);
        record = df_buf_bytes(&f->open[p]);
        head[1] = (uint32_t)record.len;
        if (fwrite(head, sizeof(head), 1, stdout) != 1 ||
            fwrite(record.data, record.len, 1, stdout) != 1)
                return fail("cannot write a record");
        f->seq[p] += f->count[p];
        f->count[p] = 0;
        df_buf_clear(&f->open[p]);
        return 0;
}

static struct df_bytes text(char *to, size_t size, uint64_t v)
{
        return df_bytes(to, (size_t)snprintf(to, size, "%" PRIu64, v));
}

/* The peers' region string travels as an attribute: their records carry it, and so do ours. */
static struct df_bytes attribute(uint8_t *to, struct df_bytes geo)
{
        uint8_t len = (uint8_t)geo.len;
        const uint8_t head[] = {
                18 * 8 % 128 + 2 + 128, 1, (uint8_t)(len + 7), 0x0a, 3, 'g', 'e', 'o', 0x12, len};

        memcpy(to, head, sizeof(head));
        memcpy(to + sizeof(head), geo.data, len);
        return df_bytes(to, sizeof(head) + len);
}

static int convert(struct filter *f, const struct ad *ad)
{
        static const uint32_t types[] = {0, AD_CLICK, AD_IMPRESSION, AD_CONVERSION};
        char id[33], campaign[24], number[24], user[24];
        uint8_t geo[80];
        struct ad_event ev = {
                .tenant_id = df_bytes_str("default"),
                .source = df_bytes_str("http"),
                .type = types[ad->number[2]],
                .event_ms = (int64_t)ad->number[5] + f->shift_ms,
                .flags = AD_EV_HAS_COST,
                .cost_nanos = (int64_t)ad->number[6] * 1000,
                .currency = df_bytes_str("USD"),
                .schema_version = AD_SCHEMA_VERSION,
        };
        uint32_t p;

        if (ev.event_ms > f->newest_ms)
                f->newest_ms = ev.event_ms;
        ev.receive_ms = f->newest_ms;
        for (size_t i = 0; i < 16; i++)
                (void)snprintf(id + 2 * i, 3, "%02x", ((const uint8_t *)ad->id.data)[i]);
        ev.event_id = df_bytes(id, 32);
        ev.dims[AD_DIM_ADVERTISER] = df_bytes_str("acme");
        ev.dims[AD_DIM_CAMPAIGN] = text(campaign, sizeof(campaign), ad->number[3]);
        /* Carried, not counted by: the others' windows are by campaign alone. (The country is the
         * beginning of geo.) */
        ev.click_id = text(number, sizeof(number), ad->number[4]);
        ev.user_id = text(user, sizeof(user), ad->number[7]);
        ev.attributes = attribute(geo, ad->geo);
        ev.fingerprint = ad_event_fingerprint(&ev);
        p = ad_event_partition(ad_event_key(ev.tenant_id, ev.event_id), f->partitions);
        df_buf_clear(&f->one);
        ad_wire_event(&f->one, &ev);
        ad_wire_batch_entry(&f->open[p], df_buf_bytes(&f->one));
        return ++f->count[p] >= f->per_record ? close_record(f, p) : 0;
}

static int run(struct filter *f)
{
        uint8_t bytes[AD_BYTES_MAX];
        uint32_t len;
        struct ad ad;
        int rc = 0;

        while (rc == 0 && fread(&len, sizeof(len), 1, stdin) == 1) {
                if (len > sizeof(bytes) || fread(bytes, 1, len, stdin) != len ||
                    !decode(bytes, len, &ad))
                        return fail("an ad cannot be decoded");
                rc = convert(f, &ad);
        }
        for (uint32_t p = 0; rc == 0 && p < f->partitions; p++)
                rc = close_record(f, p);
        return rc == 0 && (ferror(stdin) || fflush(stdout) != 0) ? fail("cannot read or write")
                                                                 : rc;
}

int main(int argc, char **argv)
{
        struct filter f = {0};
        int rc;

        if (argc != 4)
                return fail("usage: ads_to_events PARTITIONS PER_RECORD SHIFT_MS");
        f.partitions = (uint32_t)strtoul(argv[1], NULL, 10);
        f.per_record = (uint32_t)strtoul(argv[2], NULL, 10);
        f.shift_ms = strtoll(argv[3], NULL, 10);
        if (f.partitions < 1 || f.partitions > PARTITIONS_MAX || f.per_record < 1 ||
            f.per_record > AD_RECORD_EVENTS_MAX)
                return fail("PARTITIONS or PER_RECORD is out of range");
        f.open = calloc(f.partitions, sizeof(*f.open));
        f.count = calloc(f.partitions, sizeof(*f.count));
        f.seq = calloc(f.partitions, sizeof(*f.seq));
        rc = f.open && f.count && f.seq ? run(&f) : fail("no memory");
        for (uint32_t p = 0; f.open && p < f.partitions; p++)
                df_buf_release(&f.open[p]);
        df_buf_release(&f.one);
        free(f.open);
        free(f.count);
        free(f.seq);
        return rc;
}
