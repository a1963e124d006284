# dist.mk: `make dist`: a source archive of what git tracks, with the code objects that were built here in prebuilt/, so that a
# user without GPU compilers gets every GPU; and `make distcheck`, which builds it with no GPU compiler.
#   make dist                 every code object: about 1,600 s of one core
#   make KERNELS='...' dist   some of them
DIST := rapt-$(VERSION)

.PHONY: dist distcheck
dist: $(GPU_OBJECTS) $(GPU)/size.txt $(GPU)/resources.txt
	@git diff --quiet HEAD -- src include mk Makefile || { echo "dist: src, include or mk differ from the last commit, which is \
	what the archive holds (commit or stash)"; exit 1; }
	rm -rf $(B)/dist && mkdir -p $(B)/dist/$(DIST)
	git archive HEAD | tar -x -C $(B)/dist/$(DIST)
	@$(call copy_embedded,$(B)/dist/$(DIST)/prebuilt)
	tar -C $(B)/dist --sort=name --owner=0 --group=0 --mtime="$$(git log -1 --format=%cI)" -czf $(DIST).tar.gz $(DIST)
	@echo "$(DIST).tar.gz: $$(wc -c < $(DIST).tar.gz) bytes, $(words $(GPU_BUILT)) code objects"

# Built from the archive alone, without a GPU compiler: the tool's answer on the sample is right, and every code object that the
# archive carries is in the library.
distcheck: dist
	rm -rf $(B)/distcheck && mkdir -p $(B)/distcheck
	tar -C $(B)/distcheck -xzf $(DIST).tar.gz
	$(MAKE) -C $(B)/distcheck/$(DIST) B=build NVCC= HIP_CLANG= SAN= AMDGPU_LLVM_CONFIG= all
	cd $(B)/distcheck/$(DIST) && build/rapt run tests/data/smollm2-layer17.safetensors --causal --verify
	cd $(B)/distcheck/$(DIST) && build/rapt info --json | $(PYTHON) mk/embedded.py $(EMBEDDED_LIMIT) $(GPU_BUILT)
