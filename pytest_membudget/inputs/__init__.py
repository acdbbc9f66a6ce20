"""Files of exactly the asked size, for tests, calibration and the demo.

1. `kinds` says what a valid document of each kind looks like: how it opens, one record, how it closes;
2. `synthesis` fills exactly the asked size with such records, block by block, so that memory stays flat, and puts the file in
   place of the one at its path, whole or not at all.
"""

from pytest_membudget.inputs.kinds import KINDS
from pytest_membudget.inputs.synthesis import synthesize

__all__ = ["KINDS", "synthesize"]
