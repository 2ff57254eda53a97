/* dedupe_tags.c - the filter: does any run hold this id, and if so, which.
 *
 * A line is one cache line of 20 entries: 16 bits of the key's hash and a slot. The slot names the
 * bucket's hour and, within it, every eighth spill or so: a hit leads to one run or few. One line
 * answers for all hours. An id that finds its line full goes to a second one, and from there to its
 * neighbours; `over` of a line that was full names the last hour for whose sake one has to look on.
 * An entry of an hour that was dropped is free, and so is an `over`: expiry costs nothing. The
 * first new id that comes to a line after a drop clears them there, before the hour's slots are
 * given to another. A key that no run holds is taken for one at about 20 entries x 2^-16 = 3 in
 * 10,000. (A bit-sliced Bloom filter of 14 bits an id needs four cache lines and, over 25 hours, is
 * wrong for one key in six; each costs a read.)
 *
 * A table does not grow: a larger one begins, new ids go there, and the old one is freed when its
 * last hour is dropped. 64 / (20 x 0.75) = 4.3 bytes an id, times 1.25 for room. Billing takes
 * twice what is alive: for a month nothing ends there, and each question looks into every table.
 */
#include "operators/dedupe_private.h"

#define LINE_ENTRIES 20
#define LOAD_PERCENT 75
#ifdef ADI_BILLING
#define ROOM_PERCENT 100
#else
#define ROOM_PERCENT 25
#endif
#define LINES_MIN 16
#define FIRST_IDS 4 /* of a busy partition's table, by open id */
#define PARTS_MAX 16
#define AHEAD 16 /* ids between prefetch and use */

struct adi_tag_line {
        uint16_t tag[LINE_ENTRIES];
        uint8_t slot[LINE_ENTRIES];
        uint8_t over;     /* a slot: ids of its hour, or earlier ones, went on to the next line */
        uint8_t used;     /* entries, from the first on; the others are 0 */
        uint16_t cleared; /* adi_tags.drops when what had ended was cleared last */
};
_Static_assert(sizeof(struct adi_tag_line) == 64, "a line is a cache line");

typedef uint16_t lanes __attribute__((vector_size(16)));

struct place {
        uint64_t a, b; /* hashes that name the lines */
        uint16_t tag;
};

/* The first line follows the order of a run, which is then added from one end of the table to the
 * other. All keys of a partition agree in lo mod partitions: what comes from lo is mixed. */
static struct place place_of(uint64_t hi, uint64_t lo)
{
        uint64_t b = (lo ^ (hi >> 31) ^ (hi << 33)) * 0xc2b2ae3d27d4eb4fu;
        uint16_t tag = (uint16_t)(b >> 7);

        return (struct place){.a = hi, .b = b, .tag = tag ? tag : 1};
}

static struct adi_tag_line *first_line(const struct adi_tag_table *t, const struct place *p)
{
        return &t->lines[(uint64_t)(((unsigned __int128)p->a * t->line_count) >> 64)];
}

/* The line after `tried` lines. */
static struct adi_tag_line *next_line(const struct adi_tag_table *t, const struct place *p,
                                      uint64_t tried)
{
        uint64_t b = (uint64_t)(((unsigned __int128)p->b * t->line_count) >> 64);

        return &t->lines[(b + tried - 1) % t->line_count];
}

/* A class returns after this time at the soonest. What its hour left behind would be alive again:
 * the pause of a third is long enough for new ids to come by nearly every line and clear it. */
static uint32_t turn_hours(uint32_t horizon_hours)
{
        uint32_t span = horizon_hours + 4; /* h - H - 1 to h + 1, and one to spare */

        return span + span / 3;
}

void adi_tags_init(struct adi_tags *t, uint32_t horizon_hours, size_t open_ids)
{
        uint32_t turn = turn_hours(horizon_hours);

        memset(t, 0, sizeof(*t));
        t->open_ids = open_ids;
        t->hours_per_class = 1;
        t->parts = ADI_SLOTS;
        if (horizon_hours > 0) {
                t->hours_per_class = (turn + ADI_SLOTS - 5) / (ADI_SLOTS - 4);
                t->parts = turn < ADI_SLOTS ? ADI_SLOTS / turn : 1;
                if (t->parts > PARTS_MAX)
                        t->parts = PARTS_MAX;
        }
        t->classes = ADI_SLOTS / t->parts;
}

static void table_release(struct adi_tag_table *t)
{
        df_pages_free(&t->table);
        memset(t, 0, sizeof(*t));
}

void adi_tags_release(struct adi_tags *t)
{
        for (unsigned i = 0; i < t->count; i++)
                table_release(&t->tables[i]);
        t->count = 0;
}

static uint32_t class_of(const struct adi_tags *t, int64_t place)
{
        int64_t per = t->hours_per_class, n = t->classes, hour = adi_place_hour(place);
        int64_t group = hour / per - (hour % per < 0);

        return (uint32_t)(((group % n) + n) % n);
}

static uint32_t slot_of(const struct adi_tags *t, int64_t hour, uint32_t seq)
{
        return 1 + class_of(t, hour) * t->parts + seq / ADI_FAN_IN % t->parts;
}

void adi_tags_hold(struct adi_tags *t, int64_t hour)
{
        uint32_t c = class_of(t, hour);

        if (t->holds[c]++ == 0)
                memset(&t->live[1 + c * t->parts], 1, t->parts);
        if (t->holds[c] == 1 || hour > t->last_hour[c])
                t->last_hour[c] = hour;
}

static void free_empty_tables(struct adi_tags *t)
{
        unsigned kept = 0;

        for (unsigned i = 0; i < t->count; i++) {
                if (t->tables[i].live == 0) {
                        table_release(&t->tables[i]);
                        continue;
                }
                if (kept != i)
                        t->tables[kept] = t->tables[i];
                kept++;
        }
        t->count = kept;
}

void adi_tags_drop(struct adi_tags *t, int64_t hour)
{
        uint32_t c = class_of(t, hour);

        df_check(t->holds[c] > 0);
        if (--t->holds[c] > 0)
                return;
        memset(&t->live[1 + c * t->parts], 0, t->parts);
        t->drops++;
        for (unsigned i = 0; i < t->count; i++) {
                t->tables[i].live -= t->tables[i].by_class[c];
                t->tables[i].by_class[c] = 0;
        }
        free_empty_tables(t);
}

static int table_open(struct adi_tag_table *t, uint64_t ids, struct df_error *err)
{
        int rc;

        memset(t, 0, sizeof(*t));
        t->line_count = LINES_MIN + ids * 100 / (LOAD_PERCENT * LINE_ENTRIES);
        t->capacity = t->line_count * LINE_ENTRIES * LOAD_PERCENT / 100;
        rc = df_pages_alloc(&t->table, (size_t)t->line_count * sizeof(*t->lines), true, err);
        t->lines = t->table.data;
        return rc;
}

/* Room for all that is alive and ROOM_PERCENT more: once the hours of the older tables have ended,
 * this one is enough while the rate stays. Who brings a delta's worth at once is busy, and gets
 * FIRST_IDS for each open id at least: each table is a cache line that every event waits for. */
static int next_table(struct adi_tags *t, uint64_t count, struct df_error *err)
{
        uint64_t total = count, ids;
        int rc;

        if (t->count == ADI_TABLES_MAX)
                return df_fail(err, DF_ELIMIT, "dedupe: %d tables of ids", ADI_TABLES_MAX);
        for (unsigned i = 0; i < t->count; i++)
                total += t->tables[i].live;
        ids = total + total * ROOM_PERCENT / 100;
        if (count >= t->open_ids / ADI_DELTA_SHARE && ids < FIRST_IDS * t->open_ids)
                ids = FIRST_IDS * t->open_ids;
        rc = table_open(&t->tables[t->count], ids, err);
        if (rc == 0)
                t->count++;
        return rc;
}

int adi_tags_reserve(struct adi_tags *t, uint64_t count, struct df_error *err)
{
        const struct adi_tag_table *last = t->count ? &t->tables[t->count - 1] : NULL;

        if (last && last->live + count <= last->capacity)
                return 0;
        return next_table(t, count, err);
}

/* Hours are dropped from the first on: what was noted for a later hour covers an earlier one. */
static void note_over(const struct adi_tags *t, struct adi_tag_line *l, uint32_t slot)
{
        if (!t->live[l->over] ||
            t->last_hour[(slot - 1) / t->parts] > t->last_hour[((uint32_t)l->over - 1) / t->parts])
                l->over = (uint8_t)slot;
}

/* What ended goes: its class will return (turn_hours). */
static void clear_line(const struct adi_tags *t, struct adi_tag_line *l)
{
        unsigned kept = 0;

        for (unsigned i = 0; i < l->used; i++) {
                if (!t->live[l->slot[i]])
                        continue;
                l->tag[kept] = l->tag[i];
                l->slot[kept++] = l->slot[i];
        }
        for (unsigned i = kept; i < l->used; i++)
                l->tag[i] = l->slot[i] = 0;
        l->used = (uint8_t)kept;
        if (!t->live[l->over])
                l->over = 0;
        l->cleared = t->drops;
}

static bool put_in_line(const struct adi_tags *t, struct adi_tag_line *l, uint16_t tag,
                        uint32_t slot)
{
        if (l->cleared != t->drops)
                clear_line(t, l);
        if (l->used == LINE_ENTRIES)
                return false;
        l->tag[l->used] = tag;
        l->slot[l->used++] = (uint8_t)slot;
        return true;
}

/* False: the table is full, although its load is limited: entries of an hour that was dropped count
 * again when its class returns before they are cleared (a clock reset, or few new ids). */
static bool add_one(const struct adi_tags *t, const struct adi_tag_table *table,
                    const struct adi_id *id, uint32_t slot)
{
        struct place p = place_of(id->hi, id->lo);
        struct adi_tag_line *l = first_line(table, &p);

        for (uint64_t tried = 1; !put_in_line(t, l, p.tag, slot); tried++) {
                if (tried > table->line_count)
                        return false;
                note_over(t, l, slot);
                l = next_line(table, &p, tried);
        }
        return true;
}

static void prefetch_in(const struct adi_tag_table *t, uint64_t hi, uint64_t lo)
{
        struct place p = place_of(hi, lo);

        __builtin_prefetch(first_line(t, &p));
}

int adi_tags_add(struct adi_tags *t, const struct adi_id *ids, size_t count, int64_t hour,
                 uint32_t seq, struct df_error *err)
{
        uint32_t c = class_of(t, hour), slot = slot_of(t, hour, seq);
        int rc = adi_tags_reserve(t, count, err);

        df_check(t->holds[c] > 0);
        for (size_t i = 0; rc == 0 && i < count;) {
                struct adi_tag_table *table = &t->tables[t->count - 1];

                if (i + AHEAD < count)
                        prefetch_in(table, ids[i + AHEAD].hi, ids[i + AHEAD].lo);
                if (!add_one(t, table, &ids[i], slot)) {
                        rc = next_table(t, count - i, err);
                        continue;
                }
                table->live++;
                table->by_class[c]++;
                i++;
        }
        return rc;
}

void adi_tags_prefetch(const struct adi_tags *t, struct df_hash128 key)
{
        for (unsigned i = 0; i < t->count; i++)
                prefetch_in(&t->tables[i], key.hi, key.lo);
}

static bool test_line(const struct adi_tag_line *l, uint16_t tag, struct adi_hits *hits)
{
        lanes want = {tag, tag, tag, tag, tag, tag, tag, tag}, a, b, c;
        uint64_t any[2];
        bool hit = false;

        memcpy(&a, &l->tag[0], sizeof(a));
        memcpy(&b, &l->tag[8], sizeof(b));
        memcpy(&c, &l->tag[LINE_ENTRIES - 8], sizeof(c)); /* overlaps b */
        a = (lanes)((a == want) | (b == want) | (c == want));
        memcpy(any, &a, sizeof(any));
        if ((any[0] | any[1]) == 0)
                return false;
        for (unsigned i = 0; i < LINE_ENTRIES; i++) {
                uint8_t slot = l->slot[i];

                if (l->tag[i] != tag || slot == 0)
                        continue;
                hits->bits[slot / 64] |= (uint64_t)1 << (slot % 64);
                hit = true;
        }
        return hit;
}

bool adi_tags_test(const struct adi_tags *t, struct df_hash128 key, struct adi_hits *ret)
{
        struct place p = place_of(key.hi, key.lo);
        bool hit = false;

        memset(ret, 0, sizeof(*ret));
        for (unsigned i = 0; i < t->count; i++) {
                const struct adi_tag_table *table = &t->tables[i];
                const struct adi_tag_line *l = first_line(table, &p);

                hit |= test_line(l, p.tag, ret);
                for (uint64_t tried = 1; t->live[l->over] && tried <= table->line_count; tried++) {
                        l = next_line(table, &p, tried);
                        hit |= test_line(l, p.tag, ret);
                }
        }
        return hit;
}

bool adi_tags_may(const struct adi_tags *t, const struct adi_hits *hits, int64_t hour,
                  uint32_t first_seq, uint32_t last_seq)
{
        uint32_t base = 1 + class_of(t, hour) * t->parts;
        uint32_t from = first_seq / ADI_FAN_IN, n = last_seq / ADI_FAN_IN - from + 1;

        if (n > t->parts)
                n = t->parts;
        for (uint32_t i = 0; i < n; i++) {
                uint32_t slot = base + (from + i) % t->parts;

                if (hits->bits[slot / 64] >> (slot % 64) & 1)
                        return true;
        }
        return false;
}

uint64_t adi_tags_bytes(const struct adi_tags *t)
{
        uint64_t lines = 0;

        for (unsigned i = 0; i < t->count; i++)
                lines += t->tables[i].line_count;
        return lines * sizeof(struct adi_tag_line);
}
