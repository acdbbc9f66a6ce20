"""A memory control group made by hand: version 1, as root."""

import os
import subprocess
import time
import uuid
from pathlib import Path

ROOT = Path("/sys/fs/cgroup/memory")


def can_be_made():
    return os.access(ROOT / "cgroup.procs", os.W_OK)


class Group:
    """A memory control group with a limit; what it held at most, and how many the kernel killed."""

    def __init__(self, limit_bytes):
        self.path = ROOT / f"bench-{uuid.uuid4().hex[:8]}"
        self.path.mkdir()
        (self.path / "memory.limit_in_bytes").write_text(str(limit_bytes))

    def start(self, *command, **options):
        enter = f'echo $$ > {self.path}/cgroup.procs; exec "$@"'
        words = ["sh", "-c", enter, "sh", *map(str, command)]
        return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)

    def killed(self):
        lines = dict(line.split() for line in (self.path / "memory.oom_control").read_text().splitlines())
        return int(lines["oom_kill"])

    def peak_bytes(self):
        return int((self.path / "memory.max_usage_in_bytes").read_text())

    def remove(self):
        for _ in range(100):
            try:
                self.path.rmdir()
            except OSError:
                time.sleep(0.1)
            else:
                return
