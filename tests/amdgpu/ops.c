/* Finds an operation by its mnemonic: a hash over the tables of all files. */
#include <pthread.h>
#include <string.h>

#include "lanes.h"

enum { BUCKETS = 8192 };

static const struct op_row *buckets[BUCKETS];
static pthread_once_t once = PTHREAD_ONCE_INIT;

static uint32_t hash(const char *name)
{
    uint32_t h = 2166136261u; /* FNV-1a */
    while (*name) h = (h ^ (uint8_t)*name++) * 16777619u;
    return h;
}

static void fill(void)
{
    const struct op_table *const tables[] = {
        &ops_f32,     &ops_int,    &ops_f16,           &ops_wide,   &ops_convert,
        &ops_compare, &ops_packed, &ops_cross,         &ops_matrix, &ops_scalar,
        &ops_branch,  &ops_lds,    &ops_global,        &ops_buffer, &ops_atomic,
        &ops_carry,   &ops_divide, &ops_scalar_memory, &ops_fp8,    &ops_pseudo_scalar};
    for (size_t t = 0; t < sizeof tables / sizeof *tables; t++)
        for (int i = 0; i < tables[t]->count; i++) {
            const struct op_row *row = &tables[t]->rows[i];
            uint32_t at = hash(row->name) % BUCKETS;
            while (buckets[at] && strcmp(buckets[at]->name, row->name) != 0)
                at = (at + 1) % BUCKETS;
            if (!buckets[at]) buckets[at] = row;
        }
}

const struct op_row *find_op(const char *name)
{
    pthread_once(&once, fill);
    uint32_t at = hash(name) % BUCKETS;
    while (buckets[at] && strcmp(buckets[at]->name, name) != 0) at = (at + 1) % BUCKETS;
    return buckets[at];
}
