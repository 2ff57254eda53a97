/* ordered.c - strings inside the keys of stores: a zero byte cannot be mistaken for the end. */
#include "proto/wire.h"

void ad_put_ordered(struct df_buf *b, struct df_bytes s)
{
        for (size_t i = 0; i < s.len; i++) {
                df_put_u8(b, s.data[i]);
                if (s.data[i] == 0)
                        df_put_u8(b, 0xff);
        }
        df_put_u8(b, 0);
        df_put_u8(b, 0);
}

bool ad_get_ordered(struct df_reader *r, uint8_t *room, size_t max, struct df_bytes *ret)
{
        size_t n = 0;

        for (;;) {
                uint8_t c = df_get_u8(r);

                if (c == 0 && df_get_u8(r) != 0xff)
                        break;
                if (r->bad || n == max)
                        return false;
                room[n++] = c;
        }
        *ret = df_bytes(room, n);
        return !r->bad;
}
