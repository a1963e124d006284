# Makefile: the only build system of rapt. `make` builds the library and the tool, `make check` runs every test that needs
# no GPU, `make help` names the rest. One build folder per configuration: B=build, or build/SAN for SAN=address,undefined.
VERSION := 0.1.0
SOVERSION := 0

SAN      ?=
comma    := ,
B        ?= build$(if $(SAN),/san-$(subst $(comma),-,$(SAN)))

# `make install` alone, perhaps by root with another PATH, installs what was built: whatever the last `make` was told or found stands in settings.mk.
# Only its own command line counts for more.
SETTINGS := CC AR OBJCOPY CFLAGS CPPFLAGS LDFLAGS TOOL_CFLAGS TOOL_LIBS TOOL_NEEDS NVCC HIP_CLANG KERNELS PREBUILT
ifeq ($(MAKECMDGOALS),install)
include $(wildcard $(B)/settings.mk)
endif

CC       ?= cc
CXX      ?= c++
AR       ?= ar
PREFIX   ?= /usr/local
INCLUDEDIR ?= $(PREFIX)/include
LIBDIR   ?= $(PREFIX)/lib
MANDIR   ?= $(PREFIX)/share/man
CFLAGS   ?= -O2 -g
PYTHON   ?= python3
$(foreach flags,CFLAGS CPPFLAGS LDFLAGS,$(eval GIVEN_$(flags) := $$($(flags))))

WARNINGS := -Wall -Wextra -Wpedantic -Wshadow -Wvla -Wstrict-prototypes -Wmissing-prototypes
# Behind those of the user, whose -ffast-math would lose NaN and infinities; but folders of headers before them: theirs may hold another rapt.h.
override CFLAGS += -std=c11 $(WARNINGS) -fvisibility=hidden -fno-fast-math -fno-math-errno -ffp-contract=off -MMD -MP
override CPPFLAGS := -Iinclude -Isrc $(CPPFLAGS) -D_GNU_SOURCE -DRAPT_BUILD_FOLDER='"$(B)"'
ifneq ($(SAN),)
override CFLAGS += -fsanitize=$(SAN) -fno-omit-frame-pointer -fno-sanitize-recover=all
override LDFLAGS += -fsanitize=$(SAN)
# Everything takes many times as long: the small problems, which have every option, are enough.
export RAPT_TEST_SIZE ?= 0
export LSAN_OPTIONS := suppressions=$(abspath mk/lsan.txt):print_suppressions=0
export SANITIZED_BY := $(SAN)
# Device code carries no instrumentation; the host code of the GPU backends runs on the stand-in drivers.
NVCC :=
HIP_CLANG :=
endif
LIBS := -lm -lpthread -ldl

MACHINE := $(firstword $(subst -, ,$(shell $(CC) -dumpmachine)))
# Whether the compiler's programs are for Linux, and the bytes of their pointers: as many as those of a size or stride.
TARGET := $(shell echo __linux__ __SIZEOF_POINTER__ | $(CC) $(filter-out -MMD -MP,$(CFLAGS)) -E -P -x c - 2> /dev/null | tail -n 1)
ifneq (,$(and $(filter-out clean help uninstall,$(or $(MAKECMDGOALS),all)),$(filter-out 1 8,$(TARGET))))
$(error rapt needs 64-bit Linux, and $(CC) compiles for $(shell $(CC) -dumpmachine) with pointers of $(word 2,$(TARGET)) bytes: name another compiler with CC=)
endif

# ---- The library ------------------------------------------------------------------------------------------------
SOURCES := $(sort $(wildcard src/*.c src/base/*.c src/cpu/*.c src/cpu/scalar/*.c src/gpu/*.c))
ifeq ($(MACHINE),x86_64)
SOURCES += $(sort $(wildcard src/cpu/x86/*.c))
endif
ifneq ($(filter aarch64 arm64,$(MACHINE)),)
SOURCES += $(sort $(wildcard src/cpu/arm/*.c))
endif
OBJECTS := $(SOURCES:%.c=$(B)/%.o)
GPU_OBJECTS :=      # embedded code objects, appended by mk/gpu.mk
CHECKS :=           # programs and scripts that `make check` runs, appended below and by mk/*.mk
EXTRA_BUILD :=      # further goals of `make`, appended by mk/*.mk

all: library tool extra

# Levels of instruction sets: the flags of a row of levels.def, and of the rows that it builds on, go to the files that end in its name.
# $(call level_rows,COMPILER,TEXT): TEXT for each level of that compiler's architecture, the names of columns standing for what they hold.
level_rows = $(shell $1 -E -P -x c -D'LEVEL(name,on,feature,refuses,rows,blocks,flags)=$2' src/cpu/levels.def)
CPU_LEVELS := $(call level_rows,$(CC),name)
define level
ISA_$1 := $(ISA_$2) $3
%_$(subst _,,$1).o: ISA := $$(ISA_$1)
endef
$(eval $(call level_rows,$(CC),$$(eval $$(call level,name,on,flags))))
# Unrolled loops with instrumentation take minutes to compile at -O3.
$(B)/src/cpu/%.o: override CFLAGS += $(if $(SAN),-O1,-O3) -ffp-contract=fast

# Objects are made anew when the compiler or its flags change, but not by `make install` alone.
FLAGS := $(strip $(CC) $(sort $(CPPFLAGS) $(CFLAGS)))
ifneq ($(filter-out install,$(or $(MAKECMDGOALS),all)),)
ifneq ($(strip $(shell cat $(B)/flags.txt 2> /dev/null)),$(FLAGS))
$(B)/flags.txt: FORCE_FLAGS
endif
endif
$(B)/flags.txt:
	@mkdir -p $(@D)
	@printf '%s\n' '$(subst ','\'',$(FLAGS))' > $@
FORCE_FLAGS:

$(B)/%.o: %.c $(B)/flags.txt
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) $(ISA) -fPIC -c $< -o $@

include mk/gpu.mk $(filter-out mk/gpu.mk,$(wildcard mk/*.mk))

SHARED := $(B)/librapt.so.$(VERSION)
STATIC := $(B)/librapt.a
# The same objects with their inner names, for the tool and the tests.
INNER  := $(B)/inner.a
library: $(SHARED) $(STATIC)
$(SHARED): $(OBJECTS) $(GPU_OBJECTS) src/rapt.map
	$(CC) $(LDFLAGS) -shared -Wl,-soname,librapt.so.$(SOVERSION) -Wl,--version-script=src/rapt.map -Wl,-z,noexecstack \
	    -o $@ $(OBJECTS) $(GPU_OBJECTS) $(LIBS)
	ln -sf librapt.so.$(VERSION) $(B)/librapt.so.$(SOVERSION)
	ln -sf librapt.so.$(SOVERSION) $(B)/librapt.so
$(INNER): $(OBJECTS) $(GPU_OBJECTS)
	rm -f $@
	$(AR) rcs $@ $^
# One object, whose hidden names (`fail`, `view_of`) are local: a program may have functions of these names. Of objects for -flto gcc makes code.
OBJCOPY ?= $(shell $(CC) -print-prog-name=objcopy)
ONE := $(if $(filter -flto%,$(CFLAGS)),$(shell $(CC) -flinker-output=nolto-rel -E -x c /dev/null > /dev/null 2>&1 && echo -flinker-output=nolto-rel))
$(STATIC): $(OBJECTS) $(GPU_OBJECTS)
	rm -f $@
	$(CC) $(filter-out -MMD -MP -fsanitize%,$(CFLAGS)) $(filter -fuse-ld=%,$(LDFLAGS)) $(ONE) -r -nostdlib -o $(B)/librapt.o $^
	$(OBJCOPY) --localize-hidden $(B)/librapt.o
	$(AR) rcs $@ $(B)/librapt.o
	rm -f $(B)/librapt.o

# ---- The tool ---------------------------------------------------------------------------------------------------
PKG_CONFIG ?= pkg-config
TOOL_PACKAGES := jansson cairo
ifndef RECORDED
TOOL_CFLAGS := $(shell $(PKG_CONFIG) --cflags $(TOOL_PACKAGES) 2>/dev/null)
TOOL_LIBS := $(shell $(PKG_CONFIG) --libs $(TOOL_PACKAGES) 2>/dev/null)
ifeq ($(TOOL_LIBS),)
TOOL_NEEDS := jansson and cairo (apt install libjansson-dev libcairo2-dev)
else ifeq ($(shell $(CC) $(CPPFLAGS) -include argp.h -E -x c /dev/null > /dev/null 2>&1 && echo yes),)
TOOL_NEEDS := argp.h, which is not in the C library here (with musl: argp-standalone)
endif
# Beside a C library that has no argp it is a library of its own.
TOOL_LIBS += $(if $(findstring /,$(shell $(CC) -print-file-name=libargp.a)),-largp)
endif
SUPPORT := $(patsubst %.c,$(B)/%.o,$(sort $(wildcard tests/*.c)))
TOOL_OBJECTS := $(patsubst %.c,$(B)/%.o,$(sort $(wildcard tools/*.c)))
ifndef TOOL_NEEDS
tool: $(B)/rapt
else
tool:
	@echo "tool: left out, needs $(TOOL_NEEDS)"
endif
$(B)/tools/%.o: override CPPFLAGS += -Itests -Itools $(TOOL_CFLAGS)
$(B)/tests/%.o: override CPPFLAGS += -Itests -Itools
$(B)/rapt: $(TOOL_OBJECTS) $(SUPPORT) $(INNER)
	$(CC) $(LDFLAGS) -o $@ $^ $(TOOL_LIBS) $(LIBS)
extra: $(EXTRA_BUILD)

ifndef RECORDED
# $(call quoted,NAME): what it was given, as a line of a makefile and a word of the shell.
quoted = '$1 := $(subst ','\'',$(subst $(HASH),\$(HASH),$(subst $$,$$$$,$($(if $(filter CFLAGS CPPFLAGS LDFLAGS,$1),GIVEN_)$1))))'
$(B)/settings.mk: FORCE_FLAGS
	@mkdir -p $(@D)
	@printf '%s\n' 'RECORDED := yes' $(foreach setting,$(SETTINGS),$(call quoted,$(setting))) > $@.new
	@cmp -s $@.new $@ && rm $@.new || mv $@.new $@
library tool examples kernels: $(B)/settings.mk
endif

# ---- Tests ------------------------------------------------------------------------------------------------------
# One program per file of these folders, linked with the static library and the shared test code; TAP through cmocka.
TEST_FOLDERS := api check conformance e2e
TESTS := $(patsubst %.c,$(B)/%,$(foreach folder,$(TEST_FOLDERS),$(wildcard tests/$(folder)/*.c)))
TEST_LIBS := -lcmocka
$(TESTS): $(B)/%: $(B)/%.o $(SUPPORT) $(INNER)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) $(WRAP) -o $@ $(filter %.o,$^) $(INNER) $(TEST_LIBS) $(LIBS)

EXAMPLES := $(patsubst %.c,$(B)/%,$(wildcard examples/*.c))
$(EXAMPLES): $(B)/%: %.c $(SHARED)
	@mkdir -p $(@D)
	$(CC) -L$(B) $(LDFLAGS) -std=c11 $(WARNINGS) -g -Iinclude -o $@ $< -lrapt -lm -Wl,-rpath,$(abspath $(B))
examples: $(EXAMPLES)

# The conformance suite runs once per instruction set; a level that this CPU lacks is skipped by the suite itself.
LEVEL_CHECKS := $(foreach level,$(CPU_LEVELS),$(B)/tests/conformance.$(level).t)
$(LEVEL_CHECKS): $(B)/tests/conformance.%.t: $(B)/tests/conformance/conformance
	printf '#!/bin/sh\nRAPT_CPU=%s RAPT_TEST_DEVICE=cpu exec $(abspath $<)\n' $* > $@
	chmod +x $@

CHECKS += $(filter-out $(B)/tests/conformance/conformance,$(TESTS)) $(LEVEL_CHECKS) $(wildcard tests/*.t tests/cli/*.t)
PROVE := prove -j $(or $(JOBS),2) --exec '' --trap --timer
export CMOCKA_MESSAGE_OUTPUT := TAP
export RAPT_BUILD := $(abspath $(B))
check: all $(CHECKS) $(EXAMPLES)
	$(PROVE) $(CHECKS)
check-build: all $(CHECKS) $(EXAMPLES)
check-random: $(B)/tests/conformance/random
	RAPT_TEST_RANDOM=$(RANDOM) $<

# ---- Benchmarks, lint, packaging ----------------------------------------------------------------------------------
bench: tool
	$(B)/rapt bench bench/standard.txt

# What reading K and V as decode does can reach on this CPU, beside a plain stream.
bench-decode: $(B)/bench/decode_ceiling
	$< 1
	$< $(THREADS)
THREADS ?= $(shell nproc)
$(B)/bench/decode_ceiling: bench/decode_ceiling.c
	@mkdir -p $(@D)
	$(CC) -std=c11 -D_GNU_SOURCE $(WARNINGS) -O2 -ffp-contract=fast -march=native -o $@ $< -lpthread

# clang-tidy runs once per file: version 14 carries the state of variable arguments from one file to the next. The kernels of another
# architecture are left out, as its headers may not be here.
TIDY := clang-tidy --quiet
TIDY_FLAGS = -std=c11 $(CPPFLAGS) $(TOOL_CFLAGS) -Itests -Itools $(if $(filter x86_64,$(MACHINE)),$(ISA_avx512_bf16))
TIDY_FILES = $(SOURCES) $(wildcard tools/*.c)
lint: lint-tidy
	cppcheck --quiet --error-exitcode=1 --std=c11 --enable=warning,portability --inline-suppr \
	    --suppressions-list=mk/cppcheck.txt -Iinclude -Isrc src/*.c src/base src/cpu/*.c src/gpu tools
	sh mk/lint.sh
lint-tidy: $(TIDY_FILES:%=$(B)/lint/%)
$(B)/lint/%.c: %.c .clang-tidy
	@mkdir -p $(@D)
	@$(TIDY) $< -- $(TIDY_FLAGS) 2> $@.log || { cat $@.log; exit 1; }
	@touch $@
format:
	clang-format -i $(shell git ls-files '*.c' '*.h')

# Folders may have spaces, which pkg-config wants behind a backslash, and PREFIX may be relative. What pkg-config and CMake read holds no path that a
# moved installation would not have.
absolute = $(if $(filter /%,$(firstword $1)),$1,$(abspath $1))
TO_PREFIX  = $(DESTDIR)$(PREFIX)
TO_INCLUDE = $(DESTDIR)$(INCLUDEDIR)
TO_LIB     = $(DESTDIR)$(LIBDIR)
TO_MAN     = $(DESTDIR)$(MANDIR)
install: library tool
	install -d "$(TO_INCLUDE)/rapt" "$(TO_LIB)/pkgconfig" "$(TO_LIB)/cmake/rapt" "$(TO_PREFIX)/bin" "$(TO_MAN)/man1"
	install -m 644 include/rapt/rapt.h "$(TO_INCLUDE)/rapt/"
	install -m 644 $(STATIC) "$(TO_LIB)/"
	install -m 755 $(SHARED) "$(TO_LIB)/"
	ln -sf librapt.so.$(VERSION) "$(TO_LIB)/librapt.so.$(SOVERSION)"
	ln -sf librapt.so.$(SOVERSION) "$(TO_LIB)/librapt.so"
	if [ -x $(B)/rapt ]; then install -m 755 $(B)/rapt "$(TO_PREFIX)/bin/"; fi
	if [ -f docs/rapt.1 ]; then install -m 644 docs/rapt.1 "$(TO_MAN)/man1/"; fi
	sed -e 's|@PREFIX@|$(call absolute,$(PREFIX))|' -e 's|@LIBDIR@|$(call absolute,$(LIBDIR))|' -e 's|@VERSION@|$(VERSION)|' \
	    -e 's|@INCLUDEDIR@|$(call absolute,$(INCLUDEDIR))|' -e 's|=$(call absolute,$(PREFIX))/|=$${prefix}/|' -e '/^[a-z]*=/s/ /\\ /g' \
	    mk/rapt.pc.in > "$(TO_LIB)/pkgconfig/rapt.pc"
	include=$$(realpath -ms --relative-to="$(LIBDIR)" "$(INCLUDEDIR)" 2> /dev/null) || include='$(call absolute,$(INCLUDEDIR))'; \
	  sed -e "s|@INCLUDEDIR@|$$include|" -e 's|@SOVERSION@|$(SOVERSION)|' mk/raptConfig.cmake.in > "$(TO_LIB)/cmake/rapt/raptConfig.cmake"
	sed -e 's|@VERSION@|$(VERSION)|' mk/raptConfigVersion.cmake.in > "$(TO_LIB)/cmake/rapt/raptConfigVersion.cmake"
	chmod 644 "$(TO_LIB)/pkgconfig/rapt.pc" "$(TO_LIB)"/cmake/rapt/raptConfig*.cmake

uninstall:
	rm -f "$(TO_INCLUDE)/rapt/rapt.h" "$(TO_LIB)/librapt.a" "$(TO_LIB)"/librapt.so* "$(TO_LIB)/pkgconfig/rapt.pc" \
	    "$(TO_LIB)"/cmake/rapt/raptConfig*.cmake "$(TO_PREFIX)/bin/rapt" "$(TO_MAN)/man1/rapt.1"
	-rmdir "$(TO_INCLUDE)/rapt" "$(TO_LIB)/cmake/rapt"

clean:
	rm -rf $(B)

help:
	@echo "build    make [all]                  library and tool; B=FOLDER builds elsewhere, NVCC= HIP_CLANG= without GPU code"
	@echo "         make KERNELS='*d128*_sm_90a' the GPU kernels of these rows alone; make kernels: all that can be built here"
	@echo "         make examples               the programs of examples/, into build/examples (by hand, some need -lm)"
	@echo "install  make install, uninstall     PREFIX= LIBDIR= INCLUDEDIR= MANDIR= DESTDIR="
	@echo "test     make check                  every test that needs no GPU; make SAN=address,undefined check, SAN=thread"
	@echo "         make check-random           10,000 random problems on the CPU"
	@echo "         make check-gpu              problems and end-to-end tests on the GPUs present; check-gpu-random, -sanitize"
	@echo "         make check-amd              AMD code objects on emulated GPUs (part of check); check-amd-whole: more of them"
	@echo "         make check-qemu, check-arm  whole suites on emulated CPUs (check takes a part)"
	@echo "         make lint, format, fuzz"
	@echo "measure  make bench, bench-decode, bench-launch, trace-gpu, kernel-resources, amdgpu-report"
	@echo "release  make dist, distcheck        a source archive with every code object, and its test"
	@echo "         make clean"

-include $(shell find $(B) -name '*.d' 2>/dev/null)
.DELETE_ON_ERROR:
.SECONDARY:
.PHONY: FORCE_FLAGS all library tool extra examples check check-build bench bench-decode lint lint-tidy format install uninstall clean help
