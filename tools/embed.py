"""Write a binary file as a C array, for the dictionary that the library carries.

Usage: embed.py INPUT OUTPUT
"""

from __future__ import annotations

import sys
from pathlib import Path


def c_array(data: bytes, name: str) -> str:
    """Return C source of a `static const unsigned char` array."""
    rows = (data[i : i + 16] for i in range(0, len(data), 16))
    body = ",\n".join("    " + ", ".join(f"0x{b:02x}" for b in row) for row in rows)
    return f"static const unsigned char {name}[{len(data)}] = {{\n{body}\n}};\n"


if __name__ == "__main__":
    source, output = sys.argv[1:3]
    name = Path(output).stem
    Path(output).write_text(c_array(Path(source).read_bytes(), name), encoding="ascii")
