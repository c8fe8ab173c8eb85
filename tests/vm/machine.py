"""One run of the virtual machine: a command on the host's own root, under Debian's kernel.

The root is the host's, read-only, under a layer of memory: programs, the checkout and its virtual environment are there
under the same names, and what is written vanishes. Two places last: `share` at /run/share, for results, and the scratch
disk at /scratch, if it is kept.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from tests.vm import initramfs, zfs_module
from tests.vm.debian_kernel import Kernel, kernel
from tests.vm.failures import VmFailed, VmUnavailable
from tests.vm.slots import slot

QEMU = "qemu-system-x86_64"
STDOUT, STDERR, CONTROL = "stdout", "stderr", "control"
_CONSOLE_TAIL = 3000


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to run, and in what machine.

    `modules`: loaded before the command; `zfs` among them is the one that `prepare zfs` has built, with its programs.
    `disk`: the scratch disk, made where it is not there yet and kept; None for one that goes with the machine.
    `share`: a directory of the host, at /run/share.
    """

    command: Sequence[str]
    directory: Path = field(default_factory=Path.cwd)
    environment: Mapping[str, str] = field(default_factory=dict)
    modules: Sequence[str] = ()
    memory_mb: int = 1536
    processors: int = 1
    timeout_s: float = 600
    disk_mb: int = 4096
    disk: Path | None = None
    share: Path | None = None
    with_udev: bool = False


@dataclass(frozen=True, slots=True)
class Ended:
    """How the command ended. `started_s`: from the start of the machine to the start of the command."""

    code: int
    stdout: bytes
    stderr: bytes
    started_s: float
    seconds: float


class Stream:
    """One output of the machine, collected as it comes and passed on to `echo`."""

    def __init__(self, echo: BinaryIO | None) -> None:
        self.echo = echo
        self.data = bytearray()
        self.changed = threading.Condition()
        self.is_over = False
        read_end, self.write_end = os.pipe()
        self.reader = threading.Thread(target=self._collect, args=(read_end,), daemon=True)
        self.reader.start()

    def _collect(self, read_end: int) -> None:
        with open(read_end, "rb", buffering=0) as pipe:
            while data := pipe.read(65536):
                with self.changed:
                    self.data += data
                    self.changed.notify_all()
                if self.echo is not None:
                    self.echo.write(data)
                    self.echo.flush()
        with self.changed:
            self.is_over = True
            self.changed.notify_all()

    def wait_for(self, pattern: str, timeout_s: float) -> re.Match[bytes] | None:
        """The first line that matches; None when the time or the stream is over before."""
        wanted, deadline = re.compile(pattern.encode(), re.MULTILINE), time.monotonic() + timeout_s
        with self.changed:
            while not (found := wanted.search(bytes(self.data))):
                left = deadline - time.monotonic()
                if self.is_over or left <= 0:
                    return None
                self.changed.wait(left)
            return found

    def close(self) -> None:
        """Let go of our end: the stream is over when the machine's end is gone too."""
        if self.write_end >= 0:
            os.close(self.write_end)
            self.write_end = -1


class Machine:
    """A started machine. `wait` for its command, or `kill` it as a power cut would."""

    def __init__(self, plan: Plan, work: Path, streams: Mapping[str, Stream], process: subprocess.Popen[bytes]) -> None:
        self.plan = plan
        self.work = work
        self.streams = streams
        self.process = process
        self.began = time.monotonic()

    @property
    def stdout(self) -> Stream:
        return self.streams[STDOUT]

    @property
    def stderr(self) -> Stream:
        return self.streams[STDERR]

    def kill(self) -> None:
        """End it this instant. What had reached the scratch disk is there, as after a power cut."""
        self.process.kill()
        self.process.wait()

    def wait(self) -> Ended:
        """Raises VmFailed when the machine ended without the command's exit code, or ran into its time limit."""
        try:
            self.process.wait(max(0.0, self.began + self.plan.timeout_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.kill()
            raise VmFailed(f"the time limit of {self.plan.timeout_s:g} s is over\n{self._last_words()}") from None
        for stream in self.streams.values():
            stream.reader.join()
        said = bytes(self.streams[CONTROL].data)
        if failed := re.search(rb"^failed (.*)$", said, re.MULTILINE):
            raise VmFailed(f"the machine failed at {failed[1].decode()}\n{self._last_words()}")
        ended = re.search(rb"^ended (\d+)$", said, re.MULTILINE)
        if not ended:
            raise VmFailed(f"the machine stopped before its command ended\n{self._last_words()}")
        running = re.search(rb"^running ([\d.]+)$", said, re.MULTILINE)
        return Ended(
            int(ended[1]), bytes(self.stdout.data), bytes(self.stderr.data),
            float(running[1]) if running else 0.0, time.monotonic() - self.began,
        )  # fmt: skip

    def _last_words(self) -> str:
        """The end of what the kernel and QEMU wrote."""
        found = []
        for name in ("console", "qemu"):
            text = (self.work / name).read_text(errors="replace").replace("\r", "").strip()
            if text:
                found.append(f"--- {name}\n{text[-_CONSOLE_TAIL:]}")
        return "\n".join(found) or "(its console is empty)"


@contextmanager
def started(plan: Plan, *, out: BinaryIO | None = None, err: BinaryIO | None = None) -> Iterator[Machine]:
    """A machine that boots; it is killed at the end if it still runs. `out` and `err` get the output as it comes."""
    booted = kernel()
    with ExitStack() as undo:
        work = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="lamina-vm-")))
        (work / "initramfs").write_bytes(
            initramfs.base(booted).read_bytes() + initramfs.session(_session(plan, booted))
        )
        share = plan.share or work / "share"
        share.mkdir(parents=True, exist_ok=True)
        disk = _scratch(plan, work)
        streams = {STDOUT: Stream(out), STDERR: Stream(err), CONTROL: Stream(None)}
        for stream in streams.values():
            undo.callback(stream.close)
        held = undo.enter_context(slot())
        log = undo.enter_context((work / "qemu").open("wb"))
        words = _qemu(plan, booted, work, share, disk, streams)
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            pass_fds=[held, *(stream.write_end for stream in streams.values())],
        )  # fmt: skip
        for stream in streams.values():
            stream.close()
        machine = Machine(plan, work, streams, process)
        undo.callback(machine.kill)
        yield machine


def run(plan: Plan, *, out: BinaryIO | None = None, err: BinaryIO | None = None) -> Ended:
    """Boot, run the command, power off. Raises VmFailed, VmUnavailable."""
    with started(plan, out=out, err=err) as machine:
        return machine.wait()


def require_programs() -> None:
    """Raises VmUnavailable when something is missing that starts a machine."""
    missing = [name for name in (QEMU, "mkfs.ext4", "setpriv") if not shutil.which(name, path=_sbin()["PATH"])]
    if missing or not initramfs.BUSYBOX.exists():
        names = ", ".join([*missing, *([] if initramfs.BUSYBOX.exists() else ["busybox-static"])])
        raise VmUnavailable(f"not installed: {names}; scripts/install test")


def _session(plan: Plan, booted: Kernel) -> list[tuple[str, str]]:
    """The files of this run, which the machine finds in /run/lamina-vm."""
    load = [module for module in plan.modules if module != "zfs"]
    settings = {
        "MODULES": os.fspath(booted.modules), "LOAD": " ".join(load), "SCRATCH": "yes" if plan.disk_mb else "",
        "UDEV": "yes" if plan.with_udev else "", "DIRECTORY": os.fspath(plan.directory.absolute()),
    }  # fmt: skip
    # One word is a script, several are a program and its arguments.
    command = plan.command[0] if len(plan.command) == 1 else shlex.join(plan.command)
    files = [
        ("settings", _assignments(settings)), ("command", command + "\n"),
        ("environment", _assignments({"LAMINA_VM_GUEST": "yes", "LAMINA_TEST_SLOW": "yes", **plan.environment})),
        ("start", (initramfs.GUEST / "start").read_text()),
    ]  # fmt: skip
    if "zfs" in plan.modules:
        files.append(("prelude", zfs_module.prelude(booted)))
    return files


def _assignments(values: Mapping[str, str]) -> str:
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items())


def _scratch(plan: Plan, work: Path) -> Path | None:
    """A sparse disk with an ext4 file system. Its journal is there so that a killed machine's disk can be opened."""
    if not plan.disk_mb:
        return None
    disk = plan.disk or work / "scratch"
    if not disk.exists():
        with disk.open("wb") as file:
            file.truncate(plan.disk_mb << 20)
        words = ["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard", os.fspath(disk)]
        done = subprocess.run(words, capture_output=True, text=True, check=False, env=_sbin())
        if done.returncode != 0:
            disk.unlink()
            raise VmUnavailable(f"mkfs.ext4: {done.stderr.strip()}")
    return disk


def _sbin() -> dict[str, str]:
    return {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}


def _qemu(
    plan: Plan, booted: Kernel, work: Path, share: Path, disk: Path | None, streams: Mapping[str, Stream]
) -> list[str]:
    """The command line; the machine ends with us. Emulated by default: nested KVM is often there and broken."""
    require_programs()
    accelerator = os.environ.get("LAMINA_VM_ACCEL", "tcg")
    boot = (
        "console=ttyS0 quiet panic=-1 oops=panic no_timer_check mitigations=off random.trust_cpu=on nokaslr "
        "rdinit=/init"
    )
    words = [
        "setpriv", "--pdeathsig", "KILL", QEMU, "-machine", "q35", "-accel", "tcg,thread=multi" if accelerator == "tcg" else accelerator,
        "-cpu", "max" if accelerator == "tcg" else "host", "-smp", str(plan.processors), "-m", str(plan.memory_mb),
        "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", f"file:{work / 'console'}",
        "-kernel", os.fspath(booted.image), "-initrd", os.fspath(work / "initramfs"), "-append", boot,
        "-device", "virtio-serial-pci",
    ]  # fmt: skip
    for number, (name, stream) in enumerate(streams.items(), 1):
        words += ["-chardev", f"file,id={name},path=/proc/self/fd/{stream.write_end}"]
        words += ["-device", f"virtserialport,chardev={name},name={name},nr={number}"]
    # Other file systems under the root are exported too; remap keeps their inode numbers apart.
    shares = (("host", Path("/"), "security_model=none,readonly=on,multidevs=remap"),
              ("share", share.absolute(), "security_model=passthrough"))  # fmt: skip
    for name, place, options in shares:
        words += ["-fsdev", f"local,id={name},path={_escaped(place)},{options}"]
        words += ["-device", f"virtio-9p-pci,fsdev={name},mount_tag={name}"]
    if disk is not None:
        # unsafe: the disk lives as long as the host does, and a killed machine's writes are in the host's memory
        words += ["-drive", f"file={_escaped(disk.absolute())},format=raw,if=virtio,cache=unsafe,discard=unmap"]
    return words


def _escaped(place: Path) -> str:
    """QEMU's own quoting: a comma is doubled."""
    return os.fspath(place).replace(",", ",,")
