/* test_wire_books.c - commands, runs and postings against what protoc makes of books.proto: the
 * same bytes both ways, cut short at every byte, damaged, and one beyond every limit. */
#include "wire_books_test.h"

#include "books.pb-c.h"

#define LONGEST_CUT 700 /* bytes of a message that is cut at every one of them */

/* ---- what protoc's code reads in our bytes ---- */

static void same_cell(const Adtally__V1__BillCell *m, const struct ad_cell *c)
{
        if (!m) {
                assert_true(ad_cell_is_zero(c));
                return;
        }
        assert_true(m->impressions == c->impressions && m->clicks == c->clicks &&
                    m->conversions == c->conversions);
        assert_true(m->invalid_impressions == c->invalid[0] && m->invalid_clicks == c->invalid[1] &&
                    m->invalid_conversions == c->invalid[2]);
        same_int128(m->spend_nanos, c->spend);
        same_int128(m->payout_nanos, c->payout);
        same_int128(m->conversion_value_nanos, c->value);
}

static void same_causes(Adtally__V1__CauseCell *const *m, size_t n, const struct ad_cause_cell *c,
                        size_t count, bool is_delta)
{
        assert_int_equal(n, count);
        for (size_t i = 0; i < n; i++) {
                assert_int_equal(m[i]->cause, c[i].cause);
                same_cell(m[i]->billed, &c[i].billed);
                if (is_delta || c[i].cause == AD_CAUSE_NONE)
                        assert_null(m[i]->realtime);
                else
                        same_cell(m[i]->realtime, &c[i].realtime);
        }
}

static void same_target(const Adtally__V1__Target *m, const struct ad_target *t)
{
        assert_true(m->quarter == t->quarter);
        same_text(m->tenant_id, t->tenant_id);
        same_text(m->advertiser_id, t->advertiser_id);
        same_text(m->campaign_id, t->campaign_id);
        same_text(m->publisher_id, t->publisher_id);
        same_text(m->currency, t->currency);
        same_causes(m->causes, m->n_causes, t->causes, t->cause_count, false);
}

static void same_vector(Adtally__V1__VectorPart *const *m, size_t n, const struct ad_run_begin *b)
{
        assert_int_equal(n, b->vector_count);
        for (size_t i = 0; i < n; i++) {
                same_text(m[i]->source->stream, b->vector[i].stream);
                assert_true(m[i]->source->generation == b->vector[i].generation);
                assert_true(m[i]->source->partition == b->vector[i].partition);
                assert_true(m[i]->to == b->vector[i].to);
        }
}

/* RunBegin and the first fields of Applied have the same names. */
#define same_begin(m, b)                                                                           \
        do {                                                                                       \
                same_text((m)->run, (b)->run);                                                     \
                same_text((m)->chain, (b)->chain);                                                 \
                assert_true((m)->whole == (b)->whole && (m)->config == (b)->config);               \
                same_vector((m)->vector, (m)->n_vector, b);                                        \
                assert_true((m)->price_version == (b)->price_version);                             \
                assert_true((m)->corrections_to == (b)->corrections_to);                           \
                assert_true((m)->at_ms == (b)->at_ms);                                             \
                same_text((m)->binary_version, (b)->binary_version);                               \
                same_text((m)->asked_by, (b)->asked_by);                                           \
        } while (0)

static void same_data(ProtobufCBinaryData m, struct df_bytes b)
{
        assert_true(df_bytes_eq(df_bytes(m.data, m.len), b));
}

static void same_account(const Adtally__V1__Account *m, const struct ad_account *a)
{
        same_text(m->tenant_id, a->tenant_id);
        same_text(m->advertiser_id, a->advertiser_id);
}

static void same_close(const Adtally__V1__PeriodClose *m, const struct ad_period_close *c)
{
        same_text(m->run, c->run);
        same_text(m->asked_by, c->asked_by);
        same_account(m->account, &c->account);
        same_text(m->period, c->period);
        assert_true(m->from_quarter == c->from_quarter && m->to_quarter == c->to_quarter);
        same_text(m->zone, c->zone);
        same_text(m->zone_version, c->zone_version);
        assert_true(m->rows == c->rows && m->at_ms == c->at_ms);
        assert_int_equal(m->n_totals, c->total_count);
        for (size_t i = 0; i < c->total_count; i++) {
                same_text(m->totals[i]->currency, c->totals[i].currency);
                same_cell(m->totals[i]->billed, &c->totals[i].billed);
        }
        same_data(m->manifest, c->manifest);
        same_data(m->signature, c->signature);
}

static void same_correction(const Adtally__V1__Correction *m, const struct ad_correction *c)
{
        assert_int_equal(m->scope->n_event_ids, c->scope.event_id_count);
        for (size_t i = 0; i < c->scope.event_id_count; i++)
                same_text(m->scope->event_ids[i], c->scope.event_ids[i]);
        same_text(m->scope->advertiser_id, c->scope.advertiser_id);
        same_text(m->scope->campaign_id, c->scope.campaign_id);
        same_text(m->scope->publisher_id, c->scope.publisher_id);
        assert_true(m->scope->label == c->scope.label && m->scope->from_ms == c->scope.from_ms &&
                    m->scope->to_ms == c->scope.to_ms);
        assert_int_equal(m->action, c->action);
        assert_true(m->price_nanos == c->price_nanos && m->label == c->label);
        same_text(m->currency, c->currency);
        same_text(m->advertiser_id, c->advertiser_id);
        same_text(m->campaign_id, c->campaign_id);
        same_text(m->publisher_id, c->publisher_id);
}

static void same_command(const Adtally__V1__Command *m, const struct ad_command *c)
{
        same_text(m->id, c->id);
        same_text(m->tenant_id, c->tenant_id);
        assert_true(m->at_ms == c->at_ms);
        same_text(m->requested_by, c->requested_by);
        same_text(m->approved_by, c->approved_by);
        same_text(m->reason, c->reason);
        assert_int_equal(m->what_case, c->kind == AD_COMMAND_NONE ? 0 : 9 + (int)c->kind);
        if (c->kind == AD_COMMAND_CORRECTION)
                same_correction(m->correction, &c->correction);
        if (c->kind == AD_COMMAND_CLOSE) {
                same_account(m->close->account, &c->close.account);
                same_text(m->close->period, c->close.period);
                assert_true(m->close->from_quarter == c->close.from_quarter);
                assert_true(m->close->to_quarter == c->close.to_quarter);
                same_text(m->close->zone, c->close.zone);
                same_text(m->close->zone_version, c->close.zone_version);
        }
        if (c->kind == AD_COMMAND_CANCEL)
                same_text(m->cancel->id, c->cancel);
}

static void same_record(const Adtally__V1__RunRecord *m, const struct ad_run_record *v)
{
        assert_int_equal(m->what_case, v->kind);
        if (v->kind == AD_RUN_BEGIN)
                same_begin(m->begin, &v->begin);
        if (v->kind == AD_RUN_TARGETS) {
                same_text(m->targets->run, v->targets.run);
                assert_int_equal(m->targets->n_targets, v->targets.count);
                for (size_t i = 0; i < v->targets.count; i++)
                        same_target(m->targets->targets[i], &v->targets.targets[i]);
        }
        if (v->kind == AD_RUN_END) {
                same_text(m->end->run, v->end.run);
                assert_true(m->end->targets == v->end.targets && m->end->rows == v->end.rows);
                assert_true(m->end->unexplained == v->end.unexplained);
                assert_true(m->end->pending == v->end.pending);
                same_data(m->end->digest, v->end.digest);
        }
        if (v->kind == AD_RUN_CLOSE)
                same_close(m->close, &v->close);
}

static void same_entry(const Adtally__V1__BooksEntry *m, const struct ad_books_entry *e)
{
        assert_int_equal(m->what_case, e->kind);
        if (e->kind == AD_BOOKS_POSTING) {
                assert_true(m->posting->seq == e->posting.seq);
                same_text(m->posting->run, e->posting.run);
                assert_true(m->posting->at_ms == e->posting.at_ms);
                same_target(m->posting->target, &e->posting.target);
                same_text(m->posting->closed_period, e->posting.closed_period);
                same_text(m->posting->posted_period, e->posting.posted_period);
                same_causes(m->posting->delta, m->posting->n_delta, e->posting.delta,
                            e->posting.delta_count, true);
        }
        if (e->kind == AD_BOOKS_APPLIED) {
                same_begin(m->applied, &e->applied.begin);
                assert_true(m->applied->posted == e->applied.posted &&
                            m->applied->adjusted == e->applied.adjusted &&
                            m->applied->superseded == e->applied.superseded);
                same_data(m->applied->digest, e->applied.end.digest);
                assert_true(m->applied->rows == e->applied.end.rows &&
                            m->applied->unexplained == e->applied.end.unexplained &&
                            m->applied->pending == e->applied.end.pending);
                same_text(m->applied->why, e->applied.why);
        }
        if (e->kind == AD_BOOKS_CLOSED) {
                same_close(m->closed->close, &e->closed.close);
                assert_true(m->closed->refused == e->closed.refused);
                assert_true(m->closed->seq == e->closed.seq);
                same_text(m->closed->why, e->closed.why);
                same_text(m->closed->open_period, e->closed.open_period);
        }
}

/* ---- decoders: what they read is what was written (written again: the same bytes) ---- */

static struct df_buf again;

static int decode_command(struct df_bytes bytes, struct df_error *err)
{
        struct df_arena arena;
        struct ad_command c;
        int rc;

        df_arena_init(&arena, 0);
        rc = ad_wire_command_decode(bytes, &arena, &c, err);
        df_buf_clear(&again);
        if (rc == 0)
                ad_wire_command(&again, &c);
        df_arena_release(&arena);
        return rc;
}

static int decode_record(struct df_bytes bytes, struct df_error *err)
{
        struct df_arena arena;
        struct ad_run_record v;
        int rc;

        df_arena_init(&arena, 0);
        rc = ad_wire_run_record_decode(bytes, &arena, &v, err);
        df_buf_clear(&again);
        if (rc == 0)
                ad_wire_run_record(&again, &v);
        df_arena_release(&arena);
        return rc;
}

static int put_again(void *arg, const struct ad_books_entry *e, struct df_error *err)
{
        (void)arg;
        (void)err;
        ad_wire_books_entry(&again, e);
        return 0;
}

static int decode_entries(struct df_bytes bytes, struct df_error *err)
{
        struct df_arena arena;
        int rc;

        df_arena_init(&arena, 0);
        df_buf_clear(&again);
        rc = ad_wire_books_decode(bytes, &arena, put_again, NULL, err);
        df_arena_release(&arena);
        return rc;
}

static void check(struct random *r, const struct df_buf *b, decoder decode,
                  const ProtobufCMessage *m, uint64_t seed)
{
        struct df_bytes e = exact(b->data, b->len);

        same_bytes(e, m, seed);
        ok(decode(e, err));
        if (!df_bytes_eq(df_buf_bytes(&again), e))
                fail_msg("seed %llu: %s: other bytes when written again", (unsigned long long)seed,
                         m->descriptor->name);
        if (e.len <= LONGEST_CUT)
                check_truncation(e, decode, m->descriptor, seed);
        check_unknown_fields(e, decode);
        check_damage(r, e, decode);
        exact_free(e);
}

static void commands_are_protocs(void **state)
{
        struct df_buf b = {0};

        (void)state;
        for (uint64_t seed = 1; seed <= SEEDS; seed++) {
                struct random r = {seed};
                struct ad_command c = command(&r);
                Adtally__V1__Command *m;

                df_buf_clear(&b);
                ad_wire_command(&b, &c);
                m = adtally__v1__command__unpack(NULL, b.len, b.data);
                assert_non_null(m);
                same_command(m, &c);
                check(&r, &b, decode_command, &m->base, seed);
                adtally__v1__command__free_unpacked(m, NULL);
        }
        df_buf_release(&b);
}

static void run_records_are_protocs(void **state)
{
        struct df_buf b = {0};

        (void)state;
        for (uint64_t seed = 1; seed <= SEEDS; seed++) {
                struct random r = {seed};
                struct ad_run_record v = run_record(&r);
                Adtally__V1__RunRecord *m;

                df_buf_clear(&b);
                ad_wire_run_record(&b, &v);
                m = adtally__v1__run_record__unpack(NULL, b.len, b.data);
                assert_non_null(m);
                same_record(m, &v);
                check(&r, &b, decode_record, &m->base, seed);
                adtally__v1__run_record__free_unpacked(m, NULL);
        }
        df_buf_release(&b);
}

static void entries_are_protocs(void **state)
{
        struct df_buf b = {0};

        (void)state;
        for (uint64_t seed = 1; seed <= SEEDS; seed++) {
                struct random r = {seed};
                struct ad_books_entry e[3];
                size_t n = 1 + below(&r, 3);
                Adtally__V1__BooksBatch *m;

                df_buf_clear(&b);
                for (size_t i = 0; i < n; i++) {
                        e[i] = entry(&r);
                        ad_wire_books_entry(&b, &e[i]);
                }
                m = adtally__v1__books_batch__unpack(NULL, b.len, b.data);
                assert_non_null(m);
                assert_int_equal(m->n_entries, n);
                for (size_t i = 0; i < n; i++)
                        same_entry(m->entries[i], &e[i]);
                check(&r, &b, decode_entries, &m->base, seed);
                adtally__v1__books_batch__free_unpacked(m, NULL);
        }
        df_buf_release(&b);
}

/* A record filled bit by bit is the record written at once; a target alone is its value. */
static void targets_bit_by_bit(void **state)
{
        struct df_buf whole = {0}, bits = {0};

        (void)state;
        for (uint64_t seed = 1; seed <= SEEDS; seed++) {
                struct random r = {seed};
                struct ad_run_record v = run_record(&r);
                struct ad_target t = target(&r), back;
                struct df_arena arena;
                size_t mark;

                v.kind = AD_RUN_TARGETS;
                df_buf_clear(&whole);
                df_buf_clear(&bits);
                ad_wire_run_record(&whole, &v);
                mark = ad_wire_targets_begin(&bits, v.targets.run);
                for (size_t i = 0; i < v.targets.count; i++)
                        ad_wire_target(&bits, &v.targets.targets[i]);
                ad_wire_targets_end(&bits, mark);
                assert_true(df_bytes_eq(df_buf_bytes(&whole), df_buf_bytes(&bits)));

                df_buf_clear(&whole);
                df_buf_clear(&bits);
                df_arena_init(&arena, 0);
                ad_wire_target_value(&whole, &t);
                ok(ad_wire_target_decode(df_buf_bytes(&whole), &arena, &back, err));
                ad_wire_target_value(&bits, &back);
                assert_true(df_bytes_eq(df_buf_bytes(&whole), df_buf_bytes(&bits)));
                assert_true(ad_target_same_cells(&t, &back));
                df_arena_release(&arena);
        }
        df_buf_release(&whole);
        df_buf_release(&bits);
}

/* ---- limits ---- */

static char longs[AD_MANIFEST_MAX + 1];
static struct df_buf limit_bytes;

static void check_limit(const char *name, decoder decode, size_t over, const char *part)
{
        struct df_error e = {0};
        int rc = decode(df_buf_bytes(&limit_bytes), &e);

        if (over ? rc != DF_EPARSE || !strstr(e.text, part) : rc != 0)
                fail_msg("%s, %zu over: %d %s", name, over, rc, e.text);
        df_buf_clear(&limit_bytes);
}

/* The member of one message filled to its limit, then one beyond. */
#define LIMIT(type, write, decode, set, member, max, part)                                         \
        for (size_t over = 0; over < 2; over++) {                                                  \
                struct type v = set;                                                               \
                                                                                                   \
                v.member = df_bytes(longs, (size_t)(max) + over);                                  \
                write(&limit_bytes, &v);                                                           \
                check_limit(#type "." #member, decode, over, part);                                \
        }
#define SET(...)                                                                                   \
        {                                                                                          \
                __VA_ARGS__                                                                        \
        }
#define COMMAND(kind_, member, max, part)                                                          \
        LIMIT(ad_command, ad_wire_command, decode_command, SET(.kind = (kind_)), member, max, part)
#define RECORD(kind_, member, max, part)                                                           \
        LIMIT(ad_run_record, ad_wire_run_record, decode_record, SET(.kind = (kind_)), member, max, \
              part)
#define ENTRY(kind_, member, max, part)                                                            \
        LIMIT(ad_books_entry, ad_wire_books_entry, decode_entries, SET(.kind = (kind_)), member,   \
              max, part)

static void strings_one_beyond(void **state)
{
        (void)state;
        COMMAND(AD_COMMAND_RUN, id, AD_COMMAND_ID_MAX, "id is beyond")
        COMMAND(AD_COMMAND_RUN, tenant_id, AD_ID_MAX, "tenant_id is beyond")
        COMMAND(AD_COMMAND_RUN, requested_by, AD_PERSON_MAX, "requested_by is beyond")
        COMMAND(AD_COMMAND_RUN, approved_by, AD_PERSON_MAX, "129 bytes, at most 128")
        COMMAND(AD_COMMAND_RUN, reason, AD_REASON_TEXT_MAX, "a command: reason")
        COMMAND(AD_COMMAND_CORRECTION, correction.currency, 3, "a correction: currency")
        COMMAND(AD_COMMAND_CORRECTION, correction.scope.campaign_id, AD_ID_MAX, "a scope: campaign")
        COMMAND(AD_COMMAND_CLOSE, close.period, AD_PERIOD_MAX, "period")
        COMMAND(AD_COMMAND_CLOSE, close.zone, AD_ZONE_MAX, "zone")
        COMMAND(AD_COMMAND_CLOSE, close.zone_version, AD_ZONE_MAX, "zone_version")
        COMMAND(AD_COMMAND_CLOSE, close.account.advertiser_id, AD_ID_MAX, "an account")
        COMMAND(AD_COMMAND_CANCEL, cancel, AD_COMMAND_ID_MAX, "a cancellation: id")
        RECORD(AD_RUN_BEGIN, begin.run, AD_RUN_ID_MAX, "the begin of a run: run")
        RECORD(AD_RUN_BEGIN, begin.chain, AD_ID_MAX, "chain")
        RECORD(AD_RUN_BEGIN, begin.binary_version, DF_VERSION_MAX, "binary_version")
        RECORD(AD_RUN_TARGETS, targets.run, AD_RUN_ID_MAX, "a batch of targets: run")
        RECORD(AD_RUN_END, end.digest, 32, "digest")
        RECORD(AD_RUN_CLOSE, close.manifest, AD_MANIFEST_MAX, "manifest")
        RECORD(AD_RUN_CLOSE, close.signature, AD_SIGNATURE_MAX, "signature")
        ENTRY(AD_BOOKS_POSTING, posting.posted_period, AD_PERIOD_MAX, "posted_period")
        ENTRY(AD_BOOKS_POSTING, posting.target.publisher_id, AD_ID_MAX, "a target: publisher_id")
        ENTRY(AD_BOOKS_APPLIED, applied.why, AD_REASON_TEXT_MAX, "why")
        ENTRY(AD_BOOKS_CLOSED, closed.why, AD_REASON_TEXT_MAX, "why")
}

static void lists_one_beyond(void **state)
{
        struct df_bytes *ids = calloc(AD_SCOPE_EVENT_IDS_MAX + 1, sizeof(*ids));
        struct ad_vector_part *parts = calloc(AD_VECTOR_PARTS_MAX + 1, sizeof(*parts));
        struct ad_target *targets = calloc(AD_TARGETS_MAX + 1, sizeof(*targets));
        struct ad_currency_cell *totals = calloc(AD_CURRENCIES_MAX + 1, sizeof(*totals));
        static char codes[AD_CURRENCIES_MAX + 1][3];

        (void)state;
        assert_true(ids && parts && targets && totals);
        for (int i = 0; i <= AD_CURRENCIES_MAX; i++) {
                codes[i][0] = 'A';
                codes[i][1] = (char)('A' + i / 26);
                codes[i][2] = (char)('A' + i % 26);
                totals[i].currency = df_bytes(codes[i], 3);
        }
        for (size_t over = 0; over < 2; over++) {
                struct ad_command c = {.kind = AD_COMMAND_CORRECTION};
                struct ad_run_record v = {.kind = AD_RUN_BEGIN};

                c.correction.scope.event_ids = ids;
                c.correction.scope.event_id_count = AD_SCOPE_EVENT_IDS_MAX + over;
                ad_wire_command(&limit_bytes, &c);
                check_limit("ids", decode_command, over, "event_ids is beyond its limit: 1001 of");
                v.begin.vector = parts;
                v.begin.vector_count = AD_VECTOR_PARTS_MAX + over;
                ad_wire_run_record(&limit_bytes, &v);
                check_limit("vector", decode_record, over, "vector is beyond");
                v.kind = AD_RUN_TARGETS;
                v.targets.targets = targets;
                v.targets.count = AD_TARGETS_MAX + over;
                ad_wire_run_record(&limit_bytes, &v);
                check_limit("targets", decode_record, over, "targets is beyond");
                v.kind = AD_RUN_CLOSE;
                v.close.totals = totals;
                v.close.total_count = AD_CURRENCIES_MAX + over;
                ad_wire_run_record(&limit_bytes, &v);
                check_limit("totals", decode_record, over, "totals is beyond");
        }
        free(ids);
        free(parts);
        free(targets);
        free(totals);
}

static void order_and_values(void **state)
{
        struct ad_cause_cell two[2] = {{.cause = 1}, {.cause = 1}}, of = {.cause = AD_CAUSE_COUNT};
        struct ad_currency_cell totals[2] = {{.currency = df_bytes_str("EUR")},
                                             {.currency = df_bytes_str("EUR")}};
        struct ad_target t = {.causes = two, .cause_count = 2};
        struct ad_run_record v = {.kind = AD_RUN_TARGETS, .targets = {.targets = &t, .count = 1}};
        struct ad_command c = {.kind = AD_COMMAND_CORRECTION};

        (void)state;
        ad_wire_run_record(&limit_bytes, &v);
        check_limit("a cause twice", decode_record, 1, "a target is damaged");
        two[0].cause = 2;
        ad_wire_run_record(&limit_bytes, &v);
        check_limit("causes descend", decode_record, 1, "a target is damaged");
        t.causes = &of;
        t.cause_count = 1;
        ad_wire_run_record(&limit_bytes, &v);
        check_limit("cause", decode_record, 1, "cause is beyond its limit: 10, at most 9");
        v.kind = AD_RUN_CLOSE;
        v.close.totals = totals;
        v.close.total_count = 2;
        ad_wire_run_record(&limit_bytes, &v);
        check_limit("totals", decode_record, 1, "the close of a period is damaged");
        c.correction.action = AD_CORRECT_COUNT;
        ad_wire_command(&limit_bytes, &c);
        check_limit("action", decode_command, 1, "action is beyond");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(commands_are_protocs), cmocka_unit_test(run_records_are_protocs),
                cmocka_unit_test(entries_are_protocs),  cmocka_unit_test(targets_bit_by_bit),
                cmocka_unit_test(strings_one_beyond),   cmocka_unit_test(lists_one_beyond),
                cmocka_unit_test(order_and_values),
        };
        int rc;

        df_arena_init(&values, 0);
        rc = cmocka_run_group_tests(tests, NULL, NULL);
        df_arena_release(&values);
        df_buf_release(&again);
        df_buf_release(&limit_bytes);
        return rc;
}
