/* Builds events from lines on standard input and prints their payloads, so that another program
 * can compare them with its own (tests/integration/test_c_builder.py).
 *
 * A line is the name of a call, without vev_event_, and its arguments. Texts and bytes are in hex
 * behind an "x"; "-" is NULL; numbers are what strtod and strtoll read. Lists are joined by commas.
 * "finish" prints one line: "ok <flags> <kind> <wall_ns> <id> <payload>", or "<status> <error>". */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vevents/event.h"

enum { LINE_CAP = 1 << 20, WORDS_MAX = 10, LIST_MAX = 4096 };

static char line[LINE_CAP], payload_buffer[LINE_CAP];
static char *words[WORDS_MAX];
static vev_event ev;

static void stop(const char *why)
{
    fprintf(stderr, "event_script: %s: %s\n", why, words[0]);
    exit(2);
}

/* Decode an argument in place. It gets a NUL behind it, where its second half was. */
static char *text(int i)
{
    char *hex = words[i];
    if (hex == NULL || (hex[0] != 'x' && strcmp(hex, "-") != 0))
        stop("a text is missing");
    if (hex[0] == '-')
        return NULL;
    size_t size = strlen(hex + 1) / 2;
    for (size_t n = 0; n < size; n++) {
        char digits[3] = {hex[1 + 2 * n], hex[2 + 2 * n], '\0'};
        hex[n] = (char)strtoul(digits, NULL, 16);
    }
    hex[size] = '\0';
    return hex;
}

static double number(int i)
{
    if (words[i] == NULL)
        stop("a number is missing");
    return strtod(words[i], NULL);
}

static int64_t integer(int i)
{
    if (words[i] == NULL)
        stop("an integer is missing");
    return strtoll(words[i], NULL, 10);
}

static uint64_t natural(int i)
{
    if (words[i] == NULL)
        stop("an integer is missing");
    return strtoull(words[i], NULL, 10);
}

static void segmentation(void)
{
    static float points[LIST_MAX];
    size_t count = 0;
    char *rest = words[7]; /* NULL for an empty list, and again behind the last element */
    for (char *e = strsep(&rest, ","); e != NULL && count < LIST_MAX; e = strsep(&rest, ","))
        points[count++] = strtof(e, NULL);
    vev_event_segmentation(&ev, text(1), number(2), number(3), number(4), number(5), number(6),
                           points, count / 2);
}

static void keypoints(void)
{
    static vev_keypoint list[LIST_MAX];
    size_t count = 0;
    char *rest = words[7];
    for (char *id = strsep(&rest, ","); id != NULL && count < LIST_MAX; id = strsep(&rest, ",")) {
        char *x = strsep(&rest, ","), *y = strsep(&rest, ",");
        if (x == NULL || y == NULL)
            stop("a keypoint is not complete");
        list[count++] = (vev_keypoint){strtoll(id, NULL, 10), strtof(x, NULL), strtof(y, NULL)};
    }
    vev_event_keypoints(&ev, text(1), number(2), number(3), number(4), number(5), number(6), list,
                        count);
}

static void print_hex(const void *data, size_t size)
{
    for (size_t i = 0; i < size; i++)
        printf("%02x", ((const uint8_t *)data)[i]);
}

static void finish(void)
{
    const void *payload;
    size_t size;
    vev_entry entry = {0};
    vev_status status = vev_event_finish(&ev, &payload, &size, &entry);
    if (status != VEV_OK) {
        printf("%d %s\n", status, vev_event_error(&ev));
    } else {
        printf("ok %" PRIu32 " %" PRIu32 " %" PRId64 " ", entry.flags, entry.kind, entry.wall_ns);
        print_hex(entry.id, sizeof entry.id);
        printf(" ");
        print_hex(payload, size);
        printf("\n");
    }
    fflush(stdout);
}

static void call(const char *name)
{
    if (strcmp(name, "begin") == 0)
        vev_event_begin(&ev, payload_buffer, sizeof payload_buffer, (int)integer(1), text(2));
    else if (strcmp(name, "id") == 0)
        vev_event_id(&ev, text(1));
    else if (strcmp(name, "time") == 0)
        vev_event_time(&ev, integer(1));
    else if (strcmp(name, "device") == 0)
        vev_event_device(&ev, text(1));
    else if (strcmp(name, "stream") == 0)
        vev_event_stream(&ev, text(1));
    else if (strcmp(name, "workflow") == 0)
        vev_event_workflow(&ev, text(1));
    else if (strcmp(name, "data_str") == 0)
        vev_event_data_str(&ev, text(1), text(2));
    else if (strcmp(name, "data_int") == 0)
        vev_event_data_int(&ev, text(1), integer(2));
    else if (strcmp(name, "meta_str") == 0)
        vev_event_meta_str(&ev, text(1), text(2));
    else if (strcmp(name, "meta_int") == 0)
        vev_event_meta_int(&ev, text(1), integer(2));
    else if (strcmp(name, "meta_num") == 0)
        vev_event_meta_num(&ev, text(1), number(2));
    else if (strcmp(name, "meta_bool") == 0)
        vev_event_meta_bool(&ev, text(1), (int)integer(2));
    else if (strcmp(name, "display_image") == 0)
        vev_event_display_image(&ev, (uint32_t)natural(1));
    else if (strcmp(name, "image_begin") == 0)
        vev_event_image_begin(&ev, text(1));
    else if (strcmp(name, "image_frame") == 0)
        vev_event_image_frame(&ev, natural(1), (const uint8_t *)text(2), natural(3));
    else if (strcmp(name, "image_input_frame") == 0)
        vev_event_image_input_frame(&ev, natural(1), (const uint8_t *)text(2), natural(3));
    else if (strcmp(name, "image_source") == 0)
        vev_event_image_source(&ev, text(1));
    else if (strcmp(name, "image_input_source") == 0)
        vev_event_image_input_source(&ev, text(1));
    else if (strcmp(name, "detection") == 0)
        vev_event_detection(&ev, text(1), number(2), number(3), number(4), number(5), number(6));
    else if (strcmp(name, "classification") == 0)
        vev_event_classification(&ev, text(1), number(2));
    else if (strcmp(name, "segmentation") == 0)
        segmentation();
    else if (strcmp(name, "keypoints") == 0)
        keypoints();
    else if (strcmp(name, "image_end") == 0)
        vev_event_image_end(&ev);
    else if (strcmp(name, "finish") == 0)
        finish();
    else
        stop("no such call");
}

int main(void)
{
    while (fgets(line, sizeof line, stdin) != NULL) {
        memset(words, 0, sizeof words);
        char *rest = line;
        for (int i = 0; i < WORDS_MAX; i++)
            words[i] = strtok_r(i == 0 ? line : NULL, " \n", &rest);
        if (words[0] != NULL)
            call(words[0]);
    }
    return 0;
}
