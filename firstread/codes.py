"""Meanings of the codes that are not about an image: why a job waits or failed, an object was refused, and so on.

Codes about images stand with the pipelines (``worker.pipelines.reasons``). Each table here becomes one of
``docs/schema.md``; a test finds codes of the source that no table has.
"""

from __future__ import annotations

from typing import Final

STATE_CODES: Final[dict[str, str]] = {
    "no_pipeline": "No pipeline wants the study, by Modality and class of its objects.",
    "unknown_pipeline": "An order names a pipeline that does not exist.",
    "routing_failed": "The study cannot be read to be routed: `FAILED` for each pipeline asked for or of its modality.",
    "no_serving_package": "No package that passed its self-test serves the pipeline; the job waits for one.",
    "nothing_suitable": "Nothing suitable, and the pipeline gave no reason.",
    "files_missing": "None of the revision's files is there, or none can be read.",
    "evidence_error": "The pictures of the evidence could not be written.",
    "decoder_unavailable": "No process to decode pixels in could be started; no fault of the study.",
    "engine_error": "The device refused the batch, or the engine had ended.",
    "engine_timeout": "The device did not answer within the limit.",
    "non_finite_score": "A model gave NaN or Inf: a failure, not a score.",
    "worker_error": "Another fault of the worker.",
    "worker_died": "The worker's process ended during the job.",
    "worker_stalled": "The worker made no progress with the job for `FIRSTREAD_STALL_S` and was ended.",
    "lease_expired": "The worker gave no sign of life for `FIRSTREAD_LEASE_S`: its machine or its network.",
    "lease_lost": "Another worker has the job; what was computed is dropped.",
    "interrupted": "The worker was stopped on request; not counted as an attempt of the job.",
    "data_error": "The database refused a value as out of its range.",
    "retry": "A person had it scored again.",
    "ended_by_hand": "A person ended the waiting: `firstread retry --give-up`.",
    "unchanged": "The images are those of an earlier revision: its result stands.",
    "superseded": "Of a delivery: a later result took its place while it was held (`FIRSTREAD_DELIVER_AFTER_S`).",
    "released": "Closed: the sender had released its association.",
    "quiet": "Closed: no image for `FIRSTREAD_QUIET_S`.",
    "max_wait": "Closed: `FIRSTREAD_MAX_WAIT_S` after its first image.",
}
"""``reason`` of studies and jobs, and of their changes of state."""

REFUSAL_CODES: Final[dict[str, str]] = {
    "not_dicom": "No DICOM data set.",
    "no_dataset": "Nothing follows the file meta group, or a C-STORE brought no data set.",
    "empty": "The file has no bytes.",
    "truncated": "The file ends before its identifiers, or (inbox) before it is whole.",
    "corrupt": "It cannot be parsed, or the picture cannot be read.",
    "bomb": "It would unpack to more than the limits.",
    "unsupported_format": "A picture or document of a format that is not read; the detail names it.",
    "too_large": "Larger than `FIRSTREAD_MAX_INSTANCE_MB`.",
    "missing_uids": "The data set lacks a Study, Series or SOP Instance UID.",
    "bad_uid": "A UID has more characters than any may have.",
    "dicomdir": "A DICOMDIR: it names files and holds no image.",
    "unreadable": "The system refused to read the file.",
    "unusable": "It cannot be used, and nothing more is known.",
    "error": "It broke its reader; the log of the listener says where.",
    "no_hu": "A picture in a folder for CT: it holds no Hounsfield units.",
    "no_pipeline": "A picture outside of the folders of the pipelines that read pictures.",
    "encrypted": "The archive has a password.",
    "empty_archive": "No files in the archive.",
    "corrupt_archive": "The archive's directory cannot be read.",
    "nested_archive": "An archive within an archive is not opened.",
    "overloaded": "Too much work waits; the sender tries again. Counted, not kept.",
}
"""``reason`` of ``intake_refusal``."""

ASSOCIATION_CODES: Final[dict[str, str]] = {
    "calling_ae_not_allowed": "The calling AE title is none of `FIRSTREAD_ALLOWED_CALLING_AE`.",
    "called_ae_wrong": "Another AE title than ours was called, and `FIRSTREAD_CHECK_CALLED_AE` is set.",
    "no_presentation_contexts": "None of the proposed presentation contexts is offered; `contexts` has them.",
    "too_many_associations": "More than `FIRSTREAD_MAX_ASSOCIATIONS` at once, or more than three quarters of them from "
    "one calling AE title and host.",
    "too_many_connections": "More connections without an A-ASSOCIATE-RQ than one host, or all together, may have.",
    "bad_request": "No sound A-ASSOCIATE-RQ.",
    "bad_pdu": "Within an association, a PDU or message against the protocol; it was aborted.",
    "command_too_long": "A command set of more than 64 KiB; the association was aborted.",
    "slow": "A PDU that was not complete in 60 s (an A-ASSOCIATE-RQ in 10 s), or a data set of less than 8 KiB/s over "
    "60 s, as far as `FIRSTREAD_NETWORK_TIMEOUT_S` is not shorter.",
    "displaced": "It left a message unfinished while its host held most places and another host asked for one.",
    "not_dicom": "Another protocol than DICOM.",
    "tls": "TLS, which the listener does not offer.",
    "silent": "Nothing came within ten seconds, or `FIRSTREAD_NETWORK_TIMEOUT_S` where that is shorter.",
    "refused": "Refused for another reason, such as user identity.",
}
"""``reason`` of ``association_refusal``."""

OBJECT_CODES: Final[dict[str, str]] = {
    "illegal_study_uid": "The study's UID breaks the rules of UIDs.",
    "illegal_source_uid": "An image's or a series' UID does.",
    "no_sop_class": "An image names no SOP class.",
    "patient_mismatch": "The images name two patients.",
    "no_findings": "The job has no result.",
    "no_images": "The revision has no image to refer to.",
    "source_deleted": "Retention has removed the images.",
    "source_unreadable": "An image cannot be read any more.",
    "no_mask": "The pipeline drew no outline.",
    "empty_mask": "The outline is empty.",
    "mask_mismatch": "Outline and image differ in size or frames.",
    "no_frame_of_reference": "The images have no Frame of Reference UID.",
    "no_geometry": "A slice does not say where it lies.",
    "several_multiframe_sources": "The outline lies on several multi-frame objects.",
    "no_picture": "There is no evidence picture.",
}
"""``reason`` of ``output_object``, and of ``firstread objects``."""

PROCESS_CODES: Final[dict[str, str]] = {
    "consumer_silent": "Worker ended: doorbell messages waited and it took none.",
    "start_too_slow": "Worker ended: it was not ready within its limit.",
    "stop_too_slow": "Worker ended: it did not stop within its limit.",
    "models_changed": "Worker started again with other packages.",
    "stopped": "Worker ended without an error of its own.",
    "checksum": "A package's files are not those of its card: it does not serve.",
    "signature": "A package is not signed by a key that is trusted here, or is another than was signed: it does not "
    "serve.",
    "self_test": "A package does not compute what its card says: it does not serve.",
    "package_error": "A package cannot be loaded: it does not serve.",
    "not_converted": "A package has no converted file that may serve: TensorFlow runs it.",
    "not_installed": "OpenVINO is not installed: TensorFlow runs the packages.",
    "died": "A decoder ended by itself.",
    "killed": "A decoder was killed from outside, for memory perhaps.",
    "hung": "A decoder was ended at its limit of time.",
    "memory": "A decoder was ended at its limit of memory.",
    "panic": "A decoder's codec panicked.",
    "dropped": "A decoder was ended with its work unfinished.",
    "grown": "A decoder was replaced since it had grown.",
    "refused": "The database refused a row, or a decoder its frame.",
    "unavailable": "The database was away; the rows are written later.",
    "age": "Removed by retention: older than `FIRSTREAD_RETENTION_DAYS`.",
    "disk": "Removed by retention before its time: less than `FIRSTREAD_RETENTION_FREE_MB` was free.",
}
"""``reason`` in metrics and logs about our own processes."""
