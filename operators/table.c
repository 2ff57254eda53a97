/* table.c - every operator there is. A new one is added here and gets the law tests for it. */
#include "df/task.h"
#include "operators/ops.h"

const struct df_operator_ops *const ad_chain_main[] = {
        &ad_op_decode, &ad_op_guard,  &ad_op_dedupe,     &ad_op_price,
        &ad_op_late,   &ad_op_tumble, &ad_op_quarantine,
};
const size_t ad_chain_main_length = sizeof(ad_chain_main) / sizeof(ad_chain_main[0]);

const struct df_operator_ops *const ad_chain_bill[] = {
        &ad_op_decode, &ad_op_guard,   &ad_op_dedupe_billing, &ad_op_price,      &ad_op_late,
        &ad_op_tumble, &ad_op_correct, &ad_op_bill,           &ad_op_quarantine,
};
const size_t ad_chain_bill_length = sizeof(ad_chain_bill) / sizeof(ad_chain_bill[0]);

const struct df_operator_ops *const ad_chain_books[] = {&ad_op_books};
const size_t ad_chain_books_length = sizeof(ad_chain_books) / sizeof(ad_chain_books[0]);

const struct df_operator_ops *const ad_operators[] = {
        &ad_op_decode,  &ad_op_guard,  &ad_op_dedupe,     &ad_op_price,
        &ad_op_late,    &ad_op_tumble, &ad_op_quarantine, &ad_op_dedupe_billing,
        &ad_op_correct, &ad_op_bill,   &ad_op_books,
};
const size_t ad_operator_count = sizeof(ad_operators) / sizeof(ad_operators[0]);

enum df_control ad_control(struct df_bytes value, uint64_t *ret_generation)
{
        struct ad_batch b;

        if (ad_wire_batch_peek(value, &b, NULL) < 0)
                return DF_CONTROL_NONE;
        if (b.has_import_begin) {
                *ret_generation = b.import_begin.generation;
                return DF_CONTROL_BEGIN;
        }
        return b.has_import_end ? DF_CONTROL_END : DF_CONTROL_NONE;
}
