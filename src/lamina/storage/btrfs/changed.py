"""Which files of a snapshot may differ from what it is a snapshot of, by asking the file system's trees (blocking).

Right after a snapshot was made, both trees are the same, inode number by inode number. From then on each change of a
file gives its inode item the number of the transaction that changed it: writing, truncating, chmod, chown, links and
extended attributes all do, and a directory is changed by every name that comes or goes. Numbers of inodes are not used
again. So an inode that no later transaction touched, in either tree, stands for the same file in both. What is still in
memory has no inode item yet: the tree to be asked is a snapshot of the layer, which is made after its data is written.
"""

from __future__ import annotations

from lamina.kernel import btrfs
from lamina.rootfs.diff import Touched

_MOST = 5000
"""From here on asking for each of them takes longer than looking at every file."""


def changed_since(generation: int, tree_fd: int, parent_fd: int) -> Touched | None:
    """Compare two subvolumes, of which one began as the other's snapshot in the transaction `generation`.

    None when very much was changed. There must be no subvolumes inside: they have inode numbers of their own.
    """
    changed: set[int] = set()
    for fd, other_fd in ((tree_fd, parent_fd), (parent_fd, tree_fd)):
        states = btrfs.inodes_changed_since(fd, generation, _MOST)
        if states is None:
            return None
        # Who only looked into a file or a directory has given it another access time, and changed nothing.
        others = btrfs.inode_states(other_fd, states)
        changed.update(inode for inode, state in states.items() if others.get(inode) != state)
    above = {directory for fd in (tree_fd, parent_fd) for directory in btrfs.directories_above(fd, changed)}
    return Touched(frozenset(changed), frozenset(above))


def very_much_changed(fd: int, generation: int) -> bool:
    """Would `changed_since` tell nothing? What the tree already shows without a snapshot may be too much."""
    return btrfs.inodes_changed_since(fd, generation, _MOST) is None


def holds_subvolumes(fd: int) -> bool:
    """Are there subvolumes in the one that `fd` is in? In a snapshot of it they are empty directories."""
    return bool(btrfs.nested_subvolumes(fd, btrfs.subvolume_number(fd)))
