/* Dictionaries: held while a span, the reader or the ring uses them, and the next one made of what
 * was appended lately. */
#include "vev_dictionary.h"

#include <stdlib.h>
#include <string.h>

#include "vev_crc32c.h"

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

void vev_ring_take_sample(vev_samples *samples, const void *payload, size_t size)
{
    if (atomic_exchange_explicit(&samples->busy, true, memory_order_acquire))
        return;
    size = VEV_MIN(size, (size_t)VEV_SAMPLE_SIZE);
    uint32_t at = samples->next++ % VEV_SAMPLE_COUNT;
    memcpy(samples->bytes[at], payload, size);
    samples->sizes[at] = (uint16_t)size;
    atomic_store_explicit(&samples->busy, false, memory_order_release);
}

void vev_ring_prepare_dictionary(vev_ring *ring)
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
