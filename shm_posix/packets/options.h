// The command line of producer_consumer.

#pragma once

#include <getopt.h>

#include "../../common/process.h"
#include "layout.h"
#include "source.h"

struct Options {
    std::string verb, name;
    uint32_t slots = 1024, size = 2048;
    bool slots_given = false, size_given = false;
    bool udp = false, generate = false, pipe = false;
    uint16_t port = 0;   // of --udp
    uint64_t count = 0;  // of --generate
};

inline constexpr char kHelp[] =
    "usage: %s [VERB] [OPTIONS]\n"
    "  run           (default) both processes, parent and child\n"
    "  produce       the receiving process; makes the ring, or goes on with one that is there\n"
    "  consume       the processing process; likewise\n"
    "  --udp PORT    packets come from this UDP port of 127.0.0.1; 0: any free one\n"
    "  --generate N  packets are made: numbered, of 64 to 1500 bytes, each checked when handled\n"
    "  --pipe        packets go to stdout, and come from stdin unless made or received\n"
    "  --name NAME   the ring of produce and consume, if not /packets\n"
    "  --slots N     packets that fit in the ring, 1 to %u, if not 1024\n"
    "  --size BYTES  of the largest packet, 1 to %u, if not 2048\n"
    "Ctrl-C: run and produce end the input, consume ends after the packet in hand. run still\n"
    "handles what is in its ring, for 10 seconds at most.\n"
    "A second Ctrl-C ends the program; a ring with a name may stay then, as after kill -9.\n"
    "Exit status: 0 done, 1 failed, 2 wrong usage; a signal's, if one cut it short. --udp is done\n"
    "when a signal stops it.\n";

inline Options options;

inline const char* name() { return options.name.c_str(); }

inline std::string path() { return "/dev/shm" + options.name; }

// The command line for the other side, to be shown in messages.
inline std::string command(const std::string& verb) {
    return shell_word(program_invocation_name) + " " + verb + " --name " + shell_word(name());
}

// That of a consumer. What came in by --pipe needs --pipe to come out: without it, the packets
// would be handled and gone.
inline std::string consume_command() {
    return command(options.pipe ? "consume --pipe" : "consume");
}

// Reads the command line; wrong usage ends the program with a sentence and exit status 2.
inline Options read_options(int argc, char** argv) {
    Options it;
    argv[0] = program_invocation_short_name;  // for getopt_long's messages
    const option known[] = {
        {"name", required_argument, nullptr, 'n'},     {"slots", required_argument, nullptr, 'l'},
        {"size", required_argument, nullptr, 's'},     {"udp", required_argument, nullptr, 'u'},
        {"generate", required_argument, nullptr, 'g'}, {"pipe", no_argument, nullptr, 'p'},
        {"help", no_argument, nullptr, 'h'},           {}};
    for (int c; (c = getopt_long(argc, argv, "", known, nullptr)) != -1;) {
        if (c == '?') exit(2);
        if (c == 'n') it.name = optarg;
        if (c == 'l') it.slots = static_cast<uint32_t>(number(optarg, kMostSlots));
        if (c == 's') it.size = static_cast<uint32_t>(number(optarg, kMostSize));
        if (c == 'l') it.slots_given = true;
        if (c == 's') it.size_given = true;
        if (c == 'u') it.port = static_cast<uint16_t>(number(optarg, 65535));
        if (c == 'g') it.count = number(optarg, UINT64_MAX);
        if (c == 'u') it.udp = true;
        if (c == 'g') it.generate = true;
        if (c == 'p') it.pipe = true;
        if (c == 'h') {
            printf(kHelp, argv[0], kMostSlots, kMostSize);
            if (fflush(stdout) != 0) err(1, "write(stdout)");
            exit(0);
        }
    }
    it.verb = optind < argc ? argv[optind++] : "run";
    if (optind < argc) errx(2, "'%s' is one word too many; see --help", argv[optind]);
    const bool run = it.verb == "run", consume = it.verb == "consume";
    if (!run && !consume && it.verb != "produce")
        errx(2, "'%s' is not a verb; see --help", it.verb.c_str());
    if (consume && (it.udp || it.generate)) errx(2, "consume takes no --udp and no --generate");
    if (it.udp && it.generate) errx(2, "--udp or --generate, not both");
    if (!consume && !it.udp && !it.generate && !it.pipe)
        errx(2, "no packets: give --udp PORT, --generate N or --pipe");
    if (it.slots == 0 || it.size == 0) errx(2, "--slots and --size are 1 or more");
    if (it.generate && it.size < kLongest) errx(2, "--generate needs a --size of %u", kLongest);
    if (run && !it.name.empty()) errx(2, "--name goes with produce and consume");
    if (it.name.empty()) it.name = "/packets";
    if (it.name[0] != '/') errx(2, "'%s' does not begin with a slash", it.name.c_str());
    return it;
}
