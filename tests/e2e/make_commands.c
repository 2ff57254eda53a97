/* make_commands.c - commands for end-to-end tests, as people would ask for them.
 *
 *   make_commands DIR < LINES
 *
 * Appends to the topic `commands` of the embedded log in DIR, a command a line, of words
 * name=value: id, tenant (default), do (void, reprice, remap, label, cancel or run); of the scope:
 * event (may stand more than once), advertiser, campaign, publisher, bits, from, to; and what it
 * says: price, currency, to_advertiser, to_campaign, to_publisher, label, of.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "df/filelog.h"
#include "proto/books.h"

#define EVENTS_MAX 64

static struct df_bytes events[EVENTS_MAX];

static void die(const char *what, const struct df_error *err)
{
        fprintf(stderr, "make_commands: %s %s\n", what, err ? err->text : "");
        exit(1);
}

static void set_do(struct ad_command *c, const char *v)
{
        static const char *const actions[] = {"", "void", "reprice", "remap", "label"};

        for (int i = 1; i < AD_CORRECT_COUNT; i++)
                if (strcmp(v, actions[i]) == 0) {
                        c->kind = AD_COMMAND_CORRECTION;
                        c->correction.action = (enum ad_correction_action)i;
                        return;
                }
        if (strcmp(v, "cancel") == 0)
                c->kind = AD_COMMAND_CANCEL;
        else if (strcmp(v, "run") == 0)
                c->kind = AD_COMMAND_RUN;
        else
                die(v, NULL);
}

static bool set_number(struct ad_correction *c, const char *name, const char *v)
{
        if (strcmp(name, "from") == 0)
                c->scope.from_ms = strtoll(v, NULL, 10);
        else if (strcmp(name, "to") == 0)
                c->scope.to_ms = strtoll(v, NULL, 10);
        else if (strcmp(name, "price") == 0)
                c->price_nanos = strtoll(v, NULL, 10);
        else if (strcmp(name, "bits") == 0)
                c->scope.label = (uint32_t)strtoul(v, NULL, 10);
        else if (strcmp(name, "label") == 0)
                c->label = (uint32_t)strtoul(v, NULL, 10);
        else
                return false;
        return true;
}

static void set(struct ad_command *c, const char *name, const char *v)
{
        const struct {
                const char *name;
                struct df_bytes *to;
        } texts[] = {
                {"id", &c->id},
                {"tenant", &c->tenant_id},
                {"of", &c->cancel},
                {"advertiser", &c->correction.scope.advertiser_id},
                {"campaign", &c->correction.scope.campaign_id},
                {"publisher", &c->correction.scope.publisher_id},
                {"currency", &c->correction.currency},
                {"to_advertiser", &c->correction.advertiser_id},
                {"to_campaign", &c->correction.campaign_id},
                {"to_publisher", &c->correction.publisher_id},
        };

        if (strcmp(name, "do") == 0) {
                set_do(c, v);
                return;
        }
        if (strcmp(name, "event") == 0 && c->correction.scope.event_id_count < EVENTS_MAX) {
                c->correction.scope.event_ids = events;
                events[c->correction.scope.event_id_count++] = df_bytes_str(v);
                return;
        }
        for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
                if (strcmp(name, texts[i].name) == 0) {
                        *texts[i].to = df_bytes_str(v);
                        return;
                }
        if (!set_number(&c->correction, name, v))
                die(name, NULL);
}

static void append(struct df_log_writer *w, char *line)
{
        struct ad_command c = {.tenant_id = df_bytes_str("default"),
                               .requested_by = df_bytes_str("ada"),
                               .approved_by = df_bytes_str("bob"),
                               .reason = df_bytes_str("test")};
        struct df_append a = {0};
        struct df_error err = {0};
        struct df_buf b = {0};

        for (char *at = line, *word; (word = strsep(&at, " \n"));) {
                char *value = strchr(word, '=');

                if (!*word)
                        continue;
                if (!value)
                        die(word, NULL);
                *value++ = '\0';
                set(&c, word, value);
        }
        ad_wire_command(&b, &c);
        a.value = df_buf_bytes(&b);
        if (df_log_append(w, &a, 1, &err) < 0)
                die("append", &err);
        df_buf_release(&b);
}

int main(int argc, char **argv)
{
        struct df_filelog_options o = {0};
        struct df_log_writer *w = NULL;
        struct df_error err = {0};
        struct df_log *log;
        char line[8192];

        if (argc != 2) {
                fprintf(stderr, "make_commands DIR\n");
                return 64;
        }
        if (df_filelog_open(argv[1], &o, &log, &err) < 0 ||
            df_log_topic_create(log, "commands", 1, &err) < 0 ||
            df_log_writer_open(log, "commands", &w, &err) < 0)
                die("open", &err);
        while (fgets(line, sizeof(line), stdin))
                append(w, line);
        df_log_writer_close(w);
        df_log_close(log);
        return 0;
}
