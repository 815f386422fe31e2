// The event-driven products of events.py, and what visits.py does in place. Synapses are sorted
// by sender: those of sender j lie at start[j] up to start[j + 1]. Senders are visited in order, so
// that sums are rounded as in the pure form. What is read is checked first: a list that was made
// under jit, or put together by hand, may hold anything.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <string>
#include <type_traits>
#include <vector>

#ifdef __linux__
#include <sys/mman.h>
#endif

#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;
using Ints = ffi::Buffer<ffi::S32>;
using Any = ffi::AnyBuffer;

// Whole numbers in one to four bytes each, the least significant first; `narrow.py` has the rule.
struct Numbers {
  const uint8_t* at;
  int64_t width, size;

  template <int kWidth>
  static uint32_t Read(const uint8_t* from) {
    // A copy of three bytes goes through memory, and the load waits for two stores to be over.
    if constexpr (kWidth == 3) return Read<2>(from) | uint32_t{from[2]} << 16;
    uint32_t n = 0;
    std::memcpy(&n, from, kWidth);
    return n;
  }
  // Inlined whatever GCC thinks: a call for each slot takes STDP 1.7 times as long.
  [[gnu::always_inline]] uint32_t operator[](int64_t k) const {
    const uint8_t* from = at + k * width;
    switch (width) {
      case 1: return *from;
      case 2: return Read<2>(from);
      case 3: return Read<3>(from);
      default: return Read<4>(from);
    }
  }
};

// Uint16 [n], uint8 [n, 3] or int32 [n], and uint8 [n] where it is told that they may be small; a
// width of 0 is none of them.
static Numbers NumbersOf(const Any& x, bool small = false) {
  const auto shape = x.dimensions();
  const auto type = x.element_type();
  const bool flat = shape.size() == 1;
  const int64_t width = small && flat && type == ffi::U8 ? 1
                        : flat && type == ffi::U16 ? 2
                        : flat && type == ffi::S32 ? 4
                        : shape.size() == 2 && shape[1] == 3 && type == ffi::U8 ? 3
                                                                               : 0;
  return {static_cast<const uint8_t*>(x.untyped_data()), width, shape.size() ? shape[0] : 0};
}

// Uint32 [n], in which a name is not all of a word.
static Numbers WordsOf(const Any& x) {
  return {static_cast<const uint8_t*>(x.untyped_data()), 4, x.dimensions()[0]};
}

// run(std::integral_constant) of the width of x, so that reading is a load and no more: two bytes,
// three or four, as neurons are named by.
template <typename Run>
static auto ByWidth(const Numbers& x, Run run) {
  switch (x.width) {
    case 2: return run(std::integral_constant<int, 2>());
    case 3: return run(std::integral_constant<int, 3>());
    default: return run(std::integral_constant<int, 4>());
  }
}

// What a weight is kept in beside float and double: a float's first half, or a whole number.
struct Half {
  uint16_t bits;
};

template <typename T>
static T Load(T w) { return w; }
template <typename T>
static T Load(Half w) {
  const uint32_t bits = static_cast<uint32_t>(w.bits) << 16;
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}
template <typename T>
static T Load(int8_t w) { return w; }

// 32 bits that look like chance.
static uint32_t Mixed(uint32_t x, uint32_t other = 0) {
  x = ((x ^ (x >> 16)) * 0x85EBCA6Bu) ^ other;
  x = (x ^ (x >> 13)) * 0xC2B2AE35u;
  return x ^ (x >> 16);
}

// Of synapse e in one step: as SplitMix has them.
static uint32_t Chance(int64_t e, uint32_t seed) {
  return Mixed(static_cast<uint32_t>(e) * 0x9E3779B9u + seed);
}

// Kept whole, or rounded to either neighbour by chance, so that the mean is x.
template <typename T>
static void Keep(T x, int64_t, uint32_t, T* w) { *w = x; }
template <typename T>
static void Keep(T x, int64_t e, uint32_t seed, Half* w) {
  const auto as_float = static_cast<float>(x);
  uint32_t bits;
  std::memcpy(&bits, &as_float, 4);
  const bool finite = (bits & 0x7F800000u) != 0x7F800000u;
  w->bits = static_cast<uint16_t>((bits + (finite ? Chance(e, seed) & 0xFFFFu : 0)) >> 16);
}
template <typename T>
static void Keep(T x, int64_t e, uint32_t seed, int8_t* w) {
  x = std::min(std::max(x, T(-127)), T(127));
  const T low = std::floor(x), u = static_cast<T>(Chance(e, seed) >> 8) * T(0x1p-24);
  *w = static_cast<int8_t>(low + (x - low > u ? T(1) : T(0)));
}

// run(a weight) of the type that holds w: T itself or, where that is float, bfloat16 or int8.
template <typename T, typename Run>
static auto ByKind(const Any& w, Run run) {
  if constexpr (std::is_same_v<T, float>) {
    if (w.element_type() == ffi::BF16) return run(Half());
    if (w.element_type() == ffi::S8) return run(int8_t());
  }
  return run(T());
}

struct Rows {
  Numbers index;
  const int32_t* start;
  int64_t edges, n_pre, n_post, longest;
  int low_bits = 0;  // of a name, which are not part of it

  bool Has(int64_t j) const {
    const int64_t first = start[j], end = start[j + 1];
    return 0 <= first && first <= end && end <= edges && end - first <= longest;
  }

  // visit(e, i) for each synapse e of sender j and its receiver i; false where one is none.
  template <int kWidth, bool kLowBits = false, typename Visit>
  bool ForEach(int64_t j, Visit visit) const {
    if (!Has(j)) return false;
    const auto end = start[j + 1];
    const auto n = static_cast<uint32_t>(n_post);
    const uint8_t* from = index.at + int64_t{start[j]} * kWidth;
    for (int32_t e = start[j]; e < end; ++e, from += kWidth) {
      auto i = Numbers::Read<kWidth>(from);  // below 0 is far above n
      if constexpr (kLowBits) i >>= low_bits;
      if (i >= n) return false;
      visit(e, i);
    }
    return true;
  }

  // Has memory asked for what is read of sender j: `from` is an array of one entry a synapse. Of a
  // long row that is its beginning, after which the processor sees by itself what comes.
  static constexpr int64_t kAsked = 512;
  template <typename T>
  void Fetch(int64_t j, const T* from) const {
    Fetch(j, reinterpret_cast<const uint8_t*>(from), sizeof(T));
  }
  void Fetch(int64_t j, const uint8_t* from, int64_t width) const {
    if (!Has(j)) return;
    const uint8_t *first = from + start[j] * width, *end = from + start[j + 1] * width;
    for (const uint8_t* line = first; line < std::min(end, first + kAsked); line += 64) {
      __builtin_prefetch(line);
      asm volatile("" : : "r"(line));  // GCC leaves out a call that does nothing but fetch
    }
  }
  void Fetch(int64_t j) const { Fetch(j, index.at, index.width); }

  // What is wrong with the synapses of sender j.
  ffi::Error Refused(int64_t j) const {
    const int64_t first = start[j], end = start[j + 1];
    const auto text = [](int64_t n) { return std::to_string(n); };
    if (Has(j)) {
      int64_t e = first;
      while (e < end && (index[e] >> low_bits) < static_cast<uint32_t>(n_post)) ++e;
      const uint32_t name = index[e] >> low_bits;
      const int64_t got = index.width == 4 ? static_cast<int32_t>(name) : int64_t{name};
      return ffi::Error::InvalidArgument("index must name one of " + text(n_post) +
                                         " neurons, 0 to " + text(n_post - 1) + "; got " +
                                         text(got));
    }
    if (0 <= first && first <= end && end <= edges) {
      return ffi::Error::InvalidArgument("longest must be >= " + text(end - first) +
                                         ", a fan-out; got " + text(longest));
    }
    return ffi::Error::InvalidArgument("start must rise from 0 to " + text(edges) +
                                       ", the synapses; got " + text(first) + ", " + text(end) +
                                       " for neuron " + text(j));
  }
};

// Whether all bits of kBytes from s on are zero.
template <int kBytes, typename T>
static bool Silent(const T* s) {
  uint64_t any = 0;
  for (int k = 0; k < kBytes; k += 8) {
    uint64_t word;
    std::memcpy(&word, reinterpret_cast<const char*>(s) + k, 8);
    any |= word;
  }
  return any == 0;
}

// Bit k: whether s[k] != 0, of n <= 64 numbers. Eight flags of a byte each become eight bits by one
// product, so that no branch depends on where the spikes are.
template <typename T>
static uint64_t Fired(const T* s, int64_t n) {
  uint8_t flags[64] = {};
  if (n == 64) {
    for (int k = 0; k < 64; ++k) flags[k] = s[k] != 0;
  } else {
    for (int64_t k = 0; k < n; ++k) flags[k] = s[k] != 0;
  }
  uint64_t bits = 0;
  for (int k = 0; k < 64; k += 8) {
    uint64_t eight = 0;
    for (int b = 0; b < 8; ++b) eight |= uint64_t{flags[k + b]} << 8 * b;
    bits |= (eight * 0x0102040810204080u >> 56) << k;
  }
  return bits;
}

// visit(j) for every j with s[j] != 0, up to the first that returns false: that j, or -1.
// Stretches whose bits are all zero are passed over whole. ahead(j) comes kLead events before
// visit(j), so that memory is asked for what j needs while those before are visited.
template <typename T, typename Ahead, typename Visit>
static int64_t ForEachEvent(const T* s, int64_t n, Ahead ahead, Visit visit) {
  constexpr int64_t kLead = 4;
  int64_t asked[kLead], events = 0;
  for (int64_t first = 0; first < n; first += 64) {
    const int64_t here = std::min<int64_t>(n - first, 64);
    if (here == 64 && Silent<64 * sizeof(T)>(s + first)) continue;
    for (uint64_t left = Fired(s + first, here); left; left &= left - 1) {
      const int64_t j = first + __builtin_ctzll(left);
      ahead(j);
      int64_t& place = asked[events++ % kLead];
      if (events > kLead && !visit(place)) return place;
      place = j;
    }
  }
  for (int64_t k = std::max<int64_t>(events - kLead, 0); k < events; ++k) {
    if (!visit(asked[k % kLead])) return asked[k % kLead];
  }
  return -1;
}

// One list of synapses, its weights, and the currents that they bring.
template <typename T>
struct Sums {
  Rows rows;
  const void* w;
  int64_t width;  // bytes a weight
  T* current;
  bool (*add)(const Sums&, int64_t, T);  // what a spike of sender j brings
};

template <typename T, typename W, int kWidth>
static bool Add(const Sums<T>& to, int64_t j, T sent) {
  const W* w = static_cast<const W*>(to.w);
  T* current = to.current;
  return to.rows.template ForEach<kWidth>(
      j, [=](int32_t e, uint32_t i) { current[i] += Load<T>(w[e]) * sent; });
}

template <typename T>
static ffi::Error Scatter(const std::vector<Sums<T>>& lists, const T* s, int64_t n_pre) {
  for (const auto& to : lists) std::fill_n(to.current, to.rows.n_post, T(0));
  const Rows* astray = nullptr;
  const auto ahead = [&](int64_t j) {
    for (const auto& to : lists) {
      to.rows.Fetch(j);
      to.rows.Fetch(j, static_cast<const uint8_t*>(to.w), to.width);
    }
  };
  const int64_t refused = ForEachEvent(s, n_pre, ahead, [&](int64_t j) {
    for (const auto& to : lists) {
      if (!to.add(to, j, s[j])) {
        astray = &to.rows;
        return false;
      }
    }
    return true;
  });
  return refused < 0 ? ffi::Error::Success() : astray->Refused(refused);
}

template <typename T, int kWidth>
static ffi::Error Gather(const Rows& rows, Any& post_, Any& pre_, Any& change_) {
  const T *post = post_.typed_data<T>(), *pre = pre_.typed_data<T>();
  T* change = change_.typed_data<T>();
  std::fill_n(change, rows.edges, T(0));
  for (int64_t t = 0; t < pre_.dimensions()[0]; ++t, post += rows.n_post, pre += rows.n_pre) {
    const auto ahead = [=, &rows](int64_t j) {
      rows.Fetch(j);
      rows.Fetch(j, change);
    };
    const int64_t refused = ForEachEvent(pre, rows.n_pre, ahead, [=, &rows](int64_t j) {
      return rows.ForEach<kWidth>(
          j, [=](int32_t e, uint32_t i) { change[e] += post[i] * pre[j]; });
    });
    if (refused >= 0) return rows.Refused(refused);
  }
  return ffi::Error::Success();
}

static bool Shaped(const Any& x, std::initializer_list<int64_t> shape) {
  return std::equal(shape.begin(), shape.end(), x.dimensions().begin(), x.dimensions().end());
}

static bool OneType(const Any& a, const Any& b, const Any& c) {
  const auto type = a.element_type();
  return (type == ffi::F32 || type == ffi::F64) && b.element_type() == type &&
         c.element_type() == type;
}

// Whether weights may be kept in the type of w where they are calculated with in that of `with`.
static bool Held(const Any& w, const Any& with) {
  const auto type = w.element_type();
  return type == with.element_type() ||
         (with.element_type() == ffi::F32 && (type == ffi::BF16 || type == ffi::S8));
}

template <typename T>
static ffi::Error ScatterAll(Any& s, ffi::RemainingArgs& given, ffi::RemainingRets& currents,
                             ffi::Span<const int64_t> longest) {
  const int64_t n_pre = s.element_count();
  std::vector<Sums<T>> lists;
  for (size_t k = 0; k < currents.size(); ++k) {
    const auto index_ = given.get<Any>(3 * k), w = given.get<Any>(3 * k + 2);
    const auto start = given.get<Ints>(3 * k + 1);
    auto current = currents.get<Any>(k);
    const Numbers index = index_ ? NumbersOf(*index_) : Numbers{nullptr, 0, 0};
    if (!index.width || !start || !w || !current ||
        static_cast<int64_t>(start->element_count()) != n_pre + 1 || !Shaped(*w, {index.size}) ||
        !OneType(s, s, **current) || !Held(*w, s)) {
      return ffi::Error::InvalidArgument(
          "index and w must have shape [edges], s [n_pre] and start [n_pre + 1], s one dtype with "
          "its current, float32 or float64, and w that, bfloat16 or int8");
    }
    const Rows rows{index, start->typed_data(), index.size, n_pre,
                    static_cast<int64_t>((*current)->element_count()), longest[k]};
    const auto add = ByKind<T>(*w, [&](auto kept) {
      return ByWidth(index, [&](auto width) { return &Add<T, decltype(kept), width()>; });
    });
    const auto bytes = w->element_count() ? w->size_bytes() / w->element_count() : 0;
    lists.push_back({rows, w->untyped_data(), static_cast<int64_t>(bytes),
                     (*current)->template typed_data<T>(), add});
  }
  return Scatter<T>(lists, s.typed_data<T>(), n_pre);
}

// Lists of synapses from the same senders, (index, start, w) each, and what each brings.
static ffi::Error Scattered(Any s, ffi::RemainingArgs lists, ffi::RemainingRets currents,
                            ffi::Span<const int64_t> longest) {
  if (lists.size() != 3 * currents.size() || longest.size() != currents.size()) {
    return ffi::Error::InvalidArgument("lists must have index, start and w for each current");
  }
  return s.element_type() == ffi::F64 ? ScatterAll<double>(s, lists, currents, longest)
                                      : ScatterAll<float>(s, lists, currents, longest);
}

static ffi::Error Gathered(Any index_, Ints start, Any post, Any pre, ffi::Result<Any> change,
                           int64_t longest) {
  const Numbers index = NumbersOf(index_);
  const int64_t n_pre = start.element_count() - 1;
  if (!index.width || pre.dimensions().size() != 2 || post.dimensions().size() != 2 ||
      !Shaped(pre, {post.dimensions()[0], n_pre}) || !Shaped(*change, {index.size}) ||
      !OneType(post, pre, *change)) {
    return ffi::Error::InvalidArgument("post and pre must have shapes [T, n_post], [T, n_pre] and "
                                       "start [n_pre + 1], and one dtype, float32 or float64");
  }
  const int64_t n_post = post.dimensions()[1];
  const Rows rows{index, start.typed_data(), index.size, n_pre, n_post, longest};
  return ByWidth(index, [&](auto width) {
    return post.element_type() == ffi::F64 ? Gather<double, width()>(rows, post, pre, *change)
                                           : Gather<float, width()>(rows, post, pre, *change);
  });
}

XLA_FFI_DEFINE_HANDLER_SYMBOL(scattered, Scattered,
                              ffi::Ffi::Bind().Arg<Any>().RemainingArgs().RemainingRets()
                                  .Attr<ffi::Span<const int64_t>>("longest"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(gathered, Gathered,
                              ffi::Ffi::Bind().Arg<Any>().Arg<Ints>().Arg<Any>().Arg<Any>()
                                  .Ret<Any>().Attr<int64_t>("longest"));

// A bound of weights: none, one number, one a synapse, or one a sender.
template <typename T>
struct Bound {
  const T* x;
  int64_t n, edges;

  T At(int64_t e, int64_t sender) const { return x[n == 1 ? 0 : n == edges ? e : sender]; }
  T Above(T w, int64_t e, int64_t sender) const {
    return n == 0 || !(w < At(e, sender)) ? w : At(e, sender);
  }
  T Below(T w, int64_t e, int64_t sender) const {
    return n == 0 || !(w > At(e, sender)) ? w : At(e, sender);
  }
};

// What one visit is made of: rows that name the neuron at the far end of each synapse, of which
// `trace` is, and bounds.
template <typename T>
struct Visit {
  const Rows& rows;
  const T* event;
  int64_t n;  // events
  const T* trace;
  const Bound<T>&low, &high;
  uint32_t seed;

  template <typename W>
  void Change(W* w, int64_t e, int64_t j, uint32_t i, int64_t sender) const {
    const T changed = Load<T>(w[e]) + event[j] * trace[i];
    Keep(high.Below(low.Above(changed, e, sender), e, sender), e, seed, w + e);
  }
};

// w at the synapses of senders with an event.
template <int kWidth, typename T, typename W>
static ffi::Error VisitRows(const Visit<T>& v, W* w) {
  const auto ahead = [&](int64_t j) {
    v.rows.Fetch(j);
    v.rows.Fetch(j, w);
  };
  const int64_t refused = ForEachEvent(v.event, v.n, ahead, [&](int64_t j) {
    return v.rows.template ForEach<kWidth>(
        j, [&](int32_t e, uint32_t i) { v.Change(w, e, j, i, j); });
  });
  return refused < 0 ? ffi::Error::Success() : v.rows.Refused(refused);
}

// Asks for pages of 2 MB for what is read here and there, so that the processor keeps track of all
// of them; what they hold stays as it is. Once for each array, as far as one number can tell.
static void InLargePages(void* from, size_t bytes) {
#ifdef __linux__
  constexpr uintptr_t kPage = uintptr_t{1} << 21;
  constexpr int kCollapse = 25;  // MADV_COLLAPSE, Linux 6.1; refused without harm before
  static std::atomic<uintptr_t> last{0};
  const auto begin = (reinterpret_cast<uintptr_t>(from) + kPage - 1) & ~(kPage - 1),
             end = (reinterpret_cast<uintptr_t>(from) + bytes) & ~(kPage - 1);
  if (end <= begin + kPage || last.exchange(begin) == begin) return;
  madvise(reinterpret_cast<void*>(begin), end - begin, kCollapse);
#endif
}

// w at the synapses of receivers with an event: the slot-th of those of the sender that a column
// names, whose slot may stand in the low bits of the name. So far ahead of its change that it has
// come from memory, each is asked for.
template <int kWidth, bool kLowBits, typename T, typename W>
static ffi::Error VisitColumns(const Visit<T>& v, const Rows& rows, const Numbers& slots, W* w) {
  constexpr int64_t kAhead = 64;
  const auto n = static_cast<uint32_t>(v.rows.n_post);
  const auto word = [&](int64_t k) { return Numbers::Read<kWidth>(v.rows.index.at + k * kWidth); };
  const auto slot = [&](int64_t k) {
    if constexpr (kLowBits) return word(k) & ((1u << v.rows.low_bits) - 1);
    else return slots[k];
  };
  const auto fetch = [&](int64_t k) {
    const uint32_t i = kLowBits ? word(k) >> v.rows.low_bits : word(k);
    if (i < n) __builtin_prefetch(w + rows.start[i] + slot(k), 1);
  };
  const auto ahead = [&](int64_t j) {
    v.rows.Fetch(j);
    if constexpr (!kLowBits) v.rows.Fetch(j, slots.at, slots.width);
  };
  bool placed = true;
  const int64_t refused = ForEachEvent(v.event, v.n, ahead, [&](int64_t j) {
    if (!v.rows.Has(j)) return false;
    const int64_t end = v.rows.start[j + 1];
    for (int64_t k = v.rows.start[j]; k < std::min(v.rows.start[j] + kAhead, end); ++k) fetch(k);
    return v.rows.template ForEach<kWidth, kLowBits>(j, [&](int32_t k, uint32_t i) {
      if (k + kAhead < end) fetch(k + kAhead);
      const int64_t first = rows.start[i], e = first + slot(k);
      if (first < 0 || e < first || e >= rows.start[i + 1] || e >= rows.edges) {
        placed = false;
        return;
      }
      v.Change(w, e, j, i, i);
    }) && placed;
  });
  if (!placed) return ffi::Error::InvalidArgument("slot must name one of a sender's synapses");
  return refused < 0 ? ffi::Error::Success() : v.rows.Refused(refused);
}

// At the senders with an event, then at the receivers.
template <typename T, typename W>
static ffi::Error VisitBoth(const Visit<T>& sent, const Visit<T>& fired, const Numbers& slot,
                            W* w) {
  const ffi::Error error = ByWidth(
      sent.rows.index, [&](auto width) { return VisitRows<width()>(sent, w); });
  if (error.failure()) return error;
  if (fired.rows.low_bits) return VisitColumns<4, true>(fired, sent.rows, slot, w);
  return ByWidth(fired.rows.index, [&](auto width) {
    return VisitColumns<width(), false>(fired, sent.rows, slot, w);
  });
}

static bool Fits(const Any& bound, int64_t edges, int64_t senders) {
  const auto n = static_cast<int64_t>(bound.element_count());
  return n == 0 || n == 1 || n == edges || n == senders;
}

// A sender and a slot in each word: how many of its bits are left for the slot; 0 where the two
// are apart. `visits.py` has the rule.
static int LowBits(const Any& pre, int64_t n_pre) {
  if (pre.element_type() != ffi::U32 || pre.dimensions().size() != 1) return 0;
  int bits = 1;
  while (bits < 31 && (n_pre - 1) >> bits) ++bits;
  return 32 - bits;
}

static bool Ends(const Ints& start, const Any& event) {
  return start.element_count() == event.element_count() + 1;
}

// s and z are what fired, y and x the traces of the other side; without columns z is empty. Weights
// of bfloat16 or int8 are rounded by chance, of two seeds, one a side. What was read from the
// weights before they change is handed over as `after`, of which nothing is used: so XLA knows that
// the change comes after the reading, and makes no copy of the weights.
static ffi::Error Visited(Any post_, Ints start, Any pre_, Ints begin, Any slot_, Any w, Any s,
                          Any y, Any z, Any x, Any low_, Any high_, ffi::Buffer<ffi::U32> seeds,
                          Any /*after*/, ffi::Result<Any> changed, int64_t longest,
                          int64_t largest) {
  const int low_bits = LowBits(pre_, static_cast<int64_t>(start.element_count()) - 1);
  const Numbers post = NumbersOf(post_), slot = NumbersOf(slot_, true),
                pre = low_bits ? WordsOf(pre_) : NumbersOf(pre_);
  const int64_t n_pre = s.element_count(), n_post = y.element_count(),
                senders = std::max(n_pre, static_cast<int64_t>(x.element_count()));
  if (!post.width || !pre.width || !slot.width || (n_pre && !Ends(start, s)) || !Ends(begin, z) ||
      !Shaped(w, {post.size}) || !Shaped(*changed, {post.size}) ||
      (low_bits ? 0 : pre.size) != slot.size ||
      (z.element_count() && start.element_count() != static_cast<size_t>(senders + 1)) ||
      !Fits(low_, post.size, senders) || !Fits(high_, post.size, senders) || !OneType(s, y, z) ||
      !OneType(s, x, low_) || !OneType(s, high_, high_) || !Held(w, s) ||
      changed->element_type() != w.element_type() ||
      (w.element_type() != s.element_type() && seeds.element_count() != 2)) {
    return ffi::Error::InvalidArgument(
        "post and w must have shape [edges], pre and slot too, start [n_pre + 1], their events "
        "and traces [n], bounds [0], [1], [n_pre] or [edges], all floats one dtype, float32 or "
        "float64, and w that, or bfloat16 or int8 with two seeds");
  }
  if (changed->untyped_data() != w.untyped_data()) {
    std::memcpy(changed->untyped_data(), w.untyped_data(), w.size_bytes());
  }
  const int64_t heard = z.element_count(), sent = x.element_count();
  if (heard) InLargePages(changed->untyped_data(), changed->size_bytes());
  const Rows rows{post, start.typed_data(), post.size,
                  static_cast<int64_t>(start.element_count()) - 1, n_post, longest},
      columns{pre, begin.typed_data(), pre.size, heard, sent, largest, low_bits};
  const uint32_t* seed = seeds.typed_data();
  const bool drawn = seeds.element_count() == 2;
  const auto both = [&](auto real) {
    using T = decltype(real);
    const auto of = [](Any& a) { return a.typed_data<T>(); };
    const auto end = [&](Any& a) {
      return Bound<T>{of(a), static_cast<int64_t>(a.element_count()), post.size};
    };
    const Bound<T> low = end(low_), high = end(high_);
    const Visit<T> at_senders{rows, of(s), n_pre, of(y), low, high, drawn ? seed[0] : 0},
        at_receivers{columns, of(z), heard, of(x), low, high, drawn ? seed[1] : 0};
    return ByKind<T>(w, [&](auto kept) {
      using W = decltype(kept);
      return VisitBoth(at_senders, at_receivers, slot, static_cast<W*>(changed->untyped_data()));
    });
  };
  return s.element_type() == ffi::F64 ? both(double()) : both(float());
}

// Each spike leaves its currents in the rows of the ring in which they are due; then the row of
// this step is taken out.
template <int kWidth, typename T, typename W>
static ffi::Error Schedule(const Rows& rows, const Numbers& delay, int64_t head, int64_t size,
                           const W* w, Any& s_, Any& due_, Any& ring_) {
  const T* s = s_.typed_data<T>();
  T *ring = ring_.typed_data<T>(), *now = ring + head * rows.n_post;
  bool due = true;
  const auto ahead = [&](int64_t j) {
    rows.Fetch(j);
    rows.Fetch(j, w);
    rows.Fetch(j, delay.at, delay.width);
  };
  const int64_t refused = ForEachEvent(s, rows.n_pre, ahead, [&](int64_t j) {
    return rows.ForEach<kWidth>(j, [&](int32_t e, uint32_t i) {
      const int64_t d = delay[e];
      if (d < 1 || d > size) {
        due = false;
        return;
      }
      int64_t row = head + d - 1;
      row = row < size ? row : row - size;
      ring[row * rows.n_post + i] += Load<T>(w[e]) * s[j];
    }) && due;
  });
  if (!due) {
    return ffi::Error::InvalidArgument("delays must be in [1, " + std::to_string(size) +
                                       "] steps");
  }
  if (refused >= 0) return rows.Refused(refused);
  std::copy_n(now, rows.n_post, due_.typed_data<T>());
  std::fill_n(now, rows.n_post, T(0));
  return ffi::Error::Success();
}

static ffi::Error Scheduled(Any index_, Ints start, Any delay_, Ints head, Any w, Any s, Any ring,
                            ffi::Result<Any> due, ffi::Result<Any> later, int64_t longest) {
  const Numbers index = NumbersOf(index_), delay = NumbersOf(delay_, true);
  const int64_t n_pre = s.element_count();
  if (!index.width || !delay.width || ring.dimensions().size() != 2 || !Shaped(w, {index.size}) ||
      head.element_count() != 1 || delay.size != index.size ||
      static_cast<int64_t>(start.element_count()) != n_pre + 1 || !OneType(s, ring, ring) ||
      !Held(w, s) || !Shaped(*later, {ring.dimensions()[0], ring.dimensions()[1]}) ||
      !OneType(ring, *due, *later) || !Shaped(*due, {ring.dimensions()[1]})) {
    return ffi::Error::InvalidArgument(
        "index, delays and w must have shape [edges], s [n_pre], start [n_pre + 1] and ring "
        "[longest, n_post], all floats one dtype, float32 or float64, and w that, bfloat16 or "
        "int8");
  }
  const int64_t size = ring.dimensions()[0], at = head.typed_data()[0];
  if (at < 0 || at >= size) return ffi::Error::InvalidArgument("head must be a row of the ring");
  if (later->untyped_data() != ring.untyped_data()) {
    std::memcpy(later->untyped_data(), ring.untyped_data(), ring.size_bytes());
  }
  const Rows rows{index, start.typed_data(), index.size, n_pre, ring.dimensions()[1], longest};
  const auto run = [&](auto real) {
    using T = decltype(real);
    return ByKind<T>(w, [&](auto kept) {
      const auto* held = static_cast<const decltype(kept)*>(w.untyped_data());
      return ByWidth(index, [&](auto width) {
        return Schedule<width(), T>(rows, delay, at, size, held, s, *due, *later);
      });
    });
  };
  return s.element_type() == ffi::F64 ? run(double()) : run(float());
}

XLA_FFI_DEFINE_HANDLER_SYMBOL(visited, Visited,
                              ffi::Ffi::Bind().Arg<Any>().Arg<Ints>().Arg<Any>().Arg<Ints>()
                                  .Arg<Any>().Arg<Any>().Arg<Any>().Arg<Any>().Arg<Any>()
                                  .Arg<Any>().Arg<Any>().Arg<Any>().Arg<ffi::Buffer<ffi::U32>>()
                                  .Arg<Any>().Ret<Any>()
                                  .Attr<int64_t>("longest").Attr<int64_t>("largest"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(scheduled, Scheduled,
                              ffi::Ffi::Bind().Arg<Any>().Arg<Ints>().Arg<Any>().Arg<Ints>()
                                  .Arg<Any>().Arg<Any>().Arg<Any>().Ret<Any>().Ret<Any>()
                                  .Attr<int64_t>("longest"));

// Currents of synapses that are kept nowhere: those of a sender are computed anew at each of its
// spikes, first where a few of them lead and then what they bring, so that memory is asked for
// ahead and the first part runs side by side.
template <bool kFactors, bool kAutapses, typename T>
static ffi::Error Recompute(const uint32_t* seed, const T* factor, const T* w, const T* s,
                            int64_t n_pre, int64_t k, T* current, int64_t n_post) {
  constexpr int64_t kPart = 256;
  std::fill_n(current, n_post, T(0));
  const uint64_t n = static_cast<uint64_t>(kAutapses ? n_post : n_post - 1);
  uint32_t drawn[kPart], to[kPart];
  ForEachEvent(s, n_pre, [](int64_t) {}, [&](int64_t sender) {
    const auto j = static_cast<uint32_t>(sender);
    const uint32_t a = Mixed(j * 0x9E3779B9u + seed[0]), b = Mixed(j * 0x7FEB352Du + seed[1]);
    const T weight = w[j], sent = s[j];
    for (int64_t first = 0; first < k; first += kPart) {
      const int64_t part = std::min(kPart, k - first);
      for (int64_t t = 0; t < part; ++t) {
        drawn[t] = Mixed(static_cast<uint32_t>(first + t) * 0x9E3779B9u + a, b);
        uint32_t i = static_cast<uint32_t>((drawn[t] * n) >> 32);
        to[t] = kAutapses ? i : i + (i >= j);
      }
      for (int64_t t = 0; t < part; ++t) __builtin_prefetch(current + to[t], 1);
      for (int64_t t = 0; t < part; ++t) {
        current[to[t]] += (kFactors ? weight * factor[Mixed(drawn[t] + b) >> 22] : weight) * sent;
      }
    }
    return true;
  });
  return ffi::Error::Success();
}

static ffi::Error Recomputed(ffi::Buffer<ffi::U32> seed, Any factors, Any w, Any s,
                             ffi::Result<Any> current, int64_t k, bool autapses) {
  const auto n_pre = static_cast<int64_t>(s.element_count()),
             n_post = static_cast<int64_t>(current->element_count());
  const bool spread = factors.element_count() != 0;
  if (seed.element_count() != 2 || !Shaped(w, {n_pre}) || !OneType(w, s, *current) ||
      !OneType(w, factors, factors) || (spread && factors.element_count() != 1024) ||
      n_post < (autapses ? 1 : 2)) {
    return ffi::Error::InvalidArgument("seed must have shape [2], factors [0] or [1024], w and s "
                                       "[n_pre], and all one dtype, float32 or float64");
  }
  const auto run = [&](auto real, auto of, auto onto) {
    using T = decltype(real);
    return Recompute<of(), onto()>(seed.typed_data(), factors.typed_data<T>(), w.typed_data<T>(),
                                   s.typed_data<T>(), n_pre, k, current->typed_data<T>(), n_post);
  };
  const auto each = [&](auto real) {
    const std::true_type yes;
    const std::false_type no;
    if (spread) return autapses ? run(real, yes, yes) : run(real, yes, no);
    return autapses ? run(real, no, yes) : run(real, no, no);
  };
  return s.element_type() == ffi::F64 ? each(double()) : each(float());
}

XLA_FFI_DEFINE_HANDLER_SYMBOL(recomputed, Recomputed,
                              ffi::Ffi::Bind().Arg<ffi::Buffer<ffi::U32>>().Arg<Any>().Arg<Any>()
                                  .Arg<Any>().Ret<Any>().Attr<int64_t>("k").Attr<bool>("autapses"));
