"""Uploads an object to S3 in parts, several at a time; it appears when the last step confirms them all."""

import collections
import logging
import math
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from s3fs import S3FileSystem

PART_SIZE = 16 * 2**20
MAX_PARTS = 9_000  # S3 takes 10,000
WORKERS = 4  # parts on their way; as many are in memory

log = logging.getLogger(__name__)


class S3Parts:
    """An object to write to: `commit` makes it appear, `discard` leaves nothing behind."""

    def __init__(self, filesystem: "S3FileSystem", path: str, size: int) -> None:
        """Begins the upload, which needs the permission to write.

        Args:
            filesystem: S3.
            path: "bucket/key".
            size: About how many bytes will come, which decides the size of the parts.
        """
        self._filesystem = filesystem
        self._bucket, self._key, _ = filesystem.split_path(path)
        self._part_size = max(PART_SIZE, math.ceil(size / MAX_PARTS))
        self._buffer = bytearray()
        self._etags: list[str] = []
        self._pending: collections.deque[Future[str]] = collections.deque()
        self._count = 0
        self._threads = ThreadPoolExecutor(WORKERS, thread_name_prefix="upload")
        answer = filesystem.call_s3("create_multipart_upload", Bucket=self._bucket, Key=self._key)
        self._upload: str = answer["UploadId"]

    def write(self, data: bytes) -> None:
        """Take bytes; waits while enough parts are on their way."""
        self._buffer += data
        while len(self._buffer) >= self._part_size:
            self._send(bytes(self._buffer[: self._part_size]))
            del self._buffer[: self._part_size]

    def flush(self) -> None:
        """Send the last part, which may be short, and waits for all."""
        if self._buffer:
            self._send(bytes(self._buffer))
            self._buffer.clear()
        while self._pending:
            self._etags.append(self._pending.popleft().result())

    def commit(self) -> None:
        """Send what is left and lets the object appear."""
        self.flush()
        parts = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(self._etags, start=1)]
        self._filesystem.call_s3(
            "complete_multipart_upload",
            Bucket=self._bucket,
            Key=self._key,
            UploadId=self._upload,
            MultipartUpload={"Parts": parts},
        )
        self._threads.shutdown()

    def discard(self) -> None:
        """Give the upload up; what goes wrong now hides no earlier error."""
        # A part that arrives behind the abort would stay: first wait for those on their way.
        self._threads.shutdown(cancel_futures=True)
        try:
            self._filesystem.call_s3(
                "abort_multipart_upload", Bucket=self._bucket, Key=self._key, UploadId=self._upload
            )
        except OSError as error:
            log.debug("parts of an upload were left behind: %s", error)

    def _send(self, data: bytes) -> None:
        """Send a part in a thread; the oldest is awaited when too many are on their way."""
        if len(self._pending) >= WORKERS:
            self._etags.append(self._pending.popleft().result())
        self._count += 1
        self._pending.append(self._threads.submit(self._send_now, self._count, data))

    def _send_now(self, number: int, data: bytes) -> str:
        """Send a part; returns the tag that confirms it."""
        answer = self._filesystem.call_s3(
            "upload_part",
            Bucket=self._bucket,
            Key=self._key,
            UploadId=self._upload,
            PartNumber=number,
            Body=data,
        )
        return str(answer["ETag"])
