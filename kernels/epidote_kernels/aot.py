"""This file is about compiling every kernel for a GPU that is not there.

It shows that each kernel builds with the constants its wrapper would choose, and what it needs of a
multiprocessor; not that it is right or fast. Run it without `TRITON_INTERPRET`:

    python -m epidote_kernels.aot            # a table for compute capability 9.0 (H100, H200)
    python -m epidote_kernels.aot fp16 80    # one number type, another capability
    python -m epidote_kernels.aot bf16 --kernel paged_decode
"""

import argparse
import importlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from epidote_kernels.launching import INTERPRETED, Form

NUMBERS = ("bf16", "fp16", "fp32")
# sizes of rows, multiples of 16 in every model: Triton sees it when it launches, and widens loads
MULTIPLES = ("size", "depth", "inner", "num_columns", "dim", "vocab")
CAPABILITIES = (80, 86, 89, 90, 100, 103, 120)
E4M3_SINCE = 89
MODULES = (
    "attention_scores",
    "blocks",
    "fused_moe",
    "moe_routing",
    "norms",
    "packed_blocks",
    "paged_decode_attention",
    "paged_prefill_attention",
    "quantized_linear",
    "replica_slots",
    "rope_kv_write",
    "sampling",
    "silu_mul",
    "vision_attention",
)


@dataclass(frozen=True, kw_only=True)
class Built:
    """What came out. `cubin` is the device's machine code, `ptx` the assembly before it."""

    form: Form
    number: str
    cubin: bytes
    ptx: str
    shared_bytes: int


def forms(number: str) -> Iterator[Form]:
    """Every form of every kernel of the package for numbers of type `number`."""
    for module in MODULES:
        yield from importlib.import_module(f"epidote_kernels.{module}").forms(number)


def one_form_each(number: str) -> Iterator[Form]:
    """The first form of every kernel."""
    seen: set[str] = set()
    for form in forms(number):
        name = form.kernel.__name__
        if name not in seen:
            seen.add(name)
            yield form


def build(form: Form, number: str, capability: int = 90) -> Built:
    """Compile one form with the bundled assembler. Tenths of a second; triton caches the result.

    Raises:
        RuntimeError: this process runs kernels in the interpreter, which replaces the compiler.
    """
    if INTERPRETED:
        raise RuntimeError("TRITON_INTERPRET: is 1, unset it to compile")
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = form.kernel.arg_names
    signature = {name: form.types.get(name, "constexpr") for name in names}
    # torch's allocations and the rows in them start at multiples of 16 bytes, as at run time
    aligned = {
        (place,): [["tt.divisibility", 16]]
        for place, name in enumerate(names)
        if not form.kernel.params[place].do_not_specialize
        and not form.kernel.params[place].do_not_specialize_on_alignment
        and (
            signature[name].startswith("*")
            or name.endswith("_stride")
            or (name in MULTIPLES and signature[name] != "constexpr")
        )
    }
    source = ASTSource(form.kernel, signature, dict(form.constants), aligned)
    options = {"num_warps": form.num_warps, "num_stages": form.num_stages}
    compiled: Any = triton.compile(
        source, target=GPUTarget("cuda", capability, 32), options=options
    )
    return Built(
        form=form,
        number=number,
        cubin=compiled.asm["cubin"],
        ptx=compiled.asm["ptx"],
        shared_bytes=compiled.metadata.shared,
    )


def main(arguments: list[str]) -> None:
    """Print one line per form."""
    parser = argparse.ArgumentParser(
        prog="python -m epidote_kernels.aot",
        description="Compile every kernel for a GPU that need not be there.",
        epilog="example: python -m epidote_kernels.aot bf16 90 --kernel paged_decode",
    )
    parser.add_argument("number", nargs="?", choices=NUMBERS, help="all of them by default")
    parser.add_argument(
        "capability", nargs="?", type=int, default=90, choices=CAPABILITIES,
        help="90, the default, is 9.0: H100, H200",
    )  # fmt: skip
    parser.add_argument("--kernel", default="", help="only forms whose name contains this")
    chosen = parser.parse_args(arguments)
    if INTERPRETED:
        parser.error("TRITON_INTERPRET: is 1, unset it to compile")
    for number in [chosen.number] if chosen.number else NUMBERS:
        for form in forms(number):
            if chosen.kernel not in form.name:
                continue
            if "*fp8e4nv" in form.types.values() and chosen.capability < E4M3_SINCE:
                print(f"{number}  {form.name:44s} e4m3 begins with {E4M3_SINCE}")
                continue
            built = build(form, number, chosen.capability)
            matrix = "wgmma" if "wgmma" in built.ptx else "mma" if "mma.sync" in built.ptx else "-"
            print(
                f"{number}  {form.name:44s} {len(built.cubin):7d} B code  "
                f"{built.shared_bytes:6d} B shared  {form.num_warps} warps  {matrix}"
            )


if __name__ == "__main__":
    main(sys.argv[1:])
