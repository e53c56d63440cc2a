"""What pynetdicom does by itself: each object is written as it came, with its meta group; nothing is synced or hashed.

``python -m tests.bench.plain_pynetdicom PORT FOLDER``.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pydicom.filebase import DicomIO
from pydicom.filewriter import write_file_meta_info
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.presentation import VerificationPresentationContexts


def main() -> None:
    """Serve until killed."""
    folder = Path(sys.argv[2])

    def store(event: evt.Event) -> int:
        request = event.request
        assert isinstance(request, C_STORE) and request.DataSet is not None
        with (folder / str(request.AffectedSOPInstanceUID)).open("wb") as out:
            out.write(b"\0" * 128 + b"DICM")
            write_file_meta_info(DicomIO(out), event.file_meta)
            out.write(request.DataSet.getvalue())
        return 0x0000

    ae = AE()
    ae.maximum_pdu_size = 131_072
    ae.supported_contexts = [*AllStoragePresentationContexts, *VerificationPresentationContexts]
    ae.start_server(("127.0.0.1", int(sys.argv[1])), block=True, evt_handlers=[(evt.EVT_C_STORE, store)])


if __name__ == "__main__":
    main()
