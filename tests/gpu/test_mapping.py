"""The index arithmetic of csrc/cuda/mapping.h, walked over every width and alignment on the host.

A small C++ program visits each row as the kernels do and checks that every column is visited once,
in the place that `place_of` names, within the 16-byte boundaries; it prints what it found wrong.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.gpu import emulator, widths

pytestmark = pytest.mark.skipif(emulator.compiler() is None, reason="no C++ compiler for Linux")

PROGRAM = r"""
#include <cstdio>
#include <cstdlib>
#include <vector>
#include "mapping.h"
using namespace hvdfilter::cuda;

static void expect(bool good, const char* what, int classes, int bytes, int misaligned) {
  if (good) return;
  std::printf("%s: %d classes of %d bytes, %d misaligned\n", what, classes, bytes, misaligned);
  std::exit(1);
}

// Who visits which column of a run of `elements`, which begins at column `first` of its row.
struct Visits {
  std::vector<int> count, thread, slot, at;
  explicit Visits(int classes) : count(classes), thread(classes), slot(classes), at(classes) {}
};

static void walk_run(Visits& seen, Span span, int first, int elements, int bytes, int misaligned,
                     int threads, int slots, int full) {
  const int per = elements_per_vector(bytes), classes = int(seen.count.size());
  expect(edge_count(span) <= 32, "more edges than lanes", classes, bytes, misaligned);
  for (int thread = 0; thread < threads; ++thread) {
    for (int slot = 0; slot < slots; ++slot) {
      const int vector = slot_vector(slot, thread, threads);
      if (vector >= span.vectors) {
        expect(slot >= full, "slot not full", classes, bytes, misaligned);
        continue;
      }
      const int begin = vector_element(span, vector, per);
      expect((misaligned + (first + begin) * bytes) % kVectorBytes == 0, "vector off its boundary",
             classes, bytes, misaligned);
      for (int i = 0; i < per; ++i) {
        const int column = first + begin + i;
        expect(column >= 0 && column < classes, "column outside", classes, bytes, misaligned);
        seen.count[column]++;
        seen.thread[column] = thread, seen.slot[column] = slot, seen.at[column] = i;
      }
    }
    if (thread >= edge_count(span)) continue;
    const int column = first + edge_element(span, elements, thread);
    expect(column >= 0 && column < classes, "edge outside", classes, bytes, misaligned);
    seen.count[column]++;
    seen.thread[column] = thread, seen.slot[column] = -1, seen.at[column] = 0;
  }
  for (int element = 0; element < elements; ++element) {
    const Place place = place_of(span, elements, element, threads, per);
    const int column = first + element;
    expect(place.thread == seen.thread[column] && place.slot == seen.slot[column] &&
               place.at == seen.at[column],
           "place is another", classes, bytes, misaligned);
  }
  expect(place_of(span, elements, -1, threads, per).thread == -1, "nowhere is somewhere", classes,
         bytes, misaligned);
}

static void walk_plan(int classes, int bytes, bool clusters) {
  const Plan chosen = plan(classes, 1 << 20, 0, bytes, clusters);  // rows far apart: none is packed
  const int per = elements_per_vector(bytes), most = classes / per;
  for (int misaligned = 0; misaligned < kVectorBytes; misaligned += bytes) {
    Visits seen(classes);
    const Span span = cut(misaligned, classes, bytes);
    if (chosen.regime == Regime::streaming) {
      const int slots = (most + kStreamingThreads - 1) / kStreamingThreads;
      walk_run(seen, span, 0, classes, bytes, misaligned, kStreamingThreads, slots, 0);
    } else if (chosen.regime == Regime::resident) {
      const Resident r = kResident[chosen.shape];
      walk_run(seen, span, 0, classes, bytes, misaligned, r.threads, r.slots,
               full_slots(chosen.shape));
    } else {
      expect(clusters, "cluster on a device without", classes, bytes, misaligned);
      const Resident r = kClustered[chosen.shape];
      int log_blocks = 0;
      while (1 << log_blocks < chosen.blocks) ++log_blocks;
      for (int rank = 0; rank < chosen.blocks; ++rank) {
        // As the kernel cuts a row: whole vectors each, the head to the first, the tail behind.
        const Share share = share_of(span.vectors, rank, log_blocks);
        const bool last = rank == chosen.blocks - 1;
        const Span part{rank > 0 ? 0 : span.head, share.vectors, last ? span.tail : 0};
        const int first = rank > 0 ? span.head + share.first * per : 0;
        walk_run(seen, part, first, edge_count(part) + share.vectors * per, bytes, misaligned,
                 r.threads, r.slots, kClusteredFull);
      }
    }
    for (int column = 0; column < classes; ++column)
      expect(seen.count[column] == 1, "column not visited once", classes, bytes, misaligned);
  }
}

// A packed tile: rows lie apart, aligned by their piece, within the room that a launch asks for,
// and the lanes of a warp meet in no bank, or in pairs where a piece is half a word.
static void walk_tile(int classes, int bytes) {
  const int stride = classes * bytes, rows = packed_rows(stride, 1 << 30, 132);
  const int piece = packed_piece(0, stride);
  const int pitch = stride + (packed_padding(piece, stride) ? kVectorBytes : 0);
  expect(rows * pitch + kVectorBytes <= 48 * 1024, "tile too large", classes, bytes, 0);
  expect(pitch % piece == 0 && stride % piece == 0, "piece off its row", classes, bytes, 0);
  const int lanes = piece <= 4 ? 32 : 128 / piece;  // wider accesses go by halves and quarters
  for (int first = 0; first < 32; first += lanes) {
    int words[32] = {}, worst = 0;
    for (int bank = 0; bank < 32; ++bank) words[bank] = -1;
    int hits[32] = {};
    for (int lane = first; lane < first + lanes; ++lane)
      for (int word = lane * pitch / 4; word <= (lane * pitch + piece - 1) / 4; ++word) {
        if (words[word % 32] == word) continue;
        words[word % 32] = word;
        worst = ++hits[word % 32] > worst ? hits[word % 32] : worst;
      }
    expect(worst <= (piece == 2 ? 2 : 1), "bank conflict", classes, bytes, piece);
  }
}

int main() {
  for (int bytes : {2, 4}) {
    for (int classes = 1; classes <= 1100; ++classes) walk_plan(classes, bytes, true);
    // Around every limit of the table, and far beyond the last.
    for (int shape = 0; shape < kResidentShapes; ++shape)
      for (int add = -9; add <= 9; ++add)
        walk_plan(reach(shape) * elements_per_vector(bytes) + add, bytes, true);
    for (int vectors = 64; vectors <= 65536; vectors += vectors / 2)
      for (int add : {-1, 0, 1})
        walk_plan(vectors * elements_per_vector(bytes) + add, bytes, vectors % 3 != 0);
    for (int vectors : {4096, 6144, 8192, 12288, 16384, 24576, 32768})
      for (int add = -9; add <= 9; ++add)
        walk_plan(vectors * elements_per_vector(bytes) + add, bytes, true);
    for (int classes : {128256, 140000, 151936, 262144, 300000}) walk_plan(classes, bytes, true);
    for (int classes : {12288, 12292, 24576, 24584, 128256}) walk_plan(classes, bytes, false);
    for (int classes = 1; classes * bytes <= kPackedBytes; ++classes) walk_tile(classes, bytes);
  }
  std::puts("every column once");
}
"""


def test_every_column_is_visited_once(tmp_path: Path) -> None:
    (tmp_path / "walk.cpp").write_text(PROGRAM)
    command = [str(emulator.compiler()), "-std=c++17", "-O2", "-Wall", "-Werror", "walk.cpp"]
    command += [f"-I{emulator.CSRC / 'cuda'}", "-o", "walk"]
    subprocess.run(command, cwd=tmp_path, check=True)
    done = subprocess.run([tmp_path / "walk"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "every column once\n"), done.stdout


def test_what_a_width_and_a_stride_go_to(tmp_path: Path) -> None:
    checks = (
        "plan(10, 10, 0, 4, true).regime == Regime::packed",
        "plan(100, 104, 0, 4, true).regime == Regime::packed",
        "plan(128, 128, 0, 4, true).regime == Regime::packed",
        "plan(128, 129, 0, 4, true).regime == Regime::resident",
        "plan(129, 129, 0, 4, true).regime == Regime::resident",
        "plan(128, 128, 4, 4, true).regime == Regime::resident",  # all rows in one bank
        "plan(100, 100, 4, 4, true).regime == Regime::packed",
        "plan(10, 0, 0, 4, true).regime == Regime::resident",  # one row, expanded
        "plan(12288, 12288, 0, 4, true).regime == Regime::resident",
        "plan(12292, 12292, 0, 4, true).regime == Regime::cluster",
        "plan(12292, 12292, 0, 4, false).regime == Regime::streaming",
        "plan(128256, 128256, 0, 2, true).blocks == 8",
        "plan(128256, 128256, 0, 2, true).shape == 0",
        "plan(128256, 128256, 0, 4, true).shape == 2",
        "plan(17000, 17000, 0, 4, true).shape == 1",
        "plan(140000, 140000, 0, 4, true).regime == Regime::streaming",
        "plan(300000, 300000, 0, 2, true).regime == Regime::streaming",
        "packed_rows(20, 202752, 132) == 512 && packed_rows(20, 202751, 132) == 256",
        "packed_rows(65, 1 << 30, 132) == 256 && packed_rows(512, 1 << 30, 132) == 64",
        "wants_clusters(true, 100000, 132) && wants_clusters(false, 263, 132)",
        "!wants_clusters(false, 264, 132)",
        # More than 2^31 elements, and rows: nothing is cut to 32 bits.
        "row_begin(40000, 128256) == 5130240000",
        "row_begin(4000000000u, 1 << 20) == 4194304000000000",
        "row_begin(3, int64_t(1) << 40) == int64_t(3) << 40",
        "plan(2, int64_t(1) << 40, 0, 4, true).regime == Regime::resident",
        "ceil_div(int64_t(1) << 40, 256) == int64_t(1) << 32",
    )
    asserts = "\n".join(f'static_assert({check}, "{check}");' for check in checks)
    source = f'#include "mapping.h"\nusing namespace hvdfilter::cuda;\n{asserts}\n'
    (tmp_path / "plan.cpp").write_text(source)
    command = [str(emulator.compiler()), "-std=c++17", "-fsyntax-only", "plan.cpp"]
    command.append(f"-I{emulator.CSRC / 'cuda'}")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_widths_of_the_device_tests_reach_every_kernel(tmp_path: Path) -> None:
    shapes = ", ".join(str(width) for width in widths.FLOAT_WIDTHS)
    (tmp_path / "reach.cpp").write_text(
        f"""
        #include <cstdio>
        #include <initializer_list>
        #include "mapping.h"
        using namespace hvdfilter::cuda;
        int main() {{
          for (int bytes : {{2, 4}})
            for (int width : {{{shapes}}}) {{
              const int classes = width * 4 / bytes;
              const Plan found = plan(classes, classes, 0, bytes, true);
              std::printf("%d %d %d %d\\n", bytes, int(found.regime), found.shape, found.blocks);
            }}
          // Rows of few classes that lie far apart are the only ones for the first line.
          const Plan apart = plan(100, 1000, 0, 4, true);
          std::printf("4 %d %d %d\\n", int(apart.regime), apart.shape, apart.blocks);
          std::printf("2 %d %d %d\\n", int(apart.regime), apart.shape, apart.blocks);
          std::printf("%d %d %d\\n", kResidentShapes, kClusteredShapes, kClusterBlocks);
        }}
        """.replace("        ", "")
    )
    command = [str(emulator.compiler()), "-std=c++17", "reach.cpp", "-o", "reach"]
    command.append(f"-I{emulator.CSRC / 'cuda'}")
    subprocess.run(command, cwd=tmp_path, check=True)
    done = subprocess.run([tmp_path / "reach"], capture_output=True, text=True, check=True)
    *found, limits = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    resident, clustered, blocks = limits
    every = {(0, 0, 1), (3, 0, 1)} | {(1, shape, 1) for shape in range(resident)}
    two_lines = {(2, line, 2**k) for line in range(clustered - 1) for k in (1, 2, 3)}
    every |= two_lines | {(2, clustered - 1, blocks)}
    for size in (2, 4):
        assert {plan for each, *rest in found if each == size for plan in [tuple(rest)]} == every
