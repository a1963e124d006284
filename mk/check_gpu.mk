# check_gpu.mk: the tests that need a GPU; on a machine without one they skip with one line.
#   make check-gpu            problems.def with every kernel that serves, end-to-end tests, graphs, streams and threads
#   make check-gpu-random     RANDOM (10,000) problems of random sizes and options in bf16, f16 and f32 against float64; needs PyTorch
#   make check-gpu-sanitize   compute-sanitizer's memcheck and racecheck over the subset below
# The oracle on the CPU takes most of the time: long programs go in parts to as many processes, which run at once, as PARTED says
# (program:parts; tests/devices.h, RAPT_TEST_PART); problems that take gigabytes of the device go first, alone.
HUGE      := stride/huge*,extreme/batch-70000
PARTED    := conformance:16 spoilers:16 properties:13 equivalences:7
GPU_TESTS := $(patsubst %.c,$(B)/%,$(wildcard tests/conformance/*.c tests/e2e/*.c))
GPU_WHOLE := $(filter-out $(foreach p,$(PARTED),%/conformance/$(firstword $(subst :, ,$p))),$(GPU_TESTS))
# $1: program; $2: parts; $3: part
define gpu_part
GPU_PARTS += $(B)/tests/$1.part$3.t
$(B)/tests/$1.part$3.t: $(B)/tests/conformance/$1 mk/check_gpu.mk
	printf '#!/bin/sh\nRAPT_TEST_FILTER="$(subst $(comma),$(comma)!,!$(HUGE))" RAPT_TEST_PART=$3 RAPT_TEST_PARTS=$2 exec $$(abspath $$<)\n' > $$@
	chmod +x $$@
endef
gpu_parts = $(foreach part,$(shell seq 0 $$(($2 - 1))),$(eval $(call gpu_part,$1,$2,$(part))))
$(foreach p,$(PARTED),$(call gpu_parts,$(firstword $(subst :, ,$p)),$(lastword $(subst :, ,$p))))
$(B)/tests/conformance.huge.t: $(B)/tests/conformance/conformance mk/check_gpu.mk
	printf '#!/bin/sh\nRAPT_TEST_FILTER="$(HUGE)" exec $(abspath $<)\n' > $@
	chmod +x $@
GPU_HUGE := $(B)/tests/conformance.huge.t
check-gpu: all $(GPU_TESTS) $(GPU_PARTS) $(GPU_HUGE)
	RAPT_TEST_DEVICE=gpu RAPT_TEST_KERNELS=all prove --exec '' --trap --timer $(GPU_HUGE)
	RAPT_TEST_DEVICE=gpu RAPT_TEST_KERNELS=all prove -j $$(nproc) --exec '' --trap --timer $(GPU_WHOLE) $(GPU_PARTS)

# A tile of cells for each block, in the type of q or in f32; bytes of a mask; one row for all queries; rows that begin anywhere.
CELL_RACES := bias/own-causal-bf16,bias/f32-causal-lengths-*,bias/mask-bf16,bias/key-both-bf16,bias/own-odd-lengths-bf16
# One problem of each kind that a kernel handles by code of its own. API errors are not reported: asking the driver whether a
# pointer is the host's is answered by one.
SANITIZED := semantics/causal-bf16,semantics/gqa-*,semantics/window-bf16,semantics/everything*,tile/causal-129*,ragged/*bf16,$\
             paged/*bf16,pages/*-48-bf16,pages/nan-v-bf16,op/*-bf16,op/*-f32,split/plain-*,$\
             split/i8-128-f16,split/i8-128-hidden-nan-bf16,chunk/causal-bf16,chunk/ragged-kv-bf16,chunk/blocks-window-f16,$\
             tile/inf-v-next-f32,split/i8-block32-*,tile/pairs-72-*bf16,tile/plain-nan-v-end-*,parts/panels*,parts/short*,$(CELL_RACES),$\
             mixed/causal-128-*,mixed/causal-256-*,mixed/pairs-72-bf16,mixed/ragged-f32,mixed/mask*-bf16,mixed/chunk*-bf16,mixed/i8-*-bf16
# Blocks of i8 are so few that no warp fills a stage that another one filled before: racecheck does not follow that through the consumers between
# them; nor, in f32 with several blocks of keys, a barrier and an mbarrier together; nor scales copied to where those of four blocks before
# were (bench/notes/hopper.md). Then: blocks that share keys; blocks that go on to another tile (with a softcap); biases and masks;
# tiles done again whose rows see values that are not finite; blocks of softmax that do one row after another.
RACES := semantics/causal-bf16,semantics/gqa-bf16,semantics/everything-bf16,tile/causal-129*,split/plain-bf16,split/i8-128-prefill-f16,$\
         chunk/causal-bf16,chunk/blocks-window-f16,tile/softcap-turns,split/i8-block32-chunk-leap*,split/i8-block32-chunk-inf*,$\
         split/i8-block32-chunk-nan*,split/i8-block32-chunk-window*,split/i8-block32-64-chunk*,split/i8-block32-hidden-nan-pages-bf16,$\
         tile/pairs-72-nan-odd-heads-bf16,tile/plain-nan-v-end-160-bf16,$(CELL_RACES),mixed/causal-128-bf16,mixed/causal-256-bf16,$\
         mixed/mask-bf16,mixed/mask-odd-bf16,mixed/pairs-72-bf16,mixed/chunk-64-bf16,mixed/i8-window-bf16,op/softmax-rounds*
SANITIZER := compute-sanitizer --report-api-errors no --error-exitcode 1
check-gpu-sanitize: $(B)/tests/conformance/conformance
	@command -v compute-sanitizer > /dev/null || { echo "check-gpu-sanitize: compute-sanitizer is not installed (part of CUDA)"; exit 1; }
	RAPT_TEST_DEVICE=gpu RAPT_TEST_KERNELS=all RAPT_TEST_FILTER='$(SANITIZED)' $(SANITIZER) --tool memcheck $<
	RAPT_TEST_DEVICE=gpu RAPT_TEST_KERNELS=all RAPT_TEST_FILTER='$(RACES)' $(SANITIZER) --tool racecheck $<
RANDOM := 10000
check-gpu-random: all
	$(PYTHON) bench/peers/check_gpu.py --lib $(B)/librapt.so --random $(RANDOM) --jobs $$(nproc)
.PHONY: check-gpu check-gpu-sanitize check-gpu-random

# The CPU time of one execute on each GPU.
bench-launch: $(B)/bench/launch_cost
	$<
$(B)/bench/launch_cost: $(B)/bench/launch_cost.o $(B)/inner.a
	$(CC) $(LDFLAGS) -o $@ $^ $(LIBS)
.PHONY: bench-launch

# A library whose Hopper kernels say where their clocks go, for bench/trace_gpu.py; only rows whose steps are those of sm90_steps.h.
TRACED := $(addprefix sm90_bf16_,d64 d64_causal d64_causal_long d128 d128_causal d256 d256_causal)
trace-gpu:
	$(MAKE) B=$(B)/trace TRACE=1 HIP_CLANG= KERNELS='$(addsuffix _sm_90a,$(TRACED))' library
.PHONY: trace-gpu
