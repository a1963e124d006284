# gpu.mk: one code object per row of src/gpu/kernels.def, built by nvcc or clang where present, embedded into GPU_OBJECTS; NVIDIA's
# compressed (NAME_ARCH.packed, a fat binary, which the driver unpacks).
#   make KERNELS='*d128*'      build only rows whose NAME_ARCH matches (shell pattern, or several: '*_sm_90a qk_*'); the others are listed
#                              with 0 bytes
#   make NVCC= HIP_CLANG=      build none; $(PREBUILT)/NAME_ARCH.co is used where it is there, with NAME_ARCH.txt, what its compiler reported
#                              (make dist and make prebuilt put both there)
#   make kernel-resources      registers, shared memory and spills of every object, from the compilers' own reports
NVCC      ?= $(shell command -v nvcc || { test -x /usr/local/cuda/bin/nvcc && echo /usr/local/cuda/bin/nvcc; })
HIP_CLANG ?= $(firstword $(foreach v,22 23 24,$(shell command -v clang-$(v))))
KERNELS   ?= *
PREBUILT  ?= prebuilt
EMPTY     :=
PATTERNS   = $(or $(subst $(EMPTY) $(EMPTY),|,$(strip $(KERNELS))),*)

GPU := $(B)/gpu
GPU_OBJECTS := $(GPU)/code_objects.o
GPU_FLAGS := -O3 -std=c++17 -Isrc -Iinclude -Isrc/gpu/kernels
# Stamps of the clock in place of the log-sum-exp (make trace-gpu): asked for by make's command line, never by an environment that has a TRACE.
STAMPS := $(if $(filter command,$(firstword $(origin TRACE))),-DTRACE=1)
NVCC_FLAGS := $(GPU_FLAGS) -MMD -MP -Xptxas -v $(STAMPS)
HIP_FLAGS := $(GPU_FLAGS) -x hip --offload-device-only --no-gpu-bundle-output -nogpuinc -nogpulib -fuse-cuid=none \
             -mcode-object-version=5 -Wall -Wextra -Rpass-analysis=kernel-resource-usage

# The table is C: the preprocessor turns each row into one line, a shell pattern picks, $(eval) makes the rule. An object is
# built anew when its own row changes (NAME_ARCH.flags), not when the table does.
HASH := \#
ROW_COLUMNS := v,a,s,n,o,t,d,dv,q,k,w,m,g,c,r,...
ROW_LINE := @row n a v s -DKERNEL_NAME=n -DDTYPE=DTYPE_$(HASH)$(HASH)t -DD=d -DDV=dv -DTILE_Q=q -DTILE_KV=k -DTHREADS=w -DSHARED_BYTES=^m^ __VA_ARGS__@

$(GPU)/rows.txt: src/gpu/kernels.def $(wildcard src/gpu/kernels_*.def) mk/gpu.mk | $(GPU)
	$(CC) -E -P -undef -x c -D'KERNEL($(ROW_COLUMNS))=$(ROW_LINE)' $< > $@.i
	tr '\n@' ' \n' < $@.i | sed -n 's/^row //p' | sed 's/ *= */=/g; s/"//g; s/\^ */"(/; s/ *\^/)"/; s/ *$$//' > $@
	@rm $@.i

$(GPU)/rules.mk: $(GPU)/rows.txt FORCE_KERNELS
	@{ echo '# $(NVCC) $(HIP_CLANG)'; while read -r name arch vendor source flags; do \
	  id=$${name}_$$arch; case $$id in $(PATTERNS)) ;; *) continue ;; esac; \
	  old=; { read -r old < $(GPU)/$$id.flags; } 2> /dev/null; \
	  test "$$old" = "$$source $$flags" || printf '%s\n' "$$source $$flags" > $(GPU)/$$id.flags; \
	  printf '$$(eval $$(call gpu_row,%s,%s,%s,%s,%s))\n' "$$name" "$$arch" "$$vendor" "$$source" "$$flags"; \
	done < $<; } > $@.new; cmp -s $@.new $@ && rm $@.new || mv $@.new $@
FORCE_KERNELS:

# $1 name, $2 arch, $3 vendor, $4 source, $5 flags. PTX (compute_NN) is text for the driver's compiler, and assembled once for sm_NN so that
# its registers and spills are known; everything else is an ELF object.
PTXAS = $(dir $(firstword $(NVCC)))ptxas
PACK = $(dir $(firstword $(NVCC)))fatbinary -64 --compress-all
gpu_row = $(if $(gpu_compiler_$3),$(eval $(call gpu_compiled,$1_$2,$2,$4,$5,$3)),$(if $(wildcard $(PREBUILT)/$1_$2.co),$(eval $(call gpu_prebuilt,$1_$2))))
gpu_compiler_cuda = $(NVCC)
gpu_compiler_hip = $(HIP_CLANG)
# $1 arch. What is embedded, and of an NVIDIA object its kind.
gpu_suffix_cuda = packed
gpu_suffix_hip = co
gpu_kind = $(if $(filter compute_%,$1),ptx,elf),sm=$(lastword $(subst _, ,$1))
# $1 arch, $2 NAME_ARCH. clang takes the dependency options of a device-only compilation through -Xclang alone.
gpu_command_cuda = $(NVCC) $(NVCC_FLAGS) $(if $(filter compute_%,$1),-ptx,-cubin) -arch=$1 -MF $(GPU)/$2.d -MT $(GPU)/$2.co
gpu_command_hip = $(HIP_CLANG) $(HIP_FLAGS) --offload-arch=$1 -Xclang -dependency-file -Xclang $(GPU)/$2.d -Xclang -MT -Xclang $(GPU)/$2.co -Xclang -MP
define gpu_compiled
GPU_BUILT += $1
GPU_COMPILED += $1
GPU_EMBEDDED += $(GPU)/$1.$(gpu_suffix_$5)
$(GPU)/$1.packed: $(GPU)/$1.co
	@$(PACK) --create $$@ --image3=kind=$(call gpu_kind,$2),file=$$<
$(GPU)/$1.co: src/gpu/kernels/$3 $(GPU)/$1.flags
	$(if $(V),,@echo '  $(if $(filter cuda,$5),nvcc ,clang) $1';)$(call gpu_command_$5,$2,$1) $4 -o $$@ $$< 2> $(GPU)/$1.log \
	  $(if $(filter compute_%,$2),&& $(PTXAS) -v -arch=$(2:compute_%=sm_%) -o /dev/null $$@ 2>> $(GPU)/$1.log) || \
	  { grep -v ': remark: \|^ *[0-9]* *|\|ptxas info' $(GPU)/$1.log; rm -f $$@; exit 1; }
	@grep -A 4 'warning:' $(GPU)/$1.log || true
endef
define gpu_prebuilt
GPU_BUILT += $1
GPU_EMBEDDED += $(GPU)/$1.co
$(GPU)/$1.co: $(PREBUILT)/$1.co
	cp $$< $$@
endef
-include $(GPU)/rules.mk
-include $(wildcard $(GPU)/*.d)

# Which objects there are to embed: prebuilt ones come and go.
$(GPU)/built.txt: FORCE_KERNELS | $(GPU)
	@echo '$(GPU_EMBEDDED)' > $@.new; cmp -s $@.new $@ && rm $@.new || mv $@.new $@

# One assembler file defines every row's symbols, empty for rows that are not built, so that the registry needs no weak references. Its end is what
# the compiler says of an empty file under these flags: notes, as those of -fcf-protection, which the library has if each of its objects has them.
$(GPU)/code_objects.s: $(GPU)/rows.txt $(GPU)/built.txt $(B)/flags.txt
	@{ echo '.section .rodata.rapt_code_objects,"a"'; \
	  while read -r name arch rest; do \
	    id=$${name}_$$arch; printf '.balign 64\n.globl rapt_code_%s\n.hidden rapt_code_%s\nrapt_code_%s:\n' $$id $$id $$id; \
	    for file in $(GPU)/$$id.packed $(GPU)/$$id.co; do \
	      case ' $(GPU_EMBEDDED) ' in *" $$file "*) printf '.incbin "%s"\n' $$file ;; esac; done; \
	    printf '.globl rapt_code_%s_end\n.hidden rapt_code_%s_end\nrapt_code_%s_end:\n.byte 0\n' $$id $$id $$id; \
	  done < $<; } > $@
	@$(CC) $(filter-out -M%,$(CFLAGS)) -fno-lto -g0 -w -S -x c -o - /dev/null >> $@
$(GPU)/code_objects.o: $(GPU)/code_objects.s $(GPU_EMBEDDED)
	$(CC) -c -o $@ $<
$(GPU):
	mkdir -p $@

.PHONY: kernels kernel-resources prebuilt FORCE_KERNELS
kernels: $(GPU_OBJECTS)
# What each compiler reports per entry point against what the hardware has; a spill or an exceeded budget fails, here and in make check.
kernel-resources: $(GPU)/resources.txt $(GPU)/size.txt
	@cat $^
check check-build: $(GPU)/resources.txt $(GPU)/size.txt
# 64 MiB
EMBEDDED_LIMIT := 67108864
$(GPU)/size.txt: $(GPU)/code_objects.o
	@size -A $< | awk '/rapt_code_objects/ { n = $$2 } END { \
	  printf "%d code objects, %d bytes embedded of at most %d\n", $(words $(GPU_BUILT)), n, $(EMBEDDED_LIMIT); exit n > $(EMBEDDED_LIMIT) }' > $@ || \
	  { cat $@; echo "too many bytes of code objects: see the largest of $(GPU)/*.packed, *.co"; rm $@; exit 1; }
$(GPU)/resources.txt: $(GPU_BUILT:%=$(GPU)/%.co) mk/resources.awk $(GPU)/rows.txt $(GPU)/rules.mk
	@awk -v wanted='$(GPU_BUILT)' -f mk/resources.awk $(GPU)/rows.txt $(wildcard $(GPU_COMPILED:%=$(GPU)/%.log) \
	  $(filter-out $(GPU_COMPILED:%=$(PREBUILT)/%.txt),$(GPU_BUILT:%=$(PREBUILT)/%.txt))) > $@.new || { cat $@.new; exit 1; }
	@mv $@.new $@
# For the source archive: what is embedded here, each as NAME_ARCH.co in the folder $1, and its lines of resources.txt as NAME_ARCH.txt.
copy_embedded = mkdir -p $1 && for file in $(GPU_EMBEDDED); do id=$${file\#\#*/}; id=$${id%.*}; cp $$file $1/$$id.co && \
  awk -v id=$$id '{ row = $$1; sub(/_(prepare|combine)$$/, "", row) } $$1 "_" $$2 == id || row "_" $$2 == id' $(GPU)/resources.txt \
    > $1/$$id.txt || exit 1; done
prebuilt: $(GPU_EMBEDDED) $(GPU)/resources.txt
	$(call copy_embedded,$(PREBUILT))

# ---- Stand-in drivers and the tests that run the host code on them -------------------------------------------------
FAKES := $(B)/tests/fake_drivers
FAKE_HIPS := $(patsubst %,$(FAKES)/libamdhip64_%.so,5 7 none named)
FAKE_LIBRARIES := $(FAKES)/libcuda.so $(FAKES)/libamdhip64.so $(FAKES)/libcuda_broken.so $(FAKES)/libamdhip64_broken.so $(FAKE_HIPS)
FAKE_TESTS := $(patsubst %.c,$(B)/%,$(wildcard tests/fake_drivers/test_*.c))
FAKE_LINK = $(CC) $(CPPFLAGS) $(CFLAGS) $(LDFLAGS) -fPIC -shared -Wl,-z,nodelete
$(B)/tests/fake_drivers/%.o: override CPPFLAGS += -Itests
$(FAKES)/libcuda.so: tests/fake_drivers/cuda.c tests/fake_drivers/fake.c tests/fake_drivers/fake.h src/gpu/cuda_api.def src/gpu/kernel_args.h
	@mkdir -p $(@D)
	$(FAKE_LINK) -MF $@.d -o $@ tests/fake_drivers/cuda.c tests/fake_drivers/fake.c -lpthread
$(FAKES)/libamdhip64.so: tests/fake_drivers/hip.c tests/fake_drivers/fake.c tests/fake_drivers/fake.h src/gpu/hip_api.def src/gpu/kernel_args.h
	@mkdir -p $(@D)
	$(FAKE_LINK) -MF $@.d -o $@ tests/fake_drivers/hip.c tests/fake_drivers/fake.c -lpthread
# HIP runtimes with one name of hipGetDeviceProperties, and with none; one that a loader finds by a name of HIP's once it is loaded.
$(FAKES)/libamdhip64_5.so: VARIANT := -DWITHOUT_PROPERTIES_6
$(FAKES)/libamdhip64_7.so: VARIANT := -DWITHOUT_PROPERTIES
$(FAKES)/libamdhip64_none.so: VARIANT := -DWITHOUT_PROPERTIES -DWITHOUT_PROPERTIES_6
$(FAKES)/libamdhip64_named.so: VARIANT := -Wl,-soname,libamdhip64.so.6
$(FAKE_HIPS): tests/fake_drivers/hip.c tests/fake_drivers/fake.c tests/fake_drivers/fake.h
	@mkdir -p $(@D)
	$(FAKE_LINK) $(VARIANT) -MF $@.d -o $@ tests/fake_drivers/hip.c tests/fake_drivers/fake.c -lpthread
# Libraries of the right name without any of a driver's functions.
$(FAKES)/%_broken.so: tests/fake_drivers/fake.c tests/fake_drivers/fake.h src/gpu/kernel_args.h
	@mkdir -p $(@D)
	$(FAKE_LINK) -MF $@.d -o $@ tests/fake_drivers/fake.c -lpthread
# In place of the library's code objects, whatever was built here: for each row one that the stand-ins take for an object of the row's
# arch with the row's entry points; for test_open, none.
$(FAKES)/objects.s: $(GPU)/rows.txt mk/gpu.mk
	@mkdir -p $(@D)
	awk '{ id = $$1 "_" $$2; printf ".globl rapt_code_%s, rapt_code_%s_end\n.hidden rapt_code_%s, rapt_code_%s_end\n", id, id, id, id; \
	  printf "rapt_code_%s: .asciz \"fake %s %s %s_prepare %s_combine\"\nrapt_code_%s_end: .byte 0\n", id, $$2, $$1, $$1, $$1, id } \
	  BEGIN { print ".section .rodata" } END { print ".section .note.GNU-stack,\"\",%progbits" }' $< > $@
$(FAKES)/no_objects.s: $(FAKES)/objects.s
	sed 's/: \.asciz .*/:/' $< > $@
$(FAKES)/%objects.o: $(FAKES)/%objects.s
	$(CC) -c -o $@ $<
$(filter-out %/test_open,$(FAKE_TESTS)): $(FAKES)/objects.o
$(FAKES)/test_open: $(FAKES)/no_objects.o
$(FAKES)/test_arguments: $(patsubst %.c,$(B)/%.o,$(wildcard tests/*.c))
$(FAKE_TESTS): $(B)/%: $(B)/%.o $(FAKES)/session.o $(B)/inner.a | $(FAKE_LIBRARIES)
	$(CC) $(LDFLAGS) $(WRAP) -o $@ $(filter %.o,$^) $(filter %.a,$^) -lcmocka $(LIBS)
$(FAKES)/test_refusals: WRAP := -Wl,--wrap=fread
$(FAKES)/test_execute: WRAP := -Wl,--wrap=malloc,--wrap=realloc,--wrap=aligned_alloc,--wrap=pthread_mutex_lock
$(FAKES)/test_faults: WRAP := -Wl,--wrap=aligned_alloc,--wrap=realloc,--wrap=free,--wrap=dlopen,--wrap=dlclose
# The conformance program with those objects, which by_name.t asks for what it would run.
$(FAKES)/conformance: $(B)/tests/conformance/conformance.o $(FAKES)/objects.o $(patsubst %.c,$(B)/%.o,$(wildcard tests/*.c)) $(B)/inner.a \
  | $(FAKE_LIBRARIES)
	$(CC) $(LDFLAGS) -o $@ $(filter %.o,$^) $(filter %.a,$^) -lcmocka $(LIBS)
tests/fake_drivers/by_name.t: $(FAKES)/conformance
CHECKS += $(FAKE_TESTS) tests/fake_drivers/by_name.t
# The tool with those objects, for verify.t.
$(FAKES)/rapt: $(patsubst %.c,$(B)/%.o,$(wildcard tools/*.c tests/*.c)) $(FAKES)/objects.o $(B)/inner.a | $(FAKE_LIBRARIES)
	$(CC) $(LDFLAGS) -o $@ $(filter %.o,$^) $(filter %.a,$^) $(TOOL_LIBS) $(LIBS)
ifneq ($(shell $(or $(PKG_CONFIG),pkg-config) --libs jansson cairo 2> /dev/null),)
tests/fake_drivers/verify.t: $(FAKES)/rapt
CHECKS += tests/fake_drivers/verify.t
endif
