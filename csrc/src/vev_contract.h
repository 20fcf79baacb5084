/* What the Vision Events API takes: the limits that an encoder keeps and a reader checks. */
#ifndef VEV_CONTRACT_H
#define VEV_CONTRACT_H

#include <stdbool.h>
#include <stddef.h>

#include "vevents/vevents.h"

enum {
    VEV_ID_CHARS_MAX = 256,
    VEV_EXTERNAL_ID_CHARS_MAX = 1000,
    VEV_TEXT_CHARS_MAX = 10000,
    VEV_META_COUNT_MAX = 100,
    VEV_META_KEY_CHARS_MAX = 100,
    VEV_META_TEXT_CHARS_MAX = 1000,
    VEV_ANNOTATION_COUNT_MAX = 1000,
    VEV_POLYGON_POINT_COUNT_MIN = 3
};

/* The end of 2261: nanoseconds since 1970 have 64 bits, and RFC 3339 four digits for the year. */
#define VEV_WALL_NS_MAX 9214646400000000000

/* The largest float, as the shortest decimal that names it: a reader prints that one, and what it
 * prints must be accepted again. As a double it is a little more; it rounds to the float. */
#define VEV_COORDINATE_MAX 3.4028235e38

/* The type of an event on the wire, by VEV_KIND_*; entry 0 is NULL. */
enum { VEV_KIND_NAME_COUNT = VEV_KIND_OPERATOR_FEEDBACK + 1 };
extern const char *const vev_kind_names[VEV_KIND_NAME_COUNT];

/* What eventData may hold. */
typedef enum { VEV_RULE_TEXT, VEV_RULE_ID, VEV_RULE_CHOICE, VEV_RULE_WORD, VEV_RULE_INT } vev_rule;

typedef struct vev_data_rule {
    const char *key;
    unsigned kinds;     /* kinds of event that have it: bit VEV_KIND_* */
    unsigned mandatory; /* kinds that need it */
    vev_rule rule;
    size_t chars_max;       /* VEV_RULE_TEXT; 0: no limit */
    const char *choices[4]; /* VEV_RULE_CHOICE; ends with NULL */
} vev_data_rule;

enum { VEV_DATA_RULE_COUNT = 11 };
extern const vev_data_rule vev_data_rules[VEV_DATA_RULE_COUNT];

/** Is this letters, digits, and what is in `others`, and at least one? */
bool vev_charset_ok(const char *text, size_t size, const char *others);

/** Is this the word? */
bool vev_is_word(const char *word, const char *text, size_t size);

/** Is this one of the words? */
bool vev_is_choice(const char *const choices[], const char *text, size_t size);

#endif
