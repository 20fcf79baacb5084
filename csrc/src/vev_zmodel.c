/* Reads the tables of a dictionary (RFC 8878, sections 4.1, 4.2.1 and 5) and turns them round: what
 * they say is how to decode. */
#include "vev_zmodel.h"

#include <stdlib.h>

enum {
    DICTIONARY_MAGIC = (int)0xec30a437,
    DICTIONARY_HEADER = 8,
    WEIGHT_LOG_MAX = 6,
    WEIGHT_MAX = VEV_ZHUF_BITS_MAX,
};

/* What the format allows of each part, and the code for whoever brings none. */
static const struct {
    uint32_t log_max, symbol_count, log;
    int8_t shares[VEV_ZFSE_SYMBOL_COUNT];
} parts[VEV_ZPART_COUNT] = {
    [VEV_ZOFFSETS] = {8, 32, 5, {1, 1, 1, 1, 1, 1, 2, 2, 2, 1,  1,  1,  1,  1, 1,
                                 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1}},
    [VEV_ZLENGTHS] = {9, 53, 6, {1, 4, 3, 2, 2, 2, 2, 2, 2, 1, 1,  1,  1,  1,  1,  1,  1, 1,
                                 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,  1,  1,  1,  1,  1,  1, 1,
                                 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1}},
    [VEV_ZLITERALS] = {9, 36, 6, {4, 3, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1,  1,  2,  2,
                                  2, 2, 2, 2, 2, 2, 2, 3, 2, 1, 1, 1, 1, 1, -1, -1, -1, -1}},
};

/* ---- the distribution of an FSE code ---- */

typedef struct distribution {
    int16_t shares[256]; /* of 1 << log; -1 is a symbol with less than one */
    uint32_t symbol_count, log;
} distribution;

/* Read bits from the lowest of the first byte on. Behind the end there are zeros. */
static uint32_t peek_forward(const uint8_t *bytes, size_t size, size_t at_bit, uint32_t count)
{
    uint64_t bits = 0;
    for (size_t i = 0; i < 4; i++)
        if (at_bit / 8 + i < size)
            bits |= (uint64_t)bytes[at_bit / 8 + i] << (8 * i);
    return (uint32_t)(bits >> at_bit % 8) & ((1u << count) - 1);
}

/* Returns the bytes that it takes, 0 where it is none. */
static size_t read_distribution(const uint8_t *bytes, size_t size, uint32_t log_max,
                                uint32_t symbol_max, distribution *d)
{
    memset(d, 0, sizeof *d);
    size_t bit = 4;
    d->log = peek_forward(bytes, size, 0, 4) + 5;
    if (d->log > log_max)
        return 0;
    uint32_t left = 1u << d->log;
    while (left > 0 && bit <= 8 * size) {
        if (d->symbol_count >= symbol_max)
            return 0;
        /* A number up to `most`; the smallest ones take a bit less than the others. */
        uint32_t most = left + 1, bits = vev_high_bit(most) + 1;
        uint32_t short_count = (1u << bits) - 1 - most;
        uint32_t value = peek_forward(bytes, size, bit, bits);
        uint32_t low = value & ((1u << (bits - 1)) - 1);
        bool is_short = low < short_count;
        if (is_short)
            value = low;
        else if (value >= 1u << (bits - 1))
            value -= short_count;
        bit += bits - is_short;
        int share = (int)value - 1;
        d->shares[d->symbol_count++] = (int16_t)share;
        left -= share < 0 ? 1u : (uint32_t)share;
        if (share != 0)
            continue;
        for (uint32_t more = 3; more == 3; bit += 2) {
            more = peek_forward(bytes, size, bit, 2);
            d->symbol_count += more;
            if (d->symbol_count > symbol_max)
                return 0;
        }
    }
    size_t taken = (bit + 7) / 8;
    return left == 0 && taken <= size ? taken : 0;
}

/* Say of each state of the decoder which symbol it stands for. */
static void spread(const distribution *d, uint8_t *symbols)
{
    uint32_t size = 1u << d->log, step = (size >> 1) + (size >> 3) + 3, top = size;
    for (uint32_t s = 0; s < d->symbol_count; s++)
        if (d->shares[s] < 0)
            symbols[--top] = (uint8_t)s;
    uint32_t at = 0;
    for (uint32_t s = 0; s < d->symbol_count; s++)
        for (int i = 0; i < d->shares[s]; i++) {
            symbols[at] = (uint8_t)s;
            do
                at = (at + step) & (size - 1);
            while (at >= top);
        }
}

static uint32_t share_of(const distribution *d, uint32_t symbol)
{
    return d->shares[symbol] < 0 ? 1u : (uint32_t)d->shares[symbol];
}

static void make_encoder(const distribution *d, vev_zfse *code)
{
    uint32_t size = 1u << d->log, begin = 0;
    uint8_t symbols[1 << VEV_ZFSE_LOG_MAX];
    uint32_t next[VEV_ZFSE_SYMBOL_COUNT];
    code->log = d->log;
    for (uint32_t s = 0; s < d->symbol_count; s++) {
        uint32_t share = share_of(d, s);
        next[s] = begin;
        if (share == 0)
            continue;
        code->known |= (uint64_t)1 << s;
        /* A state that comes into one of `share` states loses so many bits, or one fewer. */
        uint32_t most = d->log - (share > 1 ? vev_high_bit(share - 1) : 0);
        code->symbols[s].bits = (most << 16) - (share << most);
        code->symbols[s].states = (int32_t)begin - (int32_t)share;
        begin += share;
    }
    spread(d, symbols);
    for (uint32_t state = 0; state < size; state++)
        code->states[next[symbols[state]]++] = (uint16_t)(size + state);
}

/* ---- the Huffman code ---- */

/* Read bits from the highest below `at_bit` on; the caller knows that there are so many. */
static uint32_t take_backward(const uint8_t *bytes, size_t *at_bit, uint32_t count)
{
    uint32_t value = 0;
    for (uint32_t i = 0; i < count; i++) {
        --*at_bit;
        value = value << 1 | ((uint32_t)bytes[*at_bit / 8] >> *at_bit % 8 & 1u);
    }
    return value;
}

/* Decode weights that are FSE-coded by two states in turn. Returns how many, 0 on nonsense. */
static uint32_t decode_weights(const uint8_t *bytes, size_t size, uint8_t weights[255])
{
    distribution d;
    size_t head = read_distribution(bytes, size, WEIGHT_LOG_MAX, WEIGHT_MAX + 1, &d);
    if (head == 0 || head >= size || bytes[size - 1] == 0)
        return 0;
    uint8_t symbols[1 << WEIGHT_LOG_MAX];
    struct {
        uint8_t bits, base;
    } steps[1 << WEIGHT_LOG_MAX];
    uint32_t table_size = 1u << d.log, next[WEIGHT_MAX + 1];
    spread(&d, symbols);
    for (uint32_t s = 0; s < d.symbol_count; s++)
        next[s] = share_of(&d, s);
    for (uint32_t state = 0; state < table_size; state++) {
        uint32_t number = next[symbols[state]]++;
        uint32_t bits = d.log - vev_high_bit(number);
        steps[state].bits = (uint8_t)bits;
        steps[state].base = (uint8_t)((number << bits) - table_size);
    }
    bytes += head;
    size -= head;
    size_t bit = 8 * (size - 1) + vev_high_bit(bytes[size - 1]);
    if (bit < 2 * d.log)
        return 0;
    uint32_t states[2], count = 0;
    states[0] = take_backward(bytes, &bit, d.log);
    states[1] = take_backward(bytes, &bit, d.log);
    for (uint32_t turn = 0;; turn ^= 1) {
        uint32_t state = states[turn];
        if (count >= 254)
            return 0;
        weights[count++] = symbols[state];
        if (bit < steps[state].bits) {
            weights[count++] = symbols[states[turn ^ 1]];
            return count;
        }
        states[turn] = steps[state].base + take_backward(bytes, &bit, steps[state].bits);
    }
}

/* Returns the bytes that the table takes, 0 where it is none, or has no code for some literal. */
static size_t read_literals(const uint8_t *bytes, size_t size, vev_zhuf codes[256])
{
    uint8_t weights[256];
    if (size == 0)
        return 0;
    uint32_t count, head = bytes[0];
    size_t taken;
    if (head >= 128) {
        count = head - 127;
        taken = 1 + (count + 1) / 2;
        if (taken > size)
            return 0;
        for (uint32_t i = 0; i < count; i++)
            weights[i] = (uint8_t)((uint32_t)bytes[1 + i / 2] >> (i % 2 ? 0 : 4) & 15u);
    } else {
        taken = 1 + head;
        if (taken > size)
            return 0;
        count = decode_weights(bytes + 1, head, weights);
    }
    if (count != 255) /* the last one is not written */
        return 0;
    uint32_t sum = 0, codes_of[WEIGHT_MAX + 2] = {0};
    for (uint32_t i = 0; i < count; i++) {
        if (weights[i] == 0 || weights[i] > WEIGHT_MAX)
            return 0;
        codes_of[weights[i]]++;
        sum += 1u << (weights[i] - 1);
    }
    uint32_t bits_max = vev_high_bit(sum) + 1, rest = (1u << bits_max) - sum;
    if (bits_max > VEV_ZHUF_BITS_MAX || (rest & (rest - 1)) != 0)
        return 0;
    weights[255] = (uint8_t)(vev_high_bit(rest) + 1);
    codes_of[weights[255]]++;
    /* Codes of the same length follow one another by symbol, behind all the longer ones. */
    uint32_t next[WEIGHT_MAX + 2], begin = 0;
    for (uint32_t weight = 1; weight <= bits_max; weight++) {
        next[weight] = begin;
        begin = (begin + codes_of[weight]) >> 1;
    }
    for (uint32_t i = 0; i < 256; i++) {
        if (weights[i] > bits_max)
            return 0;
        codes[i].bits = (uint16_t)(bits_max + 1 - weights[i]);
        codes[i].code = (uint16_t)next[weights[i]]++;
    }
    return taken;
}

/* ---- the whole ---- */

static void index_content(vev_zmodel *model)
{
    for (uint32_t at = 0; at + 8 <= model->content_size; at++) {
        uint32_t hash = vev_zhash(vev_load64(model->content + at));
        model->places[hash & (VEV_ZINDEX_SIZE - 1)] = (hash & 0xffff0000u) | at;
    }
}

/* Returns the bytes before the content, 0 where there are no tables to use. */
static size_t read_tables(const uint8_t *bytes, size_t size, vev_zmodel *model)
{
    if (size < DICTIONARY_HEADER || vev_load32(bytes) != (uint32_t)DICTIONARY_MAGIC)
        return 0;
    size_t at = DICTIONARY_HEADER;
    size_t taken = read_literals(bytes + at, size - at, model->literals);
    distribution d;
    for (uint32_t part = 0; part < VEV_ZPART_COUNT; part++) {
        if (taken == 0)
            return 0;
        at += taken;
        taken = read_distribution(bytes + at, size - at, parts[part].log_max,
                                  parts[part].symbol_count, &d);
        if (taken != 0)
            make_encoder(&d, &model->trained[part]);
    }
    at += taken;
    if (taken == 0 || size - at < sizeof model->repeats)
        return 0;
    for (uint32_t i = 0; i < 3; i++)
        model->repeats[i] = vev_load32(bytes + at + 4 * i);
    return at + sizeof model->repeats;
}

vev_status vev_zmodel_create(const void *dict, size_t size, vev_zmodel **out)
{
    *out = NULL;
    vev_zmodel *model = calloc(1, sizeof *model + size + VEV_ZMODEL_MARGIN);
    if (model == NULL)
        return VEV_E_NOMEM;
    size_t head = read_tables(dict, size, model);
    size_t content_size = size - head;
    bool usable =
        head != 0 && content_size >= VEV_ZMODEL_MARGIN && content_size <= VEV_ZMODEL_CONTENT_MAX;
    for (uint32_t i = 0; i < 3; i++)
        usable = usable && model->repeats[i] != 0 && model->repeats[i] <= content_size;
    if (!usable) {
        free(model);
        return VEV_OK;
    }
    for (uint32_t part = 0; part < VEV_ZPART_COUNT; part++) {
        distribution d = {.symbol_count = parts[part].symbol_count, .log = parts[part].log};
        for (uint32_t s = 0; s < d.symbol_count; s++)
            d.shares[s] = parts[part].shares[s];
        make_encoder(&d, &model->predefined[part]);
    }
    model->content_size = (uint32_t)content_size;
    memcpy(model->content, (const uint8_t *)dict + head, content_size);
    index_content(model);
    *out = model;
    return VEV_OK;
}

size_t vev_zmodel_memory(const vev_zmodel *model)
{
    return model == NULL ? 0 : sizeof *model + model->content_size + VEV_ZMODEL_MARGIN;
}
