// What the pages of the course promise besides their commands: links that lead somewhere, excerpts
// that are compiled, manual pages that exist, the minutes, nothing long to retype.

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <iterator>
#include <regex>
#include <set>
#include <sstream>

#include "support.h"

namespace {

namespace fs = std::filesystem;

// All files of the collection whose names end so, relative to its top.
Words files(const Words& ends) {
    Words found;
    for (fs::recursive_directory_iterator it(root()), end; it != end; ++it) {
        if (it->path().filename().string()[0] == '.') it.disable_recursion_pending();
        if (std::count(ends.begin(), ends.end(), it->path().extension().string()))
            found.push_back(fs::relative(it->path(), root()));
    }
    std::sort(found.begin(), found.end());
    return found;
}

struct Page {
    std::string prose;  // without the blocks
    Words commands;     // with the lines that go on with them
    Words excerpts;     // of C++
};

Page parse(const std::string& text) {
    Page page;
    std::istringstream lines(text);
    std::string block;
    for (std::string line; std::getline(lines, line);) {
        if (line.rfind("```", 0) == 0) {
            block = block.empty() ? line : "";
            if (block == "```cpp") page.excerpts.emplace_back();
        } else if (block.empty()) {
            page.prose += line + "\n";
        } else if (block == "```cpp") {
            page.excerpts.back() += line + "\n";
        } else if (block == "```console" && line.rfind("$ ", 0) == 0) {
            page.commands.push_back(line + "\n");
        } else if (block == "```console" && line.rfind("> ", 0) == 0) {
            page.commands.back() += line + "\n";
        }
    }
    return page;
}

// The text without the blanks at the beginnings of its lines.
std::string unindented(const std::string& text) {
    return std::regex_replace("\n" + text, std::regex("\n +"), "\n").substr(1);
}

// The anchors that GitHub gives to the headings.
std::set<std::string> anchors(const std::string& text) {
    std::set<std::string> all;
    std::istringstream lines(parse(text).prose);
    for (std::string line; std::getline(lines, line);) {
        if (line[0] != '#') continue;
        std::string anchor;
        for (const unsigned char c : line.substr(line.find(' ') + 1)) {
            if (isalnum(c) || c == '-' || c == '_') anchor += static_cast<char>(tolower(c));
            if (c == ' ') anchor += '-';
        }
        all.insert(anchor);
    }
    return all;
}

// Cited pages that come with packages of their own, not with man-pages: not looked for.
const std::set<std::string> kElsewhere = {"acl(5)",  "docker-run(1)", "logind.conf(5)",
                                          "lsof(8)", "nfs(5)",        "pam_systemd(8)",
                                          "pthread_mutex_lock(3)"};

bool in_manual(const std::string& name, const std::string& section) {
    return shell("man -w " + section + " " + name).status == 0;
}

}  // namespace

TEST_CASE("links of the pages lead somewhere", "[pages]") {
    for (const std::string& page : files({".md"})) {
        const fs::path directory = fs::path(root()) / fs::path(page).parent_path();
        const std::string text = contents(root() + "/" + page);
        const std::regex link(R"(\]\(([^)#: ]*)(#[^) ]*)?\))");
        for (std::sregex_iterator it(text.begin(), text.end(), link), end; it != end; ++it) {
            const std::string to = (*it)[1], anchor = (*it)[2];
            if (to.find("labs") != std::string::npos &&
                !exists(root() + "/docs/labs/1-exchange.md"))
                continue;
            const fs::path path = to.empty() ? fs::path(root()) / page : directory / to;
            INFO(page << ": " << it->str());
            CHECK(exists(path));
            if (!anchor.empty()) CHECK(anchors(contents(path)).count(anchor.substr(1)) == 1);
        }
    }
}

TEST_CASE("excerpts of the pages are compiled", "[pages]") {
    std::string all;
    for (const std::string& file : files({".cc", ".h"}))
        if (file.rfind("tests/", 0) != 0) all += "\n" + unindented(contents(root() + "/" + file));
    int excerpts = 0;
    for (const std::string& page : files({".md"})) {
        if (page.rfind("docs/labs/", 0) == 0) continue;  // they leave gaps on purpose
        for (const std::string& excerpt : parse(contents(root() + "/" + page)).excerpts) {
            INFO(page << ":\n" << excerpt);
            CHECK(has(all, "\n" + unindented(excerpt)));
            ++excerpts;
        }
    }
    CHECK(excerpts > 0);
}

TEST_CASE("no page has more than five lines to retype", "[pages]") {
    for (const std::string& page : files({".md"}))
        for (const std::string& command : parse(contents(root() + "/" + page)).commands) {
            INFO(page << ":\n" << command);
            CHECK(std::count(command.begin(), command.end(), '\n') <= 1 + 5 + 1);
        }
}

// Words / 200 plus half a minute a command, and an excerpt, within a quarter: docs/README.md says
// it, and the page says the same, if it does.
TEST_CASE("pages say how many minutes they take", "[pages]") {
    const std::string course = contents(root() + "/docs/README.md");
    std::smatch row;
    for (const std::string& file : files({".md"})) {
        if (fs::path(file).parent_path() != "docs" || file == "docs/README.md") continue;
        const std::string name = fs::path(file).filename();
        const Page page = parse(contents(root() + "/" + file));
        std::istringstream words(page.prose);
        const long count = std::distance(std::istream_iterator<std::string>(words),
                                         std::istream_iterator<std::string>());
        const size_t slow = page.commands.size() + page.excerpts.size();
        const double minutes = static_cast<double>(count) / 200 + static_cast<double>(slow) / 2;
        INFO(file << ": " << minutes << " minutes");
        const std::regex listed("\\| ([0-9]+) \\| \\[" + name + "\\]");
        REQUIRE(std::regex_search(course, row, listed));
        const std::string said = row[1];
        CHECK(std::abs(std::stod(said) - minutes) <= minutes / 4);
        if (std::regex_search(page.prose, std::regex("; [0-9]+\\s+minutes")))
            CHECK(std::regex_search(page.prose, std::regex("; " + said + "\\s+minutes")));
    }
}

// Since man-pages 6.06, proc(5) is many pages: who cites one of them cites proc(5), too.
TEST_CASE("the manual has the pages that are cited", "[pages]") {
    if (!in_manual("mmap", "2")) SKIP_BECAUSE("no manual pages are installed");
    const std::regex citation(R"(([a-zA-Z_][a-zA-Z0-9_.+-]*)\(([1-8])\))");
    const std::regex bracket(R"(\[[a-z_0-9]+\([1-8]\)[^\]]*\])");  // how programs cite
    std::set<std::string> seen;
    for (const std::string& file : files({".md", ".cc", ".h"})) {
        std::string text = contents(root() + "/" + file);
        if (fs::path(file).extension() == ".md") {
            text = parse(text).prose;
        } else {
            std::string cited;
            for (std::sregex_iterator it(text.begin(), text.end(), bracket), end; it != end; ++it)
                cited += it->str();
            text = cited;
        }
        for (std::sregex_iterator it(text.begin(), text.end(), citation), end; it != end; ++it) {
            const std::string name = (*it)[1], section = (*it)[2];
            if (!seen.insert(it->str()).second || kElsewhere.count(it->str())) continue;
            INFO(file << ": " << it->str());
            const bool split = name.rfind("proc_", 0) == 0 && !in_manual(name, section);
            if (split) CHECK(has(text, "proc(5)"));
            CHECK(in_manual(split ? "proc" : name, section));
        }
    }
    CHECK(seen.size() > 50);
}
