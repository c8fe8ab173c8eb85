from __future__ import annotations

import os
from pathlib import Path

from lamina.ids import CacheId
from lamina.storage.devicemapper.marks import Marks

A, B, C = CacheId("a"), CacheId("b"), CacheId("c")


def test_marks_are_read_again(tmp_path: Path) -> None:
    marks = Marks(tmp_path, {A, B})
    marks.seal(A)
    marks.seal(A)
    marks.note_parent(B, A)
    again = Marks(tmp_path, {A, B})
    assert again.is_sealed(A)
    assert not again.is_sealed(B)
    assert again.parent(B) == A
    assert (again.children(A), again.children(B)) == (1, 0)


def test_marks_of_layers_that_are_gone_go(tmp_path: Path) -> None:
    marks = Marks(tmp_path, {A, B, C})
    for layer in (A, B, C):
        marks.seal(layer)
    marks.note_parent(B, A)
    marks.note_parent(C, B)
    again = Marks(tmp_path, {A, C})
    assert again.children(A) == 0
    assert again.parent(C) is None
    assert os.listdir(tmp_path / "parents") == ["c"]
    again.forget(C)
    again.forget(C)
    assert os.listdir(tmp_path / "parents") == []
    assert os.listdir(tmp_path / "sealed") == ["a"]


def test_a_container_of_dockerds_stands_on_its_init_layer(tmp_path: Path) -> None:
    init = CacheId("a-init")
    marks = Marks(tmp_path, {A, init, B})
    assert marks.parent(A) == init
    assert marks.children(init) == 1
    assert marks.parent(B) is None
    assert os.listdir(tmp_path / "parents") == []
