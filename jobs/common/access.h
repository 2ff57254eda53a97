/* access.h - who may do what (DESIGN section 4, "Access").
 *
 * With a keys file every request needs "Authorization: Bearer ID.SECRET". One line a key:
 *
 *   # id      class   tenant  sha256(secret), hex   [origins=A,B] [rate=N] [name, to the line's
 * end] k3f09a1c  server  acme    9f86d081...0f00a08    tracker in Frankfurt k77b20de  public  acme
 * 60303ae2...4ab1bd8    origins=https://shop.example rate=500 shop page
 *
 * rate: events a second, over about two seconds; more is 429. Only hashes are stored; two keys of a
 * tenant live side by side, so one is replaced without a gap. Classes: public (sends events without
 * money, from a page of its origins; origins=* is any page or app), server (sends events), read
 * (reads numbers), finance (read; periods, runs, corrections), admin (everything).
 *
 * Without a keys file the tenant is `default`, the class admin, and only this machine is served: a
 * loopback peer that calls the server by a loopback name, without forwarding headers and without a
 * foreign Origin. So neither a proxy, nor a page in the browser, nor DNS rebinding reaches it.
 *
 * Order of calls: ad_access_open, { ad_access_check, ad_access_refresh }*, ad_access_close.
 * Thread: any, all calls but close.
 */
#ifndef AD_ACCESS_H
#define AD_ACCESS_H

#include "df/net.h"
#include "proto/limits.h"

#define AD_KEY_ID_MAX 32      /* bytes, [A-Za-z0-9_-] */
#define AD_KEY_SECRET_MAX 128 /* bytes */
#define AD_KEYS_MAX 10000     /* keys of a file */
#define AD_KEY_ORIGINS_MAX 16 /* of a public key */
#define AD_KEYS_FILE_MAX (8u << 20)
#define AD_KEY_RATE_MAX 100000000 /* events a second */
#define AD_KEY_BURST_MS 2000      /* of its rate, before a key has to wait */
#define AD_KEY_TOKEN_SIZE 80      /* "id.secret" of ad_access_make_key, with the final NUL */
#define AD_DENIAL_TEXT_MAX 240

enum ad_key_class { AD_KEY_PUBLIC, AD_KEY_SERVER, AD_KEY_READ, AD_KEY_FINANCE, AD_KEY_ADMIN };

enum ad_permission {
        AD_MAY_INGEST,  /* POST /events: public, server, admin */
        AD_MAY_READ,    /* numbers, receipts, quality: read, finance, admin */
        AD_MAY_FINANCE, /* close a period, reconcile, correct: finance, admin */
        AD_MAY_ADMIN,   /* the rest: admin */
};

struct ad_identity {
        enum ad_key_class key_class;
        bool money_allowed; /* may state cost, payout and conversion value */
        char tenant[AD_ID_MAX + 1];
        char key_id[AD_KEY_ID_MAX + 1]; /* "" without a keys file */
        /* For Access-Control-Allow-Origin: the allowed Origin of a public key's (or, without a keys
         * file, this machine's) page, borrowed from the request; empty: no such header. */
        struct df_bytes origin;
};

struct ad_denial {
        int status;                       /* 401 or 403 */
        const char *code;                 /* "unauthorized" or "forbidden" */
        char message[AD_DENIAL_TEXT_MAX]; /* what is wrong and what to do */
};

struct ad_access;

/* keys: the file, or NULL. listen: the address served ("HOST:PORT"). DF_EINVAL: no keys file and
 * listen is not loopback; DF_EPARSE: the file's first bad line, by path and number. */
int ad_access_open(const char *keys, const char *listen, struct ad_access **ret,
                   struct df_error *err);
/* Read the file again if it changed: call about once a second. A bad or missing file is an error
 * once a change, and the keys that were read before stay in force. */
int ad_access_refresh(struct ad_access *a, struct df_error *err);
/* True: the request may do `want`. False: *ret_denial says why, see ad_access_deny. */
bool ad_access_check(struct ad_access *a, const struct df_http_request *r, enum ad_permission want,
                     struct ad_identity *ret, struct ad_denial *ret_denial);
/* Reply with the denial: the one reply of this request. */
void ad_access_deny(struct df_http_request *r, const struct ad_denial *denial);
/* Whether any public key lists this origin: for preflights, which carry no key. */
bool ad_access_origin_listed(struct ad_access *a, struct df_bytes origin);
/* The key has sent so many events; 0 only asks. Returns 0, or for how many ms it must wait because
 * it sent more than its rate. mono_ms: monotonic. A request's events all pass or all wait. */
int64_t ad_access_charge(struct ad_access *a, const struct ad_identity *id, uint64_t events,
                         int64_t mono_ms);
void ad_access_close(struct ad_access *a); /* NULL-safe */

/* Whether every host that `listen` names is loopback. */
bool ad_access_listen_loopback(const char *listen);
const char *ad_key_class_name(enum ad_key_class c);
bool ad_key_class_parse(struct df_bytes name, enum ad_key_class *ret);
/* A new random key. Appends the line for the file (with its newline) to ret_line; ret_token is what
 * the client sends, and nothing else ever holds the secret. origins: public only, comma-separated;
 * name may be NULL. DF_EINVAL: a part that the file would not accept. */
struct ad_key_options {
        enum ad_key_class key_class;
        const char *tenant, *origins, *name;
        int64_t rate; /* 0 = no limit */
};
int ad_access_make_key(const struct ad_key_options *o, struct df_buf *ret_line,
                       char ret_token[AD_KEY_TOKEN_SIZE], struct df_error *err);

#endif
