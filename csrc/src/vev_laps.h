/* The laps of a file. */
#ifndef VEV_LAPS_H
#define VEV_LAPS_H

#include "vev_ring.h"

/* Learn which lap a segment holds, from its head, and which ones others hold, from the past that
 * stands beside it: those from generation `floor` on, as the ledger on the disk has it. `known` is
 * by segment; what is newer there stays. Returns the segment of the oldest lap that was news, or
 * `segment` itself. */
uint32_t vev_listed_learn(const vev_ring *ring, uint32_t segment, uint64_t floor,
                          vev_listed *known);
/* Such a floor. Where neither the last ledger nor the live area says what of the past is reclaimed,
 * only heads count. */
uint64_t vev_listed_floor(const vev_ring *ring, bool accounted, bool living,
                          const vev_ledger *ledger);
/* Learn them all, or those only that are living as the live area has it, reading as few heads as
 * that takes. What is sealed in `known` and not below the floor counts as known. */
void vev_listed_find(const vev_ring *ring, uint64_t floor, bool living, vev_listed *known);
/* Sort heads by age, keep those that can be of one history (a damaged file may claim anything), and
 * set their end_seq. Returns how many are kept. */
uint32_t vev_listed_order(vev_listed *listed, uint32_t count, const vev_geometry *geometry,
                          const vev_ledger *ledger);
/* From the oldest to the newest. */
void vev_listed_sort(vev_listed *listed, uint32_t count);
/* Bring `listed` up to date: live segments, oldest first. With read_mutex held. */
vev_status vev_ring_list(vev_ring *ring);

/* What its records are checked with. */
vev_lap vev_listed_lap(const vev_ring *ring, const vev_listed *listed);
/* How many records it holds; of the newest, as far as its head knows. */
uint32_t vev_listed_records(const vev_listed *listed);

#endif
