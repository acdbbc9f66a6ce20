"""Memory and clocks that do what a test says."""

from pytest_membudget.records.measurement import MemoryLimit, MemoryReading

MB = 1_000_000


def without_pressure(errors):
    """What a program wrote to its standard error, but for the warning that the machine is short of memory."""
    return "".join(line for line in errors.splitlines(True) if not line.startswith("memory pressure:"))


class ScriptedMemory:
    """A machine of 16,384 MB, half of it free: the reference's figures. Tests change them as they go."""

    def __init__(self, total_bytes=16_384 * MB, available_bytes=8_192 * MB):
        self.total_bytes = total_bytes
        self.available_bytes = available_bytes
        self.own_bytes = 0

    def reading(self):
        return MemoryReading(
            limit=MemoryLimit(self.total_bytes, "scripted"), available_bytes=self.available_bytes
        )

    def own(self):
        return self.own_bytes

    def becomes_resident(self, size_bytes):
        """A leased task touches its memory."""
        self.own_bytes += size_bytes
        self.available_bytes -= size_bytes


class ScriptedClock:
    """A clock that moves only when a caller waits, and runs what the script has for that moment."""

    def __init__(self):
        self.now_s = 0.0
        self.script = []

    def __call__(self):
        return self.now_s

    def at(self, at_s, action):
        self.script.append((at_s, action))
        self.script.sort(key=lambda step: step[0])

    def wait(self, event, timeout_s):
        until_s = float("inf") if timeout_s is None else self.now_s + timeout_s
        while self.script and self.script[0][0] <= until_s and not event.is_set():
            self.now_s, action = self.script.pop(0)
            action()
        if not event.is_set():
            assert until_s < float("inf"), "waits for ever: nothing is left in the script"
            self.now_s = until_s
        return event.is_set()
