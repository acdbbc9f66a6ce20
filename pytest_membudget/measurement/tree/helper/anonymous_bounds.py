"""Anonymous memory of processes that were forked from each other without exec.

A fork group as a tree of forks: which process made which pages, and which can still hold them.

Every page of a fork group was faulted in by one of its processes and is held by that one or by those forked from it since. So
the fork group holds at most

- what the first of them, the `trunk`, holds now, and what the trunk lost (gave up, or copied to write to it) since the oldest
  living fork was made, which that fork may have kept; and
- of each of the others what it has faulted in since it was forked: no more than it holds, as long as no process was forked from it.

With a process that ends goes what it had faulted in, unless a process was forked from it. That is what makes this figure
tighter than a sum of all faults where forks come and go. Where a process comes whose parent is not known, the figure is given up
until one process is left.
"""

from __future__ import annotations

from .records import PAGE, Change, Proportional, Reading, Span, by_fork_group


class ForkTree:
    """Takes every scan of a fork group that began as one process. All figures are bytes."""

    def __init__(self, trunk: int) -> None:
        self._trunk = trunk
        self._lost = 0
        self._made: dict[int, int] = {}
        self._parents: dict[int, int] = {}
        self._lost_before: dict[int, int] = {}
        self._dead: dict[int, int] = {}

    def update(self, members: list[Reading], change: Change) -> tuple[int, int] | None:
        """The most that the fork group holds now and may have held since the scan before, but for what no scan saw.

        That is what processes faulted in after their last reading and before they died or called exec. `None` from the moment on
        when it is not known.
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
        """Adds the processes born since the scan before; False where the parent of one is not known."""
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
        """Removes the processes that have ended; returns what they may have held since the scan before."""
        living = {member.pid for member in members}
        held = 0
        for pid in [pid for pid in self._made if pid not in living]:
            made = self._made.pop(pid)
            if pid in self._parents.values():
                held += made
                # What it made last may live on in processes that were forked from it.
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


class ForkGroups:
    """Bounds for the anonymous memory of every fork group, and what is needed to correct them by a later sample of proportional sizes.

    All figures are bytes, and of the scan that was taken last:

    - `together`: the peak of all fork groups that have more than one process.
    - `resident_peak`: the same as a plain sum over their processes, which counts shared pages once for each.
    - `excess`: how much of such a sum was counted more than once, where proportional sizes were read in this scan;
      `excess_left`: how much of it surely still was at the end of the scan.
    - `with_unseen`: whether the peak contains what processes that died since the scan before had faulted in after
      their last reading.
    """

    def __init__(self, *, shared_outside: bool, adoptive: int = 0) -> None:
        self._shared_outside = shared_outside
        self._adoptive = adoptive
        self._fork_trees: dict[object, ForkTree] = {}
        self._high: dict[object, int] = {}
        self._unsampled: dict[object, int] = {}  # the same without a sample that does not count yet
        self._correction: dict[int, int] = {}  # proportional less resident, per process; never above zero
        self.together = 0
        self.resident_peak = 0
        self._moved = 0
        self.excess: int | None = None
        self.excess_left = 0
        self.with_unseen = False

    def update(self, change: Change, proportional: Proportional | None) -> Span:
        """Takes one scan."""
        members_of = by_fork_group(change.now)
        ended = by_fork_group(change.ended)
        total = Span(0, 0, 0)
        self.together = self.resident_peak = self._moved = 0
        self.with_unseen = False
        for fork_group, members in members_of.items():
            if len(members) == 1 and fork_group not in ended:
                total += self._alone(members[0], change)
                continue
            span = self._together(fork_group, members, change, proportional)
            self.together += span.peak
            self.resident_peak += _resident_peak(members, ended.get(fork_group, []), change)
            total += span
            self.with_unseen = True
        if self.with_unseen:
            self.resident_peak += change.unseen
        # A fork group that died out held, up to its end, what it last had; what it added then is in the unseen growth.
        gone = [fork_group for fork_group in ended if fork_group not in members_of]
        total.peak += sum(min(self._high[f], sum(r.anon for r in ended[f])) for f in gone if f in self._high)
        self._high = {fork_group: size for fork_group, size in self._high.items() if fork_group in members_of}
        self._unsampled = {
            fork_group: size for fork_group, size in self._unsampled.items() if fork_group in members_of
        }
        self._fork_trees = {
            fork_group: size for fork_group, size in self._fork_trees.items() if fork_group in members_of
        }
        self._correction = {pid: size for pid, size in self._correction.items() if pid in change.growth}
        self.excess = self._excess(members_of, proportional)
        self.excess_left = (self.excess or 0) - self._moved
        return total

    def _alone(self, only: Reading, change: Change) -> Span:
        self._high[only.fork_group] = only.anon
        self._correction[only.pid] = 0
        if only.pid != self._adoptive:
            self._fork_trees[only.fork_group] = ForkTree(only.pid)
        low = max(0, only.anon - change.growth[only.pid]) if only.pid not in change.born else 0
        return Span(low, only.anon, _most(only, change))

    def _together(
        self, fork_group: object, members: list[Reading], change: Change, proportional: Proportional | None
    ) -> Span:
        # What a process added before it called exec, or ended, may live on in a child that it had forked.
        pids = {member.pid for member in members}
        unread = change.unseen + sum(size for pid, size in change.before_exec.items() if pid not in pids)
        added = sum(change.anon_growth[pid] for pid in pids) + unread
        resident = sum(member.anon for member in members)
        unsampled = self._unsampled.pop(fork_group, None)
        before = self._high.get(fork_group, resident)
        if change.born and unsampled is not None:
            before = unsampled
        grown_to = before + added
        high = min(resident, grown_to)
        settled = {m.pid: max(0, m.anon - change.growth[m.pid]) for m in members if m.pid not in change.born}
        low = max(settled.values(), default=0)
        if len(members) == 1:
            self._correction[members[0].pid] = 0
        elif proportional and all(member.pid in proportional.correction for member in members):
            # Sharing grows by forks only, and after one this sample is dropped. So the corrections may be too low,
            # by a page for each that was copied or given up meanwhile, never too high.
            self._correction.update(proportional.correction)
            dropped = sum(max(0, change.before[m.pid].anon - m.anon) for m in members)
            unique = sum(member.anon + self._correction[member.pid] for member in members)
            moved = added + dropped + len(members) * PAGE
            self._moved += moved
            if not self._shared_outside:
                self._unsampled[fork_group] = high
                high = min(high, unique + moved)
        if all(pid in self._correction for pid in settled):
            low = max(low, sum(size + self._correction[pid] for pid, size in settled.items()))
        self._high[fork_group] = high = max(low, high)
        peak = grown_to + sum(change.late[pid] for pid in pids)
        fork_tree = self._fork_trees.pop(fork_group, None)
        found = fork_tree.update(members, change) if fork_tree else None
        if fork_tree and found:
            self._fork_trees[fork_group] = fork_tree
            high, peak = min(high, found[0]), min(peak, found[1] + unread)
        return Span(low, max(low, high), peak)

    def _excess(
        self, members_of: dict[object, list[Reading]], proportional: Proportional | None
    ) -> int | None:
        if not proportional or self._shared_outside:
            return None
        together = [member.pid for members in members_of.values() if len(members) > 1 for member in members]
        if not all(pid in proportional.correction for pid in together):
            return None
        return -sum(proportional.correction[pid] for pid in together)


def _most(reading: Reading, change: Change) -> int:
    """The most that one process, and a fork of it that no scan saw, may have held since the scan before."""
    earlier = None if reading.pid in change.born else change.before[reading.pid]
    grown = change.anon_growth[reading.pid] + change.late[reading.pid]
    most = (earlier.anon if earlier else 0) + grown
    if reading.mark is not None and reading.pid not in change.secretive:
        mapped = min(r.file + r.shmem for r in (reading, earlier or reading))
        most = min(most, reading.mark - mapped)
    return max(most, reading.anon)


def _resident_peak(members: list[Reading], ended: list[Reading], change: Change) -> int:
    """The most that a fork group's processes may have held since the scan before, shared pages counted for each."""
    # One that called exec is in a fork group of its own now, and so is what it had added until then.
    held = [each.anon + change.before_exec.get(each.pid, 0) for each in ended]
    held += [_most(member, change) for member in members if member.pid not in change.born]
    if change.unseen:
        # What they gave up may have lived on in a child that no scan saw.
        held.append(sum(held) - sum(member.anon for member in members if member.pid not in change.born))
    born = [member for member in members if member.pid in change.born]
    # A child starts with all that its parent held; the parent may be new in this scan as well.
    added = sum(change.anon_growth[each.pid] + change.late[each.pid] for each in born)
    inherited = max(held, default=0)
    return sum(held) + sum(max(inherited + added, each.anon) for each in born)
