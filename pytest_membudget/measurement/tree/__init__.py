"""A process tree: the sampler's client, its helper process, and the interval that both prove."""
