// One configuration, many readers, over a mapped file: open + mmap.
//
//     g++ -o shared_config shared_config.cc
//     ./shared_config load app.conf && ./shared_config get port
//
// The loader makes an image of a text (text.h, image.h) and publishes it by rename(2): load.h.
// Readers map it read-only, and all use the same pages [mmap(2)]: readers.h. They look keys up in
// it: lookup.h. What memory many readers take is measured in measure.h.

#include <getopt.h>
#include <sys/inotify.h>
#include <sys/mman.h>

#include <optional>
#include <string>
#include <string_view>

#include "../../common/process.h"
#include "load.h"
#include "measure.h"
#include "readers.h"

// Where the image is. `path`, the image's own name, is in readers.h.
static std::string directory;

static void flush() {
    // A write may fail now [fflush(3)], or have failed before [ferror(3)].
    if (fflush(stdout) != 0 || ferror(stdout)) err(1, "write(stdout)");
}

static void print(std::string_view value) {
    fwrite(value.data(), 1, value.size(), stdout);
    putchar('\n');
    flush();
}

static int get(const char* key) {
    print(look_up(map_image(), key));
    return 0;
}

// Prints the value of a key, and again whenever a load has changed it. Ends with an error when the
// key or the image is gone.
[[noreturn]] static void watch(const char* key) {
    const int events = inotify_init();
    if (events == -1) err(1, "inotify_init()");
    std::optional<std::string> last;
    while (true) {
        // We watch the directory, as each load brings another file. Before we look at the image, or
        // a load in between would be missed. Again after each event, as another directory may have
        // the name now; if not, it is the same watch. MOVED_TO is a load; after the others the
        // image or its directory may be gone.
        const uint32_t changes = IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE | IN_MOVE_SELF;
        if (inotify_add_watch(events, directory.c_str(), changes) == -1)
            err(1, "inotify_add_watch(%s)", directory.c_str());
        const Image image = map_image();
        const std::string_view value = look_up(image, key);
        if (last != value) print(value);
        last = value;  // a copy: the mapping goes
        unmap(image);
        char list[4096];  // of no use: we look again whatever has changed
        if (read(events, list, sizeof list) == -1) err(1, "read(inotify)");
    }
}

// Tries to write as a reader, and prints what the kernel does about it.
static int trespass() {
    const Image image = map_image();
    char* start = const_cast<char*>(image.start);
    if (mprotect(start, image.bytes, PROT_READ | PROT_WRITE) == 0) errx(1, "mprotect: allowed");
    printf("mprotect(PROT_READ | PROT_WRITE): %s\n", strerror(errno));
    const pid_t child = spawn();
    if (child == 0) {
        prctl(PR_SET_DUMPABLE, 0);  // no core file
        *const_cast<volatile char*>(start) = 'x';
        _exit(0);
    }
    int status;
    if (waitpid(child, &status, 0) == -1) err(1, "waitpid(%d)", child);
    // Any other end says nothing of the mapping. WTERMSIG is for those killed only [wait(2)].
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGSEGV) errx(1, "a store: no SIGSEGV");
    printf("a store: killed: %s\n", strsignal(SIGSEGV));
    return 0;
}

constexpr char kHelp[] =
    "usage: %s VERB [OPTIONS]\n"
    "  load FILE     make an image of 'key = value' lines and # comments, and publish it\n"
    "  get KEY       print the value of a key\n"
    "  readers N     start N readers at once; what memory do one mapping and N copies take?\n"
    "  trespass      try to write to the image as a reader, and print what comes of it\n"
    "  --watch       get goes on, and prints the value again whenever a load has changed it; it\n"
    "                stays with the directory, also when a link on the way leads elsewhere\n"
    "  --image PATH  which image, if not %s; PATH.new is the next one in the making\n"
    "Exit status: 0 done, 1 failed, 2 wrong usage.\n";

int main(int argc, char** argv) {
    prepare();
    argv[0] = program_invocation_short_name;  // for getopt_long's messages
    bool watching = false;
    const option known[] = {{"image", required_argument, nullptr, 'i'},
                            {"watch", no_argument, nullptr, 'w'},
                            {"help", no_argument, nullptr, 'h'},
                            {}};
    for (int c; (c = getopt_long(argc, argv, "", known, nullptr)) != -1;) {
        if (c == '?') exit(2);
        if (c == 'i') path = optarg;
        if (c == 'w') watching = true;
        if (c == 'h') {
            printf(kHelp, argv[0], path);
            flush();
            return 0;
        }
    }
    if (*path == '\0') errx(2, "the image's path is empty");
    const char* slash = strrchr(path, '/');
    directory = slash ? std::string(path, slash + 1) : ".";
    const std::string verb = optind < argc ? argv[optind++] : "";
    const char* word = optind < argc ? argv[optind++] : nullptr;
    if (optind < argc) errx(2, "'%s' is one word too many; see --help", argv[optind]);
    if (watching && verb != "get") errx(2, "--watch goes with get");
    const std::string_view name = path;
    if (name.size() >= 4 && name.substr(name.size() - 4) == ".new")
        errx(2, "%s: such a name is for an image in the making", path);
    int status = 0;
    if (verb == "load" && word)
        status = load(word, path, directory.c_str());
    else if (verb == "get" && word && watching)
        watch(word);
    else if (verb == "get" && word)
        status = get(word);
    else if (verb == "readers" && word && number(word, 10000) > 0)
        status = read_at_once(number(word, 10000));
    else if (verb == "trespass" && !word)
        status = trespass();
    else
        errx(2, "needs a verb and what belongs to it; see --help");
    flush();
    return status;
}
