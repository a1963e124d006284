# The AMD GPU emulator (tests/amdgpu): library, runner, fake libamdhip64.so, unit tests. Needs LLVM 22's library and headers.
AMDGPU_LLVM_CONFIG ?= $(shell command -v llvm-config-22)
AMDGPU_CLANG       ?= $(shell command -v clang-22)
B ?= build

ifeq ($(AMDGPU_LLVM_CONFIG),)
amdgpu amdgpu-check:
	@echo "amdgpu: left out, needs libllvm-22 (llvm-22-dev)"
else
AMDGPU_DIR    := tests/amdgpu
AMDGPU_OUT    := $(B)/tests/amdgpu
AMDGPU_CFLAGS := -std=c11 -D_GNU_SOURCE -O3 -g -march=native -mprefer-vector-width=512 -fPIC -fno-math-errno \
                 -fno-trapping-math -ffp-contract=off -fno-strict-aliasing -fvisibility=hidden -Wall -Wextra -Wpedantic -Wshadow -Wvla \
                 -isystem $(shell $(AMDGPU_LLVM_CONFIG) --includedir) -pthread -MMD -MP
AMDGPU_LIBS   := -L$(shell $(AMDGPU_LLVM_CONFIG) --libdir) $(shell $(AMDGPU_LLVM_CONFIG) --libs --link-shared) -lm -pthread
AMDGPU_SRC    := decode operands bind ops targets load notes memory checks vector lanes_f32 lanes_int lanes_f16 lanes_wide \
                 lanes_convert compare carry divide packed cross matrix scalar scalar_memory branch global atomic lds buffer \
                 wave dispatch stats
AMDGPU_OBJ    := $(AMDGPU_SRC:%=$(AMDGPU_OUT)/%.o)

$(AMDGPU_OUT)/%.o: $(AMDGPU_DIR)/%.c
	@mkdir -p $(@D)
	$(CC) $(AMDGPU_CFLAGS) -c $< -o $@

$(AMDGPU_OUT)/run: $(AMDGPU_OUT)/main.o $(AMDGPU_OBJ)
	$(CC) -o $@ $^ $(AMDGPU_LIBS)

AMDGPU_HIP := $(B)/tests/libamdhip64.so
AMDGPU_HIP_OBJ := $(patsubst %,$(AMDGPU_OUT)/%.o,hip_device hip_memory hip_stream hip_module)
$(AMDGPU_HIP): $(AMDGPU_HIP_OBJ) $(AMDGPU_OBJ)
	$(CC) -shared -o $@ $^ $(AMDGPU_LIBS)

amdgpu: $(AMDGPU_OUT)/run $(AMDGPU_HIP)

-include $(wildcard $(AMDGPU_OUT)/*.d)
endif
.PHONY: amdgpu amdgpu-check
