/* manifest_read.c - a manifest from its text (manifest.h). The keys are wanted in their order;
 * whatever else the text has shows when what was read is written again. */
#include "jobs/common/base64.h"
#include "jobs/common/times.h"
#include "jobs/ingest/json.h"
#include "jobs/runs/manifest.h"
#include "proto/bill.h"

struct reading {
        const struct ad_json_node *nodes;
        size_t count;
        uint32_t at;
        struct df_arena *arena;
        struct df_error *err;
        int rc; /* the first failure; everything after it does nothing */
};

static void fail(struct reading *r, const char *key, const char *what)
{
        if (r->rc == 0)
                r->rc = df_fail(r->err, DF_EPARSE, "the manifest: \"%s\" %s", key, what);
}

/* The next value, which must have this key (in an array: none) and kind. */
static const struct ad_json_node *next(struct reading *r, const char *key, enum ad_json_kind kind)
{
        static const struct ad_json_node none = {0};
        const struct ad_json_node *n = &r->nodes[r->at];

        if (r->rc < 0)
                return &none;
        if (r->at >= r->count || n->kind != kind || !df_bytes_eq(n->key, df_bytes_str(key))) {
                fail(r, key, "is missing, out of order or of another kind");
                return &none;
        }
        r->at++;
        return n;
}

static struct df_bytes get_bytes(struct reading *r, const char *key, size_t max)
{
        struct df_bytes text = next(r, key, AD_JSON_STRING)->text, copy;

        if (text.len > max)
                fail(r, key, "is too long");
        if (r->rc < 0)
                return (struct df_bytes){0};
        copy = df_arena_copy(r->arena, text);
        if (text.len && !copy.data && r->rc == 0)
                r->rc = df_fail(r->err, DF_ENOMEM, "manifest");
        return copy;
}

static uint64_t get_int(struct reading *r, const char *key, uint64_t max)
{
        bool big = r->rc == 0 && r->at < r->count && r->nodes[r->at].kind == AD_JSON_UINT;
        const struct ad_json_node *n = next(r, key, big ? AD_JSON_UINT : AD_JSON_INT);
        uint64_t v = big ? n->u : (uint64_t)n->i;

        if (r->rc == 0 && ((!big && n->i < 0) || v > max))
                fail(r, key, "is out of range");
        return r->rc < 0 ? 0 : v;
}

static void get_hash(struct reading *r, const char *key, uint8_t ret[DF_SHA256_SIZE])
{
        struct df_bytes text = next(r, key, AD_JSON_STRING)->text;
        static const char hex[] = "0123456789abcdef";

        if (r->rc == 0 && text.len != 2 * (size_t)DF_SHA256_SIZE)
                fail(r, key, "is no SHA-256");
        for (size_t i = 0; r->rc == 0 && i < text.len; i++) {
                const char *at = text.data[i] ? strchr(hex, text.data[i]) : NULL;

                if (!at)
                        fail(r, key, "is no SHA-256");
                else
                        ret[i / 2] = (uint8_t)(ret[i / 2] << 4 | (at - hex));
        }
}

static int64_t get_time(struct reading *r, const char *key)
{
        struct df_bytes text = next(r, key, AD_JSON_STRING)->text;
        int64_t ms = 0;

        if (r->rc == 0 && !ad_time_parse(text, &ms))
                fail(r, key, "is no time");
        return ms;
}

static uint64_t get_quarter(struct reading *r, const char *key)
{
        int64_t ms = get_time(r, key);

        if (r->rc == 0 && ms % AD_QUARTER_MS != 0)
                fail(r, key, "is no full quarter hour");
        return (uint64_t)ms / AD_QUARTER_MS;
}

/* Room for the elements of the array that follows, and how many they are. */
static void *get_array(struct reading *r, const char *key, size_t size, size_t *ret_count)
{
        const struct ad_json_node *n = next(r, key, AD_JSON_ARRAY);
        void *room;

        *ret_count = 0;
        if (r->rc < 0)
                return NULL;
        for (uint32_t i = r->at; i < n->next; i = r->nodes[i].next)
                (*ret_count)++;
        room = df_arena_zalloc(r->arena, *ret_count ? *ret_count * size : 1);
        if (!room) {
                r->rc = df_fail(r->err, DF_ENOMEM, "manifest");
                *ret_count = 0;
        }
        return room;
}

static void read_head(struct reading *r, struct ad_manifest *m)
{
        uint64_t version = get_int(r, "adtally_period_manifest", UINT32_MAX);

        if (r->rc == 0 && version != AD_MANIFEST_VERSION)
                r->rc = df_fail(r->err, DF_ESCHEMA,
                                "a manifest of version %u; this is for version %d",
                                (unsigned)version, AD_MANIFEST_VERSION);
        m->account.tenant_id = get_bytes(r, "tenant_id", AD_ID_MAX);
        m->account.advertiser_id = get_bytes(r, "advertiser_id", AD_ID_MAX);
        m->period = get_bytes(r, "period", AD_PERIOD_MAX);
        m->zone = get_bytes(r, "zone", AD_MANIFEST_TEXT_MAX);
        m->zone_version = get_bytes(r, "zone_version", AD_MANIFEST_TEXT_MAX);
        m->from_quarter = get_quarter(r, "from");
        m->to_quarter = get_quarter(r, "to");
        m->at_ms = get_time(r, "closed_at");
        m->asked_by = get_bytes(r, "asked_by", AD_COMMAND_ID_MAX);
        m->run = get_bytes(r, "run", AD_RUN_ID_MAX);
        m->chain = get_bytes(r, "chain", AD_RUN_ID_MAX);
        m->version = get_bytes(r, "version", AD_MANIFEST_TEXT_MAX);
}

static void read_rules(struct reading *r, struct ad_manifest *m)
{
        struct ad_manifest_price *prices;

        (void)next(r, "settings", AD_JSON_OBJECT);
        for (int i = 0; i < AD_MANIFEST_SETTINGS; i++)
                m->settings[i] = get_bytes(r, ad_manifest_settings[i], AD_MANIFEST_TEXT_MAX);
        m->groupings = (uint32_t)get_int(r, "groupings", UINT32_MAX);
        (void)next(r, "prices", AD_JSON_OBJECT);
        m->price_version = (uint32_t)get_int(r, "version", UINT32_MAX);
        m->prices = prices = get_array(r, "tables", sizeof(*prices), &m->price_count);
        for (size_t i = 0; r->rc == 0 && i < m->price_count; i++) {
                (void)next(r, "", AD_JSON_OBJECT);
                prices[i].version = (uint32_t)get_int(r, "version", UINT32_MAX);
                get_hash(r, "sha256", prices[i].sha256);
        }
}

static void read_corrections(struct reading *r, struct ad_manifest *m)
{
        struct ad_manifest_command *commands;
        struct df_buf bytes = {0};

        (void)next(r, "corrections", AD_JSON_OBJECT);
        m->corrections_to = get_int(r, "to", INT64_MAX);
        get_hash(r, "sha256", m->corrections);
        m->commands = commands = get_array(r, "commands", sizeof(*commands), &m->command_count);
        for (size_t i = 0; r->rc == 0 && i < m->command_count; i++) {
                struct df_bytes text;

                (void)next(r, "", AD_JSON_OBJECT);
                commands[i].offset = get_int(r, "offset", INT64_MAX);
                text = next(r, "bytes", AD_JSON_STRING)->text;
                df_buf_clear(&bytes);
                if (r->rc == 0 && (!ad_base64_get(text, &bytes) || bytes.len == 0))
                        fail(r, "bytes", "is not base64");
                if (r->rc == 0)
                        commands[i].bytes = df_arena_copy(r->arena, df_buf_bytes(&bytes));
                if (r->rc == 0 && !commands[i].bytes.data)
                        r->rc = df_fail(r->err, DF_ENOMEM, "manifest");
        }
        df_buf_release(&bytes);
}

static void read_part(struct reading *r, uint32_t partition, struct ad_manifest_part *p)
{
        struct ad_manifest_segment *listed;
        size_t count;

        (void)next(r, "", AD_JSON_OBJECT);
        if (get_int(r, "partition", UINT32_MAX) != partition)
                fail(r, "partition", "is out of order");
        p->from = get_int(r, "from", INT64_MAX);
        p->to = get_int(r, "to", INT64_MAX);
        p->archived_to = get_int(r, "archived_to", INT64_MAX);
        p->segments = (uint32_t)get_int(r, "segments", DF_ARCHIVE_ENTRIES_MAX);
        get_hash(r, "chain", p->chain);
        listed = get_array(r, "listed", sizeof(*listed), &count);
        for (size_t i = 0; r->rc == 0 && i < count; i++) {
                (void)next(r, "", AD_JSON_OBJECT);
                listed[i].from = get_int(r, "from", INT64_MAX);
                listed[i].to = get_int(r, "to", INT64_MAX);
                get_hash(r, "sha256", listed[i].sha256);
        }
        if (r->rc == 0 && count != 0 && count != p->segments)
                fail(r, "listed", "is not as long as \"segments\" says");
        p->listed = count ? listed : NULL;
        if (r->rc == 0 && (p->from > p->to || p->to > p->archived_to))
                fail(r, "archived_to", "is behind \"to\", or \"to\" behind \"from\"");
}

static void read_source(struct reading *r, struct ad_manifest_source *s)
{
        struct ad_manifest_part *parts;
        struct df_bytes hex;
        size_t count;

        (void)next(r, "", AD_JSON_OBJECT);
        s->topic = get_bytes(r, "topic", DF_TOPIC_NAME_MAX);
        hex = get_bytes(r, "generation", 16);
        for (size_t i = 0; i < hex.len; i++) { /* another form than ours shows when it is written */
                uint8_t c = hex.data[i];

                s->generation = s->generation << 4 | (uint64_t)(c <= '9' ? c - '0' : c - 'a' + 10);
        }
        s->parts = parts = get_array(r, "partitions", sizeof(*parts), &count);
        if (r->rc == 0 && (count == 0 || count > DF_PARTITIONS_MAX))
                fail(r, "partitions", "is not of 1 to 256");
        s->part_count = (uint32_t)count;
        for (uint32_t p = 0; r->rc == 0 && p < s->part_count; p++)
                read_part(r, p, &parts[p]);
}

static void read_sources(struct reading *r, struct ad_manifest *m)
{
        struct ad_manifest_source *sources;

        m->sources = sources = get_array(r, "sources", sizeof(*sources), &m->source_count);
        if (r->rc == 0 && (m->source_count == 0 || m->source_count > AD_MANIFEST_SOURCES_MAX))
                fail(r, "sources", "is not of 1 to 1024");
        for (size_t i = 0; r->rc == 0 && i < m->source_count; i++)
                read_source(r, &sources[i]);
}

static df_nanos get_nanos(struct reading *r, const char *key)
{
        struct df_bytes text = next(r, key, AD_JSON_STRING)->text;
        bool minus = text.len > 0 && text.data[0] == '-';
        df_nanos v = 0;

        if (r->rc == 0 && text.len == minus)
                fail(r, key, "is no number");
        for (size_t i = minus; r->rc == 0 && i < text.len; i++) {
                int digit = text.data[i] - '0';

                if (digit < 0 || digit > 9 || __builtin_mul_overflow(v, (df_nanos)10, &v) ||
                    __builtin_add_overflow(v, (df_nanos)(minus ? -digit : digit), &v))
                        fail(r, key, "is no number of 128 bits");
        }
        return v;
}

static void read_result(struct reading *r, struct ad_manifest *m)
{
        struct ad_currency_cell *totals;

        (void)next(r, "rows", AD_JSON_OBJECT);
        m->rows = get_int(r, "count", UINT64_MAX);
        get_hash(r, "sha256", m->rows_sha256);
        m->totals = totals = get_array(r, "totals", sizeof(*totals), &m->total_count);
        for (size_t i = 0; r->rc == 0 && i < m->total_count; i++) {
                struct ad_cell *c = &totals[i].billed;

                (void)next(r, "", AD_JSON_OBJECT);
                totals[i].currency = get_bytes(r, "currency", 3);
                c->impressions = get_int(r, "impressions", UINT64_MAX);
                c->clicks = get_int(r, "clicks", UINT64_MAX);
                c->conversions = get_int(r, "conversions", UINT64_MAX);
                c->spend = get_nanos(r, "spend_nanos");
                c->payout = get_nanos(r, "payout_nanos");
                c->value = get_nanos(r, "conversion_value_nanos");
                c->invalid[0] = get_int(r, "invalid_impressions", UINT64_MAX);
                c->invalid[1] = get_int(r, "invalid_clicks", UINT64_MAX);
                c->invalid[2] = get_int(r, "invalid_conversions", UINT64_MAX);
        }
}

/* The canonical form is what writing gives. */
static int check_form(struct df_bytes text, const struct ad_manifest *m, struct df_error *err)
{
        struct df_buf again = {0};
        int rc = ad_manifest_write(m, &again, err);

        if (rc == 0 && !df_bytes_eq(df_buf_bytes(&again), text))
                rc = df_fail(err, DF_EPARSE,
                             "the manifest is not in its canonical form: it has something else "
                             "than what a close writes");
        df_buf_release(&again);
        return rc;
}

int ad_manifest_read(struct df_bytes text, struct df_arena *arena, struct ad_manifest *ret,
                     struct df_error *err)
{
        struct reading r = {.arena = arena, .err = err};
        struct ad_json_parser *p = NULL;
        const char *message = "";
        int parsed;

        *ret = (struct ad_manifest){0};
        if (text.len > AD_MANIFEST_MAX)
                return df_fail(err, DF_ELIMIT, "a manifest of %zu bytes; at most %u are read",
                               text.len, AD_MANIFEST_MAX);
        p = ad_json_create();
        if (!p)
                return df_fail(err, DF_ENOMEM, "manifest");
        parsed = ad_json_parse(p, text, &r.nodes, &r.count, &message);
        if (parsed != AD_JSON_OK)
                r.rc = df_fail(err, DF_EPARSE, "the manifest is not JSON: %.200s", message);
        (void)next(&r, "", AD_JSON_OBJECT);
        read_head(&r, ret);
        read_rules(&r, ret);
        read_corrections(&r, ret);
        read_sources(&r, ret);
        read_result(&r, ret);
        ad_json_destroy(p);
        return r.rc < 0 ? r.rc : check_form(text, ret, err);
}
