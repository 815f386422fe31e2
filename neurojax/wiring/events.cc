// The two event-driven products of events.py. Synapses are sorted by sender: those of
// sender j lie at start[j] up to start[j + 1]. Senders are visited in order, so that sums
// are rounded as in the pure form. What is read is checked first: a list that was made under
// jit, or put together by hand, may hold anything.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <string>

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

// visit(j) for every j with s[j] != 0, up to the first that returns false: that j, or -1.
// Blocks whose bits are all zero are passed over whole.
template <typename T, typename Visit>
static int64_t ForEachEvent(const T* s, int64_t n, Visit visit) {
  constexpr int64_t kBlock = 256 / sizeof(T);
  for (int64_t first = 0; first < n; first += kBlock) {
    const int64_t last = first + kBlock < n ? first + kBlock : n;
    if (last - first == kBlock) {
      uint64_t words[32], any = 0;
      std::memcpy(words, s + first, sizeof(words));
      for (uint64_t word : words) any |= word;
      if (any == 0) continue;
    }
    for (int64_t j = first; j < last; ++j) {
      if (s[j] != 0 && !visit(j)) return j;
    }
  }
  return -1;
}

template <typename T>
static ffi::Error Scatter(const Rows& rows, Any& w_, Any& s_, Any& current_) {
  const T *w = w_.typed_data<T>(), *s = s_.typed_data<T>();
  T* current = current_.typed_data<T>();
  std::fill_n(current, rows.n_post, T(0));
  const int64_t refused = ForEachEvent(s, rows.n_pre, [=, &rows](int64_t j) {
    return rows.ForEach(j, [=](int32_t e, uint32_t i) { current[i] += w[e] * s[j]; });
  });
  return refused < 0 ? ffi::Error::Success() : rows.Refused(refused);
}

template <typename T>
static ffi::Error Gather(const Rows& rows, Any& post_, Any& pre_, Any& change_) {
  const T *post = post_.typed_data<T>(), *pre = pre_.typed_data<T>();
  T* change = change_.typed_data<T>();
  std::fill_n(change, rows.edges, T(0));
  for (int64_t t = 0; t < pre_.dimensions()[0]; ++t, post += rows.n_post, pre += rows.n_pre) {
    const int64_t refused = ForEachEvent(pre, rows.n_pre, [=, &rows](int64_t j) {
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

static ffi::Error Scattered(Ints index, Ints start, Any w, Any s, ffi::Result<Any> current,
                            int64_t longest) {
  const int64_t edges = index.element_count(), n_pre = s.element_count(),
                n_post = current->element_count();
  if (static_cast<int64_t>(start.element_count()) != n_pre + 1 || !Shaped(w, {edges}) ||
      !OneType(w, s, *current)) {
    return ffi::Error::InvalidArgument("index and w must have shape [edges], s [n_pre] and start "
                                       "[n_pre + 1], w and s one dtype, float32 or float64");
  }
  const Rows rows{index.typed_data(), start.typed_data(), edges, n_pre, n_post, longest};
  return w.element_type() == ffi::F64 ? Scatter<double>(rows, w, s, *current)
                                      : Scatter<float>(rows, w, s, *current);
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
                              ffi::Ffi::Bind().Arg<Ints>().Arg<Ints>().Arg<Any>().Arg<Any>()
                                  .Ret<Any>().Attr<int64_t>("longest"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(gathered, Gathered,
                              ffi::Ffi::Bind().Arg<Ints>().Arg<Ints>().Arg<Any>().Arg<Any>()
                                  .Ret<Any>().Attr<int64_t>("longest"));
