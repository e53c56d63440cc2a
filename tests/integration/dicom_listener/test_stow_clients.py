"""The STOW-RS door and clients that others wrote: dicomweb-client, curl, Orthanc's DICOMweb plug-in."""

from __future__ import annotations

import functools
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import requests
from dicomweb_client import DICOMwebClient

from dicom_listener.service import ListenerService
from firstread.dicom.sender import send_paths
from firstread.settings import Settings
from tests.builders.listening import QUICK, all_closed, listening, outcomes, rows, small_files, small_series
from tests.builders.programs import need
from tests.builders.servers import orthanc
from tests.builders.stow import CONTENT_TYPE, body_of, file_of
from tests.builders.timing import free_port

MakeSettings = Callable[..., Settings]
TOKEN = "a-token-of-this-test.0123"


@pytest.fixture
def service(make_settings: MakeSettings, broker: str) -> Iterator[ListenerService]:
    """A listener whose door wants a token."""
    settings = functools.partial(make_settings, **QUICK, broker_url=broker)
    with listening(settings(stow_port=free_port(), stow_token=TOKEN)) as running:
        yield running


def _url(service: ListenerService) -> str:
    return f"http://127.0.0.1:{service.settings.stow_port}"


def test_dicomweb_client(service: ListenerService) -> None:
    series = small_series(3)
    client = DICOMwebClient(_url(service), headers={"Authorization": f"Bearer {TOKEN}"})
    answer = client.store_instances(series, study_instance_uid=series[0].StudyInstanceUID)
    assert [item.ReferencedSOPInstanceUID for item in answer.ReferencedSOPSequence] == [
        ds.SOPInstanceUID for ds in series
    ]
    assert [closed[2:4] for closed in all_closed(service.db)] == [("released", 3)]
    with pytest.raises(requests.HTTPError, match="401"):
        DICOMwebClient(_url(service)).store_instances(series)


def test_curl(service: ListenerService, tmp_path: Path) -> None:
    """With a body long enough that it waits for 100 Continue, and without a length."""
    series = small_series(3, 700)
    body = tmp_path / "body"
    body.write_bytes(body_of([file_of(ds) for ds in series]))
    assert body.stat().st_size > 2**20

    def curl(token: str, *more: str) -> str:
        command = [need("curl", "curl"), "--silent", "--show-error", "--write-out", "\n%{http_code}", *more]
        command += ["--header", f"Content-Type: {CONTENT_TYPE}", "--header", f"Authorization: Bearer {token}"]
        command += ["--data-binary", f"@{body}", f"{_url(service)}/studies"]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout

    answer, status = curl(TOKEN).rsplit("\n", 1)
    assert (status, len(json.loads(answer)["00081199"]["Value"])) == ("200", 3)
    assert curl(TOKEN, "--header", "Transfer-Encoding: chunked").endswith("\n200")
    assert curl("wrong").endswith("the token is missing or wrong\n\n401")
    service.writer.flush()
    assert outcomes(service.db) == {"stored": 3, "repeat": 3}


def test_orthanc(service: ListenerService, tmp_path: Path) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with orthanc(tmp_path / "orthanc", dicomweb=True) as pacs:
        files = small_files(tmp_path / "files", 12)
        sent = send_paths(files, host="127.0.0.1", port=pacs.dicom_port, called_ae="ORTHANC")
        assert all(one.ok for one in sent)
        server = {"Url": f"{_url(service)}/", "HttpHeaders": headers}
        httpx.put(f"{pacs.url}/dicom-web/servers/firstread", json=server).raise_for_status()
        (study,) = pacs.get("/studies")
        order = {"Resources": [study], "Synchronous": True}
        answer = httpx.post(f"{pacs.url}/dicom-web/servers/firstread/stow", json=order, timeout=60)
        assert answer.status_code == 200, answer.text
    service.writer.flush()
    assert outcomes(service.db) == {"stored": 12}
    assert rows(service.db, "SELECT count(*), min(ending) FROM association") == [(1, "released")]
