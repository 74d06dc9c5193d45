// Runs every command of every Markdown page and compares what it prints. docs/README.md has the
// convention. A line is never made of placeholders alone; blanks beside them, and at the end of a
// line, do not count.

#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <iostream>
#include <regex>
#include <sstream>

#include "support.h"

namespace {

struct Command {
    int line = 0;
    std::string text, expected;
};

struct Block {
    int line = 0;
    std::string need;
    std::vector<Command> commands;
};

struct Page {
    std::vector<Block> blocks;
    std::vector<std::string> errors;
};

struct Totals {
    int pages = 0, blocks = 0, commands = 0, skipped = 0, characters = 0;
};

using Bound = std::map<std::string, std::string>;  // what each <name> stood for on this page

const std::regex kPlaceholder("<[a-z][a-z0-9-]*>");

// What a block may need, and the command that finds out.
const std::map<std::string, std::string> kNeeds = {
    {"root", "setpriv --reuid=65534 --regid=65534 --clear-groups true"},
    {"a user namespace", "unshare --map-root-user --mount --ipc true"},
    {"root, or a user namespace and Linux 6.9",
     "unshare --map-root-user --ipc sh -c 'echo 4096 > /proc/sys/kernel/shmmni'"},
    {"a closed box", "tests/grade/grade 1 docs/labs/1-exchange/starter.cc | head -1 | grep ^Lab"},
    {"lsof", "command -v lsof"},
    {"root and a memory cgroup", "test $(id -u) = 0 && sh docs/cgroup.sh true"},
    {"64 bits and vm.overcommit_memory 0 or 2",
     "test $(getconf LONG_BIT) = 64 && grep -v 1 /proc/sys/vm/overcommit_memory"},
    {"python3", "command -v python3"},
    {"a virtual machine", "sh docs/restart.sh check"},
    {"g++ with C++20",
     "echo '#include <atomic>\nint x[__cpp_lib_atomic_wait];' |"
     " g++ -std=c++20 -fsyntax-only -x c++ -"},
    {"g++ and glibc 2.34",
     "command -v g++ && printf 'glibc 2.34\\n%s\\n' \"$(getconf GNU_LIBC_VERSION)\" | sort -CV"},
};

std::string at(int line) { return "line " + std::to_string(line) + ": "; }

Page parse(const std::string& text) {
    static const std::regex need_line("\\*Needs (.+)\\.\\*"),
        fence("[ \t>]*(```+|~~~+) *console.*");
    enum { prose, console, other } state = prose;
    Page page;
    std::istringstream lines(text);
    std::string line, closing, need;
    int number = 0;
    while (++number, std::getline(lines, line)) {
        std::smatch found;
        const bool opens = line.rfind("```", 0) == 0;
        if (state == prose && line == "```console") {
            state = console;
            page.blocks.push_back({number, need, {}});
        } else if (state == prose && opens) {
            state = other;
        } else if (state != prose && line == "```") {
            if (state == console && page.blocks.back().commands.empty())
                page.errors.push_back(at(page.blocks.back().line) + "a block without a command");
            state = prose;
        } else if (std::regex_match(line, fence)) {
            page.errors.push_back(at(number) + "a console block that would never run");
        } else if (state == console && line.rfind("$ ", 0) == 0) {
            page.blocks.back().commands.push_back({number, line.substr(2) + "\n", ""});
        } else if (state == console && page.blocks.back().commands.empty()) {
            page.errors.push_back(at(number) + "output before the first command");
        } else if (state == console) {
            Command& command = page.blocks.back().commands.back();
            if (command.expected.empty() && line.rfind("> ", 0) == 0) {
                command.text += line.substr(2) + "\n";
                continue;
            }
            command.expected += line + "\n";
            if (std::regex_search(line, kPlaceholder) &&
                std::regex_replace(line, kPlaceholder, "").find_first_not_of(" \t") ==
                    std::string::npos)
                page.errors.push_back(at(number) + "a line of placeholders matches anything");
        }
        if (!line.empty()) need = std::regex_match(line, found, need_line) ? found.str(1) : "";
    }
    if (state != prose) page.errors.push_back("a fence that does not end");
    if (page.blocks.empty()) page.errors.push_back("a page without a console block");
    return page;
}

// The expected text as a regular expression; `names` are its groups.
std::regex pattern(std::string expected, const Bound& bound, std::vector<std::string>& names) {
    static const std::regex special("[.*+?^${}()|\\[\\]\\\\]"), trailing("[ \t]+(?=\n|$)"),
        blanks("([ \t]*)(<[a-z][a-z0-9-]*>)([ \t]*)");
    expected = std::regex_replace(expected, trailing, "");
    std::string result;
    auto rest = expected.cbegin();
    const auto plain = [&](const std::string& text) {
        result += std::regex_replace(text, special, "\\$&");
    };
    for (std::sregex_iterator it(expected.begin(), expected.end(), blanks), end; it != end; ++it) {
        plain({rest, (*it)[0].first});
        rest = (*it)[0].second;
        const std::string name = (*it)[2];
        const auto known = std::find(names.begin(), names.end(), name);
        if ((*it)[1].length()) result += "[ \t]+";
        if (bound.count(name)) {
            plain(bound.at(name));
        } else if (known != names.end() && name != "<date>") {
            result += "(?:\\" + std::to_string(known - names.begin() + 1) + ")";
        } else {
            result += "(\\S|\\S.*?\\S)";
            names.push_back(name);
        }
        if ((*it)[3].length()) result += "[ \t]+";
    }
    plain({rest, expected.cend()});
    return std::regex(result);
}

// True if `actual` is what the page says; then what new placeholders stood for is noted.
bool matches(const std::string& expected, std::string actual, Bound& bound) {
    static const std::regex trailing("[ \t]+(?=\n|$)");
    std::vector<std::string> names;
    std::smatch found;
    const std::regex wanted = pattern(expected, bound, names);
    if (!actual.empty() && actual.back() != '\n') actual += '\n';
    actual = std::regex_replace(actual, trailing, "");
    if (!std::regex_match(actual, found, wanted)) return false;
    for (size_t i = 0; i < names.size(); ++i)
        if (names[i] != "<date>") bound[names[i]] = found[i + 1];
    return true;
}

// One sh in a copy of the collection, on a terminal of its own, so that output comes in the order
// in which a student sees it.
class Shell {
  public:
    Shell()
        : sh_({"env", "-u", "MAKELEVEL", "-u", "MAKEFLAGS", "-u", "MFLAGS", "LC_ALL=C", "sh"},
              scratch_.path) {
        char name[64];
        terminal_ = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
        if (terminal_ == -1 || grantpt(terminal_) || unlockpt(terminal_) ||
            ptsname_r(terminal_, name, sizeof name))
            FAIL("posix_openpt: " << strerror(errno) << "; is /dev/pts mounted?");
        other_end_ = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
        termios raw;
        tcgetattr(other_end_, &raw);
        cfmakeraw(&raw);
        tcsetattr(other_end_, TCSANOW, &raw);
        // Copies: a page may build or change what it likes. tests/ is only there to be looked at.
        const std::string top = quoted(root());
        shell("cp -a " + top + "/[!t.]* . && ln -s " + top + "/tests .", scratch_.path);
        chmod(scratch_.path.c_str(), 0755);  // another user may run the programs
        sh_.write("umask 022; exec >" + std::string(name) + " 2>&1; page_status=0\n");
    }
    ~Shell() {
        kill(-sh_.pid(), SIGKILL);  // and what it left in the background
        close(other_end_);
        close(terminal_);
    }

    // Runs a command and returns what it printed. Background jobs print when they please: after
    // `&`, waits for what the page shows. At the deadline, or when sh has ended: false.
    bool run(const Command& command, const Bound& bound, int seconds, std::string& text) {
        const bool background = std::regex_search(command.text, std::regex("&\\s*$"));
        put(scratch_.path + "/.command", command.text);
        const std::string ask = "printf '\\001'\n";
        sh_.write("(exit $page_status); . ./.command </dev/null; page_status=$?\n" +
                  (background ? "" : ask));  // at once: sh may end here
        text.clear();
        Bound copy;
        const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(seconds);
        for (bool asked = !background;;) {
            if (!asked && matches(command.expected, text, copy = bound)) {
                sh_.write(ask);
                asked = true;
            }
            if (!text.empty() && text.back() == '\001') break;
            pollfd ready = {terminal_, POLLIN, 0};
            char buffer[4096];
            if (poll(&ready, 1, 10) == 1)
                text.append(buffer, std::max<ssize_t>(0, read(terminal_, buffer, sizeof buffer)));
            else if (std::chrono::steady_clock::now() > end || process_gone(pid()))
                return false;
        }
        text.pop_back();
        // Some shells say that a job in the background has been killed, some do not.
        static const std::regex notice("[^\n]*line [0-9]+: +[0-9]+ (Killed|Terminated)[^\n]*\n");
        text = std::regex_replace(text, notice, "");
        return true;
    }
    std::string pid() const { return std::to_string(sh_.pid()); }

  private:
    Scratch scratch_;
    Program sh_;
    int terminal_, other_end_;
};

// Every character of the expected text, changed, must be noticed. Returns how many were not.
int unnoticed(const Command& command, const std::string& actual, const Bound& bound, int& tried) {
    int missed = 0;
    for (size_t i = 0; i < command.expected.size(); ++i, ++tried) {
        std::string changed = command.expected;
        changed[i] = changed[i] == 'X' ? 'Y' : 'X';
        Bound copy = bound;
        missed += matches(changed, actual, copy);
    }
    return missed;
}

// Runs a page. Returns what is wrong with it, and prints what it had to skip. A command may take
// its time: two starts of an emulated machine beside other work take more than a minute.
std::vector<std::string> run_page(const std::string& name, const std::string& text, Totals& totals,
                                  int seconds = 10 * kPatience) {
    Page page = parse(text);
    Bound bound;
    Shell sh;
    ++totals.pages;
    for (const Block& block : page.blocks) {
        ++totals.blocks;
        const auto need = kNeeds.find(block.need);
        if (!block.need.empty() && need == kNeeds.end()) {
            page.errors.push_back(at(block.line) + "unknown need: " + block.need);
        } else if (!block.need.empty() && shell(need->second, root()).status != 0) {
            ++totals.skipped;
            std::cout << "docs: skipped " << name << ":" << block.line << ": needs " << block.need
                      << std::endl;
            continue;
        }
        for (Command command : block.commands) {
            // Placeholders in the command itself; what its here-document says stays.
            const size_t end = command.text.find('\n');
            std::string first = command.text.substr(0, end);
            for (const auto& [placeholder, value] : bound)
                first = std::regex_replace(first, std::regex(placeholder), value);
            if (std::regex_search(first, kPlaceholder)) {
                page.errors.push_back(at(command.line) + "nothing above says what stands for " +
                                      first);
                return page.errors;
            }
            command.text.replace(0, end, first);
            std::string actual;
            const bool done = sh.run(command, bound, seconds, actual);
            const Bound before = bound;
            ++totals.commands;
            if (!done || !matches(command.expected, actual, bound)) {
                page.errors.push_back(at(command.line) + "$ " + command.text + "--- expected\n" +
                                      command.expected + "--- printed" +
                                      (done ? "\n" : ", without an end\n") + actual);
                return page.errors;  // what follows builds on it
            }
            if (unnoticed(command, actual, before, totals.characters))
                page.errors.push_back(at(command.line) + "a change of the output goes unnoticed");
        }
    }
    return page.errors;
}

}  // namespace

TEST_CASE("what the documents say is what happens", "[docs]") {
    std::vector<std::string> pages;
    namespace fs = std::filesystem;
    for (fs::recursive_directory_iterator it(root()), end; it != end; ++it) {
        if (it->path().filename().string()[0] == '.') it.disable_recursion_pending();
        if (it->path().extension() == ".md") pages.push_back(fs::relative(it->path(), root()));
    }
    std::sort(pages.begin(), pages.end());
    // While one writes a page: PAGE=docs/cleanup.md tests/run '[docs]'
    if (const char* one = getenv("PAGE")) pages = {one};
    REQUIRE(!pages.empty());
    Totals totals;
    for (const std::string& page : pages) {
        DefaultNames names;
        if (!names.taken.empty()) SKIP_BECAUSE(names.taken + " is taken");
        const auto errors = run_page(page, contents(root() + "/" + page), totals);
        for (const auto& error : errors) FAIL_CHECK(page << ", " << error);
        const std::string left = names.take_back();
        if (!left.empty()) FAIL_CHECK(page << " left" << left);
    }
    std::cout << "docs: " << totals.pages << " pages, " << totals.blocks << " blocks, "
              << totals.commands << " commands run, " << totals.skipped << " blocks skipped; "
              << totals.characters << " characters of output changed, each noticed" << std::endl;
}

TEST_CASE("a page that does not say what happens fails", "[docs]") {
    const std::string good = R"(
```console
$ echo "a $$ b  c"; echo d >&2
a <pid> b  c
d
$ echo <pid> is $$
<pid> is <pid>
$ (sleep 0.1; echo late) &
late
$ cat <<END; (exit 3)
> <x> y
> END
<x> y
$ echo $?
3
$ printf x
x
```
)";
    struct Change {
        std::string what, from, to;
    };
    const Change changes[] = {
        {"a character", "\nd\n", "\ne\n"},
        {"a blank", "b  c\nd", "b c\nd"},
        {"a line less", "\nd\n", "\n"},
        {"a line more", "\nd\n", "\nd\nd\n"},
        {"an empty line more", "\nd\n", "\nd\n\n"},
        {"what the program prints", "echo d", "echo e"},
        {"what comes late", "\nlate", "\nlater"},
        {"the exit status", "exit 3", "exit 4"},
        {"one name for two texts", "is $$", "is 1$$"},
        {"a name without a text", "echo <pid>", "echo <other>"},
        {"a line of placeholders", "<pid> is <pid>", "<pid> <other> <pid>"},
        {"output before a command", "$ echo \"", "echo \""},
        {"no block", "```console", "```sh"},
        {"a block that would not run", "```console", " ```console"},
        {"another fence", "```console", "~~~console"},
        {"no end", "x\n```\n", "x\n"},
        {"a need nobody knows", "```console", "*Needs luck.*\n\n```console"},
        {"a command that does not end", "printf x", "sleep 100"},
        {"a shell that ends", "printf x", "exit"},
    };
    Totals totals;
    for (const std::string& error : run_page("good", good, totals)) FAIL_CHECK(error);
    CHECK(totals.blocks == 1);
    CHECK(totals.commands == 6);
    for (const Change& change : changes) {
        std::string page = good;
        page.replace(page.find(change.from), change.from.size(), change.to);
        INFO(change.what);
        CHECK(!run_page(change.what, page, totals, 1).empty());
    }
}
