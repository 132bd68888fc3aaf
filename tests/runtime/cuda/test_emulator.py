"""The emulator's own arithmetic: the two conversions that are machine instructions on a GPU."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import numpy as np
from support.emulated_gpu import EMULATOR

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = r"""
#include "emulator.hpp"
#include <cstdio>
int main() {
  for (unsigned bits = 0; bits < 0x10000; ++bits) {
    const float value = widen_half(static_cast<unsigned short>(bits));
    std::fwrite(&value, sizeof value, 1, stdout);
  }
  float value;
  while (std::fread(&value, sizeof value, 1, stdin) == 1) {
    const unsigned short bits = narrow_half(value);
    std::fwrite(&bits, sizeof bits, 1, stdout);
  }
}
"""


def test_half_precision_is_that_of_numpy(tmp_path: Path) -> None:
    source, program = tmp_path / "half.cpp", tmp_path / "half"
    source.write_text(PROGRAM)
    compiler = str(shutil.which("g++"))
    command = [compiler, "-std=c++17", "-O1", f"-I{EMULATOR}", str(source), "-o", str(program)]
    subprocess.run(command, check=True)
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    rng = np.random.default_rng(0)
    with np.errstate(all="ignore"):
        halves = every.astype(np.float32)
        ties = (halves[:-1] + halves[1:]) / 2
        values = np.concatenate(
            (
                rng.integers(0, 1 << 32, 200_000, dtype=np.uint32).view(np.float32),
                halves,
                ties,
                np.nextafter(ties, np.float32(np.inf)),
                np.nextafter(ties, np.float32(-np.inf)),
                (rng.normal(size=50_000) * 2.0 ** rng.uniform(-27, -13, 50_000)).astype(np.float32),
            )
        ).astype(np.float32)
        narrowed = values.astype(np.float16)
    done = subprocess.run([str(program)], input=values.tobytes(), capture_output=True, check=True)
    wide = np.frombuffer(done.stdout[: 4 << 16], np.float32)
    narrow = np.frombuffer(done.stdout[4 << 16 :], np.float16)
    np.testing.assert_array_equal(wide, halves)
    np.testing.assert_array_equal(narrow, narrowed)
    assert np.array_equal(np.signbit(narrow[~np.isnan(narrow)]), np.signbit(narrowed[~np.isnan(narrow)]))
