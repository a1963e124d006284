# amx.mk: the AMX levels without AMX: their kernels are compiled once more against a model of the tile instructions (tests/amx), and the
# tests of kernels, the conformance suite and random problems run with them. Needs a CPU with AVX-512 BF16 for the one, VNNI for the other, on which
# they build; they skip elsewhere.
ifeq ($(MACHINE),x86_64)
AMX := $(B)/tests/amx
AMX_OBJECTS := $(patsubst %,$(AMX)/%.o,tiles_amx decode_amx few_amx pipeline_amx pipeline_scores_amx pack_parts_amx tiles_amxint8 amx_model cpuid real_cpuid)
AMX_PROGRAMS := $(AMX)/tile_kernels $(AMX)/conformance $(AMX)/random
AMX_COMPILE = $(CC) $(CPPFLAGS) -Itests/amx $(CFLAGS) -c -o $@ $<

$(AMX)/tiles_amxint8.o: ISA := $(ISA_avx512)
$(AMX)/tiles_%.o: src/cpu/x86/tiles_%.c $(B)/flags.txt
	@mkdir -p $(@D)
	$(AMX_COMPILE) $(ISA) -O3 -DRAPT_AMX_MODEL
$(AMX)/%_amx.o: src/cpu/x86/%_amx.c $(B)/flags.txt
	@mkdir -p $(@D)
	$(AMX_COMPILE) $(ISA) -O3 -DRAPT_AMX_MODEL
# Fused multiply-adds in one instruction; only machines with AVX-512 come here.
$(AMX)/amx_model.o: tests/amx/amx_model.c
	@mkdir -p $(@D)
	$(AMX_COMPILE) -O3 -mfma
$(AMX)/real_cpuid.o: src/base/cpuid.c
	@mkdir -p $(@D)
	$(AMX_COMPILE) $(foreach f,features permitted name,-Dcpu_$(f)=real_cpu_$(f))
$(AMX)/cpuid.o: tests/amx/cpuid.c
	@mkdir -p $(@D)
	$(AMX_COMPILE)
# The objects come before the archive, so that its own members of these names stay out.
$(AMX)/tile_kernels: $(B)/tests/check/tile_kernels.o
$(AMX)/conformance: $(B)/tests/conformance/conformance.o
$(AMX)/random: $(B)/tests/conformance/random.o
$(AMX_PROGRAMS): $(AMX_OBJECTS) $(patsubst %.c,$(B)/%.o,$(wildcard tests/*.c)) $(B)/inner.a
	$(CC) $(LDFLAGS) -o $@ $(filter %.o,$^) $(INNER) $(TEST_LIBS) $(LIBS)

# Each level on the problems that it serves, up to a size.
AMX_LEVELS := amx.0 amx_f32.0 amx_int8.1
AMX_SUITES := $(AMX_LEVELS:%=$(AMX)/conformance.%.t)
$(AMX_SUITES): $(AMX)/conformance.%.t: $(AMX)/conformance mk/amx.mk
	printf '#!/bin/sh\nRAPT_CPU=%s RAPT_TEST_DEVICE=cpu RAPT_TEST_SIZE=$${RAPT_TEST_SIZE:-%s} exec $(abspath $<)\n' $(subst ., ,$*) > $@
	chmod +x $@
AMX_RANDOM := $(foreach level,$(AMX_LEVELS),$(AMX)/random.$(basename $(level)).t)
$(AMX_RANDOM): $(AMX)/random.%.t: $(AMX)/random
	printf '#!/bin/sh\nRAPT_CPU=%s RAPT_TEST_DEVICE=cpu exec $(abspath $<)\n' $* > $@
	chmod +x $@
CHECKS += $(AMX)/tile_kernels $(AMX_SUITES) $(AMX_RANDOM) tests/amx/faults.t
endif
