/* main.c: the command `rapt`: finds the command that its first argument names. */
#include "commands.h"
#include "options.h"

#include <stdio.h>
#include <string.h>

static const struct {
    const char *name, *summary;
    int (*run)(int argc, char **argv);
} commands[] = {
#define ROW(name, summary) {#name, summary, command_##name},
    COMMAND_LIST(ROW)
#undef ROW
};

static int print_usage(FILE *to, int code)
{
    fprintf(to, "rapt: transformer attention on CPUs, NVIDIA GPUs and AMD GPUs\n\nUsage: rapt "
                "COMMAND [OPTION...]\n\n");
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        fprintf(to, "  %-7s %s\n", commands[i].name, commands[i].summary);
    fprintf(
        to,
        "\n"
        "`rapt COMMAND --help' lists a command's options; `rapt --version' prints the version.\n"
        "Exit codes: 0 success, 1 wrong result, 2 bad usage or input, 3 not supported here.\n");
    return code;
}

/* Results that could not be written are no success. */
static int close_output(int code)
{
    if (!fflush(stdout) && !ferror(stdout)) return code;
    return complain(code ? code : EXIT_BAD_INPUT, "the results could not be written to the output");
}

static int run_command(int argc, char **argv)
{
    static char name[32];
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        if (!strcmp(argv[1], commands[i].name)) {
            snprintf(name, sizeof name, "rapt %s", commands[i].name);
            command_name = commands[i].name;
            argv[1] = name;
            return commands[i].run(argc - 1, argv + 1);
        }
    fprintf(stderr, "rapt: there is no command \"%s\" (see `rapt --help')\n", argv[1]);
    return EXIT_BAD_INPUT;
}

int main(int argc, char **argv)
{
    static char version[32];
    int number = rapt_version();
    snprintf(version, sizeof version, "rapt %d.%d.%d", number / 10000, number / 100 % 100,
             number % 100);
    argp_program_version = version;
    argp_err_exit_status = EXIT_BAD_INPUT;
    if (argc < 2) return print_usage(stderr, EXIT_BAD_INPUT);
    if (argc > 2 && !strcmp(argv[1], "help")) { /* help COMMAND: COMMAND --help */
        argv[1] = argv[2];
        argv[2] = "--help";
    }
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help"))
        return close_output(print_usage(stdout, EXIT_OK));
    if (!strcmp(argv[1], "--version") || !strcmp(argv[1], "-V")) {
        puts(version);
        return close_output(EXIT_OK);
    }
    return close_output(run_command(argc, argv));
}
