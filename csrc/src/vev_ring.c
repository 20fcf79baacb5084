/* Appending: reserve, commit, seal, roll, reclaim, sync.
 *
 * There is no tail pointer. A writer walks the words of the active segment from where it last was to
 * the first free one and takes it by compare-and-swap; the word itself says how far the next writer
 * has to step. So the records are the only truth, a writer that dies leaves at most a reserved word
 * of known size, and nobody waits for it. When the segment has no room the writer seals it with an
 * end word and, under a lock that the system drops with its holder, activates the next.
 *
 *     segment:  free --clear the front--> spare --activate--> active --seal--> sealed --reclaim--> free
 *
 * INV-7  A writer announces the generation it writes to in a cell of its process before it looks at
 *        the segment's generation again, and a reclaimer marks the generation as reclaimed before it
 *        looks at the cells (both sequentially consistent): one of the two sees the other. A
 *        reclaimed segment that a cell still names is counted out, but its bytes are left alone.
 * INV-8  base_seq of a segment is base_seq + count of its predecessor, and the count is fixed by the
 *        end word before the successor exists: sequence numbers have no gaps and no doubles.
 * INV-9  durable_seq moves only after a sync that returned success and covered every record up to
 *        it; after one failed sync it does not move again until the log is opened anew.
 * INV-10 A segment is cleared as it is written: `cleared` in the live area, which names the
 *        generation, says up to where zeros have been put over what an earlier lap left. It is moved
 *        only by who holds the segment's clear lock, after the zeros were written, and a place is
 *        taken only if the word behind it lies before that mark. So whoever follows the words meets
 *        none of an earlier lap, and nothing is ever cleared that somebody has taken. Who clears holds
 *        a cell as well (INV-7), so that one who is stopped amid it never clears a later lap.
 * INV-13 A checkpoint is the place of a record before which there are only committed records and holes
 *        that recovery made, their states marked: never a word whose writer may be dead. That in the
 *        live area counts in one boot, whose processes all see the same pages. That in a segment's
 *        head is stored after a sync that covered the record and all before it, and after a sync
 *        that failed there is none any more. Nobody believes one whose record does not check (INV-4).
 */
#include "vev_ring.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "vev_clock.h"
#include "vev_crc32c.h"
#include "vev_guard.h"

VEV_STATIC_ASSERT(ATOMIC_LLONG_LOCK_FREE == 2, "words are shared between processes without locks");

/* Bytes whose page faults are taken ahead, at least, and for how long they are to do at most. A page
 * that is touched is dirty and may be written to the disk before anything stands in it, so a slow log
 * must not run far ahead. */
enum { TOUCH_AHEAD_MIN = 4096, AHEAD_NS = 160 * 1000 * 1000 };
/* The next segment is made ready when the current one is half full, or would be full so soon at the
 * present speed. Records that are pending are evicted for it when it is half full and no sooner: how
 * long a ring of a given size lasts does not depend on speed, but for what comes in the time that a busy
 * disk takes to sync a page, of which a ring keeps free at most one part in so many. */
enum { READY_NS = 640 * 1000 * 1000, SYNC_NS = 32 * 1000 * 1000, FREE_PART = 4 };

static _Atomic uint64_t *word_at(const vev_span *span, uint32_t offset)
{
    return (_Atomic uint64_t *)(void *)(span->data + offset);
}

static uint64_t tail_make(uint64_t index, uint32_t offset) { return index << 32 | offset / 8; }
static uint32_t tail_offset(uint64_t tail) { return (uint32_t)tail * 8u; }
static uint32_t tail_index(uint64_t tail) { return (uint32_t)(tail >> 32); }

static uint64_t active_make(uint64_t generation, uint32_t segment)
{
    return generation << 10 | segment;
}

uint64_t vev_ring_max_payload(const vev_ring *ring)
{
    return ring->file.geometry.data_size - VEV_RECORD_HEADER - VEV_ID_SIZE - 2 * VEV_RECORD_ALIGN;
}

/* Where a thread was last among what threads take in turns: there it finds it again, in its own cache. */
static _Thread_local uint32_t place;

/* ---- contexts ---- */

/* NULL when every context is in use or memory is short: the record is then stored as it is. */
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

/* ---- dictionaries ---- */

static vev_status digest(vev_ring *ring, const void *bytes, uint32_t size, uint32_t crc,
                         vev_dictionary **out)
{
    static _Atomic uint64_t last_id;
    vev_dictionary *dictionary = malloc(sizeof *dictionary + size);
    if (!dictionary)
        return VEV_E_NOMEM;
    dictionary->refs = 1;
    dictionary->crc = crc;
    dictionary->size = size;
    dictionary->id = atomic_fetch_add(&last_id, 1) + 1;
    memcpy(dictionary->bytes, bytes, size);
    vev_status status = vev_zdict_create(
        bytes, size, ring->level == VEV_LEVEL_RAW ? 1 : ring->level, &dictionary->digested);
    if (status)
        free(dictionary);
    else
        *out = dictionary;
    return status;
}

vev_status vev_ring_hold_dictionary(vev_ring *ring, const void *bytes, uint32_t size,
                                    vev_dictionary **out)
{
    vev_status status = VEV_OK;
    uint32_t crc = vev_crc32c(0, bytes, size);
    pthread_mutex_lock(&ring->dictionary_mutex);
    vev_dictionary *dictionary = ring->dictionaries;
    while (dictionary && (dictionary->crc != crc || dictionary->size != size ||
                          memcmp(dictionary->bytes, bytes, size) != 0))
        dictionary = dictionary->next;
    if (dictionary) {
        dictionary->refs++;
    } else if ((status = digest(ring, bytes, size, crc, &dictionary)) == VEV_OK) {
        dictionary->next = ring->dictionaries;
        ring->dictionaries = dictionary;
    }
    pthread_mutex_unlock(&ring->dictionary_mutex);
    *out = dictionary;
    return status;
}

void vev_ring_drop_dictionary(vev_ring *ring, vev_dictionary *dictionary)
{
    if (!dictionary)
        return;
    pthread_mutex_lock(&ring->dictionary_mutex);
    bool unused = --dictionary->refs == 0;
    if (unused) {
        vev_dictionary **at = &ring->dictionaries;
        while (*at != dictionary)
            at = &(*at)->next;
        *at = dictionary->next;
    }
    pthread_mutex_unlock(&ring->dictionary_mutex);
    if (unused) {
        vev_zdict_free(dictionary->digested);
        free(dictionary);
    }
}

/* Keep a payload as a sample, of a long one the beginning, unless somebody is just doing so. */
static void take_sample(vev_samples *samples, const void *payload, size_t size)
{
    if (atomic_exchange_explicit(&samples->busy, true, memory_order_acquire))
        return;
    size = VEV_MIN(size, (size_t)VEV_SAMPLE_SIZE);
    uint32_t at = samples->next++ % VEV_SAMPLE_COUNT;
    memcpy(samples->bytes[at], payload, size);
    samples->sizes[at] = (uint16_t)size;
    atomic_store_explicit(&samples->busy, false, memory_order_release);
}

/* Make the dictionary for the next segment: the given one with the samples behind it, where matches
 * are cheapest. Without samples or memory, the given one alone. */
static void prepare_dictionary(vev_ring *ring)
{
    vev_ring_drop_dictionary(ring, ring->next_dictionary);
    ring->next_dictionary = NULL;
    vev_samples *samples = &ring->samples;
    const vev_dictionary *own = ring->own_dictionary;
    if (!own || atomic_exchange_explicit(&samples->busy, true, memory_order_acquire))
        return;
    uint8_t bytes[VEV_DICTIONARY_MAX];
    uint32_t size = own->size;
    memcpy(bytes, own->bytes, size);
    for (uint32_t i = 0; i < VEV_SAMPLE_COUNT; i++) {
        uint32_t at = (samples->next + i) % VEV_SAMPLE_COUNT; /* the newest comes last */
        if (samples->sizes[at] > ring->file.geometry.dictionary_capacity - size)
            continue;
        memcpy(bytes + size, samples->bytes[at], samples->sizes[at]);
        size += samples->sizes[at];
    }
    atomic_store_explicit(&samples->busy, false, memory_order_release);
    if (size > own->size && vev_ring_hold_dictionary(ring, bytes, size, &ring->next_dictionary))
        ring->next_dictionary = NULL;
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

vev_status vev_ring_synced(vev_ring *ring, vev_status status)
{
    if (status)
        atomic_store(&ring->live->sync_error, (uint32_t)status);
    return status;
}

/* Run `body` on the current span, held and guarded. EIO when a page under it is gone, after which
 * the ring is degraded, or when there is no span because it is. */
static vev_status on_current(vev_ring *ring,
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

/* ---- spans ---- */

static void touch(const vev_ring *ring, void *start, size_t size)
{
    ring->io->touch(ring->io->ctx, start, size);
}

static void unmap_span(vev_ring *ring, vev_span *span)
{
    vev_guard_forget(span->base);
    ring->io->unmap(ring->io->ctx, span->base, ring->file.geometry.segment_size);
    span->base = span->data = NULL;
}

void vev_ring_retire_spans(vev_ring *ring)
{
    vev_span *current = atomic_load(&ring->current);
    for (int s = 0; s < VEV_SPAN_COUNT; s++) {
        vev_span *span = &ring->spans[s];
        uint64_t generation = atomic_load(&span->generation);
        if (span == current || generation == 0)
            continue;
        bool used = false;
        for (int i = 0; i < VEV_CELL_COUNT; i++)
            used |= atomic_load(&ring->live->slots[ring->slot].cells[i].generation) == generation;
        if (used)
            continue;
        atomic_store(&span->generation, 0);
        unmap_span(ring, span);
        vev_ring_drop_dictionary(ring, span->dictionary);
        span->dictionary = NULL;
    }
}

/* VEV_E_BUSY when all spans are in use. */
static vev_status try_map_span(vev_ring *ring, uint32_t segment, vev_span **span_out)
{
    const vev_geometry *geometry = &ring->file.geometry;
    vev_ring_retire_spans(ring);
    for (int s = 0; s < VEV_SPAN_COUNT; s++) {
        vev_span *span = &ring->spans[s];
        if (atomic_load(&span->generation) != 0 || span->base)
            continue;
        vev_status status =
            ring->io->map(ring->io->ctx, ring->fd, vev_segment_offset(geometry, segment),
                          geometry->segment_size, true, &span->base);
        if (status) {
            span->base = NULL;
            return status;
        }
        vev_guard_remember(span->base, geometry->segment_size);
        span->segment = segment;
        span->data = span->base + geometry->data_offset;
        atomic_store(&span->touched, 0);
        atomic_store(&span->cleared, 0);
        *span_out = span;
        return VEV_OK;
    }
    return VEV_E_BUSY;
}

/* Take the span that was mapped ahead, if it is of this segment; give it back if not. */
static vev_span *take_ready(vev_ring *ring, uint32_t segment)
{
    vev_span *span = ring->ready;
    ring->ready = NULL;
    atomic_store(&ring->ready_for, 0);
    if (span && span->segment != segment) {
        unmap_span(ring, span);
        span = NULL;
    }
    /* Another process may have written a lap to it meanwhile. */
    if (span && atomic_load(&ring->live->active) >> 10 != ring->ready_after)
        atomic_store(&span->cleared, 0);
    return span;
}

static vev_status map_span(vev_ring *ring, uint32_t segment, vev_span **span_out)
{
    *span_out = take_ready(ring, segment);
    vev_status status = *span_out ? VEV_OK : VEV_E_BUSY;
    for (uint32_t turn = 0; status == VEV_E_BUSY; turn++) {
        status = try_map_span(ring, segment, span_out);
        if (status == VEV_E_BUSY)
            vev_clock_pause(turn);
    }
    return status;
}

/* ---- clearing ---- */

enum { PLACE_BITS = 24 };
VEV_STATIC_ASSERT(VEV_SEGMENT_SIZE_MAX / 8 <= 1u << PLACE_BITS, "every offset can be said");

/* False when the place is in another lap: whoever was going on to that one died. */
static bool read_place(const vev_ring *ring, const _Atomic uint64_t *word, uint64_t generation,
                       uint32_t *offset_out)
{
    uint64_t there = atomic_load(word);
    uint32_t offset = (uint32_t)(there & ((1u << PLACE_BITS) - 1)) * 8u;
    *offset_out = VEV_MIN(offset, ring->file.geometry.data_size);
    return there >> PLACE_BITS == (generation & UINT64_MAX >> PLACE_BITS);
}

static bool read_cleared(const vev_ring *ring, uint64_t generation, uint32_t *offset_out)
{
    return read_place(ring, &ring->live->cleared, generation, offset_out);
}

static uint64_t place_make(uint64_t generation, uint32_t offset)
{
    return generation << PLACE_BITS | offset / 8;
}

void vev_ring_set_cleared(vev_ring *ring, vev_span *span, uint64_t generation, uint32_t offset)
{
    atomic_store(&ring->live->cleared, place_make(generation, offset));
    atomic_store_explicit(&span->cleared, offset, memory_order_release);
}

uint32_t vev_ring_page_end(const vev_geometry *geometry, uint32_t offset)
{
    uint64_t end = vev_align_up((uint64_t)geometry->data_offset + offset, vev_io_granule());
    return (uint32_t)VEV_MIN(end - geometry->data_offset, (uint64_t)geometry->data_size);
}

/* Write zeros, but not behind the end of a file that somebody cut short: it would have its size again, and
 * seem to be whole. */
static vev_status wipe(const vev_ring *ring, uint64_t offset, uint64_t size)
{
    uint64_t file_size;
    vev_status status = ring->io->size(ring->io->ctx, ring->fd, &file_size);
    if (!status && file_size < offset + size)
        status = EIO;
    return status ? status : vev_io_wipe(ring->io, ring->fd, offset, size);
}

static vev_status wipe_data(const vev_ring *ring, uint32_t segment, uint32_t from, uint32_t to)
{
    const vev_geometry *geometry = &ring->file.geometry;
    uint64_t at = vev_segment_offset(geometry, segment) + geometry->data_offset;
    return to > from ? wipe(ring, at + from, to - from) : VEV_OK;
}

/* What a lap needs before it can begin: no old head, dictionary or states, and some room. */
static vev_status clear_front(const vev_ring *ring, uint32_t segment)
{
    const vev_geometry *geometry = &ring->file.geometry;
    uint64_t at = vev_segment_offset(geometry, segment);
    return wipe(ring, at, geometry->data_offset + vev_ring_page_end(geometry, VEV_CLEAR_MIN));
}

/* How much is cleared at a time, while others go on in what is cleared already; and how much of that is to
 * be left when an append that finds no more clears the next of it. */
enum { CLEAR_STEP = 256 * 1024, CLEAR_LEFT = 128 * 1024, CLEAR_WAIT_MS = 100 };

/* The next step from `cleared` to `wanted`; the last one is not small, which would cost as much. */
static uint32_t step_to(uint32_t cleared, uint32_t wanted)
{
    return wanted - cleared < 2 * CLEAR_STEP ? wanted : cleared + CLEAR_STEP;
}

typedef struct clearing {
    uint64_t generation;
    uint32_t wanted;
    uint32_t wait_ms; /* for who is clearing just now */
    bool warm;        /* take the page faults as well */
} clearing;

/* With the clear lock of the segment. */
static vev_status clear_span(vev_ring *ring, vev_span *span, void *argument)
{
    const clearing *c = argument;
    if (atomic_load(&span->generation) != c->generation)
        return VEV_OK; /* not asked for any more */
    if (atomic_load(&ring->live->generations[span->segment]) != c->generation)
        return VEV_E_FULL; /* another process is a lap ahead (INV-7) */
    uint64_t mark = atomic_load(&ring->live->cleared);
    uint32_t from;
    if (!read_cleared(ring, c->generation, &from))
        return VEV_E_FULL;
    uint32_t to = VEV_MAX(vev_ring_page_end(&ring->file.geometry, c->wanted), from);
    vev_status status = wipe_data(ring, span->segment, from, to);
    if (status) {
        /* Once for a lap: the helper, and appends that clear in time, meet the same place again. */
        if (atomic_exchange(&ring->failed_lap, c->generation) != c->generation)
            atomic_fetch_add(&ring->failed_clears, 1);
        return status;
    }
    atomic_store(&ring->failed_lap, 0);
    atomic_store(&ring->failed_clears, 0);
    /* Fails when others went on to the next segment meanwhile: the mark is of that one then. */
    if (!atomic_compare_exchange_strong(&ring->live->cleared, &mark, place_make(c->generation, to)))
        return VEV_E_FULL;
    if (c->warm && to > from) {
        touch(ring, span->data + from, to - from);
        if (atomic_load(&span->touched) >= from)
            atomic_store(&span->touched, to);
    }
    atomic_store_explicit(&span->cleared, to, memory_order_release);
    return VEV_OK;
}

/* Have the active segment cleared as far as is said (INV-10). VEV_E_FULL: it is not the active one any
 * more, or who is clearing it does not get on: go on in another one. With clear_mutex, which is given
 * up. */
static vev_status clear_up_to(vev_ring *ring, uint32_t segment, clearing *c)
{
    const vev_span *current = atomic_load(&ring->current);
    if (!current || atomic_load(&current->generation) != c->generation) {
        pthread_mutex_unlock(&ring->clear_mutex); /* another thread waited and went on */
        return VEV_OK;
    }
    vev_status status =
        vev_io_lock(ring->io, ring->fd, VEV_LOCK_CLEAR + segment, VEV_LOCK_EXCLUSIVE, c->wait_ms);
    if (!status) {
        status = on_current(ring, clear_span, c);
        (void)ring->io->lock(ring->io->ctx, ring->fd, VEV_LOCK_CLEAR + segment, VEV_LOCK_NONE);
    }
    pthread_mutex_unlock(&ring->clear_mutex);
    return status == VEV_E_BUSY ? VEV_E_FULL : status;
}

/* ---- checkpoints ---- */

uint32_t vev__checkpoint_step = 65536;

uint32_t vev_ring_checkpoint(const vev_ring *ring, uint64_t generation)
{
    uint32_t offset;
    return read_place(ring, &ring->live->checkpoint, generation, &offset) ? offset : 0;
}

void vev_ring_set_checkpoint(vev_ring *ring, uint64_t generation, uint32_t offset)
{
    atomic_store(&ring->live->checkpoint, place_make(generation, offset));
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

/* Bring a tail that stands at damage to the next good record or end. False when there is none. */
static bool step_over_damage(const vev_ring *ring, const vev_span *span, uint64_t *tail)
{
    uint32_t data_size = ring->file.geometry.data_size, index = tail_index(*tail);
    uint32_t next =
        vev_record_resync(span->data, data_size, data_size, &span->lap, tail_offset(*tail), index);
    vev_header header;
    if (next == data_size)
        return false;
    if (!vev_end_check(vev_load64(span->data + next), &span->lap, next, &index) &&
        vev_record_check(span->data + next, data_size - next, data_size, &span->lap, next, &header))
        index = (uint32_t)(header.seq - span->lap.base_seq);
    *tail = tail_make(index, next);
    return true;
}

/* The tail with which to begin in a lap: at a checkpoint, or at the first record (INV-13). Where the record
 * of the live one is damaged, at the next: in front there may be more that recovery, which began there, did
 * not mend, and bytes that look free. */
static uint64_t begin_at(const vev_ring *ring, const vev_span *span, uint64_t generation)
{
    uint32_t data_size = ring->file.geometry.data_size;
    uint32_t live = vev_ring_checkpoint(ring, generation), synced = synced_checkpoint(ring, span);
    uint32_t at = VEV_MAX(live, synced);
    vev_header header;
    if (at > 0 &&
        vev_record_check(span->data + at, data_size - at, data_size, &span->lap, at, &header))
        return tail_make(header.seq - span->lap.base_seq, at);
    uint64_t tail = tail_make(0, live);
    return live > 0 && step_over_damage(ring, span, &tail) ? tail : 0;
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
    atomic_store(&span->tail, begin_at(ring, span, head->generation));
    atomic_store(&span->generation, head->generation);
    atomic_store(&ring->current, span);
}

vev_status vev_ring_adopt(vev_ring *ring, uint64_t generation, uint32_t segment)
{
    vev_span *span;
    vev_status status = map_span(ring, segment, &span);
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
        unmap_span(ring, span);
        return status;
    }
    uint32_t cleared;
    atomic_store(&span->cleared, read_cleared(ring, generation, &cleared) ? cleared : 0);
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
        status = map_span(ring, segment, &span);
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
    if (before)
        vev_past_write(span->base, &ring->file, &head, before->base, before->segment);
    /* Whoever dies between these stores leaves a state that roll() or recovery finishes: the spare
     * is taken again, since it carries no generation but the next one. */
    atomic_store(&ring->live->tallies[segment], 0); /* of the lap before; INV-14 */
    atomic_store(&ring->live->generations[segment], generation);
    vev_ring_set_cleared(ring, span, generation,
                         VEV_MAX(atomic_load(&span->cleared), (uint32_t)VEV_CLEAR_MIN));
    atomic_store(&ring->live->active, active_make(generation, segment));
    atomic_store(&ring->live->spare, 0);
    publish_span(ring, span, &head, dictionary);
    return VEV_OK;
}

/* ---- the walk ---- */

typedef enum { WALK_FREE, WALK_END, WALK_BROKEN } walk_end;

/* Step from `tail` to the first word that is no record. */
static walk_end walk(const vev_ring *ring, const vev_span *span, uint64_t *tail)
{
    uint32_t data_size = ring->file.geometry.data_size;
    uint32_t offset = tail_offset(*tail), index = tail_index(*tail);
    for (;;) {
        if (offset > data_size - 8)
            return WALK_BROKEN;
        /* Acquire pairs with the release of a commit: whoever steps over a record may read it. */
        uint64_t word = atomic_load_explicit(word_at(span, offset), memory_order_acquire);
        uint32_t size = vev_word_size(word);
        switch (vev_word_state(word)) {
        case VEV_WORD_FREE:
            *tail = tail_make(index, offset);
            return word == 0 ? WALK_FREE : WALK_BROKEN;
        case VEV_WORD_END: *tail = tail_make(index, offset); return WALK_END;
        case VEV_WORD_RESERVED: index += vev_word_count(word); break;
        default: index++;
        }
        if (size < VEV_RECORD_ALIGN || size > data_size - 8 - offset) {
            *tail = tail_make(index, offset);
            return WALK_BROKEN;
        }
        offset += size;
    }
}

static void advance_tail(vev_span *span, uint64_t tail)
{
    uint64_t seen = atomic_load_explicit(&span->tail, memory_order_relaxed);
    while ((uint32_t)seen < (uint32_t)tail &&
           !atomic_compare_exchange_weak_explicit(&span->tail, &seen, tail, memory_order_relaxed,
                                                  memory_order_relaxed)) {
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
        (void)walk(ring, span, &tail);
        advance_tail(span, tail);
        query->index = tail_index(tail);
    }
    return VEV_OK;
}

bool vev_ring_tail_index(vev_ring *ring, uint64_t generation, uint32_t *index_out)
{
    tail_query query = {.generation = generation};
    bool known = on_current(ring, find_tail, &query) == VEV_OK && query.known;
    if (known)
        *index_out = query.index;
    return known;
}

/* Whether the segment is cleared up to `end` (INV-10), by this process or another one. */
static bool is_cleared(const vev_ring *ring, vev_span *span, uint32_t end)
{
    if (VEV_LIKELY(end <= atomic_load_explicit(&span->cleared, memory_order_acquire)))
        return true;
    uint32_t cleared;
    if (!read_cleared(ring, atomic_load(&span->generation), &cleared) || end > cleared)
        return false;
    atomic_store_explicit(&span->cleared, cleared, memory_order_release);
    return true;
}

/* Take `size` bytes at the tail. False when the segment has no room or is sealed, or is to be cleared up
 * to `*uncleared_out` first. */
static bool reserve(vev_ring *ring, vev_span *span, uint32_t size, uint32_t *offset_out,
                    uint32_t *index_out, uint32_t *uncleared_out)
{
    const vev_geometry *geometry = &ring->file.geometry;
    uint64_t taken = vev_word_sized(VEV_WORD_RESERVED, size, ring->owner);
    uint64_t tail = atomic_load_explicit(&span->tail, memory_order_relaxed);
    for (;;) {
        uint32_t offset = tail_offset(tail), index = tail_index(tail);
        if (size > geometry->data_size - 8 - offset || index >= geometry->max_records)
            return false;
        uint32_t behind = offset + size + VEV_RECORD_ALIGN;
        if (!is_cleared(ring, span, behind)) {
            *uncleared_out = behind;
            return false;
        }
        /* Without looking first: it is free most of the time, and a line that is only read would have
         * to come twice from the core that wrote it. */
        uint64_t free_word = 0;
        if (atomic_compare_exchange_strong_explicit(word_at(span, offset), &free_word, taken,
                                                    memory_order_acq_rel, memory_order_acquire)) {
            advance_tail(span, tail_make(index + 1ull, offset + size));
            *offset_out = offset;
            *index_out = index;
            return true;
        }
        if (walk(ring, span, &tail) != WALK_FREE)
            return false;
    }
}

/* Walk on over what is committed for good, a number of steps at most: records, and holes whose writers
 * are dead. */
static void walk_committed(vev_ring *ring, vev_span *span, uint32_t steps)
{
    uint64_t generation = atomic_load(&span->generation);
    if (ring->walk_generation != generation) {
        uint64_t tail = begin_at(ring, span, generation);
        ring->walk_generation = generation;
        ring->walk_index = tail_index(tail);
        ring->walk_offset = ring->walk_checkpoint = tail_offset(tail);
        ring->walked_dead = false;
        ring->synced_offset = 0;
    }
    uint32_t data_size = ring->file.geometry.data_size;
    for (; steps > 0 && ring->walk_offset <= data_size - 8; steps--) {
        uint64_t word =
            atomic_load_explicit(word_at(span, ring->walk_offset), memory_order_acquire);
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

/* Tell of where the walk came to, if that is far enough from where the checkpoint is. */
static void move_checkpoint(vev_ring *ring)
{
    uint32_t at = vev_ring_checkpoint(ring, ring->walk_generation);
    if (ring->walk_checkpoint > at && ring->walk_checkpoint - at >= vev__checkpoint_step)
        vev_ring_set_checkpoint(ring, ring->walk_generation, ring->walk_checkpoint);
}

/* Likewise on the disk, after a sync that covered all that was walked over. Not synced itself: it is there
 * when the page is written the next time, or an earlier one is. */
static void move_synced_checkpoint(vev_ring *ring, vev_span *span)
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
    walk_committed(ring, span, STEPS);
    move_checkpoint(ring);
    return VEV_OK;
}

/* Who opens the file next, be it that all others died, need not look at what was committed by now. What is
 * walked over here the next sync need not walk over again; while one runs it is left to that. */
static void keep_checkpoint(vev_ring *ring)
{
    if (pthread_mutex_trylock(&ring->sync_mutex) != 0)
        return;
    vev_status ignored = on_current(ring, follow_writers, NULL);
    (void)ignored;
    pthread_mutex_unlock(&ring->sync_mutex);
}

/* ---- roll and reclaim ---- */

/* Count the pending records among the bytes of a segment by kind. Returns how many it found. */
static uint64_t count_kinds_in(const vev_ring *ring, const vev_listed *listed, const uint8_t *data,
                               uint64_t pending, uint64_t kinds[VEV_KIND_COUNT])
{
    const vev_geometry *geometry = &ring->file.geometry;
    uint32_t seed = vev_lap_seed(ring->file.uuid, listed->head.generation, listed->head.salt);
    uint64_t found = 0;
    uint32_t offset = 0;
    while (offset <= geometry->data_size - VEV_RECORD_HEADER && found < pending) {
        uint64_t word = vev_load64(data + offset);
        uint32_t size = vev_word_size(word);
        if (size < 8 || size > geometry->data_size - offset || vev_word_state(word) == VEV_WORD_END)
            break;
        uint32_t index = vev_record_index(data + offset);
        if (vev_word_state(word) == VEV_WORD_COMMITTED && index < geometry->max_records) {
            uint32_t map_index = index / 16;
            uint32_t states =
                vev_map_states(vev_load64(ring->map + 8 * (size_t)map_index), seed, map_index);
            if (vev_map_state(states, index) == VEV_PENDING) {
                kinds[vev_record_kind(data + offset) % VEV_KIND_COUNT]++;
                found++;
            }
        }
        offset += size;
    }
    return found;
}

/* Count the records still pending in a segment by kind, while its bytes are there. Those that can
 * not be read any more count as kind 0. */
static void count_kinds(vev_ring *ring, const vev_listed *listed, uint64_t pending,
                        uint64_t kinds[VEV_KIND_COUNT])
{
    const vev_geometry *geometry = &ring->file.geometry;
    uint8_t *base;
    uint64_t found[VEV_KIND_COUNT] = {0};
    volatile uint64_t known = 0; /* stays 0 when the bytes cannot be read to the end */
    if (pending > 0 &&
        ring->io->map(ring->io->ctx, ring->fd, vev_segment_offset(geometry, listed->segment),
                      geometry->segment_size, false, &base) == VEV_OK) {
        vev_guard_remember(base, geometry->segment_size);
        vev_guard guard;
        vev_guard_enter(&guard);
        if (sigsetjmp(guard.jump, 0) == 0) {
            known = count_kinds_in(ring, listed, base + geometry->data_offset, pending, found);
            vev_guard_leave(&guard);
        }
        vev_guard_forget(base);
        ring->io->unmap(ring->io->ctx, base, geometry->segment_size);
    }
    for (int kind = 0; known > 0 && kind < VEV_KIND_COUNT; kind++)
        kinds[kind] += found[kind];
    kinds[VEV_KIND_NONE] += pending - known;
}

/* Keep a damaged segment before its bytes go: as a sparse file that is a ring with this one segment,
 * and a ledger of all before it, so that every tool can look at it. Best effort; at most
 * VEV_ASIDE_MAX of them. */
static void keep_damaged(vev_ring *ring, const vev_listed *listed, const vev_ledger *before)
{
    const vev_io *io = ring->io;
    const vev_geometry *geometry = &ring->file.geometry;
    size_t capacity = strlen(ring->path) + 32;
    uint8_t *bytes = malloc(geometry->segment_size);
    char *name = malloc(capacity);
    int fd = -1;
    vev_status status = bytes && name ? EEXIST : ENOMEM;
    for (int n = 1; status == EEXIST && n <= VEV_ASIDE_MAX; n++) {
        snprintf(name, capacity, "%s.damaged-%d", ring->path, n);
        status = io->open(io->ctx, name, VEV_FILE_READ | VEV_FILE_WRITE | VEV_FILE_CREATE, &fd);
    }
    if (!status) {
        uint64_t at = vev_segment_offset(geometry, listed->segment), unreadable;
        status = vev_io_read_around(io, ring->fd, at, bytes, geometry->segment_size, &unreadable);
        if (!status)
            status = io->write(io->ctx, fd, at, bytes, geometry->segment_size);
        /* The live area is nobody's; and but one ledger, so that what its head names does not count. */
        uint8_t block[VEV_HEADER_BLOCK] = {0};
        vev_ledger_write(block, ring->file.uuid, before);
        if (!status)
            status = io->write(io->ctx, fd, 0, ring->region, VEV_AT_LEDGER);
        if (!status)
            status = io->write(io->ctx, fd, VEV_AT_LEDGER + before->version % 2 * VEV_HEADER_BLOCK,
                               block, sizeof block);
        /* One byte at the end gives the file its size. */
        if (!status && at + geometry->segment_size < geometry->file_size)
            status = io->write(io->ctx, fd, geometry->file_size - 1, "", 1);
        io->close(io->ctx, fd);
        if (status)
            (void)io->remove(io->ctx, name);
    }
    free(bytes);
    free(name);
}

uint32_t vev__laps_ahead = 0;

/* Say here what the ledger says already: whoever died between the two left it to us. */
static vev_status finish_reclaim(vev_ring *ring, bool *found_out)
{
    vev_ledger ledger;
    *found_out = false;
    if (!vev_ledger_latest(ring->region, ring->file.uuid, &ledger))
        return VEV_OK;
    for (uint32_t s = 0; s < ring->file.geometry.segment_count; s++) {
        uint64_t generation = atomic_load(&ring->live->generations[s]);
        if (generation == 0 || generation >= ledger.floor_generation)
            continue;
        /* It may have died before its ledger was on the disk (INV-5). */
        vev_status status =
            *found_out ? VEV_OK
                       : vev_ring_synced(ring, ring->io->sync_map(ring->io->ctx,
                                                                  ring->region + VEV_AT_LEDGER,
                                                                  2 * VEV_HEADER_BLOCK));
        if (status)
            return status;
        atomic_store(&ring->live->generations[s], generation | VEV_GENERATION_RECLAIMED);
        *found_out = true;
    }
    return VEV_OK;
}

/* Count a segment out in a ledger that is not written yet. VEV_E_FULL when that would cost records that
 * are pending, and they may not be evicted. */
static vev_status count_out(vev_ring *ring, const vev_listed *oldest, uint64_t next_base,
                            bool may_evict, vev_ledger *ledger)
{
    vev_ring *view = ring->reclaimer;
    uint64_t counts[4], unfinished = 0;
    uint32_t record_count = (uint32_t)(oldest->end_seq - oldest->head.base_seq);
    vev_status status = vev_ring_count(view, oldest, record_count, counts, &unfinished);
    if (status == VEV_E_NOMEM)
        return status;
    if (status) {
        /* The map cannot be read: nothing is known to be delivered, all of it is gone. */
        memset(counts, 0, sizeof counts);
        counts[VEV_LOST] = record_count;
    }
    if (!may_evict && counts[VEV_PENDING] > 0)
        return VEV_E_FULL;
    ledger->lost += oldest->head.base_seq - ledger->floor_seq; /* segments that vanished */
    ledger->floor_generation = oldest->head.generation;
    ledger->floor_seq = oldest->head.base_seq;
    if (counts[VEV_LOST] > unfinished && ring->kept_generation < oldest->head.generation) {
        ring->kept_generation = oldest->head.generation; /* once, also if the ledger fails */
        keep_damaged(ring, oldest, ledger);
    }
    ledger->floor_generation++;
    ledger->floor_seq = next_base;
    ledger->delivered += counts[VEV_DELIVERED];
    ledger->rejected += counts[VEV_REJECTED];
    ledger->evicted += counts[VEV_PENDING];
    ledger->lost += counts[VEV_LOST] + (next_base - oldest->end_seq);
    ledger->lost_unfinished += unfinished;
    ledger->lost_damaged += counts[VEV_LOST] - unfinished;
    count_kinds(view, oldest, counts[VEV_PENDING], ledger->evicted_by_kind);
    return VEV_OK;
}

/* In how many segments a lap can begin, the next one not counted; or could, were they not pinned. */
static uint32_t count_free(const vev_ring *ring)
{
    uint32_t count = 0, spare = atomic_load(&ring->live->spare);
    for (uint32_t s = 0; s < ring->file.geometry.segment_count; s++) {
        uint64_t generation = atomic_load(&ring->live->generations[s]);
        count += s + 1 != spare && (generation == 0 || generation & VEV_GENERATION_RECLAIMED);
    }
    return count;
}

/* With reclaim_mutex and VEV_LOCK_RECLAIM. */
static vev_status reclaim_locked(vev_ring *ring, bool may_evict, uint32_t seen, uint32_t wanted)
{
    vev_ring *view = ring->reclaimer;
    bool found;
    vev_status status = finish_reclaim(ring, &found);
    if (status || found || count_free(ring) > seen)
        return status;
    status = vev_ring_list(view);
    if (status)
        return status;
    vev_ledger ledger;
    if (!vev_ledger_latest(ring->region, ring->file.uuid, &ledger))
        return VEV_E_CORRUPT;
    uint32_t count = 0;
    while (count < wanted && count + 1 < view->listed_count) {
        uint64_t next_base = view->listed[count + 1].head.base_seq;
        status = count_out(ring, &view->listed[count], next_base, may_evict, &ledger);
        if (status)
            break;
        count++;
    }
    if (count == 0)
        return status ? status : VEV_E_BUSY;
    ledger.version++;
    uint8_t *block = ring->region + VEV_AT_LEDGER + ledger.version % 2 * VEV_HEADER_BLOCK;
    vev_ledger_write(block, ring->file.uuid, &ledger);
    status = vev_ring_synced(ring, ring->io->sync_map(ring->io->ctx, block, VEV_HEADER_BLOCK));
    if (status) {
        /* The segments stay, so this ledger must not count; the other copy does. If the disk has it
         * all the same, a crash finds them evicted and counted so. */
        memset(block, 0, VEV_HEADER_BLOCK);
        return status;
    }
    for (uint32_t i = 0; i < count; i++)
        atomic_store(&ring->live->generations[view->listed[i].segment],
                     view->listed[i].head.generation | VEV_GENERATION_RECLAIMED);
    return VEV_OK;
}

/* Count the oldest segments out, as many as are wanted and at least one, and allow their bytes to be
 * reused; none if others did so since the caller saw how many are free, or records would go for each
 * who waited. The ledger is on disk before anything is destroyed (INV-5). With a lock of its own: the
 * disk may take its time, in which others go on to segments that are free already. VEV_E_FULL when it
 * would cost records that are pending, and they may not be evicted. */
static vev_status reclaim(vev_ring *ring, bool may_evict, uint32_t seen, uint32_t wanted)
{
    pthread_mutex_lock(&ring->reclaim_mutex);
    vev_status status =
        vev_io_lock(ring->io, ring->fd, VEV_LOCK_RECLAIM, VEV_LOCK_EXCLUSIVE, VEV_ROLL_WAIT_MS);
    if (!status) {
        vev_guard guard;
        vev_guard_enter(&guard);
        if (sigsetjmp(guard.jump, 0) == 0) {
            status = reclaim_locked(ring, may_evict, seen, wanted);
            vev_guard_leave(&guard);
        } else {
            status = EIO;
        }
        (void)ring->io->lock(ring->io->ctx, ring->fd, VEV_LOCK_RECLAIM, VEV_LOCK_NONE);
    }
    pthread_mutex_unlock(&ring->reclaim_mutex);
    return status;
}

/* Whether nobody needs the bytes of a segment. */
static bool is_free(const vev_ring *ring, uint32_t segment)
{
    uint64_t generation = atomic_load(&ring->live->generations[segment]);
    uint64_t reclaimed = generation & ~VEV_GENERATION_RECLAIMED;
    return generation == 0 ||
           (generation != reclaimed && !vev_ring_is_pinned(ring, reclaimed, reclaimed));
}

/* Find a segment whose bytes nobody needs, reclaiming as many as it takes, and clear its front. VEV_E_FULL
 * when that would cost records that are pending, and they may not be evicted. */
static vev_status take_free_segment(vev_ring *ring, bool may_evict, uint32_t *segment_out)
{
    const vev_geometry *geometry = &ring->file.geometry;
    uint64_t active = atomic_load(&ring->live->active);
    uint32_t active_segment = (uint32_t)active & 1023u;
    vev_status failed = VEV_E_BUSY;
    for (uint32_t tries = 0; tries <= geometry->segment_count; tries++) {
        uint32_t seen = count_free(ring);
        for (uint32_t i = 1; i < geometry->segment_count; i++) {
            uint32_t segment = (active_segment + i) % geometry->segment_count;
            if (!is_free(ring, segment))
                continue;
            vev_status status = clear_front(ring, segment);
            if (status == EIO) { /* a bad place on the disk; the next one may do */
                failed = status;
                continue;
            }
            if (status)
                return status;
            ring->took_none = false;
            atomic_store(&ring->live->generations[segment], 0);
            prepare_dictionary(ring);
            *segment_out = segment;
            return VEV_OK;
        }
        /* One bad place is gone around; a disk that takes nothing must not cost the whole backlog. */
        if (failed != VEV_E_BUSY && (tries > 0 || ring->took_none)) {
            ring->took_none = true;
            break;
        }
        vev_status status = reclaim(ring, may_evict && ring->full_policy != VEV_FULL_REFUSE, seen,
                                    1 + atomic_load(&ring->laps_ahead));
        if (status)
            return status == VEV_E_BUSY ? failed : status;
    }
    return failed;
}

/* How many segments are lacking that are to be free at the present speed; `*seen_out` are. */
static uint32_t count_lacking(const vev_ring *ring, uint32_t *seen_out)
{
    uint32_t wanted = atomic_load(&ring->laps_ahead);
    volatile uint32_t count = wanted;
    vev_guard guard;
    if (wanted == 0 || atomic_load(&ring->degraded))
        return 0;
    vev_guard_enter(&guard);
    if (sigsetjmp(guard.jump, 0) == 0) {
        count = count_free(ring);
        vev_guard_leave(&guard);
    }
    *seen_out = count;
    return wanted - VEV_MIN(*seen_out, wanted);
}

uint32_t vev_ring_lacks_free(const vev_ring *ring)
{
    uint32_t ignored = 0;
    return count_lacking(ring, &ignored);
}

void vev_ring_reclaim_ahead(vev_ring *ring)
{
    uint32_t seen = 0, lacks = count_lacking(ring, &seen);
    if (lacks > 0)
        (void)reclaim(ring, ring->full_policy != VEV_FULL_REFUSE, seen, lacks);
}

vev_status vev_ring_begin_lap(vev_ring *ring, uint64_t generation, uint64_t base_seq)
{
    uint32_t segment;
    vev_status status = take_free_segment(ring, true, &segment);
    return status ? status : activate(ring, segment, generation, base_seq, NULL);
}

/* Put the end word behind the last record: the numbers of all that were appended are used, also of those
 * behind damage, or they would be given out again (INV-8). Returns how many records the segment holds. */
static uint32_t seal(vev_ring *ring, vev_span *span)
{
    uint64_t generation = atomic_load(&span->generation);
    uint64_t tail = atomic_load(&span->tail);
    uint32_t count, offset;
    for (;;) {
        walk_end end = walk(ring, span, &tail);
        if (end == WALK_BROKEN && step_over_damage(ring, span, &tail))
            continue;
        offset = tail_offset(tail);
        count = VEV_MIN(tail_index(tail), span->lap.max_records);
        if (end == WALK_FREE) {
            uint64_t free_word = 0;
            if (!atomic_compare_exchange_strong(word_at(span, offset), &free_word,
                                                vev_end_word(&span->lap, offset, count)))
                continue;
        } else if (end == WALK_END) {
            /* Somebody sealed it and died before the next was active; the word has the count. */
            uint32_t sealed_count;
            if (vev_end_check(atomic_load(word_at(span, offset)), &span->lap, offset,
                              &sealed_count))
                count = sealed_count;
        }
        break;
    }
    vev_head_seal(span->base, ring->file.uuid, generation, count,
                  VEV_MIN(offset, ring->file.geometry.data_size));
    return count;
}

static vev_status lock_roll(vev_ring *ring)
{
    pthread_mutex_lock(&ring->roll_mutex);
    vev_status status =
        vev_io_lock(ring->io, ring->fd, VEV_LOCK_ROLL, VEV_LOCK_EXCLUSIVE, VEV_ROLL_WAIT_MS);
    if (status)
        pthread_mutex_unlock(&ring->roll_mutex);
    return status;
}

static void unlock_roll(vev_ring *ring)
{
    (void)ring->io->lock(ring->io->ctx, ring->fd, VEV_LOCK_ROLL, VEV_LOCK_NONE);
    pthread_mutex_unlock(&ring->roll_mutex);
}

vev_status vev_ring_roll_locked(vev_ring *ring, uint64_t seen_generation)
{
    vev_live *live = ring->live;
    uint64_t active = atomic_load(&live->active);
    uint64_t generation = active >> 10;
    vev_span *span = atomic_load(&ring->current);
    if (generation != atomic_load(&span->generation))
        return vev_ring_adopt(ring, generation, (uint32_t)active & 1023u);
    if (generation != seen_generation)
        return VEV_OK;

    uint32_t segment;
    uint32_t spare = atomic_load(&live->spare);
    uint64_t spare_generation = spare > 0 && spare <= ring->file.geometry.segment_count
                                    ? atomic_load(&live->generations[spare - 1])
                                    : UINT64_MAX;
    if (spare_generation == 0 || spare_generation == generation + 1) {
        segment = spare - 1;
    } else {
        atomic_store(&live->spare, 0);
        vev_status status = take_free_segment(ring, true, &segment);
        if (status)
            return status;
        atomic_store(&live->spare, segment + 1);
    }
    uint32_t count = seal(ring, span);
    return activate(ring, segment, generation + 1, span->lap.base_seq + count, span);
}

/* Go on to the next segment, unless somebody has done so since `seen_generation`. */
static vev_status roll(vev_ring *ring, uint64_t seen_generation)
{
    atomic_fetch_add(&ring->waiting, 1);
    vev_status status = lock_roll(ring);
    atomic_fetch_sub(&ring->waiting, 1);
    if (status)
        return status;
    vev_guard guard;
    vev_guard_enter(&guard);
    if (sigsetjmp(guard.jump, 0) == 0) {
        status = vev_ring_roll_locked(ring, seen_generation);
        vev_guard_leave(&guard);
    } else {
        vev_ring_degrade(ring, EIO);
        status = EIO;
    }
    unlock_roll(ring);
    return status;
}

/* Map the segment that comes next, clear it as far as it is to be written soon, and take the page faults
 * that its first appends would. */
static void make_ready(vev_ring *ring, uint32_t segment, uint32_t ahead)
{
    const vev_geometry *geometry = &ring->file.geometry;
    vev_span *span = take_ready(ring, segment);
    if (!span && try_map_span(ring, segment, &span))
        return;
    uint32_t wanted = vev_ring_page_end(geometry, VEV_MAX(ahead, (uint32_t)VEV_CLEAR_MIN));
    uint32_t cleared = VEV_MAX(atomic_load(&span->cleared), (uint32_t)VEV_CLEAR_MIN);
    touch(ring, span->base, VEV_HEADER_BLOCK + geometry->dictionary_capacity);
    touch(ring, span->data, cleared);
    /* Who waits for this segment is better off with what there is of it. */
    while (cleared < wanted && atomic_load(&ring->waiting) == 0) {
        uint32_t next = vev_ring_page_end(geometry, step_to(cleared, wanted));
        if (wipe_data(ring, segment, cleared, next))
            break;
        touch(ring, span->data + cleared, next - cleared);
        cleared = next;
    }
    atomic_store(&span->cleared, cleared);
    atomic_store(&span->touched, cleared);
    ring->ready = span;
    ring->ready_after = atomic_load(&ring->live->active) >> 10;
    atomic_store(&ring->ready_for, segment + 1);
}

/* Returns VEV_E_FULL when there is none to be had without evicting. */
static vev_status prepare_spare(vev_ring *ring, bool may_evict, uint32_t ahead)
{
    volatile vev_status status = VEV_OK;
    if (atomic_load(&ring->degraded) || lock_roll(ring))
        return status;
    vev_guard guard;
    vev_guard_enter(&guard);
    if (sigsetjmp(guard.jump, 0) == 0) {
        uint32_t spare = atomic_load(&ring->live->spare), segment;
        if (spare == 0)
            status = take_free_segment(ring, may_evict, &segment);
        if (spare == 0 && status == VEV_OK) {
            spare = segment + 1;
            atomic_store(&ring->live->spare, spare);
        }
        if (spare > 0 && spare <= ring->file.geometry.segment_count)
            make_ready(ring, spare - 1, ahead);
        vev_guard_leave(&guard);
    } else {
        vev_ring_degrade(ring, EIO);
    }
    unlock_roll(ring);
    return status;
}

void vev_ring_watch(vev_ring *ring, vev_watch *seen, uint64_t now_ns)
{
    const vev_span *span = atomic_load(&ring->current);
    *seen = (vev_watch){.moved_ns = now_ns, .lap_began_ns = now_ns, .last_lap_ns = UINT64_MAX};
    if (span) {
        seen->generation = atomic_load(&span->generation);
        uint32_t ignored; /* the walk brings the tail to where other processes are */
        (void)vev_ring_tail_index(ring, seen->generation, &ignored);
        seen->tail = atomic_load(&span->tail);
    }
}

static bool is_at_rest(const vev_span *span, const vev_watch *seen)
{
    return atomic_load_explicit(&span->tail, memory_order_relaxed) == seen->tail &&
           atomic_load(&span->generation) == seen->generation;
}

typedef struct look {
    vev_watch *seen;
    uint64_t now_ns;
    vev_pace pace;
    bool low, half;  /* the next segment is wanted; because this one is half full */
    uint32_t ahead;  /* how many bytes are to be cleared and touched ahead */
    uint32_t wanted; /* up to where that is in this one */
} look;

/* How many segments are kept free at the highest speed. */
static uint64_t most_ahead(const vev_ring *ring)
{
    return ring->file.geometry.segment_count / FREE_PART;
}

static vev_status keep_span(vev_ring *ring, vev_span *span, void *argument)
{
    look *l = argument;
    vev_watch *seen = l->seen;
    if (is_at_rest(span, seen))
        return VEV_OK;
    uint64_t tail = atomic_load_explicit(&span->tail, memory_order_relaxed);
    uint64_t generation = atomic_load(&span->generation);
    uint32_t from = generation == seen->generation ? tail_offset(seen->tail) : 0;
    uint32_t at = tail_offset(tail), data_size = ring->file.geometry.data_size;
    /* Since something came, not since the last look: what came at once after a pause is no stream, be it
     * a frame, or what other processes have written since this one did. */
    uint64_t took_ns = VEV_MAX(l->now_ns - seen->moved_ns, UINT64_C(1));
    if (generation != seen->generation) {
        seen->last_lap_ns = l->now_ns - seen->lap_began_ns;
        seen->lap_began_ns = l->now_ns;
    }
    seen->tail = tail;
    seen->generation = generation;
    seen->moved_ns = l->now_ns;
    seen->recent = at - from;
    uint64_t ahead = seen->recent * (uint64_t)AHEAD_NS / took_ns;
    /* A whole segment was full so soon, and so will be the next: a burst alone is no reason to make one
     * dirty from end to end. */
    bool at_speed = seen->last_lap_ns <= AHEAD_NS && ahead >= data_size;
    atomic_store(&ring->at_speed, at_speed);
    /* Of events alone: who counts how many frames still fit (`vevents import`), or writes again what the
     * ring of notes is about to come round to, must find as many kept. */
    bool ahead_of_need = at_speed && ring->stream == VEV_EVENTS;
    uint64_t laps_ahead = ahead_of_need ? SYNC_NS / VEV_MAX(seen->last_lap_ns, UINT64_C(1)) : 0;
    atomic_store(&ring->laps_ahead, (uint32_t)VEV_MIN(laps_ahead, most_ahead(ring)));
    /* Else four looks' worth, so that a faster burst still finds warm pages. */
    ahead = at_speed ? data_size : VEV_MIN(ahead, 4ull * seen->recent);
    ahead = VEV_MAX(ahead, (uint64_t)TOUCH_AHEAD_MIN);
    l->ahead = (uint32_t)VEV_MIN(ahead, (uint64_t)data_size);
    l->wanted = (uint32_t)VEV_MIN((uint64_t)at + l->ahead, (uint64_t)data_size);
    uint64_t coming = seen->recent * (uint64_t)READY_NS / took_ns;
    l->pace = laps_ahead > 0        ? VEV_PACE_FASTEST
              : coming >= data_size ? VEV_PACE_FAST
                                    : VEV_PACE_MOVING;
    l->half = at >= data_size / 2;
    bool soon = coming >= data_size - at && seen->full_generation != generation;
    uint32_t spare = atomic_load(&ring->live->spare);
    l->low = (l->half || soon) && (spare == 0 || atomic_load(&ring->ready_for) != spare);
    return VEV_OK;
}

static vev_status touch_span(vev_ring *ring, vev_span *span, void *argument)
{
    const look *l = argument;
    uint32_t at = tail_offset(atomic_load_explicit(&span->tail, memory_order_relaxed));
    uint32_t touched = VEV_MAX(atomic_load(&span->touched), at);
    uint32_t wanted = VEV_MIN(l->wanted, atomic_load(&span->cleared));
    if (atomic_load(&span->generation) == l->seen->generation && wanted > touched) {
        touch(ring, span->data + touched, wanted - touched);
        atomic_store(&span->touched, wanted);
    }
    return VEV_OK;
}

/* What is to be written soon: cleared, where that has not been done yet, and in memory. What cannot be
 * cleared is met by the append that needs it. */
static void look_ahead(vev_ring *ring, look *l)
{
    const vev_span *span = atomic_load(&ring->current);
    vev_status status = VEV_OK;
    for (uint32_t before = 0, cleared; !status; before = cleared) {
        cleared = atomic_load(&span->cleared);
        if (cleared >= l->wanted || cleared <= before)
            break;
        clearing c = {
            .generation = l->seen->generation, .wanted = step_to(cleared, l->wanted), .warm = true};
        pthread_mutex_lock(&ring->clear_mutex);
        status = clear_up_to(ring, span->segment, &c);
    }
    vev_status ignored = on_current(ring, touch_span, l);
    (void)ignored;
}

static vev_status rewarm_span(vev_ring *ring, vev_span *span, void *argument)
{
    (void)argument;
    touch(ring, &ring->live->slots[ring->slot], sizeof(vev_slot));
    touch(ring, word_at(span, tail_offset(atomic_load(&span->tail))), VEV_RECORD_ALIGN);
    return VEV_OK;
}

void vev_ring_rewarm(vev_ring *ring)
{
    vev_status ignored = on_current(ring, rewarm_span, NULL);
    (void)ignored;
}

/* Unmap what was written full, so that memory stays at about one segment. */
static void retire_idle_spans(vev_ring *ring)
{
    const vev_span *current = atomic_load(&ring->current);
    bool idle = false;
    for (int s = 0; s < VEV_SPAN_COUNT; s++)
        idle |= &ring->spans[s] != current && atomic_load(&ring->spans[s].generation) != 0;
    if (!idle || pthread_mutex_trylock(&ring->roll_mutex) != 0)
        return;
    vev_guard guard;
    vev_guard_enter(&guard);
    if (sigsetjmp(guard.jump, 0) == 0) {
        vev_ring_retire_spans(ring);
        vev_guard_leave(&guard);
    }
    pthread_mutex_unlock(&ring->roll_mutex);
}

/* Pages of the next segment that are in memory since its last lap may be so in large pieces, of a time when
 * it was written at speed, and each byte that changes in such a piece makes all of it be written. Without a
 * lock, for it may take its time; whatever the segment is by then, nothing is lost by it. */
static void forget_earlier_lap(const vev_ring *ring)
{
    uint32_t ready = atomic_load(&ring->ready_for), size = ring->file.geometry.segment_size;
    if (ready > 0)
        ring->io->forget(ring->io->ctx, ring->fd,
                         vev_segment_offset(&ring->file.geometry, ready - 1), size);
}

vev_pace vev_ring_keep(vev_ring *ring, vev_watch *seen, uint64_t now_ns)
{
    /* Looking closely means writing to the live area, and so a page to the flash whenever the kernel
     * writes back: not for a ring at rest. */
    const vev_span *span = atomic_load(&ring->current);
    if (!span || is_at_rest(span, seen))
        return VEV_PACE_IDLE;
    look l = {.seen = seen, .now_ns = now_ns, .pace = VEV_PACE_IDLE};
    if (on_current(ring, keep_span, &l) || l.pace == VEV_PACE_IDLE)
        return VEV_PACE_IDLE;
    keep_checkpoint(ring);
    look_ahead(ring, &l);
    /* At speed none is waited for here, with the roll lock: who counts segments out is at it. */
    l.low = l.low && vev_ring_lacks_free(ring) < VEV_MAX(atomic_load(&ring->laps_ahead), 1u);
    if (l.low && prepare_spare(ring, l.half, l.ahead) == VEV_E_FULL)
        seen->full_generation = seen->generation;
    else if (l.low && !atomic_load(&ring->at_speed))
        forget_earlier_lap(ring);
    retire_idle_spans(ring);
    return l.pace;
}

/* ---- append ---- */

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

/* How far to clear for an append: at speed as much as others use up meanwhile, else a little, and the more the
 * longer a burst goes on without a pause. With clear_mutex. */
static clearing plan_clearing(vev_ring *ring, const job *j)
{
    enum { LEAST = 16384, PART = 4, PAUSE_NS = 10 * 1000 * 1000 };
    /* Another thread may have cleared something since this append began. */
    if (j->header.mono_ns >= ring->cleared_ns + PAUSE_NS)
        ring->burst_size = 0;
    /* A part of a step at most, so that what is cleared for it stays in small pages (vev_io_wipe()). */
    uint64_t step = atomic_load(&ring->at_speed)
                        ? 2 * CLEAR_STEP
                        : VEV_MIN(ring->burst_size / PART, (uint64_t)CLEAR_STEP / PART);
    step = VEV_MIN(step, (uint64_t)ring->file.geometry.data_size / 4);
    step = VEV_MAX(step, (uint64_t)LEAST);
    ring->burst_size += step;
    ring->cleared_ns = j->header.mono_ns;
    return (clearing){.generation = j->generation,
                      .wanted = (uint32_t)VEV_MIN((uint64_t)j->uncleared + step,
                                                  (uint64_t)ring->file.geometry.data_size),
                      .wait_ms = CLEAR_WAIT_MS,
                      .warm = step > LEAST};
}

/* Clear what an append needs, and some more, where nobody has done so in time. VEV_E_FULL: go on in another
 * segment. */
static vev_status clear_for(vev_ring *ring, const job *j)
{
    enum { BAD_PLACES = 2 };
    pthread_mutex_lock(&ring->clear_mutex);
    clearing c = plan_clearing(ring, j);
    vev_status status = clear_up_to(ring, j->segment, &c);
    /* A bad place is gone around, but a disk that takes nothing costs no segment after another. */
    return status == EIO && atomic_load(&ring->degraded) == 0 &&
                   atomic_load(&ring->failed_clears) < BAD_PLACES
               ? VEV_E_FULL
               : status;
}

/* At speed, clear more before others find none, unless somebody does. What fails is met by who needs it. */
static void clear_in_time(vev_ring *ring, const job *j)
{
    if (pthread_mutex_trylock(&ring->clear_mutex) != 0)
        return;
    clearing c = plan_clearing(ring, j);
    c.wait_ms = 0;
    (void)clear_up_to(ring, j->segment, &c);
}

/* How far the checkpoint may be behind before an append moves it: at full speed, and without a helper, nobody
 * else may come to it. */
enum { FAR_BEHIND = 1024 * 1024, CHECKPOINT_ASKED = FAR_BEHIND / 4 };

/* Whether an append at `offset` is to clear more, for `cleared` leaves little (clear_in_time()). */
static bool leaves_little(const vev_ring *ring, uint32_t cleared, uint32_t offset)
{
    return VEV_UNLIKELY(cleared - offset < CLEAR_LEFT) && cleared < ring->file.geometry.data_size &&
           atomic_load_explicit(&ring->at_speed, memory_order_relaxed);
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
    uint32_t offset, index, size = vev_record_size(&j->header);
    if (!reserve(ring, span, size, &offset, &index, &j->uncleared))
        return VEV_E_FULL;
    /* Asked seldom, and only then is it looked up. */
    if (VEV_UNLIKELY((offset ^ (offset + size)) >= CHECKPOINT_ASKED))
        j->checkpoint_far = offset >= vev_ring_checkpoint(ring, j->generation) + FAR_BEHIND;
    uint32_t cleared = atomic_load_explicit(&span->cleared, memory_order_relaxed);
    if (leaves_little(ring, cleared, offset))
        j->uncleared = cleared;
    j->header.seq = span->lap.base_seq + index;
    uint64_t word =
        vev_record_write(span->data + offset, &span->lap, offset, &j->header, j->stored);
    atomic_store_explicit(word_at(span, offset), word, memory_order_release); /* INV-3 */
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
    uint64_t used = tail_offset(tail) + (uint64_t)payload_size;
    uint64_t behind = used + VEV_RECORD_OVERHEAD_MAX + VEV_RECORD_ALIGN;
    if (used > geometry->data_size - geometry->data_size / 64 || behind > cleared ||
        tail_index(tail) > geometry->max_records - geometry->max_records / 64)
        return false;
    /* It would clear in time, or look after the checkpoint. */
    uint32_t offset = tail_offset(tail);
    if ((offset ^ behind) >= CHECKPOINT_ASKED || leaves_little(ring, cleared, offset))
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
    while ((status = on_current(ring, append_here, &j)) == VEV_E_FULL) {
        status = j.uncleared > 0 ? clear_for(ring, &j) : VEV_E_FULL;
        if (status == VEV_E_FULL)
            status = roll(ring, j.generation);
        if (status)
            break;
    }
    if (j.context) {
        vev_pool_give(j.context);
        if (!status && j.header.seq % VEV_SAMPLE_EVERY == 0)
            take_sample(&ring->samples, payload, size);
    }
    if (status)
        return status;
    if (VEV_UNLIKELY(j.uncleared > 0))
        clear_in_time(ring, &j);
    if (VEV_UNLIKELY(j.checkpoint_far))
        keep_checkpoint(ring);
    if (!j.header.id_given)
        vev_record_make_id(ring->file.uuid, &j.header, entry->id);
    entry->seq = j.header.seq;
    status = entry->flags & VEV_APPEND_SYNC ? vev_ring_sync(ring, entry->seq) : VEV_OK;
    /* A negative status would say that nothing is stored. */
    return status == VEV_E_BUSY ? EBUSY : status < 0 ? EIO : status;
}

/* ---- sync ---- */

/* VEV_E_FULL: the span is not current any more. */
static vev_status sync_span(vev_ring *ring, vev_span *span, void *argument)
{
    vev_live *live = ring->live;
    uint64_t generation = atomic_load(&span->generation), target_seq = *(uint64_t *)argument;
    vev_status status = (vev_status)atomic_load(&live->sync_error);
    if (status || (target_seq > 0 && atomic_load(&live->durable_seq) >= target_seq))
        return status;
    if (atomic_load(&live->active) >> 10 != generation)
        return VEV_E_FULL;
    walk_committed(ring, span, UINT32_MAX);
    move_checkpoint(ring);
    uint64_t reached = span->lap.base_seq + ring->walk_index - 1;
    uint64_t durable = atomic_load(&live->durable_seq);
    if (durable + 1 < span->lap.base_seq || ring->synced_offset == 0 ||
        atomic_exchange(&ring->marks_dirty, false)) {
        /* More than this segment's data: heads, sealed segments, delivery states. A sealed segment
         * in which somebody is still writing holds the mark back; asked before the sync, since what
         * is committed during it may miss it. */
        if (durable + 1 < span->lap.base_seq && vev_ring_is_pinned(ring, 1, generation - 1))
            reached = durable;
        status = ring->io->sync(ring->io->ctx, ring->fd);
    } else {
        uint32_t end = VEV_MAX(ring->walk_offset, tail_offset(atomic_load(&span->tail)));
        status = end > ring->synced_offset
                     ? ring->io->sync_map(ring->io->ctx, span->data + ring->synced_offset,
                                          end - ring->synced_offset)
                     : VEV_OK;
    }
    if (status) {
        /* After a failed write-back the kernel may call the pages clean, and the next sync would
         * succeed without having written them: no later success can be believed (INV-9). */
        atomic_store(&live->sync_error, (uint32_t)status);
        return status;
    }
    ring->synced_offset = VEV_MAX(ring->walk_offset, 8u);
    move_synced_checkpoint(ring, span);
    while (durable < reached &&
           !atomic_compare_exchange_weak(&live->durable_seq, &durable, reached)) {
    }
    return VEV_OK;
}

/* Whether nothing was appended or marked since the last sync. Without a cell: to announce oneself is to
 * write to the live area, and that is a page of flash every time that nothing else is to be written. */
static bool is_synced(vev_ring *ring)
{
    volatile bool synced = false;
    pthread_mutex_lock(&ring->roll_mutex); /* the span stays mapped */
    vev_guard guard;
    vev_guard_enter(&guard);
    if (sigsetjmp(guard.jump, 0) == 0) {
        const vev_span *span = atomic_load(&ring->current);
        const vev_live *live = ring->live;
        uint64_t walked = ring->walk_generation;
        synced =
            span && ring->synced_offset > 0 && atomic_load(&span->generation) == walked &&
            atomic_load(&live->active) >> 10 == walked && atomic_load(&live->sync_error) == 0 &&
            !atomic_load(&ring->marks_dirty) &&
            ring->synced_offset == VEV_MAX(ring->walk_offset, 8u) &&
            ring->walk_offset <= ring->file.geometry.data_size - 8 &&
            atomic_load_explicit(word_at(span, ring->walk_offset), memory_order_acquire) == 0 &&
            atomic_load(&live->durable_seq) + 1 >= span->lap.base_seq + ring->walk_index;
        vev_guard_leave(&guard);
    }
    pthread_mutex_unlock(&ring->roll_mutex);
    return synced;
}

static vev_status look_for_unsynced(vev_ring *ring, vev_span *span, void *argument)
{
    uint64_t tail = atomic_load_explicit(&span->tail, memory_order_relaxed);
    (void)walk(ring, span, &tail);
    *(bool *)argument =
        atomic_load(&ring->live->sync_error) == 0 &&
        atomic_load(&ring->live->durable_seq) < span->lap.base_seq + tail_index(tail) - 1;
    return VEV_OK;
}

bool vev_ring_is_durable(vev_ring *ring)
{
    bool unsynced = false;
    return on_current(ring, look_for_unsynced, &unsynced) != VEV_OK || !unsynced;
}

vev_status vev_ring_sync(vev_ring *ring, uint64_t target_seq)
{
    if (ring->readonly)
        return VEV_OK;
    pthread_mutex_lock(&ring->sync_mutex);
    vev_status status = VEV_OK;
    while (!is_synced(ring) && (status = on_current(ring, sync_span, &target_seq)) == VEV_E_FULL) {
        status = roll(ring, 0); /* adopts what another process activated */
        if (status)
            break;
    }
    pthread_mutex_unlock(&ring->sync_mutex);
    return status;
}
