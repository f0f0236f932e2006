// What Python calls: every function takes a simulation, answers -1 (or null) on an error, and
// keeps its message.

#include "cxxrtl_driver.h"

#include <algorithm>

using namespace gatewise;

namespace {

template <class Work> int64_t guarded(Simulation *simulation, Work work) {
    try {
        return work();
    } catch (const std::exception &error) {
        simulation->error = error.what();
        return -1;
    }
}

// Models that take part in one call only.
struct Visit {
    std::vector<Model *> &models;
    size_t before;

    explicit Visit(Simulation &simulation) : models(simulation.models), before(models.size()) {}
    ~Visit() { models.resize(before); }
};

} // namespace

extern "C" {

Simulation *gatewise_create() { return new Simulation; }

void gatewise_destroy(Simulation *simulation) { delete simulation; }

const char *gatewise_error(Simulation *simulation) { return simulation->error.c_str(); }

uint64_t gatewise_cycle(Simulation *simulation) { return simulation->cycle; }

void gatewise_reset(Simulation *simulation, uint64_t cycles) { simulation->reset(cycles); }

// Every signal: name, bits, words, first word, and whether it is an input, an output, pokable, a memory.
const char *gatewise_signals(Simulation *simulation) {
    std::string &text = simulation->listing;
    text.clear();
    for (const auto &entry : simulation->items.table) {
        const auto &parts = entry.second;
        size_t bits = 0;
        bool pokable = true;
        for (const auto &part : parts) {
            bits = std::max(bits, part.lsb_at + part.width);
            const bool input = part.type == CXXRTL_VALUE && (part.flags & CXXRTL_INPUT);
            const bool state = part.type == CXXRTL_WIRE && (part.flags & CXXRTL_DRIVEN_SYNC);
            pokable = pokable && (input || state || part.type == CXXRTL_MEMORY);
        }
        const auto &first = parts[0];
        text += entry.first;
        for (size_t field : {bits, first.depth, first.zero_at, size_t((first.flags & CXXRTL_INPUT) != 0),
                             size_t((first.flags & CXXRTL_OUTPUT) != 0), size_t(pokable),
                             size_t(first.type == CXXRTL_MEMORY)})
            text += '\t' + std::to_string(field);
        text += '\n';
    }
    return text.c_str();
}

int64_t gatewise_peek(Simulation *simulation, const char *name, uint64_t index, uint32_t *words) {
    return guarded(simulation, [&] {
        simulation->peek(name, index, words);
        return 0;
    });
}

int64_t gatewise_poke(Simulation *simulation, const char *name, uint64_t index, const uint32_t *words) {
    return guarded(simulation, [&] {
        simulation->poke(name, index, words);
        return 0;
    });
}

// At most so many cycles; the cycles before the one in which `until` is high, or `cycles`.
int64_t gatewise_run(Simulation *simulation, uint64_t cycles, const char *until, int *reached) {
    return guarded(simulation, [&]() -> int64_t {
        const Port stop = until != nullptr ? simulation->port(until) : Port();
        for (uint64_t passed = 0; passed < cycles; passed++) {
            bool high = false;
            simulation->tick([&] { high = stop && stop.high(); });
            if (high) {
                *reached = 1;
                return passed;
            }
        }
        return cycles;
    });
}

// One row of each input's words a cycle, one row of each output's.
int64_t gatewise_vectors(Simulation *simulation, uint64_t cycles, size_t inputs, const char **input_names,
                         const uint32_t **input_words, size_t outputs, const char **output_names,
                         uint32_t **output_words) {
    return guarded(simulation, [&] {
        std::vector<Port> in, out;
        for (size_t k = 0; k < inputs; k++)
            in.push_back(simulation->port(input_names[k]));
        for (size_t k = 0; k < outputs; k++)
            out.push_back(simulation->port(output_names[k]));
        for (uint64_t row = 0; row < cycles; row++) {
            for (size_t k = 0; k < inputs; k++)
                in[k].write(input_words[k] + row * in[k].chunks());
            simulation->tick([&] {
                for (size_t k = 0; k < outputs; k++)
                    out[k].read(output_words[k] + row * out[k].chunks());
            });
        }
        return 0;
    });
}

// Streams payloads into the sources and out of the sinks, and watches `unstalled` cycles for one
// too many. Times count from the call. The answer is the cycles it took.
int64_t gatewise_streams(Simulation *simulation, size_t sources, const char **source_names,
                         const uint32_t **source_words, const uint64_t *source_counts, uint64_t **accepted,
                         size_t sinks, const char **sink_names, uint32_t **sink_words, const uint64_t *sink_counts,
                         uint64_t **delivered, uint64_t *received, uint64_t seed, int stalls, uint64_t unstalled,
                         uint64_t patience) {
    return guarded(simulation, [&]() -> int64_t {
        const uint64_t start = simulation->cycle;
        Visit visit(*simulation);
        std::vector<std::unique_ptr<StreamSource>> in;
        std::vector<std::unique_ptr<StreamSink>> out;
        for (size_t k = 0; k < sources; k++) {
            in.emplace_back(new StreamSource(simulation->stream(source_names[k]), source_words[k], source_counts[k],
                                             accepted[k], Stalls(seed, k, false, unstalled, stalls), seed + k, start));
            simulation->models.push_back(in.back().get());
        }
        for (size_t k = 0; k < sinks; k++) {
            out.emplace_back(new StreamSink(simulation->stream(sink_names[k]), sink_words[k], sink_counts[k],
                                            delivered[k], Stalls(seed, sources + k, true, unstalled, stalls), start));
            simulation->models.push_back(out.back().get());
        }
        struct Report {
            std::vector<std::unique_ptr<StreamSink>> &out;
            uint64_t *received;
            ~Report() {
                for (size_t k = 0; k < out.size(); k++)
                    received[k] = out[k]->received;
            }
        } report{out, received};
        for (;;) {
            simulation->tick();
            uint64_t last = start;
            const StreamSink *waiting = nullptr;
            for (auto &sink : out) {
                last = std::max(last, sink->last);
                if (!sink->full())
                    waiting = sink.get();
            }
            const uint64_t idle = simulation->cycle - last;
            if (waiting == nullptr && idle > unstalled)
                return simulation->cycle - start;
            if (idle > patience)
                throw Breach(waiting->name() + " sent nothing for " + std::to_string(patience) + " cycles after " +
                             std::to_string(waiting->received) + " of " + std::to_string(waiting->wanted()) +
                             " payloads" + at_cycle(simulation->cycle - start));
        }
    });
}

// A bus of the named channels over host memory: its handle is its index.
int64_t gatewise_attach_bus(Simulation *simulation, const char *request, const char *data, const char *write,
                            uint8_t *bytes, uint64_t words, size_t word_bytes, uint64_t latency, double stall,
                            uint64_t seed) {
    return guarded(simulation, [&]() -> int64_t {
        const HostMemory memory{bytes, words, word_bytes};
        std::unique_ptr<BusModel> bus(new BusModel);
        if (request != nullptr)
            bus->reads.reset(new ReadChannel(simulation->stream(request), simulation->stream(data), memory, latency,
                                             stall, seed));
        if (write != nullptr)
            bus->writes.reset(new WriteChannel(simulation->stream(write), memory, stall, seed));
        if (bus->reads)
            simulation->models.push_back(bus->reads.get());
        if (bus->writes)
            simulation->models.push_back(bus->writes.get());
        simulation->buses.push_back(std::move(bus));
        return int64_t(simulation->buses.size()) - 1;
    });
}

uint64_t gatewise_bus_words(Simulation *simulation, int64_t bus, int written) {
    const BusModel &model = *simulation->buses[bus];
    if (written)
        return model.writes ? model.writes->words : 0;
    return model.reads ? model.reads->words : 0;
}

// A recorder of outputs while `strobe` is not 0: its handle is its index.
int64_t gatewise_record(Simulation *simulation, const char *strobe, size_t count, const char **names) {
    return guarded(simulation, [&]() -> int64_t {
        std::vector<Port> ports;
        for (size_t k = 0; k < count; k++)
            ports.push_back(simulation->port(names[k]));
        simulation->recorders.emplace_back(new Recorder(simulation->port(strobe), std::move(ports)));
        simulation->models.push_back(simulation->recorders.back().get());
        return int64_t(simulation->recorders.size()) - 1;
    });
}

uint64_t gatewise_recorded(Simulation *simulation, int64_t recorder) {
    return simulation->recorders[recorder]->cycles.size();
}

void gatewise_take(Simulation *simulation, int64_t recorder, uint64_t *cycles, uint32_t *words) {
    simulation->recorders[recorder]->take(cycles, words);
}

// A waveform of the cycles from `start` up to, without, `stop`; none where the path is null.
int64_t gatewise_waveform(Simulation *simulation, const char *path, uint64_t start, uint64_t stop) {
    return guarded(simulation, [&] {
        simulation->waveform.reset();
        if (path != nullptr)
            simulation->waveform.reset(new Waveform(path, simulation->items, start, stop));
        return 0;
    });
}

} // extern "C"
