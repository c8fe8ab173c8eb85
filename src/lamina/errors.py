"""The one exception tree (pure).

    LaminaError(message, *, hint="")
    ├── InvalidArgument          what was asked for makes no sense
    │   ├── InvalidReference, InvalidDigest
    │   ├── InvalidManifest      bytes of a manifest, index or config that break a rule
    │   └── UnsafeArchive        an archive entry that would leave its root, or breaks a limit
    ├── Unauthenticated          the registry wants to know who asks
    ├── PermissionDenied
    ├── NotFound
    │   └── NoSuchContainer, NoSuchImage, NoSuchLayer, NoSuchNetwork, NoSuchVolume, NoSuchExec, BlobUnknown
    ├── Conflict
    │   └── NameInUse, LayerInUse, AlreadyExists
    ├── NotModified              already started, already stopped
    ├── Unsupported              not on this host, driver or API version
    ├── NotServed                known to the API, not built yet: 501
    ├── Unavailable              a peer is away, or busy (429), or the daemon is stopping
    ├── StorageFull              ENOSPC or EDQUOT where it has a meaning
    ├── ProcessFailed
    │   ├── ProgramFailed        a host program: argv, status, stderr
    │   ├── CommandNotFound      inside a container: exit code 127
    │   └── CommandNotExecutable inside a container: exit code 126
    └── DataLoss
        └── DigestMismatch, SizeMismatch, CorruptRecord

Few categories; a subclass exists only where somebody catches it. The edges map categories to HTTP status, exit
code and registry code, each in one table, by walking the MRO. `str(error)` is one sentence: what failed, on which
object, the likely cause; `hint` is the next command to try.
"""

from __future__ import annotations


class LaminaError(Exception):
    """Every failure that Lamina itself reports."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message


class InvalidArgument(LaminaError):
    """What was asked for makes no sense."""


class InvalidReference(InvalidArgument):
    """The text is no image reference."""


class InvalidDigest(InvalidArgument):
    """The text is no digest of a supported algorithm."""


class InvalidManifest(InvalidArgument):
    """A manifest, index or image config breaks a rule of its specification."""


class UnsafeArchive(InvalidArgument):
    """An archive entry would leave its root, or breaks a limit."""


class Unauthenticated(LaminaError):
    """The other side wants credentials, or refused the given ones."""


class PermissionDenied(LaminaError):
    """The caller may not do this."""


class NotFound(LaminaError):
    """The named thing does not exist."""


class NoSuchContainer(NotFound):
    """No container has this id, name or id prefix."""


class NoSuchImage(NotFound):
    """No image has this id, name or id prefix."""


class NoSuchLayer(NotFound):
    """No registered layer has this chain id."""


class NoSuchNetwork(NotFound):
    """No network has this id or name."""


class NoSuchVolume(NotFound):
    """No volume has this name."""


class NoSuchExec(NotFound):
    """No exec instance has this id."""


class BlobUnknown(NotFound):
    """The registry has no such blob."""


class Conflict(LaminaError):
    """The request is sound, but not in the present state of the object."""


class NameInUse(Conflict):
    """Another object already has this name."""


class LayerInUse(Conflict):
    """The layer has children, holds or mounts."""


class AlreadyExists(Conflict):
    """An object with this identity exists."""


class NotModified(LaminaError):
    """The object already is as asked: started, stopped."""


class Unsupported(LaminaError):
    """This host, driver, kernel or API version cannot do it."""


class NotServed(LaminaError):
    """A known operation of the API that Lamina does not serve yet."""


class Unavailable(LaminaError):
    """A peer is away or busy, or the daemon is stopping; trying later may help."""


class StorageFull(LaminaError):
    """The file system or quota has no room left."""


class ProcessFailed(LaminaError):
    """A process did not do what it was started for."""


class ProgramFailed(ProcessFailed):
    """A host program ended with an error."""

    def __init__(self, argv: tuple[str, ...], status: int, stderr: str, *, hint: str = "") -> None:
        self.argv = argv
        self.status = status
        self.stderr = stderr
        detail = stderr.strip().splitlines()[-1] if stderr.strip() else "no message"
        super().__init__(f"{argv[0]} failed with status {status}: {detail}", hint=hint)


class CommandNotFound(ProcessFailed):
    """The container's command does not exist in its root."""


class CommandNotExecutable(ProcessFailed):
    """The container's command exists but may not be executed."""


class DataLoss(LaminaError):
    """Bytes are not what their record says."""


class DigestMismatch(DataLoss):
    """The bytes have another digest than announced."""


class SizeMismatch(DataLoss):
    """The bytes have another length than announced."""


class CorruptRecord(DataLoss):
    """A file of the data root cannot be understood."""
