/* archive.c - `adtally archive`: what the raw archive holds, and whether it is whole (A1, A2). */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "df/archive.h"
#include "df/sha256.h"
#include "jobs/adtally/command.h"
#include "jobs/common/archive.h"
#include "jobs/common/times.h"

static const char usage[] =
        "adtally archive: the raw archive, also a copy of one\n"
        "Usage: adtally archive list [--topic T] [--partition N] [SETTINGS]\n"
        "       adtally archive verify [--topic T] [--partition N] [SETTINGS]\n\n"
        "list says what each partition holds, a line a segment, by the manifests alone; verify "
        "reads all\n"
        "of it: the chain of each manifest, and each segment's hash, frames, records and counts. "
        "Every\n"
        "damage is named; the exit code is 65 if there was any. The archive is that of --archive "
        "(default\n"
        "dir:DATA/archive); nothing needs to run.\n";
static const struct df_setting own[] = {
        {"topic", DF_TEXT, NULL, .arg = "T", .help = "of this topic alone"},
        {"partition", DF_INTEGER, "-1", -1, DF_PARTITIONS_MAX - 1, .arg = "N",
         .help = "of this partition alone"},
};
static const char *const shared[] = {"data", "archive", "s3-endpoint", "s3-region", "quiet", NULL};

struct walk {
        const struct df_config *config;
        struct df_objects *objects;
        bool verify;
        struct df_buf segment;
        struct df_progress progress;
        uint64_t segments, records, bytes;
        struct df_error *first; /* what is returned: the first damage */
};

static void damaged(struct walk *w, const struct df_error *err)
{
        if (w->first->code == 0)
                *w->first = *err;
        else
                (void)ad_command_fail("archive", err);
}

static int verify_segment(struct walk *w, const struct df_segment_id *id,
                          const struct df_archive_entry *e, struct df_error *err)
{
        char name[DF_ARCHIVE_NAME_MAX];
        struct df_segment_reader *r = NULL;
        struct df_segment_source source;
        struct df_bytes bytes;
        int rc = df_archive_segment_read(w->objects, id, e, &w->segment, err);

        df_archive_segment_name(id, e->first, name);
        bytes = df_buf_bytes(&w->segment);
        source = df_segment_memory(name, &bytes);
        if (rc == 0)
                rc = df_segment_open(&source, &r, err);
        if (rc == 0)
                rc = df_segment_verify(r, err);
        df_segment_close(r);
        return rc;
}

static void print_entry(const struct df_segment_id *id, const struct df_archive_entry *e)
{
        char hash[DF_SHA256_HEX_SIZE], from[AD_TIME_TEXT_MAX], to[AD_TIME_TEXT_MAX];

        df_hex(e->sha256, sizeof(e->sha256), hash);
        (void)ad_time_text(e->min_append_ms, from);
        (void)ad_time_text(e->max_append_ms, to);
        printf("%s/%u %016" PRIx64 " offsets %" PRIu64 " to %" PRIu64 ", %" PRIu64
               " records appended %s to %s, %" PRIu64 " bytes, sha256 %s\n",
               id->topic, id->partition, id->generation, e->first, e->end, e->records, from, to,
               e->bytes, hash);
}

static int on_partition(void *arg, const struct df_segment_id *id)
{
        struct walk *w = arg;
        const char *topic = df_config_text(w->config, "topic");
        int64_t partition = df_config_integer(w->config, "partition");
        struct df_archive_manifest m = {0};
        struct df_error err = {0};
        int rc;

        if ((topic && strcmp(topic, id->topic) != 0) ||
            (partition >= 0 && partition != (int64_t)id->partition))
                return 0;
        rc = df_archive_manifest_read(w->objects, id, &m, &err);
        if (rc < 0)
                damaged(w, &err);
        for (uint32_t i = 0; rc == 0 && i < m.count && !df_process_stopping(); i++) {
                const struct df_archive_entry *e = &m.entries[i];
                struct df_error one = {0};

                if (!w->verify)
                        print_entry(id, e);
                else if (verify_segment(w, id, e, &one) < 0)
                        damaged(w, &one);
                w->segments++;
                w->records += e->records;
                w->bytes += e->bytes;
                if (w->verify)
                        df_progress_show(&w->progress, w->bytes);
        }
        df_archive_manifest_release(&m);
        return df_process_stopping() ? 1 : 0;
}

static int run(struct walk *w, struct df_error *err)
{
        int rc = ad_archive_open_store(w->config, &w->objects, err);

        if (rc < 0)
                return rc;
        if (w->verify)
                df_progress_start(&w->progress, "verify", "bytes", 0,
                                  df_config_bool(w->config, "quiet"));
        rc = df_archive_list(w->objects, on_partition, w, err);
        if (w->verify)
                df_progress_end(&w->progress, w->bytes);
        df_objects_close(w->objects);
        df_buf_release(&w->segment);
        if (rc > 0)
                return df_fail(err, DF_EAGAIN, "stopped before the end");
        if (rc < 0 || err->code != 0)
                return rc < 0 ? rc : err->code;
        printf("%" PRIu64 " segments, %" PRIu64 " records, %" PRIu64 " bytes%s\n", w->segments,
               w->records, w->bytes, w->verify ? ": intact" : "");
        return 0;
}

int ad_command_archive(int argc, char **argv)
{
        struct df_error err = {0};
        struct walk w = {.first = &err};
        struct ad_command_line l;
        int code, rc;

        if (!ad_command_read(argc, argv, usage, own, sizeof(own) / sizeof(own[0]), shared, &l,
                             &code))
                return code;
        w.config = l.config;
        w.verify = l.arg_count == 1 && strcmp(l.args[0], "verify") == 0;
        if (l.arg_count != 1 || (!w.verify && strcmp(l.args[0], "list") != 0)) {
                ad_command_release(&l);
                return ad_command_usage("archive", "expected `list` or `verify`");
        }
        rc = df_process_start("archive", false, &err);
        if (rc == 0)
                rc = run(&w, &err);
        ad_command_release(&l);
        return rc < 0 ? ad_command_fail("archive", &err) : DF_EXIT_OK;
}
