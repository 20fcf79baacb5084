/* The way of an event into the ring: compress, reserve, write, commit. */
#include "vev_append.h"

#include <errno.h>
#include <string.h>

#include "vev_checkpoint.h"
#include "vev_clear.h"
#include "vev_clock.h"
#include "vev_dictionary.h"
#include "vev_guard.h"
#include "vev_roll.h"
#include "vev_span.h"
#include "vev_sync.h"

/* One append on its way: the payload, and what it became when compressed. */
typedef struct job {
    const void *payload;
    vev_context *context; /* NULL: store as it is */
    vev_header header;
    const void *stored;
    uint64_t dictionary_id; /* with which `stored` was made; UINT64_MAX: not made yet */
    uint64_t generation;    /* where it was tried last */
    uint32_t segment;       /* likewise */
    uint32_t uncleared;     /* up to where that is to be cleared; 0: nothing is */
    bool checkpoint_far;    /* behind it: nobody else comes to move it */
} job;

/* Find what to store: the compressed form in the context's scratch, or the payload itself. */
static void compress(const vev_ring *ring, const vev_dictionary *dictionary, job *j)
{
    uint64_t id = dictionary ? dictionary->id : 0;
    if (j->dictionary_id == id)
        return;
    j->dictionary_id = id;
    size_t stored;
    if (j->context &&
        vev_zstd_compress(j->context->zctx, dictionary ? dictionary->digested : NULL, ring->level,
                          j->context->scratch, j->context->scratch_size, j->payload,
                          j->header.raw_size, &stored) == VEV_OK &&
        stored < j->header.raw_size) {
        j->header.stored_size = (uint32_t)stored;
        j->header.codec = dictionary ? VEV_CODEC_ZSTD : VEV_CODEC_ZSTD_PLAIN;
        j->stored = j->context->scratch;
    } else {
        j->header.stored_size = j->header.raw_size;
        j->header.codec = VEV_CODEC_RAW;
        j->stored = j->payload;
    }
}

/* How far the checkpoint may be behind before an append moves it: at full speed, and without a
 * helper, nobody else may come to it. */
enum { FAR_BEHIND = 1024 * 1024, CHECKPOINT_ASKED = FAR_BEHIND / 4 };

/* Whether an append up to `end` is to clear more, for it leaves little of what is `cleared`
 * (vev_ring_clear_in_time()). */
static bool leaves_little(const vev_ring *ring, uint32_t cleared, uint32_t end)
{
    uint32_t left = atomic_load_explicit(&ring->clear_left, memory_order_relaxed);
    return VEV_UNLIKELY(cleared - end < left) && cleared < ring->file.geometry.data_size;
}

/* Take `size` bytes at the tail. False when the segment has no room or is sealed, or is to be
 * cleared up to `*uncleared_out` first. */
static bool reserve(vev_ring *ring, vev_span *span, uint32_t size, uint32_t *offset_out,
                    uint32_t *index_out, uint32_t *uncleared_out)
{
    const vev_geometry *geometry = &ring->file.geometry;
    uint64_t taken = vev_word_sized(VEV_WORD_RESERVED, size, ring->owner);
    uint64_t tail = atomic_load_explicit(&span->tail, memory_order_relaxed);
    for (;;) {
        uint32_t offset = vev_tail_offset(tail), index = vev_tail_index(tail);
        if (size > geometry->data_size - 8 - offset || index >= geometry->max_records)
            return false;
        uint32_t behind = offset + size + VEV_RECORD_ALIGN;
        if (!vev_ring_is_cleared(ring, span, behind)) {
            *uncleared_out = behind;
            return false;
        }
        /* Without looking first: it is free most of the time, and a line that is only read would
         * have to come twice from the core that wrote it. */
        uint64_t free_word = 0;
        if (atomic_compare_exchange_strong_explicit(vev_word_at(span, offset), &free_word, taken,
                                                    memory_order_acq_rel, memory_order_acquire)) {
            vev_ring_advance_tail(span, vev_tail_make(index + 1ull, offset + size));
            *offset_out = offset;
            *index_out = index;
            return true;
        }
        if (vev_ring_walk(ring, span, &tail) != VEV_WALK_FREE)
            return false;
    }
}

/* One try in the current segment. VEV_E_FULL: it has no room, or is not current any more. */
static vev_status append_here(vev_ring *ring, vev_span *span, void *argument)
{
    job *j = argument;
    j->generation = atomic_load_explicit(&span->generation, memory_order_relaxed);
    j->segment = span->segment;
    j->uncleared = 0;
    compress(ring, span->dictionary, j); /* while pinned, so that the dictionary stays */
    if (atomic_load(&ring->live->generations[span->segment]) != j->generation)
        return VEV_E_FULL; /* another process is a lap ahead (INV-7) */
    uint32_t kinds = atomic_load_explicit(&span->kinds, memory_order_relaxed);
    if (VEV_UNLIKELY(!(kinds >> j->header.kind & 1)))
        vev_ring_note_kinds(span, 1u << j->header.kind); /* INV-15 */
    uint32_t offset, index, size = vev_record_size(&j->header);
    if (!reserve(ring, span, size, &offset, &index, &j->uncleared))
        return VEV_E_FULL;
    /* Asked seldom, and only then is it looked up. */
    if (VEV_UNLIKELY((offset ^ (offset + size)) >= CHECKPOINT_ASKED))
        j->checkpoint_far = offset >= vev_ring_checkpoint(ring, j->generation) + FAR_BEHIND;
    uint32_t cleared = atomic_load_explicit(&span->cleared, memory_order_relaxed);
    if (leaves_little(ring, cleared, offset + size))
        j->uncleared = cleared;
    j->header.seq = span->lap.base_seq + index;
    uint64_t word =
        vev_record_write(span->data + offset, &span->lap, offset, &j->header, j->stored);
    atomic_store_explicit(vev_word_at(span, offset), word, memory_order_release); /* INV-3 */
    return VEV_OK;
}

bool vev_ring_has_room(const vev_ring *ring, size_t payload_size)
{
    const vev_geometry *geometry = &ring->file.geometry;
    const vev_span *span = atomic_load_explicit(&ring->current, memory_order_acquire);
    if (!span)
        return false;
    uint64_t generation = atomic_load_explicit(&span->generation, memory_order_relaxed);
    uint64_t tail = atomic_load_explicit(&span->tail, memory_order_relaxed);
    uint32_t cleared = atomic_load_explicit(&span->cleared, memory_order_relaxed);
    uint64_t used = vev_tail_offset(tail) + (uint64_t)payload_size;
    uint64_t behind = used + VEV_RECORD_OVERHEAD_MAX + VEV_RECORD_ALIGN;
    if (used > geometry->data_size - geometry->data_size / 64 || behind > cleared ||
        vev_tail_index(tail) > geometry->max_records - geometry->max_records / 64)
        return false;
    /* It would clear in time, or look after the checkpoint. */
    if ((vev_tail_offset(tail) ^ behind) >= CHECKPOINT_ASKED ||
        leaves_little(ring, cleared, (uint32_t)behind))
        return false;
    /* Where another process has gone on to the next segment, this one has to follow. */
    volatile bool active = false;
    vev_guard guard;
    vev_guard_enter(&guard);
    if (sigsetjmp(guard.jump, 0) == 0) {
        active =
            atomic_load_explicit(&ring->live->active, memory_order_relaxed) >> 10 == generation;
        vev_guard_leave(&guard);
    }
    return active;
}

vev_status vev_ring_append(vev_ring *ring, const void *payload, size_t size, vev_entry *entry)
{
    if (size == 0 || entry->kind >= VEV_KIND_COUNT)
        return VEV_E_INVALID;
    if (ring->readonly)
        return VEV_E_READONLY;
    if (size > vev_ring_max_payload(ring))
        return VEV_E_TOO_BIG;
    if (atomic_load_explicit(&ring->degraded, memory_order_relaxed))
        return VEV_E_DEGRADED;

    if (!(entry->flags & VEV_APPEND_TIME))
        entry->wall_ns = vev_clock_wall_ns();
    job j = {.payload = payload,
             .header = {.wall_ns = entry->wall_ns,
                        .mono_ns = vev_clock_boot_ns(),
                        .boot = vev_clock_boot_tag(),
                        .raw_size = (uint32_t)size,
                        .kind = (uint8_t)entry->kind,
                        .id_given = (entry->flags & VEV_APPEND_ID) != 0,
                        .time_given = (entry->flags & VEV_APPEND_TIME) != 0},
             .dictionary_id = UINT64_MAX};
    memcpy(j.header.id, entry->id, VEV_ID_SIZE);
    if (!(entry->flags & VEV_APPEND_RAW) && ring->level != VEV_LEVEL_RAW)
        j.context = vev_pool_take(ring->pool, vev_zstd_bound(size));

    entry->seq = 0; /* until it is stored: tells a failed append from a failed sync */
    vev_status status;
    while ((status = vev_ring_on_current(ring, append_here, &j)) == VEV_E_FULL) {
        status = j.uncleared > 0 ? vev_ring_clear_for(ring, j.generation, j.segment, j.uncleared,
                                                      j.header.mono_ns)
                                 : VEV_E_FULL;
        if (status == VEV_E_FULL)
            status = vev_ring_roll(ring, j.generation);
        if (status)
            break;
    }
    if (j.context) {
        vev_pool_give(j.context);
        if (!status && j.header.seq % VEV_SAMPLE_EVERY == 0)
            vev_ring_take_sample(&ring->samples, payload, size);
    }
    if (status)
        return status;
    if (VEV_UNLIKELY(j.uncleared > 0))
        vev_ring_clear_in_time(ring, j.generation, j.segment, j.uncleared, j.header.mono_ns);
    if (VEV_UNLIKELY(j.checkpoint_far))
        vev_ring_keep_checkpoint(ring);
    if (!j.header.id_given)
        vev_record_make_id(ring->file.uuid, &j.header, entry->id);
    entry->seq = j.header.seq;
    status = entry->flags & VEV_APPEND_SYNC ? vev_ring_sync(ring, entry->seq) : VEV_OK;
    /* A negative status would say that nothing is stored. */
    return status == VEV_E_BUSY ? EBUSY : status < 0 ? EIO : status;
}
