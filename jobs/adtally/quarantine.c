/* quarantine.c - `adtally quarantine`: events that were stored and then refused (docs/REASONS.md).
 * list and show read the log's files and need nothing that runs; release asks a running ingest. */
#include "jobs/adtally/quarantine.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "df/archive.h"
#include "df/sha256.h"
#include "df/trace.h"
#include "jobs/common/archive.h"
#include "jobs/common/json.h"
#include "jobs/common/times.h"

#define LIMIT_MAX 1000000

static const char usage[] =
        "adtally quarantine: events that were stored and then refused\n"
        "Usage: adtally quarantine list [--from TIME] [--to TIME] [--code CODE] [--tenant T] ...\n"
        "       adtally quarantine show PARTITION/OFFSET[/INDEX] | --id EVENT_ID\n"
        "       adtally quarantine release PARTITION/OFFSET[/INDEX] | --id EVENT_ID |\n"
        "                                  --all --code CODE [--from TIME] [--to TIME]  "
        "[--dry-run]\n"
        "\n"
        "Prints lines of JSON. `list` ends with the counts by code; `show` adds the event, why it "
        "is "
        "there and\n"
        "what to do. `release` sends the same event to ingest again, after what was wrong is "
        "mended: "
        "the same\n"
        "event_id, so a second release is a duplicate. What dedupe has recorded (conflict, "
        "price_missing, ...)\n"
        "cannot be released, and is refused with what to do instead. An API key of class admin is "
        "needed where\n"
        "there is a keys file; its tenant is the one whose events it may release.\n";
static const struct df_setting own[] = {
        {"from", DF_TEXT, NULL, .arg = "TIME", .help = "appended then or later (RFC 3339)"},
        {"to", DF_TEXT, NULL, .arg = "TIME", .help = "appended before it"},
        {"code", DF_TEXT, NULL, .arg = "CODE", .help = "why it is there, as future_event"},
        {"tenant", DF_TEXT, NULL, .arg = "T", .help = "of the event"},
        {"id", DF_TEXT, NULL, .arg = "EVENT_ID", .help = "all entries of this event"},
        {"partition", DF_INTEGER, "-1", -1, DF_PARTITIONS_MAX - 1, .help = "-1: all"},
        {"limit", DF_INTEGER, "1000", 0, LIMIT_MAX, .help = "entries that list prints"},
        {"released", DF_BOOL, "true",
         .help = "say which were released; reads `events` behind the entries"},
        {"all", DF_BOOL, "false", .help = "release: all that match"},
        {"dry-run", DF_BOOL, "false", .help = "release: say what would be sent"},
        {"url", DF_TEXT, NULL, .arg = "URL", .help = "of the product port (default: --listen)"},
        {"key", DF_TEXT, NULL, .arg = "ID.SECRET", .help = "API key", .secret = true},
};
static const char *const shared[] = {"data",      "log",          "archive", "s3-endpoint",
                                     "s3-region", "kafka-prefix", "kafka.*", "billing-horizon",
                                     "listen",    "quiet",        NULL};

/* ---- what is asked for ---- */

static int read_time(const struct df_config *c, const char *name, int64_t otherwise, int64_t *ret,
                     struct df_error *err)
{
        const char *text = df_config_text(c, name);

        *ret = otherwise;
        if (!text || ad_time_parse(df_bytes_str(text), ret))
                return 0;
        return df_fail(err, DF_EINVAL, "--%s %.40s: RFC 3339 is wanted, as 2026-11-24T10:00:00Z",
                       name, text);
}

static int read_code(const struct df_config *c, struct ad_held_filter *f, struct df_error *err)
{
        const char *code = df_config_text(c, "code");

        if (!code)
                return 0;
        f->reason = ad_reason_by_code(code);
        if (f->reason != AD_NONE && f->reason < AD_OUTCOME_MAX &&
            (ad_reason_info(f->reason)->cls == AD_CLASS_QUARANTINED || f->reason == AD_CONFLICT))
                return 0;
        return df_fail(err, DF_EINVAL,
                       "--code %.40s: nothing is in quarantine for that; see docs/REASONS.md, "
                       "outcomes of class quarantined and conflict",
                       code);
}

/* PARTITION/OFFSET[/INDEX] */
static int read_place(const char *text, struct ad_held_filter *f, struct df_error *err)
{
        uint64_t partition, offset, index = 0;
        int used = 0, got = sscanf(text, "%" SCNu64 "/%" SCNu64 "%n/%" SCNu64 "%n", &partition,
                                   &offset, &used, &index, &used);

        if (got < 2 || text[used] || strpbrk(text, " +-\t\n") || partition >= DF_PARTITIONS_MAX ||
            index > UINT32_MAX)
                return df_fail(err, DF_EINVAL,
                               "%.60s: an entry is PARTITION/OFFSET/INDEX, as `list` prints them",
                               text);
        f->partition = (int64_t)partition;
        f->at = true;
        f->offset = offset;
        f->index = got == 3 ? (int64_t)index : -1;
        return 0;
}

static int read_filter(const struct ad_command_line *l, struct ad_held_filter *f,
                       struct df_error *err)
{
        const struct df_config *c = l->config;
        const char *tenant = df_config_text(c, "tenant"), *id = df_config_text(c, "id");
        int rc;

        *f = (struct ad_held_filter){.partition = df_config_integer(c, "partition"), .index = -1};
        rc = read_time(c, "from", INT64_MIN, &f->from_ms, err);
        if (rc == 0)
                rc = read_time(c, "to", INT64_MAX, &f->to_ms, err);
        if (rc == 0 && f->from_ms >= f->to_ms)
                rc = df_fail(err, DF_EINVAL, "--from is not before --to");
        if (rc == 0)
                rc = read_code(c, f, err);
        if (rc == 0 && l->arg_count == 2)
                rc = read_place(l->args[1], f, err);
        f->tenant_id = tenant ? df_bytes_str(tenant) : df_bytes(NULL, 0);
        f->event_id = id ? df_bytes_str(id) : df_bytes(NULL, 0);
        return rc;
}

/* ---- output ---- */

static void put_time(struct ad_json *j, const char *key, int64_t ms)
{
        char text[AD_TIME_TEXT_MAX];

        (void)ad_time_text(ms, text);
        ad_json_put_text(j, key, text);
}

static void put_entry(struct ad_json *j, const struct ad_held *h, bool released)
{
        ad_json_put_int(j, "partition", h->partition);
        ad_json_put_int(j, "offset", h->offset);
        if (h->whole_record)
                ad_json_put_null(j, "index");
        else
                ad_json_put_int(j, "index", h->index);
        if (!h->live)
                ad_json_put_bytes(j, "stream", h->stream);
        put_time(j, "append_time", h->append_ms);
        ad_json_put_text(j, "code", ad_reason_info(h->reason)->code);
        if (!h->whole_record) {
                ad_json_put_bytes(j, "tenant_id", h->tenant_id);
                ad_json_put_bytes(j, "event_id", h->event_id);
        }
        ad_json_put_int(j, "size", h->size);
        ad_json_put_bool(j, "releasable", h->live && ad_quarantine_releasable(h->reason));
        if (!released)
                return;
        ad_json_key(j, "released");
        if (h->released_offset == UINT64_MAX) {
                ad_json_null(j);
                return;
        }
        ad_json_open(j);
        ad_json_put_int(j, "offset", h->released_offset);
        ad_json_put_int(j, "index", h->released_index);
        put_time(j, "receive_time", h->released_ms);
        ad_json_close(j);
}

static int print_json(struct ad_json *j, struct df_buf *b, struct df_error *err)
{
        int rc = ad_json_end(j, b, err);

        if (rc == 0 && (fwrite(b->data, 1, b->len, stdout) != b->len || putchar('\n') == EOF))
                rc = df_fail_errno(err, DF_EIO, "write to standard output");
        df_buf_release(b);
        return rc;
}

static int print_counts(const struct ad_held_list *l, size_t shown, struct df_error *err)
{
        uint64_t counts[AD_OUTCOME_MAX] = {0};
        struct df_buf b = {0};
        struct ad_json *j = ad_json_begin(&b);

        for (size_t i = 0; i < l->count; i++)
                if (l->list[i].selected && l->list[i].reason < AD_OUTCOME_MAX)
                        counts[l->list[i].reason]++;
        ad_json_open(j);
        ad_json_put_int(j, "entries", (__int128)l->selected);
        ad_json_put_int(j, "shown", (__int128)shown);
        ad_json_key(j, "counts");
        ad_json_open(j);
        for (uint32_t i = 0; i < AD_OUTCOME_MAX; i++)
                if (counts[i])
                        ad_json_put_int(j, ad_reason_info(i)->code, counts[i]);
        ad_json_close(j);
        ad_json_close(j);
        return print_json(j, &b, err);
}

/* ---- list, show, release ---- */

struct quarantine {
        const struct df_config *c;
        struct df_log *log, *source;
        struct ad_held_filter filter;
        bool quiet;
};

/* Entries that a damaged collection held are not told: nobody shall take the list for whole. */
static int check_whole(const struct ad_held_list *l, struct df_error *err)
{
        if (l->damaged == 0)
                return 0;
        return df_fail(err, DF_ECORRUPT,
                       "%" PRIu64 " collections of the topic quarantine are damaged: their entries "
                       "are not listed (`adtally log verify quarantine`)",
                       l->damaged);
}

static int list(struct quarantine *q, struct df_error *err)
{
        bool released = df_config_bool(q->c, "released");
        int64_t limit = df_config_integer(q->c, "limit");
        struct ad_held_list l;
        size_t shown = 0;
        int rc = ad_held_read(q->log, &q->filter, true, false, &l, err);

        if (rc == 0 && released)
                rc = ad_held_find_released(q->source, &l, q->quiet, err);
        for (size_t i = 0; rc == 0 && i < l.count && (int64_t)shown < limit; i++) {
                struct df_buf b = {0};
                struct ad_json *j;

                if (!l.list[i].selected)
                        continue;
                j = ad_json_begin(&b);
                ad_json_open(j);
                put_entry(j, &l.list[i], released);
                ad_json_close(j);
                rc = print_json(j, &b, err);
                shown++;
        }
        if (rc == 0)
                rc = print_counts(&l, shown, err);
        if (rc == 0)
                rc = check_whole(&l, err);
        ad_held_release_list(&l);
        return rc;
}

/* The event, or why it cannot be shown and what there is of it. */
static int put_event(struct quarantine *q, struct ad_held_list *l, const struct ad_held *h,
                     struct ad_json *j, struct df_error *err)
{
        struct df_error why = {0};
        struct df_bytes bytes = {0};
        struct ad_event ev;
        char *hex;
        int rc = h->whole_record ? DF_ENOENT : ad_held_bytes(q->source, l, h, &bytes, &why);

        if (rc == 0 && ad_wire_event_decode(bytes, &ev, &why) == 0) {
                char text[17];

                ad_json_key(j, "event");
                ad_json_open(j);
                ad_segment_put_event(j, &ev);
                (void)snprintf(text, sizeof(text), "%016" PRIx64, ev.fingerprint);
                ad_json_put_text(j, "fingerprint", text);
                ad_json_close(j);
                return 0;
        }
        if (rc < 0 && rc != DF_ENOENT)
                return df_fail(err, rc, "%s", why.text);
        ad_json_put_null(j, "event");
        ad_json_put_text(j, "event_missing",
                         h->whole_record ? "the record cannot be decoded" : why.text);
        hex = malloc(2 * h->head.len + 1);
        if (!hex)
                return df_fail(err, DF_ENOMEM, "head of an entry");
        df_hex(h->head.data, h->head.len, hex);
        hex[2 * h->head.len] = '\0';
        ad_json_put_text(j, "head", hex);
        free(hex);
        return 0;
}

static int show_one(struct quarantine *q, struct ad_held_list *l, const struct ad_held *h,
                    struct df_error *err)
{
        struct df_buf b = {0};
        struct ad_json *j = ad_json_begin(&b);
        struct df_error own_err = {0};
        int rc, printed;

        ad_json_open(j);
        put_entry(j, h, true);
        ad_json_put_text(j, "text", ad_reason_info(h->reason)->text);
        ad_json_put_text(j, "what_to_do", ad_quarantine_advice(h->reason));
        rc = put_event(q, l, h, j, &own_err);
        ad_json_close(j);
        printed = print_json(j, &b, err);
        if (rc < 0)
                *err = own_err;
        return rc < 0 ? rc : printed;
}

static int show(struct quarantine *q, struct df_error *err)
{
        struct ad_held_list l;
        int rc = ad_held_read(q->log, &q->filter, true, true, &l, err);

        if (rc == 0)
                rc = ad_held_find_released(q->source, &l, q->quiet, err);
        for (size_t i = 0; rc == 0 && i < l.count; i++)
                if (l.list[i].selected)
                        rc = show_one(q, &l, &l.list[i], err);
        if (rc == 0)
                rc = check_whole(&l, err);
        if (rc == 0 && l.selected == 0)
                rc = df_fail(err, DF_ENOENT,
                             "no entry of quarantine matches; see `adtally "
                             "quarantine list`");
        ad_held_release_list(&l);
        return rc;
}

static int release(struct quarantine *q, int *ret_exit, struct df_error *err)
{
        struct ad_release_options o = {.config = q->c,
                                       .source = q->source,
                                       .dry_run = df_config_bool(q->c, "dry-run"),
                                       .quiet = q->quiet};
        struct ad_held_list l;
        size_t refused = 0;
        /* All entries: whether a copy passed is seen by what is not in quarantine. */
        int rc = ad_held_read(q->log, &q->filter, false, true, &l, err);

        if (rc == 0)
                rc = check_whole(&l, err);
        if (rc == 0 && l.selected == 0)
                rc = df_fail(err, DF_ENOENT,
                             "no entry of quarantine matches; see `adtally "
                             "quarantine list`");
        if (rc == 0)
                rc = ad_quarantine_release(&o, &l, &refused, err);
        if (rc == 0 && refused)
                *ret_exit = DF_EXIT_FAILURE;
        ad_held_release_list(&l);
        return rc;
}

/* Without an archive the log is all there is. */
static int open_source(const struct df_config *c, struct df_log *log, struct df_objects **objects,
                       struct df_log **ret, struct df_error *err)
{
        int rc;

        *ret = log;
        if (ad_archive_is_off(c))
                return 0;
        rc = ad_archive_open_store(c, objects, err);
        return rc == 0 ? df_archive_log_open(log, *objects, ret, err) : rc;
}

static int check_words(const struct ad_command_line *l, struct df_error *err)
{
        const char *verb = l->arg_count ? l->args[0] : "";
        bool all = df_config_bool(l->config, "all"), id = df_config_text(l->config, "id") != NULL;
        bool place = l->arg_count == 2;

        if (strcmp(verb, "list") == 0 && l->arg_count == 1)
                return 0;
        if (strcmp(verb, "show") == 0 && l->arg_count <= 2 && place != id)
                return 0;
        if (strcmp(verb, "release") != 0 || l->arg_count > 2)
                return df_fail(err, DF_EINVAL,
                               "expected `list`, `show PARTITION/OFFSET/INDEX` or `release "
                               "PARTITION/OFFSET/INDEX`");
        if ((int)place + id + all != 1)
                return df_fail(err, DF_EINVAL,
                               "release what? An entry, --id EVENT_ID, or --all --code CODE");
        if (all && !df_config_text(l->config, "code"))
                return df_fail(err, DF_EINVAL,
                               "--all needs --code: what was mended is one cause's");
        return 0;
}

static int run(const struct ad_command_line *l, int *ret_exit, struct df_error *err)
{
        struct quarantine q = {.c = l->config, .quiet = df_config_bool(l->config, "quiet")};
        const char *data = df_config_text(l->config, "data");
        struct df_objects *objects = NULL;
        int rc = check_words(l, err);

        if (rc == 0)
                rc = read_filter(l, &q.filter, err);
        if (rc == 0 && !df_config_text(l->config, "log") && access(data, F_OK) < 0)
                rc = df_fail(err, DF_ENOENT, "there is no data directory %s", data);
        if (rc == 0)
                rc = ad_open_log(l->config, &q.log, err);
        if (rc == 0)
                rc = open_source(l->config, q.log, &objects, &q.source, err);
        if (rc == 0)
                rc = strcmp(l->args[0], "list") == 0   ? list(&q, err)
                     : strcmp(l->args[0], "show") == 0 ? show(&q, err)
                                                       : release(&q, ret_exit, err);
        if (q.source != q.log)
                df_log_close(q.source);
        df_objects_close(objects);
        df_log_close(q.log);
        return rc;
}

int ad_command_quarantine(int argc, char **argv)
{
        struct ad_command_line l;
        struct df_error err = {0};
        int code = DF_EXIT_OK, rc;

        if (!ad_command_read(argc, argv, usage, own, sizeof(own) / sizeof(own[0]), shared, &l,
                             &code))
                return code;
        code = DF_EXIT_OK;
        if (df_config_is_default(l.config, "log-level"))
                df_trace_level("warn"); /* between lines of progress */
        rc = df_process_start("quarantine", false, &err);
        if (rc == 0)
                rc = run(&l, &code, &err);
        ad_command_release(&l);
        return rc == DF_EINVAL ? ad_command_usage("quarantine", "%s", err.text)
               : rc < 0        ? ad_command_fail("quarantine", &err)
                               : code;
}
