// The two event-driven products of events.py. Synapses are sorted by sender: those of
// sender j lie at start[j] up to start[j + 1]. Senders are visited in order, so that sums
// are rounded as in the pure form.
#include <algorithm>
#include <cstdint>
#include <cstring>

#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;
using Ints = ffi::Buffer<ffi::S32>;

// visit(j) for every j with s[j] != 0; blocks whose bits are all zero are passed over whole.
template <typename T, typename Visit>
static void ForEachEvent(const T* s, int64_t n, Visit visit) {
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
      if (s[j] != 0) visit(j);
    }
  }
}

template <typename T>
static void Scatter(const int* index, const int* start, const T* w, const T* s, int64_t n_pre,
                    T* current) {
  ForEachEvent(s, n_pre, [=](int64_t j) {
    for (int e = start[j]; e < start[j + 1]; ++e) current[index[e]] += w[e] * s[j];
  });
}

template <typename T>
static void Gather(const int* index, const int* start, const T* post, const T* pre, int64_t steps,
                   int64_t n_post, int64_t n_pre, T* change) {
  for (int64_t t = 0; t < steps; ++t, post += n_post, pre += n_pre) {
    ForEachEvent(pre, n_pre, [=](int64_t j) {
      for (int e = start[j]; e < start[j + 1]; ++e) change[e] += post[index[e]] * pre[j];
    });
  }
}

template <typename T>
static void ScatterInto(Ints& index, Ints& start, ffi::AnyBuffer& w, ffi::AnyBuffer& s,
                        ffi::AnyBuffer& current) {
  T* out = current.typed_data<T>();
  std::fill_n(out, current.element_count(), T(0));
  Scatter<T>(index.typed_data(), start.typed_data(), w.typed_data<T>(), s.typed_data<T>(),
             s.element_count(), out);
}

template <typename T>
static void GatherInto(Ints& index, Ints& start, ffi::AnyBuffer& post, ffi::AnyBuffer& pre,
                       ffi::AnyBuffer& change) {
  T* out = change.typed_data<T>();
  std::fill_n(out, change.element_count(), T(0));
  Gather<T>(index.typed_data(), start.typed_data(), post.typed_data<T>(), pre.typed_data<T>(),
            pre.dimensions()[0], post.dimensions()[1], pre.dimensions()[1], out);
}

static ffi::Error Scattered(Ints index, Ints start, ffi::AnyBuffer w, ffi::AnyBuffer s,
                            ffi::Result<ffi::AnyBuffer> current) {
  if (w.element_type() != s.element_type() || w.element_count() != index.element_count() ||
      s.element_count() + 1 != start.element_count()) {
    return ffi::Error::InvalidArgument("w, s and the layout do not fit one another");
  }
  (w.element_type() == ffi::F64 ? ScatterInto<double> : ScatterInto<float>)(index, start, w, s,
                                                                            *current);
  return ffi::Error::Success();
}

static ffi::Error Gathered(Ints index, Ints start, ffi::AnyBuffer post, ffi::AnyBuffer pre,
                           ffi::Result<ffi::AnyBuffer> change) {
  if (post.element_type() != pre.element_type() || post.dimensions()[0] != pre.dimensions()[0] ||
      pre.dimensions()[1] + 1 != static_cast<int64_t>(start.element_count())) {
    return ffi::Error::InvalidArgument("post, pre and the layout do not fit one another");
  }
  (post.element_type() == ffi::F64 ? GatherInto<double> : GatherInto<float>)(index, start, post,
                                                                             pre, *change);
  return ffi::Error::Success();
}

XLA_FFI_DEFINE_HANDLER_SYMBOL(scattered, Scattered,
                              ffi::Ffi::Bind().Arg<Ints>().Arg<Ints>().Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>().Ret<ffi::AnyBuffer>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(gathered, Gathered,
                              ffi::Ffi::Bind().Arg<Ints>().Arg<Ints>().Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>().Ret<ffi::AnyBuffer>());
