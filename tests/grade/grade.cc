// The grader of the labs (docs/labs/): builds a student's program, runs it where it can do no harm,
// and judges by what the kernel shows.
//
//     tests/grade/grade                    lists the labs, and names the next: make lab
//     tests/grade/grade mine 1 [hint]      grades docs/labs/1-exchange/mine.cc: make lab1
//     tests/grade/grade 1 FILE             grades any file
//     tests/grade/grade all 1 DIRECTORY    grades DIRECTORY/LOGIN/mine.cc for each login: make
//     grade
//
// box.h, where a program can do no harm; stage.h and run.h, the runs in it; lab.h and
// a file for each lab, what is asked for.

#include <dirent.h>
#include <err.h>
#include <stdio.h>

#include <fstream>
#include <iostream>

#include "buffer.h"
#include "build.h"
#include "dead_owner.h"
#include "exchange.h"
#include "lab.h"
#include "readers.h"
#include "residue.h"
#include "same.h"
#include "updates.h"

using std::string;
using std::to_string;

static const std::vector<Lab> kLabs = {exchange_lab(),   residue_lab(), updates_lab(), buffer_lab(),
                                       dead_owner_lab(), readers_lab(), same_lab()};

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
            stage.remark("two tries do not agree on '" + id +
                         "': it depends on who runs when, and that counts as lost");
            if (!met) stage.lose(id, first.findings.at(id));
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
            const auto add = [&](const string& word) { text += word + kEnd; };
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

// Text of a program, as it may stand on a terminal; later lines begin with `indent`.
static string printable(const string& text, const string& indent) {
    string safe;
    for (const char c : text.substr(0, text.find_last_not_of('\n') + 1)) {
        char octal[8];
        snprintf(octal, sizeof octal, "\\%03o", static_cast<unsigned char>(c));
        if (c == '\n')
            safe += "\n" + indent;
        else
            safe += (c >= ' ' && c != 127) || c < 0 ? string(1, c) : octal;
    }
    return safe;
}

struct Score {
    int points = 0, most = 0;
    bool graded = true;  // all of it
    string text;         // the report
};

// `program` is what the reader of the report has built, for the commands in it.
static Score score(const Box& box, const Lab& lab, const Result& result, const string& program) {
    Score all;
    string text;
    for (const Requirement& it : lab.requirements) {
        const auto met = result.verdicts.met.find(it.id);
        const bool graded = met != result.verdicts.met.end();
        const int got = graded && met->second ? it.points : 0;
        all.points += got;
        all.most += it.points;
        all.graded = all.graded && graded;
        text += "  " + (graded ? to_string(got) + " of " + to_string(it.points) : "not graded") +
                "  " + it.id + ": " + it.title + "\n";
        if (!graded || met->second) continue;
        const Finding& finding = result.verdicts.findings.at(it.id);
        string command = finding.command;
        for (size_t at; (at = command.find("PROGRAM")) != string::npos;)
            command.replace(at, strlen("PROGRAM"), program);
        for (const auto& [what, said] : {std::pair<string, string>{"done:   ", finding.did},
                                         {"seen:   ", finding.saw},
                                         {"means:  ", finding.means},
                                         {"look:   ", command}})
            if (!said.empty()) text += "     " + what + printable(said, "             ") + "\n";
    }
    for (const string& it : result.verdicts.remarks)
        text += "  remark: " + printable(it, "    ") + "\n";
    if (!result.fault.empty()) text += "  not graded: " + printable(result.fault, "    ") + "\n";
    if (!box.refused.empty())
        all.text = "unprotected: use a throwaway container (" + box.refused + ")\n";
    all.text += "Lab " + to_string(lab.number) + ", " + lab.title + ": " + to_string(all.points) +
                " of " + to_string(all.most) + " points\n" + text;
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
    printf("There is no hint for what is left.\n");
}

static int grade_mine(const Box& box, const Lab& lab, bool wants_hint) {
    const string file = directory(lab) + "/mine.cc";
    if (access(file.c_str(), F_OK) == -1) {
        std::ofstream(file) << contents(directory(lab) + "/starter.cc");
        printf("%s is yours now, made from starter.cc.\n", file.c_str());
    }
    const Result result = grade(box, lab, contents(file));
    const Score it = score(box, lab, result, directory(lab) + "/mine");
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

// Each in a process of its own, as many as there are processors. Writes into a new directory.
static int grade_all(const Box& box, const Lab& lab, const string& from) {
    const string to = "grades-" + to_string(lab.number);
    std::set<string> logins;
    DIR* names = opendir(from.c_str());
    if (names == nullptr) err(1, "opendir(%s)", from.c_str());
    while (const dirent* it = readdir(names))
        if (it->d_name[0] != '.') logins.insert(it->d_name);
    closedir(names);
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
        const Score it = score(box, lab, grade(box, lab, source), "./mine");
        std::ofstream(to + "/" + login + ".txt") << it.text;
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
    if (words.size() >= 2 && words[0] == "mine")
        return grade_mine(box, find(words[1]), words.size() == 3);
    if (words.size() == 3 && words[0] == "all") return grade_all(box, find(words[1]), words[2]);
    if (words.size() != 2)
        errx(2, "usage: tests/grade/grade [mine LAB [hint] | LAB FILE | all LAB DIRECTORY]");
    if (access(words[1].c_str(), R_OK) == -1) err(1, "open(%s)", words[1].c_str());
    const Lab& lab = find(words[0]);
    printf("%s", score(box, lab, grade(box, lab, contents(words[1])), "./mine").text.c_str());
    return 0;
}
