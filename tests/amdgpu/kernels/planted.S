/* Machine code with planted faults that no compiler emits: missing waits, unwritten registers, an
   instruction that is not emulated. */
#if defined(GFX9) || defined(GFX10)
#define LOAD64 s_load_dwordx2
#define GLOBAL_LOAD global_load_dword
#define GLOBAL_STORE global_store_dword
#define DS_WRITE ds_write_b32
#define DS_READ ds_read_b32
#define WAIT_SCALAR s_waitcnt lgkmcnt(0)
#define WAIT_VECTOR s_waitcnt vmcnt(0)
#define WAIT_LDS s_waitcnt lgkmcnt(0)
#define BARRIER s_barrier
#if defined(GFX9)
#define UNKNOWN buffer_atomic_add v1, off, s[0:3], 0
#else
#define UNKNOWN image_load v1, v0, s[0:7] dmask:0x1 dim:SQ_RSRC_IMG_1D
#endif
#elif defined(GFX12)
#define LOAD64 s_load_b64
#define GLOBAL_LOAD global_load_b32
#define GLOBAL_STORE global_store_b32
#define DS_WRITE ds_store_b32
#define DS_READ ds_load_b32
#define WAIT_SCALAR s_wait_kmcnt 0
#define WAIT_VECTOR s_wait_loadcnt 0
#define WAIT_LDS s_wait_dscnt 0
#define BARRIER s_barrier_signal -1
#define UNKNOWN image_load v1, [v0], s[0:7] dmask:0x1 dim:SQ_RSRC_IMG_1D
#else
#define LOAD64 s_load_b64
#define GLOBAL_LOAD global_load_b32
#define GLOBAL_STORE global_store_b32
#define DS_WRITE ds_store_b32
#define DS_READ ds_load_b32
#define WAIT_SCALAR s_waitcnt lgkmcnt(0)
#define WAIT_VECTOR s_waitcnt vmcnt(0)
#define WAIT_LDS s_waitcnt lgkmcnt(0)
#define BARRIER s_barrier
#define UNKNOWN image_load v1, v0, s[0:7] dmask:0x1 dim:SQ_RSRC_IMG_1D
#endif
#define SHIFT_LEFT(d, n, s) v_lshlrev_b32 d, n, s
#if defined(GFX9)
#define EXTRA .amdhsa_accum_offset 8
#define WAVE_SIZE 64
#else
#define EXTRA .amdhsa_wavefront_size32 1
#define WAVE_SIZE 32
#endif

.text
.macro begin name
.globl \name
.p2align 8
.type \name,@function
\name:
.endm

/* out[lane] = in[lane] with every wait in place */
begin waited
    LOAD64 s[2:3], s[0:1], 0
    LOAD64 s[4:5], s[0:1], 8
    SHIFT_LEFT(v0, 2, v0)
    WAIT_SCALAR
    GLOBAL_LOAD v1, v0, s[2:3]
    WAIT_VECTOR
    DS_WRITE v0, v1
    WAIT_LDS
    DS_READ v2, v0
    WAIT_LDS
    GLOBAL_STORE v0, v2, s[4:5]
    s_endpgm

begin no_scalar_wait
    LOAD64 s[2:3], s[0:1], 0
    SHIFT_LEFT(v0, 2, v0)
    GLOBAL_LOAD v1, v0, s[2:3]
    s_endpgm

begin no_vector_wait
    LOAD64 s[2:3], s[0:1], 0
    SHIFT_LEFT(v0, 2, v0)
    WAIT_SCALAR
    GLOBAL_LOAD v1, v0, s[2:3]
    v_add_f32 v1, v1, v1
    s_endpgm

begin no_shared_wait
    SHIFT_LEFT(v0, 2, v0)
    v_mov_b32 v1, 7
    DS_WRITE v0, v1
    WAIT_LDS
    DS_READ v2, v0
    v_add_f32 v3, v2, v2
    s_endpgm

begin no_wait_before_barrier
    SHIFT_LEFT(v0, 2, v0)
    v_mov_b32 v1, 7
    DS_WRITE v0, v1
    BARRIER
    s_endpgm

/* a newer load is out, the older one was waited for: vmcnt(1) suffices for v1 and not for v2 */
begin partial_wait
    LOAD64 s[2:3], s[0:1], 0
    SHIFT_LEFT(v0, 2, v0)
    WAIT_SCALAR
    GLOBAL_LOAD v1, v0, s[2:3]
    GLOBAL_LOAD v2, v0, s[2:3]
#if defined(GFX12)
    s_wait_loadcnt 1
#else
    s_waitcnt vmcnt(1)
#endif
    v_add_f32 v3, v1, v1
    v_add_f32 v3, v2, v2
    s_endpgm

begin unwritten_vector
    LOAD64 s[2:3], s[0:1], 8
    SHIFT_LEFT(v0, 2, v0)
    v_add_f32 v1, v5, v5
    WAIT_SCALAR
    GLOBAL_STORE v0, v1, s[2:3]
    s_endpgm

begin unwritten_scalar
    LOAD64 s[2:3], s[0:1], 8
    WAIT_SCALAR
    s_add_u32 s2, s2, s9
    s_addc_u32 s3, s3, 0
    GLOBAL_STORE v0, v0, s[2:3]
    s_endpgm

begin unwritten_branch
    s_cmp_eq_u32 s9, 0
    s_cbranch_scc1 1f
    s_nop 0
1:  s_endpgm

begin not_emulated
    UNKNOWN
    s_endpgm

.macro descriptor name
.p2align 6
.amdhsa_kernel \name
    .amdhsa_user_sgpr_kernarg_segment_ptr 1
    .amdhsa_kernarg_size 16
    .amdhsa_group_segment_fixed_size 256
    .amdhsa_next_free_vgpr 8
    .amdhsa_next_free_sgpr 16
    EXTRA
.end_amdhsa_kernel
.endm

.rodata
descriptor waited
descriptor no_scalar_wait
descriptor no_vector_wait
descriptor no_shared_wait
descriptor no_wait_before_barrier
descriptor partial_wait
descriptor unwritten_vector
descriptor unwritten_scalar
descriptor unwritten_branch
descriptor not_emulated

.amdgpu_metadata
---
amdhsa.version: [ 1, 2 ]
amdhsa.kernels:
  - .name: waited
    .symbol: waited.kd
    .kernarg_segment_size: 16
    .group_segment_fixed_size: 256
    .private_segment_fixed_size: 0
    .kernarg_segment_align: 8
    .wavefront_size: WAVE_SIZE
    .sgpr_count: 16
    .vgpr_count: 8
    .max_flat_workgroup_size: 64
    .args:
      - { .size: 8, .offset: 0, .value_kind: global_buffer, .address_space: global }
      - { .size: 8, .offset: 8, .value_kind: global_buffer, .address_space: global }
  - .name: no_scalar_wait
    .symbol: no_scalar_wait.kd
    .kernarg_segment_size: 16
    .group_segment_fixed_size: 256
    .private_segment_fixed_size: 0
    .kernarg_segment_align: 8
    .wavefront_size: WAVE_SIZE
    .sgpr_count: 16
    .vgpr_count: 8
    .max_flat_workgroup_size: 64
    .args:
      - { .size: 8, .offset: 0, .value_kind: global_buffer, .address_space: global }
      - { .size: 8, .offset: 8, .value_kind: global_buffer, .address_space: global }
  - .name: no_vector_wait
    .symbol: no_vector_wait.kd
    .kernarg_segment_size: 16
    .group_segment_fixed_size: 256
    .private_segment_fixed_size: 0
    .kernarg_segment_align: 8
    .wavefront_size: WAVE_SIZE
    .sgpr_count: 16
    .vgpr_count: 8
    .max_flat_workgroup_size: 64
    .args:
      - { .size: 8, .offset: 0, .value_kind: global_buffer, .address_space: global }
      - { .size: 8, .offset: 8, .value_kind: global_buffer, .address_space: global }
  - .name: no_shared_wait
    .symbol: no_shared_wait.kd
    .kernarg_segment_size: 16
    .group_segment_fixed_size: 256
    .private_segment_fixed_size: 0
    .kernarg_segment_align: 8
    .wavefront_size: WAVE_SIZE
    .sgpr_count: 16
    .vgpr_count: 8
    .max_flat_workgroup_size: 64
    .args:
      - { .size: 8, .offset: 0, .value_kind: global_buffer, .address_space: global }
      - { .size: 8, .offset: 8, .value_kind: global_buffer, .address_space: global }
  - .name: no_wait_before_barrier
    .symbol: no_wait_before_barrier.kd
    .kernarg_segment_size: 16
    .group_segment_fixed_size: 256
    .private_segment_fixed_size: 0
    .kernarg_segment_align: 8
    .wavefront_size: WAVE_SIZE
    .sgpr_count: 16
    .vgpr_count: 8
    .max_flat_workgroup_size: 64
    .args:
      - { .size: 8, .offset: 0, .value_kind: global_buffer, .address_space: global }
      - { .size: 8, .offset: 8, .value_kind: global_buffer, .address_space: global }
  - .name: partial_wait
    .symbol: partial_wait.kd
    .kernarg_segment_size: 16
    .group_segment_fixed_size: 256
    .private_segment_fixed_size: 0
    .kernarg_segment_align: 8
    .wavefront_size: WAVE_SIZE
    .sgpr_count: 16
    .vgpr_count: 8
    .max_flat_workgroup_size: 64
    .args:
      - { .size: 8, .offset: 0, .value_kind: global_buffer, .address_space: global }
      - { .size: 8, .offset: 8, .value_kind: global_buffer, .address_space: global }
  - .name: unwritten_vector
    .symbol: unwritten_vector.kd
    .kernarg_segment_size: 16
    .group_segment_fixed_size: 256
    .private_segment_fixed_size: 0
    .kernarg_segment_align: 8
    .wavefront_size: WAVE_SIZE
    .sgpr_count: 16
    .vgpr_count: 8
    .max_flat_workgroup_size: 64
    .args:
      - { .size: 8, .offset: 0, .value_kind: global_buffer, .address_space: global }
      - { .size: 8, .offset: 8, .value_kind: global_buffer, .address_space: global }
  - .name: unwritten_scalar
    .symbol: unwritten_scalar.kd
    .kernarg_segment_size: 16
    .group_segment_fixed_size: 256
    .private_segment_fixed_size: 0
    .kernarg_segment_align: 8
    .wavefront_size: WAVE_SIZE
    .sgpr_count: 16
    .vgpr_count: 8
    .max_flat_workgroup_size: 64
    .args:
      - { .size: 8, .offset: 0, .value_kind: global_buffer, .address_space: global }
      - { .size: 8, .offset: 8, .value_kind: global_buffer, .address_space: global }
  - .name: unwritten_branch
    .symbol: unwritten_branch.kd
    .kernarg_segment_size: 16
    .group_segment_fixed_size: 256
    .private_segment_fixed_size: 0
    .kernarg_segment_align: 8
    .wavefront_size: WAVE_SIZE
    .sgpr_count: 16
    .vgpr_count: 8
    .max_flat_workgroup_size: 64
    .args:
      - { .size: 8, .offset: 0, .value_kind: global_buffer, .address_space: global }
      - { .size: 8, .offset: 8, .value_kind: global_buffer, .address_space: global }
  - .name: not_emulated
    .symbol: not_emulated.kd
    .kernarg_segment_size: 16
    .group_segment_fixed_size: 256
    .private_segment_fixed_size: 0
    .kernarg_segment_align: 8
    .wavefront_size: WAVE_SIZE
    .sgpr_count: 16
    .vgpr_count: 8
    .max_flat_workgroup_size: 64
    .args:
      - { .size: 8, .offset: 0, .value_kind: global_buffer, .address_space: global }
      - { .size: 8, .offset: 8, .value_kind: global_buffer, .address_space: global }
...
.end_amdgpu_metadata
