"""Parts of several reports: a mean with its spread, and the name of the processor."""

import platform
import statistics
from collections.abc import Sequence
from pathlib import Path

CPU = Path("/proc/cpuinfo")


def spread(values: Sequence[float], digits: int) -> str:
    """Return mean ± standard deviation as text, or the value itself if there is only one."""
    mean = f"{statistics.mean(values):,.{digits}f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


def processor() -> str:
    """Return the processor's name."""
    return cpu_info().get("model name") or platform.processor() or "unknown"


def bfloat16_unit() -> str:
    """Return the name of the instructions with which the processor multiplies bfloat16 matrices."""
    flags = cpu_info().get("flags", "").split()
    units = {"amx_bf16": "AMX", "avx512_bf16": "AVX-512"}
    return next((unit for flag, unit in units.items() if flag in flags), "no unit of its own")


def cpu_info() -> dict[str, str]:
    """Return what Linux reports about its last core; an empty dictionary on other systems."""
    lines = (line.partition(":") for line in (CPU.read_text().splitlines() if CPU.exists() else []))
    return {name.strip(): value.strip() for name, _, value in lines}
