"""Cut the cffi declarations out of the headers, so that there is one copy of them.

Usage: gen_cdef.py HEADER... OUTPUT
"""

from __future__ import annotations

import re
import sys
from pathlib import Path


def cdef_from_header(header: str) -> str:
    """Return what stands between the cdef markers, without comments and attribute macros."""
    begin = header.index("/* cdef-begin")
    end = header.index("/* cdef-end")
    text = re.sub(r"/\*.*?\*/", "", header[begin:end], flags=re.DOTALL)
    text = re.sub(r"\b(VEV_API|VEV_MUST_CHECK)\b\s*", "", text)
    return re.sub(r"\n\s*\n+", "\n", text).strip() + "\n"


if __name__ == "__main__":
    *sources, output = sys.argv[1:]
    parts = [cdef_from_header(Path(source).read_text(encoding="utf-8")) for source in sources]
    Path(output).write_text("".join(parts))
