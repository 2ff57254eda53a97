/* put_records.c - records into a topic of a log that nobody writes, for end-to-end tests.
 *
 *   put_records DIR TOPIC
 *
 * Makes the topic, with one partition, in the embedded log in DIR, and appends a record for each
 * line of its input: the value in hexadecimal.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "df/filelog.h"

static void die(const struct df_error *err)
{
        fprintf(stderr, "put_records: %s\n", err->text);
        exit(1);
}

int main(int argc, char **argv)
{
        struct df_filelog_options o = {.segment_bytes = 1u << 20};
        struct df_log_writer *w = NULL;
        struct df_log *log = NULL;
        struct df_error err = {0};
        char *line = NULL;
        size_t cap = 0;

        if (argc != 3 || df_filelog_open(argv[1], &o, &log, &err) < 0 ||
            df_log_topic_create(log, argv[2], 1, &err) < 0 ||
            df_log_writer_open(log, argv[2], &w, &err) < 0)
                die(&err);
        while (getline(&line, &cap, stdin) > 0) {
                size_t n = strspn(line, "0123456789abcdef") / 2;
                struct df_append a = {.value = df_bytes(line, n)};

                for (size_t i = 0; i < n; i++) {
                        char two[3] = {line[2 * i], line[2 * i + 1], 0};

                        line[i] = (char)strtoul(two, NULL, 16);
                }
                if (df_log_append(w, &a, 1, &err) < 0)
                        die(&err);
        }
        free(line);
        df_log_writer_close(w);
        df_log_close(log);
        return 0;
}
