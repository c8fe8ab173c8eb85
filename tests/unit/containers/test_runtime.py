"""What the runtime changes in a spec."""

from pathlib import Path

import pytest

from lamina.containers.runtime import prepare_runtime, without_abis
from lamina.errors import InvalidArgument
from lamina.jsonvalue import JsonObject

X32 = frozenset({"SCMP_ARCH_X32"})


def test_architectures_that_the_kernel_does_not_run_are_left_out_of_the_filter() -> None:
    filtering: JsonObject = {"defaultAction": "A", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X32"]}
    spec: JsonObject = {"linux": {"seccomp": filtering, "cgroupsPath": "/x"}, "hostname": "h"}
    trimmed = {"defaultAction": "A", "architectures": ["SCMP_ARCH_X86_64"]}
    assert without_abis(spec, X32) == {"linux": {"seccomp": trimmed, "cgroupsPath": "/x"}, "hostname": "h"}
    assert filtering["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X32"]


def test_a_spec_without_such_a_filter_is_given_back_as_it_is() -> None:
    for spec in ({}, {"linux": {}}, {"linux": {"seccomp": {"architectures": ["SCMP_ARCH_AARCH64"]}}}):
        assert without_abis(spec, X32) is spec
    both: JsonObject = {"linux": {"seccomp": {"architectures": ["SCMP_ARCH_X32"]}}}
    assert without_abis(both, frozenset()) is both


def test_an_exec_root_that_no_socket_fits_below_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="too long"):
        prepare_runtime(tmp_path / ("x" * 90))
