#include "rocksdb_private.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <sys/statvfs.h>

#define DEFAULT_BYTES (32ull << 20)
#define SHARED_CACHE_BYTES (128ull << 20)

#define ROOM_MIN_BYTES (4u << 20) /* free on the disk, or nothing is opened */
#define INFO_LOG_LEVEL 5          /* the heading alone */

/* lz4 costs least; a RocksDB built without it says "not linked with the binary". */
static const struct {
        int id;
        const char *name; /* as the OPTIONS file writes it */
} compressions[] = {
        {rocksdb_lz4_compression, "kLZ4Compression"},
        {rocksdb_zstd_compression, "kZSTD"},
        {rocksdb_no_compression, "kNoCompression"},
};

/* Each checkpoint of a task flushes one small file over all key prefixes. In levels every few of
 * them would rewrite nearly the whole state; universal compaction merges files of like size, and
 * not before there are 24: what a task stores is read at a restart, and else only where a filter
 * says that an id may be known (with 6 an event cost 40 ns more). While it rewrites all of them,
 * which may take long, flushes go on. Flushed files are mostly ids, which are random: compressing
 * them takes a sixtieth of a job's time and saves nothing. */
static void set_universal(rocksdb_options_t *r)
{
        rocksdb_universal_compaction_options_t *u = rocksdb_universal_compaction_options_create();

        rocksdb_options_set_compaction_style(r, rocksdb_universal_compaction);
        rocksdb_universal_compaction_options_set_size_ratio(u, 20);
        rocksdb_universal_compaction_options_set_min_merge_width(u, 4);
        rocksdb_universal_compaction_options_set_max_size_amplification_percent(u, 100);
        rocksdb_options_set_universal_compaction_options(r, u);
        rocksdb_universal_compaction_options_destroy(u);
        rocksdb_options_set_min_level_to_compress(r, 1);
        rocksdb_options_set_level0_file_num_compaction_trigger(r, 24);
        rocksdb_options_set_level0_slowdown_writes_trigger(r, 64);
        rocksdb_options_set_level0_stop_writes_trigger(r, 128);
}

/* Few shards: a value of 4 MiB must fit into one. */
static rocksdb_cache_t *make_cache(uint64_t bytes, int shard_bits)
{
        rocksdb_lru_cache_options_t *lru = rocksdb_lru_cache_options_create();
        rocksdb_cache_t *cache;

        rocksdb_lru_cache_options_set_capacity(lru, bytes);
        rocksdb_lru_cache_options_set_num_shard_bits(lru, shard_bits);
        cache = rocksdb_cache_create_lru_opts(lru);
        rocksdb_lru_cache_options_destroy(lru);
        return cache;
}

/* One cache for all tasks of a process: its bytes go to those that read, however many there are.
 * Made by the first, kept until the process ends. */
static rocksdb_cache_t *shared_cache;

static void make_shared_cache(void)
{
        shared_cache = make_cache(SHARED_CACHE_BYTES, 4);
}

static rocksdb_cache_t *cache_of(struct dfi_db *d, enum dfi_db_kind kind, uint64_t bytes)
{
        static pthread_once_t once = PTHREAD_ONCE_INIT;

        if (kind == DFI_DB_TASK && bytes == 0) {
                (void)pthread_once(&once, make_shared_cache);
                return shared_cache;
        }
        d->cache = make_cache(bytes ? bytes : DEFAULT_BYTES, kind == DFI_DB_TASK ? 0 : 2);
        return d->cache;
}

static void set_table_options(struct dfi_db *d, enum dfi_db_kind kind, uint64_t cache_bytes)
{
        rocksdb_block_based_table_options_t *t = rocksdb_block_based_options_create();

        rocksdb_block_based_options_set_block_cache(t, cache_of(d, kind, cache_bytes));
        rocksdb_block_based_options_set_block_size(t, 8192);
        rocksdb_block_based_options_set_format_version(t, 5);
        rocksdb_block_based_options_set_filter_policy(t,
                                                      rocksdb_filterpolicy_create_bloom_full(10));
        /* Index and filter blocks count against the cache, so that many tasks stay bounded. */
        rocksdb_block_based_options_set_cache_index_and_filter_blocks(t, 1);
        rocksdb_block_based_options_set_pin_l0_filter_and_index_blocks_in_cache(t, 1);
        rocksdb_options_set_block_based_table_factory(d->options, t);
        rocksdb_block_based_options_destroy(t);
}

static uint64_t write_buffer_bytes(const struct df_rocksdb_options *options)
{
        return options && options->write_buffer_bytes ? options->write_buffer_bytes : DEFAULT_BYTES;
}

/* Two write buffers and one flush thread: with more, versions after 7.8 fixed wrong orders after a
 * failed flush. No atomic flush, one column family, for the like reason. */
static void set_options(struct dfi_db *d, enum dfi_db_kind kind, bool create,
                        const struct df_rocksdb_options *o)
{
        rocksdb_options_t *r = d->options;

        rocksdb_options_set_create_if_missing(r, create);
        rocksdb_options_set_error_if_exists(r, kind == DFI_DB_TASK && create);
        rocksdb_options_set_paranoid_checks(r, 1);
        rocksdb_options_set_write_buffer_size(r, write_buffer_bytes(o));
        rocksdb_options_set_max_write_buffer_number(r, 2);
        rocksdb_options_set_max_background_flushes(r, 1);
        rocksdb_options_set_max_background_compactions(r, 1);
        rocksdb_options_set_atomic_flush(r, 0);
        rocksdb_options_set_level0_file_num_compaction_trigger(r, 6);
        rocksdb_options_set_target_file_size_base(r, 32u << 20);
        rocksdb_options_set_max_bytes_for_level_base(r, 256u << 20);
        rocksdb_options_set_level_compaction_dynamic_level_bytes(r, 1);
        rocksdb_options_set_max_open_files(r, kind == DFI_DB_TASK ? DFI_TASK_OPEN_FILES
                                                                  : DFI_KV_OPEN_FILES);
        rocksdb_options_set_max_file_opening_threads(r, 1);
        rocksdb_options_set_table_cache_numshardbits(r, 2);
        rocksdb_options_set_skip_stats_update_on_db_open(r, 1);
        rocksdb_options_set_manifest_preallocation_size(r, 64 << 10);
        rocksdb_options_set_max_manifest_file_size(r, o && o->secrets ? 1 : 4u << 20);
        rocksdb_options_set_wal_recovery_mode(r, rocksdb_point_in_time_recovery);
        /* Where the disk is full a line of RocksDB's LOG fails too, and builds with assertions
         * (Debian's) abort at the line after, even while closing. What it would say is in the
         * errors that its calls return. */
        rocksdb_options_set_info_log_level(r, INFO_LOG_LEVEL);
        rocksdb_options_set_keep_log_file_num(r, 2);
        rocksdb_options_set_stats_dump_period_sec(r, 0);
        rocksdb_options_set_stats_persist_period_sec(r, 0);
        rocksdb_options_set_is_fd_close_on_exec(r, 1);
        if (kind == DFI_DB_TASK)
                set_universal(r);
        set_table_options(d, kind, o ? o->block_cache_bytes : 0);
}

/* A closing store must not write: what counts is the checkpoint, or the log. No setter in C.
 * (memtable_insert_with_hint_prefix_extractor would save the view a quarter of a row, but RocksDB
 * 7.8 takes the hints of keys for range deletions too and breaks the memtable.) */
static int set_by_string(struct dfi_db *d, struct df_error *err)
{
        rocksdb_options_t *with = rocksdb_options_create();
        char *message = NULL;

        rocksdb_get_options_from_string(d->options, "avoid_flush_during_shutdown=true", with,
                                        &message);
        if (message) {
                rocksdb_options_destroy(with);
                return dfi_status_fail(err, message, "cannot set options", NULL);
        }
        rocksdb_options_destroy(d->options);
        d->options = with;
        return 0;
}

/* The newest OPTIONS file of the open database says what it runs with. */
static int check_options(const char *path, const char *const *expected, size_t count,
                         struct df_error *err)
{
        struct dfi_names names = {0};
        struct df_buf text = {0};
        char file[DFI_PATH_MAX];
        const char *newest = NULL;

        int r = dfi_names_read(path, &names, err);
        if (r)
                return r;
        for (size_t i = 0; i < names.count; i++)
                if (strncmp(names.v[i], "OPTIONS-", 8) == 0 && !strstr(names.v[i], ".dbtmp"))
                        newest = names.v[i]; /* sorted: numbers have six digits */
        if (!newest) {
                r = df_fail(err, DF_EIO, "%s: RocksDB wrote no OPTIONS file", path);
                goto out;
        }
        r = dfi_state_path(file, err, "%s/%s", path, newest);
        if (r == 0)
                r = dfi_read_file(file, 1u << 20, &text, err);
        if (r)
                goto out;
        df_put_u8(&text, 0);
        r = df_buf_check(&text, err);
        for (size_t i = 0; r == 0 && i < count; i++) {
                const char *at = strstr((const char *)text.data, expected[i]);
                size_t len = strlen(expected[i]);
                while (at && !(at > (const char *)text.data && strchr(" {;", at[-1]) &&
                               strchr("\n\r;}", at[len])))
                        at = strstr(at + 1, expected[i]);
                if (!at)
                        r = df_fail(err, DF_EINVAL, "%s: RocksDB did not take the option %s", file,
                                    expected[i]);
        }
out:
        df_buf_release(&text);
        dfi_names_release(&names);
        return r;
}

static int check_effective(const char *path, enum dfi_db_kind kind, const char *compression,
                           const struct df_rocksdb_options *options, struct df_error *err)
{
        char buffer[64], compress[64], files[32];
        const char *expected[] = {
                "max_write_buffer_number=2",
                "max_background_flushes=1",
                "paranoid_checks=true",
                "atomic_flush=false",
                "format_version=5",
                "stats_dump_period_sec=0",
                "avoid_flush_during_shutdown=true",
                "wal_recovery_mode=kPointInTimeRecovery",
                "force_consistency_checks=true",
                "comparator=leveldb.BytewiseComparator",
                "disable_auto_compactions=false",
                "max_background_compactions=1",
                "target_file_size_base=33554432",
                buffer,
                compress,
                files,
        };
        static const char *const levels[] = {
                "compaction_style=kCompactionStyleLevel",
                "level0_file_num_compaction_trigger=6",
                "level_compaction_dynamic_level_bytes=true",
                "max_bytes_for_level_base=268435456",
        };
        static const char *const universal[] = {
                "compaction_style=kCompactionStyleUniversal",
                "level0_file_num_compaction_trigger=24",
                "size_ratio=20",
                "min_merge_width=4",
                "max_size_amplification_percent=100",
                "level0_slowdown_writes_trigger=64",
                "level0_stop_writes_trigger=128",
        };
        int r;

        (void)snprintf(buffer, sizeof(buffer), "write_buffer_size=%" PRIu64,
                       write_buffer_bytes(options));
        (void)snprintf(compress, sizeof(compress), "compression=%s", compression);
        (void)snprintf(files, sizeof(files), "max_open_files=%d",
                       kind == DFI_DB_TASK ? DFI_TASK_OPEN_FILES : DFI_KV_OPEN_FILES);
        r = check_options(path, expected, sizeof(expected) / sizeof(expected[0]), err);
        if (r)
                return r;
        if (kind == DFI_DB_TASK)
                return check_options(path, universal, sizeof(universal) / sizeof(universal[0]),
                                     err);
        return check_options(path, levels, sizeof(levels) / sizeof(levels[0]), err);
}

/* Opening writes files, the LOG's heading among them: see set_options. */
static int check_room(const char *path, struct df_error *err)
{
        char parent[DFI_PATH_MAX], *slash;
        struct statvfs v;
        int r = dfi_state_path(parent, err, "%s", path);

        if (r)
                return r;
        r = statvfs(path, &v);
        if (r < 0 && errno == ENOENT) { /* to be created */
                slash = strrchr(parent, '/');
                if (slash)
                        slash[slash == parent] = '\0';
                r = statvfs(slash ? parent : ".", &v);
        }
        if (r < 0 || (uint64_t)v.f_bavail * v.f_frsize >= ROOM_MIN_BYTES)
                return 0; /* a path that cannot be is named by RocksDB */
        return df_fail(err, DF_ENOSPC, "%s: %llu bytes are free on the disk, %u are needed to open",
                       path, (unsigned long long)v.f_bavail * v.f_frsize, ROOM_MIN_BYTES);
}

int dfi_db_open(struct dfi_db *d, const char *path, enum dfi_db_kind kind, bool create,
                const struct df_rocksdb_options *options, struct df_error *err)
{
        char *message = NULL;
        size_t c = 0;

        *d = (struct dfi_db){.options = rocksdb_options_create()};
        set_options(d, kind, create, options);
        int r = check_room(path, err);
        if (r == 0)
                r = set_by_string(d, err);
        if (r)
                goto out;
        for (c = 0;; c++) {
                rocksdb_options_set_compression(d->options, compressions[c].id);
                d->db = rocksdb_open(d->options, path, &message);
                if (!message || !strstr(message, "not linked") ||
                    compressions[c].id == rocksdb_no_compression)
                        break;
                rocksdb_free(message);
                message = NULL;
        }
        if (message) {
                d->db = NULL;
                r = dfi_status_fail(err, message, "cannot open", path);
                goto out;
        }
        r = check_effective(path, kind, compressions[c].name, options, err);
        if (r)
                goto out;
        d->read = rocksdb_readoptions_create();
        rocksdb_readoptions_set_verify_checksums(d->read, 1);
        d->write = rocksdb_writeoptions_create();
        rocksdb_writeoptions_disable_WAL(d->write, kind == DFI_DB_TASK);
        rocksdb_writeoptions_set_sync(d->write, options && options->secrets);
out:
        if (r)
                dfi_db_close(d);
        return r;
}

void dfi_db_close(struct dfi_db *d)
{
        if (d->db)
                rocksdb_close(d->db);
        if (d->read)
                rocksdb_readoptions_destroy(d->read);
        if (d->write)
                rocksdb_writeoptions_destroy(d->write);
        if (d->options)
                rocksdb_options_destroy(d->options);
        if (d->cache)
                rocksdb_cache_destroy(d->cache);
        *d = (struct dfi_db){0};
}

uint64_t dfi_db_property(const struct dfi_db *d, const char *name)
{
        uint64_t v = 0;

        return rocksdb_property_int(d->db, name, &v) == 0 ? v : 0;
}

int dfi_db_checkpoint(const struct dfi_db *d, const char *path, struct df_error *err)
{
        char *message = NULL;
        rocksdb_checkpoint_t *c = rocksdb_checkpoint_object_create(d->db, &message);

        if (message)
                return dfi_status_fail(err, message, "cannot checkpoint into", path);
        rocksdb_checkpoint_create(c, path, 0, &message);
        rocksdb_checkpoint_object_destroy(c);
        if (message)
                return dfi_status_fail(err, message, "cannot checkpoint into", path);
        return 0;
}

int dfi_db_range(const struct dfi_db *d, const rocksdb_snapshot_t *snapshot, struct df_bytes from,
                 struct df_bytes to,
                 int (*fn)(void *arg, struct df_bytes key, struct df_bytes value,
                           struct df_error *err),
                 void *arg, struct df_error *err)
{
        rocksdb_readoptions_t *o = rocksdb_readoptions_create();
        rocksdb_iterator_t *it;
        char *message = NULL;
        int r = 0;

        rocksdb_readoptions_set_verify_checksums(o, 1);
        if (snapshot)
                rocksdb_readoptions_set_snapshot(o, snapshot);
        if (to.len) /* RocksDB then never reads the blocks behind the range */
                rocksdb_readoptions_set_iterate_upper_bound(o, (const char *)to.data, to.len);
        it = rocksdb_create_iterator(d->db, o);
        if (from.len)
                rocksdb_iter_seek(it, (const char *)from.data, from.len);
        else
                rocksdb_iter_seek_to_first(it);
        for (; r == 0 && rocksdb_iter_valid(it); rocksdb_iter_next(it)) {
                struct df_bytes key, value;
                key.data = (const uint8_t *)rocksdb_iter_key(it, &key.len);
                value.data = (const uint8_t *)rocksdb_iter_value(it, &value.len);
                r = fn(arg, key, value, err);
                if (r)
                        break;
        }
        /* A damaged block only ends the loop; without this question rows would be missing. */
        rocksdb_iter_get_error(it, &message);
        rocksdb_iter_destroy(it);
        rocksdb_readoptions_destroy(o);
        if (message && r >= 0)
                return dfi_status_fail(err, message, "cannot read a range", NULL);
        rocksdb_free(message);
        return r < 0 ? r : 0;
}
