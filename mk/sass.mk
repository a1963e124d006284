# sass.mk: after nvcc, every object of the Hopper forward kernels is read again: the order of matrix products, waits and
# exponentials, and no spills (tools/sass/sass_order.c says why). A broken order fails the build.
SASS_ORDER := $(B)/sass_order
$(SASS_ORDER): tools/sass/sass_order.c
	@mkdir -p $(@D)
	$(CC) -std=c11 $(WARNINGS) -O2 -o $@ $<

SASS_CHECKED := $(foreach id,$(filter sm90_%,$(GPU_COMPILED)),$(GPU)/$(id).order)
# $1 a macro of the object's row; $2 its value where the row has none.
sass_flag = $$(sed -n 's/.*-D$1=\([0-9]*\).*/\1/p; t; s/.*/$2/p' $(GPU)/$*.flags)
$(GPU)/%.order: $(GPU)/%.co $(SASS_ORDER)
	@$(SASS_ORDER) $< $(call sass_flag,TILE_KV) $(call sass_flag,D) $(call sass_flag,PARTS,1) $(call sass_flag,EARLY,4) $(call sass_flag,SUMS,1) \
	  $(call sass_flag,SCALE_CHANNELS,0)
	@if grep -q 'C75[0-9][0-9]' $(GPU)/$*.log; then grep 'C75[0-9][0-9]' $(GPU)/$*.log; exit 1; fi
	@touch $@
EXTRA_BUILD += $(SASS_CHECKED)
