// What Python writes and the kernels read; engines.kernel.packing has the same. Sizes are asserted
// below, and every member lies at a multiple of its own size, so that no compiler adds a gap.

#ifndef EDGE_TRIAGE_LAYOUT_H
#define EDGE_TRIAGE_LAYOUT_H

namespace edge {

typedef unsigned char Byte;
typedef unsigned long long Address;

// Pixels of a picture that a block turns into channels, and the most cells along one axis
// (engines.fields.Pixels).
enum { TILE = 1024, MOST_CELLS = 2048 };

enum SliceFlag { SIGNED = 1, EXACT = 2, INVERTED = 4 };

// One stored image, at the start of its slot; tables and pixels follow at the given bytes.
struct Slice {
    Address picture;       // of float32, where the new picture shall lie
    double slope;
    double intercept;      // less what the grid fills with, where that costs nothing
    float padding_value;   // what padding becomes, less the same
    float inverted_from;   // MONOCHROME1: lowest plus highest value
    float shift;           // taken off each value ahead of the sums,
    float added;           // and what is added behind them
    float empty;           // of cells in which nothing of the image is
    int flags;
    int padding_low;       // stored values from here
    int padding_high;      // to here are padding; none where low is above high
    int columns;           // stored, of one row
    int row_cells;         // new cells along stored rows: one for each table entry
    int column_cells;
    int first_place;       // in the picture, of the first cell along both
    int row_step;          // to the next cell along stored rows, in elements
    int column_step;
    int row_table;         // bytes from the slot's start
    int column_table;
    int pixels;
    int next;              // bytes to the next image's slot, where several lie in a row
};

enum MapKind { LINE = 0, PERCENTILES = 1, ZSCORE = 2 };

// One linear map of a picture's values: fixed, or by what the picture holds.
struct Map {
    double low_percent;
    double high_percent;
    int kind;
    int has_foreground;    // only values above "above" count
    int clips;
    float above;
    float base;
    float factor;
    float offset;
    float lowest;          // ends, where it clips
    float highest;
    int is_first;          // of a picture's maps
};

enum OpKind { WINDOW = 0, STANDARDISE = 1 };

struct Op {
    int kind;
    float first;           // low, or mean
    float second;          // reciprocal of the width, or deviation
};

enum { MOST_OPS = 4 };

struct Channel {
    int offset;            // which neighbour, 0 for the item itself
    int ops;
    Op op[MOST_OPS];
};

// How items become the model's input; "channels" of Channel follow.
struct Recipe {
    long long item_step;   // elements of the input, from one item to the next
    long long channel_step;
    long long pixel_step;
    int channels;
    int pixels;            // of one picture
};

struct Member {
    Address picture;
    float weight;
    int unused;
};

static_assert(sizeof(Slice) == 96, "as engines.kernel.packing has it");
static_assert(sizeof(Map) == 56, "as engines.kernel.packing has it");
static_assert(sizeof(Channel) == 56, "as engines.kernel.packing has it");
static_assert(sizeof(Recipe) == 32, "as engines.kernel.packing has it");
static_assert(sizeof(Member) == 16, "as engines.kernel.packing has it");

}  // namespace edge

#endif
