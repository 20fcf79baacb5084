/* Reading records, in order; and looking at all of them for damage. */
#include "vev_cursor.h"

#include <errno.h>
#include <stdlib.h>

#include "vev_clock.h"
#include "vev_crc32c.h"
#include "vev_dictionary.h"
#include "vev_guard.h"
#include "vev_laps.h"
#include "vev_states.h"
#include "vev_step.h"

/* Bytes of a state map that are read at once. */
enum { MAP_PIECE = 4096 };

/* ---- read ---- */

typedef struct reading {
    uint64_t from_seq;
    unsigned state_mask;
    vev_record *records;
    size_t record_cap;
    uint8_t *buffer;
    size_t buffer_size, buffer_used, count;
    uint64_t next_seq;
    bool full;
} reading;

/* Write a record's payload to `out`, raw_size bytes. VEV_E_CORRUPT when it does not decode. */
static vev_status decode(vev_ring *ring, const vev_header *header, const uint8_t *stored,
                         uint8_t *out)
{
    if (header->codec == VEV_CODEC_RAW) {
        if (header->raw_size != header->stored_size)
            return VEV_E_CORRUPT;
        memcpy(out, stored, header->stored_size);
        return VEV_OK;
    }
    if (header->codec > VEV_CODEC_ZSTD_PLAIN ||
        (header->codec == VEV_CODEC_ZSTD && !ring->read_dictionary))
        return VEV_E_CORRUPT;
    vev_context *context = vev_pool_take(ring->pool, 0);
    for (int turn = 0; !context && turn < 1000; turn++) {
        vev_clock_pause((uint32_t)turn); /* appenders have them all, each for microseconds */
        context = vev_pool_take(ring->pool, 0);
    }
    if (!context)
        return VEV_E_NOMEM;
    vev_status status = vev_zstd_decompress(
        context->zctx, header->codec == VEV_CODEC_ZSTD ? ring->read_dictionary->digested : NULL,
        out, header->raw_size, stored, header->stored_size);
    vev_pool_give(context);
    return status;
}

/* Put one record's payload into the caller's buffer. */
static vev_status deliver(vev_ring *ring, reading *r, const vev_step *s, uint32_t state,
                          bool *bad_out)
{
    const vev_header *header = &s->header;
    *bad_out = header->raw_size > ring->file.geometry.data_size;
    if (*bad_out)
        return VEV_OK;
    if (r->count == r->record_cap || header->raw_size > r->buffer_size - r->buffer_used) {
        r->full = true;
        if (r->count == 0) {
            r->records[0].size = header->raw_size;
            return VEV_E_BUFFER;
        }
        return VEV_OK;
    }
    vev_status status =
        decode(ring, header, vev_record_payload(vev_ring_window_at(ring, s->offset), header),
               r->buffer + r->buffer_used);
    if (status == VEV_E_CORRUPT) {
        *bad_out = true;
        return VEV_OK;
    }
    if (status)
        return status;
    vev_record *record = &r->records[r->count++];
    record->seq = header->seq;
    record->wall_ns = header->wall_ns;
    record->mono_ns = header->mono_ns;
    record->boot = header->boot;
    record->kind = header->kind;
    record->state = state;
    record->flags = header->time_given ? VEV_APPEND_TIME : 0u;
    if (header->id_given)
        memcpy(record->id, header->id, VEV_ID_SIZE);
    else
        vev_record_make_id(ring->file.uuid, header, record->id);
    record->offset = r->buffer_used;
    record->size = header->raw_size;
    record->stored_size = s->size;
    r->buffer_used += header->raw_size;
    return VEV_OK;
}

/* Have the segment's dictionary in read_dictionary; NULL when it has none, or a broken one, and
 * then every compressed record in it will prove undecodable. */
static vev_status load_dictionary(vev_ring *ring, const vev_listed *listed)
{
    if (ring->dictionary_generation == listed->head.generation)
        return VEV_OK;
    vev_ring_drop_dictionary(ring, ring->read_dictionary);
    ring->read_dictionary = NULL;
    ring->dictionary_generation = 0;
    uint32_t size = listed->head.dictionary_size;
    if (size > 0) {
        uint8_t bytes[VEV_DICTIONARY_MAX];
        vev_status status = vev_ring_read_part(
            ring, vev_segment_offset(&ring->file.geometry, listed->segment) + VEV_HEADER_BLOCK,
            bytes, size);
        if (status)
            return status;
        const vev_dictionary *own = ring->own_dictionary;
        if (vev_crc32c(0, bytes, size) != listed->head.dictionary_crc && own && own->size == size &&
            own->crc == listed->head.dictionary_crc)
            memcpy(bytes, own->bytes, size);
        if (vev_crc32c(0, bytes, size) == listed->head.dictionary_crc) {
            status = vev_ring_hold_dictionary(ring, bytes, size, &ring->read_dictionary);
            if (status && status != VEV_E_CORRUPT)
                return status;
        }
    }
    if (size == 0 || ring->read_dictionary || !vev_ring_may_come_back(ring))
        ring->dictionary_generation = listed->head.generation;
    return VEV_OK;
}

static vev_status read_segment(vev_ring *ring, const vev_listed *listed, reading *r)
{
    vev_lap lap = vev_listed_lap(ring, listed);
    const uint32_t map_size = vev_map_words(&ring->file.geometry) * 8;
    uint32_t map_from = 0, map_to = 0;
    vev_status status = load_dictionary(ring, listed);
    if (status)
        return status;
    if (!listed->head.sealed || vev_ring_may_come_back(ring))
        ring->window_generation = 0; /* it may have grown since, or be readable again */
    uint32_t offset = 0, index = 0;
    if (ring->read_generation == listed->head.generation &&
        lap.base_seq + ring->read_index <= r->from_seq) {
        offset = ring->read_offset;
        index = (uint32_t)ring->read_index;
    }
    for (;;) {
        ring->read_generation = listed->head.generation;
        ring->read_offset = offset;
        ring->read_index = index;
        vev_step s;
        status = vev_ring_step(ring, listed, &lap, offset, index, &s);
        if (status)
            return status;
        size_t ignored = 0;
        bool give_up = !ring->readonly && !vev_ring_may_come_back(ring);
        if (s.index > index && s.kind != VEV_STEP_BUSY && give_up) {
            status =
                vev_ring_mark_range(ring, listed, &lap, index, s.index, VEV_LOST, true, &ignored);
            if (status)
                return status;
        }
        if (s.kind == VEV_STEP_RECORD) {
            uint32_t at = s.index / 16 * 8;
            if (at < map_from || at >= map_to) {
                map_from = at / MAP_PIECE * MAP_PIECE;
                map_to = VEV_MIN(map_from + MAP_PIECE, map_size);
                uint64_t unreadable;
                status = vev_ring_load_map(ring, listed, map_from, map_to, &unreadable);
                if (status)
                    return status;
                /* It is cleared after the segment is marked as reclaimed: asked now, this tells a
                 * good one. */
                if (!ring->readonly && atomic_load(&ring->live->generations[listed->segment]) !=
                                           listed->head.generation)
                    return VEV_OK;
            }
            uint32_t state = vev_ring_state(ring, &lap, s.index);
            uint64_t seq = s.header.seq;
            bool bad = false;
            if (seq >= r->from_seq && (r->state_mask >> state & 1u)) {
                status = deliver(ring, r, &s, state, &bad);
                if (status || r->full)
                    return status;
            }
            if (bad && give_up) {
                status = vev_ring_mark_range(ring, listed, &lap, s.index, s.index + 1, VEV_LOST,
                                             true, &ignored);
                if (status)
                    return status;
            }
            index = s.index + 1;
            r->next_seq = VEV_MAX(r->next_seq, seq + 1);
        } else {
            index = s.index;
            r->next_seq = VEV_MAX(r->next_seq, lap.base_seq + index);
        }
        if (s.kind == VEV_STEP_END) {
            ring->read_index = index;
            return VEV_OK;
        }
        offset += s.size;
    }
}

static vev_status read_locked(vev_ring *ring, reading *r)
{
    vev_status status = vev_ring_list(ring);
    for (uint32_t i = 0; !status && !r->full && i < ring->listed_count; i++) {
        const vev_listed *listed = &ring->listed[i];
        bool newest = i + 1 == ring->listed_count;
        if (!newest && ring->listed[i + 1].head.base_seq <= r->from_seq)
            continue;
        r->next_seq = VEV_MAX(r->next_seq, listed->head.base_seq);
        status = read_segment(ring, listed, r);
        if (status == EIO) {
            /* One unreadable segment must not hide the ones behind it. */
            if (newest || r->count > 0)
                return r->count > 0 ? VEV_OK : status;
            status = VEV_OK;
        }
    }
    return status;
}

vev_status vev_ring_read(vev_ring *ring, uint64_t from_seq, unsigned state_mask,
                         vev_record *records, size_t record_cap, void *buffer, size_t buffer_size,
                         size_t *count_out, uint64_t *next_out)
{
    if (record_cap == 0 || record_cap > 65536 || !records || (!buffer && buffer_size > 0))
        return VEV_E_INVALID;
    reading r = {.from_seq = from_seq,
                 .state_mask = state_mask,
                 .records = records,
                 .record_cap = record_cap,
                 .buffer = buffer,
                 .buffer_size = buffer_size,
                 .next_seq = from_seq};
    pthread_mutex_lock(&ring->read_mutex);
    vev_status status;
    vev_guard guard;
    vev_guard_enter(&guard);
    if (sigsetjmp(guard.jump, 0) == 0) {
        status = vev_ring_check_descriptor(ring);
        if (!status)
            status = read_locked(ring, &r);
        vev_guard_leave(&guard);
    } else {
        status = vev_ring_after_sigbus(ring);
    }
    pthread_mutex_unlock(&ring->read_mutex);
    *count_out = status ? 0 : r.count;
    *next_out = r.next_seq;
    return status;
}

/* ---- verify ---- */

typedef struct verifying {
    vev_damage *ranges;
    size_t range_cap, count;
    uint64_t checked;
    uint8_t *scratch; /* data_size bytes: no payload is larger */
} verifying;

static void add_damage(verifying *v, uint64_t offset, uint64_t size, uint64_t first_seq,
                       uint64_t count)
{
    if (v->count < v->range_cap)
        v->ranges[v->count] = (vev_damage){offset, size, first_seq, count};
    v->count++;
}

static vev_status verify_segment(vev_ring *ring, const vev_listed *listed, verifying *v)
{
    const vev_geometry *geometry = &ring->file.geometry;
    vev_lap lap = vev_listed_lap(ring, listed);
    ring->window_generation = 0;
    ring->dictionary_generation = 0; /* look at the one on the disk */
    vev_status status = load_dictionary(ring, listed);
    if (status)
        return status;
    if (listed->head.dictionary_size > 0 && !ring->read_dictionary)
        add_damage(v, vev_segment_offset(geometry, listed->segment) + VEV_HEADER_BLOCK,
                   listed->head.dictionary_size, lap.base_seq, 0);
    uint32_t offset = 0, index = 0;
    for (;;) {
        vev_step s;
        status = vev_ring_step(ring, listed, &lap, offset, index, &s);
        if (status)
            return status;
        /* A hole that recovery made over what had never been finished counts no records. */
        if (s.kind != VEV_STEP_BUSY && s.index > index)
            add_damage(v, lap.file_offset + offset,
                       s.kind == VEV_STEP_END ? geometry->data_size - offset : s.size,
                       lap.base_seq + index, s.index - index);
        if (s.kind == VEV_STEP_RECORD) {
            status = s.header.raw_size > geometry->data_size
                         ? VEV_E_CORRUPT
                         : decode(ring, &s.header,
                                  vev_record_payload(vev_ring_window_at(ring, offset), &s.header),
                                  v->scratch);
            if (status == VEV_E_CORRUPT)
                add_damage(v, lap.file_offset + offset, s.size, s.header.seq, 1);
            else if (status)
                return status;
            else
                v->checked++;
        }
        index = s.kind == VEV_STEP_RECORD ? s.index + 1 : s.index;
        if (s.kind == VEV_STEP_END)
            return VEV_OK;
        offset += s.size;
    }
}

/* A tally that the map does not bear out is taken back: of a disk that was pulled out and put back,
 * say. The next figures are right; the records always were. */
static vev_status verify_tally(vev_ring *ring, const vev_listed *listed)
{
    uint64_t tallied[4], counts[4], unfinished, unreadable;
    if (ring->readonly || !vev_ring_read_tally(ring, listed, tallied))
        return VEV_OK;
    vev_status status = vev_ring_count_map(ring, listed, vev_listed_records(listed), counts,
                                           &unfinished, &unreadable);
    if (!status && unreadable == 0 && memcmp(tallied, counts, sizeof counts) != 0)
        vev_ring_forget_tally(ring, listed->segment);
    return status;
}

static vev_status verify_locked(vev_ring *ring, verifying *v)
{
    vev_status status = vev_ring_list(ring);
    vev_ledger ledger;
    uint64_t next_seq =
        vev_ledger_latest(ring->region, ring->file.uuid, &ledger) ? ledger.floor_seq : 1;
    for (uint32_t i = 0; !status && i < ring->listed_count; i++) {
        const vev_listed *listed = &ring->listed[i];
        if (listed->head.base_seq > next_seq) /* a segment whose head is gone: it can be anywhere */
            add_damage(v, 0, 0, next_seq, listed->head.base_seq - next_seq);
        status = verify_segment(ring, listed, v);
        if (!status && i + 1 < ring->listed_count)
            status = verify_tally(ring, listed);
        next_seq = VEV_MAX(next_seq, listed->end_seq);
    }
    return status;
}

vev_status vev_ring_verify(vev_ring *ring, vev_damage *ranges, size_t range_cap, size_t *count_out,
                           uint64_t *checked_out)
{
    verifying v = {
        .ranges = ranges, .range_cap = range_cap, .scratch = malloc(ring->file.geometry.data_size)};
    if (!v.scratch)
        return VEV_E_NOMEM;
    pthread_mutex_lock(&ring->read_mutex);
    vev_status status;
    vev_guard guard;
    vev_guard_enter(&guard);
    if (sigsetjmp(guard.jump, 0) == 0) {
        status = verify_locked(ring, &v);
        vev_guard_leave(&guard);
    } else {
        status = EIO;
    }
    pthread_mutex_unlock(&ring->read_mutex);
    free(v.scratch);
    *count_out = v.count;
    *checked_out = v.checked;
    return status;
}
