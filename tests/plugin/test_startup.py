"""A session that asks for nothing pays next to nothing."""

import sys

HEAVY = [
    "msgspec",
    "psutil",
    "memray",
    "numpy",
    "tabulate",
    "jinja2",
    "pytest_membudget.measurement",
    "pytest_membudget.records",
]


def test_nothing_is_imported_and_registered_until_a_feature_is_used(pytester):
    pytester.makepyfile("def test_free(): pass")
    pytester.makeconftest(
        f"""
        import sys

        def pytest_unconfigure(config):
            print("heavy:", [name for name in {HEAVY!r} if name in sys.modules])
            ours = [name for name, _ in config.pluginmanager.list_name_plugin() if name.startswith("membudget-")]
            print("registered:", ours)
        """
    )
    result = pytester.run(sys.executable, "-m", "pytest")
    result.stdout.fnmatch_lines(["heavy: [[][]]", "registered: [[][]]"])


def test_what_is_imported_at_startup_is_small(pytester):
    pytester.makepyfile("def test_free(): pass")
    pytester.makeconftest(
        """
        import os, sys

        def pytest_unconfigure(config):
            ours = [module for name, module in sys.modules.items() if name.startswith("pytest_membudget")]
            print("bytes:", sum(os.path.getsize(module.__file__) for module in ours))
        """
    )
    result = pytester.run(sys.executable, "-m", "pytest")
    size = int(next(line for line in result.outlines if line.startswith("bytes: ")).split()[1])
    assert 0 < size < 50_000
