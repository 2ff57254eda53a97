/* doc.h - a small JSON document as a flat list of nodes, read strictly (with json.c the only user
 * of yajl). For commands and manifests, where a value that is misread becomes money: ingest, which
 * reads millions of events, has a reader of its own.
 *
 * Nodes stand in document order; a container is followed by its members, and `next` is the index
 * just behind it. Numbers stay text, so that amounts are exact. Refused are: a name twice in an
 * object, NUL in a text, anything behind the document, more than AD_DOC_DEPTH_MAX levels.
 * Ownership: nodes and texts lie in the arena. Thread: pure functions.
 */
#ifndef AD_DOC_H
#define AD_DOC_H

#include "df/arena.h"

#define AD_DOC_DEPTH_MAX 16

enum ad_doc_kind {
        AD_DOC_OBJECT,
        AD_DOC_ARRAY,
        AD_DOC_TEXT,
        AD_DOC_NUMBER,
        AD_DOC_BOOL,
        AD_DOC_NULL
};

struct ad_doc_node {
        enum ad_doc_kind kind;
        uint32_t next;        /* index of the node behind this one and its members */
        struct df_bytes name; /* of a member of an object */
        struct df_bytes text; /* of a text, unescaped; of a number, as it stands there */
        bool yes;             /* of a bool */
};
struct ad_doc {
        struct ad_doc_node *nodes; /* [0] is the document */
        uint32_t count;
};

/* DF_EPARSE says what is wrong and near which byte; DF_ELIMIT: more than nodes_max values. */
int ad_doc_parse(struct df_bytes json, uint32_t nodes_max, struct df_arena *arena,
                 struct ad_doc *ret, struct df_error *err);
/* The member, or NULL. */
const struct ad_doc_node *ad_doc_member(const struct ad_doc *d, const struct ad_doc_node *object,
                                        const char *name);
/* The first member or element, and the one behind `at`; NULL at the end. */
const struct ad_doc_node *ad_doc_first(const struct ad_doc *d, const struct ad_doc_node *container);
const struct ad_doc_node *ad_doc_after(const struct ad_doc *d, const struct ad_doc_node *container,
                                       const struct ad_doc_node *at);
const char *ad_doc_kind_name(enum ad_doc_kind kind); /* "a text" */

#endif
