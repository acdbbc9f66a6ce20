"""What the programs that share a budget have written down: who takes part, and their claims in order of arrival."""

from __future__ import annotations

from typing import Literal

import msgspec

from pytest_membudget.runtime.admission.process_identity import Owner


class HostClient(msgspec.Struct, frozen=True, kw_only=True):
    """One semaphore of one program: the budget it was given, or the most that its measured budget can be.

    `reserve` is the share of the limit to keep back where the budget is measured, else `None`.
    """

    id: str
    owner: Owner
    budget_bytes: int
    max_overtakes: int
    reserve: float | None = None


class HostClaim(msgspec.Struct, kw_only=True):
    """One request: waiting until `granted`, then charged its `bytes` or what is resident, whichever is more."""

    id: str
    owner: Owner
    bytes: int
    client: str = ""
    exclusive: bool = False
    granted: bool = False
    resident_bytes: int = 0
    overtaken: int = 0


class HostState(msgspec.Struct, kw_only=True):
    """The shared file. `available_when_empty_bytes` is what was available when no lease was out last."""

    format: Literal["membudget-host-ledger"] = "membudget-host-ledger"
    version: Literal[1] = 1
    boot_id: str = ""
    available_when_empty_bytes: int = 0
    clients: list[HostClient] = []
    claims: list[HostClaim] = []
