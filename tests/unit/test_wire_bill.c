/* test_wire_bill.c - billing rows against what protoc makes of bill.proto: the same bytes, both
 * ways; damage is refused or read within its bounds. */
#include "unit.h"

#include "bill.pb-c.h"
#include "proto/bill.h"

#include "dice.h"

static struct df_bytes word(char *room, size_t max)
{
        size_t n = dice(max + 1);

        for (size_t i = 0; i < n; i++)
                room[i] = (char)('a' + dice(26));
        return df_bytes(room, n);
}

static df_nanos amount(void)
{
        unsigned __int128 v = next_of(&dice_state);

        v = (v << 64 | next_of(&dice_state)) >> (1 + dice(127)); /* sums are no less than zero */
        return dice(4) == 0 ? 0 : (df_nanos)v;
}

static struct ad_cell random_cell(void)
{
        struct ad_cell c = {.spend = amount(), .payout = amount(), .value = amount()};

        c.impressions = dice(3) ? next_of(&dice_state) >> dice(64) : 0;
        c.clicks = dice(5);
        c.conversions = dice(2);
        for (int i = 0; i < 3; i++)
                c.invalid[i] = dice(3);
        return c;
}

static df_nanos sum_of(ProtobufCBinaryData b)
{
        df_nanos v = 0;

        assert_true(df_int128_from_bytes(df_bytes(b.data, b.len), &v));
        return v;
}

static void check_cell(const Adtally__V1__BillCell *m, const struct ad_cell *c)
{
        if (!m) {
                assert_true(ad_cell_is_zero(c));
                return;
        }
        assert_true(m->impressions == c->impressions && m->clicks == c->clicks &&
                    m->conversions == c->conversions);
        assert_true(m->invalid_impressions == c->invalid[0] && m->invalid_clicks == c->invalid[1] &&
                    m->invalid_conversions == c->invalid[2]);
        assert_true(sum_of(m->spend_nanos) == c->spend && sum_of(m->payout_nanos) == c->payout &&
                    sum_of(m->conversion_value_nanos) == c->value);
}

static void check_string(const char *m, struct df_bytes b)
{
        assert_int_equal(strlen(m), b.len);
        assert_true(b.len == 0 || memcmp(m, b.data, b.len) == 0);
}

static int compare(void *arg, const struct ad_bill_row *got, struct df_error *e)
{
        const struct ad_bill_row *want = arg;

        (void)e;
        assert_true(got->quarter == want->quarter && got->cause == want->cause);
        assert_true(df_bytes_eq(got->tenant_id, want->tenant_id) &&
                    df_bytes_eq(got->advertiser_id, want->advertiser_id) &&
                    df_bytes_eq(got->campaign_id, want->campaign_id) &&
                    df_bytes_eq(got->publisher_id, want->publisher_id) &&
                    df_bytes_eq(got->currency, want->currency));
        assert_memory_equal(&got->billed, &want->billed, sizeof(got->billed));
        assert_memory_equal(&got->realtime, &want->realtime, sizeof(got->realtime));
        return 0;
}

static int ignore(void *arg, const struct ad_bill_row *row, struct df_error *e)
{
        (void)arg;
        (void)row;
        (void)e;
        return 0;
}

static void rows_are_protocs(void **unused)
{
        char room[5][AD_ID_MAX];

        (void)unused;
        roll_seed();
        for (int n = 0; n < 2000; n++) {
                struct ad_bill_row row = {.quarter = next_of(&dice_state) >> dice(64),
                                          .cause = (uint32_t)dice(AD_CAUSE_COUNT),
                                          .billed = random_cell()};
                Adtally__V1__BillBatch *m;
                struct df_buf b = {0}, damaged = {0};

                row.tenant_id = word(room[0], AD_ID_MAX);
                row.advertiser_id = word(room[1], AD_ID_MAX);
                row.campaign_id = word(room[2], AD_ID_MAX);
                row.publisher_id = word(room[3], AD_ID_MAX);
                row.currency = word(room[4], 3);
                row.realtime = row.cause == AD_CAUSE_NONE ? row.billed : random_cell();
                ad_wire_bill_row(&b, &row);
                ok(df_buf_check(&b, &err));
                m = adtally__v1__bill_batch__unpack(NULL, b.len, b.data);
                assert_non_null(m);
                assert_int_equal(m->n_rows, 1);
                assert_true(m->rows[0]->quarter == row.quarter);
                assert_int_equal(m->rows[0]->cause, row.cause);
                check_string(m->rows[0]->tenant_id, row.tenant_id);
                check_string(m->rows[0]->advertiser_id, row.advertiser_id);
                check_string(m->rows[0]->campaign_id, row.campaign_id);
                check_string(m->rows[0]->publisher_id, row.publisher_id);
                check_string(m->rows[0]->currency, row.currency);
                check_cell(m->rows[0]->billed, &row.billed);
                if (row.cause != AD_CAUSE_NONE)
                        check_cell(m->rows[0]->realtime, &row.realtime);
                assert_int_equal(adtally__v1__bill_batch__get_packed_size(m), b.len);
                adtally__v1__bill_batch__free_unpacked(m, NULL);
                ok(ad_wire_bill_decode(df_buf_bytes(&b), compare, &row, &err));

                df_buf_append(&damaged, b.data, b.len);
                damaged.data[dice(b.len)] ^= (uint8_t)(1 + dice(255));
                (void)ad_wire_bill_decode(df_buf_bytes(&damaged), ignore, NULL, &err);
                (void)ad_wire_bill_decode(df_bytes(b.data, dice(b.len)), ignore, NULL, &err);
                df_buf_release(&damaged);
                df_buf_release(&b);
        }
}

static void what_is_beyond_is_refused(void **unused)
{
        struct ad_bill_row row = {.quarter = 1, .cause = AD_CAUSE_COUNT};
        char long_id[AD_ID_MAX + 1];
        struct df_buf b = {0};

        (void)unused;
        memset(long_id, 'x', sizeof(long_id));
        ad_wire_bill_row(&b, &row);
        fails(ad_wire_bill_decode(df_buf_bytes(&b), ignore, NULL, &err), DF_EPARSE, "damaged");
        df_buf_clear(&b);
        row.cause = 0;
        row.campaign_id = df_bytes(long_id, sizeof(long_id));
        ad_wire_bill_row(&b, &row);
        fails(ad_wire_bill_decode(df_buf_bytes(&b), ignore, NULL, &err), DF_EPARSE, "damaged");
        df_buf_release(&b);
        assert_string_equal(ad_cause_code(AD_CAUSE_LATE), "late");
        assert_string_equal(ad_cause_code(AD_CAUSE_COUNT), "unknown");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(rows_are_protocs),
                cmocka_unit_test(what_is_beyond_is_refused),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
