"""Limits of memory by control groups: in trees as kernels show them, and in a real group where there may be one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heinfer_server.memory.cgroups import memory_limits

GIB = 1 << 30
NO_LIMIT = 9223372036854771712  # as version 1 says it
V2 = "27 23 0:24 {top} {point} rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = "35 31 0:32 {top} {point} rw,relatime shared:9 - cgroup cgroup rw,memory\n"
OTHER = (
    "22 27 0:21 / /proc rw - proc proc rw\n"
    "33 31 0:30 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n"
    "27 1 254:0 / / rw - ext4 /dev/vda rw\n"
)


def tree(root: Path, groups: str, mounts: str, **files: object) -> list[int]:
    """Limits in a made-up tree: its files are named by their path below /sys/fs/cgroup, with / as __ and . as _o_."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(groups)
    (root / "proc/self/mountinfo").write_text(OTHER + mounts)
    for name, content in files.items():
        path = root / "sys/fs/cgroup" / name.replace("__", "/").replace("_o_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    return sorted(memory_limits(root))


def v2(top: str = "/", point: str = "/sys/fs/cgroup") -> str:
    return V2.format(top=top, point=point)


def v1(top: str = "/", point: str = "/sys/fs/cgroup/memory") -> str:
    return V1.format(top=top, point=point)


def test_the_limit_of_a_unit_of_systemd_is_seen(tmp_path):
    files = {
        "memory_o_stat": "anon 1",  # the root group has no limits
        "system_o_slice__memory_o_max": "max",
        "system_o_slice__heinfer_o_service__memory_o_max": 4 * GIB,
        "system_o_slice__heinfer_o_service__memory_o_high": 3 * GIB,
        "system_o_slice__other_o_service__memory_o_max": 1,
    }
    assert tree(tmp_path, "0::/system.slice/heinfer.service\n", v2(), **files) == [3 * GIB, 4 * GIB]


def test_the_limit_of_a_group_above_is_seen(tmp_path):
    files = {
        "a__memory_o_max": 2 * GIB,
        "a__b__memory_o_max": 8 * GIB,
        "a__b__c__memory_o_max": "max",
        "a__b__c__memory_o_high": "max",
    }
    assert tree(tmp_path, "0::/a/b/c\n", v2(), **files) == [2 * GIB, 8 * GIB]


def test_a_container_with_a_tree_of_its_own(tmp_path):
    assert tree(tmp_path, "0::/\n", v2(), memory_o_max=GIB) == [GIB]


def test_a_container_that_sees_its_group_by_its_name_outside(tmp_path):
    files = {"memory_o_max": 5 * GIB, "inner__memory_o_max": GIB}
    assert tree(tmp_path, "0::/docker/1f/inner\n", v2(top="/docker/1f"), **files) == [GIB, 5 * GIB]


@pytest.mark.parametrize("group", ["/../../other", "/elsewhere", "/docker/1f/../x"])
def test_a_group_outside_of_what_is_mounted_has_that_limit(tmp_path, group):
    assert tree(tmp_path, f"0::{group}\n", v2(top="/docker/1f"), memory_o_max=GIB, x__memory_o_max=7) == [GIB]


def test_version_1_and_those_above_what_is_mounted(tmp_path):
    files = {
        "memory__memory_o_limit_in_bytes": NO_LIMIT,
        "memory__a__memory_o_limit_in_bytes": 3 * GIB,
        "memory__a__memory_o_stat": f"cache 1\nhierarchical_memory_limit {2 * GIB}\nhierarchical_memsw_limit 1\n",
        "cpu__a__memory_o_limit_in_bytes": 1,
    }
    groups = "9:name=systemd:/\n5:cpu,cpuacct:/a\n4:hugetlb,memory:/a\n"
    assert tree(tmp_path, groups, v1(), **files) == [2 * GIB, 3 * GIB, NO_LIMIT]


def test_both_versions_side_by_side(tmp_path):
    files = {"memory__s__memory_o_limit_in_bytes": 2 * GIB, "unified__s__cgroup_o_procs": 1}
    mounts = v1() + v2(point="/sys/fs/cgroup/unified")
    assert tree(tmp_path, "4:memory:/s\n0::/s\n", mounts, **files) == [2 * GIB]


def test_names_with_spaces(tmp_path):
    mounts = v2(point="/sys/fs/cgroup/with\\040space")
    assert tree(tmp_path, "0::/a b:c\n", mounts, **{"with space__a b:c__memory_o_max": GIB}) == [GIB]


def test_where_there_is_nothing_there_is_no_limit(tmp_path):
    assert list(memory_limits(tmp_path)) == []
    assert tree(tmp_path, "", "") == []


ODD = st.lists(
    st.sampled_from(["0::", "4:memory:", "1 2 3 / /sys ", " - ", "cgroup2 x rw", "\n", "/..", "\x00"]) | st.text()
)


@given(ODD.map("".join), ODD.map("".join))
def test_what_no_kernel_writes_is_no_error(groups, mounts):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "heinfer_server.memory.cgroups._text", lambda path: mounts if path.name == "mountinfo" else groups
        )
        list(memory_limits())


def test_the_limit_of_a_real_group_around_the_own_one_is_seen():
    """With version 1 of the controller: a nested group needs no more than its folder."""
    top = Path("/sys/fs/cgroup/memory")
    if not os.access(top, os.W_OK) or not (top / "memory.limit_in_bytes").exists():
        pytest.skip("no tree of version 1 that may be written here")
    outer = top / f"heinfer-test-{os.getpid()}"
    inner = outer / "inner"
    try:
        try:
            inner.mkdir(parents=True)
            (outer / "memory.limit_in_bytes").write_text(str(2 * GIB))
        except OSError:
            pytest.skip("no group can be made here")
        join = f"open('{inner}/cgroup.procs', 'w').write(str(__import__('os').getpid()))"
        code = f"{join}; from heinfer_server.memory.total import available; print(available())"
        seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
        assert int(seen.stdout) == 2 * GIB
    finally:
        for folder in (inner, outer):
            if folder.exists():
                folder.rmdir()
