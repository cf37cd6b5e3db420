"""What the reports of several benchmarks share: a mean with its spread, and the processor."""

import platform
import statistics
from collections.abc import Sequence
from pathlib import Path

CPU = Path("/proc/cpuinfo")


def spread(values: Sequence[float], digits: int) -> str:
    """Mean ± standard deviation; of a single value, the value."""
    mean = f"{statistics.mean(values):,.{digits}f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


def processor() -> str:
    return told().get("model name") or platform.processor() or "unknown"


def bfloat16_unit() -> str:
    """What the processor multiplies matrices of bfloat16 with."""
    flags = told().get("flags", "").split()
    units = {"amx_bf16": "AMX", "avx512_bf16": "AVX-512"}
    return next((unit for flag, unit in units.items() if flag in flags), "no unit of its own")


def told() -> dict[str, str]:
    """What Linux says of a core; nothing elsewhere."""
    lines = (line.partition(":") for line in (CPU.read_text().splitlines() if CPU.exists() else []))
    return {name.strip(): value.strip() for name, _, value in lines}
