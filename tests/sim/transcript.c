/* transcript.c - the protocol as text: a short fixed scenario, and every step and port call of it.
 *
 *   transcript FILE     compares with FILE, prints both on a difference
 *   transcript --print  prints it
 *
 * A change of the order of steps (K4, K8) shows here first, as a changed line to be agreed to.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "operators/ops.h"
#include "tests/sim/job.h"

#define START_MS 1764000000000 /* begins a minute */

struct scenario {
        struct df_sim *sim;
        struct df_sim_random random;
        struct job job;
        struct ad_params params;
        struct df_log *log;
        struct df_log_writer *events;
        FILE *to;
};

/* What changes something; what only reads is left out, and how many keys a batch has. */
static void on_line(void *arg, const char *line)
{
        static const char *const calls[] = {"takeover", "commit", "persist", "publish",
                                            "append",   "retire", "release"};
        struct scenario *s = arg;

        if (strncmp(line, "p0 ", 3) != 0)
                return;
        for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++)
                if (strncmp(line + 3, calls[i], strlen(calls[i])) == 0)
                        (void)fprintf(s->to, "  %s\n",
                                      strncmp(line + 3, "commit ", 7) == 0 && !strstr(line, "->")
                                              ? "commit"
                                              : line + 3);
}

static void say(struct scenario *s, const char *what)
{
        (void)fprintf(s->to, "%s\n", what);
}

static void open_scenario(struct scenario *s, FILE *to)
{
        static const char *const topics[] = {"events", "late", "quarantine", "rollups"};
        struct df_task_config c = {
                .source = {.stream = "events"},
                .partitions = 1,
                .chain = ad_chain_main,
                .chain_length = ad_chain_main_length,
                .outputs = {[AD_OUT_LATE] = {.topic = "late", .partitions = 1},
                            [AD_OUT_QUARANTINE] = {.topic = "quarantine", .partitions = 1},
                            [AD_OUT_ROLLUPS] = {.topic = "rollups", .partitions = 1}},
                .output_count = AD_OUT_COUNT,
                .rules = {.receive_ahead_max_ms = AD_RECEIVE_AHEAD_MAX_MS,
                          .receive_behind_max_ms = AD_RECEIVE_BEHIND_MAX_MS,
                          .future_max_ms = AD_FUTURE_MAX_MS,
                          .accepted_age_ms = AD_ACCEPTED_AGE_MS},
                .config = 1,
                .binary_version = "sim",
        };

        *s = (struct scenario){.sim = df_sim_create(5), .to = to};
        df_sim_random_init(&s->random, 1);
        s->params = (struct ad_params){.horizon_hours = 1,
                                       .dedupe_open_ids = 64,
                                       .cell_cap = 100,
                                       .groupings = &ad_groupings_default};
        c.params = &s->params;
        s->log = df_sim_log_open(s->sim, 1);
        for (size_t i = 0; i < sizeof(topics) / sizeof(topics[0]); i++)
                df_check(df_log_topic_create(s->log, topics[i], 1, NULL) == 0);
        df_check(df_log_writer_open(s->log, "events", &s->events, NULL) == 0);
        job_init(&s->job, 1, s->sim, &s->random, 0);
        c.source.generation = df_sim_generation(s->sim, "events");
        job_add(&s->job, &c);
        s->job.to = to;
        df_sim_set_trace(s->sim, on_line, s);
}

static void close_scenario(struct scenario *s)
{
        job_close(&s->job);
        df_log_writer_close(s->events);
        df_log_close(s->log);
        df_sim_destroy(s->sim);
}

/* A record with one click of second event_s, received in second at_s. */
static void send_click(struct scenario *s, const char *id, int64_t event_s, int64_t at_s)
{
        struct ad_event ev = {
                .event_id = df_bytes_str(id),
                .tenant_id = df_bytes_str("acme"),
                .type = AD_CLICK,
                .event_ms = START_MS + event_s * 1000,
                .receive_ms = START_MS + at_s * 1000,
                .cost_nanos = 5,
                .flags = AD_EV_HAS_COST,
                .currency = df_bytes_str("EUR"),
        };
        const struct ad_batch header = {.schema_version = AD_SCHEMA_VERSION};
        struct df_append item = {0};
        struct df_buf e = {0}, b = {0};

        ev.fingerprint = ad_event_fingerprint(&ev);
        ad_wire_event(&e, &ev);
        ad_wire_batch_entry(&b, df_buf_bytes(&e));
        ad_wire_batch_header(&b, &header);
        df_check(!e.failed && !b.failed);
        item.value = df_buf_bytes(&b);
        df_sim_set_now_ms(s->sim, ev.receive_ms);
        df_check(df_log_append(s->events, &item, 1, NULL) == 0);
        df_buf_release(&e);
        df_buf_release(&b);
        (void)fprintf(s->to, "click %s at %" PRId64 " s\n", id, at_s);
}

static void poll(struct scenario *s)
{
        size_t n;

        say(s, "poll");
        (void)job_poll(&s->job, 0, 10, &n);
}

static void commit(struct scenario *s)
{
        say(s, "commit");
        (void)job_commit(&s->job, 0);
}

static void crash_at_step(struct scenario *s, int64_t countdown)
{
        s->job.step_countdown = countdown;
        s->job.step_code = DF_ECRASH;
}

/* What the topic `rollups` holds, a line a record. */
static void list_rollups(struct scenario *s)
{
        size_t count;
        const struct df_record *r = df_sim_records(s->sim, "rollups", 0, &count);

        say(s, "rollups:");
        for (size_t i = 0; i < count; i++) {
                struct df_output o;

                df_check(df_output_decode(r[i].value, &o, NULL) == 0);
                (void)fprintf(s->to, "  k=%" PRIu64 " epoch=%" PRIu64 " n=%u ", o.origin.k,
                              o.origin.epoch, o.origin.n);
                if (o.is_seal)
                        (void)fprintf(s->to,
                                      "seal [%" PRIu64 ",%" PRIu64 ") parent=%" PRIu64
                                      " rows=%u counted=%" PRIu64 " duplicate=%" PRIu64 "\n",
                                      o.seal.from_offset, o.seal.to_offset, o.seal.parent_k,
                                      o.seal.rows, o.seal.outcomes[AD_COUNTED],
                                      o.seal.outcomes[AD_DUPLICATE]);
                else
                        (void)fprintf(s->to, "rows\n");
        }
}

static void play(struct scenario *s)
{
        say(s, "# a first checkpoint");
        send_click(s, "a", 1, 1);
        send_click(s, "b", 2, 2);
        poll(s);
        commit(s);

        say(s, "# a crash before CURRENT names k=2: nothing of it happened");
        send_click(s, "c", 3, 3);
        poll(s);
        crash_at_step(s, 2);
        commit(s);
        poll(s);
        commit(s);

        say(s, "# a crash after CURRENT names k=3: the takeover publishes what is missing");
        send_click(s, "a", 1, 4);
        poll(s);
        crash_at_step(s, 5);
        commit(s);
        poll(s);

        say(s, "# a crash in the middle of the last append of k=4: written again, whole");
        send_click(s, "d", 70, 70);
        poll(s);
        df_sim_fault_set(
                s->sim, DF_SIM_CRASH,
                (struct df_sim_fault){.countdown = 5, /* commit, persist, publish, two appends */
                                      .n = 1,
                                      .writes_only = true,
                                      .moment = DF_SIM_MIDWAY});
        commit(s);
        poll(s);
        list_rollups(s);
}

/* The texts of errors (indented by five) are for people, not part of the protocol. */
static size_t drop_texts(char *text)
{
        char *to = text;

        for (const char *line = text; *line;) {
                const char *end = strchr(line, '\n') + 1;

                if (strncmp(line, "     ", 5) != 0) {
                        memmove(to, line, (size_t)(end - line));
                        to += end - line;
                }
                line = end;
        }
        *to = '\0';
        return (size_t)(to - text);
}

static char *read_file(const char *path, size_t *ret_len)
{
        FILE *f = fopen(path, "r");
        char *text = calloc(1, 1u << 20);

        df_check(text != NULL);
        if (!f) {
                (void)fprintf(stderr, "cannot open %s\n", path);
                exit(66);
        }
        *ret_len = fread(text, 1, (1u << 20) - 1, f);
        (void)fclose(f);
        return text;
}

int main(int argc, char **argv)
{
        struct scenario s;
        char *text = NULL, *expected;
        size_t len = 0, expected_len = 0;
        FILE *to = open_memstream(&text, &len);
        int rc;

        df_check(to != NULL);
        if (argc != 2) {
                (void)fputs("usage: transcript FILE | --print\n", stderr);
                return 64;
        }
        open_scenario(&s, to);
        play(&s);
        close_scenario(&s);
        (void)fclose(to);
        len = drop_texts(text);
        if (strcmp(argv[1], "--print") == 0) {
                (void)fputs(text, stdout);
                free(text);
                return 0;
        }
        expected = read_file(argv[1], &expected_len);
        rc = len == expected_len && memcmp(text, expected, len) == 0 ? 0 : 1;
        if (rc)
                (void)fprintf(stderr, "the transcript differs from %s; it is now:\n%s", argv[1],
                              text);
        free(text);
        free(expected);
        return rc;
}
