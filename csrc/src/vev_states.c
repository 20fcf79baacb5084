/* What became of each record: reading, counting and marking delivery states.
 *
 * INV-14 A tally in the live area that says something says what the state map of that lap says, but
 *        for changes by somebody who holds a cell of the lap. Who is to change a map claims a cell
 *        (INV-7), takes the tally back, and only then changes it. Who counts puts its token in the
 *        tally's place, looks then at the cells and at the generation, reads the map after that,
 *        and puts the counts in the place of its token, if that still stands there (all
 *        sequentially consistent). Either the one finds the token, or the other the cell. A lap
 *        begins without a tally; so does a boot.
 */
#include "vev_states.h"

#include <errno.h>

#include "vev_checkpoint.h"
#include "vev_clock.h"
#include "vev_guard.h"
#include "vev_laps.h"
#include "vev_step.h"

uint64_t vev_ring_map_at(const vev_ring *ring, const vev_listed *listed)
{
    const vev_geometry *geometry = &ring->file.geometry;
    return vev_segment_offset(geometry, listed->segment) + geometry->map_offset;
}

uint32_t vev_map_bytes(uint32_t record_count) { return (record_count + 15) / 16 * 8; }

vev_status vev_ring_load_map(vev_ring *ring, const vev_listed *listed, uint32_t from, uint32_t to,
                             uint64_t *unreadable_out)
{
    return vev_io_read_around(ring->io, ring->fd, vev_ring_map_at(ring, listed) + from,
                              ring->map + from, to - from, unreadable_out);
}

uint32_t vev_ring_state(const vev_ring *ring, const vev_lap *lap, uint32_t index)
{
    uint32_t states =
        vev_map_states(vev_load64(ring->map + 8 * (size_t)(index / 16)), lap->seed, index / 16);
    return (uint32_t)vev_map_state(states, index);
}

/* How many records of a segment were reserved and never finished. */
static vev_status count_unfinished(vev_ring *ring, const vev_listed *listed, uint32_t *count_out)
{
    uint32_t data_size = ring->file.geometry.data_size, offset = 0;
    *count_out = 0;
    while (offset <= data_size - 8) {
        vev_status status = vev_ring_load_window(ring, listed, offset, 8, false);
        if (status)
            return status;
        uint64_t word = vev_load64(vev_ring_window_at(ring, offset));
        uint32_t state = vev_word_state(word), size = vev_word_size(word);
        if ((state != VEV_WORD_RESERVED && state != VEV_WORD_COMMITTED) || size < 8 ||
            size > data_size - 8 - offset)
            return VEV_OK;
        if (state == VEV_WORD_RESERVED &&
            (!vev_word_is_hole(word) || vev_word_high(word) >= VEV_HOLE_UNFINISHED))
            *count_out += vev_word_count(word);
        offset += size;
    }
    return VEV_OK;
}

vev_status vev_ring_count_map(vev_ring *ring, const vev_listed *listed, uint32_t record_count,
                              uint64_t counts[4], uint64_t *unfinished_out,
                              uint64_t *unreadable_out)
{
    record_count = VEV_MIN(record_count, ring->file.geometry.max_records);
    vev_status status =
        vev_ring_load_map(ring, listed, 0, vev_map_bytes(record_count), unreadable_out);
    if (status)
        return status;
    vev_map_count(ring->map, vev_listed_lap(ring, listed).seed, record_count, counts);
    /* Losses are few and why they happened stands in the data, so it is read only for them. */
    vev_listed *cached = &ring->cached[listed->segment];
    if (cached->lost != counts[VEV_LOST]) {
        status = count_unfinished(ring, listed, &cached->unfinished);
        cached->lost = (uint32_t)counts[VEV_LOST];
    }
    *unfinished_out = VEV_MIN((uint64_t)cached->unfinished, counts[VEV_LOST]);
    return status;
}

vev_status vev_ring_count(vev_ring *ring, const vev_listed *listed, uint32_t record_count,
                          uint64_t counts[4], uint64_t *unfinished_out)
{
    uint64_t unreadable;
    return vev_ring_count_map(ring, listed, record_count, counts, unfinished_out, &unreadable);
}

/* ---- tallies ---- */

bool vev__tallies = true;

/* Whether tallies can be relied on. Not after a failed sync: the system may drop pages that it has
 * not written, and what a map says then is older. A read-only ring has a copy of the live area,
 * which is of this boot and of this file or means nothing; it was copied behind the ledger, by
 * whose version the figures are seen to be of one moment. */
static bool has_tallies(const vev_ring *ring)
{
    const vev_live *live = ring->live;
    return vev__tallies && atomic_load(&live->sync_error) == 0 &&
           (!ring->readonly || (live->magic == VEV_LIVE_MAGIC &&
                                live->boot == vev_clock_boot_tag() && vev_ring_is_at_home(ring)));
}

bool vev_ring_read_tally(const vev_ring *ring, const vev_listed *listed, uint64_t counts[4])
{
    const vev_live *live = ring->live;
    return has_tallies(ring) &&
           vev_tally_read(atomic_load(&live->tallies[listed->segment]), vev_listed_records(listed),
                          counts) &&
           atomic_load(&live->generations[listed->segment]) == listed->head.generation;
}

/* Whether what the map adds up to can be kept as a tally, as far as is known before it is read:
 * nothing is written to the live area in vain, for that is a page of flash. */
static bool may_tally(const vev_ring *ring, const vev_listed *listed)
{
    uint64_t generation = listed->head.generation;
    return !ring->readonly && has_tallies(ring) && !ring->cached[listed->segment].no_tally &&
           !vev_ring_is_pinned(ring, generation, generation) &&
           atomic_load(&ring->live->generations[listed->segment]) == generation;
}

vev_status vev_ring_count_sealed(vev_ring *ring, const vev_listed *listed, uint64_t counts[4],
                                 uint64_t *unfinished_out)
{
    *unfinished_out = 0;
    if (vev_ring_read_tally(ring, listed, counts))
        return VEV_OK;
    _Atomic uint32_t *tally = &ring->live->tallies[listed->segment];
    uint32_t token = vev_tally_token(ring->owner), present = atomic_load(tally);
    bool ours = may_tally(ring, listed) && atomic_compare_exchange_strong(tally, &present, token) &&
                may_tally(ring, listed);
    uint64_t unreadable;
    vev_status status = vev_ring_count_map(ring, listed, vev_listed_records(listed), counts,
                                           unfinished_out, &unreadable);
    if (status)
        return status;
    uint32_t word = unreadable > 0 ? 0 : vev_tally_word(counts);
    ring->cached[listed->segment].no_tally = word == 0;
    if (ours && word != 0)
        (void)atomic_compare_exchange_strong(tally, &token, word);
    return VEV_OK;
}

void vev_ring_forget_tally(const vev_ring *ring, uint32_t segment)
{
    _Atomic uint32_t *tally = &ring->live->tallies[segment];
    if (atomic_load(tally) != 0)
        atomic_store(tally, 0);
}

/* ---- marking in a map ---- */

/* Map the head and state map of a segment, for marking. Stays mapped for the next call. */
static vev_status map_for_marking(vev_ring *ring, const vev_listed *listed)
{
    const vev_geometry *geometry = &ring->file.geometry;
    if (ring->mark_base && ring->mark_segment == listed->segment &&
        ring->mark_generation == listed->head.generation)
        return VEV_OK;
    if (ring->mark_base) {
        vev_guard_forget(ring->mark_base);
        ring->io->unmap(ring->io->ctx, ring->mark_base, geometry->data_offset);
        ring->mark_base = NULL;
    }
    uint64_t at = vev_segment_offset(geometry, listed->segment);
    vev_status status = vev_ring_check_descriptor(ring);
    if (!status)
        status = vev_io_heal(ring->io, ring->fd, at + geometry->map_offset,
                             geometry->data_offset - geometry->map_offset);
    if (!status)
        status = ring->io->map(ring->io->ctx, ring->fd, at, geometry->data_offset, true,
                               &ring->mark_base);
    if (status) {
        ring->mark_base = NULL;
        return status;
    }
    vev_guard_remember(ring->mark_base, geometry->data_offset);
    ring->mark_segment = listed->segment;
    ring->mark_generation = listed->head.generation;
    return VEV_OK;
}

/* Whether the state changed. `only_pending`: leave records that have been delivered or rejected. */
static bool mark_one(vev_ring *ring, const vev_lap *lap, uint32_t index, uint32_t state,
                     bool only_pending)
{
    uint32_t word_index = index / 16, shift = index % 16 * 2;
    _Atomic uint64_t *word =
        (_Atomic uint64_t *)(void *)(ring->mark_base + ring->file.geometry.map_offset +
                                     8 * (size_t)word_index);
    uint64_t present = atomic_load_explicit(word, memory_order_relaxed);
    for (;;) {
        uint32_t states = vev_map_states(present, lap->seed, word_index);
        uint32_t before = states >> shift & 3u;
        if (before == state || (only_pending && before != VEV_PENDING))
            return false;
        uint32_t after = (states & ~(3u << shift)) | state << shift;
        if (atomic_compare_exchange_weak_explicit(word, &present,
                                                  vev_map_word(after, lap->seed, word_index),
                                                  memory_order_relaxed, memory_order_relaxed)) {
            atomic_store(&ring->marks_dirty, true);
            return true;
        }
    }
}

vev_status vev_ring_mark_range(vev_ring *ring, const vev_listed *listed, const vev_lap *lap,
                               uint32_t from, uint32_t to, uint32_t state, bool only_pending,
                               size_t *changed)
{
    vev_status status = VEV_OK;
    /* The cell keeps the bytes from being reused for another lap under our hands (INV-7). */
    _Atomic uint64_t *cell = vev_ring_claim(ring, listed->head.generation);
    ring->mark_cell = cell;
    if (atomic_load(&ring->live->generations[listed->segment]) == listed->head.generation) {
        /* Before the map is healed, which changes it, too (INV-14). */
        vev_ring_forget_tally(ring, listed->segment);
        status = map_for_marking(ring, listed);
        for (uint32_t i = from; !status && i < to && i < lap->max_records; i++)
            *changed += mark_one(ring, lap, i, state, only_pending);
    }
    ring->mark_cell = NULL;
    vev_ring_release(cell);
    return status;
}

vev_status vev_ring_after_sigbus(vev_ring *ring)
{
    vev_ring_release_guarded(ring->mark_cell);
    ring->mark_cell = NULL;
    if (ring->mark_base) { /* mapped anew next time, and healed before */
        vev_guard_forget(ring->mark_base);
        ring->io->unmap(ring->io->ctx, ring->mark_base, ring->file.geometry.data_offset);
        ring->mark_base = NULL;
    }
    return EIO;
}

/* ---- marking by number ---- */

vev_status vev_ring_measure_newest(vev_ring *ring, const vev_listed *newest, uint32_t *count_out,
                                   uint32_t *used_out)
{
    if (newest->head.sealed) {
        *count_out = newest->head.record_count;
        *used_out = newest->head.data_end;
        return VEV_OK;
    }
    vev_lap lap = vev_listed_lap(ring, newest);
    ring->window_generation = 0;
    uint32_t offset = 0, index = 0;
    if (ring->read_generation == newest->head.generation) {
        offset = ring->read_offset;
        index = (uint32_t)ring->read_index;
    }
    /* From a checkpoint on, if one is further on than that (INV-13). */
    uint32_t places[2] = {vev_ring_checkpoint(ring, newest->head.generation), newest->checkpoint};
    for (int i = 0; i < 2; i++) {
        vev_header header;
        bool found;
        if (places[i] <= offset || places[i] > ring->file.geometry.data_size - VEV_RECORD_HEADER)
            continue;
        vev_status status =
            vev_ring_look_for_record(ring, newest, &lap, places[i], false, &header, &found);
        if (status)
            return status;
        if (found) {
            offset = places[i];
            index = (uint32_t)(header.seq - lap.base_seq);
        }
    }
    for (;;) {
        vev_step s;
        vev_status status = vev_ring_step(ring, newest, &lap, offset, index, &s);
        if (status)
            return status;
        index = s.kind == VEV_STEP_RECORD ? s.index + 1 : s.index;
        if (s.kind == VEV_STEP_END)
            break;
        offset += s.size;
    }
    *count_out = index;
    *used_out = offset;
    return VEV_OK;
}

/* Whether record `index` of the newest segment has been appended: the state of one that has not
 * would wait for it, and the event would count as delivered before it is made. */
static vev_status was_appended(vev_ring *ring, const vev_listed *newest, uint64_t index,
                               bool *appended_out)
{
    uint32_t count;
    if (!vev_ring_tail_index(ring, newest->head.generation, &count)) {
        uint32_t used; /* another process went on to it; read it to its end */
        vev_status status = vev_ring_measure_newest(ring, newest, &count, &used);
        if (status)
            return status;
    }
    *appended_out = index < count;
    return VEV_OK;
}

/* What changes while marking is read after a jump: volatile, or it may be what it was before. */
typedef struct marking {
    const uint64_t *seqs;
    size_t seq_count;
    volatile size_t next, changed;
    uint32_t state, at; /* `at` in the list: mostly ascending, look from the last one on */
    volatile uint64_t failed_generation; /* not tried again for every one of its records */
    volatile vev_status failed;          /* the first time */
} marking;

static vev_status mark_seq(vev_ring *ring, marking *m, uint64_t seq)
{
    if (m->at >= ring->listed_count || ring->listed[m->at].head.base_seq > seq)
        m->at = 0;
    while (m->at + 1 < ring->listed_count && ring->listed[m->at + 1].head.base_seq <= seq)
        m->at++;
    if (m->at >= ring->listed_count || ring->listed[m->at].head.base_seq > seq)
        return VEV_OK;
    const vev_listed *listed = &ring->listed[m->at];
    uint64_t index = seq - listed->head.base_seq;
    bool newest = m->at + 1 == ring->listed_count;
    if (listed->head.generation == m->failed_generation ||
        index >= ring->file.geometry.max_records || (!newest && seq >= listed->end_seq))
        return VEV_OK;
    bool appended = true;
    size_t changed = 0;
    vev_status status = newest ? was_appended(ring, listed, index, &appended) : VEV_OK;
    vev_lap lap = vev_listed_lap(ring, listed);
    if (!status && appended)
        status = vev_ring_mark_range(ring, listed, &lap, (uint32_t)index, (uint32_t)index + 1,
                                     m->state, false, &changed);
    m->changed += changed;
    if (status)
        m->failed_generation = listed->head.generation;
    return status;
}

/* A segment that fails does not keep those of others from being marked. */
static vev_status mark_locked(vev_ring *ring, marking *m)
{
    vev_status status = vev_ring_list(ring);
    while (!status && m->next < m->seq_count) {
        uint64_t seq = m->seqs[m->next];
        m->next++; /* before: a jump out of this one goes on behind it */
        vev_status here = mark_seq(ring, m, seq);
        if (here && !m->failed)
            m->failed = here;
    }
    return status;
}

vev_status vev_ring_mark(vev_ring *ring, const uint64_t *seqs, size_t seq_count, int state,
                         size_t *changed_out)
{
    if (state < VEV_PENDING || state > VEV_LOST || (!seqs && seq_count > 0))
        return VEV_E_INVALID;
    if (ring->readonly)
        return VEV_E_READONLY;
    marking m = {.seqs = seqs, .seq_count = seq_count, .state = (uint32_t)state};
    pthread_mutex_lock(&ring->read_mutex);
    vev_status status;
    size_t before;
    do {
        before = m.next;
        vev_guard guard;
        vev_guard_enter(&guard);
        if (sigsetjmp(guard.jump, 0) == 0) {
            status = vev_ring_check_descriptor(ring);
            if (!status)
                status = mark_locked(ring, &m);
            vev_guard_leave(&guard);
        } else {
            status = vev_ring_after_sigbus(ring);
            if (!m.failed)
                m.failed = status;
        }
    } while (status == EIO && m.next > before && m.next < seq_count);
    pthread_mutex_unlock(&ring->read_mutex);
    if (changed_out)
        *changed_out = m.changed;
    return m.failed ? m.failed : status;
}
