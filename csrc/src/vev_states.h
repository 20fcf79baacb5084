/* Delivery states. All with read_mutex held but vev_ring_mark(). */
#ifndef VEV_STATES_H
#define VEV_STATES_H

#include "vev_ring.h"

/* Whether figures are taken from tallies, and tallies made (INV-14). Tests count without. */
extern bool vev__tallies;

/* Have a part of a segment's state map in memory. What of it cannot be read does not check, and
 * says pending. */
vev_status vev_ring_load_map(vev_ring *ring, const vev_listed *listed, uint32_t from, uint32_t to,
                             uint64_t *unreadable_out);
/* Where it begins in the file. */
uint64_t vev_ring_map_at(const vev_ring *ring, const vev_listed *listed);
/* How much of a map tells of so many records. */
uint32_t vev_map_bytes(uint32_t record_count);
/* What the map in memory says of a record. */
uint32_t vev_ring_state(const vev_ring *ring, const vev_lap *lap, uint32_t index);

/* Count a segment's records by state, from its map on disk, and those of the lost that were never
 * finished. With read_mutex held. */
vev_status vev_ring_count(vev_ring *ring, const vev_listed *listed, uint32_t record_count,
                          uint64_t counts[4], uint64_t *unfinished_out);
/* The same, and how much of the map could not be read. */
vev_status vev_ring_count_map(vev_ring *ring, const vev_listed *listed, uint32_t record_count,
                              uint64_t counts[4], uint64_t *unfinished_out,
                              uint64_t *unreadable_out);
/* What a sealed lap's tally says; false when it has none. */
bool vev_ring_read_tally(const vev_ring *ring, const vev_listed *listed, uint64_t counts[4]);
/* Count a sealed lap, by its tally if it has one; else by its map, and leave a tally (INV-14). */
vev_status vev_ring_count_sealed(vev_ring *ring, const vev_listed *listed, uint64_t counts[4],
                                 uint64_t *unfinished_out);
/* Take a lap's tally back; with a cell of it, if its map is then changed. Looking first: mostly
 * there is none, and a page that is not written to need not go to the flash. */
void vev_ring_forget_tally(const vev_ring *ring, uint32_t segment);
/* Mark indices [from, to) of a segment. With read_mutex held; inside a guard. */
vev_status vev_ring_mark_range(vev_ring *ring, const vev_listed *listed, const vev_lap *lap,
                               uint32_t from, uint32_t to, uint32_t state, bool only_pending,
                               size_t *changed);
/* What a jump out of vev_ring_mark_range() leaves. */
vev_status vev_ring_after_sigbus(vev_ring *ring);
/* How many records the newest segment holds, and how many bytes of it are used. */
vev_status vev_ring_measure_newest(vev_ring *ring, const vev_listed *newest, uint32_t *count_out,
                                   uint32_t *used_out);
vev_status vev_ring_mark(vev_ring *ring, const uint64_t *seqs, size_t seq_count, int state,
                         size_t *changed_out);

#endif
