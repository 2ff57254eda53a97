/* bench_data.c - seeded events for benchmarks, packed as ingest packs them. */
#include <math.h>
#include <stdlib.h>

#include "jobs/adtally/bench.h"

#define RECENT 10000 /* ids that a duplicate is drawn from */
#define DUPLICATE_PERMILLE 50
#define DELAY_MS 5000 /* between event and receipt, at most */
#define NAME_MAX_BYTES 16
#define ID_BYTES 16
#define START_ID 0x62656e6368ULL
#define APPENDS 8192            /* records a group commit */
#define APPEND_BYTES (4u << 20) /* about so many */

struct ids {
        char id[ID_BYTES];
        uint32_t campaign, ad, country, type;
        int64_t event_ms;
};

struct maker {
        const struct ad_bench_input *in;
        double *zipf; /* cumulative */
        struct ids *recent;
        struct df_buf *open; /* one record a partition */
        uint32_t *count;
        uint64_t *seq;
        struct df_buf one;
        uint64_t state, duplicates;
};

static uint64_t next(struct maker *m)
{
        m->state ^= m->state << 13;
        m->state ^= m->state >> 7;
        m->state ^= m->state << 17;
        return m->state;
}

static void fill_zipf(double *cumulative, uint32_t count)
{
        double sum = 0;

        for (uint32_t i = 0; i < count; i++)
                cumulative[i] = sum += 1.0 / (i + 1);
        for (uint32_t i = 0; i < count; i++)
                cumulative[i] /= sum;
}

static uint32_t pick_campaign(struct maker *m)
{
        double x = (double)(next(m) >> 11) / 9007199254740992.0;
        uint32_t low = 0, high = m->in->campaigns - 1;

        while (low < high) {
                uint32_t mid = (low + high) / 2;

                if (m->zipf[mid] < x)
                        low = mid + 1;
                else
                        high = mid;
        }
        return low;
}

/* By hand: millions of events are made before anything is measured. */
static void put_hex(char *ret, uint64_t v)
{
        for (int i = ID_BYTES - 1; i >= 0; i--, v >>= 4)
                ret[i] = "0123456789abcdef"[v & 15];
}

static struct df_bytes put_name(char *ret, char letter, uint32_t v)
{
        char digits[NAME_MAX_BYTES];
        size_t n = 0, len = 0;

        do
                digits[n++] = (char)('0' + v % 10);
        while ((v /= 10) > 0);
        ret[len++] = letter;
        while (n > 0)
                ret[len++] = digits[--n];
        return df_bytes(ret, len);
}

static void pick(struct maker *m, uint64_t n, int64_t now_ms, struct ids *ret)
{
        struct ids *slot = &m->recent[n % RECENT];

        if (n > RECENT && next(m) % 1000 < DUPLICATE_PERMILLE) {
                *ret = m->recent[next(m) % RECENT];
                m->duplicates++;
                *slot = *ret;
                return;
        }
        put_hex(ret->id, n * 0x9e3779b97f4a7c15ULL + m->in->seed);
        ret->campaign = pick_campaign(m);
        ret->ad = (uint32_t)(next(m) % m->in->ads);
        ret->country = (uint32_t)(next(m) % m->in->countries);
        ret->type = next(m) % 10 == 0 ? AD_CLICK : AD_IMPRESSION;
        ret->event_ms = now_ms - (int64_t)(next(m) % DELAY_MS);
        *slot = *ret;
}

static int close_record(struct maker *m, uint32_t p, struct df_error *err)
{
        struct ad_batch header = {
                .start_id = START_ID, .first_seq = m->seq[p], .schema_version = AD_SCHEMA_VERSION};
        int rc;

        if (m->count[p] == 0)
                return 0;
        m->seq[p] += m->count[p];
        ad_wire_batch_header(&m->open[p], &header);
        rc = df_buf_check(&m->open[p], err);
        if (rc == 0)
                rc = m->in->emit(m->in->arg, p, df_buf_bytes(&m->open[p]), err);
        df_buf_clear(&m->open[p]);
        m->count[p] = 0;
        return rc;
}

static int add(struct maker *m, const struct ids *i, int64_t now_ms, struct df_error *err)
{
        char campaign[NAME_MAX_BYTES], ad[NAME_MAX_BYTES];
        char country[2] = {(char)('A' + i->country % 26),
                           (char)('A' + (23 + i->country / 26) % 26)};
        struct ad_event ev = {
                .event_id = df_bytes(i->id, ID_BYTES),
                .tenant_id = df_bytes_str("default"),
                .source = df_bytes_str("http"),
                .type = i->type,
                .event_ms = i->event_ms,
                .receive_ms = now_ms,
                .flags = AD_EV_HAS_COST,
                .cost_nanos = 1500000,
                .currency = df_bytes_str("EUR"),
                .schema_version = AD_SCHEMA_VERSION,
        };
        uint32_t p;

        ev.dims[AD_DIM_ADVERTISER] = df_bytes_str("acme");
        ev.dims[AD_DIM_CAMPAIGN] = put_name(campaign, 'c', i->campaign);
        ev.dims[AD_DIM_AD] = put_name(ad, 'a', i->ad);
        ev.dims[AD_DIM_COUNTRY] = df_bytes(country, sizeof(country));
        ev.fingerprint = ad_event_fingerprint(&ev);
        p = ad_event_partition(ad_event_key(ev.tenant_id, ev.event_id), m->in->partitions);
        df_buf_clear(&m->one);
        ad_wire_event(&m->one, &ev);
        ad_wire_batch_entry(&m->open[p], df_buf_bytes(&m->one));
        return ++m->count[p] >= m->in->per_record ? close_record(m, p, err) : 0;
}

int ad_bench_make(const struct ad_bench_input *in, uint64_t *ret_duplicates, struct df_error *err)
{
        struct maker *m = calloc(1, sizeof(*m));
        struct df_progress progress;
        int rc = 0;

        if (m) {
                m->recent = calloc(RECENT, sizeof(*m->recent));
                m->open = calloc(in->partitions, sizeof(*m->open));
                m->count = calloc(in->partitions, sizeof(*m->count));
                m->seq = calloc(in->partitions, sizeof(*m->seq));
                m->zipf = calloc(in->campaigns, sizeof(*m->zipf));
        }
        if (!m || !m->recent || !m->open || !m->count || !m->seq || !m->zipf) {
                rc = df_fail(err, DF_ENOMEM, "benchmark input");
                goto out;
        }
        m->in = in;
        m->state = in->seed * 0x9e3779b97f4a7c15ULL + 1;
        fill_zipf(m->zipf, in->campaigns);
        df_progress_start(&progress, "make input", "events", in->events, in->quiet);
        for (uint64_t n = 0; rc == 0 && n < in->events; n++) {
                int64_t now_ms = in->start_ms + (int64_t)(n * 1000 / in->per_second);
                struct ids i;

                pick(m, n, now_ms, &i);
                rc = add(m, &i, now_ms, err);
                if (n % 4096 != 0)
                        continue;
                df_progress_show(&progress, n);
                if (rc == 0)
                        rc = ad_bench_stopped(err);
        }
        for (uint32_t p = 0; rc == 0 && p < in->partitions; p++)
                rc = close_record(m, p, err);
        df_progress_end(&progress, in->events);
        *ret_duplicates = m->duplicates;
out:
        for (uint32_t p = 0; m && m->open && p < in->partitions; p++)
                df_buf_release(&m->open[p]);
        if (m) {
                df_buf_release(&m->one);
                free(m->recent);
                free(m->open);
                free(m->count);
                free(m->seq);
                free(m->zipf);
        }
        free(m);
        return rc;
}

void ad_bench_input_of(const struct ad_bench *b, struct ad_bench_input *ret)
{
        *ret = (struct ad_bench_input){
                .events = b->events,
                .seed = b->seed,
                .campaigns = (uint32_t)df_config_integer(b->config, "campaigns"),
                .ads = (uint32_t)df_config_integer(b->config, "ads"),
                .countries = (uint32_t)df_config_integer(b->config, "countries"),
                .per_second = (uint64_t)df_config_integer(b->config, "event-rate"),
                .quiet = b->quiet,
        };
        /* Received in the past, so that none of it is ahead of the log's clock (T2). */
        ret->start_ms = df_wall_ms() - (int64_t)(b->events * 1000 / ret->per_second) - 1000;
        ret->start_ms -= ret->start_ms % 60000; /* else the minute of the run decides on the rows */
}

/* ---- into the log ---- */

struct filler {
        struct df_log_writer *writer;
        struct df_buf bytes;
        size_t ends[APPENDS];
        struct df_append items[APPENDS];
        size_t count;
        uint64_t all_bytes, all_records;
};

static int flush(struct filler *f, struct df_error *err)
{
        size_t at = 0;
        int rc = df_buf_check(&f->bytes, err);

        for (size_t i = 0; i < f->count; at = f->ends[i++])
                f->items[i].value = df_bytes(f->bytes.data + at, f->ends[i] - at);
        if (rc == 0 && f->count)
                rc = df_log_append(f->writer, f->items, f->count, err);
        f->all_records += f->count;
        f->all_bytes += f->bytes.len;
        f->count = 0;
        df_buf_clear(&f->bytes);
        return rc;
}

static int fill(void *arg, uint32_t partition, struct df_bytes record, struct df_error *err)
{
        struct filler *f = arg;

        df_buf_append(&f->bytes, record.data, record.len);
        f->ends[f->count] = f->bytes.len;
        f->items[f->count++] = (struct df_append){.partition = partition};
        return f->count == APPENDS || f->bytes.len >= APPEND_BYTES ? flush(f, err) : 0;
}

int ad_bench_fill_log(struct ad_bench *b, struct df_log *log, uint32_t partitions,
                      uint32_t per_record, struct df_error *err)
{
        struct filler *f = calloc(1, sizeof(*f));
        struct ad_bench_input in;
        uint64_t duplicates = 0;
        int rc = f ? ad_create_topics(log, partitions, err) : df_fail(err, DF_ENOMEM, "input");

        if (rc == 0)
                rc = df_log_writer_open(log, AD_TOPIC_EVENTS, &f->writer, err);
        ad_bench_input_of(b, &in);
        in.per_record = per_record;
        in.partitions = partitions;
        in.emit = fill;
        in.arg = f;
        if (rc == 0)
                rc = ad_bench_make(&in, &duplicates, err);
        if (rc == 0)
                rc = flush(f, err);
        if (f) {
                df_log_writer_close(f->writer);
                df_buf_release(&f->bytes);
        }
        if (rc == 0) {
                b->made_duplicates = duplicates;
                b->made_records = f->all_records;
                b->made_bytes = f->all_bytes;
        }
        free(f);
        return rc;
}
