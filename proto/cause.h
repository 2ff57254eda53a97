/* cause.h - why realtime and the bill differ in an event (R3): one table, as proto/reason.h is.
 *
 * Values are stored in billing rows: never reuse one.
 */
#ifndef AD_CAUSE_H
#define AD_CAUSE_H

/* X(NAME, value, "code", "text") */
#define AD_CAUSE_MAP(X)                                                                            \
        X(NONE, 0, "none", "both count the event, and at the same price")                          \
        X(LATE, 1, "late", "realtime had settled the window; the bill counts the event")           \
        X(DUPLICATE, 2, "duplicate",                                                               \
          "a copy that came after realtime's horizon had passed; the bill does not count it")      \
        X(CONFLICT, 3, "conflict",                                                                 \
          "the event_id again after realtime's horizon, with other content; not billed")           \
        X(PRICE, 4, "price", "the bill's price table says another price, or has one at all")       \
        X(UNFOLDED, 5, "unfolded",                                                                 \
          "realtime folded the campaign into __other__; the bill does "                            \
          "not")                                                                                   \
        X(PENDING, 6, "not_yet_processed", "realtime has not come to the run's end")               \
        X(UNEXPLAINED, 7, "unexplained", "realtime's rows are not what its rules give: an alarm")  \
        X(LABEL, 8, "label",                                                                       \
          "a correction labelled the event afterwards: billed as invalid, without money")          \
        X(CORRECTION, 9, "correction",                                                             \
          "a correction voided it, or bills it at another price or in another cell")

enum ad_cause {
#define X(name, value, code, text) AD_CAUSE_##name = (value),
        AD_CAUSE_MAP(X)
#undef X
};
#define AD_CAUSE_COUNT 10

/* "unknown" beyond. */
const char *ad_cause_code(unsigned cause);
const char *ad_cause_text(unsigned cause);

#endif
