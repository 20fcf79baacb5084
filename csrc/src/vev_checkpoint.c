/* How far the newest lap is known to be good: who opens the file need not look at all of it.
 *
 * INV-13 A checkpoint is the place of a record before which there are only committed records and
 *        holes that recovery made, their states marked: never a word whose writer may be dead. That
 *        in the live area counts in one boot, whose processes all see the same pages. That in a
 *        segment's head is stored after a sync that covered the record and all before it, and after
 *        a sync that failed there is none any more. Nobody believes one whose record does not check
 *        (INV-4).
 */
#include "vev_checkpoint.h"

uint32_t vev__checkpoint_step = 65536;

uint32_t vev_ring_checkpoint(const vev_ring *ring, uint64_t generation)
{
    uint32_t offset;
    return vev_ring_read_place(ring, &ring->live->checkpoint, generation, &offset) ? offset : 0;
}

void vev_ring_set_checkpoint(vev_ring *ring, uint64_t generation, uint32_t offset)
{
    atomic_store(&ring->live->checkpoint, vev_place_make(generation, offset));
}

/* Not over one of a later lap, to which another process has gone on meanwhile. */
static void raise_checkpoint(const vev_ring *ring, uint64_t generation, uint32_t offset)
{
    _Atomic uint64_t *word = &ring->live->checkpoint;
    uint64_t there = atomic_load(word), raised = vev_place_make(generation, offset);
    while ((int64_t)(raised - there) > 0 && !atomic_compare_exchange_weak(word, &there, raised)) {
    }
}

static _Atomic uint64_t *head_checkpoint(const vev_span *span)
{
    return (_Atomic uint64_t *)(void *)(span->base + VEV_HEAD_CHECKPOINT);
}

static uint32_t synced_checkpoint(const vev_ring *ring, const vev_span *span)
{
    return vev_checkpoint_offset(atomic_load(head_checkpoint(span)), span->lap.seed,
                                 ring->file.geometry.data_size);
}

bool vev_ring_step_over_damage(const vev_ring *ring, const vev_span *span, uint64_t *tail)
{
    uint32_t data_size = ring->file.geometry.data_size, index = vev_tail_index(*tail);
    uint32_t next = vev_record_resync(span->data, data_size, data_size, &span->lap,
                                      vev_tail_offset(*tail), index);
    vev_header header;
    if (next == data_size)
        return false;
    if (!vev_end_check(vev_load64(span->data + next), &span->lap, next, &index) &&
        vev_record_check(span->data + next, data_size - next, data_size, &span->lap, next, &header))
        index = (uint32_t)(header.seq - span->lap.base_seq);
    *tail = vev_tail_make(index, next);
    return true;
}

uint64_t vev_ring_begin_at(const vev_ring *ring, const vev_span *span, uint64_t generation)
{
    uint32_t data_size = ring->file.geometry.data_size;
    uint32_t live = vev_ring_checkpoint(ring, generation), synced = synced_checkpoint(ring, span);
    uint32_t at = VEV_MAX(live, synced);
    vev_header header;
    if (at > 0 &&
        vev_record_check(span->data + at, data_size - at, data_size, &span->lap, at, &header))
        return vev_tail_make(header.seq - span->lap.base_seq, at);
    uint64_t tail = vev_tail_make(0, live);
    return live > 0 && vev_ring_step_over_damage(ring, span, &tail) ? tail : 0;
}

void vev_ring_walk_committed(vev_ring *ring, vev_span *span, uint32_t steps)
{
    uint64_t generation = atomic_load(&span->generation);
    if (ring->walk_generation != generation) {
        uint64_t tail = vev_ring_begin_at(ring, span, generation);
        ring->walk_generation = generation;
        ring->walk_index = vev_tail_index(tail);
        ring->walk_offset = ring->walk_checkpoint = vev_tail_offset(tail);
        ring->walked_dead = false;
        ring->synced_offset = 0;
    }
    uint32_t data_size = ring->file.geometry.data_size, asked = 0;
    /* Not the lines that are being written to. */
    uint32_t end = vev_tail_offset(atomic_load_explicit(&span->tail, memory_order_relaxed));
    for (; steps > 0 && ring->walk_offset <= data_size - 8; steps--) {
        vev_record_prefetch(span->data, ring->walk_offset, end, &asked);
        uint64_t word =
            atomic_load_explicit(vev_word_at(span, ring->walk_offset), memory_order_acquire);
        uint32_t state = vev_word_state(word), size = vev_word_size(word);
        if ((state != VEV_WORD_RESERVED && state != VEV_WORD_COMMITTED) || size < 8 ||
            size > data_size - 8 - ring->walk_offset)
            return;
        if (state == VEV_WORD_RESERVED && vev_ring_owner_alive(ring, vev_word_high(word)))
            return;
        if (state == VEV_WORD_RESERVED && !vev_word_is_hole(word))
            ring->walked_dead = true;
        if (state == VEV_WORD_COMMITTED && !ring->walked_dead)
            ring->walk_checkpoint = ring->walk_offset;
        ring->walk_index += state == VEV_WORD_RESERVED ? vev_word_count(word) : 1;
        ring->walk_offset += size;
    }
}

void vev_ring_move_checkpoint(vev_ring *ring)
{
    uint32_t at = vev_ring_checkpoint(ring, ring->walk_generation);
    if (ring->walk_checkpoint > at && ring->walk_checkpoint - at >= vev__checkpoint_step)
        raise_checkpoint(ring, ring->walk_generation, ring->walk_checkpoint);
}

void vev_ring_move_synced_checkpoint(vev_ring *ring, vev_span *span)
{
    uint32_t at = synced_checkpoint(ring, span);
    if (ring->walk_checkpoint > at &&
        ring->walk_checkpoint - at >= vev__checkpoint_step * VEV_CHECKPOINT_SYNCED &&
        atomic_load(&ring->live->sync_error) == 0)
        atomic_store(head_checkpoint(span),
                     vev_checkpoint_word(span->lap.seed, ring->walk_checkpoint));
}

static vev_status follow_writers(vev_ring *ring, vev_span *span, void *argument)
{
    enum { STEPS = 4096 }; /* more than come between two looks, and less than a millisecond */
    (void)argument;
    vev_ring_walk_committed(ring, span, STEPS);
    vev_ring_move_checkpoint(ring);
    return VEV_OK;
}

void vev_ring_keep_checkpoint(vev_ring *ring)
{
    if (pthread_mutex_trylock(&ring->sync_mutex) != 0)
        return;
    vev_status ignored = vev_ring_on_current(ring, follow_writers, NULL);
    (void)ignored;
    pthread_mutex_unlock(&ring->sync_mutex);
}
