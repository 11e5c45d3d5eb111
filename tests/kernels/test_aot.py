"""Every kernel compiles for an H200 (compute capability 9.0) on a machine without one."""

import ast
import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import pytest

import epidote_kernels
from epidote_kernels import aot

pytest.importorskip("triton", reason="triton is not installed")
# a machine whose cache is empty compiles a hundred forms
pytestmark = pytest.mark.timeout(1200)

PACKAGE = pathlib.Path(epidote_kernels.__file__).parent
# what these multiply has rows enough for a 64-row instruction where the form's name says so
MATRIX_KERNELS = {
    *("paged_prefill_kernel", "vision_attention_kernel", "query_lse_kernel", "column_sums_kernel"),
    *("moe_gate_up_kernel", "moe_down_kernel"),
}
READERS_OF_LENGTHS = {
    *("paged_decode_kernel", "merge_parts_kernel", "paged_prefill_kernel", "rope_kv_write_kernel"),
    *("vision_attention_kernel", "query_lse_kernel", "column_sums_kernel", "pool_scores_kernel"),
    *("move_blocks_kernel", "quantize_blocks_kernel", "dequantize_blocks_kernel"),
    "copy_blocks_kernel",
}
SHARED_BYTES_OF_SM_90 = 227 * 1024  # per block; CUDA programming guide, table of capabilities
# bf16 in every form, the others once per kernel: a form is about a second
CODE = """
import json
from epidote_kernels import aot

def line(built):
    return {
        "kernel": built.form.kernel.__name__, "form": built.form.name, "number": built.number,
        "cubin": built.cubin[:4].decode("latin1"), "shared_bytes": built.shared_bytes,
        "wgmma": "wgmma" in built.ptx,
        "wide": built.ptx.count("ld.global.v4.b32"), "narrow": built.ptx.count("ld.global.b16"),
    }

wanted = [("bf16", form) for form in aot.forms("bf16")]
wanted += [(number, form) for number in ("fp16", "fp32") for form in aot.one_form_each(number)]
print(json.dumps([line(aot.build(form, number)) for number, form in wanted]))
"""


@pytest.fixture(scope="module")
def built() -> list[dict[str, Any]]:
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=1140,
    )
    assert done.returncode == 0, done.stderr
    lines: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return lines


@pytest.mark.slow
def test_every_form_has_machine_code_and_fits_shared_memory(built: list[dict[str, Any]]) -> None:
    assert built
    for line in built:
        assert line["cubin"] == "\x7fELF", line
        assert line["shared_bytes"] <= SHARED_BYTES_OF_SM_90, line


@pytest.mark.slow
def test_every_kernel_is_built_in_every_type(built: list[dict[str, Any]]) -> None:
    wanted = {(kernel, number) for kernel in kernels() for number in ("bf16", "fp16", "fp32")}
    assert {(line["kernel"], line["number"]) for line in built} == wanted


@pytest.mark.slow
def test_blocks_are_moved_sixteen_bytes_at_a_time(built: list[dict[str, Any]]) -> None:
    """Sizes are multiples of 16, which the check must say as the launch does: else loads of two."""
    moving = [
        line for line in built if line["kernel"] in ("copy_blocks_kernel", "move_blocks_kernel")
    ]
    assert moving
    for line in moving:
        assert line["wide"] >= 4, line
        assert line["narrow"] == 0, line


@pytest.mark.slow
def test_long_queries_use_hoppers_matrix_instruction(built: list[dict[str, Any]]) -> None:
    long = [
        line
        for line in built
        if line["kernel"] in MATRIX_KERNELS
        and line["number"] != "fp32"
        and int(line["form"].rpartition("rows=")[2]) >= 64
    ]
    assert {line["kernel"] for line in long} == MATRIX_KERNELS
    assert all(line["wgmma"] for line in long), long


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["bf17"], "choose from"),
        (["bf16", "9"], "choose from"),
        (["bf16", "ninety"], "invalid int"),
        (["--help"], "example: python -m epidote_kernels.aot"),
    ],
)
def test_what_the_command_does_not_know_is_answered_with_what_it_does(
    given: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        aot.main(given)
    assert ended.value.code == (0 if given == ["--help"] else 2)
    said = capsys.readouterr()
    assert told in said.out + said.err


@pytest.mark.slow
def test_a_capability_without_e4m3_is_compiled_for_without_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    aot.main(["fp16", "80", "--kernel", "unpack_blocks"])
    plain, int8, e4m3 = capsys.readouterr().out.splitlines()
    assert " B code" in plain
    assert " B code" in int8
    assert e4m3.endswith("e4m3 begins with 89")


def jit_functions() -> dict[str, pathlib.Path]:
    """Every function of the package under `@triton.jit`, as the sources say."""
    found: dict[str, pathlib.Path] = {}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and any(
                ast.unparse(decorator).startswith("triton.jit") for decorator in node.decorator_list
            ):
                found[node.name] = path
    return found


def launched() -> set[str]:
    """Every name that some source launches: `name[grid](...)`."""
    return {
        node.func.value.id
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Subscript)
        and isinstance(node.func.value, ast.Name)
    }


def kernels() -> set[str]:
    return {name for name in jit_functions() if name.endswith("_kernel")}


def test_a_name_tells_kernels_from_their_helpers() -> None:
    """So that no kernel can be launched without being in the ahead-of-time list."""
    assert kernels()
    assert {name for name in launched() if name in jit_functions()} == kernels()


def test_no_kernel_compiles_anew_for_where_a_batchs_lengths_lie() -> None:
    """An engine passes parts of its buffers, and their addresses' alignment changes every step."""
    from epidote_kernels.launching import INDEX_POINTERS

    checked = set()
    for form in aot.one_form_each("bf16"):
        if form.kernel.__name__ not in READERS_OF_LENGTHS:
            continue
        for parameter in form.kernel.params:
            if parameter.name in INDEX_POINTERS:
                assert parameter.do_not_specialize_on_alignment, (form.name, parameter.name)
                checked.add(parameter.name)
    assert checked == set(INDEX_POINTERS)


def test_no_kernel_compiles_anew_for_the_size_of_a_batch() -> None:
    sizes = {
        *("num_units", "num_rows", "num_tokens", "num_pairs", "num_runs", "num_tiles", "tiles"),
        *("row_tiles", "key_tiles", "num_splits", "table_stride", "min_tiles", "num_blocks"),
    }
    checked = set()
    for form in aot.one_form_each("bf16"):
        for parameter in form.kernel.params:
            if parameter.name in sizes and not parameter.is_constexpr:
                assert parameter.do_not_specialize, (form.name, parameter.name)
                checked.add(parameter.name)
    assert checked == sizes
