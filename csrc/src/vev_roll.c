/* From a segment that is full to the next: seal, activate; and follow another process that did.
 *
 * INV-8  base_seq of a segment is base_seq + count of its predecessor, and the count is fixed by
 *        the end word before the successor exists: sequence numbers have no gaps and no doubles.
 */
#include "vev_roll.h"

#include <errno.h>
#include <string.h>

#include "vev_checkpoint.h"
#include "vev_clear.h"
#include "vev_clock.h"
#include "vev_crc32c.h"
#include "vev_dictionary.h"
#include "vev_guard.h"
#include "vev_reclaim.h"
#include "vev_span.h"

static uint64_t active_make(uint64_t generation, uint32_t segment)
{
    return generation << 10 | segment;
}

/* Make a mapped span with a head the current one. */
static void publish_span(vev_ring *ring, vev_span *span, const vev_head *head,
                         vev_dictionary *dictionary)
{
    const vev_geometry *geometry = &ring->file.geometry;
    span->lap.seed = vev_lap_seed(ring->file.uuid, head->generation, head->salt);
    span->lap.file_offset = vev_segment_offset(geometry, span->segment) + geometry->data_offset;
    span->lap.base_seq = head->base_seq;
    span->lap.max_records = geometry->max_records;
    span->dictionary = dictionary;
    atomic_store(&span->kinds, 0);
    atomic_store(&span->tail, vev_ring_begin_at(ring, span, head->generation));
    atomic_store(&span->generation, head->generation);
    atomic_store(&ring->current, span);
}

vev_status vev_ring_adopt(vev_ring *ring, uint64_t generation, uint32_t segment)
{
    vev_span *span;
    vev_status status = vev_ring_map_span(ring, segment, &span);
    if (status)
        return status;
    vev_head head;
    const vev_geometry *geometry = &ring->file.geometry;
    vev_dictionary *dictionary = NULL;
    if (!vev_head_read(span->base, ring->file.uuid, geometry, &head) ||
        head.generation != generation) {
        status = VEV_E_CORRUPT;
    } else if (head.dictionary_size > 0) {
        uint8_t bytes[VEV_DICTIONARY_MAX];
        memcpy(bytes, span->base + VEV_HEADER_BLOCK, head.dictionary_size);
        const vev_dictionary *own = ring->own_dictionary;
        bool good = vev_crc32c(0, bytes, head.dictionary_size) == head.dictionary_crc;
        if (!good && own && own->size == head.dictionary_size && own->crc == head.dictionary_crc) {
            /* Damaged, and we happen to have the same one. */
            memcpy(bytes, own->bytes, own->size);
            memcpy(span->base + VEV_HEADER_BLOCK, own->bytes, own->size);
            good = true;
        }
        /* With a broken one, go on without: those records say so (VEV_CODEC_ZSTD_PLAIN). */
        if (good)
            status = vev_ring_hold_dictionary(ring, bytes, head.dictionary_size, &dictionary);
        if (status == VEV_E_CORRUPT)
            status = VEV_OK;
    }
    if (status) {
        vev_ring_unmap_span(ring, span);
        return status;
    }
    uint32_t cleared;
    atomic_store(&span->cleared, vev_ring_read_cleared(ring, generation, &cleared) ? cleared : 0);
    publish_span(ring, span, &head, dictionary);
    return VEV_OK;
}

/* `before` is the span of the lap that was sealed for this one; NULL when there is none. */
static vev_status activate(vev_ring *ring, uint32_t segment, uint64_t generation, uint64_t base_seq,
                           const vev_span *before)
{
    uint64_t salt;
    vev_status status = vev_random_bytes(&salt, sizeof salt);
    vev_span *span;
    if (!status)
        status = vev_ring_map_span(ring, segment, &span);
    if (status)
        return status;
    vev_dictionary *dictionary = ring->next_dictionary, *own = ring->own_dictionary;
    if (!dictionary && own && vev_ring_hold_dictionary(ring, own->bytes, own->size, &dictionary))
        dictionary = NULL;
    ring->next_dictionary = NULL; /* now the span's */
    vev_head head = {.generation = generation,
                     .base_seq = base_seq,
                     .salt = salt,
                     .created_ns = vev_clock_wall_ns(),
                     .dictionary_size = dictionary ? dictionary->size : 0,
                     .dictionary_crc = dictionary ? dictionary->crc : 0};
    if (dictionary)
        memcpy(span->base + VEV_HEADER_BLOCK, dictionary->bytes, dictionary->size);
    vev_head_write(span->base, &ring->file, &head);
    uint32_t seed = vev_lap_seed(ring->file.uuid, generation, salt);
    atomic_store(vev_span_kinds(span), vev_kinds_word(seed, 0));
    if (before)
        vev_past_write(span->base, &ring->file, &head, before->base, before->segment);
    /* Whoever dies between these stores leaves a state that vev_ring_roll() or recovery finishes:
     * the spare is taken again, since it carries no generation but the next one. */
    atomic_store(&ring->live->tallies[segment], 0); /* of the lap before; INV-14 */
    atomic_store(&ring->live->generations[segment], generation);
    vev_ring_set_cleared(ring, span, generation,
                         VEV_MAX(atomic_load(&span->cleared), (uint32_t)VEV_CLEAR_MIN));
    atomic_store(&ring->live->active, active_make(generation, segment));
    atomic_store(&ring->live->spare, 0);
    publish_span(ring, span, &head, dictionary);
    return VEV_OK;
}

/* Put the end word behind the last record: the numbers of all that were appended are used, also of
 * those behind damage, or they would be given out again (INV-8). Returns how many records the
 * segment holds. */
static uint32_t seal(vev_ring *ring, vev_span *span)
{
    uint64_t generation = atomic_load(&span->generation);
    uint64_t tail = atomic_load(&span->tail);
    uint32_t count, offset;
    for (;;) {
        vev_walk_end end = vev_ring_walk(ring, span, &tail);
        if (end == VEV_WALK_BROKEN && vev_ring_step_over_damage(ring, span, &tail))
            continue;
        offset = vev_tail_offset(tail);
        count = VEV_MIN(vev_tail_index(tail), span->lap.max_records);
        if (end == VEV_WALK_FREE) {
            uint64_t free_word = 0;
            if (!atomic_compare_exchange_strong(vev_word_at(span, offset), &free_word,
                                                vev_end_word(&span->lap, offset, count)))
                continue;
        } else if (end == VEV_WALK_END) {
            /* Somebody sealed it and died before the next was active; the word has the count. */
            uint32_t sealed_count;
            if (vev_end_check(atomic_load(vev_word_at(span, offset)), &span->lap, offset,
                              &sealed_count))
                count = sealed_count;
        }
        break;
    }
    vev_ring_note_kinds(span, VEV_KINDS_ALL); /* INV-15 */
    vev_head_seal(span->base, ring->file.uuid, generation, count,
                  VEV_MIN(offset, ring->file.geometry.data_size));
    return count;
}

vev_status vev_ring_lock_roll(vev_ring *ring)
{
    pthread_mutex_lock(&ring->roll_mutex);
    vev_status status =
        vev_io_lock(ring->io, ring->fd, VEV_LOCK_ROLL, VEV_LOCK_EXCLUSIVE, VEV_ROLL_WAIT_MS);
    if (status)
        pthread_mutex_unlock(&ring->roll_mutex);
    return status;
}

void vev_ring_unlock_roll(vev_ring *ring)
{
    (void)ring->io->lock(ring->io->ctx, ring->fd, VEV_LOCK_ROLL, VEV_LOCK_NONE);
    pthread_mutex_unlock(&ring->roll_mutex);
}

uint32_t vev_ring_find_spare(vev_ring *ring)
{
    vev_live *live = ring->live;
    uint32_t spare = atomic_load(&live->spare);
    uint64_t next = (atomic_load(&live->active) >> 10) + 1;
    uint64_t there = spare > 0 && spare <= ring->file.geometry.segment_count
                         ? atomic_load(&live->generations[spare - 1])
                         : UINT64_MAX;
    if (there == 0 || there == next)
        return spare;
    atomic_store(&live->spare, 0);
    return 0;
}

/* `began_ns` is when the append came to know that it has to. */
static vev_status roll_locked(vev_ring *ring, uint64_t seen_generation, uint64_t began_ns)
{
    vev_live *live = ring->live;
    uint64_t active = atomic_load(&live->active);
    uint64_t generation = active >> 10;
    vev_span *span = atomic_load(&ring->current);
    if (generation != atomic_load(&span->generation))
        return vev_ring_adopt(ring, generation, (uint32_t)active & 1023u);
    if (generation != seen_generation)
        return VEV_OK;

    uint32_t spare = vev_ring_find_spare(ring), segment = spare - 1;
    if (spare == 0) {
        vev_status status = vev_ring_take_free(ring, true, &segment);
        if (status)
            return status;
        atomic_store(&live->spare, segment + 1);
    }
    uint32_t count = seal(ring, span);
    atomic_fetch_add(&ring->held_up_ns, vev_clock_ticks_ns() - began_ns);
    return activate(ring, segment, generation + 1, span->lap.base_seq + count, span);
}

vev_status vev_ring_roll(vev_ring *ring, uint64_t seen_generation)
{
    uint64_t began_ns = vev_clock_ticks_ns();
    atomic_fetch_add(&ring->waiting, 1);
    vev_status status = vev_ring_lock_roll(ring);
    if (!status) {
        vev_guard guard;
        vev_guard_enter(&guard);
        if (sigsetjmp(guard.jump, 0) == 0) {
            status = roll_locked(ring, seen_generation, began_ns);
            vev_guard_leave(&guard);
        } else {
            vev_ring_degrade(ring, EIO);
            status = EIO;
        }
        vev_ring_unlock_roll(ring);
    }
    atomic_fetch_sub(&ring->waiting, 1);
    return status;
}

vev_status vev_ring_begin_lap(vev_ring *ring, uint64_t generation, uint64_t base_seq)
{
    uint32_t segment;
    vev_status status = vev_ring_take_free(ring, true, &segment);
    return status ? status : activate(ring, segment, generation, base_seq, NULL);
}
