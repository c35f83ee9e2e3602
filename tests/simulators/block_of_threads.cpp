// The kernels with a block of several threads, as a GPU runs them: what one lane must not read
// before another has written it shows, and so does a barrier that only some lanes reach.

#include <pthread.h>

#include <functional>
#include <thread>
#include <vector>

static thread_local pthread_barrier_t *barrier_of_block;

#define EDGE_SYNC() pthread_barrier_wait(barrier_of_block)
#define EDGE_COUNT(place) __atomic_fetch_add(&(place), 1u, __ATOMIC_RELAXED)
#define EDGE_VECTOR 2  // as on a GPU
#define EDGE_ALIGNMENT 4

#include "arithmetic.h"

namespace {

const int LANES = 7;  // fewer than columns and pixels, and no divisor of them

template <typename Type>
Type argument(void **arguments, int place)
{
    return *static_cast<Type *>(arguments[place]);
}

// Each block by all threads, and one block after the other, as they share their scratch.
void run_blocks(unsigned blocks, const std::function<void(unsigned, int)> &work)
{
    pthread_barrier_t barrier;
    pthread_barrier_init(&barrier, nullptr, LANES);
    std::vector<std::thread> threads;
    for (int lane = 0; lane < LANES; ++lane)
        threads.emplace_back([&barrier, &work, blocks, lane] {
            barrier_of_block = &barrier;
            for (unsigned block = 0; block < blocks; ++block) {
                work(block, lane);
                EDGE_SYNC();
            }
        });
    for (std::thread &thread : threads)
        thread.join();
    pthread_barrier_destroy(&barrier);
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
    run_blocks(grid[0] * grid[2], [&](unsigned block, int lane) {
        edge::place_rows(slots, (int)(block / grid[0]), (int)(block % grid[0]), (int)grid[0],
                         scratch, lane, LANES);
    });
}

void edge_triage_map(const unsigned *, const unsigned *, void **arguments)
{
    const edge::Picture picture = {argument<float *>(arguments, 1), argument<int>(arguments, 2),
                                   argument<int>(arguments, 3)};
    const edge::Map &map = *argument<const edge::Map *>(arguments, 0);
    int *status = argument<int *>(arguments, 4);
    edge::MapScratch scratch;
    run_blocks(1, [&](unsigned, int lane) {
        edge::map_picture(map, picture, status, scratch, lane, LANES);
    });
}

void edge_triage_channels(const unsigned *grid, const unsigned *, void **arguments)
{
    const edge::Recipe &recipe = *argument<const edge::Recipe *>(arguments, 0);
    const edge::Byte *order = argument<const edge::Byte *>(arguments, 1);
    const int items = argument<int>(arguments, 2), first = argument<int>(arguments, 3);
    float *input = argument<float *>(arguments, 4);
    edge::TileScratch scratch;
    run_blocks(grid[0] * grid[1], [&](unsigned block, int lane) {
        const unsigned item = block / grid[0], tile = block % grid[0];
        edge::make_channels(recipe, order, items, first + (int)item, (int)tile * edge::TILE,
                            input + item * recipe.item_step, scratch, lane, LANES);
    });
}

}  // extern "C"
