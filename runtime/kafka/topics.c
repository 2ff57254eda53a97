/* topics.c - which topics there are and which generation each is of (E1, K14; df/kafka.h).
 *
 * What the control topic says of a topic is decided by the order of its records:
 *
 *   over        the generation G ended: the topic was found missing. Written before it is created
 *               again, so that whoever finds the new topic knows that it is not G's.
 *   generation  the topic is of generation N, which follows G. The first record that follows an
 *               ended G counts, all later ones are ignored.
 *
 * A topic on the cluster without a generation gets one by whoever finds it: a creator that was
 * killed in between leaves nothing that could be mistaken. Every step reads the control topic to an
 * end that was asked for after the write, so all agree. "Missing" is the controller's word, asked
 * for after reading which generation is alive: a broker that does not know of a topic yet must not
 * end its generation. */
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "df/trace.h"
#include "kafka_private.h"

#define CONTROL_TOPIC "topics"
#define WAIT_BROKER_MS 10000
#define WAIT_TOPIC_MS 20000
#define READ_MS 15000
#define LOOK_AGAIN_MS 50
#define READ_RECORDS 64

enum {
        TOPIC_NAME = 1,
        TOPIC_PARTITIONS,
        TOPIC_GENERATION,
        TOPIC_BEFORE,
        TOPIC_OVER,
        TOPIC_MOVED,
        TOPIC_COPYING
};

bool dfk_is_control(const char *name)
{
        return strcmp(name, CONTROL_TOPIC) == 0;
}

/* ---- the control topic ---- */

static struct dfk_topic *find(const struct dfk_topics *t, const char *name)
{
        for (size_t i = 0; i < t->count; i++)
                if (strcmp(t->known[i].info.name, name) == 0)
                        return &t->known[i];
        return NULL;
}

struct note { /* one record */
        struct dfk_topic topic;
        uint64_t before, over;
};

static int parse_note(struct df_bytes value, struct note *ret, struct df_error *err)
{
        struct df_reader r = df_reader(value);
        struct dfk_topic *t = &ret->topic;
        struct df_pb_field f;

        *ret = (struct note){0};
        while (df_pb_next(&r, &f)) {
                if (f.number == TOPIC_NAME && f.bytes.len <= DF_TOPIC_NAME_MAX)
                        memcpy(t->info.name, f.bytes.data, f.bytes.len);
                else if (f.number == TOPIC_PARTITIONS)
                        t->info.partitions = (uint32_t)f.u;
                else if (f.number == TOPIC_GENERATION)
                        t->info.generation = f.u;
                else if (f.number == TOPIC_BEFORE)
                        ret->before = f.u;
                else if (f.number == TOPIC_OVER)
                        ret->over = f.u;
                else if (f.number == TOPIC_MOVED && t->moved_count < DF_PARTITIONS_MAX)
                        t->moved[t->moved_count++] = f.u;
                else if (f.number == TOPIC_COPYING)
                        t->copying = f.u != 0;
        }
        if (!r.bad && t->info.name[0] && !t->info.generation != !ret->over)
                return 0;
        return df_fail(err, DF_ECORRUPT, "the topic %s holds a record that is not Adtally's",
                       CONTROL_TOPIC);
}

/* The first record that follows what is over counts. What is still being copied to may be declared
 * again: one program at a time copies, and nobody else can use it. */
static bool follows(const struct dfk_topic *known, const struct note *n)
{
        if (!known)
                return n->before == 0;
        return (known->over || known->copying) && known->info.generation == n->before;
}

static int take_record(struct dfk_topics *t, struct df_bytes value, struct df_error *err)
{
        struct dfk_topic *known;
        struct note n;
        int rc = parse_note(value, &n, err);

        if (rc < 0)
                return rc;
        known = find(t, n.topic.info.name);
        if (n.over) {
                if (known && known->info.generation == n.over)
                        known->over = true;
                return 0;
        }
        if (!follows(known, &n))
                return 0; /* another one was first */
        if (!known) {
                struct dfk_topic *grown = realloc(t->known, (t->count + 1) * sizeof(*grown));

                if (!grown)
                        return df_fail(err, DF_ENOMEM, "topics");
                t->known = grown;
                known = &t->known[t->count++];
        }
        *known = n.topic;
        return 0;
}

static int read_control(struct dfk_kafka *k, struct df_error *err)
{
        struct dfk_topics *t = k->topics;
        struct df_record records[READ_RECORDS];
        struct df_log_reader *r = NULL;
        uint64_t first, end;
        int64_t until = dfk_now_ms() + READ_MS;
        int rc = dfk_bounds(&k->base, CONTROL_TOPIC, 0, &first, &end, err);

        if (rc < 0 || t->read_to >= end)
                return rc;
        rc = dfk_reader_open(&k->base, CONTROL_TOPIC, 0, t->read_to, NULL, &r, err);
        if (rc == DF_EOFFSET)
                (void)df_wrap(err, "records that say which generation a topic is of were deleted; "
                                   "put the topic back, or use another --kafka-prefix (K14)");
        while (rc == 0 && dfk_position(r) < end) {
                size_t n = 0;

                rc = dfk_poll(r, records, READ_RECORDS, &n, err);
                for (size_t i = 0; rc == 0 && i < n; i++)
                        rc = take_record(t, records[i].value, err);
                if (rc == 0 && n == 0)
                        dfk_pause(2);
                if (rc == 0 && dfk_now_ms() > until)
                        rc = df_fail(err, DF_EAGAIN, "the topic %s%s cannot be read",
                                     k->options.prefix, CONTROL_TOPIC);
        }
        if (rc == 0)
                t->read_to = dfk_position(r);
        df_log_reader_close(r);
        return rc;
}

/* One record, and everything up to it and what others wrote meanwhile read. */
static int write_control(struct dfk_kafka *k, const struct note *n, struct df_error *err)
{
        struct df_log_writer *w = NULL;
        struct df_buf b = {0};
        struct df_append a = {0};
        int rc;

        df_pb_str(&b, TOPIC_NAME, n->topic.info.name);
        df_pb_uint(&b, TOPIC_PARTITIONS, n->topic.info.partitions);
        df_pb_uint(&b, TOPIC_GENERATION, n->topic.info.generation);
        df_pb_uint(&b, TOPIC_BEFORE, n->before);
        df_pb_uint(&b, TOPIC_OVER, n->over);
        for (uint32_t p = 0; p < n->topic.moved_count; p++) {
                df_put_varint(&b, TOPIC_MOVED << 3); /* also 0: its place in the list counts */
                df_put_varint(&b, n->topic.moved[p]);
        }
        df_pb_bool(&b, TOPIC_COPYING, n->topic.copying);
        rc = df_buf_check(&b, err);
        if (rc == 0)
                rc = dfk_writer_open(&k->base, CONTROL_TOPIC, &w, err);
        a.value = df_buf_bytes(&b);
        if (rc == 0)
                rc = dfk_append(w, &a, 1, err);
        df_log_writer_close(w);
        df_buf_release(&b);
        return rc < 0 ? rc : read_control(k, err);
}

static int end_generation(struct dfk_kafka *k, const struct dfk_topic *known, struct df_error *err)
{
        struct note n = {.topic.info = known->info, .over = known->info.generation};

        df_trace(DF_WARN, "kafka", "topic=%s is gone from the cluster: its generation %016llx ends",
                 n.topic.info.name, (unsigned long long)n.over);
        n.topic.info.generation = 0;
        return write_control(k, &n, err);
}

static int begin_generation(struct dfk_kafka *k, const char *topic, uint32_t partitions,
                            uint64_t before, struct df_error *err)
{
        struct note n = {.topic.info.partitions = partitions, .before = before};
        uint64_t *generation = &n.topic.info.generation;

        memcpy(n.topic.info.name, topic, strlen(topic) + 1);
        while (*generation == 0)
                if (getrandom(generation, sizeof(*generation), 0) != sizeof(*generation))
                        return df_fail_errno(err, DF_EIO, "getrandom");
        return write_control(k, &n, err);
}

/* ---- copies of a file log's topics (copy.c) ---- */

int dfk_topic_known(struct dfk_kafka *k, const char *name, struct dfk_topic *ret,
                    struct df_error *err)
{
        const struct dfk_topic *known = NULL;
        int rc;

        *ret = (struct dfk_topic){0};
        pthread_mutex_lock(&k->topics->lock);
        rc = read_control(k, err);
        if (rc == 0)
                known = find(k->topics, name);
        if (known)
                *ret = *known;
        pthread_mutex_unlock(&k->topics->lock);
        return rc;
}

static int declare(struct dfk_kafka *k, const struct dfk_topic *topic, struct df_error *err)
{
        struct note n = {.topic = *topic};
        const struct dfk_topic *known;
        int rc = read_control(k, err);

        known = rc == 0 ? find(k->topics, topic->info.name) : NULL;
        if (known && !known->over && !known->copying)
                rc = end_generation(k, known, err);
        known = rc == 0 ? find(k->topics, topic->info.name) : NULL;
        n.before = known ? known->info.generation : 0;
        if (rc == 0)
                rc = write_control(k, &n, err);
        known = rc == 0 ? find(k->topics, topic->info.name) : NULL;
        if (rc == 0 && (!known || known->info.generation != topic->info.generation ||
                        known->copying != topic->copying))
                rc = df_fail(err, DF_EFENCED, "topic %s%s was made by somebody else just now",
                             k->options.prefix, topic->info.name);
        return rc;
}

int dfk_topic_declare(struct dfk_kafka *k, const struct dfk_topic *topic, struct df_error *err)
{
        int rc;

        pthread_mutex_lock(&k->topics->lock);
        rc = declare(k, topic, err);
        pthread_mutex_unlock(&k->topics->lock);
        return rc;
}

static int fail_copying(const struct dfk_topic *t, struct df_error *err)
{
        return df_fail(err, DF_ESCHEMA,
                       "topic %s is an unfinished copy of a file log: run `adtally migrate` again, "
                       "or go on with the file log",
                       t->info.name);
}

/* ---- the port ---- */

static bool is_kept(const struct dfk_kafka *k, const char *topic)
{
        const char *const *name = k->options.kept;

        while (name && *name && strcmp(*name, topic) != 0)
                name++;
        return name && *name;
}

int64_t dfk_retention(const struct dfk_kafka *k, const char *topic)
{
        return is_kept(k, topic) ? -1 : k->options.retention_ms;
}

int64_t dfk_retention_min(const struct dfk_kafka *k, const char *topic)
{
        return is_kept(k, topic) ? -1 : k->options.retention_min_ms;
}

/* The topic is not on the cluster, or the broker that was asked does not know it yet. */
static int bring_forth(struct dfk_kafka *k, const struct dfk_topic *known, const char *topic,
                       const char *full, uint32_t partitions, struct df_error *err)
{
        bool missing = true;
        int rc = 0;

        if (known && !known->over) {
                rc = dfk_admin_is_missing(k, full, &missing, err);
                if (rc == 0 && missing)
                        return end_generation(k, known, err); /* and the next look creates it */
        } else {
                rc = dfk_admin_create(k, full, partitions, dfk_retention(k, topic), err);
        }
        if (rc == 0)
                dfk_pause(LOOK_AGAIN_MS);
        return rc;
}

static int wrong_count(const char *full, uint32_t is, uint32_t wanted, const char *who,
                       struct df_error *err)
{
        return df_fail(err, DF_ESCHEMA,
                       "topic %s has %u partitions%s, wanted are %u: an event's partition follows "
                       "from their number, so it never changes; start with the old number, or make "
                       "a new topic (K14)",
                       full, is, who, wanted);
}

/* One step a round, each after reading what all others did before. */
static int ensure(struct dfk_kafka *k, const char *topic, const char *full, uint32_t partitions,
                  struct df_error *err)
{
        int64_t until = dfk_now_ms() + WAIT_TOPIC_MS;
        int rc = read_control(k, err);

        while (rc == 0) {
                const struct dfk_topic *known = find(k->topics, topic);
                uint32_t there = 0;

                if (known && known->copying && !known->over)
                        return fail_copying(known, err);
                rc = dfk_admin_partitions(k, full, &there, err);
                if (rc < 0)
                        break;
                if (there && there != partitions)
                        return wrong_count(full, there, partitions, "", err);
                if (there && known && !known->over) {
                        if (known->info.partitions != partitions)
                                return wrong_count(full, known->info.partitions, partitions,
                                                   " since its generation began", err);
                        return dfk_admin_check(k, full, dfk_retention_min(k, topic), err);
                }
                if (dfk_now_ms() > until)
                        return df_fail(err, DF_EAGAIN, "topic %s does not come into being", full);
                if (there)
                        rc = begin_generation(k, topic, partitions,
                                              known ? known->info.generation : 0, err);
                else
                        rc = bring_forth(k, known, topic, full, partitions, err);
                if (rc == 0)
                        rc = read_control(k, err);
        }
        return rc;
}

int dfk_topic_create(struct df_log *log, const char *topic, uint32_t partitions,
                     struct df_error *err)
{
        struct dfk_kafka *k = dfk_kafka_of(log);
        char full[DFK_KAFKA_NAME_MAX + 1];
        int rc = dfk_full_name(k, topic, full, err);

        if (rc == 0 && (strlen(topic) > DF_TOPIC_NAME_MAX || strcmp(topic, CONTROL_TOPIC) == 0))
                rc = df_fail(err, DF_EINVAL, "topic %s: the name is taken or longer than %d", topic,
                             DF_TOPIC_NAME_MAX);
        if (rc < 0)
                return rc;
        pthread_mutex_lock(&k->topics->lock);
        rc = ensure(k, topic, full, partitions, err);
        pthread_mutex_unlock(&k->topics->lock);
        return rc;
}

static int by_name(const void *a, const void *b)
{
        return strcmp(((const struct df_topic_info *)a)->name,
                      ((const struct df_topic_info *)b)->name);
}

/* A copy, so that fn may call the log. */
static int snapshot(struct dfk_kafka *k, struct df_topic_info **ret, size_t *ret_count,
                    struct df_error *err)
{
        struct dfk_topics *t = k->topics;
        int rc;

        pthread_mutex_lock(&t->lock);
        rc = read_control(k, err);
        *ret = rc == 0 ? calloc(t->count + 1, sizeof(**ret)) : NULL;
        *ret_count = 0;
        if (rc == 0 && !*ret)
                rc = df_fail(err, DF_ENOMEM, "topics");
        for (size_t i = 0; rc == 0 && i < t->count; i++) {
                if (t->known[i].over) /* without a generation it is not there yet */
                        continue;
                (*ret)[(*ret_count)++] = t->known[i].info;
                if (t->known[i].copying)
                        rc = fail_copying(&t->known[i], err);
        }
        pthread_mutex_unlock(&t->lock);
        if (rc == 0)
                qsort(*ret, *ret_count, sizeof(**ret), by_name);
        return rc;
}

static uint32_t count_in(const struct rd_kafka_metadata *m, const char *full)
{
        for (int i = 0; i < m->topic_cnt; i++)
                if (strcmp(m->topics[i].topic, full) == 0 && !m->topics[i].err)
                        return (uint32_t)m->topics[i].partition_cnt;
        return 0;
}

int dfk_topic_list(struct df_log *log, const char *prefix,
                   int (*fn)(void *arg, const struct df_topic_info *info), void *arg,
                   struct df_error *err)
{
        struct dfk_kafka *k = dfk_kafka_of(log);
        const struct rd_kafka_metadata *m = NULL;
        struct df_topic_info *all = NULL;
        size_t count = 0;
        int rc = snapshot(k, &all, &count, err);
        rd_kafka_resp_err_t code = 0;

        if (rc == 0)
                code = rd_kafka_metadata(k->topics->admin, 1, NULL, &m, READ_MS);
        if (code)
                rc = dfk_fail(err, code, "topics of %s", k->options.brokers);
        for (size_t i = 0; rc == 0 && i < count; i++) {
                char full[DFK_KAFKA_NAME_MAX + 1];

                if (strncmp(all[i].name, prefix, strlen(prefix)) != 0)
                        continue;
                rc = dfk_full_name(k, all[i].name, full, err);
                if (rc == 0 && (all[i].partitions = count_in(m, full)) > 0)
                        rc = fn(arg, &all[i]);
        }
        if (m)
                rd_kafka_metadata_destroy(m);
        free(all);
        return rc;
}

/* ---- life ---- */

static int wait_for_broker(struct dfk_kafka *k, struct df_error *err)
{
        const struct rd_kafka_metadata *m = NULL;
        rd_kafka_resp_err_t code = rd_kafka_metadata(k->topics->admin, 0, NULL, &m, WAIT_BROKER_MS);

        if (code)
                return df_fail(err, DF_EAGAIN, "no broker at %s answers: %s", k->options.brokers,
                               rd_kafka_err2str(code));
        rd_kafka_metadata_destroy(m);
        return 0;
}

/* The control topic keeps its records for ever, or an old topic would become a new one. */
static int open_control(struct dfk_kafka *k, struct df_error *err)
{
        int64_t until = dfk_now_ms() + WAIT_TOPIC_MS;
        char full[DFK_KAFKA_NAME_MAX + 1];
        uint32_t there = 0;
        int rc = dfk_full_name(k, CONTROL_TOPIC, full, err);

        if (rc == 0)
                rc = dfk_admin_partitions(k, full, &there, err);
        if (rc == 0 && there == 0)
                rc = dfk_admin_create(k, full, 1, -1, err);
        while (rc == 0 && there == 0 && dfk_now_ms() < until) { /* until the brokers know it */
                dfk_pause(LOOK_AGAIN_MS);
                rc = dfk_admin_partitions(k, full, &there, err);
        }
        if (rc == 0 && there > 1)
                rc = df_fail(err, DF_ESCHEMA,
                             "topic %s has %u partitions, it must be 1, or its records have no "
                             "order: another program's topic? use another --kafka-prefix (K14)",
                             full, there);
        return rc < 0 ? rc : dfk_admin_check(k, full, -1, err);
}

int dfk_topics_open(struct dfk_kafka *k, struct df_error *err)
{
        int rc;

        k->topics = calloc(1, sizeof(*k->topics));
        if (!k->topics)
                return df_fail(err, DF_ENOMEM, "topics");
        pthread_mutex_init(&k->topics->lock, NULL);
        rc = dfk_client_new(k, DFK_ADMIN, NULL, NULL, NULL, &k->topics->admin, err);
        if (rc == 0)
                rc = wait_for_broker(k, err);
        return rc < 0 ? rc : open_control(k, err);
}

void dfk_topics_close(struct dfk_kafka *k)
{
        if (!k->topics)
                return;
        if (k->topics->admin)
                rd_kafka_destroy(k->topics->admin);
        free(k->topics->known);
        pthread_mutex_destroy(&k->topics->lock);
        free(k->topics);
}
