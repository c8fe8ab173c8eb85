"""repositories.json: Docker's shape and Docker's rules."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from lamina.errors import Conflict, InvalidReference, NoSuchImage
from lamina.images.tags import TagStore
from lamina.oci.digest import Digest, ImageId
from lamina.oci.reference import Reference, parse_reference

ONE, TWO = (ImageId(Digest("sha256:" + digit * 64)) for digit in "12")
DIGEST = "sha256:" + "d" * 64


@pytest.fixture
def tags(tmp_path: Path) -> TagStore:
    return TagStore(tmp_path / "repositories.json")


def written(tmp_path: Path) -> bytes:
    return (tmp_path / "repositories.json").read_bytes()


def test_the_file_is_dockers_to_the_byte(tags: TagStore, tmp_path: Path) -> None:
    tags.set_tag(parse_reference("quay.io:443/b/c:2"), TWO)
    tags.set_digest(parse_reference(f"busybox:x@{DIGEST}"), ONE)
    tags.set_tag(parse_reference("busybox"), ONE)
    assert written(tmp_path) == (
        b'{"Repositories":{"busybox":{"busybox:latest":"' + ONE.encode() + b'","busybox@' + DIGEST.encode() + b'":"'
        + ONE.encode() + b'"},"quay.io:443/b/c":{"quay.io:443/b/c:2":"' + TWO.encode() + b'"}}}'
    )  # fmt: skip
    assert (tmp_path / "repositories.json").stat().st_mode & 0o777 == 0o600
    tags.remove(parse_reference("quay.io:443/b/c:2"))
    assert list(json.loads(written(tmp_path))["Repositories"]) == ["busybox"]


def test_an_empty_store_has_dockers_empty_file(tags: TagStore, tmp_path: Path) -> None:
    tags.set_tag(parse_reference("a"), ONE)
    tags.remove(parse_reference("a"))
    assert written(tmp_path) == b'{"Repositories":{}}'


def test_a_start_reads_what_was_written(tags: TagStore, tmp_path: Path) -> None:
    tags.set_tag(parse_reference("docker.io/a.b/c:1"), ONE)
    tags.set_digest(parse_reference(f"a@{DIGEST}"), TWO)
    again = TagStore(tmp_path / "repositories.json")
    assert again.load() == []
    assert again.all() == tags.all()


def test_a_tag_moves_and_a_digest_never(tags: TagStore) -> None:
    tags.set_tag(parse_reference("a:1"), ONE)
    tags.set_tag(parse_reference("a:1"), TWO)
    assert tags.resolve(parse_reference("a:1")) == TWO
    assert tags.references(ONE) == []
    tags.set_digest(parse_reference(f"a@{DIGEST}"), ONE)
    tags.set_digest(parse_reference(f"a@{DIGEST}"), ONE)
    with pytest.raises(Conflict, match="Cannot overwrite digest"):
        tags.set_digest(parse_reference(f"a@{DIGEST}"), TWO)
    assert tags.resolve(parse_reference(f"a:5@{DIGEST}")) == ONE


def test_no_tag_means_latest(tags: TagStore) -> None:
    tags.set_tag(parse_reference("a"), ONE)
    assert tags.resolve(parse_reference("a:latest")) == ONE
    assert tags.resolve(parse_reference("docker.io/library/a")) == ONE
    with pytest.raises(NoSuchImage, match=r"^No such image: b:latest$"):
        tags.resolve(parse_reference("b"))
    with pytest.raises(NoSuchImage):
        tags.remove(parse_reference("b"))


def test_what_would_be_read_as_a_digest_is_refused(tags: TagStore) -> None:
    with pytest.raises(InvalidReference, match="ambiguous"):
        tags.set_tag(parse_reference("sha256:abc"), ONE)
    with pytest.raises(InvalidReference):
        tags.set_tag(parse_reference(f"a@{DIGEST}"), ONE)
    with pytest.raises(InvalidReference):
        tags.set_digest(parse_reference("a:1"), ONE)


def test_a_change_that_does_not_reach_the_disk_did_not_happen(tmp_path: Path) -> None:
    tags = TagStore(tmp_path / "gone" / "repositories.json")
    with pytest.raises(FileNotFoundError):
        tags.set_tag(parse_reference("a"), ONE)
    assert tags.all() == {}


def test_entries_that_make_no_sense_are_told_and_left_out(tmp_path: Path) -> None:
    rows = {"a": {"a:1": ONE, "A:2": ONE, "a:3": "sha256:../../x"}}
    (tmp_path / "repositories.json").write_text(json.dumps({"Repositories": rows}))
    tags = TagStore(tmp_path / "repositories.json")
    assert len(tags.load()) == 2
    assert list(tags.all()) == [parse_reference("a:1")]


class TagMachine(RuleBasedStateMachine):
    """Any sequence of changes leaves memory, file and a plain dictionary the same."""

    names = st.sampled_from(["a", "b/c", "quay.io/a", "a.b:5/x"])
    texts = st.builds(lambda name, tag: f"{name}:{tag}", names, st.sampled_from(["1", "latest"]))
    images = st.sampled_from([ONE, TWO])

    @initialize(where=st.uuids())
    def begin(self, where: object) -> None:
        import tempfile

        self.home = tempfile.TemporaryDirectory()
        self.path = Path(self.home.name) / f"{where}.json"
        self.tags = TagStore(self.path)
        self.model: dict[Reference, ImageId] = {}

    def teardown(self) -> None:
        if hasattr(self, "home"):
            self.home.cleanup()

    @rule(text=texts, image=images)
    def set_tag(self, text: str, image: ImageId) -> None:
        self.tags.set_tag(parse_reference(text), image)
        self.model[parse_reference(text)] = image

    @rule(text=texts)
    def remove(self, text: str) -> None:
        key = parse_reference(text)
        if key in self.model:
            assert self.tags.remove(key) == self.model.pop(key)
            return
        with pytest.raises(NoSuchImage):
            self.tags.remove(key)

    @invariant()
    def all_agree(self) -> None:
        if not hasattr(self, "tags"):
            return
        assert self.tags.all() == self.model
        for image in (ONE, TWO):
            assert set(self.tags.references(image)) == {key for key, value in self.model.items() if value == image}
        again = TagStore(self.path)
        assert again.load() == []
        assert again.all() == self.model


TestTagMachine = TagMachine.TestCase
TestTagMachine.settings = settings(
    max_examples=15, stateful_step_count=12, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


def test_looking_does_not_wait_for_who_writes(tags: TagStore) -> None:
    tags.set_tag(parse_reference("busybox"), ONE)
    with ThreadPoolExecutor(1) as threads, tags._writing:
        assert threads.submit(tags.resolve, parse_reference("busybox")).result(5) == ONE
