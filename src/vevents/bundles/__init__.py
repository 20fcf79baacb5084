"""Events as files: one archive with its images for each event, to be carried over an air gap.

    log -> export -> event_*.tar.gz -> import -> another log, or the API
                  <- receipt_*.json <-

The archives are those of Roboflow's own bundle block (format version 1), in both directions.
"""

from __future__ import annotations

from vevents.archive import BUNDLE_SIZE_MAX, BundleError, pack, unpack
from vevents.bundles.export import Exporter, ExportReport
from vevents.bundles.intake import ImportReport
from vevents.bundles.load import Importer
from vevents.bundles.upload import Uploader

__all__ = [
    "BUNDLE_SIZE_MAX",
    "BundleError",
    "ExportReport",
    "Exporter",
    "ImportReport",
    "Importer",
    "Uploader",
    "pack",
    "unpack",
]
