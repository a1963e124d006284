/* rows.h: rows of the table by name, and decode over 132 units, for tests that launch nothing. */
#ifndef ROWS_H
#define ROWS_H

#include "session.h"

#include "gpu/splits.h"

/* One query of each of four heads of a KV head, 128 channels. */
static inline struct attention_args args_of(int batch, int kv_heads, int kv_tokens)
{
    return (struct attention_args){.batch = batch,
                                   .q_heads = 4 * kv_heads,
                                   .kv_heads = kv_heads,
                                   .group = 4,
                                   .q_tokens = 1,
                                   .kv_tokens = kv_tokens,
                                   .v_channels = 128,
                                   .units = 132};
}

static inline const struct row *row_named(const char *arch, const char *name)
{
    for (int i = 0; i < kernel_row_count; i++)
        if (!strcmp(kernel_rows[i].name, name) && !strcmp(kernel_rows[i].arch, arch))
            return &kernel_rows[i];
    fail_msg("no row %s of %s", name, arch);
    return NULL;
}

#endif
