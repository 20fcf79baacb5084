/* Which laps a file holds: told by their heads, and by what those name of the past. */
#include "vev_laps.h"

#include <stdlib.h>

uint32_t vev_listed_learn(const vev_ring *ring, uint32_t segment, uint64_t floor, vev_listed *known)
{
    const vev_io *io = ring->io;
    const vev_geometry *geometry = &ring->file.geometry;
    uint8_t block[VEV_HEADER_BLOCK];
    vev_head head;
    uint32_t oldest = segment;
    /* An unreadable head is a segment that is not there, unless another one names its lap; else its
     * gap counts as lost. */
    if (io->read(io->ctx, ring->fd, vev_segment_offset(geometry, segment), block, sizeof block) ||
        !vev_head_read(block, ring->file.uuid, geometry, &head) ||
        head.generation < known[segment].head.generation)
        return segment;
    bool heard = head.generation == known[segment].head.generation && !known[segment].head.sealed;
    known[segment] = (vev_listed){.segment = segment, .head = head};
    known[segment].checkpoint = vev_checkpoint_offset(
        vev_load64(block + VEV_HEAD_CHECKPOINT),
        vev_lap_seed(ring->file.uuid, head.generation, head.salt), geometry->data_size);
    uint32_t count = heard ? 0 : vev_past_count(block, ring->file.uuid, &head);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t named;
        if (!vev_past_read(block, geometry, i, &named, &head) || head.generation < floor ||
            head.generation <= known[named].head.generation)
            continue;
        known[named] = (vev_listed){.segment = named, .head = head};
        oldest = named;
    }
    return oldest;
}

uint64_t vev_listed_floor(const vev_ring *ring, bool accounted, bool living,
                          const vev_ledger *ledger)
{
    bool believed =
        accounted && (living || vev_ledger_is_last(ring->region, ring->file.uuid, ledger));
    return believed ? ledger->floor_generation : UINT64_MAX;
}

void vev_listed_find(const vev_ring *ring, uint64_t floor, bool living, vev_listed *known)
{
    uint32_t count = ring->file.geometry.segment_count;
    bool looked[VEV_SEGMENT_MAX_COUNT] = {false};
    /* The newest one names most others, and stands where this says, or a little further. */
    uint32_t start = (uint32_t)(atomic_load(&ring->live->active) & 1023u);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t segment = (start + VEV_SEGMENT_MAX_COUNT * count - i) % count;
        if ((known[segment].head.sealed && known[segment].head.generation >= floor) ||
            (living && !vev_ring_is_living(ring, segment)))
            continue;
        /* From each on to the oldest that it names: all are named by what is read, whichever that
         * is, so that every opening finds the same laps. */
        while (!looked[segment]) {
            looked[segment] = true;
            segment = vev_listed_learn(ring, segment, floor, known);
        }
    }
}

static int by_generation(const void *a, const void *b)
{
    uint64_t x = ((const vev_listed *)a)->head.generation;
    uint64_t y = ((const vev_listed *)b)->head.generation;
    return (x > y) - (x < y);
}

void vev_listed_sort(vev_listed *listed, uint32_t count)
{
    for (uint32_t i = 1; i < count; i++) {
        if (by_generation(&listed[i - 1], &listed[i]) > 0) {
            qsort(listed, count, sizeof *listed, by_generation);
            return;
        }
    }
}

uint32_t vev_listed_order(vev_listed *listed, uint32_t count, const vev_geometry *geometry,
                          const vev_ledger *ledger)
{
    vev_listed_sort(listed, count);
    uint32_t kept = 0;
    uint64_t next_seq = ledger->floor_seq;
    for (uint32_t i = 0; i < count; i++) {
        const vev_head *head = &listed[i].head;
        if (head->generation < ledger->floor_generation || head->base_seq < next_seq ||
            (kept > 0 && head->generation == listed[kept - 1].head.generation))
            continue;
        if (kept > 0 && !listed[kept - 1].head.sealed) {
            /* Its seal is gone; its successor says how far it can have reached. */
            vev_listed *before = &listed[kept - 1];
            uint64_t room = head->base_seq - before->head.base_seq;
            before->end_seq =
                before->head.base_seq + VEV_MIN(room, (uint64_t)geometry->max_records);
            before->head.sealed = true;
            before->head.record_count = (uint32_t)(before->end_seq - before->head.base_seq);
            before->head.data_end = geometry->data_size;
        }
        if (kept < i)
            listed[kept] = listed[i];
        next_seq = head->base_seq + (head->sealed ? head->record_count : 0);
        listed[kept].end_seq = next_seq;
        kept++;
    }
    return kept;
}

vev_status vev_ring_list(vev_ring *ring)
{
    const vev_geometry *geometry = &ring->file.geometry;
    if (ring->readonly) {
        uint64_t unreadable;
        vev_status status =
            vev_io_read_around(ring->io, ring->fd, 0, ring->region, VEV_HEADER_REGION, &unreadable);
        if (status)
            return status;
    }
    vev_ledger *ledger = &ring->listed_ledger;
    bool accounted = vev_ledger_latest(ring->region, ring->file.uuid, ledger);
    if (!accounted)
        *ledger = (vev_ledger){.floor_generation = 1, .floor_seq = 1};
    bool living = !ring->readonly;
    vev_listed_find(ring, vev_listed_floor(ring, accounted, living, ledger), living, ring->cached);
    /* Laps follow each other around the ring, so that from here on they are in order. */
    uint32_t count = 0, active = (uint32_t)(atomic_load(&ring->live->active) & 1023u);
    for (uint32_t i = 1; i <= geometry->segment_count; i++) {
        uint32_t s = (active + i) % geometry->segment_count;
        uint64_t generation = ring->cached[s].head.generation;
        if (ring->readonly ? generation > 0
                           : vev_ring_is_living(ring, s) &&
                                 generation == atomic_load(&ring->live->generations[s]))
            ring->listed[count++] = ring->cached[s];
    }
    ring->listed_count = vev_listed_order(ring->listed, count, geometry, ledger);
    return VEV_OK;
}

vev_lap vev_listed_lap(const vev_ring *ring, const vev_listed *listed)
{
    const vev_geometry *geometry = &ring->file.geometry;
    return (vev_lap){
        .seed = vev_lap_seed(ring->file.uuid, listed->head.generation, listed->head.salt),
        .file_offset = vev_segment_offset(geometry, listed->segment) + geometry->data_offset,
        .base_seq = listed->head.base_seq,
        .max_records = geometry->max_records};
}

uint32_t vev_listed_records(const vev_listed *listed)
{
    return (uint32_t)(listed->end_seq - listed->head.base_seq);
}
