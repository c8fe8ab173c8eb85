from __future__ import annotations

import errno

import pytest

from lamina.errors import StorageFull
from lamina.storage.room import needing_room


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_says_what_did_not_fit(code: int) -> None:
    with pytest.raises(StorageFull, match="no room for layer abc"), needing_room("layer abc"):
        raise OSError(code, "full")


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(PermissionError), needing_room("layer abc"):
        raise PermissionError(errno.EPERM, "no")
