"""The index arithmetic of csrc/cuda/mapping.h, walked over every width and alignment on the host.

A small C++ program visits each row as the kernels do and checks that every column is visited once,
by the thread that `owner` names, within the 16-byte boundaries; it prints what it found wrong.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.gpu import emulator

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

static void walk(int classes, int bytes, int misaligned, int threads, int slots, int edges) {
  const int per = elements_per_vector(bytes);
  const Span span = cut(misaligned, classes, bytes);
  std::vector<int> visits(classes), by(classes);
  for (int thread = 0; thread < threads; ++thread) {
    for (int slot = 0; slot < slots; ++slot) {
      const int vector = slot_vector(slot, thread, threads);
      if (vector >= span.vectors) continue;
      const int first = vector_element(span, vector, per);
      expect((misaligned + first * bytes) % kVectorBytes == 0, "vector off its boundary", classes,
             bytes, misaligned);
      for (int i = 0; i < per; ++i) {
        expect(first + i >= 0 && first + i < classes, "column outside", classes, bytes, misaligned);
        visits[first + i]++, by[first + i] = thread;
      }
    }
    for (int slot = 0; slot < edges; ++slot) {
      const int edge = slot_vector(slot, thread, threads);
      if (edge >= edge_count(span)) continue;
      const int column = edge_element(span, classes, edge);
      expect(column >= 0 && column < classes, "edge outside", classes, bytes, misaligned);
      visits[column]++, by[column] = thread;
    }
  }
  for (int column = 0; column < classes; ++column) {
    expect(visits[column] == 1, "column not visited once", classes, bytes, misaligned);
    expect(owner(span, classes, column, threads, per) == by[column], "owner is another thread",
           classes, bytes, misaligned);
  }
}

static void walk_plan(int classes, int bytes, bool clusters) {
  const Plan chosen = plan(classes, bytes, false, clusters);
  const int most = classes / elements_per_vector(bytes);
  for (int misaligned = 0; misaligned < kVectorBytes; misaligned += bytes) {
    if (chosen.regime == Regime::streaming) {
      const int slots = (most + kStreamingThreads - 1) / kStreamingThreads;
      walk(classes, bytes, misaligned, kStreamingThreads, slots,
           edges_per_thread(kStreamingThreads, bytes));
      continue;
    }
    const bool one = chosen.regime == Regime::resident;
    const Resident r = one ? kResident[chosen.shape] : kClustered[chosen.shape];
    expect(clusters || one, "cluster on a device without", classes, bytes, misaligned);
    walk(classes, bytes, misaligned, r.threads * chosen.blocks, r.slots,
         edges_per_thread(r.threads, bytes));
  }
}

int main() {
  for (int bytes : {2, 4}) {
    for (int classes = 1; classes <= 1100; ++classes) walk_plan(classes, bytes, true);
    // Around every limit of the table, and far beyond the last.
    for (int vectors = 64; vectors <= 65536; vectors += vectors / 2)
      for (int add : {-1, 0, 1})
        walk_plan(vectors * elements_per_vector(bytes) + add, bytes, vectors % 3 != 0);
    for (int classes : {128256, 151936, 262144, 300000}) walk_plan(classes, bytes, true);
    for (int classes : {12288, 12292, 24576, 24584, 128256}) walk_plan(classes, bytes, false);
  }

  // A packed tile: different elements in different words, inside the room that was asked for.
  std::vector<int> word(padded(kPackedRows * kPackedClasses), -1);
  for (int element = 0; element < kPackedRows * kPackedClasses; ++element) {
    expect(padded(element) < int(word.size()) && word[padded(element)] < 0, "tile words collide",
           element, 4, 0);
    word[padded(element)] = element;
  }
  // Shared-memory banks: a warp storing word i of its vectors, and a warp walking its rows.
  const auto conflicts = [](auto address) {
    int banks[32] = {}, worst = 0;
    for (int lane = 0; lane < 32; ++lane) {
      const int hits = ++banks[padded(address(lane)) % 32];
      worst = hits > worst ? hits : worst;
    }
    return worst;
  };
  for (int per : {4, 8})
    for (int i = 0; i < per; ++i)
      expect(conflicts([&](int lane) { return lane * per + i; }) == 1, "store conflict", per, 0, 0);
  for (int classes = 1; classes <= kPackedClasses; ++classes)
    for (int column = 0; packs(classes) && column < classes; ++column)
      expect(conflicts([&](int lane) { return lane * classes + column; }) <= 2, "walk conflict",
             classes, 4, 0);
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


def test_rows_that_lie_apart_are_not_packed(tmp_path: Path) -> None:
    checks = (
        "plan(10, 4, true, true).regime == Regime::packed",
        "plan(10, 4, false, true).regime == Regime::resident",
        "plan(31, 4, true, true).regime == Regime::resident",
        "plan(32, 4, true, true).regime == Regime::packed",
        "plan(33, 4, true, true).regime == Regime::resident",
        "plan(12288, 4, true, true).regime == Regime::resident",
        "plan(12292, 4, true, true).regime == Regime::cluster",
        "plan(12292, 4, true, false).regime == Regime::streaming",
        "plan(128256, 2, true, true).blocks == 8",
        "plan(128256, 4, true, true).shape == 1",
        "plan(300000, 4, true, true).regime == Regime::streaming",
    )
    asserts = "\n".join(f'static_assert({check}, "{check}");' for check in checks)
    source = f'#include "mapping.h"\nusing namespace hvdfilter::cuda;\n{asserts}\n'
    (tmp_path / "plan.cpp").write_text(source)
    command = [str(emulator.compiler()), "-std=c++17", "-fsyntax-only", "plan.cpp"]
    command.append(f"-I{emulator.CSRC / 'cuda'}")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
