import json
import threading

import pytest

from lamina.containers.record import Container
from lamina.containers.state import Status
from lamina.containers.store import ContainerStore
from lamina.errors import AlreadyExists, InvalidArgument, NameInUse, NoSuchContainer
from lamina.ids import ContainerId

ID_A = ContainerId("a" * 63 + "1")
ID_B = ContainerId("a" * 63 + "2")
ID_C = ContainerId("c" * 64)


def container(container_id: ContainerId, name: str, driver: str = "overlay2") -> Container:
    return Container(
        id=container_id,
        name=name,
        created="2026-01-01T00:00:00Z",
        path="sh",
        args=[],
        config={},
        host_config={"NetworkMode": "none"},
        image_id=None,
        driver=driver,
    )


@pytest.fixture
def store(tmp_path):
    return ContainerStore(tmp_path / "containers", "overlay2")


def reopened(store: ContainerStore, names=(ID_A, ID_B, ID_C)) -> tuple[ContainerStore, list[str]]:
    again = ContainerStore(store._directory, "overlay2")
    return again, again.load(names)


def test_what_was_added_is_found_by_id_name_and_prefix(store):
    added = container(ID_A, "web")
    store.add(added)
    assert store.resolve(ID_A) is added
    assert store.resolve("web") is added
    assert store.resolve("/web") is added
    assert store.resolve(ID_A[:12]) is added
    assert store.all() == [added]


def test_a_name_wins_over_an_id_prefix(store):
    store.add(container(ID_C, "web"))
    named = container(ID_A, "cc")
    store.add(named)
    assert store.resolve("cc") is named


def test_unknown_and_ambiguous_names_are_refused_in_dockers_words(store):
    store.add(container(ID_A, "web"))
    store.add(container(ID_B, "db"))
    with pytest.raises(NoSuchContainer, match=r"^No such container: nothing$"):
        store.resolve("nothing")
    with pytest.raises(InvalidArgument, match=r"^Multiple IDs found with provided prefix: aaaa$"):
        store.resolve("aaaa")
    with pytest.raises(InvalidArgument):
        store.resolve("")


def test_a_name_in_use_is_refused_and_nothing_is_left(store):
    store.add(container(ID_A, "web"))
    words = f'The container name "/web" is already in use by container "{ID_A}". You have to remove'
    with pytest.raises(NameInUse, match=words):
        store.add(container(ID_B, "web"))
    assert not store.directory(ID_B).exists()


def test_an_id_that_is_taken_is_refused_and_its_name_is_free_again(store):
    store.add(container(ID_A, "web"))
    with pytest.raises(AlreadyExists):
        store.add(container(ID_A, "web2"))
    store.reserve_name("web2", ID_B)
    assert store.resolve("web").id == ID_A


def test_a_reserved_name_is_the_reservers(store):
    store.reserve_name("web", ID_A)
    with pytest.raises(NameInUse):
        store.reserve_name("web", ID_B)
    store.add(container(ID_A, "web"))
    store.release_name("free")


def test_containers_are_there_again_after_a_restart(store):
    store.add(container(ID_A, "web"))
    again, warnings = reopened(store)
    assert warnings == []
    assert again.resolve("web").host_config == {"NetworkMode": "none"}


def test_files_have_dockers_names_and_modes(store):
    store.add(container(ID_A, "web"))
    directory = store.directory(ID_A)
    modes = {entry.name: entry.stat().st_mode & 0o777 for entry in directory.iterdir()}
    assert modes == {"checkpoints": 0o700, "config.v2.json": 0o600, "hostconfig.json": 0o600}
    assert directory.stat().st_mode & 0o777 == 0o710


def test_a_saved_change_survives_in_both_files(store):
    added = container(ID_A, "web")
    store.add(added)
    added.state.exit_code = 3
    added.host_config["Memory"] = 5
    store.save(added)
    added.restart_count = 7
    store.save_lazy(added)
    again, _ = reopened(store)
    found = again.resolve("web")
    assert (found.state.exit_code, found.host_config["Memory"], found.restart_count) == (3, 5, 7)


def test_a_renamed_container_has_only_the_new_name(store):
    added = container(ID_A, "web")
    store.add(added)
    store.rename(added, "shop")
    assert store.resolve("shop") is added
    with pytest.raises(NoSuchContainer):
        store.resolve("web")
    again, _ = reopened(store)
    assert again.resolve("shop").id == ID_A


def test_renaming_to_a_name_in_use_changes_nothing(store):
    first, second = container(ID_A, "web"), container(ID_B, "db")
    store.add(first)
    store.add(second)
    with pytest.raises(NameInUse):
        store.rename(first, "db")
    assert first.name == "web"
    assert store.resolve("db") is second


def test_a_forgotten_container_is_gone_everywhere_and_again_is_fine(store):
    added = container(ID_A, "web")
    store.add(added)
    store.forget(added)
    store.forget(added)
    assert not store.directory(ID_A).exists()
    assert store.all() == []
    store.add(container(ID_B, "web"))


@pytest.mark.parametrize("how", ["driver", "no layer", "broken", "wrong id"])
def test_what_cannot_be_used_is_left_out_with_a_warning_and_kept(store, how):
    store.add(container(ID_A, "web", "vfs" if how == "driver" else "overlay2"))
    path = store.directory(ID_A) / "config.v2.json"
    if how == "broken":
        path.write_bytes(b"{")
    if how == "wrong id":
        path.write_text(json.dumps(json.loads(path.read_text()) | {"ID": ID_B}))
    again, warnings = reopened(store, [] if how == "no layer" else [ID_A])
    assert len(warnings) == 1
    assert ID_A[:12] in warnings[0]
    assert again.all() == []
    assert path.exists()


def test_of_two_with_one_name_the_second_is_left_out(store):
    store.add(container(ID_A, "web"))
    store.add(container(ID_B, "db"))
    path = store.directory(ID_B) / "config.v2.json"
    path.write_text(path.read_text().replace("/db", "/web"))
    again, warnings = reopened(store)
    assert len(warnings) == 1
    assert [found.id for found in again.all()] == [ID_A]


def test_an_interrupted_removal_is_dead_after_a_restart(store):
    added = container(ID_A, "web")
    store.add(added)
    added.state.status = Status.REMOVING
    store.save(added)
    again, _ = reopened(store)
    assert again.resolve("web").state.status is Status.DEAD


def test_what_an_interrupted_create_left_is_swept(store):
    left = store.directory(ID_A)
    left.mkdir()
    (left / "checkpoints").mkdir()
    (left / ".tmp-config.v2.json123").write_bytes(b"{")
    (left / "hostconfig.json").write_bytes(b"{}\n")
    kept = store.directory(ID_B)
    kept.mkdir()
    (kept / "something").write_bytes(b"")
    _, warnings = reopened(store)
    assert warnings == []
    assert not left.exists()
    assert kept.exists()


def test_many_threads_save_one_container(store):
    added = container(ID_A, "web")
    store.add(added)
    threads = [threading.Thread(target=store.save_lazy, args=(added,)) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    again, warnings = reopened(store)
    assert warnings == []
    assert len(again.all()) == 1


@pytest.mark.parametrize("prefix", [".new-", ".gone-"])
def test_what_an_interrupted_create_or_remove_left_aside_is_swept(store, prefix):
    staged = store.directory(ContainerId(f"{prefix}{ID_A}"))
    staged.mkdir()
    (staged / "config.v2.json").write_bytes(b"{}")
    _, warnings = reopened(store)
    assert warnings == []
    assert not staged.exists()


def test_a_removal_that_had_come_as_far_as_the_layer_is_finished_and_not_left_out(store):
    going = container(ID_A, "web")
    store.add(going)
    going.state.removal_in_progress = True
    store.save_lazy(going)
    again, warnings = reopened(store, names=())
    assert warnings == []
    assert again.resolve(ID_A).state.status is Status.DEAD


def test_a_record_that_names_no_storage_driver_is_one_of_aufs(store):
    store.add(container(ID_A, "web", ""))
    found = ContainerStore(store.directory(ID_A).parent, "aufs")
    assert found.load([ID_A]) == []
    assert found.resolve("web").id == ID_A
    _, warnings = reopened(store, [ID_A])
    assert "aufs" in warnings[0]
