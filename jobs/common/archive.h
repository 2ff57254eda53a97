/* archive.h - where the raw archive is, by the settings (df/objects.h, df/archive.h).
 *
 * --archive says dir:PATH, s3:BUCKET[/PREFIX] or none; by default dir:DATA/archive. The keys of S3
 * come from the environment or the configuration file, never from a command line, which everybody
 * on the machine can read. Thread: any.
 */
#ifndef AD_ARCHIVE_H
#define AD_ARCHIVE_H

#include "df/config.h"
#include "df/objects.h"

bool ad_archive_is_off(const struct df_config *c); /* --archive none */
/* The place as text, PATH_MAX bytes: dir: and an absolute path, or s3:. Makes DATA. */
int ad_archive_place(const struct df_config *c, char *ret, struct df_error *err);
/* DF_EINVAL: --archive none, or a setting that is wrong. */
int ad_archive_open_store(const struct df_config *c, struct df_objects **ret, struct df_error *err);

#endif
