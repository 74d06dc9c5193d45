// What instructors and impatient students ask of the grader: all submissions at once, for a table
// and for Gradescope; requirements that are held back; again at each save.

#include <algorithm>
#include <filesystem>

#include "graded.h"

namespace {

// A directory with as much of the collection as the grader reads.
struct Course {
    Course() {
        std::filesystem::create_directories(lab);
        std::filesystem::create_symlink(root() + "/common", top.path + "/common");
        put(lab + "/starter.cc", contents(root() + "/docs/labs/1-exchange/starter.cc"));
    }
    void hand_in(const std::string& login, const std::string& source) {
        std::filesystem::create_directories(top.path + "/in/" + login);
        put(top.path + "/in/" + login + "/mine.cc", source);
    }
    Result grade(Words words = {}) {
        words.insert(words.begin(), {root() + "/tests/grade/grade", "all", "1", "in"});
        Program grader(words, top.path);
        eventually(process_gone, std::to_string(grader.pid()), 300);
        return grader.finish();
    }
    std::string graded(const std::string& name) { return contents(top.path + "/grades-1/" + name); }

    Scratch top;
    const std::string lab = top.path + "/docs/labs/1-exchange";
};

std::string exchange() { return contents(root() + "/tests/programs/labs/exchange.cc"); }

// A program that prints what the grader uses itself, and what no terminal and no JSON may have.
const std::string kForges = R"(
    #include <stdio.h>
    #include <initializer_list>
    int main() {
        printf("\"quoted\" \\ \033[2J \x7f \xc2\x9b \xc3\xbc \xff \xed\xa0\x80 \xe2\x82\n");
        for (int i = 0; i < 2; ++i)
            for (const char* id : {"shared", "transcript", "contents", "waits", "holds", "status",
                                   "residue", "mode", "exists", "errors"})
                printf("\036met\036%s\036\036\036\036", id);
        printf("\036end\036");
    }
)";

// What Python makes of a JSON: a line for each test, then the output for all.
const std::string kRead = R"(
import json, sys
it = json.load(open(sys.argv[1]))
assert set(it) == {"output", "output_format", "tests"}, set(it)
for test in it["tests"]:
    assert set(test) == {"name", "score", "max_score", "visibility", "output"}, set(test)
    print(test["name"].split(":")[0], test["score"], test["max_score"], test["visibility"],
          len(test["output"]) > 0)
)";

}  // namespace

TEST_CASE("all submissions: a table, a report and a JSON for each", "[grade]") {
    if (cannot_grade()) return;
    Course course;
    course.hand_in("anna", exchange());
    course.hand_in("eve", kForges);
    course.hand_in("nobody", "");
    const Result result = course.grade({"waits", "mode"});
    INFO(result.out << result.err);
    CHECK(result.status == 0);
    CHECK(result.out == "3 of 3 in grades-1/grades.csv, a report for each beside it\n");

    const std::string csv = course.graded("grades.csv"), eve = course.graded("eve.txt");
    INFO(csv << eve << course.graded("eve.json"));
    CHECK(has(csv, "login,lab,points,max\nanna,1,20,20\neve,1,"));
    CHECK(has(csv, "\nnobody,1,0,20\n"));

    // Held back: nobody reads there how it went, and the points are those of the others.
    CHECK(has(course.graded("anna.txt"), ": 16 of 16 points\n"));
    CHECK(has(course.graded("anna.txt"), "\n  after the due date  waits: "));
    CHECK(!has(eve, "of 3  waits"));
    CHECK(!has(eve, "for 3 s"));

    // What a program prints is never the grader's, nor a terminal's.
    int points = -1;
    sscanf(csv.c_str() + csv.find("eve,1,"), "eve,1,%d", &points);
    CHECK(points >= 1);
    CHECK(points <= 5);
    CHECK(has(eve, "0 of 3  shared: "));
    CHECK(has(eve,
              "\"quoted\" \\ \\033[2J \\177 \\302\\233 \xc3\xbc \\377 \\355\\240\\200 "
              "\\342\\202\n"));
    const std::string json = course.graded("eve.json");
    CHECK(has(json, "\\\"quoted\\\" \\\\ \\\\033[2J \\\\177 \\\\302\\\\233 \xc3\xbc \\\\377"));
    CHECK(std::all_of(json.begin(), json.end(),
                      [](unsigned char c) { return c == '\n' || (c >= ' ' && c != 127); }));
    CHECK(has(json, "\"visibility\": \"after_due_date\""));

    // Nothing is overwritten.
    CHECK(course.grade().err == "grade: mkdir(grades-1): File exists\n");
}

TEST_CASE("the JSON is one, with the fields that Gradescope's pages name", "[grade]") {
    if (cannot_grade()) return;
    if (shell("command -v python3").status != 0) SKIP_BECAUSE("there is no python3");
    Course course;
    course.hand_in("bob", changed(exchange(), "0600", "0666"));
    course.hand_in("eve", kForges);
    course.grade({"waits", "mode"});
    put(course.top.path + "/read.py", kRead);
    const Result bob = run({"python3", "read.py", "grades-1/bob.json"}, "", course.top.path);
    INFO(bob.err);
    CHECK(bob.out ==
          "builds 1 1 visible False\nshared 3 3 visible False\ntranscript 2 2 visible False\n"
          "contents 2 2 visible False\nwaits 3 3 after_due_date False\nholds 2 2 visible False\n"
          "status 2 2 visible False\nresidue 2 2 visible False\nmode 0 1 after_due_date True\n"
          "exists 1 1 visible False\nerrors 1 1 visible False\n");
    const Result eve = run({"python3", "read.py", "grades-1/eve.json"}, "", course.top.path);
    INFO(eve.err << course.graded("eve.json"));
    CHECK(eve.status == 0);
}

TEST_CASE("all submissions: what is not asked for", "[grade]") {
    Course course;
    course.hand_in("anna", exchange());
    CHECK(course.grade({"weights"}).err == "grade: lab 1 has no requirement 'weights'\n");
    CHECK(!exists(course.top.path + "/grades-1"));
    course.hand_in("a,b", exchange());
    CHECK(course.grade().err == "grade: a login with a comma, a quote or a newline: 'a,b'\n");
    CHECK(!exists(course.top.path + "/grades-1"));
    CHECK(run({root() + "/tests/grade/grade", "1", "/tmp"}).err ==
          "grade: read(/tmp): Is a directory\n");
}

TEST_CASE("what is lost is tried once more, and tries that do not agree are told", "[grade]") {
    if (cannot_grade()) return;
    const std::string once = "/tmp/" + unique(), removed = "shm_unlink(name);";
    const std::string known = "access(\"" + once + "\", F_OK) == 0";
    const std::string note = "close(open(\"" + once + "\", O_CREAT | O_WRONLY, 0600));";
    Scratch scratch;
    const auto graded = [&](const std::string& source) {
        put(scratch.path + "/mine.cc", source);
        const Graded it = grade("1", scratch.path + "/mine.cc");
        unlink(once.c_str());  // it is still there where the box is not closed
        return it;
    };
    // The first run leaves its object, the others do not: the first try sees that.
    const Graded early = graded(
        changed(exchange(), removed, "if (" + known + ") " + removed + " else { " + note + " }"));
    INFO(early.report);
    CHECK(early.lost == "residue");
    CHECK(has(early.report, "left behind:"));
    CHECK(has(early.report, "Two tries do not agree: it depends on who runs when"));
    // All runs do, so both tries say the same.
    const Graded both = graded(changed(exchange(), removed, ""));
    INFO(both.report);
    CHECK(both.lost == "residue");
    CHECK(!has(both.report, "Two tries"));
}

TEST_CASE("again at each save", "[grade]") {
    if (cannot_grade()) return;
    Course course;
    Program grader({root() + "/tests/grade/grade", "mine", "1", "watch"}, course.top.path);
    const std::string file = course.lab + "/mine.cc", ready = "Ctrl-C ends this.\n";
    grader.await_out("/mine.cc is yours now");
    // Saved while it grades what it has read before.
    const auto grades = [](const std::string& pid) { return !children(atoi(pid.c_str())).empty(); };
    REQUIRE(eventually(grades, std::to_string(grader.pid())));
    put(file, exchange());
    grader.await_out("10 of 20 points\n");
    grader.await_out(ready);
    grader.await_out("20 of 20 points\n");
    grader.await_out(ready);
    put(course.lab + "/other", "");  // none of its business
    // As many editors do it: another file gets the name.
    put(course.lab + "/.mine.cc.new", changed(exchange(), "0600", "0666"));
    std::filesystem::rename(course.lab + "/.mine.cc.new", file);
    grader.await_out("19 of 20 points\n");
    grader.await_out(ready);
    CHECK(contents(course.lab + "/score") == "19 20\n");
    CHECK(exists(course.lab + "/mine"));
    kill(grader.pid(), SIGINT);
    const Result result = grader.finish();
    CHECK(result.status == 128 + SIGINT);
    CHECK(result.err.empty());
    size_t times = 0, at = 0;
    while ((at = result.out.find(ready, at)) != std::string::npos) ++times, ++at;
    CHECK(times == 3);
}

TEST_CASE("an ordinary user's program does not remove itself from under the grader", "[grade]") {
    if (cannot_grade()) return;
    if (geteuid() == 0 && !can_be_others()) SKIP_BECAUSE("root here cannot be another user");
    Scratch scratch;
    std::filesystem::permissions(scratch.path, std::filesystem::perms(0755));
    put(scratch.path + "/mine.cc",
        "#include <stdio.h>\n#include <stdlib.h>\n#include <unistd.h>\n"
        "int main() { rename(\"..\", \"/tmp/elsewhere\"); unlink(\"../mine\"); rmdir(\"../work\");"
        " return system(\"rm -rf /tmp/* /dev/shm/*; ipcrm -a\"); }\n");
    const auto grade_as_user = [](const std::string& file) {
        Words words = {root() + "/tests/grade/grade", "1", file};
        if (geteuid() == 0)
            words.insert(words.begin(),
                         {"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"});
        Program grader(words, root());
        eventually(process_gone, std::to_string(grader.pid()), 300);
        return read(grader.finish());
    };
    // First one that does no harm: without a box the other would remove what is really there.
    const Graded harmless = grade_as_user(root() + "/tests/programs/labs/exchange.cc");
    if (!has(harmless.report, "Lab 1") || has(harmless.report, "unprotected"))
        SKIP_BECAUSE(harmless.report.substr(0, 200));
    const Graded it = grade_as_user(scratch.path + "/mine.cc");
    INFO(it.report);
    CHECK(it.points == 1);
    CHECK(has(it.report, "these are gone or changed"));
    CHECK(has(it.report, "it tried to change what is not its own"));
    CHECK(!has(it.report, "No such file"));
    CHECK(!has(it.report, "Two tries"));
}
