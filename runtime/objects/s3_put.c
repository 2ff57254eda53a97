/* s3_put.c - the two conditional puts on S3, and what became of one whose answer was lost.
 *
 * Each put carries a mark of its own as metadata: "a-<random>" of put_absent, "m-<random>" of
 * put_match, the same on all its tries. So a condition that fails because an earlier try of the
 * same put was done (its answer was lost, or a proxy sent it twice) is told apart from
 * another writer's object with the same bytes: the object has our mark.
 *
 * The object has another mark, and a try of ours is in doubt: it may have been stored and then
 * replaced by whoever read it. After a put_absent whose place is taken by another put_absent that
 * cannot be (nothing replaces by put_absent; only a remove in between could do it, and what
 * retention removes nobody is still writing): DF_EEXIST. In all other cases: DF_EDOUBT.
 */
#include "objects_private.h"

#include <stdio.h>

#define RANDOM_BYTES 16
#define MARK_MAX (2 + 2 * RANDOM_BYTES + 1)

struct put {
        struct dfi_s3 *s;
        const char *name;
        struct df_bytes data;
        const struct df_object_version *was; /* NULL: put_absent */
        char mark[MARK_MAX];
        struct df_object_version version; /* of what is stored; no text: not asked for */
        bool in_doubt;                    /* a try may have been done */
};

enum found { FOUND_NONE, FOUND_OURS, FOUND_SAME, FOUND_ABSENT, FOUND_OTHER };

/* What is there. FOUND_SAME: the version to be replaced; FOUND_ABSENT: of another put_absent. */
static int look(struct put *p, enum found *ret, struct df_error *err)
{
        struct dfi_s3_call c = {.method = "HEAD", .name = p->name, .answer_max = DFI_S3_ERROR_MAX};
        int rc = dfi_s3_call(p->s, &c, err);
        const char *mark = c.header[DFI_S3_MARK].value;
        struct df_object_version now;

        if (rc == 0 && c.status == 404)
                *ret = FOUND_NONE;
        else if (rc == 0 && c.status != 200)
                rc = dfi_s3_fail(p->s, &c, err);
        else if (rc == 0)
                rc = dfi_s3_version(p->s, &c, &now, err);
        if (rc == 0 && c.status == 200) {
                if (strcmp(mark, p->mark) == 0) {
                        *ret = FOUND_OURS;
                        p->version = now;
                } else if (p->was && strcmp(now.text, p->was->text) == 0) {
                        *ret = FOUND_SAME;
                } else {
                        *ret = strncmp(mark, "a-", 2) == 0 ? FOUND_ABSENT : FOUND_OTHER;
                }
        }
        dfi_s3_release(&c);
        return rc;
}

static int doubt(const struct put *p, const char *why, struct df_error *err)
{
        return df_fail(err, DF_EDOUBT,
                       "%s: a put of %s may have been stored: %s. Ask with get before it is "
                       "repeated",
                       p->s->place, p->name, why);
}

static int exists(const struct put *p, const char *text, struct df_error *err)
{
        return df_fail(err, DF_EEXIST, "%s: %s: %s", p->s->place, p->name, text);
}

/* The condition did not hold (412, or 404 of put_match). *ret_again: it does now. */
static int refused(struct put *p, bool *ret_again, struct df_error *err)
{
        enum found found = FOUND_NONE;
        int rc = look(p, &found, err);

        if (rc != 0) {
                char why[200];

                (void)snprintf(why, sizeof(why), "%.190s", err ? err->text : "no answer");
                return p->in_doubt ? doubt(p, why, err) : rc;
        }
        if (found == FOUND_OURS)
                return 0;
        if (p->in_doubt && (p->was ? found != FOUND_SAME : found == FOUND_OTHER))
                return doubt(p, "its answer was lost, and it is another version now", err);
        if (!p->was && found != FOUND_NONE)
                return exists(p, "there is one already", err);
        if (p->was && found != FOUND_SAME)
                return exists(p, found == FOUND_NONE ? "it is gone" : "it is another version now",
                              err);
        *ret_again = true; /* removed meanwhile, or changed back */
        (void)df_fail(err, DF_EAGAIN, "%s: %s: the condition failed, and holds now", p->s->place,
                      p->name);
        return 0;
}

/* After the last try, which brought no answer. */
static int give_up(struct put *p, struct df_error *last, struct df_error *err)
{
        enum found found = FOUND_NONE;

        if (!p->in_doubt) {
                return df_fail(err, DF_EAGAIN, "%s: nothing was stored after %d tries: %s", p->name,
                               DFI_S3_TRIES, last->text);
        }
        if (look(p, &found, NULL) == 0 && found == FOUND_OURS)
                return 0;
        return doubt(p, last->text, err);
}

/* One try's answer. 0 with *ret_again false: it is stored. */
static int judge(struct put *p, const struct dfi_s3_call *c, bool *ret_again, struct df_error *err)
{
        int rc = 0;

        if (c->status == 200 || c->status == 201 || c->status == 204) {
                if (c->header[DFI_S3_ETAG].value[0])
                        rc = dfi_s3_version(p->s, c, &p->version, err);
                return rc;
        }
        if (c->status == 412)
                return refused(p, ret_again, err);
        if (c->status == 404 && p->was && strcmp(c->code, "NoSuchBucket") != 0)
                return refused(p, ret_again, err);
        /* 503 and 429 say that nothing was done, 409 that others were at it; of the rest one does
         * not know. */
        if (dfi_s3_passing(c->status) || c->status == 409) {
                if (c->status != 503 && c->status != 429 && c->status != 409)
                        p->in_doubt = true;
                (void)dfi_s3_fail(p->s, c, err);
                *ret_again = true;
                return 0;
        }
        return dfi_s3_fail(p->s, c, err);
}

/* No further try. A refusal of this one says nothing about an earlier one. */
static int final(const struct put *p, int rc, const struct df_error *last, struct df_error *err)
{
        if (p->in_doubt && rc != DF_EEXIST && rc != DF_EDOUBT)
                return doubt(p, last->text, err);
        return df_fail(err, rc, "%s", last->text);
}

/* last keeps the text of the last failure while it is repeated. */
static int put(struct put *p, const char *condition, struct df_error *err)
{
        char mark[sizeof(DFI_S3_MARK_NAME) + 2 + MARK_MAX];
        struct dfi_s3_call c = {
                .method = "PUT",
                .name = p->name,
                .headers = {condition, mark},
                .body = df_bytes(p->data.data ? p->data.data : (const void *)"", p->data.len),
                .answer_max = DFI_S3_ERROR_MAX};
        struct df_error last = {0};
        int rc = 0;
        bool again = true;

        (void)snprintf(mark, sizeof(mark), "%s: %s", DFI_S3_MARK_NAME, p->mark);
        for (int tries = 1; again; tries++) {
                again = false;
                rc = dfi_s3_try(p->s, &c, &last);
                p->in_doubt |= c.in_doubt;
                if (rc == DF_EAGAIN || rc == DF_EDOUBT)
                        again = true;
                else if (rc == 0)
                        rc = judge(p, &c, &again, &last);
                if (!again && rc != 0)
                        rc = final(p, rc, &last, err);
                if (again && tries == DFI_S3_TRIES) {
                        rc = give_up(p, &last, err);
                        again = false;
                }
                if (again)
                        dfi_s3_wait(p->s, tries);
        }
        dfi_s3_release(&c);
        return rc;
}

static int begin(struct put *p, char kind, struct df_error *err)
{
        int rc = dfi_object_name(p->s->place, p->name, err);

        if (rc == 0)
                rc = dfi_object_fits(p->s->place, p->name, p->data.len, err);
        p->mark[0] = kind;
        p->mark[1] = '-';
        return rc ? rc : dfi_object_random(RANDOM_BYTES, p->mark + 2, err);
}

int dfi_s3_put_absent(struct df_objects *o, const char *name, struct df_bytes data,
                      struct df_error *err)
{
        struct put p = {.s = (struct dfi_s3 *)(void *)o, .name = name, .data = data};
        int rc = begin(&p, 'a', err);

        return rc ? rc : put(&p, "if-none-match: *", err);
}

/* The version of what was just stored, from a store that did not tell it. */
static int learn_version(struct put *p, struct df_error *err)
{
        enum found found = FOUND_NONE;
        int rc = look(p, &found, err);

        if (rc != 0 || found == FOUND_OURS)
                return rc;
        return doubt(p, "it was, and was replaced before its version was known", err);
}

int dfi_s3_put_match(struct df_objects *o, const char *name, struct df_bytes data,
                     const struct df_object_version *was, struct df_object_version *ret,
                     struct df_error *err)
{
        struct put p = {.s = (struct dfi_s3 *)(void *)o, .name = name, .data = data, .was = was};
        char condition[sizeof("if-match: ") + DF_OBJECT_VERSION_MAX];
        int rc = begin(&p, 'm', err);

        if (rc == 0 && was->text[0] == '\0') /* as an adapter that compares would say */
                rc = exists(&p, "it is not of the version \"\"", err);
        if (rc == 0) {
                (void)snprintf(condition, sizeof(condition), "if-match: %s", was->text);
                rc = put(&p, condition, err);
        }
        if (rc == 0 && ret && p.version.text[0] == '\0')
                rc = learn_version(&p, err);
        if (rc == 0 && ret)
                *ret = p.version;
        return rc;
}
