"""The virtual environments of the peers."""

import subprocess
import sys
from pathlib import Path

# torch from pip, not from uv, which would take the CUDA build.
PACKAGES = {
    "torch": ["torch==2.13.0", "transformers>=5,<6", "onnx", "onnxscript", "onnxruntime", "sympy"],
    "flax": [
        "transformers==4.49.0",
        "jax==0.4.38",
        "jaxlib==0.4.38",
        "flax==0.10.2",
        "optax==0.2.4",
        "numpy<2.3",
    ],
    "servers": [
        "torch==2.13.0",
        "sentence-transformers==6.2.0",
        "fastapi",
        "uvicorn[standard]",
        "aiohttp",
        "uvloop",
    ],
    # It calls what transformers 5, and newer releases of its command line's libraries, have not.
    "infinity": [
        "torch==2.13.0",
        "infinity-emb[server,torch]==0.0.78",
        "transformers<4.50",
        "typer<0.16",
        "click<8.2",
    ],
    "keras": ["keras-hub==0.32.0", "keras==3.15.1", "jax==0.10.2", "optax", "safetensors"],
}


def make(folder: Path) -> int:
    """Makes those that are not there; `folder/NAME` each."""
    for name, packages in PACKAGES.items():
        if (folder / name / ".installed").exists():
            continue
        print(f"{folder / name}: {' '.join(packages)}", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", folder / name], check=True)
        python = python_of(name, folder)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
        (folder / name / ".installed").touch()
    return 0


def python_of(name: str, folder: Path) -> str:
    """The interpreter of an environment; "ours" is this one."""
    return sys.executable if name == "ours" else str(folder / name / "bin" / "python")
