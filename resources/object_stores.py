"""Object stores that Arrow serves itself: S3, Google Cloud Storage, Azure.

What belongs here: from a URI to Arrow's file system, how long a store is waited for, and its errors in one line. What
does not: other schemes and what files hold (``resources/corpus/``), what is written there (``resources/store.py``).

Credentials come from where the stores' own tools look for them: the environment, a profile, the machine's role. Beyond
what Arrow reads itself, these variables count:

- ``AWS_ENDPOINT_URL_S3``, ``AWS_ENDPOINT_URL``: another server that speaks S3, ``http://`` or ``https://``;
- ``AZURE_STORAGE_ACCOUNT``, ``AZURE_STORAGE_KEY`` or ``AZURE_STORAGE_SAS_TOKEN``: as for the command ``az``;
- ``AWS_NO_SIGN_REQUEST``, ``GS_NO_SIGN_REQUEST``, ``AZURE_NO_SIGN_REQUEST``: ``YES`` reads public data without
  credentials, as in GDAL.
"""

from __future__ import annotations

import contextlib
import io
import os
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import cache

import pyarrow as pa
import pyarrow.fs as pafs
from fsspec.implementations.arrow import ArrowFSWrapper
from fsspec.spec import AbstractFileSystem

from dsir_dagster.resources import wording
from dsir_dagster.resources.uris import masked

#: Attempts of a request to S3 after the first, 25 ms · 2^n after each other: a store that is gone for 25 s is waited
#: for. With a time-out in each attempt, an error comes after 80 s.
S3_RETRIES = 10
CONNECT_SECONDS = 3
#: Without a byte, whatever Arrow's documentation says of the systems that this is for.
SILENT_SECONDS = 5
#: In which Google's client begins another attempt; the pause before it may be as long again.
GCS_SECONDS = 40
#: Least bytes to ask an object for.
LEAST_BYTES = 1 << 16
#: After one request was waited for in vain, others of the same store are repeated at once or not at all, for this time:
#: a thousand files do not wait one after the other.
DOWN_SECONDS = 30

_SCHEMES = {
    "s3": "s3",
    "s3a": "s3",
    "gs": "gs",
    "gcs": "gs",
    "abfs": "abfs",
    "abfss": "abfs",
    "az": "abfs",
}

_Key = tuple[str, ...]

_file_systems: dict[_Key, pafs.FileSystem] = {}
_down: dict[_Key, float] = {}
_lock = threading.Lock()


class ObjectStoreError(OSError):
    """An object store does not do what it is asked; the message names the object, the reason and what to do."""


class Unreachable(ObjectStoreError):
    """A store does not answer, or has no time for now: the object may be as good as ever."""


def arrow_file_system(uri: str) -> tuple[pafs.FileSystem, str] | None:
    """Return Arrow's file system for a URI, and the path there: the bucket or container, and the object's name.

    There is one for each kind of store, region and account in a process, for all threads; a forked process makes its
    own.

    Parameters
    ----------
    uri : str
        Its name of an object or a folder is taken literally, without ``%`` escapes.

    Returns
    -------
    tuple of (pyarrow.fs.FileSystem, str) or None
        None for a scheme that is not one of these stores'.

    Raises
    ------
    ObjectStoreError
        Nothing says which Azure account is meant, or an endpoint is not a URL.
    """
    if (found := _place(uri)) is None:
        return None
    key, path = found
    patient = not _is_down(key)
    with _lock:
        if (*key, str(patient)) not in _file_systems:
            _file_systems[*key, str(patient)] = _MAKERS[key[0]](*key[1:], patient)
        return _file_systems[*key, str(patient)], path


def _is_down(key: _Key) -> bool:
    """Return whether a store was waited for in vain a moment ago."""
    return key in _down and time.monotonic() - _down[key] < DOWN_SECONDS


def _place(uri: str) -> tuple[_Key, str] | None:
    """Return what makes a file system, and the path there."""
    scheme, separator, path = uri.partition("://")
    kind = _SCHEMES.get(scheme.lower())
    if not separator or kind is None:
        return None
    bucket, slash, name = path.partition("/")
    key: _Key
    if kind == "s3":
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        key = (kind, endpoint or _region(bucket), _flag("AWS"))
    elif kind == "gs":
        key = (kind, _flag("GS"))
    else:
        bucket, account = _container(uri, bucket)
        key = (kind, account, _flag("AZURE"))
    return key, f"{bucket}{slash}{name}".rstrip("/")


class ObjectFile(pa.PythonFile):
    """An object, opened for random access; from :func:`open_object`."""


def open_object(filesystem: pafs.FileSystem, path: str) -> ObjectFile:
    """Open an object of one of Arrow's stores for random access.

    Raises
    ------
    FileNotFoundError
    OSError
        As Arrow raises it.
    """
    return ObjectFile(_Repeating(filesystem.open_input_file(path)), mode="r")


class _Repeating(io.RawIOBase):
    """Reads no less than fits a refusal, and asks again where Arrow's client does not."""

    def __init__(self, file: pa.NativeFile) -> None:
        self._file, self._size, self._at = file, file.size(), 0
        self._held, self._begin = b"", 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        end = self._size if size < 0 else min(self._at + size, self._size)
        if not self._begin <= self._at <= end <= self._begin + len(self._held):
            begin = max(min(self._at, self._size - LEAST_BYTES), 0)
            data = self._fetch(begin, max(end - begin, min(LEAST_BYTES, self._size - begin)))
            if len(data) > LEAST_BYTES:
                self._at = end
                return data[: end - begin]
            self._held, self._begin = data, begin
        found = self._held[self._at - self._begin : end - self._begin]
        self._at = end
        return found

    def _fetch(self, begin: int, size: int) -> bytes:
        for pause in (0.2, 1.0, 5.0, None):
            try:
                data = self._file.read_at(size, begin)
            except OSError as error:
                if pause is None or not wording.S3_NO_ROOM(error):
                    raise
            else:
                if len(data) == size:
                    return data
            if pause is not None:
                time.sleep(pause)
        raise Unreachable(f"its store sent {len(data):,} of {size:,} bytes; try again")

    def close(self) -> None:
        self._file.close()
        super().close()


class _ForDuckDB(ArrowFSWrapper):
    """Arrow's file system as one of fsspec's that says which scheme it serves."""

    cachable = False

    def __init__(self, scheme: str, filesystem: pafs.FileSystem) -> None:
        super().__init__(filesystem)
        self._scheme = scheme

    @property
    def protocol(self) -> str:
        """The scheme of the URIs that it serves."""
        return self._scheme


def fsspec_file_system(uri: str) -> AbstractFileSystem:
    """Return the file system of :func:`arrow_file_system` for DuckDB, which then reads URIs of the same scheme.

    Raises
    ------
    ValueError
        The URI is not of such a store.
    """
    found = arrow_file_system(uri)
    if found is None:
        raise ValueError(f"{uri}: not an object store that Arrow serves")
    return _ForDuckDB(uri.partition("://")[0], found[0])


def _after_fork() -> None:
    """Forget the connections of the process that forked: its threads are not here to serve them."""
    global _lock
    _lock = threading.Lock()
    _file_systems.clear()


os.register_at_fork(after_in_child=_after_fork)


def _flag(store: str) -> str:
    value = os.environ.get(f"{store}_NO_SIGN_REQUEST", "")
    return "" if value.lower() in ("", "no", "false", "0", "off") else "anonymous"


@cache
def _region(bucket: str) -> str:
    """Return the region of a bucket of AWS; empty, for what the environment says, if AWS does not tell."""
    try:
        return pafs.resolve_s3_region(bucket)
    except (OSError, pa.ArrowException):
        return ""


def _s3(where: str, anonymous: str, patient: bool) -> pafs.FileSystem:
    at: dict[str, str | None] = {"region": where or None}
    if "://" in where:
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        at = {"endpoint_override": where.rstrip("/"), "region": region or "us-east-1"}
    return pafs.S3FileSystem(
        **at,
        anonymous=bool(anonymous),
        connect_timeout=CONNECT_SECONDS,
        request_timeout=SILENT_SECONDS,
        # Not the "standard" one: its pauses are random, so that none may be long enough.
        retry_strategy=pafs.AwsDefaultS3RetryStrategy(max_attempts=S3_RETRIES if patient else 3),
    )


def _gcs(anonymous: str, patient: bool) -> pafs.FileSystem:
    seconds = timedelta(seconds=GCS_SECONDS if patient else 1)
    return pafs.GcsFileSystem(anonymous=bool(anonymous), retry_time_limit=seconds)


def _container(uri: str, authority: str) -> tuple[str, str]:
    """Split ``container@account.dfs.core.windows.net``; without an account, the environment names it."""
    container, _, host = authority.partition("@")
    account = (
        host.partition(".")[0]
        or os.environ.get("AZURE_STORAGE_ACCOUNT")
        or os.environ.get("AZURE_STORAGE_ACCOUNT_NAME")
    )
    if not account:
        raise ObjectStoreError(
            f"{uri}: which storage account? Write {uri.partition('://')[0]}://{container or 'container'}"
            "@account.dfs.core.windows.net/…, or set AZURE_STORAGE_ACCOUNT"
        )
    return container, account


def _azure(account: str, anonymous: str, _: bool) -> pafs.FileSystem:
    if anonymous:  # which Arrow takes only so
        uri = f"abfss://container@{account}.dfs.core.windows.net/?credential_kind=anonymous"
        return pafs.FileSystem.from_uri(uri)[0]
    key = os.environ.get("AZURE_STORAGE_KEY") or os.environ.get("AZURE_STORAGE_ACCOUNT_KEY")
    token = None if key else os.environ.get("AZURE_STORAGE_SAS_TOKEN")
    return pafs.AzureFileSystem(account, account_key=key, sas_token=token)


_MAKERS: dict[str, Callable[..., pafs.FileSystem]] = {"s3": _s3, "gs": _gcs, "abfs": _azure}


@contextlib.contextmanager
def object_store_errors(uri: str) -> Iterator[None]:
    """Turn Arrow's errors of object stores into an :class:`ObjectStoreError` of one line that names the object.

    Other errors pass, among them FileNotFoundError.

    Raises
    ------
    Unreachable
        The store does not answer, or turns requests away, however often they are repeated.
    ObjectStoreError
        It refuses for another reason.
    """
    try:
        yield
    except (ObjectStoreError, FileNotFoundError):
        raise
    except (OSError, pa.ArrowException) as error:
        if (named := store_error(uri, error)) is None:
            raise
        raise named from error


def store_error(uri: str, error: Exception) -> ObjectStoreError | None:
    """Return the error that :func:`object_store_errors` raises for one of Arrow's; None if no store said it."""
    if isinstance(error, ObjectStoreError):
        return error
    if (said := _meaning(error)) is None:
        return None
    reason, again = said
    if again and (found := _place(uri)) is not None and not _is_down(found[0]):
        _down[found[0]] = time.monotonic()
    return (Unreachable if again else ObjectStoreError)(masked(f"{uri}: {reason}"))


def _meaning(error: BaseException) -> tuple[str, bool] | None:
    """Return what an error means and what to do, and whether it may pass by itself; None if no store said it."""
    if (found := wording.S3_SAID.match(error)) is not None:
        code, status, said = found["code"], found["status"] or "", found["said"]
        what = f"{code if code != 'UNKNOWN' else f'HTTP status {status}'} in {found['operation']}"
    elif (found := wording.GCS_SAID.match(error)) is not None:
        code, status, said = found["code"], "", found["said"]
        what = code
    elif (found := wording.AZURE_SAID.match(error)) is not None:
        code, status, said = found["code"] or "", found["status"] or "", found["said"]
        what = code or f"HTTP status {status}" * bool(status)
    else:
        return None
    exactly = ", ".join(filter(None, (what, said.rstrip(" ."))))
    for codes, statuses, meaning, again in _MEANINGS:
        if code in codes or status in statuses:
            return f"{meaning} ({exactly})", again
    if not status and code in _UNREACHABLE:
        return (
            f"its store does not answer; check the network and the endpoint, and try again ({exactly})",
            True,
        )
    return f"its store answers: {exactly}", status.startswith("5")


#: Of Azure, an error without a code and a status.
_UNREACHABLE = (
    "",
    "INTERNAL_FAILURE",
    "NETWORK_CONNECTION",
    "REQUEST_TIMEOUT",
    "DEADLINE_EXCEEDED",
    "UNAVAILABLE",
)
#: Codes of the three, HTTP statuses, what they mean to a user, and whether it may pass by itself.
_MEANINGS: tuple[tuple[tuple[str, ...], tuple[str, ...], str, bool], ...] = (
    (
        ("SLOW_DOWN", "SERVICE_UNAVAILABLE", "THROTTLING", "RESOURCE_EXHAUSTED", "ServerBusy"),
        ("429", "503"),
        "its store turns requests away for the moment; try again later",
        True,
    ),
    (
        ("NO_SUCH_BUCKET", "ContainerNotFound"),
        (),
        "there is no such bucket; check the uri",
        False,
    ),
    (
        (
            "ACCESS_DENIED",
            "INVALID_ACCESS_KEY_ID",
            "INVALID_CLIENT_TOKEN_ID",
            "SIGNATURE_DOES_NOT_MATCH",
            "EXPIRED_TOKEN",
            "MISSING_AUTHENTICATION_TOKEN",
            "PERMISSION_DENIED",
            "UNAUTHENTICATED",
            "AuthenticationFailed",
            "AuthorizationFailure",
        ),
        ("401", "403"),
        "its store refuses access; check the credentials in the environment, the profile or the machine's role",
        False,
    ),
    (
        ("PERMANENT_REDIRECT",),
        ("301",),
        "its bucket is in another region; set AWS_REGION",
        False,
    ),
)
