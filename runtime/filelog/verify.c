/* verify.c - read everything that is durable, and check it. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "filelog_private.h"

#define POLL_MAX 1024

int df_filelog_verify(struct df_log *base, const char *topic, uint32_t partition,
                      void (*progress)(void *arg, uint64_t done_bytes, uint64_t all_bytes),
                      void *arg, uint64_t *ret_records, struct df_error *err)
{
        struct df_log_reader *reader = NULL;
        struct df_record *records = NULL;
        struct dfi_seg_list list = {0};
        uint64_t first, end, at, all_bytes = 0;
        struct dfi_reader *r;
        size_t n;
        int rc = dfi_bounds(base, topic, partition, &first, &end, err);

        if (rc == 0)
                rc = dfi_reader_open(base, topic, partition, first, NULL, &reader, err);
        if (rc)
                goto out;
        r = dfi_reader_of(reader);
        rc = dfi_seg_list(&r->part, &list, err);
        for (size_t i = 0; i < list.count; i++)
                all_bytes += list.items[i].bytes;
        records = malloc(POLL_MAX * sizeof(*records));
        if (rc == 0 && !records)
                rc = df_fail(err, DF_ENOMEM, "no memory to verify topic %s", topic);
        for (at = first; rc == 0 && at < end; at = records[n - 1].offset + 1) {
                rc = dfi_poll(reader, records, POLL_MAX, &n, err);
                if (rc)
                        break;
                if (n == 0 || records[0].offset != at) {
                        rc = df_fail(err, DF_ECORRUPT,
                                     "topic %s partition %u: offset %" PRIu64 " is missing", topic,
                                     partition, at);
                        break;
                }
                if (progress) {
                        uint64_t done = r->pos;

                        for (size_t i = 0; i < list.count && list.items[i].base < r->seg_base; i++)
                                done += list.items[i].bytes;
                        progress(arg, done < all_bytes ? done : all_bytes, all_bytes);
                }
        }
        if (rc == 0)
                *ret_records = end - first;
out:
        free(records);
        dfi_seg_list_release(&list);
        df_log_reader_close(reader);
        return rc;
}
