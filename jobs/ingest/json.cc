#include <cstring>
#include <new>
#include <simdjson.h>
#include <vector>

#include "jobs/ingest/json.h"

/* Deeper documents are refused: an event is two levels deep, a batch four. */
static constexpr size_t depth_max = 16;
/* The parser keeps about 11 bytes a byte of its largest document: after a large one it shrinks. */
static constexpr size_t capacity_min = 256 * 1024;
static constexpr size_t capacity_keep = 2 * 1024 * 1024;

struct ad_json_parser {
        simdjson::dom::parser parser;
        std::vector<ad_json_node> nodes;
        std::vector<uint8_t> padded;
};

namespace
{
df_bytes bytes_of(std::string_view s)
{
        df_bytes b;

        b.data = reinterpret_cast<const uint8_t *>(s.data());
        b.len = s.size();
        return b;
}

struct too_many {
};

void add(std::vector<ad_json_node> &nodes, df_bytes key, const simdjson::dom::element &e)
{
        size_t at = nodes.size();

        if (at == AD_JSON_NODES_MAX)
                throw too_many();
        nodes.push_back(ad_json_node());
        nodes[at].key = key;
        switch (e.type()) {
        case simdjson::dom::element_type::OBJECT:
                nodes[at].kind = AD_JSON_OBJECT;
                for (auto field : simdjson::dom::object(e))
                        add(nodes, bytes_of(field.key), field.value);
                break;
        case simdjson::dom::element_type::ARRAY:
                nodes[at].kind = AD_JSON_ARRAY;
                for (auto item : simdjson::dom::array(e))
                        add(nodes, df_bytes{nullptr, 0}, item);
                break;
        case simdjson::dom::element_type::STRING:
                nodes[at].kind = AD_JSON_STRING;
                nodes[at].text = bytes_of(std::string_view(e));
                break;
        case simdjson::dom::element_type::INT64:
                nodes[at].kind = AD_JSON_INT;
                nodes[at].i = int64_t(e);
                break;
        case simdjson::dom::element_type::UINT64:
                nodes[at].kind = AD_JSON_UINT;
                nodes[at].u = uint64_t(e);
                break;
        case simdjson::dom::element_type::DOUBLE:
                nodes[at].kind = AD_JSON_DOUBLE;
                nodes[at].d = double(e);
                break;
        case simdjson::dom::element_type::BOOL:
                nodes[at].kind = AD_JSON_BOOL;
                nodes[at].u = bool(e);
                break;
        case simdjson::dom::element_type::NULL_VALUE:
                nodes[at].kind = AD_JSON_NULL;
                break;
        }
        nodes[at].next = uint32_t(nodes.size());
}

/* Memory for a document of len bytes: more when it must, less when a large one is long past. */
simdjson::error_code make_room(struct ad_json_parser *p, size_t len)
{
        size_t want = len < capacity_min ? capacity_min : len + len / 4;

        if (p->padded.size() > capacity_keep && len < capacity_min) {
                std::vector<uint8_t>().swap(p->padded);
                std::vector<ad_json_node>().swap(p->nodes);
                p->parser = simdjson::dom::parser();
        }
        if (p->padded.size() < len + simdjson::SIMDJSON_PADDING)
                p->padded.resize(want + simdjson::SIMDJSON_PADDING);
        if (p->parser.capacity() < len || p->parser.max_depth() != depth_max)
                return p->parser.allocate(want, depth_max);
        return simdjson::SUCCESS;
}
} // namespace

struct ad_json_parser *ad_json_create(void)
{
        return new (std::nothrow) ad_json_parser();
}

void ad_json_destroy(struct ad_json_parser *p)
{
        delete p;
}

int ad_json_parse(struct ad_json_parser *p, struct df_bytes text,
                  const struct ad_json_node **ret_nodes, size_t *ret_count,
                  const char **ret_message)
try {
        simdjson::dom::element doc;
        simdjson::error_code rc;

        rc = make_room(p, text.len);
        if (text.len)
                memcpy(p->padded.data(), text.data, text.len);
        if (!rc)
                rc = p->parser.parse(p->padded.data(), text.len, false).get(doc);
        if (rc) {
                *ret_message = simdjson::error_message(rc);
                return rc == simdjson::UTF8_ERROR ? AD_JSON_BAD_UTF8
                       : rc == simdjson::MEMALLOC ? AD_JSON_NO_MEMORY
                                                  : AD_JSON_BAD;
        }
        p->nodes.clear();
        add(p->nodes, df_bytes{nullptr, 0}, doc);
        *ret_nodes = p->nodes.data();
        *ret_count = p->nodes.size();
        return AD_JSON_OK;
} catch (const std::bad_alloc &) {
        *ret_message = "out of memory";
        return AD_JSON_NO_MEMORY;
} catch (const too_many &) {
        *ret_message = "it holds more values than a batch may";
        return AD_JSON_TOO_MANY;
} catch (const std::exception &) {
        *ret_message = "not acceptable JSON";
        return AD_JSON_BAD;
}

int ad_utf8_valid(struct df_bytes text)
{
        return simdjson::validate_utf8(reinterpret_cast<const char *>(text.data), text.len);
}
