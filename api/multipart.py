"""A multipart form as it streams by: the part named `file` goes to a sink, small fields are kept, nothing else is."""

from collections.abc import Callable

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from api.errors import Invalid, MalformedBody

FILE = "file"
MAX_FIELD_BYTES = 2000
MAX_FIELDS = 20


class FormStream:
    """Feed the body in chunks of any size, then `close()`.

    `write` receives the file's bytes in pieces, in order, from within `feed`.

    Raises:
        MalformedBody: the body is no multipart form.
        Invalid: a field is too long or given twice, there are too many, or there are two files.
    """

    def __init__(self, content_type: str, write: Callable[[bytes], None]) -> None:
        self.fields: dict[str, str] = {}
        self.filename = ""
        self.has_file = False
        self._write = write
        self._headers: dict[bytes, bytes] = {}
        self._header = (bytearray(), bytearray())
        self._name = ""
        self._value: bytearray | None = None
        self._parser = self._make_parser(content_type)

    def feed(self, chunk: bytes) -> None:
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise MalformedBody(f"The form cannot be read: {error}") from error

    def close(self) -> None:
        """The form must be complete: a truncated upload is not taken for a short file."""
        try:
            self._parser.finalize()
        except FormParserError as error:
            raise MalformedBody(f"The form ends in the middle: {error}") from error
        if not self._ended:
            raise MalformedBody("The form ends in the middle")
        if not self.has_file:
            raise Invalid(f"the form has no part named {FILE!r}", code="file_missing")

    def _make_parser(self, content_type: str) -> MultipartParser:
        _, options = parse_options_header(content_type)
        boundary = options.get(b"boundary")
        if not boundary:
            raise MalformedBody("The Content-Type names no boundary")
        self._ended = False
        try:
            return MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin_part,
                    "on_header_field": lambda data, start, end: self._header[0].extend(data[start:end]),
                    "on_header_value": lambda data, start, end: self._header[1].extend(data[start:end]),
                    "on_header_end": self._end_header,
                    "on_headers_finished": self._end_headers,
                    "on_part_data": self._take,
                    "on_part_end": self._end_part,
                    "on_end": self._end,
                },
            )
        except FormParserError as error:
            raise MalformedBody(f"The form cannot be read: {error}") from error

    def _begin_part(self) -> None:
        self._headers = {}
        self._header = (bytearray(), bytearray())
        self._value = None

    def _end_header(self) -> None:
        name, value = self._header
        self._headers[bytes(name).lower()] = bytes(value)
        self._header = (bytearray(), bytearray())

    def _end_headers(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        if self._name == FILE:
            if self.has_file:
                raise Invalid(f"the form has several parts named {FILE!r}", code="several_files")
            self.has_file = True
            self.filename = options.get(b"filename", b"").decode("utf-8", "replace")
            return
        if self._name in self.fields:
            raise Invalid(f"the form has several fields named {self._name[:100]!r}", code="several_fields")
        if len(self.fields) >= MAX_FIELDS:
            raise Invalid("the form has too many fields", code="too_many_fields")
        self._value = bytearray()

    def _take(self, data: bytes, start: int, end: int) -> None:
        if self._value is None:
            self._write(data[start:end])
            return
        self._value += data[start:end]
        if len(self._value) > MAX_FIELD_BYTES:
            raise Invalid(f"the field {self._name[:100]!r} is too long", code="field_too_long")

    def _end_part(self) -> None:
        if self._value is not None:
            self.fields[self._name] = self._value.decode("utf-8", "replace")

    def _end(self) -> None:
        self._ended = True
