/* msgpack, both ways.
 *
 * Where the specification leaves a choice:
 *   - Integers from 0 on are written unsigned, below 0 signed, in the shortest of the forms.
 *   - Strings and binaries are told apart (the old "raw" is not written).
 *   - A reader need not find the shortest form. Nothing here looks for duplicate keys of a map.
 */
#include "vev_msgpack.h"

#include "vev_base.h"

/* ---------------------------------------------------------------------------------- writer */

void vev_msgpack_writer_init(vev_msgpack_writer *w, void *buffer, size_t cap)
{
    *w = (vev_msgpack_writer){.data = buffer, .size = 0, .cap = cap, .status = VEV_OK};
}

/* Room for `size` more bytes, or NULL when there is none or an earlier call had none. */
static uint8_t *take(vev_msgpack_writer *w, size_t size)
{
    VEV_ASSERT(w->size <= w->cap);
    if (VEV_UNLIKELY(w->status != VEV_OK))
        return NULL;
    if (VEV_UNLIKELY(size > w->cap - w->size)) {
        w->status = VEV_E_TOO_BIG;
        return NULL;
    }
    uint8_t *p = w->data + w->size;
    w->size += size;
    return p;
}

static void store_be(uint8_t *p, uint64_t value, unsigned width)
{
    for (unsigned i = 0; i < width; i++)
        p[i] = (uint8_t)(value >> (8 * (width - 1 - i)));
}

/* One byte that says the type, then `value` in `width` bytes. */
static void put(vev_msgpack_writer *w, uint8_t type, uint64_t value, unsigned width)
{
    uint8_t *p = take(w, 1 + (size_t)width);
    if (p == NULL)
        return;
    p[0] = type;
    store_be(p + 1, value, width);
}

void vev_msgpack_write_nil(vev_msgpack_writer *w) { put(w, 0xc0, 0, 0); }

void vev_msgpack_write_bool(vev_msgpack_writer *w, bool value)
{
    put(w, value ? 0xc3 : 0xc2, 0, 0);
}

void vev_msgpack_write_uint(vev_msgpack_writer *w, uint64_t value)
{
    if (value < 0x80)
        put(w, (uint8_t)value, 0, 0);
    else if (value <= UINT8_MAX)
        put(w, 0xcc, value, 1);
    else if (value <= UINT16_MAX)
        put(w, 0xcd, value, 2);
    else if (value <= UINT32_MAX)
        put(w, 0xce, value, 4);
    else
        put(w, 0xcf, value, 8);
}

void vev_msgpack_write_int(vev_msgpack_writer *w, int64_t value)
{
    uint64_t bits = (uint64_t)value;
    if (value >= 0)
        vev_msgpack_write_uint(w, bits);
    else if (value >= -32)
        put(w, (uint8_t)bits, 0, 0);
    else if (value >= INT8_MIN)
        put(w, 0xd0, bits, 1);
    else if (value >= INT16_MIN)
        put(w, 0xd1, bits, 2);
    else if (value >= INT32_MIN)
        put(w, 0xd2, bits, 4);
    else
        put(w, 0xd3, bits, 8);
}

void vev_msgpack_write_float32(vev_msgpack_writer *w, float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    put(w, 0xca, bits, 4);
}

void vev_msgpack_write_float64(vev_msgpack_writer *w, double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    put(w, 0xcb, bits, 8);
}

/* A type byte and a size of 1, 2 or 4 bytes: `type8` begins three types that stand together. */
static void put_size(vev_msgpack_writer *w, uint8_t type8, size_t size)
{
    if (size <= UINT8_MAX)
        put(w, type8, size, 1);
    else if (size <= UINT16_MAX)
        put(w, (uint8_t)(type8 + 1), size, 2);
    else
        put(w, (uint8_t)(type8 + 2), size, 4);
}

/* msgpack sizes have 32 bits. (Shifted, because compilers for 32 bits know the plain
 * comparison.) */
static bool size_fits(vev_msgpack_writer *w, size_t size)
{
    if (w->status == VEV_OK && size >> 16 > UINT16_MAX)
        w->status = VEV_E_TOO_BIG;
    return w->status == VEV_OK;
}

void vev_msgpack_write_str(vev_msgpack_writer *w, const char *text, size_t size)
{
    if (!size_fits(w, size))
        return;
    if (size < 32)
        put(w, (uint8_t)(0xa0 | size), 0, 0);
    else
        put_size(w, 0xd9, size);
    vev_msgpack_write_raw(w, text, size);
}

void vev_msgpack_write_bin(vev_msgpack_writer *w, const void *data, size_t size)
{
    if (!size_fits(w, size))
        return;
    put_size(w, 0xc4, size);
    vev_msgpack_write_raw(w, data, size);
}

void vev_msgpack_write_array(vev_msgpack_writer *w, uint32_t count)
{
    if (count < 16)
        put(w, (uint8_t)(0x90 | count), 0, 0);
    else if (count <= UINT16_MAX)
        put(w, 0xdc, count, 2);
    else
        put(w, 0xdd, count, 4);
}

void vev_msgpack_write_map(vev_msgpack_writer *w, uint32_t count)
{
    if (count < 16)
        put(w, (uint8_t)(0x80 | count), 0, 0);
    else if (count <= UINT16_MAX)
        put(w, 0xde, count, 2);
    else
        put(w, 0xdf, count, 4);
}

void vev_msgpack_write_raw(vev_msgpack_writer *w, const void *data, size_t size)
{
    if (size == 0)
        return; /* data may be NULL then */
    uint8_t *p = take(w, size);
    if (p != NULL)
        memcpy(p, data, size);
}

/* ---------------------------------------------------------------------------------- reader */

typedef enum {
    FORM_BAD,
    FORM_LEAF,  /* `width` bytes follow */
    FORM_STR,   /* a size of `width` bytes follows, then text */
    FORM_BIN,   /* a size, then bytes */
    FORM_EXT,   /* a size, one byte for the type, then bytes */
    FORM_ARRAY, /* a count, then elements */
    FORM_MAP    /* a count, then pairs */
} form;

/* The type bytes 0xc0 .. 0xdf; all others carry their value or size in themselves. */
static const struct {
    uint8_t form, width;
} forms[32] = {
    {FORM_LEAF, 0},                                  /* c0  nil */
    {FORM_BAD, 0},                                   /* c1  never used */
    {FORM_LEAF, 0},                                  /* c2  false */
    {FORM_LEAF, 0},                                  /* c3  true */
    {FORM_BIN, 1},                                   /* c4  bin 8, 16, 32 */
    {FORM_BIN, 2},   {FORM_BIN, 4},  {FORM_EXT, 1},  /* c7  ext 8, 16, 32 */
    {FORM_EXT, 2},   {FORM_EXT, 4},  {FORM_LEAF, 4}, /* ca  float 32, 64 */
    {FORM_LEAF, 8},  {FORM_LEAF, 1},                 /* cc  uint 8, 16, 32, 64 */
    {FORM_LEAF, 2},  {FORM_LEAF, 4}, {FORM_LEAF, 8},
    {FORM_LEAF, 1}, /* d0  int 8, 16, 32, 64 */
    {FORM_LEAF, 2},  {FORM_LEAF, 4}, {FORM_LEAF, 8},
    {FORM_LEAF, 2}, /* d4  fixext 1, 2, 4, 8, 16, each with a byte for its type */
    {FORM_LEAF, 3},  {FORM_LEAF, 5}, {FORM_LEAF, 9},
    {FORM_LEAF, 17}, {FORM_STR, 1},                   /* d9  str 8, 16, 32 */
    {FORM_STR, 2},   {FORM_STR, 4},  {FORM_ARRAY, 2}, /* dc  array 16, 32 */
    {FORM_ARRAY, 4}, {FORM_MAP, 2},                   /* de  map 16, 32 */
    {FORM_MAP, 4},
};

static uint64_t load_be(const uint8_t *p, unsigned width)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < width; i++)
        value = value << 8 | p[i];
    return value;
}

/* One value without its elements: `size` bytes at the front, then `count` values belong to it. */
typedef struct {
    size_t size;
    uint64_t count;
    bool container;
} item;

/* Read the item at p, of which `avail` > 0 bytes may be looked at. */
static bool read_item(const uint8_t *p, size_t avail, item *out)
{
    uint8_t type = p[0];
    form f = FORM_LEAF;
    size_t head = 1;
    uint64_t n = 0; /* bytes behind the head, or elements */
    if (type < 0x80 || type >= 0xe0) {
        /* a small integer */
    } else if (type < 0x90) {
        f = FORM_MAP;
        n = type & 15u;
    } else if (type < 0xa0) {
        f = FORM_ARRAY;
        n = type & 15u;
    } else if (type < 0xc0) {
        f = FORM_STR;
        n = type & 31u;
    } else {
        f = (form)forms[type - 0xc0].form;
        unsigned width = forms[type - 0xc0].width;
        if (f == FORM_LEAF) {
            n = width;
        } else {
            if (avail - 1 < width)
                return false;
            head += width;
            n = load_be(p + 1, width);
        }
    }
    out->container = f == FORM_ARRAY || f == FORM_MAP;
    if (out->container) {
        out->size = head;
        out->count = f == FORM_MAP ? 2 * n : n;
        /* An element takes at least a byte, so a count beyond the rest is a lie. */
        return out->count <= avail - head;
    }
    if (f == FORM_EXT)
        n++;
    if (f == FORM_BAD || n > avail - head)
        return false;
    if (f == FORM_STR && !vev_msgpack_utf8_check(p + head, (size_t)n, NULL))
        return false;
    out->size = head + (size_t)n;
    out->count = 0;
    return true;
}

/* The type and value of a number or a boolean, which are `width` bytes behind the type byte. */
static void read_leaf(const uint8_t *p, unsigned width, vev_msgpack_item *out)
{
    uint8_t type = p[0];
    uint64_t bits = load_be(p + 1, width);
    out->u = bits;
    if (type == 0xc2 || type == 0xc3) {
        out->type = VEV_MSGPACK_BOOL;
        out->u = type & 1u;
    } else if (type == 0xca) {
        uint32_t bits32 = (uint32_t)bits;
        float value;
        memcpy(&value, &bits32, sizeof value);
        out->type = VEV_MSGPACK_FLOAT32;
        out->real = (double)value;
    } else if (type == 0xcb) {
        out->type = VEV_MSGPACK_FLOAT64;
        memcpy(&out->real, &bits, sizeof out->real);
    } else if (type >= 0xcc && type <= 0xcf) {
        out->type = VEV_MSGPACK_UINT;
    } else if (type >= 0xd0 && type <= 0xd3) {
        unsigned unused = 64 - 8 * width;
        out->i = (int64_t)(bits << unused) >> unused; /* with its sign */
        out->type = out->i < 0 ? VEV_MSGPACK_INT : VEV_MSGPACK_UINT;
    }
}

size_t vev_msgpack_read(const void *data, size_t size, vev_msgpack_item *out)
{
    const uint8_t *p = data;
    item it;
    out->type = VEV_MSGPACK_BAD;
    if (size == 0 || !read_item(p, size, &it))
        return 0;
    uint8_t type = p[0];
    out->type = VEV_MSGPACK_OTHER;
    if (type < 0x80) {
        out->type = VEV_MSGPACK_UINT;
        out->u = type;
    } else if (type >= 0xe0) {
        out->type = VEV_MSGPACK_INT;
        out->i = (int8_t)type;
    } else if (it.container) {
        bool is_map = type < 0x90 || type >= 0xde;
        out->type = is_map ? VEV_MSGPACK_MAP : VEV_MSGPACK_ARRAY;
        out->count = (uint32_t)(is_map ? it.count / 2 : it.count);
    } else if (type < 0xc0 || (type >= 0xd9 && type <= 0xdb)) {
        size_t head = type < 0xc0 ? 1 : 1u + forms[type - 0xc0].width;
        out->type = VEV_MSGPACK_STR;
        out->text = (const char *)p + head;
        out->count = (uint32_t)(it.size - head);
    } else if (forms[type - 0xc0].form == FORM_LEAF && forms[type - 0xc0].width <= 8) {
        read_leaf(p, forms[type - 0xc0].width, out);
    }
    return it.size;
}

size_t vev_msgpack_value_size(const void *data, size_t size)
{
    const uint8_t *p = data;
    size_t at = 0;
    uint64_t missing[VEV_MSGPACK_DEPTH_MAX + 1]; /* values still to come, by depth */
    unsigned depth = 0;
    missing[0] = 1;
    for (;;) {
        while (missing[depth] == 0) {
            if (depth == 0)
                return at;
            depth--;
        }
        item it;
        if (at == size || !read_item(p + at, size - at, &it))
            return 0;
        missing[depth]--;
        at += it.size;
        if (it.container) {
            if (depth == VEV_MSGPACK_DEPTH_MAX)
                return 0;
            missing[++depth] = it.count;
        }
    }
}

vev_status vev_msgpack_validate(const void *data, size_t size)
{
    return size != 0 && vev_msgpack_value_size(data, size) == size ? VEV_OK : VEV_E_INVALID;
}

/* Size of the sequence of two to four bytes at p, or 0. Its first byte has the high bit set. */
static size_t utf8_sequence(const uint8_t *p, size_t avail)
{
    uint8_t lead = p[0];
    size_t size = lead >= 0xc2 && lead <= 0xdf   ? 2
                  : lead >= 0xe0 && lead <= 0xef ? 3
                  : lead >= 0xf0 && lead <= 0xf4 ? 4
                                                 : 0;
    if (size == 0 || size > avail)
        return 0;
    /* The second byte decides on overlong forms, surrogates and what is above U+10FFFF. */
    uint8_t low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
    uint8_t high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
    if (p[1] < low || p[1] > high)
        return 0;
    for (size_t i = 2; i < size; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    }
    return size;
}

bool vev_msgpack_utf8_check(const void *text, size_t size, size_t *chars_out)
{
    const uint8_t *p = text;
    size_t at = 0, chars = 0;
    while (at < size) {
        if (size - at >= 8 && (vev_load64(p + at) & 0x8080808080808080u) == 0) {
            at += 8;
            chars += 8;
            continue;
        }
        size_t n = p[at] < 0x80 ? 1 : utf8_sequence(p + at, size - at);
        if (n == 0)
            return false;
        at += n;
        chars++;
    }
    if (chars_out != NULL)
        *chars_out = chars;
    return true;
}
