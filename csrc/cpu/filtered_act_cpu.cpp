// SPDX-License-Identifier: BSD-3-Clause
//
// filtered_act: the walks of upfirdn2d from block to block of a thread's scratch.
//
// An output array is cut into tiles of columns; a unit of work goes down such a strip, for a
// few planes at once, in bands of rows. For each band it computes the part of the upsampled
// signal m that the band needs, makes a of it in place, and filters that down; rows of a that
// the next band needs too are kept. The gradient goes down strips of the input in the same
// way: for each band it computes m, g_a and, in place of g_a, g_m, and keeps rows of g_m.
//
// Signals, which are images of one row, have a way of their own: filtered_act_signals.cpp.
#include "filtered_act_cpu.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <vector>

#include "choose.h"
#include "filtered_act_parts.h"
#include "filtered_act_signals.h"

namespace resample_layers {
namespace cpu {
namespace {

// One band or tile of the forward pass.
struct Band {
  Range out;
  Range span;   // of a, that the output needs; with continued ends
  Range fresh;  // the last part of it, which the band before did not have
  Range mid;    // what exists of that
  Source in;    // for mid
};

Band make_band(const Axis& axis, Range out, const Range* span_before) {
  Band band;
  band.out = out;
  const Range need = axis.mid_for_out(out), have = existing(need, axis.mid);
  band.span = axis.replicate ? hull(need, have) : have;
  band.fresh = band.span;
  if (span_before != nullptr) {
    band.fresh.begin = clamped(span_before->end, band.span.begin, band.span.end);
  }
  if (band.fresh.size() > 0) {
    band.mid = existing(band.fresh, axis.mid);
    if (axis.replicate) band.fresh = hull(band.fresh, band.mid);
    else band.fresh = band.mid;
    band.in = source_for_mid(axis, band.mid);
  } else {
    band.mid = band.fresh;
    band.in = {{0, 0}, {0, 0}};
  }
  return band;
}

// ---------------------------------------------------------------- the cut

// Bytes of a block of m, of all the planes of a unit. More: a thread's blocks leave the L2
// cache. Less: what neighbours both compute costs more.
constexpr int64_t kBlockBytes = 192 * 1024;
// Bytes of all the blocks of a thread. Where they take more, blocks of m get a quarter smaller
// and half as many channels, so that the halo stays a small part; kMostCuts cuts are tried.
constexpr int64_t kThreadBytes = 440 * 1024;
constexpr int kMostCuts = 6;
// Rows of m that a band is to add at least to those that it keeps.
constexpr int64_t kFreshRows = 24;

// An axis as the cut sees it: `rate` elements of m for each element that is cut, and `halo`
// more; plans repeat where parts are multiples of `period`.
struct CutAxis {
  int64_t size, rate, halo, period;

  int64_t mid(int64_t length) const { return length * rate + halo; }
  int64_t length(int64_t mid) const { return std::max<int64_t>(1, (mid - halo) / rate); }
};

struct Cut {
  int64_t planes, groups;   // planes of a unit, units of them
  Parts x;                  // tiles
  Parts y;                  // bands
  int64_t bands, strips;    // bands of a unit, units of them
  int64_t images, batches;  // images of a unit, units of them

  int64_t units() const { return batches * groups * strips * x.count; }
};

// A block of m has about `elements`. A unit takes `side_by_side` channels, which share cache
// lines, or more; fewer only where the least part of each does not fit into a block. Where
// `join_images`, it takes all images but where units are few: sums of a unit take memory.
Cut make_cut(const CutAxis& y, const CutAxis& x, int64_t n, int64_t channels, int64_t elements,
             int64_t side_by_side, bool join_images) {
  Cut c{};
  c.planes = std::min(channels, side_by_side);
  const int64_t least_rows = y.halo + std::max(y.halo, kFreshRows);
  const int64_t height = y.mid(y.size), width = x.mid(x.size);
  const int64_t rows = std::min(height, least_rows);
  const int64_t least_columns = ceil_div(4 * x.halo, x.rate);
  const int64_t least = rows * std::min(width, x.mid(least_columns));
  while (c.planes > 1 && c.planes * least > elements) c.planes = ceil_div(c.planes, 2);
  const int64_t fitting = elements / c.planes;
  const auto period = [](const CutAxis& axis, int64_t wanted) {
    return axis.period <= 64 ? round_up(wanted, axis.period) : 1;
  };
  // Columns: whole rows where they fit, else such that the halo is a small part.
  const int64_t columns = std::max(x.length(fitting / rows), least_columns);
  c.x = columns >= x.size ? Parts{x.size, x.size, 1} : cut(x.size, columns, period(x, 16));
  const int64_t tile = x.mid(c.x.length);
  const int64_t most = std::max(y.length(fitting / tile), ceil_div(y.halo, y.rate));
  c.y = most >= y.size ? Parts{y.size, y.size, 1} : cut(y.size, most, period(y, 1));
  if (c.x.count == 1 && c.y.count == 1) {
    const int64_t size = height * width;
    c.planes = clamped(std::max(ceil_div(n * channels, kLeastUnits), kLeastElements / size),
                       c.planes, std::max(c.planes, std::min(channels, elements / size)));
  }
  c.groups = ceil_div(channels, c.planes);
  const int64_t without = n * c.groups * c.x.count;
  c.strips = clamped(ceil_div(kLeastUnits, std::max<int64_t>(1, without)), 1, c.y.count);
  c.bands = ceil_div(c.y.count, c.strips);
  c.strips = ceil_div(c.y.count, c.bands);
  c.batches = n;
  if (join_images) {
    c.batches = clamped(ceil_div(kLeastUnits, c.groups * c.strips * c.x.count), 1, n);
  }
  c.images = ceil_div(n, c.batches);
  c.batches = ceil_div(n, c.images);
  return c;
}

// ---------------------------------------------------------------- a call

// One of the filters, forward or as its adjoint.
struct Stage {
  Filter filter;
  int64_t up_x, up_y, down_x, down_y, pad_x, pad_y;
  bool flip;
};

enum StageIndex { kUp, kDown, kDownAdjoint, kUpAdjoint };

// Sizes of a thread's blocks, the largest of all bands.
struct BlockSizes {
  int64_t in_rows, in_columns, mid_rows, mid_columns, grad_rows, grad_columns, out_rows,
      out_columns, fold_rows, fold_columns;
};

// Elements of one plane of a block, whose rows begin on cache lines.
int64_t plane_elements(int64_t rows, int64_t columns) { return rows * round_up(columns, 16); }

struct Call : BlockSizes {
  const FilteredActParams* params;
  const FilteredActGradParams* grad;  // null: forward
  Plane4d in, out, grads;             // grads: of the gradient of the output
  Axis y, x;
  Stage stages[4];
  Cut cut;
  const Kernels* kernels;
  double limit;
  ChannelSums* sums;                  // gradient: of the channels of each unit

  // Elements of all the blocks of a thread.
  int64_t block_elements() const {
    return cut.planes * (plane_elements(in_rows, in_columns) +
                         plane_elements(mid_rows, mid_columns) +
                         plane_elements(grad_rows, grad_columns) +
                         plane_elements(out_rows, out_columns) +
                         plane_elements(fold_rows, fold_columns));
  }
};

template <class A>
void describe(const FilteredActParams& p, const Plane4d& forward_out, Call& call) {
  const Filter u = as_taps<A>(p.up_filter), d = as_taps<A>(p.down_filter);
  call.params = &p;
  call.in = p.in;
  call.out = p.out;
  call.y = {p.in.h,  p.mid_h, forward_out.h, p.up_y,       p.down_y,
            u.kh,    d.kh,    p.up_pad_y0,   p.down_pad_y0, p.replicate};
  call.x = {p.in.w,  p.mid_w, forward_out.w, p.up_x,       p.down_x,
            u.kw,    d.kw,    p.up_pad_x0,   p.down_pad_x0, p.replicate};
  call.stages[kUp] = {u, p.up_x, p.up_y, 1, 1, p.up_pad_x0, p.up_pad_y0, false};
  call.stages[kDown] = {d, 1, 1, p.down_x, p.down_y, p.down_pad_x0, p.down_pad_y0, false};
  call.stages[kDownAdjoint] = {d,  p.down_x, p.down_y,
                               1,  1,        d.kw - 1 - p.down_pad_x0,
                               d.kh - 1 - p.down_pad_y0, true};
  call.stages[kUpAdjoint] = {u,  1, 1, p.up_x, p.up_y, u.kw - 1 - p.up_pad_x0,
                             u.kh - 1 - p.up_pad_y0, true};
  call.kernels = &kernels_in_use();
  call.limit = limit_of(p);
}

// ---------------------------------------------------------------- a thread

// A rectangle of planes; columns lie side by side.
template <class A>
struct View {
  A* data;
  int64_t plane, row;  // strides
  Range y, x;

  A* at(int64_t plane_index, int64_t y_index, int64_t x_index) const {
    return data + plane_index * plane + (y_index - y.begin) * row + (x_index - x.begin);
  }
  View part(Range part_y, Range part_x) const {
    return {at(0, part_y.begin, part_x.begin), plane, row, part_y, part_x};
  }
};

template <class A>
class Worker {
 public:
  explicit Worker(const Call& call) : call_(call) {
    const auto lay_out = [&](int64_t rows, int64_t columns, int64_t& at, int64_t& plane) {
      at = elements_;
      plane = plane_elements(rows, columns);
      elements_ += call.cut.planes * plane;
    };
    lay_out(call.in_rows, call.in_columns, in_at_, in_plane_);
    lay_out(call.mid_rows, call.mid_columns, mid_at_, mid_plane_);
    lay_out(call.grad_rows, call.grad_columns, grad_at_, grad_plane_);
    lay_out(call.out_rows, call.out_columns, out_at_, out_plane_);
    lay_out(call.fold_rows, call.fold_columns, fold_at_, fold_plane_);
    memory_.reset(new char[elements_ * sizeof(A) + 64]);
    blocks_ = aligned(memory_.get());
  }

  void forward(int64_t unit);
  void gradient(int64_t unit);

 private:
  // What a plan follows from, beside the call: stage, planes, sizes, strides and pads.
  typedef std::array<int64_t, 12> Key;
  struct Planned {
    Key key;
    UpFirDn2dParams params;
    PlannedCall<A> planned;
  };

  static A* aligned(char* memory) {
    return reinterpret_cast<A*>(memory + (64 - reinterpret_cast<uintptr_t>(memory) % 64));
  }

  View<A> block(int64_t at, int64_t plane, int64_t columns, Range y, Range x) const {
    return {blocks_ + at, plane, round_up(columns, 16), y, x};
  }

  // Computes `to` of `from`, both with what they hold of the arrays of a stage.
  void resample(StageIndex index, const View<A>& from, const View<A>& to, int64_t planes);

  // The part of an array for a band: where it lies, or a copy with bias and continued ends.
  View<A> fetch(const void* data, const Plane4d& array, const void* bias, int64_t n,
                int64_t plane0, int64_t planes, const Source& y, const Source& x,
                const View<A>& block) const;
  void store(const View<A>& from, void* data, const Plane4d& array, int64_t n, int64_t plane0,
             int64_t planes, double* sums) const;
  // Where the results of a band go: to the array, or to the block.
  View<A> destination(void* data, const Plane4d& array, int64_t n, int64_t plane0, Range y,
                      Range x, bool direct, const View<A>& block) const;
  bool stores_direct(const Plane4d& array) const {
    return element_size(call_.params->dtype) == sizeof(A) && array.stride_w == 1;
  }
  BlockActivation activation(const View<A>& m, int64_t planes, int64_t channel) const;
  BlockCopy copy(const View<A>& block, const Plane4d& array, int64_t planes) const;
  const void* parameter(const void* values, int64_t channel) const {
    return values == nullptr ? nullptr : static_cast<const A*>(values) + channel;
  }

  static void extend(const View<A>& whole, Range have_y, Range have_x, int64_t planes);
  static void fold(const View<A>& whole, Range keep_y, Range keep_x, int64_t planes);
  static void keep_rows(const View<A>& before, const View<A>& now, Range rows, int64_t planes);

  static constexpr int kAccumulate = sizeof(A) == 8 ? 1 : 0;

  const Call& call_;
  int64_t elements_ = 0;
  int64_t in_at_, in_plane_, mid_at_, mid_plane_, grad_at_, grad_plane_, out_at_, out_plane_,
      fold_at_, fold_plane_;
  std::unique_ptr<char[]> memory_;
  A* blocks_;
  std::vector<std::unique_ptr<Planned>> plans_;
  std::unique_ptr<char[]> scratch_;
  int64_t scratch_elements_ = -1;
  std::vector<const void*> pointers_;
};

// Plans of a thread that are kept; the bands of a call need a few.
constexpr size_t kMostPlans = 32;

template <class A>
void Worker<A>::resample(StageIndex index, const View<A>& from, const View<A>& to,
                         int64_t planes) {
  const Stage& stage = call_.stages[index];
  const Key key = {
      index,
      planes,
      from.y.size(),
      from.x.size(),
      from.plane,
      from.row,
      to.y.size(),
      to.x.size(),
      to.plane,
      to.row,
      stage.pad_y + from.y.begin * stage.up_y - to.y.begin * stage.down_y,
      stage.pad_x + from.x.begin * stage.up_x - to.x.begin * stage.down_x};
  Planned* found = nullptr;
  for (auto it = plans_.rbegin(); it != plans_.rend() && found == nullptr; ++it) {
    if ((*it)->key == key) found = it->get();
  }
  if (found == nullptr) {
    if (plans_.size() >= kMostPlans) plans_.clear();
    plans_.emplace_back(new Planned);
    found = plans_.back().get();
    found->key = key;
    UpFirDn2dParams& p = found->params;
    p = UpFirDn2dParams{};
    p.kh = stage.filter.kh, p.kw = stage.filter.kw;
    p.up_x = stage.up_x, p.up_y = stage.up_y;
    p.down_x = stage.down_x, p.down_y = stage.down_y;
    p.pad_y0 = key[10], p.pad_x0 = key[11];
    p.in = {1, planes, from.y.size(), from.x.size(), 0, from.plane, from.row, 1};
    p.out = {1, planes, to.y.size(), to.x.size(), 0, to.plane, to.row, 1};
    p.kernel = stage.filter.kernel;
    p.taps_x = stage.filter.taps_x;
    p.taps_y = stage.filter.taps_y;
    p.flip = stage.flip;
    p.dtype = sizeof(A) == 8 ? Dtype::float64 : Dtype::float32;
    plan_upfirdn2d(p, nullptr, call_.kernels->vector_bytes, 1, found->planned);
    const Plan& plan = found->planned.plan;
    if (plan.scratch_elements > scratch_elements_) {
      scratch_elements_ = plan.scratch_elements;
      scratch_.reset(new char[scratch_elements_ * sizeof(A) + 64]);
    }
    if (plan.pointer_count > int64_t(pointers_.size())) pointers_.resize(plan.pointer_count);
  }
  Plan& plan = found->planned.plan;
  plan.input = found->params.input = from.data;
  plan.output = found->params.output = to.data;
  const int64_t units = plan.channel_tiles * plan.x_tiles * plan.y_units;
  call_.kernels->upfirdn2d[sizeof(A) == 8 ? int(Dtype::float64) : int(Dtype::float32)](
      plan, 0, units, aligned(scratch_.get()), pointers_.data());
}

// Continues the ends of what a view has to all of the view.
template <class A>
void Worker<A>::extend(const View<A>& whole, Range have_y, Range have_x, int64_t planes) {
  for (int64_t p = 0; p < planes; ++p) {
    for (int64_t y = have_y.begin; y < have_y.end && !(have_x == whole.x); ++y) {
      A* row = whole.at(p, y, whole.x.begin);
      const int64_t first = have_x.begin - whole.x.begin, last = have_x.end - whole.x.begin;
      std::fill(row, row + first, row[first]);
      std::fill(row + last, row + whole.x.size(), row[last - 1]);
    }
    for (int64_t y = whole.y.begin; y < whole.y.end; ++y) {
      if (y >= have_y.begin && y < have_y.end) continue;
      const A* from = whole.at(p, clamped(y, have_y.begin, have_y.end - 1), whole.x.begin);
      std::copy(from, from + whole.x.size(), whole.at(p, y, whole.x.begin));
    }
  }
}

// The adjoint of extend: adds what lies beyond the ends to them.
template <class A>
void Worker<A>::fold(const View<A>& whole, Range keep_y, Range keep_x, int64_t planes) {
  for (int64_t p = 0; p < planes; ++p) {
    for (int64_t y = whole.y.begin; y < whole.y.end; ++y) {
      if (y >= keep_y.begin && y < keep_y.end) continue;
      const A* from = whole.at(p, y, whole.x.begin);
      A* to = whole.at(p, clamped(y, keep_y.begin, keep_y.end - 1), whole.x.begin);
      for (int64_t i = 0; i < whole.x.size(); ++i) to[i] += from[i];
    }
    for (int64_t y = keep_y.begin; y < keep_y.end && !(keep_x == whole.x); ++y) {
      A* row = whole.at(p, y, whole.x.begin);
      const int64_t first = keep_x.begin - whole.x.begin, last = keep_x.end - whole.x.begin;
      for (int64_t i = 0; i < first; ++i) row[first] += row[i];
      for (int64_t i = last; i < whole.x.size(); ++i) row[last - 1] += row[i];
    }
  }
}

// Moves rows of a block to where the next band has them.
template <class A>
void Worker<A>::keep_rows(const View<A>& before, const View<A>& now, Range rows,
                          int64_t planes) {
  if (rows.size() <= 0 || before.y.begin == now.y.begin) return;
  for (int64_t p = 0; p < planes; ++p) {
    std::memmove(now.at(p, rows.begin, now.x.begin), before.at(p, rows.begin, before.x.begin),
                 size_t(rows.size() * now.row) * sizeof(A));
  }
}

template <class A>
BlockCopy Worker<A>::copy(const View<A>& block, const Plane4d& array, int64_t planes) const {
  BlockCopy c{};
  c.stored_plane = array.stride_c;
  c.stored_row = array.stride_h;
  c.stored_column = array.stride_w;
  c.block = block.data;
  c.block_plane = block.plane;
  c.block_row = block.row;
  c.planes = planes;
  c.rows = block.y.size();
  c.columns = block.x.size();
  return c;
}

int64_t offset_of(const Plane4d& a, int64_t n, int64_t plane, int64_t y, int64_t x) {
  return n * a.stride_n + plane * a.stride_c + y * a.stride_h + x * a.stride_w;
}

template <class A>
View<A> Worker<A>::fetch(const void* data, const Plane4d& array, const void* bias, int64_t n,
                         int64_t plane0, int64_t planes, const Source& y, const Source& x,
                         const View<A>& block) const {
  const int64_t offset = offset_of(array, n, plane0, y.have.begin, x.have.begin);
  const int64_t size = element_size(call_.params->dtype);
  if (size == sizeof(A) && array.stride_w == 1 && bias == nullptr && y.have == y.span &&
      x.have == x.span) {
    A* there = const_cast<A*>(static_cast<const A*>(data)) + offset;
    return {there, array.stride_c, array.stride_h, y.have, x.have};
  }
  BlockCopy c = copy(block.part(y.have, x.have), array, planes);
  c.stored = static_cast<char*>(const_cast<void*>(data)) + offset * size;
  c.bias = parameter(bias, plane0);
  call_.kernels->blocks.load[int(call_.params->dtype)](c);
  extend(block, y.have, x.have, planes);
  return block;
}

template <class A>
View<A> Worker<A>::destination(void* data, const Plane4d& array, int64_t n, int64_t plane0,
                               Range y, Range x, bool direct, const View<A>& block) const {
  if (!direct) return block;
  return {static_cast<A*>(data) + offset_of(array, n, plane0, y.begin, x.begin), array.stride_c,
          array.stride_h, y, x};
}

template <class A>
BlockActivation Worker<A>::activation(const View<A>& m, int64_t planes, int64_t plane0) const {
  const FilteredActParams& p = *call_.params;
  BlockActivation b{};
  b.m = m.data;
  b.m_plane = m.plane;
  b.m_row = m.row;
  b.planes = planes;
  b.rows = m.y.size();
  b.columns = m.x.size();
  b.alpha = parameter(p.alpha, plane0);
  b.beta = parameter(p.beta, plane0);
  b.nonlinearity = p.activation;
  b.slope = p.slope;
  b.gain = p.gain;
  b.limit = call_.limit;
  return b;
}

// Which part of a call a unit is.
struct Unit {
  int64_t tile, strip, group, batch;

  Unit(const Cut& cut, int64_t index) :
      tile(index % cut.x.count), strip(index / cut.x.count % cut.strips),
      group(index / cut.x.count / cut.strips % cut.groups),
      batch(index / cut.x.count / cut.strips / cut.groups) {}
};

template <class A>
void Worker<A>::forward(int64_t index) {
  const Cut& cut = call_.cut;
  const FilteredActParams& params = *call_.params;
  const Unit unit(cut, index);
  const int64_t plane0 = unit.group * cut.planes;
  const int64_t planes = std::min(cut.planes, call_.in.c - plane0);
  const Band x = make_band(call_.x, cut.x.part(unit.tile), nullptr);
  const int64_t first = unit.strip * cut.bands;
  const int64_t last = std::min(cut.y.count, first + cut.bands);
  for (int64_t n = unit.batch * cut.images; n < std::min(call_.in.n, (unit.batch + 1) * cut.images);
       ++n) {
    View<A> before{};
    for (int64_t i = first; i < last; ++i) {
      const Band y = make_band(call_.y, cut.y.part(i), i > first ? &before.y : nullptr);
      const View<A> mid = block(mid_at_, mid_plane_, call_.mid_columns, y.span, x.span);
      if (i > first) keep_rows(before, mid, {y.span.begin, y.fresh.begin}, planes);
      if (y.fresh.size() > 0) {
        const View<A> in =
            fetch(params.input, call_.in, params.bias, n, plane0, planes, y.in, x.in,
                  block(in_at_, in_plane_, call_.in_columns, y.in.span, x.in.span));
        const View<A> m = mid.part(y.mid, x.mid);
        resample(kUp, in, m, planes);
        call_.kernels->blocks.activate[kAccumulate](activation(m, planes, plane0));
        extend(mid.part(y.fresh, x.span), y.mid, x.mid, planes);
      }
      const View<A> out = destination(
          params.output, call_.out, n, plane0, y.out, x.out, stores_direct(call_.out),
          block(out_at_, out_plane_, call_.out_columns, y.out, x.out));
      resample(kDown, mid, out, planes);
      store(out, params.output, call_.out, n, plane0, planes, nullptr);
      before = mid;
    }
  }
}

// Stores a block, unless it is the array's memory, and adds up its channels.
template <class A>
void Worker<A>::store(const View<A>& from, void* data, const Plane4d& array, int64_t n,
                      int64_t plane0, int64_t planes, double* sums) const {
  BlockCopy c = copy(from, array, planes);
  c.stored = static_cast<char*>(data) + offset_of(array, n, plane0, from.y.begin, from.x.begin) *
                                            element_size(call_.params->dtype);
  if (sums != nullptr) call_.kernels->blocks.sum[kAccumulate](c, sums);
  if (c.stored != c.block) call_.kernels->blocks.store[int(call_.params->dtype)](c);
}

template <class A>
void Worker<A>::gradient(int64_t index) {
  const Cut& cut = call_.cut;
  const FilteredActGradParams& params = *call_.grad;
  const Unit unit(cut, index);
  const int64_t plane0 = unit.group * cut.planes;
  const int64_t planes = std::min(cut.planes, call_.in.c - plane0);
  const GradBand x = make_grad_band(call_.x, cut.x.part(unit.tile), nullptr);
  const int64_t first = unit.strip * cut.bands;
  const int64_t last = std::min(cut.y.count, first + cut.bands);
  const Range owned_y =
      owned_by(call_.y, {cut.y.part(first).begin, cut.y.part(last - 1).end});
  const Range owned_x = owned_by(call_.x, x.in);
  double* const sums[3] = {call_.sums->of(0, index), call_.sums->of(1, index),
                           call_.sums->of(2, index)};
  for (int64_t n = unit.batch * cut.images; n < std::min(call_.in.n, (unit.batch + 1) * cut.images);
       ++n) {
    View<A> before{};
    Range in_before{};
    for (int64_t i = first; i < last; ++i) {
      const GradBand y = make_grad_band(call_.y, cut.y.part(i), i > first ? &in_before : nullptr);
      const View<A> g = block(grad_at_, grad_plane_, call_.grad_columns,
                              y.fresh.size() > 0 ? hull(y.mid, y.span) : y.mid, x.span);
      if (i > first) keep_rows(before, g, {y.mid.begin, y.fresh.begin}, planes);
      if (y.fresh.size() > 0) {
        const View<A> in = fetch(
            params.input, call_.in, params.bias, n, plane0, planes, y.source, x.source,
            block(in_at_, in_plane_, call_.in_columns, y.source.span, x.source.span));
        const View<A> m = block(mid_at_, mid_plane_, call_.mid_columns, y.fresh, x.fresh);
        resample(kUp, in, m, planes);
        const View<A> grad =
            fetch(params.grad, call_.grads, nullptr, n, plane0, planes, {y.out, y.out},
                  {x.out, x.out}, block(out_at_, out_plane_, call_.out_columns, y.out, x.out));
        const View<A> all = g.part(y.span, x.span);
        resample(kDownAdjoint, grad, all, planes);
        fold(all, y.fresh, x.fresh, planes);
        const View<A> fresh = g.part(y.fresh, x.fresh);
        BlockActivation b = activation(m, planes, plane0);
        b.g = fresh.data;
        b.g_plane = fresh.plane;
        b.g_row = fresh.row;
        b.sums_alpha = sums[1];
        b.sums_beta = sums[2];
        b.owned_row0 = clamped(owned_y.begin - y.fresh.begin, 0, b.rows);
        b.owned_row1 = clamped(owned_y.end - y.fresh.begin, 0, b.rows);
        b.owned_column0 = clamped(owned_x.begin - x.fresh.begin, 0, b.columns);
        b.owned_column1 = clamped(owned_x.end - x.fresh.begin, b.owned_column0, b.columns);
        call_.kernels->blocks.differentiate[kAccumulate](b);
      }
      const bool direct =
          stores_direct(call_.out) && y.whole == y.in && x.whole == x.in;
      const View<A> out = destination(
          params.output, call_.out, n, plane0, y.in, x.in, direct,
          block(fold_at_, fold_plane_, call_.fold_columns, y.whole, x.whole));
      resample(kUpAdjoint, g.part(y.mid, x.mid), out, planes);
      fold(out, y.in, x.in, planes);
      store(out.part(y.in, x.in), params.output, call_.out, n, plane0, planes, sums[0]);
      before = g;
      in_before = y.in;
    }
  }
}

// ---------------------------------------------------------------- all units

template <class A>
void run_units(int64_t begin, int64_t end, void* context) {
  const Call& call = *static_cast<const Call*>(context);
  Worker<A> worker(call);
  for (int64_t unit = begin; unit < end; ++unit) {
    if (call.grad == nullptr) worker.forward(unit);
    else worker.gradient(unit);
  }
}

template <class A>
void run(const Call& call, ParallelFor parallel_for, int num_threads) {
  Call* context = const_cast<Call*>(&call);
  run_in_threads(call.cut.units(), *call.params, parallel_for, num_threads, run_units<A>, context);
}

// Calls use(range, range before it in its unit or null) for all parts; `bands`: of a unit.
template <class Use>
void for_parts(const Parts& parts, int64_t bands, const Use& use) {
  for (int64_t i = 0; i < parts.count; ++i) {
    const Range here = parts.part(i), before = parts.part(std::max<int64_t>(0, i - 1));
    use(here, i % bands > 0 ? &before : nullptr);
  }
}

void grow(int64_t& most, int64_t size) { most = std::max(most, size); }

void measure_forward(const Axis& axis, const Parts& parts, int64_t bands, int64_t& in,
                     int64_t& mid, int64_t& out) {
  Range span{};
  for_parts(parts, bands, [&](Range part, const Range* before) {
    const Band band = make_band(axis, part, before != nullptr ? &span : nullptr);
    span = band.span;
    grow(in, band.in.span.size());
    grow(mid, band.span.size());
    grow(out, band.out.size());
  });
}

void measure_gradient(const Axis& axis, const Parts& parts, int64_t bands, int64_t& in,
                      int64_t& mid, int64_t& grad, int64_t& out, int64_t& folded) {
  for_parts(parts, bands, [&](Range part, const Range* before) {
    const GradBand band = make_grad_band(axis, part, before);
    grow(in, band.source.span.size());
    grow(mid, band.fresh.size());
    grow(grad, hull(band.mid, band.span).size());
    grow(out, band.out.size());
    grow(folded, band.whole.size());
  });
}

// Calls attempt(elements of a block of m, channels), which cuts the call and measures its
// blocks, until the blocks of a thread fit.
template <class A, class Attempt>
void fit(Call& call, int64_t channels, const Attempt& attempt) {
  int64_t elements = kBlockBytes / int64_t(sizeof(A));
  for (int i = 0; i < kMostCuts; ++i) {
    static_cast<BlockSizes&>(call) = BlockSizes{};
    attempt(elements, channels);
    if (call.block_elements() * int64_t(sizeof(A)) <= kThreadBytes) return;
    elements -= elements / 4;
    channels = std::max<int64_t>(1, channels / 2);
  }
}

// Whether a thread works in the array itself, which has the accumulate type.
template <class A>
bool is_in_place(const FilteredActParams& params, const Plane4d& array) {
  return element_size(params.dtype) == sizeof(A) && array.stride_w == 1 && !params.replicate;
}

template <class A>
void filtered_act(const FilteredActParams& params, ParallelFor parallel_for, int num_threads) {
  Call call{};
  describe<A>(params, params.out, call);
  const auto cut_axis = [](const Axis& axis) {
    return CutAxis{axis.out, axis.down, axis.down_taps - 1,
                   axis.up / common_divisor(axis.up, axis.down)};
  };
  const int64_t together =
      std::max(side_by_side(call.in, params.dtype), side_by_side(call.out, params.dtype));
  fit<A>(call, together, [&](int64_t elements, int64_t channels) {
    call.cut = make_cut(cut_axis(call.y), cut_axis(call.x), call.in.n, call.in.c, elements,
                        channels, false);
    measure_forward(call.y, call.cut.y, call.cut.bands, call.in_rows, call.mid_rows,
                    call.out_rows);
    measure_forward(call.x, call.cut.x, 1, call.in_columns, call.mid_columns, call.out_columns);
    if (is_in_place<A>(params, call.in) && params.bias == nullptr) call.in_rows = 0;
    if (is_in_place<A>(params, call.out)) call.out_rows = 0;
  });
  run<A>(call, parallel_for, num_threads);
}

template <class A>
void filtered_act_grad(const FilteredActGradParams& params, ParallelFor parallel_for,
                       int num_threads) {
  Call call{};
  call.grad = &params;
  call.grads = params.grad_plane;
  describe<A>(params, params.grad_plane, call);
  const auto cut_axis = [](const Axis& axis) {
    return CutAxis{axis.in, axis.up, axis.up_taps - 1,
                   axis.down / common_divisor(axis.up, axis.down)};
  };
  const int64_t together =
      std::max({side_by_side(call.in, params.dtype), side_by_side(call.out, params.dtype),
                side_by_side(call.grads, params.dtype)});
  fit<A>(call, together, [&](int64_t elements, int64_t channels) {
    call.cut = make_cut(cut_axis(call.y), cut_axis(call.x), call.in.n, call.in.c, elements,
                        channels, wants_sums(params));
    measure_gradient(call.y, call.cut.y, call.cut.bands, call.in_rows, call.mid_rows,
                     call.grad_rows, call.out_rows, call.fold_rows);
    measure_gradient(call.x, call.cut.x, 1, call.in_columns, call.mid_columns,
                     call.grad_columns, call.out_columns, call.fold_columns);
    if (is_in_place<A>(params, call.in) && params.bias == nullptr) call.in_rows = 0;
    if (is_in_place<A>(params, call.grads)) call.out_rows = 0;
    if (is_in_place<A>(params, call.out)) call.fold_rows = 0;
  });

  const Cut& cut = call.cut;
  ChannelSums sums;
  sums.prepare(params, cut.units(), cut.planes);
  call.sums = &sums;
  run<A>(call, parallel_for, num_threads);
  sums.finish<A>(params, cut.units(),
                 [&](int64_t unit) { return Unit(cut, unit).group * cut.planes; });
}

}  // namespace
}  // namespace cpu

void filtered_act_cpu(const FilteredActParams& params, ParallelFor parallel_for,
                      int num_threads) {
  if (params.out.n * params.out.c * params.out.h * params.out.w == 0) return;
  const bool wide = params.dtype == Dtype::float64;
  const auto run = cpu::is_signal(params, params.out) ? cpu::filtered_act_signals
                   : wide                             ? cpu::filtered_act<double>
                                                      : cpu::filtered_act<float>;
  run(params, parallel_for, num_threads);
}

void filtered_act_grad_cpu(const FilteredActGradParams& params, ParallelFor parallel_for,
                           int num_threads) {
  const bool wide = params.dtype == Dtype::float64;
  if (params.in.n * params.in.c * params.in.h * params.in.w == 0) {
    for (void* result : {params.grad_bias, params.grad_alpha, params.grad_beta}) {
      if (result != nullptr) std::memset(result, 0, size_t(params.in.c) * (wide ? 8 : 4));
    }
    return;
  }
  const auto run = cpu::is_signal(params, params.grad_plane) ? cpu::filtered_act_grad_signals
                   : wide ? cpu::filtered_act_grad<double>
                          : cpu::filtered_act_grad<float>;
  run(params, parallel_for, num_threads);
}

}  // namespace resample_layers
