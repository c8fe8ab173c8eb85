"""Which mounts a container asks for: `-v`, `--mount`, `--tmpfs` and the image's volumes (pure).

Source: moby volume/mounts/linux_parser.go, daemon/volumes.go (registerMountPoints).
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from lamina.containers import tmpfs
from lamina.errors import InvalidArgument, NotServed
from lamina.jsonvalue import JsonObject, boolean, mapping, objects, string_map, strings, text

_WRITE = {"ro", "rw"}
_LABEL = {"z", "Z"}
_PROPAGATION = {"private", "rprivate", "shared", "rshared", "slave", "rslave"}
_CONSISTENCY = {"consistent", "cached", "delegated"}
_CLASSES = (_WRITE, _LABEL, _PROPAGATION, _CONSISTENCY, {"nocopy"})


@dataclass(frozen=True, slots=True)
class WantedMount:
    """One mount as asked for.

    `kind` is `bind`, `volume` or `tmpfs`. `source` is a host path, a volume's name (empty: anonymous), or empty.
    `copies` says whether an empty volume is filled from the image. `spec` is what config.v2.json keeps of the request.
    """

    kind: str
    source: str
    destination: str
    rw: bool = True
    mode: str = ""
    propagation: str = ""
    copies: bool = True
    must_exist: bool = False
    driver: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    options: tuple[tuple[str, str], ...] = ()
    spec: JsonObject = field(default_factory=dict, hash=False)


def wanted_mounts(config: JsonObject, host_config: JsonObject, data_root: str) -> list[WantedMount]:
    """Every mount point of a container, its image's volumes included, in the order Docker registers them.

    `tmpfs` ones given by `--tmpfs` are not mount points; they are only checked here.

    Raises:
        InvalidArgument: a form that makes no sense, or two mounts in one place.
        NotServed: a kind of mount that comes later.
    """
    driver = text(host_config, "VolumeDriver")
    found: list[WantedMount] = []
    taken: set[str] = set()
    given = [parse_bind(bind, driver) for bind in strings(host_config, "Binds")]
    given += [parse_mount(spec) for spec in objects(host_config, "Mounts")]
    for mount in given:
        if mount.destination in taken:
            raise InvalidArgument(f"Duplicate mount point: {mount.destination}")
        taken.add(mount.destination)
        found.append(with_daemon_root_rule(mount, data_root) if mount.kind == "bind" else mount)
    for destination, options in string_map(host_config, "Tmpfs").items():
        cleaned = clean_destination(destination, "tmpfs")
        if cleaned in taken:
            raise InvalidArgument(f"Duplicate mount point: {cleaned}")
        taken.add(cleaned)
        tmpfs.merged_options(options)
    for destination in sorted(mapping(config, "Volumes")):
        cleaned = clean_destination(destination, "volume")
        if cleaned not in taken:
            taken.add(cleaned)
            found.append(WantedMount("volume", "", cleaned, driver=driver))
    return found


def parse_bind(given: str, driver: str = "") -> WantedMount:
    """One entry of `Binds`: `/inside`, `source:/inside` or `source:/inside:options`.

    Raises:
        InvalidArgument: any other form.
    """
    parts = given.split(":")
    source, mode = "", ""
    if len(parts) == 1:
        destination = parts[0]
    elif len(parts) == 2:
        source, destination = parts
        if _is_mode(destination):
            raise _invalid(given)  # `/foo:rw`: an anonymous volume has no options
    elif len(parts) == 3:
        source, destination, mode = parts
        if not source or not _is_mode(mode):
            raise InvalidArgument(f"invalid mode: {mode[:80]}") if source else _invalid(given)
    else:
        raise _invalid(given)
    if not destination or (len(parts) > 1 and not source):
        raise _invalid(given)
    is_bind = source.startswith("/")
    kind = "bind" if is_bind else "volume"
    try:
        destination = clean_destination(destination, kind)
    except InvalidArgument as error:
        words = str(error).removeprefix(f'invalid mount config for type "{kind}": ')
        raise InvalidArgument(
            f"invalid volume specification: '{given[:300]}': invalid mount config for type \"{kind}\": {words}"
        ) from error
    return _of_bind(kind, posixpath.normpath(source) if is_bind else source, destination, mode, driver)


def _of_bind(kind: str, source: str, destination: str, mode: str, driver: str) -> WantedMount:
    words = set(mode.split(",")) if mode else set()
    propagation = next(iter(words & _PROPAGATION), "")
    if kind == "volume" and propagation:
        raise InvalidArgument(f"invalid mode: {mode[:80]}")
    if kind == "bind" and "nocopy" in words:
        raise InvalidArgument(f"invalid mode: {mode[:80]}")
    spec: JsonObject = {"Type": kind, "Source": source, "Target": destination}
    if not source:
        del spec["Source"]
    if "ro" in words:
        spec["ReadOnly"] = True
    if propagation:
        spec["BindOptions"] = {"Propagation": propagation}
    if "nocopy" in words:
        spec["VolumeOptions"] = {"NoCopy": True}
    return WantedMount(
        kind,
        source,
        destination,
        rw="ro" not in words,
        mode=mode or ("z" if kind == "volume" and source else ""),  # what Docker shows for named volumes
        propagation=propagation or ("rprivate" if kind == "bind" else ""),
        copies="nocopy" not in words,
        driver=driver if kind == "volume" else "",
        spec=spec if source else {},
    )


def parse_mount(spec: JsonObject) -> WantedMount:
    """One entry of `Mounts`.

    Raises:
        InvalidArgument: a field is missing or does not belong to this type.
        NotServed: a type or an option that comes later.
    """
    kind = text(spec, "Type")
    try:
        if kind == "bind":
            return _bind_mount(spec)
        if kind == "volume":
            return _volume_mount(spec)
        if kind == "tmpfs":
            return _tmpfs_mount(spec)
    except InvalidArgument as error:
        raise InvalidArgument(f'invalid mount config for type "{kind}": {error}') from error
    if kind in {"image", "npipe", "cluster"}:
        raise NotServed(f"mounts of type {kind} are not served yet")
    raise InvalidArgument(f'invalid mount config for type "{kind[:80]}": mount type unknown')


def _bind_mount(spec: JsonObject) -> WantedMount:
    source, destination = text(spec, "Source"), _target(spec, "bind")
    if not source:
        raise InvalidArgument("field Source must not be empty")
    if not source.startswith("/"):
        raise InvalidArgument(f"invalid mount path: '{source[:300]}' mount path must be absolute")
    _refuse_fields(spec, "VolumeOptions", "TmpfsOptions", "ImageOptions")
    options = mapping(spec, "BindOptions")
    propagation = text(options, "Propagation")
    if propagation and propagation not in _PROPAGATION:
        raise InvalidArgument(f"invalid propagation mode: {propagation[:80]}")
    return WantedMount(
        "bind",
        posixpath.normpath(source),
        destination,
        rw=not boolean(spec, "ReadOnly"),
        propagation=propagation or "rprivate",
        must_exist=not boolean(options, "CreateMountpoint"),
        spec=spec,
    )


def _volume_mount(spec: JsonObject) -> WantedMount:
    destination = _target(spec, "volume")
    _refuse_fields(spec, "BindOptions", "TmpfsOptions", "ImageOptions")
    options = mapping(spec, "VolumeOptions")
    if text(options, "Subpath"):
        raise NotServed("mounting a part of a volume (volume-subpath) is not served yet")
    source, driver = text(spec, "Source"), mapping(options, "DriverConfig")
    if not source and boolean(spec, "ReadOnly"):
        raise InvalidArgument("must not set ReadOnly mode when using anonymous volumes")
    return WantedMount(
        "volume",
        source,
        destination,
        rw=not boolean(spec, "ReadOnly"),
        mode="z" if source else "",
        copies=not boolean(options, "NoCopy"),
        driver=text(driver, "Name"),
        labels=tuple(string_map(options, "Labels").items()),
        options=tuple(string_map(driver, "Options").items()),
        spec=spec,
    )


def _tmpfs_mount(spec: JsonObject) -> WantedMount:
    if text(spec, "Source"):
        raise InvalidArgument("field Source must not be specified")
    _refuse_fields(spec, "BindOptions", "VolumeOptions", "ImageOptions")
    tmpfs.options_of_mount(spec)
    return WantedMount("tmpfs", "", _target(spec, "tmpfs"), rw=not boolean(spec, "ReadOnly"), spec=spec)


def clean_destination(given: str, kind: str) -> str:
    """An absolute path inside the container, without `.`, `..` and doubled slashes; never the root.

    Raises:
        InvalidArgument: with Docker's words.
    """
    if "\0" in given or not given.startswith("/"):
        raise InvalidArgument(f"invalid mount path: '{given[:300]}' mount path must be absolute")
    cleaned = posixpath.normpath("/" + given.lstrip("/"))
    if cleaned == "/":
        raise InvalidArgument(
            f"invalid mount config for type \"{kind}\": invalid specification: destination can't be '/'"
        )
    return cleaned


def with_daemon_root_rule(mount: WantedMount, data_root: str) -> WantedMount:
    """A bind that shows the data root, or is inside it, must not keep the daemon's own mounts alive.

    Source: moby daemon/volumes_unix.go, validateBindDaemonRoot.
    """
    if not (mount.source.startswith(data_root) or data_root.startswith(mount.source)):
        return mount
    asked = "Propagation" in mapping(mount.spec, "BindOptions")
    if not asked:
        return replace(mount, propagation="rslave")
    if mount.propagation in {"rslave", "rshared"}:
        return mount
    raise InvalidArgument(
        'invalid mount config: must use either propagation mode "rslave" or "rshared" when mount source is within the '
        f'daemon root, daemon root: "{data_root}", bind mount source: "{mount.source}", propagation: '
        f'"{mount.propagation}"'
    )


def _target(spec: JsonObject, kind: str) -> str:
    target = text(spec, "Target")
    if not target:
        raise InvalidArgument("field Target must not be empty")
    return clean_destination(target, kind)


def _refuse_fields(spec: JsonObject, *names: str) -> None:
    for name in names:
        if spec.get(name):
            raise InvalidArgument(f"field {name} must not be specified")


def _is_mode(given: str) -> bool:
    """Known words, each kind at most once."""
    words = given.split(",")
    return all(sum(word in kind for kind in _CLASSES) == 1 for word in words) and all(
        _count(words, kind) <= 1 for kind in _CLASSES
    )


def _count(words: Iterable[str], kind: set[str]) -> int:
    return sum(word in kind for word in words)


def _invalid(given: str) -> InvalidArgument:
    return InvalidArgument(f"invalid volume specification: '{given[:300]}'")
