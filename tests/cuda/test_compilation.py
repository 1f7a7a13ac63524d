"""Every kernel compiles to PTX, and assembles without spills, for the GPUs of two generations; no GPU is needed.

It takes libNVVM and nvJitLink, which the extra ``npconv[cuda13]`` brings.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from types import SimpleNamespace

import pytest

try:
    from numba import cuda, types
    from numba.cuda.cudadrv import nvvm
except ImportError as error:
    pytest.skip(f"numba.cuda cannot be imported ({error}); pip install 'npconv[cuda13]'", allow_module_level=True)
if not nvvm.is_available():
    pytest.skip("libNVVM is missing, which compiles for CUDA; pip install 'npconv[cuda13]'", allow_module_level=True)

from npconv.kernels import cuda as folder

CAPABILITIES = ((8, 0), (9, 0))
DTYPES = ("float32", "float64", "complex64", "complex128", "int8", "int32", "uint64")
CASTS = (("float16", "float32"), ("float32", "float16"), ("int8", "int32"), ("float32", "complex128"))
NEEDS = ("registers", "bytes stack frame", "bytes spill stores", "bytes spill loads")
MAX_REGISTERS = 128
"""With more, fewer than two blocks of 256 threads would fit into the 65536 registers of a multiprocessor."""


def array(dtype, axes, layout="C"):
    return types.Array(getattr(types, dtype), axes, layout)


integer, three = types.int64, types.UniTuple(types.int64, 3)


def signatures(dtype):
    """The kernels' argument types, as they are when everything is in one dtype."""
    return {
        "elementwise.pad": (array(dtype, 5, "A"), three, integer, array(dtype, 5)),
        "elementwise.clear": (array(dtype, 2),),
        "elementwise.add": (array(dtype, 2), array(dtype, 2)),
        "elementwise.add_bias": (array(dtype, 1), array(dtype, 5)),
        "loop.slide": (array(dtype, 5), array(dtype, 5), array(dtype, 5), three, three, integer, integer),
        "flatten.gather": (array(dtype, 3), three, three, three, three, array(dtype, 2)),
        "flatten.product": (array(dtype, 2), array(dtype, 3), integer, types.boolean, integer, array(dtype, 2)),
        "im2col.gather": (array(dtype, 5), three, three, three, three, array(dtype, 3)),
        "im2col.product": (array(dtype, 3), array(dtype, 4), integer, array(dtype, 4)),
    }


def kernels():
    """Every kernel of the folder by name, found by looking."""
    found = {}
    for info in pkgutil.iter_modules(folder.__path__):
        module = importlib.import_module(f"{folder.__name__}.{info.name}")
        for name, value in vars(module).items():
            options = getattr(value, "targetoptions", None)
            if options is not None and not options.get("device") and value.py_func.__module__ == module.__name__:
                found[f"{info.name}.{name}"] = value.py_func
    return found


KERNELS = kernels()


@pytest.fixture
def compile_ptx(monkeypatch):
    def compile_(name, signature, capability):
        # Numba compiles the functions that a kernel calls for the device at hand.
        device = SimpleNamespace(compute_capability=capability)
        monkeypatch.setattr("numba.cuda.dispatcher.get_current_device", lambda: device)
        return cuda.compile_ptx(KERNELS[name], signature, cc=capability)[0]

    return compile_


def target(capability):
    return "sm_{}{}".format(*capability)


def assemble(ptx, capability):
    """Make machine code, and return what the assembler says that a thread of it needs."""
    core = pytest.importorskip("cuda.core", reason="cuda.core is missing; pip install 'npconv[cuda13]'")
    options = core.LinkerOptions(arch=target(capability), verbose=True)
    linker = core.Linker(core.ObjectCode.from_ptx(ptx.encode()), options=options)
    linker.link("cubin")
    log = linker.get_info_log()
    return {what: int(re.search(rf"(\d+) {what}", log)[1]) for what in NEEDS}


def test_no_kernel_is_left_out():
    assert set(KERNELS) == set(signatures("float32"))


@pytest.mark.parametrize("name", signatures("float32"))
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("capability", CAPABILITIES, ids=target)
def test_ptx(name, dtype, capability, compile_ptx):
    ptx = compile_ptx(name, signatures(dtype)[name], capability)
    assert f".target {target(capability)}" in ptx
    assert re.search(rf"\.entry \w*{name.split('.')[1]}", ptx)
    assert (".shared" in ptx) == (name == "im2col.product")
    assert not re.search(r"\.local .*depot", ptx), "an array is in memory that should be in registers"


@pytest.mark.parametrize(("source", "to"), CASTS)
def test_casts(source, to, compile_ptx):
    signature = (array(source, 5, "A"), three, integer, array(to, 5))
    assert ".entry" in compile_ptx("elementwise.pad", signature, CAPABILITIES[0])


@pytest.mark.parametrize("name", signatures("float32"))
@pytest.mark.parametrize("capability", CAPABILITIES, ids=target)
def test_machine_code(name, capability, compile_ptx):
    needs = assemble(compile_ptx(name, signatures("float32")[name], capability), capability)
    print(name, target(capability), needs)  # to be seen with pytest -rP
    assert needs.pop("registers") <= MAX_REGISTERS
    assert not any(needs.values()), needs
