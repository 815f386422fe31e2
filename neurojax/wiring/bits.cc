// Spikes as bits, and back, as shards.py has them: 32 neurons of one device to a word. Few spike,
// so that a word is looked at closely only where one of its neurons has.
#include <algorithm>
#include <cstdint>

#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;
using Any = ffi::AnyBuffer;
using Words = ffi::Buffer<ffi::U32>;

constexpr int64_t kWord = 32;

// U has the bits of a float; twice that is 0 for both zeros and for nothing else.
template <typename U>
static void Pack(const U* z, int64_t rows, int64_t n, uint32_t* word) {
  for (const U* end = z + n; rows > 0; --rows, end += n) {
    while (z < end) {
      const int64_t size = std::min<int64_t>(kWord, end - z);
      U any = 0;
      for (int64_t k = 0; k < size; ++k) any |= z[k];
      uint32_t bits = 0;
      if (any << 1) {
        for (int64_t k = 0; k < size; ++k) bits |= static_cast<uint32_t>(z[k] << 1 != 0) << k;
      }
      *word++ = bits;
      z += size;
    }
  }
}

static ffi::Error Packed(Any z, ffi::Result<Words> words) {
  const int64_t n = z.dimensions().size() ? z.dimensions().back() : 0;
  const int64_t rows = n ? static_cast<int64_t>(z.element_count()) / n : 0;
  if (static_cast<int64_t>(words->element_count()) != rows * ((n + kWord - 1) / kWord)) {
    return ffi::Error::InvalidArgument("words must have one for each 32 neurons of z");
  }
  if (z.element_type() == ffi::F64) {
    Pack(static_cast<const uint64_t*>(z.untyped_data()), rows, n, words->typed_data());
  } else if (z.element_type() == ffi::F32) {
    Pack(static_cast<const uint32_t*>(z.untyped_data()), rows, n, words->typed_data());
  } else {
    return ffi::Error::InvalidArgument("z must be float32 or float64");
  }
  return ffi::Error::Success();
}

template <typename T>
static void Unpack(const uint32_t* word, int64_t devices, int64_t own, int64_t size, T* z) {
  std::fill_n(z, size, T(0));
  for (; devices > 0; --devices, z += own) {
    for (int64_t first = 0; first < own; first += kWord) {
      for (uint32_t bits = *word++; bits; bits &= bits - 1) z[first + __builtin_ctz(bits)] = T(1);
    }
  }
}

static ffi::Error Unpacked(Words words, ffi::Result<Any> z, int64_t own) {
  const auto shape = words.dimensions();
  const int64_t size = static_cast<int64_t>(z->element_count());
  if (shape.size() != 2 || own < 0 || shape[1] != (own + kWord - 1) / kWord ||
      shape[0] * own > size) {
    return ffi::Error::InvalidArgument("words must be [devices, words] of the neurons of z");
  }
  // A bit beyond a device's own neurons would be one of the next device's, or of nobody.
  for (int64_t d = 0; own % kWord && d < shape[0]; ++d) {
    if (words.typed_data()[(d + 1) * shape[1] - 1] >> own % kWord) {
      return ffi::Error::InvalidArgument("words must name neurons that are there");
    }
  }
  if (z->element_type() == ffi::F64) {
    Unpack(words.typed_data(), shape[0], own, size, static_cast<double*>(z->untyped_data()));
  } else if (z->element_type() == ffi::F32) {
    Unpack(words.typed_data(), shape[0], own, size, static_cast<float*>(z->untyped_data()));
  } else {
    return ffi::Error::InvalidArgument("z must be float32 or float64");
  }
  return ffi::Error::Success();
}

XLA_FFI_DEFINE_HANDLER_SYMBOL(packed, Packed, ffi::Ffi::Bind().Arg<Any>().Ret<Words>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(unpacked, Unpacked,
                              ffi::Ffi::Bind().Arg<Words>().Ret<Any>().Attr<int64_t>("own"));
