/* view_test.h - what the tests of the serving view share: collections as a task would publish them,
 * and the view opened for them. */
#ifndef VIEW_TEST_H
#define VIEW_TEST_H

#include "unit.h"

#include <dirent.h>
#include <fcntl.h>

#include "jobs/api/view.h"
#include "state_test.h"

#define VT_MINUTE 60000LL
#define VT_EVENTS_GENERATION 7

struct vt_collection {
        struct df_source source;
        uint64_t k, epoch;
        struct df_buf payload, note;
        struct df_seal seal;
};

static inline struct df_source vt_source(const char *stream, uint64_t generation,
                                         uint32_t partition)
{
        struct df_source s = {.generation = generation, .partition = partition};

        (void)snprintf(s.stream, sizeof(s.stream), "%s", stream);
        return s;
}

/* Chained like a task's: c->k, parent and offsets follow `before` (NULL: the first one). */
static inline void vt_begin(struct vt_collection *c, const struct df_source *source,
                            const struct vt_collection *before)
{
        memset(c, 0, sizeof(*c));
        c->source = *source;
        c->k = before ? before->k + 1 : 1;
        c->epoch = 1;
        c->seal.watermark_ms = c->seal.final_through_ms = DF_TIME_MIN;
        c->seal.max_append_ms = c->seal.max_receive_ms = DF_TIME_MIN;
        if (before) {
                c->seal = before->seal;
                memset(c->seal.outcomes, 0, sizeof(c->seal.outcomes));
                c->seal.events = c->seal.records = c->seal.heartbeats = 0;
                c->seal.parent_k = before->k;
                c->seal.parent_digest = before->seal.digest;
                c->seal.from_offset = before->seal.to_offset;
        }
        c->seal.to_offset = c->seal.from_offset + 1;
        c->seal.digest = (struct df_hash128){c->k * 2654435761u, source->partition + 1};
        (void)snprintf(c->seal.binary_version, sizeof(c->seal.binary_version), "test");
}

static inline void vt_end(struct vt_collection *c, const struct ad_note *note)
{
        ad_wire_note(&c->note, note);
        assert_false(c->payload.failed || c->note.failed);
}

static inline int vt_add(struct ad_view *v, struct vt_collection *c, int64_t now_ms,
                         struct df_error *err)
{
        struct df_bytes payload = df_buf_bytes(&c->payload);
        struct df_collection add = {
                .origin = {.source = c->source, .k = c->k, .epoch = c->epoch},
                .seal = c->seal,
                .payloads = &payload,
                .count = payload.len ? 1 : 0,
        };

        add.seal.rows = (uint32_t)add.count;
        add.seal.note = df_buf_bytes(&c->note);
        return ad_view_add(v, &add, now_ms, err);
}

static inline void vt_release(struct vt_collection *c)
{
        df_buf_release(&c->payload);
        df_buf_release(&c->note);
}

struct vt_place {
        char root[256], dir[300], snapshot[300];
        struct ad_zones *zones;
        struct ad_view_options options;
};

static inline void vt_place_init(struct vt_place *p, const char *zone, uint32_t partitions)
{
        (void)temp_dir(p->root);
        (void)snprintf(p->dir, sizeof(p->dir), "%s/view", p->root);
        (void)snprintf(p->snapshot, sizeof(p->snapshot), "%s/view-snapshot", p->root);
        ok(ad_zones_create(NULL, &p->zones, err));
        p->options = (struct ad_view_options){
                .dir = p->dir,
                .snapshot_dir = p->snapshot,
                .groupings = &ad_groupings_default,
                .rollups_generation = 5,
                .events_generation = VT_EVENTS_GENERATION,
                .partitions = partitions,
                .cache_bytes = 4 << 20,
                .rebuildable = true,
        };
        ok(ad_zones_get(p->zones, zone, &p->options.account_zone, err));
}

static inline void vt_place_release(struct vt_place *p)
{
        ad_zones_destroy(p->zones);
        remove_dir(p->root);
}

static inline struct ad_view *vt_open(struct vt_place *p, enum ad_view_origin want)
{
        enum ad_view_origin origin;
        struct ad_view *v = NULL;
        char why[256];

        ok(ad_view_open(&p->options, AD_VIEW_KEPT, &v, &origin, why, err));
        if (origin != want)
                fail_msg("the view was opened as %d (%s), not %d", origin, why, want);
        return v;
}

static inline bool vt_same_cell(const struct ad_cell *a, const struct ad_cell *b)
{
        return a->impressions == b->impressions && a->clicks == b->clicks &&
               a->conversions == b->conversions && a->spend == b->spend && a->payout == b->payout &&
               a->value == b->value && a->invalid[0] == b->invalid[0] &&
               a->invalid[1] == b->invalid[1] && a->invalid[2] == b->invalid[2];
}

/* The store of a view becomes unreadable. */
static inline void vt_damage(const char *dir)
{
        char path[700];
        struct dirent **names;
        int n = scandir(dir, &names, NULL, NULL);

        assert_true(n > 0);
        for (int i = 0; i < n; i++) {
                (void)snprintf(path, sizeof(path), "%s/%s", dir, names[i]->d_name);
                if (strncmp(names[i]->d_name, "MANIFEST", 8) == 0) {
                        int fd = open(path, O_WRONLY | O_CLOEXEC);

                        assert_true(fd >= 0);
                        assert_int_equal(pwrite(fd, "\xff\xff\xff\xff\xff\xff\xff\xff", 8, 4), 8);
                        (void)close(fd);
                }
                free(names[i]);
        }
        free(names);
}

#endif
