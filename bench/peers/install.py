"""Installs peers, each from its public package into an environment of its own.

python bench/peers/install.py            all of them
python bench/peers/install.py dlt_rest   one
"""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).parent
ENVIRONMENTS = tuple(sorted(it.stem for it in HERE.glob("*.txt")))
PEERS = tuple(it for it in ENVIRONMENTS if (HERE / f"{it}.py").exists())


def python_of(peer: str) -> Path:
    """Return the interpreter that a peer runs under, which `install` has made."""
    return HERE / ".env" / peer / "bin" / "python"


def install(peer: str) -> None:
    """Make the environment of a peer anew, with the versions that its list pins."""
    venv.create(python_of(peer).parent.parent, clear=True, with_pip=True)
    pip = [python_of(peer), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "-r", HERE / f"{peer}.txt"], check=True)


if __name__ == "__main__":
    for name in sys.argv[1:] or ENVIRONMENTS:
        install(name)
        print(f"{name} is installed")
