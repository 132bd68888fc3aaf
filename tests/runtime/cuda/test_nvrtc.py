"""What NVRTC makes of the kernels: no GPU and no driver needed."""

from __future__ import annotations

import re
import struct
from functools import cache
from importlib import import_module
from typing import Any

import pytest
from support.emulated_gpu import KERNEL_SOURCE, kernels

from bnfold.errors import EnvironmentFault
from bnfold.runtime.cuda_compiler import OPTIONS, Compiled, compile_kernels, source, version
from bnfold.runtime.cuda_driver import OLDEST_CAPABILITY
from bnfold.runtime.cuda_plan import DEPTH, DTYPE_CODES, PAIRS

pytestmark = [pytest.mark.cuda, pytest.mark.usefixtures("cuda_packages")]

ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)
CODES = tuple(DTYPE_CODES.values())
NAMES = kernels(KERNEL_SOURCE.read_text())

# 16-byte accesses to global memory that each kernel must have: (loads, stores).
VECTORS = {
    "statistics_channels_first": (DEPTH, 0),
    "slopes_channels_first": (2 * DEPTH, 0),
    "statistics_channels_last": (16, 0),
    "slopes_channels_last": (2 * PAIRS, 0),
    "infer": (DEPTH, DEPTH),
    "infer_channels_last": (DEPTH, DEPTH),
    "normalize": (DEPTH, DEPTH),
    "normalize_channels_last": (DEPTH, DEPTH),
    "differentiate": (2 * DEPTH, DEPTH),
    "differentiate_channels_last": (2 * DEPTH, DEPTH),
    "train_fused": (DEPTH, 1),
    "backward_fused": (2 * DEPTH, 1),
}


def compiled(architecture: int, code: int, *options: str) -> Compiled:
    chosen = (f"--gpu-architecture=sm_{architecture}", f"-DBN_DTYPE={code}", *OPTIONS, *options)
    return compile_kernels(source(), chosen)


def check_resources(architecture: int, code: int) -> None:
    made = compiled(architecture, code, "--ptxas-options=-v")
    reports = re.split(r"Compiling entry function '(\w+)'", made.log)[1:]
    found = dict(zip(reports[::2], reports[1::2], strict=True))
    assert set(found) == set(NAMES)
    for name, report in found.items():
        spilled = re.search(
            r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", report
        )
        assert spilled, report
        assert spilled.groups() == ("0", "0", "0"), f"sm_{architecture} {name}: {spilled[0]}"
    # And the machine code says the same.
    assert frame_sizes(made.cubin), "no frame sizes in the CUBIN"
    assert set(frame_sizes(made.cubin)) == {0}


@pytest.mark.parametrize("code", CODES)
def test_no_spills_and_no_stack(code: int) -> None:
    check_resources(90, code)


@pytest.mark.slow
@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("architecture", [a for a in ARCHITECTURES if a != 90])
def test_no_spills_and_no_stack_anywhere(architecture: int, code: int) -> None:
    check_resources(architecture, code)


@pytest.mark.parametrize("code", CODES)
def test_memory_is_read_and_written_16_bytes_at_a_time(code: int) -> None:
    listing = ptx(90, code)
    for name, (loads, stores) in VECTORS.items():
        body = listing[name]
        assert ".local" not in body, name
        # float64 has two values in a vector, and a lone one needs no more than its 8 bytes.
        assert len(re.findall(r"ld\.global(?:\.nc)?\.v4\.[buf]32", body)) >= loads, name
        assert len(re.findall(r"st\.global\.v4\.[buf]32", body)) >= stores, name


def test_clusters_are_used_where_they_exist() -> None:
    for name in ("train_fused", "backward_fused"):
        assert "barrier.cluster.arrive" in ptx(90, 1)[name]
        assert "mapa.shared::cluster" in ptx(90, 1)[name]
        assert "cluster" not in ptx(80, 1)[name]


def test_nothing_is_fused_that_is_not_written_as_fma() -> None:
    # A product and a sum contracted by the compiler would differ from the emulation.
    body = ptx(90, 1)["statistics_channels_first"]
    assert "mul.rn.f32" in body or "mul.f32" in body
    assert "fma.rn.f32" not in body.replace("fma.rn.f64", "")


def test_architectures_that_nvrtc_does_not_know() -> None:
    with pytest.raises(
        EnvironmentFault, match=r"does not compile for sm_70: pip install -U nvidia-cuda-nvrtc"
    ):
        compiled(70, 1)


def test_the_oldest_capability_is_that_of_nvrtc() -> None:
    nvrtc: Any = import_module("cuda.bindings.nvrtc")
    _, known = nvrtc.nvrtcGetSupportedArchs()
    assert version()[0] == 13
    assert min(known) == OLDEST_CAPABILITY[0] * 10 + OLDEST_CAPABILITY[1]


def test_what_does_not_compile_is_reported_in_one_line() -> None:
    with pytest.raises(
        EnvironmentFault, match=r"cannot compile the kernels with .*: bn\.cu\(1\): error"
    ) as caught:
        compile_kernels("nonsense;", ("--gpu-architecture=sm_90", *OPTIONS))
    assert "\n" not in str(caught.value)


@cache
def ptx(architecture: int, code: int) -> dict[str, str]:
    """The intermediate code of each kernel."""
    nvrtc: Any = import_module("cuda.bindings.nvrtc")
    _, program = nvrtc.nvrtcCreateProgram(source().encode(), b"bn.cu", 0, [], [])
    options = (f"--gpu-architecture=sm_{architecture}", f"-DBN_DTYPE={code}", *OPTIONS)
    (status,) = nvrtc.nvrtcCompileProgram(program, len(options), [o.encode() for o in options])
    assert int(status) == 0
    _, size = nvrtc.nvrtcGetPTXSize(program)
    text = b" " * size
    nvrtc.nvrtcGetPTX(program, text)
    nvrtc.nvrtcDestroyProgram(program)
    parts = re.split(r"\.entry (\w+)\(", text.decode())[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def frame_sizes(cubin: bytes) -> list[int]:
    """Bytes of stack of every function, from the `.nv.info` section of a CUBIN (an ELF file)."""
    frame_size, sized = 0x11, 4
    (table,) = struct.unpack_from("<Q", cubin, 40)
    entry, count, names = struct.unpack_from("<HHH", cubin, 58)
    headers = [struct.unpack_from("<IIQQQQ", cubin, table + i * entry) for i in range(count)]
    sizes = []
    for name, _, _, _, offset, size in headers:
        start = headers[names][4] + name
        if cubin[start : cubin.index(0, start)] != b".nv.info":
            continue
        at = offset
        while at < offset + size:
            form, attribute, length = struct.unpack_from("<BBH", cubin, at)
            if form == sized and attribute == frame_size:
                sizes.append(struct.unpack_from("<II", cubin, at + 4)[1])
            at += 4 + (length if form == sized else 0)
    return sizes
