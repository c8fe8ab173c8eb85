import pytest

from lamina.containers.tmpfs import merged_options, options_of_mount
from lamina.errors import InvalidArgument


def test_defaults_are_safe_and_the_last_word_counts():
    assert set(merged_options("")) == {"noexec", "nosuid", "nodev", "rprivate"}
    found = merged_options("size=1m,exec,mode=700,size=2m")
    assert {"exec", "size=2m", "mode=700"} <= set(found)
    assert not {"noexec", "size=1m"} & set(found)


@pytest.mark.parametrize("text", ["what", "size", "upperdir=/x", "exec=1"])
def test_other_options_are_refused(text):
    with pytest.raises(InvalidArgument, match="Invalid tmpfs option"):
        merged_options(text)


def test_the_api_form_gives_the_same():
    spec = {"ReadOnly": True, "TmpfsOptions": {"SizeBytes": 5, "Mode": 0o700, "Options": [["exec"], ["uid", "5"]]}}
    assert {"ro", "size=5", "mode=700", "exec", "uid=5"} <= set(options_of_mount(spec))
