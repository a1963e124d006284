# amdgpu.mk: the AMD GPU emulator (tests/amdgpu): runner, emulated libamdhip64.so, unit tests, the product on emulated GPUs.
# Needs LLVM 22's library and headers; the unit tests' kernels also need clang-22 and lld-22.
#   make amdgpu               the runner build/tests/amdgpu/run and build/tests/libamdhip64.so
#   make amdgpu-check         the emulator's own tests
#   make amdgpu-product       conformance and the mission's tests on emulated GPUs
AMDGPU_LLVM_CONFIG ?= $(shell command -v llvm-config-22)
AMDGPU_CLANG       ?= $(shell command -v clang-22)
B ?= build

.PHONY: amdgpu amdgpu-check
ifeq ($(AMDGPU_LLVM_CONFIG),)
amdgpu amdgpu-check:
	@echo "amdgpu: left out, needs libllvm-22 (llvm-22-dev)"
EXTRA_BUILD += amdgpu
else
AMDGPU_DIR    := tests/amdgpu
AMDGPU_OUT    := $(B)/tests/amdgpu
# The emulator runs where it is built: every vector instruction of this CPU may be used.
AMDGPU_NATIVE := -march=native $(if $(filter x86_64,$(shell uname -m)),-mprefer-vector-width=512)
AMDGPU_CFLAGS := -std=c11 -D_GNU_SOURCE -O3 -g $(AMDGPU_NATIVE) -fPIC -fno-math-errno \
                 -fno-trapping-math -ffp-contract=off -fno-strict-aliasing -fvisibility=hidden -Wall -Wextra -Wpedantic \
                 -Wshadow -Wvla -isystem $(shell $(AMDGPU_LLVM_CONFIG) --includedir) -pthread -MMD -MP
AMDGPU_LIBS   := -L$(shell $(AMDGPU_LLVM_CONFIG) --libdir) $(shell $(AMDGPU_LLVM_CONFIG) --libs --link-shared) \
                 -lm -pthread
AMDGPU_SRC    := $(filter-out $(AMDGPU_DIR)/main.c $(AMDGPU_DIR)/hip_%.c,$(wildcard $(AMDGPU_DIR)/*.c))
AMDGPU_OBJ    := $(AMDGPU_SRC:$(AMDGPU_DIR)/%.c=$(AMDGPU_OUT)/%.o)
AMDGPU_HIP    := $(B)/tests/libamdhip64.so

$(AMDGPU_OUT)/%.o: $(AMDGPU_DIR)/%.c
	@mkdir -p $(@D)
	$(CC) $(AMDGPU_CFLAGS) -c $< -o $@

$(AMDGPU_OUT)/run: $(AMDGPU_OUT)/main.o $(AMDGPU_OBJ)
	$(CC) -o $@ $^ $(AMDGPU_LIBS)

$(AMDGPU_HIP): $(patsubst $(AMDGPU_DIR)/%.c,$(AMDGPU_OUT)/%.o,$(wildcard $(AMDGPU_DIR)/hip_*.c)) $(AMDGPU_OBJ)
	$(CC) -shared -o $@ $^ $(AMDGPU_LIBS)

amdgpu: $(AMDGPU_OUT)/run $(AMDGPU_HIP)

# Unit tests: one program per file of tests/amdgpu/unit, kernels for every target.
ifneq ($(AMDGPU_CLANG),)
AMDGPU_TARGETS := gfx90a gfx942 gfx950 gfx1030 gfx1100 gfx1151 gfx1200 gfx1201
AMDGPU_HIP_SOURCES := $(wildcard $(AMDGPU_DIR)/kernels/*.hip)
AMDGPU_KERNELS := $(foreach t,$(AMDGPU_TARGETS),$(AMDGPU_HIP_SOURCES:$(AMDGPU_DIR)/%.hip=$(AMDGPU_OUT)/%.$(t).co)) \
                  $(foreach t,$(filter-out gfx1030,$(AMDGPU_TARGETS)),$(AMDGPU_OUT)/kernels/planted.$(t).co)
AMDGPU_KERNEL_FLAGS := --offload-device-only --no-gpu-bundle-output -nogpuinc -nogpulib -O2 -ffp-contract=off \
                       -fuse-cuid=none -mcode-object-version=5
define amdgpu_target
$(AMDGPU_OUT)/kernels/%.$1.co: $(AMDGPU_DIR)/kernels/%.hip $(AMDGPU_DIR)/kernels/kernel.h $(AMDGPU_DIR)/kernels/expressions.def
	@mkdir -p $$(@D)
	$(AMDGPU_CLANG) -x hip --offload-arch=$1 $(AMDGPU_KERNEL_FLAGS) $$< -o $$@
$(AMDGPU_OUT)/kernels/planted.$1.co: $(AMDGPU_DIR)/kernels/planted.S
	@mkdir -p $$(@D)
	$(AMDGPU_CLANG) -x assembler-with-cpp --target=amdgcn-amd-amdhsa -mcpu=$1 -mcode-object-version=5 -nogpulib \
	    $(if $(filter gfx9%,$1),-DGFX9)$(if $(filter gfx12%,$1),-DGFX12) $$< -o $$@
endef
$(foreach t,$(AMDGPU_TARGETS),$(eval $(call amdgpu_target,$(t))))

AMDGPU_TESTS := $(patsubst $(AMDGPU_DIR)/%.c,$(AMDGPU_OUT)/%,$(filter-out %/support.c,$(wildcard $(AMDGPU_DIR)/unit/*.c)))
$(AMDGPU_OUT)/unit/%.o: AMDGPU_CFLAGS := -std=gnu11 -D_GNU_SOURCE -O1 -g -ffp-contract=off -Wall -Wextra -Wshadow -MMD -MP \
                                         -DAMDGPU_KERNELS='"$(abspath $(AMDGPU_OUT))/kernels"' \
                                         -DAMDGPU_HIP='"$(abspath $(AMDGPU_HIP))"'
$(AMDGPU_TESTS): %: %.o $(AMDGPU_OUT)/unit/support.o $(AMDGPU_OBJ)
	$(CC) -o $@ $^ -lcmocka -ldl $(AMDGPU_LIBS)
$(AMDGPU_TESTS): | $(AMDGPU_KERNELS) $(AMDGPU_HIP)

amdgpu-check: $(AMDGPU_TESTS)
	CMOCKA_MESSAGE_OUTPUT=TAP prove --exec '' $(AMDGPU_TESTS)
CHECKS += $(AMDGPU_TESTS)

# The product on emulated GPUs: the conformance problems and the mission's tests, waves in a shuffled order, every check on.
AMDGPU_CONFORMANCE ?= $(AMDGPU_TARGETS)
AMDGPU_MISSION     ?= gfx942 gfx1100
AMDGPU_PRODUCT := $(foreach t,$(AMDGPU_CONFORMANCE),$(AMDGPU_OUT)/conformance.$(t).t) \
                  $(foreach t,$(AMDGPU_MISSION),$(AMDGPU_OUT)/mission.$(t).t $(AMDGPU_OUT)/pipeline.$(t).t)
define amdgpu_product
$(AMDGPU_OUT)/$1.%.t: $(B)/tests/$2/$1 $(AMDGPU_HIP)
	@mkdir -p $$(@D)
	printf '#!/bin/sh\nexport RAPT_EMULATE=%s RAPT_EMULATE_ORDER=shuffled:1 RAPT_EMULATE_CHECKS=all RAPT_TEST_SIZE=0\nRAPT_HIP_LIBRARY=%s RAPT_TEST_DEVICE=hip:0 exec %s\n' \
	    $$* $(abspath $(AMDGPU_HIP)) $$(abspath $$<) > $$@
	chmod +x $$@
endef
$(eval $(call amdgpu_product,conformance,conformance))
$(eval $(call amdgpu_product,mission,e2e))
$(eval $(call amdgpu_product,pipeline,e2e))
# Without a compiler for AMD GPUs the library holds no code for them to run.
CHECKS += $(if $(HIP_CLANG),$(AMDGPU_PRODUCT))
amdgpu-product: $(AMDGPU_PRODUCT)
	prove --exec '' $(AMDGPU_PRODUCT)
.PHONY: amdgpu-product
else
amdgpu-check:
	@echo "amdgpu: unit tests left out, need clang-22 and lld-22"
endif

-include $(wildcard $(AMDGPU_OUT)/*.d $(AMDGPU_OUT)/unit/*.d)
endif
