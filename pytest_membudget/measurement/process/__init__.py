"""One process: its high-water mark, its shared pages, its heap, and what its allocators keep."""
