// The C++ side of the compiled co-simulation: a clocked design, streams with stalls, a bus model.
//
// One clock cycle is drive (every model sets the inputs it owns), evaluate, sample (every model
// looks at the outputs as they stand before the clock edge), commit (the edge). A model therefore
// answers in the next cycle at the earliest, and no input may follow an output within a cycle.

#ifndef GATEWISE_CXXRTL_DRIVER_H
#define GATEWISE_CXXRTL_DRIVER_H

#include <cxxrtl/cxxrtl.h>
#include <cxxrtl/cxxrtl_vcd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <deque>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

// What the converted design gives: a new instance, and where it keeps the clock of the last pass
// (null without a clock).
extern "C" cxxrtl_toplevel cxxrtl_design_create();
extern "C" uint32_t *gatewise_previous_clock(cxxrtl::module *top);

namespace gatewise {

constexpr uint64_t PERIOD = 10;         // time units of a waveform
constexpr size_t BUFFER = size_t(1) << 20;  // bytes of waveform kept before they are written

inline size_t chunks_of(size_t bits) { return (bits + 31) / 32; }

// What a message calls a place in time.
inline std::string at_cycle(uint64_t cycle) { return ", cycle " + std::to_string(cycle); }

// The design broke a rule of its interface; the message says which, and when.
struct Breach : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// The bits of a port: 32-bit chunks, least significant first, the padding always 0.
struct Port {
    uint32_t *curr = nullptr;
    uint32_t *next = nullptr;
    size_t bits = 0;

    explicit operator bool() const { return curr != nullptr; }
    size_t chunks() const { return chunks_of(bits); }
    bool high() const { return curr[0] & 1; }
    void set(bool value) { next[0] = value; }
    void write(const uint32_t *words) { std::memcpy(next, words, 4 * chunks()); }
    void read(uint32_t *words) const { std::memcpy(words, curr, 4 * chunks()); }
};

inline bool get_bit(const uint32_t *words, size_t at) { return words[at / 32] >> (at % 32) & 1; }

inline void put_bit(uint32_t *words, size_t at, bool bit) {
    words[at / 32] = (words[at / 32] & ~(uint32_t(1) << at % 32)) | uint32_t(bit) << at % 32;
}

// splitmix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014).
struct Random {
    uint64_t state;

    explicit Random(uint64_t seed) : state(seed) {}
    uint64_t next() {
        uint64_t z = state += UINT64_C(0x9e3779b97f4a7c15);
        z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
        z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
        return z ^ z >> 31;
    }
    bool chance(double p) { return double(next() >> 11) < p * double(UINT64_C(1) << 53); }
};

// A part of the design's surroundings.
struct Model {
    virtual ~Model() = default;
    virtual void drive(uint64_t cycle) = 0;
    virtual void sample(uint64_t cycle) = 0;
};

// The three ports of a stream; an absent valid or ready is always high.
struct Stream {
    std::string name;
    Port payload, valid, ready;

    bool is_valid() const { return !valid || valid.high(); }
    bool is_ready() const { return !ready || ready.high(); }
    bool transfers() const { return is_valid() && is_ready(); }
};

// A payload that waits must neither change nor go away.
class HoldCheck {
    std::vector<uint32_t> payload;
    bool waiting = false;

public:
    void sample(const Stream &stream, uint64_t cycle) {
        if (waiting && !stream.is_valid())
            throw Breach(stream.name + " dropped valid while it waited" + at_cycle(cycle));
        if (waiting && std::memcmp(payload.data(), stream.payload.curr, 4 * payload.size()) != 0)
            throw Breach(stream.name + " changed its payload while it waited" + at_cycle(cycle));
        waiting = stream.is_valid() && !stream.is_ready();
        if (waiting) {
            payload.resize(stream.payload.chunks());
            stream.payload.read(payload.data());
        }
    }
};

// Seeded decisions of one side of the streams whether to take part in a cycle. Nothing stalls at
// first, so that latency and throughput can be read off; then come spells that all streams share.
class Stalls {
    static constexpr uint64_t SPELL_CYCLES = 48;
    uint64_t seed, unstalled;
    bool consumer, enabled;
    Random coin;

public:
    Stalls(uint64_t seed, uint64_t index, bool consumer, uint64_t unstalled, bool enabled)
        : seed(seed), unstalled(unstalled), consumer(consumer), enabled(enabled), coin(Random(seed + 1 + index).next()) {}

    bool go(uint64_t elapsed) {
        static const double chances[][2] = {{1, 1}, {1, 0.5}, {0.5, 1}, {0.4, 0.4}, {1, 0.15}, {0.15, 1}};
        if (!enabled || elapsed < unstalled)
            return true;
        const uint64_t spell = Random(seed ^ (elapsed - unstalled) / SPELL_CYCLES << 20).next() % 6;
        return coin.chance(chances[spell][consumer]);
    }
};

// Offers every payload once, holding it until it is accepted; between them, noise without valid.
class StreamSource : public Model {
    Stream stream;
    const uint32_t *payloads;
    uint64_t count, start, *accepted;
    Stalls stalls;
    Random noise;
    bool offering = false;

public:
    uint64_t sent = 0;

    StreamSource(Stream stream, const uint32_t *payloads, uint64_t count, uint64_t *accepted, Stalls stalls, uint64_t seed, uint64_t start)
        : stream(std::move(stream)), payloads(payloads), count(count), start(start), accepted(accepted), stalls(stalls), noise(~seed) {}

    void drive(uint64_t cycle) override {
        Port &payload = stream.payload;
        offering = offering || (sent < count && stalls.go(cycle - start));
        stream.valid.set(offering);
        if (offering) {
            payload.write(payloads + sent * payload.chunks());
            return;
        }
        for (size_t k = 0; k < payload.chunks(); k++)
            payload.next[k] = uint32_t(noise.next());
        if (payload.bits % 32)
            payload.next[payload.chunks() - 1] &= (uint32_t(1) << payload.bits % 32) - 1;
    }

    void sample(uint64_t cycle) override {
        if (offering && stream.is_ready()) {
            accepted[sent++] = cycle - start;
            offering = false;
        }
    }
};

// Takes payloads as its stalls allow and checks the rules of the stream.
class StreamSink : public Model {
    Stream stream;
    uint32_t *payloads;
    uint64_t count, start, *delivered;
    Stalls stalls;
    HoldCheck hold;

public:
    uint64_t received = 0;
    uint64_t last = 0;

    StreamSink(Stream stream, uint32_t *payloads, uint64_t count, uint64_t *delivered, Stalls stalls, uint64_t start)
        : stream(std::move(stream)), payloads(payloads), count(count), start(start), delivered(delivered), stalls(stalls), last(start) {}

    const std::string &name() const { return stream.name; }
    bool full() const { return received == count; }
    uint64_t wanted() const { return count; }

    void drive(uint64_t cycle) override {
        if (stream.ready)
            stream.ready.set(stalls.go(cycle - start));
    }

    void sample(uint64_t cycle) override {
        hold.sample(stream, cycle - start);
        if (!stream.transfers())
            return;
        if (full())
            throw Breach(stream.name + " sent more than " + std::to_string(count) + " payloads" + at_cycle(cycle - start));
        stream.payload.read(payloads + received * stream.payload.chunks());
        delivered[received++] = cycle - start;
        last = cycle;
    }
};

// Host memory: words of whole bytes, little-endian, one after the other.
struct HostMemory {
    uint8_t *bytes;
    uint64_t words;
    size_t word_bytes;

    uint8_t *at(uint64_t address, const std::string &who, uint64_t cycle) const {
        if (address >= words)
            throw Breach(who + " address must be below " + std::to_string(words) + ", not " + std::to_string(address) + at_cycle(cycle));
        return bytes + address * word_bytes;
    }
};

// The low bits of chunks as a number.
inline uint64_t low_bits(const uint32_t *words, size_t bits) {
    uint64_t value = words[0];
    if (bits > 32)
        value |= uint64_t(words[1]) << 32;
    return bits < 64 ? value & ((uint64_t(1) << bits) - 1) : value;
}

// In-order pipelined reads: the word of a request accepted in cycle t is offered in cycle
// t + 1 + latency at the earliest, one word a cycle, later where the design or a stall holds one up.
class ReadChannel : public Model {
    struct Pending {
        uint64_t address, due;
    };
    Stream request, data;
    HostMemory memory;
    uint64_t latency;
    double stall;
    Random random;
    std::deque<Pending> pending;
    HoldCheck hold;
    bool offering = false;

    bool stalls() { return stall > 0 && random.chance(stall); }

public:
    uint64_t words = 0;

    ReadChannel(Stream request, Stream data, HostMemory memory, uint64_t latency, double stall, uint64_t seed)
        : request(std::move(request)), data(std::move(data)), memory(memory), latency(latency), stall(stall), random(seed) {}

    void drive(uint64_t cycle) override {
        if (request.ready)
            request.ready.set(!stalls());
        if (!offering && !pending.empty() && pending.front().due <= cycle && !stalls()) {
            offering = true;
            uint32_t *word = data.payload.next;
            word[data.payload.chunks() - 1] = 0;
            std::memcpy(word, memory.at(pending.front().address, request.name, cycle), memory.word_bytes);
        }
        data.valid.set(offering);
    }

    void sample(uint64_t cycle) override {
        hold.sample(request, cycle);
        if (offering && data.is_ready()) {
            pending.pop_front();
            words++;
            offering = false;
        }
        if (request.transfers()) {
            const uint64_t address = low_bits(request.payload.curr, request.payload.bits);
            memory.at(address, request.name, cycle);
            pending.push_back({address, cycle + 1 + latency});
        }
    }
};

// Writes: a payload is the word's address in its low bits, then the word. The word is in memory
// when the cycle of its transfer ends.
class WriteChannel : public Model {
    Stream write;
    HostMemory memory;
    double stall;
    Random random;
    HoldCheck hold;

public:
    uint64_t words = 0;

    WriteChannel(Stream write, HostMemory memory, double stall, uint64_t seed)
        : write(std::move(write)), memory(memory), stall(stall), random(~seed) {}

    void drive(uint64_t) override {
        if (write.ready)
            write.ready.set(!(stall > 0 && random.chance(stall)));
    }

    void sample(uint64_t cycle) override {
        hold.sample(write, cycle);
        if (!write.transfers())
            return;
        const size_t address_bits = write.payload.bits - 8 * memory.word_bytes;
        uint8_t *word = memory.at(low_bits(write.payload.curr, address_bits), write.name, cycle);
        for (size_t k = 0; k < memory.word_bytes; k++) {
            const size_t at = address_bits + 8 * k;
            uint32_t byte = write.payload.curr[at / 32] >> at % 32;
            if (at % 32 > 24)
                byte |= write.payload.curr[at / 32 + 1] << (32 - at % 32);
            word[k] = uint8_t(byte);
        }
        words++;
    }
};

// The bus that a design reads and writes host memory through.
struct BusModel {
    std::unique_ptr<ReadChannel> reads;
    std::unique_ptr<WriteChannel> writes;
};

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
            top.commit();
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
