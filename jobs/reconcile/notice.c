/* notice.c - what the leader works on, for those who stand by (share.h).
 *
 *   adtally-work 1
 *   leader r0
 *   run 5be32996a937c747
 *   prices 3
 *   corrections 17
 *   chain 998feed97330bb0c
 *   and what the file RUN of the chain holds */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "df/kafka.h"
#include "df/trace.h"
#include "jobs/reconcile/share.h"

#define FILE_NAME "reconcile-work"
#define FILE_MAX (1u << 16)
#define HEAD "adtally-work 1\n"
#define LOOK_MS 1000

/* ---- the text ---- */

void ad_notice_put(const struct ad_notice *n, struct df_buf *b)
{
        df_buf_printf(b, HEAD "leader %s\nrun %s\nprices %u\ncorrections %" PRIu64 "\nchain %s\n",
                      n->leader, n->run, n->price_version, n->corrections_to, n->work.id);
        ad_replay_put(&n->work, b);
}

/* The value of the line "name value", and behind it; NULL: another line, or too long a value. */
static char *take_line(char *at, const char *name, char *ret, size_t size)
{
        size_t n = strlen(name), len = strcspn(at, "\n");

        if (len <= n + 1 || strncmp(at, name, n) != 0 || at[n] != ' ' || !at[len] ||
            len - n - 1 >= size)
                return NULL;
        memcpy(ret, at + n + 1, len - n - 1);
        ret[len - n - 1] = '\0';
        return at + len + 1;
}

static bool parse(char *text, struct ad_notice *n)
{
        char prices[16], corrections[24], chain[AD_RUN_ID_MAX + 1];
        char *at = text;

        if (strncmp(at, HEAD, sizeof(HEAD) - 1) != 0)
                return false;
        at += sizeof(HEAD) - 1;
        if (!(at = take_line(at, "leader", n->leader, sizeof(n->leader))) ||
            !(at = take_line(at, "run", n->run, sizeof(n->run))) ||
            !(at = take_line(at, "prices", prices, sizeof(prices))) ||
            !(at = take_line(at, "corrections", corrections, sizeof(corrections))) ||
            !(at = take_line(at, "chain", chain, sizeof(chain))))
                return false;
        n->price_version = (uint32_t)strtoul(prices, NULL, 10);
        n->corrections_to = strtoull(corrections, NULL, 10);
        return ad_replay_parse(&ad_run_reconcile, chain, at, &n->work);
}

int ad_notice_parse(char *text, struct ad_notice *ret, struct df_error *err)
{
        *ret = (struct ad_notice){.work = {.lock_fd = -1}};
        return parse(text, ret) ? 0
                                : df_fail(err, DF_EPARSE,
                                          "what the leader works on cannot be read: "
                                          "%s in --checkpoint-store is damaged, or of another "
                                          "version: install the leader's here",
                                          FILE_NAME);
}

int ad_notice_check(const struct ad_notice *n, const char *version, uint32_t price_version,
                    uint64_t config, struct df_error *err)
{
        if (strcmp(n->work.version, version) != 0)
                return df_fail(err, DF_ESCHEMA,
                               "%s leads with version %s, this is %s: no help from here; install "
                               "the same",
                               n->leader, n->work.version, version);
        if (n->price_version != price_version)
                return df_fail(err, DF_ESCHEMA,
                               "%s leads with price table %u, the newest here is %u: no help from "
                               "here; make DATA/config/prices the same",
                               n->leader, n->price_version, price_version);
        if (n->work.config != config)
                return df_fail(err, DF_ESCHEMA,
                               "%s leads with other settings that shape the bill (%016" PRIx64
                               ", here %016" PRIx64
                               "): no help from here; compare `adtally config` of both",
                               n->leader, n->work.config, config);
        return 0;
}

/* ---- the file ---- */

int ad_notice_place(const struct df_config *c, const struct df_log *log, char *ret,
                    struct df_error *err)
{
        const char *store = df_config_text(c, "checkpoint-store");

        ret[0] = '\0';
        if (!store || !df_kafka_is(log))
                return 0;
        if (snprintf(ret, PATH_MAX, "%s/" FILE_NAME, store) < PATH_MAX)
                return 0;
        return df_fail(err, DF_EINVAL, "--checkpoint-store %s: the path is too long", store);
}

int ad_notice_read(const char *path, struct df_buf *ret, struct df_error *err)
{
        int rc;

        df_buf_clear(ret);
        rc = df_read_file(path, FILE_MAX, ret, err);
        df_put_u8(ret, 0);
        return rc == 0 ? df_buf_check(ret, err) : rc;
}

/* ---- the leader ---- */

/* -1: it cannot be read. */
static int is_ours(const struct ad_share *s)
{
        struct df_buf b = {0};
        int rc = ad_notice_read(s->path, &b, NULL);
        bool same = rc == 0 && df_bytes_eq(df_buf_bytes(&b), df_buf_bytes(&s->text));

        df_buf_release(&b);
        return rc == 0 || rc == DF_ENOENT ? same : -1;
}

void ad_share_begin(struct ad_share *s, const struct ad_notice *n)
{
        df_buf_clear(&s->text);
        s->looked_ms = df_monotonic_ms() - LOOK_MS;
        s->mute = false;
        if (!s->path[0])
                return;
        ad_notice_put(n, &s->text);
        df_put_u8(&s->text, 0); /* as it is read */
}

static void write_notice(struct ad_share *s)
{
        struct df_error err = {0};
        int rc = df_buf_check(&s->text, &err);

        if (rc == 0)
                rc = df_write_file(s->path, df_bytes(s->text.data, s->text.len - 1), false, &err);
        if (rc < 0 && !s->mute)
                df_trace(DF_WARN, "share", "code=%s: %s; nobody helps", df_err_code(rc), err.text);
        s->mute = rc < 0;
}

void ad_share_follow(struct ad_share *s, bool leads)
{
        int64_t now = df_monotonic_ms();

        if (!s->path[0] || !leads || now - s->looked_ms < LOOK_MS)
                return;
        s->looked_ms = now;
        if (is_ours(s) <= 0)
                write_notice(s);
}

void ad_share_clear(const struct ad_share *s)
{
        if (s->path[0] && unlink(s->path) < 0 && errno != ENOENT)
                df_trace(DF_WARN, "share", "remove %s: %s", s->path, strerror(errno));
}

void ad_share_end(struct ad_share *s)
{
        if (s->path[0] && is_ours(s) > 0)
                ad_share_clear(s);
        df_buf_release(&s->text);
}
