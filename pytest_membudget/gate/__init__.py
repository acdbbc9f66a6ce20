"""Judge: is what a test took what it may take, and what it used to take?

1. `judge` compares one measurement with its `Budget`, `judge_growth` a growth with its allowance,
   `status_of` one scale of a job with the limit and its budget;
2. `load_baseline` reads what was committed, `environment_differences` whether it was made elsewhere, and
   `match_baseline` which test is which;
3. `next_step` asks for fresh samples until they agree, and `compare_test` with `judge_comparison` says what
   they showed;
4. `make_baseline` and `save_baseline` accept what was measured; `compare_reports` compares two reports as they are.

Nothing here measures or prints: a verdict is a record with a message that explains itself and its caveats.
"""
