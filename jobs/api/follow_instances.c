/* follow_instances.c - which partitions nobody counts, from the status files of the realtime
 * processes. */
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "df/trace.h"
#include "jobs/api/follow_private.h"
#include "jobs/common/instances.h"
#include "jobs/common/settings.h"

#define STATUS_BYTES_MAX (8u << 20)

/* The number that follows text in line, which ends at end. */
static bool number_after(const char *line, const char *end, const char *text, uint64_t *ret)
{
        size_t n = strlen(text);
        const char *at = memmem(line, (size_t)(end - line), text, n);
        uint64_t v = 0;

        if (!at || at + n >= end || at[n] < '0' || at[n] > '9')
                return false;
        for (at += n; at < end && *at >= '0' && *at <= '9'; at++)
                v = v * 10 + (uint64_t)(*at - '0');
        *ret = v;
        return true;
}

/* A line of this metric about `events`; the partition. */
static bool is_about(const char *line, const char *end, const char *metric, uint64_t *ret)
{
        static const char stream[] = "stream=\"" AD_TOPIC_EVENTS "\"";
        size_t n = strlen(metric);

        return (size_t)(end - line) > n && memcmp(line, metric, n) == 0 &&
               memmem(line, (size_t)(end - line), stream, strlen(stream)) &&
               number_after(line, end, "partition=\"", ret) && *ret < DF_PARTITIONS_MAX;
}

void adi_instances_add(struct adi_instances *s, struct df_bytes text, bool alive)
{
        const char *at = (const char *)text.data, *end = at + text.len;
        struct adi_said *said = alive ? &s->alive : &s->gone;
        uint64_t v;

        s->count++;
        s->alive_count += alive;
        while (at && at < end) {
                const char *line = at, *stop = memchr(at, '\n', (size_t)(end - at));

                if (!stop)
                        stop = end;
                at = stop + 1;
                if (*line == '#' && number_after(line, stop, "written_ms=", &v) &&
                    (int64_t)v > s->seen_ms)
                        s->seen_ms = (int64_t)v;
                if (is_about(line, stop, "adtally_partition_refused{", &v)) {
                        said->refuses[v] = true;
                } else if (is_about(line, stop, "adtally_task_running{", &v)) {
                        s->known[v] = true;
                        said->runs[v] |= stop - line > 2 && memcmp(stop - 2, " 1", 2) == 0;
                }
        }
}

void adi_instances_missing(const struct adi_instances *s, struct ad_outside *ret)
{
        const struct adi_said *said = s->alive_count ? &s->alive : &s->gone;

        ret->missing_count = 0;
        ret->realtime_seen_ms = s->seen_ms;
        for (uint32_t p = 0; p < DF_PARTITIONS_MAX; p++)
                if (!said->runs[p] &&
                    (said->refuses[p] || (s->count > 1 && s->alive_count > 0 && s->known[p])))
                        ret->missing[ret->missing_count++] = p;
}

/* Without a file no realtime process ever ran here: nothing is known to be missing. */
void adi_look_instances(const char *data_dir, struct ad_outside *ret)
{
        struct ad_instances all;
        struct adi_instances said = {0};
        struct df_buf text = {0};
        struct df_error err = {0};
        int64_t now = df_wall_ms();

        if (ad_instances_list(data_dir, &all, &err) < 0) { /* what was known stays */
                df_trace(DF_WARN, "follow", "status files: %s", err.text);
                return;
        }
        for (size_t i = 0; i < all.count; i++) {
                struct ad_job_stamp stamp;
                char path[PATH_MAX];

                df_buf_clear(&text);
                if (ad_instance_file(data_dir, all.names[i], path, &err) < 0 ||
                    df_read_file(path, STATUS_BYTES_MAX, &text, &err) < 0)
                        continue; /* removed just now */
                df_put_u8(&text, 0);
                if (df_buf_check(&text, &err) < 0)
                        continue; /* no memory: it is read again in a second */
                adi_instances_add(&said, df_bytes(text.data, text.len - 1),
                                  ad_job_stamp_read((const char *)text.data, &stamp) &&
                                          ad_job_stamp_alive(&stamp, now));
        }
        df_buf_release(&text);
        adi_instances_missing(&said, ret);
}
