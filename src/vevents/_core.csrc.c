#include "_core.h"

#include <stdbool.h>

#include "vev_json.h"

static int64_t answer_of(vev_status status, const vev_entry *entry)
{
    return status ? -1 - (int64_t)(uint32_t)status : (int64_t)entry->seq;
}

vev_status py_status(int64_t answer) { return (vev_status)(uint32_t)(-1 - answer); }

int64_t py_append(vev_log *log, const void *payload, size_t size, uint32_t flags, uint32_t kind)
{
    vev_entry entry = {.flags = flags, .kind = kind};
    return answer_of(vev_log_append(log, VEV_EVENTS, payload, size, &entry), &entry);
}

/* numpy makes arrays at odd addresses, too. */
static bool is_aligned(const void *array, size_t size) { return (uintptr_t)array % size == 0; }

static vev_event *begin(const py_writer *writer, py_scratch *scratch, const py_frame *frame)
{
    vev_event *event = &scratch->event;
    vev_event_copy(event, scratch->buffer, scratch->buffer_size, writer->base);
    if (frame)
        vev_event_image_frame(event, frame->seq, frame->digest, frame->size);
    return event;
}

static int64_t finish(vev_log *log, vev_event *event, uint32_t flags)
{
    vev_entry entry = {.flags = flags};
    vev_event_image_end(event);
    return answer_of(vev_log_append_event(log, event, &entry), &entry);
}

int64_t py_append_boxes(vev_log *log, const py_writer *writer, py_scratch *scratch,
                        const void *xyxy, const void *confidence, const void *class_id,
                        size_t count, const py_frame *frame, uint32_t flags)
{
    vev_boxes boxes = {
        .xyxy = xyxy,
        .confidence = confidence,
        .class_id = class_id,
        .count = count,
        .class_names = writer->class_names,
        .class_count = writer->class_count,
    };
    if (!is_aligned(xyxy, _Alignof(float)) || !is_aligned(confidence, _Alignof(float)) ||
        !is_aligned(class_id, _Alignof(int64_t)))
        return answer_of(VEV_E_BUFFER, NULL);
    vev_event *event = begin(writer, scratch, frame);
    vev_event_boxes(event, &boxes);
    return finish(log, event, flags);
}

int64_t py_append_rows(vev_log *log, const py_writer *writer, py_scratch *scratch, const void *rows,
                       size_t count, const py_frame *frame, uint32_t flags)
{
    if (!is_aligned(rows, _Alignof(float)))
        return answer_of(VEV_E_BUFFER, NULL);
    vev_event *event = begin(writer, scratch, frame);
    vev_event_rows(event, rows, count, writer->class_names, writer->class_count);
    return finish(log, event, flags);
}

int64_t py_event_json(const void *payload, size_t size, const void *id, int64_t wall_ns,
                      const char *use_case, size_t use_case_size, char *out, size_t cap)
{
    vev_json_record record = {id, wall_ns, use_case, use_case_size};
    return vev_json_event(payload, size, &record, out, cap);
}

double py_shortest(double value) { return vev_json_shortest(value); }
