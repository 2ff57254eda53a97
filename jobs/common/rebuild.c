#include "jobs/common/rebuild.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "jobs/common/places.h"
#include "jobs/common/settings.h"

int ad_rebuild_place(const struct df_config *c, const char *topic, uint32_t partition,
                     struct ad_rebuild *ret, struct df_error *err)
{
        int rc = ad_state_dir(c, topic, partition, ret->dir, err);

        ret->file_log = ad_log_is_file(c);
        ret->told = false;
        return rc == 0 ? ad_rebuild_mark(c, topic, partition, ret->mark, err) : rc;
}

int ad_rebuild_read(struct ad_rebuild *r, struct df_session_ports *ports, struct df_error *err)
{
        char current[PATH_MAX + 16];
        FILE *f;

        (void)snprintf(current, sizeof(current), "%s/CURRENT", r->dir);
        if (r->file_log && access(current, F_OK) == 0)
                (void)unlink(r->mark); /* mostly not there */
        r->of[0] = '\0';
        ports->recover_of = r->of;
        f = fopen(r->mark, "re");
        r->told = ports->recover_from_log = f != NULL;
        if (!f)
                return errno == ENOENT ? 0 : df_fail_errno(err, DF_EIO, "open %s", r->mark);
        (void)!fgets(r->of, sizeof(r->of), f); /* empty on the file log */
        (void)fclose(f);
        r->of[strcspn(r->of, "\n")] = '\0';
        return 0;
}

void ad_rebuild_step(struct ad_rebuild *r, const char *step)
{
        if (!r->told || strcmp(step, "retire") != 0)
                return;
        (void)unlink(r->mark);
        r->told = false;
}

static int64_t changed_ns(const char *path)
{
        struct stat st;

        return stat(path, &st) < 0 ? 0
                                   : (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
}

/* The sum changes whichever of the two does. */
int64_t ad_recovered_ns(const struct df_config *c)
{
        char path[PATH_MAX], store[PATH_MAX];
        int64_t sum = 0;

        if (ad_data_path(c, AD_RECOVERED_FILE, path, NULL) == 0)
                sum += changed_ns(path);
        if (ad_store(c, store, NULL) == 0 && store[0] &&
            snprintf(path, sizeof(path), "%s/" AD_RECOVERED_STORE_FILE, store) < (int)sizeof(path))
                sum += changed_ns(path) / 2;
        return sum;
}
