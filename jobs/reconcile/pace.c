/* pace.c - giving way while realtime has more to do than it can (job.h). */
#include <ctype.h>
#include <limits.h>
#include <stdlib.h>

#include "jobs/common/instances.h"
#include "jobs/reconcile/job.h"

#define FILE_MAX (8u << 20)
#define LOOK_EVERY_MS 500
#define HOLD_MAX_MS 30000
#define FREE_MS 2000

/* "name{labels} value" of this name: where the labels begin. */
static const char *sample(const char *line, const char *name)
{
        size_t n = strlen(name);

        return strncmp(line, name, n) == 0 && line[n] == '{' ? line + n : NULL;
}

static double value_of(const char *line)
{
        const char *end = strchr(line, '}');

        return end ? strtod(end + 1, NULL) : 0;
}

static const char *next_line(const char *line)
{
        const char *end = strchr(line, '\n');

        return end ? end + 1 : NULL;
}

/* Whether a task, by its labels, has records before it. */
static bool has_records(const char *text, const char *labels)
{
        size_t n = strcspn(labels, "}");

        for (const char *line = text; line; line = next_line(line)) {
                const char *at = sample(line, "adtally_task_lag_records");

                if (at && strncmp(at, labels, n + 1) == 0)
                        return value_of(at) > 0;
        }
        return false;
}

bool ad_pace_behind(const char *text, double lag_max_s)
{
        for (const char *line = text; line; line = next_line(line)) {
                const char *at = sample(line, "adtally_watermark_lag_seconds");

                if (at && value_of(at) > lag_max_s && has_records(text, at))
                        return true;
        }
        return false;
}

/* One that is gone or hangs does not become faster by our waiting. */
static bool instance_behind(const struct ad_pace *p, const char *instance)
{
        char path[PATH_MAX];
        struct df_buf b = {0};
        struct ad_job_stamp stamp;
        bool behind = false;
        int rc = ad_instance_file(p->data, instance, path, NULL);

        if (rc == 0)
                rc = df_read_file(path, FILE_MAX, &b, NULL);
        df_put_u8(&b, 0);
        if (rc == 0 && !b.failed && ad_job_stamp_read((const char *)b.data, &stamp) &&
            ad_job_stamp_alive(&stamp, df_wall_ms()))
                behind = ad_pace_behind((const char *)b.data, (double)p->lag_max_ms / 1000);
        df_buf_release(&b);
        return behind;
}

static bool is_behind(const struct ad_pace *p)
{
        struct ad_instances all;
        bool behind = false;

        if (ad_instances_list(p->data, &all, NULL) < 0)
                return false;
        for (size_t i = 0; i < all.count; i++)
                behind |= instance_behind(p, all.names[i]);
        return behind;
}

bool ad_pace_hold(struct ad_pace *p)
{
        int64_t now = df_monotonic_ms();

        if (now - p->looked_ms < LOOK_EVERY_MS)
                return p->held;
        p->looked_ms = now;
        if (p->held && now - p->held_ms >= HOLD_MAX_MS) {
                p->held = false;
                p->freed_ms = now;
        } else if (!p->held && now - p->freed_ms >= FREE_MS) {
                p->held = is_behind(p);
                p->held_ms = now;
        } else if (p->held) {
                p->held = is_behind(p);
        }
        return p->held;
}
