# arm.mk: flags of the ARM levels beyond what the file names say in the Makefile. The SVE level is compiled for vectors of 256
# bits, so that they can live in arrays and structs; cpuid.c offers it where the CPU has that length.
%_sve.o: ISA := -march=armv8.2-a+sve+fp16 -msve-vector-bits=256
