from typing import Any

# Made by cffi from csrc/include/vevents/vevents.h; its types are not known to Python.
ffi: Any
lib: Any
