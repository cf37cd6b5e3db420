"""The texts of real processors tell whether bfloat16 is fast; each was shortened to the lines and flags that count.

The texts of other machines than the EPYC come from public reports of the kernel's and macOS' own output.
"""

import importlib
import os
import platform
import re
import sys

import pytest

import fmnist_exp
from fmnist_exp import compat
from fmnist_exp.backend import hardware, setup
from fmnist_exp.backend.hardware import from_cpuinfo, from_numpy, from_sysctl, on_processor

EPYC = """\
processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: 25
model\t\t: 17
model name\t: AMD EPYC
flags\t\t: fpu vme de pse tsc msr sse sse2 ht syscall nx pni ssse3 fma sse4_1 sse4_2 avx f16c avx2 avx512f avx512dq \
avx512cd avx512bw avx512vl avx512_bf16 clzero avx512vbmi avx512_vbmi2 gfni vaes avx512_vnni avx512_bitalg fsrm
bugs\t\t: sysret_ss_attrs null_seg spectre_v1 spectre_v2 spec_store_bypass srso spectre_v2_user
power management:

processor\t: 1
vendor_id\t: AuthenticAMD
model name\t: AMD EPYC
flags\t\t: fpu vme
"""
XEON_WITH_AMX = """\
processor\t: 0
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 143
model name\t: Intel(R) Xeon(R) Platinum 8480+
flags\t\t: fpu vme de pse sse sse2 ss ht syscall nx avx f16c avx2 avx512f avx512dq avx512cd avx512bw avx512vl avx_vnni \
avx512_bf16 wbnoinvd avx512vbmi avx512_vbmi2 avx512_vnni serialize tsxldtrk amx_bf16 avx512_fp16 amx_tile amx_int8
"""
XEON_WITH_VNNI = """\
processor\t: 0
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 85
model name\t: Intel(R) Xeon(R) Platinum 8259CL CPU @ 2.50GHz
flags\t\t: fpu vme de pse sse sse2 ss ht syscall nx avx f16c avx2 avx512f avx512dq avx512cd avx512bw avx512vl \
xsaveopt pku ospke avx512_vnni
"""
NEOVERSE_N2 = """\
processor\t: 0
BogoMIPS\t: 2000.00
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm jscvt fcma lrcpc dcpop sha3 \
sm3 sm4 asimddp sha512 sve asimdfhm uscat sve2 sveaes svebitperm flagm2 frint svei8mm svebf16 i8mm bf16
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd49
CPU revision\t: 0
"""
RASPBERRY_PI = """\
processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm crc32 cpuid
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd08
CPU revision\t: 3

Revision\t: c03115
Model\t\t: Raspberry Pi 4 Model B Rev 1.5
"""
POWER = "processor\t: 0\ncpu\t\t: POWER9, altivec supported\nclock\t\t: 2300.000000MHz\n"
M1 = """\
machdep.cpu.brand_string: Apple M1
hw.optional.arm.FEAT_DotProd: 1
hw.optional.arm.FEAT_BF16: 0
hw.optional.arm.FEAT_I8MM: 0
hw.optional.arm.FEAT_FP16: 1
hw.optional.floatingpoint: 1
"""
M2 = M1.replace("M1", "M2").replace("BF16: 0", "BF16: 1").replace("I8MM: 0", "I8MM: 1")
MAC_WITH_INTEL = """\
machdep.cpu.brand_string: Intel(R) Core(TM) i7-1068NG7 CPU @ 2.30GHz
hw.optional.avx512f: 1
hw.optional.avx512vnni: 1
"""


@pytest.mark.parametrize(
    ("found", "name", "instructions", "is_fast"),
    [
        (from_cpuinfo(EPYC), "AMD EPYC", "avx512_bf16", True),
        (from_cpuinfo(XEON_WITH_AMX), "Intel(R) Xeon(R) Platinum 8480+", "amx_bf16", True),
        (from_cpuinfo(XEON_WITH_VNNI), "Intel(R) Xeon(R) Platinum 8259CL CPU @ 2.50GHz", "", False),
        (from_cpuinfo(NEOVERSE_N2), "the ARM processor 0x41/0xd49", "bf16", False),  # TensorFlow does not use it
        (from_cpuinfo(RASPBERRY_PI), "the ARM processor 0x41/0xd08", "", False),
        (from_sysctl(M1), "Apple M1", "", False),
        (from_sysctl(M2), "Apple M2", "bf16", False),
        (from_sysctl(MAC_WITH_INTEL), "Intel(R) Core(TM) i7-1068NG7 CPU @ 2.30GHz", "", False),
        (
            from_numpy("Intel64 Family 6 Model 143", {"AVX512BF16": True}),
            "Intel64 Family 6 Model 143",
            "avx512_bf16",
            True,
        ),
        (from_numpy("Intel64 Family 6 Model 85", {"AVX512BF16": False}), "Intel64 Family 6 Model 85", "", False),
    ],
)
def test_bfloat16_is_fast_where_tensorflow_uses_instructions_for_it(found, name, instructions, is_fast):
    answer = on_processor(found, with_onednn=True)
    assert (found.name, found.bfloat16, answer.is_fast) == (name, instructions, is_fast)
    assert answer.reason.startswith(f"{name} has {instructions or 'none of amx_bf16, avx512_bf16, bf16'}")


@pytest.mark.parametrize(
    "found",
    [
        from_cpuinfo(""),
        from_cpuinfo("\n\n"),
        from_cpuinfo(POWER),
        from_sysctl(""),
        from_sysctl("sysctl: no"),
        from_numpy("this processor", {"ASIMD": True}),
    ],
)
def test_a_processor_that_tells_nothing_is_unknown(found):
    assert (found.flags, found.bfloat16) == (None, "")
    answer = on_processor(found, with_onednn=True)
    assert (answer.is_fast, answer.reason) == (False, "the instructions of this processor are unknown")


@pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64", reason="compares NumPy with Linux on x86"
)
def test_numpy_knows_the_instructions_that_linux_lists():
    here, asked = hardware.processor(), from_numpy("this processor", compat.cpu_features())
    for flag in ("avx2", "avx512f", "avx512_bf16"):
        assert (flag in asked.flags) == (flag in here.flags), flag


def test_only_tensorflow_with_onednn_uses_the_instructions(monkeypatch):
    answer = on_processor(from_cpuinfo(EPYC), with_onednn=False)
    assert (answer.is_fast, answer.reason) == (
        False,
        "AMD EPYC has avx512_bf16, which only TensorFlow with oneDNN uses",
    )
    monkeypatch.setattr(hardware, "processor", lambda: from_cpuinfo(EPYC))
    monkeypatch.setattr(hardware, "gpu", lambda: None)
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
    assert hardware.bfloat16().is_fast
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    assert not hardware.bfloat16().is_fast


@pytest.mark.parametrize(
    ("machine", "named", "expected"),
    [("x86_64", None, "1"), ("AMD64", None, "1"), ("x86_64", "0", "0"), ("aarch64", None, None)],
)
def test_tensorflow_computes_with_onednn_on_every_x86_processor(monkeypatch, machine, named, expected):
    """TensorFlow itself leaves oneDNN out on processors whose latest instructions are AVX2."""
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", named or "")
    if named is None:
        monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS")
    importlib.reload(fmnist_exp)
    assert os.environ.get("TF_ENABLE_ONEDNN_OPTS") == expected


def test_the_backend_of_a_run_says_that_it_lacks_onednn(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "1")
    assert "oneDNN" not in setup.version()
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    assert setup.version().endswith(" without oneDNN")


def test_the_backend_of_a_run_says_how_onednn_is_limited(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "avx2")
    assert setup.version().endswith(" with oneDNN limited to AVX2")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "DEFAULT")
    assert "oneDNN" not in setup.version()


def test_the_description_of_a_processor_tells_generations_apart_that_share_a_name():
    found = from_cpuinfo(EPYC).description
    assert re.fullmatch("AMD EPYC, family 25, model 17, instructions [0-9a-f]{8}", found)
    assert from_cpuinfo(EPYC.replace("model\t\t: 17", "model\t\t: 1")).description != found
    assert from_cpuinfo(EPYC.replace("cpu family\t: 25", "cpu family\t: 26")).description != found
    assert from_cpuinfo(EPYC.replace(" avx512_bf16", "")).description != found, (
        "a virtual machine may hide instructions"
    )
    assert from_cpuinfo(EPYC.replace(" fsrm", "")).description == found, (
        "kernels name ever more flags that do not compute"
    )
    assert from_sysctl(M2).description.startswith("Apple M2, instructions ")
    assert from_cpuinfo(POWER).description == "this processor"


@pytest.mark.parametrize(
    ("system", "name", "knows_flags"),
    [("linux", "AMD EPYC", True), ("darwin", "Apple M2", True), ("win32", "Intel64 Family 6 Model 143", True)],
)
def test_each_system_is_asked_in_its_way(monkeypatch, system, name, knows_flags):
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(hardware, "_read_cpuinfo", lambda: EPYC)
    monkeypatch.setattr(hardware, "_read_sysctl", lambda: M2)
    monkeypatch.setenv("PROCESSOR_IDENTIFIER", "Intel64 Family 6 Model 143")
    found = hardware.processor.__wrapped__()
    assert (found.name, found.flags is not None) == (name, knows_flags)


@pytest.mark.parametrize(
    ("capability", "is_fast", "reason"),
    [
        ((9, 0), True, "a GPU of compute capability 9.0 has bfloat16"),
        ((8, 0), True, "a GPU of compute capability 8.0 has bfloat16"),
        ((7, 5), False, "a GPU of compute capability 7.5 has no bfloat16, which begins with 8.0"),
        ((0, 0), False, "a GPU of unknown compute capability"),
    ],
)
def test_a_gpu_decides_before_the_processor(monkeypatch, capability, is_fast, reason):
    monkeypatch.setattr(hardware, "gpu", lambda: hardware.Gpu("a GPU", capability))
    answer = hardware.bfloat16()
    assert (answer.is_fast, answer.reason) == (is_fast, reason)


def test_the_processor_of_this_machine_is_known():
    assert hardware.processor().name
    assert hardware.processor() is hardware.processor(), "it is read once"
    assert setup.threads() > 0
    assert setup.version().split()[0] == "tensorflow"
