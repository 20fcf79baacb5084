"""Where the demo's eyes and pictures come from: two packages of the extra `demo`.

OpenCV 4 brings the cascades (trained detectors, XML files inside its wheel), scikit-image brings
photographs inside its wheel. Nothing is fetched when the demo runs.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from vevents.errors import ConfigurationError

_INSTALL = "install the extra: pip install 'vevents[demo]'"


def opencv() -> Any:
    """Import OpenCV and make sure that it is one with cascades.

    Returns:
        The module `cv2`, untyped: its annotations differ from release to release.

    Raises:
        ConfigurationError: OpenCV is missing, or is a release 5, which has no cascades.
    """
    try:
        import cv2  # type: ignore[import-not-found,unused-ignore]
    except ImportError as error:
        raise ConfigurationError(f"the demo needs OpenCV 4 ({error}); {_INSTALL}") from error
    module: Any = cv2
    if not hasattr(module, "CascadeClassifier"):
        raise ConfigurationError(
            f"the demo needs OpenCV 4, but {module.__version__} is installed; {_INSTALL}"
        )
    return module


def photograph_directory() -> Path:
    """Return the folder of photographs inside the scikit-image package.

    scikit-image itself is not imported: that would cost a second and bring in scipy.

    Raises:
        ConfigurationError: scikit-image is missing.
    """
    spec = importlib.util.find_spec("skimage")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigurationError(f"the demo needs the photographs of scikit-image; {_INSTALL}")
    return Path(spec.submodule_search_locations[0]) / "data"
