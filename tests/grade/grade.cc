// The grader of the labs (docs/labs/): builds a student's program, runs it where it can do no harm,
// and judges by what the kernel shows.
//
//     tests/grade/grade                    lists the labs, and names the next: make lab
//     tests/grade/grade mine 1             grades docs/labs/1-exchange/mine.cc: make lab1
//     tests/grade/grade mine 1 hint        and gives a hint: make lab1 HINT=1
//     tests/grade/grade mine 1 watch       and again at each save: make lab1 WATCH=1
//     tests/grade/grade 1 FILE             grades any file
//     tests/grade/grade all 1 DIRECTORY [REQUIREMENT...]
//                                          grades DIRECTORY/LOGIN/mine.cc for each login, and keeps
//                                          these requirements back: make grade
//
// box.h, where a program can do no harm; stage.h and run.h, the runs in it; lab.h and
// a file for each lab, what is asked for.

#include <dirent.h>
#include <err.h>
#include <stdio.h>
#include <sys/inotify.h>

#include <algorithm>
#include <fstream>
#include <iostream>

#include "buffer.h"
#include "build.h"
#include "dead_owner.h"
#include "exchange.h"
#include "lab.h"
#include "measuring.h"
#include "readers.h"
#include "residue.h"
#include "same.h"
#include "updates.h"

using std::string;
using std::to_string;

static const std::vector<Lab> kLabs = {exchange_lab(), residue_lab(),    updates_lab(),
                                       buffer_lab(),   dead_owner_lab(), readers_lab(),
                                       same_lab(),     measuring_lab()};

// The verdicts go from the box to us as words, each with this behind it.
constexpr char kEnd = '\036';

struct Result {
    Verdicts verdicts;
    string fault;  // the grader's own
};

static std::map<string, string> headers() {
    std::map<string, string> all;
    for (const string& name : names_in("common"))
        if (name.find(".h") != string::npos) all[name] = contents("common/" + name);
    return all;
}

// In the box: builds, and has the lab decide. What it lost is tried once more.
static void judge(const Lab& lab, Stage& stage, const string& source) {
    bool built = false;
    const string said = build(stage, source, headers(), built);
    if (!built) {
        for (const Requirement& it : lab.requirements)
            stage.lose(it.id, {"not run", "it does not build", "", ""});
        stage.verdicts.findings["builds"] = {"compiled it", said, "it is not C++17 yet", ""};
        return;
    }
    stage.seal();
    lab.grade(stage);
    const Verdicts first = stage.verdicts;
    bool lost = false;
    for (const auto& it : first.met) lost = lost || !it.second;
    if (lost && !stage.endless) {
        stage.clear();
        stage.verdicts = Verdicts();
        lab.grade(stage);
        for (const auto& [id, met] : first.met) {
            if (met == stage.verdicts.met[id]) continue;
            if (!met) stage.lose(id, first.findings.at(id));
            stage.verdicts.findings[id].means +=
                "\nTwo tries do not agree: it depends on who runs when, and that counts as lost.";
        }
        stage.verdicts.remarks.insert(first.remarks.begin(), first.remarks.end());
    }
    stage.earn("builds");
    if (!said.empty()) stage.remark("the compiler warns:\n" + said);
}

static Result grade(const Box& box, const Lab& lab, const string& source) {
    int says[2];
    if (pipe2(says, O_CLOEXEC) == -1) err(1, "pipe2");
    const pid_t pid = box.enter([&] {
        string text;
        {
            Stage stage(box);
            const auto add = [&](string word) {
                std::replace(word.begin(), word.end(), kEnd, '?');  // it may be the program's
                text += word + kEnd;
            };
            try {
                judge(lab, stage, source);
            } catch (const std::exception& error) {
                add("fault"), add(error.what());
            }
            for (const auto& [id, met] : stage.verdicts.met) {
                const Finding& it = stage.verdicts.findings[id];
                for (const string& word :
                     {string(met ? "met" : "lost"), id, it.did, it.saw, it.means, it.command})
                    add(word);
            }
            for (const string& it : stage.verdicts.remarks) add("remark"), add(it);
            add("end");
        }
        for (size_t at = 0; at < text.size();) {
            const ssize_t bytes = write(says[1], text.data() + at, text.size() - at);
            if (bytes == -1) return 1;
            at += static_cast<size_t>(bytes);
        }
        return 0;
    });
    if (pid == -1) err(1, "clone");
    close(says[1]);
    std::istringstream words(read_all(says[0]));
    close(says[0]);
    waitpid(pid, nullptr, 0);

    Result result;
    const auto word = [&] {
        string one;
        std::getline(words, one, kEnd);
        return one;
    };
    for (string kind; (kind = word()) != "end";) {
        if (!words) {
            result.fault = "the grader was ended while the program ran";
            break;
        }
        if (kind == "fault") result.fault = word();
        if (kind == "remark") result.verdicts.remarks.insert(word());
        if (kind != "met" && kind != "lost") continue;
        const string id = word();
        result.verdicts.met[id] = kind == "met";
        Finding& it = result.verdicts.findings[id];
        it.did = word(), it.saw = word(), it.means = word(), it.command = word();
    }
    return result;
}

// How many bytes the character has that begins there: 0, if it is none of UTF-8 [utf-8(7)], or one
// that controls a terminal.
static size_t character(const string& text, size_t at) {
    const auto byte = [&](size_t i) {
        return at + i < text.size() ? static_cast<unsigned char>(text[at + i]) : 0u;
    };
    if (byte(0) < 0x80) return byte(0) >= ' ' && byte(0) != 127;
    if (byte(0) < 0xc2 || byte(0) > 0xf4) return 0;
    const size_t bytes = byte(0) < 0xe0 ? 2 : byte(0) < 0xf0 ? 3 : 4;
    unsigned code = byte(0) & (0x7f >> bytes);
    for (size_t i = 1; i < bytes; ++i) {
        if ((byte(i) & 0xc0) != 0x80) return 0;
        code = code << 6 | (byte(i) & 0x3f);
    }
    const unsigned least[] = {0, 0, 0xa0, 0x800, 0x10000};
    const bool half = code >= 0xd800 && code < 0xe000;  // of a pair of UTF-16
    return code < least[bytes] || code > 0x10ffff || half ? 0 : bytes;
}

// Text of a program, as it may stand on a terminal; later lines begin with `indent`.
static string printable(const string& text, const string& indent) {
    string safe;
    const size_t end = text.find_last_not_of('\n') + 1;
    for (size_t at = 0; at < end;) {
        const size_t bytes = character(text, at);
        char octal[8];
        snprintf(octal, sizeof octal, "\\%03o", static_cast<unsigned char>(text[at]));
        if (text[at] == '\n')
            safe += "\n" + indent;
        else
            safe += bytes > 0 ? text.substr(at, bytes) : octal;
        at += std::max<size_t>(bytes, 1);
    }
    return safe;
}

// A string of JSON [RFC 8259, section 7], of text that is printable.
static string quoted(const string& text) {
    string all = "\"";
    for (const char c : text) {
        if (c == '"' || c == '\\') all += '\\';
        all += c == '\n' ? "\\n" : string(1, c);
    }
    return all + "\"";
}

struct Score {
    int points = 0, most = 0;
    bool graded = true;  // all of it
    string text;         // the report
    string json;         // the same as Gradescope wants it
};

// `program` is what the reader of the report has built, for the commands in it. `later` is what
// students are to see after the due date; the points are those of all.
static Score score(const Box& box, const Lab& lab, const Result& result, const string& program,
                   const std::set<string>& later = {}) {
    Score all;
    int shown_points = 0, shown_most = 0;
    string text, tests, about;
    for (const Requirement& it : lab.requirements) {
        const auto met = result.verdicts.met.find(it.id);
        const bool graded = met != result.verdicts.met.end(), shown = later.count(it.id) == 0;
        const int got = graded && met->second ? it.points : 0;
        all.points += got;
        all.most += it.points;
        all.graded = all.graded && graded;
        string said;
        if (graded && !met->second) {
            const Finding& finding = result.verdicts.findings.at(it.id);
            string command = finding.command;
            for (size_t at; (at = command.find("PROGRAM")) != string::npos;)
                command.replace(at, strlen("PROGRAM"), program);
            for (const auto& [what, words] : {std::pair<string, string>{"done:   ", finding.did},
                                              {"seen:   ", finding.saw},
                                              {"means:  ", finding.means},
                                              {"look:   ", command}})
                if (!words.empty())
                    said += "     " + what + printable(words, "             ") + "\n";
        }
        const string name = it.id + ": " + it.title;
        if (shown) {
            shown_points += got;
            shown_most += it.points;
            text += "  " +
                    (graded ? to_string(got) + " of " + to_string(it.points) : "not graded") +
                    "  " + name + "\n" + said;
        } else {
            text += "  after the due date  " + name + "\n";
        }
        // The fields: https://gradescope-autograders.readthedocs.io/en/latest/specs/
        tests += string(tests.empty() ? "" : ",") + "\n  {\"name\": " + quoted(name) +
                 ", \"score\": " + to_string(got) + ", \"max_score\": " + to_string(it.points) +
                 ", \"visibility\": \"" + (shown ? "visible" : "after_due_date") +
                 "\",\n   \"output\": " + quoted(said) + "}";
    }
    for (const string& it : result.verdicts.remarks)
        about += "  remark: " + printable(it, "    ") + "\n";
    if (!result.fault.empty()) about += "  not graded: " + printable(result.fault, "    ") + "\n";
    const string unprotected =
        box.refused.empty() ? "" : "unprotected: use a throwaway container (" + box.refused + ")\n";
    all.text = unprotected + "Lab " + to_string(lab.number) + ", " + lab.title + ": " +
               to_string(shown_points) + " of " + to_string(shown_most) + " points\n" + text +
               about;
    all.json = "{\"output\": " + quoted(unprotected + about) +
               ", \"output_format\": \"text\", \"tests\": [" + tests + "]}\n";
    return all;
}

static string directory(const Lab& lab) { return "docs/labs/" + lab.name; }

static const Lab& find(const string& number) {
    for (const Lab& lab : kLabs)
        if (to_string(lab.number) == number) return lab;
    errx(2, "there is no lab '%s'", number.c_str());
}

// A source as it was handed in: no link to a file of yours, no device; "" if there is none.
static string source_of(const string& path) {
    const int fd = open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    struct stat it;
    string text;
    if (fd != -1 && fstat(fd, &it) == 0 && S_ISREG(it.st_mode) && it.st_size < 1 << 20)
        text.resize(static_cast<size_t>(it.st_size));
    const ssize_t bytes = fd == -1 ? 0 : read(fd, &text[0], text.size());
    text.resize(bytes < 0 ? 0 : static_cast<size_t>(bytes));
    if (fd != -1) close(fd);
    return text;
}

static int list() {
    const Lab* next = nullptr;
    for (const Lab& lab : kLabs) {
        int points = 0, most = 0;
        std::ifstream(directory(lab) + "/score") >> points >> most;
        const string so_far =
            most == 0 ? "not begun" : to_string(points) + " of " + to_string(most) + " points";
        printf("make lab%d  %-50s  %3d min  %s\n", lab.number, lab.title.c_str(), lab.minutes,
               so_far.c_str());
        if (next == nullptr && (most == 0 || points < most)) next = &lab;
    }
    if (next != nullptr)
        printf("Next: read docs/labs/%s.md, then type: make lab%d\n", next->name.c_str(),
               next->number);
    return 0;
}

// The next rung of the ladder for what is lost first: in the page's section "Hints", each
// requirement has a heading and a numbered list. Which were given already stands in a file.
static void hint(const Lab& lab, const Result& result) {
    const string page = contents(directory(lab) + ".md"), given = directory(lab) + "/hints";
    for (const Requirement& it : lab.requirements) {
        const auto met = result.verdicts.met.find(it.id);
        if (met == result.verdicts.met.end() || met->second) continue;
        std::map<string, int> rungs;
        std::ifstream before(given);
        string id;
        for (int rung; before >> id >> rung;) rungs[id] = rung;
        std::istringstream lines(
            page.substr(std::min(page.size(), page.find("\n### " + it.id + "\n"))));
        string line, text;
        std::getline(lines, line);
        std::getline(lines, line);
        int number = 0;
        const int wanted = rungs[it.id] + 1;
        while (std::getline(lines, line) && line[0] != '#') {
            if (isdigit(line[0])) ++number;
            if (number == wanted || (number < wanted && isdigit(line[0])))
                text = isdigit(line[0]) ? line : text + "\n" + line;
        }
        if (text.empty()) continue;
        printf("Hint for %s: %s\n", it.id.c_str(), text.c_str());
        rungs[it.id] = std::min(wanted, number);
        std::ofstream after(given);
        for (const auto& [name, rung] : rungs) after << name << " " << rung << "\n";
        return;
    }
    printf("For what is lost here there is no hint.\n");
}

// mine.cc, made from the starter if it is not there.
static string mine(const Lab& lab) {
    const string file = directory(lab) + "/mine.cc";
    if (access(file.c_str(), F_OK) == -1) {
        std::ofstream(file) << contents(directory(lab) + "/starter.cc");
        printf("%s is yours now, made from starter.cc.\n", file.c_str());
    }
    return file;
}

// The program for the commands of the report, as the grader builds it.
static void build_mine(const Lab& lab) {
    const string line = "cd " + directory(lab) + " && rm -f mine && " + compile() + " 2>/dev/null";
    const pid_t pid = fork();
    if (pid == -1) err(1, "fork");
    if (pid == 0) {
        execlp("sh", "sh", "-c", line.c_str(), nullptr);
        _exit(127);
    }
    waitpid(pid, nullptr, 0);
}

static int grade_mine(const Box& box, const Lab& lab, bool wants_hint) {
    const string file = mine(lab);
    const Result result = grade(box, lab, contents(file));
    const Score it = score(box, lab, result, directory(lab) + "/mine");
    build_mine(lab);
    printf("%s", it.text.c_str());
    std::ofstream(directory(lab) + "/score") << it.points << " " << it.most << "\n";
    if (it.points == it.most) {
        printf("All of it. Was your prediction right? Compare with ours:");
        for (const string& ours : lab.ours) printf(" %s", ours.c_str());
        printf("\n");
    } else if (wants_hint) {
        hint(lab, result);
    } else {
        printf("Change %s and type make lab%d again; HINT=1 gives a hint.\n", file.c_str(),
               lab.number);
    }
    return 0;
}

// Grades now, and at each save, until somebody ends it.
static int watch(const Box& box, const Lab& lab) {
    const string file = mine(lab);
    const int saves = inotify_init1(IN_CLOEXEC);
    if (saves == -1) err(1, "inotify_init1");
    // The directory, not the file: many editors write another and give it the name.
    const string where = directory(lab);
    if (inotify_add_watch(saves, where.c_str(), IN_CLOSE_WRITE | IN_MOVED_TO) == -1)
        err(1, "inotify_add_watch(%s)", where.c_str());
    fflush(stdout);
    for (;;) {
        grade_mine(box, lab, false);
        printf("Save %s, and it is graded again; Ctrl-C ends this.\n", file.c_str());
        fflush(stdout);
        // What was saved meanwhile waits here; several saves that came in one read are one.
        for (bool saved = false; !saved;) {
            alignas(inotify_event) char events[4096];
            const ssize_t bytes = read(saves, events, sizeof events);
            if (bytes == -1) err(1, "read(inotify)");
            for (ssize_t at = 0; at < bytes;) {
                const auto* event = reinterpret_cast<const inotify_event*>(events + at);
                saved = saved || (event->len > 0 && strcmp(event->name, "mine.cc") == 0);
                at += static_cast<ssize_t>(sizeof *event + event->len);
            }
        }
    }
}

// Each in a process of its own, as many as there are processors. Writes into a new directory.
static int grade_all(const Box& box, const Lab& lab, const string& from,
                     const std::set<string>& later) {
    for (const string& id : later)
        if (std::none_of(lab.requirements.begin(), lab.requirements.end(),
                         [&](const Requirement& it) { return it.id == id; }))
            errx(2, "lab %d has no requirement '%s'", lab.number, id.c_str());
    const string to = "grades-" + to_string(lab.number);
    std::set<string> logins;
    DIR* names = opendir(from.c_str());
    if (names == nullptr) err(1, "opendir(%s)", from.c_str());
    while (const dirent* it = readdir(names))
        if (it->d_name[0] != '.') logins.insert(it->d_name);
    closedir(names);
    for (const string& login : logins)
        if (login.find_first_of(",\"\n") != string::npos)
            errx(2, "a login with a comma, a quote or a newline: '%s'", login.c_str());
    if (mkdir(to.c_str(), 0700) == -1) err(1, "mkdir(%s)", to.c_str());
    int rows[2];
    if (pipe2(rows, O_CLOEXEC) == -1) err(1, "pipe2");
    const long most = sysconf(_SC_NPROCESSORS_ONLN);
    long running = 0;
    const auto wait_for_one = [&] {
        if (wait(nullptr) == -1) err(1, "wait");
        --running;
    };
    for (const string& login : logins) {
        if (running == most) wait_for_one();
        const pid_t pid = fork();
        if (pid == -1) err(1, "fork");
        ++running;
        if (pid != 0) continue;
        const string source = source_of(from + "/" + login + "/mine.cc");
        const Score it = score(box, lab, grade(box, lab, source), "./mine", later);
        std::ofstream(to + "/" + login + ".txt") << it.text;
        if (it.graded) std::ofstream(to + "/" + login + ".json") << it.json;
        const string row = login + "," + to_string(lab.number) + "," +
                           (it.graded ? to_string(it.points) : "not graded") + "," +
                           to_string(it.most) + "\n";
        _exit(write(rows[1], row.data(), row.size()) == -1);  // short: it comes in one piece
    }
    while (running > 0) wait_for_one();
    close(rows[1]);
    std::set<string> sorted;
    std::istringstream lines(read_all(rows[0]));
    for (string line; std::getline(lines, line);) sorted.insert(line);
    std::ofstream csv(to + "/grades.csv");
    csv << "login,lab,points,max\n";
    for (const string& line : sorted) csv << line << "\n";
    printf("%zu of %zu in %s/grades.csv, a report for each beside it\n", sorted.size(),
           logins.size(), to.c_str());
    return sorted.size() == logins.size() ? 0 : 1;
}

int main(int argc, char** argv) {
    const std::vector<string> words(argv + 1, argv + argc);
    if (words.empty()) return list();
    const Box box;
    const string how = words.size() == 3 ? words[2] : "";
    if (words.size() >= 2 && words[0] == "mine")
        return how == "watch" ? watch(box, find(words[1]))
                              : grade_mine(box, find(words[1]), how == "hint");
    if (words.size() >= 3 && words[0] == "all")
        return grade_all(box, find(words[1]), words[2], {words.begin() + 3, words.end()});
    if (words.size() != 2)
        errx(2,
             "usage: tests/grade/grade [mine LAB [hint | watch] | LAB FILE | "
             "all LAB DIRECTORY [REQUIREMENT...]]");
    const Lab& lab = find(words[0]);
    const int fd = open(words[1].c_str(), O_RDONLY | O_CLOEXEC);
    char byte;
    if (fd == -1) err(1, "open(%s)", words[1].c_str());
    if (read(fd, &byte, 1) == -1) err(1, "read(%s)", words[1].c_str());  // a directory
    printf("%s", score(box, lab, grade(box, lab, contents(words[1])), "./mine").text.c_str());
    return 0;
}
