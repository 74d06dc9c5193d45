// A lab, as the grader sees it: what is asked for, and a function that decides each.

#pragma once

#include <functional>
#include <string>
#include <vector>

#include "run.h"

struct Requirement {
    std::string id;  // one word, for Stage::earn() and Stage::lose()
    int points;
    std::string title;
};

struct Lab {
    int number;
    std::string name;  // of its page docs/labs/NAME.md and its directory docs/labs/NAME/
    std::string title;
    int minutes;
    std::vector<std::string> ours;  // programs of ours that do it, to compare
    // "builds" is the first, and decided before grade() is called.
    std::vector<Requirement> requirements;
    // Runs the program stage.program as often as it likes, says earn() or lose() of each
    // requirement, and stage.clear() between runs that are to know nothing of each other. What it
    // throws is the grader's own fault: what is not decided by then is not graded.
    std::function<void(Stage&)> grade;
};
