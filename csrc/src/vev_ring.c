/* What every room needs of an open ring: contexts, cells, and the walk.
 *
 * There is no tail pointer. A writer walks the words of the active segment from where it last was
 * to the first free one and takes it by compare-and-swap; the word itself says how far the next
 * writer has to step. So the records are the only truth, a writer that dies leaves at most a
 * reserved word of known size, and nobody waits for it. When the segment has no room the writer
 * seals it with an end word and, under a lock that the system drops with its holder, activates the
 * next.
 *
 *     segment:  free --> spare --activate--> active --seal--> sealed --reclaim--> free
 *
 * INV-7  A writer announces the generation it writes to in a cell of its process before it looks at
 *        the segment's generation again, and a reclaimer marks the generation as reclaimed before
 *        it looks at the cells (both sequentially consistent): one of the two sees the other. A
 *        reclaimed segment that a cell still names is counted out, but its bytes are left alone.
 */
#include "vev_ring.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "vev_clock.h"
#include "vev_guard.h"

VEV_STATIC_ASSERT(ATOMIC_LLONG_LOCK_FREE == 2, "words are shared between processes without locks");

const uint32_t vev_ring_order[VEV_STREAM_COUNT] = {VEV_MEDIA, VEV_EVENTS, VEV_DELIVERY};

char *vev_ring_path(const char *dir, uint32_t stream, const char *suffix)
{
    static const char *const names[VEV_STREAM_COUNT] = {"events", "media", "delivery"};
    size_t size = strlen(dir) + strlen(names[stream]) + strlen(suffix) + 2;
    char *path = malloc(size);
    if (path)
        snprintf(path, size, "%s/%s%s", dir, names[stream], suffix);
    return path;
}

uint64_t vev_ring_max_payload(const vev_ring *ring)
{
    return ring->file.geometry.data_size - VEV_RECORD_HEADER - VEV_ID_SIZE - 2 * VEV_RECORD_ALIGN;
}

/* Where a thread was last among what threads take in turns: there it finds it again, in its own
 * cache. */
static _Thread_local uint32_t place;

/* ---- contexts ---- */

vev_context *vev_pool_take(vev_pool *pool, size_t scratch_size)
{
    for (uint32_t i = 0; i < VEV_CONTEXT_COUNT; i++) {
        vev_context *context = &pool->contexts[(place + i) % VEV_CONTEXT_COUNT];
        bool busy = false;
        if (!atomic_compare_exchange_strong_explicit(&context->busy, &busy, true,
                                                     memory_order_acquire, memory_order_relaxed))
            continue;
        if (!context->zctx)
            context->zctx = vev_zctx_create();
        if (context->scratch_size < scratch_size) {
            size_t rounded = (size_t)vev_align_up(scratch_size, 16384);
            uint8_t *grown = realloc(context->scratch, rounded);
            if (grown) {
                context->scratch = grown;
                context->scratch_size = rounded;
            }
        }
        if (context->zctx && context->scratch_size >= scratch_size) {
            place = (place + i) % VEV_CONTEXT_COUNT;
            return context;
        }
        vev_pool_give(context);
        return NULL;
    }
    return NULL;
}

void vev_pool_give(vev_context *context)
{
    atomic_store_explicit(&context->busy, false, memory_order_release);
}

/* ---- cells ---- */

_Atomic uint64_t *vev_ring_claim(vev_ring *ring, uint64_t generation)
{
    vev_cell *cells = ring->live->slots[ring->slot].cells;
    for (uint32_t turn = 0;; turn++) {
        for (uint32_t i = 0; i < VEV_CELL_COUNT; i++) {
            uint64_t none = 0;
            uint32_t at = (place + i) % VEV_CELL_COUNT;
            if (atomic_compare_exchange_strong(&cells[at].generation, &none, generation)) {
                place = at;
                return &cells[at].generation;
            }
        }
        vev_clock_pause(turn); /* more threads inside append than cells: each stays microseconds */
    }
}

void vev_ring_release(_Atomic uint64_t *cell)
{
    atomic_store_explicit(cell, 0, memory_order_release);
}

void vev_ring_release_guarded(_Atomic uint64_t *cell)
{
    if (!cell)
        return;
    vev_guard guard;
    vev_guard_enter(&guard);
    if (sigsetjmp(guard.jump, 0) == 0) {
        vev_ring_release(cell);
        vev_guard_leave(&guard);
    }
}

/* Hold the current span: it stays mapped and its bytes are not reused until the cell is released.
 * NULL when there is none. */
static vev_span *pin(vev_ring *ring, _Atomic uint64_t **cell_out)
{
    for (;;) {
        vev_span *span = atomic_load_explicit(&ring->current, memory_order_acquire);
        if (!span)
            return NULL;
        uint64_t generation = atomic_load_explicit(&span->generation, memory_order_acquire);
        if (generation == 0)
            continue; /* retired since; and a claim of 0 would take a cell without holding it */
        _Atomic uint64_t *cell = vev_ring_claim(ring, generation);
        /* Pairs with the stores in activate() and vev_ring_retire_spans(): if the span was
         * replaced before they could see our cell, we see the replacement here. */
        if (atomic_load(&ring->current) == span && atomic_load(&span->generation) == generation) {
            *cell_out = cell;
            return span;
        }
        vev_ring_release(cell);
    }
}

void vev_ring_degrade(vev_ring *ring, int error)
{
    int32_t none = 0;
    atomic_compare_exchange_strong(&ring->degraded, &none, error);
}

vev_status vev_ring_examine_file(vev_ring *ring, uint64_t *size_out)
{
    vev_file_facts facts;
    vev_status status = ring->io->examine(ring->io->ctx, ring->fd, &facts);
    if (!status && ring->identity != 0 && facts.identity != ring->identity)
        status = EBADF;
    else if (!status && facts.deleted && ring->named)
        status = ENOENT;
    if (status)
        vev_ring_degrade(ring, status);
    else
        *size_out = facts.size;
    return status;
}

vev_status vev_ring_check_descriptor(vev_ring *ring)
{
    uint64_t size;
    return vev_ring_examine_file(ring, &size) == EBADF ? EBADF : VEV_OK;
}

vev_status vev_ring_synced(vev_ring *ring, vev_status status)
{
    if (status)
        atomic_store(&ring->live->sync_error, (uint32_t)status);
    return status;
}

vev_status vev_ring_on_current(vev_ring *ring,
                               vev_status (*body)(vev_ring *ring, vev_span *span, void *argument),
                               void *argument)
{
    _Atomic uint64_t *volatile held = NULL;
    vev_guard guard;
    vev_guard_enter(&guard);
    if (sigsetjmp(guard.jump, 0) != 0) {
        vev_ring_degrade(ring, EIO);
        vev_ring_release_guarded(held);
        return EIO;
    }
    _Atomic uint64_t *cell;
    vev_span *span = pin(ring, &cell);
    vev_status status = EIO;
    if (span) {
        held = cell;
        status = body(ring, span, argument);
        vev_ring_release(cell);
    }
    vev_guard_leave(&guard);
    return status;
}

bool vev_ring_owner_alive(const vev_ring *ring, uint32_t owner)
{
    uint32_t slot = owner >> 24;
    if (slot >= VEV_SLOT_COUNT)
        return false;
    if (owner == ring->owner)
        return atomic_load(&ring->degraded) == 0;
    if ((atomic_load(&ring->live->slots[slot].epoch) & 0xffffffu) != (owner & 0xffffffu))
        return false;
    return ring->io->is_locked(ring->io->ctx, ring->fd, VEV_LOCK_SLOT + slot);
}

bool vev_ring_is_pinned(const vev_ring *ring, uint64_t first, uint64_t last)
{
    for (uint32_t slot = 0; slot < VEV_SLOT_COUNT; slot++) {
        for (int i = 0; i < VEV_CELL_COUNT; i++) {
            uint64_t generation = atomic_load(&ring->live->slots[slot].cells[i].generation);
            if (generation < first || generation > last || generation == 0)
                continue;
            if (slot == ring->slot ||
                ring->io->is_locked(ring->io->ctx, ring->fd, VEV_LOCK_SLOT + slot))
                return true;
        }
    }
    return false;
}

/* ---- the walk ---- */

vev_walk_end vev_ring_walk(const vev_ring *ring, const vev_span *span, uint64_t *tail)
{
    uint32_t data_size = ring->file.geometry.data_size;
    uint32_t offset = vev_tail_offset(*tail), index = vev_tail_index(*tail);
    for (;;) {
        if (offset > data_size - 8)
            return VEV_WALK_BROKEN;
        /* Acquire pairs with the release of a commit: whoever steps over a record may read it. */
        uint64_t word = atomic_load_explicit(vev_word_at(span, offset), memory_order_acquire);
        uint32_t size = vev_word_size(word);
        switch (vev_word_state(word)) {
        case VEV_WORD_FREE:
            *tail = vev_tail_make(index, offset);
            return word == 0 ? VEV_WALK_FREE : VEV_WALK_BROKEN;
        case VEV_WORD_END: *tail = vev_tail_make(index, offset); return VEV_WALK_END;
        case VEV_WORD_RESERVED: index += vev_word_count(word); break;
        default: index++;
        }
        if (size < VEV_RECORD_ALIGN || size > data_size - 8 - offset) {
            *tail = vev_tail_make(index, offset);
            return VEV_WALK_BROKEN;
        }
        offset += size;
    }
}

typedef struct tail_query {
    uint64_t generation;
    uint32_t index;
    bool known;
} tail_query;

static vev_status find_tail(vev_ring *ring, vev_span *span, void *argument)
{
    tail_query *query = argument;
    query->known = atomic_load(&span->generation) == query->generation;
    if (query->known) {
        uint64_t tail = atomic_load_explicit(&span->tail, memory_order_relaxed);
        (void)vev_ring_walk(ring, span, &tail);
        vev_ring_advance_tail(span, tail);
        query->index = vev_tail_index(tail);
    }
    return VEV_OK;
}

bool vev_ring_tail_index(vev_ring *ring, uint64_t generation, uint32_t *index_out)
{
    tail_query query = {.generation = generation};
    bool known = vev_ring_on_current(ring, find_tail, &query) == VEV_OK && query.known;
    if (known)
        *index_out = query.index;
    return known;
}
