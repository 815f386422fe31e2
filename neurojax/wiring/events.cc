// The event-driven products of events.py, and what visits.py does in place. Synapses are sorted
// by sender: those of sender j lie at start[j] up to start[j + 1]. Senders are visited in order, so
// that sums are rounded as in the pure form. What is read is checked first: a list that was made
// under jit, or put together by hand, may hold anything.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <string>
#include <vector>

#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;
using Ints = ffi::Buffer<ffi::S32>;
using Any = ffi::AnyBuffer;

struct Rows {
  const int32_t* index;
  const int32_t* start;
  int64_t edges, n_pre, n_post, longest;

  bool Has(int64_t j) const {
    const int64_t first = start[j], end = start[j + 1];
    return 0 <= first && first <= end && end <= edges && end - first <= longest;
  }

  // visit(e, i) for each synapse e of sender j and its receiver i; false where one is none.
  template <typename Visit>
  bool ForEach(int64_t j, Visit visit) const {
    if (!Has(j)) return false;
    const auto end = start[j + 1];
    const auto n = static_cast<uint32_t>(n_post);
    for (int32_t e = start[j]; e < end; ++e) {
      const auto i = static_cast<uint32_t>(index[e]);  // below 0 is far above n
      if (i >= n) return false;
      visit(e, i);
    }
    return true;
  }

  // Has memory asked for what is read of sender j: `from` is an array of one entry a synapse.
  template <typename T>
  void Fetch(int64_t j, const T* from) const {
    if (!Has(j)) return;
    const T *first = from + start[j], *end = from + start[j + 1];
    for (const T* line = first; line < end; line += 64 / sizeof(T)) __builtin_prefetch(line);
  }

  // What is wrong with the synapses of sender j.
  ffi::Error Refused(int64_t j) const {
    const int64_t first = start[j], end = start[j + 1];
    const auto text = [](int64_t n) { return std::to_string(n); };
    if (Has(j)) {
      int64_t e = first;
      while (0 <= index[e] && index[e] < n_post) ++e;
      return ffi::Error::InvalidArgument("index must name one of " + text(n_post) +
                                         " neurons, 0 to " + text(n_post - 1) + "; got " +
                                         text(index[e]));
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

// visit(j) for every j with s[j] != 0, up to the first that returns false: that j, or -1.
// Stretches whose bits are all zero are passed over whole. ahead(j) comes one event before
// visit(j), so that memory is asked for what j needs while the one before is visited.
template <typename T, typename Ahead, typename Visit>
static int64_t ForEachEvent(const T* s, int64_t n, Ahead ahead, Visit visit) {
  constexpr int64_t kBlock = 256 / sizeof(T), kPart = 32 / sizeof(T);
  int64_t found = -1;
  for (int64_t first = 0; first < n; first += kBlock) {
    if (first + kBlock <= n && Silent<256>(s + first)) continue;
    const int64_t end = std::min(first + kBlock, n);
    for (int64_t part = first; part < end; part += kPart) {
      if (part + kPart <= n && Silent<32>(s + part)) continue;
      const int64_t last = std::min(part + kPart, end);
      for (int64_t j = part; j < last; ++j) {
        if (s[j] == 0) continue;
        ahead(j);
        if (found >= 0 && !visit(found)) return found;
        found = j;
      }
    }
  }
  return found < 0 || visit(found) ? -1 : found;
}

// One list of synapses, its weights, and the currents that they bring.
template <typename T>
struct Sums {
  Rows rows;
  const T* w;
  T* current;
};

template <typename T>
static ffi::Error Scatter(const std::vector<Sums<T>>& lists, const T* s, int64_t n_pre) {
  for (const auto& to : lists) std::fill_n(to.current, to.rows.n_post, T(0));
  const Rows* astray = nullptr;
  const auto ahead = [&](int64_t j) {
    for (const auto& to : lists) {
      to.rows.Fetch(j, to.rows.index);
      to.rows.Fetch(j, to.w);
    }
  };
  const int64_t refused = ForEachEvent(s, n_pre, ahead, [&](int64_t j) {
    for (const auto& to : lists) {
      const T *w = to.w, sent = s[j];
      T* current = to.current;
      if (!to.rows.ForEach(j, [=](int32_t e, uint32_t i) { current[i] += w[e] * sent; })) {
        astray = &to.rows;
        return false;
      }
    }
    return true;
  });
  return refused < 0 ? ffi::Error::Success() : astray->Refused(refused);
}

template <typename T>
static ffi::Error Gather(const Rows& rows, Any& post_, Any& pre_, Any& change_) {
  const T *post = post_.typed_data<T>(), *pre = pre_.typed_data<T>();
  T* change = change_.typed_data<T>();
  std::fill_n(change, rows.edges, T(0));
  for (int64_t t = 0; t < pre_.dimensions()[0]; ++t, post += rows.n_post, pre += rows.n_pre) {
    const auto ahead = [=, &rows](int64_t j) {
      rows.Fetch(j, rows.index);
      rows.Fetch(j, change);
    };
    const int64_t refused = ForEachEvent(pre, rows.n_pre, ahead, [=, &rows](int64_t j) {
      return rows.ForEach(j, [=](int32_t e, uint32_t i) { change[e] += post[i] * pre[j]; });
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

template <typename T>
static ffi::Error ScatterAll(Any& s, ffi::RemainingArgs& given, ffi::RemainingRets& currents,
                             ffi::Span<const int64_t> longest) {
  const int64_t n_pre = s.element_count();
  std::vector<Sums<T>> lists;
  for (size_t k = 0; k < currents.size(); ++k) {
    const auto index = given.get<Ints>(3 * k), start = given.get<Ints>(3 * k + 1);
    const auto w = given.get<Any>(3 * k + 2);
    auto current = currents.get<Any>(k);
    if (!index || !start || !w || !current ||
        static_cast<int64_t>(start->element_count()) != n_pre + 1 ||
        !Shaped(*w, {static_cast<int64_t>(index->element_count())}) ||
        !OneType(*w, s, **current)) {
      return ffi::Error::InvalidArgument("index and w must have shape [edges], s [n_pre] and start "
                                         "[n_pre + 1], w and s one dtype, float32 or float64");
    }
    const Rows rows{index->typed_data(), start->typed_data(),
                    static_cast<int64_t>(index->element_count()), n_pre,
                    static_cast<int64_t>((*current)->element_count()), longest[k]};
    lists.push_back({rows, w->typed_data<T>(), (*current)->typed_data<T>()});
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

static ffi::Error Gathered(Ints index, Ints start, Any post, Any pre, ffi::Result<Any> change,
                           int64_t longest) {
  const int64_t edges = index.element_count(), n_pre = start.element_count() - 1;
  if (pre.dimensions().size() != 2 || post.dimensions().size() != 2 ||
      !Shaped(pre, {post.dimensions()[0], n_pre}) || !Shaped(*change, {edges}) ||
      !OneType(post, pre, *change)) {
    return ffi::Error::InvalidArgument("post and pre must have shapes [T, n_post], [T, n_pre] and "
                                       "start [n_pre + 1], and one dtype, float32 or float64");
  }
  const int64_t n_post = post.dimensions()[1];
  const Rows rows{index.typed_data(), start.typed_data(), edges, n_pre, n_post, longest};
  return post.element_type() == ffi::F64 ? Gather<double>(rows, post, pre, *change)
                                         : Gather<float>(rows, post, pre, *change);
}

XLA_FFI_DEFINE_HANDLER_SYMBOL(scattered, Scattered,
                              ffi::Ffi::Bind().Arg<Any>().RemainingArgs().RemainingRets()
                                  .Attr<ffi::Span<const int64_t>>("longest"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(gathered, Gathered,
                              ffi::Ffi::Bind().Arg<Ints>().Arg<Ints>().Arg<Any>().Arg<Any>()
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

// w at the synapses of neurons with an event, which lie at place[k], or at k itself. The rows
// name the neuron at the far end of each, of which `trace` is.
template <typename T>
static ffi::Error Visit(const Rows& rows, const Ints* place_, Any& event_, Any& trace_,
                        const Bound<T>& low, const Bound<T>& high, T* w) {
  const T *event = event_.typed_data<T>(), *trace = trace_.typed_data<T>();
  const int32_t* place = place_ ? place_->typed_data() : nullptr;
  bool placed = true;
  const auto ahead = [&](int64_t j) {
    rows.Fetch(j, rows.index);
    if (!place) return rows.Fetch(j, w);
    if (!rows.Has(j)) return;
    const auto end = rows.start[j + 1];
    for (int32_t k = rows.start[j]; k < end; ++k) __builtin_prefetch(w + place[k], 1);
  };
  const int64_t refused = ForEachEvent(event, rows.n_pre, ahead, [&](int64_t j) {
    return rows.ForEach(j, [&](int32_t k, uint32_t i) {
      const int64_t e = place ? place[k] : k;
      if (e < 0 || e >= low.edges) {
        placed = false;
        return;
      }
      const int64_t sender = place ? i : j;
      w[e] = high.Below(low.Above(w[e] + event[j] * trace[i], e, sender), e, sender);
    }) && placed;
  });
  if (!placed) return ffi::Error::InvalidArgument("place must name one of the synapses");
  return refused < 0 ? ffi::Error::Success() : rows.Refused(refused);
}

// At the senders with an event, then at the receivers.
template <typename T>
static ffi::Error VisitBoth(const Rows& rows, const Rows& columns, const Ints& place, Any& s,
                            Any& y, Any& z, Any& x, Any& low_, Any& high_, Any& w_) {
  const Bound<T> low{low_.typed_data<T>(), static_cast<int64_t>(low_.element_count()), rows.edges},
      high{high_.typed_data<T>(), static_cast<int64_t>(high_.element_count()), rows.edges};
  T* w = w_.typed_data<T>();
  const ffi::Error error = Visit<T>(rows, nullptr, s, y, low, high, w);
  return error.failure() ? error : Visit<T>(columns, &place, z, x, low, high, w);
}

static bool Fits(const Any& bound, int64_t edges, int64_t senders) {
  const auto n = static_cast<int64_t>(bound.element_count());
  return n == 0 || n == 1 || n == edges || n == senders;
}

static bool Ends(const Ints& start, const Any& event) {
  return start.element_count() == event.element_count() + 1;
}

// s and z are what fired, y and x the traces of the other side; without columns z is empty. What
// was read from the weights before they change is handed over as `after`, of which nothing is
// used: so XLA knows that the change comes after the reading, and makes no copy of the weights.
static ffi::Error Visited(Ints post, Ints start, Ints pre, Ints begin, Ints place, Any w, Any s,
                          Any y, Any z, Any x, Any low, Any high, Any /*after*/,
                          ffi::Result<Any> changed, int64_t longest, int64_t largest) {
  const int64_t edges = post.element_count(), n_pre = s.element_count(),
                n_post = y.element_count(),
                senders = std::max(n_pre, static_cast<int64_t>(x.element_count()));
  if (!Ends(start, s) || !Ends(begin, z) || !Shaped(w, {edges}) || !Shaped(*changed, {edges}) ||
      pre.element_count() != place.element_count() || !Fits(low, edges, senders) ||
      !Fits(high, edges, senders) || !OneType(w, s, y) || !OneType(w, z, x) ||
      !OneType(w, low, high) || !OneType(w, *changed, *changed)) {
    return ffi::Error::InvalidArgument(
        "post and w must have shape [edges], pre and place too, start [n_pre + 1], their events "
        "and traces [n], bounds [0], [1], [n_pre] or [edges], and all floats one dtype, float32 or "
        "float64");
  }
  if (changed->untyped_data() != w.untyped_data()) {
    std::memcpy(changed->untyped_data(), w.untyped_data(), w.size_bytes());
  }
  const Rows rows{post.typed_data(), start.typed_data(), edges, n_pre, n_post, longest},
      columns{pre.typed_data(), begin.typed_data(), static_cast<int64_t>(pre.element_count()),
              static_cast<int64_t>(z.element_count()), static_cast<int64_t>(x.element_count()),
              largest};
  return w.element_type() == ffi::F64
             ? VisitBoth<double>(rows, columns, place, s, y, z, x, low, high, *changed)
             : VisitBoth<float>(rows, columns, place, s, y, z, x, low, high, *changed);
}

// Each spike leaves its currents in the rows of the ring in which they are due; then the row of
// this step is taken out.
template <typename T>
static ffi::Error Schedule(const Rows& rows, const int32_t* delay, int64_t head, int64_t size,
                           Any& w_, Any& s_, Any& due_, Any& ring_) {
  const T *w = w_.typed_data<T>(), *s = s_.typed_data<T>();
  T *ring = ring_.typed_data<T>(), *now = ring + head * rows.n_post;
  bool due = true;
  const auto ahead = [&](int64_t j) {
    rows.Fetch(j, rows.index);
    rows.Fetch(j, w);
    rows.Fetch(j, delay);
  };
  const int64_t refused = ForEachEvent(s, rows.n_pre, ahead, [&](int64_t j) {
    return rows.ForEach(j, [&](int32_t e, uint32_t i) {
      const int64_t d = delay[e];
      if (d < 1 || d > size) {
        due = false;
        return;
      }
      int64_t row = head + d - 1;
      row = row < size ? row : row - size;
      ring[row * rows.n_post + i] += w[e] * s[j];
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

static ffi::Error Scheduled(Ints index, Ints start, Ints delay, Ints head, Any w, Any s, Any ring,
                            ffi::Result<Any> due, ffi::Result<Any> later, int64_t longest) {
  const int64_t edges = index.element_count(), n_pre = s.element_count();
  if (ring.dimensions().size() != 2 || !Shaped(w, {edges}) || head.element_count() != 1 ||
      static_cast<int64_t>(delay.element_count()) != edges ||
      static_cast<int64_t>(start.element_count()) != n_pre + 1 || !OneType(w, s, ring) ||
      !Shaped(*later, {ring.dimensions()[0], ring.dimensions()[1]}) ||
      !OneType(ring, *due, *later) || !Shaped(*due, {ring.dimensions()[1]})) {
    return ffi::Error::InvalidArgument("index, delays and w must have shape [edges], s [n_pre], "
                                       "start [n_pre + 1] and ring [longest, n_post], and all "
                                       "floats one dtype, float32 or float64");
  }
  const int64_t size = ring.dimensions()[0], at = head.typed_data()[0];
  if (at < 0 || at >= size) return ffi::Error::InvalidArgument("head must be a row of the ring");
  if (later->untyped_data() != ring.untyped_data()) {
    std::memcpy(later->untyped_data(), ring.untyped_data(), ring.size_bytes());
  }
  const Rows rows{index.typed_data(), start.typed_data(), edges, n_pre, ring.dimensions()[1],
                  longest};
  return w.element_type() == ffi::F64
             ? Schedule<double>(rows, delay.typed_data(), at, size, w, s, *due, *later)
             : Schedule<float>(rows, delay.typed_data(), at, size, w, s, *due, *later);
}

XLA_FFI_DEFINE_HANDLER_SYMBOL(visited, Visited,
                              ffi::Ffi::Bind().Arg<Ints>().Arg<Ints>().Arg<Ints>().Arg<Ints>()
                                  .Arg<Ints>().Arg<Any>().Arg<Any>().Arg<Any>().Arg<Any>()
                                  .Arg<Any>().Arg<Any>().Arg<Any>().Arg<Any>().Ret<Any>()
                                  .Attr<int64_t>("longest").Attr<int64_t>("largest"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(scheduled, Scheduled,
                              ffi::Ffi::Bind().Arg<Ints>().Arg<Ints>().Arg<Ints>().Arg<Ints>()
                                  .Arg<Any>().Arg<Any>().Arg<Any>().Ret<Any>().Ret<Any>()
                                  .Attr<int64_t>("longest"));
