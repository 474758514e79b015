"""Build the wheel, install it into a fresh environment, import every module from there.

Several packaging designs lose modules without a word; only the built wheel shows it.
"""

import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parent.parent

CHECK = """
import importlib, pathlib, pkgutil, sys
import zo_bilevel
folder = pathlib.Path(zo_bilevel.__file__).parent
assert str(folder).startswith(sys.argv[1]), folder
found = sorted(m.name for m in pkgutil.walk_packages([str(folder)], "zo_bilevel."))
wanted = sys.argv[2].split(",")
assert found == wanted, sorted(set(found) ^ set(wanted))
for name in found:
    if not name.endswith("__main__"):
        importlib.import_module(name)
for name in zo_bilevel.__all__:
    getattr(zo_bilevel, name)
for name in ("adapters", "tasks"):
    assert importlib.util.find_spec(name) is None, f"{name} must not be a top-level package"
assert (folder / "py.typed").exists()
print(f"{len(found)} modules and {len(zo_bilevel.__all__)} names imported from the wheel")
"""


def modules() -> list[str]:
    names = []
    for base, prefix in (
        ("zo_bilevel", "zo_bilevel"),
        ("adapters", "zo_bilevel.adapters"),
        ("tasks", "zo_bilevel.tasks"),
    ):
        for path in (ROOT / base).rglob("*.py"):
            parts = path.relative_to(ROOT / base).with_suffix("").parts
            if parts[:1] in (("adapters",), ("tasks",)) and base == "zo_bilevel":
                continue
            dotted = ".".join([prefix, *(p for p in parts if p != "__init__")])
            if dotted != "zo_bilevel":
                names.append(dotted)
    return sorted(names)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        # isolated, setuptools would be installed twice, for the sdist and for the wheel
        build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, str(ROOT)]
        subprocess.run(build, check=True, capture_output=True)
        wheel = next(Path(folder).glob("*.whl"))
        environment = Path(folder).resolve() / "fresh"
        # torch is large: the fresh environment sees what this one has, all but this package
        venv.create(environment, with_pip=False, system_site_packages=False)
        python = environment / "bin" / "python"
        site = subprocess.run(
            [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        here = subprocess.run(
            [sys.executable, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        install = ["install", "--quiet", "--no-deps", str(wheel)]
        subprocess.run([sys.executable, "-m", "pip", "--python", python, *install], check=True)
        (Path(site) / "dependencies.pth").write_text(here + "\n")
        subprocess.run([python, "-c", CHECK, site, ",".join(modules())], check=True, cwd=folder)


if __name__ == "__main__":
    main()
