// From stored pixels to the model's input: the arithmetic of engines.preprocessing, once for the
// device and once for the host.
//
// Each function is the work of one block of threads. "lane" is the thread in it, of "lanes" many;
// a host has one lane. Between two EDGE_SYNC a place of shared memory is written by one lane only,
// and sums are made in the order of their places, so that a result depends neither on the number
// of lanes nor on where it was computed. For that, no product and sum may be contracted into one
// rounding: compile with -fmad=false, -ffp-contract=off.
//
// No header of a library is included: NVRTC has none.

#ifndef EDGE_TRIAGE_ARITHMETIC_H
#define EDGE_TRIAGE_ARITHMETIC_H

#include "layout.h"

#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
#define EDGE_FUNCTION static __device__ inline
#define EDGE_VECTOR 2     // stored values that a lane takes at a time: one load of a thread,
#define EDGE_ALIGNMENT 4  // which has to begin at such a byte
#define EDGE_SYNC() __syncthreads()
#define EDGE_COUNT(place) atomicAdd(&(place), 1u)
#define EDGE_SQRT(value) sqrt(value)
#else
#define EDGE_FUNCTION static inline
#define EDGE_SQRT(value) __builtin_sqrt(value)
#ifndef EDGE_SYNC  // a test of several lanes brings its own
#define EDGE_SYNC()
#define EDGE_COUNT(place) ((place) += 1u)
#define EDGE_VECTOR 64    // more than compilers unroll: a loop that they make vectors of
#define EDGE_ALIGNMENT 2
#endif
#endif

namespace edge {

// Stored columns whose sums over rows are held at a time, and digits of a key.
enum { COLUMNS = 2048, BINS = 256 };

// ---------------------------------------------------------------------------- stored to values

struct Table {
    const int *first;      // the pixel of a cell's first weight
    const int *start;      // of a cell's weights; the next cell's start is their end
    const float *weights;
};

EDGE_FUNCTION Table table_at(const Byte *bytes, int cells)
{
    Table table;
    table.first = (const int *)bytes;
    table.start = table.first + cells;
    table.weights = (const float *)(table.start + cells + 1);
    return table;
}

// A stored value as the grid takes it. "is_plain": without padding, not turned over, not shifted.
template <typename Pixel, bool is_exact, bool is_plain>
EDGE_FUNCTION float value_of(const Slice &slice, Pixel pixel)
{
    float value = is_exact
        ? (float)pixel * (float)slice.slope + (float)slice.intercept
        : (float)((double)pixel * slice.slope + slice.intercept);
    if (is_plain)
        return value;
    // Padding keeps its value when a picture is turned over.
    float turned = (slice.flags & INVERTED) ? slice.inverted_from - value : value;
    int stored = pixel;
    bool is_padding = stored >= slice.padding_low && stored <= slice.padding_high;
    return (is_padding ? slice.padding_value : turned) - slice.shift;
}

template <typename Pixel>
struct alignas(EDGE_ALIGNMENT) Vector {
    Pixel each[EDGE_VECTOR];
};

template <typename Pixel>
EDGE_FUNCTION Vector<Pixel> load(const Pixel *pixels, bool is_aligned)
{
    if (is_aligned)
        return *(const Vector<Pixel> *)pixels;
    Vector<Pixel> vector;
    for (int each = 0; each < EDGE_VECTOR; ++each)
        vector.each[each] = pixels[each];
    return vector;
}

// Weights of some stored rows, and the pixel where the first of them begins.
struct Taps {
    const Byte *pixels;
    const float *weights;
    int count;
};

// sums[column] = weight * value, summed over the rows, for "width" columns.
template <typename Pixel, bool is_exact, bool is_plain>
EDGE_FUNCTION void sum_rows_of(const Slice &shared, const Taps &taps, float *sums, int width,
                               int lane, int lanes)
{
    const Slice slice = shared;
    const bool is_aligned = slice.columns % (EDGE_ALIGNMENT / 2) == 0;
    for (int column = lane * EDGE_VECTOR; column < width; column += lanes * EDGE_VECTOR) {
        const Pixel *pixels = (const Pixel *)taps.pixels + column;
        const bool is_whole = column + EDGE_VECTOR <= width;
        float parts[EDGE_VECTOR] = {};
        for (int tap = 0; tap < taps.count; ++tap, pixels += slice.columns) {
            const float weight = taps.weights[tap];
            if (is_whole) {
                const Vector<Pixel> vector = load(pixels, is_aligned);
                for (int each = 0; each < EDGE_VECTOR; ++each)
                    parts[each] +=
                        weight * value_of<Pixel, is_exact, is_plain>(slice, vector.each[each]);
            } else {
                for (int each = 0; each < EDGE_VECTOR; ++each)
                    if (column + each < width)
                        parts[each] +=
                            weight * value_of<Pixel, is_exact, is_plain>(slice, pixels[each]);
            }
        }
        for (int each = 0; each < EDGE_VECTOR; ++each)
            if (column + each < width)
                sums[column + each] = parts[each];
    }
}

template <typename Pixel>
EDGE_FUNCTION void sum_any_rows(const Slice &slice, const Taps &taps, float *sums, int width,
                                int lane, int lanes)
{
    const bool is_plain = slice.padding_low > slice.padding_high && slice.shift == 0.0f
        && !(slice.flags & INVERTED);
    if ((slice.flags & EXACT) && is_plain)
        sum_rows_of<Pixel, true, true>(slice, taps, sums, width, lane, lanes);
    else if (slice.flags & EXACT)
        sum_rows_of<Pixel, true, false>(slice, taps, sums, width, lane, lanes);
    else if (is_plain)
        sum_rows_of<Pixel, false, true>(slice, taps, sums, width, lane, lanes);
    else
        sum_rows_of<Pixel, false, false>(slice, taps, sums, width, lane, lanes);
}

// -------------------------------------------------------------------------------- onto the grid

struct RowScratch {
    float sums[COLUMNS];
    float cells[MOST_CELLS];
};

// What a chunk of columns, summed over rows, adds to the cells that touch it.
EDGE_FUNCTION void add_columns(const Table &columns, int cells, int begin, int end,
                               RowScratch &scratch, int lane, int lanes)
{
    for (int cell = lane; cell < cells; cell += lanes) {
        int first = columns.first[cell], start = columns.start[cell];
        int low = begin > first ? begin : first;
        int high = first + columns.start[cell + 1] - start;
        if (high > end)
            high = end;
        float sum = scratch.cells[cell];
        for (int column = low; column < high; ++column)
            sum += columns.weights[start + column - first] * scratch.sums[column - begin];
        scratch.cells[cell] = sum;
    }
}

EDGE_FUNCTION void put_cells(const Slice &slice, const Table &columns, int row_cell,
                             bool is_empty, const RowScratch &scratch, int lane, int lanes)
{
    float *picture = (float *)slice.picture + slice.first_place
        + (long long)row_cell * slice.row_step;
    for (int cell = lane; cell < slice.column_cells; cell += lanes) {
        bool is_hole = is_empty || columns.start[cell] == columns.start[cell + 1];
        picture[(long long)cell * slice.column_step] =
            is_hole ? slice.empty : scratch.cells[cell] + slice.added;
    }
}

// One row of cells along the stored rows.
EDGE_FUNCTION void place_row(const Byte *slot, const Slice &slice, int row_cell,
                             RowScratch &scratch, int lane, int lanes)
{
    const Table rows = table_at(slot + slice.row_table, slice.row_cells);
    const Table columns = table_at(slot + slice.column_table, slice.column_cells);
    const int start = rows.start[row_cell];
    Taps taps;
    taps.count = rows.start[row_cell + 1] - start;
    taps.weights = rows.weights + start;
    const Byte *first = slot + slice.pixels + (long long)rows.first[row_cell] * slice.columns * 2;
    for (int cell = lane; cell < slice.column_cells; cell += lanes)
        scratch.cells[cell] = 0.0f;
    for (int begin = 0; taps.count > 0 && begin < slice.columns; begin += COLUMNS) {
        const int width = slice.columns - begin < COLUMNS ? slice.columns - begin : COLUMNS;
        taps.pixels = first + begin * 2;
        EDGE_SYNC();
        if (slice.flags & SIGNED)
            sum_any_rows<short>(slice, taps, scratch.sums, width, lane, lanes);
        else
            sum_any_rows<unsigned short>(slice, taps, scratch.sums, width, lane, lanes);
        EDGE_SYNC();
        add_columns(columns, slice.column_cells, begin, begin + width, scratch, lane, lanes);
    }
    put_cells(slice, columns, row_cell, taps.count == 0, scratch, lane, lanes);
}

// Every "step"th row of cells of one of several images.
EDGE_FUNCTION void place_rows(const Byte *slots, int image, int first_cell, int step,
                              RowScratch &scratch, int lane, int lanes)
{
    const Byte *slot = slots + (long long)image * ((const Slice *)slots)->next;
    const Slice &slice = *(const Slice *)slot;
    for (int cell = first_cell; cell < slice.row_cells; cell += step)
        place_row(slot, slice, cell, scratch, lane, lanes);
}

// -------------------------------------------------------------------------- values of a picture

struct MapScratch {
    union {
        double rows[MOST_CELLS];
        unsigned bins[BINS];
    };
    unsigned digit;
    unsigned rank;
    float base;
    float factor;
    float offset;
    int is_flat;
};

struct Picture {
    float *values;
    int rows;
    int columns;
};

// The same as in engines.preprocessing.intensity.
EDGE_FUNCTION bool is_rounding(double difference, double size)
{
    double least = 1e-6 * size > 1e-15 ? 1e-6 * size : 1e-15;
    return difference < least;
}

EDGE_FUNCTION double size_of(double value) { return value < 0.0 ? -value : value; }

EDGE_FUNCTION bool counts(const Map &map, float value)
{
    return !map.has_foreground || value > map.above;
}

// Keys that are ordered as their values are.
EDGE_FUNCTION unsigned key_of(float value)
{
    union { float value; unsigned bits; } both;
    both.value = value;
    return both.bits >> 31 ? ~both.bits : both.bits | 0x80000000u;
}

EDGE_FUNCTION float value_of_key(unsigned key)
{
    union { float value; unsigned bits; } both;
    both.bits = key >> 31 ? key & 0x7fffffffu : ~key;
    return both.value;
}

// How many values have each digit, of those that count and begin with the prefix.
EDGE_FUNCTION void count_digits(const Map &map, const Picture &picture, unsigned prefix,
                                unsigned mask, int shift, MapScratch &scratch, int lane, int lanes)
{
    EDGE_SYNC();
    for (int bin = lane; bin < BINS; bin += lanes)
        scratch.bins[bin] = 0;
    EDGE_SYNC();
    int size = picture.rows * picture.columns;
    for (int place = lane; place < size; place += lanes) {
        unsigned key = key_of(picture.values[place]);
        if (counts(map, picture.values[place]) && (key & mask) == prefix)
            EDGE_COUNT(scratch.bins[key >> shift & (BINS - 1)]);
    }
    EDGE_SYNC();
}

// The value at a rank of the ordered ones that count: digit by digit, from the highest.
EDGE_FUNCTION float ranked(const Map &map, const Picture &picture, unsigned rank,
                           MapScratch &scratch, int lane, int lanes)
{
    unsigned prefix = 0, mask = 0;
    for (int shift = 24; shift >= 0; shift -= 8) {
        count_digits(map, picture, prefix, mask, shift, scratch, lane, lanes);
        if (lane == 0) {
            unsigned digit = 0, left = rank;
            while (digit < BINS - 1 && left >= scratch.bins[digit])
                left -= scratch.bins[digit++];
            scratch.digit = digit;
            scratch.rank = left;
        }
        EDGE_SYNC();
        prefix |= scratch.digit << shift;
        mask |= (unsigned)(BINS - 1) << shift;
        rank = scratch.rank;
    }
    return value_of_key(prefix);
}

// Between order statistics, as numpy's method "linear".
EDGE_FUNCTION double percentile(const Map &map, const Picture &picture, double percent,
                                unsigned counted, MapScratch &scratch, int lane, int lanes)
{
    double place = percent / 100 * (counted - 1);
    unsigned low = (unsigned)place, high = place > low ? low + 1 : low;
    double below = ranked(map, picture, low, scratch, lane, lanes);
    double above = high == low ? below : ranked(map, picture, high, scratch, lane, lanes);
    return below + (above - below) * (place - low);
}

// What the base lost in float32 comes back with the offset.
EDGE_FUNCTION void keep_line(MapScratch &scratch, double base, double width, bool is_flat)
{
    double factor = 1 / width;
    scratch.is_flat = is_flat;
    scratch.base = (float)base;
    scratch.factor = (float)factor;
    scratch.offset = (float)(0.0 - (base - (double)scratch.base) * factor);
}

EDGE_FUNCTION unsigned count_all(const Map &map, const Picture &picture, MapScratch &scratch,
                                 int lane, int lanes)
{
    count_digits(map, picture, 0, 0, 24, scratch, lane, lanes);
    unsigned all = 0;
    for (int bin = 0; bin < BINS; ++bin)
        all += scratch.bins[bin];
    EDGE_SYNC();
    return all;
}

EDGE_FUNCTION void find_percentiles(const Map &map, const Picture &picture, unsigned counted,
                                    MapScratch &scratch, int lane, int lanes)
{
    double low = percentile(map, picture, map.low_percent, counted, scratch, lane, lanes);
    double high = percentile(map, picture, map.high_percent, counted, scratch, lane, lanes);
    double size = size_of(low) > size_of(high) ? size_of(low) : size_of(high);
    if (lane == 0)
        keep_line(scratch, low, high - low, is_rounding(high - low, size));
    EDGE_SYNC();
}

// The sum over rows of each row's sum: of the values, or of the squares of their distance.
EDGE_FUNCTION double sum_rows(const Map &map, const Picture &picture, const float *middle,
                              MapScratch &scratch, int lane, int lanes)
{
    EDGE_SYNC();
    for (int row = lane; row < picture.rows; row += lanes) {
        const float *values = picture.values + (long long)row * picture.columns;
        double sum = 0.0;
        for (int column = 0; column < picture.columns; ++column) {
            float apart = middle ? values[column] - *middle : values[column];
            if (counts(map, values[column]))
                sum += (double)(middle ? apart * apart : apart);
        }
        scratch.rows[row] = sum;
    }
    EDGE_SYNC();
    double total = 0.0;
    for (int row = 0; row < picture.rows; ++row)
        total += scratch.rows[row];
    return total;
}

EDGE_FUNCTION void find_zscore(const Map &map, const Picture &picture, unsigned counted,
                               MapScratch &scratch, int lane, int lanes)
{
    double mean = sum_rows(map, picture, 0, scratch, lane, lanes) / counted;
    float middle = (float)mean;
    double squares = sum_rows(map, picture, &middle, scratch, lane, lanes);
    // The mean was rounded to float32 before it was taken off.
    double lost = mean - (double)middle;
    double variance = squares / counted - lost * lost;
    double deviation = EDGE_SQRT(variance > 0.0 ? variance : 0.0);
    if (lane == 0)
        keep_line(scratch, mean, deviation, is_rounding(deviation, size_of(mean)));
    EDGE_SYNC();
}

// The whole picture is mapped in place; "status" becomes 1 where no value counts, in any of its
// maps, else 0.
EDGE_FUNCTION void map_picture(const Map &map, const Picture &picture, int *status,
                               MapScratch &scratch, int lane, int lanes)
{
    if (lane == 0 && map.is_first)
        *status = 0;
    if (map.kind == LINE) {
        if (lane == 0) {
            scratch.is_flat = map.factor == 0.0f;
            scratch.base = map.base;
            scratch.factor = map.factor;
            scratch.offset = map.offset;
        }
        EDGE_SYNC();
    } else {
        unsigned counted = count_all(map, picture, scratch, lane, lanes);
        if (counted == 0) {
            if (lane == 0)
                *status = 1;
            return;
        }
        if (map.kind == PERCENTILES)
            find_percentiles(map, picture, counted, scratch, lane, lanes);
        else
            find_zscore(map, picture, counted, scratch, lane, lanes);
    }
    const int size = picture.rows * picture.columns;
    const bool is_flat = scratch.is_flat, clips = map.clips;
    const float base = scratch.base, factor = scratch.factor, offset = scratch.offset;
    for (int place = lane; place < size; place += lanes) {
        float value = (picture.values[place] - base) * factor;
        value += offset;
        if (clips) {
            value = value < map.lowest ? map.lowest : value;
            value = value > map.highest ? map.highest : value;
        }
        picture.values[place] = is_flat ? 0.0f : value;
    }
}

// ----------------------------------------------------------------------- items become channels

struct TileScratch {
    float means[TILE];
    float values[TILE];
};

EDGE_FUNCTION void average(const Member *members, int count, int begin, int width, float *means,
                           int lane, int lanes)
{
    for (int member = 0; member < count; ++member) {
        const float *picture = (const float *)members[member].picture + begin;
        const float weight = members[member].weight;
        for (int place = lane; place < width; place += lanes) {
            float part = picture[place] * weight;
            means[place] = member ? means[place] + part : part;
        }
    }
}

EDGE_FUNCTION void apply(const Op &op, float *values, int width, int lane, int lanes)
{
    const float first = op.first, second = op.second;
    if (op.kind == STANDARDISE) {
        for (int place = lane; place < width; place += lanes)
            values[place] = (values[place] - first) / second;
        return;
    }
    for (int place = lane; place < width; place += lanes) {
        float value = (values[place] - first) * second;
        value = value < 0.0f ? 0.0f : value;
        values[place] = value > 1.0f ? 1.0f : value;
    }
}

// All channels of one item, for one tile of its pixels. The order of items holds, for each, where
// its members start; the outermost item repeats beyond the ends.
EDGE_FUNCTION void make_channels(const Recipe &recipe, const Byte *order, int items, int item,
                                 int begin, float *input, TileScratch &scratch, int lane,
                                 int lanes)
{
    const Channel *channels = (const Channel *)(&recipe + 1);
    const int *starts = (const int *)order;
    const Member *members = (const Member *)(order + ((items + 1) * 4 + 15) / 16 * 16);
    const int width = recipe.pixels - begin < TILE ? recipe.pixels - begin : TILE;
    int held = -1;
    for (int number = 0; number < recipe.channels; ++number) {
        const Channel &channel = channels[number];
        int source = item + channel.offset;
        source = source < 0 ? 0 : source >= items ? items - 1 : source;
        if (source != held)
            average(members + starts[source], starts[source + 1] - starts[source], begin, width,
                    scratch.means, lane, lanes);
        held = source;
        for (int place = lane; place < width; place += lanes)
            scratch.values[place] = scratch.means[place];
        for (int op = 0; op < channel.ops; ++op)
            apply(channel.op[op], scratch.values, width, lane, lanes);
        float *made = input + number * recipe.channel_step + begin * recipe.pixel_step;
        for (int place = lane; place < width; place += lanes)
            made[place * recipe.pixel_step] = scratch.values[place];
    }
}

}  // namespace edge

#endif
