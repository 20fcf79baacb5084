#include "_core.h"

vev_status py_append_boxes(vev_log *log, const py_writer *writer, py_scratch *scratch,
                           const float *xyxy, const float *confidence, const int64_t *class_id,
                           size_t count, uint64_t frame_seq, const uint8_t *frame_digest,
                           uint64_t frame_size, vev_entry *entry)
{
    vev_boxes boxes = {xyxy, confidence, class_id, count, writer->class_names, writer->class_count};
    vev_event *event = &scratch->event;
    vev_event_copy(event, scratch->buffer, scratch->buffer_size, writer->base);
    if (frame_seq != 0)
        vev_event_image_frame(event, frame_seq, frame_digest, frame_size);
    vev_event_boxes(event, &boxes);
    vev_event_image_end(event);
    return vev_log_append_event(log, event, entry);
}
