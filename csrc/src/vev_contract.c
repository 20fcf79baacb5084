#include "vev_contract.h"

#include <string.h>

const char *const vev_kind_names[VEV_KIND_NAME_COUNT] = {
    [VEV_KIND_QUALITY_CHECK] = "quality_check",
    [VEV_KIND_INVENTORY_COUNT] = "inventory_count",
    [VEV_KIND_SAFETY_ALERT] = "safety_alert",
    [VEV_KIND_CUSTOM] = "custom",
    [VEV_KIND_OPERATOR_FEEDBACK] = "operator_feedback",
};

#define BIT(name) (1u << VEV_KIND_##name)

const vev_data_rule vev_data_rules[VEV_DATA_RULE_COUNT] = {
    {"result", BIT(QUALITY_CHECK), BIT(QUALITY_CHECK), VEV_RULE_CHOICE, 0, {"pass", "fail", NULL}},
    {"itemCount", BIT(INVENTORY_COUNT), BIT(INVENTORY_COUNT), VEV_RULE_INT, 0, {NULL}},
    {"location", BIT(INVENTORY_COUNT), 0, VEV_RULE_TEXT, 0, {NULL}},
    {"itemType", BIT(INVENTORY_COUNT), 0, VEV_RULE_TEXT, 0, {NULL}},
    {"alertType", BIT(SAFETY_ALERT), BIT(SAFETY_ALERT), VEV_RULE_WORD, 0, {NULL}},
    {"severity", BIT(SAFETY_ALERT), 0, VEV_RULE_CHOICE, 0, {"low", "medium", "high", NULL}},
    {"description", BIT(SAFETY_ALERT), 0, VEV_RULE_TEXT, VEV_TEXT_CHARS_MAX, {NULL}},
    {"value", BIT(CUSTOM), BIT(CUSTOM), VEV_RULE_TEXT, VEV_TEXT_CHARS_MAX, {NULL}},
    {"relatedEventId", BIT(OPERATOR_FEEDBACK), BIT(OPERATOR_FEEDBACK), VEV_RULE_ID, 0, {NULL}},
    {"feedback",
     BIT(OPERATOR_FEEDBACK),
     BIT(OPERATOR_FEEDBACK),
     VEV_RULE_CHOICE,
     0,
     {"correct", "incorrect", "inconclusive", NULL}},
    {"externalId",
     BIT(QUALITY_CHECK) | BIT(INVENTORY_COUNT) | BIT(SAFETY_ALERT) | BIT(CUSTOM),
     0,
     VEV_RULE_TEXT,
     VEV_EXTERNAL_ID_CHARS_MAX,
     {NULL}},
};

static bool is_letter_or_digit(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

bool vev_charset_ok(const char *text, size_t size, const char *others)
{
    for (size_t i = 0; i < size; i++) {
        if (!is_letter_or_digit(text[i]) && (text[i] == '\0' || strchr(others, text[i]) == NULL))
            return false;
    }
    return size != 0;
}

bool vev_is_word(const char *word, const char *text, size_t size)
{
    return strlen(word) == size && memcmp(word, text, size) == 0;
}

bool vev_is_choice(const char *const choices[], const char *text, size_t size)
{
    while (*choices != NULL && !vev_is_word(*choices, text, size))
        choices++;
    return *choices != NULL;
}
