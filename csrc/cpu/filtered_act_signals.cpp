// SPDX-License-Identifier: BSD-3-Clause
//
// filtered_act along signals. The rows, which are the channels, are cut into tiles of samples
// that a thread computes one after the other, from the input to the output, in blocks that the
// L1 cache holds (signals.h). The gradient goes along the input in the same way.
#include "filtered_act_signals.h"

#include <cmath>
#include <memory>

#include "filtered_act_parts.h"
#include "plan.h"
#include "signals.h"

namespace resample_layers {
namespace cpu {
namespace {

// The bytes of a row of m. With more, the rows of a thread would leave the L1 cache. With less,
// the samples that two neighbours both compute would cost more.
constexpr int64_t kRowBytes = 12 * 1024;
// The most components of m.
constexpr int64_t kMostPeriod = 16;

int64_t period_of(const FilteredActParams& p) {
  return p.up_x / common_divisor(p.up_x, p.down_x) * p.down_x;
}

// Taps of a filter in reading order: backwards (a true convolution), or as they stand.
template <class A>
struct Taps {
  const A* values;
  int64_t count;
  bool flip;

  A operator[](int64_t i) const { return values[flip ? i : count - 1 - i]; }
};

// Sums and the tables that they point to.
template <class A>
class Sums {
 public:
  Sums() = default;
  Sums(Sums&&) = default;  // a copy would point to the other's tables

  // Zeros are inserted by `up`; the source has period / up components, and the sums have period.
  void expand(const Taps<A>& taps, int64_t up, int64_t pad, int64_t period) {
    for (int64_t c = 0; c < period; ++c) {
      const int64_t first = ceil_div(c - pad, up);  // sample of the source
      begin();
      for (int64_t tap = first * up - (c - pad), t = 0; tap < taps.count; tap += up, ++t) {
        add(first + t, period / up, taps[tap]);
      }
    }
    finish();
  }

  // Every `down`-th output is kept; the source has period components, and the sums have
  // period / down.
  void gather(const Taps<A>& taps, int64_t down, int64_t pad, int64_t period) {
    for (int64_t c = 0; c < period / down; ++c) {
      begin();
      for (int64_t t = 0; t < taps.count; ++t) add(c * down - pad + t, period, taps[t]);
    }
    finish();
  }

  const SignalSum* data() const { return sums_.data(); }
  int64_t most_taps() const {
    int64_t most = 0;
    for (const SignalSum& sum : sums_) most = std::max(most, sum.taps);
    return most;
  }

 private:
  void begin() { sums_.push_back({0, nullptr, nullptr, nullptr}); }
  void add(int64_t sample, int64_t components, A weight) {
    const int64_t offset = floor_div(sample, components);
    component_.push_back(sample - offset * components);
    offset_.push_back(offset);
    weights_.push_back(weight);
    ++sums_.back().taps;
  }
  void finish() {
    int64_t at = 0;
    for (SignalSum& sum : sums_) {
      sum.component = component_.data() + at;
      sum.offset = offset_.data() + at;
      sum.weights = weights_.data() + at;
      at += sum.taps;
    }
  }

  std::vector<SignalSum> sums_;
  std::vector<int64_t> component_, offset_;
  std::vector<A> weights_;
};

// ---------------------------------------------------------------- a tile

// No samples, at the place where a range begins: so they lie in the row of that range.
Range none_of(Range a) { return {a.begin, a.begin}; }

// The part of a range that an array has; it may be none.
Range inside(Range a, int64_t size) {
  const Range part = {std::max<int64_t>(a.begin, 0), std::min(a.end, size)};
  return part.size() > 0 ? part : none_of(a);
}

// The elements of components that hold samples, and all samples that these elements hold. An
// empty range has no elements.
Range elements_of(Range a, int64_t components) {
  const int64_t begin = floor_div(a.begin, components);
  return {begin, a.size() > 0 ? ceil_div(a.end, components) : begin};
}
Range whole_elements(Range a, int64_t components) {
  const Range elements = elements_of(a, components);
  return {elements.begin * components, elements.end * components};
}

// Rows and ranges of a tile along the axis.
class Layout {
 public:
  Layout(const Axis& axis, int64_t period) : axis_(axis), period_(period) {}

  // The samples `part` of the output.
  void forward(Range part, SignalTile& tile) const {
    const int64_t components = period_ / axis_.down;
    if (axis_.replicate) part = nearer(part);
    const Range read = axis_.mid_for_out(whole_elements(part, components));
    const Range have = axis_.replicate ? existing(read, axis_.mid) : inside(read, axis_.mid);
    set_row(tile.mid, axis_.replicate ? hull(read, have) : read, period_);
    set_source(have, tile);
    set_row(tile.out, part, components);
    tile.write = part;
    tile.out_elements = elements_of(part, components);
  }

  // The samples `part` of the input.
  void gradient(Range part, SignalTile& tile) const {
    const int64_t components = period_ / axis_.up;
    const GradBand band = make_grad_band(axis_, part, nullptr);
    const Range read = axis_.mid_of_in(whole_elements(band.whole, components));
    tile.owned = owned_by(axis_, part);
    // Where nothing of m reads these samples (a crop), their gradients are sums of zeros.
    const bool used = tile.owned.size() > 0 || inside(read, axis_.mid).size() > 0;
    const Range mid = used ? band.mid : none_of(read);
    tile.span = used ? band.span : none_of(read);
    set_row(tile.mid, mid, period_);
    set_source(mid, tile);
    set_row(tile.g, hull(read, tile.span), period_);
    tile.span_elements = elements_of(tile.span, period_);
    Range grads = {0, 0};
    if (used) grads = axis_.out_of_mid(whole_elements(tile.span, period_));
    set_row(tile.grads, grads, period_ / axis_.down);
    tile.grad_have = inside(grads, axis_.out);
    set_row(tile.out, band.whole, components);
    tile.whole = band.whole;
    tile.write = part;
    tile.out_elements = elements_of(band.whole, components);
  }

 private:
  // Outputs that read nothing of a continued m but its end are all the same. So a part far behind
  // the end is computed as one that is nearer by whole elements, and no row reaches far.
  Range nearer(Range part) const {
    const int64_t components = period_ / axis_.down;
    const Range read = axis_.mid_for_out(whole_elements(part, components));
    const int64_t behind = std::max<int64_t>(0, read.begin - (axis_.mid - 1));
    const int64_t before = std::max<int64_t>(0, 1 - read.end);
    const int64_t moved = (floor_div(behind, period_) - floor_div(before, period_)) * components;
    return {part.begin - moved, part.end - moved};
  }

  static void set_row(SignalRow& row, Range samples, int64_t components) {
    const Range elements = elements_of(samples, components);
    row.components = components;
    row.begin = elements.begin;
    row.end = elements.end;
  }

  // What is read of the input for what there is of m.
  void set_source(Range mid, SignalTile& tile) const {
    tile.mid_have = mid;
    tile.mid_elements = elements_of(mid, period_);
    Range read = {0, 0}, have = {0, 0};
    if (mid.size() > 0) {
      read = axis_.in_for_mid(whole_elements(mid, period_));
      have = inside(read, axis_.in);
      // Of a continued input, the sample at the end stands in the row where it is read.
      if (axis_.replicate && have.size() == 0) have.end = have.begin + 1;
    }
    set_row(tile.in, read, period_ / axis_.up);
    tile.in_have = have;
  }

  Axis axis_;
  int64_t period_;
};

// ---------------------------------------------------------------- a call

template <class A>
struct SignalCall {
  const FilteredActParams* params;
  const FilteredActGradParams* grad;  // null: forward
  Plane4d grads;                      // of the gradient of the output; forward: of the output
  Layout layout;
  Sums<A> up, down, down_adjoint, up_adjoint;
  int64_t most_taps;
  SignalTile model;                   // what all tiles have in common: rows lie as in all
  int64_t row_elements;               // of a thread's scratch
  const Kernels* kernels;
  ChannelSums sums;
  // The cut: tiles of samples, channels of a unit, images of a unit.
  Parts x, channels;
  int64_t images, batches;
  // Whether rows are not samples side by side: then `together` rows at a time are copied to
  // scratch, each as long as `stage_elements`.
  bool staged;
  int64_t together, stage_elements;

  SignalCall(const FilteredActParams& params_, const FilteredActGradParams* grad_,
             const Layout& layout_) :
      params(&params_), grad(grad_), grads(grad_ == nullptr ? params_.out : grad_->grad_plane),
      layout(layout_) {}
  int64_t units() const { return batches * channels.count * x.count; }
};

// Samples of a row lie side by side.
bool is_dense(const Plane4d& a) { return a.stride_w == 1 || a.w == 1; }

// Calls use(row, elements before the row that bring what is stored most to a cache line) for the
// rows of a tile in the order in which they lie in scratch.
template <class Use>
void for_rows(SignalTile& t, bool gradient, const Use& use) {
  const auto lead = [](const SignalRow& row, int64_t stored) { return (row.begin - stored) & 15; };
  const auto element = [](const SignalRow& row, int64_t sample) {
    return floor_div(sample, row.components);
  };
  use(t.in, lead(t.in, element(t.in, t.in_have.begin)));
  use(t.mid, lead(t.mid, t.mid_elements.begin));
  use(t.out, lead(t.out, element(t.out, t.write.begin)));
  if (!gradient) return;
  use(t.grads, lead(t.grads, element(t.grads, t.grad_have.begin)));
  use(t.g, lead(t.g, t.mid_elements.begin));
}

template <class A>
void make_tile(const SignalCall<A>& call, int64_t index, SignalTile& tile) {
  if (call.grad == nullptr) call.layout.forward(call.x.part(index), tile);
  else call.layout.gradient(call.x.part(index), tile);
}

// Lays out the rows of scratch such that those of every tile fit.
template <class A>
void lay_out(SignalCall<A>& call) {
  const bool gradient = call.grad != nullptr;
  int64_t lengths[5] = {}, line = 0;
  SignalTile tile{};
  for (int64_t i = 0; i < call.x.count; ++i) {
    make_tile(call, i, tile);
    int64_t* length = lengths;
    for_rows(tile, gradient, [&](const SignalRow& row, int64_t) {
      *length = std::max(*length, row.end - row.begin);
      ++length;
    });
    for (const Range& range : {tile.in_have, tile.grad_have, tile.write}) {
      line = std::max(line, range.size());
    }
  }
  call.model = tile;
  int64_t at = 0;
  const int64_t* length = lengths;
  for_rows(call.model, gradient, [&](SignalRow& row, int64_t) {
    row.pitch = round_up(*length++ + 15, 16);
    // Components at the same places of pages would hinder each other in the cache.
    if (row.pitch * int64_t(sizeof(A)) % 4096 == 0) row.pitch += 16;
    row.at = at;
    at += row.components * row.pitch;
  });
  call.model.line_at = at;
  at += round_up(line, 16) + kSlack;
  call.row_elements = at;
  call.stage_elements = call.staged ? call.together * round_up(line, 16) : 0;
}

Axis axis_of(const FilteredActParams& p, int64_t out) {
  return {p.in.w, p.mid_w, out, p.up_x, p.down_x, p.up_filter.kw, p.down_filter.kw,
          p.up_pad_x0, p.down_pad_x0, p.replicate};
}

template <class A>
SignalCall<A> describe(const FilteredActParams& p, const FilteredActGradParams* grad) {
  const int64_t period = period_of(p);
  const Axis axis = axis_of(p, grad == nullptr ? p.out.w : grad->grad_plane.w);
  SignalCall<A> call(p, grad, Layout(axis, period));
  const Filter u = as_taps<A>(p.up_filter), d = as_taps<A>(p.down_filter);
  const A *up = static_cast<const A*>(u.taps_x), *down = static_cast<const A*>(d.taps_x);
  call.up.expand({up, u.kw, false}, p.up_x, p.up_pad_x0, period);
  call.down.gather({down, d.kw, false}, p.down_x, p.down_pad_x0, period);
  call.down_adjoint.expand({down, d.kw, true}, p.down_x, d.kw - 1 - p.down_pad_x0, period);
  call.up_adjoint.gather({up, u.kw, true}, p.up_x, u.kw - 1 - p.up_pad_x0, period);
  call.most_taps = std::max(u.kw, d.kw);
  call.kernels = &kernels_in_use();

  // Tiles: each begins in component 0 of what it writes.
  const bool forward = grad == nullptr;
  const int64_t size = forward ? axis.out : axis.in, rate = forward ? axis.down : axis.up;
  const int64_t halo = (forward ? axis.down_taps : axis.up_taps) - 1;
  call.staged = !is_dense(p.in) || !is_dense(p.out) || !is_dense(call.grads);
  call.together = std::max({side_by_side(p.in, p.dtype), side_by_side(p.out, p.dtype),
                            side_by_side(call.grads, p.dtype)});
  int64_t elements = kRowBytes / int64_t(sizeof(A));
  if (call.staged) elements = elements * 16 / std::max<int64_t>(16, call.together);
  const int64_t least = std::max<int64_t>(1, ceil_div(4 * halo, rate));
  call.x = cut(size, std::max(least, (elements - halo) / rate), 16 * (period / rate));
  const int64_t tile = call.x.length * rate + halo;
  const int64_t c = p.in.c, n = p.in.n, total = n * call.x.count * c;
  const int64_t wanted = std::max(ceil_div(total, kLeastUnits), kLeastElements / tile);
  call.channels = cut(c, std::min(c, round_up(std::max<int64_t>(1, wanted), call.together)), 1);
  // Sums of a unit take memory: it takes all images but where units are few.
  call.batches = n;
  if (grad != nullptr && wants_sums(*grad)) {
    call.batches = clamped(ceil_div(kLeastUnits, call.channels.count * call.x.count), 1, n);
  }
  call.images = ceil_div(n, call.batches);
  call.batches = ceil_div(n, call.images);
  if (grad != nullptr) call.sums.prepare(*grad, call.units(), call.channels.length);
  lay_out(call);
  return call;
}

// Which part of a call a unit is.
struct SignalUnit {
  int64_t tile, channels, batch;

  template <class A>
  SignalUnit(const SignalCall<A>& call, int64_t index) :
      tile(index % call.x.count), channels(index / call.x.count % call.channels.count),
      batch(index / call.x.count / call.channels.count) {}
};

// ---------------------------------------------------------------- a thread

template <class A>
class SignalWorker {
 public:
  explicit SignalWorker(SignalCall<A>& call) :
      call_(call), pointers_(new const void*[call.most_taps + 1]) {
    const int64_t bytes = (call.row_elements + 3 * call.stage_elements) * int64_t(sizeof(A));
    // Scratch begins as zeros: what lies between rows is read by vectors, and never used.
    memory_.reset(new char[bytes + 64]());
    scratch_ = reinterpret_cast<A*>(memory_.get() +
                                    (64 - reinterpret_cast<uintptr_t>(memory_.get()) % 64));
  }

  void run(int64_t index) {
    const FilteredActParams& p = *call_.params;
    const SignalUnit unit(call_, index);
    SignalTile tile = call_.model;
    make_tile(call_, unit.tile, tile);
    for_rows(tile, call_.grad != nullptr,
             [](SignalRow& row, int64_t lead) { row.at += lead; });
    tile.nonlinearity = p.activation;
    tile.slope = p.slope;
    tile.gain = p.gain;
    tile.limit = limit_of(p);
    tile.replicate = p.replicate;
    tile.up = call_.up.data();
    tile.down = call_.down.data();
    tile.down_adjoint = call_.down_adjoint.data();
    tile.up_adjoint = call_.up_adjoint.data();
    const Range channels = call_.channels.part(unit.channels);
    const int64_t step = call_.staged ? call_.together : channels.size();
    const int64_t last = std::min(p.in.n, (unit.batch + 1) * call_.images);
    for (int64_t n = unit.batch * call_.images; n < last; ++n) {
      for (int64_t c = channels.begin; c < channels.end; c += step) {
        tile.rows = std::min(step, channels.end - c);
        tile.bias = parameter(p.bias, c);
        tile.alpha = parameter(p.alpha, c);
        tile.beta = parameter(p.beta, c);
        for (int k = 0; k < 3; ++k) {
          double* sums = call_.sums.of(k, index);
          tile.sums[k] = sums == nullptr ? nullptr : sums + (c - channels.begin);
        }
        rows(tile, n, c, call_.x.part(unit.tile).begin);
      }
    }
  }

 private:
  static const void* parameter(const void* values, int64_t channel) {
    return values == nullptr ? nullptr : static_cast<const A*>(values) + channel;
  }

  // The sample x of a row of an array, or the sample at the end that is next to it.
  const char* at(const void* data, const Plane4d& array, int64_t n, int64_t c, int64_t x) const {
    const int64_t element = n * array.stride_n + c * array.stride_c +
                            clamped(x, 0, array.w - 1) * array.stride_w;
    return static_cast<const char*>(data) + element * element_size(call_.params->dtype);
  }

  // Between an array and the rows of scratch that stand for it.
  BlockCopy copy(const char* stored, const Plane4d& array, int stage, int64_t rows,
                 const Range& samples) const {
    BlockCopy b{};
    b.stored = const_cast<char*>(stored);
    b.stored_plane = array.stride_c;
    b.stored_column = array.stride_w;
    b.block = scratch_ + call_.row_elements + stage * call_.stage_elements;
    b.block_plane = call_.stage_elements / call_.together;
    b.planes = rows;
    b.rows = 1;
    b.columns = samples.size();
    return b;
  }

  // Computes rows from the channel c on; `first` is the first sample that is written.
  void rows(SignalTile& tile, int64_t n, int64_t c, int64_t first) {
    const FilteredActParams& p = *call_.params;
    const BlockKernels& kernels = call_.kernels->blocks;
    const int dtype = int(p.dtype);
    const char* input = at(p.input, p.in, n, c, tile.in_have.begin);
    const char* output = at(p.output, p.out, n, c, first);
    const char* grad = call_.grad == nullptr
                           ? nullptr
                           : at(call_.grad->grad, call_.grads, n, c, tile.grad_have.begin);
    if (!call_.staged) {
      tile.input = input;
      tile.grad = grad;
      tile.output = const_cast<char*>(output);
      tile.input_row = p.in.stride_c;
      tile.grad_row = call_.grads.stride_c;
      tile.output_row = p.out.stride_c;
      kernels.signal[dtype](tile, scratch_, pointers_.get());
      return;
    }
    const BlockCopy from = copy(input, p.in, 0, tile.rows, tile.in_have);
    const BlockCopy to = copy(output, p.out, 1, tile.rows, tile.write);
    kernels.load[dtype](from);
    tile.input = from.block;
    tile.output = to.block;
    tile.input_row = tile.output_row = tile.grad_row = from.block_plane;
    tile.grad = nullptr;
    if (grad != nullptr) {
      const BlockCopy grads = copy(grad, call_.grads, 2, tile.rows, tile.grad_have);
      kernels.load[dtype](grads);
      tile.grad = grads.block;
    }
    kernels.signal[int(sizeof(A) == 8 ? Dtype::float64 : Dtype::float32)](tile, scratch_,
                                                                          pointers_.get());
    kernels.store[dtype](to);
  }

  SignalCall<A>& call_;
  std::unique_ptr<char[]> memory_;
  std::unique_ptr<const void*[]> pointers_;
  A* scratch_;
};

template <class A>
void run_units(int64_t begin, int64_t end, void* context) {
  SignalWorker<A> worker(*static_cast<SignalCall<A>*>(context));
  for (int64_t unit = begin; unit < end; ++unit) worker.run(unit);
}

template <class A>
void run(const FilteredActParams& params, const FilteredActGradParams* grad,
         ParallelFor parallel_for, int num_threads) {
  SignalCall<A> call = describe<A>(params, grad);
  run_in_threads(call.units(), params, parallel_for, num_threads, run_units<A>, &call);
  if (grad != nullptr) {
    call.sums.template finish<A>(*grad, call.units(), [&](int64_t unit) {
      return call.channels.part(SignalUnit(call, unit).channels).begin;
    });
  }
}

template <class A>
bool are_finite(const Filter& f) {
  const Filter taps = as_taps<A>(f);
  const A *x = static_cast<const A*>(taps.taps_x), *y = static_cast<const A*>(taps.taps_y);
  // One tap of 1 in y changes nothing.
  return std::all_of(x, x + f.kw, [](A tap) { return std::isfinite(tap); }) && *y == 1;
}

}  // namespace

bool is_signal(const FilteredActParams& p, const Plane4d& out) {
  if (p.in.h != 1 || p.mid_h != 1 || out.h != 1 || p.up_y != 1 || p.down_y != 1 ||
      p.up_filter.kh != 1 || p.down_filter.kh != 1 || p.up_pad_y0 != 0 || p.down_pad_y0 != 0) {
    return false;
  }
  if (p.up_x > kMostPeriod || p.down_x > kMostPeriod || period_of(p) > kMostPeriod) return false;
  // Taps that are not finite must not be multiplied with the zeros of a padding.
  return p.dtype == Dtype::float64
             ? are_finite<double>(p.up_filter) && are_finite<double>(p.down_filter)
             : are_finite<float>(p.up_filter) && are_finite<float>(p.down_filter);
}

void filtered_act_signals(const FilteredActParams& params, ParallelFor parallel_for,
                          int num_threads) {
  (params.dtype == Dtype::float64 ? run<double> : run<float>)(params, nullptr, parallel_for,
                                                              num_threads);
}

void filtered_act_grad_signals(const FilteredActGradParams& params, ParallelFor parallel_for,
                               int num_threads) {
  (params.dtype == Dtype::float64 ? run<double> : run<float>)(params, &params, parallel_for,
                                                              num_threads);
}

}  // namespace cpu
}  // namespace resample_layers
