/* archive_private.h - between the files of the raw archive. */
#ifndef DFI_ARCHIVE_STORE_PRIVATE_H
#define DFI_ARCHIVE_STORE_PRIVATE_H

#include "df/archive.h"

void dfi_archive_manifest_name(const struct df_segment_id *id, char ret[DF_ARCHIVE_NAME_MAX]);
/* Of the entry that comes next. */
int dfi_archive_manifest_chain(const struct df_archive_manifest *m,
                               const struct df_archive_entry *e, uint8_t ret[DF_SEGMENT_SHA256],
                               struct df_error *err);
int dfi_archive_manifest_encode(const struct df_archive_manifest *m, struct df_buf *ret,
                                struct df_error *err);
/* name: for error texts. m->id says whose it must be. */
int dfi_archive_manifest_decode(struct df_bytes bytes, const char *name,
                                struct df_archive_manifest *m, struct df_error *err);
int dfi_archive_manifest_grow(struct df_archive_manifest *m, const struct df_archive_entry *e,
                              struct df_error *err);

#endif
