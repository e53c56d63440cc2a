"""What one parse of a dropped DICOM file gave, so that whoever has it in hand next need not parse it again."""

from __future__ import annotations

from dataclasses import dataclass

from firstread.dicom.datasets import Content
from firstread.dicom.files import Header, UnusableFile, header_of
from firstread.dicom.values import text

NO_TRANSFER_SYNTAX = "no_transfer_syntax"


@dataclass(frozen=True)
class ParsedFile:
    """The summary of a file's header; a few hundred bytes, however large the header is.

    Attributes
    ----------
    body_offset : int
        Where the data set starts in the file.
    notes : tuple of str
        Codes of what was odd.
    summary : Header or UnusableFile
        The header's summary, or why it has none.
    """

    body_offset: int
    notes: tuple[str, ...]
    is_dicomdir: bool
    transfer_syntax_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    source_ae: str | None
    summary: Header | UnusableFile

    def header(self) -> Header:
        """The header's summary. Raises the UnusableFile that stands in its place."""
        if isinstance(self.summary, UnusableFile):
            raise self.summary
        return self.summary


DICOMDIR_UID = "1.2.840.10008.1.3.10"


def parsed_of(content: Content) -> ParsedFile:
    """The summary of an open file."""
    ds, meta = content.ds, content.ds.file_meta
    sop_class = text(meta, "MediaStorageSOPClassUID")
    summary: Header | UnusableFile
    try:
        # The spooled file names the transfer syntax that was found: only the note of the door says that none was given.
        summary = header_of(ds, meta, tuple(note for note in content.notes if note != NO_TRANSFER_SYNTAX))
    except UnusableFile as error:
        summary = error
    return ParsedFile(
        body_offset=content.body_offset,
        notes=content.notes,
        is_dicomdir=sop_class == DICOMDIR_UID or "DirectoryRecordSequence" in ds,
        transfer_syntax_uid=text(meta, "TransferSyntaxUID"),
        sop_class_uid=sop_class,
        sop_instance_uid=text(meta, "MediaStorageSOPInstanceUID"),
        source_ae=text(meta, "SourceApplicationEntityTitle", 16) or None,
        summary=summary,
    )
