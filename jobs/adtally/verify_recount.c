/* verify_recount.c - the bill of a closed period again, from a copy of the archive (verify.h): a
 * reconcile run (jobs/runs/bill.h) over the offsets that were signed, with a log, a state and
 * settings of its own. */
#include <stdlib.h>
#include <unistd.h>

#include "df/archive.h"
#include "jobs/adtally/verify.h"
#include "jobs/common/corrections.h"
#include "jobs/common/prices.h"
#include "jobs/runs/fold.h"

#define FLAG_MAX 256
#define FLAGS (AD_MANIFEST_SETTINGS + 5)

/* ---- a place of its own ---- */

static int make_work(struct ad_verify *v, struct df_error *err)
{
        const char *place = df_config_text(v->config, "work"), *tmp = getenv("TMPDIR");
        int n;

        place = place ? place : tmp && *tmp ? tmp : "/tmp";
        n = snprintf(v->work, sizeof(v->work), "%s/adtally-verify-XXXXXX", place);
        if (n < 480 && mkdtemp(v->work))
                return 0;
        v->work[0] = '\0';
        return n >= 480 ? df_fail(err, DF_EINVAL, "--work: the path is too long")
                        : df_fail_errno(err, DF_EIO, "make a directory in %s", place);
}

/* Each table must be the one that was signed; a copy of it goes where the run looks for it. */
static int copy_prices(struct ad_verify *v, struct df_error *err)
{
        const char *from = df_config_text(v->config, "prices");
        char path[8192];
        int rc;

        (void)snprintf(path, sizeof(path), "%s/config/prices", v->work);
        rc = df_mkdirs(path, err);
        if (rc == 0 && v->manifest.price_count > 0 && !from)
                return df_fail(err, DF_EINVAL,
                               "--prices is missing: the period was billed by %zu price tables",
                               v->manifest.price_count);
        for (size_t i = 0; rc == 0 && i < v->manifest.price_count; i++) {
                const struct ad_manifest_price *p = &v->manifest.prices[i];
                uint8_t digest[DF_SHA256_SIZE];
                struct df_error one = {0};
                struct df_buf b = {0};

                (void)snprintf(path, sizeof(path), "%s/%u.csv", from, p->version);
                if (df_read_file(path, AD_PRICE_FILE_MAX, &b, &one) < 0)
                        ad_verify_no(v, "prices: %s", one.text);
                else if ((rc = df_sha256(df_buf_bytes(&b), digest, err)) == 0 &&
                         memcmp(digest, p->sha256, sizeof(digest)) != 0)
                        ad_verify_no(v, "prices: %s is not the table that was signed", path);
                (void)snprintf(path, sizeof(path), "%s/config/prices/%u.csv", v->work, p->version);
                if (rc == 0)
                        rc = df_write_file(path, df_buf_bytes(&b), false, err);
                df_buf_release(&b);
        }
        return rc;
}

/* The settings that were signed, and those of this machine. Flags win over file and environment. */
static int read_settings(struct ad_verify *v, struct ad_command_line *ret, struct df_error *err)
{
        static char room[FLAGS][FLAG_MAX + sizeof(v->work)];
        char *flags[FLAGS];
        int n = 0, code;

        for (int i = 0; i < AD_MANIFEST_SETTINGS; i++)
                (void)snprintf(room[n++], sizeof(room[0]), "--%s=%.*s", ad_manifest_settings[i],
                               (int)v->manifest.settings[i].len,
                               (const char *)v->manifest.settings[i].data);
        (void)snprintf(room[n++], sizeof(room[0]), "--data=%s", v->work);
        (void)snprintf(room[n++], sizeof(room[0]), "--log=file:%s/log", v->work);
        (void)snprintf(room[n++], sizeof(room[0]), "--workers=%s",
                       df_config_value(v->config, "workers"));
        (void)snprintf(room[n++], sizeof(room[0]), "--quiet=%s",
                       df_config_value(v->config, "quiet"));
        (void)snprintf(room[n++], sizeof(room[0]), "--log-level=warn");
        for (int i = 0; i < n; i++)
                flags[i] = room[i];
        if (ad_command_read(n, flags, "", NULL, 0, NULL, ret, &code))
                return 0;
        return df_fail(err, DF_EINVAL, "the manifest's settings are none of this version");
}

/* ---- the runs: one a topic ---- */

struct recount {
        struct ad_verify *v;
        const struct df_config *config;
        struct df_log *log, *source;
        struct ad_correction_log *corrections;
        struct ad_run_kind kind; /* with the corrections */
        struct ad_replay *runs;  /* as many as sources */
        struct ad_fold **folds;
};

static int read_corrections(struct recount *k, struct df_error *err)
{
        const struct ad_manifest *m = &k->v->manifest;
        int rc = ad_correction_log_create(&k->corrections, err);

        for (size_t i = 0; rc == 0 && i < m->command_count; i++)
                rc = ad_correction_log_add(k->corrections, m->commands[i].offset,
                                           m->commands[i].bytes, err);
        if (rc == 0)
                rc = ad_correction_log_finish(k->corrections, err);
        k->kind = ad_run_reconcile;
        k->kind.corrections = k->corrections;
        return rc;
}

static int count_source(struct recount *k, size_t i, struct df_error *err)
{
        const struct ad_manifest_source *s = &k->v->manifest.sources[i];
        struct ad_replay_logs logs = {.log = k->log, .source = k->source};
        struct ad_replay_pin *pin = calloc(1, sizeof(*pin));
        struct ad_bill_result *result = calloc(1, sizeof(*result));
        int rc = pin && result ? 0 : df_fail(err, DF_ENOMEM, "run");

        if (rc == 0) {
                memcpy(pin->topic.name, s->topic.data, s->topic.len);
                pin->topic.generation = s->generation;
                pin->topic.partitions = s->part_count;
        }
        for (uint32_t p = 0; rc == 0 && p < s->part_count; p++)
                pin->span[p] = (struct ad_replay_span){
                        .first = s->parts[p].from, .from = s->parts[p].from, .to = s->parts[p].to};
        if (rc == 0)
                rc = ad_replay_begin_at(k->config, &k->kind, pin, &k->runs[i], err);
        if (rc == 0)
                rc = ad_replay_work(k->config, &logs, &k->runs[i], err);
        if (rc == 0)
                rc = ad_fold_open(&k->runs[i], NULL, &k->folds[i], err);
        if (rc == 0)
                rc = ad_fold_take(k->folds[i], k->log, result, err);
        free(pin);
        free(result);
        return rc;
}

static int on_target(void *arg, const struct ad_target *t, struct df_error *err)
{
        return ad_rows_add_target(arg, t, err);
}

static int tell(struct recount *k, FILE *out, struct df_error *err)
{
        const struct ad_manifest *m = &k->v->manifest;
        int rc = ad_rows_begin(k->v->rows, &m->account, m->from_quarter, m->to_quarter, out, err);

        if (rc == 0)
                rc = ad_fold_cells(k->folds, m->source_count, &m->account, m->from_quarter,
                                   m->to_quarter, NULL, on_target, k->v->rows, err);
        return rc == 0 ? ad_rows_end(k->v->rows, err) : rc;
}

static int tell_to(struct recount *k, struct df_error *err)
{
        const char *path = df_config_text(k->v->config, "out");
        FILE *out = path ? fopen(path, "we") : NULL;
        int rc;

        if (path && !out)
                return df_fail_errno(err, DF_EIO, "write %s", path);
        rc = tell(k, out, err);
        if (out && fclose(out) != 0 && rc == 0)
                rc = df_fail_errno(err, DF_EIO, "write %s", path);
        return rc;
}

static int count(struct recount *k, struct df_error *err)
{
        size_t n = k->v->manifest.source_count;
        int rc;

        k->runs = calloc(n, sizeof(*k->runs));
        k->folds = calloc(n, sizeof(struct ad_fold *));
        for (size_t i = 0; k->runs && i < n; i++)
                k->runs[i].lock_fd = -1;
        rc = k->runs && k->folds ? read_corrections(k, err) : df_fail(err, DF_ENOMEM, "runs");
        if (rc == 0)
                rc = df_archive_copies_open(k->log, k->v->objects, &k->source, err);
        for (size_t i = 0; rc == 0 && i < n; i++)
                rc = count_source(k, i, err);
        if (rc == 0)
                rc = tell_to(k, err);
        for (size_t i = 0; k->folds && k->runs && i < n; i++) {
                ad_fold_close(k->folds[i]);
                ad_replay_end(&k->runs[i]);
        }
        df_log_close(k->source);
        ad_correction_log_destroy(k->corrections);
        free(k->runs);
        free(k->folds);
        return rc;
}

int ad_verify_recount(struct ad_verify *v, struct df_error *err)
{
        struct recount k = {.v = v};
        struct ad_command_line l = {0};
        int rc = make_work(v, err);

        df_process_keep_memory();
        if (rc == 0)
                rc = copy_prices(v, err);
        if (rc < 0 || v->no)
                return rc;
        rc = read_settings(v, &l, err);
        k.config = l.config;
        if (rc == 0)
                rc = ad_open_log(l.config, &k.log, err);
        if (rc == 0)
                rc = count(&k, err);
        df_log_close(k.log);
        if (l.config)
                ad_command_release(&l);
        return rc;
}
