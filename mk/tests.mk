# tests.mk: rules of the tests that need more than a program from one file.

# allocations: counts and fails the allocating calls of the library itself, not those of shared libraries.
WRAPPED := malloc calloc realloc aligned_alloc posix_memalign pthread_create free
$(B)/tests/api/allocations: override LDFLAGS += $(WRAPPED:%=-Wl,--wrap=%)

# Programs that note the error sentences they meet, for tests/api/sentences.t.
SENTENCE_TESTS := $(patsubst %.c,$(B)/%,$(wildcard tests/api/*.c)) $(FAKE_TESTS)
$(SENTENCE_TESTS): $(B)/tests/record/sentences.o
$(SENTENCE_TESTS): WRAP += -Wl,--wrap=fail

# pack_requests: sources of the library with a function in place of each request for a line. They come before the archive, so that its own
# members of these names stay out.
REQUESTING := src/cpu/forward_pack.c $(filter src/cpu/x86/tiles_avx% src/cpu/x86/pack_% src/cpu/arm/tiles_%,$(SOURCES))
REQUESTS := $(REQUESTING:%.c=$(B)/tests/record/%.o)
$(REQUESTS): $(B)/tests/record/%.o: %.c tests/record/requests.h $(B)/flags.txt
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) $(ISA) -include tests/record/requests.h -c $< -o $@
$(B)/tests/check/pack_requests: $(REQUESTS)

# Fuzz targets: tests/fuzz/NAME.c has LLVMFuzzerTestOneInput. `make check` replays the stored corpus and seeded mutations of it
# with any compiler; `make fuzz` searches with clang's libFuzzer for FUZZ_SECONDS each; what it finds stays in $(B)/fuzz.
FUZZ_TARGETS := params $(if $(shell command -v $(or $(PKG_CONFIG),pkg-config) > /dev/null && $(or $(PKG_CONFIG),pkg-config) --exists jansson && echo yes),safetensors)
FUZZ_REPLAYS := $(FUZZ_TARGETS:%=$(B)/tests/fuzz/%)
FUZZ_SECONDS ?= 60
FUZZ_CC ?= clang
FUZZ_OBJECTS_safetensors := $(B)/tools/safetensors.o
$(B)/tests/fuzz/safetensors: $(FUZZ_OBJECTS_safetensors)
$(FUZZ_REPLAYS): $(B)/tests/fuzz/%: $(B)/tests/fuzz/%.o $(B)/tests/fuzz/replay.o $(B)/inner.a
	$(CC) $(LDFLAGS) -o $@ $(filter %.o,$^) $(filter %.a,$^) $(if $(filter %/safetensors,$@),$(TOOL_LIBS)) $(LIBS)
$(B)/tests/fuzz/replay.o: override CPPFLAGS += -DFUZZ_CORPUS='"tests/fuzz/corpus"'
CHECKS += $(FUZZ_REPLAYS)

# The library is built again with coverage for the fuzzer, without GPU code objects. The unrolled kernels go without: clang
# takes minutes to instrument them, and their inner loops would drown the coverage of the checks.
ifdef FUZZING
$(B)/src/cpu/scalar/%.o $(B)/src/cpu/x86/%.o $(B)/src/cpu/arm/%.o: override CFLAGS += -fno-sanitize=all
endif
FUZZ_FLAGS := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all
fuzz:
	@command -v $(FUZZ_CC) > /dev/null || { echo "fuzz: $(FUZZ_CC) is not installed (apt install clang)"; exit 1; }
	$(MAKE) FUZZING=1 B=$(B)/fuzz CC=$(FUZZ_CC) NVCC= HIP_CLANG= CFLAGS='$(FUZZ_FLAGS) -fsanitize=fuzzer-no-link' \
	    $(B)/fuzz/inner.a $(FUZZ_TARGETS:%=$(B)/fuzz/tests/fuzz/%.o) $(FUZZ_OBJECTS_safetensors:$(B)/%=$(B)/fuzz/%)
	@for target in $(FUZZ_TARGETS); do \
	  echo "fuzz: $$target, $(FUZZ_SECONDS) seconds"; mkdir -p $(B)/fuzz/$$target.found; \
	  object=; libraries=; case $$target in safetensors) object=$(B)/fuzz/tools/safetensors.o; libraries='$(TOOL_LIBS)' ;; esac; \
	  $(FUZZ_CC) $(FUZZ_FLAGS) -fsanitize=fuzzer -o $(B)/fuzz/$$target $(B)/fuzz/tests/fuzz/$$target.o $$object $(B)/fuzz/inner.a \
	    $$libraries $(LIBS) && \
	  $(B)/fuzz/$$target -max_total_time=$(FUZZ_SECONDS) -artifact_prefix=$(B)/fuzz/$$target- $(B)/fuzz/$$target.found \
	    tests/fuzz/corpus/$$target || exit 1; \
	done
.PHONY: fuzz

# What tests/api/install.t looks at: installations into a prefix of its own, into one with spaces, and under DESTDIR.
INSTALLED := $(abspath $(B))/tests/installed
installed: all
	rm -rf $(INSTALLED) "$(INSTALLED) of three words" $(INSTALLED).destdir
	umask 077; $(MAKE) -s --no-print-directory install PREFIX=$(INSTALLED) DESTDIR=
	$(MAKE) -s --no-print-directory install PREFIX="$(INSTALLED) of three words" DESTDIR=
	umask 077; $(MAKE) -s --no-print-directory install PREFIX=/usr DESTDIR=$(INSTALLED).destdir
check check-build: installed
.PHONY: installed

# Scripts: the header alone in C and C++, the exported symbols, the map of requirements.
CHECKS += $(wildcard tests/api/*.t) $(wildcard tests/requirements.t)
export CC CXX PYTHON LDFLAGS
