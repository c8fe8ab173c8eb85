"""A pool made with LVM of a whole device, once: `dm.directlvm_device` (blocking).

What was made is put down in `setup-config.json`, and never changed after. Source: moby
daemon/graphdriver/devmapper/device_setup.go.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from lamina.errors import Conflict, CorruptRecord, InvalidArgument, NotFound
from lamina.jsonvalue import go_json, integer, parse_object, text
from lamina.kernel.devicemapper import DeviceMapper
from lamina.kernel.durable import make_dirs, write_file
from lamina.programs import run as programs
from lamina.storage.devicemapper.options import DirectLvm, Options

_GROUP, _POOL = "docker", "docker-thinpool"
_PROGRAMS = ("pvcreate", "vgcreate", "lvcreate", "lvconvert", "lvchange", "wipefs")
_PROFILES = Path("/etc/lvm/profile")
_LVM_S = 600.0


def pool_from_lvm(home: Path, options: Options, mapper: DeviceMapper) -> Options:
    """The options with the pool that LVM made, or makes now, as their thin pool; as they are when none was asked for.

    Raises:
        InvalidArgument: the device is in use, or not what the pool was made of.
        Unsupported: LVM is not installed.
    """
    wanted = options.lvm
    if not wanted.device:
        return options
    place = home / "setup-config.json"
    made = _read(place)
    if made is None:
        _check_device(wanted.device, force=options.lvm_force)
        _make(wanted)
        write_file(place, _encode(wanted))
    elif made != wanted:
        raise InvalidArgument(
            f"changing the direct-lvm configuration is not supported: the pool was made of {made.device}",
            hint=f"give the options it was made with, see {place}",
        )
    elif mapper.find(_POOL) is None:  # not activated at boot
        programs.run((programs.require("lvchange"), "-ay", f"{_GROUP}/thinpool"), timeout=_LVM_S)
    return replace(options, thin_pool=_POOL)


def _encode(wanted: DirectLvm) -> bytes:
    return go_json(
        {
            "Device": wanted.device,
            "ThinpPercent": wanted.pool_percent,
            "ThinpMetaPercent": wanted.metadata_percent,
            "AutoExtendPercent": wanted.extend_percent,
            "AutoExtendThreshold": wanted.extend_threshold,
        }
    )


def _read(place: Path) -> DirectLvm | None:
    try:
        found = parse_object(place.read_bytes(), what=os.fspath(place))
        return DirectLvm(
            text(found, "Device"),
            integer(found, "ThinpPercent"),
            integer(found, "ThinpMetaPercent"),
            integer(found, "AutoExtendPercent"),
            integer(found, "AutoExtendThreshold"),
        )
    except FileNotFoundError:
        return None
    except InvalidArgument as error:
        raise CorruptRecord(f"{place} is damaged: {error}", hint="write it again, or move it away") from error


def _check_device(device: str, *, force: bool) -> None:
    if not Path(device).is_block_device():
        raise NotFound(f"dm.directlvm_device: {device} is no block device")
    for program in _PROGRAMS:
        programs.require(program)
    found = programs.run((programs.require("wipefs"), "--noheadings", device)).stdout.strip()
    if found and not force:
        raise Conflict(
            f"dm.directlvm_device: {device} holds something already: {found.decode(errors='replace').splitlines()[0]}",
            hint="add --storage-opt dm.directlvm_device_force=true to overwrite it",
        )


def _make(wanted: DirectLvm) -> None:
    """Docker's commands and defaults."""
    data, metadata = wanted.pool_percent or 95, wanted.metadata_percent or 1
    percent, threshold = wanted.extend_percent or 20, wanted.extend_threshold or 80
    _run("pvcreate", "-y", "-f", wanted.device)
    _run("vgcreate", _GROUP, wanted.device)
    _run("lvcreate", "-y", "--wipesignatures", "y", "-n", "thinpool", _GROUP, "--extents", f"{data}%VG")
    _run("lvcreate", "-y", "--wipesignatures", "y", "-n", "thinpoolmeta", _GROUP, "--extents", f"{metadata}%VG")
    pool = ("--thinpool", f"{_GROUP}/thinpool", "--poolmetadata", f"{_GROUP}/thinpoolmeta")
    _run("lvconvert", "-y", "--zero", "n", "-c", "512K", *pool)
    make_dirs(_PROFILES, 0o755)
    profile = f"activation{{\nthin_pool_autoextend_threshold={threshold}\nthin_pool_autoextend_percent={percent}\n}}\n"
    write_file(_PROFILES / f"{_POOL}.profile", profile.encode(), 0o644)
    _run("lvchange", "--metadataprofile", _POOL, f"{_GROUP}/thinpool")


def _run(program: str, *words: str) -> None:
    programs.run((programs.require(program), *words), timeout=_LVM_S)
