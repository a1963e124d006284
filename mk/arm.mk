# arm.mk: the arm64 levels on x86-64, where Debian's cross compiler and qemu-user are installed: the same tests under emulation, so that
# `make check` there shows arm64 too.
#   make check-arm-short      what make check takes of it
#   make check-arm            the whole conformance suite and every test program that needs no tool, for each level

# Not under SAN: qemu does not lay out memory as the sanitizers' shadow needs it.
ARM_CC   := $(if $(SAN),,$(shell command -v aarch64-linux-gnu-gcc))
ARM_QEMU := $(if $(SAN),,$(shell command -v qemu-aarch64))
ifneq (,$(and $(filter x86_64,$(MACHINE)),$(ARM_CC),$(ARM_QEMU)))
ARM := $(B)/arm64
# CPU models of qemu that have a level and not the one above.
ARM_CPU_neon      := cortex-a57
ARM_CPU_neon_bf16 := max,sve=off
ARM_CPU_sve       := max,sve256=on,sve512=off,sve-default-vector-length=32
ARM_LEVELS := $(filter-out scalar,$(call level_rows,$(ARM_CC),name))
$(foreach level,$(ARM_LEVELS),$(if $(ARM_CPU_$(level)),,$(error mk/arm.mk has no CPU model for $(level))))
ARM_PROGRAMS := $(foreach folder,check api,$(patsubst %.c,%,$(wildcard tests/$(folder)/*.c))) \
                $(patsubst %.c,%,$(wildcard tests/conformance/*.c))
# memory measures the resident size of a process, which is here the emulator's; allocations wraps the host's C library.
ARM_PROGRAMS := $(filter-out tests/api/memory tests/api/allocations,$(ARM_PROGRAMS))
# What make check takes: the kernels of each level, the small problems of each kind, and random ones.
ARM_SHORT := tests/check/tile_kernels tests/check/decode_kernels tests/check/ops_rows tests/conformance/conformance tests/conformance/random
ARM_FILTER := semantics/plain-*,semantics/gqa*,semantics/causal*,semantics/everything*,semantics/nan*,tile/*,decode/*,paged/*,$\
              ragged/*,quant/*,head/*,op/*

.PHONY: arm-build arm-build-all check-arm check-arm-short
# Flags for this machine's compiler, as -march, are none for the other one.
ARM_MAKE = +$(MAKE) -s B=$(ARM) CC=$(ARM_CC) AR=aarch64-linux-gnu-ar CFLAGS='-O2 -g' CPPFLAGS= LDFLAGS= \
             NVCC= HIP_CLANG= AMDGPU_LLVM_CONFIG= PKG_CONFIG=false \
             TEST_LIBS=$(ARM)/tests/cross/cmocka.o $(ARM)/tests/cross/cmocka.o
arm-build:
	$(ARM_MAKE) $(ARM_SHORT:%=$(ARM)/%)
arm-build-all:
	$(ARM_MAKE) $(ARM_PROGRAMS:%=$(ARM)/%)

# $1 level, $2 name of the program, $3 the program, $4 environment
define arm_script
$(ARM)/$1.$2: mk/arm.mk
	@mkdir -p $(ARM)
	@printf '#!/bin/sh\nRAPT_CPU=$1 RAPT_TEST_DEVICE=cpu $4 exec $(ARM_QEMU) -cpu $(ARM_CPU_$1) -L /usr/aarch64-linux-gnu $(abspath $(ARM))/$3\n' > $$@
	@chmod +x $$@
endef
$(foreach level,$(ARM_LEVELS),$(foreach p,$(ARM_PROGRAMS),\
    $(eval $(call arm_script,$(level),$(notdir $(p)).t,$(p),))))
$(foreach level,$(ARM_LEVELS),$(foreach p,$(ARM_SHORT),\
    $(eval $(call arm_script,$(level),$(notdir $(p)).short.t,$(p),RAPT_TEST_SIZE=0 RAPT_TEST_RANDOM=40 RAPT_TEST_FILTER="$(ARM_FILTER)"))))
ARM_CHECKS := $(foreach level,$(ARM_LEVELS),$(foreach p,$(ARM_SHORT),$(ARM)/$(level).$(notdir $(p)).short.t))
CHECKS += $(ARM_CHECKS)
check-arm-short: $(ARM_CHECKS)
	$(PROVE) $(ARM_CHECKS)
$(ARM_CHECKS): | arm-build
ARM_ALL := $(foreach level,$(ARM_LEVELS),$(foreach p,$(ARM_PROGRAMS),$(ARM)/$(level).$(notdir $(p)).t))
check-arm: arm-build-all $(ARM_ALL)
	$(PROVE) $(ARM_ALL)
endif
