"""A family as a tree of forks: who made which pages, and who can still hold them.

Every page of a family was faulted in by one of its processes and is held by that one or by those forked from it since. So
the family holds at most

- what the first of them, the `trunk`, holds now, and what the trunk lost (gave up, or copied to write to it) since the oldest
  living fork was made, which that fork may have kept; and
- of each of the others what it has faulted in since it was forked: no more than it holds, as long as nobody was forked from it.

With a process that ends goes what it had faulted in, unless somebody was forked from it. That is what makes this figure
tighter than a sum of all faults where forks come and go. Where a process comes whose parent is not known, the figure is given up
until one process is left.
"""

from __future__ import annotations

from .page_faults import Change
from .records import Reading


class Descent:
    """Takes every round of a family that began as one process. All figures are bytes."""

    def __init__(self, trunk: int) -> None:
        self._trunk = trunk
        self._lost = 0
        self._made: dict[int, int] = {}
        self._parents: dict[int, int] = {}
        self._lost_before: dict[int, int] = {}
        self._dead: dict[int, int] = {}

    def update(self, members: list[Reading], change: Change) -> tuple[int, int] | None:
        """The most that the family holds now and may have held since the round before, but for what nobody saw.

        That is what was faulted in by who has died or called exec since, after the last reading. `None` from the moment on
        when it cannot be told.
        """
        trunk = next((member for member in members if member.pid == self._trunk), None)
        if trunk is None or trunk.pid in change.born or not self._adopt(members, change):
            return None
        earlier = change.before[trunk.pid].anon
        grown_to = earlier + change.anon_growth[trunk.pid] + change.late[trunk.pid]
        peak = grown_to + self._kept()
        high = 0
        for member in members:
            if member is not trunk:
                now, most = self._of_fork(member, change)
                high += now
                peak += most
        peak += sum(self._dead.values()) + self._bury(members, change)
        high += sum(self._dead.values())
        self._lost += max(0, grown_to - trunk.anon)
        high += trunk.anon + self._kept()
        return high, max(high, peak)

    def _adopt(self, members: list[Reading], change: Change) -> bool:
        """Takes in who was born since the round before; False where somebody's parent is not known."""
        born = [member for member in members if member.pid in change.born]
        while born:
            known = [each for each in born if each.parent == self._trunk or each.parent in self._made]
            if not known:
                return False
            for each in known:
                self._made[each.pid] = 0
                self._parents[each.pid] = each.parent
                # A fork of a fork may have kept what that one had kept.
                self._lost_before[each.pid] = self._lost_before.get(each.parent, self._lost)
            born = [each for each in born if each.pid not in self._made]
        return True

    def _of_fork(self, member: Reading, change: Change) -> tuple[int, int]:
        pid = member.pid
        self._made[pid] += change.anon_growth[pid]
        made = self._made[pid] + change.late[pid]
        if pid in self._parents.values():
            return made, made
        if pid in change.born:
            return min(made, member.anon), made
        grown_to = change.before[pid].anon + change.anon_growth[pid] + change.late[pid]
        return min(made, member.anon), min(made, max(grown_to, member.anon))

    def _bury(self, members: list[Reading], change: Change) -> int:
        """Takes out who has ended; what they may have held since the round before."""
        living = {member.pid for member in members}
        held = 0
        for pid in [pid for pid in self._made if pid not in living]:
            made = self._made.pop(pid)
            if pid in self._parents.values():
                held += made
                # Its last moments may live on in who was forked from it.
                self._dead[pid] = made + change.unseen + change.before_exec.get(pid, 0)
            else:
                held += min(made, change.before[pid].anon)
        heirs = self._ancestors(living)
        for pid in [pid for pid in self._parents if pid not in living and pid not in heirs]:
            del self._parents[pid], self._lost_before[pid]
            self._dead.pop(pid, None)
        return held

    def _ancestors(self, living: set[int]) -> set[int]:
        found: set[int] = set()
        for pid in living:
            parent = self._parents.get(pid)
            while parent is not None and parent not in found:
                found.add(parent)
                parent = self._parents.get(parent)
        return found

    def _kept(self) -> int:
        """What the trunk has lost since the oldest living fork was made."""
        return self._lost - min(self._lost_before.values(), default=self._lost)
