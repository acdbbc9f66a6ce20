"""Functions as people have them: 5 to 100 ms a call, inputs of varying size, libraries with caches and allocators of their own."""
