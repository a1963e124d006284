/* Expands the list named by LANE_DEF twice: into lane functions, then into the table `rows`. */
#define V1(name, flags, D, A, ...)                                                                 \
    static void lane_##name(LANE_ARGS)                                                             \
    {                                                                                              \
        FOR_LANES                                                                                  \
        {                                                                                          \
            T_##A a = GET_##A(pa);                                                                 \
            T_##D r = (T_##D)(__VA_ARGS__);                                                        \
            PUT_##D(r);                                                                            \
        }                                                                                          \
    }
#define V2(name, flags, D, A, B, ...)                                                              \
    static void lane_##name(LANE_ARGS)                                                             \
    {                                                                                              \
        FOR_LANES                                                                                  \
        {                                                                                          \
            T_##A a = GET_##A(pa);                                                                 \
            T_##B b = GET_##B(pb);                                                                 \
            T_##D r = (T_##D)(__VA_ARGS__);                                                        \
            PUT_##D(r);                                                                            \
        }                                                                                          \
    }
#define V3(name, flags, D, A, B, C, ...)                                                           \
    static void lane_##name(LANE_ARGS)                                                             \
    {                                                                                              \
        FOR_LANES                                                                                  \
        {                                                                                          \
            T_##A a = GET_##A(pa);                                                                 \
            T_##B b = GET_##B(pb);                                                                 \
            T_##C c = GET_##C(pc);                                                                 \
            T_##D r = (T_##D)(__VA_ARGS__);                                                        \
            PUT_##D(r);                                                                            \
        }                                                                                          \
    }
/* The destination is also the last source c. */
#define VA(name, flags, D, A, B, ...) V3(name, flags, D, A, B, D, __VA_ARGS__)
#define SAME(name, other, flags, types)
#include LANE_DEF
#undef V1
#undef V2
#undef V3
#undef VA
#undef SAME

#define LANE_ROW(name, fn, flags, types)                                                           \
    {"v_" #name, exec_valu, (void (*)(void))lane_##fn, types, OPF_VALU | (flags), 0},
#define V1(name, flags, D, A, ...)       LANE_ROW(name, name, flags, #D ":" #A)
#define V2(name, flags, D, A, B, ...)    LANE_ROW(name, name, flags, #D ":" #A #B)
#define V3(name, flags, D, A, B, C, ...) LANE_ROW(name, name, flags, #D ":" #A #B #C)
#define VA(name, flags, D, A, B, ...)    LANE_ROW(name, name, (flags) | OPF_READS_DST, #D ":" #A #B)
#define SAME(name, other, flags, types)  LANE_ROW(name, other, flags, types)
static const struct op_row rows[] = {
#include LANE_DEF
};
#undef V1
#undef V2
#undef V3
#undef VA
#undef SAME
