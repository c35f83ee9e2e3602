// The kernels for a GPU: which block and which thread does which part of arithmetic.h.

#include "arithmetic.h"

// Images, each in its slot. Grid: blocks that share the cells along stored rows, 1, images.
extern "C" __global__ void edge_triage_place(const edge::Byte *slots)
{
    __shared__ edge::RowScratch scratch;
    edge::place_rows(slots, (int)blockIdx.z, (int)blockIdx.x, (int)gridDim.x, scratch,
                     (int)threadIdx.x, (int)blockDim.x);
}

// One picture, in one block.
extern "C" __global__ void edge_triage_map(const edge::Map *map, float *values, int rows,
                                           int columns, int *status)
{
    __shared__ edge::MapScratch scratch;
    const edge::Picture picture = {values, rows, columns};
    edge::map_picture(*map, picture, status, scratch, (int)threadIdx.x, (int)blockDim.x);
}

// Items from "first" on. Grid: tiles of a picture, items that are made.
extern "C" __global__ void edge_triage_channels(const edge::Recipe *recipe,
                                                const edge::Byte *order, int items, int first,
                                                float *input)
{
    __shared__ edge::TileScratch scratch;
    edge::make_channels(*recipe, order, items, first + (int)blockIdx.y,
                        (int)blockIdx.x * edge::TILE, input + blockIdx.y * recipe->item_step,
                        scratch, (int)threadIdx.x, (int)blockDim.x);
}
