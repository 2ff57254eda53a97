/* The transactional sink on a real broker (df/txn.h): outputs and position all or nothing (K3),
 * fencing and takeover (K8), going on with a kept partition (K9), the same bytes again (K7). */
#include "kafka_group_test.h"

/* A member that holds "e" (2 partitions), and the topic "out" for what is produced. */
struct stage {
        char prefix[64];
        struct member m;
};

static int stage_open(void **state)
{
        static struct stage s;

        s = (struct stage){0};
        session_ms = 2500;
        (void)snprintf(s.prefix, sizeof(s.prefix), "%s", fresh_prefix());
        member_open(&s.m, s.prefix, "w0");
        ok(df_log_topic_create(s.m.log, "e", 2, &err));
        ok(df_log_topic_create(s.m.log, "out", 2, &err));
        member_settles(&s.m, 2);
        *state = &s;
        return 0;
}

static int stage_close(void **state)
{
        struct stage *s = *state;

        member_close(&s->m);
        return 0;
}

static struct df_txn *open_txn(struct member *m, uint32_t partition)
{
        struct df_txn *t = NULL;

        ok(df_kafka_txn_open(m->log, m->group, "e", partition, &t, &err));
        return t;
}

static struct df_committed take_over(struct df_txn *t)
{
        struct df_committed c;

        memset(&c, 0xee, sizeof(c));
        ok(df_txn_takeover(t, &c, &err));
        return c;
}

/* begin, and one record a value, in the order of words. */
static void begin_with(struct df_txn *t, struct df_append *items, size_t count)
{
        ok(df_txn_begin(t, &err));
        ok(df_txn_produce(t, "out", items, count, &err));
}

static struct df_append record(const char *value)
{
        return (struct df_append){.value = df_bytes(value, strlen(value))};
}

static void commit_with(struct df_txn *t, struct df_append *items, size_t count, uint64_t offset,
                        const char *metadata)
{
        begin_with(t, items, count);
        ok(df_txn_offsets(t, offset, metadata, &err));
        ok(df_txn_commit(t, &err));
}

/* ---- commit ---- */

static void a_first_takeover_finds_nothing(void **state)
{
        struct stage *s = *state;
        struct df_txn *t = open_txn(&s->m, 1);
        struct df_committed c = take_over(t);

        assert_false(c.any);
        assert_string_equal(c.metadata, "");
        df_txn_close(t);
}

static void outputs_offset_and_metadata_are_committed_together(void **state)
{
        struct stage *s = *state;
        struct df_txn *t = open_txn(&s->m, 1);
        struct df_append items[3] = {record("a"), record("b"), record("c")};
        struct df_committed c;
        struct read_all all;
        char metadata[64];

        items[1].partition = 1;
        (void)take_over(t);
        begin_with(t, items, 3);
        ok(df_txn_offsets(t, 41, "adtally1 ck-1 aa", &err));
        assert_string_equal(values_of(s->m.log, "out", 0), ""); /* not before the commit */
        assert_true(raw_committed(s->prefix, "e", 0, metadata, sizeof(metadata)) == -1);
        ok(df_txn_commit(t, &err));
        assert_values(s->m.log, "out", 0, "a c ");
        assert_values(s->m.log, "out", 1, "b ");
        assert_true(raw_committed(s->prefix, "e", 1, metadata, sizeof(metadata)) == 41);
        assert_string_equal(metadata, "adtally1 ck-1 aa");
        assert_true(raw_committed(s->prefix, "e", 0, metadata, sizeof(metadata)) == -1);
        all = read_from(s->m.log, "out", 0, 0); /* offsets are told as a reader sees them */
        assert_true(items[0].ret_offset == all.list[0].offset);
        assert_true(items[2].ret_offset == all.list[1].offset);
        assert_true(!items[0].ret_append_ms || items[0].ret_append_ms == all.list[0].append_ms);
        release_all(&all);
        ok(df_txn_keep(t, &c, &err));
        assert_true(c.any && c.offset == 41);
        assert_string_equal(c.metadata, "adtally1 ck-1 aa");
        df_txn_close(t);
        t = open_txn(&s->m, 1);
        c = take_over(t); /* the next owner */
        assert_true(c.any && c.offset == 41);
        assert_string_equal(c.metadata, "adtally1 ck-1 aa");
        df_txn_close(t);
}

static void metadata_has_a_limit(void **state)
{
        struct stage *s = *state;
        struct df_txn *t = open_txn(&s->m, 0);
        struct df_append items[1] = {record("x")};
        char text[DF_TXN_METADATA_MAX + 2];
        struct df_committed c;

        memset(text, 'm', sizeof(text));
        text[DF_TXN_METADATA_MAX + 1] = '\0';
        (void)take_over(t);
        begin_with(t, items, 1);
        fails(df_txn_offsets(t, 1, text, &err), DF_ELIMIT, "1025");
        fails(df_txn_offsets(t, 1, "caf\xc3\xa9", &err), DF_EINVAL, "ASCII");
        fails(df_txn_offsets(t, 1, "a\nb", &err), DF_EINVAL, "ASCII");
        ok(df_txn_abort(t, &err));
        for (size_t len = DF_TXN_METADATA_MAX; len > 0; len /= 4) { /* each length is its own end */
                text[len] = '\0';
                commit_with(t, items, 1, len, text);
                ok(df_txn_keep(t, &c, &err));
                assert_true(c.offset == len);
                assert_string_equal(c.metadata, text);
        }
        df_txn_close(t);
}

/* The offset that somebody moved by hand has no checkpoint's name: said, not taken for one. */
static void foreign_metadata_is_none_of_ours(void **state)
{
        struct stage *s = *state;
        const char *const settings[][2] = {{"group.id", full_name(s->prefix, GROUP)}, {NULL, NULL}};
        rd_kafka_t *rk = raw_client(RD_KAFKA_CONSUMER, settings);
        rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
        rd_kafka_topic_partition_t *p =
                rd_kafka_topic_partition_list_add(list, full_name(s->prefix, "e"), 0);
        struct df_committed c;
        struct df_txn *t;

        member_close(&s->m); /* a group with members takes no offsets from outside: wait */
        p->offset = 5;
        p->metadata = strdup("caf\xc3\xa9");
        p->metadata_size = strlen(p->metadata);
        for (int64_t until = dfk_now_ms() + WAIT_MS; rd_kafka_commit(rk, list, 0);) {
                if (dfk_now_ms() > until)
                        fail_msg("the offset cannot be moved");
                dfk_pause(100);
        }
        rd_kafka_topic_partition_list_destroy(list);
        rd_kafka_destroy(rk);
        member_open(&s->m, s->prefix, "w0");
        member_settles(&s->m, 2);
        t = open_txn(&s->m, 0);
        c = take_over(t);
        assert_true(c.any && c.offset == 5);
        assert_string_equal(c.metadata, "");
        df_txn_close(t);
}

/* ---- abort ---- */

static void aborted_bytes_are_produced_again_and_seen_once(void **state)
{
        struct stage *s = *state;
        struct df_txn *t = open_txn(&s->m, 0);
        struct df_append items[2] = {record("a"), record("b")};
        char metadata[64];

        (void)take_over(t);
        for (int i = 0; i < 3; i++) { /* aborted after each step */
                begin_with(t, items, 2);
                if (i > 0)
                        ok(df_txn_offsets(t, 9, "wrong", &err));
                ok(df_txn_abort(t, &err));
                assert_true(raw_committed(s->prefix, "e", 0, metadata, sizeof(metadata)) == -1);
        }
        commit_with(t, items, 2, 7, "right");
        assert_values(s->m.log, "out", 0, "a b ");
        assert_true(raw_committed(s->prefix, "e", 0, metadata, sizeof(metadata)) == 7);
        assert_string_equal(metadata, "right");
        df_txn_close(t);
}

static void a_record_that_is_too_large_is_named(void **state)
{
        struct stage *s = *state;
        struct df_txn *t = open_txn(&s->m, 0);
        uint8_t *large = calloc(1, 4u << 20);
        struct df_append items[2] = {record("a"), {.value = df_bytes(large, 4u << 20)}};

        (void)take_over(t);
        ok(df_txn_begin(t, &err));
        fails(df_txn_produce(t, "out", items, 2, &err), DF_ELIMIT, "4194304 bytes");
        ok(df_txn_abort(t, &err));
        commit_with(t, items, 1, 1, "m");
        assert_values(s->m.log, "out", 0, "a ");
        free(large);
        df_txn_close(t);
}

/* ---- owners ---- */

static void a_takeover_fences_the_owner_before(void **state)
{
        struct stage *s = *state;
        struct df_txn *old = open_txn(&s->m, 0), *new = open_txn(&s->m, 0);
        struct df_append lost[2] = {record("no"), record("no")}, kept[1] = {record("yes")};
        struct df_committed c;

        (void)take_over(old);
        commit_with(old, kept, 1, 3, "first");
        begin_with(old, lost, 2);
        ok(df_txn_offsets(old, 9, "never", &err));
        c = take_over(new); /* aborts what is open */
        assert_true(c.any && c.offset == 3);
        assert_string_equal(c.metadata, "first");
        fails(df_txn_commit(old, &err), DF_ELOST, "commit_transaction");
        fails(df_txn_begin(old, &err), DF_ELOST, "close it"); /* nor does it fence the new one */
        commit_with(new, kept, 1, 4, "second");
        assert_values(s->m.log, "out", 0, "yes yes ");
        df_txn_close(old);
        commit_with(new, kept, 1, 5, "third"); /* closing the old one harms nobody */
        ok(df_txn_keep(new, &c, &err));
        assert_true(c.offset == 5);
        df_txn_close(new);
}

static void an_owner_that_was_fenced_between_commits_learns_it(void **state)
{
        struct stage *s = *state;
        struct df_txn *old = open_txn(&s->m, 0), *new = open_txn(&s->m, 0);
        struct df_append lost[1] = {record("no")}, kept[1] = {record("yes")};
        struct df_committed c;
        int rc;

        (void)take_over(old);
        commit_with(old, kept, 1, 1, "m");
        (void)take_over(new);
        rc = df_txn_begin(old, &err);
        if (rc == 0)
                rc = df_txn_produce(old, "out", lost, 1, &err);
        if (rc == 0)
                rc = df_txn_offsets(old, 9, "never", &err);
        if (rc == 0)
                rc = df_txn_commit(old, &err);
        assert_int_equal(rc, DF_ELOST);
        ok(df_txn_keep(new, &c, &err));
        assert_true(c.offset == 1);
        assert_values(s->m.log, "out", 0, "yes ");
        df_txn_close(old);
        df_txn_close(new);
}

/* K9: the owner asks what is committed and takes the group's generation; nobody is fenced by it. */
static void keep_does_not_fence(void **state)
{
        struct stage *s = *state;
        struct df_txn *old = open_txn(&s->m, 0), *new = open_txn(&s->m, 0);
        struct df_append items[1] = {record("x")};
        struct df_committed c;

        (void)take_over(old);
        commit_with(old, items, 1, 1, "m");
        (void)take_over(new);
        begin_with(new, items, 1);
        ok(df_txn_keep(old, &c, &err)); /* by one that is not the owner any more */
        assert_true(c.offset == 1);
        ok(df_txn_offsets(new, 2, "m", &err));
        ok(df_txn_commit(new, &err));
        ok(df_txn_keep(old, &c, &err));
        assert_true(c.offset == 2); /* by which it sees that another one committed */
        df_txn_close(old);
        df_txn_close(new);
}

/* One transactional id a partition: partitions of a member do not fence each other. */
static void partitions_are_apart(void **state)
{
        struct stage *s = *state;
        struct df_txn *t[2] = {open_txn(&s->m, 0), open_txn(&s->m, 1)};
        struct df_append items[1] = {record("x")};
        struct df_committed c;

        (void)take_over(t[0]);
        begin_with(t[0], items, 1);
        (void)take_over(t[1]);
        commit_with(t[1], items, 1, 20, "1");
        ok(df_txn_offsets(t[0], 10, "0", &err));
        ok(df_txn_commit(t[0], &err));
        for (uint32_t p = 0; p < 2; p++) {
                ok(df_txn_keep(t[p], &c, &err));
                assert_true(c.offset == 10 + p * 10);
                df_txn_close(t[p]);
        }
}

/* K8: whoever works on a run has its transactional id, as a member or alone. */
static void a_run_has_one_owner_however_it_came(void **state)
{
        struct stage *s = *state;
        struct df_append no[1] = {record("no")}, yes[1] = {record("yes")};
        struct df_txn *member, *alone = NULL;
        struct df_committed c;

        member_close(&s->m);
        run_member_open(&s->m, s->prefix, "a");
        member_settles(&s->m, 2);
        member = open_txn(&s->m, 0);
        (void)take_over(member);
        commit_with(member, yes, 1, 1, "m");
        begin_with(member, no, 1);
        ok(df_kafka_txn_open_alone(s->m.log, GROUP, "e", 0, &alone, &err));
        c = take_over(alone);
        assert_true(c.offset == 1);
        assert_int_equal(df_txn_offsets(member, 9, "never", &err), DF_ELOST);
        df_txn_close(member);
        begin_with(alone, no, 1);
        member = open_txn(&s->m, 0);
        (void)take_over(member);
        assert_int_equal(df_txn_offsets(alone, 9, "never", &err), DF_ELOST);
        commit_with(member, yes, 1, 2, "m");
        assert_values(s->m.log, "out", 0, "yes yes ");
        df_txn_close(alone);
        df_txn_close(member);
}

struct looked_at {
        uint64_t offset[2];
        bool any[2];
        int calls;
};

static void look_at(void *arg, uint32_t partition, const struct df_committed *c)
{
        struct looked_at *l = arg;

        l->any[partition] = c->any;
        l->offset[partition] = c->offset;
        l->calls++;
        assert_string_equal(c->metadata, c->any ? "m" : "");
}

/* K3: what is committed of all partitions, and nothing of a transaction that is open. */
static void offsets_are_seen_while_a_transaction_is_open(void **state)
{
        struct stage *s = *state;
        struct df_txn *t = open_txn(&s->m, 1);
        struct df_append items[1] = {record("x")};
        struct df_kafka_offsets *o = NULL;

        ok(df_kafka_offsets_open(s->m.log, GROUP, "e", 2, &o, &err));
        (void)take_over(t);
        for (uint64_t offset = 1; offset < 4; offset++) {
                struct looked_at l = {0};

                begin_with(t, items, 1);
                ok(df_txn_offsets(t, offset, "m", &err));
                ok(df_kafka_offsets_read(o, look_at, &l, &err));
                assert_int_equal(l.calls, 2);
                assert_false(l.any[0]);
                assert_int_equal(l.any[1], offset > 1);
                assert_true(!l.any[1] || l.offset[1] == offset - 1);
                ok(df_txn_commit(t, &err));
                for (int i = 0; i < 1000 && l.offset[1] != offset; i++)
                        ok(df_kafka_offsets_read(o, look_at, &l, &err));
                assert_true(l.offset[1] == offset);
        }
        df_kafka_offsets_close(o);
        df_txn_close(t);
}

/* K13: the metadata of the assignment, never that of a later one. */
static void a_commit_under_an_old_generation_is_refused(void **state)
{
        struct stage *s = *state;
        struct df_txn *t = open_txn(&s->m, 0);
        struct df_append no[1] = {record("no")}, yes[1] = {record("yes")};
        struct member other, *both[] = {&s->m, &other};
        struct df_committed c;
        uint32_t mine;
        int rc;

        (void)take_over(t);
        commit_with(t, yes, 1, 1, "m");
        member_open(&other, s->prefix, "w1");
        members_settle(both, 2, 2, 1); /* a new generation; t was not told */
        begin_with(t, no, 1);
        rc = df_txn_offsets(t, 9, "never", &err);
        assert_int_equal(rc, DF_ELOST);
        df_txn_close(t);
        /* Whoever is told commits: the one that kept it, or the one that got it. */
        mine = s->m.has[0] ? 0 : 1;
        t = open_txn(&s->m, mine);
        c = take_over(t);
        assert_true(c.any == (mine == 0));
        commit_with(t, yes, 1, 2, "n");
        df_txn_close(t);
        assert_values(s->m.log, "out", 0, "yes yes ");
        member_close(&other);
}

static void a_kept_partition_commits_under_the_new_generation(void **state)
{
        struct stage *s = *state;
        struct df_txn *t[2] = {open_txn(&s->m, 0), open_txn(&s->m, 1)};
        struct df_append items[1] = {record("x")};
        struct member other, *both[] = {&s->m, &other};
        struct df_committed c;
        uint32_t mine;

        (void)take_over(t[0]);
        (void)take_over(t[1]);
        member_open(&other, s->prefix, "w1");
        members_settle(both, 2, 2, 1);
        mine = s->m.has[0] ? 0 : 1;
        ok(df_txn_keep(t[mine], &c, &err));
        assert_false(c.any);
        commit_with(t[mine], items, 1, 2, "n");
        ok(df_txn_keep(t[mine], &c, &err));
        assert_true(c.offset == 2);
        df_txn_close(t[0]);
        df_txn_close(t[1]);
        member_close(&other);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, stage_open, stage_close)

int main(void)
{
        const struct CMUnitTest tests[] = {
                TEST(a_first_takeover_finds_nothing),
                TEST(outputs_offset_and_metadata_are_committed_together),
                TEST(metadata_has_a_limit),
                TEST(foreign_metadata_is_none_of_ours),
                TEST(aborted_bytes_are_produced_again_and_seen_once),
                TEST(a_record_that_is_too_large_is_named),
                TEST(a_takeover_fences_the_owner_before),
                TEST(an_owner_that_was_fenced_between_commits_learns_it),
                TEST(keep_does_not_fence),
                TEST(partitions_are_apart),
                TEST(a_run_has_one_owner_however_it_came),
                TEST(offsets_are_seen_while_a_transaction_is_open),
                TEST(a_commit_under_an_old_generation_is_refused),
                TEST(a_kept_partition_commits_under_the_new_generation),
        };

        if (!getenv("TEST_KAFKA"))
                return SKIPPED;
        return cmocka_run_group_tests(tests, NULL, NULL);
}
