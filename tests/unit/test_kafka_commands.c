/* Two api jobs at one topic `commands` on a real broker: whoever asks whichever of them, an id is
 * one command, and both tell the same of it. */
#include "unit.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "df/kafka.h"
#include "df/run.h"
#include "jobs/api/commands.h"
#include "jobs/common/settings.h"

#define SKIPPED 77
#define JOBS 2
#define IDS 40
#define DAY_MS 86400000LL

static struct df_error error;

#define ok(call)                                                                                   \
        do {                                                                                       \
                if ((call) != 0)                                                                   \
                        fail_msg("%s: %s", #call, error.text);                                     \
        } while (0)

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct outcome {
        bool done;
        enum ad_asked what;
        uint64_t offset;
} outcomes[JOBS][IDS];
static char ids[IDS][8];

static void on_asked(void *arg, enum ad_asked what, const struct ad_asked_for *entry,
                     const struct df_error *err)
{
        struct outcome *o = arg;

        pthread_mutex_lock(&lock);
        *o = (struct outcome){true, what, entry ? entry->offset : UINT64_MAX};
        pthread_mutex_unlock(&lock);
}

static struct outcome wait_for(const struct outcome *o)
{
        struct outcome got = {0};

        for (int i = 0; i < 60000 && !got.done; i++) {
                (void)usleep(1000);
                pthread_mutex_lock(&lock);
                got = *o;
                pthread_mutex_unlock(&lock);
        }
        assert_true(got.done);
        return got;
}

static struct df_log *open_log(const char *prefix)
{
        struct df_kafka_options o = {.brokers = getenv("TEST_KAFKA"),
                                     .prefix = prefix,
                                     .retention_ms = DAY_MS,
                                     .retention_min_ms = DAY_MS / 2};
        struct df_log *log = NULL;

        ok(df_kafka_open(&o, &log, &error));
        ok(ad_create_topics(log, 1, &error));
        return log;
}

/* Half of the ids are asked for with the same content by both, half with each one's own. */
static void an_id_is_one_command(void **state)
{
        static const char *const own[JOBS] = {"ann", "bob"};
        struct ad_api_commands *jobs[JOBS];
        struct df_log *logs[JOBS];
        char prefix[64];

        (void)snprintf(prefix, sizeof(prefix), "c%d-%lld.", (int)getpid(), (long long)df_wall_ms());
        for (int j = 0; j < JOBS; j++) {
                struct ad_api_commands_options o = {.log = logs[j] = open_log(prefix)};

                ok(ad_api_commands_start(&o, &jobs[j], &error));
        }
        for (int i = 0; i < IDS; i++)
                for (int n = 0; n < JOBS; n++) {
                        int j = (i + n) % JOBS;
                        struct ad_command c = {.tenant_id = df_bytes_str("t"),
                                               .requested_by =
                                                       df_bytes_str(i % 4 < 2 ? "both" : own[j]),
                                               .kind = AD_COMMAND_RUN};

                        (void)snprintf(ids[i], sizeof(ids[i]), "id%d", i);
                        c.id = df_bytes_str(ids[i]);
                        assert_true(ad_api_commands_put(jobs[j], &c, on_asked, &outcomes[j][i]));
                }
        for (int i = 0; i < IDS; i++) {
                struct outcome a = wait_for(&outcomes[0][i]), b = wait_for(&outcomes[1][i]);
                enum ad_asked second = i % 4 < 2 ? AD_ASKED_BEFORE : AD_ASKED_OTHER;

                if (a.offset != b.offset || (a.what == AD_ASKED_NEW) == (b.what == AD_ASKED_NEW) ||
                    (a.what != AD_ASKED_NEW && a.what != second) ||
                    (b.what != AD_ASKED_NEW && b.what != second))
                        fail_msg("id %d: %d at %llu, %d at %llu", i, (int)a.what,
                                 (unsigned long long)a.offset, (int)b.what,
                                 (unsigned long long)b.offset);
        }
        for (int j = 0; j < JOBS; j++) {
                ad_api_commands_stop(jobs[j]);
                df_log_close(logs[j]);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {cmocka_unit_test(an_id_is_one_command)};

        if (!getenv("TEST_KAFKA"))
                return SKIPPED;
        return cmocka_run_group_tests(tests, NULL, NULL);
}
