# amdgpu.mk: the AMD GPU emulator (tests/amdgpu): runner, emulated libamdhip64.so, unit tests, the product on emulated GPUs.
# Needs LLVM 22's library and headers; the unit tests' kernels also need clang-22 and lld-22.
#   make amdgpu               the runner build/tests/amdgpu/run and build/tests/libamdhip64.so
#   make amdgpu-check         the emulator's own tests
#   make amdgpu-product       conformance, the mission's tests and the HSACO names on emulated GPUs
#   make check-amd            both; a part of make check
#   make check-amd-whole      every kernel of AMDGPU_WHOLE on every problem in every type (about 2,000 s of one core)
#   make amdgpu-report        table of static figures of the matrix-unit rows
# Not under SAN: the emulator is built with flags of its own, and what it runs is device code.
ifneq ($(SAN),)
AMDGPU_LLVM_CONFIG :=
endif
AMDGPU_LLVM_CONFIG ?= $(shell command -v llvm-config-22)
AMDGPU_CLANG       ?= $(shell command -v clang-22)

.PHONY: amdgpu amdgpu-check
ifeq ($(AMDGPU_LLVM_CONFIG),)
amdgpu amdgpu-check check-amd:
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
                  $(AMDGPU_TARGETS:%=$(AMDGPU_OUT)/kernels/planted.%.co)
AMDGPU_KERNEL_FLAGS := --offload-device-only --no-gpu-bundle-output -nogpuinc -nogpulib -O2 -ffp-contract=off \
                       -fuse-cuid=none -mcode-object-version=5
define amdgpu_target
$(AMDGPU_OUT)/kernels/%.$1.co: $(AMDGPU_DIR)/kernels/%.hip $(AMDGPU_DIR)/kernels/kernel.h $(AMDGPU_DIR)/kernels/expressions.def
	@mkdir -p $$(@D)
	$(AMDGPU_CLANG) -x hip --offload-arch=$1 $(AMDGPU_KERNEL_FLAGS) $$< -o $$@
$(AMDGPU_OUT)/kernels/planted.$1.co: $(AMDGPU_DIR)/kernels/planted.S
	@mkdir -p $$(@D)
	$(AMDGPU_CLANG) -x assembler-with-cpp --target=amdgcn-amd-amdhsa -mcpu=$1 -mcode-object-version=5 -nogpulib \
	    $(if $(filter gfx9%,$1),-DGFX9)$(if $(filter gfx10%,$1),-DGFX10)$(if $(filter gfx12%,$1),-DGFX12) $$< -o $$@
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

# The product on emulated GPUs, waves in a shuffled order, every check on. On the first targets kernels run by name. The portable ones,
# which are one source for all targets, meet every kind of problem that they serve once: on one of these targets, in one of its types.
# The rows for matrix units, whose instructions differ from target to target, meet every kind in f16 or bf16 on each. On the other
# targets the library's choice runs every problem. The mission's tests, 2048 tokens included, and the HSACO names of the environment run
# on AMDGPU_MISSION.
AMDGPU_WHOLE   ?= gfx942 gfx1100 gfx1201
AMDGPU_MISSION ?= gfx942 gfx1100
AMDGPU_OTHERS  := $(filter-out $(AMDGPU_WHOLE),$(AMDGPU_TARGETS))
AMDGPU_PRODUCT := $(AMDGPU_WHOLE:%=$(AMDGPU_OUT)/kernels.%.t) $(AMDGPU_WHOLE:%=$(AMDGPU_OUT)/matrix.%.t) \
                  $(AMDGPU_OTHERS:%=$(AMDGPU_OUT)/conformance.%.t) \
                  $(foreach t,$(AMDGPU_MISSION),$(AMDGPU_OUT)/mission.$(t).t $(AMDGPU_OUT)/pipeline.$(t).t $(AMDGPU_OUT)/overrides.$(t).t)
# $1 name of the scripts, $2 program, $3 more environment
define amdgpu_product
$(AMDGPU_OUT)/$1.%.t: $2 $(AMDGPU_HIP)
	@mkdir -p $$(@D)
	printf '#!/bin/sh\nexport RAPT_EMULATE=%s RAPT_EMULATE_ORDER=shuffled:1 RAPT_EMULATE_CHECKS=all RAPT_TEST_SIZE=0 %s\nRAPT_HIP_LIBRARY=%s RAPT_TEST_DEVICE=hip:0 exec %s\n' \
	    $$* "$3" $(abspath $(AMDGPU_HIP)) $$(abspath $$<) > $$@
	chmod +x $$@
endef
$(eval $(call amdgpu_product,conformance,$(B)/tests/conformance/conformance,))
# The number of a target among AMDGPU_WHOLE, counted from 0.
amdgpu_number = $(shell set -- $(AMDGPU_WHOLE); n=0; for t; do [ $$t != $1 ] || echo $$n; n=$$((n + 1)); done)
$(eval $(call amdgpu_product,kernels,$(B)/tests/conformance/conformance,RAPT_TEST_KERNELS='!mfma_*$(comma)!wmma_*' RAPT_TEST_SHARES=$(words $(AMDGPU_WHOLE)) RAPT_TEST_SHARE=$$(call amdgpu_number,$$*)))
$(eval $(call amdgpu_product,matrix,$(B)/tests/conformance/conformance,RAPT_TEST_KERNELS='mfma_*$(comma)wmma_*' RAPT_TEST_PARTS=2 RAPT_TEST_PART=$$$$(($$(call amdgpu_number,$$*) % 2))))
$(eval $(call amdgpu_product,whole,$(B)/tests/conformance/conformance,RAPT_TEST_KERNELS=all))
$(eval $(call amdgpu_product,mission,$(B)/tests/e2e/mission,))
$(eval $(call amdgpu_product,pipeline,$(B)/tests/e2e/pipeline,))
$(eval $(call amdgpu_product,overrides,$(B)/tests/e2e/overrides,RAPT_OBJECTS=$(abspath $(AMDGPU_OUT))/overrides))

# The rows whose code object the environment may name, built once more by hand as a user would, with less optimisation.
AMDGPU_OVERRIDES := $(shell sed -n 's/^OVERRIDE.\([a-z_]*\),.*/\1/p' src/gpu/overrides.def)
define amdgpu_override
$(AMDGPU_OUT)/overrides.$1.t: $(foreach t,$(AMDGPU_MISSION),$(AMDGPU_OVERRIDES:%=$(AMDGPU_OUT)/overrides/%_$t.co))
$(AMDGPU_OUT)/overrides/%_$1.co: $(GPU)/%_$1.co
	@mkdir -p $$(@D)
	eval "set -- $$$$(cat $(GPU)/$$*_$1.flags)"; source=$$$$1; shift; \
	  $(HIP_CLANG) $(filter-out -Rpass%,$(HIP_FLAGS)) -O2 --offload-arch=$1 "$$$$@" -o $$@ src/gpu/kernels/$$$$source
endef
$(foreach t,$(AMDGPU_MISSION),$(eval $(call amdgpu_override,$(t))))

# The limits of mk/loops.awk, for one type of each layout of LDS and every row that has an aim of its own.
AMDGPU_LIMITED := mfma_*_d128*_gfx942 mfma_bf16_*_gfx942 wmma_bf16_*_gfx1100 wmma_bf16_*_gfx1201
AMDGPU_LOOPS   := $(if $(shell command -v llvm-mca-22),$(AMDGPU_OUT)/loops.t)
$(AMDGPU_OUT)/loops.t: tools/amdgpu/report.py mk/loops.awk mk/amdgpu.mk $(AMDGPU_HIP) | $(B)/rapt $(GPU)/resources.txt
	printf '#!/bin/sh\necho 1..1\n%s tools/amdgpu/report.py %s %s > %s && awk -f mk/loops.awk %s && echo "ok 1 - loops" || echo "not ok 1 - loops"\n' \
	    "$(PYTHON)" $(B) "$(AMDGPU_LIMITED:%='%')" $(AMDGPU_OUT)/loops.md $(AMDGPU_OUT)/loops.md > $@
	chmod +x $@
AMDGPU_PRODUCT += $(AMDGPU_LOOPS)

# Matrix-unit rows without the rescaling of their output, in a tool of their own: problems whose maxima rise must catch it.
AMDGPU_STALE      := $(AMDGPU_OUT)/stale
AMDGPU_STALE_ROWS := mfma_bf16_d64_gfx942 mfma_bf16_d128_gfx942 wmma_bf16_d64_gfx1100 wmma_bf16_d128_gfx1100
$(AMDGPU_STALE)/amd/softmax.h: src/gpu/kernels/amd/softmax.h
	@mkdir -p $(@D)
	sed '/acc->o\[r\]\[c\] \*= factor;/s/factor;/1.0f;/' $< > $@ && ! cmp -s $< $@ || { rm -f $@; exit 1; }
$(AMDGPU_STALE)/%.co: $(GPU)/%.co $(AMDGPU_STALE)/amd/softmax.h
	eval "set -- $$(cat $(GPU)/$*.flags)"; source=$$1; shift; \
	  $(HIP_CLANG) -I$(AMDGPU_STALE) $(filter-out -Rpass%,$(HIP_FLAGS)) --offload-arch=$(lastword $(subst _, ,$*)) "$$@" \
	      -o $@ src/gpu/kernels/$$source
$(AMDGPU_STALE)/code_objects.s: $(GPU)/code_objects.s
	@mkdir -p $(@D)
	sed $(foreach row,$(AMDGPU_STALE_ROWS),-e 's#"$(GPU)/$(row).co"#"$(AMDGPU_STALE)/$(row).co"#') $< > $@
$(AMDGPU_STALE)/code_objects.o: $(AMDGPU_STALE)/code_objects.s $(AMDGPU_STALE_ROWS:%=$(AMDGPU_STALE)/%.co)
	$(CC) -c -o $@ $<
# These code objects come before the archive, so that its own stay out.
$(AMDGPU_STALE)/rapt: $(AMDGPU_STALE)/code_objects.o $(patsubst %.c,$(B)/%.o,$(wildcard tools/*.c tests/*.c)) $(B)/inner.a
	$(CC) $(LDFLAGS) -o $@ $(filter %.o,$^) $(B)/inner.a $(TOOL_LIBS) $(LIBS)
$(foreach t,gfx942 gfx1100,$(AMDGPU_OUT)/stale.$(t).t): $(AMDGPU_STALE)/rapt | $(B)/rapt
$(eval $(call amdgpu_product,stale,tests/amdgpu/stale.t,))
ifneq ($(shell $(or $(PKG_CONFIG),pkg-config) --libs jansson cairo 2> /dev/null),)
AMDGPU_PRODUCT += $(foreach t,gfx942 gfx1100,$(AMDGPU_OUT)/stale.$(t).t)
endif

# Without a compiler for AMD GPUs the library holds no code for them to run.
CHECKS += $(if $(HIP_CLANG),$(AMDGPU_PRODUCT))
amdgpu-product: all $(AMDGPU_PRODUCT)
	$(PROVE) $(AMDGPU_PRODUCT)
check-amd: all $(AMDGPU_TESTS) $(AMDGPU_PRODUCT)
	$(PROVE) $(AMDGPU_TESTS) $(AMDGPU_PRODUCT)
check-amd-whole: all $(AMDGPU_WHOLE:%=$(AMDGPU_OUT)/whole.%.t)
	$(PROVE) $(filter %.t,$^)
.PHONY: amdgpu-product check-amd check-amd-whole

# Registers, occupancy, matrix share and LDS conflicts of the matrix-unit rows, for docs/performance/amd.md. ROWS='*_gfx942': these alone.
amdgpu-report: tool $(AMDGPU_HIP) $(GPU)/resources.txt
	@$(PYTHON) tools/amdgpu/report.py $(B) '$(or $(ROWS),*)'
.PHONY: amdgpu-report
else
amdgpu-check check-amd:
	@echo "amdgpu: unit tests left out, need clang-22 and lld-22"
endif

-include $(wildcard $(AMDGPU_OUT)/*.d $(AMDGPU_OUT)/unit/*.d)
endif
