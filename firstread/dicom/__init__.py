"""DICOM helpers shared by intake, scoring and training: headers, pixels, Hounsfield units, geometry.

pydicom puts the offending value into its warnings and log lines, and such a value may be a patient's name. Validation
on reading is therefore off for the whole process, and its logger is silent: what matters is raised as a typed error.
"""

from __future__ import annotations

import logging
import warnings

from pydicom import config as _config

_config.settings.reading_validation_mode = _config.IGNORE
logging.getLogger("pydicom").setLevel(logging.CRITICAL)
warnings.filterwarnings("ignore", module=r"pydicom(\..*)?")
