// Packets from a receiving to a processing process, through a ring in shared memory.
//
//     g++ -o producer_consumer producer_consumer.cc -lrt
//     ./producer_consumer --generate 1000000
//     ./producer_consumer --pipe < file | cmp - file
//     ./producer_consumer --udp 9000 --pipe          and elsewhere: nc -u 127.0.0.1 9000
//
// The producer receives each packet straight into a slot of the ring, the consumer handles it
// there: no copy in between. How the two wait for each other, and survive each other's death, is in
// packet_ring.h.

#include <arpa/inet.h>
#include <getopt.h>
#include <linux/sock_diag.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <string>

#include "../common/process.h"
#include "packet_ring.h"

static const char kHelp[] =
    "usage: %s [VERB] [OPTIONS]\n"
    "  run           (default) both processes, parent and child\n"
    "  produce       the receiving process; makes the ring, or goes on with one that is there\n"
    "  consume       the processing process; likewise\n"
    "  --udp PORT    packets come from this UDP port of 127.0.0.1; 0: any free one\n"
    "  --generate N  packets are made: numbered, with a checksum, 64 to 1500 bytes\n"
    "  --pipe        packets go to stdout, and without --udp come from stdin\n"
    "  --name NAME   the ring of produce and consume, if not /packets\n"
    "  --slots N     packets that fit in the ring, 1 to %u, if not 1024\n"
    "  --size BYTES  of the largest packet, 1 to %u, if not 2048\n"
    "Exit status: 0 done, 1 failed, 2 wrong usage.\n";

constexpr int kSlice = 250;        // milliseconds until a wait looks up: is the other side alive?
constexpr uint32_t kNumbered = 1;  // tag of a packet that --generate made; it begins with Numbered

struct Numbered {
    uint64_t number;
    uint32_t length, checksum;
};

static struct {
    std::string self, name;
    uint32_t slots = 1024, size = 2048;
    bool sized = false, udp = false, generate = false, pipe = false;
    uint64_t count = 0;
    uint16_t port = 0;
} options;

static RingEnd end;                        // this process's hold on the ring
static int object = -1;                    // the shared memory object
static pid_t child = 0;                    // run: the consumer
static bool in_hand = false;               // the consumer handles a packet
static volatile sig_atomic_t stopped = 0;  // the signal that told us to stop
static uint64_t packets, bytes;            // handed over, or handled, by this process
static double first_time, last_time;       // of these packets, in seconds
static int port = -1;                      // --udp: the socket, and where it receives
static sockaddr_in self = {};

static const char* name() { return options.name.c_str(); }

static void* map(size_t size) {
    void* memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, object, 0);
    if (memory == MAP_FAILED) err(1, "mmap(%s)", name());
    return memory;
}

// Makes the object and a ring in it; nullptr if one of that name exists.
static PacketRing* create() {
    const size_t size = ring_bytes(options.slots, options.size);
    take_back = nullptr;
    object = shm_open(name(), O_CREAT | O_EXCL | O_RDWR, 0600);
    if (object == -1 && errno == EEXIST) return nullptr;
    if (object == -1) err(1, "shm_open(%s)", name());
    take_back = [] { shm_unlink(name()); };
    // Size and memory at once: if there is too little, that is ENOSPC here, not SIGBUS later.
    while ((errno = posix_fallocate(object, 0, static_cast<off_t>(size))) == EINTR) continue;
    if (errno != 0) err(1, "posix_fallocate(%s, %zu bytes)", name(), size);
    return ring_create(map(size), options.slots, options.size);
}

// Takes a side of the ring in the object that exists; returns nullptr, or what prevents it.
static const char* attach(Side side, Presence* before) {
    object = shm_open(name(), O_RDWR | O_NONBLOCK, 0);
    if (object == -1 && errno == ENOENT) return "comes and goes";
    struct stat it;
    if (object == -1 || fstat(object, &it) == -1) err(1, "shm_open(%s)", name());
    if (!S_ISREG(it.st_mode) || it.st_uid != geteuid())
        errx(1, "%s: is not a file of yours; look at it: ls -l /dev/shm%s", name(), name());
    const size_t size = static_cast<size_t>(it.st_size);
    void* memory = size > 0 ? map(size) : nullptr;
    const char* fault = ring_fault(memory, size);
    if (!fault) fault = ring_join(&end, static_cast<PacketRing*>(memory), side, before);
    if (fault && memory) munmap(memory, size);
    if (fault) close(object);
    return fault;
}

// Takes a side of the ring that bears our name; whoever comes first makes it.
static void join(Side side) {
    const char* fault;
    Presence before = kNever;
    for (int tries = 0;; ++tries) {
        PacketRing* ring = create();
        fault = ring ? ring_join(&end, ring, side, &before) : attach(side, &before);
        // Another process may be making or removing it at this moment: give that a second.
        if (!fault || tries == 100) break;
        usleep(10000);
    }
    take_back = nullptr;  // from now on packets may be in it
    if (fault)
        errx(1,
             "%s: %s\n  who uses it: grep -ls /dev/shm%s /proc/[0-9]*/maps\n  remove it: rm "
             "/dev/shm%s",
             name(), fault, name(), name());
    if (end.next > 0 || before != kNever)
        warnx("%s: goes on with packet %ju%s", name(), uintmax_t{end.next},
              side == kConsumer && before == kDied ? ", which may be seen twice" : "");
    if (options.sized && (options.slots != end.slots || options.size != end.size))
        errx(1, "%s: has %u slots of %u bytes, not as you ask", name(), end.slots, end.size);
}

// Gives our side up, at exit too; the last to leave an empty ring removes it. Not so a packet that
// is in hand when we fail: the successor will find it, and that we are gone.
static void leave() {
    struct stat it = {};
    if (!end.ring || in_hand) return;
    const uint64_t waiting = end.ring->published - end.ring->handled;
    if (ring_leave(&end, !child)) {
        if (fstat(object, &it) == 0 && it.st_nlink > 0) shm_unlink(name());
    } else if (end.other != kHere && !child) {
        warnx(
            "%s: %ju packets wait in it\n  handle them: %s consume --name %s\n  remove it: "
            "rm /dev/shm%s",
            name(), uintmax_t{waiting}, options.self.c_str(), name(), name());
    }
    end.ring = nullptr;
}

// HUP, INT, QUIT and TERM end the input, not the process; the second of a kind ends that, too.
static void stop_on_signals() {
    struct sigaction action = {}, before;
    action.sa_handler = [](int signal) { stopped = signal; };
    action.sa_flags = SA_RESETHAND | SA_RESTART;
    for (int stop : {SIGHUP, SIGINT, SIGQUIT, SIGTERM})
        if (sigaction(stop, &action, &before) == 0 && before.sa_handler == SIG_IGN)
            signal(stop, SIG_IGN);  // nohup(1)
}

// No more input: somebody stopped us, or our child is gone.
static bool over() {
    siginfo_t it = {};
    if (child) waitid(P_PID, static_cast<id_t>(child), &it, WEXITED | WNOHANG | WNOWAIT);
    return stopped || it.si_pid != 0;
}

// A free slot, however long that takes; nullptr if all is over and the ring still full.
static Slot* room() {
    static Presence told = kHere;
    for (;;) {
        if (Slot* slot = reserve(&end, kSlice)) return slot;
        if (over()) return nullptr;
        if (!child && end.other != told && end.other != kHere)
            warnx("%s: the ring is full and nobody consumes; start: %s consume --name %s", name(),
                  options.self.c_str(), name());
        told = end.other;
    }
}

// Waits for input; false if all is over before.
static bool input(int fd) {
    pollfd it = {fd, POLLIN, 0};
    if (poll(&it, 1, 0) > 0) return true;
    publish(&end);  // input pauses: hand over what there is
    while (!over())
        if (poll(&it, 1, kSlice) > 0) return true;
    return false;
}

static void count(size_t length) {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    last_time = static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) / 1e9;
    if (packets++ == 0) first_time = last_time;
    bytes += length;
}

// --pipe: what one read(2) brings is a packet.
static void receive_stdin() {
    while (input(STDIN_FILENO)) {
        Slot* slot = room();
        const ssize_t length = slot ? read(STDIN_FILENO, slot->data(), end.size) : 0;
        if (length == -1 && errno == EAGAIN) continue;
        if (length == -1) err(1, "read(stdin)");
        if (length == 0) return;
        count(static_cast<size_t>(length));
        commit(&end, static_cast<uint32_t>(length));
    }
}

// --udp: opens the port, before a ring is made [udp(7)].
static void open_port() {
    socklen_t size = sizeof self;
    self.sin_family = AF_INET;
    self.sin_port = htons(options.port);
    self.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    port = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (port == -1) err(1, "socket(AF_INET, SOCK_DGRAM)");
    if (bind(port, reinterpret_cast<sockaddr*>(&self), size) == -1)
        err(1, "bind(127.0.0.1:%u)", options.port);
    if (getsockname(port, reinterpret_cast<sockaddr*>(&self), &size) == -1) err(1, "getsockname");
    warnx("receives on 127.0.0.1:%u", ntohs(self.sin_port));
}

// While the ring is full, packets wait in the kernel's buffer, which drops what is too much.
static void receive_udp() {
    uint64_t dropped = 0, oversize = 0;
    for (bool closing = false, full = false;;) {
        Slot* slot = full ? nullptr : room();
        full = !slot;
        const ssize_t length = recv(port, slot ? slot->data() : nullptr, slot ? end.size : 0,
                                    MSG_DONTWAIT | MSG_TRUNC);  // returns the uncut length
        if (length == -1 && errno != EAGAIN) err(1, "recv(UDP)");
        if (length == -1 && closing) break;
        if (slot && length >= 0 && length <= static_cast<ssize_t>(end.size)) {
            count(static_cast<size_t>(length));
            commit(&end, static_cast<uint32_t>(length));
        } else if (length >= 0) {
            ++dropped;
            if (slot) ++oversize;
        }
        if (!closing && (stopped || full || (length == -1 && !input(port)))) {
            // Connected to itself, it refuses packets of others; what has come is still handled.
            if (connect(port, reinterpret_cast<sockaddr*>(&self), sizeof self) == -1)
                err(1, "connect(UDP)");
            closing = true;
        }
    }
    // What the kernel dropped. SO_RXQ_OVFL would tell, but only with a packet that follows.
    uint32_t info[SK_MEMINFO_VARS] = {};
    socklen_t size = sizeof info;
    if (getsockopt(port, SOL_SOCKET, SO_MEMINFO, info, &size) == -1)
        err(1, "getsockopt(SO_MEMINFO)");
    lock(&end.ring->lock);
    end.ring->dropped += dropped + info[SK_MEMINFO_DROPS];
    end.ring->oversize += oversize;
    unlock(&end.ring->lock);
}

// FNV-1a by words; a generated packet consists of whole ones.
static uint32_t checksum(const unsigned char* data, size_t length) {
    uint32_t sum = 2166136261;
    for (uint32_t word; length >= sizeof word; data += sizeof word, length -= sizeof word) {
        memcpy(&word, data, sizeof word);
        sum = (sum ^ word) * 16777619;
    }
    return sum;
}

// --generate: goes on where the ring ends, so that a producer started again completes the series.
static void generate() {
    while (end.next < options.count && !stopped) {
        Slot* slot = room();
        if (!slot) return;
        uint32_t random = static_cast<uint32_t>(end.next + 1) * 2654435769;
        Numbered head = {end.next, 64 + (random >> 8) % 360 * 4, 0};
        for (uint32_t i = sizeof head; i < head.length; i += sizeof random) {
            random = random * 747796405 + 2891336453;
            memcpy(slot->data() + i, &random, sizeof random);
        }
        head.checksum = checksum(slot->data() + sizeof head, head.length - sizeof head);
        memcpy(slot->data(), &head, sizeof head);
        count(head.length);
        commit(&end, head.length, kNumbered);
    }
}

// Handles the packet in hand: it goes to stdout, or if it is numbered, it must be whole and next.
static void handle(const unsigned char* data, uint32_t length, uint32_t tag) {
    if (length > end.size) errx(1, "packet %ju: has an impossible length", uintmax_t{end.next});
    for (uint32_t done = 0; options.pipe && done < length;) {
        const ssize_t written = write(STDOUT_FILENO, data + done, length - done);
        if (written == -1) err(1, "write(stdout)");
        done += static_cast<uint32_t>(written);
    }
    Numbered head = {};
    if (options.pipe || tag != kNumbered) return;
    if (length >= sizeof head) memcpy(&head, data, sizeof head);
    if (length < sizeof head || head.length != length || head.number != end.next ||
        head.checksum != checksum(data + sizeof head, length - sizeof head))
        errx(1, "packet %ju: is number %ju, %u bytes of %u, or its checksum is wrong",
             uintmax_t{end.next}, uintmax_t{head.number}, length, head.length);
}

// What this process did, and how the two got on.
static void summary(const char* did) {
    FILE* out = options.pipe ? stderr : stdout;
    const PacketRing& ring = *end.ring;
    const double seconds = last_time - first_time, pace = seconds > 0 ? 1 / seconds : 0;
    fprintf(out,
            "%s %ju packets, %ju bytes in %.3f s: %.0f packets/s, %.1f MB/s\n"
            "largest backlog %ju of %u slots; slept: producer %ju times, consumer %ju times\n"
            "dropped %ju packets, %ju of them larger than a slot\n",
            did, uintmax_t{packets}, uintmax_t{bytes}, seconds, static_cast<double>(packets) * pace,
            static_cast<double>(bytes) * pace / 1e6, uintmax_t{ring.backlog}, end.slots,
            uintmax_t{ring.seat[kProducer].slept}, uintmax_t{ring.seat[kConsumer].slept},
            uintmax_t{ring.dropped}, uintmax_t{ring.oversize});
    if (fflush(out) != 0 || ferror(out)) err(1, "write(%s)", options.pipe ? "stderr" : "stdout");
}

static void produce() {
    if (options.udp)
        receive_udp();
    else if (options.generate)
        generate();
    else
        receive_stdin();
    publish(&end);
}

// Handles packets until the producer is gone and the ring empty; returns the exit status.
static int consume() {
    while (!stopped) {
        Slot* slot = take(&end, kSlice);
        if (!slot && gone(end.other)) break;
        if (!slot) continue;
        in_hand = true;
        const uint32_t length = slot->length;  // read once: the check is on what is used
        handle(slot->data(), length, slot->tag);
        release(&end);
        in_hand = false;
        count(length);
    }
    if (end.other == kDied)
        warnx("the producer, process %d, died; all that it handed over is handled",
              end.ring->seat[kProducer].pid);
    summary("handled");
    return end.other == kDied;
}

// Both, as parent and child, which inherits the mapping. The name goes at once: nothing can be
// left.
static int run() {
    PacketRing* ring = create();
    if (!ring) errx(1, "%s: exists; run needs a name of its own", name());
    shm_unlink(name());
    take_back = nullptr;
    child = spawn();
    const char* fault = ring_join(&end, ring, child ? kProducer : kConsumer);
    if (fault) errx(1, "%s: %s", name(), fault);
    if (!child) {
        // Told to stop, the parent ends the input. The child goes on to its end.
        for (int stop : {SIGHUP, SIGINT, SIGQUIT, SIGTERM}) signal(stop, SIG_IGN);
        stopped = 0;
        return consume();
    }
    produce();
    leave();
    for (int stop : {SIGHUP, SIGINT, SIGQUIT, SIGTERM})
        if (!stopped) signal(stop, SIG_DFL);
    return wait_for(child, stopped ? 10 : 0);
}

// Reads the command line, whose errors are wrong usage; returns the verb.
static std::string read_options(int argc, char** argv) {
    const option known[] = {
        {"name", required_argument, nullptr, 'n'},     {"slots", required_argument, nullptr, 'l'},
        {"size", required_argument, nullptr, 's'},     {"udp", required_argument, nullptr, 'u'},
        {"generate", required_argument, nullptr, 'g'}, {"pipe", no_argument, nullptr, 'p'},
        {"help", no_argument, nullptr, 'h'},           {}};
    for (int c; (c = getopt_long(argc, argv, "", known, nullptr)) != -1;) {
        if (c == '?') exit(2);
        if (c == 'n') options.name = optarg;
        if (c == 'l') options.slots = static_cast<uint32_t>(number(optarg, kMostSlots));
        if (c == 's') options.size = static_cast<uint32_t>(number(optarg, kMostSize));
        if (c == 'l' || c == 's') options.sized = true;
        if (c == 'u') options.udp = true;
        if (c == 'u') options.port = static_cast<uint16_t>(number(optarg, 65535));
        if (c == 'g') options.generate = true;
        if (c == 'g') options.count = number(optarg, UINT64_MAX);
        if (c == 'p') options.pipe = true;
        if (c == 'h')
            exit(printf(kHelp, argv[0], kMostSlots, kMostSize) < 0 || fflush(stdout) != 0);
    }
    const std::string verb = optind < argc ? argv[optind++] : "run";
    if (optind < argc) errx(2, "'%s' is one word too many; see --help", argv[optind]);
    if (verb != "run" && verb != "produce" && verb != "consume")
        errx(2, "'%s' is not a verb; see --help", verb.c_str());
    const bool from_ring = verb == "consume";
    if (from_ring && (options.udp || options.generate)) errx(2, "consume takes --pipe only");
    if (options.udp && options.generate) errx(2, "--udp or --generate, not both");
    if (!from_ring && !options.udp && !options.generate && !options.pipe)
        errx(2, "no packets: give --udp PORT, --generate N or --pipe");
    if (options.slots == 0 || options.size == 0) errx(2, "--slots and --size are 1 or more");
    if (options.generate && options.size < 1500)
        errx(2, "--generate makes packets of up to 1500 bytes: more than --size %u", options.size);
    if (options.name.empty())
        options.name = verb == "run" ? "/packets-" + std::to_string(getpid()) : "/packets";
    // A portable name: a slash and up to 254 characters, none of them a slash [shm_overview(7)].
    if (name()[0] != '/' || options.name.size() < 2 || options.name.size() > 255 ||
        options.name.find('/', 1) != std::string::npos)
        errx(2, "'%s' is not a slash and up to 254 characters without a slash", name());
    return verb;
}

int main(int argc, char** argv) {
    options.self = argv[0];
    argv[0] = program_invocation_short_name;  // for getopt_long's messages
    prepare();
    const std::string verb = read_options(argc, argv);
    if (options.udp) open_port();
    stop_on_signals();
    atexit(leave);
    int status = 0;
    if (verb == "run") {
        status = run();
    } else {
        join(verb == "produce" ? kProducer : kConsumer);
        if (options.generate && end.size < 1500) errx(1, "%s: its slots are too small", name());
        if (verb == "consume") status = consume();
        if (verb == "produce") produce();
        if (verb == "produce") summary("handed over");
        leave();
    }
    if (stopped && !options.udp) {  // cut short; --udp has no other end
        signal(stopped, SIG_DFL);
        raise(stopped);
    }
    return status;
}
