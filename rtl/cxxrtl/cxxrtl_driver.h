// The C++ side of the compiled co-simulation: a clocked design among its models.
//
// One clock cycle is drive (every model sets the inputs it owns), evaluate, sample (every model
// looks at the outputs as they stand before the clock edge), commit (the edge). A model therefore
// answers in the next cycle at the earliest, and no input may follow an output within a cycle.

#ifndef GATEWISE_CXXRTL_DRIVER_H
#define GATEWISE_CXXRTL_DRIVER_H

#include "cxxrtl_models.h"

#include <cxxrtl/cxxrtl.h>
#include <cxxrtl/cxxrtl_vcd.h>

#include <cerrno>
#include <cstdio>

// What the converted design gives: a new instance, where it keeps the clock of the last pass (null
// without a clock), and the commit that does not say whether anything changed.
extern "C" cxxrtl_toplevel cxxrtl_design_create();
extern "C" uint32_t *gatewise_previous_clock(cxxrtl::module *top);
extern "C" void gatewise_advance(cxxrtl::module *top);

namespace gatewise {

constexpr uint64_t PERIOD = 10;         // time units of a waveform
constexpr size_t BUFFER = size_t(1) << 20;  // bytes of waveform kept before they are written

// The waveform of a window of cycles.
class Waveform {
    cxxrtl::vcd_writer writer;
    std::FILE *file;
    uint64_t start, stop;

    void flush() {
        std::fwrite(writer.buffer.data(), 1, writer.buffer.size(), file);
        writer.buffer.clear();
    }

public:
    Waveform(const std::string &path, const cxxrtl::debug_items &items, uint64_t start, uint64_t stop)
        : file(std::fopen(path.c_str(), "wb")), start(start), stop(stop) {
        if (file == nullptr)
            throw std::runtime_error(path + ": must be writable: " + std::strerror(errno));
        writer.timescale(1, "ns");
        writer.add_without_memories(items);
    }
    ~Waveform() {
        flush();
        std::fclose(file);
    }
    Waveform(const Waveform &) = delete;
    Waveform &operator=(const Waveform &) = delete;

    bool covers(uint64_t cycle) const { return start <= cycle && cycle < stop; }

    void sample(uint64_t time) {
        writer.sample(time);
        if (writer.buffer.size() > BUFFER)
            flush();
    }
};

// One instance of the design among its models.
class Simulation {
    std::unique_ptr<_cxxrtl_toplevel> toplevel;
    cxxrtl::module &top;
    uint32_t *previous_clock;
    uint32_t *clock = nullptr;
    Port reset_port;
    bool one_pass;
    bool settled = false;

    void evaluate() {
        settled = false;
        if (previous_clock == nullptr) {
            top.step();
        } else if (one_pass && !recording()) {
            // One pass settles the outputs and finds the registers' next values together.
            previous_clock[0] = 0;
            clock[0] = 1;
            top.eval();
        } else {
            clock[0] = 0;
            top.step();
            if (recording())
                waveform->sample(PERIOD * cycle);
        }
    }

    void commit() {
        if (previous_clock == nullptr) {
            if (recording())
                waveform->sample(PERIOD * cycle);
        } else if (one_pass && !recording()) {
            gatewise_advance(&top);
            clock[0] = previous_clock[0] = 0;
        } else {
            clock[0] = 1;
            top.step();
            if (recording())
                waveform->sample(PERIOD * cycle + PERIOD / 2);
        }
    }

    bool recording() const { return waveform && waveform->covers(cycle); }

    std::vector<cxxrtl::debug_item> &parts(const std::string &name) {
        auto found = items.table.find(name);
        if (found == items.table.end())
            throw std::runtime_error("the design has no " + name);
        return found->second;
    }

public:
    cxxrtl::debug_items items;
    std::vector<Model *> models;
    std::vector<std::unique_ptr<BusModel>> buses;
    std::vector<std::unique_ptr<Recorder>> recorders;
    std::unique_ptr<Waveform> waveform;
    uint64_t cycle = 0;
    std::string error;
    std::string listing;

    Simulation()
        : toplevel(cxxrtl_design_create()), top(*toplevel->module), previous_clock(gatewise_previous_clock(&top)) {
        top.debug_info(&items, nullptr, "");
        // A design whose evaluation is not known to converge at once is stepped to a fixed point.
        one_pass = top.eval();
        top.commit();
        if (previous_clock != nullptr)
            clock = port("clk").next;
        if (items.count("rst"))
            reset_port = port("rst");
        reset(2);
    }

    // Cycles under reset, the models apart; cycles count from its end.
    void reset(uint64_t cycles) {
        std::vector<Model *> none;
        models.swap(none);
        if (reset_port)
            reset_port.set(true);
        for (; cycles; cycles--)
            tick();
        if (reset_port)
            reset_port.set(false);
        models.swap(none);
        cycle = 0;
    }

    Port port(const std::string &name) {
        std::vector<cxxrtl::debug_item> &found = parts(name);
        if (found.size() != 1)
            throw std::runtime_error("port " + name + " must be in one part");
        Port port;
        port.curr = found[0].curr;
        port.next = found[0].next;
        port.bits = found[0].width;
        return port;
    }

    Stream stream(const std::string &name) {
        Stream stream;
        stream.name = name;
        stream.payload = port(name + "__payload");
        if (items.count(name + "__valid"))
            stream.valid = port(name + "__valid");
        if (items.count(name + "__ready"))
            stream.ready = port(name + "__ready");
        return stream;
    }

    template <class Sampler> void tick(Sampler sampler) {
        for (Model *model : models)
            model->drive(cycle);
        evaluate();
        // A breach ends the cycle like any other, so that the state stays whole.
        std::exception_ptr breach;
        try {
            for (Model *model : models)
                model->sample(cycle);
        } catch (...) {
            breach = std::current_exception();
        }
        sampler();
        commit();
        cycle++;
        if (breach)
            std::rethrow_exception(breach);
    }

    void tick() {
        tick([] {});
    }

    // Combinational signals follow the registers and inputs.
    void settle() {
        if (settled)
            return;
        if (previous_clock != nullptr)
            clock[0] = previous_clock[0] = 0;
        top.step();
        settled = true;
    }

    // Bits of a signal or of one word of a memory.
    void peek(const std::string &name, uint64_t index, uint32_t *words) {
        settle();
        for (cxxrtl::debug_item &part : parts(name)) {
            if (part.outline != nullptr)
                part.outline->eval();
            const uint32_t *from = part.curr + (index - part.zero_at) * chunks_of(part.width);
            for (size_t k = 0; k < part.width; k++)
                put_bit(words, part.lsb_at + k, get_bit(from, k));
        }
    }

    void poke(const std::string &name, uint64_t index, const uint32_t *words) {
        for (cxxrtl::debug_item &part : parts(name)) {
            const uint64_t at = (index - part.zero_at) * chunks_of(part.width);
            for (size_t k = 0; k < part.width; k++) {
                const bool bit = get_bit(words, part.lsb_at + k);
                put_bit(part.curr + at, k, bit);
                if (part.next != nullptr)
                    put_bit(part.next + at, k, bit);
            }
        }
        settled = false;
    }
};

} // namespace gatewise

#endif
