/* An inference loop that logs what it sees: c_loop LOG_DIRECTORY IMAGE...
 *
 * cc c_loop.c $(pkg-config --cflags --libs vevents) -o c_loop */
#include <stdio.h>
#include <stdlib.h>
#include <vevents/event.h>

typedef struct {
    const char *class_name;
    float x, y, width, height, confidence;
} box;

/* In place of a model: boxes that wander through the picture, none in every third. */
static int infer(int frame_number, box found[8])
{
    int count = frame_number % 3;
    for (int i = 0; i < count; i++)
        found[i] = (box){i == 0 ? "burr" : "scratch",
                         100.5f + 40.0f * (float)frame_number,
                         60.0f + 80.0f * (float)i,
                         37,
                         22.5f,
                         0.9f - 0.1f * (float)i};
    return count;
}

static int check(vev_status status, const char *what, const char *why)
{
    if (status != VEV_OK)
        fprintf(stderr, "%s: %s (%s)\n", what, vev_strerror(status), why);
    return status == VEV_OK;
}

/* Store the frame, then the event that refers to it. */
static int log_frame(vev_log *log, const void *image, size_t image_size, const box *found,
                     int count)
{
    vev_entry frame = {.flags = VEV_APPEND_ID | VEV_APPEND_RAW, .kind = VEV_IMAGE_JPEG};
    vev_frame_digest(image, image_size, frame.id);
    if (!check(vev_log_append(log, VEV_MEDIA, image, image_size, &frame), "frame", "not stored"))
        return 0;

    char buffer[4096];
    vev_event event;
    vev_event_begin(&event, buffer, sizeof buffer, VEV_KIND_QUALITY_CHECK, "press-line");
    vev_event_device(&event, "press-03");
    vev_event_data_str(&event, "result", count == 0 ? "pass" : "fail");
    vev_event_meta_int(&event, "found", count);
    vev_event_display_image(&event, 0);
    vev_event_image_begin(&event, "top camera");
    vev_event_image_frame(&event, frame.seq, frame.id, image_size);
    for (int i = 0; i < count; i++)
        vev_event_detection(&event, found[i].class_name, found[i].x, found[i].y, found[i].width,
                            found[i].height, found[i].confidence);
    vev_event_image_end(&event);
    return check(vev_log_append_event(log, &event, NULL), "event", vev_event_error(&event));
}

int main(int argc, char **argv)
{
    static char image[16 << 20];
    vev_log *log;
    if (argc < 3) {
        fputs("c_loop LOG_DIRECTORY IMAGE...\n", stderr);
        return 1;
    }
    if (!check(vev_log_open(argv[1], NULL, &log), "log", argv[1]))
        return 1;
    int good = 1;
    for (int i = 2; i < argc && good; i++) {
        FILE *file = fopen(argv[i], "rb");
        size_t size = file != NULL ? fread(image, 1, sizeof image, file) : 0;
        if (file != NULL)
            fclose(file);
        if (size == 0 || size == sizeof image) {
            fprintf(stderr, "%s: cannot be read, or is too large\n", argv[i]);
            good = 0;
            break;
        }
        box found[8];
        int count = infer(i - 2, found);
        good = log_frame(log, image, size, found, count);
    }
    vev_stats events;
    if (good && check(vev_log_sync(log, NULL), "sync", argv[1]) &&
        check(vev_log_stats(log, VEV_EVENTS, &events), "stats", argv[1]))
        printf("appended %llu, pending %llu, durable up to %llu, %llu bytes used\n",
               (unsigned long long)events.appended, (unsigned long long)events.pending,
               (unsigned long long)events.durable_seq, (unsigned long long)events.bytes_used);
    vev_log_close(log);
    return good ? 0 : 1;
}
