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

_MANY = 1000
"""From here on it takes longer to look up the directories above each inode than to look into every directory."""


def changed_since(generation: int, *trees: int) -> Touched | None:
    """`trees` are the roots of the subvolumes, opened; None where subvolumes lie inside, which have own numbers."""
    inodes: set[int] = set()
    for fd in trees:
        if btrfs.nested_subvolumes(fd, btrfs.subvolume_number(fd)):
            return None
        inodes.update(btrfs.inodes_changed_since(fd, generation))
    if len(inodes) > _MANY:
        return Touched(frozenset(inodes))
    above = {directory for fd in trees for directory in btrfs.directories_above(fd, inodes)}
    return Touched(frozenset(inodes), frozenset(above))
