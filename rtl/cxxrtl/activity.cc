// Switching activity: how often the bits of every signal change, and in how many cycles one of them is up, among the
// cycles in which a strobe is up.
//
// An extension of the driver. Signals with the same storage are one here; what has none of its own but can be
// computed (CXXRTL's outlines, in a design compiled for waveforms) is computed in every cycle. A signal is looked at
// once a cycle, as it stands before the clock edge: a glitch within a cycle does not exist here.

#include "cxxrtl_driver.h"

#include <map>
#include <set>

namespace gatewise {

class Activity : public Model {
    struct Storage {
        const uint32_t *now;
        size_t chunks;
        std::vector<uint32_t> before;
        uint64_t toggles = 0, highs = 0;
    };
    Port strobe;
    std::vector<cxxrtl::debug_outline *> outlines;
    std::vector<Storage> storages;
    bool begun = false;

public:
    uint64_t cycles = 0;
    std::string listing;

    Activity(Simulation &simulation, Port strobe) : strobe(strobe) {
        std::map<std::pair<const uint32_t *, size_t>, size_t> known;
        std::set<cxxrtl::debug_outline *> lines;
        for (const auto &entry : simulation.items.table)
            for (const auto &part : entry.second) {
                if (part.type == CXXRTL_MEMORY || part.width == 0 || part.curr == nullptr)
                    continue;
                const auto found = known.emplace(std::make_pair(part.curr, part.width), storages.size());
                if (found.second) {
                    storages.push_back({part.curr, chunks_of(part.width), {}});
                    storages.back().before.resize(chunks_of(part.width));
                }
                if (part.outline != nullptr && lines.insert(part.outline).second)
                    outlines.push_back(part.outline);
                const bool state = (part.flags & CXXRTL_DRIVEN_SYNC) != 0;
                listing += entry.first + '\t' + std::to_string(found.first->second) + '\t' +
                           std::to_string(part.width) + '\t' + std::to_string(state) + '\n';
            }
    }

    size_t size() const { return storages.size(); }

    void drive(uint64_t) override {}

    void sample(uint64_t) override {
        for (cxxrtl::debug_outline *outline : outlines)
            outline->eval();
        const bool counts = strobe.any();
        for (Storage &storage : storages) {
            uint32_t any = 0;
            for (size_t k = 0; k < storage.chunks; k++) {
                const uint32_t now = storage.now[k], changed = now ^ storage.before[k];
                storage.before[k] = now;
                any |= now;
                if (changed && counts && begun)
                    storage.toggles += __builtin_popcount(changed);
            }
            storage.highs += counts && any != 0;
        }
        cycles += counts;
        begun = true;
    }

    // Hands over what was counted and starts anew; what the signals were stays known.
    void take(uint64_t *toggles, uint64_t *highs) {
        for (size_t k = 0; k < storages.size(); k++) {
            toggles[k] = storages[k].toggles;
            highs[k] = storages[k].highs;
            storages[k].toggles = storages[k].highs = 0;
        }
        cycles = 0;
    }
};

} // namespace gatewise

using namespace gatewise;

extern "C" {

Activity *gatewise_activity(Simulation *simulation, const char *strobe) {
    try {
        std::unique_ptr<Activity> activity(new Activity(*simulation, simulation->port(strobe)));
        simulation->models.push_back(activity.get());
        return activity.release();
    } catch (const std::exception &error) {
        simulation->error = error.what();
        return nullptr;
    }
}

const char *gatewise_activity_signals(Activity *activity) { return activity->listing.c_str(); }

uint64_t gatewise_activity_size(Activity *activity) { return activity->size(); }

uint64_t gatewise_activity_cycles(Activity *activity) { return activity->cycles; }

void gatewise_activity_take(Activity *activity, uint64_t *toggles, uint64_t *highs) {
    activity->take(toggles, highs);
}

void gatewise_activity_end(Simulation *simulation, Activity *activity) {
    auto &models = simulation->models;
    models.erase(std::remove(models.begin(), models.end(), static_cast<Model *>(activity)), models.end());
    delete activity;
}

} // extern "C"
