// The same kernels for the processor: a block after the other, each with one lane. A kernel here
// takes grid, block and the addresses of its arguments; NAME_sizes has their sizes, ended by 0.

#include "arithmetic.h"

namespace {

template <typename Type>
Type argument(void **arguments, int place)
{
    return *static_cast<Type *>(arguments[place]);
}

}  // namespace

extern "C" {

extern const unsigned edge_triage_place_sizes[] = {8, 0};
extern const unsigned edge_triage_map_sizes[] = {8, 8, 4, 4, 8, 0};
extern const unsigned edge_triage_channels_sizes[] = {8, 8, 4, 4, 8, 0};

void edge_triage_place(const unsigned *grid, const unsigned *, void **arguments)
{
    const edge::Byte *slots = argument<const edge::Byte *>(arguments, 0);
    edge::RowScratch scratch;
    for (unsigned image = 0; image < grid[2]; ++image)
        edge::place_rows(slots, (int)image, 0, 1, scratch, 0, 1);
}

void edge_triage_map(const unsigned *, const unsigned *, void **arguments)
{
    const edge::Picture picture = {argument<float *>(arguments, 1), argument<int>(arguments, 2),
                                   argument<int>(arguments, 3)};
    edge::MapScratch scratch;
    edge::map_picture(*argument<const edge::Map *>(arguments, 0), picture,
                      argument<int *>(arguments, 4), scratch, 0, 1);
}

void edge_triage_channels(const unsigned *grid, const unsigned *, void **arguments)
{
    const edge::Recipe &recipe = *argument<const edge::Recipe *>(arguments, 0);
    const edge::Byte *order = argument<const edge::Byte *>(arguments, 1);
    const int items = argument<int>(arguments, 2), first = argument<int>(arguments, 3);
    float *input = argument<float *>(arguments, 4);
    edge::TileScratch scratch;
    for (unsigned item = 0; item < grid[1]; ++item)
        for (unsigned tile = 0; tile < grid[0]; ++tile)
            edge::make_channels(recipe, order, items, first + (int)item, (int)tile * edge::TILE,
                                input + item * recipe.item_step, scratch, 0, 1);
}

}  // extern "C"
