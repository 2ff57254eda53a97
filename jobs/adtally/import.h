/* import.h - history from a file, each row counted once however often it is imported (R6).
 *
 * A dataset (of a tenant) has its own topic, import.<hash of tenant and dataset>, written by this
 * command alone; the realtime job finds it and runs a task for each of its partitions. A run is one
 * generation of it: ImportBegin, batches of events, ImportEnd, in every partition.
 *
 * Two passes over the file. The first checks every row, gives it its id, and sorts it:
 *   known    an earlier run has imported this id: not written again
 *   new      written in this run
 *   overlap  new, but its time lies where the tenant has live data, or another dataset: refused by
 *            name (`import_overlaps`), or sent through POST /events (--as-backfill)
 *   bad      it is no event: refused with its line number, or left out (--skip-bad)
 * Nothing is written before all rows are judged. The second pass writes the new ones.
 *
 * A row's id is its event_id if that is mapped, else hash(normalized row, occurrence number): of
 * two equal rows the second is occurrence 2, so both count, and both are known the next time.
 * Which ids are known is derived from the topic: DATA/imports/<topic>.ids is a copy that is made
 * again when it is lost or behind. Ids of an aborted run are not known; since dedupe remembers
 * them, a dataset goes on in a new topic after an abort.
 */
#ifndef AD_IMPORT_H
#define AD_IMPORT_H

#include <stdio.h>

#include "df/log.h"
#include "df/run.h"
#include "jobs/api/zone.h"
#include "jobs/ingest/json.h"
#include "proto/wire.h"

/* ---- reading rows (import_read.c) ---- */
#define AD_IMPORT_COLUMNS_MAX 512
#define AD_IMPORT_CELL_MAX (1u << 20) /* bytes */

enum ad_import_format { AD_IMPORT_CSV, AD_IMPORT_NDJSON };

struct ad_import_reader; /* streams: memory is that of one row */
/* Looks at the first bytes: '{' begins NDJSON, anything else is CSV with a header line. */
int ad_import_reader_open(const char *path, struct ad_import_reader **ret, struct df_error *err);
enum ad_import_format ad_import_reader_format(const struct ad_import_reader *r);
/* Columns in order: of the header, or of the keys seen so far (they grow with rows). */
size_t ad_import_reader_columns(const struct ad_import_reader *r,
                                const struct df_bytes **ret_names);
/* The next row: cells by column, data NULL where a row has none; borrowed until the next call.
 * *ret_more false at the end. DF_EPARSE: this row is bad, the next call goes on behind it. */
int ad_import_reader_next(struct ad_import_reader *r, const struct df_bytes **ret_cells,
                          size_t *ret_count, bool *ret_more, struct df_error *err);
uint64_t ad_import_reader_line(const struct ad_import_reader *r);  /* where the row began, from 1 */
uint64_t ad_import_reader_bytes(const struct ad_import_reader *r); /* read so far */
uint64_t ad_import_reader_size(const struct ad_import_reader *r);
void ad_import_reader_close(struct ad_import_reader *r);

/* ---- cells (import_cells.c) ---- */
/* RFC 3339; "YYYY-MM-DD H:MM[:SS[.fff]]" or with T, hour not necessarily padded, in zone; seconds
 * (up to 11 digits, may have a fraction) or milliseconds since the epoch. */
bool ad_import_time(struct df_bytes text, const struct ad_zone *zone, int64_t *ret_ms);
/* NULL, or why the cell is not one. Whole micros only, as in JSON; units are decimal and exact, and
 * are the price of divide_by pieces. */
const char *ad_import_micros(struct df_bytes v, int64_t *ret_nanos);
const char *ad_import_units(struct df_bytes v, int64_t divide_by, int64_t *ret_nanos);
const char *ad_import_id(struct df_bytes v, size_t max, struct df_bytes *ret);
const char *ad_import_currency(struct df_bytes v, struct df_bytes *ret);
/* What a row is, whatever the order of its columns, its quotes and line ends: for ids. */
struct df_hash128 ad_import_row_hash(const struct df_bytes *columns, const struct df_bytes *cells,
                                     size_t count);

/* ---- mapping (import_map.c) ---- */
struct ad_import_map_options {
        const char *map;         /* "column=field,...": field may be empty: ignored */
        const char *types;       /* "value=impression,..." or NULL */
        const char *price_model; /* "cpm=COLUMN@impression" (cpc@click, cpa@conversion) or NULL */
        const char *currency;    /* of money without a currency column */
        const struct ad_zone *zone;
};
struct ad_import_map;
/* DF_EINVAL says which part of which option is wrong. */
int ad_import_map_create(const struct ad_import_map_options *o, struct ad_import_map **ret,
                         struct df_error *err);
/* Names of columns to places; a mapped column that does not exist is DF_EINVAL, naming those that
 * do. For NDJSON, where columns appear with rows, absent is not wrong. */
int ad_import_map_bind(struct ad_import_map *m, const struct df_bytes *columns, size_t count,
                       bool all_known, struct df_error *err);
/* The event of a row, without id, tenant and receive time. Borrows from the cells and the arena.
 * DF_EINVAL: the row is bad; the text says which column and why. */
int ad_import_map_row(struct ad_import_map *m, const struct df_bytes *cells, size_t count,
                      struct df_arena *arena, struct ad_event *ret, struct df_error *err);
struct df_hash128 ad_import_map_digest(const struct ad_import_map *m); /* of the options */
void ad_import_map_destroy(struct ad_import_map *m);

/* ---- a table of 128-bit keys in a mapped file (import_ids.c) ---- */
/* Pages that memory has no room for go to disk, so the number of rows is not limited by memory. */
struct ad_ids;
/* path NULL: a table for this run alone, in dir. Else the file is opened if it was closed complete
 * with this identity, and otherwise begun empty (*ret_fresh). */
#define AD_IDS_NOTE_MAX 4096
int ad_ids_open(const char *dir, const char *path, struct ad_ids **ret, bool *ret_fresh,
                struct df_error *err);
/* The value of a key, NULL = none. Valid until the next put. */
uint64_t *ad_ids_find(const struct ad_ids *t, struct df_hash128 key);
/* Adds the key with value 0 unless it is there. NULL: it failed. */
uint64_t *ad_ids_put(struct ad_ids *t, struct df_hash128 key, struct df_error *err);
uint64_t ad_ids_count(const struct ad_ids *t);
/* AD_IDS_NOTE_MAX bytes of the owner's, kept with the file. */
void *ad_ids_note(struct ad_ids *t);
/* The note of a complete file, without opening it. */
bool ad_ids_peek(const char *path, void *ret_note);
/* From here until ad_ids_complete a crash loses the table. */
int ad_ids_begin(struct ad_ids *t, struct df_error *err);
int ad_ids_complete(struct ad_ids *t, struct df_error *err);
void ad_ids_close(struct ad_ids *t);

/* ---- topics and known ids (import_topic.c) ---- */
struct ad_import_place { /* where imports live */
        struct df_log *log;
        const char *data; /* DATA */
        uint32_t partitions;
        struct df_bytes tenant, dataset;
        bool drops_user_ids; /* --seal-user-ids: the keys are ingest's, an import has none */
};

struct ad_import_part {    /* one partition of the newest generation of a topic */
        bool begun, ended; /* its ImportBegin and ImportEnd are durable */
        bool aborted;
        uint64_t events; /* durable, of this generation */
};

/* What the topics of a dataset say. */
struct ad_import_state {
        char topic[DF_TOPIC_NAME_MAX + 1]; /* the one to write to; it may not exist yet */
        bool exists;
        bool open;                    /* its newest generation is begun and not ended everywhere */
        bool aborting;                /* that one was aborted, but not yet everywhere */
        struct ad_import_begin begin; /* of that generation; without its strings */
        struct ad_import_part parts[DF_PARTITIONS_MAX];
};
/* One import of a dataset at a time: DF_EFENCED otherwise. Close ret_fd to let go. */
int ad_import_lock(const struct ad_import_place *p, int *ret_fd, struct df_error *err);
/* The state, and the known ids up to date: key = D1 key of the event, value = fingerprint. The open
 * generation's are not in it. Under the lock. */
int ad_import_known_open(const struct ad_import_place *p, struct ad_ids **ret,
                         struct ad_import_state *ret_state, struct df_error *err);
/* Sent by --as-backfill: known from now on; durable when it returns. */
int ad_import_known_backfilled(const struct ad_import_place *p, const struct ad_event *events,
                               size_t count, struct df_error *err);

/* fn for each generation of other datasets of the tenant that was not aborted. */
int ad_import_each_range(const struct ad_import_place *p,
                         int (*fn)(void *arg, struct df_bytes dataset, int64_t from_ms,
                                   int64_t to_ms),
                         void *arg, struct df_error *err);

/* ---- overlap (import_overlap.c) ---- */
#define AD_RANGES_MAX 64
struct ad_import_range {
        int64_t from_ms, to_ms; /* [from, to) */
        char what[200];         /* "live data", or "dataset X" */
};
struct ad_import_ranges {
        struct ad_import_range list[AD_RANGES_MAX];
        size_t count;
};
/* The tenant's live data and other datasets. url: of a running server, asked first; when none
 * answers, the topic `rollups` says it, if it still holds everything; else DF_EAGAIN says that a
 * server is needed. */
int ad_import_ranges_find(const struct ad_import_place *p, const char *url, const char *key,
                          struct ad_import_ranges *ret, struct df_error *err);
const struct ad_import_range *ad_import_ranges_hit(const struct ad_import_ranges *r, int64_t ms);

/* ---- writing (import_log.c) ---- */
struct ad_import_writer;
/* Takes the lock of the topic (DF_EFENCED: another import runs), and writes what is missing of
 * ImportBegin. state->open: goes on with that generation; its begin must equal `begin` but for
 * receive_ms. hook: NULL, or called before each append (tests). */
int ad_import_writer_open(const struct ad_import_place *p, struct ad_import_state *state,
                          const struct ad_import_begin *begin,
                          int (*hook)(void *arg, struct df_error *err), void *hook_arg,
                          struct ad_import_writer **ret, struct df_error *err);
/* Events in the same order as in the run that was cut off: those that are durable are skipped. */
int ad_import_writer_add(struct ad_import_writer *w, const struct ad_event *ev,
                         struct df_error *err);
/* Flushes, writes ImportEnd everywhere; durable when it returns. */
int ad_import_writer_end(struct ad_import_writer *w, uint64_t rows, struct df_error *err);
uint64_t ad_import_writer_skipped(const struct ad_import_writer *w); /* durable from before */
void ad_import_writer_close(struct ad_import_writer *w);
/* Voids the open generation. DF_ENOENT: none is open. */
int ad_import_abort(const struct ad_import_place *p, uint64_t *ret_events, struct df_error *err);

/* ---- backfill (import_backfill.c) ---- */
struct ad_backfill;
int ad_backfill_open(const struct ad_import_place *p, const char *url, const char *key,
                     struct ad_backfill **ret, struct df_error *err);
/* POSTs full batches; what the server took is known from then on. Rows that it refuses are counted,
 * the first ones explained on stderr. */
int ad_backfill_add(struct ad_backfill *b, const struct ad_event *ev, uint64_t line,
                    struct df_error *err);
int ad_backfill_end(struct ad_backfill *b, uint64_t *ret_taken, uint64_t *ret_refused,
                    struct df_error *err);
void ad_backfill_close(struct ad_backfill *b);

/* ---- the run (import_run.c) ---- */
struct ad_import_options {
        const char *file;
        struct ad_import_place place; /* dataset empty: by header and mapping */
        struct ad_import_map_options map;
        const char *url, *key;
        bool as_backfill, dry_run, skip_bad, quiet;
        int64_t now_ms;                               /* receive time of a new generation */
        int (*hook)(void *arg, struct df_error *err); /* tests: before each append */
        void *hook_arg;
};
struct ad_import_summary {
        uint64_t rows, known, fresh, overlap, bad, resumed, backfilled, refused;
        uint64_t user_ids_left_out; /* of the events that were written */
        int64_t from_ms, to_ms;     /* of the new ones */
        bool wrote;                 /* a generation was written or completed */
        uint64_t generation;
        char topic[DF_TOPIC_NAME_MAX + 1];
        char dataset[AD_DATASET_MAX + 1];
        struct df_buf problems; /* lines about the first bad or overlapping rows */
};
/* DF_EPARSE: bad rows; DF_EEXIST: import_overlaps; DF_EFENCED: another file is half imported. */
int ad_import_run(const struct ad_import_options *o, struct ad_import_summary *ret,
                  struct df_error *err);
/* The name of the dataset when none is given: a digest of header and mapping. */
int ad_import_dataset(const struct ad_import_options *o, char ret[AD_DATASET_MAX + 1],
                      struct df_error *err);

#endif
