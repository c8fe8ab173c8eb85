"""What log options ask for, and the words for those that make no sense."""

import pytest

from lamina.containers.log_options import DEFAULT_ROTATION, Rotation, line_attributes, rotation
from lamina.containers.record import Container
from lamina.errors import InvalidArgument
from lamina.ids import ContainerId
from lamina.jsonvalue import JsonObject


def config(**options: str) -> JsonObject:
    return {"Type": "json-file", "Config": {key.replace("_", "-"): value for key, value in options.items()}}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, DEFAULT_ROTATION),
        ({"labels": "a"}, DEFAULT_ROTATION),
        ({"max_size": "10k"}, Rotation(10_000, 1, compress=False)),
        ({"max_size": "1.5m", "max_file": "3"}, Rotation(1_500_000, 3, compress=False)),
        ({"max_size": "5M", "max_file": "2", "compress": "true"}, Rotation(5_000_000, 2, compress=True)),
        ({"max_size": "-1"}, Rotation(None, 1, compress=False)),
        ({"max_file": "3"}, Rotation(20_000_000, 3, compress=False)),
    ],
)
def test_rotation_is_read_as_docker_reads_it(options: dict[str, str], expected: Rotation) -> None:
    assert rotation(config(**options)) == expected


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_size": "big"}, "invalid size: 'big'"),
        ({"max_size": "0"}, "must be a positive number"),
        ({"max_size": "1m", "max_file": "0"}, "max-file cannot be less than 1"),
        ({"max_size": "1m", "max_file": "many"}, "max-file must be a number"),
        ({"max_size": "1m", "compress": "true"}, "compress cannot be true when max-file is less than 2"),
        ({"max_size": "1m", "max_file": "2", "compress": "maybe"}, "compress must be true or false"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        rotation(config(**options))


def container(**options: str) -> Container:
    return Container(
        id=ContainerId("a" * 64), name="web", created="", path="sh", args=[],
        config={"Env": ["COLOR=blue", "EMPTY=", "PATH=/bin"], "Labels": {"b": "2", "a": "1", "z.x": "3"}, "Image": "busybox"},
        host_config={"LogConfig": config(**options)}, image_id=None, driver="vfs",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ""),
        ({"labels": "b, a,missing"}, '{"a":"1","b":"2"}'),
        ({"labels_regex": r"^z\."}, '{"z.x":"3"}'),
        ({"env": "COLOR,NONE", "labels": "a"}, '{"COLOR":"blue","a":"1"}'),
        ({"env_regex": "^(C|E)"}, '{"COLOR":"blue","EMPTY":""}'),
        ({"tag": "{{.Name}}/{{.ID}}"}, '{"tag":"web/aaaaaaaaaaaa"}'),
    ],
)
def test_lines_carry_what_was_chosen(options: dict[str, str], expected: str) -> None:
    assert line_attributes(container(**options)) == expected


def test_an_unknown_tag_field_and_a_bad_expression_are_refused() -> None:
    with pytest.raises(InvalidArgument, match=r"no field \{\{\.Secret\}\}"):
        line_attributes(container(tag="{{.Secret}}"))
    with pytest.raises(InvalidArgument, match="labels-regex cannot be read"):
        line_attributes(container(labels_regex="("))
