from lamina.changeset.entry import Entry, EntryKind


def test_entries_are_equal_by_value() -> None:
    assert Entry(EntryKind.FILE, b"a") == Entry(EntryKind.FILE, b"a")
    assert Entry(EntryKind.FILE, b"a") != Entry(EntryKind.FILE, b"a", mode=0o600)
