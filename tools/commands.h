/* commands.h: the commands of rapt. Each takes its own arguments (argv[0] is "rapt NAME") and
 * returns the exit code. */
#ifndef RAPT_TOOLS_COMMANDS_H
#define RAPT_TOOLS_COMMANDS_H

/* name, summary */
#define COMMAND_LIST(X)                                                                            \
    X(run, "attention over the tensors of a safetensors file")                                     \
    X(info, "devices, instruction sets and kernels, and why one is missing")                       \
    X(explain, "which kernel would serve a problem, and why each better one refuses")              \
    X(bench, "time problems, beside this machine's measured ceiling")                              \
    X(check, "compare this machine with the f64 definition")                                       \
    X(map, "draw a head's attention weights")

#define ROW(name, summary) int command_##name(int argc, char **argv);
COMMAND_LIST(ROW)
#undef ROW

#endif
