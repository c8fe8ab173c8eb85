import json

import pytest

from lamina.containers.capabilities import DEFAULT
from lamina.containers.seccomp import default_filter, filter_of_profile
from lamina.errors import InvalidArgument


def allowed(found) -> set[str]:
    return {
        name
        for call in found["syscalls"]
        for name in call["names"]
        if call["action"] == "SCMP_ACT_ALLOW" and "args" not in call
    }


def rules(found, name):
    return [call for call in found["syscalls"] if name in call["names"]]


@pytest.fixture
def plain():
    return default_filter(frozenset(DEFAULT), "x86_64")


def test_what_is_not_named_fails_with_eperm(plain):
    assert (plain["defaultAction"], plain["defaultErrnoRet"]) == ("SCMP_ACT_ERRNO", 1)
    assert plain["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]


def test_everyday_calls_are_allowed(plain):
    assert {"read", "openat", "execve", "mmap", "futex", "epoll_wait", "statx", "prctl", "chroot"} <= allowed(plain)


@pytest.mark.parametrize(
    "name", ["mount", "unshare", "setns", "bpf", "keyctl", "add_key", "kexec_load", "io_uring_setup", "userfaultfd"]
)
def test_calls_that_reach_the_host_are_not(plain, name):
    assert name not in allowed(plain)


@pytest.mark.parametrize(
    ("capability", "name"),
    [
        ("CAP_SYS_ADMIN", "mount"),
        ("CAP_SYS_TIME", "settimeofday"),
        ("CAP_SYS_MODULE", "init_module"),
        ("CAP_BPF", "bpf"),
    ],
)
def test_a_capability_brings_its_calls(capability, name):
    assert name in allowed(default_filter(frozenset({*DEFAULT, capability}), "x86_64"))


def socket_allowed(found, family: int) -> bool:
    compare = {"LT": family.__lt__, "EQ": family.__eq__, "GT": family.__gt__}
    return any(
        compare[call["args"][0]["op"].removeprefix("SCMP_CMP_")](call["args"][0]["value"])
        for call in rules(found, "socket")
    )


def test_sockets_of_the_kernels_crypto_and_the_hypervisor_are_refused(plain):
    assert not socket_allowed(plain, 38)
    assert not socket_allowed(plain, 40)
    assert all(socket_allowed(plain, family) for family in (1, 2, 10, 16, 17, 39, 41))
    assert [call["action"] for call in rules(plain, "socketcall")] == ["SCMP_ACT_ERRNO"]


def test_clone_may_make_no_namespaces_and_clone3_is_not_there(plain):
    (clone,) = rules(plain, "clone")
    assert clone["args"] == [{"index": 0, "value": 0x7E020000, "op": "SCMP_CMP_MASKED_EQ"}]
    (clone3,) = rules(plain, "clone3")
    assert (clone3["action"], clone3["errnoRet"]) == ("SCMP_ACT_ERRNO", 38)


def test_other_machines_get_their_own_calls():
    arm = default_filter(frozenset(DEFAULT), "aarch64")
    assert "cacheflush" in allowed(arm)
    assert "arch_prctl" not in allowed(arm)
    assert "architectures" not in default_filter(frozenset(DEFAULT), "unheard-of")


PROFILE = {
    "defaultAction": "SCMP_ACT_ERRNO",
    "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
    "syscalls": [
        {"names": ["read"], "action": "SCMP_ACT_ALLOW"},
        {"name": "write", "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]},
        {"names": ["bpf"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_BPF"]}},
        {"names": ["clone3"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_CHOWN"]}},
        {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
        {"names": ["new"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "99.0"}},
        {"names": ["arm"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["arm64"]}},
    ],
}


def test_a_profile_of_a_user_is_cut_to_what_applies():
    found = filter_of_profile(json.dumps(PROFILE), ["CAP_CHOWN"], "x86_64", (6, 1))
    assert [call["names"] for call in found["syscalls"]] == [["read"], ["write"], ["ptrace"]]
    assert found["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/etc/profile.json",
        "[]",
        "{}",
        json.dumps(PROFILE | {"architectures": ["SCMP_ARCH_X86"]}),
        json.dumps({"defaultAction": "x", "syscalls": [{"name": "a", "names": ["b"], "action": "y"}]}),
        json.dumps({"defaultAction": "x", "syscalls": [{"names": ["b"], "includes": {"minKernel": "x"}}]}),
    ],
)
def test_a_profile_that_makes_no_sense_is_refused(text):
    with pytest.raises(InvalidArgument):
        filter_of_profile(text, [], "x86_64", (6, 1))
