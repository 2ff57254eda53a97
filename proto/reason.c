#include "proto/reason.h"

#include <stddef.h>
#include <string.h>

static const struct {
        unsigned value;
        struct ad_reason_info info;
} reasons[] = {
#define X(name, value, cls, code, status, retry, text)                                             \
        {value, {code, text, AD_CLASS_##cls, status, retry}},
        AD_REASON_MAP(X)
#undef X
};

static const struct ad_reason_info unknown = {"unknown", "an unknown code", AD_CLASS_QUARANTINED, 0,
                                              0};

const struct ad_reason_info *ad_reason_info(unsigned reason)
{
        for (size_t i = 0; i < sizeof(reasons) / sizeof(reasons[0]); i++)
                if (reasons[i].value == reason)
                        return &reasons[i].info;
        return &unknown;
}

enum ad_reason ad_reason_by_code(const char *code)
{
        for (size_t i = 0; i < sizeof(reasons) / sizeof(reasons[0]); i++)
                if (strcmp(reasons[i].info.code, code) == 0)
                        return (enum ad_reason)reasons[i].value;
        return AD_NONE;
}
