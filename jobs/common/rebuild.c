#include "jobs/common/rebuild.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
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
