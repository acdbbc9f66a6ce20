"""Who may take memory: the ledger, its queue, semaphores, and the budget that programs of a host share."""
