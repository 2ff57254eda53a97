/* session_txn.c - the commit on a log with transactions (K3), and what is committed (K8, K9).
 *
 * The metadata of the committed offset names the checkpoint: "adtally1 <name> <SHA-256 of its
 * manifest>". It decides which checkpoint a takeover opens; the checkpoint's own position and its
 * seals in the outputs must agree with it, anything else is refused by name. In a run over a range
 * " rest" follows while another checkpoint must: who only sees what is committed knows by it when
 * the range is done.
 *
 * A transaction that did not commit is aborted and produced again from the same outbox, by this
 * owner (DF_EAGAIN) or, after a takeover that finds the checkpoint as a candidate, by the next one:
 * nothing of it was visible, so nothing is there twice.
 */
#include <stdio.h>
#include <stdlib.h>

#include "session_private.h"

#define METADATA_TAG "adtally1"
#define METADATA_REST " rest"
#define METADATA_SIZE (sizeof(METADATA_TAG) + DF_CKPT_NAME_MAX + 1 + 64 + 1 + sizeof(METADATA_REST))

static void format_metadata(const struct df_session *s, char ret[METADATA_SIZE])
{
        const struct df_ckpt_ref *ref = &s->ref;
        int n = snprintf(ret, METADATA_SIZE, METADATA_TAG " %s ", ref->name);

        for (size_t i = 0; i < sizeof(ref->digest); i++, n += 2)
                (void)snprintf(ret + n, METADATA_SIZE - (size_t)n, "%02x", ref->digest[i]);
        if (s->config.range.given && dfi_task_owes_cut(s->task))
                (void)snprintf(ret + n, METADATA_SIZE - (size_t)n, METADATA_REST);
}

bool df_session_metadata(const struct df_session *s, char ret[DF_TXN_METADATA_MAX + 1])
{
        if (s->ref.name[0] == '\0')
                return false;
        format_metadata(s, ret);
        return true;
}

static int hex_digit(char c)
{
        if (c >= '0' && c <= '9')
                return c - '0';
        return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool parse_metadata(const char *text, struct df_ckpt_ref *ret)
{
        const char *at = text + sizeof(METADATA_TAG), *space, *end;
        size_t n;

        if (strncmp(text, METADATA_TAG " ", sizeof(METADATA_TAG)) != 0)
                return false;
        space = strchr(at, ' ');
        n = space ? (size_t)(space - at) : 0;
        end = space ? space + 1 + strcspn(space + 1, " ") : text;
        if (n == 0 || n > DF_CKPT_NAME_MAX || end - space != 1 + 2 * (int)sizeof(ret->digest) ||
            (*end && strcmp(end, METADATA_REST) != 0))
                return false;
        memset(ret->name, 0, sizeof(ret->name));
        memcpy(ret->name, at, n);
        for (size_t i = 0; i < sizeof(ret->digest); i++) {
                int high = hex_digit(space[1 + 2 * i]), low = hex_digit(space[2 + 2 * i]);

                if (high < 0 || low < 0)
                        return false;
                ret->digest[i] = (uint8_t)(high << 4 | low);
        }
        return true;
}

bool df_committed_ref(const struct df_committed *c, struct df_ckpt_ref *ret)
{
        return c->any && parse_metadata(c->metadata, ret);
}

static uint64_t checkpoint_number(const struct df_committed *c)
{
        struct df_ckpt_ref ref;

        if (!df_committed_ref(c, &ref) || strncmp(ref.name, "ck-", 3) != 0)
                return 0;
        return strtoull(ref.name + 3, NULL, 10);
}

bool df_committed_done(const struct df_committed *c, uint64_t to, uint64_t *ret_k)
{
        const size_t n = sizeof(METADATA_REST) - 1, len = strlen(c->metadata);

        *ret_k = checkpoint_number(c);
        return *ret_k > 0 && c->offset >= to &&
               (len < n || strcmp(c->metadata + len - n, METADATA_REST) != 0);
}

void df_committed_text(const struct df_committed *c, char ret[DF_COMMITTED_TEXT_MAX])
{
        if (c->any)
                (void)snprintf(ret, DF_COMMITTED_TEXT_MAX, "%llu %s", (unsigned long long)c->offset,
                               c->metadata);
        else
                (void)snprintf(ret, DF_COMMITTED_TEXT_MAX, "none");
}

/* ---- open ---- */

/* `adtally recover` spoke of what was committed then. */
static bool told_to_rebuild(const struct df_session *s)
{
        char text[DF_COMMITTED_TEXT_MAX];

        if (!s->ports.recover_from_log || !s->ports.recover_of || !s->ports.recover_of[0])
                return s->ports.recover_from_log;
        df_committed_text(&s->committed, text);
        return strcmp(text, s->ports.recover_of) == 0;
}

static int refuse_offset(const struct df_session *s, const char *why, struct df_error *err)
{
        const struct df_source *me = &s->config.source;

        return df_fail(
                err, DF_ESCHEMA,
                "%s/%u: %s (committed offset %llu, metadata \"%.160s\"): put the offset back, "
                "or `adtally recover --partition %u --from log` (K8, K14)",
                me->stream, me->partition, why, (unsigned long long)s->committed.offset,
                s->committed.metadata, me->partition);
}

int dfi_txn_fence(struct df_session *s, struct df_ckpt_wanted *ret, struct df_error *err)
{
        int rc = dfi_session_step(s, "fence", NULL, err);

        *ret = (struct df_ckpt_wanted){0};
        if (rc == 0)
                rc = df_txn_takeover(s->ports.txn, &s->committed, err);
        if (rc < 0)
                return rc;
        s->fenced = true;
        ret->any = s->committed.any;
        s->ports.recover_from_log = ret->rebuild = told_to_rebuild(s);
        s->ports.recover_of = NULL;
        if (!ret->any || parse_metadata(s->committed.metadata, &ret->ref) || ret->rebuild)
                return 0;
        return refuse_offset(s, "the committed offset is not of this program", err);
}

int dfi_txn_check(struct df_session *s, const struct df_takeover *t, struct df_error *err)
{
        struct df_ckpt_ref named;

        s->candidate = t->candidate;
        if (t->fresh) /* settle_fresh asks whether it may be */
                return 0;
        if (!s->committed.any || !parse_metadata(s->committed.metadata, &named))
                return refuse_offset(s, "the committed offset is not of this program", err);
        if (t->candidate)
                return s->task->last.from_offset == s->committed.offset
                               ? 0
                               : refuse_offset(s, "the committed offset was moved", err);
        /* An older one, after `adtally recover --from checkpoint`: the seals must continue it. */
        if (strcmp(named.name, t->name) != 0)
                return 0;
        return df_task_position(s->task) == s->committed.offset
                       ? 0
                       : refuse_offset(s, "the committed offset was moved", err);
}

static bool as_committed(const struct df_session *s, const struct df_committed *now)
{
        return now->any == s->committed.any && now->offset == s->committed.offset &&
               strcmp(now->metadata, s->committed.metadata) == 0;
}

int dfi_txn_confirm(struct df_session *s, int refusal, struct df_error *err)
{
        const struct df_source *me = &s->config.source;
        struct df_committed now;
        struct df_error e = {0};
        int rc;

        if (!s->fenced || df_err_action(refusal) != DF_STOP || refusal == DF_EFENCED ||
            refusal == DF_ECRASH)
                return refusal;
        rc = df_txn_keep(s->ports.txn, &now, &e);
        if (rc < 0)
                return df_fail(err, rc, "%s", e.text);
        if (as_committed(s, &now))
                return refusal;
        return df_fail(err, DF_ELOST,
                       "%s/%u: somebody else committed offset %llu while it was taken over",
                       me->stream, me->partition, (unsigned long long)now.offset);
}

uint64_t dfi_txn_committed_k(const struct df_session *s)
{
        return s->ports.txn ? checkpoint_number(&s->committed) : 0;
}

/* ---- keep (K9) ---- */

int df_session_keep(struct df_session *s, struct df_error *err)
{
        struct df_committed now;
        int rc;

        if (s->broken.code)
                return df_fail(err, DF_ELOST, "%s", s->broken.text);
        rc = df_txn_keep(s->ports.txn, &now, err);
        if (rc < 0)
                return rc;
        if (as_committed(s, &now))
                return 0;
        return df_fail(err, DF_ELOST, "%s/%u: somebody else committed offset %llu in between (K9)",
                       s->config.source.stream, s->config.source.partition,
                       (unsigned long long)now.offset);
}

/* ---- commit ---- */

static int build(struct df_session *s, struct df_error *err)
{
        int rc = 0;

        dfi_records_clear(&s->out);
        for (uint32_t o = 0; rc == 0 && o < s->config.output_count; o++)
                rc = dfi_rebuild_output(s, o, err);
        return rc < 0 ? rc : dfi_reserve_appends(s, s->out.count, err);
}

static int produce_all(struct df_session *s, struct df_error *err)
{
        size_t from = 0, to = 0;
        int rc = 0;

        for (uint32_t o = 0; rc == 0 && o < s->config.output_count; o++, from = to) {
                const char *topic = s->config.outputs[o].topic;

                dfi_fill_appends(s, o, &to);
                rc = dfi_session_step(s, "produce", topic, err);
                if (rc == 0)
                        rc = df_txn_produce(s->ports.txn, topic, s->appends + from, to - from, err);
        }
        return rc;
}

static int run_transaction(struct df_session *s, const char *metadata, struct df_error *err)
{
        int rc = dfi_session_step(s, "begin", NULL, err);

        if (rc == 0)
                rc = df_txn_begin(s->ports.txn, err);
        if (rc < 0)
                return rc;
        rc = produce_all(s, err);
        if (rc == 0)
                rc = dfi_session_step(s, "offsets", NULL, err);
        if (rc == 0)
                rc = df_txn_offsets(s->ports.txn, df_task_position(s->task), metadata, err);
        if (rc == 0)
                rc = dfi_session_step(s, "commit", NULL, err);
        if (rc == 0)
                rc = df_txn_commit(s->ports.txn, err);
        if (rc < 0 && rc != DF_ELOST && rc != DF_EFENCED) {
                struct df_error aborted = {0};

                if (df_txn_abort(s->ports.txn, &aborted) < 0)
                        return df_fail(err, aborted.code, "%s", aborted.text);
        }
        return rc;
}

int dfi_transact(struct df_session *s, struct df_error *err)
{
        char metadata[METADATA_SIZE];
        size_t n = 0;
        int rc = build(s, err);

        if (rc < 0)
                return rc;
        format_metadata(s, metadata);
        rc = run_transaction(s, metadata, err);
        if (rc < 0) {
                (void)df_wrap(err, "checkpoint %llu of %s/%u",
                              (unsigned long long)df_task_k(s->task), s->config.source.stream,
                              s->config.source.partition);
                return rc;
        }
        for (uint32_t o = 0; o < s->config.output_count; o++)
                dfi_note_appended(s, o, &n);
        s->committed.any = true;
        s->committed.offset = df_task_position(s->task);
        (void)snprintf(s->committed.metadata, sizeof(s->committed.metadata), "%s", metadata);
        df_task_committed(s->task);
        return 0;
}
