"""Its place on the import path: the programs and scripts beside it serve the tests of every folder below."""
