"""The figures of the chips that programs are planned for. Bytes and rates are decimal and of one chip.

Sources. TPUs: Google's pages "TPU architecture", one a version (peak, memory, bandwidth; the rate of the links is the
sum over a chip's links in one direction); the clock is the peak divided by the operations of a cycle in all matrix
units; data-centre network: 25, 50 or 100 Gbit/s a chip, as hosts are attached. v2 and v3: Jouppi et al. 2020. GPUs:
NVIDIA's data sheets, products without sparsity; what a compiler is told of a GPU: the CUDA occupancy tables of the
compute capability, and the figures that openxla/xla lists in `xla/backends/gpu/target_config/specs`. Networks between
GPU hosts are those of NVIDIA's reference systems: 400 Gbit/s a GPU for H100 and H200, 200 for A100, 25 for A6000.
"""

import dataclasses

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class GpuLimits:
    """What XLA must know of a GPU to compile for it. Bytes, except where a name says otherwise."""

    capability: tuple[int, int]
    cores: int  # streaming multiprocessors
    fpus_per_core: int
    threads_per_core: int
    shared_per_core: int
    shared_per_block: int  # the most that a kernel may ask for
    l2: int
    clock_ghz: float
    accelerated: bool = False  # instructions of this generation only, as sm_90a


@dataclasses.dataclass(frozen=True)
class Chip:
    """What a chip can do at best. `devices` are JAX devices of a chip: each has its share of every figure."""

    title: str
    platform: str  # JAX's name: "tpu" | "cuda"
    memory_bytes: int
    usable_bytes: int  # what a program gets: all but the system's part on TPUs, JAX's default share on GPUs
    bf16_flops: float
    float32_flops: float  # products at matmul_precision "highest"
    float32_fast_flops: float  # at "default": one pass of bfloat16 on TPUs, TF32 on GPUs
    memory_bandwidth: float
    link_bandwidth: float  # to neighbours in a slice or host, one direction
    network_bandwidth: float  # to other slices or hosts, one direction
    clock_hz: float | None = None  # of TPUs, whose compiler counts cycles
    devices: int = 1
    gpu: GpuLimits | None = None

    def flops(self, dtype: str, precision: str) -> float:
        """Operations a second of one device's matrix products, for a compute type and a `matmul_precision`."""
        if dtype == "bfloat16":
            return self.bf16_flops / self.devices
        return (self.float32_flops if precision == "highest" else self.float32_fast_flops) / self.devices


def _tpu(title, gib, tflops, gb_a_second, link_gbit, network_gbit, clock_ghz, devices=1) -> Chip:
    # "highest" splits a float32 into three bfloat16 and multiplies six pairs of them.
    return Chip(
        title=title,
        platform="tpu",
        memory_bytes=gib * GIB,
        usable_bytes=int((gib - 0.25) * GIB),  # the compiler's own limit: 15.75 of v5e's 16
        bf16_flops=tflops * 1e12,
        float32_flops=tflops * 1e12 / 6,
        float32_fast_flops=tflops * 1e12,
        memory_bandwidth=gb_a_second * 1e9,
        link_bandwidth=link_gbit * 1e9 / 8,
        network_bandwidth=network_gbit * 1e9 / 8,
        clock_hz=clock_ghz * 1e9 if clock_ghz else None,
        devices=devices,
    )


def _gpu(title, memory_bytes, bf16, float32, tf32, gb_a_second, link_gb, network_gbit, limits) -> Chip:
    return Chip(
        title=title,
        platform="cuda",
        memory_bytes=memory_bytes,
        usable_bytes=int(0.75 * memory_bytes),  # XLA_PYTHON_CLIENT_MEM_FRACTION, unless the user sets it
        bf16_flops=bf16 * 1e12,
        float32_flops=float32 * 1e12,
        float32_fast_flops=tf32 * 1e12,
        memory_bandwidth=gb_a_second * 1e9,
        link_bandwidth=link_gb * 1e9,
        network_bandwidth=network_gbit * 1e9 / 8,
        gpu=limits,
    )


_HOPPER = GpuLimits((9, 0), 132, 128, 2048, 233_472, 232_448, 52_428_800, 1.98, accelerated=True)
_A100 = GpuLimits((8, 0), 108, 64, 2048, 167_936, 166_912, 41_943_040, 1.41)
_A6000 = GpuLimits((8, 6), 84, 128, 1536, 102_400, 101_376, 6_291_456, 1.8)

CHIPS = {
    "v2": _tpu("TPU v2", 16, 46, 700, 4 * 496, 25, 0.7, devices=2),
    "v3": _tpu("TPU v3", 32, 123, 900, 4 * 656, 25, 0.94, devices=2),
    "v4": _tpu("TPU v4", 32, 275, 1228, 2400, 50, 1.05),
    "v5e": _tpu("TPU v5e", 16, 197, 819, 1600, 25, 1.5),
    "v5p": _tpu("TPU v5p", 95, 459, 2765, 4800, 50, 1.75),
    "v6e": _tpu("TPU v6e", 32, 918, 1640, 3584, 100, 1.75),
    "tpu7x": _tpu("TPU7x", 192, 2307, 7380, 4800, 100, None, devices=2),
    "a100": _gpu("NVIDIA A100-SXM4-80GB", 85_100_068_864, 312, 19.5, 156, 2039, 300, 200, _A100),
    "a6000": _gpu("NVIDIA RTX A6000", 51_041_271_808, 154.8, 38.7, 77.4, 768, 32, 25, _A6000),
    "h100": _gpu("NVIDIA H100 80GB HBM3", 84_942_979_072, 989.4, 66.9, 494.7, 3352, 450, 400, _HOPPER),
    "h200": _gpu("NVIDIA H200", 151_397_597_184, 989.4, 66.9, 494.7, 4800, 450, 400, _HOPPER),
}

# JAX's names of devices, where they are not the titles above
_KINDS = {
    "TPU v5 lite": "v5e",
    "TPU v5": "v5p",
    "TPU v6 lite": "v6e",
    "NVIDIA A100-SXM4-40GB": "a100",
    "NVIDIA H100": "h100",
}


def of_kind(device_kind: str) -> Chip | None:
    """The chip of a JAX device; None when it is not in the table."""
    by_title = {chip.title: chip for chip in CHIPS.values()}
    return by_title.get(device_kind) or CHIPS.get(_KINDS.get(device_kind, ""))


def gpu_target(chip: Chip) -> str:
    """XLA's description of a GPU, in the text form of the protobuf `GpuTargetConfigProto`."""
    of = chip.gpu
    major, minor = of.capability
    extension = " feature_extension: ACCELERATED_FEATURES" if of.accelerated else ""
    fields = {
        "threads_per_block_limit": 1024,
        "threads_per_warp": 32,
        "shared_memory_per_block": 49_152,
        "shared_memory_per_core": of.shared_per_core,
        "threads_per_core_limit": of.threads_per_core,
        "core_count": of.cores,
        "fpus_per_core": of.fpus_per_core,
        "block_dim_limit_x": 2**31 - 1,
        "block_dim_limit_y": 65_535,
        "block_dim_limit_z": 65_535,
        "memory_bandwidth": int(chip.memory_bandwidth),
        "l2_cache_size": of.l2,
        "clock_rate_ghz": of.clock_ghz,
        "device_memory_size": chip.memory_bytes,
        "shared_memory_per_block_optin": of.shared_per_block,
        "registers_per_core_limit": 65_536,
        "registers_per_block_limit": 65_536,
    }
    lines = "\n".join(f"  {name}: {value}" for name, value in fields.items())
    capability = f"  cuda_compute_capability {{ major: {major} minor: {minor}{extension} }}"
    version = "dnn_version_info { major: 9 minor: 10 patch: 0 }"
    return (
        f"gpu_device_info {{\n{lines}\n{capability}\n}}\n"
        f'platform_name: "CUDA"\n{version}\ndevice_description_str: "{chip.title}"\n'
    )
