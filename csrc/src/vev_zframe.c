/* One record on its way into a frame:
 *
 *     find matches in the record itself and in the dictionary -> sequences -> a block: literals by
 *     the Huffman code, sequences by the FSE codes, or the bytes as they are if that is shorter
 *
 * A block ends early enough that its literals are one stream and its sequences fit the space.
 *
 * INV-Z1  Between blocks, `repeats` and `predefined` are what a decoder has at that point.
 * INV-Z2  Literals of a block, those behind its last sequence included, are at most
 *         LITERALS_MAX. */
#include "vev_zframe.h"

enum {
    LITERALS_MAX = 1023, /* as many as a header of one stream can say */
    LENGTH_MAX = 16384,
    BLOCK_MAX = 65536, /* where a block ends; less than 131,072 with the longest match behind it */
    RUN_MAX = 4096,    /* literals, after which patience does not shrink any more */
    WINDOW_LOG_MIN = 10,
    MATCH_MIN = 3, /* of the format */
};

enum { BLOCK_RAW = 0, BLOCK_COMPRESSED = 2 };
enum { LITERALS_RAW = 0, LITERALS_TREELESS = 3 };
enum { CODES_PREDEFINED = 0, CODES_REPEAT = 3 };

typedef struct frame {
    const vev_zmodel *model;
    const uint8_t *begin; /* the record */
    size_t size;
    uint8_t *out;
    uint32_t repeats[3];
    /* Whether a decoder's table is the format's, not the model's. */
    bool predefined[VEV_ZPART_COUNT];
    /* The block so far. */
    size_t block; /* where it begins in the record */
    vev_zsequence *sequences;
    uint32_t sequence_count, literal_count;
    uint64_t used[VEV_ZPART_COUNT]; /* codes of the sequences */
    uint32_t repeats_before[3];
} frame;

typedef struct match {
    size_t at; /* in the record */
    uint32_t length, distance;
} match;

/* The heads of blocks and of literals. */
static void store24(uint8_t *at, uint32_t head)
{
    vev_store16(at, (uint16_t)head);
    at[2] = (uint8_t)(head >> 16);
}

/* ---- bits, from the lowest up ---- */

typedef struct bit_writer {
    uint64_t bits;
    uint32_t count;
    uint8_t *at;
} bit_writer;

static inline void put(bit_writer *w, uint64_t value, uint32_t count)
{
    w->bits |= value << w->count;
    w->count += count;
}

/* Leaves at most 7 bits; up to 56 may be put before the next. */
static inline void flush(bit_writer *w)
{
    vev_store64(w->at, w->bits);
    w->at += w->count >> 3;
    w->bits >>= w->count & ~7u;
    w->count &= 7;
}

/* A reader begins behind the last bit that is set. */
static uint8_t *finish(bit_writer *w)
{
    put(w, 1, 1);
    flush(w);
    return w->at + (w->count > 0);
}

/* ---- literals ---- */

/* Encode bytes from the last to the first. */
static inline void put_literals(bit_writer *w, const vev_zhuf *codes, const uint8_t *begin,
                                const uint8_t *end)
{
    while (end - begin >= 4) {
        vev_zhuf a = codes[end[-1]], b = codes[end[-2]], c = codes[end[-3]], d = codes[end[-4]];
        put(w, a.code, a.bits);
        put(w, b.code, b.bits);
        put(w, c.code, c.bits);
        put(w, d.code, d.bits);
        flush(w);
        end -= 4;
    }
    while (end > begin) {
        vev_zhuf a = codes[*--end];
        put(w, a.code, a.bits);
    }
    flush(w);
}

static uint8_t *write_literals(const frame *f, size_t block_end, uint8_t *out)
{
    uint32_t count = f->literal_count, tail = count;
    for (uint32_t i = 0; i < f->sequence_count; i++)
        tail -= f->sequences[i].literals;

    bit_writer w = {.at = out + 3};
    const uint8_t *end = f->begin + block_end, *at = end - tail;
    put_literals(&w, f->model->literals, at, end);
    for (uint32_t i = f->sequence_count; i-- > 0;) {
        const uint8_t *run_end = at - f->sequences[i].length;
        at = run_end - f->sequences[i].literals;
        put_literals(&w, f->model->literals, at, run_end);
    }
    uint8_t *coded_end = finish(&w);
    uint32_t coded = (uint32_t)(coded_end - out) - 3;
    if (coded + 3 < count + (count < 32 ? 1 : 2) && coded <= LITERALS_MAX) {
        uint32_t head = LITERALS_TREELESS | count << 4 | coded << 14;
        store24(out, head);
        return coded_end;
    }

    if (count < 32) {
        *out++ = (uint8_t)(LITERALS_RAW | count << 3);
    } else {
        vev_store16(out, (uint16_t)(LITERALS_RAW | 1u << 2 | count << 4));
        out += 2;
    }
    at = f->begin + f->block;
    for (uint32_t i = 0; i < f->sequence_count; i++) {
        memcpy(out, at, f->sequences[i].literals);
        out += f->sequences[i].literals;
        at += f->sequences[i].literals + f->sequences[i].length;
    }
    memcpy(out, at, tail);
    return out + tail;
}

/* ---- sequences ---- */

/* The codes of what is too short for a power of two each (RFC 8878, section 3.1.1.3.2.1.1). */
static const uint8_t literals_codes[64] = {
    0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15, 16, 16, 17, 17, 18, 18,
    19, 19, 20, 20, 20, 20, 21, 21, 21, 21, 22, 22, 22, 22, 22, 22, 22, 22, 23, 23, 23, 23,
    23, 23, 23, 23, 24, 24, 24, 24, 24, 24, 24, 24, 24, 24, 24, 24, 24, 24, 24, 24};
static const uint8_t lengths_codes[128] = {
    0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21,
    22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 32, 33, 33, 34, 34, 35, 35, 36, 36, 36, 36,
    37, 37, 37, 37, 38, 38, 38, 38, 38, 38, 38, 38, 39, 39, 39, 39, 39, 39, 39, 39, 40, 40,
    40, 40, 40, 40, 40, 40, 40, 40, 40, 40, 40, 40, 40, 40, 41, 41, 41, 41, 41, 41, 41, 41,
    41, 41, 41, 41, 41, 41, 41, 41, 42, 42, 42, 42, 42, 42, 42, 42, 42, 42, 42, 42, 42, 42,
    42, 42, 42, 42, 42, 42, 42, 42, 42, 42, 42, 42, 42, 42, 42, 42, 42, 42};
/* How many bits follow each code; they are the lowest ones of the value, for every code begins at a
 * multiple of its size. */
static const uint8_t literals_bits[36] = {0, 0, 0, 0, 0, 0,  0,  0,  0,  0,  0,  0,
                                          0, 0, 0, 0, 1, 1,  1,  1,  2,  2,  3,  3,
                                          4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
static const uint8_t lengths_bits[53] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,  0,  0,  0,  0,  0,  0, 0,
                                         0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,  0,  0,  0,  1,  1,  1, 1,
                                         2, 2, 3, 3, 4, 4, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};

static inline uint32_t literals_code(uint32_t value)
{
    return value < 64 ? literals_codes[value] : vev_high_bit(value) + 19;
}

static inline uint32_t lengths_code(uint32_t value)
{
    return value < 128 ? lengths_codes[value] : vev_high_bit(value) + 36;
}

static inline uint32_t first_state(const vev_zfse *code, uint32_t symbol)
{
    uint32_t bits = (code->symbols[symbol].bits + (1u << 15)) >> 16;
    uint32_t value = (bits << 16) - code->symbols[symbol].bits;
    return code->states[(int32_t)(value >> bits) + code->symbols[symbol].states];
}

static inline uint32_t next_state(bit_writer *w, const vev_zfse *code, uint32_t state,
                                  uint32_t symbol)
{
    uint32_t bits = (state + code->symbols[symbol].bits) >> 16;
    put(w, state & ((1u << bits) - 1), bits);
    return code->states[(int32_t)(state >> bits) + code->symbols[symbol].states];
}

static inline void put_state(bit_writer *w, const vev_zfse *code, uint32_t state)
{
    put(w, state & ((1u << code->log) - 1), code->log);
}

/* The bits behind the codes of a sequence. */
static inline void put_rest(bit_writer *w, const vev_zsequence *s)
{
    uint32_t bits = literals_bits[s->codes[VEV_ZLITERALS]];
    put(w, s->literals & ((1u << bits) - 1), bits);
    bits = lengths_bits[s->codes[VEV_ZLENGTHS]];
    put(w, (s->length - (uint32_t)MATCH_MIN) & ((1u << bits) - 1), bits);
    flush(w);
    bits = s->codes[VEV_ZOFFSETS];
    put(w, s->offset & ((1u << bits) - 1), bits);
}

static uint8_t *write_sequences(frame *f, uint8_t *out)
{
    uint32_t count = f->sequence_count;
    if (count < 128) {
        *out++ = (uint8_t)count;
    } else {
        *out++ = (uint8_t)((count >> 8) + 128);
        *out++ = (uint8_t)count;
    }
    if (count == 0)
        return out;

    const vev_zfse *codes[VEV_ZPART_COUNT];
    uint32_t modes[VEV_ZPART_COUNT];
    for (uint32_t part = 0; part < VEV_ZPART_COUNT; part++) {
        const vev_zfse *trained = &f->model->trained[part];
        modes[part] = CODES_REPEAT;
        if (!f->predefined[part] && (f->used[part] & ~trained->known) != 0) {
            f->predefined[part] = true;
            modes[part] = CODES_PREDEFINED;
        }
        codes[part] = f->predefined[part] ? &f->model->predefined[part] : trained;
    }
    *out++ =
        (uint8_t)(modes[VEV_ZLITERALS] << 6 | modes[VEV_ZOFFSETS] << 4 | modes[VEV_ZLENGTHS] << 2);

    bit_writer w = {.at = out};
    const vev_zsequence *s = &f->sequences[count - 1];
    uint32_t states[VEV_ZPART_COUNT];
    for (uint32_t part = 0; part < VEV_ZPART_COUNT; part++)
        states[part] = first_state(codes[part], s->codes[part]);
    put_rest(&w, s);
    while (s != f->sequences) {
        s--;
        flush(&w);
        for (uint32_t part = 0; part < VEV_ZPART_COUNT; part++)
            states[part] = next_state(&w, codes[part], states[part], s->codes[part]);
        put_rest(&w, s);
    }
    flush(&w);
    /* A reader begins with what is written last. */
    put_state(&w, codes[VEV_ZLENGTHS], states[VEV_ZLENGTHS]);
    put_state(&w, codes[VEV_ZOFFSETS], states[VEV_ZOFFSETS]);
    put_state(&w, codes[VEV_ZLITERALS], states[VEV_ZLITERALS]);
    return finish(&w);
}

/* ---- blocks ---- */

static void write_block(frame *f, size_t end, bool last)
{
    size_t size = end - f->block;
    bool predefined_before[VEV_ZPART_COUNT];
    memcpy(predefined_before, f->predefined, sizeof predefined_before);
    uint8_t *content = f->out + 3;
    uint8_t *out = write_sequences(f, write_literals(f, end, content));
    uint32_t type = BLOCK_COMPRESSED;
    if ((size_t)(out - content) >= size) {
        type = BLOCK_RAW;
        memcpy(content, f->begin + f->block, size);
        out = content + size;
        memcpy(f->repeats, f->repeats_before, sizeof f->repeats); /* INV-Z1 */
        memcpy(f->predefined, predefined_before, sizeof f->predefined);
    }
    uint32_t head = (last ? 1u : 0u) | type << 1 | (uint32_t)(out - content) << 3;
    store24(f->out, head);
    f->out = out;
    f->block = end;
    f->sequence_count = f->literal_count = 0;
    memset(f->used, 0, sizeof f->used);
    memcpy(f->repeats_before, f->repeats, sizeof f->repeats);
}

/* Take in literals that end at `end`, at the end of blocks as long as there are too many (INV-Z2).
 * Returns how many are left for the present block. */
static uint32_t take_literals(frame *f, size_t begin, size_t end)
{
    while (end - begin > LITERALS_MAX - f->literal_count) {
        begin += LITERALS_MAX - f->literal_count;
        f->literal_count = LITERALS_MAX;
        write_block(f, begin, false);
    }
    f->literal_count += (uint32_t)(end - begin);
    return (uint32_t)(end - begin);
}

/* How a distance is written, and what is repeated afterwards. */
static uint32_t take_offset(uint32_t repeats[3], uint32_t distance, bool literals)
{
    uint32_t first = repeats[0], second = repeats[1], third = repeats[2];
    uint32_t shift = literals ? 0 : 1;
    if (distance == first && literals)
        return 1;
    repeats[0] = distance;
    repeats[1] = first;
    if (distance == second)
        return 2 - shift;
    repeats[2] = second;
    if (distance == third)
        return 3 - shift;
    if (!literals && distance == first - 1)
        return 3;
    return distance + 3;
}

static void take_match(frame *f, size_t anchor, const match *m)
{
    if (f->sequence_count == VEV_ZSEQUENCES_MAX || anchor - f->block >= BLOCK_MAX)
        write_block(f, anchor, false);
    uint32_t literals = take_literals(f, anchor, m->at);
    vev_zsequence *s = &f->sequences[f->sequence_count++];
    s->literals = (uint16_t)literals;
    s->length = (uint16_t)m->length;
    s->offset = take_offset(f->repeats, m->distance, literals != 0);
    s->codes[VEV_ZOFFSETS] = (uint8_t)vev_high_bit(s->offset);
    s->codes[VEV_ZLENGTHS] = (uint8_t)lengths_code(m->length - (uint32_t)MATCH_MIN);
    s->codes[VEV_ZLITERALS] = (uint8_t)literals_code(literals);
    for (uint32_t part = 0; part < VEV_ZPART_COUNT; part++)
        f->used[part] |= (uint64_t)1 << s->codes[part];
}

/* ---- matches ---- */

static inline size_t same(const uint8_t *a, const uint8_t *b, size_t most)
{
    size_t count = 0;
    while (most - count >= 8) {
        uint64_t differing = vev_load64(a + count) ^ vev_load64(b + count);
        if (differing != 0)
            return count + ((size_t)__builtin_ctzll(differing) >> 3);
        count += 8;
    }
    while (count < most && a[count] == b[count])
        count++;
    return count;
}

/* Make a match of what is the same around `at` of the record and `place` of `bytes`, which are the
 * record or the content. */
static inline void extend(const frame *f, size_t anchor, size_t at, const uint8_t *bytes,
                          size_t place, size_t size, match *m)
{
    size_t most = VEV_MIN(f->size - at, size - place);
    size_t length = same(f->begin + at, bytes + place, VEV_MIN(most, LENGTH_MAX / 2));
    size_t back_most = VEV_MIN(VEV_MIN(at - anchor, place), LENGTH_MAX / 2), back = 0;
    while (back < back_most && f->begin[at - back - 1] == bytes[place - back - 1])
        back++;
    m->at = at - back;
    m->length = (uint32_t)(length + back);
    m->distance = (uint32_t)(bytes == f->begin ? at - place : at + size - place);
}

/* What a repeated distance refers to, by places of the record. */
typedef struct echo {
    const uint8_t *bytes; /* the record or the content */
    size_t shift;         /* from a place of the record, modulo 2^n */
    size_t size;          /* of `bytes` */
    size_t until;         /* from here on there are not four bytes; 0: nowhere */
} echo;

static inline echo listen(const frame *f, size_t at, uint32_t distance)
{
    size_t content_size = f->model->content_size;
    if (distance <= at)
        return (echo){f->begin, (size_t)0 - distance, f->size, SIZE_MAX};
    if (distance - at > content_size)
        return (echo){.until = 0};
    return (echo){f->model->content, content_size - distance, content_size,
                  distance > 3 ? distance - 3 : 0};
}

static inline bool sounds(const frame *f, const echo *e, size_t at)
{
    return at < e->until && vev_load32(e->bytes + (at + e->shift)) == vev_load32(f->begin + at);
}

static inline uint32_t *seen_at(vev_zspace *space, uint32_t hash)
{
    return &space->seen[hash & (VEV_ZTABLE_SIZE - 1)];
}

static inline bool find(const frame *f, vev_zspace *space, size_t anchor, size_t at, match *m)
{
    const vev_zmodel *model = f->model;
    uint64_t bytes = vev_load64(f->begin + at);
    uint32_t hash = vev_zhash(bytes), *seen = seen_at(space, hash), before = *seen;
    *seen = space->base + (uint32_t)at;
    /* What another record has left stands for the first place: one branch less, and a hard one. */
    size_t place = before >= space->base ? before - space->base : 0;
    if (vev_zsame(vev_load64(f->begin + place), bytes) && place < at) {
        extend(f, anchor, at, f->begin, place, f->size, m);
        return true;
    }
    uint32_t entry = model->places[hash & (VEV_ZINDEX_SIZE - 1)];
    if (((entry ^ hash) >> 16) != 0)
        return false;
    place = entry & 0xffff;
    if (!vev_zsame(vev_load64(model->content + place), bytes))
        return false;
    extend(f, anchor, at, model->content, place, model->content_size, m);
    return true;
}

static bool next_match(const frame *f, vev_zspace *space, uint32_t patience, size_t anchor,
                       match *m)
{
    size_t at = anchor;
    if (f->size - at < VEV_ZMODEL_MARGIN)
        return false;
    /* Directly behind a match, it is the distance before that is short to say. */
    echo e = listen(f, at, f->repeats[1]);
    if (!sounds(f, &e, at)) {
        e = listen(f, at, f->repeats[0]);
        while (!sounds(f, &e, at)) {
            if (find(f, space, anchor, at, m))
                return true;
            /* A float of msgpack is either known as a whole, or nothing in it is. */
            at += f->begin[at] == 0xca ? 5 : 1 + (VEV_MIN(at - anchor, RUN_MAX) >> patience);
            if (at + VEV_ZMODEL_MARGIN > f->size)
                return false;
            if (VEV_UNLIKELY(at >= e.until))
                e = listen(f, at, f->repeats[0]);
        }
    }
    extend(f, anchor, at, e.bytes, at + e.shift, e.size, m);
    return true;
}

static void write_blocks(frame *f, vev_zspace *space, uint32_t patience)
{
    size_t anchor = 0;
    match m;
    while (next_match(f, space, patience, anchor, &m)) {
        take_match(f, anchor, &m);
        anchor = m.at + m.length;
        size_t near = anchor - 2;
        if (near + VEV_ZMODEL_MARGIN <= f->size)
            *seen_at(space, vev_zhash(vev_load64(f->begin + near))) = space->base + (uint32_t)near;
    }
    (void)take_literals(f, anchor, f->size);
    write_block(f, f->size, true);
}

/* ---- frames ---- */

size_t vev_zframe_bound(size_t size) { return size + size / 128 + 8192; }

size_t vev_zframe_write(const vev_zmodel *model, vev_zspace *space, uint32_t patience, void *dst,
                        const void *src, size_t size)
{
    VEV_ASSERT(size <= VEV_ZRECORD_MAX);
    if (UINT32_MAX - space->base < size) {
        memset(space->seen, 0, sizeof space->seen);
        space->base = 0;
    }
    frame f = {
        .model = model, .begin = src, .size = size, .out = dst, .sequences = space->sequences};
    memcpy(f.repeats, model->repeats, sizeof f.repeats);
    memcpy(f.repeats_before, model->repeats, sizeof f.repeats);
    uint32_t window_log =
        size > 1u << WINDOW_LOG_MIN ? vev_high_bit((uint32_t)size - 1) + 1 : WINDOW_LOG_MIN;
    *f.out++ = 0;
    *f.out++ = (uint8_t)((window_log - WINDOW_LOG_MIN) << 3);
    write_blocks(&f, space, patience);
    space->base += (uint32_t)size;
    return (size_t)(f.out - (uint8_t *)dst);
}
