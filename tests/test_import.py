"""What `import npconv` imports, and how it does without Numba. Each in a process of its own."""

import ast
import sys
import textwrap
from pathlib import Path

import pytest
from processes import python

import npconv

FRAMEWORKS = ("torch", "tensorflow", "jax", "cupy", "onnx", "onnxruntime", "dask", "scipy")
HEAVY = ("numba", "llvmlite", "ml_dtypes", "matplotlib", "PIL", "rich")


def imported_by(code):
    return {line.partition(".")[0] for line in python(f"{code}\nimport sys; print(*sys.modules, sep='\\n')")}


def test_import_imports_numpy_alone():
    extra = imported_by("import npconv") - imported_by("import numpy")
    foreign = {name for name in extra if name not in sys.stdlib_module_names and not name.startswith("_")}
    assert foreign == {"npconv"}
    assert not extra & {*FRAMEWORKS, *HEAVY}


def test_the_numpy_backend_imports_neither():
    modules = imported_by("""
import numpy as np, npconv
npconv.conv2d(np.ones((4, 4)), np.ones((2, 2)), backend="numpy")
print(npconv.explain("conv2d", (4, 4), (2, 2), backend="numpy"))
""")
    assert not modules & {*FRAMEWORKS, *HEAVY}


def test_the_numba_backend_imports_numba_and_no_framework():
    modules = imported_by("""
import numpy as np, npconv
npconv.conv2d(np.ones((4, 4)), np.ones((2, 2)), backend="numba")
""")
    assert "numba" in modules
    assert not modules & set(FRAMEWORKS) - {"scipy"}  # which Numba looks at where it is installed


def test_a_torch_tensor_does_not_make_npconv_import_torch():
    """npconv's sources name no framework in an import."""
    for path in Path(npconv.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            found = {name.partition(".")[0] for name in names} & {"torch", "tensorflow", "jax", "cupy"}
            assert not found, f"{path.name} imports {found}"


# Three ways of having no Numba that works.
ABSENT = {
    "none in sys.modules": """
        import sys
        sys.modules["numba"] = None
    """,
    "a finder that refuses": """
        import sys
        class Refuse:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] == "numba":
                    raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        sys.meta_path.insert(0, Refuse())
    """,
    "installed, but broken": """
        import pathlib, sys, tempfile
        folder = pathlib.Path(tempfile.mkdtemp())
        (folder / "numba").mkdir()
        (folder / "numba" / "__init__.py").write_text("raise ImportError('Numba needs NumPy 1.0 or less')")
        sys.path.insert(0, str(folder))
    """,
}


@pytest.fixture(params=ABSENT)
def without_numba(request):
    return textwrap.dedent(ABSENT[request.param])


def test_without_numba_auto_computes_and_warns_once(without_numba):
    lines = python(f"""{without_numba}
import warnings
import numpy as np, npconv
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    print(npconv.conv2d(np.ones((4, 4)), np.ones((2, 2)))[0, 0])
    print(npconv.conv1d(np.ones((1, 1, 4)), np.ones((1, 1, 2)), algorithm="loop")[0, 0, 0])
    print(npconv.explain("conv3d", (1, 2, 2, 2), (1, 1, 2, 2, 2)).backend)
    print(npconv.conv2d(np.ones((1, 1, 9, 9)), np.ones((1, 1, 3, 3)), backend="numpy")[0, 0, 0, 0])
print(len(caught), caught[0].category.__name__, caught[0].filename)
print(caught[0].message)
""")
    assert lines[:5] == ["4.0", "2.0", "numpy", "9.0", "1 RuntimeWarning <string>"]
    assert "Numba" in lines[5]
    assert "NumPy" in lines[5]


def test_without_numba_the_numpy_backend_does_not_warn(without_numba):
    code = 'import numpy as np, npconv\nnpconv.conv2d(np.ones((4, 4)), np.ones((2, 2)), backend="numpy")'
    assert python(without_numba + code, "-W", "error") == []  # and the process ended well


def test_without_numba_its_backend_says_so(without_numba):
    lines = python(f"""{without_numba}
import numpy as np, npconv
try:
    npconv.conv2d(np.ones((4, 4)), np.ones((2, 2)), backend="numba")
except ValueError as error:
    print(error)
try:
    npconv.conv2d(np.ones((4, 4)), np.ones((2, 2)), backend="cuda")
except npconv.CudaUnavailableError as error:
    print(error)
import warnings
warnings.simplefilter("ignore")
for algorithm in ("winograd2", "none"):
    try:
        npconv.conv2d(np.ones((4, 4)), np.ones((2, 2)), algorithm=algorithm)
    except ValueError as error:
        print(error)
""")
    assert len(lines) == 4
    assert "backend 'numba' cannot run here" in lines[0]
    assert "backend='numpy'" in lines[0]
    assert "backend 'cuda' cannot run here" in lines[1]
    assert "algorithm 'winograd2' cannot run here: Numba " in lines[2]
    assert "'none'" in lines[3]
    assert "cannot run here" not in lines[3]


def test_warnings_point_at_packages_of_like_names(tmp_path):
    """A folder next to npconv's whose name begins with npconv is somebody else's."""
    other = tmp_path / "npconv_x.py"
    other.write_text("from npconv import errors\ndef run():\n    errors.warn('here')\n")
    code = f"""
import sys, types, warnings
import npconv
beside = npconv.__path__[0] + "_x.py"
module = types.ModuleType("npconv_x")
exec(compile(open({str(other)!r}).read(), beside, "exec"), module.__dict__)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    module.run()
print(caught[0].filename == beside)
"""
    assert python(code) == ["True"]


def test_without_numba_one_can_still_look_inside(without_numba):
    lines = python(f"""{without_numba}
import npconv
print(npconv.algorithms())
print(npconv.show_config())
with npconv.threads(1):
    print(npconv.get_num_threads())
""")
    rows = [line.split() for line in lines if line.startswith("im2col")]
    assert {row[1]: "yes" in row for row in rows} == {"numba": False, "numpy": True, "cuda": False}
    assert lines[-1] == "1"
