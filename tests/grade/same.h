// Lab 7, five programs that print the same. Each has one mistake, that nobody sees in what it
// prints; each repaired one is looked at as in lab 1.

#pragma once

#include "exchange.h"

namespace same {

struct Exchange {
    const char* mistake;
    int points;  // for its repair
};
constexpr Exchange kExchanges[] = {
    {"private", 3}, {"sleep", 3}, {"pshared", 3}, {"left", 3}, {"status", 2}};

// What the program says that is wrong with each: "1 word", a line for each.
inline std::map<std::string, std::string> named(Stage& stage) {
    std::map<std::string, std::string> all;
    stage.arguments.clear();
    stage.clear();
    Run run(stage);
    run.finish();
    std::istringstream words(run.out());
    for (std::string number, word; words >> number >> word;) all[number] = word;
    return all;
}

// What lab 1 takes amiss about one of them, in the order in which it asks; nothing if it is right.
inline const Finding* first_lost(const Verdicts& verdicts) {
    for (const Requirement& it : exchange_lab().requirements) {
        const auto found = verdicts.findings.find(it.id);
        if (found != verdicts.findings.end()) return &found->second;
    }
    return nullptr;
}

inline void grade(Stage& stage) {
    const auto words = named(stage);
    Verdicts all;
    for (const Exchange& it : kExchanges) {
        const std::string number = std::to_string(&it - kExchanges + 1);
        const auto word = words.find(number);
        const bool right = word != words.end() && word->second == it.mistake;
        all.met["name" + number] = right;
        if (!right)
            all.findings["name" + number] = {
                "ran it without arguments, which prints your answers",
                word == words.end() ? "no line '" + number + " WORD'" : number + " " + word->second,
                "that is not what was wrong with " + number + " as it was given", "PROGRAM"};

        stage.verdicts = Verdicts();
        stage.arguments = {number};
        stage.clear();
        exchange::grade(stage);
        const Finding* lost = first_lost(stage.verdicts);
        all.met["repair" + number] = lost == nullptr;
        if (lost != nullptr)
            all.findings["repair" + number] = {
                lost->did, lost->saw, lost->means,
                exchange::replaced(lost->command, "PROGRAM", "PROGRAM " + number)};
    }
    stage.verdicts = all;
}

}  // namespace same

inline Lab same_lab() {
    Lab lab = {7,
               "7-same",
               "five programs that print the same",
               60,
               {"docs/labs/7-same/ours.cc"},
               {{"builds", 1, "it builds"}},
               same::grade};
    for (const same::Exchange& it : same::kExchanges) {
        const std::string number = std::to_string(&it - same::kExchanges + 1);
        lab.requirements.push_back({"name" + number, 1, "the mistake of " + number + " is named"});
        lab.requirements.push_back(
            {"repair" + number, it.points, number + " is right, as lab 1 looks at it"});
    }
    return lab;
}
