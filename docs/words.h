// The command line of the course's programs that do one thing for each word.

#pragma once

#include "../common/exchange.h"

struct Word {
    const char* word;
    void (*act)();
};

// Returns what the only word of the command line stands for. Wrong usage, and --help, end the
// program.
template <size_t many>
auto find_word(const Word (&words)[many], int argc, char** argv) {
    const bool help = argc == 2 && strcmp(argv[1], "--help") == 0;
    for (const Word& it : words)
        if (argc == 2 && strcmp(argv[1], it.word) == 0) return it.act;
    if (argc > 2) warnx("'%s' is one word too many", argv[2]);
    if (argc == 2 && !help) warnx("'%s' is not one of its words", argv[1]);
    FILE* where = help ? stdout : stderr;
    fprintf(where, "usage: %s WORD, one of", program_invocation_short_name);
    for (const Word& it : words) fprintf(where, " %s", it.word);
    fputs("\nExit status: 0 done, 1 failed, 2 wrong usage.\n", where);
    exit(done(help ? 0 : 2));
}
