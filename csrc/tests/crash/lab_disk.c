/* See lab_disk.h. */
#include "lab_disk.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

uint64_t lab_random(lab_disk *disk)
{
    uint64_t x = disk->random += 0x9e3779b97f4a7c15ull;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ x >> 27) * 0x94d049bb133111ebull;
    return x ^ x >> 31;
}

lab_disk *lab_create(uint64_t seed)
{
    lab_disk *disk = calloc(1, sizeof *disk);
    if (!disk)
        abort();
    disk->random = seed;
    return disk;
}

void lab_free(lab_disk *disk)
{
    if (!disk)
        return;
    for (int i = 0; i < LAB_FILES; i++) {
        free(disk->files[i].cache);
        free(disk->files[i].disk);
    }
    free(disk);
}

lab_file *lab_find(lab_disk *disk, const char *name)
{
    for (int i = 0; i < LAB_FILES; i++)
        if (disk->files[i].name[0] && strcmp(disk->files[i].name, name) == 0)
            return &disk->files[i];
    return NULL;
}

static bool fails(lab_disk *disk)
{
    if (disk->fail_one_in == 0 || lab_random(disk) % disk->fail_one_in != 0)
        return false;
    disk->failures++;
    return true;
}

static void resize(lab_file *file, uint64_t new_size)
{
    if (new_size <= file->size)
        return;
    size_t old = (size_t)file->size, size = (size_t)new_size;
    file->cache = realloc(file->cache, size);
    file->disk = realloc(file->disk, size);
    if (!file->cache || !file->disk)
        abort();
    memset(file->cache + old, 0, size - old);
    memset(file->disk + old, 0, size - old);
    file->size = size;
}

static vev_status disk_open(void *ctx, const char *path, int mode, int *fd_out)
{
    lab_disk *disk = ctx;
    lab_file *file = lab_find(disk, path);
    if (mode & VEV_FILE_CREATE) {
        if (file)
            return EEXIST;
        if (fails(disk))
            return ENOSPC;
        for (int i = 0; i < LAB_FILES && !file; i++)
            if (!disk->files[i].name[0] && !disk->files[i].durable_name[0])
                file = &disk->files[i];
        if (!file)
            return ENOSPC;
        free(file->cache);
        free(file->disk);
        memset(file, 0, sizeof *file);
        snprintf(file->name, sizeof file->name, "%s", path);
    }
    if (!file)
        return ENOENT;
    *fd_out = (int)(file - disk->files);
    return 0;
}

static void disk_close(void *ctx, int fd)
{
    (void)ctx;
    (void)fd;
}

static vev_status disk_examine(void *ctx, int fd, vev_file_facts *facts_out)
{
    *facts_out =
        (vev_file_facts){.size = ((lab_disk *)ctx)->files[fd].size, .identity = 1 + (uint64_t)fd};
    return 0;
}

static vev_status disk_allocate(void *ctx, int fd, uint64_t size)
{
    if (fails(ctx))
        return ENOSPC;
    resize(&((lab_disk *)ctx)->files[fd], size);
    return 0;
}

static vev_status disk_read(void *ctx, int fd, uint64_t offset, void *buffer, size_t size)
{
    lab_file *file = &((lab_disk *)ctx)->files[fd];
    if (offset + size > file->size)
        return EIO;
    memcpy(buffer, file->cache + offset, size);
    return 0;
}

static vev_status disk_write(void *ctx, int fd, uint64_t offset, const void *data, size_t size)
{
    if (fails(ctx))
        return EIO;
    lab_file *file = &((lab_disk *)ctx)->files[fd];
    resize(file, offset + size);
    memcpy(file->cache + offset, data, size);
    return 0;
}

/* As tight as it may be. */
static uint64_t disk_content(void *ctx, int fd, uint64_t offset, uint64_t size)
{
    const lab_file *file = &((lab_disk *)ctx)->files[fd];
    uint64_t end = VEV_MIN(offset + size, file->size);
    while (end > offset && file->cache[end - 1] == 0)
        end--;
    return end - offset;
}

static void disk_hint(void *ctx, int fd, uint64_t offset, uint64_t size)
{
    (void)ctx;
    (void)fd;
    (void)offset;
    (void)size;
}

/* Bring sectors of a range to the disk, each with the given chance in percent. */
static void settle(lab_disk *disk, lab_file *file, uint64_t from, uint64_t to, unsigned percent)
{
    for (uint64_t at = from / LAB_SECTOR * LAB_SECTOR; at < to; at += LAB_SECTOR)
        if (percent >= 100 || (memcmp(file->disk + at, file->cache + at, LAB_SECTOR) != 0 &&
                               lab_random(disk) % 100 < percent))
            memcpy(file->disk + at, file->cache + at, LAB_SECTOR);
}

static vev_status sync_range(lab_disk *disk, lab_file *file, uint64_t from, uint64_t to)
{
    if (fails(disk)) {
        settle(disk, file, from, to, (unsigned)(lab_random(disk) % 100));
        return EIO;
    }
    settle(disk, file, from, to, 100);
    return 0;
}

static vev_status disk_sync(void *ctx, int fd)
{
    lab_file *file = &((lab_disk *)ctx)->files[fd];
    return sync_range(ctx, file, 0, file->size);
}

static vev_status disk_map(void *ctx, int fd, uint64_t offset, size_t size, bool writable,
                           uint8_t **base_out)
{
    (void)writable;
    lab_file *file = &((lab_disk *)ctx)->files[fd];
    if (fails(ctx))
        return ENOMEM;
    if (offset + size > file->size)
        return EINVAL;
    *base_out = file->cache + offset;
    return 0;
}

static void disk_unmap(void *ctx, uint8_t *base, size_t size)
{
    (void)ctx;
    (void)base;
    (void)size;
}

static vev_status disk_sync_map(void *ctx, uint8_t *start, size_t size)
{
    lab_disk *disk = ctx;
    for (int i = 0; i < LAB_FILES; i++) {
        lab_file *file = &disk->files[i];
        if (file->cache && start >= file->cache && start < file->cache + file->size) {
            uint64_t from = (uint64_t)(start - file->cache) / LAB_PAGE * LAB_PAGE;
            uint64_t to = vev_align_up((uint64_t)(start - file->cache) + size, LAB_PAGE);
            return sync_range(disk, file, from, VEV_MIN(to, file->size));
        }
    }
    return EINVAL;
}

static void disk_pages(void *ctx, uint8_t *start, size_t size)
{
    (void)ctx;
    (void)start;
    (void)size;
}

static vev_status disk_lock(void *ctx, int fd, uint64_t offset, int kind)
{
    (void)ctx;
    (void)fd;
    (void)offset;
    (void)kind;
    return 0;
}

static bool disk_is_locked(void *ctx, int fd, uint64_t offset)
{
    (void)ctx;
    (void)fd;
    (void)offset;
    return false;
}

static vev_status disk_make_dir(void *ctx, const char *path)
{
    (void)ctx;
    (void)path;
    return 0;
}

static vev_status disk_lock_dir(void *ctx, const char *path, int *fd_out)
{
    (void)ctx;
    (void)path;
    *fd_out = LAB_FILES;
    return 0;
}

static vev_status disk_sync_dir(void *ctx, const char *path)
{
    (void)path;
    lab_disk *disk = ctx;
    if (fails(disk))
        return EIO;
    for (int i = 0; i < LAB_FILES; i++)
        memcpy(disk->files[i].durable_name, disk->files[i].name, sizeof disk->files[i].name);
    return 0;
}

static vev_status disk_rename(void *ctx, const char *from, const char *to)
{
    lab_disk *disk = ctx;
    lab_file *file = lab_find(disk, from), *victim = lab_find(disk, to);
    if (!file)
        return ENOENT;
    if (fails(disk))
        return EIO;
    if (victim)
        victim->name[0] = '\0';
    snprintf(file->name, sizeof file->name, "%s", to);
    return 0;
}

static vev_status disk_remove(void *ctx, const char *path)
{
    lab_file *file = lab_find(ctx, path);
    if (file)
        file->name[0] = '\0';
    return 0;
}

void lab_io(lab_disk *disk, vev_io *io_out)
{
    *io_out = (vev_io){.ctx = disk,
                       .open = disk_open,
                       .close = disk_close,
                       .examine = disk_examine,
                       .allocate = disk_allocate,
                       .read = disk_read,
                       .write = disk_write,
                       .content = disk_content,
                       .prefetch = disk_hint,
                       .forget = disk_hint,
                       .sync = disk_sync,
                       .map = disk_map,
                       .unmap = disk_unmap,
                       .sync_map = disk_sync_map,
                       .touch = disk_pages,
                       .rest = disk_pages,
                       .lock = disk_lock,
                       .is_locked = disk_is_locked,
                       .make_dir = disk_make_dir,
                       .lock_dir = disk_lock_dir,
                       .sync_dir = disk_sync_dir,
                       .rename = disk_rename,
                       .remove = disk_remove};
}

void lab_write_back(lab_disk *disk, unsigned percent)
{
    for (int i = 0; i < LAB_FILES; i++)
        if (disk->files[i].cache)
            settle(disk, &disk->files[i], 0, disk->files[i].size, VEV_MIN(percent, 99u));
}

size_t lab_dirty(const lab_disk *disk, size_t unit)
{
    size_t count = 0;
    for (int i = 0; i < LAB_FILES; i++) {
        const lab_file *file = &disk->files[i];
        for (uint64_t at = 0; file->durable_name[0] && at < file->size; at += unit)
            count += memcmp(file->disk + at, file->cache + at, unit) != 0;
    }
    return count;
}

lab_disk *lab_power_cut(const lab_disk *disk, size_t unit, uint64_t seed,
                        bool (*chosen)(void *ctx, size_t i), void *ctx)
{
    lab_disk *after = lab_create(seed);
    size_t count = 0;
    for (int i = 0; i < LAB_FILES; i++) {
        const lab_file *before = &disk->files[i];
        lab_file *file = &after->files[i];
        if (!before->durable_name[0])
            continue;
        snprintf(file->name, sizeof file->name, "%s", before->durable_name);
        snprintf(file->durable_name, sizeof file->durable_name, "%s", before->durable_name);
        size_t size = (size_t)before->size;
        file->size = size;
        file->disk = malloc(size);
        file->cache = malloc(size);
        if (!file->disk || !file->cache)
            abort();
        memcpy(file->disk, before->disk, size);
        for (uint64_t at = 0; at < size; at += unit)
            if (memcmp(before->disk + at, before->cache + at, unit) != 0 && chosen(ctx, count++))
                memcpy(file->disk + at, before->cache + at, unit);
        memcpy(file->cache, file->disk, size);
    }
    return after;
}
