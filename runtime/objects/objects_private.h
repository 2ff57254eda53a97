/* objects_private.h - what the files of runtime/objects share. */
#ifndef OBJECTS_PRIVATE_H
#define OBJECTS_PRIVATE_H

#include <pthread.h>
#include <sys/types.h>

#include "df/net.h"
#include "df/objects.h"

/* ---- names (objects.c) ---- */

bool dfi_object_name_ok(const char *name);
/* 0 or DF_EINVAL with the rule in its text. place is for the text. */
int dfi_object_name(const char *place, const char *name, struct df_error *err);
int dfi_object_prefix(const char *place, const char *prefix, struct df_error *err);
/* DF_ELIMIT beyond DF_OBJECT_MAX. */
int dfi_object_fits(const char *place, const char *name, uint64_t size, struct df_error *err);
/* count random bytes as hex; ret holds 2 * count + 1, count at most 32. */
int dfi_object_random(size_t count, char *ret, struct df_error *err);

/* ---- directory (dir.c, dir_list.c) ---- */

#define DFI_DIR_TEMPORARY ".tmp-"       /* in the root, and a random name */
#define DFI_DIR_LOCK ".lock"            /* in the root: held by put_match and remove */
#define DFI_DIR_TEMPORARY_MAX_S 86400ll /* older ones are somebody's who died; removed at open */

struct dfi_dir {
        struct df_objects base;
        char *place; /* "dir:/path", for texts */
        int root;    /* what is mounted over it later is not seen */
        /* Tests put a full or failing disk here. */
        ssize_t (*write)(int fd, const void *data, size_t len);
        int (*sync)(int fd);
};

int dfi_dir_open(const char *place, const char *path, struct df_objects **ret,
                 struct df_error *err);
int dfi_dir_list(struct df_objects *o, const char *prefix, df_objects_fn *fn, void *arg,
                 struct df_error *err);

/* ---- S3 (s3.c: open and reads; s3_put.c; s3_list.c, s3_xml.c; s3_call.c: one request) ---- */

#define DFI_S3_TRIES 5          /* of a call that may be repeated */
#define DFI_S3_BACKOFF_MS 100   /* before the second; twice that before each further one */
#define DFI_S3_CONNECT_MS 10000 /* to a connection */
#define DFI_S3_STALL_MS 30000   /* without a byte */
#define DFI_S3_CALL_MS 900000   /* a whole request: 1 GiB at 1.2 MB a second */
#define DFI_S3_IDLE_MAX 16      /* connections that are kept */
#define DFI_S3_ERROR_MAX 65536  /* bytes of an answer that is not an object's */
#define DFI_S3_LIST_MAX (8u << 20)
#define DFI_S3_PAGE 1000 /* keys an answer of ListObjectsV2; more than 1,000 no store gives */

struct dfi_s3 {
        struct df_objects base;
        char *place;      /* "s3:BUCKET/PREFIX at HOST", for texts */
        char *bucket_url; /* without a '/' at its end */
        char *prefix;     /* "" or "PREFIX/" */
        char *region, *access_key, *secret_key, *key_source;
        char *token_header;   /* NULL: no session token */
        uint32_t page;        /* DFI_S3_PAGE; tests take fewer */
        int64_t backoff_ms;   /* DFI_S3_BACKOFF_MS; tests take less */
        pthread_mutex_t lock; /* of idle and idle_count */
        struct df_http_caller *idle[DFI_S3_IDLE_MAX];
        size_t idle_count;
};

enum { DFI_S3_ETAG, DFI_S3_LENGTH, DFI_S3_MARK, DFI_S3_HEADERS };

#define DFI_S3_MARK_NAME "x-amz-meta-adtally-put"

/* One request and its answer. */
struct dfi_s3_call {
        const char *method;
        const char *name;  /* of the object; NULL: the bucket */
        const char *query; /* NULL, or encoded and in order of its names, as the signature needs */
        const char *headers[4];                       /* further ones, up to a NULL */
        struct df_bytes body;                         /* data NULL: none */
        bool once;                                    /* not to be sent twice unseen */
        uint64_t answer_max;                          /* bytes */
        int status;                                   /* out: of the answer */
        struct df_http_wanted header[DFI_S3_HEADERS]; /* out */
        struct df_buf answer;                         /* out; the caller releases it */
        char code[64];                                /* out: <Code> of an error answer, or "" */
        bool in_doubt; /* out, added to: a try may have been done without our knowing */
};

int dfi_s3_open(const struct df_objects_options *options, struct df_objects **ret,
                struct df_error *err);
/* One try. 0: there is an answer, whatever its status. DF_EAGAIN: not sent; DF_EDOUBT: sent, no
 * answer. */
int dfi_s3_try(struct dfi_s3 *s, struct dfi_s3_call *c, struct df_error *err);
/* Repeats what failed for the moment, at most DFI_S3_TRIES tries. 0: a final answer. Only for calls
 * that may be done twice. */
int dfi_s3_call(struct dfi_s3 *s, struct dfi_s3_call *c, struct df_error *err);
void dfi_s3_wait(const struct dfi_s3 *s, int tries); /* before the next one */
bool dfi_s3_passing(int status);                     /* another try may do better */
/* The answer's status, which is no success, as an error; it says what to do. */
int dfi_s3_fail(const struct dfi_s3 *s, const struct dfi_s3_call *c, struct df_error *err);
void dfi_s3_release(struct dfi_s3_call *c);

int dfi_s3_put_absent(struct df_objects *o, const char *name, struct df_bytes data,
                      struct df_error *err);
int dfi_s3_put_match(struct df_objects *o, const char *name, struct df_bytes data,
                     const struct df_object_version *was, struct df_object_version *ret,
                     struct df_error *err);
int dfi_s3_version(const struct dfi_s3 *s, const struct dfi_s3_call *c,
                   struct df_object_version *ret, struct df_error *err);

int dfi_s3_list(struct df_objects *o, const char *prefix, df_objects_fn *fn, void *arg,
                struct df_error *err);
/* Appends text with all but A-Z a-z 0-9 - . _ ~ and keep ("/" or "") as %XX. */
void dfi_s3_encode(struct df_buf *b, const char *text, const char *keep);

/* ---- the XML of S3 (s3_xml.c): elements and text; no DTD, CDATA or processing but <?xml?> ---- */

#define DFI_XML_DEPTH_MAX 16
#define DFI_XML_NAME_MAX 64

struct dfi_xml_handler {
        /* path: names from the root, joined with '/': "ListBucketResult/Contents/Key". text is the
         * element's own, entities resolved; for elements with children what is around them. */
        int (*end)(void *arg, const char *path, struct df_bytes text, struct df_error *err);
        void *arg;
};
/* DF_ECORRUPT: not well-formed, or beyond the limits above; end's other than 0 is returned. */
int dfi_xml_read(struct df_bytes xml, const struct dfi_xml_handler *h, struct df_error *err);

#endif
