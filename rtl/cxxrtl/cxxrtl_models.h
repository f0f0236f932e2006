// What surrounds a design in the compiled co-simulation: streams with stalls, a bus, recorders.

#ifndef GATEWISE_CXXRTL_MODELS_H
#define GATEWISE_CXXRTL_MODELS_H

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <deque>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace gatewise {

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
    bool any() const {
        return std::any_of(curr, curr + chunks(), [](uint32_t word) { return word != 0; });
    }
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

// The bits of some outputs, in every cycle in which a strobe is not 0.
class Recorder : public Model {
    Port strobe;
    std::vector<Port> ports;

public:
    std::vector<uint64_t> cycles;
    std::vector<uint32_t> words; // of all ports in turn, row by row

    Recorder(Port strobe, std::vector<Port> ports) : strobe(strobe), ports(std::move(ports)) {}

    void drive(uint64_t) override {}

    void sample(uint64_t cycle) override {
        if (!strobe.any())
            return;
        cycles.push_back(cycle);
        for (const Port &port : ports) {
            const size_t at = words.size();
            words.resize(at + port.chunks());
            port.read(words.data() + at);
        }
    }

    // Hands over what was recorded and starts anew.
    void take(uint64_t *into_cycles, uint32_t *into_words) {
        std::copy(cycles.begin(), cycles.end(), into_cycles);
        std::copy(words.begin(), words.end(), into_words);
        cycles.clear();
        words.clear();
    }
};

} // namespace gatewise

#endif
