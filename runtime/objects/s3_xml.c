/* s3_xml.c - a strict reader for the XML that S3 answers with: elements, attributes (skipped), text
 * and the five named and the numeric entities. Everything else is refused, so that nothing in an
 * answer can mean something to one reader and something else to another. */
#include "objects_private.h"

#include <stdlib.h>

#define PATH_MAX_BYTES ((size_t)DFI_XML_DEPTH_MAX * (DFI_XML_NAME_MAX + 1))
#define ENTITY_MAX 10 /* "&#x10FFFF;" */

struct reader {
        const char *p, *end;
        char path[PATH_MAX_BYTES + 1];
        size_t starts[DFI_XML_DEPTH_MAX]; /* of each open element's name in path */
        size_t depth;
        struct df_buf text[DFI_XML_DEPTH_MAX]; /* of each open element */
        const struct dfi_xml_handler *h;
        struct df_error *err;
};

static int bad(const struct reader *r, const char *why)
{
        return df_fail(r->err, DF_ECORRUPT, "the store's XML: %s, before \"%.*s\"", why,
                       (int)(r->end - r->p < 40 ? r->end - r->p : 40), r->p);
}

static bool at(const struct reader *r, const char *text)
{
        size_t len = strlen(text);

        return (size_t)(r->end - r->p) >= len && memcmp(r->p, text, len) == 0;
}

static void skip_space(struct reader *r)
{
        while (r->p < r->end && strchr(" \t\r\n", *r->p) && *r->p)
                r->p++;
}

static bool name_char(char c)
{
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
               c == '_' || c == '-' || c == '.' || c == ':';
}

static int read_name(struct reader *r, const char **ret, size_t *ret_len)
{
        const char *start = r->p;

        while (r->p < r->end && name_char(*r->p))
                r->p++;
        *ret = start;
        *ret_len = (size_t)(r->p - start);
        if (*ret_len == 0 || *ret_len > DFI_XML_NAME_MAX)
                return bad(r, "no name, or a very long one");
        return 0;
}

/* ---- text ---- */

static void put_utf8(struct df_buf *b, uint32_t c)
{
        if (c < 0x80) {
                df_put_u8(b, (uint8_t)c);
        } else if (c < 0x800) {
                df_put_u8(b, (uint8_t)(0xc0 | c >> 6));
                df_put_u8(b, (uint8_t)(0x80 | (c & 0x3f)));
        } else if (c < 0x10000) {
                df_put_u8(b, (uint8_t)(0xe0 | c >> 12));
                df_put_u8(b, (uint8_t)(0x80 | (c >> 6 & 0x3f)));
                df_put_u8(b, (uint8_t)(0x80 | (c & 0x3f)));
        } else {
                df_put_u8(b, (uint8_t)(0xf0 | c >> 18));
                df_put_u8(b, (uint8_t)(0x80 | (c >> 12 & 0x3f)));
                df_put_u8(b, (uint8_t)(0x80 | (c >> 6 & 0x3f)));
                df_put_u8(b, (uint8_t)(0x80 | (c & 0x3f)));
        }
}

static int digit_of(char c)
{
        if (c >= '0' && c <= '9')
                return c - '0';
        if (c >= 'a' && c <= 'f')
                return c - 'a' + 10;
        return c >= 'A' && c <= 'F' ? c - 'A' + 10 : 99;
}

/* digits: of "&#123;" or "&#x7b;", without what is around them. 0: none that text can hold. */
static uint32_t code_point(const char *digits, size_t len)
{
        int base = len > 0 && digits[0] == 'x' ? 16 : 10;
        uint32_t c = 0;

        for (size_t i = base == 16; i < len; i++) {
                int d = digit_of(digits[i]);

                if (d >= base)
                        return 0;
                c = c * (uint32_t)base + (uint32_t)d; /* at most 7 digits: ENTITY_MAX */
        }
        return c > 0x10ffff || (c >= 0xd800 && c < 0xe000) ? 0 : c;
}

static int read_entity(struct reader *r, struct df_buf *to)
{
        static const struct {
                const char *name;
                char is;
        } named[] = {{"amp", '&'}, {"lt", '<'}, {"gt", '>'}, {"quot", '"'}, {"apos", '\''}};
        size_t left = (size_t)(r->end - r->p);
        const char *end = memchr(r->p, ';', left < ENTITY_MAX ? left : ENTITY_MAX);
        size_t len = end ? (size_t)(end - r->p - 1) : 0;
        uint32_t c = 0;

        if (len > 1 && r->p[1] == '#')
                c = code_point(r->p + 2, len - 1);
        for (size_t i = 0; end && i < sizeof(named) / sizeof(named[0]); i++)
                if (len == strlen(named[i].name) && memcmp(r->p + 1, named[i].name, len) == 0)
                        c = (uint32_t)named[i].is;
        if (c == 0)
                return bad(r, "an entity that is not known");
        put_utf8(to, c);
        r->p = end + 1;
        return 0;
}

static int read_text(struct reader *r)
{
        struct df_buf *to = &r->text[r->depth - 1];
        const char *start = r->p;

        while (r->p < r->end && *r->p != '<' && *r->p != '&') {
                if (*r->p == '\0')
                        return bad(r, "a NUL");
                r->p++;
        }
        df_buf_append(to, start, (size_t)(r->p - start));
        return r->p < r->end && *r->p == '&' ? read_entity(r, to) : 0;
}

/* ---- elements ---- */

static int open_element(struct reader *r, const char *name, size_t len)
{
        size_t used = strlen(r->path);

        if (r->depth == DFI_XML_DEPTH_MAX)
                return bad(r, "elements nested too deeply");
        if (r->depth > 0)
                r->path[used++] = '/';
        r->starts[r->depth] = used;
        memcpy(r->path + used, name, len); /* fits: DEPTH_MAX names of NAME_MAX */
        r->path[used + len] = '\0';
        df_buf_clear(&r->text[r->depth]);
        r->depth++;
        return 0;
}

static int close_element(struct reader *r, const char *name, size_t len)
{
        size_t start = r->depth ? r->starts[r->depth - 1] : 0;
        struct df_buf *text;
        int rc;

        if (r->depth == 0 || strlen(r->path + start) != len ||
            memcmp(r->path + start, name, len) != 0)
                return bad(r, "the end of an element that is not open");
        text = &r->text[r->depth - 1];
        rc = df_buf_check(text, r->err);
        if (rc == 0)
                rc = r->h->end(r->h->arg, r->path, df_buf_bytes(text), r->err);
        r->path[start ? start - 1 : 0] = '\0';
        r->depth--;
        return rc;
}

/* name="value", as often as there are; what they say is not needed. */
static int skip_attributes(struct reader *r)
{
        for (skip_space(r); r->p < r->end && name_char(*r->p); skip_space(r)) {
                const char *name, *close;
                size_t len;
                int rc = read_name(r, &name, &len);

                if (rc != 0)
                        return rc;
                if (!at(r, "=\"") && !at(r, "='"))
                        return bad(r, "an attribute without a value");
                close = memchr(r->p + 2, r->p[1], (size_t)(r->end - r->p) - 2);
                if (!close || memchr(r->p, '<', (size_t)(close - r->p)))
                        return bad(r, "an attribute without an end");
                r->p = close + 1;
        }
        return 0;
}

static int read_tag(struct reader *r)
{
        bool closing = at(r, "</");
        const char *name;
        size_t len;
        int rc;

        r->p += closing ? 2 : 1;
        rc = read_name(r, &name, &len);
        if (rc == 0 && !closing)
                rc = skip_attributes(r);
        skip_space(r);
        if (rc != 0)
                return rc;
        if (!closing && at(r, "/>")) {
                r->p += 2;
                rc = open_element(r, name, len);
                return rc ? rc : close_element(r, name, len);
        }
        if (!at(r, ">"))
                return bad(r, "a tag without an end");
        r->p++;
        return closing ? close_element(r, name, len) : open_element(r, name, len);
}

static int read_document(struct reader *r)
{
        int rc = 0;

        if (at(r, "\xef\xbb\xbf"))
                r->p += 3;
        skip_space(r);
        if (at(r, "<?xml ")) {
                const char *end = memmem(r->p, (size_t)(r->end - r->p), "?>", 2);

                if (!end)
                        return bad(r, "a declaration without an end");
                r->p = end + 2;
        }
        skip_space(r);
        if (!at(r, "<"))
                return bad(r, "no element");
        do {
                rc = *r->p == '<' ? read_tag(r) : read_text(r);
        } while (rc == 0 && r->depth > 0 && r->p < r->end);
        if (rc != 0)
                return rc;
        skip_space(r);
        if (r->depth > 0 || r->p < r->end)
                return bad(r, r->depth > 0 ? "it ends too early" : "something behind its end");
        return 0;
}

int dfi_xml_read(struct df_bytes xml, const struct dfi_xml_handler *h, struct df_error *err)
{
        struct reader *r = calloc(1, sizeof(*r));
        int rc;

        if (!r)
                return df_fail(err, DF_ENOMEM, "an XML reader");
        r->p = xml.data ? (const char *)xml.data : "";
        r->end = r->p + xml.len;
        r->h = h;
        r->err = err;
        rc = read_document(r);
        for (size_t i = 0; i < DFI_XML_DEPTH_MAX; i++)
                df_buf_release(&r->text[i]);
        free(r);
        return rc;
}
