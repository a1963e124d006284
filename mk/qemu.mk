# qemu.mk: x86-64 CPUs that lack what this one has, by qemu-user: an instruction that leaks out of its level ends there in SIGILL.
#   make check-qemu-short     what make check takes of it
#   make check-qemu           the whole test suite on each of them (hours on two cores: AVX2 is emulated slowly)
# Not under SAN: qemu does not lay out memory as the sanitizers' shadow needs it.
QEMU_X86 := $(if $(SAN),,$(if $(filter x86_64,$(MACHINE)),$(shell command -v qemu-x86_64)))
ifneq ($(QEMU_X86),)
QEMU := $(B)/qemu
# Model, the level that rapt takes there, an instruction set that runs there, one that does not.
QEMU_CPU_sse2   := qemu64,-sse3,-ssse3,-sse4.1,-sse4.2
QEMU_EXPECT_sse2 := scalar none sse3
# Less what qemu warns of on each start: the tests of the tool read its stderr.
QEMU_CPU_avx2   := Haswell,-pcid,-x2apic,-tsc-deadline,-hle,-invpcid,-rtm
QEMU_EXPECT_avx2 := avx2 avx2 avx512
QEMU_MODELS := sse2 avx2

# Everything of make check but what looks at the emulator instead of rapt: memory measures the resident size of its process. The tests of
# device code have nothing to do with this CPU.
QEMU_FOLDERS := api check conformance e2e
QEMU_TESTS := $(filter-out tests/api/memory,$(foreach f,$(QEMU_FOLDERS),$(patsubst %.c,%,$(wildcard tests/$(f)/*.c)))) \
              $(patsubst %.c,%,$(wildcard tests/fake_drivers/test_*.c))
QEMU_SHORT := $(patsubst %,tests/%,check/tile_kernels check/decode_kernels check/ops_rows api/lifetimes api/refusals api/refusals_pieces \
              api/edges check/few_threads conformance/conformance conformance/random)
# Small problems of each kind.
QEMU_FILTER := semantics/plain-*,semantics/gqa-*,semantics/causal-*,semantics/everything*,tile/causal-*,decode/*,paged/*,ragged/*,quant/*,$\
               blocked/*,op/*

# $1 model, $2 program: the same program under emulation, at the same place of a folder of its own. RAPT_TEST_EMULATED: its times say
# nothing of rapt.
define qemu_program
$(QEMU)/$1/$2: $(B)/$2 mk/qemu.mk
	@mkdir -p $$(@D)
	@printf '#!/bin/sh\nexport RAPT_TEST_EMULATED=1\nexec $(QEMU_X86) -cpu $(QEMU_CPU_$1) $(abspath $(B))/$2 "$$$$@"\n' > $$@
	@chmod +x $$@
endef
$(foreach m,$(QEMU_MODELS),$(foreach p,rapt tests/qemu/newer $(QEMU_TESTS),$(eval $(call qemu_program,$(m),$(p)))))
$(B)/tests/qemu/newer: tests/qemu/newer.c
	@mkdir -p $(@D)
	$(CC) -O1 -o $@ $<

define qemu_model
$(QEMU)/$1.model.t: $(QEMU)/$1/rapt $(QEMU)/$1/tests/qemu/newer tests/qemu/model.t
	@ln -sf tests/qemu/newer $(QEMU)/$1/newer
	@printf '#!/bin/sh\nexec tests/qemu/model.t $(QEMU)/$1 $(QEMU_EXPECT_$1)\n' > $$@
	@chmod +x $$@
# The scripts that run the tool take it from RAPT_BUILD.
$(QEMU)/$1.%.cli.t: tests/cli/%.t $(QEMU)/$1/rapt
	@printf '#!/bin/sh\nRAPT_TEST_EMULATED=1 RAPT_BUILD=$(abspath $(QEMU)/$1) exec tests/cli/$$*.t\n' > $$@
	@chmod +x $$@
$(QEMU)/$1.short.%.t: $(QEMU)/$1/%
	@mkdir -p $$(@D)
	@printf '#!/bin/sh\nRAPT_TEST_DEVICE=cpu RAPT_TEST_SIZE=0 RAPT_TEST_FILTER="$(QEMU_FILTER)" exec $(abspath $(QEMU))/$1/$$*\n' > $$@
	@chmod +x $$@
QEMU_CHECKS += $(QEMU)/$1.model.t $(QEMU_SHORT:%=$(QEMU)/$1.short.%.t)
QEMU_ALL += $(QEMU)/$1.model.t $(QEMU_TESTS:%=$(QEMU)/$1/%) $(patsubst tests/cli/%.t,$(QEMU)/$1.%.cli.t,$(wildcard tests/cli/*.t))
endef
$(foreach m,$(QEMU_MODELS),$(eval $(call qemu_model,$(m))))
CHECKS += $(QEMU_CHECKS)
check-qemu-short: $(QEMU_CHECKS)
	$(PROVE) $(QEMU_CHECKS)
check-qemu: all $(QEMU_ALL)
	$(PROVE) $(QEMU_ALL)
.PHONY: check-qemu check-qemu-short
endif
