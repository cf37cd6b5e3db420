"""The hardware that computes: the processor and its instructions, and whether bfloat16 is fast on it.

TensorFlow on x86 processors profits from bfloat16, and so do GPUs. Everything else counts as slow:

- TensorFlow 2.21 leaves bfloat16 to oneDNN only on processors with AVX-512, and to Eigen on all others, also on ARM
  with `bf16` (`IsDataTypeSupportedByOneDNNOnThisCPU` in its core/util/util.cc). On macOS it has no oneDNN at all. Eigen
  took six times as long for a CNN in bfloat16 as in float32.
- Without avx512_bf16 or amx_bf16, oneDNN emulates bfloat16, which takes 2.4 to 2.6 times as long as float32.
- JAX gains nothing on a processor (docs/decisions/0008-precision-and-backends.md).
"""

import functools
import hashlib
import itertools
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from fmnist_exp import compat
from fmnist_exp.backend import setup
from fmnist_exp.backend.loading import stderr_held_back

BFLOAT16_FLAGS = ("amx_bf16", "avx512_bf16", "bf16")  # as Linux writes them: two of x86, and that of ARM
VECTORS = ("sse", "ssse", "avx", "fma", "f16c", "amx", "asimd", "sve", "sme", "fp", "bf16", "i8mm")  # starts of flags
USED_BY_TENSORFLOW = ("amx_bf16", "avx512_bf16")
SYSCTL = ("/usr/sbin/sysctl", "machdep.cpu.brand_string", "hw.optional")
UNKNOWN = (0, 0)  # compute capability of a GPU whose backend does not tell it
SYSCTL_SECONDS = 5  # it answers within milliseconds


@dataclass(frozen=True)
class Processor:
    """A processor.

    Attributes:
        name: its name as the system writes it, or its maker's codes.
        flags: its instruction sets, as Linux writes them; None if the system does not tell them.
        generation: its family and model, if the system tells them apart from the name.
    """

    name: str
    flags: frozenset[str] | None
    generation: str = ""

    @property
    def description(self) -> str:
        """Its name and generation, and a digest of the instructions that compute, by which kernels are chosen."""
        parts = [self.name, *([self.generation] if self.generation else [])]
        if self.flags is not None:
            vectors = " ".join(sorted(flag for flag in self.flags if flag.startswith(VECTORS)))
            parts.append(f"instructions {hashlib.sha256(vectors.encode()).hexdigest()[:8]}")
        return ", ".join(parts)

    @property
    def bfloat16(self) -> str:
        """The first of its instruction sets for bfloat16; empty if it has none or they are unknown."""
        return next((flag for flag in BFLOAT16_FLAGS if flag in (self.flags or ())), "")


@dataclass(frozen=True)
class Gpu:
    """A GPU: its name, and its compute capability, which is UNKNOWN if the backend tells none."""

    name: str
    capability: tuple[int, int]


@dataclass(frozen=True)
class Bfloat16:
    """The answer to the question whether bfloat16 is faster than float32 in this process, with the reason in words."""

    is_fast: bool
    reason: str


def bfloat16() -> Bfloat16:
    """Return whether bfloat16 is fast in this process: on its GPU if the backend has one, or on its processor."""
    found = gpu()
    if found is None:
        return on_processor(processor(), setup.has_onednn())
    version = ".".join(map(str, found.capability))
    if found.capability == UNKNOWN:
        return Bfloat16(False, "a GPU of unknown compute capability")
    if found.capability < (8, 0):
        return Bfloat16(False, f"a GPU of compute capability {version} has no bfloat16, which begins with 8.0")
    return Bfloat16(True, f"a GPU of compute capability {version} has bfloat16")


def on_processor(found: Processor, with_onednn: bool) -> Bfloat16:
    """Return whether bfloat16 is fast on a processor.

    Args:
        found: the processor.
        with_onednn: whether the backend is TensorFlow and computes with oneDNN.
    """
    if found.flags is None:
        return Bfloat16(False, f"the instructions of {found.name} are unknown")
    if not found.bfloat16:
        return Bfloat16(False, f"{found.name} has none of {', '.join(BFLOAT16_FLAGS)}")
    if not with_onednn:
        return Bfloat16(False, f"{found.name} has {found.bfloat16}, which only TensorFlow with oneDNN uses")
    if found.bfloat16 not in USED_BY_TENSORFLOW:
        return Bfloat16(False, f"{found.name} has {found.bfloat16}, which TensorFlow does not use")
    return Bfloat16(True, f"{found.name} has {found.bfloat16}")


@functools.cache
def processor() -> Processor:
    """Return the processor of this machine."""
    if sys.platform == "linux":
        return from_cpuinfo(_read_cpuinfo())
    if sys.platform == "darwin":
        return from_sysctl(_read_sysctl())
    # Windows tells no program about bfloat16, and NumPy asks the processor itself
    return from_numpy(os.environ.get("PROCESSOR_IDENTIFIER", "this processor"), compat.cpu_features())


def from_cpuinfo(text: str) -> Processor:
    """Return the processor that the text of Linux' /proc/cpuinfo describes: the first one, as all have the same flags.

    The kernel lists an instruction set of ARM only if every core has it.
    """
    fields: dict[str, str] = {}
    for line in text.strip().partition("\n\n")[0].splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    name = fields.get("model name", "")
    if not name and "CPU implementer" in fields:
        name = f"the ARM processor {fields['CPU implementer']}/{fields.get('CPU part', '?')}"
    flags = fields.get("flags", fields.get("Features"))
    generation = (
        f"family {fields['cpu family']}, model {fields['model']}" if {"cpu family", "model"} <= set(fields) else ""
    )
    return Processor(name or "this processor", None if flags is None else frozenset(flags.split()), generation)


def from_sysctl(text: str) -> Processor:
    """Return the processor that macOS' sysctl describes: hw.optional.arm.FEAT_BF16 is Linux' bf16."""
    values = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)
    names = [name for name, value in values.items() if name.startswith("hw.optional.") and value.strip() == "1"]
    flags = frozenset(name.rpartition(".")[2].removeprefix("FEAT_").lower() for name in names)
    name = values.get("machdep.cpu.brand_string", "this processor")
    return Processor(name, flags if any(name.startswith("hw.optional.") for name in values) else None)


def from_numpy(name: str, features: Mapping[str, bool]) -> Processor:
    """Return the processor of this name that NumPy describes: its AVX512BF16 is Linux' avx512_bf16, on x86 alone.

    NumPy does not know amx_bf16, but all processors that have it have avx512_bf16 as well.
    """
    flags = {feature.lower().replace("avx512bf16", "avx512_bf16") for feature, is_there in features.items() if is_there}
    return Processor(name, frozenset(flags) if "AVX512BF16" in features else None)


def _read_cpuinfo() -> str:
    with suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        return "".join(itertools.takewhile(str.strip, file))  # a large machine has a megabyte
    return ""


def _read_sysctl() -> str:
    with suppress(OSError, subprocess.SubprocessError):  # a name that this version of macOS lacks is no failure
        done = subprocess.run(SYSCTL, capture_output=True, text=True, errors="replace", timeout=SYSCTL_SECONDS)
        return done.stdout
    return ""


def gpu() -> Gpu | None:
    """Return the first GPU of the backend, or None if it has none."""
    if not setup.on_tensorflow():
        import jax  # late: only with KERAS_BACKEND=jax

        setup.start()  # JAX takes its number of threads when it looks for devices
        device = jax.devices()[0]
        if device.platform != "gpu":
            return None
        return Gpu(str(device.device_kind), _version(str(getattr(device, "compute_capability", ""))))
    import tensorflow as tf  # late: with KERAS_BACKEND=jax it need not be installed

    with stderr_held_back():  # the search for devices prints messages
        gpus = tf.config.list_physical_devices("GPU")
        details = tf.config.experimental.get_device_details(gpus[0]) if gpus else {}
    return Gpu(details.get("device_name", "GPU"), details.get("compute_capability", UNKNOWN)) if gpus else None


def _version(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(".")
    return (int(major), int(minor)) if major.isdigit() and minor.isdigit() else UNKNOWN
