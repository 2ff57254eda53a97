/* import_topic.c - what the topics of a dataset hold: the open generation, and the known ids.
 *
 * The copy of the known ids (import_ids.c) notes how far into which topic it goes; what is behind
 * that is read here, twice: once to see where generations begin and end, once for the ids. A
 * generation that is not the topic's newest is complete, because the next one begins only then.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "jobs/adtally/import.h"
#include "jobs/common/settings.h"

#define NOTE_VERSION 1
#define RECORDS 256

/* Beside the ids. Ranges of other imports are read from it (ad_import_each_range). */
struct note {
        uint32_t version, attempt; /* of the topic below; from 1 */
        uint64_t topic_generation; /* of that topic: another one is another history */
        uint64_t position[DF_PARTITIONS_MAX];
        uint64_t backfilled_bytes; /* read of the file of backfilled ids */
        int64_t from_ms, to_ms;    /* of all complete generations; equal: none */
        char tenant[AD_ID_MAX + 1], dataset[AD_DATASET_MAX + 1];
};
_Static_assert(sizeof(struct note) <= AD_IDS_NOTE_MAX, "the note has room");

/* "import.<hash>", and "-2" and so on after aborts. */
static void topic_name(const struct ad_import_place *p, uint32_t attempt,
                       char ret[DF_TOPIC_NAME_MAX + 1])
{
        struct df_buf b = {0};
        struct df_hash128 h;

        df_put_lstr(&b, p->tenant);
        df_put_lstr(&b, p->dataset);
        df_check(!b.failed);
        h = df_hash128(df_buf_bytes(&b));
        df_buf_release(&b);
        if (attempt <= 1)
                (void)snprintf(ret, DF_TOPIC_NAME_MAX + 1, AD_TOPIC_IMPORT_PREFIX "%016" PRIx64,
                               h.lo);
        else
                (void)snprintf(ret, DF_TOPIC_NAME_MAX + 1,
                               AD_TOPIC_IMPORT_PREFIX "%016" PRIx64 "-%u", h.lo, attempt);
}

static int side_path(const struct ad_import_place *p, const char *topic, const char *ending,
                     char ret[PATH_MAX], struct df_error *err)
{
        if (snprintf(ret, PATH_MAX, "%s/imports", p->data) >= PATH_MAX)
                return df_fail(err, DF_EINVAL, "--data: the path is too long");
        if (df_mkdirs(ret, err) < 0)
                return err ? err->code : DF_EIO;
        if (snprintf(ret, PATH_MAX, "%s/imports/%s%s", p->data, topic, ending) >= PATH_MAX)
                return df_fail(err, DF_EINVAL, "--data: the path is too long");
        return 0;
}

int ad_import_lock(const struct ad_import_place *p, int *ret_fd, struct df_error *err)
{
        char topic[DF_TOPIC_NAME_MAX + 1], path[PATH_MAX];
        int rc;

        topic_name(p, 1, topic);
        rc = side_path(p, topic, ".lock", path, err);
        if (rc < 0)
                return rc;
        *ret_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
        if (*ret_fd < 0)
                return df_fail_errno(err, DF_EIO, "open %s", path);
        if (flock(*ret_fd, LOCK_EX | LOCK_NB) == 0)
                return 0;
        close(*ret_fd);
        *ret_fd = -1;
        return df_fail(err, DF_EFENCED, "another import of this dataset is running (%s)", path);
}

/* ---- topics ---- */

struct topic_search {
        const char *name;
        struct df_topic_info info;
        bool found;
};

static int on_topic(void *arg, const struct df_topic_info *info)
{
        struct topic_search *s = arg;

        if (strcmp(info->name, s->name) == 0) {
                s->info = *info;
                s->found = true;
        }
        return 0;
}

/* Every record of a partition from an offset. */
static int each_record(struct df_log *log, const char *topic, uint32_t partition, uint64_t from,
                       int (*fn)(void *arg, const struct df_record *rec, struct df_error *err),
                       void *arg, struct df_error *err)
{
        struct df_record *records = calloc(RECORDS, sizeof(*records));
        struct df_log_reader *r = NULL;
        size_t n = 1;
        int rc;

        if (!records)
                return df_fail(err, DF_ENOMEM, "records");
        rc = df_log_reader_open(log, topic, partition, from, NULL, &r, err);
        while (rc == 0 && n > 0) {
                rc = df_log_poll(r, records, RECORDS, &n, err);
                for (size_t i = 0; rc == 0 && i < n; i++)
                        rc = fn(arg, &records[i], err);
        }
        df_log_reader_close(r);
        free(records);
        return rc;
}

/* ---- where generations begin and end ---- */

struct scan {
        struct ad_import_part part; /* of the generation begun last here */
        struct ad_import_begin begin;
        uint64_t generations; /* begun since the start of the scan */
        uint64_t begin_offset, end_offset;
};

static int scan_record(void *arg, const struct df_record *rec, struct df_error *err)
{
        struct scan *s = arg;
        struct ad_batch b;
        int rc = ad_wire_batch_peek(rec->value, &b, err);

        if (rc < 0)
                return df_wrap(err, "an import's record at offset %" PRIu64, rec->offset);
        s->end_offset = rec->offset + 1;
        if (b.has_import_begin) {
                s->part = (struct ad_import_part){.begun = true};
                s->begin = b.import_begin;
                s->begin.tenant_id = s->begin.dataset = (struct df_bytes){0};
                s->generations++;
                s->begin_offset = rec->offset;
        }
        s->part.events += b.count;
        if (b.has_import_end) {
                s->part.ended = true;
                s->part.aborted = b.import_end.aborted;
        }
        return 0;
}

/* Fills the state of the topic's newest generation from the scans of its partitions. */
static void judge(const struct scan *scans, uint32_t partitions, struct ad_import_state *ret)
{
        uint32_t newest = 0;
        bool ended = true, aborted = false;

        for (uint32_t p = 1; p < partitions; p++)
                if (scans[p].generations > scans[newest].generations)
                        newest = p;
        ret->open = false;
        ret->aborting = false;
        memset(ret->parts, 0, sizeof(ret->parts));
        if (scans[newest].generations == 0)
                return;
        ret->begin = scans[newest].begin;
        for (uint32_t p = 0; p < partitions; p++) {
                if (scans[p].begin.generation != ret->begin.generation || !scans[p].part.begun) {
                        ended = false;
                        continue;
                }
                ret->parts[p] = scans[p].part;
                ended = ended && scans[p].part.ended;
                aborted = aborted || scans[p].part.aborted;
        }
        ret->open = !ended;
        ret->aborting = aborted;
}

/* ---- the ids of complete generations ---- */

struct harvest {
        struct ad_ids *ids;
        struct df_arena *arena;
        uint64_t skip;       /* this generation is not complete, or void; 0 = none */
        uint64_t current;    /* generation of the records that come */
        struct note *ranges; /* where the ranges go; NULL = nowhere */
};

static void widen(struct note *n, const struct ad_import_begin *b)
{
        if (n->from_ms == n->to_ms || b->from_ms < n->from_ms)
                n->from_ms = b->from_ms;
        if (b->to_ms > n->to_ms)
                n->to_ms = b->to_ms;
}

static int harvest_record(void *arg, const struct df_record *rec, struct df_error *err)
{
        struct harvest *h = arg;
        struct ad_batch b;
        int rc;

        df_arena_reset(h->arena);
        rc = ad_wire_batch_decode(rec->value, AD_RECORD_EVENTS_MAX, h->arena, &b, err);
        if (rc < 0)
                return df_wrap(err, "an import's record at offset %" PRIu64, rec->offset);
        if (b.has_import_begin) {
                h->current = b.import_begin.generation;
                if (h->current != h->skip)
                        widen(h->ranges, &b.import_begin);
        }
        for (size_t i = 0; h->current != h->skip && i < b.count; i++) {
                uint64_t *v = ad_ids_put(
                        h->ids, ad_event_key(b.events[i].tenant_id, b.events[i].event_id), err);

                if (!v)
                        return err->code;
                *v = b.events[i].fingerprint;
        }
        return 0;
}

/* The topic of the note's attempt: its state, its ids, and the note moved on. *ret_next: it ended
 * with an abort, another topic follows. */
static int read_topic(const struct ad_import_place *p, struct ad_ids *ids,
                      struct ad_import_state *state, bool *ret_next, struct df_error *err)
{
        struct note n = *(struct note *)ad_ids_note(ids);
        struct scan *scans = calloc(p->partitions, sizeof(*scans));
        struct df_arena arena;
        struct harvest h = {.ids = ids, .arena = &arena, .ranges = &n};
        int rc = 0;

        if (!scans)
                return df_fail(err, DF_ENOMEM, "scan");
        df_arena_init(&arena, 0);
        for (uint32_t i = 0; rc == 0 && i < p->partitions; i++) {
                scans[i].end_offset = n.position[i];
                rc = each_record(p->log, state->topic, i, n.position[i], scan_record, &scans[i],
                                 err);
        }
        if (rc == 0)
                judge(scans, p->partitions, state);
        h.skip = state->open || state->aborting ? state->begin.generation : 0;
        for (uint32_t i = 0; rc == 0 && i < p->partitions; i++) {
                h.current = 0;
                rc = each_record(p->log, state->topic, i, n.position[i], harvest_record, &h, err);
                n.position[i] = state->open && scans[i].begin.generation == state->begin.generation
                                        ? scans[i].begin_offset
                                        : scans[i].end_offset;
        }
        *ret_next = rc == 0 && state->aborting && !state->open;
        if (*ret_next) {
                n.attempt++;
                n.topic_generation = 0;
                memset(n.position, 0, sizeof(n.position));
        }
        if (rc == 0)
                *(struct note *)ad_ids_note(ids) = n;
        df_arena_release(&arena);
        free(scans);
        return rc;
}

/* ---- backfilled ids: a file of {key, fingerprint}, 24 bytes each ---- */

static void put_key(struct df_buf *b, const struct ad_event *ev)
{
        struct df_hash128 k = ad_event_key(ev->tenant_id, ev->event_id);

        df_put_u64be(b, k.lo);
        df_put_u64be(b, k.hi);
        df_put_u64be(b, ev->fingerprint);
}

int ad_import_known_backfilled(const struct ad_import_place *p, const struct ad_event *events,
                               size_t count, struct df_error *err)
{
        char topic[DF_TOPIC_NAME_MAX + 1], path[PATH_MAX];
        struct df_buf b = {0};
        struct stat st;
        int fd = -1, rc;

        topic_name(p, 1, topic);
        rc = side_path(p, topic, ".backfilled", path, err);
        for (size_t i = 0; i < count; i++)
                put_key(&b, &events[i]);
        if (rc == 0)
                rc = df_buf_check(&b, err);
        if (rc == 0) {
                fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
                if (fd < 0 || fstat(fd, &st) < 0)
                        rc = df_fail_errno(err, DF_EIO, "open %s", path);
        }
        /* A torn entry at the end, of a crash, is written over. */
        if (rc == 0 &&
            (pwrite(fd, b.data, b.len, st.st_size / 24 * 24) != (ssize_t)b.len || fsync(fd) < 0))
                rc = df_fail_errno(err, DF_EIO, "write %s", path);
        if (fd >= 0)
                close(fd);
        df_buf_release(&b);
        return rc;
}

static int read_backfilled(const struct ad_import_place *p, struct ad_ids *ids,
                           struct df_error *err)
{
        char topic[DF_TOPIC_NAME_MAX + 1], path[PATH_MAX];
        uint8_t entry[24];
        FILE *f;
        int rc;

        topic_name(p, 1, topic);
        rc = side_path(p, topic, ".backfilled", path, err);
        if (rc < 0)
                return rc;
        f = fopen(path, "re");
        if (!f)
                return 0; /* nothing was ever backfilled */
        if (fseeko(f, (off_t)((struct note *)ad_ids_note(ids))->backfilled_bytes, SEEK_SET) < 0)
                rc = df_fail_errno(err, DF_EIO, "seek %s", path);
        while (rc == 0 && fread(entry, sizeof(entry), 1, f) == 1) {
                struct df_reader r = df_reader(df_bytes(entry, sizeof(entry)));
                struct df_hash128 k;
                uint64_t *v;

                k.lo = df_get_u64be(&r);
                k.hi = df_get_u64be(&r);
                v = ad_ids_put(ids, k, err);
                if (v)
                        *v = df_get_u64be(&r);
                rc = v ? 0 : err->code;
                ((struct note *)ad_ids_note(ids))->backfilled_bytes += sizeof(entry);
        }
        (void)fclose(f);
        return rc;
}

/* ---- together ---- */

static void begin_note(struct note *n, const struct ad_import_place *p)
{
        memset(n, 0, sizeof(*n));
        n->version = NOTE_VERSION;
        n->attempt = 1;
        (void)snprintf(n->tenant, sizeof(n->tenant), "%.*s", (int)p->tenant.len,
                       (const char *)p->tenant.data);
        (void)snprintf(n->dataset, sizeof(n->dataset), "%.*s", (int)p->dataset.len,
                       (const char *)p->dataset.data);
}

/* A writer that was killed in an append leaves whole frames behind the durable end. A new writer
 * takes them in; readers must see them before they say where the import goes on. */
static int settle_tail(const struct ad_import_place *p, const char *topic, struct df_error *err)
{
        struct df_log_writer *w = NULL;
        int rc = df_log_writer_open(p->log, topic, &w, err);

        df_log_writer_close(w);
        return rc;
}

static int catch_up(const struct ad_import_place *p, struct ad_ids *ids,
                    struct ad_import_state *state, bool *ret_foreign, struct df_error *err)
{
        bool next = true;
        int rc = 0;

        *ret_foreign = false;
        while (rc == 0 && next) {
                struct note *n = ad_ids_note(ids);
                struct topic_search s = {.name = state->topic};

                memset(state, 0, sizeof(*state));
                topic_name(p, n->attempt, state->topic);
                next = false;
                rc = df_log_topic_list(p->log, state->topic, on_topic, &s, err);
                state->exists = s.found;
                if (rc < 0 || (!s.found && n->topic_generation == 0))
                        break;
                if (s.found && s.info.partitions != p->partitions)
                        return df_fail(err, DF_ESCHEMA,
                                       "topic %s has %u partitions, expected %u (K14)",
                                       state->topic, s.info.partitions, p->partitions);
                if (!s.found ||
                    (n->topic_generation != 0 && n->topic_generation != s.info.generation)) {
                        *ret_foreign = true; /* the ids are of a log that is gone */
                        break;
                }
                n->topic_generation = s.info.generation;
                rc = settle_tail(p, state->topic, err);
                if (rc == 0)
                        rc = read_topic(p, ids, state, &next, err);
        }
        return rc < 0 ? rc : read_backfilled(p, ids, err);
}

int ad_import_known_open(const struct ad_import_place *p, struct ad_ids **ret,
                         struct ad_import_state *ret_state, struct df_error *err)
{
        char topic[DF_TOPIC_NAME_MAX + 1], path[PATH_MAX], dir[PATH_MAX];
        struct ad_ids *ids = NULL;
        bool fresh, foreign = true;
        int rc;

        topic_name(p, 1, topic);
        rc = side_path(p, topic, ".ids", path, err);
        (void)snprintf(dir, sizeof(dir), "%.*s/imports", PATH_MAX - 16, p->data);
        for (int i = 0; rc == 0 && foreign && i < 2; i++) {
                ad_ids_close(ids);
                ids = NULL;
                if (i == 1 && unlink(path) < 0)
                        return df_fail_errno(err, DF_EIO, "remove %s", path);
                rc = ad_ids_open(dir, path, &ids, &fresh, err);
                if (rc < 0)
                        return rc;
                if (fresh || ((struct note *)ad_ids_note(ids))->version != NOTE_VERSION)
                        begin_note(ad_ids_note(ids), p);
                rc = ad_ids_begin(ids, err);
                if (rc == 0)
                        rc = catch_up(p, ids, ret_state, &foreign, err);
        }
        if (rc == 0)
                rc = ad_ids_complete(ids, err);
        if (rc < 0) {
                ad_ids_close(ids);
                return rc;
        }
        *ret = ids;
        return 0;
}

/* ---- the ranges of other datasets ---- */

struct other {
        const struct ad_import_place *place;
        int (*fn)(void *arg, struct df_bytes dataset, int64_t from_ms, int64_t to_ms);
        void *arg;
        struct df_error *err;
        char own[DF_TOPIC_NAME_MAX + 1];
        struct note *note; /* of the topic at hand, when its ids are complete */
        /* The generation at hand. */
        bool begun, mine;
        char dataset[AD_DATASET_MAX + 1];
        int64_t from_ms, to_ms;
};

static int tell(struct other *o)
{
        bool now = o->begun && o->mine;

        o->begun = false;
        return now ? o->fn(o->arg, df_bytes_str(o->dataset), o->from_ms, o->to_ms) : 0;
}

static int other_record(void *arg, const struct df_record *rec, struct df_error *err)
{
        struct other *o = arg;
        struct ad_batch b;
        int rc = ad_wire_batch_peek(rec->value, &b, err);

        if (rc == 0 && b.has_import_begin) {
                rc = tell(o);
                o->begun = true;
                o->mine = df_bytes_eq(b.import_begin.tenant_id, o->place->tenant);
                o->from_ms = b.import_begin.from_ms;
                o->to_ms = b.import_begin.to_ms;
                (void)snprintf(o->dataset, sizeof(o->dataset), "%.*s",
                               (int)b.import_begin.dataset.len,
                               (const char *)b.import_begin.dataset.data);
        }
        if (rc == 0 && b.has_import_end && b.import_end.aborted)
                o->begun = false;
        return rc;
}

static int other_topic(void *arg, const struct df_topic_info *info)
{
        struct other *o = arg;
        size_t base = strcspn(info->name, "-");
        uint64_t from = 0;
        char path[PATH_MAX];
        int rc;

        if (strlen(o->own) == base && strncmp(info->name, o->own, base) == 0)
                return 0;
        if (snprintf(path, sizeof(path), "%s/imports/%.*s.ids", o->place->data, (int)base,
                     info->name) < PATH_MAX &&
            ad_ids_peek(path, o->note) && o->note->version == NOTE_VERSION &&
            o->note->topic_generation == info->generation) {
                from = o->note->position[0];
                if (o->note->from_ms < o->note->to_ms &&
                    df_bytes_eq(df_bytes_str(o->note->tenant), o->place->tenant))
                        (void)o->fn(o->arg, df_bytes_str(o->note->dataset), o->note->from_ms,
                                    o->note->to_ms);
        }
        o->begun = false;
        rc = each_record(o->place->log, info->name, 0, from, other_record, o, o->err);
        return rc < 0 ? rc : tell(o);
}

int ad_import_each_range(const struct ad_import_place *p,
                         int (*fn)(void *arg, struct df_bytes dataset, int64_t from_ms,
                                   int64_t to_ms),
                         void *arg, struct df_error *err)
{
        struct other o = {.place = p, .fn = fn, .arg = arg, .err = err};
        int rc;

        o.note = calloc(1, AD_IDS_NOTE_MAX);
        if (!o.note)
                return df_fail(err, DF_ENOMEM, "ranges");
        topic_name(p, 1, o.own);
        rc = df_log_topic_list(p->log, AD_TOPIC_IMPORT_PREFIX, other_topic, &o, err);
        free(o.note);
        return rc;
}
