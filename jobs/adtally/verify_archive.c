/* verify_archive.c - the segments a manifest vouches for, in a copy of the archive (verify.h).
 *
 * The chain of a partition's last segment is the hash of all entries up to it, so one comparison
 * says that the copy lists the segments that were signed; each is then read against its hash. What
 * the copy holds beyond them does not matter. */
#include <inttypes.h>
#include <stdlib.h>

#include "df/archive.h"
#include "jobs/adtally/verify.h"

struct walk {
        struct ad_verify *v;
        struct df_buf segment;
        struct df_progress progress;
};

/* What a copy can have wrong; anything else is no answer. */
static bool is_damage(int rc)
{
        return rc == DF_ECORRUPT || rc == DF_ENOENT || rc == DF_EPARSE || rc == DF_ESCHEMA ||
               rc == DF_EOFFSET;
}

static int read_segments(struct walk *w, const struct df_archive_manifest *m, uint32_t count,
                         struct df_error *err)
{
        for (uint32_t i = 0; i < count; i++) {
                struct df_error one = {0};
                int rc;

                if (df_process_stopping())
                        return df_fail(err, DF_EAGAIN, "stopped before the end");
                rc = df_archive_segment_read(w->v->objects, &m->id, &m->entries[i], &w->segment,
                                             &one);
                if (rc < 0 && !is_damage(rc)) {
                        *err = one;
                        return rc;
                }
                if (rc < 0)
                        ad_verify_no(w->v, "segment: %s", one.text);
                w->v->segments++;
                w->v->bytes += m->entries[i].bytes;
                df_progress_show(&w->progress, w->v->bytes);
        }
        return 0;
}

/* Where the copy's list first differs from the one that was signed, if that is known. */
static void tell_difference(struct ad_verify *v, const struct df_archive_manifest *m,
                            const struct ad_manifest_part *p)
{
        uint32_t partition = m->id.partition;
        const char *topic = m->id.topic;

        if (m->count < p->segments) {
                ad_verify_no(v,
                             "archive of %s/%u: its manifest is cut: %u segments, and %u "
                             "were signed, up to offset %" PRIu64,
                             topic, partition, m->count, p->segments, p->archived_to);
                return;
        }
        for (uint32_t i = 0; p->listed && i < p->segments; i++) {
                const struct ad_manifest_segment *s = &p->listed[i];
                const struct df_archive_entry *e = &m->entries[i];
                char name[DF_ARCHIVE_NAME_MAX];

                if (e->first == s->from && e->end == s->to &&
                    memcmp(e->sha256, s->sha256, sizeof(e->sha256)) == 0)
                        continue;
                df_archive_segment_name(&m->id, s->from, name);
                ad_verify_no(v,
                             "archive of %s/%u: its manifest has another %s than was "
                             "signed",
                             topic, partition, name);
                return;
        }
        ad_verify_no(v,
                     "archive of %s/%u: the chain of its manifest at segment %u is not the "
                     "one that was signed: other segments",
                     topic, partition, p->segments);
}

static int check_part(struct walk *w, const struct ad_manifest_source *source, uint32_t partition,
                      struct df_error *err)
{
        const struct ad_manifest_part *p = &source->parts[partition];
        struct df_segment_id id = {.generation = source->generation, .partition = partition};
        struct df_archive_manifest m = {0};
        struct df_error one = {0};
        int rc;

        if (p->segments == 0)
                return 0;
        memcpy(id.topic, source->topic.data, source->topic.len);
        rc = df_archive_manifest_read(w->v->objects, &id, &m, &one);
        if (rc < 0 && !is_damage(rc))
                *err = one;
        else if (rc < 0)
                ad_verify_no(w->v, "archive of %s/%u: %s", id.topic, partition, one.text);
        else if (m.count < p->segments || m.entries[p->segments - 1].end != p->archived_to ||
                 memcmp(m.entries[p->segments - 1].chain, p->chain, sizeof(p->chain)) != 0)
                tell_difference(w->v, &m, p);
        else
                rc = read_segments(w, &m, p->segments, err);
        df_archive_manifest_release(&m);
        return is_damage(rc) ? 0 : rc;
}

/* The log over the copy takes the last generation it finds: there must be no other. */
static int on_partition(void *arg, const struct df_segment_id *id)
{
        struct ad_verify *v = arg;

        for (size_t i = 0; i < v->manifest.source_count; i++) {
                const struct ad_manifest_source *s = &v->manifest.sources[i];

                if (!df_bytes_eq(df_bytes_str(id->topic), s->topic) ||
                    id->generation == s->generation)
                        continue;
                ad_verify_no(v,
                             "archive: it also holds generation %016" PRIx64
                             " of %s; copy the folder of %016" PRIx64 " alone",
                             id->generation, id->topic, s->generation);
                return 1;
        }
        return 0;
}

int ad_verify_archive(struct ad_verify *v, struct df_error *err)
{
        struct walk w = {.v = v};
        int rc = df_archive_list(v->objects, on_partition, v, err);

        if (rc < 0 || v->no)
                return rc < 0 ? rc : 0;
        df_progress_start(&w.progress, "segments", "bytes", 0, df_config_bool(v->config, "quiet"));
        for (size_t i = 0; rc == 0 && i < v->manifest.source_count; i++)
                for (uint32_t p = 0; rc == 0 && p < v->manifest.sources[i].part_count; p++)
                        rc = check_part(&w, &v->manifest.sources[i], p, err);
        df_progress_end(&w.progress, v->bytes);
        df_buf_release(&w.segment);
        return rc;
}
