// The grader of the labs (docs/labs/): builds a student's program, runs it where it can do no harm,
// and judges by what the kernel shows.
//
//     tests/grade/grade 1 docs/labs/1-exchange/mine.cc
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
#include "updates.h"

using std::string;
using std::to_string;

static const std::vector<Lab> kLabs = {exchange_lab(), updates_lab(), buffer_lab(),
                                       dead_owner_lab()};

// The verdicts go from the box to us as words, each with this behind it.
constexpr char kEnd = '\036';

struct Result {
    Verdicts verdicts;
    string fault;  // the grader's own
};

static std::map<string, string> headers() {
    std::map<string, string> all;
    DIR* names = opendir("common");
    while (const dirent* it = names == nullptr ? nullptr : readdir(names))
        if (string(it->d_name).find(".h") != string::npos)
            all[it->d_name] =
                (std::ostringstream() << std::ifstream(string("common/") + it->d_name).rdbuf())
                    .str();
    if (names != nullptr) closedir(names);
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
    const long start = Tracer::now();
    lab.grade(stage);
    const Verdicts first = stage.verdicts;
    bool lost = false;
    for (const auto& it : first.met) lost = lost || !it.second;
    // A program that takes its time to fail is not asked again: the others wait, too.
    if (lost && Tracer::now() - start < 20000) {
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
    string text;
    char buffer[4096];
    for (ssize_t bytes; (bytes = read(says[0], buffer, sizeof buffer)) > 0;)
        text.append(buffer, static_cast<size_t>(bytes));
    close(says[0]);
    waitpid(pid, nullptr, 0);

    Result result;
    std::istringstream words(text);
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

static string report(const Box& box, const Lab& lab, const Result& result, int& points) {
    string text;
    int most = 0;
    points = 0;
    for (const Requirement& it : lab.requirements) {
        const auto met = result.verdicts.met.find(it.id);
        const bool graded = met != result.verdicts.met.end();
        const int got = graded && met->second ? it.points : 0;
        points += got;
        most += it.points;
        text += "  " + (graded ? to_string(got) + " of " + to_string(it.points) : "not graded") +
                "  " + it.id + ": " + it.title + "\n";
        if (!graded || met->second) continue;
        const Finding& finding = result.verdicts.findings.at(it.id);
        const string indent = "             ";
        for (const auto& [what, said] : {std::pair<string, string>{"done:   ", finding.did},
                                         {"seen:   ", finding.saw},
                                         {"means:  ", finding.means},
                                         {"look:   ", finding.command}})
            if (!said.empty()) text += "     " + what + printable(said, indent) + "\n";
    }
    for (const string& it : result.verdicts.remarks)
        text += "  remark: " + printable(it, "    ") + "\n";
    if (!result.fault.empty()) text += "  not graded: " + printable(result.fault, "    ") + "\n";
    const string first = "Lab " + to_string(lab.number) + ", " + lab.title + ": " +
                         to_string(points) + " of " + to_string(most) + " points\n";
    return (box.refused.empty()
                ? ""
                : "unprotected: use a throwaway container (" + box.refused + ")\n") +
           first + text;
}

int main(int argc, char** argv) {
    if (argc != 3) errx(2, "usage: tests/grade/grade LAB FILE");
    const Box box;
    for (const Lab& lab : kLabs) {
        if (to_string(lab.number) != argv[1]) continue;
        std::ifstream file(argv[2], std::ios::binary);
        if (!file) err(1, "open(%s)", argv[2]);
        const string source = (std::ostringstream() << file.rdbuf()).str();
        const Result result = grade(box, lab, source);
        int points = 0;
        std::cout << report(box, lab, result, points);
        return 0;
    }
    errx(2, "there is no lab '%s'", argv[1]);
}
