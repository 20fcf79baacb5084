/* A disk in memory that can lose power, tear, reorder and fail.
 *
 * Every file has two images: the cache, into which mappings point and which all reads see, and the
 * disk, which gets what is synced and, at any time, whatever sectors it pleases. A power cut leaves
 * the disk plus any subset of the sectors (or pages) in which the two differ. */
#ifndef LAB_DISK_H
#define LAB_DISK_H

#include "vev_io.h"

enum { LAB_FILES = 24, LAB_SECTOR = 512, LAB_PAGE = 4096 };

typedef struct lab_file {
    char name[128];         /* "" when the entry is free or removed */
    char durable_name[128]; /* its name after a power cut; "" when it is not there then */
    uint64_t size;
    uint8_t *cache, *disk;
} lab_file;

typedef struct lab_disk {
    lab_file files[LAB_FILES];
    uint64_t random;      /* state of the generator */
    unsigned fail_one_in; /* 0: nothing fails; else every n-th operation on average */
    uint64_t failures;    /* injected so far */
} lab_disk;

lab_disk *lab_create(uint64_t seed);
void lab_free(lab_disk *disk);
void lab_io(lab_disk *disk, vev_io *io_out);

uint64_t lab_random(lab_disk *disk);
/* Let the disk take some dirty sectors by itself, as write-back does. `percent` of them. */
void lab_write_back(lab_disk *disk, unsigned percent);
/* How many units of `unit` bytes differ between cache and disk. */
size_t lab_dirty(const lab_disk *disk, size_t unit);
/* What a power cut leaves: a new disk with the durable names, and for each dirty unit either
 * image. `chosen` decides for unit number i; i counts dirty units in order of files. */
lab_disk *lab_power_cut(const lab_disk *disk, size_t unit, uint64_t seed,
                        bool (*chosen)(void *ctx, size_t i), void *ctx);
/* Find a file by its present name, NULL if absent. */
lab_file *lab_find(lab_disk *disk, const char *name);

#endif
