#include "parse.h"

#include <arpa/inet.h>
#include <strings.h>

#define CHUNK_DIGITS_MAX 16 /* of a 64-bit number */
#define PORT_DIGITS_MAX 5
#define SATURATED (UINT64_MAX - 1)

static enum dfi_parse refuse(struct dfi_refusal *bad, int status, const char *why)
{
        *bad = (struct dfi_refusal){.status = status, .why = why};
        return DFI_BAD;
}

/* RFC 9110 tchar */
static const bool token_chars[256] = {
        ['!'] = true,         ['#'] = true,         ['$'] = true, ['%'] = true,
        ['&'] = true,         ['\''] = true,        ['*'] = true, ['+'] = true,
        ['-'] = true,         ['.'] = true,         ['^'] = true, ['_'] = true,
        ['`'] = true,         ['|'] = true,         ['~'] = true, ['0' ... '9'] = true,
        ['A' ... 'Z'] = true, ['a' ... 'z'] = true,
};

static bool visible(uint8_t c)
{
        return c > ' ' && c < 0x7f;
}

static bool digit(uint8_t c)
{
        return c >= '0' && c <= '9';
}

static bool is_text(struct df_bytes b, const char *text)
{
        return df_bytes_eq(b, df_bytes_str(text));
}

enum dfi_parse dfi_scan(const uint8_t *data, size_t len, size_t *at, struct dfi_refusal *bad)
{
        size_t end = len < DF_HTTP_HEAD_MAX ? len : DF_HTTP_HEAD_MAX;
        const uint8_t *lf;

        if (len > 0 && !token_chars[data[0]])
                return refuse(bad, 400, "a request begins with its method; this is not HTTP/1.1");
        for (; *at < end && (lf = memchr(data + *at, '\n', end - *at));
             *at = (size_t)(lf - data) + 1) {
                if (lf[-1] != '\r') /* data[0] is a token character, so lf > data */
                        return refuse(bad, 400, "a line of the head ends with LF alone, not CRLF");
                if (lf - data >= 3 && lf[-2] == '\n') {
                        *at = (size_t)(lf - data) + 1;
                        return DFI_DONE;
                }
        }
        *at = end;
        if (len >= DF_HTTP_HEAD_MAX)
                return refuse(bad, 431, "the request line and headers have more than 8192 bytes");
        return DFI_MORE;
}

/* ---- request line ---- */

static enum df_http_method method_of(struct df_bytes m)
{
        static const struct {
                const char *name;
                enum df_http_method method;
        } known[] = {{"POST", DF_HTTP_POST},
                     {"GET", DF_HTTP_GET},
                     {"HEAD", DF_HTTP_HEAD},
                     {"OPTIONS", DF_HTTP_OPTIONS},
                     {"DELETE", DF_HTTP_DELETE}};

        for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
                if (is_text(m, known[i].name))
                        return known[i].method;
        return 0;
}

static void split_target(struct dfi_head *h, struct df_bytes target)
{
        const uint8_t *mark = memchr(target.data, '?', target.len);

        h->path = target;
        h->query = df_bytes(NULL, 0);
        if (mark) {
                h->path.len = (size_t)(mark - target.data);
                h->query = df_bytes(mark + 1, target.len - h->path.len - 1);
        }
        if (h->path.len == 3 && memcmp(h->path.data, "/v1", 3) == 0)
                h->path.len = 1;
        else if (h->path.len > 3 && memcmp(h->path.data, "/v1/", 4) == 0)
                h->path = df_bytes(h->path.data + 3, h->path.len - 3);
}

static enum dfi_parse parse_request_line(struct dfi_head *h, struct df_bytes line,
                                         struct dfi_refusal *bad)
{
        const uint8_t *p = line.data, *end = line.data + line.len, *start;
        struct df_bytes version;

        while (p < end && token_chars[*p])
                p++;
        if (p == line.data || p == end || *p != ' ')
                return refuse(bad, 400, "the request line is not METHOD SP PATH SP HTTP/1.1");
        h->method = method_of(df_bytes(line.data, (size_t)(p - line.data)));
        start = ++p;
        if (p == end || *p != '/')
                return refuse(bad, 400, "the request target must be a path that begins with /");
        while (p < end && visible(*p) && *p != '#')
                p++;
        if (p == end || *p != ' ')
                return refuse(bad, 400,
                              "the path holds a character that must be percent-encoded, or "
                              "no HTTP version follows it");
        split_target(h, df_bytes(start, (size_t)(p - start)));
        version = df_bytes(p + 1, (size_t)(end - p - 1));
        h->http10 = is_text(version, "HTTP/1.0");
        if (!h->http10 && !is_text(version, "HTTP/1.1"))
                return refuse(bad, 400, "the version is not HTTP/1.1 or HTTP/1.0");
        h->close = h->http10;
        return DFI_DONE;
}

/* ---- headers ---- */

static bool host_name(struct df_bytes name)
{
        for (size_t i = 0; i < name.len; i++) {
                uint8_t c = name.data[i];
                bool letter = (c | 0x20) >= 'a' && (c | 0x20) <= 'z';

                if (!letter && !digit(c) && c != '.' && c != '-' && c != '_')
                        return false;
        }
        return name.len > 0;
}

static bool host_port(struct df_bytes port)
{
        uint32_t v = 0;

        for (size_t i = 0; i < port.len; i++) {
                if (!digit(port.data[i]))
                        return false;
                v = v * 10 + port.data[i] - '0';
        }
        return port.len > 0 && port.len <= PORT_DIGITS_MAX && v <= UINT16_MAX;
}

static bool host_valid(struct df_bytes host)
{
        const uint8_t *end = host.data + host.len, *name_end;
        char v6[INET6_ADDRSTRLEN];
        struct in6_addr parsed;

        if (host.len == 0)
                return false;
        if (host.data[0] == '[') {
                size_t len;

                name_end = memchr(host.data, ']', host.len);
                len = name_end ? (size_t)(name_end - host.data) - 1 : 0;
                if (len == 0 || len >= sizeof(v6))
                        return false;
                memcpy(v6, host.data + 1, len);
                v6[len] = '\0';
                if (strlen(v6) != len || inet_pton(AF_INET6, v6, &parsed) != 1)
                        return false;
                name_end++;
        } else {
                name_end = memchr(host.data, ':', host.len);
                if (!name_end)
                        name_end = end;
                if (!host_name(df_bytes(host.data, (size_t)(name_end - host.data))))
                        return false;
        }
        if (name_end == end)
                return true;
        return *name_end == ':' && host_port(df_bytes(name_end + 1, (size_t)(end - name_end - 1)));
}

static bool parse_length(struct df_bytes value, uint64_t *ret)
{
        uint64_t v = 0;

        for (size_t i = 0; i < value.len; i++) {
                uint8_t c = value.data[i];

                if (!digit(c))
                        return false;
                v = v > (SATURATED - 9) / 10 ? SATURATED : v * 10 + (uint64_t)(c - '0');
        }
        *ret = v;
        return value.len > 0;
}

static void parse_connection(struct dfi_head *h, struct df_bytes value)
{
        const uint8_t *p = value.data, *end = value.data + value.len;

        while (p < end) {
                const uint8_t *word = p;

                while (p < end && token_chars[*p])
                        p++;
                if (p - word == 5 && strncasecmp((const char *)word, "close", 5) == 0)
                        h->close = true;
                else if (p == word)
                        p++;
        }
}

struct seen {
        bool host, length, chunked;
};

/* The headers that decide where a request ends, and who answers it. */
static enum dfi_parse apply_header(struct dfi_head *h, const struct df_http_field *f,
                                   struct seen *s, struct dfi_refusal *bad)
{
        if (is_text(f->name, "host")) {
                if (s->host)
                        return refuse(bad, 400, "Host is stated twice");
                s->host = true;
                if (!host_valid(f->value))
                        return refuse(bad, 400, "Host is not a name, name:port or [v6]:port");
        } else if (is_text(f->name, "content-length")) {
                if (s->length)
                        return refuse(bad, 400, "Content-Length is stated twice");
                s->length = true;
                if (!parse_length(f->value, &h->length))
                        return refuse(bad, 400, "Content-Length is not digits alone");
        } else if (is_text(f->name, "transfer-encoding")) {
                if (s->chunked)
                        return refuse(bad, 400, "Transfer-Encoding is stated twice");
                s->chunked = true;
                if (!is_text(f->value, "chunked"))
                        return refuse(bad, 400, "Transfer-Encoding is not exactly \"chunked\"");
        } else if (is_text(f->name, "connection")) {
                parse_connection(h, f->value);
        } else if (is_text(f->name, "expect")) {
                if (f->value.len != 12 ||
                    strncasecmp((const char *)f->value.data, "100-continue", 12) != 0)
                        return refuse(bad, 417, "the only expectation met here is 100-continue");
                h->expect = true;
        }
        return DFI_DONE;
}

static enum dfi_parse finish_headers(struct dfi_head *h, const struct seen *s,
                                     struct dfi_refusal *bad)
{
        if (!s->host)
                return refuse(bad, 400, "there is no Host header");
        if (s->length && s->chunked)
                return refuse(bad, 400, "Content-Length and Transfer-Encoding exclude each other");
        if (s->chunked && h->http10)
                return refuse(bad, 400, "HTTP/1.0 has no Transfer-Encoding");
        if (s->chunked)
                h->length = UINT64_MAX;
        h->has_length = s->length || s->chunked;
        return DFI_DONE;
}

/* The line is in h->text; its name is put into lower case there. */
static enum dfi_parse parse_header_line(struct dfi_head *h, uint8_t *line, size_t len,
                                        struct dfi_refusal *bad)
{
        struct df_http_field *f = &h->headers[h->header_count];
        uint8_t *p = line, *end = line + len, *value;

        if (h->header_count == DF_HTTP_HEADERS_MAX)
                return refuse(bad, 431, "there are more than 64 headers");
        if (*line == ' ' || *line == '\t')
                return refuse(bad, 400,
                              "a header line begins with white space (folding is refused)");
        for (; p < end && token_chars[*p]; p++)
                if (*p >= 'A' && *p <= 'Z')
                        *p |= 0x20;
        if (p == line)
                return refuse(bad, 400, "a header has no name");
        if (p == end || *p != ':')
                return refuse(bad, 400, "a header name is not directly followed by a colon");
        f->name = df_bytes(line, (size_t)(p - line));
        for (value = ++p; p < end; p++)
                if ((*p < ' ' && *p != '\t') || *p == 0x7f)
                        return refuse(bad, 400, "a header value holds a control character");
        while (value < end && (*value == ' ' || *value == '\t'))
                value++;
        while (end > value && (end[-1] == ' ' || end[-1] == '\t'))
                end--;
        f->value = df_bytes(value, (size_t)(end - value));
        h->header_count++;
        return DFI_DONE;
}

enum dfi_parse dfi_head_parse(struct dfi_head *h, const uint8_t *data, size_t len,
                              struct dfi_refusal *bad)
{
        struct seen seen = {0};
        uint8_t *p = h->text, *end = h->text + len, *lf;

        df_check(len <= sizeof(h->text));
        df_check(len >= 4);
        memcpy(h->text, data, len);
        h->expect = false;
        h->length = 0;
        h->header_count = 0;
        lf = memchr(p, '\n', len);
        df_check(lf && lf > p);
        if (parse_request_line(h, df_bytes(p, (size_t)(lf - p) - 1), bad) == DFI_BAD)
                return DFI_BAD;
        for (p = lf + 1; end - p > 2; p = lf + 1) {
                lf = memchr(p, '\n', (size_t)(end - p));
                df_check(lf && lf > p);
                if (parse_header_line(h, p, (size_t)(lf - p) - 1, bad) == DFI_BAD)
                        return DFI_BAD;
                if (apply_header(h, &h->headers[h->header_count - 1], &seen, bad) == DFI_BAD)
                        return DFI_BAD;
        }
        return finish_headers(h, &seen, bad);
}

/* ---- query ---- */

static int hex_value(uint8_t c)
{
        if (c >= '0' && c <= '9')
                return c - '0';
        if (c >= 'a' && c <= 'f')
                return c - 'a' + 10;
        return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

bool dfi_decode(struct df_bytes text, bool plus, uint8_t *store, size_t *ret_len)
{
        size_t n = 0;

        for (size_t i = 0; i < text.len; i++) {
                uint8_t c = text.data[i];

                if (c == '%') {
                        int high = i + 2 < text.len ? hex_value(text.data[i + 1]) : -1;
                        int low = i + 2 < text.len ? hex_value(text.data[i + 2]) : -1;

                        if (high < 0 || low < 0)
                                return false;
                        c = (uint8_t)(high * 16 + low);
                        i += 2;
                } else if (c == '+' && plus) {
                        c = ' ';
                }
                store[n++] = c;
        }
        *ret_len = n;
        return true;
}

bool dfi_query_parse(struct df_bytes query, uint8_t *store, struct df_http_field *params,
                     size_t *ret_count, struct dfi_refusal *bad)
{
        const uint8_t *p = query.data, *end = query.data + query.len;
        size_t count = 0;

        while (p < end) {
                const uint8_t *amp = memchr(p, '&', (size_t)(end - p)), *stop = amp ? amp : end;
                const uint8_t *eq = memchr(p, '=', (size_t)(stop - p)), *name_end = eq ? eq : stop;
                const uint8_t *from = eq ? eq + 1 : stop;
                size_t name_len, value_len;

                if (stop > p && count == DF_HTTP_PARAMS_MAX) {
                        refuse(bad, 400, "there are more than 64 query parameters");
                        return false;
                }
                if (stop > p) {
                        if (!dfi_decode(df_bytes(p, (size_t)(name_end - p)), true, store,
                                        &name_len) ||
                            !dfi_decode(df_bytes(from, (size_t)(stop - from)), true,
                                        store + name_len, &value_len)) {
                                refuse(bad, 400,
                                       "the query holds a % that is not followed by two "
                                       "hexadecimal digits");
                                return false;
                        }
                        params[count].name = df_bytes(store, name_len);
                        params[count++].value = df_bytes(store + name_len, value_len);
                        store += name_len + value_len;
                }
                p = stop < end ? stop + 1 : end;
        }
        *ret_count = count;
        return true;
}

bool df_http_decode(struct df_bytes text, bool plus, struct df_buf *ret)
{
        size_t n;

        if (text.len == 0)
                return true;
        if (!df_buf_reserve(ret, text.len))
                return true; /* the buffer says so itself */
        if (!dfi_decode(text, plus, ret->data + ret->len, &n))
                return false;
        ret->len += n;
        return true;
}

/* ---- chunks ---- */

enum {
        CHUNK_SIZE,
        CHUNK_SIZE_LF,
        CHUNK_DATA,
        CHUNK_CR,
        CHUNK_LF,
        CHUNK_END_CR,
        CHUNK_END_LF,
        CHUNK_OVER
};

static enum dfi_parse chunk_size_char(struct dfi_chunks *c, uint8_t ch, struct dfi_refusal *bad)
{
        int v = hex_value(ch);

        if (v >= 0) {
                if (c->digits++ == CHUNK_DIGITS_MAX)
                        return refuse(bad, 400, "a chunk size has more than 16 digits");
                c->left = c->left * 16 + (uint64_t)v;
                return DFI_MORE;
        }
        if (ch != '\r' || c->digits == 0)
                return refuse(bad, 400, "a chunk size is not hexadecimal digits and CRLF");
        c->state = CHUNK_SIZE_LF;
        return DFI_MORE;
}

static enum dfi_parse chunk_char(struct dfi_chunks *c, uint8_t ch, struct dfi_refusal *bad)
{
        bool cr = c->state == CHUNK_CR || c->state == CHUNK_END_CR;

        if (c->state == CHUNK_SIZE)
                return chunk_size_char(c, ch, bad);
        if (c->state == CHUNK_END_CR && ch != '\r')
                return refuse(bad, 400, "trailers are refused");
        if (ch != (cr ? '\r' : '\n'))
                return refuse(bad, 400, "a chunk does not end with CRLF where its size says");
        switch (c->state) {
        case CHUNK_SIZE_LF:
                c->state = c->left > 0 ? CHUNK_DATA : CHUNK_END_CR;
                break;
        case CHUNK_LF:
                c->state = CHUNK_SIZE;
                c->digits = 0;
                break;
        case CHUNK_END_LF:
                c->state = CHUNK_OVER;
                return DFI_DONE;
        default:
                c->state++; /* CR was seen, LF follows */
        }
        return DFI_MORE;
}

enum dfi_parse dfi_chunks_feed(struct dfi_chunks *c, struct df_bytes in, size_t *ret_used,
                               struct df_bytes *ret_body, struct dfi_refusal *bad)
{
        enum dfi_parse result = DFI_MORE;
        size_t i = 0;

        df_check(c->state != CHUNK_OVER);
        *ret_body = df_bytes(NULL, 0);
        while (i < in.len && result == DFI_MORE && c->state != CHUNK_DATA)
                result = chunk_char(c, in.data[i++], bad);
        if (result == DFI_MORE && c->state == CHUNK_DATA && i < in.len) {
                size_t n = in.len - i < c->left ? in.len - i : (size_t)c->left;

                *ret_body = df_bytes(in.data + i, n);
                i += n;
                c->left -= n;
                if (c->left == 0)
                        c->state = CHUNK_CR;
        }
        *ret_used = i;
        return result;
}
